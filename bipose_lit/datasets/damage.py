"""Pictures that decode although they are damaged: decoders fill what they cannot read, and at most mutter.

libjpeg writes its warnings to the C library's stderr and OpenCV does not pass them on, so they are caught there; FFmpeg's decoder
with `err_detect=explode` ends at the first fault. Each finds damage that the other overlooks. Of 175 real JPEGs, all sound to
both, they found each one when a tenth of its bytes was zeroed, or was random, or when it was cut to a quarter.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import av

from bipose_lit.datasets.frames import Image, read_image
from bipose_lit.types import BiposeError

PADDING = 2
"""Bytes that some writers leave between a JPEG's data and its end marker; more are data that were not understood."""

_WARNING = re.compile(r"(Corrupt JPEG data|Premature end of JPEG|Inconsistent progression)[^\n]*")
_EXTRA = re.compile(r"(\d+) extraneous bytes before marker")


def read_strictly(path: Path) -> Image:
    """As `frames.read_image`, for a JPEG with a look at what its decoders put up with. stderr is redirected meanwhile.

    Raises:
        BiposeError: as `read_image`, or a JPEG that decodes with faults.
    """
    with _stderr() as heard:
        image = read_image(path)
    fault = jpeg_warning(heard[0] if heard else "")
    if not fault:
        try:
            fault = _fault(path.read_bytes())
        except OSError as error:
            raise BiposeError(
                f"{path}: cannot read the image ({error.strerror}); check the data set's folder"
            ) from error
    if fault:
        raise BiposeError(f"{path}: damaged JPEG ({fault}); copy or download the file again")
    return image


def jpeg_warning(text: str) -> str:
    """The first of libjpeg's warnings in what was written to stderr that tells of damage, "" where there is none."""
    for found in _WARNING.finditer(text):
        extra = _EXTRA.search(found[0])
        if extra is None or int(extra[1]) > PADDING:
            return found[0].strip().removeprefix("Corrupt JPEG data: ")
    return ""


def _fault(data: bytes) -> str:
    """What FFmpeg's decoder says of a JPEG, "" where nothing, for other kinds of files, and for JPEGs that it does not know."""
    if not data.startswith(b"\xff\xd8"):
        return ""
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    decoder.thread_count = 1
    try:
        found = [frame for packet in (av.Packet(data), None) for frame in decoder.decode(packet)]
    except av.InvalidDataError:
        return "its data make no sense from some place on"
    except av.FFmpegError:
        return ""
    return "" if found else "no picture in it"


@contextlib.contextmanager
def _stderr() -> Iterator[list[str]]:
    """Collects what is written to the process's stderr; the list has it after the block."""
    heard: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield heard
        return
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield heard
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            heard.append(file.read().decode("utf-8", "replace"))
