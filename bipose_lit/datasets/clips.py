"""From an index of persons in time to samples: which frames, which view, and the pixels of both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from bipose_lit import geometry
from bipose_lit.datasets.collate import Sample
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.pixel import Occluders, Pixels
from bipose_lit.datasets.transforms import (
    CHOICE,
    MIRRORED,
    OCCLUDERS,
    PLAIN,
    VIEW,
    WINDOW,
    Augmentation,
    Image,
    View,
    clip_matrices,
    crop_labels,
    generator,
    half_body_boxes,
    warp,
)
from bipose_lit.skeletons import SKELETONS
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE, BiposeError

READ_AHEAD = 32
"""Frames decoded at a time: bounds the memory of a long clip of large pictures."""


@dataclass(frozen=True)
class ClipSampling:
    """Which frames of a track make a sample.

    Args:
        length: frames of a window; None for the whole clip.
        stride: step between the frames of a window.
        train: "random": one window per track and epoch, its start uniform; "all": every window each epoch.
        eval: "whole": the whole track; "windows": windows of `length` that overlap. Either way every frame of every
            track is covered (a stride s gives s interleaved sequences).
        overlap: frames that neighbouring windows share; metrics keep a frame's prediction with most context.
        reverse: probability that a training window runs backwards in time.

    A track with fewer frames than a window gives a shorter sample, padded by the collate.
    """

    length: int | None = None
    stride: int = 1
    train: Literal["random", "all"] = "random"
    eval: Literal["whole", "windows"] = "whole"
    overlap: int = 0
    reverse: float = 0.0

    def __post_init__(self) -> None:
        if self.stride < 1 or (self.length is not None and self.length < 1):
            raise ValueError(f"clip length {self.length} and stride {self.stride} must be 1 or more")
        if self.overlap < 0 or (self.length is not None and self.overlap >= self.length):
            raise ValueError(f"overlap {self.overlap} must be 0 or more and less than the clip length {self.length}")
        if self.eval == "windows" and self.length is None:
            raise ValueError("windows need a length: give clip length, or evaluate the whole clip")
        if not 0 <= self.reverse <= 1:
            raise ValueError(f"reverse is a probability between 0 and 1, not {self.reverse}")

    def random(
        self, frames: int, rng: np.random.Generator, labelled: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Frame numbers of one random window of a track with so many frames, as long as it can be up to `length`.

        Args:
            frames: of the track.
            rng: random numbers.
            labelled: frames that carry a label, where not all do: the window holds one of them, each start that does so being
                equally likely; a window without a label would teach nothing.
        """
        longest = -(-frames // self.stride)
        count = longest if self.length is None else min(self.length, longest)
        starts = frames - (count - 1) * self.stride
        good = np.arange(starts)
        if labelled is not None:
            holds = np.isin(good[:, None] + self.stride * np.arange(count), labelled).any(axis=1)
            good = good[holds] if holds.any() else good  # a stride may step over the only label
        start = int(good[rng.integers(len(good))])
        window = start + self.stride * np.arange(count)
        return window[::-1].copy() if rng.random() < self.reverse else window

    def windows(self, frames: int, whole: bool) -> Iterator[NDArray[np.int64]]:
        """Frame numbers of windows that together cover a track with so many frames; the last one ends with the track."""
        for phase in range(min(self.stride, frames)):
            sequence = np.arange(phase, frames, self.stride)
            if whole or self.length is None or len(sequence) <= self.length:
                yield sequence
                continue
            last = len(sequence) - self.length
            for start in [*range(0, last, self.length - self.overlap), last]:
                yield sequence[start : start + self.length]


class ClipCropper:
    """Cuts samples out of tracks: decode, one warp per frame, labels by the same matrix.

    Args:
        index: the tracks.
        size: width and height of the crops.
        padding: factor on the boxes.
        pixels: pixel augmentation, applied where the view has a seed for it.
        occluders: moving occluders pasted in, likewise.
    """

    def __init__(
        self,
        index: PoseIndex,
        size: tuple[int, int],
        padding: float,
        pixels: Pixels | None = None,
        occluders: Occluders | None = None,
    ) -> None:
        self.index, self.size, self.padding = index, (size[0], size[1]), padding
        self.pixels, self.occluders = pixels, occluders
        self._kept = np.empty((0, size[1], size[0], 3), np.uint8)

    def labels(self, clip: int, frames: NDArray[np.int64], view: View = PLAIN) -> tuple[Sample, NDArray[np.float64]]:
        """Everything but the pixels, and the matrices (T, 2, 3) from original to crop pixels."""
        track = self.index.tracks[clip]
        boxes = track.boxes
        if view.half:
            boxes = half_body_boxes(boxes, track.joints, track.visible, self.index.skeleton, view.half)
        matrices = clip_matrices(boxes[frames], self.size, self.padding, view)
        flip = self.index.skeleton.flip if view.flip else None
        joints, visible = crop_labels(track.joints[frames], track.visible[frames], matrices, flip)
        sample = Sample(
            joints=joints,
            visible=visible,
            to_image=geometry.invert(matrices).astype(np.float32),
            norms=track.norms[frames],
            box_score=np.full(len(frames), track.box_score, np.float32),
            uid=track.uid[frames],
            frame=np.asarray(frames, np.int64),
            clip=clip,
            fps=track.fps,
        )
        return sample, matrices

    def images(
        self, track: Track, frames: NDArray[np.int64], matrices: Sequence[NDArray[np.float64]]
    ) -> list[NDArray[np.uint8]]:
        """Crops (T, H, W, 3) of each set of matrices (T, 2, 3); every frame is decoded once."""
        width, height = self.size
        wanted = len(matrices) * len(frames)
        if len(self._kept) < wanted:  # fresh memory costs page faults, so one buffer is kept
            self._kept = np.empty((wanted, height, width, 3), np.uint8)
        crops = [self._kept[v * len(frames) : (v + 1) * len(frames)] for v in range(len(matrices))]
        order = np.argsort(frames, kind="stable")
        for begin in range(0, len(order), READ_AHEAD):
            chosen = order[begin : begin + READ_AHEAD]
            for t, image in zip(chosen, track.frames.read([int(frames[t]) for t in chosen]), strict=True):
                for crop, matrix in zip(crops, matrices, strict=True):
                    warp(image, matrix[t], crop[t])
        return crops

    def samples(self, clip: int, frames: NDArray[np.int64], views: Sequence[View]) -> list[tuple[Sample, Image]]:
        """Labels and crops uint8 (T, 3, H, W) of several views of the same frames."""
        track = self.index.tracks[clip]
        labelled = [self.labels(clip, frames, view) for view in views]
        out: list[tuple[Sample, Image]] = []
        for view, (sample, _), crop in zip(
            views, labelled, self.images(track, frames, [m for _, m in labelled]), strict=True
        ):
            if view.pixels is not None:
                if self.occluders is not None:
                    rng = generator(view.pixels, OCCLUDERS)
                    hidden = self.occluders.paste(crop, sample.joints, frames, len(track), rng)
                    sample.visible[hidden & (sample.visible == VISIBLE)] = OCCLUDED
                if self.pixels is not None:
                    crop = self.pixels(crop, view.pixels)
            planes = np.empty((len(frames), 3, *crop.shape[1:3]), np.uint8)
            for picture, plane in zip(crop, planes, strict=True):
                cv2.split(picture, list(plane))
            out.append((sample, planes))
        return out


def draw_view(augmentation: Augmentation | None, seed: int, number: int, clip: int) -> View:
    """View `number` of a clip out of a finite set.

    0 is the plain view, 1 the mirrored one where there is no augmentation (for a flip test) or one that mirrors; all others
    are drawn from (seed, number, clip).
    """
    if number >= first_drawn(augmentation):
        if augmentation is None:
            raise ValueError("views beyond the plain and the mirrored one need an augmentation")
        return augmentation.draw(generator(seed, VIEW, number, clip))
    return MIRRORED if number else PLAIN


def first_drawn(augmentation: Augmentation | None) -> int:
    """Number of the first view of a finite set that is drawn."""
    return 2 if augmentation is None or augmentation.flip > 0 else 1


class Windows:
    """The items of a data set: which frames of which track, a pure function of (seed, epoch, item).

    Args:
        index: the tracks.
        sampling: the rule.
        train: training draws windows and directions, evaluation covers everything.
        seed: of the run.
    """

    def __init__(self, index: PoseIndex, sampling: ClipSampling, train: bool, seed: int) -> None:
        self.sampling, self.train, self.seed = sampling, train, seed
        self.lengths = [len(track) for track in index.tracks]
        self.random = train and sampling.train == "random"
        # Frames that carry a label, of the tracks where some do not (a centre frame among its neighbours).
        labelled = ((track.visible != ABSENT).any(axis=1) for track in index.tracks) if train else ()
        self._labelled = {
            i: np.flatnonzero(found) for i, found in enumerate(labelled) if not found.all() and found.any()
        }
        self._fixed: list[tuple[int, NDArray[np.int64]]] = []
        if not self.random:
            whole = not train and sampling.eval == "whole"
            self._fixed = [
                (i, w)
                for i, n in enumerate(self.lengths)
                for w in sampling.windows(n, whole)
                if i not in self._labelled or np.isin(w, self._labelled[i]).any()
            ]

    def __len__(self) -> int:
        return len(self.lengths) if self.random else len(self._fixed)

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, NDArray[np.int64]]:
        epoch, item = key
        rng = generator(self.seed, WINDOW, epoch, item)
        if self.random:
            return item, self.sampling.random(self.lengths[item], rng, self._labelled.get(item))
        clip, frames = self._fixed[item]
        if self.train and rng.random() < self.sampling.reverse:
            frames = frames[::-1].copy()
        return clip, frames


