"""What the engine adds to a run, and how many runs an hour it hands out."""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, listed, stages, table
from benchmarks.setting import Setting, paragraphs

COUNTS, QUICK_COUNTS = (20, 200, 1000), (4, 8)
WORKERS, QUICK_WORKERS = (1, 2, 4, 8), (1, 2)
WAIT, QUICK_WAIT = 1.0, 0.05
"""Seconds that a run of the second table waits, doing nothing."""
SERVER = "BIPOSE_POSTGRES"
"""Environment variable: the address of an empty database, to be measured as well."""


def run(setting: Setting) -> str:
    """The section."""
    storages = {"journal": None, "SQLite": "sqlite:///{folder}/queue.db"}
    if address := os.environ.get(SERVER):
        storages["PostgreSQL"] = address
    rows = []
    for name, address in storages.items():
        for count in setting.pick(COUNTS, QUICK_COUNTS):
            if name != "journal" and count > setting.pick(200, 4):
                continue
            setting.tell(f"{count} runs, {name}")
            rows.append([f"{count:,} runs, {name}", f"{_engine(setting, count, 1, 0.0, address) / count * 1000:.0f}"])
    speeds = []
    wait = setting.pick(WAIT, QUICK_WAIT)
    for workers in setting.pick(WORKERS, QUICK_WORKERS):
        count = setting.pick(24, 4) * workers
        setting.tell(f"{workers} workers")
        seconds = _engine(setting, count, workers, wait, None)
        ideal = 3600 / wait * workers
        speeds.append(
            [f"{workers} workers", f"{count / seconds * 3600:,.0f}", f"{100 * count / seconds * 3600 / ideal:.0f}%"]
        )
    setting.tell("where the time goes")
    folder, many = _folder(setting), setting.pick(200, 4)
    _engine(setting, many, 1, 0.0, None, folder)
    profiles = sorted(map(str, folder.glob("*.prof")))
    parts = listed(stages(pstats.Stats(*profiles), [("worker.py", n) for n in ("turn", "work", "take")]))
    return paragraphs(
        "Runs that do nothing, one worker: from the first taken to the last told, queue, lease, fork and result files included.",
        table(["queue of", "ms a run"], rows),
        f"What limits a queue of {many} runs now (share of the turns' profiled time, with all that is called): {parts}.",
        f"Runs that wait for {wait:g} s and do nothing else (so cores are no limit), on a journal: what the engine hands out.",
        table(["by", "runs an hour", "of the possible"], speeds),
    )


def _folder(setting: Setting) -> Path:
    folder = setting.work / f"engine-{time.monotonic_ns()}"
    folder.mkdir()
    return folder


def _engine(
    setting: Setting, count: int, workers: int, wait: float, storage: str | None, profiles: Path | None = None
) -> float:
    """Seconds that an ablation of so many runs takes, without what is done once; `profiles`: a folder for those of its turns."""
    folder = _folder(setting)
    address = storage.format(folder=folder) if storage else None
    told: dict[str, Any] = {"folder": str(folder), "count": count, "workers": workers, "wait": wait, "storage": address}
    words = json.dumps({**told, "profiles": str(profiles or "")})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def _work(folder: Path, count: int, workers: int, wait: float, storage: str | None, profiles: str) -> float:
    """In a process of its own: the real engine over runs that only wait."""
    from bipose_lit.ablation import engine, worker
    from bipose_lit.ablation.backend import Backend
    from bipose_lit.ablation.progress import PlainProgress
    from bipose_lit.store import RunResult, RunSpec

    def execute(spec: RunSpec, report: Any) -> RunResult:
        time.sleep(wait)
        result = RunResult(
            spec.name,
            spec.arm,
            spec.seed,
            "finished",
            metrics={"test/pck@0.1[clip,clip-box]": 0.5},
            config_hash=spec.config_hash,
        )
        result.publish(spec.folder)
        return result

    if profiles:
        turn = worker.Session.turn

        def profiled(self: worker.Session, slot: int, channel: Any) -> None:
            profiler = cProfile.Profile()
            try:
                profiler.runcall(turn, self, slot, channel)
            finally:
                profiler.dump_stats(f"{profiles}/{os.getpid()}.prof")

        worker.Session.turn = profiled  # type: ignore[method-assign]

    spent = [0.0]

    class Timed(engine.Pool):
        def work_off(self) -> None:
            start = time.perf_counter()
            super().work_off()
            spent[0] = time.perf_counter() - start

    engine.Pool = Timed  # type: ignore[misc]
    arms = "".join(f"  a{i:04d}: {{x: {i}}}\n" for i in range(count))
    (folder / "base.yaml").write_text("trainer: {max_steps: 1}\n")
    (folder / "m.yaml").write_text(f"question: none\nbase: base.yaml\nmode: full\nseeds: 1\narms:\n{arms}")
    backend = Backend(
        warm=lambda: None,
        resolve=lambda files, options: {
            "trainer": {"max_steps": 1, "accelerator": "cpu"},
            "files": [f.name for f in files],
        },
        execute=execute,
        fingerprint=lambda config: "",
    )
    name = f"m{time.monotonic_ns()}" if storage and storage.startswith("postgres") else "m"
    (folder / f"{name}.yaml").write_text((folder / "m.yaml").read_text())
    with open(os.devnull, "w") as quiet:
        code = engine.ablate(
            folder / f"{name}.yaml",
            workers=workers,
            storage=storage,
            out=folder / "runs",
            wandb=False,
            backend=backend,
            progress=PlainProgress(quiet, every=1e9),
        )
    if code:
        raise SystemExit(f"the engine ended with {code}")
    return spent[0]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(_work(Path(given.pop("folder")), **given))
