"""Every YAML under experiments/ is read, composed as it is meant to be, and trains a step."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
import yaml
from tiny import arguments, tiny_options, write_clip, write_jhmdb, write_penn

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from good import make_coco, make_mpii, make_posetrack

from bipose_lit.ablation.manifest import Manifest, load_manifest
from bipose_lit.ablation.plan import Plan
from bipose_lit.cli import build, main, resolve
from bipose_lit.metrics import coco, pckh
from bipose_lit.metrics.terms import parse
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.module import PoseModule
from bipose_lit.skeletons import find_skeleton
from bipose_lit.sweep.check import check_space
from bipose_lit.sweep.compare import Baselines
from bipose_lit.sweep.manifest import Sweep, load_sweep
from bipose_lit.sweep.plan import SweepPlan

FOLDER = Path(__file__).parents[2] / "experiments"
BASE = FOLDER / "base.yaml"
OVERLAYS = ("backbone", "codec", "data", "decoder", "logger", "loss", "pool", "refiner", "temporal", "trainer")
MANIFESTS = ("ablations", "recipes")
SWEEPS = ("sweeps",)
SCENES = ("scenes",)
FILES = sorted(FOLDER.rglob("*.y*ml"))
BESIDE = {
    "pool": ["decoder/regression.yaml"],
    "trainer/tiny.yaml": ["trainer/heads.yaml"],
    "decoder/linear.yaml": ["backbone/hrnet_w32.yaml"],
    "backbone/hrnet_w32.yaml": ["decoder/linear.yaml"],
    "decoder/vitpose.yaml": ["backbone/vit_small.yaml"],
    "backbone/vit_small.yaml": ["decoder/vitpose.yaml"],
    "backbone/vitpose_small.yaml": ["decoder/vitpose.yaml"],
    "refiner/lstm_pm.yaml": ["backbone/cpm.yaml", "decoder/cpm.yaml"],
    "refiner/lstm_pm_matched.yaml": ["backbone/cpm.yaml", "decoder/cpm.yaml"],
    "decoder/part_filters.yaml": ["backbone/hog.yaml"],
    "backbone/hog.yaml": ["decoder/part_filters.yaml"],
    **{
        f"{one}/{name}.yaml": [f"{other}/{name}.yaml"]
        for name in ("hourglass", "cpm", "recurrent")
        for one, other in (("backbone", "decoder"), ("decoder", "backbone"))
    },
}
"""What an overlay, or all of a folder, needs beside the base."""
NARROW = {
    "HourglassStem": {"channels": 16},
    "StackedHourglass": {"stacks": 2},
    "CPMTrunk": {"channels": 4, "kernel": 3},
    "CPMStages": {"reduced": 4, "wide": 8, "wide_kernel": 3, "channels": 4, "kernel": 3},
    "RecurrentTrunk": {"channels": 4},
    "RecurrentDecoder": {"channels": 8, "kernel": 3, "reach": 5},
    "LSTMPoseMachine": {"hidden": 4, "reduced": 4, "channels": 4, "kernel": 3},
}
"""What makes the classic networks tiny, by class."""


def kind(path: Path) -> str:
    folder = path.relative_to(FOLDER).parts[0]
    if path == BASE:
        return "base"
    kinds = {"overlay": OVERLAYS, "manifest": MANIFESTS, "sweep": SWEEPS, "scenes": SCENES}
    return next((name for name, folders in kinds.items() if folder in folders), "")


def beside(path: Path) -> list[Path]:
    name = path.relative_to(FOLDER)
    needed = BESIDE.get(name.as_posix(), BESIDE.get(name.parts[0], []))
    return [BASE, *(FOLDER / other for other in needed)]


@cache
def alone(*files: Path) -> dict[str, Any]:
    """What the files below an overlay say without it."""
    return resolve(files)


def of(wanted: str) -> list[Any]:
    return [pytest.param(p, id=p.relative_to(FOLDER).as_posix()) for p in FILES if kind(p) == wanted]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, Path]:
    """Tiny sets in the official layouts, by reader; "train": other clips under the lists of split 2."""
    folder = tmp_path_factory.mktemp("sets")
    for number in range(100, 104):
        write_clip(folder / "train", number, "train", lists=2)
    found = {"COCO": make_coco, "MPII": make_mpii, "PoseTrack18": make_posetrack}
    for name, make in found.items():
        (folder / name).mkdir()
        make(folder / name)
    jhmdb = write_jhmdb(folder / "jhmdb")
    (jhmdb / "puppet_mask").mkdir()  # none in it: the joints' boxes are taken
    (jhmdb / "sub_splits").mkdir()
    shutil.copy(jhmdb / "splits" / "move_test_split1.txt", jhmdb / "sub_splits" / "move_test_split_1.txt")
    return {
        "JHMDB": jhmdb,
        "PennAction": write_penn(folder / "penn"),
        "train": folder / "train",
        "features": folder / "features",
        **{name: folder / name for name in found},
    }


def roots(option: str, reader: Mapping[str, Any], sets: Mapping[str, Path]) -> dict[str, str]:
    """Options that let a reader, or the one that it wraps, read a tiny set."""
    inner = reader.get("init_args", {}).get("reader")
    if inner:
        return roots(f"{option}.init_args.reader", inner, sets)
    return {f"{option}.init_args.root": str(sets[reader["class_path"].rpartition(".")[2]])}


def step(
    files: Sequence[Path], sets: dict[str, Path], folder: Path, keep_backbone: bool = False, command: bool = True
) -> dict[str, Any]:
    """One training and validation step of a configuration with everything made tiny that is not in question.

    By the command line, or, in half the time, as arms and trials are made: `resolve`, `build`, a Trainer.
    """
    config = resolve(files)
    model, data, trainer = config["model"], config["data"], config["trainer"]
    keep_backbone = keep_backbone or model["backbone"]["class_path"].endswith(".HOGFeatures")  # small as it is
    options = tiny_options(Path())
    del options["data.reader.init_args.root"]
    options |= roots("data.reader", data["reader"], sets)
    if keep_backbone:
        del options["model.backbone.class_path"], options["model.backbone.init_args.name"]
    if not keep_backbone or "pretrained" in model["backbone"]["init_args"]:
        options["model.backbone.init_args.pretrained"] = False
    options["model.weights"] = None
    for slot in ("backbone", "decoder", "refiner"):
        small = NARROW.get((model[slot] or {"class_path": ""})["class_path"].rpartition(".")[2], {})
        if slot != "backbone" or keep_backbone:
            options |= {f"model.{slot}.init_args.{name}": value for name, value in small.items()}
    if "size" in model["backbone"]["init_args"] and keep_backbone:
        options["model.backbone.init_args.size"] = options["data.size"]
    given = model["backbone"]["init_args"].get("kwargs") or {}
    if keep_backbone and "img_size" in given:
        options["model.backbone.init_args.kwargs"] = {**given, "img_size": options["data.size"]}
    if not model["decoder"]["class_path"].endswith(".DeconvDecoder"):
        del options["model.decoder.init_args.channels"]
    if not model["codec"]["class_path"].endswith(".HeatmapCodec"):
        del options["model.codec.init_args.sigma"]
    if "sigma" in ((model["refiner"] or {}).get("init_args") or {}):
        options["model.refiner.init_args.sigma"] = options["model.codec.init_args.sigma"]
    if data["train_reader"]:
        same = data["train_reader"]["class_path"] == data["reader"]["class_path"]
        options |= roots("data.train_reader", data["train_reader"], {**sets, "JHMDB": sets["train"]} if same else sets)
    if data["cache"]:
        options["data.cache.root"] = str(sets["features"])
    if "val_fraction" in data["reader"]["init_args"] and data["reader"]["class_path"].endswith((".COCO", ".MPII")):
        options["data.reader.init_args.val_fraction"] = 0.3  # of eight pictures
    options["data.batch_size"] = max(options["data.batch_size"], trainer["accumulate_grad_batches"] or 1)
    options |= {"data.num_workers": 0, "data.pin_memory": False}
    options |= {"trainer.accelerator": "cpu", "trainer.devices": 1, "trainer.strategy": "auto"}
    options["model.compile"] = False  # a minute: tests/test_compile.py
    if isinstance(trainer["logger"], dict):
        options["trainer.logger.init_args.save_dir"] = str(folder / "logs")
        options["trainer.logger.init_args.mode"] = "offline"
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    place = ["--trainer.fast_dev_run=true", f"--trainer.default_root_dir={folder}"]
    if command:
        named = [word for file in files for word in ("-c", str(file))]
        main(["fit", *named, *arguments(options), *quiet, *place])
        return config
    torch.manual_seed(config["seed_everything"])
    module, data, chosen = build(resolve(files, [*arguments(options), *quiet, *place]))
    L.Trainer(**{**chosen, "logger": False}).fit(module, datamodule=data)
    return config


def compose(manifest: Manifest | Sweep, overlays: Sequence[Any], folder: Path) -> list[Path]:
    """The files of an arm; settings written in the manifest itself become a file."""
    files = list(manifest.base)
    for number, overlay in enumerate(overlays):
        if not isinstance(overlay, Path):
            path = folder / f"inline{number}.yaml"
            path.write_text(yaml.safe_dump(dict(overlay)))
            overlay = path
        files.append(overlay)
    return [f for f in files if yaml.safe_load(f.read_text())]


def stand_in(path: Path, folder: Path) -> Path:
    """The manifest in a copy of experiments/ in which its weights file is there in any case."""
    copy = folder / "experiments"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("results", "*.safetensors"))
    given = yaml.safe_load(path.read_text()).get("weights")
    if given:
        file = copy / path.relative_to(FOLDER).parent / given
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return copy / path.relative_to(FOLDER)


def test_every_file_has_its_place():
    homeless = [p.relative_to(FOLDER).as_posix() for p in FILES if not kind(p)]
    assert not homeless, f"no test runs {homeless}: put them in {OVERLAYS} (overlays) or {MANIFESTS} (manifests)"
    assert len(FILES) > 10


def test_base(sets, tmp_path):
    config = step([BASE], sets, tmp_path)
    assert config["model"]["temporal"] is None


@pytest.mark.parametrize("path", of("overlay"))
def test_overlay(path, sets, tmp_path):
    folder = path.relative_to(FOLDER).parts[0]
    keep = "backbone" in {folder, *(other.parent.name for other in beside(path))}
    command = folder in ("trainer", "logger")  # whose options the command line alone makes objects of
    config = step([*beside(path), path], sets, tmp_path, keep_backbone=keep, command=command)
    assert config != alone(*beside(path)) or path.stem in ("none", "synthetic")
    assert path.read_text().startswith("# "), "the first line says what it is for"


@pytest.mark.parametrize(
    ("overlays", "size"),
    [
        (["backbone/hourglass.yaml", "decoder/hourglass.yaml"], (256, 256)),
        (["backbone/cpm.yaml", "decoder/cpm.yaml"], (368, 368)),
        (["backbone/recurrent.yaml", "decoder/recurrent.yaml"], (248, 248)),
        (["backbone/cpm.yaml", "decoder/cpm.yaml", "refiner/lstm_pm.yaml"], (368, 368)),
    ],
    ids=["hourglass", "cpm", "recurrent", "lstm_pm"],
)
def test_classic_networks_are_built_at_full_size(overlays, size):
    """What `test_overlay` makes tiny: overlays say what the classes' own defaults are, for the papers' crops."""
    model = resolve([BASE, *(FOLDER / name for name in overlays)])["model"]
    parts = {slot: instantiate(model[slot]) for slot in ("backbone", "decoder", "refiner") if model[slot]}
    PoseNetwork(**parts, joints=15, size=size)
    for slot, part in parts.items():
        usual = type(part)().config()["init_args"]
        found = part.config()["init_args"]
        if slot == "decoder" and "refiner" in parts:
            assert found.pop("stages") == 1 < usual.pop("stages")
        assert found == pytest.approx(usual, abs=1e-3)


@pytest.mark.parametrize("path", of("manifest"))
def test_manifest(path, sets, tmp_path):
    manifest = load_manifest(stand_in(path, tmp_path))
    assert manifest.question.endswith("?")
    assert path.read_text().startswith("# "), "the first line says what it is for"
    arms = dict(manifest.arms)
    if manifest.stage1_config:
        arms["stage1"] = manifest.stage1_config
    configs = []
    for arm, overlays in arms.items():
        folder = tmp_path / arm
        folder.mkdir()
        files = compose(manifest, overlays, folder)
        own = any(file.parent.name == "backbone" for file in files)
        configs.append(step(files, sets, folder, keep_backbone=own, command=False))
    assert len({str(c) for c in configs}) == len(configs), "two arms are the same"


RECIPES = [p for p in of("manifest") if p.values[0].parent.name == "recipes" and p.values[0].stem != "stage1"]


def known_metrics(reader: str, box: str) -> set[str]:
    """Names, without the split, of what a reader's own measure gives."""
    if reader == "COCO":
        return {f"{name}[{box}]" for name in coco.NAMES}
    blank = np.ones((1, 16, 2))
    found = pckh.scores(blank, blank, np.zeros((1, 16), bool), np.ones(1))
    names = (
        f"{measure[:-1]},{box}]" if measure.endswith("]") else f"{measure}[{box}]"
        for measure in found
        if "/" not in measure
    )
    return set(names)


