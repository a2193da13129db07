"""Which joints the pasted things hide, how long, and what they give away."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from occluded_sets import Figures
from scipy import stats

from bipose_lit.datasets.covering import MEDIAN_STAY, P90_STAY, REGIMES, stay
from bipose_lit.datasets.cutouts import COUNT, LEVELS, MARGIN, Drawn
from bipose_lit.datasets.index import PoseIndex, Track
from bipose_lit.datasets.occluded import Occluded, occlusion_statistics
from bipose_lit.datasets.patches import Patches
from bipose_lit.skeletons import JHMDB as BODY
from bipose_lit.types import VISIBLE


def test_colours_are_no_give_away():
    colours = np.array(
        [s.rgb[s.alpha == 255].mean(axis=0) for n in range(COUNT) if (s := Drawn("test", 0).sprite(n, -1))]
    )
    assert (colours.std(axis=0) > 25).all()
    inner = [s.rgb[s.alpha == 255].std(axis=0).max() for n in range(COUNT) if (s := Drawn("test", 0).sprite(n, -1))]
    assert np.median(inner) > 12


@pytest.mark.parametrize("make", [lambda: Drawn("val", 0), lambda: Patches("val", 0, Figures(2).index("val").tracks)])
def test_sprites_have_a_clear_rim_and_are_premultiplied(make):
    things = make()
    for number in range(0, COUNT, 5):
        for level in LEVELS:
            sprite = things.sprite(number, level)
            inner = np.zeros_like(sprite.alpha, bool)
            inner[MARGIN:-MARGIN, MARGIN:-MARGIN] = True
            assert not sprite.alpha[~inner].any()
            assert (sprite.rgb <= sprite.alpha[..., None].astype(int) + 1).all()
            assert sprite.alpha.max() == 255
            np.testing.assert_array_equal(things.alpha(number, level), sprite.alpha)
            np.testing.assert_array_equal(things.outlines()[0][number].any(), True)


@pytest.mark.parametrize(("hidden", "frames"), [(0.1, 20), (0.25, 20), (0.5, 20), (0.25, 1), (0.25, 90)])
def test_the_share_is_met(hidden, frames):
    count = {1: 400, 20: 80, 90: 30}[frames]
    before, index = Figures(count, frames).index("train"), Occluded(Figures(count, frames), hidden).index("train")
    shares = [
        1 - (new.visible == VISIBLE).sum() / (old.visible == VISIBLE).sum()
        for old, new in zip(before.tracks, index.tracks, strict=True)
    ]
    assert abs(np.mean(shares) - hidden) < 0.01 + 3 * np.std(shares) / math.sqrt(count)
    assert np.std(shares) / math.sqrt(count) < 0.035  # so the bound above says something


def test_probability_leaves_clips_alone():
    touched = [bool(t.frames.pieces) for t in Occluded(Figures(40, 6), 0.5, probability=0.4).index("train").tracks]
    assert 6 < sum(touched) < 26
    none = Occluded(Figures(5), probability=0.0).index("train")
    for old, new in zip(Figures(5).index("train").tracks, none.tracks, strict=True):
        np.testing.assert_array_equal(old.visible, new.visible)


@pytest.mark.parametrize("fps", [15.0, 27.5, 50.0])
def test_stays_are_log_normal_and_stationary(fps):
    rng = np.random.default_rng(0)
    T = 40
    found = np.array([stay(rng, "any", T, fps) for _ in range(6000)])
    lengths, starts = found[:, 1] - found[:, 0], found[:, 0]
    assert ((starts < T) & (found[:, 1] > 0)).all()
    # Weighted by 1 / (length + T), what meets the window is the law itself.
    order = np.argsort(lengths)
    weight = np.cumsum((1 / (lengths + T))[order])
    median, p90 = (float(lengths[order][np.searchsorted(weight, q * weight[-1])]) * 27.5 / fps for q in (0.5, 0.9))
    assert abs(median / MEDIAN_STAY - 1) < 0.12
    assert abs(p90 / P90_STAY - 1) < 0.15
    assert stats.kstest((starts + lengths) / (lengths + T), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("frames", [3, 5, 24, 400])
def test_stays_keep_their_regime(regime, frames):
    rng = np.random.default_rng(1)
    for _ in range(60):
        start, stop = stay(rng, regime, frames)
        assert start < stop or frames == 3
        assert (start >= 1) == (regime in "PB") or regime == "any"
        assert (stop <= frames - 1) == (regime in "FB") or regime == "any"


class Walkers(Figures):
    """Persons who walk through large pictures, each at a pace and in a direction of its own; all joints are seen."""

    def __init__(self, clips: int, frames: int = 30, pace: float = 3.0) -> None:
        super().__init__(clips, frames)
        self.pace = pace

    def _track(self, number: int) -> Track:
        rng, T, K = np.random.default_rng(number), self.frames, len(BODY)
        way = np.array([320, 240]) + (np.arange(T)[:, None] - T / 2) * rng.normal(0, self.pace, 2)
        way = way + np.cumsum(rng.normal(0, 0.6, (T, 2)), axis=0)
        joints = (way[:, None] + rng.uniform(-1, 1, (K, 2)) * (14, 28)).astype(np.float32)
        visible = np.full((T, K), VISIBLE, np.uint8)
        return replace(super()._track(number), joints=joints, visible=visible, image_size=(640, 480))


def displacements(index: PoseIndex, frames: int = 10) -> NDArray[np.float64]:
    """(N, 2) by how much a thing and its person move in that many frames, on one axis."""
    found = []
    for track in index.tracks:
        person = track.joints.mean(axis=1, dtype=np.float64)
        for path in (piece.track for piece in track.frames.pieces):
            both = path.present[frames:] & path.present[:-frames]
            moved = [(v[frames:] - v[:-frames])[both].ravel() for v in (path.centre, person)]
            found.append(np.stack(moved, axis=1))
    return np.concatenate(found)


@pytest.mark.parametrize("regime", ["any", *(pytest.param(r, marks=pytest.mark.slow) for r in "PFBN")])
def test_how_things_move_tells_nothing_of_the_person(regime):
    moved = displacements(Occluded(Walkers(300), regime=regime).index("train"))
    assert len(moved) > 3000
    assert (
        abs(np.corrcoef(moved.T)[0, 1]) < 0.15
    )  # about three standard errors, as displacements of a thing are no independent draws


def test_following_is_an_option():
    moved = displacements(Occluded(Walkers(20), regime="N", follow=True).index("train"))
    assert np.corrcoef(moved.T)[0, 1] > 0.98


@pytest.mark.parametrize(("regime", "least"), [("P", 0.8), ("F", 0.8), ("B", 0.8), ("N", 0.6)])
def test_regimes_show_in_the_flags(regime, least):
    index = Occluded(Walkers(40, 30, 1.0), regime=regime).index("train")
    found = occlusion_statistics(index)
    assert found[f"share_{regime}"] > least
    assert abs(found["hidden"] - 0.25) < 0.12


def test_too_short_for_a_regime_is_counted():
    index = Occluded(Figures(3, 2), regime="B").index("train")
    assert index.skipped == {
        "too short for regime B, left without things in front": ["walk/0000", "walk/0001", "walk/0002"]
    }
    assert not Occluded(Figures(3, 2), regime="P").index("train").skipped
