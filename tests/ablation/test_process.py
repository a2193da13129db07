"""Forked processes, locks that end with their holder, and fresh commands."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bipose_lit.ablation.devices import device_count, needs_command
from bipose_lit.ablation.process import Lock, call, describe_exit, fork, one_line, stop
from bipose_lit.ablation.runner import run_one
from bipose_lit.store import RunSpec, config_hash
from bipose_lit.types import BiposeError


def test_call_returns_values_and_events():
    seen = []

    def body(channel):
        channel.step_text(3, 3, "halfway")
        return {"pid": os.getpid()}

    assert call(body, lambda e: seen.append(e)) != {"pid": os.getpid()}
    assert {"event": "step", "step": 3, "total": 3, "text": "halfway"} in seen


def test_call_hands_on_errors(capfd):
    def ours(channel):
        raise BiposeError("mend\n this")

    def theirs(channel):
        raise ValueError("first\nsecond")

    def killed(channel):
        os.kill(os.getpid(), signal.SIGKILL)

    for body, told in ((ours, "mend this"), (theirs, "ValueError: first"), (killed, "SIGKILL")):
        with pytest.raises(BiposeError, match=told):
            call(body)


def test_stop_ends_who_will_not():
    def stubborn(channel):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        channel.send("ready")
        time.sleep(60)

    child = fork(stubborn)
    while not list(child.events()):
        time.sleep(0.01)
    start = time.monotonic()
    stop([child], grace=0.2)
    child.close()
    assert child.code == -signal.SIGKILL
    assert time.monotonic() - start < 2


def test_a_signal_that_comes_while_it_forks_leaves_nobody_behind(monkeypatch):
    """The one who forked would not know of the child that it must let write a checkpoint."""
    real, pids = os.fork, []

    def forked_and_signalled() -> int:
        pid = real()
        if pid:
            pids.append(pid)
            # To this thread: whoever runs the tests may have others, which do not block it; the engine's parent has one.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        return pid

    def stopped(number, frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fork", forked_and_signalled)
    before = signal.signal(signal.SIGUSR1, stopped)
    try:
        with pytest.raises(KeyboardInterrupt):
            fork(lambda channel: time.sleep(60))
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ChildProcessError):
        os.waitpid(pids[0], os.WNOHANG)


def test_long_lines_arrive_whole():
    text = "x" * 300_000
    assert call(lambda channel: text) == text


def test_lock_ends_with_its_holder(tmp_path):
    lock = Lock(tmp_path / "a.lock")
    assert not lock.held()

    def hold(channel):
        Lock(tmp_path / "a.lock").acquire()
        channel.send("ready")
        time.sleep(60)

    child = fork(hold)
    while not list(child.events()):
        time.sleep(0.01)
    assert lock.held()
    assert not lock.acquire(wait=False)
    stop([child])
    child.close()
    assert not lock.held()
    assert lock.acquire(wait=False)
    assert Lock(tmp_path / "a.lock").held()
    lock.release()
    assert not lock.held()


def test_lock_of_another_machine_lives_by_its_sign_of_life(tmp_path):
    path = tmp_path / "a.lock"
    path.write_text("elsewhere 12\n")
    lock = Lock(path)
    assert lock.held()
    os.utime(path, (time.time() - 100, time.time() - 100))
    assert not lock.held()
    lock.touch()
    assert lock.held()


def test_words():
    assert one_line(KeyError()) == "KeyError"
    assert describe_exit(3) == "ended with exit code 3"
    assert describe_exit(-11) == "was killed by SIGSEGV"


@pytest.mark.parametrize(
    ("trainer", "gpus", "command", "devices"),
    [
        ({}, False, False, 1),
        ({"accelerator": "auto"}, True, True, 1),
        ({"accelerator": "cpu"}, True, False, 1),
        ({"accelerator": "cpu", "devices": 2}, False, True, 2),
        ({"accelerator": "gpu", "devices": "auto"}, True, True, 1),
        ({"accelerator": "gpu", "devices": "0,1"}, True, True, 2),
        ({"accelerator": "gpu", "devices": [0, 1, 2], "num_nodes": 2}, True, True, 6),
        ({"accelerator": "cpu", "devices": "2"}, False, True, 2),
    ],
)
def test_which_runs_start_as_commands(trainer, gpus, command, devices):
    assert needs_command({"trainer": trainer}, gpus) is command
    assert device_count({"trainer": trainer}) == devices


def spec(folder: Path, **config) -> RunSpec:
    config = {"model": {"width": 1}, **config}
    return RunSpec("m", "none", 0, folder, config, config_hash=config_hash(config), tags=("a",))


def test_spec_survives_a_file(tmp_path):
    one = spec(tmp_path / "run")
    assert RunSpec.load(one.save()) == one
    with pytest.raises(BiposeError, match="cannot read"):
        RunSpec.load(tmp_path / "nothing.json")


def test_options_that_came_later_leave_old_hashes_alone():
    old = {"model": {"pool": None, "recipe": {"lr": 0.1}}}
    new = {"model": {"pool": None, "refiner": None, "compile": False, "recipe": {"lr": 0.1, "base_batch": None}}}
    assert config_hash(new) == config_hash(old)
    for changed in ({"refiner": {}}, {"compile": True}, {"recipe": {"lr": 0.1, "base_batch": 4}}, {"pool": {}}):
        assert config_hash({"model": {**new["model"], **changed}}) != config_hash(old), changed


def test_options_of_parts_that_came_later_leave_old_hashes_alone():
    def of(codec, decoder):
        return config_hash({"model": {"codec": {"init_args": codec}, "decoder": {"init_args": decoder}}})

    later = {"grid": "pixel", "quantised": False, "patch": None, "shift_flipped": False}
    old = of({"stride": 4}, {"hidden": None})
    assert of({"stride": 4, **later}, {"hidden": None, "sigma": False}) == old
    for changed in ({"grid": "msra"}, {"quantised": True}, {"patch": 3.0}, {"shift_flipped": True}):
        assert of({"stride": 4, **later, **changed}, {"hidden": None}) != old, changed
    assert of({"stride": 4}, {"hidden": None, "sigma": True}) != old


def test_hash_is_canonical():
    a = config_hash({"model": {"a": 1, "b": [1.5, None]}, "trainer": {"logger": True, "max_steps": 3}})
    assert a == config_hash({"trainer": {"max_steps": 3, "logger": False}, "model": {"b": [1.5, None], "a": 1}})
    assert a != config_hash({"trainer": {"max_steps": 4}, "model": {"b": [1.5, None], "a": 1}})
    assert config_hash({"model": {"weights": "x"}}, {"model.weights": "1"}) == config_hash(
        {"model": {"weights": "y"}}, {"model.weights": "1"}
    )
    code = "from bipose_lit.store import config_hash; print(config_hash({'b': {'y': 1, 'x': 2.5}, 'a': ['é']}))"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_fresh_commands(site):
    """The road of GPU and DDP runs, with a script in place of `python -m bipose_lit run-one`."""
    script = site.folder / "one.py"
    script.write_text(
        "import argparse, sys\nfrom pathlib import Path\nimport fake\nfrom bipose_lit.ablation.runner import run_one\n"
        "from bipose_lit.types import BiposeError\n"
        "p = argparse.ArgumentParser()\np.add_argument('spec', type=Path)\n"
        "[p.add_argument(n, type=int, default=0) for n in ('--events', '--parent')]\n"
        "p.add_argument('--prepare', action='store_true')\na = p.parse_args()\n"
        "try:\n    run_one(a.spec, a.events, a.parent, a.prepare, fake.BACKEND)\n"
        "except BiposeError as e:\n    sys.exit(1)\n"
    )
    text = site.text.replace("none: {}", "none: {trainer: {devices: 2, accelerator: cpu}}")
    site.write(
        text.replace("lstm: {model", "lstm: {fake: {raise: line}, trainer: {devices: 2, accelerator: cpu}, model", 1)
    )
    os.environ["FAKE_COMMAND"] = json.dumps([sys.executable, str(script)])
    try:
        done = site.run(arms=["none", "lstm"], every=0.02, seconds=0.3)
    finally:
        del os.environ["FAKE_COMMAND"]
    assert done.returncode == 1
    assert "bipose: failed: lstm/seed1: the data ran out; add some" in done.stderr
    assert sorted(site.events("end")) == ["none/seed0", "none/seed1"]
    assert re.search(r"none/seed0 \d+/10 loss 0\.", done.stderr), "steps of a fresh command do not arrive"


def test_run_one_complains_of_a_missing_spec(tmp_path):
    with pytest.raises(BiposeError, match=r"cannot read .*none\.json"):
        run_one(tmp_path / "none.json")
