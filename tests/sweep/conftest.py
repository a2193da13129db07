"""A folder with a base configuration and a sweep, and the engine over fake trials in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAKE = Path(__file__).with_name("sweep_fake.py")

BASE = """
model: {width: 4, lr: 0.1, weights: null}
data: {reader: {class_path: x.Y, init_args: {root: data}}}
trainer: {max_steps: 8}
"""

SWEEP = """
question: Which head, at which rate?
base: base.yaml
space:
  head: {overlays: {none: null, lstm: {model: {temporal: lstm}}, bilstm: {model: {temporal: bilstm}}}}
  model.lr: {low: 1e-4, high: 1, log: true}
  model.width: {choices: [8, 16, 32], when: {head: [lstm, bilstm]}}
objective: pck@0.1[clip]
sampler: {name: tpe, seed: 3, startup: 4}
budget: {trials: 8}
baselines: {plain: {}}
retrain: {best: 2, seeds: 3}
"""


class Site:
    """One folder in which sweeps run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text = folder, SWEEP
        (folder / "base.yaml").write_text(BASE)
        self.write(SWEEP)

    def write(self, text: str) -> None:
        (self.folder / "s.yaml").write_text(text)

    def start(self, seconds: float = 0.02, **arguments: Any) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "FAKE_LOG": str(self.folder),
            "FAKE_SECONDS": str(seconds),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, str(FAKE), "s.yaml", json.dumps({"workers": 2, **arguments})],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, seconds: float = 0.02, **arguments: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(seconds, **arguments)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def events(self, kind: str, below: str = "trials/") -> list[str]:
        file = self.folder / "events.log"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [line[1] for line in lines if line[0] == kind and line[1].startswith(below)]

    def trials(self, out: str = "runs") -> list[dict[str, Any]]:
        return json.loads((self.folder / out / "s" / "trials.json").read_text())["trials"]

    def sweep(self, out: str = "runs") -> dict[str, Any]:
        return json.loads((self.folder / out / "s" / "sweep.json").read_text())

    def result(self, key: str, out: str = "runs") -> dict[str, Any]:
        return json.loads((self.folder / out / "s" / key / "result.json").read_text())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
