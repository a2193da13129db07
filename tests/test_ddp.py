"""Several processes: what they score is what one scores, and `bipose fit` trains on all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import arguments, tiny_options, write_jhmdb

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from good import make_coco

from bipose_lit.cli import build, resolve
from bipose_lit.weights import save_parts

pytestmark = pytest.mark.ddp
FOLDER = Path(__file__).parents[1] / "experiments"
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
THREE = ["--trainer.devices=3", "--trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Data with five validation clips of several lengths, and weights."""
    folder = tmp_path_factory.mktemp("ddp")
    root = write_jhmdb(folder / "data", train=6, val=5, test=1)
    options = tiny_options(root, **{"model.temporal.init_args.hidden": 4, "data.eval_batch_size": 1})
    torch.manual_seed(0)
    module, _, _ = build(resolve([FOLDER / "base.yaml", FOLDER / "temporal" / "bilstm.yaml"], options))
    save_parts(module.network, folder / "all.safetensors", ["backbone", "decoder", "temporal"])
    options["model.weights"] = str(folder / "all.safetensors")
    options["model.weights_for"] = ["backbone", "decoder", "temporal"]
    return folder, options


def command(
    folder: Path, name: str, subcommand: str, options, *more: str, overlay: str = "temporal/bilstm"
) -> dict[str, dict]:
    """Runs `bipose` in a process of its own; what each rank saw."""
    witness = {"class_path": "strange_parts.Witness", "init_args": {"folder": str(folder / name)}}
    files = ["-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / f"{overlay}.yaml")]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    place = [f"--trainer.default_root_dir={folder / name}", f"--trainer.callbacks={json.dumps([witness])}"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parent),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bipose_lit", subcommand, *files, *arguments(options), *quiet, *place, *more],
        env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {p.stem: json.loads(p.read_text()) for p in sorted((folder / name).glob("*.json"))}


def same(found: dict[str, dict], expected: dict[str, float], world: int) -> None:
    """Every rank holds the numbers of one process."""
    assert len(found) == world
    for rank in found.values():
        assert rank["world"] == world
        assert rank["metrics"] == found["val-0"]["metrics"]  # so checkpointing and early stopping agree
        assert rank["metrics"].keys() == expected.keys()
        for name, value in expected.items():
            assert rank["metrics"][name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_two_and_three_processes_score_as_one(site):
    folder, options = site  # five clips: neither two nor three divides them
    one = command(folder, "one", "validate", options)["val-0"]
    assert one["world"] == 1
    assert one["metrics"]["val/persons"] == sum(6 + number % 2 for number in range(6, 11))
    same(command(folder, "two", "validate", options, *TWO), one["metrics"], 2)
    same(command(folder, "three", "validate", options, *THREE), one["metrics"], 3)


def test_three_processes_give_the_average_precision_of_one(tmp_path):
    """COCO's measure looks at all persons at once: each process gathers them first.

    The weights are random, so half of the persons are so large that any place in the crop is right, half so small that none is.
    """
    root = tmp_path / "coco"
    root.mkdir()
    make_coco(root)
    path = root / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    for number, person in enumerate(content["annotations"]):
        person["area"] = 1e8 if number % 2 else 1e-2
    path.write_text(json.dumps(content))
    options = tiny_options(root, **{"data.eval_batch_size": 1, "data.reader.init_args.val_fraction": 0.6})
    overlay = "data/coco"
    module, _, _ = build(resolve([FOLDER / "base.yaml", FOLDER / f"{overlay}.yaml"], options))
    save_parts(module.network, tmp_path / "all.safetensors", ["backbone", "decoder"])
    options |= {"model.weights": str(tmp_path / "all.safetensors"), "model.weights_for": ["backbone", "decoder"]}
    one = command(tmp_path, "one", "validate", options, overlay=overlay)["val-0"]
    persons = one["metrics"]["val/persons"]
    assert persons % 2
    assert persons % 3
    assert 0 < one["metrics"]["val/ap[gt-box]"] < 1
    assert 0 < one["metrics"]["val/ar[gt-box]"] < 1
    same(command(tmp_path, "three", "validate", options, *THREE, overlay=overlay), one["metrics"], 3)


def test_fit_trains_on_two_processes(site):
    folder, options = site
    seen = command(folder, "fit", "fit", options, *TWO)
    assert seen["fit-0"]["world"] == 2
    assert seen["fit-0"]["steps"] == seen["fit-1"]["steps"] == 4
    assert seen["fit-0"]["weights"] == seen["fit-1"]["weights"]
    assert seen["val-0"]["metrics"] == seen["val-1"]["metrics"]
    assert list((folder / "fit").rglob("*.ckpt"))
    assert (folder / "fit" / "config.yaml").exists()
