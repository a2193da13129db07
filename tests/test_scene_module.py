"""Whole images through the command line: training, scoring without boxes, checkpoints, mistakes told in one line."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from plain_parts import PlainBackbone
from scene_sets import write_scenes
from tiny import arguments

from bipose_lit import geometry
from bipose_lit.__main__ import main as command
from bipose_lit.callbacks.scene_evaluation import SceneEvaluation
from bipose_lit.cli import build, main, resolve
from bipose_lit.codecs.assembly import People
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.coco import COCO
from bipose_lit.datasets.transforms import Augmentation
from bipose_lit.losses import HeatmapMSE
from bipose_lit.losses.scene import SceneMSE
from bipose_lit.metrics.scene_state import SceneCollector, scene_scores
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.openpose import OpenPoseDecoder
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.recipe import Recipe
from bipose_lit.scene_datamodule import SceneDataModule
from bipose_lit.scene_module import SceneModule
from bipose_lit.skeletons import COCO as SKELETON
from bipose_lit.store import config_hash
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint

FOLDER = Path(__file__).parents[1] / "experiments" / "scenes"
TESTS = Path(__file__).parent
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
DECODER = {"limbs": 21, "fields": 2, "heatmaps": 1, "reduced": [6], "blocks": 1, "width": [4, 4], "hidden": [6, 6]}
NAMES = ("ap", "ap50", "ap75", "ap_m", "ar", "ar50", "ar75", "ar_m")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def tiny(root: Path, **more) -> dict:
    """Options over openpose.yaml for a run of seconds."""
    return {
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 4,
        "trainer.val_check_interval": 2,
        "model.backbone.class_path": "plain_parts.PlainBackbone",
        "model.backbone.init_args.channels": 6,
        "model.decoder.init_args": DECODER,
        "model.codec.init_args.stride": 4,
        "data.stride": 4,
        "data.size": [96, 96],
        "data.eval_size": [128, 96],
        "data.reader.init_args.root": str(root),
        "data.reader.init_args.val_fraction": 0.3,
        "data.batch_size": 2,
        "data.eval_batch_size": 2,
        "data.num_workers": 0,
        **more,
    }  # fmt: skip


def line(root: Path, folder: Path, *more: str, what: str = "fit", **options) -> list[str]:
    files = ["-c", str(FOLDER / "openpose.yaml")]
    return [what, *files, *arguments(tiny(root, **options)), f"--trainer.default_root_dir={folder}", *QUIET, *more]


def make(**options) -> SceneModule:
    torch.manual_seed(0)
    return SceneModule(
        **{
            "backbone": PlainBackbone(6),
            "decoder": OpenPoseDecoder(21, 1, 1, [6], 1, [4, 4], [6, 6]),
            "codec": SceneCodec(4),
            "loss": SceneMSE(),
            "joints": 17,
            "size": (96, 96),
            "recipe": Recipe("sgd", 0.05),
            **options,
        }
    )


def data(root: Path, **options) -> SceneDataModule:
    given = {"size": (96, 96), "stride": 4, "batch_size": 2, **options}
    return SceneDataModule(COCO(root, val_fraction=0.3), **given)


def trainer(folder: Path, **options) -> L.Trainer:
    return L.Trainer(
        **{
            "default_root_dir": folder, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False,
            "enable_model_summary": False, "enable_checkpointing": False, "num_sanity_val_steps": 0, "max_steps": 4,
            "use_distributed_sampler": False, **options,
        }
    )  # fmt: skip


# --- it runs ---------------------------------------------------------------------------------------------------------


def test_fit_then_test_from_the_checkpoint_and_the_kept_configuration(root, tmp_path):
    main(line(root, tmp_path))
    config = (tmp_path / "config.yaml").read_text()
    assert "task: scenes" in config
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    module = SceneModule.load_from_checkpoint(checkpoint)
    assert (module.codec.stride, module.network.size, len(module.codec.limbs)) == (4, (96, 96), 21)
    for what in ("validate", "test", "predict"):
        main([what, "-c", str(tmp_path / "config.yaml"), f"--ckpt_path={checkpoint}", *QUIET])
    again = SceneModule.load_from_checkpoint(checkpoint)
    assert fingerprint(again.network) == fingerprint(module.network)


def test_it_goes_on_from_its_checkpoint_to_the_same_weights(root, tmp_path):
    """In the middle of an epoch too: order and views are functions of seed, epoch and item."""
    constant = {"model.recipe.schedule": "constant", "model.recipe.warmup": 0, "trainer.val_check_interval": None}
    for name, steps in (("whole", (5,)), ("parts", (3, 5))):
        for n, step in enumerate(steps):
            more = ["--ckpt_path=last"] if n else []
            main(line(root, tmp_path / name, *more, **constant, **{"trainer.max_steps": step}))
    whole, parts = (next((tmp_path / n).rglob("last.ckpt")) for n in ("whole", "parts"))
    one, two = (SceneModule.load_from_checkpoint(p).network for p in (whole, parts))
    assert fingerprint(one) == fingerprint(two)


def test_scores_carry_their_name_and_nobody_is_a_number_too(root, tmp_path):
    """An untrained network finds nobody; the images and labelled people are counted."""
    module, scenes = make(), data(root)
    runner = trainer(tmp_path)
    runner.test(module, datamodule=scenes, verbose=False)
    (found,) = (c.metrics["test"] for c in runner.callbacks if isinstance(c, SceneEvaluation))
    assert {f"test/{n}[whole-image]" for n in NAMES} <= set(found)
    assert found["test/ap[whole-image]"] == 0
    assert (found["test/images"], found["test/persons"], found["test/found"]) == (3, 3, 0)
    assert found["test/loss"] > 0
    assert "test_ap_whole_image" in runner.callback_metrics


@pytest.mark.parametrize("size", [(96, 96), (128, 96)])
def test_ground_truth_maps_score_perfectly(root, tmp_path, monkeypatch, size):
    """Through the whole of scoring: assembly, original pixels, COCO's measure; in frames of another size than training's too."""
    module, scenes = make(), data(root, eval_size=size)
    monkeypatch.setattr(module, "_encoded", lambda batch: module._target(batch, batch.valid)[0])
    runner = trainer(tmp_path)
    runner.test(module, datamodule=scenes, verbose=False)
    (scoring,) = (c for c in runner.callbacks if isinstance(c, SceneEvaluation))
    assert scoring.metrics["test"]["test/ap[whole-image]"] == pytest.approx(1.0)
    assert scoring.metrics["test"]["test/loss"] == 0
    assert {image: len(p) for image, p in scoring.people["test"].items()} == {101: 1, 102: 2, 103: 0}
    from scene_sets import people_of

    found = scoring.people["test"][102].joints
    truth = people_of(102, 2)
    order = [int(np.abs(found - person).mean((1, 2)).argmin()) for person in truth]
    np.testing.assert_allclose(found[order], truth, atol=0.5)


def test_a_mirrored_view_is_turned_back(root, monkeypatch):
    """The flip test averages maps of both views: of perfect maps, perfect maps."""
    from bipose_lit.datasets.scene_samples import collate_scenes

    module = make(flip_test=True)
    batch = collate_scenes([data(root).dataset("test")[i] for i in (0, 1)])
    target = module._target(batch, batch.valid)[0]
    views = iter([target, module.codec.flip(target)])
    monkeypatch.setattr(module, "_encoded", lambda batch: next(views))
    out = module.predict_step(batch)
    assert float(out["loss"]) < 1e-9
    assert [len(p) for p in out["people"]] == [1, 2]


def test_a_part_of_a_split_has_no_measure(root, tmp_path, caplog):
    module, scenes = make(), data(root)
    runner = trainer(tmp_path, limit_test_batches=1)
    runner.test(module, datamodule=scenes, verbose=False)
    (found,) = (c.metrics["test"] for c in runner.callbacks if isinstance(c, SceneEvaluation))
    assert not any("ap[" in name for name in found)
    assert found["test/images"] == 2
    assert "2 of 3 images were scored: no measure of it" in caplog.text


def test_a_temporal_head_may_stand_before_the_decoder(root, tmp_path):
    module = make(temporal=ConvLSTM(hidden=3, direction="forward"))
    trainer(tmp_path, max_steps=1, limit_val_batches=1).fit(module, datamodule=data(root))


# --- training --------------------------------------------------------------------------------------------------------


def weights_after(root, folder, **options) -> dict[str, torch.Tensor]:
    module = make()
    runner = trainer(folder, max_steps=3, limit_val_batches=0, **options)
    runner.fit(module, datamodule=data(root, batch_size=4))
    return module.state_dict()


def test_accumulated_batches_make_one_step(root, tmp_path):
    """Four of the images have people, and the last step of an epoch is filled up with samples that count for nothing."""
    one = weights_after(root, tmp_path)
    two = weights_after(root, tmp_path, accumulate_grad_batches=2)
    start = make().state_dict()
    moved = max(float((one[k] - start[k]).abs().max()) for k in one)
    assert moved > 1e-4
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6 + 1e-4 * moved)


def test_images_of_nobody_are_scored_and_not_trained_on(root):
    scenes = data(root)
    with_people = [s.image for s in scenes.index("train").scenes if len(s.joints)]
    assert [s.image for s in scenes.dataset("train").scenes] == with_people
    assert 3 in {s.image for part in ("train", "val") for s in scenes.index(part).scenes}
    assert len(scenes.dataset("test")) == 3
    assert scenes.dataset("train").augmentation is None
    assert data(root, augmentation=Augmentation()).dataset("val").augmentation is None


def test_a_skeleton_without_sigmas_is_told_before_training(root, monkeypatch):
    scenes = data(root)
    index = scenes.reader.scenes("val")
    plain = replace(index, skeleton=replace(index.skeleton, sigmas=()))
    monkeypatch.setattr(scenes.reader, "scenes", lambda split: plain)
    with pytest.raises(BiposeError, match="skeleton coco has no sigmas, so people have no OKS and no AP"):
        scenes.index("val")


def test_a_set_of_nobody_teaches_nothing(tmp_path):
    root = write_scenes(tmp_path, {"train": (0, 0, 0), "val": (1,)})
    with pytest.raises(BiposeError, match="nobody has a labelled joint: there is nothing to learn"):
        SceneDataModule(COCO(root, val_fraction=0.0), (96, 96)).index("train")
    nobody = write_scenes(tmp_path / "two", {"train": (1,), "val": (0, 0)})
    index = SceneDataModule(COCO(nobody), (96, 96)).index("test")
    assert [len(s.joints) for s in index.scenes] == [0, 0]
    scored = scene_scores(index.truth, {101: People(*_nobody()), 102: People(*_nobody())}, 1, SKELETON.sigmas)
    assert all(np.isnan(v) for v in scored.values())


def _nobody():
    return np.zeros((0, 17, 2)), np.zeros((0, 17)), np.zeros(0)


# --- several processes -----------------------------------------------------------------------------------------------


def test_each_process_gathers_everybody_once(monkeypatch):
    """An image that a sampler gave to two processes counts once, and all see the same order."""
    states = []
    for images in ((5, 1), (2, 5), ()):
        state = SceneCollector()
        for image in images:
            rng = np.random.default_rng(image)
            state.update(image, People(rng.random((2, 17, 2)), rng.random((2, 17)), rng.random(2)))
        state.update(images[0], People(*_nobody())) if images else None
        states.append(state)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)

    def gather(parts, mine):
        parts[:] = [s.found for s in states]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for state in states:
        whole = state.gather()
        assert list(whole) == [1, 2, 5]
        assert all(len(p) == 2 for p in whole.values())


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_train_and_score_as_one(root, tmp_path):
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    found = {}
    for name, more in (("one", []), ("two", ["--trainer.devices=2", "--trainer.strategy=ddp"])):
        witness = [{"class_path": "strange_parts.Witness", "init_args": {"folder": str(tmp_path / name)}}]
        words = line(root, tmp_path / name, *more, f"--trainer.callbacks={json.dumps(witness)}")
        done = subprocess.run(
            [sys.executable, "-m", "bipose_lit", *words], env=environment, capture_output=True, text=True, timeout=280
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = {p.stem: json.loads(p.read_text()) for p in sorted((tmp_path / name).glob("*.json"))}
    assert {k: v["world"] for k, v in found["two"].items()} == dict.fromkeys(("fit-0", "fit-1", "val-0", "val-1"), 2)
    assert found["two"]["val-0"]["metrics"] == found["two"]["val-1"]["metrics"]
    one, two = found["one"]["val-0"]["metrics"], found["two"]["val-0"]["metrics"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


# --- mistakes --------------------------------------------------------------------------------------------------------

MISTAKES = [
    (["--data.stride=8"], r"^data.stride is 8, that of model.codec 4; make them equal$"),
    (["--data.size=[100,98]"], r"images of 100x98 are no multiple of the maps' stride 4; 100x96 would be one"),
    (["--data.eval_size=[128,90]"], r"^data.eval_size: images of 128x90 are no multiple of .* stride 4; 128x88 would be one$"),
    (["--model.joints=15"], r"skeleton coco has 17 joints, the data 15"),
    (["--model.codec.init_args.skeleton=jhmdb", "--model.joints=15", "--model.decoder.init_args.limbs=14"],
     r"^model.joints is 15, but the data's skeleton \(coco\) has 17; set model.joints to 17$"),
    (["--model.decoder.init_args.limbs=19"], r"predicts 38 maps, the codec has 21 limbs .*set decoder.init_args.limbs to 21$"),
    (["--data.reader.init_args.root=/nowhere"], r"^/nowhere: no such folder; give the one that holds annotations"),
    (["--model.codec=bipose_lit.codecs.heatmap.HeatmapCodec"], r"^loss SceneMSE needs pafs, codec HeatmapCodec makes heatmaps"),
    (["--model.loss=bipose_lit.losses.HeatmapMSE"], r"^SceneModule: codec SceneCodec with loss HeatmapMSE is of single persons"),
    (["--model.refiner=bipose_lit.models.temporal.conv_lstm.ConvLSTM"], r"^model.refiner refines single persons; leave it null"),
    (["--task=dogs"], r"^task takes one of persons, scenes, not 'dogs'$"),
    (["--task=persons"], r"^there is no option data.stride; "),
    (["--data.eval_siez=[64,64]"], r"^there is no option data.eval_siez; did you mean data.eval_size\?$"),
    (["--model.codec.init_args.sigmma=1"], r"no option model.codec.sigmma; did you mean sigma\? SceneCodec takes stride, "),
    (["--data.batch_size=0"], r"^data: batch sizes and stride are 1 or more"),
    (["--data.reader=bipose_lit.datasets.jhmdb.JHMDB"], r"JHMDB is no class that fits here"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "told"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_told_in_one_line(root, tmp_path, args, told):
    with pytest.raises(BiposeError, match=told) as error:
        main(line(root, tmp_path, *args))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 420


def test_the_command_prints_one_line_and_fails(root, tmp_path, capsys):
    assert command(line(root, tmp_path, "--data.stride=8")) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_data_of_single_persons_are_refused(root, tmp_path):
    persons = PoseDataModule(COCO(root, val_fraction=0.3), size=(96, 96), batch_size=2)
    with pytest.raises(
        BiposeError, match="learns from whole images, not from PoseDataModule: fit it with a SceneDataModule"
    ):
        trainer(tmp_path).fit(make(), datamodule=persons)
    with pytest.raises(BiposeError, match="codec HeatmapCodec with loss HeatmapMSE is of single persons"):
        make(codec=HeatmapCodec(4, 2.0), loss=HeatmapMSE(), decoder=DeconvDecoder([], 0))


def test_a_frame_of_another_size_is_told(root, tmp_path):
    with pytest.raises(BiposeError, match=r"model.size is \(96, 96\), data.size \(64, 96\); make them equal"):
        trainer(tmp_path).fit(make(), datamodule=data(root, size=(64, 96)))


# --- the task --------------------------------------------------------------------------------------------------------


def test_a_configuration_says_its_task_and_that_of_persons_needs_not(root):
    config = resolve([FOLDER / "openpose.yaml", FOLDER / "narrow.yaml"], tiny(root))
    assert config["task"] == "scenes"
    module, scenes, _ = build(config)
    assert isinstance(module, SceneModule)
    assert isinstance(scenes, SceneDataModule)
    assert scenes.eval_size == (128, 96)
    base = Path(__file__).parents[1] / "experiments" / "base.yaml"
    persons = resolve([base])
    assert "task" not in persons
    assert config_hash(persons) == config_hash(resolve([base], ["--task=persons"])), "older results stay valid"


def test_an_ablation_of_scenes_is_refused(root):
    from bipose_lit.run import data_fingerprint

    config = resolve([FOLDER / "openpose.yaml", FOLDER / "narrow.yaml"], tiny(root))
    with pytest.raises(BiposeError, match="task scenes: ablations and sweeps are of single persons in boxes"):
        data_fingerprint(config)


# --- real images -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(("split", "least"), [("train", 0.80), ("test", 0.82)])
def test_ground_truth_maps_of_real_images_score_well(real_data, split, least, capsys):
    """What the assembly reaches with perfect maps: people of fewer than three joints are lost, and parts that no limb holds."""
    index = COCO(real_data / "coco_mini", val_fraction=0.0).scenes(split)
    codec, found = SceneCodec(), {}
    codec.build(17, (368, 368))
    for scene in index.scenes:
        matrix = geometry.crop_matrix((0, 0, *scene.size), (368, 368))
        joints = geometry.apply(matrix, scene.joints.reshape(-1, 2)).reshape(1, -1, 17, 2)
        encoded, _ = codec.encode(torch.from_numpy(joints), torch.from_numpy(scene.visible)[None])
        (people,) = codec.people(encoded)
        back = geometry.apply(np.repeat(geometry.invert(matrix)[None], len(people), 0), people.joints)
        found[scene.image] = People(back, people.confidence, people.score)
    scored = scene_scores(index.truth, found, index.category, index.skeleton.sigmas)
    with capsys.disabled():
        print(
            f"\ncoco_mini {split}, ground-truth maps: AP {scored['ap']:.3f}, AP50 {scored['ap50']:.3f}, AR {scored['ar']:.3f}"
        )
    assert scored["ap"] >= least
    assert scored["ap50"] >= 0.88
