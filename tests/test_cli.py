"""The command line: it runs in process, takes short names, and says in one line what is wrong."""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import yaml
from tiny import K, arguments, break_joint, tiny_options, write_clip, write_jhmdb

from bipose_lit.__main__ import main as command
from bipose_lit.cli import build, main, resolve
from bipose_lit.datasets.jhmdb import JHMDB
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.module import PoseModule
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint, save_parts

BASE = Path(__file__).parents[1] / "experiments" / "base.yaml"
HEAD = "bipose_lit.models.temporal.conv_lstm.ConvLSTM"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"))


def line(root, tmp_path, *more: str, command: str = "fit", fast: bool = True, **options) -> list[str]:
    return [
        command,
        "-c",
        str(BASE),
        *arguments(tiny_options(root, **options)),
        *([f"--trainer.fast_dev_run={fast}".lower()] if fast else []),
        f"--trainer.default_root_dir={tmp_path}",
        *QUIET,
        *more,
    ]


# --- it runs ---------------------------------------------------------------------------------------------------------


def test_fit_runs_with_overlays_from_files_and_options(root, tmp_path, caplog):
    overlay = tmp_path / "head.yaml"
    overlay.write_text(f"model: {{temporal: {{class_path: {HEAD}, init_args: {{hidden: 4, direction: forward}}}}}}\n")
    with caplog.at_level(logging.INFO):
        main(line(root, tmp_path, "-c", str(overlay), "--model.temporal.init_args.direction=both"))
    assert "Tip: For seamless" not in caplog.text


def test_fit_then_test_from_the_checkpoint_and_the_kept_configuration(root, tmp_path):
    save_parts(build(resolve([BASE], tiny_options(root)))[0].network, tmp_path / "parts.safetensors")
    options = {"model.weights": str(tmp_path / "parts.safetensors"), "trainer.val_check_interval": None}
    main(line(root, tmp_path, fast=False, **options))
    config = tmp_path / "config.yaml"
    kept = yaml.safe_load(config.read_text())
    assert kept["model"]["backbone"]["init_args"]["name"] == "test_resnet"
    assert kept["data"]["size"] == [64, 64]
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    module = PoseModule.load_from_checkpoint(checkpoint)
    assert module.network.size == (64, 64)
    (tmp_path / "parts.safetensors").unlink()
    for subcommand in ("validate", "test", "predict"):
        main([subcommand, "-c", str(config), f"--ckpt_path={checkpoint}", *QUIET])
    with pytest.raises(BiposeError, match=r"parts.safetensors not found"):
        main(["test", "-c", str(config), *QUIET])


def test_the_command_prints_one_line_and_fails(root, tmp_path, capsys):
    assert command(line(root, tmp_path, "--model.temporl=null")) == 1
    out, err = capsys.readouterr()
    assert err == "bipose: error: there is no option model.temporl; did you mean model.temporal?\n"
    assert out == ""
    assert command(line(root, tmp_path)) == 0


