"""Penn Action (Zhang et al. 2013): 13 joints in clips of one action each.

Tree:
    frames/NNNN/000001.jpg
    labels/NNNN.mat    x, y, visibility (T, 13), bbox (T, 4) as x1 y1 x2 y2, 1-based pixels; dimensions, train, action

`visibility` 0 means that the joint was not annotated (the coordinates are placeholders): absent, not occluded. Where a
set has them (bipose's own synthetic set does) these are read: `visible` (T, 13) with 0 absent, 1 occluded, 2 visible,
`cluster`, `fps`, and 0 in `train` for validation clips.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets import labels as files
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.json_labels import told
from bipose_lit.metrics.video_pck import corner_size
from bipose_lit.types import ABSENT, NORMS, VISIBLE, AbsentSplitError, BiposeError

BOX_RULES = ("gt-box", "clip-box", "frame-box")
MARKS = {"train": 1, "val": 0, "test": -1}
"""`train` in the label files, by split; 0 is bipose's addition."""

_KEYS = ("x", "y", "visibility", "bbox", "dimensions", "train", "action")
_LARGEST_SIDE = 65535


@dataclass(frozen=True)
class PennLabels:
    """One label file; T frames.

    Attributes:
        joints: (T, 13, 2) float64, pixels as in the file, so 1-based; 0 where absent.
        visible: (T, 13) ABSENT, OCCLUDED, VISIBLE.
        corners: (T, 4) float64 x1, y1, x2, y2 as in the file; missing ones at the end repeat the last, NaN where unusable.
        size: width and height in pixels.
        mark: `train` of the file: 1, 0 or -1.
        action, cluster: texts, "" where the file has none.
        fps: 0 where unknown.
        remarks: what was mended, reason -> detail.
    """

    joints: NDArray[np.float64]
    visible: NDArray[np.uint8]
    corners: NDArray[np.float64]
    size: tuple[int, int]
    mark: int
    action: str
    cluster: str
    fps: float
    remarks: dict[str, str]

    def __len__(self) -> int:
        return len(self.joints)


