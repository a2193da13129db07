"""Loggers for who wants to watch a training while it runs. A resumed fit continues the run that its folder records."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bipose_lit.store import RunSpec, atomic
from bipose_lit.tracking.names import PROJECT, resolve_mode, run_id, short_hash
from bipose_lit.tracking.service import settings
from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger

RECORD = "live.json"
"""In SAVE_DIR/wandb: how many fits, not counting resumed ones, logged into this folder, and a random word of its own."""
_CONTINUING: ContextVar[bool] = ContextVar("continuing", default=True)


@contextlib.contextmanager
def continuing(given: bool) -> Iterator[None]:
    """Says whether loggers made in this block go on with the run that their folder records, or begin one of their own."""
    token = _CONTINUING.set(given)
    try:
        yield
    finally:
        _CONTINUING.reset(token)


def make_logger(spec: RunSpec, mode: str = "auto", project: str = PROJECT, **options: Any) -> WandbLogger:
    """A Lightning logger for a live run; the W&B files land in the run's own folder, FOLDER/wandb.

    Args:
        spec: who the run is.
        mode: see `resolve_mode`; "disabled" gives a logger that drops everything.
        project: W&B project.
        options: further arguments of `wandb.init`.
    """
    from bipose_lit.tracking.logger import ContinuedLogger

    spec.folder.mkdir(parents=True, exist_ok=True)
    return ContinuedLogger(
        name=f"{spec.arm}/seed{spec.seed}",
        save_dir=str(spec.folder),
        id=run_id(spec),
        project=project,
        group=spec.name,
        job_type=spec.arm,
        tags=list(spec.tags),
        config=dict(spec.config),
        mode=resolve_mode(mode),
        settings=settings(),
        **options,
    )


def wandb_logger(
    save_dir: str,
    name: str = "run",
    group: str | None = None,
    tags: list[str] | None = None,
    project: str = PROJECT,
    mode: str = "auto",
    log_model: bool = False,
) -> WandbLogger:
    """The logger of experiments/logger/wandb.yaml (`class_path: bipose_lit.tracking.wandb_logger`).

    A fit that resumes from a checkpoint (`--ckpt_path`) goes on with the W&B run of the fit before it, and no metric of a step
    is logged twice; a fit that starts anew in the same folder is a run of its own. Made in Python, the logger goes on with
    the folder's run unless it is made inside `with continuing(False)`.

    Args:
        save_dir: folder of this run alone.
        name: the run's name in W&B; with `group`, `save_dir` and a random word that is kept there it also decides the run's id.
        group: W&B group.
        tags: free words.
        project: W&B project.
        mode: auto (online for who is logged in, else offline), offline, online or disabled.
        log_model: upload checkpoints; online only.

    Raises:
        BiposeError: `log_model` without a connection.
    """
    mode = resolve_mode(mode)
    if log_model and mode != "online":
        raise BiposeError(f"log_model needs W&B online, but it is {mode}; run `wandb login` or set log_model: false")
    from bipose_lit.tracking.logger import ContinuedLogger

    record = Path(save_dir) / "wandb" / RECORD
    # A folder of the same name on another machine, or one that was deleted and made anew, is another run.
    fits, word = (0, "") if mode == "disabled" else _known(record)
    # The first fit of a folder has number 0 whether it is the first start of it or a resumed one.
    fit = max(fits - 1, 0) if _CONTINUING.get() else fits
    identity = [group, name, str(Path(save_dir).resolve()), word, *([fit] if fit else [])]
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return ContinuedLogger(
        record=record,
        fits=fit + 1,
        word=word,
        name=name,
        save_dir=save_dir,
        id=short_hash(identity),
        project=project,
        log_model=log_model,
        group=group,
        tags=tags or [],
        mode=mode,
        settings=settings(),
    )


def _known(record: Path) -> tuple[int, str]:
    """How many fits, not counting resumed ones, logged into a folder, and its word; the first process of all makes it up."""
    if not record.exists():
        part = record.with_name(f".{RECORD}.{secrets.token_hex(4)}")
        with atomic(part) as handle:
            json.dump({"fits": 0, "word": secrets.token_hex(8)}, handle)
        try:
            os.link(part, record)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(part, record)
        part.unlink(missing_ok=True)
    try:
        told = json.loads(record.read_text())
        return int(told["fits"]), str(told.get("word", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return 0, ""
