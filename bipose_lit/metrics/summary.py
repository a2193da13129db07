"""All numbers of one split under their protocol names, and sums by cluster for the statistics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics import smooth
from bipose_lit.metrics.occlusion import STRATA, timeline_of
from bipose_lit.metrics.pck import AUC_LIMIT, THRESHOLDS, Average, average, normaliser
from bipose_lit.metrics.terms import ENDPOINT, Metric, Terms, joint_sets, parse, stratum_mask, terms
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, NORMS, BiposeError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class ClusterSums(NamedTuple):
    """What a mean is made of: clusters (C names, sorted), sums of the terms and their counts, both (C,) float64."""

    clusters: tuple[str, ...]
    values: Floats
    weights: Floats

    @property
    def mean(self) -> float:
        """The metric over all terms, as `summarise` prints it; NaN without terms."""
        count = float(self.weights.sum())
        return float(self.values.sum()) / count if count else float("nan")


def box_rule(data: str) -> str:
    """The box rule in the data's name: "jhmdb/split1/test[clip-box]" -> "clip-box"; "" where it names none."""
    match = re.search(r"\[([^\[\]]*)\]\s*$", data)
    return match[1] if match else ""


class HasData(Protocol):
    """Whatever knows the data's name: predictions, or what was condensed from them."""

    @property
    def data(self) -> str: ...


def full_name(metric: str, predictions: HasData, prefix: str = "test") -> str:
    """The protocol name of a metric: "pck@0.1[clip]/P" -> "test/pck@0.1[clip,clip-box]/P"."""
    box = box_rule(predictions.data)
    return f"{prefix}/{metric.replace(']', f',{box}]', 1) if box else metric}"


def own_name(metric: str, data: str, prefix: str = "test") -> str:
    """The protocol name of a set's own measure: "ap" -> "test/ap[gt-box]", "pckh@0.5/head" -> "test/pckh@0.5[gt-box]/head".

    Args:
        metric: as the set calls it.
        data: name of the index that was scored, with its box rule.
        prefix: the split.
    """
    box = box_rule(data)
    head, slash, part = metric.partition("/")
    if box:
        head = head.replace("]", f",{box}]", 1) if "]" in head else f"{head}[{box}]"
    return f"{prefix}/{head}{slash}{part}"


def summarise(
    predictions: Predictions, prefix: str = "test", detail: bool = True, whole: Predictions | None = None
) -> dict[str, float]:
    """Every metric that the labels define; what has no labelled joint is left out, so no value is NaN.

    Printed for each normaliser that the data define: PCK at `THRESHOLDS` and the area under the curve, over all
    labelled joints (joints weigh by their labels; "/joint_mean" is the plain mean of joints) and by stratum
    ("/visible", "/occluded", "/N", "/N_hidden", "/P", "/F", "/B", joints, groups); further mean errors and smoothness.

    Args:
        predictions: one split.
        prefix: its name.
        detail: also joints and groups (some hundred numbers).
        whole: labels of whole clips where only a part of each clip was scored.

    Returns:
        Protocol name ("test/pck@0.1[clip,clip-box]/left_wrist") to fraction, pixels or what the name says;
        "PREFIX/excluded_persons[NORM,BOX]" counts persons without this normaliser.

    Raises:
        BiposeError: a joint or group has the name of a stratum.
    """
    strata = timeline_of(predictions, whole).strata()
    sets = joint_sets(predictions.joint_names) if detail else {}
    found: dict[str, float] = {}

    def put(name: str, value: float) -> None:
        full = full_name(name, predictions, prefix)
        if full in found:
            raise BiposeError(
                f"{predictions.data}: {full!r} is two metrics; rename the joint that is called like a stratum"
            )
        if value == value:
            found[full] = value

    def means(name: str, each: tuple[str, ...], split: bool) -> None:
        t = terms(predictions, name)
        for stratum in each:
            mean = average(t.values, t.defined & strata[stratum])
            put(name if stratum == "all" else f"{name}/{stratum}", mean.mean)
            if stratum == "all" and split:
                _joints(name, mean)

    def _joints(name: str, mean: Average) -> None:
        put(f"{name}/joint_mean", mean.joint_mean)
        for joint, ids in sets.items():
            put(f"{name}/{joint}", mean.group(ids))

    labelled = (predictions.visible != ABSENT).any(axis=1)
    norms = [n for n in NORMS if np.isfinite(normaliser(predictions.norms, n)).any()]
    for norm in norms:
        for threshold in THRESHOLDS:
            means(f"pck@{threshold:g}[{norm}]", STRATA, True)
        means(f"auc@{AUC_LIMIT:g}[{norm}]", STRATA, True)
        missing = int((labelled & ~np.isfinite(normaliser(predictions.norms, norm))).sum())
        put(f"excluded_persons[{norm}]", float(missing))
    means("error_px", STRATA, True)
    units = ["_px", *(["[clip]", "_per_s[clip]"] if "clip" in norms else [])]
    for name in ("error[clip]",) if "clip" in norms else ():
        means(name, STRATA, False)
    for measure in smooth.ORDERS:
        for unit in units:
            means(f"{measure}{unit}", ("all", "visible", "occluded"), False)
    if labelled.any():  # a detector's boxes have no labels: zeros beside their AP would mislead
        found[f"{prefix}/persons"] = float(labelled.sum())
        found[f"{prefix}/joints"] = float((predictions.visible != ABSENT).sum())
    return found


