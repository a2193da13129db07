"""Starts engines over fake runs, kills them and their workers at random moments, and replaces what is gone."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any


def disturb(
    site: Any, start: Callable[[], Any], runs: int, workers: int, kills: int, limit: float = 1200
) -> dict[str, int]:
    """Keeps `workers` engines of one worker each alive until `runs` runs have been published.

    Engines (with their workers) and workers alone are killed in turn, `kills` in all; a run is told apart by its key.

    Args:
        site: has `folder`, in which events.log is written, and `events`.
        start: starts one engine, in a process group of its own.
        runs: to be published.
        workers: engines at a time.
        kills: by SIGKILL, of processes that were alive.
        limit: seconds after which it is a failure.

    Returns:
        Counts: "kills", "engines" and "workers" killed, engines "started", runs begun "fresh" and "resumed".
    """
    rng = random.Random(runs * 1000 + kills)
    engines: list[Any] = []
    done = {"kills": 0, "engines": 0, "workers": 0, "started": 0}
    end, pause = time.monotonic() + limit, time.monotonic()
    try:
        while True:
            assert time.monotonic() < end, f"only {len(site.events('end'))} of {runs} runs ended: {done}"
            for process in [p for p in engines if p.poll() is not None]:
                _, err = process.communicate()
                assert process.returncode in (0, -signal.SIGKILL), err
                engines.remove(process)
            over = len(site.events("end")) >= runs
            if over and not engines:
                return {**done, "fresh": len(site.events("start")), "resumed": len(site.events("resume"))}
            while len(engines) < workers and not over:
                engines.append(start())
                done["started"] += 1
            if done["kills"] < kills and time.monotonic() > pause and site.events("step"):
                pause = time.monotonic() + rng.uniform(0.3, 1.0)
                kill(site, engines, rng, done)
            time.sleep(0.02)
    finally:
        for process in engines:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def kill(site: Any, engines: list[Any], rng: random.Random, done: dict[str, int]) -> None:
    """One engine with all that it started, or the worker that took the last step."""
    if done["engines"] <= done["workers"]:
        worker = int((site.folder / "events.log").read_text().splitlines()[-1].split()[-1])
        group = next((p for p in engines if _group(worker) == p.pid and p.poll() is None), None) or rng.choice(engines)
        if group.poll() is None:
            os.killpg(group.pid, signal.SIGKILL)
            done["kills"] += 1
            done["engines"] += 1
        return
    worker = int((site.folder / "events.log").read_text().splitlines()[-1].split()[-1])
    if _group(worker) not in {p.pid for p in engines}:
        return  # it has ended, and the number may be another's by now
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
        done["kills"] += 1
        done["workers"] += 1


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1
