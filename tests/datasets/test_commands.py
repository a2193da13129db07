"""`bipose data show | spectra`: what a wrong folder or length is told."""

import numpy as np
import pytest

from bipose_lit.datasets.commands import left_out, show, spectra
from bipose_lit.types import BiposeError


def test_unknown_format_suggests(tmp_path):
    with pytest.raises(BiposeError, match=r"'jhmd' is none of jhmdb, synthetic, penn; did you mean jhmdb\?"):
        show("jhmd", tmp_path, tmp_path / "x.png")


def test_missing_folder(tmp_path):
    with pytest.raises(BiposeError, match="nowhere: no such folder; give the folder of the data set"):
        show("jhmdb", tmp_path / "nowhere", tmp_path / "x.png")


@pytest.mark.parametrize(
    ("folder", "asked", "really"), [("joint_positions", "penn", "jhmdb"), ("labels", "synthetic", "penn")]
)
def test_the_other_layout_is_recognised(tmp_path, folder, asked, really):
    (tmp_path / folder).mkdir()
    with pytest.raises(BiposeError, match=f"layout of {really}, not of {asked}; say 'bipose data show {really} "):
        show(asked, tmp_path, tmp_path / "x.png")


def test_a_format_within_a_made_set_is_found(tmp_path):
    (tmp_path / "joint_positions").mkdir()
    (tmp_path / "penn").mkdir()
    with pytest.raises(BiposeError, match=f"say 'bipose data show penn {tmp_path}/penn'"):
        show("penn", tmp_path, tmp_path / "x.png")


def test_an_empty_folder_is_told_by_the_reader(tmp_path):
    with pytest.raises(BiposeError, match="no folder splits"):
        show("jhmdb", tmp_path, tmp_path / "x.png")


@pytest.mark.parametrize("seconds", [0, 1, -4, np.nan, np.inf])
def test_pieces_too_short_for_a_spectrum(tmp_path, seconds):
    with pytest.raises(BiposeError, match="a spectrum with bands of half a hertz needs 2 or more"):
        spectra([tmp_path / "x.bvh"], seconds)


def test_left_out_names_five_places():
    assert left_out({"gone": list("abc")}) == ["gone: a, b, c"]
    assert left_out({"gone": list("abcdef"), "bad": ["g"]}) == ["gone: a, b, c, d, e ...", "bad: g"]