def mean_of(predictions: Predictions, metric: str = ENDPOINT) -> float:
    """One metric over all its terms, e.g. "pck@0.1[clip]" or "error_px/occluded"; NaN without terms."""
    m = parse(metric)
    t = terms(predictions, m)
    return average(t.values, t.defined & stratum_mask(predictions, m.stratum)).mean


def per_cluster(predictions: Predictions, metric: str = ENDPOINT, mask: str | Bools = "all") -> ClusterSums:
    """A metric's sums and counts by cluster; their ratio over all clusters is the printed number.

    Args:
        predictions: one split.
        metric: a name as in `terms.parse`; its stratum, if it has one, applies as well as the mask.
        mask: a stratum's name or an (N, K) mask.

    Returns:
        All clusters of the predictions, sorted by name, also those without a term (weight 0).
    """
    m = parse(metric)
    t = terms(predictions, m)
    chosen = stratum_mask(predictions, mask) if isinstance(mask, str) else mask
    if m.stratum != "all":
        chosen = chosen & stratum_mask(predictions, m.stratum)
    return _by_cluster(predictions, t, chosen)


def _by_cluster(predictions: Predictions, t: Terms, mask: Bools) -> ClusterSums:
    used = t.defined & mask
    present = sorted({predictions.clusters[c] for c in np.unique(predictions.clip)})
    number = {name: i for i, name in enumerate(present)}
    of_clip = np.array([number.get(name, -1) for name in predictions.clusters], dtype=np.int64)
    rows = of_clip[predictions.clip] if len(predictions.clip) else np.zeros(0, np.int64)
    sums = np.bincount(rows, weights=np.where(used, t.values, 0.0).sum(axis=1), minlength=len(present))
    counts = np.bincount(rows, weights=used.sum(axis=1).astype(np.float64), minlength=len(present))
    return ClusterSums(tuple(present), np.asarray(sums, np.float64), np.asarray(counts, np.float64))


def alias(name: str) -> str:
    """A protocol name in [a-z0-9_]: "test/pck@0.1[clip,clip-box]" -> "test_pck_0_1_clip_clip_box"."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def aliases(names: Iterable[str]) -> dict[str, str]:
    """Alias to protocol name, for all of them.

    Raises:
        BiposeError: two names share an alias (a joint or box rule named like another but for punctuation).
    """
    found: dict[str, str] = {}
    for name in names:
        short = alias(name)
        if found.setdefault(short, name) != name:
            raise BiposeError(f"{found[short]!r} and {name!r} share the alias {short!r}; rename a joint or box rule")
    return found


__all__ = [
    "ENDPOINT", "ClusterSums", "Metric", "alias", "aliases", "box_rule", "full_name", "mean_of", "own_name", "per_cluster",
    "summarise",
]  # fmt: skip
