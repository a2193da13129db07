"""Sums by cluster in result.json: the same numbers as from the predictions, to the last bit, without opening them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import fake
import numpy as np
import pytest

from bipose_lit.metrics.condensed import EDGES, Condensed, condense
from bipose_lit.metrics.summary import per_cluster
from bipose_lit.report.analysis import analyse
from bipose_lit.report.build import build_report, write_tables
from bipose_lit.report.load import load_study
from bipose_lit.store import RESULT, Predictions, RunResult
from bipose_lit.types import ABSENT, NORMS, BiposeError


def add(folder: Path, endpoint: str = "pck@0.1[clip]") -> None:
    """As runs leave it."""
    for path in folder.glob("*/seed*/predictions-test.npz"):
        result = RunResult.load(path.parent)
        assert result is not None
        result.clusters = {"test": condense(Predictions.load(path), endpoint).plain()}
        result.save(path.parent)


def texts(folder: Path) -> tuple[str, str]:
    """Every table and every number."""
    report = write_tables(analyse(load_study(folder)), folder)
    return report.markdown.read_text(), report.summary.read_text()


@pytest.mark.parametrize("endpoint", ["pck@0.1[clip]", "error_px", "pck@0.2[torso]/occluded"])
def test_tables_are_equal_both_ways(small, endpoint: str) -> None:
    folder = small[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "endpoint": endpoint}))
    before = texts(folder)
    add(folder, endpoint)
    assert texts(folder) == before


def test_pages_are_equal_both_ways(small) -> None:
    before = build_report(small[0]).page.read_bytes()
    add(small[0])
    assert build_report(small[0]).page.read_bytes() == before


def test_no_prediction_file_is_needed(small) -> None:
    folder = small[0]
    add(folder)
    before = write_tables(analyse(load_study(folder)), folder)
    for path in folder.glob("*/seed*/predictions-test.npz"):
        path.unlink()
    after = build_report(folder, frames=small[1])  # pictures are wished, and gone
    assert [c.contrast.low for c in after.analysis.named] == [c.contrast.low for c in before.analysis.named]
    arms = set(after.analysis.arms)
    rows = {row.name: row for row in before.main.rows}
    assert {row.name for row in after.main.rows} == arms
    for row in after.main.rows:
        assert row == rows[row.name]
    assert "prediction files of the arms to be shown are gone" in after.page.read_text()
    assert any("on 0 of 3 seeds of none_matched" in note for note in after.analysis.notes)


def test_only_the_per_frame_arms_predictions_are_read(small, monkeypatch: pytest.MonkeyPatch) -> None:
    add(small[0])
    opened: list[Path] = []
    load = Predictions.load
    monkeypatch.setattr(Predictions, "load", lambda path: (opened.append(path), load(path))[1])
    texts(small[0])
    assert {p.parent.parent.name for p in opened} == {"none_matched"}


def test_another_endpoint_is_computed_from_the_predictions(small) -> None:
    folder = small[0]
    add(folder, "error_px")
    study = load_study(folder)
    assert study.of("lstm")[0].condensed("pck@0.1[clip]") is None
    assert study.of("lstm")[0].condensed("error_px") is not None
    expected = texts(folder)
    add(folder)
    assert texts(folder) == expected
    for path in folder.glob("*/seed*/predictions-test.npz"):
        path.unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "endpoint": "error_px"}))
    with pytest.raises(BiposeError, match="left no predictions-test"):
        load_study(folder)


def test_mixed_trees_and_other_frames(small) -> None:
    folder = small[0]
    before = texts(folder)
    old = (folder / "lstm" / "seed1" / RESULT).read_text()
    add(folder)
    (folder / "lstm" / "seed1" / RESULT).write_text(old)
    assert texts(folder) == before
    path = folder / "bilstm" / "seed0"
    p = Predictions.load(path / "predictions-test.npz")
    result = RunResult.load(path)
    assert result is not None
    result.clusters = {"test": condense(replace(p, uid=p.uid + 1)).plain()}
    result.save(path)
    missing = analyse(load_study(folder)).study.missing
    assert [(arm, seed) for arm, seed, _ in missing] == [("bilstm", 0)]


def test_what_is_damaged_is_one_line(small) -> None:
    folder = small[0]
    add(folder)
    path = folder / "lstm" / "seed1"
    result = RunResult.load(path)
    assert result is not None
    result.clusters["test"]["sums"]["all"][0] = "1 2 3"
    result.save(path)
    with pytest.raises(BiposeError, match=r"lstm/seed1/result.json: sums by cluster .* 3 and 6 numbers for 6 clusters"):
        analyse(load_study(folder))


def test_plain_data_survive_json_exactly(tmp_path: Path) -> None:
    folder, _ = fake.write_tree(tmp_path, seeds=1, clusters=5, frames=9, arms=("none",))
    p = Predictions.load(folder / "none" / "seed0" / "predictions-test.npz")
    rng = np.random.default_rng(0)
    p = replace(
        p,
        visible=np.where(rng.random(p.visible.shape) < 0.3, ABSENT, p.visible).astype(np.uint8),
        clusters=("b", "a", "b", "c", "c"),
    )
    for endpoint in ("pck@0.1[clip]", "error[clip]/left_wrist"):
        found = condense(p, endpoint)
        back = Condensed.read(json.loads(json.dumps(found.plain(), sort_keys=True)))
        assert list(back.joints) == list(found.joints)
        for name, sums in found.sums.items():
            assert back.sums[name].clusters == sums.clusters == ("a", "b", "c")
            assert back.sums[name].values.tobytes() == sums.values.tobytes()
            assert back.sums[name].weights.tobytes() == sums.weights.tobytes()
        assert back.accel is not None
        assert back.accel.values.tobytes() == per_cluster(p, "accel_error_px").values.tobytes()
        for side in ("since", "until"):
            assert back.gaps[side].shape == (3, len(EDGES), 2)
            assert back.gaps[side].tobytes() == found.gaps[side].tobytes()
        assert (back.labelled, back.occluded, back.longest) == (int((p.visible != ABSENT).sum()), found.occluded, 9)
        assert dict(back.joints) == dict(found.joints)
    light = Condensed.read(json.loads(json.dumps(condense(p, detail=False).plain())))
    assert (list(light.sums), light.accel, dict(light.gaps)) == (["all"], None, {})


def test_errors_are_in_pixels_where_no_clip_has_a_size(tmp_path: Path) -> None:
    folder, _ = fake.write_tree(tmp_path, seeds=1, clusters=5, frames=9, arms=("none",))
    p = Predictions.load(folder / "none" / "seed0" / "predictions-test.npz")
    norms = p.norms.copy()
    norms[:, NORMS.index("clip")] = np.nan
    assert condense(p).error == "error[clip]"
    assert condense(replace(p, norms=norms), "error_px").error == "error_px"


def test_an_empty_split_has_no_sums(tmp_path: Path) -> None:
    folder, _ = fake.write_tree(tmp_path, seeds=1, clusters=2, frames=3, arms=("none",))
    p = Predictions.load(folder / "none" / "seed0" / "predictions-test.npz")
    rows = ("uid", "clip", "frame", "pred", "score", "joints", "visible", "norms", "fps")
    empty = replace(p, **{name: getattr(p, name)[:0] for name in rows})
    found = Condensed.read(condense(empty).plain())
    assert (found.frames, found.longest, found.sums["all"].clusters) == (0, 0, ())
    shutil.rmtree(folder)
