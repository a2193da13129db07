"""A space is checked by the configuration's own parser: every end, choice and overlay, where it exists, before anything runs."""

import re
from pathlib import Path

import pytest

from bipose_lit.cli import resolve
from bipose_lit.store import config_hash
from bipose_lit.sweep.check import check_space
from bipose_lit.sweep.manifest import load_sweep
from bipose_lit.sweep.plan import SweepPlan
from bipose_lit.types import BiposeError

FOLDER = Path(__file__).parents[2] / "experiments"
HEAD = f"head: {{overlays: {{none: null, bilstm: {FOLDER}/temporal/bilstm.yaml, tcn: {FOLDER}/temporal/tcn.yaml}}}}"


@pytest.fixture
def plan(tmp_path):
    def make(space: str, **options):
        (tmp_path / "s.yaml").write_text(
            f"question: a?\nbase: [{FOLDER}/base.yaml]\nspace:\n  {HEAD}\n  {space}\nobjective: pck@0.1[clip]\n"
            "budget: {trials: 3}\n"
        )
        return SweepPlan(load_sweep(tmp_path / "s.yaml"), tmp_path / "runs", resolve, options)

    return make


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ("model.recipe.lrr: {low: 1e-4, high: 1}", "space: model.recipe.lrr: there is no option .* did you mean lr?"),
        pytest.param(
            "modl.recipe.lr: [1]", "space: modl.recipe.lr: there is no option", marks=pytest.mark.slow, id="modl"
        ),
        ("trainer.max_steps: {low: 10, high: 90}", "trainer.max_steps takes an integer, not '1.*; add int: true"),
        ("trainer.max_steps: {low: 10, high: 11, step: 0.5}", "takes an integer, not '10"),
        ("model.recipe.lr: [0.1, fast]", "model.recipe.lr takes a number, not 'fast'"),
        pytest.param(
            "model.flip_test: [true, maybe]",
            "model.flip_test: model.flip_test takes true or false, not 'maybe'",
            marks=pytest.mark.slow,
            id="maybe",
        ),
        (
            "model.temporal.init_args.hidden: [8, 16]",
            r"\(with head: none\); it is an option with head: bilstm, tcn, so say when: \{head: \[bilstm, tcn\]\}",
        ),
        (
            "model.temporal.init_args.layers: {choices: [2, 3], when: {head: [bilstm, tcn]}}",
            r"there is no option model.temporal.layers.* \(with head: bilstm\)",
        ),
    ],
)
def test_mistakes_are_told_before_the_first_trial(plan, space, told):
    with pytest.raises(BiposeError) as caught:
        check_space(plan(space))
    line = str(caught.value)
    assert re.search(told, line), line
    assert "\n" not in line
    assert "s.yaml" in line


def test_a_choice_of_class_and_its_arguments(plan):
    """Both are options; the arguments exist where the class is chosen alone."""
    tcn = "bipose_lit.models.temporal.controls.TCN"
    made = plan(
        f"model.temporal: [null, {tcn}]\n  model.temporal.init_args.layers: {{choices: [2, 4], when: {{model.temporal: {tcn}}}}}"
    )
    made.sweep.space.entries.pop("head")
    check_space(made)
    (spec,) = made.runs(0, {"model.temporal": tcn, "model.temporal.init_args.layers": 4})
    head = spec.config["model"]["temporal"]
    assert (head["class_path"], head["init_args"]["layers"]) == (tcn, 4)
    assert made.config({"model.temporal": None})["model"]["temporal"] is None


@pytest.mark.parametrize(
    ("space", "options", "told"),
    [
        ("seed_everything: [1, 2]", {}, "seeds of trials follow from their parameters"),
        ("model.recipe.lr: [0.1]", {"model.recipe": {}}, r"--set model.recipe: .* searches model.recipe.lr"),
        ("model.recipe: [null]", {"model.recipe.lr": 1}, r"--set model.recipe.lr: .* searches model.recipe;"),
    ],
)
def test_two_that_set_one_option_are_refused(plan, space, options, told):
    with pytest.raises(BiposeError, match=told):
        plan(space, **options)


def test_starting_weights_are_searched_or_given(plan, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x")
    made = plan("model.weights: [a, b]")
    file = made.sweep.path
    file.write_text(file.read_text() + "weights: w.safetensors\n")
    with pytest.raises(BiposeError, match=r"model.weights: 'weights' of the file gives it to every run"):
        SweepPlan(load_sweep(file), tmp_path / "runs", resolve)


def test_weights_count_by_their_content(plan, tmp_path):
    paths = []
    for place in ("a", "b", "c"):
        (tmp_path / place).mkdir()
        paths.append(tmp_path / place / "w.safetensors")
        paths[-1].write_bytes(b"x" if place < "c" else b"y")
    one, moved, other = (plan("model.recipe.lr: [1]", **{"model.weights": str(p)}).identity() for p in paths)
    assert one == moved
    assert one != other


def test_what_fits_passes_and_a_wrong_base_is_told(plan):
    check_space(plan("model.temporal.init_args.hidden: {low: 8, high: 16, int: true, when: {head: [bilstm, tcn]}}"))
    check_space(plan("model.recipe.lr: {low: 1e-4, high: 1, log: true}"))
    with pytest.raises(BiposeError, match=r"base: there is no option nosuch"):
        check_space(plan("model.recipe.lr: [1]", nosuch=1))


def test_every_value_is_asked_about_once_at_least(plan):
    made = plan("model.recipe.lr: [1, 2, 3]")
    asked = []
    made.resolve = lambda files, options: asked.append((len(files), dict(options))) or {}
    check_space(made)
    assert {o.get("model.recipe.lr") for _, o in asked} == {1, 2, 3}
    assert {n for n, _ in asked} == {1, 2}


def test_a_trial_is_what_its_options_say(plan):
    made = plan(
        "model.temporal.init_args.hidden: {choices: [8], when: {head: [bilstm, tcn]}}\n  model.recipe.betas: [[0.8, 0.9]]"
    )
    point = {"head": "bilstm", "model.temporal.init_args.hidden": 8, "model.recipe.betas": [0.8, 0.9]}
    (spec,) = made.runs(7, point)
    options = {"model.temporal.init_args.hidden": 8, "model.recipe.betas": [0.8, 0.9]}
    expected = resolve([FOLDER / "base.yaml", FOLDER / "temporal/bilstm.yaml"], options)
    expected["seed_everything"] = expected["data"]["seed"] = spec.seed
    assert spec.config == expected
    assert spec.config_hash == config_hash({**expected, "threads": 1})
    assert (spec.arm, spec.score) == ("trials/trial0007", ("val",))
    assert spec.folder.parts[-3:-1] == ("trials", "trial0007")
