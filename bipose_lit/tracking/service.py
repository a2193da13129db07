"""Opening W&B runs, with limits on every wait, and making sure that what was sent has arrived."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bipose_lit.tracking.names import server
from bipose_lit.types import BiposeError

REQUEST, OPEN, CLOSE, CONFIRM = 20.0, 40.0, 120.0, 30.0
"""Seconds: for one answer of the service, to open a run, to hand over the rest of one, until all that was sent is there."""
RETRIES, PAUSE = 2, 2.0
"""How often a request is tried again, and the longest wait before that in seconds."""
TOKEN = "mirrored"
"""The key of the summary that says which result the service holds."""


class UnreachableError(BiposeError):
    """The service does not answer, or does not let us in: trying further runs is of no use."""


def settings(bounded: bool = False) -> Any:
    """Quiet, and nothing about the machine; W&B's process sends no reports of its own use either, unless the user says so.

    It would send them to the service at its end from who is offline and not logged in, too (WANDB_ERROR_REPORTING).

    Args:
        bounded: for what is mirrored afterwards and can be sent again: give up where the service does not answer (W&B by itself
            tries for days), and leave out the list of the packages that are installed by now, which costs more than all the
            rest (the result tells the versions that matter).
    """
    import wandb

    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when W&B starts its process
    limits: dict[str, Any] = {}
    if bounded:
        limits = {"init_timeout": OPEN, "finish_timeout": CLOSE, "finish_timeout_raises": True}
        limits["x_save_requirements"] = False
        for part in ("graphql", "file_stream", "file_transfer"):
            limits |= {
                f"x_{part}_timeout_seconds": REQUEST,
                f"x_{part}_retry_max": RETRIES,
                f"x_{part}_retry_wait_min_seconds": PAUSE / 4,
                f"x_{part}_retry_wait_max_seconds": PAUSE,
            }
    return wandb.Settings(
        silent=True,
        quiet=True,
        console="off",
        disable_code=True,
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        **limits,
    )


@contextlib.contextmanager
def one_line(folder: Path) -> Iterator[None]:
    """Turns what W&B complains about into one line.

    Raises:
        UnreachableError: the service does not answer or does not let us in.
        BiposeError: it does not like what it is told.
    """
    import wandb

    try:
        yield
    except TimeoutError as error:
        raise UnreachableError(_line(folder, f"not handed over within {CLOSE:.0f} s")) from error
    except (wandb.errors.Error, OSError) as error:
        raise UnreachableError(_line(folder, _reason(error))) from error
    except ValueError as error:
        raise BiposeError(_line(folder, _reason(error))) from error


def _line(folder: Path, reason: str) -> str:
    refused = re.search(r"\b(error|HTTP) 40[13]\b|API key", reason)
    remedy = "check the key ('wandb login')" if refused else "the next mirroring catches up"
    return f"W&B at {server()} did not take {folder} ({reason}); nothing is lost: {remedy}, or set WANDB_MODE=offline"


def _reason(error: BaseException) -> str:
    text = ": ".join(line.strip(" :") for line in str(error).splitlines() if line.strip()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


@contextlib.contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """W&B keeps tables and artifacts that wait for a sync below its data folder, the home folder by default."""
    name = "WANDB_DATA_DIR"
    if os.environ.get(name):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


def arrived(tokens: Mapping[str, str], wait: float = CONFIRM) -> set[str]:
    """Which runs the service holds as they were sent.

    A client that loses the connection while it hands over a run says so on the screen and ends in good order; so who wants
    to know asks the service.

    Args:
        tokens: by the run's path (entity/project/id), what was written under `TOKEN` into its summary.
        wait: seconds until what is not there counts as lost; the service takes moments to show what it was sent.
    """
    import wandb

    found: set[str] = set()
    end, pause = time.monotonic() + wait, 0.1
    while True:
        with contextlib.suppress(wandb.errors.Error, ValueError, OSError):
            api = wandb.Api(timeout=int(REQUEST))  # a new one: it remembers what it has seen
            for path in sorted(set(tokens) - found):
                if api.run(path).summary.get(TOKEN) == tokens[path]:
                    found.add(path)
        if len(found) == len(tokens) or time.monotonic() >= end:
            return found
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(2 * pause, 4.0)
