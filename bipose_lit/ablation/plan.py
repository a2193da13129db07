"""From a manifest to tasks: every run with its configuration, its hash, what it needs and what is done already."""

from __future__ import annotations

import copy
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bipose_lit.ablation import tune
from bipose_lit.ablation.fields import Overlay
from bipose_lit.ablation.keys import data_key
from bipose_lit.ablation.manifest import Manifest
from bipose_lit.ablation.text import close
from bipose_lit.store import (
    RESULT,
    SPEC,
    WEIGHTS,
    RunResult,
    RunSpec,
    config_hash,
    is_unhashed,
    run_folder,
)  # fmt: skip
from bipose_lit.types import BiposeError

STAGE1, TUNE = "stage1", "tune"
WEIGHTS_OPTION = "model.weights"
Resolve = Callable[[Sequence[Path], Mapping[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """One run to be done.

    Attributes:
        key: "ARM/seedK", also its folder below OUT/NAME.
        arm: the arm, or "stage1", or "tune/ARM/trialT".
        seed: the seed.
        kind: "run", "stage1" or "tune".
        of: the manifest's arm ("" for stage 1).
        needs: keys of the tasks that must be finished before.
        point: options set by tuning, for "tune".
    """

    key: str
    arm: str
    seed: int
    kind: str
    of: str = ""
    needs: tuple[str, ...] = ()
    point: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """How far a task is.

    Attributes:
        name: "finished", "failed", "todo", "waiting" (for what it needs), "conflict" (finished otherwise).
        why: in words.
        result: what is on disk.
    """

    name: str
    why: str = ""
    result: RunResult | None = None


class Plan:
    """All tasks of a manifest in the order in which they are started: tuning, then seed by seed.

    Reading it touches files only; no tensor is made.
    """

    def __init__(
        self,
        manifest: Manifest,
        out: Path,
        resolve: Resolve,
        arms: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> None:
        check_arms(manifest, arms)
        self.manifest, self.out, self.fresh = manifest, out.resolve(), fresh
        self.folder = self.out / manifest.name
        self.arms = tuple(a for a in manifest.arms if not arms or a in arms)
        self.options = dict(options or {})
        self.fingerprints: dict[str, str] = {}
        self._resolve = resolve
        self._configs: dict[str, dict[str, Any]] = {}
        self._files: dict[str, str] = {}
        self._results: dict[str, tuple[tuple[int, int, int], RunResult | None]] = {}
        self._bound: dict[str, tuple[list[Any], RunSpec]] = {}
        self._data: dict[tuple[str, str], str] = {}
        if manifest.weights is not None:
            self.options.setdefault(WEIGHTS_OPTION, str(manifest.weights))
        self.tasks = {task.key: task for task in self._tasks()}
        for arm in (*self.arms, *((STAGE1,) if manifest.stage1 == "per_seed" else ())):
            self.config(arm, {})  # every mistake in a configuration is told before anything starts

    def _tasks(self) -> Iterator[Task]:
        m = self.manifest
        per_seed = m.stage1 == "per_seed"

        def stage1(seed: int) -> tuple[str, ...]:
            return (f"{STAGE1}/seed{seed}",) if per_seed else ()

        tuning: dict[str, tuple[str, ...]] = dict.fromkeys(self.arms, ())
        if m.tune is not None:
            if per_seed:
                yield Task(stage1(m.tune.seed)[0], STAGE1, m.tune.seed, "stage1")
            points = {arm: tune.points(m.tune, arm) for arm in self.arms}
            for trial in range(m.tune.trials):
                for arm in self.arms:
                    name = f"{TUNE}/{arm}/trial{trial:03d}"
                    task = Task(
                        f"{name}/seed{m.tune.seed}",
                        name,
                        m.tune.seed,
                        "tune",
                        arm,
                        stage1(m.tune.seed),
                        points[arm][trial],
                    )
                    tuning[arm] += (task.key,)
                    yield task
        for seed in m.seeds:
            if per_seed:
                yield Task(stage1(seed)[0], STAGE1, seed, "stage1")
            for arm in self.arms:
                yield Task(f"{arm}/seed{seed}", arm, seed, "run", arm, stage1(seed) + tuning[arm])

    def config(self, arm: str, point: Mapping[str, Any]) -> dict[str, Any]:
        """The resolved configuration of an arm (or of "stage1") at a setting; the seed is not in it yet."""
        key = f"{arm} {sorted(point.items(), key=str)}"
        if key not in self._configs:
            m = self.manifest
            overlays = m.stage1_config if arm == STAGE1 else m.arms[arm]
            options = {**self.options, **point}
            if arm == STAGE1:
                options.pop(WEIGHTS_OPTION, None)
            with tempfile.TemporaryDirectory(prefix="bipose-") as folder:
                files = [
                    *m.base,
                    *(overlay_file(o, Path(folder), f"{m.path.stem}-{arm}-{i}") for i, o in enumerate(overlays)),
                ]
                try:
                    self._configs[key] = self._resolve(files, options)
                except BiposeError as error:
                    raise BiposeError(f"{m.path}: arm {arm}: {error}") from error
        return copy.deepcopy(self._configs[key])

    def result(self, task: Task) -> RunResult | None:
        """What a task left, read again only when the file has changed."""
        folder = self.run_folder(task)
        try:
            stat = (folder / RESULT).stat()
        except FileNotFoundError:
            return None
        stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._results.get(task.key, (None, None))[0] != stamp:
            self._results[task.key] = (stamp, RunResult.load(folder))
        return self._results[task.key][1]

    def run_folder(self, task: Task) -> Path:
        return run_folder(self.out, self.manifest.name, task.arm, task.seed)

    def bind(self, task: Task) -> RunSpec | None:
        """The run with its final configuration; None while something it needs is not finished.

        Raises:
            BiposeError: weights that are not there, or a tuning without a usable trial.
        """
        done: dict[str, RunResult] = {}
        basis: list[Any] = []
        for key in task.needs:
            state = self.state(self.tasks[key])
            if state.name == "finished" and state.result is not None:
                done[key] = state.result
            elif not (state.name == "failed" and self.tasks[key].kind == TUNE):  # a failed trial counts as the worst
                return None
            basis.append((state.name, self._results[key][0]))
        if self._bound.get(task.key, (None,))[0] != basis:  # else nothing that it depends on has changed
            self._bound[task.key] = (basis, self._bind(task, done))
        return self._bound[task.key][1]

    def _bind(self, task: Task, done: Mapping[str, RunResult]) -> RunSpec:
        config = self._tuned(task, done)
        replaced: dict[str, str] = {}
        first = f"{STAGE1}/seed{task.seed}"
        model = config.get("model")
        if first in done and isinstance(model, dict):
            model["weights"] = str(self.run_folder(self.tasks[first]) / WEIGHTS)
            replaced[WEIGHTS_OPTION] = f"stage1 {done[first].weights_hash or done[first].config_hash}"
        elif isinstance(model, dict) and model.get("weights"):
            replaced[WEIGHTS_OPTION] = self._file_hash(str(model["weights"]))
        config["seed_everything"] = task.seed
        if isinstance(config.get("data"), dict):
            config["data"] = {**config["data"], "seed": task.seed}
        m = self.manifest
        return RunSpec(
            name=m.name,
            arm=task.arm,
            seed=task.seed,
            folder=self.run_folder(task),
            config=config,
            threads=m.threads,
            question=m.question,
            tags=(m.mode, *((task.kind,) if task.kind != "run" else ()), *(("trial",) if m.trial else ()), *m.tags),
            config_hash=config_hash({**config, "threads": m.threads}, replaced),
            score=("val", "test") if task.kind == "run" else ("val",),
            endpoint=m.endpoint,
        )

    def _tuned(self, task: Task, done: Mapping[str, RunResult]) -> dict[str, Any]:
        m = self.manifest
        if task.kind == "stage1":
            return self.config(STAGE1, {})
        if task.kind == "run" and m.tune is not None:
            return self.config(task.of, self.best(task.of, done)[1])
        return self.config(task.of, task.point)

    def best(self, arm: str, done: Mapping[str, RunResult]) -> tuple[int, dict[str, Any]]:
        """The trial that won an arm's tuning and its setting.

        Raises:
            BiposeError: the metric is missing.
            NoTrialError: it is never a number.
        """
        t = self.manifest.tune
        assert t is not None
        trials = [task for task in self.tasks.values() if task.kind == "tune" and task.of == arm]
        values = [math.nan] * len(trials)
        for index, task in enumerate(trials):
            if task.key in done:
                metrics = done[task.key].metrics
                values[index] = metrics[tune.find_metric(metrics, t.metric, "val")]
        index = tune.best(t, values)
        return index, dict(trials[index].point)

    def settled(self, task: Task) -> bool:
        """Whether a failed tuning trial stays so: a run of its arm is finished, with the best of the other trials."""
        if task.kind != "tune":
            return False
        runs = (t for t in self.tasks.values() if t.kind == "run" and t.of == task.of)
        return any((result := self.result(t)) is not None and result.status == "finished" for t in runs)

    def _file_hash(self, name: str) -> str:
        if name not in self._files:
            path = Path(name)
            if not path.is_file():
                raise BiposeError(
                    f"weights {path} not found; give the file in 'weights' of {self.manifest.path} or make it"
                )
            with path.open("rb") as handle:
                self._files[name] = hashlib.file_digest(handle, "sha256").hexdigest()
        return self._files[name]

    def state(self, task: Task) -> State:
        """How far a task is, from the files on disk."""
        result = self.result(task)
        try:
            spec = self.bind(task)
        except tune.NoTrialError as error:
            return State("waiting", f"arm {task.of}: {error}", result)
        if spec is None:
            open_ = [k for k in task.needs if self.state_name(k) != "finished"]
            return State("waiting", f"for {', '.join(open_)}", result)
        if result is None:
            return State("todo")
        if result.status != "finished":
            return State("failed", result.error, result)
        if result.config_hash != spec.config_hash:
            why = f"was made with another configuration{_difference(spec)}"
        elif (known := self._data_now(spec)) and known != result.data_fingerprint:
            why = "was made from other data: files have changed since"
        else:
            return State("finished", "", result)
        return State("todo", why) if self.fresh else State("conflict", why, result)

    def _data_now(self, spec: RunSpec) -> str:
        """Fingerprint of the data that a run of this plan reads; "" while nobody has looked."""
        if not self.fingerprints:
            return ""
        place = (spec.arm, spec.config_hash)
        if place not in self._data:
            self._data[place] = data_key(spec.config)
        return self.fingerprints.get(self._data[place], "")

    def state_name(self, key: str) -> str:
        return self.state(self.tasks[key]).name

    def check(self) -> None:
        """Finished runs must be what the manifest asks for now.

        Raises:
            BiposeError: one is not; says which, what differs, and what to do.
        """
        wrong = [(task, state) for task in self.tasks.values() if (state := self.state(task)).name == "conflict"]
        if wrong:
            task, state = wrong[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise BiposeError(
                f"{self.run_folder(task)} {state.why}{more}; give another --out, another name in {self.manifest.path}, "
                "or --fresh to repeat these runs"
            )

    def estimate(self, workers: int) -> float:
        """Seconds that the unfinished runs will take, by measured ones of the same arm, else of any; NaN without."""
        seconds: dict[str, list[float]] = {}
        left: list[str] = []
        for task in self.tasks.values():
            state = self.state(task)
            arm = task.of or task.arm
            if state.name == "finished" and state.result is not None:
                seconds.setdefault(arm, []).append(run_seconds(state.result))
            else:
                left.append(arm)
        known = [v for values in seconds.values() for v in values if math.isfinite(v)]
        if not left:
            return 0.0
        if not known:
            return math.nan
        overall = sum(known) / len(known)
        each = {arm: sum(v) / len(v) for arm, v in seconds.items() if v and all(map(math.isfinite, v))}
        return sum(each.get(arm, overall) for arm in left) / max(1, min(workers, len(left)))


def check_arms(manifest: Manifest, arms: Sequence[str] | None) -> None:
    """Refuses arms that a manifest does not have.

    Raises:
        BiposeError: naming the first, and those that there are.
    """
    for arm in arms or ():
        if arm not in manifest.arms:
            raise BiposeError(
                f"no arm '{arm}' in {manifest.path}{close(arm, manifest.arms)}; arms: {', '.join(manifest.arms)}"
            )


def run_seconds(result: RunResult) -> float:
    """Wall time of a finished run."""
    measured = result.measured
    return float(measured.get("total_seconds", measured.get("train_seconds", math.nan)))


def steps(config: Mapping[str, Any]) -> str:
    """The length of a run in words, as its Trainer is configured."""
    trainer = config.get("trainer") or {}
    if (trainer.get("max_steps") or -1) > 0:
        return f"{trainer['max_steps']} steps"
    return f"{trainer['max_epochs']} epochs" if trainer.get("max_epochs") else "?"


def overlay_file(overlay: Overlay, folder: Path, name: str) -> Path:
    if isinstance(overlay, Path):
        return overlay
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(overlay), sort_keys=False))
    return path


def _difference(spec: RunSpec) -> str:
    """The first option in which a run on disk differs from what is asked for now, in words."""
    try:
        before = RunSpec.load(spec.folder / SPEC)
    except BiposeError:
        return ""
    old, new = (
        dict(_flat({**before.config, "threads": before.threads})),
        dict(_flat({**spec.config, "threads": spec.threads})),
    )
    changed = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    changed = [k for k in changed if not is_unhashed(k) and k != WEIGHTS_OPTION]
    if not changed:
        return " (the weights it starts from have changed)"
    key = changed[0]
    return (
        f" ({key}: {old.get(key)} there, {new.get(key)} now{f'; {len(changed) - 1} more' if len(changed) > 1 else ''})"
    )


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
