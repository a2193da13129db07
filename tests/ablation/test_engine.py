"""The engine over fake runs: nothing twice, nothing lost, whoever is killed when."""

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from bipose_lit.ablation.keys import data_key, shared_key
from bipose_lit.ablation.queue import PLACE, Queue
from bipose_lit.ablation.start import data_root
from bipose_lit.store import config_hash, is_unhashed
from bipose_lit.types import BiposeError

ALL = ["bilstm/seed0", "bilstm/seed1", "lstm/seed0", "lstm/seed1", "none/seed0", "none/seed1"]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_runs_all_then_nothing(site):
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert sorted(site.events("end")) == ALL
    assert "the table of m" in done.stdout
    assert "report.html" in done.stdout
    results = site.results()
    assert sorted(results) == ALL
    assert all(r["status"] == "finished" and r["facts"]["threads"] == "1" for r in results.values())
    again = site.run()
    assert again.returncode == 0
    assert len(site.events("start")) == 6
    assert site.results() == results
    assert len(site.events("prepare")) == 1


def test_workers_do_not_matter(site):
    site.run(workers=1, out="one")
    site.run(workers=5, out="five")
    assert site.results("one") == site.results("five")


def test_plan_runs_nothing(site):
    done = site.run(plan_only=True)
    assert done.returncode == 0
    assert "6 todo" in done.stdout
    assert "1.000 GB" in done.stdout
    assert "10 steps" in done.stdout
    assert not (site.folder / "runs").exists()
    site.run(arms=["none"])
    done = site.run(plan_only=True)
    assert "2 finished, 4 todo" in done.stdout
    assert "about 0.1 s" in done.stdout  # four runs of 0.05 s on two workers


def test_kill_the_group_at_any_moment(site):
    site.run(out="straight")
    for delay in (0.0, 0.1, 0.25):
        before = len(site.events("start"))
        process = site.start(seconds=0.2)
        end = time.monotonic() + 60
        while len(site.events("start")) == before and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert len(site.events("start")) > len(site.events("end")), "no run was killed half-way"
    assert site.results() == site.results("straight")
    ends = site.events("end")
    assert len(ends) == 12, "a finished run was repeated"
    for path in (site.folder / "runs" / "m").rglob("history.jsonl"):
        assert len(path.read_text().splitlines()) == 10, "rests of an interrupted run were kept"


def test_children_die_with_the_parent(site):
    process = site.start(seconds=30)
    end = time.monotonic() + 10
    while len(site.events("start")) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    pids = [
        int(line.split()[-1])
        for line in (site.folder / "events.log").read_text().splitlines()
        if line.startswith("start")
    ]
    assert len(pids) == 2
    assert all(map(alive, pids))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(0.2)
    assert not any(map(alive, pids))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_is_clean(site, number, code):
    process = site.start(seconds=30)
    end = time.monotonic() + 10
    while len(site.events("start")) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    start = time.monotonic()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == code
    assert time.monotonic() - start < 5
    assert "interrupted" in err
    assert "Traceback" not in err
    assert site.results() == {}


def test_two_starts_share_the_work(site):
    first, second = site.start(seconds=0.3), site.start(seconds=0.3)
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert sorted(site.events("start")) == ALL
    assert sorted(site.events("end")) == ALL


def test_two_starts_with_queues_of_their_own(site):
    first, second = site.start(seconds=0.3, storage="a.journal"), site.start(seconds=0.3, storage="b.journal")
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert sorted(site.events("start")) == ALL


def test_sqlite_queue(site):
    done = site.run(storage=f"sqlite:///{site.folder}/queue.db")
    assert done.returncode == 0, done.stderr
    assert sorted(site.events("end")) == ALL
    assert not (site.folder / "runs" / "m" / "queue.journal").exists()


def test_two_folders_on_one_storage_do_their_own_work(site):
    url = f"sqlite:///{site.folder}/queue.db"
    both = [site.start(storage=url, out=out) for out in ("one", "two")]
    outs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert len(site.events("start")) == len(site.events("end")) == 12
    assert site.results("one") == site.results("two") != {}
    with Queue(url, "m") as queue:
        trials = queue.study.get_trials()
        assert [e.state for e in queue.entries()] == ["done"] * 12, "one folder took the other's entries"
    assert sorted(Counter(t.user_attrs[PLACE] for t in trials).values()) == [6, 6]


