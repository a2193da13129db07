"""SIGTERM and SIGUSR1, the scheduler's warnings: training ends at the next optimiser step, with a checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from bipose_lit.types import Preempted

WARNINGS = (signal.SIGTERM, signal.SIGUSR1)
SAME = 1.0
"""Seconds in which another warning is the same one: `timeout` and schedulers tell a process and its whole group, and the engine
that was told with the group tells its runs again."""


class Signals:
    """What this process was warned of.

    Outside training there is nothing to save, and `Preempted` is raised where the program is. During training (`deferred`) the
    number is only kept, and the `Resume` callback acts on it when a step is done. A second warning, more than a second later,
    ends the process at once, as it would have without us.

    Attributes:
        number: of the signal that came; 0 for none.
        deferred: training is going on.
        installed: handlers are set; False: signals do what they did before.
    """

    def __init__(self) -> None:
        self.number = 0
        self.deferred = False
        self.installed = False
        self._since = 0.0

    @contextlib.contextmanager
    def watch(self) -> Iterator[Signals]:
        """Handles the warnings inside the block; afterwards they are handled as before. Only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in WARNINGS}
        self.number, self.deferred, self.installed = 0, False, True
        self.install()
        try:
            yield self
        finally:
            self.installed = False
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def install(self) -> None:
        """Sets the handlers, again: Lightning puts its own over them at the start of every stage.

        Its handler of SIGTERM talks to the other ranks from within the signal, in the middle of whatever they are saying, and
        under SLURM that of SIGUSR1 saves and requeues there and then.
        """
        if self.installed:
            for number in WARNINGS:
                signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number and time.monotonic() - self._since <= SAME:
            return
        if self.number:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.number, self._since = number, time.monotonic()
        if not self.deferred:
            raise Preempted(
                f"stopped by {signal.Signals(number).name} outside training; start the same command again", number
            )


__all__ = ["WARNINGS", "Signals"]