class ClipDataset(Dataset[Sample]):
    """Clips with their pixels. Items are addressed by (epoch, item); a bare item means epoch 0.

    Args:
        index: the tracks.
        size: width and height of the crops in pixels.
        padding: factor on the boxes.
        sampling: which frames.
        train: draw windows and views, windows without any label left out; otherwise cover everything, unaugmented.
        augmentation: of training; None for none.
        pixels: pixel augmentation of training.
        occluders: occluders pasted into training clips.
        seed: of the run.
        views: None for a new view of a clip in every epoch; a number for that many views per clip, drawn once, as the
            feature cache holds them (see `draw_view`).
        view_seed: of these.

    Raises:
        BiposeError: the index cannot be used (see `check_index`), or a picture cannot be read.
    """

    def __init__(
        self,
        index: PoseIndex,
        size: tuple[int, int] = (128, 128),
        padding: float = 1.25,
        sampling: ClipSampling | None = None,
        train: bool = False,
        augmentation: Augmentation | None = None,
        pixels: Pixels | None = None,
        occluders: Occluders | None = None,
        seed: int = 0,
        views: int | None = None,
        view_seed: int = 0,
    ) -> None:
        check_index(index)
        self.view_seed = view_seed
        self.index, self.train, self.seed, self.augmentation, self.views = index, train, seed, augmentation, views
        self.windows = Windows(index, sampling or ClipSampling(), train, seed)
        self.cropper = ClipCropper(index, size, padding, pixels, occluders)

    def __len__(self) -> int:
        return len(self.windows)

    def view(self, epoch: int, item: int, clip: int) -> View:
        """The view that an item has in an epoch."""
        if not self.train:
            return PLAIN
        rng = generator(self.seed, CHOICE, epoch, item)
        if self.views is not None:
            return draw_view(self.augmentation, self.view_seed, int(rng.integers(self.views)), clip)
        if self.augmentation is None:
            return View(pixels=int(rng.integers(2**63)))
        return self.augmentation.draw(rng)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, item = key if isinstance(key, tuple) else (0, int(key))
        clip, frames = self.windows[epoch, item]
        ((sample, images),) = self.cropper.samples(clip, frames, [self.view(epoch, item, clip)])
        return replace(sample, key=(epoch, item), images=images)


