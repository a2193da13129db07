"""A W&B logger whose run survives its process: resumed, it goes on where the log of the process before ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from bipose_lit.store import atomic
from bipose_lit.tracking.names import server

Steps = dict[str, int]
"""Of metrics, by name."""
STEP = "trainer/global_step"
"""Under which Lightning's logger notes the optimiser step of a row."""


class ContinuedLogger(WandbLogger):
    """Lightning's W&B logger, with three additions.

    What an earlier process logged is there once, whatever ended it: training goes on from a checkpoint that is older than the
    last row, and W&B itself keeps the last rows in memory, on their way to its file and to the service. So a journal in the
    folder, SAVE_DIR/wandb/live-ID.jsonl, gets every row first; a resumed logger hands over those that W&B lacks, and no metric
    of a step again that W&B has.

    A service that cannot be reached when the run is opened makes the run an offline one, told in one line, not a failed
    training. A file in the folder counts the fits that logged there.

    Args:
        record: that file; None: no count.
        fits: what it is to say.
        word: likewise.
        mode: "online", "offline" or "disabled".
        options: as of Lightning's logger.
    """

    def __init__(self, *, record: Path | None = None, fits: int = 1, word: str = "", mode: str, **options: Any) -> None:
        super().__init__(mode=mode, resume="allow", **options)
        self._record, self._fits, self._word = record, fits, word
        self._mode, self._options = mode, options
        self._instead: WandbLogger | None = None
        self._seen: Steps = {}
        self._journal: IO[str] | None = None
        self._open = False

    @property
    def folder(self) -> Path:
        """SAVE_DIR/wandb."""
        return Path(self._options["save_dir"]) / "wandb"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; opened by the first who asks."""
        if self._open:
            return self._instead.experiment if self._instead is not None else super().experiment
        self._open = True
        logs = sorted(self.folder.glob(f"*-{self.version}/run-{self.version}.wandb"))
        try:
            run = super().experiment
        except wandb.errors.Error as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            # Not a Python warning: those name a place in the code, which is of no use here.
            rank_zero_info(
                f"bipose: warning: W&B at {server()} cannot be reached ({reason}); this run is logged offline: "
                f"'wandb sync' what is in {self.folder} later"
            )
            wandb.teardown()  # or it would try on in the background
            self._mode = "offline"
            self._instead = WandbLogger(**{**self._options, "log_model": False}, mode="offline", resume="allow")
            run = self._instead.experiment
        if self._mode != "disabled":
            self._go_on(run, logs)
        return run

    def _go_on(self, run: Any, logs: Sequence[Path]) -> None:
        """Hands over what earlier processes noted and W&B lacks.

        An offline log that a kill cut off cannot be synced, nor what comes after it ("the file ends with an incomplete
        record"), so a new log takes the place of those before it, as long as nobody has synced them and they hold no pictures.
        """
        path = self.folder / f"live-{self.version}.jsonl"
        rows = _rows(path)
        noted = _last(rows)
        old = [log for log in logs if rows and self._mode == "offline" and _replaceable(log)]
        if self._mode != "online":
            held = _merged(last_steps(log) for log in logs if log not in old)
        else:
            held = _on_server(dict(run.summary), rows) if run.resumed else {}
            # The summary may have arrived before the rows that it tells of: W&B numbers rows as the journal has them.
            arrived = _last(rows[: run.starting_step])
            held = {k: min(step, arrived.get(k, -1)) for k, step in held.items()} if rows else held
        for row in rows:
            if new := _beyond(row, held):
                run.log({**new, STEP: row[STEP]})
        for log in old:
            shutil.rmtree(log.parent, ignore_errors=True)
        self._seen = _merged([held, noted])
        self._journal = path.open("a")
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._journal.write("\n")  # or the next row would be part of a line that a kill cut off
        if self._record is not None:
            with atomic(self._record) as handle:
                json.dump({"fits": self._fits, "word": self._word, "id": self.version}, handle)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        run = self.experiment
        if step is None:
            run.log(dict(metrics))
            return
        row = {**_beyond({**metrics, STEP: step}, self._seen), STEP: step}
        if len(row) == 1:
            return
        if self._journal is not None:
            numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}  # pictures come this way too
            self._journal.write(json.dumps(numbers) + "\n")
            self._journal.flush()
        run.log(row)


def _replaceable(log: Path) -> bool:
    """Whether an offline log holds nothing but what the journal holds too, and nothing of it was handed over."""
    begun = any(log.with_name(log.name + end).exists() for end in (".synced", ".syncstate"))
    return log.parent.name.startswith("offline-") and not begun and not (log.parent / "files" / "media").exists()


def _beyond(row: Mapping[str, Any], held: Steps) -> dict[str, Any]:
    """The metrics of a row whose step is not there yet."""
    return {k: v for k, v in row.items() if k != STEP and row[STEP] > held.get(k, -1)}


def _rows(path: Path) -> list[dict[str, Any]]:
    """A journal, whose last line a kill may have cut off."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            found.append({**row, STEP: int(row[STEP])})
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _last(rows: Iterable[Mapping[str, Any]]) -> Steps:
    found: Steps = {}
    for row in rows:
        for key in row:
            found[key] = max(row[STEP], found.get(key, -1))
    return found


def _merged(several: Iterable[Mapping[str, int]]) -> Steps:
    found: Steps = {}
    for steps in several:
        for key, step in steps.items():
            found[key] = max(step, found.get(key, -1))
    return found


def _on_server(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Steps:
    """Last step of every metric that the service holds, told by the last values that it shows.

    Rows arrive in their order. Of several rows of the last step (training's and validation's) it may hold the first alone:
    then a metric of the others still has another value.
    """
    try:
        last = int(summary[STEP])
    except (KeyError, TypeError, ValueError):
        return {}
    final = {key: value for row in rows if row[STEP] == last for key, value in row.items()}
    noted = _last(rows)
    held = {key: min(last, noted.get(key, last)) for key in summary}
    return {key: step - (final.get(key, summary[key]) != summary[key]) for key, step in held.items()}


def last_steps(file: Path) -> Steps:
    """Last step of every metric in a W&B transaction log, whose end a kill may have cut off; {} if it cannot be read."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    try:
        text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = []
    for line in text.splitlines():
        try:
            item = json.loads(line)["history"]["item"]
            rows.append({**item, STEP: int(item[STEP])})
        except (ValueError, KeyError, TypeError):
            continue
    return _last(rows)
