"""A manifest is a question: arms, seeds, one endpoint, named contrasts. Read with every mistake told in one line."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bipose_lit.ablation.fields import Fields, Overlay, read_mapping
from bipose_lit.ablation.text import close
from bipose_lit.expected import Expected, read_expected
from bipose_lit.types import BiposeError

MAIN = "experiments/ablations/temporal.yaml"
CONFIGURATION = {"trainer", "model", "data", "seed_everything"}
"""Options of `bipose fit`, by which one of its files is known."""
MODES, STAGES = ("frozen", "full"), ("given", "per_seed")
LAYOUTS = ("question", "comparison")


@dataclass(frozen=True)
class Tune:
    """Equal tuning: every arm gets the same number of trials at the same points of the shared space.

    Attributes:
        trials: number of trials per arm.
        space: by dotted option, what is searched: a list of choices, or {low, high} with `log: true` or `int: true`.
        arms: further options of single arms, as `space`.
        metric: name of the validation metric that decides, or the start of its name.
        maximize: whether more of it is better.
        seed: seed of the tuning runs and of the points; must not be among the manifest's seeds.
    """

    trials: int
    space: Mapping[str, Any]
    metric: str
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    maximize: bool = True
    seed: int = 1000


@dataclass(frozen=True)
class Manifest:
    """One ablation.

    Attributes:
        path: the manifest's file.
        name: of the ablation: its folder below OUT and its W&B group.
        question: what is asked, in one sentence.
        base: configuration files that all arms share.
        arms: what each arm changes, in the order of the manifest; a product of axes is already multiplied out.
        baseline: the arm that others are compared with.
        controls: arms that show why a difference is there.
        contrasts: the pairs (arm, control) that get verdicts; all else is exploratory.
        seeds: one run per arm and seed.
        endpoint: the one metric that decides.
        margin: differences below it count as equivalent, in the endpoint's unit.
        mode: "frozen": heads on cached features of a frozen backbone; "full": everything is trained end to end.
        stage1: "given": one per-frame model (`weights`) for all; "per_seed": each seed trains its own first.
        stage1_config: configuration files of the per-frame model over `base`, for "per_seed".
        weights: the given per-frame model.
        threads: per run, whatever the number of workers: results depend on it in the last bit.
        tune: equal tuning before the runs.
        make: recipe of the synthetic data, made if it is absent.
        assay: what is known beforehand to come out, for the report.
        metrics: what tables show beside the endpoint.
        trial: a trial of the machinery: no verdict is printed.
        expected: numbers of somebody else's that arms should reach; a finished run says where it landed.
        notes: for the reader: budget, caveats.
        tags: for the dashboard.
        layout: of the report: "question" (differences and regimes, costs apart), or "comparison" (one table of arms and costs).
    """

    path: Path
    name: str
    question: str
    base: tuple[Path, ...]
    arms: Mapping[str, tuple[Overlay, ...]]
    baseline: str
    controls: tuple[str, ...] = ()
    contrasts: tuple[tuple[str, str], ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    endpoint: str = "pck@0.1[clip]"
    margin: float = 0.005
    mode: str = "frozen"
    stage1: str = "given"
    stage1_config: tuple[Overlay, ...] = ()
    weights: Path | None = None
    threads: int = 1
    tune: Tune | None = None
    make: Mapping[str, Any] | None = None
    assay: Any = None
    metrics: tuple[str, ...] = ()
    trial: bool = False
    expected: tuple[Expected, ...] = ()
    notes: str = ""
    tags: tuple[str, ...] = ()
    layout: str = "question"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for reports; file names relative to the manifest, so that equal ablations read equal anywhere."""

        def plain(value: Any) -> Any:
            if isinstance(value, Path):
                return os.path.relpath(value, self.path.parent)
            if isinstance(value, Mapping):
                return {str(k): plain(v) for k, v in value.items()}
            if isinstance(value, list | tuple):
                return [plain(v) for v in value]
            return value

        result: dict[str, Any] = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        result["path"] = self.path.name
        result["tune"] = None if self.tune is None else plain(asdict(self.tune))
        result["expected"] = [asdict(e) for e in self.expected]
        result["arms"] = {
            arm: {
                "about": ", ".join(Path(o).stem if isinstance(o, Path) else json.dumps(o) for o in overlays),
                "overlays": plain(overlays),
            }
            for arm, overlays in self.arms.items()
        }
        return result


