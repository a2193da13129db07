"""Motion capture in BVH files as 3D tracks of Human3.6M's 17 joints, seen by cameras that are placed around the person.

Tree:
    **/*.bvh    e.g. cmu/01_01.bvh: subject 01, take 01

A joint is a node of the file or a weighted mean of two, by the tables below: for the CMU collection's conversions for
MotionBuilder (LeftUpLeg, LeftLeg, ...) and for 3ds Max (LeftHip, LeftKnee, ...), and for Blender's metarig as ReactIdle has it.
The pelvis is the middle of the hips in all of them, as in Human3.6M. BVH does not tell its unit; it is the one of metre,
centimetre, millimetre, inch and CMU's own (1/0.45 inch, as its .asf files say) that makes the rest pose, measured along its
bones from ankle to head, as tall as a person. World: millimetres, y up. There are no pictures.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets.cameras import FARTHEST, View, load_cameras, of_subject, ring
from bipose_lit.datasets.frames import NoFrames
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.json_labels import told
from bipose_lit.datasets.labels import check_uids, hold_out
from bipose_lit.datasets.motion import BEHIND, BOX_RULES, Take, facing, long_names, make_track, seen_by
from bipose_lit.datasets.safe_pickle import shown
from bipose_lit.datasets.synthetic.bvh import BvhClip, first_frame, frames_at, load_bvh
from bipose_lit.types import ABSENT, AbsentSplitError, BiposeError

Floats = NDArray[np.float64]
Mix = Mapping[str, float]
"""Nodes and their weights, which sum to 1."""

MAX_FRAMES_OUT = 2**18
"""Frames of one take after resampling: 87 minutes at 50 frames per second."""
UNITS: Final = {"m": 1000.0, "cm": 10.0, "mm": 1.0, "inch": 25.4, "cmu": 25.4 / 0.45}
"""Millimetres per unit."""
TALLEST, SHORTEST = 2100.0, 1050.0
"""Millimetres from ankle to head along the bones that a person may have; Human3.6M's have about 1,620."""


def _sided(**joints: str) -> dict[str, Mix]:
    """Left and right of each; {S} is Left or Right, {x} is L or R."""
    return {
        f"{side}_{joint}": {node.format(S=side.capitalize(), x=side[0].upper()): 1.0}
        for side in ("left", "right")
        for joint, node in joints.items()
    }


def _rig(hips: str, spine: Mix, thorax: Mix, upper_neck: Mix, head_top: Mix, **joints: str) -> dict[str, Mix]:
    sided = _sided(hip=hips, **joints)
    pelvis = {node: 0.5 for side in ("left", "right") for node in sided[f"{side}_hip"]}
    return {"pelvis": pelvis, "spine": spine, "thorax": thorax, "upper_neck": upper_neck, "head_top": head_top, **sided}


RIGS: Final[dict[str, dict[str, Mix]]] = {
    # Spine1 bears the collars' bones, Neck1 is at the height of the shoulders, Head at the skull's base.
    "cmu-motionbuilder": _rig(
        "{S}UpLeg", {"Spine": 1.0}, {"Neck1": 1.0}, {"Head": 1.0}, {"Head/end": 1.0}, knee="{S}Leg", ankle="{S}Foot",
        shoulder="{S}Arm", elbow="{S}ForeArm", wrist="{S}Hand",
    ),
    "cmu-3dsmax": _rig(
        "{S}Hip", {"Chest": 1.0}, {"Neck": 1.0}, {"Head": 1.0}, {"Head/end": 1.0}, knee="{S}Knee", ankle="{S}Ankle",
        shoulder="{S}Shoulder", elbow="{S}Elbow", wrist="{S}Wrist",
    ),
    # The face's end is the nose; the head's top lies beyond the face as far as in Human3.6M, 0.65 of the way from neck to face.
    "blender-metarig": _rig(
        "thigh.{x}", {"spine.001": 1.0}, {"neck": 1.0}, {"face": 1.0}, {"face": 1.65, "neck": -0.65}, knee="shin.{x}",
        ankle="foot.{x}", shoulder="upper_arm.{x}", elbow="forearm.{x}", wrist="forearm.{x}/end",
    ),
}  # fmt: skip
"""Our joints as nodes of known rigs; "Head/end" is the end site of Head."""

