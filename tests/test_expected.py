"""Expected numbers: read strictly, and a run lands where arithmetic says."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.expected import Expected, Landing, landed, read_expected
from bipose_lit.types import BiposeError

GOOD = {
    "metric": "ap[det-box]",
    "value": 0.704,
    "band": 0.006,
    "source": "its README",
    "gpu_hours": None,
}
AP = Expected(**GOOD)


def test_a_mapping_a_list_and_nothing():
    assert read_expected(None, ["a"]) == ()
    assert read_expected(GOOD, ["a"]) == (AP,)
    two = read_expected([{**GOOD, "arm": "a"}, {**GOOD, "arm": "b", "gpu_hours": 12, "read": False}], ["a", "b"])
    assert [(e.arm, e.cost, e.read) for e in two] == [("a", "unknown", True), ("b", "12", False)]
    assert two[0].text == "ap[det-box] 0.704 ± 0.006 (its README)"
    assert two[1].text == "ap[det-box] 0.704 ± 0.006 (its README; from a secondary note)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bend": 0.1}, "unknown key 'bend'; did you mean band?"),
        ({"metric": None}, "metric must be text, not None"),
        ({"metric": ""}, "metric must be text, not ''"),
        ({"metric": "test/ap[det-box]"}, "metric is a name without its split, not 'test/ap[det-box]'"),
        ({"metric": "val/ap[det-box]"}, "metric is a name without its split"),
        ({"value": "0.7"}, "value must be a number, not '0.7'"),
        ({"value": None}, "value must be a number, not None"),
        ({"value": True}, "value must be a number, not True"),
        ({"value": math.nan}, "value must be a number, not nan"),
        ({"band": 0}, "band must be above 0, not 0"),
        ({"band": -0.1}, "band must be above 0"),
        ({"band": math.inf}, "band must be a number, not inf"),
        ({"source": 5}, "source must be text, not 5"),
        ({"read": "yes"}, "read must be true or false, not 'yes'"),
        ({"gpu_hours": "unknown"}, "gpu_hours must be a number or null, not 'unknown'"),
        ({"gpu_hours": 0}, "gpu_hours must be above 0"),
        ({"arm": "c"}, "no arm 'c'; arms: a, b"),
        ({"arm": 1}, "arm must be text, not 1"),
        ({}, "say whose number it is: arm, one of a, b"),
    ],
)
def test_mistakes_are_told(change, told):
    with pytest.raises(BiposeError) as caught:
        read_expected({**GOOD, **change}, ["a", "b"])
    assert told in str(caught.value)
    assert str(caught.value).startswith("expected: ")


@pytest.mark.parametrize("key", GOOD)
def test_nothing_is_guessed(key):
    """Not even that the cost is unknown: whoever writes a number says so."""
    with pytest.raises(BiposeError, match=f"'{key}' is missing"):
        read_expected({k: v for k, v in GOOD.items() if k != key}, ["a"])


def test_another_form_is_told():
    with pytest.raises(BiposeError, match="a mapping with metric, value, band, source, .* or a list of them, not 0.7"):
        read_expected(0.7, ["a"])


@given(st.integers(0, 1000), st.integers(1, 100), st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_words_follow_exact_arithmetic(value, band, seeds):
    """The band's ends belong to it, though 0.704 + 0.006 is no number of a computer."""
    landing = Landing(Expected("m[b]", value / 1000, band / 1000, "s"), tuple(s / 1000 for s in seeds))
    gap = Fraction(sum(seeds), len(seeds)) - value
    word = "in the band" if abs(gap) <= band else "below the band" if gap < 0 else "above the band"
    assert landing.word == word
    assert landing.text.endswith(f"({len(seeds)} run{'s' if len(seeds) > 1 else ''}), {word}")


def test_runs_land_by_arm_and_metric():
    both = [Expected("m[b]", 0.5, 0.1, "s", arm="a"), Expected("n[b]", 0.5, 0.1, "s", arm="b")]
    runs = [
        ("a", {"test/m[b]": 0.5, "test/n[b]": 0.9, "val/m[b]": 0.0}),
        ("a", {"test/m[b]": 0.7}),
        ("b", {"test/m[b]": 0.1, "val/n[b]": 0.5}),
    ]
    one, two = landed(both, runs)
    assert one.values == (0.5, 0.7)
    assert one.text == "expected m[b] 0.5 ± 0.1 (s): measured 0.6 (2 runs), in the band"
    assert two.values == ()
    assert two.text == "expected n[b] 0.5 ± 0.1 (s): not measured"
    assert landed([Expected("m[b]", 0.5, 0.1, "s")], runs[:1])[0].values == (0.5,)


def test_a_run_without_a_number_is_not_in_the_band():
    assert Landing(AP, (math.nan,)).word == "undefined"
    assert math.isnan(Landing(AP, ()).mean)
