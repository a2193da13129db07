"""Sizes of pictures from their headers: as decoding would tell, without decoding."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from bipose_lit.datasets import frames
from bipose_lit.datasets.frames import image_size, read_image
from bipose_lit.types import BiposeError


def encoded(size=(37, 21), suffix=".jpg", *options) -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    ok, data = cv2.imencode(suffix, image, list(options))
    assert ok
    return data.tobytes()


def turned(data: bytes, orientation: int) -> bytes:
    """The JPEG with an Exif segment that turns it."""
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, orientation) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.fixture
def decodes(monkeypatch):
    """How often a picture was decoded."""
    calls = []
    monkeypatch.setattr(frames, "read_image", lambda path: calls.append(path) or read_image(path))
    return calls


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("size", [(37, 21), (1, 1), (300, 8)])
def test_headers_tell_without_decoding(tmp_path, decodes, suffix, size):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encoded(size, suffix))
    assert image_size(path) == size == read_image(path).shape[1::-1]
    assert not decodes


def test_progressive_jpeg(tmp_path, decodes):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded((40, 30), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1))
    assert image_size(path) == (40, 30)
    assert not decodes


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_jpeg_has_the_size_that_it_is_read_with(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    path.write_bytes(turned(encoded(), orientation))
    assert image_size(path) == read_image(path).shape[1::-1] == ((37, 21) if orientation < 5 else (21, 37))


def late(data: bytes, orientation: int) -> bytes:
    """The JPEG with an Exif segment just before its pixels, after the frame header."""
    exif = turned(b"\xff\xd8", orientation)[2:]
    at = data.index(b"\xff\xda")
    return data[:at] + exif + data[at:]


def with_exif(data: bytes, orientation: int, last: bool) -> bytes:
    """The PNG with a chunk eXIf before or after its pixels."""
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, orientation) + b"\0\0\0\0"
    chunk = struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    at = data.rindex(b"IEND") - 4 if last else 33
    return data[:at] + chunk + data[at:]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["late", "first", "last"])
def test_exif_elsewhere(tmp_path, kind, orientation):
    path = tmp_path / "a"
    data = (
        late(encoded(), orientation)
        if kind == "late"
        else with_exif(encoded(suffix=".png"), orientation, kind == "last")
    )
    path.write_bytes(data)
    assert image_size(path) == read_image(path).shape[1::-1]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xd8", b"\xff\xd8\xff\xe0\0\0", b"\xff\xd8" + b"\xff" * 50, b"\xff\xd8\xff\xc0\0\x11\x08\0\0\0\0", b"text",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 16, b"\xff\xd8" + b"\xff\xe1\0\2" * 5000, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\xff" * 8,
    ],
)  # fmt: skip
def test_broken_headers_end_in_one_error(tmp_path, data):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(BiposeError, match=r"a\.jpg"):
        image_size(path)


def test_other_formats_are_decoded(tmp_path, decodes):
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded((12, 9), ".bmp"))
    assert image_size(path) == (12, 9)
    assert len(decodes) == 1


@pytest.mark.real_data
def test_real_pictures(real_data):
    paths = (
        sorted((real_data / "mpii_mini" / "images").glob("*.jpg"))[:5]
        + sorted(real_data.glob("coco_mini/*/*.jpg"))[:20]
    )
    assert len(paths) == 25
    for path in paths:
        assert image_size(path) == read_image(path).shape[1::-1]
