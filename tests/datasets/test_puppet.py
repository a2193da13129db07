"""The boxes around JHMDB's puppet masks, against a plain loop, and what else the files can hold."""

import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.puppet import clip_corners, mask_corners
from bipose_lit.types import BiposeError


def put(path, mask, **options):
    scipy.io.savemat(path, {"part_mask": mask}, **options)
    return path


def published(mask):
    """getBox.m, position by position: counted from 1 down the columns for x, along the rows for y; then from 0."""
    height, width = mask.shape
    down = [n + 1 for n, value in enumerate(mask.T.ravel()) if value]
    along = [n + 1 for n, value in enumerate(mask.ravel()) if value]
    return [down[0] // height, along[0] // width, down[-1] // height, along[-1] // width]


@pytest.mark.parametrize("share", [0.01, 0.03, 0.3])
def test_the_published_corners_position_by_position(tmp_path, share):
    rng = np.random.default_rng(0)
    mask = (rng.random((12, 17, 99)) < share).astype(np.uint8)
    mask[..., 4] = 0
    corners, size = mask_corners(put(tmp_path / "m.mat", mask, do_compression=True))
    assert size == (17, 12)
    for t in range(mask.shape[2]):
        if mask[..., t].any():
            np.testing.assert_array_equal(corners[t], published(mask[..., t]))
        else:
            assert np.isnan(corners[t]).all()


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        ([(2, 3), (5, 4)], [2, 3, 5, 4]),  # x, y
        ([(2, 3), (5, 9)], [2, 3, 6, 9]),  # the last column's last pixel is in the last row of ten
        ([(2, 9), (5, 4)], [3, 4, 5, 9]),  # so is the first column's only pixel
        ([(2, 4), (2, 9), (5, 4)], [2, 4, 5, 9]),  # but it is not the first of this column
        ([(7, 3), (5, 4)], [5, 4, 7, 4]),  # the first row's only pixel is in the last column of eight
        ([(7, 4), (5, 3)], [5, 3, 7, 5]),
        ([(7, 9)], [8, 10, 8, 10]),
        ([(0, 0)], [0, 0, 0, 0]),
    ],
)
def test_masks_that_reach_the_last_row_or_column(tmp_path, pixels, expected):
    mask = np.zeros((10, 8, 2), bool)
    for x, y in pixels:
        mask[y, x] = True
    corners, _ = mask_corners(put(tmp_path / "m.mat", mask))
    np.testing.assert_array_equal(corners, [expected, expected])
    assert published(mask[..., 0]) == expected


def test_masks_of_another_clip(tmp_path):
    path = put(tmp_path / "m.mat", np.ones((6, 8, 3)))
    assert clip_corners(path, 3, (8, 6)).shape == (3, 4)
    for frames, size, said in (
        (4, (8, 6), "3 masks for 4 labelled frames"),
        (2, (8, 6), "3 masks for 2 labelled frames"),
        (3, (6, 8), "masks of 8x6 pixels for frames of 6x8"),
    ):
        with pytest.raises(BiposeError, match=rf"m\.mat: {said}; is it this clip's\?"):
            clip_corners(path, frames, size)


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
