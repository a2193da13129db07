"""How long the command takes to answer, and a run to begin."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Spread, interleave, listed, profile, stages, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.ablation.process import call, limit_threads
from bipose_lit.store import RunSpec

COMMANDS = ("--help", "ablate --help", "data --help", "report --help")
PEERS = (
    "Peers, CPU seconds with compiled bytecode in the project's survey (November 2026; not measured here): litpose --help 0.21, "
    "mmpose's train 4.8, SimpleBaselines 6.7, a LightningCLI with timm 9.2."
)


def run(setting: Setting) -> str:
    """The section."""
    times = _commands(setting)
    plain = times["python -c pass"]
    rows = [[f"`{name}`", t.ms, t.over(plain)] for name, t in times.items()]
    warm, stages_text = _runs(setting)
    if not setting.quick:
        setting.tell("bipose fit --help")
        slow = interleave({"fit": _command("fit --help")}, 2)["fit"]
        rows.append(["`bipose fit --help` (imports everything, 2 rounds)", slow.ms, "-"])
    return paragraphs(
        "Wall time of fresh processes, bytecode compiled.",
        table(["command", "ms", "of python alone"], rows),
        f"A run on cached features in a forked worker of a warm parent (as `bipose ablate` starts its runs), from the fork to "
        f"the end of the first optimiser step: {warm.ms} ms ({len(warm.values)} starts).",
        f"What limits that start now (share of profiled time, with all that is called): {stages_text}.",
        PEERS,
    )


def _commands(setting: Setting) -> dict[str, Spread]:
    jobs: dict[str, Callable[[], object]] = {"python -c pass": _process([sys.executable, "-c", "pass"])}
    jobs |= {f"bipose {words}": _command(words) for words in COMMANDS}
    return interleave(jobs, setting.pick(7, 1), 0.0, setting.tell)


def _command(words: str) -> Callable[[], object]:
    """The installed command, or the module where there is none."""
    script = Path(sys.executable).parent / "bipose"
    return _process([*([str(script)] if script.exists() else [sys.executable, "-m", "bipose_lit"]), *words.split()])


def _process(words: list[str]) -> Callable[[], object]:
    return lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)


def _runs(setting: Setting) -> tuple[Spread, str]:
    """Seconds from fork to the first step, and where they go."""
    config = call(lambda channel: _prepared(setting), None)
    spec = RunSpec("bench", "lstm", 0, setting.work / "run", config, setting.threads, score=())
    setting.tell("warming the parent")
    _warm()
    values = []
    for n in range(setting.pick(7, 1)):
        setting.tell(f"forked run {n + 1}")
        start = time.perf_counter()
        # The clock is the system's, so the child's reading compares with this one.
        values.append(call(lambda channel: _first_step(spec)) - start)
    return Spread(tuple(values)), call(lambda channel: _profiled(spec))


def _warm() -> None:
    from bipose_lit.ablation.backend import Backend

    Backend().warm()


def _prepared(setting: Setting) -> dict[str, Any]:
    """The configuration of a run, its features built."""
    from bipose_lit.run import prepare

    limit_threads(setting.threads)
    config = setting.config("temporal/lstm.yaml")
    setting.tell("building features")
    prepare(config)
    return config


class _Done(Exception):  # noqa: N818 - not an error
    """Ends a run at its first step; holds the time."""


def _first_step(spec: RunSpec) -> float:
    """The clock at the end of the first optimiser step."""
    from bipose_lit.run import execute

    def stop(step: int, total: int, metrics: Any) -> None:
        raise _Done(time.perf_counter())

    limit_threads(spec.threads)
    try:
        execute(spec, stop)
    except _Done as done:
        return float(done.args[0])
    raise RuntimeError("the run ended without a step")


def _profiled(spec: RunSpec) -> str:
    stats = profile(lambda: _first_step(replace(spec, folder=spec.folder / "profiled")))
    return listed(stages(stats, [("run.py", "_execute"), ("run.py", "execute")]))
