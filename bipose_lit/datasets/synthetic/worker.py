"""What a rendering process does: one clip after the other, from plan to files and record."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.synthetic import points
from bipose_lit.datasets.synthetic.assay import ClipPlan, CoverTrack, run_statistics, sample_occluders
from bipose_lit.datasets.synthetic.body import JOINTS, Motion, Proportions
from bipose_lit.datasets.synthetic.bvh import clips_in, motion_from_bvh
from bipose_lit.datasets.synthetic.camera import Camera, sample_cameras
from bipose_lit.datasets.synthetic.finish import labels_path, record_path
from bipose_lit.datasets.synthetic.imaging import Imaging, sample_imaging
from bipose_lit.datasets.synthetic.looks import Look
from bipose_lit.datasets.synthetic.motions import make_motion
from bipose_lit.datasets.synthetic.occluders import Occluder, OccluderTrack, draw_occluders
from bipose_lit.datasets.synthetic.render import RenderedClip, render_clip
from bipose_lit.datasets.synthetic.scenes import Scene, sample_scene
from bipose_lit.datasets.synthetic.write import (
    JHMDB_POINTS,
    ClipLabels,
    encode_image,
    put,
    write_jhmdb_clip,
    write_penn_clip,
)
from bipose_lit.datasets.synthetic.write_stills import still_frames, still_paths
from bipose_lit.lifeline import die_with_parent
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.types import OCCLUDED, BiposeError

if TYPE_CHECKING:
    from bipose_lit.datasets.synthetic.make import MakeOptions

# Things that may fill each family's rectangle.
_KINDS = {
    "block": ("bush", "box", "polygon", "board", "panel"),
    "upright": ("pole", "panel", "door", "person", "board"),
    "level": ("panel", "board", "box", "bush"),
}


def start(parent: int) -> None:
    """Initialiser of a process: one thread; an interrupt is the parent's to handle, so that clips end whole.

    Args:
        parent: the process that wants the clips; this one ends with it.
    """
    die_with_parent(parent)
    reuse_freed_memory()
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_clips(group: list[tuple[int, ClipPlan]], options: MakeOptions) -> int:
    """Renders and writes the clips of one scene; returns how many.

    Args:
        group: (position in the whole plan, plan).
        options: of the set.

    Raises:
        BiposeError: what went wrong with which clip.
    """
    for number, plan in group:
        try:
            _make(number, plan, options)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                advice = "the disk is full; free some space and repeat the command, it goes on where it stopped"
            else:
                advice = f"cannot write ({error.strerror or error})"
            raise BiposeError(f"{options.part}: clip {plan.name}: {advice}") from error
        except BiposeError as error:
            raise BiposeError(f"clip {plan.name}: {error}") from error
    return len(group)


def _make(number: int, plan: ClipPlan, options: MakeOptions) -> None:
    part = Path(options.part)
    clip, labels, record = render_plan(plan, options.seed, options.frames, options.fps, options.size)
    write_jhmdb_clip(part, labels, clip.frames, options.pixels)
    if "penn" in options.formats:
        write_penn_clip(part / "penn", number + 1, labels, clip.frames)
    for frame in still_frames(len(labels)):
        paths = still_paths(part, labels, frame, options.formats)
        data = encode_image(clip.frames[frame], ".jpg") if paths else b""
        for path in paths:
            put(path, data)
    labels.save(labels_path(part, plan.name))
    put(record_path(part, plan.name), json.dumps(record).encode())


@lru_cache(maxsize=1)
def _surroundings(first: ClipPlan, seed: int) -> tuple[Scene, Look, Proportions]:
    """Scene, look and body of a cluster, kept for its next clip."""
    return (
        sample_scene(first.rng(seed, "scene")),
        Look.sample(first.rng(seed, "look")),
        Proportions.sample(first.rng(seed, "body")),
    )


def render_plan(
    plan: ClipPlan, seed: int, frames: int, fps: float, size: tuple[int, int]
) -> tuple[RenderedClip, ClipLabels, dict[str, Any]]:
    """Renders one planned clip.

    Returns:
        The clip, its labels, and its row of clips.csv with the digest of pixels and labels.
    """
    # One cache key for all clips of a cluster.
    first = replace(plan, number=0, kind="", regime="", source="", key=(*plan.key[:2], 0))
    scene, look, body = _surroundings(first, seed)
    rng = plan.rng(seed, "motion")
    if plan.source:
        starts = clips_in(plan.source, frames, fps)
        motion = motion_from_bvh(plan.source, fps, frames, starts[int(rng.integers(len(starts)))], body, rng)
    else:
        motion = make_motion(plan.kind, frames, fps, rng, body)
    cameras = sample_cameras(plan.rng(seed, "camera"), motion, size)
    imaging = sample_imaging(plan.rng(seed, "imaging"))
    rng = plan.rng(seed, "occluders")
    tracks = sample_occluders(rng, plan.regime, frames, fps)
    things = place_occluders(tracks, clip_extent(motion, cameras), rng)
    clip = render_clip(motion, look, scene, cameras, things, imaging, plan.rng(seed, "render"), size)
    labels = label(plan, clip, motion, things, imaging, size)
    dark = labels.visible(JHMDB_POINTS) == OCCLUDED
    stats = run_statistics([dark])
    heights = labels.boxes[:, 3] - labels.boxes[:, 1] + 1
    record = {
        "clip": plan.name, "split": plan.split, "cluster": plan.cluster, "kind": plan.kind, "regime": plan.regime,
        "source": plan.source.rsplit("/", 1)[-1], "frames": frames, "occluders": " ".join(o.kind for o in things),
        "hidden": round(stats["hidden"], 4), "person_height": round(float(np.nanmedian(heights)), 1),
        "look_id": look.look_id, "shutter": round(imaging.shutter, 3), "gain": round(imaging.gain, 3),
        "defocus": round(imaging.defocus, 3), "read_noise": round(imaging.read_noise, 3),
        "shot_noise": round(imaging.shot_noise, 3),
        "digest": _digest(clip.frames, labels.points, labels.hidden, labels.outside, labels.positions),
    }  # fmt: skip
    return clip, labels, record


def clip_extent(motion: Motion, cameras: list[Camera]) -> tuple[float, float, float, float]:
    """x, y, w, h in pixels of the tight box around all joints of all frames."""
    pixels = np.stack([camera.project(p)[0] for camera, p in zip(cameras, motion.positions, strict=True)])
    low, high = np.nanmin(pixels, axis=(0, 1)), np.nanmax(pixels, axis=(0, 1))
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def place_occluders(
    tracks: list[CoverTrack], box: tuple[float, float, float, float], rng: np.random.Generator
) -> list[Occluder]:
    """Things to be drawn for planned tracks, which are in units of `box` (x, y, w, h)."""
    corner, sides = np.array(box[:2]), np.array(box[2:])
    things = []
    for track in tracks:
        size = np.clip(np.array(track.size) * sides, 8, 1500)
        kind = str(rng.choice(_KINDS[track.family]))
        T = len(track.centre)
        lean = float(rng.normal(0, 0.03)) + float(rng.uniform(0, 0.02)) * np.sin(np.arange(T) / rng.uniform(4, 15))
        place = OccluderTrack(corner + track.centre * sides, np.ones(T), lean, np.ones(T, bool))
        things.append(Occluder.sample(rng, (float(size[0]), float(size[1])), kind).on(place))
    return things


def label(
    plan: ClipPlan, clip: RenderedClip, motion: Motion, things: list[Occluder], imaging: Imaging, size: tuple[int, int]
) -> ClipLabels:
    """All points of a rendered clip with what hides them."""
    joints = len(JOINTS)
    world = points.world_points(motion.positions, motion.frames)
    cameras = (clip.K, clip.R, clip.t)
    pixels = points.project(np.stack([world[name] for name in points.NAMES], axis=1), *cameras)
    pixels[:, :joints] = clip.joints
    outline = points.project(np.stack([world[name] for name in points.HEAD_OUTLINE], axis=1), *cameras)
    hidden = np.zeros(pixels.shape[:2], bool)
    hidden[:, :joints] = clip.hidden_by_object
    if things:
        blank = np.zeros((size[1], size[0], 3), np.uint8)
        for t in range(len(pixels)):
            _, alpha = draw_occluders(blank, things, t, imaging.shutter, shadow=0.0)
            hidden[t, joints:] = points.covered(alpha, pixels[t, joints:])
    return ClipLabels(
        clip=plan.name, split=plan.split, cluster=plan.cluster, action=plan.action, regime=plan.regime, fps=clip.fps,
        size=size, points=pixels.astype(np.float32), hidden=hidden, outside=points.outside(pixels, size),
        behind=_behind(clip, world), boxes=clip.boxes,
        heads=np.concatenate([outline.min(axis=1), outline.max(axis=1)], axis=1).astype(np.float32),
        positions=motion.positions.astype(np.float32), K=clip.K.astype(np.float32), R=clip.R.astype(np.float32),
        t=clip.t.astype(np.float32),
    )  # fmt: skip


def _behind(clip: RenderedClip, world: dict[str, NDArray[np.float64]]) -> NDArray[np.bool_]:
    """(T, N) what the body itself hides: derived points inherit it from the joints they come from."""
    own = dict(zip(JOINTS, clip.self_occluded.T, strict=True))
    centres = -np.einsum("tji,tj->ti", clip.R, clip.t)
    turned = points.face_away(world, centres)
    out = np.zeros((len(clip.joints), len(points.NAMES)), bool)
    for n, name in enumerate(points.NAMES):
        if name in own:
            out[:, n] = own[name]
        elif name in points.SOURCES:
            a, b = points.SOURCES[name]
            out[:, n] = own[a] & own[b]
        else:
            out[:, n] = own["head"] | turned.get(name, False)
    return out


def _digest(*arrays: NDArray[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
