"""Where pixels come from: folders of images and video files, as `FrameSource`s.

Readers build these without opening a picture; pixels are read when a sample is drawn. A video is decoded from its start
and kept, whole, in a cache of the process, since a sample reads most of its clip and later ones read it again: decoding
is a large part of a narrow network's step on a few of its frames. `$BIPOSE_VIDEO_CACHE` says how many MiB all processes of a
run keep together on one machine, each an equal share; without it, a sixteenth of the memory that is free when they begin, at most
1 GiB, but 96 MiB for each.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from bipose_lit.types import BiposeError

Image = NDArray[np.uint8]

CACHE = "BIPOSE_VIDEO_CACHE"
"""Environment variable: decoded video that one run keeps on one machine, in MiB (a clip of 32 frames at 320x240 is 7)."""

SHARERS = "BIPOSE_VIDEO_SHARERS"
"""Environment variable: how many processes share it. Written by `share_cache`, for all processes that are started afterwards."""
_LARGEST_CACHE, _LEAST_SHARE = 2**30, 96 * 2**20

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_LARGEST_SIDE = 100_000


def read_image(path: Path) -> Image:
    """An image file as RGB (H, W, 3) uint8.

    OpenCV fills the missing part of a truncated JPEG with grey and reports nothing, so completeness is checked first.

    Raises:
        BiposeError: missing, truncated, damaged, or not an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the image ({error.strerror}); check the data set's folder") from error
    fault = _fault(data)
    image = None if fault else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise BiposeError(f"{path}: {fault or 'not an image that OpenCV reads'}; copy or download the file again")
    return np.asarray(image, np.uint8)


def _fault(data: bytes) -> str:
    if not data:
        return "the file is empty"
    # A few bytes may follow the end marker in files that were padded or carry a maker's trailer.
    if data.startswith(_JPEG) and data.rfind(b"\xff\xd9", -1024) < 0:
        return "truncated JPEG"
    if data.startswith(_PNG):
        at = len(_PNG)
        while at + 12 <= len(data):
            size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            end = at + 12 + size
            if end > len(data):
                return "truncated PNG"
            if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                return f"damaged PNG (checksum of {kind.decode('latin1')})"
            if kind == b"IEND":
                return ""
            at = end
        return "truncated PNG"
    return ""


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as `read_image` would give them, from the header of a PNG or JPEG where that tells, else by decoding.

    Decoded are also pictures with Exif, which may turn them.

    Raises:
        BiposeError: as `read_image`; a header that tells the size hides damage that comes after it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(24)
            if head.startswith(_PNG) and len(head) == 24:
                size = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
                fits = head[12:16] == b"IHDR" and min(size) > 0 and max(size) <= _LARGEST_SIDE
                if fits and not _png_has_exif(file):
                    return size
            elif head.startswith(_JPEG):
                jpeg = _jpeg_size(file)
                if jpeg:
                    return jpeg
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the image ({error.strerror}); check the data set's folder") from error
    height, width = read_image(path).shape[:2]
    return width, height


def _png_has_exif(file: BinaryIO) -> bool:
    """Whether a chunk eXIf (PNG, third edition, 11.3.3.7) may be there: one is, before or after the pixels, or the walk fails."""
    file.seek(len(_PNG))
    for _ in range(1024):  # large pictures come in hundreds of IDAT chunks; then decoding is cheap by comparison
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"eXIf":
            return True
        if head[4:] == b"IEND":
            return False
        file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    return True


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Width and height from a JPEG's frame header (ITU T.81, B.2.2).

    None where it is not found, and where an Exif segment, which may turn the picture, comes before it or before the pixels.
    """
    file.seek(2)
    size: tuple[int, int] | None = None
    for _ in range(256):
        mark = file.read(4)
        if len(mark) < 4 or mark[0] != 0xFF:
            return None
        kind, length = mark[1], int.from_bytes(mark[2:4], "big")
        if kind == 0xDA:
            return size
        if length < 2 or kind == 0xFF:
            return None
        read = 2
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            body = file.read(5)
            read += len(body)
            size = int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big")
            if len(body) < 5 or min(size) < 1:
                return None
        elif kind == 0xE1:
            body = file.read(4)
            read += len(body)
            if body == b"Exif":
                return None
        file.seek(length - read, 1)
    return None


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video file: frames (counted, not as its header says), width and height as shown, frames per second (0 unknown)."""

    frames: int
    size: tuple[int, int]
    fps: float


def probe_video(path: Path) -> VideoInfo:
    """Counts the coded frames of a video without decoding them (the frame count in a header is often wrong).

    Raises:
        BiposeError: missing, truncated (an AVI shorter than its RIFF header says), or not a video.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
        if head[:4] == b"RIFF" and path.stat().st_size < int.from_bytes(head[4:8], "little") + 8:
            raise BiposeError(f"{path}: truncated AVI; copy or download the file again")
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BiposeError(f"{path}: holds no video")
            stream = container.streams.video[0]
            size, rate = (int(stream.width), int(stream.height)), stream.average_rate
            count = sum(1 for packet in container.demux(stream) if packet.size)
    except av.FFmpegError as error:
        raise BiposeError(f"{path}: not a readable video ({error.strerror}); copy or download it again") from error
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the video ({error.strerror}); check the data set's folder") from error
    if head[:4] != b"RIFF" and _turned(path):
        size = size[1], size[0]
    return VideoInfo(count, size, float(rate) if rate else 0.0)


def _turned(path: Path) -> bool:
    """Whether OpenCV, which decodes, turns the pictures of a video by a right angle, as a phone's display matrix says."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        return round(video.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
    finally:
        video.release()


