"""Collects predictions over batches and ranks: each person in a frame counts once, whatever the batches and ranks."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bipose_lit import geometry
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, BiposeError, ClipBatch

if TYPE_CHECKING:
    from bipose_lit.datasets.index import PoseIndex


@dataclass
class Rows:
    """Scored frames as arrays, one row per person in a frame and window.

    Attributes:
        uid, clip, frame, fps, pred, score, joints, visible, norms: as in `Predictions`.
        context: (N,) frames to the nearer end of the window that the prediction was made in.
        start: (N,) first frame of that window.
    """

    uid: NDArray[np.int64]
    clip: NDArray[np.int64]
    frame: NDArray[np.int64]
    context: NDArray[np.int64]
    start: NDArray[np.int64]
    fps: NDArray[np.float32]
    pred: NDArray[np.float32]
    score: NDArray[np.float32]
    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    norms: NDArray[np.float32]

    def take(self, index: NDArray[np.int64]) -> Rows:
        """The rows at some positions."""
        return Rows(*(getattr(self, f.name)[index] for f in fields(self)))

    @classmethod
    def join(cls, parts: list[Rows]) -> Rows:
        """All rows after one another."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def best(self) -> Rows:
        """One row per uid, sorted by it: most context, then the window that starts first, then what came first."""
        order = np.lexsort((self.start, -self.context, self.uid))
        sorted_uid = self.uid[order]
        return self.take(order[np.concatenate([np.ones(min(len(order), 1), bool), sorted_uid[1:] != sorted_uid[:-1]])])


class PredictionCollector:
    """Metric state of one split, kept by uid.

    Where windows overlap, a uid keeps the prediction with most context: the largest distance to the nearer end of its
    window; ties go to the window that starts first. What a sampler repeats to even out ranks counts once.
    """

    def __init__(self) -> None:
        self._parts: list[Rows] = []

    def reset(self) -> None:
        """Forgets everything."""
        self._parts = []

    def update(
        self, batch: ClipBatch, joints: Float[Tensor, "B T K 2"], score: Float[Tensor, "B T K"] | None = None
    ) -> None:
        """Adds the valid frames of a batch.

        Args:
            batch: labels in crop pixels with their affine to original pixels.
            joints: predictions in ORIGINAL pixels.
            score: confidence of each joint; 1 where None.

        Raises:
            ValueError: shapes that do not fit the batch.
        """
        if joints.shape != batch.joints.shape or (score is not None and score.shape != joints.shape[:-1]):
            shapes = tuple(joints.shape), None if score is None else tuple(score.shape)
            raise ValueError(f"predictions and scores of shapes {shapes} do not fit labels {tuple(batch.joints.shape)}")
        valid = batch.valid.detach().cpu()
        if not bool(valid.any()):
            return
        position = torch.arange(valid.shape[1]).expand_as(valid)
        first = torch.where(valid, position, valid.shape[1]).amin(dim=1, keepdim=True)
        last = torch.where(valid, position, -1).amax(dim=1, keepdim=True)
        context = torch.minimum(position - first, last - position)
        frame = batch.frame.detach().cpu()
        start = torch.where(valid, frame, torch.iinfo(frame.dtype).max).amin(dim=1, keepdim=True)
        # float64 keeps the labels' digits on their way back from crop to original pixels.
        labels = geometry.apply(batch.to_image.detach().cpu().double(), batch.joints.detach().cpu().double())
        visible = batch.visible.detach().cpu()
        labels = labels * (visible != ABSENT).unsqueeze(-1)
        confidence = torch.ones(joints.shape[:-1]) if score is None else score

        def rows(value: Tensor) -> NDArray[Any]:
            kept = value.detach().cpu()[valid]
            return np.asarray(kept.float().numpy() if kept.dtype == torch.bfloat16 else kept.numpy())

        self._parts.append(
            Rows(
                uid=rows(batch.uid).astype(np.int64),
                clip=rows(batch.clip.unsqueeze(1).expand(valid.shape)).astype(np.int64),
                frame=rows(frame).astype(np.int64),
                context=rows(context).astype(np.int64),
                start=rows(start.expand(valid.shape)).astype(np.int64),
                fps=rows(batch.fps.unsqueeze(1).expand(valid.shape)).astype(np.float32),
                pred=rows(joints).astype(np.float32),
                score=rows(confidence).astype(np.float32),
                joints=rows(labels).astype(np.float32),
                visible=rows(visible).astype(np.uint8),
                norms=rows(batch.norms).astype(np.float32),
            )
        )

    def gather(self) -> Rows | None:
        """The rows of all ranks, one per uid and sorted by it, the same on every rank; None if there are none."""
        mine = Rows.join(self._parts).best() if self._parts else None
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return mine
        parts: list[Rows | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(parts, mine)
        found = [p for p in parts if p is not None]
        return Rows.join(found).best() if found else None

    def compute(self, index: PoseIndex) -> Predictions:
        """Everything collected on all ranks, by the names of the index.

        Every rank must call it; every rank gets the same.

        Raises:
            BiposeError: nothing was collected, a prediction is NaN or infinite, or a clip is not in the index.
        """
        rows = self.gather()
        if rows is None:
            raise BiposeError(f"{index.name}: no prediction was collected; the split is empty or no batch was run")
        names = tuple(t.clip for t in index.tracks)
        unknown = rows.clip[(rows.clip < 0) | (rows.clip >= len(names))]
        if len(unknown) or bool((rows.uid < 0).any()):
            what = f"clip number {unknown[0]} of {len(names)}" if len(unknown) else "a valid frame without uid"
            raise BiposeError(f"{index.name}: the batches hold {what}; they were made from another index")
        finite = np.isfinite(rows.pred).all(axis=(1, 2)) & np.isfinite(rows.score).all(axis=1)
        bad = np.asarray(~finite)
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise BiposeError(
                f"{index.name}: the prediction for clip {names[rows.clip[at]]}, frame {rows.frame[at]} is not finite "
                f"({int(bad.sum())} of {len(bad)} frames); lower the learning rate or clip gradients"
            )
        return Predictions(
            uid=rows.uid,
            clip=rows.clip,
            frame=rows.frame,
            pred=rows.pred,
            score=rows.score,
            joints=rows.joints,
            visible=rows.visible,
            norms=rows.norms,
            fps=rows.fps,
            clips=names,
            clusters=tuple(t.cluster for t in index.tracks),
            joint_names=index.skeleton.joints,
            data=index.name,
        )
