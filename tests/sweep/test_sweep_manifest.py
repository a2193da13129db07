"""Every mistake in a sweep's file is one line that names it."""

import re

import pytest

from bipose_lit.sweep.manifest import load_sweep
from bipose_lit.sweep.space import Branch, Choice, Range
from bipose_lit.types import BiposeError

GOOD = """
question: Which?
base: base.yaml
space:
  head: {overlays: {none: null, lstm: lstm.yaml, deep: {model: {temporal: deep}}}}
  model.lr: {low: 1e-4, high: 1e-2, log: true}
  model.width: {choices: [8, 16], when: {head: [lstm, deep]}}
  model.depth: {low: 1, high: 4, int: true, when: {head: deep, model.width: 16}}
objective: pck@0.1[clip]
budget: {trials: 10}
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {}\n")
    (tmp_path / "lstm.yaml").write_text("model: {temporal: lstm}\n")

    def load(text):
        (tmp_path / "s.yaml").write_text(text)
        return load_sweep(tmp_path / "s.yaml")

    return load


def test_what_is_written_is_read(read):
    sweep = read(GOOD)
    space = sweep.space
    assert list(space.entries) == ["head", "model.lr", "model.width", "model.depth"]
    assert isinstance(space.entries["head"], Branch)
    assert space.entries["model.lr"] == Range(1e-4, 1e-2, log=True)
    assert space.entries["model.width"] == Choice((8, 16), {"head": ("lstm", "deep")})
    assert space.entries["model.depth"].when == {"head": ("deep",), "model.width": (16,)}
    assert (sweep.sampler, sweep.pruner) == ({"name": "tpe"}, {"name": "none"})
    assert (sweep.name, sweep.seeds, sweep.retrain.best, sweep.retrain.seeds) == ("s", 1, 1, 5)
    assert sweep.endpoint == "pck@0.1[clip]"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("question: Which?", "", "'question' is missing"),
        ("question:", "qestion:", "unknown key 'qestion'; did you mean question?"),
        ("base: base.yaml", "base: bse.yaml", "file bse.yaml not found .*; did you mean base.yaml?"),
        ("space:", "space: {}\nnotes:", "space must map options to what is tried"),
        ("high: 1e-2, log", "high: 1e-5, log", "model.lr needs numbers low < high"),
        ("low: 1e-4", "low: 0", "model.lr is logarithmic, so low must be above 0"),
        ("log: true", "lgo: true", "model.lr: unknown key 'lgo'; did you mean log?"),
        ("log: true", "step: 0.003", "model.lr: step must be above 0 and lead from low to high"),
        ("log: true", "step: 1e-4, log: true", "step and log exclude each other"),
        ("low: 1, high: 4", "low: 1.5, high: 4", "model.depth is of whole numbers"),
        (
            "{low: 1, high: 4, int: true, when: {head: deep, model.width: 16}}",
            "7",
            "model.depth must be a list of choices",
        ),
        ("[8, 16]", "[]", "model.width: choices must be a list of values"),
        ("[8, 16]", "[8, 8]", "8 is given twice"),
        ("[8, 16]", "[8, 2020-01-01]", "2020-01-01 is no text, finite number, .*; write texts in quotes"),
        ("[8, 16]", "[8, .nan]", "nan is no text, finite number"),
        ("lstm: lstm.yaml", "lstm: lst.yaml", "file lst.yaml not found .*; did you mean lstm.yaml?"),
        ("head: [lstm, deep]", "haed: [lstm]", "no parameter 'haed'; did you mean head?"),
        ("head: [lstm, deep]", "head: [lsmt]", "head is never 'lsmt'; did you mean lstm?"),
        ("head: [lstm, deep]", "model.lr: 0.1", "model.lr is a range; a condition names values"),
        ("head: [lstm, deep]", "model.depth: 1", "model.depth is a range"),
        ("objective: pck@0.1[clip]", "", "give either objective"),
        ("objective: pck@0.1[clip]", "objective: test/pck@0.1[clip]", "a search sees the validation split alone"),
        ("objective: pck@0.1[clip]", "objective: facts/", "say which"),
        ("budget: {trials: 10}", "", "budget must be"),
        ("trials: 10", "trials: 0", "trials must be a whole number above 0"),
        ("trials: 10", "hours: -1", "hours must be a number above 0"),
        ("budget:", "sampler: tep\nbudget:", "sampler: there is no 'tep'; did you mean tpe?"),
        ("budget:", "sampler: {name: tpe, sed: 1}\nbudget:", "tpe has no option 'sed'; did you mean seed?"),
        ("budget:", "sampler: grid\nbudget:", "model.lr is a continuous range; give it choices or a step"),
        ("budget:", "sampler: nsga2\nbudget:", "nsga2 is for several objectives"),
        ("budget:", "pruner: wilcoxn\nbudget:", "pruner: there is no 'wilcoxn'; did you mean wilcoxon?"),
        ("budget:", "pruner: {name: wilcoxon, p: 2}\nbudget:", "p must be between 0 and 1"),
        ("budget:", "pruner: {name: hyperband, factor: 1}\nbudget:", "factor must be a whole number, 2 or more"),
        (
            "budget:",
            "pruner: {name: hyperband, min: 9, max: 3}\nbudget:",
            "max must not be below min, and 3 is below 9",
        ),
        (
            "objective: pck@0.1[clip]",
            "objectives: [{metric: a}, {metric: facts/flops_per_frame, maximize: false}]\npruner: median",
            "trials with several objectives cannot be pruned",
        ),
        (
            "objective: pck@0.1[clip]",
            "objective: measured/ms_per_frame\npruner: median",
            "known only when a run has ended",
        ),
        ("objective: pck@0.1[clip]", "objectives: [{metric: a}, {metric: a}]", "one metric is named twice"),
        ("objective: pck@0.1[clip]", "objectives: [{metrc: a}]", "each is {metric: NAME, maximize: true or false}"),
        ("budget:", "seeds: 0\nbudget:", "seeds is the number of runs of each trial"),
        ("budget:", "baselines: {best1: base.yaml}\nbudget:", "the name 'best1' is reserved"),
        ("budget:", "baselines: {old: ../nowhere}\nbudget:", "file ../nowhere not found"),
        ("budget:", "retrain: {best: -1}\nbudget:", "best must be a number of trials"),
        (
            "budget:",
            "baselines: {a: base.yaml}\nretrain: {best: 0}\nbudget:",
            "leaves nothing to set beside the baselines",
        ),
    ],
)
def test_mistakes_are_one_line(read, old, new, told):
    assert old in GOOD
    with pytest.raises(BiposeError) as caught:
        read(GOOD.replace(old, new, 1))
    line = str(caught.value)
    assert re.search(told.replace("[clip]", r"\[clip\]"), line) or told in line
    assert "\n" not in line
    assert "s.yaml" in line


def test_conditions_do_not_run_in_circles(read):
    text = GOOD.replace("head: {overlays:", "head: {when: {model.width: 8}, overlays:")
    with pytest.raises(BiposeError, match="conditions run in a circle: head, model"):
        read(text)


def test_other_files_are_told_apart(read, tmp_path):
    with pytest.raises(BiposeError, match="ablation's manifest, not a sweep: run it by 'bipose ablate"):
        read("question: a?\nbase: base.yaml\narms: {a: {}}\n")
    with pytest.raises(BiposeError, match="configuration, not a sweep: train with it by 'bipose fit"):
        read("model: {}\n")
    with pytest.raises(BiposeError, match="line 2, column 1: broken YAML"):
        read("space: [\n")
    with pytest.raises(BiposeError, match="a sweep is a mapping with at least question"):
        read("- 1\n")
    with pytest.raises(BiposeError, match=r"sweep .*/t.yaml not found; did you mean s.yaml\?"):
        load_sweep(tmp_path / "t.yaml")
    with pytest.raises(BiposeError, match="is a folder; give a YAML file"):
        load_sweep(tmp_path)