def decode_video(path: Path) -> list[Image]:
    """All frames of a video in order, RGB (H, W, 3) uint8, read-only arrays. One thread.

    Raises:
        BiposeError: missing or not a video.
    """
    probe_video(path)
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    frames: list[Image] = []
    try:
        while True:
            found, bgr = video.read()
            if not found:
                break
            frame = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            frame.flags.writeable = False
            frames.append(frame)
    finally:
        video.release()
    if not frames:
        raise BiposeError(f"{path}: no frame could be decoded; copy or download the file again")
    return frames


_cache: OrderedDict[tuple[str, int, int], list[Image]] = OrderedDict()


def share_cache(processes: int) -> None:
    """Says how many processes of the run read video on this machine; holds for this process and for those that it starts.

    Raises:
        BiposeError: as `cache_bytes`.
    """
    os.environ[SHARERS] = str(max(1, processes))
    cache_bytes()


def cache_bytes() -> int:
    """Decoded video that this process may keep: an equal share for each that `share_cache` was told of.

    Raises:
        BiposeError: `$BIPOSE_VIDEO_CACHE` is no number of MiB.
    """
    given, told = os.environ.get(CACHE), os.environ.get(SHARERS, "")
    sharers = max(1, int(told)) if told.isdecimal() else 1
    if not given:
        return max(_LEAST_SHARE, min(_LARGEST_CACHE, _free_memory() // 16) // sharers)
    if not given.isdecimal():
        raise BiposeError(f"{CACHE}={given}: expected a whole number of MiB, such as 512, or 0 to keep one video")
    return int(given) * 2**20 // sharers


@cache
def _free_memory() -> int:
    """Bytes that could be had without swapping, once per process; 1.5 GiB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 1536 * 2**20


def _cached_video(path: Path) -> list[Image]:
    try:
        stat = path.stat()
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the video ({error.strerror}); check the data set's folder") from error
    key = (str(path), stat.st_size, stat.st_mtime_ns)
    if key in _cache:
        _cache.move_to_end(key)
        return _cache[key]
    frames = decode_video(path)
    _cache[key] = frames
    while len(_cache) > 1 and sum(len(f) * f[0].nbytes for f in _cache.values()) > cache_bytes():
        _cache.popitem(last=False)
    return frames


def _digest(root: Path, names: Sequence[str]) -> str:
    """Hash of names and sizes of all files and of 4 KiB at the start, middle and end of the first and last one.

    Sizes of compressed pictures betray nearly any change; hashing every byte of a large set would take minutes per run.
    Times are left out: a copy of the data is the same data. A missing file is part of the fingerprint, not an error.
    """
    digest = hashlib.blake2b(digest_size=16)
    for position, name in enumerate(names):
        try:
            size = (root / name).stat().st_size
            digest.update(f"{name}:{size}\n".encode())
            if position in (0, len(names) - 1):
                with (root / name).open("rb") as file:
                    for start in (0, size // 2, max(0, size - 4096)):
                        file.seek(start)
                        digest.update(file.read(4096))
        except OSError:
            digest.update(f"{name}:missing\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class FolderFrames:
    """Frames that are image files.

    Attributes:
        root: the data set's folder.
        names: the frames' paths relative to it, in order of time.
    """

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, frames: Sequence[int]) -> list[Image]:
        """RGB images (H, W, 3). BiposeError for a missing, truncated or damaged file."""
        return [read_image(self.root / self.names[frame]) for frame in frames]

    def fingerprint(self) -> str:
        """See `_digest`."""
        return _digest(self.root, self.names)


@dataclass(frozen=True)
class VideoFrames:
    """Frames of one video file.

    Attributes:
        root: the data set's folder.
        name: the video's path relative to it.
        count: frames, by counting (`probe_video`); the first `count` are the track's.
    """

    root: Path
    name: str
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, frames: Sequence[int]) -> list[Image]:
        """RGB images (H, W, 3), read-only. BiposeError for a missing or damaged file or one with too few frames."""
        if not len(frames):
            return []
        decoded = _cached_video(self.root / self.name)
        if max(frames) >= len(decoded):
            raise BiposeError(
                f"{self.root / self.name}: {len(decoded)} frames decode where {self.count} are expected; "
                "copy or download the file again"
            )
        return [decoded[frame] for frame in frames]

    def fingerprint(self) -> str:
        """See `_digest`."""
        return _digest(self.root, (self.name,))


@dataclass(frozen=True)
class NoFrames:
    """The frames of a set that holds motion alone.

    Attributes:
        root: the data set's folder.
        names: files that the track came from, relative to it.
        count: frames.
    """

    root: Path
    names: tuple[str, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, frames: Sequence[int]) -> list[Image]:
        """Raises BiposeError: there are no pictures."""
        raise BiposeError(
            f"{self.root}: this data set holds no pictures; use it for lifting, not for a network of images"
        )

    def fingerprint(self) -> str:
        """See `_digest`."""
        return _digest(self.root, self.names)