class PennAction:
    """Reader of Penn Action's layout.

    Args:
        root: the folder that holds `labels` and `frames` (labels alone can be indexed; reading pixels then fails and
            names the missing file).
        box_rule: "gt-box", each frame's own labelled box, as the official measure uses; "clip-box", one box around all
            labelled joints of the clip; "frame-box", one per frame around its labelled joints.
        box_jitter: as `JHMDB`, for "clip-box".
        seed: of the jitter.
        val_fraction: share of the training clips that validates, where the labels name no validation clips. Clips are
            their own clusters: the labels name no source.
        strict: end at the first damaged label file; False leaves such files out and tells them in the index's `skipped`.

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.PENN_ACTION
    layout: ClassVar[tuple[Entry, ...]] = (
        Entry("labels/NNNN.mat", "joints, their visibility, boxes, action and split of a clip"),
        Entry("frames/NNNN/000001.jpg", "its frames", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        box_rule: str = "gt-box",
        box_jitter: float = 0.1,
        seed: int = 0,
        val_fraction: float = 0.1,
        strict: bool = True,
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if not 0 <= val_fraction < 1 or not 0 <= box_jitter < 1:
            raise BiposeError(f"val_fraction {val_fraction} and box_jitter {box_jitter} must be at least 0 and below 1")
        if not (self.root / "labels").is_dir():
            raise BiposeError(f"{self.root}: no folder labels; give the folder of Penn Action's official layout")
        self.box_rule, self.box_jitter, self.seed, self.val_fraction = box_rule, box_jitter, seed, val_fraction
        self.strict = strict

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a damaged label file (unless the reader is lenient), an unknown or an empty split.
        """
        if split not in MARKS:
            raise BiposeError(f"split {split!r} is none of train, val, test")
        skipped: dict[str, list[str]] = defaultdict(list)
        contents: dict[str, PennLabels] = {}
        for path, found in self._contents.items():
            if isinstance(found, PennLabels):
                contents[path.stem] = found
            else:
                skipped["damaged label file"].append(f"{path.stem} ({files.without_place(found, path)})")
        marks = {clip: found.mark for clip, found in contents.items()}
        chosen = [clip for clip in contents if marks[clip] == MARKS[split]]
        if split != "test" and 0 not in marks.values():
            clusters = {clip: found.cluster or clip for clip, found in contents.items() if found.mark == 1}
            held = files.hold_out(clusters.values(), self.val_fraction)
            chosen = [clip for clip, cluster in clusters.items() if (cluster in held) == (split == "val")]
        tracks = [track for clip in chosen if (track := self._track(clip, contents[clip], skipped))]
        if not tracks:
            if chosen or skipped or not self._contents:
                raise BiposeError(f"{self.root / 'labels'}: no {split} clips; check the label files{told(skipped)}")
            hint = "raise val_fraction" if split == "val" else "check the label files"
            raise AbsentSplitError(f"{self.root / 'labels'}: no {split} clips; {hint}")
        files.check_uids(t.clip for t in tracks)
        name = f"penn_action/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    @cached_property
    def _contents(self) -> dict[Path, PennLabels | BiposeError]:
        found: dict[Path, PennLabels | BiposeError] = {}
        for path in label_files(self.root):
            try:
                found[path] = read_labels(path)
            except BiposeError as error:
                if self.strict:
                    raise
                found[path] = error
        return found

    def _track(self, clip: str, labels: PennLabels, skipped: dict[str, list[str]]) -> Track | None:
        for reason, detail in labels.remarks.items():
            skipped[reason].append(f"{clip} ({detail})" if detail else clip)
        pictures = self._pictures(clip, len(labels))
        if pictures.reason:
            skipped[pictures.reason].append(f"{clip} ({pictures.detail})")
        count = len(pictures.names)
        if not count:
            return None
        visible = labels.visible[:count]
        joints = np.where((visible != ABSENT)[..., None], labels.joints[:count] - 1, 0).astype(np.float32)
        whole = rules.clip_box(joints, visible)
        if not np.isfinite(whole).all():
            skipped["no labelled joint"].append(clip)
            return None
        tight = rules.frame_boxes(joints, visible)
        own = self._own_boxes(clip, labels.corners[:count], tight, skipped)
        norms = rules.track_norms(joints, visible, self.skeleton, own, whole)
        size = corner_size(
            labels.corners[:count]
        )  # counts where the box has no area as well, as in the official measure
        norms[:, NORMS.index("bbox")] = np.where(np.isnan(size), norms[:, NORMS.index("bbox")], size)
        if self.box_rule == "clip-box":
            box = rules.jitter_box(whole, clip, self.box_jitter, self.seed)
            used = np.repeat(box[None].astype(np.float32), count, axis=0)
        else:
            used = rules.fill_boxes(own if self.box_rule == "gt-box" else tight, whole)
        return Track(
            clip=clip,
            cluster=labels.cluster or clip,
            frames=FolderFrames(self.root, tuple(f"frames/{clip}/{name}" for name in pictures.names)),
            joints=joints,
            visible=visible,
            boxes=used,
            norms=norms,
            uid=files.make_uids(clip, count),
            image_size=labels.size,
            fps=labels.fps,  # the official labels do not say
            action=labels.action,
        )

    def _own_boxes(
        self, clip: str, corners: NDArray[np.float64], tight: rules.Boxes, skipped: dict[str, list[str]]
    ) -> rules.Boxes:
        # Corners are pixel centres, 1-based; the official measure takes x2 - x1 as the width.
        own = np.concatenate([corners[:, :2] - 0.5, corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
        bad = rules.without_area(own)
        if bad.any():
            skipped["boxes without area, the joints' box used"].append(f"{clip} ({int(bad.sum())})")
        return np.where(bad[:, None], tight, own)

    def _pictures(self, clip: str, labelled: int) -> files.Paired:
        found = sorted(p.name for p in (self.root / "frames" / clip).glob("[!.]*.jpg"))
        if not found:  # labels without pixels: expect the official names
            found = [f"{t + 1:06d}.jpg" for t in range(labelled)]
        return files.pair_frames(found, labelled)


def label_files(root: Path) -> list[Path]:
    """The label files below a data set's folder, sorted. BiposeError where one has a name that cannot be told."""
    found = sorted((root / "labels").glob("[!.]*.mat"))
    for path in found:
        if not files.is_name(path.stem):
            raise BiposeError(f"{root / 'labels'}: a label file has the name {path.stem[:40]!r}; rename it")
    return found


def read_labels(path: Path) -> PennLabels:
    """One label file, its coordinates as they are (1-based).

    The length is that of the coordinates: `nframes` is stored as uint8 and wraps in arithmetic.

    Raises:
        BiposeError: missing, damaged, or a variable is missing or of the wrong type, shape or range.
    """
    content = files.load_mat(path, _KEYS)
    remarks: dict[str, str] = {}
    xy = [files.numbers(path, content, name) for name in ("x", "y")]
    T, K = len(xy[0]), len(PennAction.skeleton)
    if any(v.shape != (T, K) for v in xy) or not T:
        raise BiposeError(f"{path}: x, y have the shapes {xy[0].shape}, {xy[1].shape}, expected (frames, {K})")
    files.make_uids(path.stem, T)  # ends too long clips before any work
    joints, visible = files.drop_unusable(np.stack(xy, axis=-1), _visible(path, content, T), remarks)
    mark = files.number(path, content, "train")
    if mark not in MARKS.values():
        raise BiposeError(f"{path}: train is {mark:g}, expected 1, -1 or 0; mend or download the file again")
    size = files.numbers(path, content, "dimensions").ravel()[:2]
    if len(size) < 2 or not ((size >= 1) & (size <= _LARGEST_SIDE) & (size % 1 == 0)).all():
        raise BiposeError(f"{path}: dimensions starts with {size.tolist()}, expected height and width in pixels")
    if "nframes" in content:
        said = content["nframes"]
        plain = isinstance(said, np.ndarray) and said.dtype.kind in "biuf" and said.size == 1
        if not plain or float(said.item()) % 256 != T % 256:
            remarks["nframes is not the number of labelled frames, the latter used"] = str(T)
    return PennLabels(
        joints=joints,
        visible=visible,
        corners=_corners(path, content, T, remarks),
        size=(int(size[1]), int(size[0])),
        mark=int(mark),
        action=files.text(path, content, "action"),
        cluster=files.text(path, content, "cluster"),
        fps=files.frame_rate(path, content, remarks),
        remarks=remarks,
    )


def _visible(path: Path, content: dict[str, Any], T: int) -> NDArray[np.uint8]:
    """(T, K) from bipose's `visible` where it is there, else from the official `visibility`."""
    K = len(PennAction.skeleton)
    name, allowed = ("visible", "0, 1 or 2") if "visible" in content else ("visibility", "0 or 1")
    flags = files.numbers(path, content, name)
    if flags.shape != (T, K) or not np.isin(flags, (0, 1, 2) if name == "visible" else (0, 1)).all():
        raise BiposeError(f"{path}: {name} must hold {allowed} in shape ({T}, {K}); its shape is {flags.shape}")
    return (flags if name == "visible" else np.where(flags != 0, VISIBLE, ABSENT)).astype(np.uint8)


def _corners(path: Path, content: dict[str, Any], T: int, remarks: dict[str, str]) -> NDArray[np.float64]:
    """(T, 4): clips 1154 and 1865 lack the last box, and repeat the one before it, as in the LSTM Pose Machines code."""
    corners = files.numbers(path, content, "bbox")
    if not corners.size:
        return np.full((T, 4), np.nan)
    if corners.ndim != 2 or corners.shape[1] != 4:
        raise BiposeError(f"{path}: bbox has the shape {corners.shape}, expected ({T}, 4)")
    missing = T - len(corners)
    if missing > 0:
        remarks["boxes missing at the end, last one repeated"] = str(missing)
        corners = np.concatenate([corners, np.repeat(corners[-1:], missing, axis=0)])
    elif missing < 0:
        remarks["more boxes than frames, the first ones used"] = str(-missing)
    corners = corners[:T].copy()
    with np.errstate(invalid="ignore"):
        corners[~(np.abs(corners) <= files.LARGEST).all(axis=1)] = np.nan
    return corners
