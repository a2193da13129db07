"""MPII Human Pose (Andriluka et al. 2014): 16 joints of persons in single pictures.

Tree:
    images/NNNNNNNNN.jpg
    annot/{train,valid}.json, annot/gt_valid.mat    HRNet's and SimpleBaselines' lists, and the evaluation's labels
    or annot/{train,valid}.h5                       Newell's lists
    or mpii_human_pose_v1_u12_1.mat                 the owners' own labels

Labels are 1-based pixels; tracks have them 0-based. Joints of the json lists are labelled or not; the other two kinds also tell
hidden joints (OCCLUDED). Files are described in `mpii_files`, `mpii_truth` and `mpii_release`.

Splits. The owners withhold the labels of their test pictures, so published numbers are those of 2,958 validation persons: these
are "test" here, and "val" is a share of the training pictures. A set whose annot/test.json has labels (or that bipose wrote)
is split as its lists say: train, valid, test. "val" is held out by runs of neighbours in a json or h5 list, by video in the
owners' file; see `mpii_splits`. The training pictures of the owners' file hold those of the published list: where one lies
beside it, all pictures of their videos are left out of train and val; where none does, `PoseIndex.skipped` says so.

Boxes. "gt-box" is such that padding 1.25 gives the reference crop of SimpleBaselines, HRNet and Newell: a square of
1.25 x 200 x scale pixels around objpos moved down by 15 x scale. Their warp puts that centre on crop pixel (W / 2, H / 2),
ours on the middle of the crop, half a crop pixel beside it.

Head sizes come from gt_LIST.mat, the h5's `normalize` or the owners' head box. Where there is none (no gt_train.mat is
published) 0.75 x the distance from upper neck to head top is taken and told: the owners put these two joints on the head box's
diagonal, 0.8 of it apart, and on the validation list the two sizes agree within 3.3 % for all but 7 of the 2,932 persons with
both joints, and to 1e-6 for most (gt_valid.mat has a coordinate of 0 for the five worst). As soon as one person of an index
has such a head size, its measure is named pckh@0.5[estimated_head], not pckh@0.5.
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
from bipose_lit.datasets.json_labels import told
from bipose_lit.datasets.labels import check_uids, hold_out, make_uids
from bipose_lit.datasets.mpii_files import Floats, People, Skipped, read_h5, read_json, usable_head
from bipose_lit.datasets.mpii_release import find_release, read_release
from bipose_lit.datasets.mpii_splits import has_labels, listed_pictures, of_listed_videos, published_lists, sources
from bipose_lit.datasets.mpii_truth import find_rows, read_evaluated, truths_beside
from bipose_lit.metrics.pckh import MpiiScoring
from bipose_lit.types import ABSENT, NORMS, AbsentSplitError, BiposeError

BOX_RULES = ("gt-box", "frame-box")
KINDS = ("auto", "json", "h5", "mat")
NECK_FACTOR = 0.75
"""Head size over the distance from upper neck to head top."""

NECK_NOTE = "head sizes from neck to head top, no head box known: the measure is named estimated_head"
_LIST = "published validation list"

Split = tuple[People, str, NDArray[np.bool_], Skipped]
"""Persons of the file that holds a split, the file's name for ids, which of them are the split's, what is to be told."""


class MPII:
    """Reader of MPII Human Pose.

    Args:
        root: the folder that holds `images` and `annot` (labels alone can be indexed; reading pixels then fails and names the
            missing file). The lists may also lie in it directly.
        annotations: "json", "h5", "mat", or "auto": the first of them that is there. Or the name of one .json or .h5 list in
            the folder, which then is the split "test".
        box_rule: "gt-box", see the module; or "frame-box", tight around the labelled joints.
        val_fraction: share of the training pictures (videos, in the owners' file) that validates.
        single: of the owners' file, take only persons who stand apart from others; the index's name then says single. The lists
            do not tell who does.
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
        if single and self.kind != "mat":
            raise BiposeError(
                f"single: only the owners' file tells who stands apart, and {self.root} is read by its "
                f"{'list' if self.kind == 'file' else f'{self.kind} lists'}; set single false, or annotations mat"
            )
        self._known: dict[Path, People] = {}

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: a missing or damaged label file, an unknown or an empty split.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        people, listed, chosen, notes = self._people(split)
        skipped: Skipped = defaultdict(list, {reason: list(where) for reason, where in people.skipped.items()} | notes)
        clips = [f"{listed}/{image}/{n}" for image, n in zip(people.image, people.person, strict=True)]
        head, guessed = self._heads(people, clips, chosen, skipped)
        tracks = self._tracks(people, clips, chosen, head, skipped)
        if not tracks:
            hint = "raise val_fraction" if split == "val" else "check the label files"
            kind = BiposeError if chosen.any() else AbsentSplitError
            raise kind(f"{self.root}: no {split} persons; {hint}{told(skipped)}")
        check_uids(t.clip for t in tracks)
        name = f"{self.name}{'/single' if self.single else ''}/{split}[{self.box_rule}]"
        scoring = MpiiScoring(estimated_head=bool(guessed.any()))
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(tracks), dict(skipped), scoring)

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

    def _people(self, split: str) -> Split:
        if self.kind == "mat":
            return self._of_release(split)
        if self.kind == "file":
            path = self.root / self.annotations
            if split != "test":
                raise AbsentSplitError(f"{path}: one list of persons is the split test; there is no {split}")
            people = self._read(path)
            return people, path.stem, np.ones(len(people), bool), {}
        test = self.folder / "test.json"
        own_lists = self.kind == "json" and test.is_file() and (not self.official or has_labels(test))
        listed = {"train": "train", "val": "valid", "test": "test"} if own_lists else {"test": "valid"}
        path = self.folder / f"{listed.get(split, 'train')}.{self.kind}"
        if not path.is_file():
            hint = (
                ", or of the owners' file with annotations mat" if split != "test" and find_release(self.root) else ""
            )
            raise AbsentSplitError(f"{path}: no such list of persons; the split {split} is made from it{hint}")
        people = self._read(path)
        everyone = np.ones(len(people), bool)
        return people, path.stem, everyone if split in listed else self._share(people, everyone, split), {}

    def _of_release(self, split: str) -> Split:
        path = find_release(self.root)
        if path is None:
            raise BiposeError(f"{self.root}: the owners' label file is gone; put it back")
        if split == "test":
            raise AbsentSplitError(
                f"{path}: the owners withhold the test labels; score the split val, or make a reader of the published validation "
                "list (annotations json or h5), which shares its pictures with this file"
            )
        people = self._read(path)
        lists = published_lists((self.folder, self.root, path.parent))
        names = ", ".join(beside.name for beside in lists)
        left, notes = np.ones(len(people), bool), {}
        if not lists:
            notes[
                f"{_LIST} is not here, so its pictures are in train and val: scoring it after training on this file leaks"
            ] = [f"{path.name}; put valid.json, valid.h5 or valid_images.txt beside it to leave them out"]
        else:
            own, theirs = of_listed_videos(people, frozenset().union(*map(listed_pictures, lists)))
            left = ~theirs
            images, others = (len({people.image[i] for i in np.flatnonzero(m)}) for m in (own, theirs & ~own))
            reason = f"{_LIST}: its pictures and others of their videos, left out of train and val"
            if not images:
                reason = f"{_LIST} shares no picture with the owners' file; is it MPII's?"
            notes[reason] = [f"{names} ({images} pictures, {others} more of their videos)"]
        if not left.any():
            raise BiposeError(f"{path}: all its pictures are of videos of {_LIST} ({names}); check both")
        return people, "release", self._share(people, left, split), notes

    def _share(self, people: People, left: NDArray[np.bool_], split: str) -> NDArray[np.bool_]:
        """(N,) who of those that are left is in train, or in val."""
        found = sources(people)
        held = hold_out((found[i] for i in np.flatnonzero(left)), self.val_fraction)
        return np.asarray(left & np.array([(source in held) == (split == "val") for source in found]))

    def _read(self, path: Path) -> People:
        """A file's persons with what is known of their heads; parsed once."""
        if path not in self._known:
            if path.suffix == ".mat":
                self._known[path] = read_release(path, self.single)
            else:
                self._known[path] = read_h5(path) if path.suffix == ".h5" else self._with_heads(path, read_json(path))
        return self._known[path]

    def _with_heads(self, path: Path, people: People) -> People:
        skipped: Skipped = {reason: list(where) for reason, where in people.skipped.items()}
        head = np.full(len(people), np.nan)
        for source in truths_beside(path, exact=self.kind != "file"):
            try:
                truth = read_evaluated(source)
            except BiposeError as error:
                if self.strict:
                    raise
                skipped.setdefault("head boxes that cannot be read", []).append(str(error))
                continue
            rows = find_rows(people, truth)
            head = np.where(np.isnan(head) & (rows >= 0), truth.head[rows], head)
            lost = int(np.isnan(head).sum())
            if lost and self.kind != "file":
                skipped.setdefault("persons of other joints than in the list of head boxes, or without box", []).append(
                    f"{source.name} ({lost})"
                )
        return replace(people, head=head, skipped=skipped)

    def _tracks(
        self, people: People, clips: list[str], chosen: NDArray[np.bool_], head: Floats, skipped: Skipped
    ) -> list[Track]:
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
        norms[:, column["head"]] = head
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

    def _heads(
        self, people: People, clips: list[str], chosen: NDArray[np.bool_], skipped: Skipped
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """(N,) head sizes, and whether a chosen person's is estimated."""
        neck, top = (self.skeleton.index(name) for name in ("upper_neck", "head_top"))
        both = (people.visible[:, [neck, top]] != ABSENT).all(axis=1)
        length = np.linalg.norm(people.joints[:, top] - people.joints[:, neck], axis=-1)
        estimate = usable_head(np.where(both, NECK_FACTOR * length, np.nan))
        guessed = np.isnan(people.head) & np.isfinite(estimate) & chosen
        if guessed.any():
            skipped[NECK_NOTE].append(f"{int(guessed.sum())} of {int(chosen.sum())} persons")
        head = np.where(guessed, estimate, people.head)
        skipped_heads = [clips[i] for i in np.flatnonzero(np.isnan(head) & chosen)]
        if skipped_heads:
            skipped["head size unknown, not in PCKh"] += skipped_heads
        return head, guessed

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
