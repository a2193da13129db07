"""What the best trials are set beside: a finished run taken as an arm keeps its configuration, by the real parser."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bipose_lit.ablation.manifest import load_manifest
from bipose_lit.ablation.plan import Plan
from bipose_lit.cli import resolve
from bipose_lit.store import RESULT, RunResult
from bipose_lit.sweep.compare import Baselines, comparison
from bipose_lit.sweep.manifest import Objective, load_sweep
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.sweep.record import ranked
from bipose_lit.sweep.study import Entry
from bipose_lit.sweep.turn import Search, Taken
from bipose_lit.types import BiposeError

FOLDER = Path(__file__).parents[2] / "experiments"
TEXT = f"""
question: a?
base: [{FOLDER}/base.yaml, {FOLDER}/trainer/heads.yaml]
space:
  head: {{overlays: {{none: null, tcn: {FOLDER}/temporal/tcn.yaml}}}}
  model.recipe.lr: {{low: 1e-4, high: 1, log: true}}
objective: pck@0.1[clip]
pruner: median
budget: {{trials: 3}}
retrain: {{best: 2, seeds: 2}}
baselines: {{old: OLD, plain: null}}
"""


@pytest.fixture
def site(tmp_path):
    """A sweep whose baseline `old` is a finished run of another ablation over another data folder."""
    (tmp_path / "ablation.yaml").write_text(
        f"question: b?\nname: before\nbase: [{FOLDER}/base.yaml, {FOLDER}/trainer/heads.yaml]\n"
        f"arms: {{lstm: [{FOLDER}/temporal/lstm.yaml, {{model: {{recipe: {{lr: 0.003}}}}}}]}}\nseeds: [1, 5]\n"
    )
    elsewhere = {"data.reader.init_args.root": "elsewhere", "data.num_workers": 2}
    before = Plan(load_manifest(tmp_path / "ablation.yaml"), tmp_path, resolve, options=elsewhere)
    for task in before.tasks.values():
        spec = before.bind(task)
        spec.save()
        RunResult(
            "before", "lstm", spec.seed, "finished", {"test/x": 0.5}, config_hash=spec.config_hash, data_fingerprint="f"
        ).save(spec.folder)
    (tmp_path / "s.yaml").write_text(TEXT.replace("OLD", str(tmp_path / "before/lstm")))
    return tmp_path


def plan_of(folder, **options):
    return SweepPlan(load_sweep(folder / "s.yaml"), folder / "runs", resolve, options)


def entry(number, value, **point):
    return Entry(number, "finished", {"head": "none", "model.recipe.lr": 0.01, **point}, (value,))


def test_a_finished_run_is_taken_over_where_it_is_the_same(site):
    plan = plan_of(site)
    baselines = Baselines(plan)
    manifest, best = comparison(plan, baselines, [entry(0, 0.3), entry(1, 0.5, head="tcn"), entry(2, 0.4)])
    assert best == {"best1": 1, "best2": 2}
    assert list(manifest.arms) == ["old", "plain", "best1", "best2"]
    assert manifest.contrasts == (("best1", "old"), ("best1", "plain"), ("best2", "old"), ("best2", "plain"))
    compared = Plan(manifest, plan.out, resolve)
    assert baselines.take_over(compared) == 1, "seed 1 alone is there and asked for"
    taken = RunResult.load(plan.folder / "old/seed1")
    assert (taken.name, taken.arm, taken.metrics) == ("s", "old", {"test/x": 0.5})
    assert compared.state_name("old/seed1") == "finished"
    assert compared.state_name("old/seed0") == "todo"
    assert baselines.take_over(compared) == 0
    assert compared.config("best1", {}) == plan.config({"head": "tcn", "model.recipe.lr": 0.01})


@pytest.mark.slow
def test_a_baseline_of_another_configuration_is_run_anew(site):
    spec = site / "before/lstm/seed1" / RESULT
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "config_hash": "0" * 16}))
    plan = plan_of(site)
    baselines = Baselines(plan)
    compared = Plan(comparison(plan, baselines, [entry(0, 0.3)])[0], plan.out, resolve)
    assert baselines.take_over(compared) == 0


def test_other_data_or_another_budget_are_refused(site):
    Baselines(plan_of(site)).check_data("f")
    with pytest.raises(BiposeError, match=r"old: .* was made on other data or boxes"):
        Baselines(plan_of(site)).check_data("g")
    with pytest.raises(BiposeError, match=r"training budget \(trainer.max_steps: 200, here 50\)"):
        Baselines(plan_of(site, **{"trainer.max_steps": 50}))
    with pytest.raises(BiposeError, match=r"training budget \(data.batch_size: 3, here 6\)"):
        Baselines(plan_of(site, **{"data.batch_size": 6}))


def test_baselines_given_as_files_train_on_the_same_budget(site):
    def baselines(overlay, space="model.recipe.lr:"):
        text = TEXT.replace("old: OLD, plain: null", f"plain: {overlay}")
        (site / "s.yaml").write_text(text.replace("model.recipe.lr:", space))
        return Baselines(plan_of(site))

    def check(overlay):
        found = baselines(overlay)
        return found.overlaid(Plan(found.plan.manifest(found.arms(), (0,)), found.plan.out, resolve))

    assert list(check("null")) == ["plain"]
    assert baselines("null").unequal() == []
    with pytest.raises(
        BiposeError, match=r"plain has another training budget than the base \(trainer.max_steps: 9, here 200\)"
    ):
        check("{trainer: {max_steps: 9}}")
    longer = "trainer.max_steps: [10, 20]\n  model.recipe.lr:"
    assert baselines("null", longer).unequal() == ["trainer.max_steps"]
    overlay = "longer: {overlays: {short: null, long: {trainer: {max_epochs: 9}}}}\n  model.recipe.lr:"
    assert baselines("null", overlay).unequal() == ["trainer.max_epochs"]


def test_ranks():
    def make(number, *values, state="finished", twin=None):
        return Entry(number, state, {}, values, attributes={} if twin is None else {"same_as": twin})

    one = SimpleNamespace(objectives=(Objective("a"),))
    entries = [make(0, 1.0), make(1, 3.0), make(2, 3.0, twin=1), make(3, 3.0), make(4, 9.0, state="pruned")]
    assert [e.number for e in ranked(one, entries)] == [1, 3, 0]
    one.objectives = (Objective("a", maximize=False),)
    assert [e.number for e in ranked(one, entries)] == [0, 1, 3]
    one.objectives = (Objective("a"), Objective("b", maximize=False))
    entries = [make(0, 1.0, 1.0), make(1, 2.0, 2.0), make(2, 1.5, 3.0), make(3, 2.0, 2.0), make(4, 0.5, 1.0)]
    assert [e.number for e in ranked(one, entries)] == [1, 3, 0]


def test_a_trial_that_dies_before_it_begins_ends_the_search(tmp_path):
    search = Search(SimpleNamespace(folder=tmp_path), None, "")
    assert [search.buried("trials/trial0000", "boom").status for _ in range(2)] == ["left", "left"]
    with pytest.raises(BiposeError, match="trials/trial0000: boom, 3 times in a row before"):
        search.buried("trials/trial0000", "boom")


def test_no_password_in_files(site):
    plan = plan_of(site)
    search = Search(plan, None, "postgresql://me:secret@host/db")
    (spec,) = plan.runs(0, {"head": "none", "model.recipe.lr": 0.1})
    words = search._judge(Taken(entry(0, 0.1), None, False, (spec,)), spec, 0)
    assert "secret" not in json.dumps(words)
    assert words["storage"].startswith("postgresql://me:")
    assert words["steps"] == 200
    assert search._judge(Taken(entry(0, 0.1), None, False, (spec,)), replace(spec), 1)["seed_index"] == 1
