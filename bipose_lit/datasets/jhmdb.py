"""JHMDB (Jhuang et al. 2013) and sub-JHMDB: 15 joints in clips of one action each.

Tree:
    Rename_Images/CLASS/CLIP/00001.png            or  ReCompress_Videos/CLASS/CLIP.avi
    joint_positions/CLASS/CLIP/joint_positions.mat    pos_img (2, 15, T), 1-based pixels
    splits/CLASS_test_split{1,2,3}.txt                "CLIP.avi N": 1 train, 2 test, 0 in neither
    sub_splits/CLASS_test_split_{1,2,3}.txt           the same of sub-JHMDB: clips in which the whole body is seen
    puppet_mask/CLASS/CLIP/puppet_mask.mat            see `puppet`; for the box rule "puppet-box" and the official measure

Three things that the official files lack are read where a set has them (bipose's own synthetic set does): the value 3
(val) in the split lists, and in the .mat `visible` (15, T) with 0 absent, 1 occluded, 2 visible, and `fps`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets import labels as files
from bipose_lit.datasets import puppet
from bipose_lit.datasets.frames import FolderFrames, VideoFrames, image_size, probe_video
from bipose_lit.datasets.index import Entry, FrameSource, PoseIndex, Track
from bipose_lit.datasets.json_labels import told
from bipose_lit.metrics.video_pck import corner_size
from bipose_lit.types import ABSENT, NORMS, VISIBLE, AbsentSplitError, BiposeError

BOX_RULES = ("clip-box", "frame-box", "puppet-box")
MANIFEST = "manifest.json"
"""File that marks a set written by bipose."""
SPLITS = (1, 2, 3)

_LISTED = {1: "train", 2: "test", 3: "val"}
_SIZE, _FPS = (320, 240), 30.0  # of every official clip, for labels whose pixels are not on this disk
_LARGEST_LIST, _LARGEST_SIDE = 2**20, 65535


@dataclass(frozen=True)
class _Pixels:
    frames: FrameSource
    count: int
    size: tuple[int, int]
    fps: float
    remarks: dict[str, str]


@dataclass(frozen=True)
class ClipLabels:
    """One joint_positions.mat; T frames.

    Attributes:
        joints: (T, 15, 2) float64, pixels as in the file, so 1-based; 0 where absent.
        visible: (T, 15) ABSENT, OCCLUDED, VISIBLE.
        fps: 0 where unknown.
        remarks: what was mended, reason -> detail.
    """

    joints: NDArray[np.float64]
    visible: NDArray[np.uint8]
    fps: float
    remarks: dict[str, str]

    def __len__(self) -> int:
        return len(self.joints)


class JHMDB:
    """Reader of JHMDB's layout.

    Args:
        root: the folder that holds `splits` and `joint_positions`.
        split: number of the official split, 1 to 3.
        box_rule: "clip-box", one box around all labelled joints of the clip; "frame-box", one per frame; or "puppet-box", one
            per frame around the puppet mask (the joints' where there is none), whose size is the norm `bbox` then, too, as
            in the official measure.
        box_jitter: for "clip-box", how far each clip's box is moved and scaled, as a fraction of its size
            (`boxes.jitter_box`); a function of the clip's name and `seed`. Norms use the box before that.
            Padding is the crop's business.
        seed: of the jitter.
        val_fraction: share of the training sources that validates, where the lists name no validation clips.
        pixels: "images", "video", or "auto": images where all frames of the clip are there, else the video.
        splits_folder: "splits", or "sub_splits" for sub-JHMDB.
        name: first part of the index's name; default "jhmdb", "sub_jhmdb" where the lists are those, or "synthetic" for a set
            that bipose wrote.
        strict: end at the first damaged label file, mask or video; False leaves such clips out (a mask: takes the joints'
            box) and tells them in the index's `skipped`.

    Attributes:
        official: the split lists are the owners' own, not bipose's.

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.JHMDB
    layout: ClassVar[tuple[Entry, ...]] = (
        Entry("joint_positions/CLASS/CLIP/joint_positions.mat", "15 joints of a clip's frames"),
        Entry("splits/CLASS_test_split1.txt", "which clips train and test; splits 2 and 3 likewise"),
        Entry("sub_splits/CLASS_test_split_1.txt", "the same of sub-JHMDB", needed=False),
        Entry("Rename_Images/CLASS/CLIP/00001.png", "a clip's frames", needed=False),
        Entry("ReCompress_Videos/CLASS/CLIP.avi", "the same as a video", needed=False),
        Entry("puppet_mask/CLASS/CLIP/puppet_mask.mat", "the person's pixels in each frame", needed=False),
    )

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
        strict: bool = True,
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if pixels not in ("auto", "images", "video"):
            raise BiposeError(f"pixels {pixels!r} is none of auto, images, video")
        if split not in SPLITS:
            raise BiposeError(f"split {split} is none of 1, 2, 3")
        if not 0 <= val_fraction < 1 or not 0 <= box_jitter < 1:
            raise BiposeError(f"val_fraction {val_fraction} and box_jitter {box_jitter} must be at least 0 and below 1")
        if not self.root.is_dir():
            raise BiposeError(
                f"{self.root}: no such folder; make a set with 'bipose data make', or name where JHMDB lies"
            )
        for folder in (splits_folder, "joint_positions", *((puppet.FOLDER,) if box_rule == "puppet-box" else ())):
            if not (self.root / folder).is_dir():
                raise BiposeError(f"{self.root}: no folder {folder}; give the folder of JHMDB's official layout")
        self.split, self.box_rule, self.box_jitter, self.seed = split, box_rule, box_jitter, seed
        self.val_fraction, self.pixels, self.splits_folder = val_fraction, pixels, splits_folder
        self.official = not (self.root / MANIFEST).exists()
        listed = "sub_jhmdb" if splits_folder == "sub_splits" else "jhmdb"
        self.name, self.strict = name or (listed if self.official else "synthetic"), strict

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a damaged file (unless the reader is lenient), no lists for this split number, or an empty split.
        """
        wanted = self.members(split)
        skipped: dict[str, list[str]] = defaultdict(list)
        tracks = [track for action, clip in wanted if (track := self._track(action, clip, skipped))]
        if not tracks:
            where = f"{self.root / self.splits_folder}: split {self.split} has no {split} clips"
            if wanted:
                raise BiposeError(f"{where} that can be used{told(skipped)}")
            raise AbsentSplitError(f"{where}; {'raise val_fraction' if split == 'val' else 'check the split lists'}")
        files.check_uids(t.clip for t in tracks)
        name = f"{self.name}/split{self.split}/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped))

    def members(self, split: str) -> list[tuple[str, str]]:
        """(class, clip) of "train", "val" or "test", sorted.

        Raises:
            BiposeError: an unknown split, missing or damaged lists, or a clip that is listed twice.
        """
        if split not in _LISTED.values():
            raise BiposeError(f"split {split!r} is none of train, val, test")
        listed: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for member, mark in self._lists().items():
            listed[_LISTED.get(mark, "")].append(member)
        if not listed["val"]:
            held = files.hold_out(
                (files.source_title(clip, action) for action, clip in listed["train"]), self.val_fraction
            )
            pool = listed["train"]
            listed["train"] = [m for m in pool if files.source_title(m[1], m[0]) not in held]
            listed["val"] = [m for m in pool if files.source_title(m[1], m[0]) in held]
        return sorted(listed[split])

    def _lists(self) -> dict[tuple[str, str], int]:
        folder = self.root / self.splits_folder
        # JHMDB's lists end in split1.txt, those of sub-JHMDB in split_1.txt.
        known = re.compile(rf"(.+)_test_split_?{self.split}\.txt")
        found: dict[tuple[str, str], int] = {}
        lists = sorted(p for p in folder.iterdir() if known.fullmatch(p.name) and not p.name.startswith("."))
        if not lists:
            raise AbsentSplitError(f"{folder}: no CLASS_test_split{self.split}.txt; choose another split number")
        for path in lists:
            action = path.name[: path.name.rindex("_test_split")]
            try:
                lines = files.read_bytes(path, _LARGEST_LIST).decode("utf-8-sig").split("\n")
            except UnicodeDecodeError as error:
                raise BiposeError(f"{path}: is not UTF-8 text; copy or download it again") from error
            for number, line in enumerate(lines, 1):
                match line.split():
                    case []:
                        continue
                    case [file, ("0" | "1" | "2" | "3") as mark]:
                        member = action, file.removesuffix(".avi")
                    case _:
                        shown = line.strip()[:80]
                        raise BiposeError(f"{path}:{number}: expected 'CLIP.avi N' with N from 0 to 3, found {shown!r}")
                if not all(files.is_name(word) and not re.search(r"[/\\]|^\.\.?$", word) for word in member):
                    raise BiposeError(f"{path}:{number}: {member[1][:80]!r} cannot be a clip's name; mend the list")
                if member in found:
                    raise BiposeError(f"{path}:{number}: {member[1]} is listed twice; remove one of the lines")
                found[member] = int(mark)
        return found

    def _track(self, action: str, clip: str, skipped: dict[str, list[str]]) -> Track | None:
        name = f"{action}/{clip}"
        path = label_path(self.root, action, clip)
        if not path.exists():
            skipped["no joint positions"].append(name)
            return None
        try:
            labels = read_labels(path)
        except BiposeError as error:
            if self.strict:
                raise
            skipped["damaged label file"].append(f"{name} ({files.without_place(error, path)})")
            return None
        try:
            pixels = self._pixels(action, clip, len(labels))
        except BiposeError as error:
            if self.strict:
                raise
            skipped["damaged frames"].append(f"{name} ({error})")
            return None
        for reason, detail in (labels.remarks | pixels.remarks).items():
            skipped[reason].append(f"{name} ({detail})" if detail else name)
        count = min(len(labels), pixels.count)
        if not count:
            return None
        visible = labels.visible[:count]
        joints = np.where((visible != ABSENT)[..., None], labels.joints[:count] - 1, 0).astype(np.float32)
        whole = rules.clip_box(joints, visible)
        if not np.isfinite(whole).all():
            skipped["no labelled joint"].append(name)
            return None
        own = rules.frame_boxes(joints, visible)
        sizes = np.full(count, np.nan)
        if self.box_rule == "clip-box":
            box = rules.jitter_box(whole, name, self.box_jitter, self.seed)
            used = np.repeat(box[None].astype(np.float32), count, axis=0)
        else:
            if self.box_rule == "puppet-box":
                corners = self._puppet_corners(action, clip, len(labels), pixels.size, skipped)[:count]
                own, sizes = self._puppet_boxes(name, corners, own, skipped), corner_size(corners)
            used = rules.fill_boxes(own, whole)
        norms = rules.track_norms(joints, visible, self.skeleton, own, whole)
        bbox = NORMS.index("bbox")  # the official size counts where the box has no area as well
        norms[:, bbox] = np.where(np.isnan(sizes), norms[:, bbox], sizes)
        return Track(
            clip=name,
            cluster=files.source_title(clip, action),
            frames=pixels.frames,
            joints=joints,
            visible=visible,
            boxes=used,
            norms=norms,
            uid=files.make_uids(name, count),
            image_size=pixels.size,
            fps=labels.fps or pixels.fps,
            action=action,
        )

    def _puppet_corners(
        self, action: str, clip: str, labelled: int, size: tuple[int, int], skipped: dict[str, list[str]]
    ) -> NDArray[np.float64]:
        """(labelled, 4) corners of the masks, NaN where there is none."""
        name, path = f"{action}/{clip}", puppet.mask_path(self.root, action, clip)
        try:
            if path.exists():
                return puppet.clip_corners(path, labelled, size)
            skipped["no puppet mask, the joints' box used"].append(name)
        except BiposeError as error:
            if self.strict:
                raise
            skipped["damaged puppet mask, the joints' box used"].append(f"{name} ({files.without_place(error, path)})")
        return np.full((labelled, 4), np.nan)

    def _puppet_boxes(
        self, name: str, corners: NDArray[np.float64], tight: rules.Boxes, skipped: dict[str, list[str]]
    ) -> rules.Boxes:
        """The boxes around the masks, the joints' where there is none."""
        # Corners are pixel centres; the official measure takes x2 - x1 as the width.
        own = np.concatenate([corners[:, :2] + 0.5, corners[:, 2:] - corners[:, :2]], axis=1).astype(np.float32)
        bad = rules.without_area(own)
        if bad.any() and not np.isnan(corners).all():
            skipped["frames without puppet mask, the joints' box used"].append(f"{name} ({int(bad.sum())})")
        return np.where(bad[:, None], tight, own)

    def _pixels(self, action: str, clip: str, labelled: int) -> _Pixels:
        folder = self.root / "Rename_Images" / action / clip
        video = Path("ReCompress_Videos") / action / f"{clip}.avi"
        found = sorted(p.name for p in folder.glob("[!.]*.png")) if self.pixels != "video" else []
        paired = files.pair_frames(found, labelled) if found else files.Paired(())
        complete = len(paired.names) == labelled
        if found and (self.pixels == "images" or complete or not (self.root / video).exists()):
            remarks = {paired.reason: paired.detail} if paired.reason else {}
            size = _size(folder / found[0], image_size(folder / found[0]))
            names = tuple(f"Rename_Images/{action}/{clip}/{name}" for name in paired.names)
            return _Pixels(FolderFrames(self.root, names), len(names), size, _FPS, remarks)
        if self.pixels != "images" and (self.root / video).exists():
            info = probe_video(self.root / video)
            size, fps = _size(self.root / video, info.size), info.fps if 0 <= info.fps <= files.LARGEST else 0.0
            if not info.frames:
                raise BiposeError(f"{self.root / video}: holds no frame; copy or download the file again")
            remarks = {}
            if info.frames != labelled:
                remarks[files.UNLIKE] = f"{labelled} labels, {info.frames} frames"
            return _Pixels(VideoFrames(self.root, video.as_posix(), info.frames), info.frames, size, fps, remarks)
        # Labels without pixels: expect what the folder has of other clips, or the official names.
        if self.pixels == "video" or (self.pixels == "auto" and (self.root / video.parts[0]).is_dir()):
            return _Pixels(VideoFrames(self.root, video.as_posix(), labelled), labelled, _SIZE, _FPS, {})
        names = tuple(f"Rename_Images/{action}/{clip}/{t + 1:05d}.png" for t in range(labelled))
        return _Pixels(FolderFrames(self.root, names), labelled, _SIZE, _FPS, {})


def picture_size(root: Path, action: str, clip: str) -> tuple[int, int]:
    """Width and height of a clip's pictures, or else of its video; 320x240, as all official ones, where neither is there.

    Raises:
        BiposeError: damaged ones.
    """
    first = min((root / "Rename_Images" / action / clip).glob("[!.]*.png"), default=None)
    video = root / "ReCompress_Videos" / action / f"{clip}.avi"
    if first is not None:
        return _size(first, image_size(first))
    return _size(video, probe_video(video).size) if video.exists() else _SIZE


def _size(path: Path, size: tuple[int, int]) -> tuple[int, int]:
    if not all(1 <= side <= _LARGEST_SIDE for side in size):
        raise BiposeError(f"{path}: says that it has {size[0]}x{size[1]} pixels; copy or download the file again")
    return size


def label_path(root: Path, action: str, clip: str) -> Path:
    """Where a clip's labels lie."""
    return root / "joint_positions" / action / clip / "joint_positions.mat"


def read_labels(path: Path) -> ClipLabels:
    """One joint_positions.mat, its coordinates as they are (1-based).

    Raises:
        BiposeError: missing, damaged, or a variable is missing or of the wrong type, shape or range.
    """
    content = files.load_mat(path, ["pos_img"])
    remarks: dict[str, str] = {}
    position, K = files.numbers(path, content, "pos_img"), len(JHMDB.skeleton)
    if position.ndim == 2:  # MATLAB drops the last axis of a clip of one frame
        position = position[:, :, None]
    if position.ndim != 3 or position.shape[:2] != (2, K) or not position.shape[2]:
        raise BiposeError(f"{path}: pos_img has shape {position.shape}, expected (2, {K}, frames)")
    T = position.shape[2]
    files.make_uids(path.parent.name, T)  # ends too long clips before any work
    visible: NDArray[np.uint8] = np.full((T, K), VISIBLE, np.uint8)
    if "visible" in content:
        flags = files.numbers(path, content, "visible")
        if flags.shape != (K, T) or not np.isin(flags, (0, 1, 2)).all():
            raise BiposeError(f"{path}: visible must hold 0, 1 or 2 in shape ({K}, {T}); its shape is {flags.shape}")
        visible = flags.T.astype(np.uint8)
    joints, visible = files.drop_unusable(position.transpose(2, 1, 0), visible, remarks)
    return ClipLabels(joints, visible, files.frame_rate(path, content, remarks), remarks)
