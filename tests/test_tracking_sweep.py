"""A sweep in W&B: every trial one run of the group, whoever took it up; the best ones and the baselines are marked."""

import json
import time
from pathlib import Path

import pytest
from fake_wandb import FakeRun, FakeService
from test_tracking import METRIC, make_run, records
from test_tracking_online import service, steps  # noqa: F401

from bipose_lit import tracking
from bipose_lit.store import RunResult, RunSpec
from bipose_lit.tracking.roles import Roles
from bipose_lit.types import BiposeError

NAME = "search"
VALUE = "val/pck@0.1[clip,clip-box]"


def write_sweep(out: Path, trials: list[dict], seeds: int = 1, **told) -> Path:
    folder = out / NAME
    folder.mkdir(parents=True, exist_ok=True)
    sweep = {
        "name": NAME,
        "objectives": [{"metric": "pck@0.1[clip]", "maximize": True}],
        "baselines": ["none"],
        "retrain": {"best": 1, "seeds": 2},
        "seeds": seeds,
        **told,
    }
    (folder / "sweep.json").write_text(json.dumps(sweep))
    (folder / "trials.json").write_text(json.dumps(trials))
    return folder


def make_trial(out: Path, arm: str, seed: int = 0, status: str = "finished", steps: int = 5, **told) -> Path:
    """A run of the sweep, made of a run of an ablation; status "running" leaves no result."""
    source = make_run(out.parent / "pattern", steps=steps)
    folder = out / NAME / arm / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.yaml", "history.jsonl", "predictions-test.npz"):
        (folder / name).write_bytes((source / name).read_bytes())
    RunSpec(NAME, arm, seed, folder, {"model": {"hidden": 7}}, config_hash=f"hash of {arm}").save()
    if status != "running":
        RunResult(
            NAME, arm, seed, status, config_hash=f"hash of {arm}", predictions={"val": "predictions-test.npz"}, **told
        ).save(folder)
    return folder


def trial(number: int, state: str, value: float | None, **params) -> dict:
    values = [] if value is None else [value]
    return {"number": number, "state": state, "params": params, "values": values, "folder": f"trials/trial{number:04d}"}


def small_sweep(out: Path) -> Path:
    make_trial(out, "trials/trial0000", metrics={VALUE: 0.5})
    make_trial(out, "trials/trial0001", metrics={VALUE: 0.9})
    make_trial(out, "trials/trial0002", status="pruned", metrics={VALUE: 0.2}, facts={"pruned_at": 40})
    make_trial(out, "trials/trial0003", status="failed", error="the loss is NaN at step 12")
    make_trial(out, "trials/trial0004", status="running", steps=3)
    make_trial(out, "trials/trial0005", status="running")  # its process died without a word, once too often
    for seed in range(2):
        make_trial(out, "best1", seed, metrics={METRIC: 0.8})
        make_trial(out, "none", seed, metrics={METRIC: 0.6})
    return write_sweep(
        out,
        [
            trial(0, "finished", 0.5, **{"model.recipe.lr": 0.01, "head": "lstm"}),
            trial(1, "finished", 0.9, **{"model.recipe.lr": 0.001, "head": "bilstm"}),
            trial(2, "pruned", 0.2, **{"model.recipe.lr": 0.1}),
            trial(3, "failed", None),
            trial(4, "running", None),
            trial(5, "failed", None) | {"error": "its process was killed"},
            trial(6, "finished", 0.9) | {"folder": "trials/trial0001", "copied_from": 1},
        ],
    )


def by_name(service: FakeService) -> dict[str, FakeRun]:  # noqa: F811
    return {run.last("displayName"): run for run in service.runs.values()}


def test_every_trial_is_a_run_of_the_group(service: FakeService, tmp_path: Path) -> None:  # noqa: F811
    folder = small_sweep(tmp_path / "out")
    assert len(tracking.mirror_all(folder)) == 10
    runs = by_name(service)
    assert sorted(runs) == [
        "best1/seed0", "best1/seed1", "none/seed0", "none/seed1", *(f"trial000{i}" for i in range(6))
    ]  # fmt: skip
    assert {run.last("groupName") for run in runs.values()} == {NAME}
    assert {name: run.last("jobType") for name, run in runs.items() if name.startswith("trial")} == dict.fromkeys(
        [f"trial000{i}" for i in range(6)], "trial"
    )
    assert {name: run.last("tags") for name, run in runs.items() if run.last("tags")} == {
        "trial0001": ["best"], "best1/seed0": ["best"], "best1/seed1": ["best"],
        "none/seed0": ["baseline"], "none/seed1": ["baseline"],
    }  # fmt: skip
    best = runs["trial0001"]
    assert best.config["sweep/params"] == {"model.recipe.lr": 0.001, "head": "bilstm"}
    assert best.config["model"] == {"hidden": 7}
    assert best.summary["objective/pck_0_1_clip"] == 0.9
    states = {name: run.summary["state"] for name, run in runs.items() if name.startswith("trial")}
    assert list(dict(sorted(states.items())).values()) == [
        "finished",
        "finished",
        "pruned",
        "failed",
        "running",
        "failed",
    ]
    assert runs["trial0002"].summary["pruned_at"] == 40
    assert runs["trial0003"].summary["error"] == "the loss is NaN at step 12"
    assert (runs["trial0002"].exits, runs["trial0003"].exits) == ([0], [1])
    assert runs["trial0004"].preempting
    assert (runs["trial0005"].summary["error"], runs["trial0005"].exits) == ("its process was killed", [1])
    handed = {service.runs[a.run].last("displayName") for a in service.artifacts.values() if a.kind == "predictions"}
    assert handed == {"trial0001", "best1/seed0", "best1/seed1", "none/seed0", "none/seed1"}
    shown = {name for name, run in runs.items() if any("clusters" in file for file in run.files)}
    assert shown == handed


