"""A suite in miniature: `python fake.py MANIFEST [options as JSON]` runs the real engine over runs that take a tenth of a second.

A run's result is a pure function of its configuration and seed, and takes FAKE_SECONDS in small steps, two of which leave a
checkpoint; every start, step and end is noted in FAKE_LOG/events.log, so that tests see what was done twice. What a manifest's
arms say under `fake` makes runs misbehave.
"""

import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bipose_lit.ablation.backend import Backend
from bipose_lit.store import CONFIG, HISTORY, WEIGHTS, RunResult, RunSpec, atomic
from bipose_lit.types import BiposeError, Preempted

KNOWN = {"model", "data", "trainer", "seed_everything", "fake"}
STEPS, CHECKPOINTS = 10, (4, 8)


def deep(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        base[key] = deep(dict(base.get(key) or {}), value) if isinstance(value, Mapping) else value
    return base


def resolve(files: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for file in files:
        deep(config, yaml.safe_load(Path(file).read_text()) or {})
    for key, value in options.items():
        inner: Any = value
        for part in reversed(key.split(".")):
            inner = {part: inner}
        deep(config, inner)
    wrong = sorted(set(config) - KNOWN)
    if wrong:
        raise BiposeError(f"option '{wrong[0]}' is not accepted")
    return config


def note(folder: Path, text: str) -> None:
    with (folder / "events.log").open("a") as handle:
        handle.write(f"{text} {os.getpid()}\n")


def unit(*parts: Any) -> float:
    return int(hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12], 16) / 16**12


def checkpoint(spec: RunSpec, step: int) -> None:
    with atomic(spec.folder / "checkpoints" / "last.json") as handle:
        json.dump({"config_hash": spec.config_hash, "step": step}, handle)


def resumed(spec: RunSpec) -> int:
    """The step of the checkpoint that this very run left, history cut to it; 0 without one."""
    file = spec.folder / "checkpoints" / "last.json"
    data = json.loads(file.read_text()) if file.exists() else {}
    step = data["step"] if data.get("config_hash") == spec.config_hash else 0
    history = spec.folder / HISTORY
    rows = history.read_text().splitlines()[:step] if history.exists() else []
    assert len(rows) == step, "the history lacks rows before the checkpoint"
    with atomic(history) as handle:
        handle.writelines(row + "\n" for row in rows)
    return step


def execute(spec: RunSpec, report: Any, judge: Any = None) -> RunResult:
    top = Path(os.environ["FAKE_LOG"])
    first = resumed(spec)
    note(top, f"{'resume' if first else 'start'} {spec.arm}/seed{spec.seed}")
    fake = spec.config.get("fake") or {}
    seconds = float(os.environ.get("FAKE_SECONDS", "0.1"))
    asked: list[int] = []
    if "FAKE_GRACEFUL" in os.environ:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda number, frame: asked.append(number))
    for step in range(first + 1, STEPS + 1):
        with (spec.folder / HISTORY).open("a") as handle:
            handle.write(json.dumps({"step": step, "loss": unit(step, spec.config_hash)}) + "\n")
        note(top, f"step {spec.arm}/seed{spec.seed}:{step}")
        report(step, STEPS, {"train/loss": unit(step, spec.config_hash)})
        time.sleep(seconds / STEPS)
        if step == 3 and not (top / "mended").exists():
            if fake.get("raise") == "line":
                raise BiposeError("the data ran out; add some")
            if fake.get("above") and spec.config["model"]["lr"] > fake["above"]:
                raise BiposeError("the loss is not a number")
            if fake.get("raise"):
                raise ValueError("tensors of size 3 and 4 do not match")
            if fake.get("die") is True:
                os.kill(os.getpid(), signal.SIGKILL)
        if asked or step in CHECKPOINTS:
            checkpoint(spec, step)
        if asked:
            raise Preempted(f"{spec.arm}/seed{spec.seed} stopped at step {step}", asked[0])
    (spec.folder / "checkpoints" / "final.json").write_text("written before the scoring")
    if fake.get("die") == "scoring":
        os.kill(os.getpid(), signal.SIGKILL)
    weights = spec.config.get("model", {}).get("weights")
    start = Path(weights).read_text() if weights else ""
    model = {k: v for k, v in spec.config.get("model", {}).items() if k != "weights"}
    learned = json.dumps([spec.seed, model, start], sort_keys=True)
    (spec.folder / WEIGHTS).write_text(hashlib.sha256(learned.encode()).hexdigest())
    with atomic(spec.folder / CONFIG) as handle:
        yaml.safe_dump(spec.config, handle)
    result = RunResult(
        spec.name,
        spec.arm,
        spec.seed,
        "finished",
        metrics={f"{split}/pck@0.1[clip,clip-box]": unit(split, learned) for split in spec.score},
        measured={"total_seconds": seconds},
        facts={
            "threads": os.environ["OMP_NUM_THREADS"],
            "sees": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "score": list(spec.score),
            "tags": list(spec.tags),
        },
        config_hash=spec.config_hash,
        data_fingerprint=fingerprint(spec.config),
        weights_hash=hashlib.sha256(learned.encode()).hexdigest(),
    )
    if result.publish(spec.folder):
        note(top, f"end {spec.arm}/seed{spec.seed}")
    return result


def prepare(config: dict[str, Any], progress: Any) -> None:
    progress(1, 1, "features")
    note(Path(os.environ["FAKE_LOG"]), "prepare features")
    if config.get("fake", {}).get("unprepared"):
        raise BiposeError("no pictures to make features of")


def fingerprint(config: dict[str, Any]) -> str:
    root = config.get("data", {}).get("reader", {}).get("init_args", {}).get("root", "data")
    file = Path(os.environ["FAKE_LOG"]) / f"{root}.txt"
    return file.read_text() if file.exists() else "original"


def report(folder: Path, manifest: dict[str, Any], config: dict[str, Any]) -> str:
    path = folder / "report.html"
    path.write_text("<p>report</p>")
    return f"the table of {manifest['name']}\n{path}\n"


def mirror(folder: Path, tags: Any) -> int:
    """Out of reach where a file says so."""
    if (Path(os.environ["FAKE_LOG"]) / "no_dashboard").exists():
        raise BiposeError("W&B cannot be reached")
    note(Path(os.environ["FAKE_LOG"]), "mirror results")
    return 0


BACKEND = Backend(
    warm=lambda: None,
    resolve=resolve,
    prepare=prepare,
    execute=execute,
    fingerprint=fingerprint,
    cache_bytes=lambda config: 10**9,
    make=lambda recipe, root, workers, progress: (root.mkdir(parents=True, exist_ok=True), progress(1, 1, "clips"))[0],
    mirror=mirror,
    report=report,
)


if __name__ == "__main__":
    from bipose_lit.ablation.engine import ablate
    from bipose_lit.ablation.progress import PlainProgress

    if "FAKE_COMMAND" in os.environ:
        from bipose_lit.ablation import engine

        engine.COMMAND = tuple(json.loads(os.environ["FAKE_COMMAND"]))
    arguments = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    display = PlainProgress(every=float(os.environ.get("FAKE_EVERY", "10")))
    try:
        code = ablate(
            Path(sys.argv[1]), backend=BACKEND, progress=display, out=Path(arguments.pop("out", "runs")), **arguments
        )
    except BiposeError as error:
        print(f"bipose: error: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)
