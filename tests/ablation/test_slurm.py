"""`--submit slurm` with a stub of SLURM's commands that really runs the script: a real SLURM was not there."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bipose_lit.__main__ import main
from bipose_lit.ablation.slurm import leave_allocation, read_options, script, submit, without
from bipose_lit.types import BiposeError

FAKE = Path(__file__).with_name("fake.py")
SBATCH = """#!/bin/sh
[ "$1" = --parsable ] || { echo "unexpected $1" >&2; exit 2; }
grep -q partition=closed "$2" && { echo "sbatch: error: invalid partition specified: closed" >&2; exit 1; }
echo "$2" > "$STUB/submitted"
echo "4711;cluster"
"""
SCONTROL = """#!/bin/sh
[ "$1" = requeue ] || exit 2
[ -e "$STUB/no_requeue" ] && { echo "Requested operation is presently disabled" >&2; exit 1; }
echo "$2" >> "$STUB/requeued"
"""


class Cluster:
    """What a scheduler does with a script: one copy a task, a signal when time is up, another copy on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def environ(self) -> dict[str, str]:
        return {"STUB": str(self.folder), "PATH": f"{self.folder}:{os.environ['PATH']}"}

    def start(self, path: Path, task: int, **environ: str) -> subprocess.Popen:
        """One copy, with the output where the script says."""
        lines = [line for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
        options = [shlex.split(line, comments=False)[1] for line in lines]  # sbatch knows quotes
        output = next(o.partition("=")[2] for o in options if o.startswith("--output="))
        own = {
            "SLURM_JOB_ID": str(4711 + task),
            "SLURM_ARRAY_JOB_ID": "4711",
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_NTASKS": "1",
            "SLURM_PROCID": "0",
            "SLURM_JOB_NAME": "bipose-m",
        }
        with Path(output.replace("%A", "4711").replace("%a", str(task))).open("a") as log:
            return subprocess.Popen(
                ["/bin/bash", str(path)],
                env={**os.environ, **self.environ(), **own, **environ},
                cwd="/",
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def requeued(self) -> list[str]:
        file = self.folder / "requeued"
        return sorted(file.read_text().split()) if file.exists() else []


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    folder = tmp_path / "stub"
    folder.mkdir()
    made = Cluster(folder)
    for key, value in made.environ().items():
        monkeypatch.setenv(key, value)
    return made


def test_an_array_of_workers_drains_is_requeued_and_goes_on(site, cluster, monkeypatch, capsys):
    """Two tasks of one worker each; both are signalled in the middle of their runs."""
    site.run(out="straight", arms=["none", "lstm"])
    (site.folder / "events.log").unlink()
    monkeypatch.chdir(site.folder)
    arguments = json.dumps({"workers": 1, "arms": ["none", "lstm"]})
    code = submit(["m.yaml", arguments], "m", Path("runs/m"), ["array=0-1"], command=(sys.executable, str(FAKE)))
    assert code == 0
    told = capsys.readouterr().out
    assert "submitted job 4711 (runs/m/slurm/job.sh)" in told
    assert "scancel 4711" in told
    path = Path((cluster.folder / "submitted").read_text().strip())
    assert path.stat().st_mode & stat.S_IXUSR
    environ = {
        "FAKE_LOG": str(site.folder),
        "FAKE_SECONDS": "2",
        "FAKE_GRACEFUL": "1",
        "PYTHONPATH": f"{FAKE.parents[2]}:{FAKE.parent}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    jobs = [cluster.start(path, task, **environ) for task in (0, 1)]
    try:
        site.wait_for("start", 2)
        site.wait_for("step", 6)
        for job in jobs:
            job.send_signal(signal.SIGUSR1)  # to the script alone, as --signal=B: has it
        assert [job.wait(60) for job in jobs] == [0, 0]
        logs = "".join(log.read_text() for log in path.parent.glob("4711_*.log"))
        assert cluster.requeued() == ["4711_0", "4711_1"], logs
        before = len(site.events("step"))
        assert site.results() == {}
        jobs = [cluster.start(path, task, **{**environ, "FAKE_SECONDS": "0.1"}) for task in (0, 1)]
        assert [job.wait(90) for job in jobs] == [0, 0], logs
    finally:
        for job in jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
    assert cluster.requeued() == ["4711_0", "4711_1"], "a finished task was put back"
    assert before < 40
    assert sorted(site.events("resume")) == sorted(site.events("start")[:2])
    assert len(site.events("step")) == 40, "steps were lost or repeated"
    assert site.results() == site.results("straight")


def test_a_failing_command_is_no_reason_to_come_back(site, cluster, monkeypatch):
    monkeypatch.chdir(site.folder)
    (site.folder / "job.sh").write_text(
        script([sys.executable, "-c", "raise SystemExit(3)"], "m", site.folder / "job.sh", {})
    )
    job = cluster.start(site.folder / "job.sh", 0)
    assert job.wait(30) == 3
    assert cluster.requeued() == []


def test_a_task_that_cannot_be_put_back_is_no_success(tmp_path, cluster, monkeypatch):
    """In a folder whose name has a space and more, as all paths of the script may."""
    folder = tmp_path / "it's $HOME #1"
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = folder / "job.sh"
    path.write_text(script([sys.executable, "-c", "raise SystemExit(138)"], "m", path, {"comment": "two words"}))
    assert cluster.start(path, 0).wait(30) == 0
    assert cluster.requeued() == ["4711_0"]
    (cluster.folder / "no_requeue").touch()
    assert cluster.start(path, 0).wait(30) == 138
    assert f"to go on: sbatch {path}\n" in (folder / "4711_0.log").read_text()


def test_a_task_comes_back_so_often_and_no_more(tmp_path, cluster, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "job.sh"
    path.write_text(script([sys.executable, "-c", "raise SystemExit(138)"], "m", path, {}))
    assert cluster.start(path, 0, SLURM_RESTART_COUNT="99").wait(30) == 0
    assert cluster.start(path, 0, SLURM_RESTART_COUNT="100").wait(30) == 138
    assert cluster.requeued() == ["4711_0"]
    assert f"100 turns are enough for a start; to go on: sbatch {path}\n" in (tmp_path / "4711_0.log").read_text()


def test_scancel_ends_the_command(site, cluster, monkeypatch):
    monkeypatch.chdir(site.folder)
    wait = "import signal,sys,time;signal.signal(15,lambda *a:sys.exit(143));print('ready',flush=True);time.sleep(60)"
    (site.folder / "job.sh").write_text(script([sys.executable, "-c", wait], "m", site.folder / "job.sh", {}))
    job = cluster.start(site.folder / "job.sh", 0)
    log = site.folder / "4711_0.log"
    end = time.monotonic() + 30
    while "ready" not in log.read_text() and time.monotonic() < end:
        time.sleep(0.02)
    job.terminate()
    assert job.wait(30) == 143
    assert cluster.requeued() == []


def test_the_script_says_what_was_asked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = read_options(["array=0-7", "--gres=gpu:8", "exclusive", "time=1-00:00:00"])
    text = script(["bipose", "sweep", "a b.yaml", "--set", "x=[1, 2]"], "heads", tmp_path / "s" / "job.sh", options)
    wanted = [
        "array=0-7",
        "gres=gpu:8",
        "exclusive",
        "time=1-00:00:00",
        "signal=B:USR1@120",
        "requeue",
        "job-name=bipose-heads",
    ]
    for option in wanted:
        assert f"#SBATCH --{option}\n" in text
    assert text.count("--array") == 1
    assert "bipose sweep 'a b.yaml' --set 'x=[1, 2]' &\n" in text
    assert f"cd {tmp_path} ||" in text
    assert subprocess.run(["/bin/bash", "-n"], input=text, text=True).returncode == 0


def test_words_of_the_command_line():
    words = [
        "ablate",
        "m.yaml",
        "--submit",
        "slurm",
        "--slurm",
        "array=0-3",
        "--workers",
        "2",
        "--slurm=time=1:00",
        "--submit=slurm",
    ]
    assert without([*words, "--submit=slurm"]) == ["ablate", "m.yaml", "--workers", "2"]


@pytest.mark.parametrize("wrong", ["", "=x", "Array=3", "array=0\n#SBATCH --x=1", "a b=1"])
def test_options_that_cannot_be(wrong):
    with pytest.raises(BiposeError, match="write KEY=VALUE"):
        read_options([wrong])


def test_refusals(tmp_path, cluster, monkeypatch):
    with pytest.raises(
        BiposeError, match=r"refused .*job\.sh: sbatch: error: invalid partition specified: closed; mend"
    ):
        submit(["x"], "m", tmp_path / "m", ["partition=closed"])
    with pytest.raises(BiposeError, match="its password would stand in the job's script"):
        submit(["x"], "m", tmp_path / "m", [], storage="postgresql://me:secret@host/db")
    with pytest.raises(BiposeError, match="its password would stand in the job's script"):
        submit(["x"], "m", tmp_path / "m", [], storage="postgresql://me@host/db?password=secret")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BiposeError, match="sbatch not found: wrote"):
        submit(["x"], "m", tmp_path / "m", [])


@pytest.mark.parametrize("command", ["ablate", "sweep"])
def test_options_of_a_cluster_without_one(command, capsys):
    """Rather than hours of work on a login node."""
    assert main([command, "absent.yaml", "--slurm", "array=0-3"]) == 1
    assert "--slurm array=0-3: nothing is submitted; add --submit slurm" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_submits_after_its_plan(tmp_path, cluster):
    """`bipose ablate` as typed, with the real parser, and a mistake that is told before anything is submitted."""
    root = Path(__file__).parents[2]
    start = [
        sys.executable,
        "-m",
        "bipose_lit",
        "ablate",
        "experiments/ablations/tiny.yaml",
        "--out",
        str(tmp_path / "runs"),
    ]
    start += ["--submit", "slurm", "--slurm", "array=0-3"]
    environ = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    wrong = subprocess.run([*start, "--arms", "bilst"], cwd=root, env=environ, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "did you mean bilstm?" in wrong.stderr
    assert not (cluster.folder / "submitted").exists()
    more = ["--workers", "3", "--devices", "8"]  # which this machine need not have
    done = subprocess.run([*start, *more], cwd=root, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "submitted job 4711" in done.stdout
    text = Path((cluster.folder / "submitted").read_text().strip()).read_text()
    assert f"ablate experiments/ablations/tiny.yaml --out {tmp_path}/runs --workers 3 --devices 8 &" in text
    assert "#SBATCH --array=0-3" in text


def test_an_allocation_is_not_taken_for_orders(monkeypatch):
    """Lightning's own reading of these variables is the oracle."""
    from lightning.fabric.plugins.environments import SLURMEnvironment

    for name, value in {
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "bipose-m",
        "SLURM_PROCID": "0",
        "SLURM_JOB_ID": "7",
    }.items():
        monkeypatch.setenv(name, value)
    assert SLURMEnvironment.detect()
    leave_allocation()
    assert not SLURMEnvironment.detect()
    assert os.environ["SLURM_JOB_ID"] == "7"
