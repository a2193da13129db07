"""`bipose evaluate sub_jhmdb`: `evaluate.jhmdb` by the lists of sub-JHMDB, in which the whole body is seen."""

from __future__ import annotations

from pathlib import Path

from bipose_lit.evaluate import jhmdb
from bipose_lit.evaluate.outcome import Outcome


def evaluate(annotations: Path, predictions: Path, split: str | int = "1") -> Outcome:
    """Scores predictions of whole clips; arguments and errors are those of `jhmdb.evaluate`."""
    return jhmdb.evaluate(annotations, predictions, split, "sub_jhmdb")