def test_a_trial_that_was_taken_up_is_one_run(service: FakeService, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    make_trial(out, "trials/trial0000", status="running", steps=4)
    folder = write_sweep(out, [trial(0, "running", None, lr=1)])
    tracking.mirror_all(folder)
    (run,) = service.runs.values()
    assert steps(run.rows) == [0, 10, 20], "the last step may not be complete"
    tracking.mirror_all(folder)
    assert len(run.upserts) == 2, "nothing new, nothing sent"
    make_trial(out, "trials/trial0000", steps=6, metrics={VALUE: 0.9})
    write_sweep(out, [trial(0, "finished", 0.9, lr=1)])
    tracking.mirror_all(folder)
    assert list(service.runs.values()) == [run]
    assert steps(run.rows) == [0, 10, 20, 30, 40, 50, 51]
    assert (run.overwritten, run.summary["state"], run.exits[-1]) == ([], "finished", 0)


def test_the_same_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "out"
    run = make_trial(out, "trials/trial0000", status="running", steps=4)
    folder = write_sweep(out, [trial(0, "running", None, lr=1)])
    (first,) = tracking.mirror_all(folder)
    time.sleep(1.1)  # W&B names its folders by the second
    make_trial(out, "trials/trial0000", steps=6, metrics={VALUE: 0.9})
    write_sweep(out, [trial(0, "finished", 0.9, lr=1)])
    (second,) = tracking.mirror_all(folder)
    assert not first.exists()
    assert [p.name for p in (run / "wandb").glob("offline-run-*")] == [second.name]
    found = records(second)
    opened = next(r["run"] for r in found if r["type"] == "run")
    assert (opened["run_group"], opened["job_type"], opened["display_name"]) == (NAME, "trial", "trial0000")
    assert [r["history"]["step"]["num"] for r in found if r["type"] == "history"] == [0, 10, 20, 30, 40, 50, 51]


def test_the_best_are_those_that_were_trained_anew(tmp_path: Path) -> None:
    folder = small_sweep(tmp_path / "out")
    told = json.loads((folder / "sweep.json").read_text())
    (folder / "sweep.json").write_text(json.dumps(told | {"best": [{"arm": "best1", "trial": 0}]}))
    run = folder / "trials/trial0000/seed0"
    assert Roles().of(run, RunSpec.load(run / "spec.json"), RunResult.load(run)).tags == ("best",)


def test_trials_of_several_runs_and_several_objectives(service: FakeService, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / "out"
    for number in range(3):
        for seed in (11, 12):
            make_trial(out, f"trials/trial{number:04d}", seed)
    objectives = [{"metric": "pck@0.1[clip]", "maximize": True}, {"metric": "measured/ms_per_frame", "maximize": False}]
    rows = [trial(i, "finished", None) for i in range(3)]
    for row, values in zip(rows, ([0.9, 5.0], [0.8, 1.0], [0.7, 2.0]), strict=True):
        row["values"] = values
    folder = write_sweep(out, rows, seeds=2, objectives=objectives)
    tracking.mirror_all(folder)
    runs = by_name(service)
    assert sorted(runs) == [f"trial000{i}/seed{s}" for i in range(3) for s in (11, 12)]
    assert runs["trial0001/seed12"].summary["objective/measured_ms_per_frame"] == 1.0
    best = {name for name, run in runs.items() if run.last("tags") == ["best"]}
    assert best == {name for name in runs if not name.startswith("trial0002")}, "nothing beats these in both"


def test_a_damaged_run_costs_nobody_else(service: FakeService, tmp_path: Path) -> None:  # noqa: F811
    for number in range(5):
        make_trial(tmp_path / "out", f"trials/trial000{number}")
    result = tmp_path / "out" / NAME / "trials/trial0003/seed0/result.json"
    result.write_text("{")
    sums = result.parents[2] / "trial0004/seed0/result.json"
    sums.write_text(json.dumps({**json.loads(sums.read_text()), "clusters": {"val": {"endpoint": 3}}}))
    damaged = tmp_path / "out" / NAME / "trials/trial0001/seed0/history.jsonl"
    damaged.write_text("no row\n{}\n")
    with pytest.raises(BiposeError, match=r"trial0001/seed0/history\.jsonl:1 .* \(2 of 5 runs are mirrored\)"):
        tracking.mirror_all(tmp_path / "out", predictions=True)
    with pytest.raises(BiposeError, match=r"trial0004/seed0/result\.json: sums by cluster cannot be read"):
        tracking.mirror(sums.parent, predictions=True)
    assert sorted(by_name(service)) == ["trial0000", "trial0002"]


@pytest.mark.parametrize("text", ["[", '{"trials": 3}', '[1, {"number": "x"}]'])
def test_a_sweep_without_readable_files_still_shows_its_trials(
    service: FakeService,  # noqa: F811
    tmp_path: Path,
    text: str,
) -> None:
    make_trial(tmp_path / "out", "trials/trial0000")
    folder = write_sweep(tmp_path / "out", [])
    (folder / "trials.json").write_text(text)
    tracking.mirror_all(folder)
    (run,) = service.runs.values()
    assert (run.last("displayName"), run.summary["state"]) == ("trial0000", "finished")
