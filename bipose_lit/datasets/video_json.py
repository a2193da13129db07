"""Your own persons in videos or images, in one JSON per split: COCO's layout with fields for time.

Tree:
    annotations_{train,val,test}.json
    frames/... or videos/...             wherever `file_name` points to, relative to the root

Example, two frames of one person in a folder of images:

    {"images": [
       {"id": 1, "file_name": "frames/walk/0000.jpg", "width": 640, "height": 480, "video_id": "walk", "frame_id": 0},
       {"id": 2, "file_name": "frames/walk/0001.jpg", "width": 640, "height": 480, "video_id": "walk", "frame_id": 1}],
     "annotations": [
       {"id": 10, "image_id": 1, "track_id": 0, "keypoints": [310, 92.5, 2, 0, 0, 0, ...], "bbox": [280, 60, 90, 260]},
       {"id": 11, "image_id": 2, "track_id": 0, "keypoints": [312, 92.0, 2, 0, 0, 0, ...], "bbox": [282, 60, 90, 260]}],
     "categories": [{"id": 1, "name": "person", "keypoints": ["head", "left_hand", ...]}]}

images: `id` is a whole number; `video_id` (a number or a name) and `frame_id` (a whole number) say when; an image without
`video_id` is a still. Optional: `fps`, and `cluster`, the independent source (a recording, a subject) that splits and confidence
intervals go by; without it that is the still's file, the video's file, or what the names of the video's frames have in common
before their numbers (frames/walk), where no other video has it; else the `video_id`, which must then not begin anew in another
split's file. For labels on video files leave `file_name` out and add
{"videos": [{"id": "walk", "file_name": "videos/walk.mp4"}]}: `frame_id` is then the position in that video, from 0.

annotations: `id` is a whole number, once in all splits. `keypoints` holds x, y, v of every joint of the skeleton, in its order:
pixels from 0, a pixel's centre at its number; v is 0 not labelled, 1 hidden, 2 seen. `bbox` is x, y, w, h between edges of
pixels: 0, 0, 640, 480 is a whole image of that size; without it the box around the labelled joints is used. Persons with
`iscrowd` 1 are left out. `area` (without it 0.53 of the box), `num_keypoints` and `category_id` are optional.

A track is what one (video_id, track_id) has in consecutive frames; a gap ends it, and another begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bipose_lit.datasets import boxes as rules
from bipose_lit.datasets.coco_json import NO_AREA, CocoFile, differing, read_coco
from bipose_lit.datasets.frames import FolderFrames, Image, VideoFrames, VideoInfo, probe_video
from bipose_lit.datasets.index import Entry, FrameSource, PoseIndex, Track
from bipose_lit.datasets.json_labels import Skipped, in_file, told
from bipose_lit.datasets.labels import hold_out
from bipose_lit.datasets.video_rows import Row, clip_name, sources, state_of, tell_steps
from bipose_lit.skeletons import find_skeleton
from bipose_lit.types import ABSENT, NORMS, AbsentSplitError, BiposeError

BOX_RULES = ("gt-box", "clip-box", "frame-box")
MAX_VIDEO_BYTES = 2 * 2**30
"""Decoded size of the longest video that is read: a process keeps the one that it reads whole."""


@dataclass(frozen=True)
class VideoPiece:
    """Frames start, start + step, ... of a video file, as a track's pixels.

    Attributes:
        video: the whole file.
        start: position of the track's first frame.
        step: between neighbouring frames of the track.
        count: frames of the track.
    """

    video: VideoFrames
    start: int
    step: int
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, frames: Sequence[int]) -> list[Image]:
        """RGB images (H, W, 3), read-only. BiposeError as `VideoFrames.read`."""
        return self.video.read([self.start + self.step * frame for frame in frames])

    def fingerprint(self) -> str:
        """Of the file, with the piece's place in it."""
        return f"{self.video.fingerprint()}:{self.start}:{self.step}"


@dataclass(frozen=True)
class _Read:
    """A label file as far as both splits that are made of it need it; `state` is that of the file."""

    state: tuple[Path, int, int]
    file: CocoFile
    pieces: tuple[list[Row], ...]
    skipped: Skipped


