"""What a report is made of: the manifest and the runs of one ablation, as their files tell; nothing is computed here."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bipose_lit.expected import Expected, read_expected
from bipose_lit.metrics.condensed import Condensed
from bipose_lit.store import RESULT, Predictions, RunResult
from bipose_lit.tracking import history
from bipose_lit.types import BiposeError

MANIFEST = "manifest.json"
SERVANTS = ("stage1", "tune", "report", "trials")
"""Folders beside the arms that serve them."""
TEST = "test/"
DEFAULT_ENDPOINT, DEFAULT_MARGIN = "pck@0.1[clip]", 0.005


@dataclass(frozen=True)
class Manifest:
    """The question an ablation asks; every field but the name and the arms may be missing in the file.

    Attributes:
        name: of the ablation.
        arms: in the order of the tables; what each is, in words, in `about`.
        baseline: the arm that differences are taken to.
        contrasts: (arm, control) pairs named before the run; they get verdicts. All other comparisons are exploratory.
        controls: arms that show why a difference is there.
        seeds: that every arm should have.
        question: one sentence.
        endpoint: metric that decides, without split and box, e.g. "pck@0.1[clip]".
        margin: within which two arms count as equivalent, in the endpoint's unit (0.005: half a point).
        mode: "frozen" (cached per-frame features, heads trained) or "full".
        stage1: where the shared per-frame weights come from.
        trial: a trial of the machinery, never a verdict.
        assay: what the synthetic set's regimes should show, as `statistics` reads it; None: the default expectations.
        metrics: shown beside the endpoint, named as it is.
        expected: numbers of somebody else's that arms should reach.
        data: one sentence about the data.
        notes: for the reader: budget, caveats.
        threads: per run.
        about: arm -> words.
        layout: "question" (arms, differences, regimes; costs apart) or "comparison" (one table with costs).
        raw: the whole file.
    """

    name: str
    arms: tuple[str, ...]
    baseline: str
    contrasts: tuple[tuple[str, str], ...] = ()
    controls: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    question: str = ""
    endpoint: str = DEFAULT_ENDPOINT
    margin: float = DEFAULT_MARGIN
    mode: str = ""
    stage1: str = ""
    trial: bool = False
    assay: Any = None
    metrics: tuple[str, ...] = ()
    expected: tuple[Expected, ...] = ()
    data: str = ""
    notes: str = ""
    threads: int | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    layout: str = "question"
    raw: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """One run's folder and what its result.json says."""

    folder: Path
    result: RunResult

    @property
    def arm(self) -> str:
        return self.result.arm

    @property
    def seed(self) -> int:
        return self.result.seed

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """Rows of history.jsonl, one per step."""
        return history(self.folder)

    def condensed(self, endpoint: str, split: str = "test") -> Condensed | None:
        """A split's sums by cluster as the run left them; None where it left none, or those of another metric.

        Raises:
            BiposeError: they cannot be read.
        """
        plain = self.result.clusters.get(split)
        if not isinstance(plain, Mapping) or plain.get("endpoint") != endpoint:
            return None
        try:
            return Condensed.read(plain)
        except BiposeError as error:
            raise BiposeError(f"{self.folder / RESULT}: {error}") from error

    def predictions(self, split: str = "test") -> Predictions | None:
        """Predictions of a split, None where the run left none (or the file is gone). Not kept: they can be large.

        Raises:
            BiposeError: a damaged file.
        """
        name = self.result.predictions.get(split, f"predictions-{split}.npz")
        path = self.folder / name
        return Predictions.load(path) if path.is_file() else None


