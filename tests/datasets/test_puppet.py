"""The boxes around JHMDB's puppet masks, against a plain loop, and what else the files can hold."""

import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.puppet import mask_corners
from bipose_lit.types import BiposeError


def put(path, mask, **options):
    scipy.io.savemat(path, {"part_mask": mask}, **options)
    return path


def test_the_outermost_pixels_by_a_plain_loop(tmp_path):
    rng = np.random.default_rng(0)
    mask = (rng.random((12, 17, 9)) < 0.03).astype(np.uint8)
    mask[..., 4] = 0
    mask[11, 16, 5] = mask[0, 0, 6] = 1
    corners, size = mask_corners(put(tmp_path / "m.mat", mask, do_compression=True))
    assert size == (17, 12)
    for t in range(9):
        places = [(x, y) for y in range(12) for x in range(17) if mask[y, x, t]]
        if not places:
            assert np.isnan(corners[t]).all()
            continue
        xs, ys = zip(*places, strict=True)
        np.testing.assert_array_equal(corners[t], [min(xs), min(ys), max(xs), max(ys)])


def test_a_clip_of_one_frame(tmp_path):
    mask = np.zeros((6, 8), bool)
    mask[2:4, 3:7] = True
    np.testing.assert_array_equal(mask_corners(put(tmp_path / "m.mat", mask))[0], [[3, 2, 6, 3]])


@pytest.mark.parametrize(
    "mask",
    ["text", np.zeros((0, 0)), np.ones((2, 2, 2, 2)), np.full((3, 3, 2), np.nan), 1j * np.ones((3, 3)),
     np.array([1, "a"], dtype=object), {"a": 1}],
    ids=str,
)  # fmt: skip
def test_what_is_no_mask(tmp_path, mask):
    with pytest.raises(BiposeError, match=r"m\.mat: part_mask"):
        mask_corners(put(tmp_path / "m.mat", mask))


def test_another_variable(tmp_path):
    scipy.io.savemat(tmp_path / "m.mat", {"mask": np.ones((2, 2))})
    with pytest.raises(BiposeError, match="lacks the variable part_mask"):
        mask_corners(tmp_path / "m.mat")
