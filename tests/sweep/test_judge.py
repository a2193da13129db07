"""Pruning decisions: what Optuna's pruners say of what was reported, and Wilcoxon over clips against SciPy's own test."""

import numpy as np
import optuna
import pytest
import scipy.stats
from optuna.trial import TrialState, create_trial

from bipose_lit.sweep.judge import JudgeSpec, make_judge, prune_by_clusters
from bipose_lit.sweep.tools import complete, make_pruner
from bipose_lit.types import BiposeError

CLIPS = [f"clip{i:02d}" for i in range(20)]


def clips(mean, seed):
    return dict(zip(CLIPS, (mean + 0.1 * np.random.default_rng(seed).standard_normal(20)).tolist(), strict=True))


def study_with(*trials, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler())
    for value, by_step in trials:
        study.add_trial(create_trial(value=value, user_attrs={f"clusters/{s}": c for s, c in by_step.items()}))
    return study


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_wilcoxon_compares_with_the_best_at_the_same_validation(direction, sign):
    best = {10: clips(sign * 0.5, 0), 20: clips(sign * 0.9, 1)}
    other = {10: clips(sign * 0.1, 2)}
    study = study_with((sign * 0.9, best), (sign * 0.2, other), direction=direction)
    words = {"name": "wilcoxon", "p": 0.05}
    for shift in (-0.2, -0.05, -0.02, 0.0, 0.1):
        mine = clips(sign * (0.5 + shift), 3)
        difference = [sign * (mine[c] - best[10][c]) for c in CLIPS]
        p = scipy.stats.wilcoxon(difference, alternative="less", zero_method="zsplit").pvalue
        expected = p < 0.05 and np.mean(difference) < 0
        assert prune_by_clusters(study, 10, mine, words) == expected
    assert not prune_by_clusters(study, 20, clips(sign * 0.9, 4), words)
    assert prune_by_clusters(study, 20, clips(sign * 0.5, 4), words), "judged by an earlier validation of the best"
    assert not prune_by_clusters(study, 30, clips(sign * 0.0, 5), words), "the best never was validated there"


def test_wilcoxon_without_a_match():
    words = {"name": "wilcoxon"}
    assert not prune_by_clusters(study_with(), 10, clips(0.1, 0), words)
    study = study_with((0.9, {10: clips(0.9, 0)}))
    assert not prune_by_clusters(study, 10, {"elsewhere": 0.0}, words)
    assert not prune_by_clusters(study, 10, clips(0.0, 1), {**words, "startup": 30})


@pytest.fixture
def running(tmp_path):
    """A study with nine finished trials of rising values and one that runs."""
    url = str(tmp_path / "study.journal")
    from bipose_lit.ablation.storage import open_storage

    study = optuna.create_study(storage=open_storage(url), study_name="s/search", direction="maximize")
    for i in range(9):
        study.add_trial(create_trial(value=float(i), intermediate_values={2: i / 2, 4: float(i)}))
    number = study.ask().number

    def judge(pruner, **changes):
        return make_judge(JudgeSpec(url, "s/search", number, "pck@0.1[clip]", 0, pruner, **changes).as_dict())

    return study, judge


def test_a_report_is_kept_and_the_median_decides(running):
    study, judge = running
    median = judge({"name": "median"})
    assert not median(2, {"val/pck@0.1[clip,clip-box]": 3.0}, {})
    assert median(4, {"val/pck@0.1[clip,clip-box]": 3.5}, {})
    assert study.trials[-1].intermediate_values == {2: 3.0, 4: 3.5}
    assert study.trials[-1].state == TrialState.RUNNING, "only the worker ends a trial"


def test_nothing_is_pruned_at_the_end_or_in_later_runs(running):
    study, judge = running
    assert not judge({"name": "median"}, steps=4)(4, {"val/pck@0.1[clip,clip-box]": 0.0}, {})
    assert study.trials[-1].intermediate_values == {4: 0.0}
    later = make_judge({**judge({"name": "median"}).spec.as_dict(), "seed_index": 1})
    assert not later(2, {"val/pck@0.1[clip,clip-box]": -9.0}, {})
    assert study.trials[-1].intermediate_values == {4: 0.0}


def test_only_wilcoxon_watches(running):
    study, judge = running
    assert judge({"name": "median"}).watch == ""
    wilcoxon = judge({"name": "wilcoxon"})
    assert wilcoxon.watch == "pck@0.1[clip]"
    wilcoxon(2, {"val/pck@0.1[clip,clip-box]": 0.0}, {"a": 0.5})
    assert study.trials[-1].user_attrs["clusters/2"] == {"a": 0.5}


def test_mistakes(running):
    _, judge = running
    with pytest.raises(BiposeError, match="fits none of"):
        judge({"name": "median"})(2, {"val/other": 1.0}, {})
    with pytest.raises(BiposeError, match="the judge's description is damaged"):
        make_judge({"storage": "x"})


def test_hyperband_knows_the_run():
    config = {"trainer": {"max_steps": 90, "val_check_interval": 10}}
    assert complete({"name": "hyperband"}, config) == {"name": "hyperband", "min": 10, "max": 90}
    assert complete({"name": "hyperband", "min": 3}, {"trainer": {"max_steps": 90}})["min"] == 3
    assert complete({"name": "hyperband"}, {"trainer": {"max_steps": -1}}) == {"name": "hyperband"}
    assert complete({"name": "median"}, config) == {"name": "median"}
    for tool in ({"name": "hyperband", "min": 10, "max": 90}, {"name": "hyperband"}, {"name": "none"}):
        make_pruner(tool)
