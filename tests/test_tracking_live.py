"""`bipose fit` watched in W&B, killed and resumed: one run, every metric of every step once, as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_wandb import KEY, FakeService, serving
from resume_jobs import Jobs
from test_tracking import records
from tiny import arguments, tiny_options, write_jhmdb

from bipose_lit import tracking
from bipose_lit.tracking.logger import _on_server as on_server

pytestmark = pytest.mark.ddp
EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STEP = "trainer/global_step"
KILLED = -9


@pytest.fixture(scope="module")
def service() -> Iterator[FakeService]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def server(service: FakeService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    home = tmp_path_factory.mktemp("home")
    made = Jobs(
        {
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(Path(__file__).parent),
            "WANDB_BASE_URL": service.url,
            "WANDB_API_KEY": KEY,
            "WANDB_CONFIG_DIR": str(home),
            "WANDB_DATA_DIR": str(home),
        }
    )
    try:
        yield made
    finally:
        assert made.process.stdin is not None
        made.process.stdin.close()
        made.process.wait(30)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"), train=16, val=3, test=2)


def fit(server: Jobs, root: Path, folder: Path, mode: str, kill: list | None = None, resume: bool = False) -> int:
    """One process of a fit of ten steps, with a checkpoint every fourth and a validation every fifth."""
    folder.mkdir(exist_ok=True)
    options = tiny_options(
        root,
        **{
            "trainer.max_steps": 10,
            "trainer.val_check_interval": 5,
            "trainer.check_val_every_n_epoch": None,
            "trainer.log_every_n_steps": 1,
            "trainer.callbacks": [{"class_path": "resume_jobs.Witness", "init_args": {"folder": str(folder)}}],
            "trainer.enable_progress_bar": False,
            "trainer.enable_model_summary": False,
            "trainer.default_root_dir": str(folder),
            "trainer.logger.init_args.save_dir": str(folder / "watched"),
            "trainer.logger.init_args.mode": mode,
            "checkpoint.every_n_steps": 4,
            "checkpoint.every_minutes": None,
            "checkpoint.epoch_ends": False,
            "data.batch_size": 4,
        },
    )
    line = ["fit", "-c", EXPERIMENTS / "base.yaml", "-c", EXPERIMENTS / "logger" / "wandb.yaml", *arguments(options)]
    if resume:
        line.append("--ckpt_path=last")
    (code,) = server.run(kind="fit", arguments=[str(w) for w in line], log=str(folder / "log.txt"), kill=kill)
    return code


def logged(rows: list[dict]) -> dict[tuple[int, str], float]:
    """Values by step and metric; each at most once. Rows of training and of validation at one step both tell the epoch."""
    found: dict[tuple[int, str], float] = {}
    for row in rows:
        for key, value in row.items():
            if key not in (STEP, "epoch") and not key.startswith("_"):
                assert (row[STEP], key) not in found, f"{key} of step {row[STEP]} is there twice"
                found[row[STEP], key] = value
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(p for p in (folder / "watched" / "wandb").glob("*run-*") if p.is_dir() and not p.is_symlink())


def rows_of(segment: Path) -> list[dict]:
    return [r["history"]["item"] for r in records(segment) if r["type"] == "history"]


def sync(service: FakeService, home: Path, *folders: Path) -> None:
    """`wandb sync`."""
    environment = {
        "WANDB_BASE_URL": service.url,
        "WANDB_API_KEY": KEY,
        "WANDB_CONFIG_DIR": str(home),
        "HOME": str(home),
    }
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    subprocess.run(command, env={"PATH": "/usr/bin:/bin", **environment}, check=True, capture_output=True)


def quiet(service: FakeService) -> None:
    """Waits until W&B's own process, which outlives a killed one for moments, has nothing more to send."""
    before, since = len(service.requests), time.monotonic()
    while time.monotonic() - since < 3:
        time.sleep(0.1)
        if len(service.requests) != before:
            before, since = len(service.requests), time.monotonic()


@pytest.fixture(scope="module")
def whole(server: Jobs, root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, str], float]:
    """What an uninterrupted fit logs."""
    folder = tmp_path_factory.mktemp("whole")
    assert fit(server, root, folder, "offline") == 0
    (segment,) = segments(folder)
    found = logged(rows_of(segment))
    assert {step for step, key in found if key == "train/loss"} == set(range(10))
    assert any(key.startswith("val/") for _, key in found)
    return found


def test_offline_segments_are_one_run(
    server: Jobs, root: Path, whole: dict, service: FakeService, tmp_path: Path
) -> None:
    assert fit(server, root, tmp_path, "offline", kill=[7, "start", 0, 9]) == KILLED
    assert fit(server, root, tmp_path, "offline", resume=True) == 0
    (found,) = segments(tmp_path)
    name = found.name.rsplit("-", 1)[1]
    assert logged(rows_of(found)) == whole
    sync(service, tmp_path, found)
    run = service.runs[name]
    assert logged(run.rows) == whole
    assert run.overwritten == []
    assert fit(server, root, tmp_path, "offline") == 0
    third = segments(tmp_path)[-1]
    assert not third.name.endswith(name), "a fit that starts anew is a run of its own"
    assert logged(rows_of(third)) == whole


