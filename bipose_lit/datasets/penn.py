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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.frames import FolderFrames
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.labels import check_uids, hold_out, load_mat, make_uids
from bipose_lit.types import ABSENT, VISIBLE, BiposeError

BOX_RULES = ("gt-box", "clip-box", "frame-box")
_KEYS = ("x", "y", "visibility", "bbox", "dimensions", "train", "action")


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

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.PENN_ACTION

    def __init__(
        self,
        root: str | Path,
        box_rule: str = "gt-box",
        box_jitter: float = 0.1,
        seed: int = 0,
        val_fraction: float = 0.1,
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if not 0 <= val_fraction < 1 or not 0 <= box_jitter < 1:
            raise BiposeError(f"val_fraction {val_fraction} and box_jitter {box_jitter} must be at least 0 and below 1")
        if not (self.root / "labels").is_dir():
            raise BiposeError(f"{self.root}: no folder labels; give the folder of Penn Action's official layout")
        self.box_rule, self.box_jitter, self.seed, self.val_fraction = box_rule, box_jitter, seed, val_fraction

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a damaged label file, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        contents = self._contents
        marks = {path: int(np.asarray(c["train"]).item()) for path, c in contents.items()}
        chosen = [path for path in contents if marks[path] == {"train": 1, "val": 0, "test": -1}[split]]
        if split != "test" and 0 not in marks.values():
            clusters = {path: _text(contents[path], "cluster") or path.stem for path in contents if marks[path] == 1}
            held = hold_out(clusters.values(), self.val_fraction)
            chosen = [path for path, cluster in clusters.items() if (cluster in held) == (split == "val")]
        skipped: dict[str, list[str]] = defaultdict(list)
        tracks = [track for path in chosen if (track := self._track(path, contents[path], skipped))]
        if not tracks:
            hint = "raise val_fraction" if split == "val" else "check the label files"
            raise BiposeError(f"{self.root / 'labels'}: no {split} clips; {hint}")
        check_uids(t.clip for t in tracks)
        name = f"penn_action/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    @cached_property
    def _contents(self) -> dict[Path, dict[str, Any]]:
        return {path: load_mat(path, _KEYS) for path in sorted((self.root / "labels").glob("*.mat"))}

    def _track(self, path: Path, content: dict[str, Any], skipped: dict[str, list[str]]) -> Track | None:
        clip = path.stem
        joints, visible = self._joints(path, content, skipped)
        names, found = self._names(clip, len(joints))
        count = min(len(joints), found)
        if len(joints) != found:
            skipped["labels and frames differ in number, common start used"].append(
                f"{clip} ({len(joints)} labels, {found} frames)"
            )
        joints, visible = joints[:count], visible[:count]
        whole = rules.clip_box(joints, visible)
        if not np.isfinite(whole).all():
            skipped["no labelled joint"].append(clip)
            return None
        tight = rules.frame_boxes(joints, visible)
        own = self._own_boxes(clip, content, tight, skipped)
        if self.box_rule == "clip-box":
            box = rules.jitter_box(whole, clip, self.box_jitter, self.seed)
            used = np.repeat(box[None].astype(np.float32), count, axis=0)
        else:
            used = rules.fill_boxes(own if self.box_rule == "gt-box" else tight, whole)
        height, width = (int(v) for v in np.asarray(content["dimensions"]).ravel()[:2])
        return Track(
            clip=clip,
            cluster=_text(content, "cluster") or clip,
            frames=FolderFrames(self.root, names[:count]),
            joints=joints,
            visible=visible,
            boxes=used,
            norms=rules.track_norms(joints, visible, self.skeleton, own, whole),
            uid=make_uids(clip, count),
            image_size=(width, height),
            fps=float(np.asarray(content["fps"]).item()) if "fps" in content else 0.0,  # the official labels do not say
            action=_text(content, "action"),
        )

    def _joints(
        self, path: Path, content: dict[str, Any], skipped: dict[str, list[str]]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        # The length is that of the coordinates: `nframes` is stored as uint8 and wraps in arithmetic.
        xy = np.stack([content["x"], content["y"]], axis=-1).astype(np.float64) - 1
        T, K = xy.shape[0], len(self.skeleton)
        if xy.shape != (T, K, 2) or content["visibility"].shape != (T, K):
            raise BiposeError(f"{path}: x has shape {xy.shape[:2]}, expected (frames, {K})")
        visible: NDArray[np.uint8] = np.where(content["visibility"] != 0, VISIBLE, ABSENT).astype(np.uint8)
        if "visible" in content:
            flags = np.asarray(content["visible"])
            if flags.shape != (T, K) or not np.isin(flags, (0, 1, 2)).all():
                raise BiposeError(f"{path}: visible must hold 0, 1 or 2 in shape ({T}, {K})")
            visible = flags.astype(np.uint8)
        broken = ~np.isfinite(xy).all(axis=-1) & (visible != ABSENT)
        if broken.any():
            skipped["joints not finite, taken as absent"].append(f"{path.stem} ({int(broken.sum())})")
        visible[broken] = ABSENT
        return np.where((visible != ABSENT)[..., None], xy, 0).astype(np.float32), visible

    def _own_boxes(
        self, clip: str, content: dict[str, Any], tight: rules.Boxes, skipped: dict[str, list[str]]
    ) -> rules.Boxes:
        T = len(tight)
        corners = np.asarray(content["bbox"], np.float64).reshape(-1, 4)[:T]
        if 0 < len(corners) < T:
            skipped["boxes missing at the end, last one repeated"].append(f"{clip} ({T - len(corners)})")
            corners = np.concatenate([corners, np.repeat(corners[-1:], T - len(corners), axis=0)])
        elif not len(corners):
            corners = np.full((T, 4), np.nan)
        # Corners are pixel centres, 1-based; the official measure takes x2 - x1 as the width.
        own = np.concatenate([corners[:, :2] - 0.5, corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
        bad = rules.without_area(own)
        if bad.any():
            skipped["boxes without area, the joints' box used"].append(f"{clip} ({int(bad.sum())})")
        return np.where(bad[:, None], tight, own)

    def _names(self, clip: str, labelled: int) -> tuple[tuple[str, ...], int]:
        found = sorted(p.name for p in (self.root / "frames" / clip).glob("*.jpg"))
        if not found:  # labels without pixels: expect the official names
            found = [f"{t + 1:06d}.jpg" for t in range(labelled)]
        return tuple(f"frames/{clip}/{name}" for name in found), len(found)


def _text(content: dict[str, Any], key: str) -> str:
    return str(np.asarray(content[key]).ravel()[0]) if key in content and np.asarray(content[key]).size else ""