class VideoJSON:
    """Reader of one's own labels (see the module for the format).

    Args:
        root: the folder that file names are relative to.
        skeleton: a name ("coco", ...) or a YAML file (`skeletons.load_skeleton`), relative to root or to where one is.
        box_rule: "gt-box", each frame's `bbox`, or the box around its labelled joints where a side is below a pixel; "clip-box",
            one box around all labelled joints of the track; "frame-box", one per frame.
        annotations: label files relative to root; {split} stands for train, val or test.
        images: folder that the images' file names are relative to, itself relative to root.
        box_jitter: for "clip-box", as `JHMDB`.
        seed: of the jitter.
        val_fraction: share of the training clusters that validates where there is no label file for val.
        step: difference of `frame_id` between neighbouring frames of a track, where not every frame is labelled.
        fps: frames per second where neither images nor videos tell; 0 for unknown. A track's is divided by `step`.
        strict: a missing or damaged video is an error; False leaves its persons out and tells them in `PoseIndex.skipped`.
        cache: keep the arrays of big label files on disk (`index_cache`).
        name: first part of the index's name.

    Raises:
        BiposeError: no such folder or skeleton, or an argument is out of range.
    """

    layout: tuple[Entry, ...] = (
        Entry("annotations_train.json", "images, persons, joints, and which frame of which video"),
        Entry("annotations_val.json", "the same to validate on; else a share of the training clusters", needed=False),
        Entry("annotations_test.json", "the same to test on", needed=False),
    )

    def __init__(
        self,
        root: str | Path,
        skeleton: str | Path,
        box_rule: str = "gt-box",
        annotations: str = "annotations_{split}.json",
        images: str = "",
        box_jitter: float = 0.1,
        seed: int = 0,
        val_fraction: float = 0.1,
        step: int = 1,
        fps: float = 0.0,
        strict: bool = True,
        cache: bool = True,
        name: str = "video",
    ) -> None:
        self.root = Path(root)
        if box_rule not in BOX_RULES:
            raise BiposeError(f"box_rule {box_rule!r} is none of {', '.join(BOX_RULES)}")
        if not 0 <= val_fraction < 1 or not 0 <= box_jitter < 1:
            raise BiposeError(f"val_fraction {val_fraction} and box_jitter {box_jitter} must be at least 0 and below 1")
        if step < 1 or not 0 <= fps < np.inf:
            raise BiposeError(f"step {step} must be 1 or more and fps {fps} 0 or more")
        if "{split}" not in annotations:
            raise BiposeError(f"annotations {annotations!r} must hold {{split}}, or all splits would be the same file")
        if not self.root.is_dir():
            raise BiposeError(f"{self.root}: no such folder; give the one that holds {annotations}")
        below = self.root / skeleton
        self.skeleton = find_skeleton(below if below.suffix in (".yaml", ".yml") and below.is_file() else skeleton)
        self.box_rule, self.annotations, self.images = box_rule, annotations, images.strip("/")
        self.box_jitter, self.seed, self.val_fraction, self.step, self.fps = box_jitter, seed, val_fraction, step, fps
        self.strict, self.cache, self.name = strict, cache, name
        self._shared: _Read | None = None
        self._probes: dict[tuple[Path, int, int], VideoInfo] = {}

    def index(self, split: str) -> PoseIndex:
        """Index of "train", "val" or "test".

        Raises:
            AbsentSplitError: no label file for it, or nothing to hold out.
            BiposeError: a damaged label file, one for another skeleton, an unknown or an empty split; with `strict` a
                missing or damaged video.
        """
        if split not in ("train", "val", "test"):
            raise BiposeError(f"split {split!r} is none of train, val, test")
        shared = split != "test" and not self._place("val").exists()
        path = self._place("train" if shared else split)
        if not path.exists():
            raise AbsentSplitError(f"{path}: no such label file; check the data set's folder")
        read = self._read(path, shared)
        pieces, skipped = read.pieces, {reason: list(places) for reason, places in read.skipped.items()}
        if not pieces:
            raise BiposeError(f"{path}: no person with a labelled joint in an image that can be used{told(skipped)}")
        if shared:
            held = hold_out((rows[0].cluster for rows in pieces), self.val_fraction)
            pieces = tuple(rows for rows in pieces if (rows[0].cluster in held) == (split == "val"))
        if not pieces:
            raise AbsentSplitError(
                f"{path}: one source and nothing to hold out; write {self._place('val').name}, or raise val_fraction"
            )
        tracks = [self._track(read.file, rows, skipped) for rows in pieces]
        name = f"{self.name}/{split}[{self.box_rule}]"
        places = in_file(skipped, path.name)
        return PoseIndex(name, self.skeleton, self.box_rule, split, tuple(_unique(tracks)), places)

    def _place(self, split: str) -> Path:
        return self.root / self.annotations.replace("{split}", split)

    def _read(self, path: Path, shared: bool) -> _Read:
        """A label file's persons with a labelled joint; kept where another split is made of the same file."""
        state = state_of(path)
        if self._shared is not None and self._shared.state == state:
            return self._shared
        file = read_coco(path, len(self.skeleton), self.cache)
        if fault := differing(file.joint_names, self.skeleton.joints):
            raise BiposeError(
                f"{path}: {fault} {self.skeleton.name}; give the skeleton of these labels, with the joints in their order"
            )
        skipped = {reason: list(places) for reason, places in file.skipped.items() if reason != NO_AREA}
        pieces = []
        for rows in self._pieces(file, skipped):
            if (file.truth.visible[[r.person for r in rows]] != ABSENT).any():
                pieces.append(rows)
            else:
                skipped.setdefault("no labelled joint", []).append(clip_name(file, rows))
        read = _Read(state, file, tuple(pieces), skipped)
        self._shared = read if shared else None
        return read

    def _pieces(self, file: CocoFile, skipped: Skipped) -> Iterator[list[Row]]:
        """Persons in consecutive frames, by video, track and time; stills come last."""
        rows = sorted(self._rows(file, skipped), key=lambda r: (not r.video, r.video, r.track, r.frame, r.person))
        tell_steps(rows, self.step, skipped)
        piece: list[Row] = []
        for row in rows:
            if piece and row.moving and (row.video, row.track, row.frame) == (
                piece[-1].video, piece[-1].track, piece[-1].frame,
            ):  # fmt: skip
                _tell(skipped, "annotations: track_id is there twice in a frame, the first one used", file, row.person)
                continue
            if piece and not row.follows(piece[-1], self.step):
                yield piece
                piece = []
            piece.append(row)
        if piece:
            yield piece

    def _rows(self, file: CocoFile, skipped: Skipped) -> Iterator[Row]:
        truth, clusters = file.truth, sources(file)
        at = {image: i for i, image in enumerate(truth.images.tolist())}
        videos = self._videos(file, skipped)
        sizes, frames, tracks = file.sizes.tolist(), file.frame.tolist(), file.track.tolist()
        crowd, jointed = truth.crowd.tolist(), np.isin(truth.category, file.categories).tolist()
        for person, image_id in enumerate(truth.image.tolist()):
            image = at[image_id]
            video, frame, name, size = file.video[image], frames[image], file.names[image], tuple(sizes[image])
            fps = float(file.fps[image]) or file.videos.get(video, ("", 0.0))[1]
            fault = ""
            if crowd[person]:
                fault = "a crowd"
            elif not jointed[person]:
                fault = "a category_id without joints"
            elif not name and video not in file.videos:
                fault = "an image without file_name, and no video of its video_id"
            elif not name:
                info = videos.get(video)
                size, fps = (info.size if not size[0] else size, fps or info.fps) if info else (size, fps)
                if info is None:
                    fault = "the video cannot be read"
                elif not 0 <= frame < info.frames:
                    fault = "frame_id is not a position in the video"
                elif size != info.size:
                    fault = f"width and height are not the video's, {info.size[0]} and {info.size[1]}"
            elif not size[0]:
                fault = "an image without width and height"
            if fault:
                _tell(skipped, f"annotations: {fault}", file, person)
                continue
            row = Row(person, image, video, tracks[person], frame, (size[0], size[1]), name, fps, clusters[image])
            if video and not row.moving:
                _tell(skipped, "annotations: no track_id or no frame_id, taken as a still", file, person)
            yield row

    def _videos(self, file: CocoFile, skipped: Skipped) -> dict[str, VideoInfo]:
        """What is known of the video files that labels lie on; BiposeError where one cannot be used and `strict`."""
        found: dict[str, VideoInfo] = {}
        wanted = {v for v, name in zip(file.video, file.names, strict=True) if not name}
        for key in (k for k in file.videos if k in wanted):
            path = self.root / file.videos[key][0]
            try:
                key_now = state_of(path)
                info = self._probes.get(key_now) or probe_video(path)
                self._probes[key_now] = info
                if info.frames * info.size[0] * info.size[1] * 3 > MAX_VIDEO_BYTES:
                    raise BiposeError(
                        f"{path}: {info.frames} frames of {info.size[0]}x{info.size[1]} are more than a process can keep "
                        "decoded; cut it into clips, or write the labelled frames as images"
                    )
            except BiposeError as error:
                if self.strict:
                    raise
                skipped.setdefault("videos that cannot be used", []).append(str(error))
                continue
            found[key] = info
        return found

    def _track(self, file: CocoFile, rows: list[Row], skipped: Skipped) -> Track:
        truth, persons = file.truth, [r.person for r in rows]
        first = rows[0]
        visible = truth.visible[persons]
        joints = np.where(visible[..., None] != ABSENT, truth.joints[persons], 0).astype(np.float32)
        clip = clip_name(file, rows)
        whole = rules.clip_box(joints, visible)
        tight = rules.frame_boxes(joints, visible)
        own = truth.boxes[persons].astype(np.float32)
        empty = rules.without_area(own) | (own[:, 2:] < 1).any(axis=1)
        if empty.any():
            skipped.setdefault("boxes below one pixel, the joints' box used", []).append(f"{clip} ({int(empty.sum())})")
            own[empty] = rules.fill_boxes(tight, whole)[empty]
        if self.box_rule == "clip-box":
            box = rules.jitter_box(whole, clip, self.box_jitter, self.seed)
            used = np.repeat(box[None].astype(np.float32), len(rows), axis=0)
        else:
            used = own if self.box_rule == "gt-box" else rules.fill_boxes(tight, whole)
        norms = rules.track_norms(joints, visible, self.skeleton, own, whole)
        area = truth.area[persons]
        norms[:, NORMS.index("area")] = np.sqrt(np.where(area > 1e-6, area, np.nan))
        return Track(
            clip=clip,
            cluster=first.cluster,
            frames=self._source(file, rows),
            joints=joints,
            visible=visible,
            boxes=used,
            norms=norms,
            uid=truth.id[persons],
            image_size=first.size,
            fps=(first.fps or self.fps) / self.step,
        )

    def _source(self, file: CocoFile, rows: list[Row]) -> FrameSource:
        if rows[0].name:
            folder = f"{self.images}/" if self.images else ""
            return FolderFrames(self.root, tuple(f"{folder}{r.name}" for r in rows))
        name = file.videos[rows[0].video][0]
        return VideoPiece(VideoFrames(self.root, name, rows[-1].frame + 1), rows[0].frame, self.step, len(rows))


def _tell(skipped: Skipped, reason: str, file: CocoFile, person: int) -> None:
    skipped.setdefault(reason, []).append(f"id {file.truth.id[person]}")


def _unique(tracks: list[Track]) -> list[Track]:
    """The tracks, those that share a name (videos "a/1" and "a", tracks 2 and 1/2) with their first annotation in it."""
    seen: set[str] = set()
    found = []
    for track in tracks:
        named = replace(track, clip=f"{track.clip}#{track.uid[0]}") if track.clip in seen else track
        seen.add(named.clip)
        found.append(named)
    return found
