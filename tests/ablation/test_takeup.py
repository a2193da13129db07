"""A run goes on from its last checkpoint, whoever had it before and however that one ended; it is published once."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bipose_lit.ablation.process import STALE, Lock, machine
from bipose_lit.ablation.queue import Queue
from bipose_lit.ablation.runner import LeaseLostError, Pulse, begin
from bipose_lit.store import RESULT, RunResult, RunSpec

KEY = "none/seed0"
ONE = {"arms": ["none"], "seeds": 1, "workers": 1}


def steps(site, key: str = KEY) -> list[int]:
    """The steps that were done, in the order in which they were."""
    return [int(e.rpartition(":")[2]) for e in site.events("step") if e.startswith(f"{key}:")]


def attempts(site) -> list[tuple[int, str, str]]:
    with Queue(str(site.folder / "runs/m/queue.journal"), "m") as queue:
        return [(e.number, e.key, e.state) for e in queue.entries()]


@pytest.mark.parametrize("who", ["worker", "engine"])
def test_a_killed_run_goes_on_from_its_checkpoint_under_its_number(site, who):
    """By the engine that had it, or by the next one."""
    site.run(out="straight", **ONE)
    (site.folder / "events.log").unlink()
    process = site.start(seconds=1.5, **ONE)
    site.wait_for("step", 6)
    worker = int((site.folder / "events.log").read_text().split()[-1])
    if who == "worker":
        os.kill(worker, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    err = process.communicate(timeout=60)[1]
    if who == "engine":
        assert site.run(**ONE).returncode == 0
    else:
        assert process.returncode == 0, err
        assert "none/seed0 interrupted: the process was killed by SIGKILL" in err
    assert site.events("start") == [KEY]
    assert site.events("resume") == [KEY]
    done = steps(site)
    first = next(i for i in range(1, len(done)) if done[i] <= done[i - 1])
    assert done[first] == 5, "it did not go on from the checkpoint of step 4"
    assert done[first:] == list(range(5, 11))
    assert site.results() == site.results("straight")
    assert attempts(site) == [(0, KEY, "done")]
    history = (site.folder / "runs/m/none/seed0/history.jsonl").read_text()
    assert history == (site.folder / "straight/m/none/seed0/history.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_lets_runs_write_a_checkpoint(site, number):
    process = site.start(seconds=3, environ={"FAKE_GRACEFUL": "1"}, arms=["none", "lstm"], seeds=1)
    site.wait_for("step", 8)
    os.kill(process.pid, number)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number
    assert "write a checkpoint" in err
    assert "Traceback" not in err
    assert site.results() == {}
    last = {key: max(steps(site, key)) for key in ("none/seed0", "lstm/seed0")}
    assert sorted(attempts(site)) == [(0, "none/seed0", "running"), (1, "lstm/seed0", "running")]
    assert site.run(arms=["none", "lstm"], seeds=1).returncode == 0
    for key, step in last.items():
        assert steps(site, key) == list(range(1, 11)), f"{key} lost or repeated steps around {step}"
    assert sorted(site.events("resume")) == sorted(last)
    assert all(state == "done" for _, _, state in attempts(site))


def test_a_second_signal_ends_at_once(site):
    """A run that will not stop holds nobody up who does not want to wait."""
    process = site.start(seconds=600, environ={"FAKE_GRACEFUL": "1"}, **ONE)  # a step takes a minute
    site.wait_for("step", 1)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(1.5)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_worker_that_is_asked_to_stop_alone_is_replaced(site):
    """A scheduler may signal all processes; the engine decides, and goes on unless it was asked too."""
    process = site.start(seconds=1.5, environ={"FAKE_GRACEFUL": "1"}, **ONE)
    site.wait_for("step", 2)
    os.kill(int((site.folder / "events.log").read_text().split()[-1]), signal.SIGUSR1)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    assert "none/seed0 interrupted: none/seed0 stopped at step" in err
    assert steps(site) == list(range(1, 11))


def test_what_was_left_by_another_configuration_is_not_continued(site):
    process = site.start(seconds=1.5, **ONE)
    site.wait_for("step", 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert site.run(options=["model.width=8"], **ONE).returncode == 0
    assert site.events("start") == [KEY, KEY]
    assert site.events("resume") == []


def test_a_run_that_dies_while_it_scores_is_not_taken_up_for_ever(site):
    """The weights that it leaves before each time, and half a checkpoint, are no progress."""
    site.write(site.text.replace("none: {}", "none: {fake: {die: scoring}}"))
    done = site.run(**ONE)
    assert done.returncode == 1
    assert "bipose: failed: none/seed0: the process was killed by SIGKILL (out of memory?)" in done.stderr
    assert (len(site.events("start")), len(site.events("resume"))) == (1, 2)


def spec(folder: Path) -> RunSpec:
    return RunSpec("m", "none", 0, folder, {}, config_hash="a")


def test_what_stays_when_a_run_begins(tmp_path):
    one = spec(tmp_path / "run")
    result = RunResult("m", "none", 0, "failed", config_hash="a")
    for facts, stays in (({}, False), ({"died": 3}, True)):
        one.save()
        (one.folder / "checkpoints").mkdir(exist_ok=True)
        (one.folder / "checkpoints" / "x").touch()
        result.facts = facts
        result.save(one.folder)
        begin(one)
        assert not (one.folder / RESULT).exists()
        assert (one.folder / "checkpoints" / "x").exists() is stays
    (one.folder / "spec.json").write_text("{")
    begin(one)
    assert list(one.folder.iterdir()) == []


def _publish(folder: Path, number: int, gate, won) -> None:
    gate.wait()
    if RunResult("m", "a", number, "finished").publish(folder):
        won.put(number)


def test_a_result_is_published_once(tmp_path):
    """Eight processes at the same moment, eight times."""
    context = multiprocessing.get_context("fork")
    for turn in range(8):
        folder, gate, won = tmp_path / str(turn), context.Barrier(8), context.Queue()
        tries = [context.Process(target=_publish, args=(folder, i, gate, won)) for i in range(8)]
        for process in tries:
            process.start()
        for process in tries:
            process.join()
            assert process.exitcode == 0
        winner = won.get(timeout=5)
        assert won.empty()
        assert RunResult.load(folder).seed == winner
        assert [p.name for p in folder.iterdir()] == [RESULT]


def test_publish_without_links(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    assert RunResult("m", "a", 0, "finished").publish(tmp_path)
    assert not RunResult("m", "a", 1, "finished").publish(tmp_path)
    assert RunResult.load(tmp_path).seed == 0


def test_a_full_disk_publishes_nothing(tmp_path, monkeypatch):
    """Neither where the link finds no space, nor where links are missing and the file itself finds none."""

    def full(*arguments):
        raise OSError(28, "No space left on device")

    def refuse(*arguments):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        RunResult("m", "a", 0, "finished").publish(tmp_path)
    monkeypatch.setattr(os, "link", refuse)
    write = RunResult._write
    written = []

    def once(self, handle):
        write(self, handle)
        written.append(handle)
        if len(written) == 2:
            full()

    monkeypatch.setattr(RunResult, "_write", once)
    with pytest.raises(OSError, match="No space"):
        RunResult("m", "a", 0, "finished").publish(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_another_machine_took_over_ends_the_run(tmp_path):
    lease = Lock(tmp_path / "a.lock")
    assert lease.acquire(wait=False)
    pulse = Pulse(lease)
    pulse.beat()
    lease.path.write_text("elsewhere 12 34\n")
    pulse.beat()  # not looked at again yet
    pulse._next = 0.0
    with pytest.raises(LeaseLostError, match="taken over by elsewhere 12"):
        pulse.beat()
    assert not lease.mine()


def test_a_lease_of_another_machine_is_taken_only_when_it_is_stale(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("elsewhere 12 34\n")
    assert not Lock(path).acquire(wait=False)
    old = time.time() - STALE - 5
    os.utime(path, (old, old))
    mine = Lock(path)
    assert mine.acquire(wait=False)
    assert mine.mine()
    assert mine.holder() == f"{machine()} {os.getpid()}"


def other_machine() -> tuple[str, ...]:
    """A command that gives what it starts another host name."""
    command = ("unshare", "--uts", "sh", "-c", 'hostname "other" && exec "$@"', "sh")
    if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no process here may give itself another host name (unshare --uts)")
    return command


def test_a_run_of_another_machine_is_taken_up_when_its_signs_of_life_end(site):
    """Kernel locks would tell at once here, so what is seen is the file alone: another host name, and its age."""
    process = site.start(seconds=3, before=other_machine(), **ONE)
    site.wait_for("step", 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    lease = site.folder / "runs/m/.locks/none__seed0.lock"
    assert lease.read_text().split()[0].startswith("other/")
    second = site.start(seconds=0.5, every=0.2, **ONE)
    for line in second.stderr:
        if "waiting for none/seed0 of another process" in line:
            break
    assert site.events("resume") == []
    old = time.time() - STALE - 5
    os.utime(lease, (old, old))
    err = second.communicate(timeout=60)[1]
    assert second.returncode == 0, err
    assert site.events("resume") == [KEY]
    assert json.loads((site.folder / "runs/m/none/seed0/result.json").read_text())["status"] == "finished"


COMMAND = """
import argparse, os, sys, time
from pathlib import Path
import fake
from bipose_lit.ablation.runner import run_one
p = argparse.ArgumentParser()
p.add_argument("spec", type=Path)
for name in ("--events", "--parent"):
    p.add_argument(name, type=int, default=0)
