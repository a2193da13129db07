"""A training that was killed and went on equals one that was not, to the last bit: weights, optimiser, metrics, history."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from resume_jobs import PLACES, Jobs, jobs
from tiny import arguments, tiny_options, write_jhmdb

from bipose_lit.callbacks.checkpoint_io import LAST, newest
from bipose_lit.cli import resolve
from bipose_lit.store import HISTORY, WEIGHTS, Predictions, RunResult, RunSpec, config_hash

FOLDER = Path(__file__).parents[1] / "experiments"
KILL, TERM, USR1 = 9, 15, 10
SKIP = ("best_model_path", "kth_best_model_path", "dirpath", "best_k_models", "current_score")
"""Of ModelCheckpoint's state: places, and the last score, which Lightning writes down but does not read back."""
STEPS, EPOCH = 11, 4  # optimiser steps of a run and of an epoch


@dataclass(frozen=True)
class Case:
    """How a training is run.

    Attributes:
        kind: "execute" (a run of an ablation) or "fit" (the command).
        world: processes.
        workers: loader processes, each.
        accumulate: batches per optimiser step.
        epochs: epochs decide the length, and validation and callbacks come at their ends; else steps do.
        every: steps between two checkpoints.
        cache: a frozen backbone's features are kept on the disk.
    """

    kind: str = "execute"
    world: int = 1
    workers: int = 0
    accumulate: int = 1
    epochs: bool = False
    every: int = 1
    cache: bool = False

    @property
    def name(self) -> str:
        return (
            f"{self.kind}-{self.world}-{self.workers}-{self.accumulate}-{self.epochs}-{self.every}"
            + "-cache" * self.cache
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Jobs]:
    with jobs() as made:
        yield made


