"""One recipe at any number of processes and accumulated batches: the same steps, losses, rates and weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ddp_cases import distance, fit_case

TESTS = Path(__file__).parent
TOLERANCE = 1e-6
"""Of float32 weights, as a share of the tensor's largest, after four steps: 4e-7 was the most seen; means of ratios: 1e-2."""
HALVES, THIRDS = {"accumulate_grad_batches": 2}, {"accumulate_grad_batches": 3}
SHARDS: dict[str, Any] = {"strategy": "shards"}
ONE: dict[str, dict[str, Any]] = {
    "sgd": {},
    "clipped": {"trainer": {"gradient_clip_val": 0.01}},
    "adamw": {"optimizer": "adamw", "lr": 0.003},
    "averaged": {"ema": True},
    "rle": {"rle": True, "lr": 0.001},
}
"""The references, by one process."""
HERE = {"sgd": {"halves": {"trainer": HALVES}, "thirds": {"trainer": THIRDS}}}
MANY: dict[str, dict[str, dict[str, Any]]] = {
    "sgd": {"sgd": {}, "halves": {"trainer": HALVES}, "naive": {"naive": True}},
    "clipped": {"clipped+halves": {"trainer": {"gradient_clip_val": 0.01, **HALVES}}},
    "averaged": {"averaged": {"ema": True}},
    "rle": {"rle": {"rle": True, "lr": 0.001}, "rle+halves": {"rle": True, "lr": 0.001, "trainer": HALVES}},
}
SHARDED: dict[str, dict[str, dict[str, Any]]] = {
    "adamw": {"shards": {"optimizer": "adamw", "lr": 0.003, "trainer": SHARDS}},
    "clipped": {"shards+clipped+halves": {"trainer": {"gradient_clip_val": 0.01, **SHARDS, **HALVES}}},
    "sgd": {"shards+sgd": {"trainer": SHARDS}},
}
"""By two processes that hold half of the model each."""


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Path:
    """All references, fitted in this process."""
    folder = tmp_path_factory.mktemp("one")
    for name, case in {**ONE, **HERE["sgd"]}.items():
        fit_case(folder, name, case)
    return folder


def told(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-?.json"))]


def several(folder: Path, processes: int, cases: dict[str, dict[str, dict[str, Any]]]) -> Path:
    """Fits cases in one job of several processes."""
    flat = {name: case for group in cases.values() for name, case in group.items()}
    (folder / "cases.json").write_text(json.dumps(flat))
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
         str(TESTS / "ddp_cases.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def agree(folder: Path, name: str, one: Path, reference: str, processes: int, accumulate: int) -> None:
    """A job's ranks hold what one process holds."""
    ranks, (single,) = told(folder, name), told(one, reference)
    assert len(ranks) == processes
    for rank in ranks:
        assert rank["world"] == processes
        assert rank["steps"] == single["steps"] == 4
        assert rank["batches"] == accumulate * single["batches"], "an epoch has the same steps"
        assert rank["scorings"] == single["scorings"] == 2, "validation comes after the same steps"
        assert rank["rates"] == single["rates"]
        assert rank["losses"] == pytest.approx(single["losses"], rel=1e-5), "the step's loss is logged, not a rank's"
        assert rank["names"] == single["names"]
        assert (rank["weights"], rank["loss"]) == (ranks[0]["weights"], ranks[0]["loss"])
    # Layers of the loss's flow start at zero, so after four steps they hold sums of gradients and nothing larger.
    tolerance = TOLERANCE * (5 if reference == "rle" else 1)
    assert distance(one / f"{reference}.safetensors", folder / f"{name}.safetensors") < tolerance


def test_accumulated_batches_train_what_one_batch_trains(one):
    for name, accumulate in (("halves", 2), ("thirds", 3)):
        agree(one, name, one, "sgd", 1, accumulate)


@pytest.mark.ddp
@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_train_what_one_process_trains(one, tmp_path, processes):
    folder = several(tmp_path, processes, MANY)
    for reference, cases in MANY.items():
        for name in cases:
            if name != "naive":
                agree(folder, name, one, reference, processes, 2 if "halves" in name else 1)
    # What the law forbids can be seen: batches of unequal numbers of labels.
    assert distance(one / "sgd.safetensors", folder / "naive.safetensors") > 1000 * TOLERANCE


@pytest.mark.ddp
def test_a_model_spread_over_two_processes_trains_the_same(one, tmp_path):
    refused = {"refused": {"ema": True, "trainer": SHARDS}, "learning": {"rle": True, "trainer": SHARDS}}
    folder = several(tmp_path, 2, {**SHARDED, "": refused})
    for reference, cases in SHARDED.items():
        for name in cases:
            agree(folder, name, one, reference, 2, 2 if "halves" in name else 1)
    assert "EMAWeightAveraging" in told(folder, "refused")[0]["told"]
    assert "model.loss RLE learns parameters of its own" in told(folder, "learning")[0]["told"]


def test_a_batch_that_cannot_be_dealt_is_refused_with_what_can(tmp_path):
    fit_case(tmp_path, "odd", {"batch": 10, "trainer": {"accumulate_grad_batches": 3}})
    (rank,) = told(tmp_path, "odd")
    assert rank["told"] == (
        "data.batch_size is the clips of one optimiser step, and 10 cannot be dealt equally to 3 accumulated batches; set it to "
        "9 or 12, or make processes x accumulate_grad_batches one of 1, 2, 5, 10"
    )


def test_the_rate_follows_the_batch_only_where_asked(tmp_path):
    for name, case in {"plain": {}, "scaled": {"base_batch": 6}}.items():
        fit_case(tmp_path, name, {"schedule": "constant", **case})
    (plain,), (scaled,) = told(tmp_path, "plain"), told(tmp_path, "scaled")
    assert plain["rates"] == [0.01] * 4
    assert scaled["rates"] == [0.02] * 4, "12 clips a step, where the rate was chosen for 6"
