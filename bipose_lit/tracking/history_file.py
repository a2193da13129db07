"""history.jsonl: what a run logged while it trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bipose_lit.store import HISTORY
from bipose_lit.types import BiposeError


def history(folder: Path) -> list[dict[str, Any]]:
    """Rows of history.jsonl, one per step in increasing order; where a resumed run logged a step again the later one counts.

    Raises:
        BiposeError: a line that is no JSON object with a step (the last line may be cut short by a kill).
    """
    path = folder / HISTORY
    if not path.is_file():
        return []
    rows: dict[int, dict[str, Any]] = {}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.setdefault(int(row["step"]), {}).update(row)
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise BiposeError(
                f"{path}:{number} is no history row ({error}); delete the run's folder to repeat it"
            ) from error
    return [rows[step] for step in sorted(rows)]