def test_unusable_queue_is_one_line(site):
    done = site.run(storage="nosuchdb://x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("bipose: error: cannot open the queue nosuchdb://x")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("{raise: line}", "the data ran out; add some"),
        ("{raise: trace}", "ValueError: tensors of size 3 and 4 do not match"),
        ("{die: true}", "was killed by SIGKILL (out of memory?)"),
    ],
)
def test_a_failed_run_stops_no_other_and_is_repeated(site, how, told):
    site.write(site.text.replace("lstm: {model: {temporal: lstm}}", f"lstm: {{fake: {how}}}"))
    done = site.run(workers=1)
    assert done.returncode == 1
    failures = [line for line in done.stderr.splitlines() if line.startswith("bipose: failed: lstm/seed")]
    assert len(failures) == 2
    assert all(told in line for line in failures)
    assert "2 of 6 runs are not finished" in done.stderr
    assert sorted(site.events("end")) == [k for k in ALL if not k.startswith("lstm")]
    result = site.results()["lstm/seed0"]
    assert result["status"] == "failed"
    assert told in result["error"]
    tries = 3 if "die" in how else 1  # a killed process says nothing about its run, unless it is killed again and again
    assert len(site.events("start")) == 4 + 2 * tries, "a failed run was tried twice in one session"
    (site.folder / "mended").touch()
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert sorted(site.events("end")) == ALL


def test_all_failing_still_ends(site):
    site.write(site.text.replace("none: {}", "none: {fake: {raise: line}}").replace("seeds: 2", "seeds: 1"))
    done = site.run(arms=["none"])
    assert done.returncode == 1
    assert "bipose: failed: none/seed0: the data ran out" in done.stderr


def test_shared_preparation_that_fails_ends_at_once(site):
    site.write(site.text.replace("none: {}", "none: {fake: {unprepared: true}}"))
    done = site.run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "bipose: error: no pictures to make features of"
    assert site.events("start") == []


def test_full_mode_prepares_nothing(site):
    site.write(site.text + "mode: full\n")
    assert site.run().returncode == 0
    assert site.events("prepare") == []
    assert site.results()["none/seed0"]["facts"]["tags"] == ["full"]


def test_another_configuration_is_no_finished_run(site):
    site.run()
    done = site.run(options=["model.width=8"])
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "was made with another configuration (model.width: 4 there, 8 now) (and 5 more)" in last
    assert "--fresh" in last
    assert len(site.events("start")) == 6
    done = site.run(options=["model.width=8"], fresh=True)
    assert done.returncode == 0, done.stderr
    assert len(site.events("end")) == 12
    assert site.run(options=["model.width=8"]).returncode == 0
    assert len(site.events("end")) == 12


def test_changed_data_are_seen(site):
    site.run()
    (site.folder / "data.txt").write_text("changed")
    done = site.run()
    assert done.returncode == 1
    assert "was made from other data" in done.stderr


def test_arms_that_read_other_folders_are_prepared_and_looked_at_apart(site):
    other = "{model: {temporal: lstm}, data: {reader: {init_args: {root: more}}}}"
    site.write(site.text.replace("{model: {temporal: lstm}}", other))
    assert site.run().returncode == 0
    assert len(site.events("prepare")) == 2
    (site.folder / "more.txt").write_text("changed")
    done = site.run()
    assert done.returncode == 1
    assert "m/lstm/seed0 was made from other data" in done.stderr


@pytest.mark.parametrize("reader", ["reader", "train_reader"])
@pytest.mark.parametrize("key", [data_key, shared_key])
def test_keys_of_data_depend_on_its_folders(reader, key):
    def config(root: str) -> dict:
        return {"data": {"reader": {"class_path": "x.Y"}, reader: {"class_path": "x.Y", "init_args": {"root": root}}}}

    assert key(config("a")) == key(config("./a")) != key(config("b"))
    assert config_hash(config("a")) == config_hash(config("b"))