HEAD_TOPS: Final[dict[str, Mix]] = {
    "cmu-motionbuilder": {"Head": 2.0, "Neck1": -1.0},
    "cmu-3dsmax": {"Head": 2.0, "Neck": -1.0},
    "blender-metarig": RIGS["blender-metarig"]["head_top"],
}
"""The head's top where it has to be estimated: in some of CMU's files the head's end site lies at its start. In the others
the head is as long as the neck's upper half."""

_CHAIN = ("ankle", "knee", "hip"), ("pelvis", "spine", "thorax", "upper_neck", "head_top")


class Mocap:
    """Reader of BVH files.

    Args:
        root: the folder; files in folders below it count.
        cameras: how many to place in a ring around each take, the same for all its frames; or the path, relative to the root, of
            a JSON file of cameras by subject (see `cameras`).
        distance: millimetres from the middle of the motion to the ring; more where the motion would leave the picture.
        elevation: degrees of the ring above the horizon.
        focal: focal length in pixels (Human3.6M's cameras have about 1,145).
        image_size: width and height of the ring's pictures in pixels.
        fps: frames per second to which takes are resampled, linearly between the file's frames.
        scale: millimetres per unit of the files, or "auto", or one of `UNITS`.
        names: nodes of a rig that is not one of `RIGS`, by our joints' names.
        box_rule: "frame-box" or "clip-box", see `H36M`.
        hold_out_by: "subject", the number before the take's in the file's name (the whole name where there is none), within its
            folder; or "take".
        test_fraction: share of the subjects (or takes) that test, chosen by the hash of their names.
        val_fraction: share of the others that validates.
        strict: False leaves broken files out and tells them, True ends at the first.

    Raises:
        BiposeError: no BVH files, or an argument out of range.
    """

    skeleton = skeletons.H36M
    layout = (Entry("SUBJECT_TAKE.bvh", "hierarchy and motion of one take; any folders"),)

    def __init__(
        self,
        root: str | Path,
        cameras: int | str = 4,
        distance: float = 5000.0,
        elevation: float = 10.0,
        focal: float = 1145.0,
        image_size: tuple[int, int] = (1000, 1000),
        fps: float = 50.0,
        scale: float | str = "auto",
        names: Mapping[str, str] | None = None,
        box_rule: str = "frame-box",
        hold_out_by: str = "subject",
        test_fraction: float = 0.2,
        val_fraction: float = 0.1,
        strict: bool = True,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise BiposeError(f"{self.root}: no such folder; give the one that holds the BVH files")
        if box_rule not in BOX_RULES or hold_out_by not in ("subject", "take"):
            raise BiposeError(
                f"box_rule {box_rule!r} must be one of {', '.join(BOX_RULES)}, hold_out_by {hold_out_by!r} subject or take"
            )
        if not 0 <= val_fraction < 1 or not 0 <= test_fraction < 1:
            raise BiposeError(
                f"val_fraction {val_fraction}, test_fraction {test_fraction} must be at least 0 and below 1"
            )
        if (
            not 0.1 <= fps <= 2000
            or not 500 <= distance <= 100_000
            or not 10 <= focal <= 1e5
            or not abs(elevation) <= 80
        ):
            raise BiposeError(
                f"fps {fps}, distance {distance}, focal {focal} or elevation {elevation} is out of range "
                "(0.1 to 2000; 500 to 100000 mm; 10 to 100000 px; -80 to 80 degrees)"
            )
        if len(image_size) != 2 or not all(16 <= n <= 100_000 for n in image_size):
            raise BiposeError(f"image_size {image_size} must be a width and a height in pixels")
        if isinstance(cameras, int) and not 1 <= cameras <= 64:
            raise BiposeError(f"cameras {cameras} must be 1 to 64, or a JSON file")
        if scale != "auto" and scale not in UNITS and not (isinstance(scale, int | float) and 0 < scale < 1e6):
            raise BiposeError(f"scale {scale!r} must be auto, millimetres per unit, or one of {', '.join(UNITS)}")
        if names is not None and set(names) != set(self.skeleton.joints):
            odd = sorted(set(names) ^ set(self.skeleton.joints))
            raise BiposeError(
                f"names must tell the node of each joint of {self.skeleton.name} once; look at {', '.join(odd)}"
            )
        self.files = tuple(sorted(p for p in self.root.rglob("*") if p.suffix.lower() == ".bvh" and p.is_file()))
        if not self.files:
            raise BiposeError(f"{self.root}: no .bvh file; give the folder that holds them")
        self.cameras, self.distance, self.elevation, self.focal = cameras, distance, elevation, focal
        self.image_size, self.fps, self.scale, self.box_rule = (
            (int(image_size[0]), int(image_size[1])),
            fps,
            scale,
            box_rule,
        )
        self.names, self.hold_out_by, self.strict = names, hold_out_by, strict
        self.test_fraction, self.val_fraction = test_fraction, val_fraction

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a broken file, nodes that the tables lack, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        skipped: dict[str, list[str]] = defaultdict(list)
        tracks: list[Track] = []
        for path in self._members(split):
            try:
                tracks += self._tracks(path, skipped)
            except BiposeError as error:
                if self.strict:
                    raise
                skipped["files left out"].append(str(error))
        if not tracks:
            hint = f"raise {split}_fraction or add files" if split != "train" else "check the files"
            if self._members(split):
                raise BiposeError(f"{self.root}: no {split} takes that can be used{told(skipped)}{facing(skipped)}")
            raise AbsentSplitError(f"{self.root}: no {split} takes; {hint}")
        check_uids(name for t in tracks for name, _ in long_names(t.clip, len(t)))
        name = f"mocap/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    def _members(self, split: str) -> list[Path]:
        unit = {p: self._cluster(p) if self.hold_out_by == "subject" else self._clip(p) for p in self.files}
        test = hold_out(unit.values(), self.test_fraction)
        val = hold_out((u for u in unit.values() if u not in test), self.val_fraction)
        chosen = {"test": test, "val": val}.get(split)
        return [p for p, u in unit.items() if (u in chosen if chosen is not None else u not in test and u not in val)]

    def _clip(self, path: Path) -> str:
        # Names that are not UTF-8 come with surrogates, which can neither be hashed nor printed.
        return path.relative_to(self.root).with_suffix("").as_posix().encode("utf-8", "replace").decode()

    def _cluster(self, path: Path) -> str:
        clip = self._clip(path)
        folder, _, stem = clip.rpartition("/")
        found = re.match(r"(?:[A-Za-z]+_)?([0-9]+)_", stem)
        return f"{folder}/{found[1] if found else stem}".removeprefix("/")

    @cached_property
    def _views(self) -> dict[str, tuple[View, ...]] | None:
        return load_cameras(self.root / self.cameras) if isinstance(self.cameras, str) else None

    def _tracks(self, path: Path, skipped: dict[str, list[str]]) -> list[Track]:
        clip, cluster = self._clip(path), self._cluster(path)
        bvh = load_bvh(path)
        table = self._table(bvh)
        world = joints_of(bvh.positions, bvh.names, table) * self._scale(bvh, table)
        if not (np.abs(world) < FARTHEST).all():
            raise BiposeError(
                f"{path}: the person is a kilometre away from the origin; mend the file, or give its scale"
            )
        first = first_frame(bvh)
        world = resample(world[first:], bvh.fps, self.fps, path)
        if first:
            skipped["first frame is the rest pose, left out"].append(clip)
        if table["head_top"] in HEAD_TOPS.values():
            skipped["head_top estimated, as the file has no node for it"].append(clip)
        if self._views is not None:
            views = of_subject(self._views, cluster.rpartition("/")[2]) or of_subject(self._views, cluster)
            if not views:
                raise BiposeError(
                    f"{self.root / str(self.cameras)}: no cameras of subject {cluster}; add them, or '*' for all"
                )
        else:
            views = ring(world, int(self.cameras), self.distance, self.elevation, self.focal, self.image_size)
        frames = NoFrames(self.root, (path.relative_to(self.root).as_posix(),), len(world))
        take = Take(clip, cluster, "", frames, world, np.ones(world.shape[:2], np.bool_), self.fps)
        out = []
        for view in views:
            joints, visible, points = seen_by(take, view)
            if not (visible != ABSENT).any():
                skipped[BEHIND].append(f"{clip}/{view.camera.name}")
                continue
            out.append(
                make_track(
                    take,
                    view.camera.name,
                    self.skeleton,
                    self.box_rule,
                    view.size,
                    joints,
                    visible,
                    points,
                    view.camera,
                )
            )
        return out

    def _table(self, bvh: BvhClip) -> dict[str, Mix]:
        rigs = RIGS if self.names is None else {"names": {joint: {node: 1.0} for joint, node in self.names.items()}}
        best, lacking = "", [""] * 99
        for rig, table in rigs.items():
            missing = sorted({node for mix in table.values() for node in mix if bvh.names.count(node) != 1})
            if not missing:
                found = {joint: table[joint] for joint in self.skeleton.joints}
                rest = dict(zip(found, joints_of(bvh.rest[None], bvh.names, found)[0], strict=True))
                neck, head = (np.linalg.norm(rest["upper_neck"] - rest[j]) for j in ("thorax", "head_top"))
                if rig in HEAD_TOPS and head < 0.1 * neck:
                    found["head_top"] = HEAD_TOPS[rig]
                return found
            if len(missing) < len(lacking):
                best, lacking = rig, missing
        twice = [node for node in lacking if node in bvh.names]
        raise BiposeError(
            f"{bvh.path}: {'has twice' if twice else 'lacks'} the nodes {', '.join(twice or lacking)} of the rig {best}; "
            f"its own are {shown(', '.join(bvh.names), 600)}; give names, the node of each joint"
        )

    def _scale(self, bvh: BvhClip, table: Mapping[str, Mix]) -> float:
        if isinstance(self.scale, int | float):
            return float(self.scale)
        if self.scale in UNITS:
            return UNITS[self.scale]
        height = body_length(joints_of(bvh.rest[None], bvh.names, table)[0])
        fits = [u for u in UNITS.values() if SHORTEST <= height * u <= TALLEST]
        if not fits:
            raise BiposeError(
                f"{bvh.path}: from ankle to head its bones are {height:.4g} long, which is a person's length in none of "
                f"{', '.join(UNITS)}; give scale, the millimetres per unit"
            )
        return fits[0]


def joints_of(positions: Floats, nodes: Sequence[str], table: Mapping[str, Mix]) -> Floats:
    """(T, K, 3) joints in the table's order from (T, J, 3) nodes."""
    weights = np.zeros((len(table), len(nodes)))
    for row, mix in enumerate(table.values()):
        for node, weight in mix.items():
            weights[row, nodes.index(node)] = weight
    return np.asarray(np.einsum("kj,tjd->tkd", weights, positions))


def body_length(joints: Floats) -> float:
    """Length along the bones from the ankles (the mean of both) by hips and spine to the head's top, of (17, 3) joints."""
    at = {name: joints[i] for i, name in enumerate(skeletons.H36M.joints)}
    legs = [[at[f"{side}_{joint}"] for joint in _CHAIN[0]] for side in ("left", "right")]
    trunk = [at[joint] for joint in _CHAIN[1]]
    lengths = [float(np.linalg.norm(np.diff(np.stack(chain), axis=0), axis=-1).sum()) for chain in (*legs, trunk)]
    return (lengths[0] + lengths[1]) / 2 + lengths[2]


def resample(points: Floats, rate: float, fps: float, path: Path) -> Floats:
    """(T, K, D) at another frame rate, from the first frame on, linear between frames.

    Raises:
        BiposeError: longer than `MAX_FRAMES_OUT`.
    """
    count = int((len(points) - 1) / rate * fps + 1e-6) + 1
    if count > MAX_FRAMES_OUT:
        raise BiposeError(
            f"{path}: {count} frames at {fps:g} per second, the limit is {MAX_FRAMES_OUT}; cut it or lower fps"
        )
    return frames_at(points, np.arange(count, dtype=np.float64) * (rate / fps))
