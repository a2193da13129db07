"""Equal tuning is equal: same number of trials, same points of the shared space, whatever else an arm searches."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.ablation.manifest import Tune
from bipose_lit.ablation.tune import best, find_metric, points
from bipose_lit.types import BiposeError

SPACE = {"model.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "model.depth": {"low": 1, "high": 3, "int": True}}


def make(trials: int, **options) -> Tune:
    return Tune(**{"trials": trials, "space": SPACE, "metric": "val/pck", **options})


@given(st.integers(1, 40), st.integers(0, 1000))
def test_points_are_stratified_and_inside(trials, seed):
    found = points(make(trials, seed=seed), "any")
    assert len(found) == trials
    place = sorted(math.log(p["model.lr"] / 1e-4) / math.log(1e3) for p in found)
    assert all(i / trials - 1e-5 <= u <= (i + 1) / trials + 1e-5 for i, u in enumerate(place))
    assert all(p["model.depth"] in (1, 2, 3) for p in found)


def test_arms_share_the_shared_points():
    t = make(6, arms={"lstm": {"model.hidden": [32, 64]}})
    shared = [{k: v for k, v in p.items() if k in SPACE} for p in points(t, "lstm")]
    assert shared == points(t, "none")
    assert {p["model.hidden"] for p in points(t, "lstm")} == {32, 64}


def test_choices_are_balanced():
    found = [p["a"] for p in points(make(6, space={"a": ["x", "y", "z"]}), "none")]
    assert sorted(found) == ["x", "x", "y", "y", "z", "z"]


def test_best_takes_the_first_of_equals():
    assert best(make(3), [0.1, 0.4, 0.4]) == 1
    assert best(make(3, maximize=False), [0.4, math.nan, 0.1]) == 2
    with pytest.raises(BiposeError, match="not a number in any of the 2 trials"):
        best(make(2), [math.nan, math.inf])


METRICS = {
    "test/pck@0.1[clip,clip-box]": 1.0,
    "test/pck@0.1[bbox,clip-box]": 2.0,
    "test/pck@0.1[clip,clip-box]/P": 3.0,
    "val/pck@0.1[clip,clip-box]": 4.0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pck@0.1[clip]", 1.0),
        ("test/pck@0.1[bbox]", 2.0),
        ("pck@0.1[clip]/P", 3.0),
        ("val/pck@0.1[clip]", 4.0),
        ("test/pck@0.1[clip,clip-box]", 1.0),
    ],
)
def test_short_metric_names(name, value):
    assert METRICS[find_metric(METRICS, name)] == value


def test_metric_that_fits_none_or_several():
    with pytest.raises(BiposeError, match="fits none of: test/pck"):
        find_metric(METRICS, "pck@0.2[clip]")
    with pytest.raises(BiposeError, match="fits several of: test/pck"):
        find_metric(METRICS, "pck@0.1")
