"""What the readers of 3D motion share: the tracks that cameras see, and ids for long takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.cameras import FARTHEST, View, project, to_camera
from bipose_lit.datasets.index import Camera, FrameSource, Track
from bipose_lit.datasets.labels import MAX_FRAMES, make_uids
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, OCCLUDED, VISIBLE

Floats = NDArray[np.float64]

BOX_RULES = ("frame-box", "clip-box")
BEHIND = "never in front of the camera"
"""Why a reader leaves a view out."""


@dataclass(frozen=True)
class Take:
    """One person's motion, before any camera.

    Attributes:
        clip: its name, to which the camera's is added.
        cluster: see `Track`.
        action: see `Track`.
        frames: see `Track`.
        world: (T, K, 3) millimetres; 0 where not present.
        present: (T, K) the joint is known.
        fps: frames per second, 0 where unknown.
    """

    clip: str
    cluster: str
    action: str
    frames: FrameSource
    world: Floats
    present: NDArray[np.bool_]
    fps: float


def finite(world: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """(T, K, 3) millimetres with 0 in the place of joints that are no numbers or a kilometre away, and (T, K) the others."""
    with np.errstate(invalid="ignore"):
        present = np.asarray((np.abs(world) < FARTHEST).all(axis=-1))
    return np.where(present[..., None], world, 0.0), present


def long_names(clip: str, frames: int) -> Iterator[tuple[str, int]]:
    """The names that a take's ids are made from, and how many each: the clip's own, then "CLIP#1", ... every 4096 frames."""
    for part, start in enumerate(range(0, frames, MAX_FRAMES)):
        yield f"{clip}#{part}" if part else clip, min(MAX_FRAMES, frames - start)


def long_uids(clip: str, frames: int) -> NDArray[np.int64]:
    """(T,) ids as `labels.make_uids`, for takes of any length (Human3.6M's have up to 6,000 frames)."""
    return np.concatenate(
        [np.zeros(0, np.int64), *(make_uids(name, count) for name, count in long_names(clip, frames))]
    )


def seen_by(take: Take, view: View) -> tuple[NDArray[np.float32], NDArray[np.uint8], Floats]:
    """Joints in the picture (T, K, 2), their visibility (T, K) and (T, K, 3) camera millimetres.

    A joint behind the camera is absent; one that is out of the picture is labelled but not seen: occluded.
    """
    points = np.where(take.present[..., None], to_camera(view.camera, take.world), 0.0)
    pixels, ahead = project(view.camera, points)
    ahead &= take.present
    inside = ((pixels > -0.5) & (pixels < np.array(view.size) - 0.5)).all(axis=-1)
    visible = np.where(ahead, np.where(inside, VISIBLE, OCCLUDED), ABSENT).astype(np.uint8)
    return np.where(ahead[..., None], pixels, 0.0).astype(np.float32), visible, points


def facing(skipped: Mapping[str, Sequence[str]]) -> str:
    """For the message that there is no track: what to do where views were left out because they see nobody, else nothing."""
    return (
        "; are the cameras' places in millimetres, and their axes those of the positions' world?"
        if BEHIND in skipped
        else ""
    )


def make_track(
    take: Take,
    suffix: str,
    skeleton: Skeleton,
    box_rule: str,
    size: tuple[int, int],
    joints: NDArray[np.float32],
    visible: NDArray[np.uint8],
    joints_3d: Floats,
    camera: Camera | None = None,
    detected: NDArray[np.float32] | None = None,
) -> Track:
    """A track; boxes are tight around its joints, by frame or by clip, and the whole picture where it has none at all."""
    clip = f"{take.clip}/{suffix}" if suffix else take.clip
    own, tight = rules.frame_boxes(joints, visible), rules.clip_box(joints, visible)
    whole = tight if np.isfinite(tight).all() else np.array([0.0, 0.0, *size])
    used = rules.fill_boxes(own, whole) if box_rule == "frame-box" else np.repeat(whole[None], len(joints), axis=0)
    return Track(
        clip=clip,
        cluster=take.cluster,
        frames=take.frames,
        joints=joints,
        visible=visible,
        boxes=used.astype(np.float32),
        norms=rules.track_norms(joints, visible, skeleton, own, tight),
        uid=long_uids(clip, len(joints)),
        image_size=size,
        fps=take.fps,
        action=take.action,
        joints_3d=joints_3d.astype(np.float32),
        camera=camera,
        detected=detected,
    )