class Site:
    """Data, and the uninterrupted training of every case that was asked for."""

    def __init__(self, folder: Path, server: Jobs) -> None:
        self.folder, self.server = folder, server
        self.root = write_jhmdb(folder / "data", train=EPOCH * 4, val=3, test=2)
        self.whole: dict[Case, Path] = {}
        self.left: dict[Path, int] = {}
        self.count = 0

    def options(self, case: Case, folder: Path) -> dict[str, Any]:
        callbacks: list[dict[str, Any]] = [
            {"class_path": "resume_jobs.Witness", "init_args": {"folder": "WITNESS"}},
            {"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.7}},
            {
                "class_path": "lightning.pytorch.callbacks.EarlyStopping",
                "init_args": {"monitor": "val/loss", "patience": 50, "min_delta": 0.0},
            },
            {
                "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                "init_args": {"monitor": "val/loss", "dirpath": str(folder / "best"), "enable_version_counter": False},
            },
        ]
        cache = {
            "class_path": "bipose_lit.feature_cache.FeatureCache",
            "init_args": {"root": str(self.folder / "cache"), "dtype": "float32", "progress": False},
        }
        return tiny_options(
            self.root,
            **{
                "trainer.max_steps": -1 if case.epochs else STEPS,
                "trainer.max_epochs": 3 if case.epochs else -1,
                "trainer.val_check_interval": 1.0 if case.epochs else 3,
                "trainer.check_val_every_n_epoch": 1 if case.epochs else None,
                "trainer.accumulate_grad_batches": case.accumulate,
                "trainer.devices": case.world,
                "trainer.strategy": "ddp" if case.world > 1 else "auto",
                "trainer.callbacks": callbacks,
                "trainer.enable_progress_bar": False,
                "trainer.enable_model_summary": False,
                "model.temporal.init_args.hidden": 4,
                "model.temporal.init_args.dropout": 0.3,
                "data.batch_size": 4,
                "data.supervise": 0.5,
                "data.num_workers": case.workers,
                "checkpoint.every_n_steps": case.every,
                "checkpoint.every_minutes": None,
                "checkpoint.epoch_ends": False,
                **({"data.cache": cache, "model.freeze_backbone": True} if case.cache else {}),
            },
        )

    def start(self, case: Case, folder: Path, kill: tuple[int, str, int, int] | None = None, **more: Any) -> list[int]:
        """Runs a case in a folder, from where it is; exit codes."""
        folder.mkdir(exist_ok=True)
        files = [FOLDER / "base.yaml", FOLDER / "temporal" / "bilstm.yaml"]
        options = self.options(case, folder)
        # The place is no part of what is learned, but it is of the configuration's hash: the same in all runs of a case.
        options["trainer.callbacks"][0]["init_args"]["folder"] = str(folder)
        job: Any
        if case.kind == "fit":
            given = [f"-c={file}" for file in files]
            job = ["fit", *given, *arguments(options), f"--trainer.default_root_dir={folder}", "--ckpt_path=last"]
        else:
            config = resolve(files, options)
            job = str(RunSpec("trial", "a", 0, folder, config, config_hash=config_hash(config)).save())
        return self.server.run(
            kind=case.kind, arguments=job, log=str(folder / "log.txt"), world=case.world, kill=kill, **more
        )

    def straight(self, case: Case) -> Path:
        """The uninterrupted training of a case; it wrote no checkpoint on the way."""
        key = replace(case, every=1000)
        if key not in self.whole:
            folder = self.folder / f"whole-{key.name}"
            codes = self.start(key, folder)
            assert codes == [0] * case.world, (folder / "log.txt").read_text()[-3000:]
            self.whole[key] = folder
        return self.whole[key]

    def interrupted(self, case: Case, *kills: tuple[int, str, int, int], damage: bool = False) -> Path:
        """A training that died or was stopped at each of `kills` and went on every time.

        With `damage` from the checkpoint before the last, of which half is lost.
        """
        self.count += 1
        folder = self.folder / f"killed-{self.count}"
        left = 0  # times that there was something to go on from
        for kill in kills:
            codes = self.start(case, folder, kill)
            log = (folder / "log.txt").read_text()[-3000:]
            if kill[3] == KILL:
                assert codes[kill[2]] == -KILL, (kill, codes, log)
                assert 0 not in codes, "a rank went on without the other"
            else:
                assert codes[0] == 128 + kill[3], (kill, codes, log)
            assert not (folder / "result.json").exists()
            if damage:
                last = folder / "checkpoints" / LAST
                last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
            left += newest(folder / "checkpoints") is not None
        self.left[folder] = left
        codes = self.start(case, folder)
        assert codes == [0] * case.world, (codes, (folder / "log.txt").read_text()[-3000:])
        return folder

    def compare(self, case: Case, folder: Path) -> None:
        """Everything that a training leaves, against the uninterrupted one."""
        whole = self.straight(case)
        for rank in range(case.world):
            one, two = (torch.load(f / f"end-{rank}.pt", weights_only=False) for f in (whole, folder))
            equal(one, two, skip=SKIP)
            # Every step that was done, once or again, was the same step.
            told, expected = (lines(f / f"told-{rank}.jsonl") for f in (folder, whole))
            assert len(expected) == len({json.dumps(line) for line in expected})
            assert {json.dumps(line) for line in told} == {json.dumps(line) for line in expected}
        if case.kind == "execute":
            first, second = (RunResult.load(f) for f in (whole, folder))
            assert first is not None
            assert second is not None
            assert second.metrics == first.metrics
            assert second.facts == first.facts
            assert second.weights_hash == first.weights_hash
            assert second.measured["resumed"] == self.left[folder]
            assert (folder / HISTORY).read_text() == (whole / HISTORY).read_text()
            assert (folder / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
            assert not (folder / "checkpoints" / LAST).exists()
            for name in first.predictions.values():
                one, two = (Predictions.load(f / name) for f in (whole, folder))
                assert one.pred.tobytes() == two.pred.tobytes()
        else:
            one, two = (torch.load(f / "checkpoints" / LAST, weights_only=True) for f in (whole, folder))
            equal(one, two, skip=SKIP)
            assert [p.name for p in (folder / "checkpoints").iterdir()] == [LAST]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def equal(one: Any, two: Any, skip: tuple[str, ...] = (), where: str = "") -> None:
    """Equal to the last bit, all the way down, but for the entries named in `skip`."""
    if isinstance(one, torch.Tensor):
        assert isinstance(two, torch.Tensor), where
        assert one.dtype == two.dtype, where
        assert torch.equal(one, two), f"{where}: {(one.double() - two.double()).abs().max()}"
    elif isinstance(one, Mapping):
        assert one.keys() == two.keys(), where
        for key in one:
            if key not in skip:
                equal(one[key], two[key], skip, f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for number, (a, b) in enumerate(zip(one, two, strict=True)):
            equal(a, b, skip, f"{where}[{number}]")
    elif "/" not in str(one):  # a place
        assert one == two, where


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, server: Jobs) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("resume"), server)
    yield made
    shutil.rmtree(made.folder, ignore_errors=True)


# One kill in each of the cases: epoch boundary and mid-epoch, loader workers, accumulation, run and command, one process and two.


def test_a_run_killed_in_the_middle_of_an_epoch(site: Site) -> None:
    case = Case("execute", workers=2)
    folder = site.interrupted(case, (6, "update", 0, KILL))
    site.compare(case, folder)
    begun = [line for line in lines(folder / "told-0.jsonl") if line["what"] == "batch" and line["step"] == 1]
    assert len(begun) == 1, "it went on, it did not start again"


def test_a_fit_killed_at_the_end_of_an_epoch(site: Site) -> None:
    case = Case("fit", accumulate=2, epochs=True, every=2)
    folder = site.interrupted(case, (2 * EPOCH, "epoch", 0, KILL), damage=True)
    site.compare(case, folder)
    log = (folder / "log.txt").read_text()
    assert "last.ckpt is damaged and is not used" in log
    assert "previous.ckpt" in log


@pytest.mark.ddp
def test_a_run_on_two_processes_of_which_one_is_killed(site: Site) -> None:
    case = Case("execute", world=2, accumulate=2, epochs=True)
    site.compare(case, site.interrupted(case, (EPOCH, "start", 1, KILL)))


@pytest.mark.ddp
def test_a_fit_on_two_processes_of_which_one_is_killed(site: Site) -> None:
    case = Case("fit", world=2, workers=2, every=2)
    site.compare(case, site.interrupted(case, (6, "validated", 0, KILL)))


# --- signals ---------------------------------------------------------------------------------------------------------


def test_a_warned_run_ends_with_a_checkpoint_and_goes_on(site: Site) -> None:
    """Once in a step, once when a validation is due, which is then made first; nothing is done twice."""
    case = Case("execute", workers=2, every=1000)
    folder = site.interrupted(case, (2, "backward", 0, TERM), (6, "end", 0, USR1))
    site.compare(case, folder)
    told, expected = (lines(f / "told-0.jsonl") for f in (folder, site.straight(case)))
    assert sorted(map(str, told)) == sorted(map(str, expected))
    log = (folder / "log.txt").read_text()
    assert "stopped by SIGTERM after step 3, with a checkpoint in" in log
    assert "stopped by SIGUSR1 after step 6, with a checkpoint in" in log
    result = RunResult.load(folder)
    assert result is not None
    assert result.measured["resumed"] == 2


@pytest.mark.ddp
def test_a_warning_to_one_process_of_two_stops_both_at_one_step(site: Site) -> None:
    case = Case("fit", world=2, workers=2, every=1000)
    folder = site.interrupted(case, (5, "start", 1, USR1))
    site.compare(case, folder)
    told = [sum(line["what"] == "batch" for line in lines(folder / f"told-{rank}.jsonl")) for rank in (0, 1)]
    assert told == [STEPS, STEPS]
    said = [
        line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("bipose: stopped by SIGUSR1")
    ]
    assert len(said) == 1


@pytest.mark.ddp
def test_a_full_disk_ends_two_processes_in_one_line(site: Site) -> None:
    case = Case("fit", world=2, every=2)
    folder = site.folder / "full"
    assert site.start(case, folder, file_bytes=100_000) == [1, 1]
    said = [line for line in (folder / "log.txt").read_text().splitlines() if line.startswith("bipose: ")]
    assert len(said) == 1
    assert said[0].startswith("bipose: error: the checkpoint of step 2 could not be written to ")
    assert list((folder / "checkpoints").iterdir()) == []


# --- at random -------------------------------------------------------------------------------------------------------

ALL = [
    Case(kind, world, workers, accumulate, epochs, every)
    for number, (kind, world, workers, accumulate, epochs) in enumerate(
        (kind, world, workers, accumulate, epochs)
        for kind in ("execute", "fit")
        for world in (1, 2)
        for workers in (0, 2)
        for accumulate in (1, 2)
        for epochs in (False, True)
    )
    for every in [1 + number % 3]
] + [Case("execute", every=3, cache=True), Case("execute", world=2, accumulate=2, every=2, cache=True)]


@pytest.mark.slow
@pytest.mark.ddp
@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_killed_anywhere_and_gone_on(site: Site, case: Case) -> None:
    rng = random.Random(case.name)
    last = 3 * EPOCH if case.epochs else STEPS
    kill = (0, "start", 0, KILL)
    while not reachable(case, kill):
        kill = (rng.randrange(last), rng.choice(PLACES), rng.randrange(case.world), KILL)
    site.compare(case, site.interrupted(case, kill))


def reachable(case: Case, kill: tuple[int, str, int, int]) -> bool:
    """Whether the training comes by the place at all; and it is not in the first step, where there is nothing to go on from."""
    step, place, rank, _ = kill
    if place == "write":
        return rank == 0 and step > 0 and step % case.every == 0
    if place in ("validation", "validated"):
        return step > 0 and step % (EPOCH if case.epochs else 3) == 0
    if place == "epoch":
        return step > 0 and step % EPOCH == 0
    return step > 0
