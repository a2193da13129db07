"""Broken files over all readers and protocols; the full number of cases is `make fuzz`."""

import subprocess
import sys
from pathlib import Path

CASES = 250


def test_broken_files_end_in_a_named_error_or_a_counted_skip():
    command = [sys.executable, str(Path(__file__).parent / "run.py"), "--cases", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert f"{CASES} cases: 0 findings" in done.stdout
