"""Human3.6M (Ionescu et al. 2014) as lifting papers use it: 17 joints in 3D, in VideoPose3D's layout, and bipose's own 3D tracks.

Tree:
    data_3d_h36m.npz    positions_3d: {subject: {action: (T, 32, 3)}}, world metres, 50 frames per second
    data_2d_h36m_*.npz  positions_2d: {subject: {action: [(T, 17, 2) per camera]}}, pixels, 0-based; metadata
    cameras.json        see `cameras`
  or, as bipose's synthetic set has it,
    tracks.npz          plain arrays SUBJECT/ACTION/{positions_3d, positions_2d, visible, K, R, t, fps}, metres; K, R, t by frame

The 17 joints are those that VideoPose3D keeps (`common/h36m_dataset.py`: it removes 4, 5, 9 to 11, 16, 20 to 24 and 28 to 31);
its Spine, Thorax, Neck/Nose and Head (12 to 15) are our spine, thorax, upper_neck and head_top. The npz files hold pickles,
which are read without running them (`safe_npz`). Action names count takes ("Walking", "Walking 1"; others write "Walking_1");
what is before the number is the action.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.cameras import FARTHEST, View, load_cameras, of_subject
from bipose_lit.datasets.frames import NoFrames
from bipose_lit.datasets.h36m_files import (
    UNITS,
    Arrays,
    Key,
    action_of,
    as_numbers,
    as_pixels,
    as_positions,
    load_detections,
    load_positions,
    name_of,
    typical_extent,
    unit_of,
)
from bipose_lit.datasets.index import Camera, Entry, PoseIndex, Track
from bipose_lit.datasets.json_labels import told
from bipose_lit.datasets.labels import check_uids, hold_out
from bipose_lit.datasets.motion import BEHIND, BOX_RULES, Take, facing, finite, long_names, make_track, seen_by
from bipose_lit.types import ABSENT, VISIBLE, AbsentSplitError, BiposeError

FPS = 50.0
Skipped = dict[str, list[str]]


class H36M:
    """Reader of Human3.6M's 3D positions with, where given, cameras and 2D detections.

    With cameras there is a track per take and camera: `joints` are the projections through the lens, `joints_3d` camera
    millimetres. Without, `joints_3d` are world millimetres, and there is a track per take and camera of the detections, which
    then are the joints too; or without those one track per take whose joints are all absent.

    Args:
        root: the folder; the files' paths are relative to it.
        positions: the npz of 3D positions; "tracks.npz" for bipose's synthetic set, which holds cameras and joints itself.
        detections: the npz of 2D detections in Human3.6M's 17 joints, fed to a lifting model (`Track.detected`).
        cameras: JSON, see `cameras.load_cameras`.
        box_rule: "frame-box", tight around each frame's joints, or "clip-box", around those of the take.
        val_subjects: subjects that validate; not official. With none of them the papers' five subjects train.
        val_fraction: where `val_subjects` is empty, the share of the other subjects' takes that validates.
        test_subjects: the papers' S9 and S11. All subjects of the file that neither test nor validate train.
        unit: of the positions, "m" or "mm"; the typical person must then be half a metre to three in size.
        fps: frames per second; None for Human3.6M's 50, or for plain arrays what the file says, 0 (unknown) where it does not.
        image_size: width and height in pixels where no camera tells them.
        strict: False leaves takes out that are damaged or lack detections or cameras, and tells them; True ends at the first.

    Raises:
        BiposeError: a file is missing or an argument out of range.
    """

    skeleton = skeletons.H36M
    layout = (
        Entry("data_3d_h36m.npz", "positions of 32 joints by subject and action, world metres"),
        Entry("data_2d_h36m_DETECTOR.npz", "2D detections by subject, action and camera", needed=False),
        Entry("cameras.json", "cameras of each subject", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        positions: str = "data_3d_h36m.npz",
        detections: str | None = None,
        cameras: str | None = None,
        box_rule: str = "frame-box",
        val_subjects: Sequence[str] = ("S8",),
        val_fraction: float = 0.0,
        test_subjects: Sequence[str] = ("S9", "S11"),
        unit: str = "m",
        fps: float | None = None,
        image_size: tuple[int, int] = (1000, 1000),
        strict: bool = True,
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if unit not in UNITS:
            raise BiposeError(f"unit {unit!r} is none of {', '.join(UNITS)}")
        if not 0 <= val_fraction < 1:
            raise BiposeError(f"val_fraction {val_fraction} must be at least 0 and below 1")
        if fps is not None and not 0 <= fps <= 1e4:
            raise BiposeError(f"fps {fps} must be at least 0 and at most 10000")
        if set(val_subjects) & set(test_subjects):
            raise BiposeError("val_subjects and test_subjects have a subject in common; keep them apart")
        if len(image_size) != 2 or not all(0 < n <= 100_000 for n in image_size):
            raise BiposeError(f"image_size {image_size} must be a width and a height in pixels")
        self.positions = self.root / positions
        if not self.positions.exists():
            own = "; give positions tracks.npz for bipose's own set" if (self.root / "tracks.npz").exists() else ""
            raise BiposeError(f"{self.positions}: no such file; give the folder that holds it{own}")
        self.detections = self.root / detections if detections else None
        self.cameras = self.root / cameras if cameras else None
        self.box_rule, self.val_fraction, self.unit, self.fps, self.strict = box_rule, val_fraction, unit, fps, strict
        self.val_subjects, self.test_subjects = tuple(val_subjects), tuple(test_subjects)
        self.image_size = (int(image_size[0]), int(image_size[1]))

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a damaged file, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        skipped: Skipped = defaultdict(list)
        tracks: list[Track] = []
        for key in self._members(split):
            try:
                tracks += self._tracks(key, self._sequences[key], skipped)
            except BiposeError as error:
                if self.strict:
                    raise
                skipped["takes left out"].append(str(error))
        if not tracks:
            hint = "choose val_subjects that it holds, or a val_fraction" if split == "val" else "check test_subjects"
            if self._members(split):
                raise BiposeError(
                    f"{self.positions}: no {split} takes that can be used{told(skipped)}{facing(skipped)}"
                )
            raise AbsentSplitError(f"{self.positions}: no {split} takes; {hint}")
        check_uids(name for t in tracks for name, _ in long_names(t.clip, len(t)))
        name = f"h36m/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    @cached_property
    def _sequences(self) -> dict[Key, Any]:
        found = load_positions(self.positions)
        extent = typical_extent(found)
        if extent == extent and unit_of(extent) != self.unit:  # NaN: every take is broken, which its own message tells
            other = unit_of(extent)
            advice = f"; give unit {other}" if other else ", which fits neither m nor mm; store the positions in metres"
            raise BiposeError(
                f"{self.positions}: persons are {float(f'{extent * UNITS[self.unit] / 1000:.3g}'):g} m in size when its unit is "
                f"{self.unit}{advice}"
            )
        return found

    @cached_property
    def _detected(self) -> dict[Key, Any] | None:
        return load_detections(self.detections) if self.detections else None

    @cached_property
    def _views(self) -> dict[str, tuple[View, ...]] | None:
        return load_cameras(self.cameras) if self.cameras else None

    def _members(self, split: str) -> list[Key]:
        keys = sorted(self._sequences)
        if split == "test":
            return [key for key in keys if key[0] in self.test_subjects]
        rest = [key for key in keys if key[0] not in self.test_subjects]
        if self.val_subjects:
            return [key for key in rest if (key[0] in self.val_subjects) == (split == "val")]
        held = hold_out((f"{s}/{a}" for s, a in rest), self.val_fraction)
        return [key for key in rest if (f"{key[0]}/{key[1]}" in held) == (split == "val")]

    def _tracks(self, key: Key, value: Any, skipped: Skipped) -> list[Track]:
        clip = name_of(key)
        if isinstance(value, Arrays) and {"positions_2d", "visible", "K", "R", "t"} <= set(value):
            return self._own_camera(key, value, skipped)
        take = self._take(key, value, skipped)
        views = of_subject(self._views, key[0]) if self._views is not None else None
        if views == ():
            raise BiposeError(f"{self.cameras}: no cameras of subject {key[0]}; add them, or under '*' those of all")
        detected = self._detections_of(key, skipped)
        if detected is not None:
            if views is not None and len(views) != len(detected):
                raise BiposeError(
                    f"{self.detections}: {clip} has detections of {len(detected)} cameras, {self.cameras} {len(views)}"
                )
            if (longest := max(map(len, detected))) != len(take.world) or min(map(len, detected)) != longest:
                lengths = ", ".join(str(len(d)) for d in detected)
                skipped["positions and detections differ in number, common start used"].append(
                    f"{clip} ({len(take.world)} positions, {lengths} detections)"
                )
        out: list[Track] = []
        if views is None and detected is None:
            nothing = np.zeros((*take.present.shape, 2), np.float32)
            visible = np.full(take.present.shape, ABSENT, np.uint8)
            return [make_track(take, "", self.skeleton, self.box_rule, self.image_size, nothing, visible, take.world)]
        for number in range(len(views if views is not None else detected or ())):
            found = None if detected is None else detected[number]
            part = take if found is None else self._cut(take, len(found))
            found = None if found is None else found[: len(part.world)]
            if views is not None:
                camera, size = views[number].camera, views[number].size
                joints, visible, points = seen_by(part, views[number])
                if not (visible != ABSENT).any():
                    skipped[BEHIND].append(f"{clip}/{camera.name}")
                    continue
                out.append(
                    make_track(
                        part, camera.name, self.skeleton, self.box_rule, size, joints, visible, points, camera, found
                    )
                )
            elif found is not None:
                visible = np.full(part.present.shape, VISIBLE, np.uint8)
                out.append(
                    make_track(part, f"camera{number}", self.skeleton, self.box_rule, self.image_size, found, visible,
                               part.world, None, found)
                )  # fmt: skip
        return out

    def _take(self, key: Key, value: Any, skipped: Skipped) -> Take:
        clip = name_of(key)
        where = f"{self.positions}: {clip}"
        fps = FPS if self.fps is None else self.fps
        if isinstance(value, Arrays) and self.fps is None:
            fps = float(as_numbers(value["fps"], (), f"{where}/fps")) if "fps" in value else 0.0
            if not 0 <= fps <= 1e4:
                raise BiposeError(f"{where}/fps: {fps:g} is no rate of frames; mend the file")
        world, present = finite(as_positions(value, where) * UNITS[self.unit])
        if not present.any():
            raise BiposeError(f"{where}: no joint has a place; leave it out")
        if not present.all():
            skipped["joints not finite, taken as absent"].append(f"{clip} ({int((~present).sum())})")
        scene = key[1].split(" ")[-1].rpartition("_")[0]
        # The synthetic set's subjects stand for splits; its scenes are the independent sources.
        cluster = scene if isinstance(value, Arrays) and scene.startswith("scene") else key[0]
        frames = NoFrames(self.root, (self.positions.name,), len(world))
        return Take(clip, cluster, action_of(key[1]), frames, world, present, fps)

    def _cut(self, take: Take, count: int) -> Take:
        count = min(count, len(take.world))
        frames = NoFrames(self.root, (self.positions.name,), count)
        return Take(take.clip, take.cluster, take.action, frames, take.world[:count], take.present[:count], take.fps)

    def _detections_of(self, key: Key, skipped: Skipped) -> list[NDArray[np.float32]] | None:
        if self._detected is None:
            return None
        where = f"{self.detections}: {name_of(key)}"
        if key not in self._detected:
            raise BiposeError(f"{where}: no detections of this take, which has positions; are these the set's?")
        cameras = self._detected[key]
        if isinstance(cameras, np.ndarray) and cameras.ndim == 4:
            cameras = list(cameras)
        if not isinstance(cameras, list | tuple) or not 1 <= len(cameras) <= 64:
            raise BiposeError(f"{where}: expected a list of an array (T, 17, 2) for each camera")
        return [as_pixels(array, f"{where}, camera {number}") for number, array in enumerate(cameras)]

    def _own_camera(self, key: Key, arrays: Arrays, skipped: Skipped) -> list[Track]:
        """A take with a camera by frame and joints as they are seen, as bipose's synthetic set has it."""
        where = f"{self.positions}: {name_of(key)}"
        take = self._take(key, arrays, skipped)
        T, K = take.present.shape
        visible = as_numbers(arrays["visible"], (T, K), f"{where}/visible")
        if not np.isin(visible, (0, 1, 2)).all():
            raise BiposeError(f"{where}/visible: must hold 0, 1 or 2")
        intrinsics, R = (as_numbers(arrays[n], (T, 3, 3), f"{where}/{n}") for n in ("K", "R"))
        t = as_numbers(arrays["t"], (T, 3), f"{where}/t") * UNITS[self.unit]
        size = np.rint(2 * intrinsics[0, :2, 2] + 1)  # the principal point is the middle pixel's centre
        right = (np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)) < 1e-3).all() and (np.abs(t) < 1e9).all()
        if not right or not (np.abs(intrinsics) < FARTHEST).all() or not ((size >= 1) & (size <= 100_000)).all():
            raise BiposeError(f"{where}: K, R and t are no camera's; write the set again")
        pixels = as_numbers(arrays["positions_2d"], (T, K, 2), f"{where}/positions_2d")
        flags = np.where((np.abs(pixels) < FARTHEST).all(axis=-1) & take.present, visible, ABSENT).astype(np.uint8)
        joints = np.where((flags != ABSENT)[..., None], pixels, 0.0).astype(np.float32)
        points, known = finite(take.world @ R.transpose(0, 2, 1) + t[:, None])
        points = np.where((known & take.present)[..., None], points, 0.0)
        if not (flags != ABSENT).any():
            skipped["no labelled joint"].append(take.clip)
            return []
        camera, shape = Camera("moving", intrinsics, R, t), (int(size[0]), int(size[1]))
        return [make_track(take, "", self.skeleton, self.box_rule, shape, joints, flags, points, camera)]
