"""A folder with a base configuration and manifests, and the engine over fake runs in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake.py")

BASE = """
model: {width: 4, weights: null}
data: {reader: {class_path: x.Y, init_args: {root: data}}}
trainer: {max_steps: 10}
"""

MANIFEST = """
question: Does recurrence help?
base: base.yaml
arms:
  none: {}
  lstm: {model: {temporal: lstm}}
  bilstm: {model: {temporal: bilstm}}
baseline: none
contrasts: [[bilstm, none]]
seeds: 2
"""


class Site:
    """One folder in which ablations run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text = folder, MANIFEST
        (folder / "base.yaml").write_text(BASE)
        self.write(MANIFEST)

    def write(self, text: str) -> None:
        (self.folder / "m.yaml").write_text(text)

    def start(self, seconds: float = 0.05, every: float = 10, environ=None, before=(), **arguments) -> subprocess.Popen:
        """The engine in a process group of its own; `before`: a command that starts it, `environ`: more environment."""
        environment = {
            **os.environ,
            "FAKE_LOG": str(self.folder),
            "FAKE_SECONDS": str(seconds),
            "FAKE_EVERY": str(every),
            "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent}",
            "CUDA_VISIBLE_DEVICES": "",
            **(environ or {}),
        }
        return subprocess.Popen(
            [*before, sys.executable, str(FAKE), "m.yaml", json.dumps({"workers": 2, **arguments})],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, seconds: float = 0.05, every: float = 10, **arguments) -> subprocess.CompletedProcess:
        process = self.start(seconds, every, **arguments)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def wait_for(self, kind: str, count: int = 1, seconds: float = 60) -> list[str]:
        """The events of a kind, once there are so many of them."""
        end = time.monotonic() + seconds
        while len(found := self.events(kind)) < count:
            assert time.monotonic() < end, f"only {len(found)} times '{kind}'"
            time.sleep(0.005)
        return found

    def events(self, kind: str) -> list[str]:
        file = self.folder / "events.log"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [line[1] for line in lines if line[0] == kind]

    def results(self, out: str = "runs") -> dict[str, dict]:
        """Everything in result.json but what is measured, by run."""
        found = {}
        for path in sorted((self.folder / out / "m").rglob("result.json")):
            data = json.loads(path.read_text())
            data.pop("measured")
            found[str(path.parent.relative_to(self.folder / out / "m"))] = data
        return found


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)
