"""Several processes: what they score is what one scores, and every way of starting them trains the same model."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from tiny import arguments, tiny_options, write_jhmdb

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from good import make_coco

from bipose_lit.cli import build, resolve
from bipose_lit.module import PoseModule
from bipose_lit.weights import save_parts

pytestmark = pytest.mark.ddp
FOLDER = Path(__file__).parents[1] / "experiments"
TESTS = Path(__file__).parent
LAUNCH = FOLDER / "launch"
TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
THREE = ["--trainer.devices=3", "--trainer.strategy=ddp"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHON": sys.executable,
}


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


def words(folder: Path, name: str, subcommand: str, options, *more: str, overlay: str = "temporal/bilstm", beside=()):
    """A `bipose` command line, after the program's name."""
    witness = {"class_path": "strange_parts.Witness", "init_args": {"folder": str(folder / name)}}
    files = ["-c", str(FOLDER / "base.yaml"), "-c", str(FOLDER / f"{overlay}.yaml")]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    callbacks = f"--trainer.callbacks={json.dumps([witness, *beside])}"
    place = [f"--trainer.default_root_dir={folder / name}", callbacks]
    return [subcommand, *files, *arguments(options), *quiet, *place, *more]


def told(folder: Path) -> dict[str, dict]:
    """What each rank saw."""
    return {p.stem: json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))}


def command(
    folder: Path, name: str, subcommand: str, options, *more: str, overlay: str = "temporal/bilstm"
) -> dict[str, dict]:
    """Runs `bipose` in a process of its own; what each rank saw."""
    line = [sys.executable, "-m", "bipose_lit", *words(folder, name, subcommand, options, *more, overlay=overlay)]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return told(folder / name)


def same(found: dict[str, dict], expected: dict[str, float], world: int) -> None:
    """Every rank holds the numbers of one process."""
    assert len(found) == world
    for rank in found.values():
        assert rank["world"] == world
        assert rank["metrics"] == found["val-0"]["metrics"]  # so checkpointing and early stopping agree
        equal(rank["metrics"], expected)


def equal(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def free_port() -> int:
    """A port of the range that SLURM's job numbers lead to."""
    for port in range(15001 + os.getpid() % 5000, 24999):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.mark.slow
def test_two_and_three_processes_score_as_one(site):
    folder, options = site  # five clips: neither two nor three divides them
    one = command(folder, "one", "validate", options)["val-0"]
    assert one["world"] == 1
    assert one["metrics"]["val/persons"] == sum(6 + number % 2 for number in range(6, 11))
    same(command(folder, "two", "validate", options, *TWO), one["metrics"], 2)
    same(command(folder, "three", "validate", options, *THREE), one["metrics"], 3)


@pytest.mark.slow
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
    module, data, _ = build(resolve([FOLDER / "base.yaml", FOLDER / f"{overlay}.yaml"], options))
    save_parts(module.network, tmp_path / "all.safetensors", ["backbone", "decoder"])
    options |= {"model.weights": str(tmp_path / "all.safetensors"), "model.weights_for": ["backbone", "decoder"]}
    one = score(module, data, tmp_path)
    assert one["val/persons"] % 2
    assert one["val/persons"] % 3
    assert 0 < one["val/ap[gt-box]"] < 1
    assert 0 < one["val/ar[gt-box]"] < 1
    same(command(tmp_path, "three", "validate", options, *THREE, overlay=overlay), one, 3)


def score(module, data, folder: Path) -> dict[str, float]:
    """Validation by one process, in this one."""
    torch.set_num_threads(1)
    trainer = L.Trainer(
        default_root_dir=folder, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.validate(module, datamodule=data, verbose=False)
    return next(c.metrics["val"] for c in trainer.callbacks if hasattr(c, "metrics"))


# --- every way of starting them --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(site):
    """The fit of two processes that Lightning starts."""
    folder, options = site
    return command(folder, "fit", "fit", options, *TWO)


def agree(found: dict[str, dict], fitted: dict[str, dict]) -> None:
    """Two ranks that trained what Lightning's own two trained, to the last bit."""
    assert found.keys() == fitted.keys()
    for name, rank in fitted.items():
        assert found[name] == rank, name


def test_fit_trains_on_two_processes(site, fitted):
    folder, options = site
    assert fitted["fit-0"]["world"] == 2
    assert fitted["fit-0"]["steps"] == fitted["fit-1"]["steps"] == 4
    assert fitted["fit-0"]["weights"] == fitted["fit-1"]["weights"]
    assert fitted["val-0"]["metrics"] == fitted["val-1"]["metrics"]
    assert (folder / "fit" / "config.yaml").exists()
    # The last validation was of the weights that the last checkpoint holds: one process scores them alike.
    checkpoint = max((folder / "fit").rglob("*.ckpt"), key=lambda p: p.stat().st_mtime_ns)
    _, data, _ = build(resolve([FOLDER / "base.yaml", FOLDER / "temporal" / "bilstm.yaml"], options))
    alone = score(PoseModule.load_from_checkpoint(checkpoint), data, folder)
    both = fitted["val-0"]["metrics"]  # without the figures of single joints, which a fit leaves out
    assert len(both) > 10
    equal({name: alone[name] for name in both}, both)


def test_torchrun_on_two_nodes_trains_the_same(site, fitted):
    folder, options = site
    port = str(free_port())
    nodes = [
        subprocess.Popen(
            [str(LAUNCH / "torchrun.sh"), *words(folder, "torchrun", "fit", options)],
            env={**ENVIRONMENT, "NODES": "2", "NODE": str(node), "PORT": port},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    for node in nodes:
        said, _ = node.communicate(timeout=240)
        assert node.returncode == 0, said[-3000:]
    agree(told(folder / "torchrun"), fitted)


@pytest.mark.slow
def test_machines_that_see_different_checkpoints_are_told_so(site, fitted):
    """Each node has a folder of its own; only the first holds something to go on from."""
    folder, options = site
    port = str(free_port())
    nodes = [
        subprocess.Popen(
            [str(LAUNCH / "torchrun.sh"), *words(folder, place, "fit", options, "--trainer.max_steps=6", "--ckpt_path=last")],
            env={**ENVIRONMENT, "NODES": "2", "NODE": str(node), "PORT": port},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node, place in enumerate(("fit", "elsewhere"))
    ]  # fmt: skip
    said = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [1, 1]
    (line,) = [line for text in said for line in text.splitlines() if line.startswith("bipose: error: ")]
    assert "the processes would go on from different checkpoints, of steps 0 to 4: " in line


@pytest.mark.timeout(600)  # three starts
def test_a_slurm_job_that_is_warned_goes_on_to_the_same_model(site, fitted):
    """By stand-ins for sbatch, srun and scontrol; two nodes of one task on loopback, warned by SIGUSR1 after two steps."""
    folder, options = site
    place = folder / "slurm-state"
    place.mkdir()
    warn = {"class_path": "unruly_parts.Touch", "init_args": {"path": str(place / "warn"), "step": 2}}
    bins = f"{TESTS / 'slurm'}{os.pathsep}{os.environ['PATH']}"
    environment = {**ENVIRONMENT, "PATH": bins, "STAND_IN": str(place), "STAND_IN_JOB": f"{free_port() - 15000:04d}"}
    done = subprocess.run(
        ["sbatch", str(LAUNCH / "slurm.sh"), *words(folder, "slurm", "fit", options, beside=[warn])],
        env=environment, capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert (place / "starts").read_text().split() == ["0", "1"], "it was queued again, once"
    assert "goes on from its checkpoint" in done.stdout
    agree(told(folder / "slurm"), fitted)
