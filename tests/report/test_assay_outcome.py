"""The assay: what was expected beforehand against what came out."""

import numpy as np
import pytest

from bipose_lit.report.assay import DEFAULT_EXPECTATIONS, assay
from bipose_lit.report.statistics import from_table
from bipose_lit.types import BiposeError


def _contrast(effect, noise=0.001, seeds=5):
    return from_table(effect + noise * np.random.default_rng(0).standard_normal((seeds, 16)))


TRUTH = {
    ("N", "lstm", "none_matched"): 0.0,
    ("N", "bilstm", "none_matched"): 0.001,
    ("P", "lstm", "none_matched"): 0.2,
    ("P", "bilstm", "none_matched"): 0.2,
    ("P", "bilstm", "lstm"): 0.0,
    ("F", "bilstm", "lstm"): 0.15,
    ("F", "lstm", "none_matched"): 0.0,
}


def test_a_sensitive_and_unbiased_suite_passes():
    found = assay(DEFAULT_EXPECTATIONS, {k: _contrast(v) for k, v in TRUTH.items()}, 0.005)
    assert [r.outcome for r in found] == ["as expected"] * 7
    assert all(r.passed for r in found)


def test_an_insensitive_suite_is_told():
    found = assay(DEFAULT_EXPECTATIONS, {k: _contrast(0.0) for k in TRUTH}, 0.005)
    bad = [r for r in found if r.passed is False]
    assert [(r.stratum, r.arm) for r in bad] == [("P", "lstm"), ("P", "bilstm"), ("F", "bilstm")]
    assert bad[0].outcome.startswith("not as expected: equivalent")
    assert "not sensitive" in bad[0].outcome


def test_a_biased_suite_is_told():
    found = assay(DEFAULT_EXPECTATIONS, {k: _contrast(0.1) for k in TRUTH}, 0.005)
    assert "biased" in found[0].outcome
    assert found[0].outcome.startswith("not as expected: better")


def test_what_cannot_be_told():
    contrasts = {k: _contrast(v, seeds=3) for k, v in TRUTH.items()}
    del contrasts["N", "lstm", "none_matched"]
    found = assay(DEFAULT_EXPECTATIONS, contrasts, 0.005)
    assert found[0].outcome == "cannot tell: a run is missing"
    assert all(r.passed is None for r in found)
    assert "not enough seeds" in found[1].outcome
    loose = assay(DEFAULT_EXPECTATIONS[:1], {("N", "lstm", "none_matched"): _contrast(0.0, noise=1.0)}, 0.005)
    assert "inconclusive" in loose[0].outcome


def test_margins_and_negative_expectations():
    key = ("N", "a", "b")
    contrasts = {key: _contrast(0.01)}
    expect = [
        {"stratum": "N", "contrast": ["a", "b"], "expect": "equivalent", "margin": 0.02},
        {"stratum": "N", "contrast": ["a", "b"], "expect": "better"},
        {"stratum": "N", "contrast": ["a", "b"], "expect": "not worse"},
        {"stratum": "N", "contrast": ["a", "b"], "expect": "not better"},
    ]
    assert [r.passed for r in assay(expect, contrasts, 0.005)] == [True, True, True, False]


@pytest.mark.parametrize(
    "bad",
    [
        {"stratum": "N", "contrast": ["a"], "expect": "better"},
        {"contrast": ["a", "b"], "expect": "better"},
        {"stratum": "N", "contrast": ["a", "b"], "expect": "great"},
    ],
)
def test_unreadable_expectations(bad):
    with pytest.raises(BiposeError, match="assay expectation"):
        assay([bad], {}, 0.005)
