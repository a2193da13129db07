"""What a start of a sweep accepts and refuses, what it is told on the command line, and what it takes over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from searches import SMALL

from bipose_lit.ablation.process import Lock
from bipose_lit.store import folder_mark
from bipose_lit.sweep.manifest import load_sweep
from bipose_lit.sweep.record import found_before
from bipose_lit.sweep.space import key_of
from bipose_lit.sweep.study import PLACE, opened
from bipose_lit.types import BiposeError


@pytest.mark.slow
@pytest.mark.parametrize(("how", "why"), [("{raise: line}", "training diverged"), ("{nan: true}", "is not a number")])
def test_nothing_finished_is_an_error(site, how, why):
    base = (site.folder / "base.yaml").read_text()
    (site.folder / "base.yaml").write_text(base + f"fake: {how}\n")
    done = site.run(trials=2)
    assert done.returncode == 1
    assert why in done.stderr
    assert "no trial of s has finished (2 failed, 0 pruned, 0 running)" in done.stderr.splitlines()[-1]
    (site.folder / "base.yaml").write_text(base)
    again = site.run(trials=2)
    assert again.returncode == 1
    assert "was begun with another base configuration" in again.stderr
    assert site.run(trials=2, fresh=True).returncode == 0


@pytest.mark.slow
def test_another_search_does_not_go_on_in_this_one(site):
    site.run(trials=2)
    for old, new, word in (
        ("low: 1e-4", "low: 1e-3", "space"),
        ("objective: pck@0.1[clip]", "objective: pck@0.1[clip]\nseeds: 2", "number of seeds"),
    ):
        site.write(site.text.replace(old, new))
        done = site.run(trials=2)
        assert done.returncode == 1
        assert f"was begun with another {word}" in done.stderr
        assert "--fresh" in done.stderr
    site.write(site.text.replace("sampler: {name: tpe, seed: 3, startup: 4}", "sampler: random"))
    assert site.run(trials=3).returncode == 0, "sampler and budget may change while a search goes on"
    assert len(site.events("end")) == 3


def test_fresh_begins_anew_whatever_the_old_search_was(site):
    short = site.text.replace("best: 2, seeds: 3", "best: 1, seeds: 1").replace("{plain: {}}", "{}")
    site.write(short)
    with opened(str(site.folder / "runs/s/queue.journal"), load_sweep(site.folder / "s.yaml"), Lock(site.folder / "l")):
        pass
    objectives = "objectives: [{metric: facts/flops_per_frame, maximize: false}]"
    site.write(short.replace("objective: pck@0.1[clip]", objectives))
    assert "has other objectives" in site.run(trials=2).stderr
    done = site.run(trials=2, fresh=True)
    assert done.returncode == 0, done.stderr
    assert len(site.trials()) == 2


def test_a_study_belongs_to_one_folder(site):
    """Leases lie in the folder: who works in another would take up trials that run."""
    with opened(str(site.folder / "journal"), load_sweep(site.folder / "s.yaml"), Lock(site.folder / "lock")) as study:
        study.claim({PLACE: "one", "space": "a"})
        study.claim({PLACE: "another", "space": "b"})  # there is nothing in it yet
        assert study.ask() is not None
        study.claim({PLACE: "another", "space": "b"})
        with pytest.raises(BiposeError, match="belongs to another results folder"):
            study.claim({PLACE: "one", "space": "b"})
    mark = folder_mark(site.folder)
    assert mark == folder_mark(site.folder) != folder_mark(site.folder / "other")


def test_what_the_best_arms_are_is_kept_until_there_are_others(tmp_path):
    assert found_before(tmp_path) == ({}, {})
    (tmp_path / "sweep.json").write_text('{"best": [{"arm": "best1", "trial": 4}], "importances": {"lr": 1.0}}')
    assert found_before(tmp_path) == ({"best1": 4}, {"lr": 1.0})


@pytest.mark.slow
def test_a_baseline_on_other_data_is_refused(site):
    (site.folder / "more.txt").write_text("other data")
    site.write(site.text.replace("{plain: {}}", "{plain: {data: {reader: {init_args: {root: more}}}}}"))
    done = site.run(trials=1)
    assert done.returncode == 1
    assert "baselines: plain reads other data or boxes than the base" in done.stderr
    assert not site.events("start", "")


@pytest.mark.slow
def test_data_that_changed_are_refused(site):
    assert site.run(trials=1).returncode == 0
    (site.folder / "data.txt").write_text("changed")
    done = site.run()
    assert done.returncode == 1
    assert "was made from other data" in done.stderr


@pytest.mark.slow
def test_several_objectives_give_a_front(site):
    text = site.text.replace(
        "objective: pck@0.1[clip]",
        "objectives: [{metric: pck@0.1[clip]}, {metric: facts/flops_per_frame, maximize: false}]",
    )
    site.write(text.replace("pck@0.1[clip]}", '"pck@0.1[clip]"}').replace("best: 2", "best: 3"))
    done = site.run(trials=10)
    assert done.returncode == 0, done.stderr
    trials = site.trials()
    front = [b["trial"] for b in site.sweep()["best"]]
    for number in front:
        a = trials[number]["values"]
        assert not any(t["values"][0] >= a[0] and t["values"][1] <= a[1] and t["values"] != a for t in trials)
    assert set(site.sweep()["importances"]) == {"pck@0.1[clip]", "facts/flops_per_frame"}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "gp", "{name: gp, startup: 3}"])
def test_other_samplers(site, sampler):
    site.write(site.text.replace("{name: tpe, seed: 3, startup: 4}", sampler).replace("best: 2", "best: 1"))
    done = site.run(trials=5)
    assert done.returncode == 0, done.stderr
    assert len({key_of(t["params"]) for t in site.trials()}) == 5


@pytest.mark.slow
def test_finished_runs_as_a_baseline(site):
    arms = "{lstm: {model: {temporal: lstm}}, x: {model: {width: 8}}}"
    (site.folder / "m.yaml").write_text(f"question: a?\nname: old\nbase: base.yaml\narms: {arms}\nseeds: [0, 1, 9]\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from sweep_fake import BACKEND; from pathlib import Path\n"
        "from bipose_lit.ablation.engine import ablate\n"
        "sys.exit(ablate(Path('m.yaml'), backend=BACKEND.__class__(**{**vars(BACKEND), 'report': None}), workers=2))"
    )
    environment = {
        **os.environ,
        "FAKE_LOG": str(site.folder),
        "FAKE_SECONDS": "0.01",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run(
        [sys.executable, "-c", code, str(Path(__file__).parent)],
        cwd=site.folder,
        env=environment,
        check=True,
        capture_output=True,
    )
    site.write(site.text.replace("{plain: {}}", "{old: runs/old/lstm}"))
    plan = site.run(plan_only=True, trials=2)
    assert "up to 2 of them are finished elsewhere" in plan.stdout
    done = site.run(trials=2)
    assert done.returncode == 0, done.stderr
    assert site.events("start", "old/") == ["old/seed2"], "finished runs were repeated"
    taken = site.result("old/seed1")
    assert (taken["name"], taken["arm"]) == ("s", "old")
    there = json.loads((site.folder / "runs/old/lstm/seed1/result.json").read_text())
    assert taken["metrics"] == there["metrics"]
    site.write(site.text.replace("{plain: {}}", "{old: runs/old/lstm}"))
    (site.folder / "base.yaml").write_text(
        (site.folder / "base.yaml").read_text().replace("max_steps: 8", "max_steps: 9")
    )
    done = site.run(trials=2, out="other")
    assert done.returncode == 1
    assert "another training budget (trainer.max_steps: 8, here 9)" in done.stderr
    (site.folder / "base.yaml").write_text(
        (site.folder / "base.yaml").read_text().replace("max_steps: 9", "max_steps: 8")
    )
    (site.folder / "data.txt").write_text("changed")
    done = site.run(trials=2, out="other")
    assert done.returncode == 1
    assert "made on other data or boxes" in done.stderr
    (site.folder / "empty").mkdir()
    site.write(site.text.replace("{plain: {}}", "{old: empty}"))
    assert "holds no finished run" in site.run(trials=2, out="other").stderr


def test_a_searched_training_budget_beside_baselines_is_told(site):
    site.write(site.text.replace("space:\n", "space:\n  trainer.max_steps: [8, 16]\n", 1))
    done = site.run(plan_only=True)
    assert done.returncode == 0, done.stderr
    assert (
        "warning: the space searches trainer.max_steps: the best trials may have another training budget" in done.stderr
    )


def test_the_plan_runs_nothing_and_tells_the_cost(site):
    done = site.run(plan_only=True)
    assert done.returncode == 0, done.stderr
    assert not (site.folder / "runs").exists()
    assert "points: endless" in done.stdout
    assert "unknown until the first run is finished" in done.stdout
    assert "9 runs" in done.stdout
    site.run(seconds=0.05, trials=2)
    done = site.run(plan_only=True)
    assert "trials: 2 finished" in done.stdout
    assert "by 2 finished runs of this sweep" in done.stdout
    site.write(site.text.replace("question: Which", "name: other\nquestion: Which"))
    assert "runs of the same length in" in site.run(plan_only=True).stdout
    site.write(SMALL)
    assert "points: 12" in site.run(plan_only=True).stdout


def test_mistakes_on_the_command_line(site):
    assert "--workers must be at least 1" in site.run(workers=0).stderr
    assert "option 'modl' is not accepted" in site.run(options=["modl.lr=1"]).stderr
    assert "cannot open the queue nosuchdb://x" in site.run(storage="nosuchdb://x").stderr
    assert not site.events("start")


@pytest.mark.slow
def test_sqlite(site):
    site.write(SMALL)
    done = site.run(storage=f"sqlite:///{site.folder}/study.db")
    assert done.returncode == 0, done.stderr
    assert len(site.events("end")) == 12
    assert not (site.folder / "runs/s/queue.journal").exists()


@pytest.mark.slow
def test_makes_absent_data(site):
    site.write(yaml.safe_dump({**yaml.safe_load(SMALL), "make": {"clips": 3}}))
    assert site.run().returncode == 0
    assert (site.folder / "data").is_dir()


def test_jobs_do_not_begin_anew_one_after_the_other(site, capsys, monkeypatch):
    from bipose_lit.__main__ import main

    monkeypatch.chdir(site.folder)
    assert main(["sweep", "s.yaml", "--submit", "slurm", "--fresh"]) == 1
    assert "every job would begin the search anew" in capsys.readouterr().err
