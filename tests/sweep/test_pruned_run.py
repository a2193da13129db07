"""A real training that a judge gives up: in this process, and on two processes through `bipose run-one`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import create_trial
from tiny import tiny_options, write_jhmdb

from bipose_lit import run
from bipose_lit.ablation.runner import JUDGE
from bipose_lit.ablation.storage import open_storage
from bipose_lit.cli import resolve
from bipose_lit.store import HISTORY, RESULT, RunResult, RunSpec, config_hash
from bipose_lit.sweep.judge import JudgeSpec

FOLDER = Path(__file__).parents[2] / "experiments"
VALIDATED = {"trainer.max_steps": 6, "trainer.val_check_interval": 2, "model.temporal.init_args.hidden": 4}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"))


def spec(root, folder, **options):
    config = resolve(
        [FOLDER / "base.yaml", FOLDER / "temporal/bilstm.yaml"], tiny_options(root, **VALIDATED, **options)
    )
    config["seed_everything"] = config["data"]["seed"] = 1_000_001
    hashed = config_hash(config)
    return RunSpec("s", "trials/trial0000", 1_000_001, folder, config, config_hash=hashed, score=("val",))


class Stern:
    """Gives up at a step, and keeps what it was shown."""

    watch = "pck@0.2[clip]"

    def __init__(self, at):
        self.at, self.seen = at, []

    def __call__(self, step, metrics, clusters):
        self.seen.append((step, dict(metrics), dict(clusters)))
        return step >= self.at


def rows(folder):
    return [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]


def test_a_run_that_is_given_up(root, tmp_path):
    judge = Stern(4)
    result = run.execute(spec(root, tmp_path / "pruned"), None, judge)
    assert [step for step, _, _ in judge.seen] == [2, 4]
    assert (result.status, result.facts["pruned_at"]) == ("pruned", 4)
    assert result.metrics == judge.seen[-1][1]
    assert not result.scorings
    assert not any(name.startswith("test/") for name in result.metrics)
    assert RunResult.load(tmp_path / "pruned").status == "pruned"
    assert max(row["step"] for row in rows(tmp_path / "pruned")) == 4
    name = next(n for n in result.metrics if n.startswith("val/pck@0.2[clip,") and "/" not in n[4:])
    clusters = judge.seen[-1][2]
    assert len(clusters) == 3
    assert min(clusters.values()) <= result.metrics[name] <= max(clusters.values())
    assert judge.seen[0][2] != clusters, "the same clusters were shown twice"


@pytest.mark.slow
def test_a_judge_that_never_prunes_changes_nothing(root, tmp_path):
    judge = Stern(99)
    one = run.execute(spec(root, tmp_path / "judged"), None, judge)
    two = run.execute(spec(root, tmp_path / "free"))
    assert (one.status, two.status) == ("finished", "finished")
    assert one.weights_hash == two.weights_hash
    assert one.metrics == two.metrics
    assert [step for step, _, _ in judge.seen] == [2, 4, 6]


@pytest.mark.slow
def test_a_judge_out_of_reach_ends_no_training(root, tmp_path):
    def broken(step, metrics, clusters):
        raise OSError("no connection")

    assert run.execute(spec(root, tmp_path / "run"), None, broken).status == "finished"


@pytest.mark.ddp
def test_two_processes_stop_together(root, tmp_path):
    """The judge of a study, rebuilt from its file by a fresh command, whose rank 0 alone asks it."""
    options = {"trainer.devices": 2, "trainer.strategy": "ddp", "data.eval_batch_size": 1}
    asked = spec(root, tmp_path / "run", **options)
    url = str(tmp_path / "study.journal")
    study = optuna.create_study(storage=open_storage(url), study_name="s/search", direction="maximize")
    for _ in range(3):
        study.add_trial(create_trial(value=2.0, intermediate_values={2: 0.0, 4: 2.0, 6: 2.0}))
    study.ask()
    words = JudgeSpec(url, "s/search", 3, "pck@0.2[clip]", 0, {"name": "median", "startup": 2}, 6)
    path = asked.save()
    (path.parent / JUDGE).write_text(json.dumps(words.as_dict()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(FOLDER.parent)}
    environment.pop("BIPOSE_STORAGE", None)
    done = subprocess.run(
        [sys.executable, "-m", "bipose_lit", "run-one", str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((path.parent / RESULT).read_text())
    assert (result["status"], result["facts"]["pruned_at"]) == ("pruned", 4)
    trial = optuna.load_study(study_name="s/search", storage=open_storage(url)).trials[3]
    assert sorted(trial.intermediate_values) == [2, 4], "reported once each, by one rank"
    name = next(n for n in result["metrics"] if n.startswith("val/pck@0.2[clip,") and "/" not in n[4:])
    assert trial.intermediate_values[4] == result["metrics"][name]
