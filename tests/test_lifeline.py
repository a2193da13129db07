"""Processes end in good order."""

import subprocess
import sys

GROUP = """
import atexit, os, torch, torch.distributed as dist
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
atexit.register(lambda: print("at the end:", dist.is_initialized()))  # runs after what was registered later
from bipose_lit.lifeline import leave_process_group_at_exit
leave_process_group_at_exit()
leave_process_group_at_exit()
met = [None]
dist.all_gather_object(met, "one")
print(met, dist.is_initialized())
"""


def test_a_process_leaves_its_group_before_the_interpreter_ends():
    done = subprocess.run([sys.executable, "-c", GROUP], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["['one'] True", "at the end: False"]


def test_without_a_group_nothing_is_left():
    code = "from bipose_lit.lifeline import leave_process_group_at_exit as leave; leave(); print('good')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "good", "")
