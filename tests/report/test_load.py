"""A report's input: what is missing is told, what contradicts itself is refused."""

import json
import shutil
from pathlib import Path

import pytest

from bipose_lit.report.load import load_study, metric_of, parse_manifest
from bipose_lit.store import RunResult
from bipose_lit.types import BiposeError


def edit(folder: Path, arm: str, seed: int, **change) -> None:
    run = folder / arm / f"seed{seed}"
    result = RunResult.load(run)
    assert result is not None
    for key, value in change.items():
        setattr(result, key, value)
    result.save(run)


def test_everything_is_found_in_the_manifests_order(small) -> None:
    study = load_study(small[0])
    assert study.arms == ("none_matched", "lstm", "bilstm")
    assert study.seeds == (0, 1, 2)
    assert len(study.runs) == 9
    assert study.manifest.contrasts == (("bilstm", "none_matched"), ("lstm", "none_matched"))
    assert study.manifest.about["lstm"] == "causal"
    assert (study.missing, study.notes) == ([], [])
    assert [r["step"] for r in study.of("lstm")[0].history][:2] == [0, 20]


def test_runs_that_cannot_be_used_are_listed_with_their_reason(small) -> None:
    folder = small[0]
    edit(folder, "lstm", 1, status="failed", error="out of memory")
    shutil.rmtree(folder / "bilstm" / "seed2")
    (folder / "bilstm" / "seed0" / "predictions-test.npz").unlink()
    (folder / "none_matched" / "seed1" / "result.json").write_text("{")
    study = load_study(folder)
    why = {(arm, seed): reason for arm, seed, reason in study.missing}
    assert why["lstm", 1] == "out of memory"
    assert why["bilstm", 2] == "has not run"
    assert why["bilstm", 0] == "left no predictions-test.npz"
    assert "damaged" in why["none_matched", 1]
    assert len(study.runs) == 5


def test_without_a_manifest_arms_are_guessed_and_said_so(small) -> None:
    (small[0] / "manifest.json").unlink()
    study = load_study(small[0])
    assert study.manifest.baseline == "none_matched"
    assert study.manifest.contrasts == ()
    assert "no manifest.json" in study.notes[0]


def test_notes_tell_what_voids_a_comparison(small) -> None:
    edit(small[0], "lstm", 0, data_fingerprint="other", commit="", scorings={"test": 2})
    (small[0] / "stray" / "seed0").mkdir(parents=True)
    RunResult("x", "stray", 0, "finished").save(small[0] / "stray" / "seed0")
    text = " ".join(load_study(small[0]).notes)
    for part in ("different versions of the data", "2 commits", "lstm/seed0", "left out: stray"):
        assert part in text


def test_servants_are_no_arms(small) -> None:
    (small[0] / "stage1" / "seed0").mkdir(parents=True)
    RunResult("x", "stage1", 0, "finished").save(small[0] / "stage1" / "seed0")
    assert load_study(small[0]).notes == []


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({"arms": ["a", "b"], "baseline": "c"}, "'c'"),
        ({"arms": ["a", "b"], "contrasts": [["a", "z"]]}, "'z'"),
        ({"arms": []}, "no arm"),
    ],
)
def test_a_manifest_that_contradicts_itself(manifest, words) -> None:
    with pytest.raises(BiposeError, match=words):
        parse_manifest(manifest, "name")


def test_spellings_of_a_manifest() -> None:
    data = {"arms": {"a": ["a.yaml"], "b": {"about": "words"}}, "contrasts": [{"arm": "b", "control": "a"}], "seeds": 3}
    manifest = parse_manifest(data, "name")
    assert (manifest.arms, manifest.about, manifest.seeds) == (("a", "b"), {"b": "words"}, (0, 1, 2))
    assert manifest.contrasts == (("b", "a"),)
    assert (manifest.endpoint, manifest.margin) == ("pck@0.1[clip]", 0.005)


def test_an_unknown_metric_is_one_line_with_close_names(small) -> None:
    path = small[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("pck@0.1[clip]", "pck@0.1[clip,clip-box]", "test/pck@0.1[clip,clip-box]"):
        path.write_text(json.dumps({**manifest, "metrics": [name]}))
        study = load_study(small[0])
        assert study.manifest.metrics == (name,)
        assert metric_of(study.of("lstm")[0].result.metrics, name) == 0.9
    for name in ("pck@0.3[clip]", "val/pck@0.1[clip,clip-box]"):
        path.write_text(json.dumps({**manifest, "metrics": [name]}))
        with pytest.raises(BiposeError) as error:
            load_study(small[0])
        assert f"metrics: '{name}' is in no run's test results; close: pck@0.1[clip]" in str(error.value)
        assert "\n" not in str(error.value)


def test_folders_that_hold_nothing(tmp_path: Path, small) -> None:
    with pytest.raises(BiposeError, match="is no folder"):
        load_study(tmp_path / "nowhere")
    with pytest.raises(BiposeError, match="several ablations"):
        load_study(small[0].parent)
    for path in small[0].glob("*/seed*/result.json"):
        path.unlink()
    with pytest.raises(BiposeError, match="no finished run"):
        load_study(small[0])
    (small[0] / "manifest.json").write_text("{")
    with pytest.raises(BiposeError, match="no JSON"):
        load_study(small[0])
    (small[0] / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(BiposeError, match="no mapping"):
        load_study(small[0])
