"""Two machines' worth of workers that share only OUT and the queue do one ablation: the tables are those of one worker alone.

Two process groups stand for the machines: each has its own host name, home, temporary folder, data and feature cache.
"""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import postgres
import pytest

from bipose_lit.ablation.queue import Queue

ROOT = Path(__file__).parents[2]
MEASURED = ("ms/frame", "training s", "peak MB")
UTS = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')


def named(host: str) -> tuple[str, ...]:
    """A command under which this machine bears another name; skips where that is not allowed."""
    command = (*UTS, host)
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no process here may give itself another host name (unshare --uts)")
    return command


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


def owners(url: str, name: str) -> set[str]:
    with Queue(url, name) as queue:
        return {e.owner.split(":")[0] for e in queue.entries()}


@pytest.mark.ddp
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_two_machines_in_miniature(site, kind, request):
    """Over fake runs: all of them once, by both."""
    url = str(site.folder / "shared" / "q") if kind == "journal" else request.getfixturevalue("server").url("miniature")
    site.run(out="straight")
    (site.folder / "events.log").unlink()
    machines = []
    for host in ("left", "right"):
        home = site.folder / host
        home.mkdir()
        own = {"HOME": str(home), "TMPDIR": str(home)}
        machines.append(site.start(seconds=1.0, workers=1, storage=url, environ=own, before=named(host)))
    outs = [machine.communicate(timeout=120) for machine in machines]
    assert [m.returncode for m in machines] == [0, 0], outs
    assert len(site.events("start")) == len(site.events("end")) == 6
    assert site.results() == site.results("straight")
    assert owners(url, "m") == {"left", "right"}


def start(out: Path, own: Path, workers: int, storage: str | None = None, before: tuple[str, ...] = ()):
    """`bipose ablate` on the real, tiny manifest, with everything but OUT and the queue in `own`."""
    own.mkdir(parents=True)
    environ = {
        **os.environ,
        "HOME": str(own),
        "TMPDIR": str(own),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT),
    }
    words = ["ablate", "experiments/ablations/tiny.yaml", "--out", str(out), "--workers", str(workers), "--no-wandb"]
    words += ["--set", f"data.reader.init_args.root={own}/data", "--set", f"data.cache.root={own}/features"]
    words += ["--storage", storage] if storage else []
    return subprocess.Popen(
        [*before, sys.executable, "-m", "bipose_lit", *words],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def summary(out: Path) -> list[dict[str, str]]:
    """Every row and column but what was measured."""
    with (out / "tiny" / "summary.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) > 100
    return [
        {k: v for k, v in row.items() if k != "measured"} for row in rows if not row["metric"].startswith("measured/")
    ]


def table(out: Path) -> list[list[str]]:
    """table.md cell by cell, without the columns of measured times and sizes."""
    lines, hidden = [], set[int]()
    for line in (out / "tiny" / "table.md").read_text().splitlines():
        cells = line.strip("|").split("|")
        if not line.startswith("|"):
            hidden = set()
        elif found := {i for i, cell in enumerate(cells) if cell.strip() in MEASURED}:
            hidden = found
        lines.append([cell for i, cell in enumerate(cells) if i not in hidden])
    return lines


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    process = start(folder / "runs", folder / "own", 1)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return folder / "runs"


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_two_machines_make_the_table_of_one_worker(alone, tmp_path, kind, request):
    url = str(tmp_path / "shared.journal") if kind == "journal" else request.getfixturevalue("server").url("tiny")
    out = tmp_path / "runs"
    machines = [start(out, tmp_path / host, 1, url, named(host)) for host in ("left", "right")]
    try:
        outs = [machine.communicate() for machine in machines]
    finally:
        for machine in machines:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine.pid, signal.SIGKILL)
    assert [m.returncode for m in machines] == [0, 0], outs
    assert owners(url, "tiny") == {"left", "right"}
    assert summary(out) == summary(alone)
    assert table(out) == table(alone)