@pytest.mark.parametrize("path", RECIPES)
def test_recipes_say_what_they_expect(path):
    """One arm; numbers under names that its data give, each with its source; and that nobody here has trained it."""
    manifest = load_manifest(path)
    assert len(manifest.arms) == 1
    assert manifest.name == path.stem
    assert manifest.notes.startswith("Not trained here.")
    config = Plan(manifest, Path("runs"), resolve).config(next(iter(manifest.arms)), {})
    reader = config["data"]["reader"]
    names = [manifest.endpoint, *manifest.metrics, *(e.metric for e in manifest.expected)]
    if reader["class_path"].endswith(".JHMDB"):
        known = {n for n in names if parse(n)}
        assert manifest.expected[0].metric.endswith(f",{reader['init_args']['box_rule']}]")
    else:
        known = known_metrics(reader["class_path"].rpartition(".")[2], reader["init_args"]["box_rule"]) | {
            "pck@0.5[head]"
        }
    assert set(names) <= known
    assert manifest.expected
    for expected in manifest.expected:
        assert 0 < expected.value < 1
        assert "commit" in expected.source or "the same" in expected.source or "the paper's Table 1" in expected.source
    assert config["trainer"]["accelerator"] == "auto"
    assert config["model"]["joints"] == {"COCO": 17, "MPII": 16, "JHMDB": 15}[reader["class_path"].rpartition(".")[2]]
    assert find_skeleton(config["model"]["codec"]["init_args"]["skeleton"]).joints