p.add_argument("--prepare", action="store_true")
a = p.parse_args()
if not a.prepare:
    files = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
    fake.note(Path(os.environ["FAKE_LOG"]), f"lease {sum(f.endswith('.lock') for f in files)}")
    fake.note(Path(os.environ["FAKE_LOG"]), "import -")
    time.sleep(float(os.environ.get("FAKE_IMPORT", "0")))
sys.exit(run_one(a.spec, a.events, a.parent, a.prepare, fake.BACKEND))
"""


@pytest.fixture
def apart(site):
    """Runs of two processes each, which are commands of their own; gives their environment."""
    (site.folder / "one.py").write_text(COMMAND)
    base = (site.folder / "base.yaml").read_text()
    (site.folder / "base.yaml").write_text(base.replace("max_steps: 10", "max_steps: 10, accelerator: cpu, devices: 2"))
    return {"FAKE_COMMAND": json.dumps([sys.executable, str(site.folder / "one.py")]), "FAKE_GRACEFUL": "1"}


def test_a_killed_command_goes_on_from_its_checkpoint(site, apart):
    """The run's own process, not the worker that waits for it: its death says as little about the run."""
    process = site.start(seconds=1.5, environ=apart, **ONE)
    site.wait_for("step", 6)
    os.kill(int((site.folder / "events.log").read_text().split()[-1]), signal.SIGKILL)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 0, err
    assert "none/seed0 interrupted: the run's process was killed by SIGKILL" in err
    assert (site.events("start"), site.events("resume"), site.events("end")) == ([KEY], [KEY], [KEY])
    assert site.events("lease") == ["1", "1"], "its lease would be free while it still ends"
    assert attempts(site) == [(0, KEY, "done")]


def test_a_command_that_is_stopped_while_it_loads_keeps_the_checkpoint_of_before(site, apart):
    process = site.start(seconds=1.5, environ=apart, **ONE)
    site.wait_for("step", 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = site.start(environ={**apart, "FAKE_IMPORT": "60"}, **ONE)
    site.wait_for("import", 2)
    os.kill(process.pid, signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 143, err
    assert site.results() == {}
    assert site.run(environ=apart, **ONE).returncode == 0
    assert (site.events("start"), site.events("resume"), site.events("end")) == ([KEY], [KEY], [KEY])


def test_preparing_for_another_configuration_leaves_the_checkpoint(site, apart):
    """Features are prepared before anything is known of who works in which folder."""
    process = site.start(seconds=1.5, environ=apart, **ONE)
    site.wait_for("step", 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    other = site.run(environ=apart, options=["fake.unprepared=true"], **ONE)
    assert other.returncode == 1
    assert "no pictures to make features of" in other.stderr
    assert site.run(environ=apart, **ONE).returncode == 0
    assert (site.events("start"), site.events("resume"), site.events("end")) == ([KEY], [KEY], [KEY])
