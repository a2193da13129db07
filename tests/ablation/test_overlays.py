"""Overlays for dashboards: the same frames for all runs of one data set, and none where there is nothing to draw."""

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_options, write_jhmdb

from bipose_lit.ablation import backend, overlays
from bipose_lit.ablation.overlays import Overlays
from bipose_lit.cli import build, resolve
from bipose_lit.store import Predictions, RunResult, RunSpec

BASE = Path(__file__).parents[2] / "experiments" / "base.yaml"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = write_jhmdb(tmp_path_factory.mktemp("jhmdb"), test=6)
    config = resolve([BASE], tiny_options(root))
    return config, build(config)[1].index("test")


def make_run(folder: Path, site, moved: float = 0.0, name: str = "predictions-test.npz") -> Path:
    config, index = site
    tracks = index.tracks

    def join(field: str) -> np.ndarray:
        return np.concatenate([getattr(t, field) for t in tracks])

    n = len(join("uid"))
    Predictions(
        uid=join("uid"), clip=np.repeat(np.arange(len(tracks)), [len(t) for t in tracks]),
        frame=np.concatenate([np.arange(len(t)) for t in tracks]), pred=join("joints") + np.float32(moved),
        score=np.ones((n, 15), np.float32), joints=join("joints"), visible=join("visible"), norms=join("norms"),
        fps=np.full(n, 25, np.float32), clips=tuple(t.clip for t in tracks), clusters=tuple(t.cluster for t in tracks),
        joint_names=index.skeleton.joints, data=index.name,
    ).save(folder / name)  # fmt: skip
    RunSpec("trial", "a", 0, folder, config).save()
    RunResult("trial", "a", 0, "finished", predictions={name.split("-")[1].split(".")[0]: name}).save(folder)
    return folder


def test_predictions_are_drawn_over_their_own_frames(tmp_path, site, monkeypatch) -> None:
    built = []
    monkeypatch.setattr(overlays, "build", lambda config: built.append(1) or build(config))
    draw = Overlays(3)
    right, wrong = draw(make_run(tmp_path / "right", site)), draw(make_run(tmp_path / "wrong", site, moved=6))
    assert len(right) == 3
    assert right.keys() == wrong.keys() <= {t.clip for t in site[1].tracks}
    for clip in right:
        width = (right[clip].shape[1] - 4) // 2
        below = slice(30, None)  # the words above differ
        assert np.array_equal(right[clip][below, :width], right[clip][below, -width:])
        assert np.array_equal(right[clip][below, :width], wrong[clip][below, :width])
        assert not np.array_equal(wrong[clip][below, :width], wrong[clip][below, -width:])
    assert len(built) == 1, "one data set is read once"


def test_nothing_to_draw_is_no_failure(tmp_path, site, capsys) -> None:
    assert Overlays()(make_run(tmp_path / "val", site, name="predictions-val.npz")) == {}
    config, index = site
    gone = {**config, "data": {**config["data"], "reader": {**config["data"]["reader"], "init_args": {"root": "gone"}}}}
    assert Overlays()(make_run(tmp_path / "gone", (gone, index))) == {}
    assert "no overlays of" in capsys.readouterr().out


def test_an_ablation_hands_them_to_the_dashboard(tmp_path, site, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    make_run(tmp_path / "a" / "seed0", site)
    assert backend.Backend().mirror(tmp_path, ["x"]) == 1
    assert len(list(tmp_path.rglob("media/images/overlays/**/*.png"))) == 4
