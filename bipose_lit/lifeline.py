"""Processes that end with the one that started them, even if that is killed, and that leave a process group in good order."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
import time
from functools import cache

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Lets this process be killed when `parent` ends: by the kernel on Linux, by a watching thread elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(0.5)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:  # it ended before the call above
        os._exit(1)


@cache
def leave_process_group_at_exit() -> None:
    """Lets this process end its part in torch.distributed before the interpreter does.

    Else a thread of gloo that still holds a tensor of the last collective asks a dying interpreter for its lock, and the process
    aborts with "terminate called without an active exception" (seen in one of about thirty ends of a two-process run).
    """
    atexit.register(_leave_process_group)


def _leave_process_group() -> None:
    if "torch.distributed" not in sys.modules:
        return
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
