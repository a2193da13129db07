"""A sweep in miniature: `python sweep_fake.py SWEEP [options as JSON]` runs the real engine over trials of a tenth of a second.

A run's value is a smooth function of model.lr, model.width and model.temporal, plus a little that its seed decides. It grows over
STEPS steps, is validated after every second one, and leaves a checkpoint after every second one too. Starts, steps and ends are
noted in FAKE_LOG/events.log. FAKE_SECONDS is the time of a run. What a configuration says under `fake` makes runs misbehave.
"""

import hashlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "ablation"))

from fake import BACKEND, checkpoint, fingerprint, note, resumed, unit

from bipose_lit.store import HISTORY, SPEC, RunResult, RunSpec
from bipose_lit.types import BiposeError, Preempted

STEPS, CLIPS = 8, 12
BEST = {"none": 0.0, "lstm": 0.1, "bilstm": 0.2}


def value(config: Mapping[str, Any], seed: int) -> float:
    """What a run reaches: best at lr = 0.01 and width 16."""
    model = config["model"]
    lr, width = float(model.get("lr", 0.1)), float(model.get("width", 4))
    far = (math.log10(lr) + 2) ** 2 / 10 + (math.log2(width / 16)) ** 2 / 40
    return 0.7 + BEST[model.get("temporal") or "none"] - far + 0.01 * unit(seed, model)


def at(step: int, final: float) -> float:
    return final * (1 - math.exp(-step / 3))


def execute(spec: RunSpec, report: Any, judge: Any = None) -> RunResult:
    top = Path(os.environ["FAKE_LOG"])
    first = resumed(spec)
    key = f"{spec.arm}/seed{spec.seed}"
    note(top, f"{'resume' if first else 'start'} {key}")
    fake = spec.config.get("fake") or {}
    seconds = float(os.environ.get("FAKE_SECONDS", "0.1"))
    final = value(spec.config, spec.seed)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: asked.append(number))
    pruned = None
    for step in range(first + 1, STEPS + 1):
        with (spec.folder / HISTORY).open("a") as handle:
            handle.write(json.dumps({"step": step}) + "\n")
        note(top, f"step {key}:{step}")
        report(step, STEPS, {"val/pck@0.1[clip,clip-box]": at(step, final)})
        time.sleep(seconds / STEPS)
        if step == 3 and not (top / "mended").exists():
            if fake.get("raise"):
                raise BiposeError("training diverged: loss is not finite after step 3; lower model.lr")
            if fake.get("die"):
                os.kill(os.getpid(), signal.SIGKILL)
        if step % 2 == 0 and judge is not None:
            now = at(step, final)
            clusters = (
                {f"clip{i:02d}": now + 0.02 * unit(i, step, spec.seed) for i in range(CLIPS)} if judge.watch else {}
            )
            if judge(step, {"val/pck@0.1[clip,clip-box]": now}, clusters):
                pruned = step
                break
        if asked or step % 2 == 0:
            checkpoint(spec, step)
        if asked:
            raise Preempted(f"{key} stopped at step {step}", asked[0])
    reached = final if pruned is None else at(pruned, final)
    metrics = {f"{split}/pck@0.1[clip,clip-box]": reached for split in ("val", *spec.score)}
    if pruned is not None:
        metrics.pop("test/pck@0.1[clip,clip-box]", None)
    if fake.get("nan"):
        metrics = dict.fromkeys(metrics, math.nan)
    result = RunResult(
        spec.name,
        spec.arm,
        spec.seed,
        "finished" if pruned is None else "pruned",
        metrics=metrics,
        measured={"total_seconds": seconds, "ms_per_frame": float(spec.config["model"].get("width", 4))},
        facts={"score": list(spec.score), "flops_per_frame": 1e6 * float(spec.config["model"].get("width", 4))}
        | ({} if pruned is None else {"pruned_at": pruned}),
        config_hash=spec.config_hash,
        data_fingerprint=fingerprint(spec.config),
        weights_hash=hashlib.sha256(key.encode()).hexdigest(),
    )
    if result.publish(spec.folder):
        note(top, f"end {key}")
    return result


def report(folder: Path, manifest: dict[str, Any], config: dict[str, Any]) -> str:
    (folder / "report.html").write_text("<p>report</p>")
    found = json.loads((folder / "sweep.json").read_text())
    arms = ", ".join(f"{b['arm']}=trial{b['trial']:04d}" for b in found["best"])
    return f"the sweep {manifest['name']}: {arms or 'search alone'}\n{folder / 'report.html'}\n"


BACKEND = replace(BACKEND, execute=execute, report=report)
assert SPEC == "spec.json"


if __name__ == "__main__":
    from bipose_lit.ablation.progress import PlainProgress
    from bipose_lit.sweep.engine import sweep

    arguments = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    display = PlainProgress(every=float(os.environ.get("FAKE_EVERY", "10")))
    try:
        code = sweep(
            Path(sys.argv[1]), backend=BACKEND, progress=display, out=Path(arguments.pop("out", "runs")), **arguments
        )
    except BiposeError as error:
        print(f"bipose: error: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)
