"""A sweep's folder as `bipose sweep` leaves it, simulated: a space with conditions, trials in all states, arms trained anew."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake
import numpy as np

from bipose_lit.store import RunResult

NAME = fake.NAME
SPACE: dict[str, Any] = {
    "head": {"overlays": {"bilstm": ["../temporal/bilstm.yaml"], "lstm": ["../temporal/lstm.yaml"], "none": []}},
    "model.recipe.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "model.temporal.init_args.hidden": {"choices": [16, 32, 64], "when": {"head": ["bilstm", "lstm"]}},
    "model.temporal.init_args.dropout": {"low": 0.0, "high": 0.5, "when": {"head": ["bilstm"]}},
    "data.supervise": [0.25, 0.5, 1.0],
    "model.recipe.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
}
IMPORTANCES = {
    "model.recipe.lr": 0.46, "head": 0.31, "model.temporal.init_args.hidden": 0.11, "data.supervise": 0.07,
    "model.temporal.init_args.dropout": 0.03, "model.recipe.weight_decay": 0.02,
}  # fmt: skip
METRIC = "pck@0.1[clip]"
LATENCY = "measured/ms_per_frame"


def write_sweep(
    out: Path,
    trials: int = 60,
    objectives: int = 1,
    seeds: int = 5,
    retrained: bool = True,
    arms: Sequence[str] = ("none", "best1", "best2"),
    seed: int = 3,
) -> Path:
    """Writes OUT/NAME; the search alone with `retrained` False. Returns the folder."""
    folder = out / NAME
    if retrained and seeds:
        _retrained(out, seeds, arms)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_trial(number, objectives, np.random.default_rng([seed, number])) for number in range(trials)]
    (folder / "trials.json").write_text(json.dumps(rows, indent=1))
    names = [METRIC, LATENCY][:objectives]
    finished = sorted((r for r in rows if r["state"] == "finished"), key=lambda r: -r["values"][0])
    shares = {METRIC: IMPORTANCES, LATENCY: {"head": 0.7, "model.temporal.init_args.hidden": 0.3}}
    sweep = {
        "name": NAME, "question": "Which head, and how wide?", "space": SPACE,
        "objectives": [{"metric": m, "maximize": m == METRIC} for m in names],
        "sampler": {"name": "tpe", "seed": 0}, "pruner": {"name": "median" if objectives == 1 else "none"},
        "budget": {"trials": trials, "hours": None}, "baselines": {"none": "../temporal/none.yaml"}, "seeds": 1,
        "retrain": {"best": 2, "seeds": list(range(seeds))}, "endpoint": METRIC,
        "best": [{"arm": f"best{i + 1}", "trial": r["number"]} for i, r in enumerate(finished[:2])],
        "importances": {} if len(finished) < 4 else IMPORTANCES if objectives == 1 else {m: shares[m] for m in names},
    }  # fmt: skip
    (folder / "sweep.json").write_text(json.dumps(sweep, indent=1))
    return folder


def _trial(number: int, objectives: int, rng: np.random.Generator) -> dict[str, Any]:
    near = rng.random() < number / 90  # the sampler learns
    head = str(rng.choice(["bilstm", "lstm", "none"], p=[0.7, 0.2, 0.1] if near else [1 / 3] * 3))
    lr = float(10 ** (rng.normal(-2.7, 0.25) if near else rng.uniform(-4, -2)))
    params: dict[str, Any] = {"head": head, "model.recipe.lr": min(max(lr, 1e-4), 1e-2)}
    if head != "none":
        params["model.temporal.init_args.hidden"] = int(rng.choice([16, 32, 64]))
    if head == "bilstm":
        params["model.temporal.init_args.dropout"] = float(rng.uniform(0, 0.5))
    params["data.supervise"] = float(rng.choice([0.25, 0.5, 1.0]))
    params["model.recipe.weight_decay"] = float(10 ** rng.uniform(-6, -2))
    hidden = params.get("model.temporal.init_args.hidden", 0)
    value = 0.66 + {"bilstm": 0.045, "lstm": 0.025, "none": 0.0}[head] + 0.0002 * hidden
    value += -0.05 * (np.log10(params["model.recipe.lr"]) + 2.7) ** 2 + 0.006 * rng.normal()
    steps = [50, 100, 150, 200]
    curve = {str(s): float(value * (1 - 0.25 * np.exp(-s / 70)) + 0.003 * rng.normal()) for s in steps}
    state, values, seconds = "finished", [float(value)], float(20 + 0.2 * hidden + rng.normal())
    if objectives == 2:
        values.append(float(4 + {"bilstm": 3, "lstm": 1.5, "none": 0}[head] + 0.03 * hidden + 0.1 * rng.random()))
    row: dict[str, Any] = {"number": number, "state": state, "params": params, "values": values, "intermediate": curve,
                           "seconds": seconds, "folder": f"trials/trial{number:04d}"}  # fmt: skip
    if objectives == 1 and number > 5 and value < 0.66 + 0.02 * rng.random():
        cut = int(rng.integers(1, 3))
        kept = dict(list(curve.items())[:cut])
        row |= {"state": "pruned", "intermediate": kept, "values": [list(kept.values())[-1]],
                "pruned_at": int(list(kept)[-1]), "seconds": seconds * cut / 4}  # fmt: skip
    elif number % 23 == 7:
        error = "training diverged: decoder.final.weight is not finite after step 40; lower model.recipe.lr"
        row |= {"state": "failed", "values": [], "intermediate": {}, "error": error, "seconds": 4.0}
    elif number % 59 == 58:
        row |= {"state": "running", "values": [], "seconds": 0.0}
    return row


def _retrained(out: Path, seeds: int, arms: Sequence[str]) -> None:
    """Runs of arms under their sweep's names, from those that `fake.write_tree` simulates."""
    stand_in = {"none": "none", "best1": "bilstm", "best2": "lstm"}
    folder, _ = fake.write_tree(
        out, seeds=seeds, clusters=8, frames=12, arms=[stand_in[a] for a in arms], condensed=True
    )
    for arm in arms:
        if stand_in[arm] != arm:
            (folder / stand_in[arm]).rename(folder / arm)
        for run in sorted((folder / arm).glob("seed*")):
            result = RunResult.load(run)
            assert result is not None
            rng = np.random.default_rng([int(run.name.removeprefix("seed")), len(arm)])
            level = {"none": 0.662, "best1": 0.704, "best2": 0.706}[arm]
            result.arm = arm
            result.metrics["val/pck@0.1[clip,clip-box]"] = level + 0.004 * float(rng.normal())
            result.save(run)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= {
        "arms": list(arms), "about": {"none": "baseline", "best1": "best trial", "best2": "second best trial"},
        "baseline": arms[0], "contrasts": [[a, arms[0]] for a in arms[1:]], "controls": [], "assay": False,
        "question": "Which head, and how wide?",
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
