"""What a frozen backbone makes of every frame, computed once and read from disk.

Per clip there is a finite set of views (plain, mirrored where training mirrors, further augmented ones); each has its
features, joints, visibility and matrices. An entry is named by everything that it depends on: the backbone's weights, the
data's fingerprint, the crops, the views. So a changed part makes a new entry. BatchNorm runs in evaluation mode.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track as progress_bar
from torch import Tensor, nn
from torch.utils.data import Dataset

from bipose_lit.datasets.clips import ClipCropper, ClipSampling, Windows, draw_view, fingerprint, first_drawn
from bipose_lit.datasets.collate import Sample
from bipose_lit.datasets.frames import share_cache
from bipose_lit.datasets.index import PoseIndex
from bipose_lit.datasets.loader import ClipLoader
from bipose_lit.datasets.transforms import CHOICE, Augmentation, generator
from bipose_lit.feature_cache_store import Entry, Shapes, Writer, disk_full, entry_bytes, lock
from bipose_lit.models.base import Part, uncompiled
from bipose_lit.types import BiposeError, FeatureSpec

SCHEMA = 2
"""Raise it when cropping, augmenting or the layout changes what an entry holds."""

SEGMENT = 64
"""Frames cropped at a time; bounds the memory of a long clip in many views."""


class Recomputing(UserWarning):
    """The cache cannot be used: everything goes on, many times slower."""


class Extractor(Protocol):
    """What turns crops into features: a `PoseNetwork`, or anything alike.

    Where it has a `backbone`, that part's configuration and weights name the features, else its own.
    """

    def extract(self, images: Tensor) -> Tensor:
        """Uint8 (N, 3, H, W) to features (N, C, h, w)."""
        ...


class FeatureCache:
    """Where features are kept and how they are made.

    Args:
        root: folder of the cache; may be shared by runs and processes.
        views: views per training clip, the plain one and, where training mirrors, the mirrored one among them; evaluation keeps
            these two at most.
        dtype: of the features on disk.
        budget_gb: disk space (10^9 bytes) that all entries under `root` may take together; beyond it features are recomputed.
        workers: processes that read and crop while the features are computed.
        batch: frames per pass through the backbone.
        threads: torch threads while building; None leaves them as they are.
        progress: show a progress bar.

    Attributes:
        tell: called with (clips done, clips) while an entry is built, for displays of others.

    Raises:
        ValueError: no view, or a negative budget.
    """

    def __init__(
        self,
        root: str,
        views: int = 4,
        dtype: Literal["float16", "float32"] = "float16",
        budget_gb: float = 20.0,
        workers: int = 0,
        batch: int = 64,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        if views < 1 or budget_gb < 0 or batch < 1:
            raise ValueError("feature cache: views and batch are 1 or more, budget_gb is not negative")
        self.root, self.views, self.dtype, self.budget = Path(root), views, dtype, int(budget_gb * 1e9)
        self.workers, self.batch, self.threads, self.progress = workers, batch, threads, progress
        self.tell: Callable[[int, int], None] | None = None

    def plan(self, index: PoseIndex, spec: FeatureSpec, size: tuple[int, int], views: int | None = None) -> int:
        """Bytes on disk for one split, nothing computed."""
        shape = (spec.channels, -(-size[1] // spec.stride), -(-size[0] // spec.stride))
        return self._shapes(index, shape, self.views if views is None else views).bytes

    def open(
        self,
        cropper: ClipCropper,
        extractor: Extractor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        views: int | None = None,
    ) -> Entry | None:
        """The entry for an index, built first where it is missing.

        Processes that ask for the same entry at once build it once; one that is killed leaves nothing that is ever read.

        Args:
            cropper: the index with size, padding and pixel augmentation.
            extractor: the network; its backbone must be frozen.
            augmentation: of the drawn views.
            seed: of those views.
            views: how many, if not `self.views`.

        Returns:
            None where the entry would break the budget or fill the disk (a warning says so): recompute then.

        Raises:
            BiposeError: the backbone is not frozen, a picture cannot be read, or features overflow float16.
        """
        views = self.views if views is None else views
        backbone = getattr(extractor, "backbone", extractor)
        if isinstance(backbone, nn.Module) and any(p.requires_grad for p in backbone.parameters()):
            raise BiposeError(
                "feature cache: the backbone is being trained; set model.freeze_backbone true or data.cache null"
            )
        about = {
            "schema": SCHEMA,
            "weights": weights_hash(extractor),
            "data": fingerprint(cropper.index),
            "name": cropper.index.name,
            "size": list(cropper.size),
            "padding": cropper.padding,
            "views": views,
            "dtype": self.dtype,
            # Only what the drawn views depend on, so that a change that touches none of them keeps the entry.
            "augmentation": describe([augmentation, cropper.pixels, cropper.occluders, seed])
            if views > first_drawn(augmentation)
            else None,
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        entry = Entry(self.root / key)
        if entry.complete():
            return entry
        try:
            with lock(self.root / f".{key}.lock"):
                return (
                    entry
                    if entry.complete()
                    else self._build(key, about, cropper, extractor, augmentation, seed, views)
                )
        except OSError as error:
            raise BiposeError(
                f"feature cache {self.root}: {error.strerror or error}; give a folder that can be written"
            ) from error

    def _shapes(self, index: PoseIndex, feature: tuple[int, int, int], views: int) -> Shapes:
        offsets = np.cumsum([0, *(len(t) for t in index.tracks)], dtype=np.int64)
        return Shapes(views, offsets, len(index.skeleton), index.tracks[0].norms.shape[1], feature, self.dtype)

    def _build(
        self,
        key: str,
        about: dict[str, Any],
        cropper: ClipCropper,
        extractor: Extractor,
        augmentation: Augmentation | None,
        seed: int,
        views: int,
    ) -> Entry | None:
        device = _device(extractor)
        width, height = cropper.size
        with _evaluating(extractor, self.threads):
            probe = extractor.extract(torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device))
            shapes = self._shapes(cropper.index, (probe.shape[1], probe.shape[2], probe.shape[3]), views)
            others, free = entry_bytes(self.root, key), shutil.disk_usage(self.root).free
            if others + shapes.bytes > self.budget or shapes.bytes > free:
                room = (
                    f"{free / 1e9:.2f} GB are free"
                    if shapes.bytes > free
                    else f"the budget is {self.budget / 1e9:.2f} GB"
                )
                warnings.warn(
                    f"feature cache: {cropper.index.name} needs {shapes.bytes / 1e9:.2f} GB beside {others / 1e9:.2f} GB in "
                    f"{self.root}, but {room}; recomputing features in every step instead (raise budget_gb or lower views)",
                    Recomputing,
                    stacklevel=4,
                )
                return None
            try:
                writer = Writer(self.root, key, shapes)
            except OSError as error:
                if not disk_full(error):
                    raise
                warnings.warn(
                    f"feature cache: the disk of {self.root} is full; recomputing features in every step",
                    Recomputing,
                    stacklevel=4,
                )
                return None
            try:
                self._fill(writer, shapes, _Segments(cropper, augmentation, seed, views), extractor, device)
                return writer.finish(about)
            except BaseException:  # also an interrupt: nothing half-made stays behind
                writer.discard()
                raise

    def _fill(
        self, writer: Writer, shapes: Shapes, segments: _Segments, extractor: Extractor, device: torch.device
    ) -> None:
        share_cache(self.workers)
        arrays = writer.arrays
        loader = ClipLoader(segments, batch_size=None, num_workers=self.workers)
        bar = progress_bar(loader, "caching features", len(segments), disable=not self.progress, transient=False)
        for number, part in enumerate(bar):
            if self.tell is not None:
                self.tell(number, len(segments))
            rows = slice(part.row, part.row + part.images.shape[1])
            for name in ("joints", "visible", "to_image"):
                arrays[name][:, rows] = getattr(part, name)
            for name in ("norms", "uid", "box_score"):
                arrays[name][rows] = getattr(part, name)
            flat = torch.from_numpy(part.images).flatten(0, 1)
            made = torch.cat([extractor.extract(chunk.to(device)).cpu() for chunk in torch.split(flat, self.batch)])
            features = made.to(getattr(torch, shapes.dtype))
            if not bool(torch.isfinite(features).all()):
                raise BiposeError(
                    f"feature cache: features that {shapes.dtype} cannot hold; use dtype float32 or check the weights"
                )
            arrays["features"][:, rows] = features.numpy().reshape(part.images.shape[:2] + shapes.feature)


class _Part:
    """Crops (V, T, 3, H, W) of T frames in all views, with their labels and the first row that they belong to."""

    def __init__(self, row: int, samples: list[tuple[Sample, NDArray[np.uint8]]]) -> None:
        self.row = row
        self.images = np.stack([images for _, images in samples])
        self.joints = np.stack([s.joints for s, _ in samples])
        self.visible = np.stack([s.visible for s, _ in samples])
        self.to_image = np.stack([s.to_image for s, _ in samples])
        first = samples[0][0]
        self.norms, self.uid, self.box_score = first.norms, first.uid, first.box_score


class _Segments(Dataset[_Part]):
    """Runs of up to SEGMENT frames of every track."""

    def __init__(self, cropper: ClipCropper, augmentation: Augmentation | None, seed: int, views: int) -> None:
        self.cropper, self.augmentation, self.seed, self.views = cropper, augmentation, seed, views
        self.items: list[tuple[int, int, int, int]] = []
        row = 0
        for clip, track in enumerate(cropper.index.tracks):
            for begin in range(0, len(track), SEGMENT):
                self.items.append((clip, begin, min(begin + SEGMENT, len(track)), row + begin))
            row += len(track)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> _Part:
        clip, begin, end, row = self.items[item]
        views = [draw_view(self.augmentation, self.seed, v, clip) for v in range(self.views)]
        return _Part(row, self.cropper.samples(clip, np.arange(begin, end), views))


class CachedClips(Dataset[Sample]):
    """The samples of `ClipDataset(views=...)` with features in the place of pixels.

    Args:
        index: the tracks.
        entry: what `FeatureCache.open` gave for them.
        sampling: which frames.
        train: draw windows and views; otherwise cover everything in the plain view, with the mirrored one where it is kept.
        seed: of the run.
    """

    def __init__(
        self,
        index: PoseIndex,
        entry: Entry,
        sampling: ClipSampling | None = None,
        train: bool = False,
        seed: int = 0,
    ) -> None:
        self.entry, self.train, self.seed = entry, train, seed
        self.windows = Windows(index, sampling or ClipSampling(), train, seed)
        self.fps = [track.fps for track in index.tracks]
        self.offsets = np.array(entry["offsets"])
        self.views = len(entry["features"])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, item = key if isinstance(key, tuple) else (0, int(key))
        clip, frames = self.windows[epoch, item]
        view = 0
        if self.train:
            rng = generator(self.seed, CHOICE, epoch, item)
            view = int(rng.integers(self.views))
        rows = _rows(self.offsets[clip] + frames)
        entry = self.entry
        return Sample(
            joints=entry["joints"][view, rows],
            visible=entry["visible"][view, rows],
            to_image=entry["to_image"][view, rows],
            norms=entry["norms"][rows],
            box_score=entry["box_score"][rows],
            uid=entry["uid"][rows],
            frame=frames,
            clip=clip,
            fps=self.fps[clip],
            key=(epoch, item),
            features=entry["features"][view, rows],
            mirrored=entry["features"][1, rows] if not self.train and self.views > 1 else None,
        )


def _rows(rows: NDArray[np.int64]) -> slice:
    """Equally spaced row numbers as a slice, which reads the map without a copy."""
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    stop = int(rows[-1]) + (1 if step > 0 else -1)
    return slice(int(rows[0]), None if stop < 0 else stop, step)


def weights_hash(extractor: Extractor) -> str:
    """SHA-256 over the backbone's configuration and tensors, and the network's own constants (the normalisation)."""
    digest = hashlib.sha256()
    backbone = getattr(extractor, "backbone", extractor)
    config: dict[str, Any] = {"class_path": type(backbone).__qualname__, "init_args": {}}
    if isinstance(backbone, Part):
        config = backbone.config()
    # Where the weights came from does not matter beside what they are.
    arguments = {k: v for k, v in config["init_args"].items() if k not in ("weights", "pretrained", "frozen")}
    config = {**config, "init_args": arguments}
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    tensors: dict[str, Tensor] = {}
    if isinstance(backbone, nn.Module):
        tensors.update(backbone.state_dict())
    if isinstance(extractor, nn.Module):
        tensors.update({f"constant.{name}": buffer for name, buffer in extractor.named_buffers(recurse=False)})
    for name, tensor in sorted(tensors.items()):
        if name.endswith("num_batches_tracked"):
            continue
        value = tensor.detach().cpu().contiguous()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(value: Any) -> Any:
    """An object's class and public attributes as plain data, for naming entries."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [describe(v) for v in value]
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    attributes = (
        asdict(value) if is_dataclass(value) and not isinstance(value, type) else getattr(value, "__dict__", {})
    )
    cls = type(value)
    later = getattr(cls, "LATER", {})
    kept = {k: describe(v) for k, v in attributes.items() if not (k.startswith("_") or (k in later and v == later[k]))}
    return {"class": f"{cls.__module__}.{cls.__qualname__}", **(kept or {"repr": repr(value)})}


def _device(extractor: Extractor) -> torch.device:
    if isinstance(extractor, nn.Module):
        for tensor in (*extractor.parameters(), *extractor.buffers()):
            return tensor.device
    return torch.device("cpu")


@contextmanager
def _evaluating(extractor: Extractor, threads: int | None) -> Iterator[None]:
    """Evaluation mode without gradients; every module's own mode and the thread count come back afterwards."""
    modules = list(extractor.modules()) if isinstance(extractor, nn.Module) else []
    modes, before = [m.training for m in modules], torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        for module in modules:
            module.training = False
        with torch.inference_mode(), uncompiled(extractor):
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode
        torch.set_num_threads(before)


__all__ = ["CachedClips", "Extractor", "FeatureCache", "Recomputing", "weights_hash"]
