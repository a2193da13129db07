"""What W&B is told of a run: history, summary, tables, pictures, prediction files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bipose_lit.store import RESULT, Predictions, RunResult
from bipose_lit.tracking.history_file import history
from bipose_lit.tracking.names import alias
from bipose_lit.tracking.roles import Role
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

ENDED = ("finished", "pruned")
Table = tuple[str, list[list[Any]], list[str]]


@dataclass(frozen=True)
class Content:
    """A run's own files, read.

    Attributes:
        result: its result; of a run that was stopped, what is known.
        rows: its history.
        tables: title, rows and columns.
        files: its predictions.
    """

    result: RunResult
    rows: list[dict[str, Any]]
    tables: list[Table]
    files: list[Path]


def gather(folder: Path, result: RunResult, tables: bool = True) -> Content:
    """Reads what there is to tell of a run.

    Args:
        folder: the run's folder.
        result: its result; of a run that was stopped, what is known.
        tables: also per joint and per cluster.

    Raises:
        BiposeError: a file is damaged.
    """
    rows = history(folder)
    if result.status not in ENDED:
        # More may come to the last step of a run that was stopped.
        return Content(result, rows[:-1] if result.status == "running" else rows, [], [])
    files = [folder / name for name in sorted(result.predictions.values()) if (folder / name).is_file()]
    return Content(result, rows, [*_joints(folder, result), *_clusters(folder, result)] if tables else [], files)


def fill(
    run: Any, content: Content, role: Role, first: int, images: Mapping[str, Any] | None, predictions: bool
) -> int:
    """Writes a run; returns the first step that is free after it.

    Args:
        run: an open W&B run.
        content: what there is to tell.
        role: what it is within its sweep.
        first: earlier steps are there already.
        images: overlays by title; None: tables, pictures and files are there already.
        predictions: hand over the prediction files.
    """
    import wandb

    result = content.result
    names = sorted({*result.metrics, *(k for row in content.rows for k in row if "/" in k)})
    run.config.update(
        {"metric_names": {alias(n): n for n in names}, **_facts(result), **role.config}, allow_val_change=True
    )
    last: dict[str, Any] = {}
    free = first
    for row in content.rows:
        values = {alias(k) if "/" in k else k: v for k, v in row.items() if k != "step"}
        last |= values
        if row["step"] >= first:
            free = int(row["step"]) + 1
            run.log(values, step=int(row["step"]))
    run.summary.update(last)  # also what an earlier segment logged: a segment that is synced alone must say it all
    if images is not None and result.status in ENDED:
        shown: dict[str, Any] = {title: wandb.Table(columns=head, data=rows) for title, rows, head in content.tables}
        shown |= {f"overlays/{title}": wandb.Image(image, caption=title) for title, image in images.items()}
        if shown:
            run.log(shown, step=free)
            free += 1
        if predictions and content.files:
            artifact = wandb.Artifact(f"predictions-{run.id}", type="predictions")
            for file in content.files:
                artifact.add_file(str(file))
            run.log_artifact(artifact)
    run.summary.update({alias(name): value for name, value in sorted(result.metrics.items())})
    run.summary.update({f"measured/{name}": value for name, value in sorted(result.measured.items())})
    run.summary.update(
        {
            "status": result.status,
            "state": role.state or result.status,
            **({"pruned_at": result.facts["pruned_at"]} if "pruned_at" in result.facts else {}),
            **({"error": result.error} if result.error else {}),
            **{alias(name): value for name, value in role.summary.items()},
        }
    )
    return free


def _joints(folder: Path, result: RunResult) -> Iterable[Table]:
    """Per-joint errors of every split that left predictions: title, rows, columns."""
    import numpy as np

    for split, data in _splits(folder, result):
        error = np.linalg.norm(data.pred.astype(np.float64) - data.joints, axis=-1)
        rows: list[list[Any]] = []
        for k, joint in enumerate(data.joint_names):
            seen = data.visible[:, k]
            means = [
                float(error[mask, k].mean()) if mask.any() else None
                for mask in (seen != ABSENT, seen == VISIBLE, seen == OCCLUDED)
            ]
            rows.append([joint, int((seen != ABSENT).sum()), *means])
        yield f"{split}/joints", rows, ["joint", "labelled", "error_px", "visible_px", "occluded_px"]


def _clusters(folder: Path, result: RunResult) -> Iterable[Table]:
    """Per-cluster means of every split: those in result.json, or else computed from the predictions."""
    from bipose_lit.metrics.condensed import Condensed, condense
    from bipose_lit.metrics.terms import ENDPOINT

    try:
        plain: dict[str, Condensed] = {split: Condensed.read(c) for split, c in sorted(result.clusters.items())}
    except BiposeError as error:
        raise BiposeError(f"{folder / RESULT}: {error}") from error
    for split, data in _splits(folder, result):
        if split not in plain:
            plain[split] = condense(data, ENDPOINT)
    for split, found in sorted(plain.items()):
        measures = {
            found.endpoint if name == "all" else f"{found.endpoint}/{name}": s for name, s in found.sums.items()
        }
        if found.accel is not None:
            measures["accel_error_px"] = found.accel
        values = {
            name: {
                cluster: (float(value) / float(weight) if weight else None)
                for cluster, value, weight in zip(sums.clusters, sums.values, sums.weights, strict=True)
            }
            for name, sums in measures.items()
            if sums.weights.any()
        }
        counted = found.sums["all"]
        rows = [
            [cluster, int(weight), *(column.get(cluster) for column in values.values())]
            for cluster, weight in zip(counted.clusters, counted.weights, strict=True)
        ]
        yield f"{split}/clusters", rows, ["cluster", "joints", *values]


def _splits(folder: Path, result: RunResult) -> Iterable[tuple[str, Predictions]]:
    for split, name in sorted(result.predictions.items()):
        if (folder / name).is_file():
            yield split, Predictions.load(folder / name)


def _facts(result: RunResult) -> dict[str, Any]:
    return {
        "facts": result.facts,
        "scorings": result.scorings,
        "commit": result.commit,
        "versions": result.versions,
        "config_hash": result.config_hash,
        "data_fingerprint": result.data_fingerprint,
        "weights_hash": result.weights_hash,
    }