def check_index(index: PoseIndex) -> None:
    """Refuses an index that would give wrong or no samples.

    Raises:
        BiposeError: no track, a box without area or with NaN, a labelled joint that is not finite, a repeated uid.
    """
    if not index.tracks:
        left_out = "; ".join(f"{reason}: {len(names)}" for reason, names in index.skipped.items())
        raise BiposeError(
            f"{index.name}: no clip in the {index.split} split"
            + (f" (left out: {left_out})" if left_out else "")
            + "; check the data set's folder and the split's number"
        )
    for track in index.tracks:
        usable = np.isfinite(track.boxes).all(axis=1) & (track.boxes[:, 2:] > 0).all(axis=1)
        if not usable.all():
            raise BiposeError(
                f"{index.name}: clip {track.clip} frame {int(np.argmin(usable))} has no usable box "
                f"({track.boxes[np.argmin(usable)].tolist()}); leave the frame out or choose another box rule"
            )
        labelled = track.visible != ABSENT
        if not np.isfinite(track.joints[labelled]).all():
            raise BiposeError(
                f"{index.name}: clip {track.clip} has a labelled joint that is not finite; mend its labels"
            )
    uids = np.concatenate([track.uid for track in index.tracks])
    if len(np.unique(uids)) != len(uids):
        raise BiposeError(f"{index.name}: annotation ids repeat; every person in a frame needs its own uid")


def fingerprint(index: PoseIndex) -> str:
    """SHA-256 over labels, boxes and the sources' own fingerprints: changes when anything that training or scoring sees changes.

    A skeleton of one's own also tells which joints a flip exchanges and what its torso is; those of the package are fixed.
    """
    digest = hashlib.sha256(repr((index.name, index.skeleton.joints, index.box_rule, index.split)).encode())
    if index.skeleton not in SKELETONS.values():
        digest.update(repr((index.skeleton.flip.tolist(), index.skeleton.torso)).encode())
    for track in index.tracks:
        digest.update(repr((track.clip, track.cluster, track.image_size, track.fps, track.box_score)).encode())
        arrays: list[NDArray | None] = [track.joints, track.visible, track.boxes, track.norms, track.uid]
        for array in (a for a in (*arrays, track.joints_3d, track.detected) if a is not None):
            digest.update(repr((array.dtype.str, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(track.frames.fingerprint().encode())
    if index.scoring is not None:
        digest.update(index.scoring.fingerprint().encode())
    return digest.hexdigest()


__all__ = [
    "ClipCropper", "ClipDataset", "ClipSampling", "Windows", "check_index", "draw_view", "fingerprint", "first_drawn",
]  # fmt: skip