def load_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest; file names in it are relative to it.

    Raises:
        BiposeError: one line with the file, what is wrong and what is meant.
    """
    path = Path(path)
    data = read_mapping(path, "manifest", MAIN, "question, base, arms, baseline and seeds")
    try:
        return _Reader(path, data).manifest()
    except BiposeError as error:
        raise BiposeError(f"{path}: {error}") from error


def check_space(space: Any, what: str) -> dict[str, Any]:
    """A search space, checked.

    Raises:
        BiposeError: an entry is neither a list of choices nor {low, high}.
    """
    if not isinstance(space, Mapping) or not space:
        raise BiposeError(
            f"{what} must map options to ranges, e.g. {{model.recipe.lr: {{low: 1e-4, high: 1e-2, log: true}}}}"
        )
    for key, entry in space.items():
        if isinstance(entry, list) and entry:
            continue
        if (
            not isinstance(entry, Mapping)
            or set(entry) - {"low", "high", "log", "int"}
            or not {"low", "high"} <= set(entry)
        ):
            raise BiposeError(f"{what}: {key} must be a list of choices or {{low, high}} with log or int, not {entry}")
        low, high = entry["low"], entry["high"]
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (low, high)) or not low < high:
            raise BiposeError(f"{what}: {key} needs numbers low < high, not {low} and {high}")
        if entry.get("log") and low <= 0:
            raise BiposeError(f"{what}: {key} is logarithmic, so low must be above 0, not {low}")
    return {str(k): v for k, v in space.items()}


class _Reader(Fields):
    """Takes a manifest's mapping apart."""

    def __init__(self, path: Path, data: Mapping[Any, Any]) -> None:
        super().__init__(path, data)
        known = [f.name for f in fields(Manifest) if f.name != "path"] + ["axes"]
        if CONFIGURATION & set(data) and not {"question", "arms", "axes"} & set(data):
            raise BiposeError(
                f"this is a configuration, not a manifest: train with it by 'bipose fit -c {path}', or write a manifest with "
                "question, base, arms (see ARCHITECTURE.md)"
            )
        self.only(known)

    def manifest(self) -> Manifest:
        arms = self.arms()
        seeds = self.seeds()
        stage1 = self.one_of("stage1", STAGES)
        stage1_config = self.overlays(self.data.get("stage1_config", []), "stage1_config")
        weights = self.data.get("weights")
        if stage1 == "per_seed" and weights is not None:
            raise BiposeError(
                "stage1: per_seed trains the per-frame model itself; remove weights, or say stage1: given"
            )
        if stage1 == "per_seed" and not stage1_config:
            raise BiposeError("stage1: per_seed needs stage1_config, the files that make the base a per-frame model")
        if stage1 == "given" and stage1_config:
            raise BiposeError("stage1_config is used by stage1: per_seed alone; remove it, or say stage1: per_seed")
        baseline = self.arm(self.take("baseline", str, next(iter(arms))), arms, "baseline")
        return Manifest(
            path=self.path,
            name=self.name(),
            question=self.take("question", str),
            base=tuple(self.file(f, "base") for f in self.strings("base", required=True)),
            arms=arms,
            baseline=baseline,
            controls=tuple(self.arm(a, arms, "controls") for a in self.strings("controls")),
            contrasts=self.contrasts(arms),
            seeds=seeds,
            endpoint=self.take("endpoint", str, "pck@0.1[clip]"),
            margin=self.margin(),
            mode=self.one_of("mode", MODES),
            stage1=stage1,
            stage1_config=stage1_config,
            weights=None if weights is None else self.file(weights, "weights"),
            threads=self.threads(),
            tune=self.tune(arms, seeds),
            make=self.make(),
            assay=self.data.get("assay"),
            metrics=self.strings("metrics"),
            trial=self.take("trial", bool, False),
            expected=read_expected(self.data.get("expected"), list(arms)),
            notes=self.take("notes", str, ""),
            tags=self.strings("tags"),
            layout=self.one_of("layout", LAYOUTS),
        )

    def arms(self) -> dict[str, tuple[Overlay, ...]]:
        if ("arms" in self.data) == ("axes" in self.data):
            raise BiposeError("give either arms, or axes whose product makes the arms")
        if "arms" in self.data:
            return self.group(self.data["arms"], "arms")
        axes = self.data["axes"]
        if not isinstance(axes, Mapping) or not axes:
            raise BiposeError("axes must map each axis to its levels")
        groups = [self.group(levels, f"axes.{axis}") for axis, levels in axes.items()]
        arms: dict[str, tuple[Overlay, ...]] = {}
        for combination in itertools.product(*(group.items() for group in groups)):
            name = "+".join(level for level, _ in combination)
            if name in arms:
                raise BiposeError(f"axes: two combinations are both named '{name}'; name the levels differently")
            arms[name] = tuple(itertools.chain.from_iterable(overlay for _, overlay in combination))
        return arms

    @staticmethod
    def arm(name: Any, arms: Iterable[str], where: str) -> str:
        known = list(arms)
        if name not in known:
            raise BiposeError(f"{where}: no arm '{name}'{close(str(name), known)}; arms: {', '.join(known)}")
        return str(name)

    def contrasts(self, arms: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        value = self.data.get("contrasts") or []
        if not isinstance(value, list):
            raise BiposeError(f"contrasts must be a list of pairs [arm, control], not {value!r}")
        pairs: list[tuple[str, str]] = []
        for pair in value:
            if not isinstance(pair, list) or len(pair) != 2:
                raise BiposeError(f"contrasts: each is a pair [arm, control], not {pair!r}")
            a, b = (self.arm(name, arms, "contrasts") for name in pair)
            if a == b:
                raise BiposeError(f"contrasts: {a} is compared with itself")
            if (a, b) in pairs or (b, a) in pairs:
                raise BiposeError(f"contrasts: [{a}, {b}] is named twice, which would count twice in the correction")
            pairs.append((a, b))
        return tuple(pairs)

    def seeds(self) -> tuple[int, ...]:
        return read_seeds(self.data.get("seeds", 5))

    def tune(self, arms: Mapping[str, Any], seeds: Sequence[int]) -> Tune | None:
        value = self.data.get("tune")
        if value is None:
            return None
        known = [f.name for f in fields(Tune)]
        if not isinstance(value, Mapping):
            raise BiposeError(f"tune must be a mapping with {', '.join(known)}, not {value!r}")
        for key in value:
            if key not in known:
                raise BiposeError(f"tune: unknown key '{key}'{close(str(key), known)}; known: {', '.join(known)}")
        missing = [k for k in ("trials", "space", "metric") if k not in value]
        if missing:
            raise BiposeError(f"tune: '{missing[0]}' is missing")
        tune = Tune(**value)
        checks: list[tuple[str, Callable[[Any], bool], str]] = [
            ("trials", lambda v: type(v) is int and v > 0, "a whole number above 0"),
            ("metric", lambda v: isinstance(v, str) and not v.startswith("test"), "the name of a validation metric"),
            ("maximize", lambda v: isinstance(v, bool), "true or false"),
            ("seed", lambda v: type(v) is int and v >= 0, "a whole number"),
        ]
        for key, good, wanted in checks:
            if not good(getattr(tune, key)):
                raise BiposeError(f"tune: {key} must be {wanted}, not {getattr(tune, key)!r}")
        if tune.seed in seeds:
            raise BiposeError(f"tune: seed {tune.seed} is among the seeds; the runs after tuning need fresh ones")
        check_space(tune.space, "tune.space")
        for name, space in tune.arms.items():
            self.arm(name, arms, "tune.arms")
            twice = sorted(set(check_space(space, f"tune.arms.{name}")) & set(tune.space))
            if twice:
                raise BiposeError(f"tune.arms.{name}: {twice[0]} is in the shared space already")
        return tune


def read_seeds(value: Any) -> tuple[int, ...]:
    """Seeds from a count (5: 0 to 4) or a list.

    Raises:
        BiposeError: not whole numbers, below 0, or given twice.
    """
    items = list(range(value)) if type(value) is int else value
    if not isinstance(items, list) or not items or any(type(v) is not int or v < 0 for v in items):
        raise BiposeError(f"seeds must be a number of seeds or a list of whole numbers, not {value!r}")
    twice = sorted({v for v in items if items.count(v) > 1})
    if twice:
        raise BiposeError(f"seeds: {twice[0]} is given twice; every seed is one run")
    return tuple(items)
