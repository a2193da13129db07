"""JHMDB (Jhuang et al. 2013) and sub-JHMDB: 15 joints in clips of one action each.

Tree:
    Rename_Images/CLASS/CLIP/00001.png            or  ReCompress_Videos/CLASS/CLIP.avi
    joint_positions/CLASS/CLIP/joint_positions.mat    pos_img (2, 15, T), 1-based pixels
    splits/CLASS_test_split{1,2,3}.txt                "CLIP.avi N": 1 train, 2 test, 0 in neither

Three things that the official files lack are read where a set has them (bipose's own synthetic set does): the value 3
(val) in the split lists, and in the .mat `visible` (15, T) with 0 absent, 1 occluded, 2 visible, and `fps`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.frames import FolderFrames, VideoFrames, image_size, probe_video
from bipose_lit.datasets.index import FrameSource, PoseIndex, Track
from bipose_lit.datasets.labels import check_uids, hold_out, load_mat, make_uids, source_title
from bipose_lit.types import ABSENT, VISIBLE, BiposeError

BOX_RULES = ("clip-box", "frame-box")
MANIFEST = "manifest.json"
"""File that marks a set written by bipose."""

_LISTED = {1: "train", 2: "test", 3: "val"}
_SIZE, _FPS = (320, 240), 30.0  # of every official clip, for labels whose pixels are not on this disk


@dataclass(frozen=True)
class _Pixels:
    frames: FrameSource
    count: int
    size: tuple[int, int]
    fps: float


class JHMDB:
    """Reader of JHMDB's layout.

    Args:
        root: the folder that holds `splits` and `joint_positions`.
        split: number of the official split, 1 to 3.
        box_rule: "clip-box", one box around all labelled joints of the clip; or "frame-box", one per frame.
        box_jitter: for "clip-box", how far each clip's box is moved and scaled, as a fraction of its size
            (`boxes.jitter_box`); a function of the clip's name and `seed`. Norms use the box before that.
            Padding is the crop's business.
        seed: of the jitter.
        val_fraction: share of the training sources that validates, where the lists name no validation clips.
        pixels: "images", "video", or "auto": images where all frames of the clip are there, else the video.
        splits_folder: "splits", or "sub_splits" for sub-JHMDB.
        name: first part of the index's name; default "jhmdb", or "synthetic" for a set that bipose wrote.

    Attributes:
        official: the split lists are the owners' own, not bipose's.

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.JHMDB

    def __init__(
        self,
        root: str | Path,
        split: int = 1,
        box_rule: str = "clip-box",
        box_jitter: float = 0.1,
        seed: int = 0,
        val_fraction: float = 0.15,
        pixels: str = "auto",
        splits_folder: str = "splits",
        name: str = "",
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if pixels not in ("auto", "images", "video"):
            raise BiposeError(f"pixels {pixels!r} is none of auto, images, video")
        if split not in (1, 2, 3):
            raise BiposeError(f"split {split} is none of 1, 2, 3")
        if not 0 <= val_fraction < 1 or not 0 <= box_jitter < 1:
            raise BiposeError(f"val_fraction {val_fraction} and box_jitter {box_jitter} must be at least 0 and below 1")
        if not self.root.is_dir():
            raise BiposeError(
                f"{self.root}: no such folder; make a set with 'bipose data make', or name where JHMDB lies"
            )
        for folder in (splits_folder, "joint_positions"):
            if not (self.root / folder).is_dir():
                raise BiposeError(f"{self.root}: no folder {folder}; give the folder of JHMDB's official layout")
        self.split, self.box_rule, self.box_jitter, self.seed = split, box_rule, box_jitter, seed
        self.val_fraction, self.pixels, self.splits_folder = val_fraction, pixels, splits_folder
        self.official = not (self.root / MANIFEST).exists()
        self.name = name or ("jhmdb" if self.official else "synthetic")

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a damaged label file, no lists for this split number, or an empty split.
        """
        wanted = self.members(split)
        skipped: dict[str, list[str]] = defaultdict(list)
        tracks = [track for action, clip in wanted if (track := self._track(action, clip, skipped))]
        if not tracks:
            hint = "raise val_fraction" if split == "val" else "check the split lists"
            raise BiposeError(f"{self.root / self.splits_folder}: split {self.split} has no {split} clips; {hint}")
        check_uids(t.clip for t in tracks)
        name = f"{self.name}/split{self.split}/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    def members(self, split: str) -> list[tuple[str, str]]:
        """(class, clip) of "train", "val" or "test", sorted. BiposeError for an unknown split or missing lists."""
        if split not in _LISTED.values():
            raise BiposeError(f"split {split!r} is none of train, val, test")
        lists = sorted((self.root / self.splits_folder).glob(f"*_test_split{self.split}.txt"))
        if not lists:
            folder = self.root / self.splits_folder
            raise BiposeError(f"{folder}: no CLASS_test_split{self.split}.txt; choose another split number")
        listed: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for path in lists:
            action = path.name.removesuffix(f"_test_split{self.split}.txt")
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match line.split():
                    case [file, ("0" | "1" | "2" | "3") as mark]:
                        listed[_LISTED.get(int(mark), "")].append((action, file.removesuffix(".avi")))
                    case []:
                        pass
                    case _:
                        raise BiposeError(f"{path}:{number}: expected 'CLIP.avi N' with N from 0 to 3, found {line!r}")
        if not listed["val"]:
            held = hold_out((source_title(clip, action) for action, clip in listed["train"]), self.val_fraction)
            pool = listed["train"]
            listed["train"] = [m for m in pool if source_title(m[1], m[0]) not in held]
            listed["val"] = [m for m in pool if source_title(m[1], m[0]) in held]
        return sorted(listed[split])

    def _track(self, action: str, clip: str, skipped: dict[str, list[str]]) -> Track | None:
        name = f"{action}/{clip}"
        path = self.root / "joint_positions" / action / clip / "joint_positions.mat"
        if not path.exists():
            skipped["no joint positions"].append(name)
            return None
        joints, visible, fps = self._labels(path, name, skipped)
        labelled = len(joints)
        pixels = self._pixels(action, clip, labelled)
        count = min(labelled, pixels.count)
        if labelled != pixels.count:
            skipped["labels and frames differ in number, common start used"].append(
                f"{name} ({labelled} labels, {pixels.count} frames)"
            )
        joints, visible = joints[:count], visible[:count]
        whole = rules.clip_box(joints, visible)
        if not np.isfinite(whole).all():
            skipped["no labelled joint"].append(name)
            return None
        own = rules.frame_boxes(joints, visible)
        if self.box_rule == "clip-box":
            box = rules.jitter_box(whole, name, self.box_jitter, self.seed)
            used = np.repeat(box[None].astype(np.float32), count, axis=0)
        else:
            used = rules.fill_boxes(own, whole)
        return Track(
            clip=name,
            cluster=source_title(clip, action),
            frames=pixels.frames,
            joints=joints,
            visible=visible,
            boxes=used,
            norms=rules.track_norms(joints, visible, self.skeleton, own, whole),
            uid=make_uids(name, count),
            image_size=pixels.size,
            fps=fps or pixels.fps,
            action=action,
        )

    def _labels(
        self, path: Path, name: str, skipped: dict[str, list[str]]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], float]:
        content = load_mat(path, ["pos_img"])
        position = np.asarray(content["pos_img"], np.float64)
        K = len(self.skeleton)
        if position.ndim == 2:  # MATLAB drops the last axis of a clip of one frame
            position = position[:, :, None]
        if position.shape[:2] != (2, K):
            raise BiposeError(f"{path}: pos_img has shape {position.shape}, expected (2, {K}, frames)")
        joints = position.transpose(2, 1, 0) - 1  # MATLAB counts pixels from 1
        visible: NDArray[np.uint8] = np.full((len(joints), K), VISIBLE, np.uint8)
        if "visible" in content:
            flags = np.asarray(content["visible"]).reshape(K, -1)
            if flags.shape != (K, len(joints)) or not np.isin(flags, (0, 1, 2)).all():
                raise BiposeError(f"{path}: visible must hold 0, 1 or 2 in shape ({K}, {len(joints)})")
            visible = flags.T.astype(np.uint8)
        broken = ~np.isfinite(joints).all(axis=-1) & (visible != ABSENT)
        if broken.any():
            skipped["joints not finite, taken as absent"].append(f"{name} ({int(broken.sum())})")
        visible[broken] = ABSENT
        fps = float(np.asarray(content["fps"]).item()) if "fps" in content else 0.0
        return np.where((visible != ABSENT)[..., None], joints, 0).astype(np.float32), visible, fps

    def _pixels(self, action: str, clip: str, labelled: int) -> _Pixels:
        folder = self.root / "Rename_Images" / action / clip
        video = Path("ReCompress_Videos") / action / f"{clip}.avi"
        found = sorted(p.name for p in folder.glob("*.png")) if self.pixels != "video" else []
        if found and (self.pixels == "images" or len(found) >= labelled or not (self.root / video).exists()):
            names = tuple(f"Rename_Images/{action}/{clip}/{name}" for name in found)
            return _Pixels(FolderFrames(self.root, names), len(names), image_size(self.root / names[0]), _FPS)
        if self.pixels != "images" and (self.root / video).exists():
            info = probe_video(self.root / video)
            return _Pixels(VideoFrames(self.root, video.as_posix(), info.frames), info.frames, info.size, info.fps)
        names = tuple(f"Rename_Images/{action}/{clip}/{t + 1:05d}.png" for t in range(labelled))
        return _Pixels(FolderFrames(self.root, names), labelled, _SIZE, _FPS)
