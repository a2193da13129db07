"""Strict decoding: sound pictures of many kinds pass, and each kind of damage is found by one decoder or the other."""

import cv2
import numpy as np
import pytest

from bipose_lit.datasets.damage import jpeg_warning, read_strictly
from bipose_lit.types import BiposeError


def picture(shape=(90, 120, 3)):
    rng = np.random.default_rng(1)
    small = rng.integers(0, 255, (9, 12, 3), np.uint8)
    return cv2.resize(small, shape[1::-1], interpolation=cv2.INTER_CUBIC)[..., : shape[2]]


@pytest.mark.parametrize(
    "options",
    [
        [],
        [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
        [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
        [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440],
        [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
        [cv2.IMWRITE_JPEG_QUALITY, 100],
        [cv2.IMWRITE_JPEG_QUALITY, 5],
    ],
)
@pytest.mark.parametrize("shape", [(90, 120, 3), (90, 120, 1), (33, 17, 3), (1, 1, 3)])
def test_sound_jpegs(tmp_path, options, shape):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture(shape), options)
    assert read_strictly(path).shape[:2] == shape[:2]
    data = path.read_bytes()
    path.write_bytes(data + bytes(200))  # padded, as some files are
    read_strictly(path)
    path.write_bytes(data[:-2] + b"\0" + data[-2:])
    read_strictly(path)


def test_other_pictures_are_read_as_ever(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), picture())
    assert read_strictly(tmp_path / "a.png").shape == (90, 120, 3)
    (tmp_path / "a.jpg").write_bytes(b"text")
    with pytest.raises(BiposeError, match="not an image that OpenCV reads"):
        read_strictly(tmp_path / "a.jpg")
    with pytest.raises(BiposeError, match="cannot read the image"):
        read_strictly(tmp_path / "none.jpg")


def test_damage_anywhere_in_the_data(tmp_path, capfd):
    path = tmp_path / "a.jpg"
    cv2.imwrite(str(path), picture((480, 640, 3)))
    data = path.read_bytes()
    for start in np.linspace(len(data) * 0.2, len(data) * 0.8, 7).astype(int):
        path.write_bytes(data[:start] + bytes(1500) + data[start + 1500 :])
        with pytest.raises(BiposeError, match=r"a\.jpg: damaged JPEG \("):
            read_strictly(path)
        path.write_bytes(data[:start] + b"\xff\xd9")
        with pytest.raises(BiposeError, match=r"a\.jpg: damaged JPEG \("):
            read_strictly(path)
    assert capfd.readouterr().err == ""


def test_what_libjpeg_says():
    extra = "Corrupt JPEG data: {} extraneous bytes before marker 0xd9"
    assert jpeg_warning("") == jpeg_warning("a bar 40%\n") == jpeg_warning(extra.format(2)) == ""
    assert jpeg_warning(extra.format(30)) == "30 extraneous bytes before marker 0xd9"
    assert jpeg_warning(f"x\n{extra.format(1)}\nCorrupt JPEG data: bad Huffman code\n") == "bad Huffman code"
    assert jpeg_warning("Premature end of JPEG file") == "Premature end of JPEG file"


@pytest.mark.real_data
def test_real_pictures_are_sound(real_data):
    paths = sorted(real_data.rglob("*.jpg"))
    assert len(paths) > 100
    for path in paths:
        read_strictly(path)
