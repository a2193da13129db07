"""The whole sweep over fake trials: what is killed, stopped or repeated changes nothing; one best point, one comparison."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from searches import SMALL

from bipose_lit.sweep.manifest import load_sweep
from bipose_lit.sweep.space import key_of


def wait_for(site, kind, count, seconds=60.0):
    end = time.monotonic() + seconds
    while len(site.events(kind)) < count:
        assert time.monotonic() < end, f"only {len(site.events(kind))} {kind} of {count}"
        time.sleep(0.01)


def told(done):
    """The trials by point: state and value."""
    return {key_of(t["params"]): (t["state"], t["values"]) for t in done}


def test_search_then_comparison_then_nothing(site):
    done = site.run()
    assert done.returncode == 0, done.stderr
    trials = site.trials()
    assert [t["state"] for t in trials] == ["finished"] * 8
    assert all(("model.width" in t["params"]) == (t["params"]["head"] != "none") for t in trials)
    sweep = site.sweep()
    order = sorted(trials, key=lambda t: -t["values"][0])
    assert [b["trial"] for b in sweep["best"]] == [order[0]["number"], order[1]["number"]]
    assert set(sweep["importances"]) <= set(sweep["space"])
    for rank, best in enumerate(order[:2], 1):
        search = json.loads((site.folder / "runs/s" / best["folder"] / f"seed{best['seeds'][0]}/spec.json").read_text())
        for seed in range(3):
            anew = json.loads((site.folder / f"runs/s/best{rank}/seed{seed}/spec.json").read_text())
            assert anew["score"] == ["val", "test"]
            same = [
                {**s["config"], "seed_everything": 0, "data": {**s["config"]["data"], "seed": 0}}
                for s in (search, anew)
            ]
            assert same[0] == same[1], "what is trained anew is not what was found"
        assert search["score"] == ["val"], "the search saw the test split"
    manifest = json.loads((site.folder / "runs/s/manifest.json").read_text())
    assert manifest["contrasts"] == [["best1", "plain"], ["best2", "plain"]]
    seeds = {int(p.name[4:]) for p in (site.folder / "runs/s/trials").glob("*/seed*")}
    assert seeds.isdisjoint(range(3)), "a seed of the search is no fresh one"
    before = len(site.events("start", ""))
    again = site.run()
    assert again.returncode == 0, again.stderr
    assert len(site.events("start", "")) == before == 8 + 9
    assert site.trials() == trials


@pytest.mark.slow
def test_a_grid_is_every_point_once(site):
    site.write(SMALL)
    done = site.run(workers=3)
    assert done.returncode == 0, done.stderr
    points = [key_of(p) for p in load_sweep(site.folder / "s.yaml").space.points()]
    assert sorted(key_of(t["params"]) for t in site.trials()) == sorted(points)
    assert len(site.events("end")) == len(points) == 12
    best = max(site.trials(), key=lambda t: t["values"][0])
    assert best["params"] == {"head": "bilstm", "model.lr": 0.01, "model.width": 16}
    assert "search alone" in done.stdout


@pytest.mark.slow
def test_one_worker_searches_alike_however_often_it_is_stopped(site):
    site.write(
        site.text.replace("retrain: {best: 2, seeds: 3}", "retrain: {best: 0}").replace("baselines: {plain: {}}", "")
    )
    site.run(workers=1, out="straight")
    for ends in (2, 4):
        process = site.start(seconds=0.2, workers=1)
        wait_for(site, "end", ends + 8)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = site.run(workers=1)
    assert done.returncode == 0, done.stderr
    straight = [(t["number"], t["params"], t["values"]) for t in site.trials("straight")]
    assert [(t["number"], t["params"], t["values"]) for t in site.trials()] == straight
    assert len(site.events("end")) == 16, "a trial was run twice to the end"


def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_workers_are_taken_up_from_their_checkpoints(site):
    site.write(SMALL)
    site.run(out="straight", workers=1)
    ends = len(site.events("end"))
    process = site.start(seconds=0.4, workers=2)
    killed = 0
    while process.poll() is None and killed < 6:
        wait_for(site, "step", len(site.events("step")) + 5)
        for pid in children(process.pid)[:1]:
            os.kill(pid, signal.SIGKILL)
            killed += 1
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err
    assert killed >= 4, "nobody was killed"
    assert len(site.events("resume")) >= 2, "nothing went on from a checkpoint"
    assert told(site.trials()) == told(site.trials("straight"))
    assert len(site.events("end")) - ends == 12
    assert "it is taken up again" in err


@pytest.mark.slow
def test_a_killed_start_leaves_trials_that_the_next_takes_up(site):
    site.write(SMALL)
    process = site.start(seconds=1.0)
    wait_for(site, "step", 8)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    first = set(site.events("start"))
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert set(site.events("resume")) == first, "the trials that ran were not taken up"
    assert sorted(t["number"] for t in site.trials()) == list(range(12))
    assert len(site.events("end")) == 12


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGUSR1])
def test_a_signal_drains(site, number):
    site.write(SMALL)
    process = site.start(seconds=2.0)
    wait_for(site, "step", 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert "interrupted" in err
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert site.events("resume"), "what was drained began anew"
    assert len(site.events("end")) == 12


@pytest.mark.slow
def test_two_starts_share_a_search(site):
    site.write(SMALL)
    both = [site.start(seconds=0.15, workers=1) for _ in range(2)]
    outs = [p.communicate(timeout=90) for p in both]
    assert [p.returncode for p in both] == [0, 0], outs
    assert len(site.events("end")) == 12
    assert len(site.trials()) == 12


@pytest.mark.slow
def test_what_was_tried_is_not_run_again(site):
    space = "space:\n  model.width: [8, 16]\n  model.lr: [0.1, 0.01]\n"
    start, end = site.text.index("space:"), site.text.index("objective:")
    site.write(
        site.text[:start] + space + site.text[end:].replace("trials: 8", "trials: 50").replace("best: 2", "best: 1")
    )
    done = site.run()
    assert done.returncode == 0, done.stderr
    trials = site.trials()
    own = [t for t in trials if "copied_from" not in t]
    assert len(own) == len({key_of(t["params"]) for t in own}) == 4, "four points are all there is"
    assert len(site.events("end")) == 4
    for trial in trials:
        if "copied_from" in trial:
            first = trials[trial["copied_from"]]
            assert (trial["params"], trial["values"], trial["state"]) == (
                first["params"],
                first["values"],
                first["state"],
            )


@pytest.mark.slow
def test_the_budget_is_not_overshot_and_can_be_raised(site):
    assert site.run(workers=5, trials=3).returncode == 0
    assert len(site.events("end")) == 3
    done = site.run(workers=5, trials=6)
    assert done.returncode == 0, done.stderr
    assert len(site.events("end")) == 6
    best = max(site.trials(), key=lambda t: t["values"][0])
    assert site.sweep()["best"][0]["trial"] == best["number"]
    assert site.result("best1/seed0")["metrics"]["val/pck@0.1[clip,clip-box]"] == pytest.approx(
        best["values"][0], abs=0.01
    )


@pytest.mark.slow
def test_hours_end_a_search(site):
    site.write(site.text.replace("trials: 8", "hours: 0.0005").replace("best: 2", "best: 1"))  # 1.8 s
    assert site.run(seconds=0.5, workers=1).returncode == 0
    count = len(site.events("end"))
    assert 1 <= count <= 5
    assert site.run(seconds=0.5, workers=1).returncode == 0
    assert len(site.events("end")) == count, "the pause between two starts was counted, or the budget forgotten"


@pytest.mark.slow
def test_several_runs_a_trial_count_by_their_mean(site):
    site.write(site.text.replace("objective:", "seeds: 3\nobjective:"))
    assert site.run(trials=2).returncode == 0
    for trial in site.trials():
        assert len(trial["seeds"]) == 3
        each = [
            site.result(f"{trial['folder']}/seed{s}")["metrics"]["val/pck@0.1[clip,clip-box]"] for s in trial["seeds"]
        ]
        assert len(set(each)) == 3
        assert trial["values"][0] == pytest.approx(sum(each) / 3)


def test_failed_trials_are_told_and_stop_nothing(site):
    site.write(
        site.text.replace("lstm: {model: {temporal: lstm}}", "lstm: {model: {temporal: lstm}, fake: {raise: line}}")
    )
    done = site.run()
    assert done.returncode == 0, done.stderr
    states = {t["params"]["head"]: t["state"] for t in site.trials()}
    assert states["lstm"] == "failed"
    assert states["bilstm"] == "finished"
    failed = [t for t in site.trials() if t["state"] == "failed"]
    assert all("training diverged" in t["error"] for t in failed)
    assert f"bipose: failed: {failed[0]['folder']}: training diverged" in done.stderr
    count = len(site.events("start"))
    site.run()
    assert len(site.events("start")) == count, "a failed trial was run again"
    (site.folder / "mended").touch()
    assert site.run(retry=True).returncode == 0
    assert len(site.events("start")) == count + len(failed), "not every failed trial was tried again, or more were"
    again = site.trials()[8:]
    assert sorted(key_of(t["params"]) for t in again) == sorted(key_of(t["params"]) for t in failed)
    assert {t["state"] for t in again} == {"finished"}
    assert site.run(retry=True).returncode == 0
    assert len(site.trials()) == 8 + len(failed)


@pytest.mark.slow
def test_a_trial_that_kills_its_process_fails_at_last(site):
    site.write(
        site.text.replace("lstm: {model: {temporal: lstm}}", "lstm: {model: {temporal: lstm}, fake: {die: true}}")
    )
    done = site.run(workers=1)
    assert done.returncode == 0, done.stderr
    failed = [t for t in site.trials() if t["state"] == "failed"]
    assert {t["params"]["head"] for t in failed} == {"lstm"}
    assert all("was killed by SIGKILL" in t["error"] for t in failed)


def test_a_wrong_objective_ends_the_sweep_at_once(site):
    site.write(site.text.replace("objective: pck@0.1[clip]", "objective: pck@0.3[clip]"))
    done = site.run(workers=1)
    assert done.returncode == 1
    assert "metric 'pck@0.3[clip]' fits none of: val/pck@0.1[clip,clip-box]" in done.stderr
    assert len(site.events("start")) == 1


@pytest.mark.parametrize(
    "pruner",
    [
        "median",
        pytest.param("{name: hyperband, factor: 2}", marks=pytest.mark.slow),
        pytest.param("{name: wilcoxon, p: 0.05}", marks=pytest.mark.slow),
    ],
)
def test_pruners_prune_what_is_bad(site, pruner):
    lr = "model.lr: {low: 1e-4, high: 1, log: true}"
    assert lr in site.text
    site.write(site.text.replace("objective:", f"pruner: {pruner}\nobjective:").replace("best: 2", "best: 1"))
    done = site.run(workers=1, trials=16)
    assert done.returncode == 0, done.stderr
    trials = site.trials()
    pruned = [t for t in trials if t["state"] == "pruned"]
    assert pruned, [t["state"] for t in trials]
    for trial in pruned:
        last = str(trial["pruned_at"])
        assert trial["values"] == [trial["intermediate"][last]], "a pruned trial keeps its last value"
        assert trial["pruned_at"] < 8
        result = site.result(f"{trial['folder']}/seed{trial['seeds'][0]}")
        assert result["status"] == "pruned"
        assert not any(name.startswith("test/") for name in result["metrics"])
    finished = [t for t in trials if t["state"] == "finished"]
    assert site.sweep()["best"][0]["trial"] == max(finished, key=lambda t: t["values"][0])["number"]