def wrapped(reader: dict, times: int = 1) -> dict:
    for _ in range(times):
        reader = {"class_path": "x.Wrapper", "init_args": {"reader": reader, "hidden": 0.5}}
    return reader


@pytest.mark.parametrize("reader", ["reader", "train_reader"])
@pytest.mark.parametrize("times", [1, 3])
def test_identity_sees_through_wrappers(reader, times):
    def config(root: str, inner: dict | None = None, hidden: float = 0.5) -> dict:
        outer = wrapped({"class_path": "x.Y", "init_args": {"root": root, **(inner or {})}}, times)
        outer["init_args"]["hidden"] = hidden
        return {"data": {"reader": {"class_path": "x.Y"}, reader: outer}}

    for key in (data_key, shared_key):
        assert key(config("a")) == key(config("./a")) != key(config("b"))
    assert config_hash(config("a")) == config_hash(config("b", {"strict": False}))
    assert config_hash(config("a")) == config_hash(config("a", {"cache": False}))
    assert config_hash(config("a")) != config_hash(config("a", {"split": 2}))
    assert config_hash(config("a")) != config_hash(config("a", hidden=0.4))
    if reader == "reader":
        assert data_root(config("a")) == Path("a")
        with pytest.raises(BiposeError, match="has no root"):
            data_root({"data": {"reader": wrapped({"class_path": "x.Y"}, times)}})


def test_only_readers_within_readers_are_unhashed():
    def config(value: str) -> dict:
        return {"data": {"other": {"init_args": {"reader": {"init_args": {"root": value}}}}}}

    assert config_hash(config("a")) != config_hash(config("b"))
    assert not is_unhashed("data.readers.init_args.reader.init_args.root")
    assert not is_unhashed("x.data.reader.init_args.reader.init_args.root")
    assert is_unhashed("data.train_reader.init_args.reader.init_args.strict")


def test_hashes_of_plain_readers_stay():
    """Hashes on disk were made by an earlier version."""
    reader = {
        "class_path": "bipose_lit.datasets.jhmdb.JHMDB",
        "init_args": {"root": "data", "split": 1, "strict": True},
    }
    config = {"data": {"reader": reader, "num_workers": 3, "batch_size": 8}, "trainer": {"max_steps": 5}}
    assert config_hash(config) == "40d034da48f0346a"


def test_places_do_not_change_the_hash(site):
    site.run()
    base = (site.folder / "base.yaml").read_text()
    (site.folder / "base.yaml").write_text(base.replace("root: data", "root: elsewhere"))
    assert site.run().returncode == 0
    assert len(site.events("start")) == 6


def test_more_seeds_keep_the_finished_ones(site):
    site.run()
    done = site.run(seeds=3)
    assert done.returncode == 0
    assert len(site.events("start")) == 9


def test_unknown_endpoint_ends_the_ablation(site):
    site.write(site.text + "endpoint: pck@0.3[clip]\n")
    done = site.run(workers=1)
    assert done.returncode == 1
    assert "metric 'pck@0.3[clip]' fits none of: test/pck@0.1[clip,clip-box]" in done.stderr.splitlines()[-1]
    assert len(site.events("start")) == 1


def test_stage_one_per_seed(site):
    (site.folder / "stage1.yaml").write_text("model: {width: 2}\n")
    site.write(site.text + "stage1: per_seed\nstage1_config: stage1.yaml\n")
    done = site.run()
    assert done.returncode == 0, done.stderr
    results = site.results()
    assert sorted(results) == sorted([*ALL, "stage1/seed0", "stage1/seed1"])
    assert results["stage1/seed0"]["facts"]["score"] == ["val"]
    order = (site.folder / "events.log").read_text().splitlines()
    for seed in (0, 1):
        stage1 = next(i for i, line in enumerate(order) if line.startswith(f"end stage1/seed{seed}"))
        first = next(i for i, line in enumerate(order) if line.startswith("start none") and f"seed{seed}" in line)
        assert stage1 < first
        config = json.loads((site.folder / f"runs/m/none/seed{seed}/spec.json").read_text())["config"]
        assert config["model"]["weights"].endswith(f"m/stage1/seed{seed}/weights.safetensors")
    assert results["none/seed0"]["config_hash"] != results["none/seed1"]["config_hash"]
    before = len(site.events("start"))
    assert site.run().returncode == 0
    assert len(site.events("start")) == before


