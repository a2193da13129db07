"""The data module's training batches against plain OpenCV on the same frames."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.measure import Spread, hottest, interleave, listed, profile, table
from benchmarks.setting import Setting, paragraphs, without_video_cache
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import PoseIndex

QUALITY = 95
PEERS = (
    "On 640x400 JPEGs, cropped to 256x192 with 17 heat maps: SimpleBaselines 0.42, mmpose 1.3.2 0.36, torchvision v2 0.38, "
    "albumentations 0.54, lightning-pose 2.4.3 0.32, a plain imread with one warp 0.69 of the imread rate (the project's survey "
    "of peers, November 2026, one core; not measured here, and larger pictures than these make decoding weigh more)."
)


class OneIndex:
    """A reader that has one index already."""

    def __init__(self, index: PoseIndex) -> None:
        self.found, self.skeleton = index, index.skeleton

    def index(self, split: str) -> PoseIndex:
        """The same for every split."""
        return self.found


def run(setting: Setting) -> str:
    """The section."""
    from bipose_lit.cli import build
    from bipose_lit.run import quiet

    setting.limit_threads()
    without_video_cache()
    torch.manual_seed(0)
    with quiet():
        module, template, _ = build(setting.config("temporal/none.yaml", options={"data.cache": None}))
    count = setting.pick(8, 2)
    index = template.index("train")
    index = replace(index, tracks=index.tracks[:count])
    sources = _sources(setting, index)
    size, frames = template.size, [len(t) for t in index.tracks]
    length = min(frames)

    def loader(source: PoseIndex, clips: ClipSampling, batch: int) -> Any:
        made = PoseDataModule(
            OneIndex(source), size=size, padding=template.padding, clips=clips, augmentation=template.augmentation,
            batch_size=batch,
        )  # fmt: skip
        return made.train_dataloader()

    jobs: dict[str, Callable[[], object]] = {}
    frames_of: dict[str, int] = {}

    def add(name: str, job: Callable[[], object], frames: int) -> None:
        jobs[name], frames_of[name] = job, frames

    for kind, source in sources.items():
        clip = loader(source, ClipSampling(length=length), min(4, count))
        add(f"{kind}, decode", _decode(source, None, setting.work), sum(frames))
        add(f"{kind}, decode + warp", _decode(source, size, setting.work), sum(frames))
        add(f"{kind}, clips", _drain(clip), count * length)
        add(f"{kind}, clips + targets", _drain(clip, module), count * length)
    stills = loader(sources["JPEG"], ClipSampling(length=1), count)
    add("JPEG, stills", _repeat(_drain(stills), 4), 4 * count)
    add("AVI, 4 frames at stride 4", _drain(loader(sources["AVI"], ClipSampling(length=4, stride=4), count)),
        min(4, -(-length // 4)) * count)  # fmt: skip

    times = interleave(jobs, setting.pick(7, 1), 0.0, setting.tell)
    spots = {kind: listed(hottest(profile(jobs[f"{kind}, clips"]), 4)) for kind in sources}
    rates = {name: t.map(lambda s, n=frames_of[name]: n / s) for name, t in times.items()}  # type: ignore[misc]
    width, height = index.tracks[0].image_size
    return paragraphs(
        f"{width}x{height} frames of the synthetic set to {size[0]}x{size[1]} crops: scale, rotation, shift, flip in one warp, "
        f"labels moved along, {length} frames a clip. AVI is motion JPEG, every clip decoded anew; JPEG quality {QUALITY}. "
        "\"Decode\" is cv2.imread (AVI: cv2.VideoCapture from start to end). \"Clips\" is the training loader's uint8 batch with "
        "completeness checks of every file; \"+ targets\" adds the normalised float tensor and the heat maps, which training "
        "makes on the device.",
        table(
            ["frames/s and core", "decode", "decode + warp", "clips", "clips + targets"],
            [[kind, *(rates[f"{kind}, {c}"] for c in COLUMNS)] for kind in sources],
        ),
        table(
            ["share of the decode rate", "decode + warp", "clips", "clips + targets"],
            [[k, *(rates[f"{k}, {c}"].over(rates[f"{k}, decode"]) for c in COLUMNS[1:])] for k in sources],
        ),
        _others(rates, length),
        PEERS,
        "What limits clips now (share of profiled time): " + "; ".join(f"{k}: {text}" for k, text in spots.items()) + ".",
    )  # fmt: skip


COLUMNS = ("decode", "decode + warp", "clips", "clips + targets")


def _others(rates: dict[str, Spread], length: int) -> list[str]:
    stills, sparse = rates["JPEG, stills"], rates["AVI, 4 frames at stride 4"]
    return [
        f"JPEG one by one (clips of one frame): {stills} frames/s and core, {stills.over(rates['JPEG, decode'])} of imread.",
        f"Four frames, every fourth, of an AVI clip (per-frame training on video): {sparse} frames/s and core, "
        f"{sparse.over(rates['AVI, decode'])} of the decode rate, since the whole clip of {length} is decoded.",
    ]


def _sources(setting: Setting, index: PoseIndex) -> dict[str, PoseIndex]:
    """The same frames as motion JPEG, as JPEG files and as PNG files."""
    found = {"AVI": index}
    for kind, suffix in (("JPEG", "jpg"), ("PNG", "png")):
        root = setting.work / "frames" / suffix
        tracks = []
        for number, track in enumerate(index.tracks):
            names = tuple(f"{number:03d}/{t:05d}.{suffix}" for t in range(len(track)))
            (root / f"{number:03d}").mkdir(parents=True, exist_ok=True)
            for name, image in zip(names, track.frames.read(range(len(track))), strict=True):
                cv2.imwrite(
                    str(root / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY] if kind == "JPEG" else []
                )
            tracks.append(replace(track, frames=FolderFrames(root, names)))
        found[kind] = replace(index, tracks=tuple(tracks))
    return found


def _decode(index: PoseIndex, size: tuple[int, int] | None, work: Path) -> Callable[[], object]:
    """Plain OpenCV over all frames, with one bilinear warp of each if `size` is given."""
    matrix = np.array([[0.45, 0.1, -12.0], [-0.1, 0.45, 20.0]])
    out = np.empty((*(size or (1, 1))[::-1], 3), np.uint8)

    def each(image: Any) -> None:
        if image is None:
            raise RuntimeError("OpenCV could not read a frame that it wrote")
        if size is not None:
            cv2.warpAffine(image, matrix, size, dst=out, flags=cv2.INTER_LINEAR)

    def job() -> None:
        for track in index.tracks:
            source: Any = track.frames
            if isinstance(source, FolderFrames):
                for name in source.names:
                    each(cv2.imread(str(source.root / name)))
                continue
            video = cv2.VideoCapture(str(source.root / source.name), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            for _ in range(len(track)):
                each(video.read()[1])
            video.release()

    return job


def _drain(loader: Any, module: Any = None) -> Callable[[], object]:
    """One epoch of a loader, the next one at every call; with a module also its targets and normalised pictures."""
    epochs = itertools.count()

    def job() -> None:
        loader.sampler.set_epoch(next(epochs))
        for batch in loader:
            if module is not None:
                valid = batch.valid
                module.codec.encode(batch.joints[valid], batch.visible[valid])
                (batch.images[valid].to(torch.float32) - module.network.shift) * module.network.gain

    return job


def _repeat(job: Callable[[], object], times: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(times):
            job()

    return repeated
