"""What a protocol gives back: numbers under their names, and how many things they were counted over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bipose_lit.store import atomic
from bipose_lit.types import BiposeError


@dataclass(frozen=True)
class Outcome:
    """Scores of one file of predictions.

    Attributes:
        protocol: its name, one of `bipose evaluate`'s.
        counts: persons, images, frames, joints, ... that were scored or left out.
        metrics: by name, in the order to be printed; fractions of 1, pixels or millimetres. A part of a metric follows a slash:
            "pckh@0.5/elbow". A value is NaN where nothing was there to be scored.
        notes: what a reader of the table must know, a line each: conventions, which mean is which, what was left out.
        about: what was scored and how, by name: the split, the lists, where person sizes come from, the engine, ...
    """

    protocol: str
    counts: Mapping[str, int]
    metrics: Mapping[str, float]
    notes: tuple[str, ...] = field(default=())
    about: Mapping[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes {"protocol", "about", "counts", "metrics", "notes"} as JSON, atomically; null where nothing could be scored.

        Raises:
            BiposeError: the file cannot be written.
        """
        content = {
            "protocol": self.protocol,
            "about": dict(self.about),
            "counts": dict(self.counts),
            "metrics": {name: None if value != value else value for name, value in self.metrics.items()},
            "notes": list(self.notes),
        }
        try:
            with atomic(path, "w") as handle:
                handle.write(json.dumps(content, indent=1, allow_nan=False) + "\n")
        except OSError as error:
            raise BiposeError(f"{path}: cannot write the scores ({error.strerror}); choose another place") from error