def test_a_failed_stage_one_blocks_its_arms_alone(site):
    (site.folder / "stage1.yaml").write_text("fake: {raise: line}\n")
    site.write(site.text + "stage1: per_seed\nstage1_config: stage1.yaml\n")
    done = site.run()
    assert done.returncode == 1
    assert "bipose: failed: stage1/seed0: the data ran out" in done.stderr
    assert "bipose: not run: none/seed0, lstm/seed0, bilstm/seed0: for stage1/seed0" in done.stderr


def test_given_weights_count_by_content(site):
    weights = site.folder / "w.safetensors"
    weights.write_text("one")
    site.write(site.text + "weights: w.safetensors\n")
    site.run()
    moved = site.folder / "other.safetensors"
    weights.rename(moved)
    site.write(site.text + "weights: other.safetensors\n")
    assert site.run().returncode == 0
    assert len(site.events("start")) == 6
    moved.write_text("two")
    done = site.run()
    assert done.returncode == 1
    assert "the weights it starts from have changed" in done.stderr


TUNE = """
tune:
  trials: 3
  metric: "pck@0.1[clip]"
  space: {model.lr: {low: 1e-4, high: 1e-1, log: true}}
  arms: {lstm: {model.hidden: [8, 16]}}
"""


def test_tuning_is_equal_and_uses_its_best(site):
    site.write(site.text + TUNE)
    done = site.run()
    assert done.returncode == 0, done.stderr
    results = site.results()
    trials = {arm: [k for k in results if k.startswith(f"tune/{arm}/")] for arm in ("none", "lstm", "bilstm")}
    assert {arm: len(t) for arm, t in trials.items()} == {"none": 3, "lstm": 3, "bilstm": 3}
    for arm, keys in trials.items():
        assert all(results[k]["facts"]["score"] == ["val"] for k in keys), "tuning saw the test split"
        values = {k: results[k]["metrics"]["val/pck@0.1[clip,clip-box]"] for k in keys}
        winner = max(values, key=values.get)
        lr = json.loads((site.folder / "runs/m" / winner / "spec.json").read_text())["config"]["model"]["lr"]
        for seed in (0, 1):
            spec = json.loads((site.folder / f"runs/m/{arm}/seed{seed}/spec.json").read_text())
            assert spec["config"]["model"]["lr"] == lr
    rates = [
        {json.loads((site.folder / "runs/m" / k / "spec.json").read_text())["config"]["model"]["lr"] for k in t}
        for t in trials.values()
    ]
    assert rates[0] == rates[1] == rates[2]
    assert site.run().returncode == 0
    assert len(site.events("start")) == 15


def test_killed_tuning_ends_the_same(site):
    site.write(site.text + TUNE)
    site.run(out="straight")
    for delay in (0.5, 0.8):
        process = site.start(seconds=0.15)
        time.sleep(delay)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert site.run().returncode == 0
    assert site.results() == site.results("straight")


def test_a_failed_tuning_trial_counts_as_the_worst(site):
    """Its arm runs with the best of the others; a later start leaves it so, since the runs are made."""
    site.write(site.text.replace("{model: {temporal: lstm}}", "{model: {temporal: lstm}, fake: {above: 0.01}}") + TUNE)
    done = site.run()
    assert done.returncode == 0, done.stderr
    results = site.results()
    trials = {k: r for k, r in results.items() if k.startswith("tune/lstm/")}
    failed = [k for k, r in trials.items() if r["status"] == "failed"]
    assert 1 <= len(failed) < 3
    for key in failed:
        assert f"tuning trial {key} failed and counts as the worst: the loss is not a number" in done.stderr
    values = {k: r["metrics"]["val/pck@0.1[clip,clip-box]"] for k, r in trials.items() if k not in failed}
    winner = max(values, key=values.get)
    lr = json.loads((site.folder / "runs/m" / winner / "spec.json").read_text())["config"]["model"]["lr"]
    for seed in (0, 1):
        spec = json.loads((site.folder / f"runs/m/lstm/seed{seed}/spec.json").read_text())
        assert spec["config"]["model"]["lr"] == lr
    starts = len(site.events("start"))
    (site.folder / "mended").touch()
    assert site.run().returncode == 0
    assert len(site.events("start")) == starts