def test_the_real_command_warns_of_nothing(root, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "bipose_lit", *line(root, tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    for noise in ("LightningCLI's args parameter", "Tip:", "transfer_batch_to_device", "LeafSpec"):
        assert noise not in done.stdout + done.stderr


def test_averaging_callback_from_yaml_is_what_is_kept(root, tmp_path):
    overlay = tmp_path / "ema.yaml"
    overlay.write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.EMAWeightAveraging\n"
        "      init_args: {decay: 0.0}\n"
    )
    main(line(root, tmp_path / "ema", "-c", str(overlay), fast=False, **{"trainer.val_check_interval": None}))
    (checkpoint,) = (tmp_path / "ema").rglob("*.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    averaged, raw = content["state_dict"], content["current_model_state"]
    # With decay 0 the average is the raw weights, so both paths through the callback can be told to agree.
    assert all(torch.equal(averaged[k], raw[k]) for k in raw)
    overlay.write_text(overlay.read_text().replace("decay: 0.0", "decay: 1.0"))
    main(line(root, tmp_path / "start", "-c", str(overlay), fast=False, **{"trainer.val_check_interval": None}))
    (checkpoint,) = (tmp_path / "start").rglob("*.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    name = "network.decoder.head.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])
    assert torch.equal(
        PoseModule.load_from_checkpoint(checkpoint).network.decoder.head.weight, content["state_dict"][name]
    )


# --- short names -----------------------------------------------------------------------------------------------------


def test_short_names_of_built_in_parts(root, tmp_path):
    args = ["--model.backbone", "TimmBackbone", "--model.backbone.name", "resnet10t"]
    args += ["--model.temporal", "ConvLSTM", "--model.temporal.hidden", "16"]
    args += ["--model.decoder", "RegressionDecoder", "--model.codec", "RegressionCodec", "--model.loss", "SmoothL1"]
    args += ["--model.pool", "ConvLSTM", "--model.pool.kernel", "1", "--model.pool.hidden", "8"]
    options = tiny_options(root)
    given = [a for a in arguments(options) if "backbone" not in a and "decoder" not in a and "codec" not in a]
    module, data, _ = build(resolve([BASE], [*given, *args]))
    assert isinstance(module.network.backbone, TimmBackbone)
    assert module.network.backbone.name == "resnet10t"
    assert isinstance(module.network.temporal, ConvLSTM)
    assert (module.network.temporal.hidden, module.network.pool.hidden, module.network.pool.kernel) == (16, 8, 1)
    assert isinstance(data.reader, JHMDB)


def test_another_backbone_inherits_nothing_from_the_narrow_one(root):
    args = ["--model.backbone=TimmBackbone", "--model.backbone.name=resnet50", f"--data.reader.init_args.root={root}"]
    module, _, _ = build(resolve([BASE], args))
    assert module.network.backbone.spec.channels == 2048


@pytest.mark.parametrize("name", ["TCN", "WindowMean", "TemporalAttention", "FiLM", "SpatialLSTM"])
def test_every_head_has_a_short_name(root, name):
    assert resolve([BASE], [f"--model.temporal={name}"])["model"]["temporal"]["class_path"].endswith(f".{name}")


def test_a_stranger_s_head_by_its_dotted_path(root, tmp_path):
    main(line(root, tmp_path, "--model.temporal=strange_parts.Smear", "--model.temporal.share=0.125"))


def test_a_plain_mapping_overrides_like_options(root):
    config = resolve(
        [BASE], {"model.temporal": {"class_path": HEAD, "init_args": {"hidden": 3}}, "model.recipe.lr": 1e-5}
    )
    assert config["model"]["temporal"]["init_args"]["hidden"] == 3
    assert config["model"]["recipe"]["lr"] == 1e-5
    assert config["model"]["size"] == config["data"]["size"]


# --- mistakes in options ---------------------------------------------------------------------------------------------

BACKBONES = "TimmBackbone, NarrowResNet, HOGFeatures, HourglassStem, CPMTrunk, RecurrentTrunk, PlainViT"
HEADS = "ConvLSTM, WindowMean, TCN, TemporalAttention, FiLM, SpatialLSTM"
OWN = r"a class of your own works by its dotted path \(package.module.Class\)$"
MISTAKES = [
    (["--model.refiner=ConvLSTN"], r"did you mean ConvLSTM"),
    (["--model.refiner=JointLST"], r"did you mean JointLSTM"),
    (["--model.refiner=PictorialStructure"], r"did you mean PictorialStructures"),
    (["--model.temporl=null"], r"^there is no option model.temporl; did you mean model.temporal\?$"),
    (["--model.recipe.lr_=1"], r"^there is no option model.recipe.lr_; did you mean lr\? Recipe takes optimizer, lr, "),
    (["--traner.max_steps=1"], r"^there is no option traner.max_steps; did you mean trainer.max_steps\?$"),
    (["--model.recpe.lr=1"], r"^there is no option model.recpe.lr; did you mean model.recipe.lr\?$"),
    (["--zzz=1"], r"^there is no option zzz; 'bipose fit --help' lists all$"),
    (["--model.temporal=Foo"], rf"^model.temporal: there is no class Foo; built in: {HEADS}; {OWN}"),
    (["--model.temporal=ConvLstm"], rf"^model.temporal: there is no class ConvLstm; did you mean ConvLSTM\?; .*{OWN}"),
    (["--model.temporal=nopackage.Foo"], rf"^model.temporal: there is no class nopackage.Foo \(no module nopackage .*{OWN}"),
    (["--model.temporal=bipose_lit.module.Foo"], rf"^model.temporal: there is no class bipose_lit.module.Foo; .*{OWN}"),
    (["--model.temporal=torch.nn.Linear"], rf"^model.temporal: torch.nn.Linear is no class that fits here; .*{OWN}"),
    (["--model.backbone=resnet18"], rf"^model.backbone: there is no class resnet18; built in: {BACKBONES}; {OWN}"),
    (["--data.reader=Foo"], rf"^data.reader: there is no class Foo; built in: bipose_lit.datasets.jhmdb.JHMDB, .*{OWN}"),
    (["--data.pixels=Foo"], r"built in: ColourJitter, Albumentations, InTurn;"),
    (["--model.temporal.hidden=8", "--model.temporal=ConvLSTM"], r"'hidden' means nothing before a class is chosen"),
    (["--model.temporal=ConvLSTM", "--model.temporal.hiden=8"], r"no option model.temporal.hiden; did you mean hidden\? "),
    (["--model.temporal=ConvLSTM", "--model.temporal.hidden=x"], r"^model.temporal.hidden takes an integer, not 'x'$"),
    (["--model.temporal=ConvLSTM", "--model.temporal.reduce=x"], r"^model.temporal.reduce takes an integer or null, not 'x'$"),
    (["--model.temporal=ConvLSTM", "--model.temporal.direction=up"], r"direction takes one of forward, both, not 'up'$"),
    (["--data.batch_size=many"], r"^data.batch_size takes an integer, not 'many'$"),
    (["--model.recipe.lr=fast"], r"^model.recipe.lr takes a number, not 'fast'$"),
    (["--model.flip_test=maybe"], r"^model.flip_test takes true or false, not 'maybe'$"),
    (["--data.size=128"], r"^data.size takes a list in brackets, not '128'$"),
    (["--data.clips.length=x"], r"^data.clips.length takes an integer or null, not 'x'$"),
    (["--model.size=[3,4]"], r"^model.size follows data.size: set that instead$"),
    (["--model.joints"], r"^--model.joints needs a value$"),
    (["--model.recipe.lr=-1"], r"^recipe: lr -1.0.* is out of range"),
    (["--data.clips.length=0"], r"^clip length 0 and stride 1 must be 1 or more$"),
    (["--trainer.accelerator=tpu"], r"torch_xla"),
    (["-c", "nofile.yaml"], r"^configuration nofile.yaml not found; check the path$"),
    (["--config=nofile.yaml"], r"^configuration nofile.yaml not found; check the path$"),
    (["--model.joints=16"], r"skeleton jhmdb has 15 joints, the data 16"),
    (["--model.codec.init_args.stride=8"], r"decoder predicts \[15, 16, 16\], codec makes \[15, 8, 8\]"),
    (["--data.reader.init_args.root=/nowhere"], r"^/nowhere: no such folder; make a set with 'bipose data make', or name where"),
    (["--model.weights=/nowhere.safetensors"], r"^weights /nowhere.safetensors not found"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "told"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_told_in_one_line(root, tmp_path, args, told):
    with pytest.raises(BiposeError, match=told) as error:
        main(line(root, tmp_path, *args))
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 320
    for jargon in ("Union", "NestedArg", "<class", "Parser key", "Subtypes"):
        assert jargon not in message


FILES = [
    ("model: {temporal: [1\n", r"overlay.yaml:2:1: broken YAML: "),
    ("model: {temporl: null}\n", r"^there is no option model.temporl; did you mean model.temporal\? \(in .*overlay.yaml\)$"),
    ("model: {flip_test: maybe}\n", r"^model.flip_test takes true or false, not 'maybe' \(in .*overlay.yaml\)$"),
    ("model: {temporal: {class_path: Foo}}\n", r"^model.temporal: there is no class Foo; .* \(in .*overlay.yaml\)$"),
    ("{model: {temporal: {class_path: HEAD, init_args: {hiden: 3}}}}", r"did you mean hidden\? .* \(in .*overlay.yaml\)$"),
    ("{model: {temporal: {class_path: HEAD, init_args: {hidden: x}}}}", r"hidden takes an integer, not 'x' \(in .*\)$"),
    ("", r"overlay.yaml: this is no configuration: it holds no options"),
    ("- a\n", r"overlay.yaml: this is no configuration"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), FILES)
def test_mistakes_in_files_name_the_file(root, tmp_path, text, told):
    (tmp_path / "overlay.yaml").write_text(text.replace("HEAD", HEAD))
    for call in (
        lambda: main(line(root, tmp_path, "-c", str(tmp_path / "overlay.yaml"))),
        lambda: resolve([BASE, tmp_path / "overlay.yaml"], tiny_options(root)),
    ):
        with pytest.raises(BiposeError, match=told) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_nearly_right_file_name_is_suggested(tmp_path):
    with pytest.raises(BiposeError, match=r"base.yml not found; did you mean .*base.yaml\?"):
        resolve([BASE.with_name("base.yml")])


def test_an_empty_command_says_what_is_needed():
    with pytest.raises(BiposeError, match=r"^not configured: model.backbone, .* start from a complete configuration"):
        main(["fit"])


# --- mistakes in the data --------------------------------------------------------------------------------------------


def test_truncated_picture(tmp_path):
    root = write_jhmdb(tmp_path / "data")
    picture = sorted(root.rglob("Rename_Images/move/scene00000_0/*.png"))[2]
    picture.write_bytes(picture.read_bytes()[:200])
    for workers in (0, 1):
        options = {"data.num_workers": workers, "data.clips.length": 6, "trainer.max_steps": 4}
        with pytest.raises(BiposeError, match=r"scene00000_0.00003.png") as error:
            main(line(root, tmp_path, fast=False, **options))
        assert "\n" not in str(error.value)


def test_joints_that_are_not_finite_are_counted_and_left_out(tmp_path, caplog):
    root = write_jhmdb(tmp_path / "data")
    break_joint(root)
    index = JHMDB(root).index("train")
    assert index.skipped == {"joints not finite, taken as absent": ["move/scene00000_0 (1)"]}
    assert index.tracks[0].visible[1, 3] == 0
    main(line(root, tmp_path))
    told = [r.getMessage() for r in caplog.records if "not finite" in r.getMessage()]
    assert told == ["jhmdb/split1/train[clip-box]: joints not finite, taken as absent: move/scene00000_0 (1)"]


def test_labels_of_another_skeleton(tmp_path):
    root = write_jhmdb(tmp_path / "data")
    file = root / "joint_positions" / "move" / "scene00000_0" / "joint_positions.mat"
    scipy.io.savemat(file, {"pos_img": np.ones((2, K - 1, 6))})
    with pytest.raises(
        BiposeError, match=r"joint_positions.mat: pos_img has shape \(2, 14, 6\), expected \(2, 15, frames\)"
    ):
        main(line(root, tmp_path))


@pytest.mark.parametrize("empty", ["train", "test"])
def test_empty_split(tmp_path, empty):
    counts = {"train": 3, "val": 2, "test": 2, empty: 0}
    root = tmp_path / "data"
    for number, split in enumerate(s for s, n in counts.items() for _ in range(n)):
        write_clip(root, number, split)
    subcommand = "test" if empty == "test" else "fit"
    with pytest.raises(BiposeError, match=rf"split 1 has no {empty} clips"):
        main(line(root, tmp_path, command=subcommand))


def test_building_twice_from_one_configuration_gives_one_model(root):
    config = resolve([BASE], tiny_options(root))
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        made.append(fingerprint(build(config)[0]))
    assert made[0] == made[1]