@pytest.mark.parametrize("path", of("sweep"))
def test_sweep(path, sets, tmp_path):
    """The space fits the options, and a trial of every branch trains."""
    sweep = load_sweep(stand_in(path, tmp_path))
    assert sweep.question.endswith("?")
    assert path.read_text().startswith("# "), "the first line says what it is for"
    plan = SweepPlan(sweep, tmp_path / "runs", resolve)
    check_space(plan)
    space = sweep.space
    configs = []
    for number, branch in enumerate(space.branches()):
        point = dict(branch)
        for name, entry in space.entries.items():
            if name not in point and space.active(name, point):
                values = entry.listed()
                point[name] = entry.low if values is None else values[0]
        folder = tmp_path / f"trial{number}"
        folder.mkdir()
        configs.append(step(compose(sweep, plan.overlays(point), folder), sets, folder, command=False))
    assert len({str(c) for c in configs}) == len(configs), "two branches are the same"
    for name, overlays in Baselines(plan).arms().items():
        (tmp_path / name).mkdir()
        resolve(compose(sweep, overlays, tmp_path / name))


@pytest.mark.parametrize("path", of("manifest"))
def test_weights_that_a_manifest_names_come_with_it_and_fit(path):
    given = yaml.safe_load(path.read_text()).get("weights")
    if not given:
        pytest.skip("names no weights")
    manifest = load_manifest(path)
    overlays = next(iter(manifest.arms.values()))
    config = resolve([*manifest.base, *(o for o in overlays if isinstance(o, Path))])
    parts = {name: instantiate(config["model"][name]) for name in ("backbone", "decoder", "codec", "loss")}
    module = PoseModule(
        **parts,
        joints=config["model"]["joints"],
        size=tuple(config["data"]["size"]),
        weights=str(manifest.weights),
        weights_for=config["model"]["weights_for"],
    )
    module.start_from_weights()


