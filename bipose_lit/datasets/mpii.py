"""MPII Human Pose (Andriluka et al. 2014): 16 joints of persons in single pictures.

Tree:
    images/NNNNNNNNN.jpg
    annot/{train,valid}.json, annot/gt_valid.mat    HRNet's and SimpleBaselines' lists, and the evaluation's labels
    or annot/{train,valid}.h5                       Newell's lists
    or mpii_human_pose_v1_u12_1.mat                 the owners' own labels

Labels are 1-based pixels; tracks have them 0-based. Joints of the json lists are labelled or not; the other two kinds also tell
hidden joints (OCCLUDED). Files are described in `mpii_files` and `mpii_release`.

Splits. The owners withhold the labels of their test pictures, so published numbers are those of 2,958 validation persons: these
are "test" here, and "val" is a share of the training pictures. A set whose annot/test.json has labels (bipose's synthetic one)
is split as its lists say: train, valid, test. Pictures of one video may end up on both sides of a json or h5 list's share,
as these name no videos; the owners' file does and is shared out by video.

Boxes. "gt-box" is such that padding 1.25 gives the reference crop of SimpleBaselines, HRNet and Newell: a square of
1.25 x 200 x scale pixels around objpos moved down by 15 x scale. Their warp puts that centre on crop pixel (W / 2, H / 2),
ours on the middle of the crop, half a crop pixel beside it.

Head sizes come from gt_LIST.mat, the h5's `normalize` or the owners' head box. Where there is none (no gt_train.mat is
published) 0.75 x the distance from upper neck to head top is taken and told: the owners put these two joints on the head box's
diagonal, 0.8 of it apart, and on the validation list the two sizes agree within 3.3 % for all but 7 of the 2,932 persons with
both joints, and to 1e-6 for most (gt_valid.mat has a coordinate of 0 for the five worst).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from bipose_lit import skeletons
from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.frames import FolderFrames, image_size
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.jhmdb import MANIFEST
from bipose_lit.datasets.labels import check_uids, hold_out, make_uids
from bipose_lit.datasets.mpii_files import (
    Evaluated,
    Floats,
    People,
    Skipped,
    read_bytes,
    read_evaluated,
    read_h5,
    read_json,
    usable_head,
)
from bipose_lit.datasets.mpii_release import find_release, read_release
from bipose_lit.metrics.pckh import MpiiScoring
from bipose_lit.types import ABSENT, NORMS, BiposeError

BOX_RULES = ("gt-box", "frame-box")
KINDS = ("auto", "json", "h5", "mat")
NECK_FACTOR = 0.75
"""Head size over the distance from upper neck to head top."""

NECK_NOTE = "head sizes from neck to head top, no head box known"
_SAME = 0.1  # pixels between the places of one joint in two files; json lists are rounded to 4 decimals
_SEARCHED = 2000  # persons that are looked for in a gt_*.mat of another length


class MPII:
    """Reader of MPII Human Pose.

    Args:
        root: the folder that holds `images` and `annot` (labels alone can be indexed; reading pixels then fails and names the
            missing file). The lists may also lie in it directly.
        annotations: "json", "h5", "mat", or "auto": the first of them that is there. Or the name of one .json or .h5 list in
            the folder, which then is the split "test".
        box_rule: "gt-box", see the module; or "frame-box", tight around the labelled joints.
        val_fraction: share of the training pictures (videos, in the owners' file) that validates.
        single: of the owners' file, take only persons who stand apart from others.
        strict: False leaves out a damaged gt_*.mat, whose head sizes are then unknown.
        name: first part of the index's name; default "mpii", or "synthetic" for a set that bipose wrote.

    Attributes:
        folder: where the lists lie.
        kind: "json", "h5", "mat", or "file".
        official: the set is not bipose's own.

    Raises:
        BiposeError: the folder is not in this layout, or an argument is out of range.
    """

    skeleton = skeletons.MPII
    layout: ClassVar[tuple[Entry, ...]] = (
        Entry("images/NNNNNNNNN.jpg", "pictures"),
        Entry("annot/LIST.json", "train, valid: persons with centre, scale and joints (HRNet's lists)", needed=False),
        Entry("annot/gt_valid.mat", "labels and head boxes that the evaluation uses", needed=False),
        Entry("annot/LIST.h5", "or Newell's lists", needed=False),
        Entry("mpii_human_pose_v1_u12_1.mat", "or the owners' own labels", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        annotations: str = "auto",
        box_rule: str = "gt-box",
        val_fraction: float = 0.1,
        single: bool = False,
        strict: bool = True,
        name: str = "",
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if not 0 <= val_fraction < 1:
            raise BiposeError(f"val_fraction {val_fraction} must be at least 0 and below 1")
        if not self.root.is_dir():
            raise BiposeError(f"{self.root}: no such folder; name where MPII lies")
        self.folder = self.root / "annot" if (self.root / "annot").is_dir() else self.root
        self.box_rule, self.val_fraction, self.single = box_rule, val_fraction, single
        self.strict, self.annotations = strict, annotations
        self.official = not any((folder / MANIFEST).exists() for folder in (self.root, self.root.parent))
        self.name = name or ("mpii" if self.official else "synthetic")
        self.kind = self._kind()

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a missing or damaged label file, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        people, listed, chosen = self._people(split)
        skipped: Skipped = defaultdict(list, {reason: list(where) for reason, where in people.skipped.items()})
        clips = [f"{listed}/{image}/{n}" for image, n in zip(people.image, people.person, strict=True)]
        tracks = self._tracks(people, clips, chosen, skipped)
        if not tracks:
            hint = "raise val_fraction" if split == "val" else "check the label files"
            raise BiposeError(f"{self.root}: no {split} persons; {hint}")
        check_uids(t.clip for t in tracks)
        name = f"{self.name}/{split}[{self.box_rule}]"
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped), MpiiScoring())

    def _kind(self) -> str:
        if self.annotations not in KINDS:
            if Path(self.annotations).suffix not in (".json", ".h5"):
                raise BiposeError(
                    f"annotations {self.annotations!r} is none of {', '.join(KINDS)}, nor a .json or .h5 list"
                )
            if not (self.root / self.annotations).is_file():
                raise BiposeError(f"{self.root / self.annotations}: no such list of persons")
            return "file"
        there = [
            kind
            for kind in ("json", "h5")
            if any((self.folder / f"{list_}.{kind}").is_file() for list_ in ("train", "valid"))
        ]
        if find_release(self.root):
            there.append("mat")
        wanted = there[:1] if self.annotations == "auto" else [k for k in there if k == self.annotations]
        if not wanted:
            missing = {
                "auto": "annot/valid.json, annot/valid.h5 or mpii_human_pose_v1_u12_1.mat",
                "mat": "mpii_human_pose_v1_u12_1.mat",
            }.get(self.annotations, f"annot/train.{self.annotations} or annot/valid.{self.annotations}")
            raise BiposeError(f"{self.root}: no {missing}; give the folder of MPII's labels")
        return wanted[0]

    def _people(self, split: str) -> tuple[People, str, NDArray[np.bool_]]:
        """The persons of the file that holds a split, the file's name for ids, and which of them are the split's."""
        if self.kind == "mat":
            return self._of_release(split)
        if self.kind == "file":
            path = self.root / self.annotations
            if split != "test":
                raise BiposeError(f"{path}: one list of persons is the split test; there is no {split}")
            people = self._read(path)
            return people, path.stem, np.ones(len(people), bool)
        own_lists = self.kind == "json" and self._labelled(self.folder / "test.json")
        listed = {"train": "train", "val": "valid", "test": "test"} if own_lists else {"test": "valid"}
        path = self.folder / f"{listed.get(split, 'train')}.{self.kind}"
        if not path.is_file():
            raise BiposeError(f"{path}: no such list of persons; the split {split} is made from it")
        people = self._read(path)
        if split in listed:
            return people, path.stem, np.ones(len(people), bool)
        return people, path.stem, self._share(people, split)

    def _of_release(self, split: str) -> tuple[People, str, NDArray[np.bool_]]:
        path = find_release(self.root)
        if path is None:
            raise BiposeError(f"{self.root}: the owners' label file is gone; put it back")
        if split == "test":
            raise BiposeError(
                f"{path}: the owners withhold the test labels; put the published validation list, annot/valid.json or "
                "annot/valid.h5, beside it and choose annotations json or h5, or score the split val"
            )
        people = read_release(path, self.single)
        return people, "release", self._share(people, split)

    def _share(self, people: People, split: str) -> NDArray[np.bool_]:
        sources = [cluster or image for cluster, image in zip(people.cluster, people.image, strict=True)]
        held = hold_out(sources, self.val_fraction)
        return np.array([(source in held) == (split == "val") for source in sources])

    def _labelled(self, path: Path) -> bool:
        return path.is_file() and b'"joints"' in read_bytes(path)

    def _read(self, path: Path) -> People:
        if path.suffix == ".h5":
            return read_h5(path)
        people = read_json(path)
        skipped: Skipped = {reason: list(where) for reason, where in people.skipped.items()}
        found = [path.with_name(f"gt_{path.stem}.mat")]
        if self.kind == "file" and not found[0].is_file():
            found = sorted(path.parent.glob("gt_*.mat"))
        head = np.full(len(people), np.nan)
        for source in found:
            if not source.is_file():
                continue
            try:
                truth = read_evaluated(source)
            except BiposeError as error:
                if self.strict:
                    raise
                skipped.setdefault("head boxes that cannot be read", []).append(str(error))
                continue
            known = np.isfinite(head)
            head = np.where(known, head, _match(people, truth))
            lost = int(np.isnan(head).sum())
            if lost and self.kind != "file":
                skipped.setdefault("persons of other joints than in the list of head boxes, or without box", []).append(
                    f"{source.name} ({lost})"
                )
        return replace(people, head=head, skipped=skipped)

    def _tracks(self, people: People, clips: list[str], chosen: NDArray[np.bool_], skipped: Skipped) -> list[Track]:
        joints = np.where((people.visible != ABSENT)[..., None], people.joints - 1, 0).astype(np.float32)
        tight = rules.frame_boxes(joints, people.visible)
        boxes = tight
        if self.box_rule == "gt-box":
            boxes = _reference_boxes(people)
            lost = chosen & np.isnan(boxes).any(axis=1) & np.isfinite(tight).all(axis=1)
            skipped_boxes = [clips[i] for i in np.flatnonzero(lost)]
            if skipped_boxes:
                skipped["no centre or scale, the joints' box used"] += skipped_boxes
            boxes = np.where(lost[:, None], tight, boxes)
        norms = rules.track_norms(joints, people.visible, self.skeleton, tight, np.zeros(4))
        column = {name: i for i, name in enumerate(NORMS)}
        norms[:, column["clip"]] = norms[:, column["bbox"]]
        norms[:, column["head"]] = self._heads(people, clips, chosen, skipped)
        sizes = self._sizes(people, chosen, skipped)
        tracks = []
        for i in np.flatnonzero(chosen):
            if not (people.visible[i] != ABSENT).any():
                skipped["no labelled joint"].append(clips[i])
                continue
            image = people.image[i]
            tracks.append(
                Track(
                    clip=clips[i],
                    cluster=people.cluster[i] or image,
                    frames=FolderFrames(self.root, (f"images/{image}",)),
                    joints=joints[i : i + 1],
                    visible=people.visible[i : i + 1],
                    boxes=boxes[i : i + 1],
                    norms=norms[i : i + 1],
                    uid=make_uids(clips[i], 1),
                    image_size=sizes[image],
                )
            )
        return tracks

    def _heads(self, people: People, clips: list[str], chosen: NDArray[np.bool_], skipped: Skipped) -> Floats:
        neck, top = (self.skeleton.index(name) for name in ("upper_neck", "head_top"))
        both = (people.visible[:, [neck, top]] != ABSENT).all(axis=1)
        length = np.linalg.norm(people.joints[:, top] - people.joints[:, neck], axis=-1)
        estimate = usable_head(np.where(both, NECK_FACTOR * length, np.nan))
        guessed = np.isnan(people.head) & np.isfinite(estimate)
        if (guessed & chosen).any():
            skipped[NECK_NOTE].append(f"{int((guessed & chosen).sum())} of {int(chosen.sum())} persons")
        head = np.where(guessed, estimate, people.head)
        skipped_heads = [clips[i] for i in np.flatnonzero(np.isnan(head) & chosen)]
        if skipped_heads:
            skipped["head size unknown, not in PCKh"] += skipped_heads
        return head

    def _sizes(self, people: People, chosen: NDArray[np.bool_], skipped: Skipped) -> dict[str, tuple[int, int]]:
        """Width and height of the pictures, (0, 0) where one is not on this disk or cannot be read."""
        sizes: dict[str, tuple[int, int]] = {}
        wanted = dict.fromkeys(people.image[i] for i in np.flatnonzero(chosen))
        for image in wanted:
            path = self.root / "images" / image
            sizes[image] = (0, 0)
            if path.is_file():
                try:
                    sizes[image] = image_size(path)
                except BiposeError as error:
                    skipped["pictures that cannot be read, kept without their size"].append(str(error))
            else:
                skipped["pictures that are not on this disk, kept without their size"].append(image)
        return sizes


def _reference_boxes(people: People) -> NDArray[np.float32]:
    """(N, 4) squares of 200 x scale pixels around objpos moved down by 15 x scale; NaN where these are unknown."""
    side = 200 * people.scale
    low = people.centre - 0.5 - side[:, None] / 2  # 1-based centres, edges of 0-based pixels: minus 1, plus a half
    low[:, 1] += 15 * people.scale
    return np.concatenate([low, side[:, None], side[:, None]], axis=1).astype(np.float32)


def _match(people: People, truth: Evaluated) -> Floats:
    """(N,) head sizes of the persons who have the same joints in `truth`: in the same row, else in any; else NaN."""
    found = np.full(len(people), np.nan)
    missing = people.visible == ABSENT
    inside = np.flatnonzero(people.row < len(truth))
    rows = people.row[inside]
    same = _agree(people.joints[inside], missing[inside], truth.joints[rows], truth.missing[rows])
    found[inside[same]] = truth.head[rows[same]]
    lost = np.setdiff1d(np.arange(len(people)), inside[same])
    for i in lost[:_SEARCHED]:
        hits = np.flatnonzero(_agree(people.joints[i], missing[i], truth.joints, truth.missing))
        if len(hits) == 1:
            found[i] = truth.head[hits[0]]
    return found


def _agree(a: Floats, a_missing: NDArray[np.bool_], b: Floats, b_missing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    near = (np.abs(a - b) <= _SAME).all(axis=-1)
    return np.asarray(((a_missing == b_missing) & (near | a_missing)).all(axis=-1))