def test_a_failed_tuning_trial_is_tried_again_before_its_arm_runs(site):
    site.write(site.text.replace("{model: {temporal: lstm}}", "{model: {temporal: lstm}, fake: {above: 0.01}}") + TUNE)
    process = site.start(seconds=0.3, workers=1, arms=["lstm"])
    end = time.monotonic() + 60
    while sum(k.startswith("tune/lstm") for k in site.results()) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    failed = [k for k, r in site.results().items() if r["status"] == "failed"]
    assert failed
    (site.folder / "mended").touch()
    assert site.run(arms=["lstm"]).returncode == 0
    assert {k for k, r in site.results().items() if r["status"] == "finished"} >= {*failed, "lstm/seed0", "lstm/seed1"}
    order = (site.folder / "events.log").read_text().splitlines()
    last = max(i for i, line in enumerate(order) if line.startswith("end tune/lstm"))
    first = min(i for i, line in enumerate(order) if line.startswith("end lstm/"))
    assert last < first, "an arm ran while a trial of its tuning was tried again"


def test_a_tuning_of_which_all_trials_fail_is_one_line(site):
    site.write(site.text.replace("{model: {temporal: lstm}}", "{model: {temporal: lstm}, fake: {raise: line}}") + TUNE)
    done = site.run()
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("bipose: not run")]
    assert lines == [
        "bipose: not run: lstm/seed0, lstm/seed1: arm lstm: tuning: pck@0.1[clip] is not a number in any of the 3 trials "
        "(they failed or diverged); mend the space"
    ]
    assert "Traceback" not in done.stderr
    assert {k.split("/")[0] for k, r in site.results().items() if r["status"] == "finished"} == {
        "none",
        "bilstm",
        "tune",
    }


def test_never_silent(site):
    process = site.start(seconds=1.5, every=0.3, arms=["none"], seeds=1)
    gaps, last = [], time.monotonic()
    for _ in process.stderr:
        now = time.monotonic()
        gaps.append(now - last)
        last = now
    process.communicate()
    assert process.returncode == 0
    assert len(gaps) >= 5
    assert max(gaps[1:]) < 0.8


def test_makes_absent_data(site):
    site.write(site.text + "make: {clips: 3}\n")
    assert site.run().returncode == 0
    assert (site.folder / "data").is_dir()


def test_mistaken_arm_and_workers(site):
    assert "no arm 'lsm' in m.yaml; did you mean lstm?" in site.run(arms=["lsm"]).stderr
    assert "--workers must be at least 1" in site.run(workers=0).stderr
    assert "will be slower than --workers" in site.run(workers=64, seeds=64, plan_only=True).stderr
    assert "write KEY=VALUE" in site.run(options=["model.width"]).stderr


@pytest.mark.parametrize("wrong", [{"arms": ["lsm"]}, {"options": ["model.width"]}, {"out": "m.yaml"}])
def test_what_needs_no_library_is_told_before_any_is_loaded(site, wrong):
    done = site.run(**wrong)
    assert done.returncode == 1
    assert "loading libraries" not in done.stderr


def test_a_place_that_is_no_folder(site):
    told = "m.yaml is no folder; give another place"
    assert told in site.run(out="m.yaml").stderr
    assert told in site.run(out="m.yaml/deeper").stderr


def test_a_dashboard_out_of_reach_loses_nothing(site):
    (site.folder / "no_dashboard").touch()
    done = site.run()
    assert done.returncode == 0, done.stderr
    assert "bipose: warning: W&B cannot be reached" in done.stderr + done.stdout
    assert "the table of m" in done.stdout
    (site.folder / "no_dashboard").unlink()
    assert site.run().returncode == 0
    assert len(site.events("mirror")) == 1
    assert site.run(wandb=False).returncode == 0
    assert len(site.events("mirror")) == 1