def test_online_segments_are_one_run(
    server: Jobs, root: Path, whole: dict, service: FakeService, tmp_path: Path
) -> None:
    before = set(service.runs)
    assert fit(server, root, tmp_path, "online", kill=[7, "start", 0, 9]) == KILLED
    (name,) = set(service.runs) - before
    quiet(service)
    assert fit(server, root, tmp_path, "online", resume=True) == 0
    assert set(service.runs) - before == {name}
    run = service.runs[name]
    assert run.resumes == 1
    assert logged(run.rows) == whole
    assert run.overwritten == []
    assert run.exits[-1] == 0


@pytest.mark.slow
def test_a_service_out_of_reach_makes_the_run_an_offline_one(
    server: Jobs, root: Path, whole: dict, service: FakeService, tmp_path: Path
) -> None:
    service.status = 401
    try:
        assert fit(server, root, tmp_path, "online") == 0
    finally:
        service.status = 0
    text = (tmp_path / "log.txt").read_text()
    assert text.count("this run is logged offline") == 1
    (segment,) = [s for s in segments(tmp_path) if s.name.startswith("offline-")]
    assert logged(rows_of(segment)) == whole


WRITER = """
import os, signal, sys, time
from bipose_lit import tracking
logger = tracking.wandb_logger(sys.argv[1], mode="offline")
first, last = map(int, sys.argv[2:])
for step in range(first, last):
    logger.log_metrics({f"metric{i}": step + i / 10 for i in range(10)}, step=step)
if last < 400:
    time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_log_that_a_dead_machine_left_cut_off(service: FakeService, tmp_path: Path) -> None:
    """Killed with W&B's own process, twice: its log ends within a record and misses what was in its memory."""
    for first, last in ((0, 250), (240, 300), (290, 400)):
        line = [sys.executable, "-c", WRITER, str(tmp_path), str(first), str(last)]
        code = subprocess.run(line, start_new_session=True, capture_output=True, check=False).returncode
        assert code == (0 if last == 400 else KILLED)
    (found,) = (tmp_path / "wandb").glob("offline-run-*")
    wanted = {(step, f"metric{i}"): step + i / 10 for step in range(400) for i in range(10)}
    assert logged(rows_of(found)) == wanted
    sync(service, tmp_path, found)
    assert logged(service.runs[found.name.rsplit("-", 1)[1]].rows) == wanted


def test_what_was_synced_stays_and_only_the_rest_follows(tmp_path: Path) -> None:
    first = tracking.wandb_logger(str(tmp_path), mode="offline")
    first.log_metrics({"a": 1.0}, step=3)
    first.experiment.finish()
    assert json.loads((tmp_path / "wandb" / "live.json").read_text())["id"] == first.version
    with (tmp_path / "wandb" / f"live-{first.version}.jsonl").open("a") as journal:
        journal.write('{"trainer/global_step": 9, "a"')
    (before,) = segments_of(tmp_path, first.version)
    next(before.glob("*.wandb")).with_suffix(".wandb.synced").touch()
    again = tracking.wandb_logger(str(tmp_path), mode="offline")
    assert again.version == first.version
    again.log_metrics({"a": 1.0, "b": 2.0}, step=3)
    again.log_metrics({"a": 2.0}, step=4)
    again.experiment.finish()
    (before_last,) = set(segments_of(tmp_path, first.version)) - {before}
    (before_last / "files" / "media").mkdir()
    last = tracking.wandb_logger(str(tmp_path), mode="offline")
    last.log_metrics({"a": 2.0}, step=4)
    last.log_metrics({"a": 3.0}, step=5)
    last.experiment.finish()
    assert before_last.is_dir(), "who logged pictures keeps them"
    with tracking.continuing(False):
        anew = tracking.wandb_logger(str(tmp_path), mode="offline")
    assert anew.version != first.version
    rows = [row for segment in segments_of(tmp_path, first.version) for row in rows_of(segment)]
    assert logged(rows) == {(3, "a"): 1.0, (3, "b"): 2.0, (4, "a"): 2.0, (5, "a"): 3.0}
    assert before.is_dir()


def segments_of(folder: Path, name: str) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*-{name}"))


@pytest.mark.parametrize(
    ("summary", "held"),
    [
        ({}, {}),
        ({STEP: 4, "a": 0.4}, {STEP: 4, "a": 4}),
        ({STEP: 5, "a": 0.5, "b": 0.2}, {STEP: 5, "a": 5, "b": 4}),  # the second row of step 5 is not there
        ({STEP: 5, "a": 0.5, "b": 0.3}, {STEP: 5, "a": 5, "b": 5}),
    ],
)
def test_what_the_service_holds(summary: dict, held: dict) -> None:
    rows = [{STEP: s, "a": s / 10} for s in range(6)] + [{STEP: 5, "b": 0.3}, {STEP: 6, "a": 0.6}]
    assert on_server(summary, rows) == held
