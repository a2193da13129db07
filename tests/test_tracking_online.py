"""W&B online, against a server that speaks its interface: what arrives, what a second mirroring adds, what an outage costs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_wandb import KEY, FakeService, serving
from test_tracking import METRIC, make_run, records

from bipose_lit import tracking
from bipose_lit.store import RunResult
from bipose_lit.tracking import mirroring
from bipose_lit.tracking import service as limits
from bipose_lit.types import BiposeError


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeService]:
    import wandb

    wandb.teardown()  # it reads the environment once, and notes its own process there
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    with serving() as found:
        monkeypatch.setenv("WANDB_BASE_URL", found.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
        yield found
        wandb.teardown()
        assert not found.unknown, "the client asked for what this server does not know"


def steps(rows: list[dict]) -> list[int]:
    return [row["_step"] for row in rows]


def test_what_arrives(service: FakeService, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    path = tracking.mirror(folder, tags=["trial"], predictions=True)
    assert path is not None
    assert path.parent == folder / "wandb"
    (run,) = service.runs.values()
    opened = run.upserts[0]
    assert (opened["project"], opened["groupName"], opened["jobType"]) == ("bipose", "question", "bilstm")
    assert (opened["displayName"], opened["tags"]) == ("bilstm/seed0", ["trial"])
    assert run.config["model"] == {"hidden": 7}
    assert run.config["facts"] == {"parameters": 12}
    assert steps(run.rows) == [0, 10, 20, 30, 40, 41]
    assert run.rows[3]["val/pck_0_1_clip_clip_box"] == pytest.approx(0.3)
    assert run.summary["test/pck_0_1_clip_clip_box"] == 0.75
    assert (run.summary["status"], run.summary["state"]) == ("finished", "finished")
    assert run.exits == [0]
    table = json.loads(next(content for name, content in run.files.items() if "clusters" in name))
    assert table["columns"][:3] == ["cluster", "joints", "pck@0.1[clip]"]
    assert table["data"][0][:2] == ["a", 12]
    (handed,) = [a for a in service.artifacts.values() if a.kind == "predictions"]
    assert handed.name == f"predictions-{next(iter(service.runs))}"
    assert handed.committed
    assert handed.files == {"predictions-test.npz": (folder / "predictions-test.npz").read_bytes()}


def test_a_run_that_goes_on_is_one_run_and_no_step_is_told_twice(service: FakeService, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    RunResult("question", "bilstm", 0, "failed", config_hash="abc", error="killed").save(folder)
    tracking.mirror(folder)
    (run,) = service.runs.values()
    assert (steps(run.rows), run.summary["status"], run.exits) == ([0, 10, 20, 30, 40], "failed", [1])
    make_run(tmp_path, steps=8)
    tracking.mirror(folder)
    assert list(service.runs.values()) == [run]
    assert run.resumes == 1
    assert steps(run.rows) == [0, 10, 20, 30, 40, 50, 60, 70, 71]
    assert run.overwritten == []
    assert (run.summary["status"], run.exits) == ("finished", [1, 0])
    asked = len(service.requests)
    tracking.mirror(folder)
    assert len(service.requests) == asked, "what is there is not sent again"
    tracking.mirror(folder, tags=["best"])
    assert run.last("tags") == ["best"]
    assert steps(run.rows)[-1] == 71


def test_an_offline_copy_is_continued_online_and_the_other_way_round(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path)
    first = tracking.mirror(folder, mode="offline")
    tracking.mirror(folder, mode="online")
    assert len(service.runs) == 1
    assert first is not None
    assert not first.exists()
    make_run(tmp_path, steps=7)
    last = tracking.mirror(folder, mode="offline")
    assert last is not None
    told = [r["history"]["step"]["num"] for r in records(last) if r["type"] == "history"]
    assert told == [50, 60, 61], "the rest of a run that W&B holds"


def test_who_is_offline_asks_the_service_nothing(service: FakeService, tmp_path: Path) -> None:
    """W&B's own process would report on its use at its end, logged in or not; so a process of its own, and its end."""
    make_run(tmp_path)
    code = f"from pathlib import Path\nfrom bipose_lit import tracking\ntracking.mirror_all(Path({str(tmp_path)!r}))"
    without = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_ERROR_REPORTING")
    environment = {k: v for k, v in os.environ.items() if k not in without} | {"NETRC": str(tmp_path / "none")}
    before = len(service.requests)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.rglob("offline-run-*"))
    assert service.requests[before:] == []


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "outage", ["refused", "slow", pytest.param("error", marks=SLOW), pytest.param("closed", marks=SLOW)]
)
def test_an_outage_costs_one_line_and_the_next_mirroring_catches_up(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    monkeypatch.setattr(limits, "REQUEST", 1.0)
    monkeypatch.setattr(limits, "OPEN", 3.0)
    monkeypatch.setattr(limits, "PAUSE", 0.2)
    for seed in range(3):
        make_run(tmp_path, seed)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    if outage == "closed":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    service.status = {"refused": 401, "error": 500}.get(outage, 0)
    service.delay = 30.0 if outage == "slow" else 0.0
    with pytest.raises(BiposeError) as told:
        tracking.mirror_all(tmp_path)
    line = str(told.value)
    assert "\n" not in line
    assert "0 of 3 runs" in line
    assert ("wandb login" if outage == "refused" else "catches up") in line
    assert not service.runs
    assert {p: p.read_bytes() for p in before} == before
    service.status, service.delay = 0, 0.0
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    assert len(tracking.mirror_all(tmp_path)) == 3
    assert [run.summary["test/pck_0_1_clip_clip_box"] for run in service.runs.values()] == [0.75] * 3


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # W&B's own threads, when it is given up
@pytest.mark.parametrize("status", [401, pytest.param(500, marks=SLOW)])
def test_an_outage_in_the_middle_is_noticed(
    service: FakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """W&B's client ends in good order when the connection is lost; the run must not count as mirrored."""
    monkeypatch.setattr(limits, "CONFIRM", 0.5)
    monkeypatch.setattr(limits, "PAUSE", 0.2)
    folder = make_run(tmp_path)
    fill = mirroring.fill

    def broken(run, *args):
        service.status = status
        return fill(run, *args)

    monkeypatch.setattr(mirroring, "fill", broken)
    with pytest.raises(BiposeError, match=r"catches up|wandb login"):
        tracking.mirror(folder)
    assert not (folder / "wandb" / tracking.MARKER).exists()
    service.status = 0
    monkeypatch.setattr(mirroring, "fill", fill)
    tracking.mirror(folder)
    (run,) = service.runs.values()
    assert steps(run.rows) == [0, 10, 20, 30, 40, 41]
    assert run.summary[tracking.alias(METRIC)] == 0.75
    noted = json.loads((folder / "wandb" / tracking.MARKER).read_text())
    assert [p.name for p in (folder / "wandb").glob("run-*")] == [noted["run"]]