@dataclass
class Study:
    """All of one ablation that is on disk.

    Attributes:
        folder: OUT/NAME.
        manifest: the question.
        runs: finished runs that left sums by cluster or test predictions, by (arm, seed), in the manifest's order.
        missing: (arm, seed, reason) of runs that the manifest names and that cannot be used.
        notes: what the reader must know about the input.
    """

    folder: Path
    manifest: Manifest
    runs: dict[tuple[str, int], Run]
    missing: list[tuple[str, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def arms(self) -> tuple[str, ...]:
        """Arms with at least one usable run."""
        return tuple(a for a in self.manifest.arms if any(arm == a for arm, _ in self.runs))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with at least one usable run."""
        return tuple(sorted({seed for _, seed in self.runs}))

    def of(self, arm: str) -> list[Run]:
        """Usable runs of an arm by seed."""
        return [run for (a, _), run in sorted(self.runs.items(), key=lambda item: item[0][1]) if a == arm]


def load_study(folder: Path, manifest: Mapping[str, Any] | None = None) -> Study:
    """Reads OUT/NAME; runs that failed, are missing or left no predictions are listed, not fatal.

    Args:
        folder: holds manifest.json and ARM/seedK/result.json.
        manifest: instead of the file.

    Raises:
        BiposeError: no such folder, no usable run, a manifest that contradicts itself, or a metric that no run has.
    """
    if not folder.is_dir():
        raise BiposeError(f"{folder} is no folder; give the folder of one ablation (OUT/NAME)")
    notes: list[str] = []
    found = _found(folder)
    path = folder / MANIFEST
    if manifest is None and path.is_file():
        try:
            manifest = json.loads(path.read_text())
        except ValueError as error:
            raise BiposeError(f"{path} is no JSON ({error}); run the ablation again to rewrite it") from error
    if manifest is None:
        below = sorted(p.parent.name for p in folder.glob(f"*/{MANIFEST}"))
        if below:
            raise BiposeError(f"{folder} holds several ablations; report one of them: {', '.join(below)}")
        manifest = {}
        if found:
            notes.append(
                f"no {MANIFEST}: arms, seeds and baseline were guessed, and no comparison was named beforehand"
            )
    if not isinstance(manifest, Mapping):
        raise BiposeError(f"{path} holds no mapping; run the ablation again to rewrite it")
    parsed = parse_manifest(manifest, folder.name, found)
    usable: dict[tuple[str, int], Run] = {}
    missing: list[tuple[str, int, str]] = []
    for arm in parsed.arms:
        for seed in parsed.seeds:
            run = found.get((arm, seed))
            reason = _unusable(run, parsed.endpoint)
            if reason or run is None:
                missing.append((arm, seed, reason))
            else:
                usable[arm, seed] = run
    extra = sorted({a for a, _ in found} - {*parsed.arms, *SERVANTS})
    if extra:
        notes.append(f"folders that the manifest does not name were left out: {', '.join(extra)}")
    if not usable:
        failed = next((f"; first: {a}/seed{s}: {r}" for a, s, r in missing), "")
        raise BiposeError(f"{folder} has no finished run with test predictions{failed}; run the ablation first")
    _check_metrics(parsed, usable.values())
    prints = sorted({run.result.data_fingerprint for run in usable.values()})
    if len(prints) > 1:
        notes.append(f"the runs read {len(prints)} different versions of the data; comparisons between them are void")
    commits = sorted({run.result.commit for run in usable.values()})
    if len(commits) > 1:
        notes.append(f"the runs come from {len(commits)} commits: {', '.join(c or 'unknown' for c in commits)}")
    rescored = [f"{a}/seed{s}" for (a, s), r in usable.items() if r.result.scorings.get("test", 1) != 1]
    if rescored:
        notes.append(f"the test split was scored more than once by {', '.join(rescored)}: their numbers are optimistic")
    return Study(folder, parsed, usable, missing, notes)


def parse_manifest(data: Mapping[str, Any], name: str, found: Iterable[tuple[str, int]] = ()) -> Manifest:
    """The manifest as the engine wrote it, with defaults for what it lacks.

    Args:
        data: the mapping.
        name: the ablation's name if the mapping has none.
        found: (arm, seed) on disk, to guess arms and seeds where the mapping has none.

    Raises:
        BiposeError: a baseline or contrast that names no arm.
    """
    listed = data.get("arms") or sorted({arm for arm, _ in found})
    about = (
        {str(a): _words(v) for a, v in listed.items() if isinstance(v, Mapping)} if isinstance(listed, Mapping) else {}
    )
    arms = tuple(dict.fromkeys(_arm(a) for a in listed))
    if not arms:
        raise BiposeError(f"ablation {name}: no arm in the manifest and no run on disk; run the ablation first")
    guess = next((a for a in ("none_matched", "none") if a in arms), arms[0])
    baseline = str(data.get("baseline") or guess)
    contrasts = tuple(_pair(c, baseline) for c in data.get("contrasts") or ())
    for arm in (baseline, *(a for pair in contrasts for a in pair)):
        if arm not in arms:
            raise BiposeError(
                f"ablation {name}: the manifest compares {arm!r}, which is none of its arms {', '.join(arms)}"
            )
    seeds = data.get("seeds")
    if isinstance(seeds, int):
        seeds = range(seeds)
    stage1 = data.get("stage1") or ""
    metrics = data.get("metrics") or ()
    return Manifest(
        name=str(data.get("name") or name),
        arms=arms,
        baseline=baseline,
        contrasts=contrasts,
        controls=tuple(a for a in map(str, data.get("controls") or ()) if a in arms),
        seeds=tuple(int(s) for s in seeds) if seeds is not None else tuple(sorted({s for _, s in found})),
        question=str(data.get("question") or ""),
        endpoint=str(data.get("endpoint") or DEFAULT_ENDPOINT),
        margin=DEFAULT_MARGIN if data.get("margin") is None else float(data["margin"]),
        mode=str(data.get("mode") or ""),
        stage1=stage1 if isinstance(stage1, str) else json.dumps(stage1, sort_keys=True),
        trial=bool(data.get("trial")),
        assay=data.get("assay"),
        metrics=tuple(map(str, [metrics] if isinstance(metrics, str) else metrics)),
        expected=read_expected(data.get("expected"), arms),
        data=_words(data.get("data")),
        notes=str(data.get("notes") or ""),
        threads=int(data["threads"]) if data.get("threads") else None,
        about={k: v for k, v in {**about, **dict(data.get("about") or {})}.items() if v and v != k},
        layout=str(data.get("layout") or "question"),
        raw=data,
    )


def metric_of(metrics: Mapping[str, float], name: str, split: str = "test") -> float | None:
    """A run's metric by its full name, or by one without split and box ("pck@0.1[clip]"); None where it has none."""
    head = f"{split}/"
    names = (k for k in metrics if k.startswith(head) and name in (k, k.removeprefix(head), _short(k, head)))
    return next((metrics[k] for k in names), None)


def _short(name: str, head: str = TEST) -> str:
    """ "test/pck@0.1[clip,clip-box]/P" -> "pck@0.1[clip]/P"."""
    return re.sub(r",[^\]]*\]", "]", name.removeprefix(head))


def _check_metrics(manifest: Manifest, runs: Iterable[Run]) -> None:
    if not manifest.metrics:
        return
    known = {k: 0.0 for run in runs for k in run.result.metrics if k.startswith(TEST)}
    for name in manifest.metrics:
        if metric_of(known, name) is None:
            short = sorted({_short(k) for k in known})
            wanted = re.sub(r",[^\]]*\]", "]", name.partition("/")[2] if name.startswith(("train/", "val/")) else name)
            close = difflib.get_close_matches(wanted, short, 4, 0.5) or short[:4]
            raise BiposeError(
                f"ablation {manifest.name}: metrics: '{name}' is in no run's test results; close: "
                f"{', '.join(close) or 'none'}; correct it in the manifest and run the ablation again (finished runs are kept)"
            )


def _arm(value: Any) -> str:
    return str(value["name"]) if isinstance(value, Mapping) else str(value)


def _pair(value: Any, baseline: str) -> tuple[str, str]:
    if isinstance(value, Mapping):
        return str(value["arm"]), str(value.get("control") or value.get("baseline") or baseline)
    if isinstance(value, str):
        arm, _, control = value.partition(" - ")
        return arm.strip(), control.strip() or baseline
    arm, control = value
    return str(arm), str(control)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("about") or value.get("note") or value.get("name") or "")
    return "" if value is None else str(value)


def _found(folder: Path) -> dict[tuple[str, int], Run]:
    """Results below ARM/seedK; a damaged result.json is an unusable run, not the end of the report."""
    found: dict[tuple[str, int], Run] = {}
    for path in sorted(folder.glob(f"*/seed*/{RESULT}")):
        arm, digits = path.parent.parent.name, path.parent.name.removeprefix("seed")
        if not digits.isdigit():
            continue
        try:
            result = RunResult.load(path.parent)
        except BiposeError as error:
            result = RunResult(folder.name, arm, int(digits), "failed", error=str(error))
        if result is not None:
            found[result.arm, result.seed] = Run(path.parent, result)
    return found


def _unusable(run: Run | None, endpoint: str) -> str:
    if run is None:
        return "has not run"
    if run.result.status != "finished":
        return run.result.error or run.result.status
    test = run.result.clusters.get("test")
    if isinstance(test, Mapping) and test.get("endpoint") == endpoint:
        return ""
    name = run.result.predictions.get("test", "predictions-test.npz")
    return "" if (run.folder / name).is_file() else f"left no {name}"
