"""MPII Human Pose with the frames around each picture: clips of which only the middle frame is labelled.

Tree, beside what `mpii.MPII` reads:
    mpii_human_pose_v1_sequences_batchN/STEM/NNNNNNNN.jpg    frames around images/STEM.jpg, 25 batches, up to 41 frames each
    mpii_human_pose_v1_sequences_keyframes.mat               which of them is the picture

Labels, splits, boxes and head sizes are those of `MPII`; the other frames have no label (all joints absent) and the middle
frame's box. From the owners' page and published readers of the release, and not tried on the release itself: the folder and
frame names, that numbers count consecutive frames of the video, and that frames have the picture's size and scale. The last
is checked where both are on this disk: a picture whose key frame has another size is left out and counted.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from bipose_lit import skeletons
from bipose_lit.datasets.frames import FolderFrames, image_size
from bipose_lit.datasets.index import Entry, PoseIndex, Track
from bipose_lit.datasets.labels import make_uids
from bipose_lit.datasets.mpii import MPII
from bipose_lit.datasets.mpii_files import Skipped
from bipose_lit.datasets.mpii_release import KEYFRAMES, read_keyframes
from bipose_lit.types import NORMS, AbsentSplitError, BiposeError

BATCHES: Final = "mpii_human_pose_v1_sequences_batch"
MOST_NEIGHBOURS: Final = 500

_FRAME: Final = re.compile(r"(\d{1,12})\.(jpg|jpeg|png)", re.ASCII | re.IGNORECASE)


class MPIISequences:
    """Reader of MPII's pictures as the middle of short clips.

    The middle frame has the uid that the picture has for `MPII` with the same arguments, so that predictions of clips and of
    single pictures can be compared by uid. It shows the key frame, not the file in `images`.

    Args:
        root: the folder of the tree above.
        neighbours: frames before and after the labelled one, as far as they are there: clips of up to 2 x neighbours + 1.
        annotations: as `MPII`, likewise the rest.
        box_rule: "gt-box" or "frame-box", of the labelled frame.
        val_fraction: share of the training pictures that validates.
        single: of the owners' file, take only persons who stand apart; see `MPII`.
        strict: see `MPII`.
        name: first part of the index's name.

    Attributes:
        official: see `MPII`.

    Raises:
        BiposeError: as `MPII`; no batch of frames or no key frames.
    """

    skeleton = skeletons.MPII
    layout: ClassVar[tuple[Entry, ...]] = (
        Entry(f"{BATCHES}N/STEM/NNNNNNNN.jpg", "frames around the picture STEM.jpg"),
        Entry(KEYFRAMES, "which frame is the picture"),
        *(replace(entry, needed=False) for entry in MPII.layout),
    )

    def __init__(
        self,
        root: str | Path,
        neighbours: int = 2,
        annotations: str = "auto",
        box_rule: str = "gt-box",
        val_fraction: float = 0.1,
        single: bool = False,
        strict: bool = True,
        name: str = "mpii_sequences",
    ) -> None:
        if not 0 <= neighbours <= MOST_NEIGHBOURS:
            raise BiposeError(f"neighbours {neighbours} must be from 0 to {MOST_NEIGHBOURS}")
        self.stills = MPII(root, annotations, box_rule, val_fraction, single, strict, name)
        self.root, self.neighbours, self.official = self.stills.root, neighbours, self.stills.official
        if not self.batches:
            raise BiposeError(f"{self.root}: no folder {BATCHES}1 or its like; unpack the frames there")

    @property
    def batches(self) -> list[Path]:
        """The folders of frames that are there, sorted."""
        return sorted(path for path in self.root.glob(f"{BATCHES}*") if path.is_dir())

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            BiposeError: as `MPII.index`; a damaged list of key frames, or no frames for any picture of the split.
        """
        stills = self.stills.index(split)
        skipped: Skipped = {
            reason: list(where) for reason, where in stills.skipped.items() if not reason.startswith("pictures that")
        }
        tracks = [clip for track in stills.tracks if (clip := self._clip(track, skipped))]
        if not tracks:
            why = "; ".join(f"{reason}: {len(where)}" for reason, where in skipped.items())
            kind = (
                AbsentSplitError
                if len(skipped.get("pictures without frames", ())) == len(stills.tracks)
                else BiposeError
            )
            raise kind(f"{self.root}: no frames around the pictures of {split} ({why}); unpack more batches")
        return replace(stills, tracks=tuple(tracks), skipped=skipped)

    @cached_property
    def _keys(self) -> dict[str, str]:
        return read_keyframes(self.root / KEYFRAMES)

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """The folder of each picture's frames, by the picture's stem."""
        found: dict[str, Path] = {}
        for batch in self.batches:
            with os.scandir(batch) as entries:
                for entry in entries:
                    if entry.is_dir():
                        found.setdefault(entry.name, Path(entry.path))
        return found

    def _clip(self, still: Track, skipped: Skipped) -> Track | None:
        def leave_out(reason: str) -> None:
            skipped.setdefault(reason, []).append(still.clip)

        assert isinstance(still.frames, FolderFrames)
        stem = Path(still.frames.names[0]).stem
        key, folder = self._keys.get(stem), self._folders.get(stem)
        if key is None or folder is None:
            leave_out("pictures without key frame" if key is None else "pictures without frames")
            return None
        numbered = {int(m[1]): m[0] for m in map(_FRAME.fullmatch, sorted(os.listdir(folder))) if m}
        middle = int(key.partition(".")[0])
        if numbered.get(middle) != key:
            leave_out("pictures whose key frame is missing")
            return None
        first, last = middle, middle
        while first - 1 in numbered and middle - first < self.neighbours:
            first -= 1
        while last + 1 in numbered and last - middle < self.neighbours:
            last += 1
        names = tuple((folder / numbered[n]).relative_to(self.root).as_posix() for n in range(first, last + 1))
        try:
            size = image_size(folder / key)
        except BiposeError:
            leave_out("pictures whose key frame cannot be read")
            return None
        if still.image_size not in ((0, 0), size):
            leave_out("pictures whose key frame has another size")
            return None
        if len(names) < 2 * self.neighbours + 1:
            skipped.setdefault("fewer frames around the picture, shorter clip", []).append(
                f"{still.clip} ({len(names)})"
            )
        return _around(still, FolderFrames(self.root, names), middle - first, size)


def _around(still: Track, frames: FolderFrames, at: int, size: tuple[int, int]) -> Track:
    """The clip in which frame `at` has the still's labels and no other has any."""
    T = len(frames)
    joints, visible = (np.zeros((T, *array.shape[1:]), array.dtype) for array in (still.joints, still.visible))
    norms = np.full((T, len(NORMS)), np.nan, np.float32)
    norms[:, NORMS.index("clip")] = still.norms[0, NORMS.index("clip")]
    joints[at], visible[at], norms[at] = still.joints[0], still.visible[0], still.norms[0]
    ids = make_uids(still.clip, T)  # the first is the still's own
    return replace(
        still,
        frames=frames,
        joints=joints,
        visible=visible,
        boxes=np.repeat(still.boxes, T, axis=0),
        norms=norms,
        uid=np.concatenate([ids[1 : at + 1], ids[:1], ids[at + 1 :]]),
        image_size=size,
    )
