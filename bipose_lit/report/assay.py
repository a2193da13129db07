"""Did the synthetic set's assay come out? Expectations, fixed before the runs, are held against the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bipose_lit.report.statistics import ALPHA, Contrast, Verdict, verdicts
from bipose_lit.types import BiposeError

Key = tuple[str, str, str]

EXPECTABLE = ("better", "worse", "equivalent", "not better", "not worse")

DEFAULT_EXPECTATIONS: tuple[dict[str, Any], ...] = (
    {"stratum": "N", "contrast": ["lstm", "none_matched"], "expect": "equivalent"},
    {"stratum": "N", "contrast": ["bilstm", "none_matched"], "expect": "equivalent"},
    {"stratum": "P", "contrast": ["lstm", "none_matched"], "expect": "better"},
    {"stratum": "P", "contrast": ["bilstm", "none_matched"], "expect": "better"},
    {"stratum": "P", "contrast": ["bilstm", "lstm"], "expect": "equivalent"},
    {"stratum": "F", "contrast": ["bilstm", "lstm"], "expect": "better"},
    {"stratum": "F", "contrast": ["lstm", "none_matched"], "expect": "equivalent"},
)
"""What memory can and cannot do: nothing where nothing is hidden or all is (N), the past where a joint was seen before
it was hidden (P), the future where it is revealed later (F)."""

_MEANING = {
    ("N", "equivalent"): "the suite sees a gain where none can be: it is biased, or noise is being averaged away",
    ("P", "better"): "the suite cannot see the use of the past: it is not sensitive",
    ("F", "better"): "the suite cannot see the use of the future: it is not sensitive",
}


@dataclass(frozen=True)
class AssayResult:
    """One expectation and what came out.

    Attributes:
        stratum, arm, control, expect, margin: the expectation.
        verdict: what the runs say, None where a run is missing.
        outcome: "as expected", "not as expected: ..." or "cannot tell: ..." (too few seeds or clusters, inconclusive,
            no run).
    """

    stratum: str
    arm: str
    control: str
    expect: str
    margin: float
    verdict: Verdict | None
    outcome: str

    @property
    def passed(self) -> bool | None:
        """True, False, or None where nothing can be told."""
        return None if self.outcome.startswith("cannot tell") else self.outcome == "as expected"


def assay(
    expectations: Sequence[Mapping[str, Any]],
    contrasts: Mapping[Key, Contrast],
    margin: float,
    alpha: float = ALPHA,
) -> list[AssayResult]:
    """Holds the contrasts of each stratum against what was expected of them.

    Args:
        expectations: {"stratum": "P", "contrast": ["lstm", "none_matched"], "expect": "better", "margin": 0.02}; the
            margin may be missing.
        contrasts: by (stratum, arm, control).
        margin: where an expectation names none.
        alpha: family-wise error over all expectations (Holm).

    Raises:
        BiposeError: an expectation that cannot be read.
    """
    wanted = [_read(e, margin) for e in expectations]
    present = [w for w in wanted if w[:3] in contrasts]
    # One family over all regimes; each expectation keeps its own margin.
    found = verdicts([contrasts[w[:3]] for w in present], [w[4] for w in present], alpha=alpha)
    judged = dict(zip(present, found, strict=True))
    return [AssayResult(*w, judged.get(w), _outcome(w[0], w[3], judged.get(w))) for w in wanted]


def _read(expectation: Mapping[str, Any], margin: float) -> tuple[str, str, str, str, float]:
    try:
        arm, control = expectation["contrast"]
        stratum, expect = str(expectation["stratum"]), str(expectation["expect"])
    except (KeyError, TypeError, ValueError) as error:
        raise BiposeError(
            f"assay expectation {dict(expectation)} cannot be read ({error}); "
            "write {stratum: P, contrast: [lstm, none_matched], expect: better}"
        ) from error
    if expect not in EXPECTABLE:
        raise BiposeError(f"assay expectation {expect!r} is unknown; use one of {', '.join(EXPECTABLE)}")
    return stratum, str(arm), str(control), expect, float(expectation.get("margin", margin))


def _outcome(stratum: str, expect: str, verdict: Verdict | None) -> str:
    if verdict is None:
        return "cannot tell: a run is missing"
    word = verdict.verdict
    if word in ("not enough seeds", "not enough clusters", "undefined", "inconclusive"):
        return f"cannot tell: {word} ({verdict.reason})"
    if word == expect or (expect.startswith("not ") and word != expect.removeprefix("not ")):
        return "as expected"
    meaning = _MEANING.get((stratum, expect))
    return f"not as expected: {word} ({verdict.reason})" + (f"; {meaning}" if meaning else "")
