"""Published networks on random weights against ours, where BIPOSE_REFERENCES names a folder of clones of their code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from compare import CASES, PIXELS, TOLERANCE

PLACE = os.environ.get("BIPOSE_REFERENCES")


@pytest.mark.parametrize("name", CASES)
def test_our_network_is_theirs(name):
    if not PLACE:
        pytest.skip("BIPOSE_REFERENCES does not name a folder of clones of the reference codes")
    clone = next((Path(PLACE) / f for f in CASES[name].folders if (Path(PLACE) / f).is_dir()), None)
    if clone is None:
        pytest.skip(f"BIPOSE_REFERENCES has no {' or '.join(CASES[name].folders)}")
    script = Path(__file__).with_name("compare.py")
    command = [sys.executable, "-W", "ignore", str(script), name, "--reference", str(clone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["difference"] <= TOLERANCE
    assert found["moved"] == 0
    assert found["joints"] >= 34
    assert (found["codec"] or 0) <= PIXELS
