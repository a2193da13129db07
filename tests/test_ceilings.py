"""What codecs cost by themselves: closed forms of the errors, labels that come back, the command."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from memory_index import make_index

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
from good import make_coco, make_mpii

from bipose_lit import ceilings
from bipose_lit.__main__ import main
from bipose_lit.ceilings import CODECS, ceiling, decoded, round_trip
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec

SQUARE = (math.sqrt(2) + math.asinh(1)) / 6
"""Mean distance of a unit square's points from its middle."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "mean", "worst"),
    [
        ("heatmaps, largest pixel", 4 * SQUARE, 4 * math.sqrt(0.5)),
        ("heatmaps, quarter", 2 * SQUARE, 4 * math.sqrt(0.5)),
        ("heatmaps, dark (the default)", 0.0, 0.05),
        ("UDP", 0.0, 0.05),
        ("SimCC", 0.0, 0.05),
        ("coordinates (regression, RLE)", 0.0, 1e-3),
    ],
)
def test_errors_have_their_closed_form(name, mean, worst):
    """A joint is evenly anywhere in its pixel, or in the quarter of it that the higher neighbours name."""
    trip = round_trip(CODECS[name](), (256, 192), joints=4000)
    assert trip.mean == pytest.approx(mean, rel=0.06, abs=0.005), "but for the outermost pixels"
    assert trip.mean <= trip.high <= trip.worst <= worst + 1e-4
    assert trip.lost == 0
    assert trip.flipped == pytest.approx(mean, rel=0.06, abs=0.005), "mirrored maps lie where they belong"


def test_the_reference_s_flip_test_misses_by_half_a_pixel():
    assert round_trip(CODECS["DARK"](), (256, 192), joints=4000).flipped == pytest.approx(0.5, abs=0.02)
    unshifted = HeatmapCodec(refine="parabola", grid="msra")
    assert round_trip(unshifted, (256, 192), joints=4000).flipped == pytest.approx(1.5, abs=0.05)
    assert 0 < round_trip(unshifted, (256, 192), joints=4000).lost < 0.05, "half a map pixel at two of the edges"


def test_labels_come_back_as_they_were():
    index = make_index((3, 1, 70, 2))
    found = decoded(index, RegressionCodec(), (96, 128))
    labels = np.concatenate([t.joints for t in index.tracks])
    np.testing.assert_allclose(found.pred, labels, atol=1e-3)
    assert np.array_equal(found.joints, labels)
    assert np.array_equal(found.uid, np.concatenate([t.uid for t in index.tracks]))
    assert found.clip.tolist() == [0] * 3 + [1] + [2] * 70 + [3] * 2
    assert found.frame.tolist() == [0, 1, 2, 0, *range(70), 0, 1]
    assert ceiling(index, RegressionCodec(), (96, 128)) == {"pck@0.05[torso]": 1.0, "pck@0.1[torso]": 1.0}


def test_a_coarser_codec_scores_lower():
    index = make_index((40,))
    fine, coarse = (
        ceiling(index, HeatmapCodec(stride, refine="none"), (64, 64))["pck@0.05[torso]"] for stride in (1, 8)
    )
    assert coarse < fine - 0.2


def test_joints_outside_the_crop_are_lost_to_heatmaps_alone():
    index = make_index((8,))
    inside, outside = (
        decoded(index, codec, (64, 64), padding=0.6).pred for codec in (RegressionCodec(), HeatmapCodec())
    )
    labels = index.tracks[0].joints
    np.testing.assert_allclose(inside, labels, atol=1e-3)
    assert np.abs(outside - labels).max() > 5


@pytest.mark.parametrize("real", [False, True])
def test_the_command_prints_and_writes_one_table(real, tmp_path, monkeypatch, capsys, request):
    words = []
    if real:
        request.getfixturevalue("real_data")
    else:
        monkeypatch.delenv("BIPOSE_REAL_DATA", raising=False)
        for name, make in (("coco", make_coco), ("mpii", make_mpii)):
            (tmp_path / name).mkdir()
            make(tmp_path / name)
            words += [f"--{name}", str(tmp_path / name)]
    monkeypatch.setattr(ceilings, "SIZES", ((64, 64),))
    monkeypatch.setattr(ceilings, "CODECS", {name: CODECS[name] for name in ("MSRA", "coordinates (regression, RLE)")})
    assert main(["codecs", *words, "--out", str(tmp_path / "codecs.md")]) == 0
    text = (tmp_path / "codecs.md").read_text()
    assert "Crops of 64x64" in text
    assert text.split("## ")[1].strip() in capsys.readouterr().out
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(("| MSRA", "| coord"))]
    assert [len(row) for row in rows] == [len(ceilings.HEAD)] * 2
    assert rows[1][5:] == ["100.00"] * 5
    assert float(rows[0][1]) == pytest.approx(4 * SQUARE, rel=0.05)
    if real:
        assert "2,958 persons" in text
        assert float(rows[0][8]) > 99
        assert float(rows[0][9]) < 15, "a map pixel of a small crop is more than a tenth of a head"


def test_what_the_command_cannot_use(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("BIPOSE_REAL_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["codecs", "--coco", str(tmp_path / "none")]) == 1
    assert f"{tmp_path}/none: no such folder" in capsys.readouterr().err
    assert main(["codecs", "--out", str(tmp_path)]) == 1
    assert "is a folder; name a file" in capsys.readouterr().err
    monkeypatch.setattr(ceilings, "SIZES", ((64, 64),))
    monkeypatch.setattr(ceilings, "CODECS", {"SimCC": CODECS["SimCC"]})
    assert main(["codecs"]) == 0
    assert "| – | – | – | – | – |" in capsys.readouterr().out
