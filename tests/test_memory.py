"""Freed memory is kept where the allocator is glibc's."""

import platform
import subprocess
import sys

from bipose_lit.memory import reuse_freed_memory

CODE = """
import resource, numpy as np
from bipose_lit.memory import reuse_freed_memory
kept = {keep} and reuse_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    held = [np.ones(5 * 2**19) for _ in range(3)]  # 20 MiB each
    del held
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    done = subprocess.run([sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_freed_memory_is_used_again() -> None:
    if platform.libc_ver()[0] != "glibc":
        assert reuse_freed_memory() is False
        return
    assert reuse_freed_memory() is True
    assert faults(keep=True) < faults(keep=False) / 5