@pytest.mark.parametrize("path", of("scenes"))
def test_scenes(path, sets, tmp_path):
    """openpose.yaml is complete, and the others of its folder go with it; a step in tiny frames, the network as it is written."""
    whole = FOLDER / "scenes" / "openpose.yaml"
    files = [whole] if path == whole else [whole, path]
    config = resolve(files)
    assert config["task"] == "scenes"
    assert path.read_text().startswith("# "), "the first line says what it is for"
    module, data, _ = build(resolve(files, {"data.reader.init_args.root": str(sets["COCO"])}))
    assert module.codec.stride == data.stride == module.network.backbone.spec.stride
    options = {
        "model.backbone.init_args.pretrained": False, "data.reader.init_args.root": str(sets["COCO"]), "data.num_workers": 0,
        "data.size": [64, 64], "data.eval_size": [96, 64], "data.batch_size": 2, "data.eval_batch_size": 2,
        "trainer.accelerator": "cpu",
    }  # fmt: skip
    quiet = [
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.fast_dev_run=true",
    ]
    named = [word for file in files for word in ("-c", str(file))]
    main(["fit", *named, *arguments(options), *quiet, f"--trainer.default_root_dir={tmp_path}"])


def test_overlays_of_one_slot_leave_the_others_alone():
    base = resolve([BASE])
    for folder in ("temporal", "backbone"):
        for path in sorted((FOLDER / folder).glob("*.yaml")):
            config = resolve([BASE, path])
            config["model"].pop(folder)
            other = {k: v for k, v in base["model"].items() if k != folder}
            assert {k: v for k, v in config["model"].items() if k != "pool"} == {
                k: v for k, v in other.items() if k != "pool"
            }
            assert (config["data"], config["trainer"]) == (base["data"], base["trainer"]), path
