"""One run: the same twice, nothing left by one that dies, the cache equal to the pixels, and cheap to start."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny import break_joint, tiny_options, write_jhmdb

from bipose_lit import run
from bipose_lit.cli import main, resolve
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.metrics.condensed import Condensed, condense
from bipose_lit.module import PoseModule
from bipose_lit.store import CONFIG, HISTORY, RESULT, WEIGHTS, Predictions, RunResult, RunSpec, config_hash
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint, load_parts

FOLDER = Path(__file__).parents[1] / "experiments"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"))


def spec(root, folder, arm="bilstm", seed=0, score=("val", "test"), **options) -> RunSpec:
    if arm in ("lstm", "bilstm"):
        options.setdefault("model.temporal.init_args.hidden", 4)
    files = [FOLDER / "base.yaml", FOLDER / "temporal" / f"{arm}.yaml"]
    config = resolve(files, tiny_options(root, **options))
    config["seed_everything"] = seed
    return RunSpec("trial", arm, seed, folder, config, config_hash=config_hash(config), score=score)


def same(one: RunResult, two: RunResult) -> None:
    assert one.metrics == two.metrics
    assert one.weights_hash == two.weights_hash
    assert one.data_fingerprint == two.data_fingerprint
    assert one.facts == two.facts


@pytest.fixture(scope="module")
def finished(root, tmp_path_factory):
    """A finished run with what it reported."""
    folder = tmp_path_factory.mktemp("run")
    told = []
    result = run.execute(spec(root, folder), lambda step, total, numbers: told.append((step, total, dict(numbers))))
    return folder, result, told


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_twice_is_the_same_to_the_last_bit(root, finished, tmp_path):
    folder, first, _ = finished
    torch.rand(17)  # whatever happened to the global generator before
    np.random.rand(17)  # noqa: NPY002
    second = run.execute(spec(root, tmp_path))
    same(first, second)
    for split in ("val", "test"):
        assert digest(folder / first.predictions[split]) == digest(tmp_path / second.predictions[split])
    assert digest(folder / WEIGHTS) == digest(tmp_path / WEIGHTS)
    assert (folder / HISTORY).read_text() == (tmp_path / HISTORY).read_text()
    other = run.execute(spec(root, tmp_path / "other", seed=1))
    assert other.weights_hash != first.weights_hash


def test_what_a_result_says(root, finished):
    folder, result, _ = finished
    assert RunResult.load(folder) == result
    assert result.status == "finished"
    assert result.scorings == {"test": 1}
    assert result.facts["steps"] == 4
    assert result.facts["causal"] is False
    assert result.facts["look_ahead_frames"] is None
    assert result.facts["parameters"] == sum(result.facts["parameters_by_part"].values())
    for name in ("start_seconds", "train_seconds", "total_seconds", "ms_per_frame", "peak_memory_mb"):
        assert result.measured[name] > 0
    assert 0 <= result.metrics["test/pck@0.1[clip,clip-box]"] <= 1
    assert {k.split("/")[0] for k in result.metrics} == {"val", "test"}
    for split, name in result.predictions.items():
        kept = Predictions.load(folder / name)
        assert kept.data == f"jhmdb/split1/{split}[clip-box]"
        assert len(kept.uid) == result.metrics[f"{split}/persons"]
    assert yaml.safe_load((folder / CONFIG).read_text()) == spec(root, folder).config
    assert result.config_hash == spec(root, folder).config_hash


def test_checkpoint_weights_and_predictions_are_of_one_model(root, finished):
    folder, result, _ = finished
    module = PoseModule.load_from_checkpoint(folder / run.FINAL, weights_only=True)
    assert fingerprint(module.network) == result.weights_hash
    blank, _, _ = run.build(spec(root, folder).config)
    load_parts(blank.network, folder / WEIGHTS, ["backbone", "decoder", "temporal"])
    assert fingerprint(blank.network) == result.weights_hash


def test_the_command_scores_a_run_again_from_what_it_left(root, finished, tmp_path, capsys):
    folder, result, _ = finished
    quiet = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={tmp_path}"]
    main(["test", "-c", str(folder / CONFIG), f"--ckpt_path={folder / run.FINAL}", *quiet])
    shown = " ".join(capsys.readouterr().out.split())
    name = "test/velocity_error_px"
    assert f"{result.metrics[name]:.6f}"[:7] in shown
    assert "test_pck_0_1_clip_clip_box" in shown
    assert "left_wrist" not in shown  # hundreds of rows by joint are the result file's business


def test_history_and_progress(finished):
    folder, result, told = finished
    rows = [json.loads(line) for line in (folder / HISTORY).read_text().splitlines()]
    training = [r for r in rows if "train/loss" in r]
    validation = [r for r in rows if "val/loss" in r]
    assert [r["step"] for r in training] == [1, 2, 4]
    assert [r["step"] for r in validation] == [2, 4]
    assert all(r["lr"] > 0 for r in training[:-1])
    assert all(np.isfinite(v) for r in rows for v in r.values())
    assert [step for step, _, _ in told] == [r["step"] for r in rows]
    assert {total for _, total, _ in told} == {4}
    # The last validation of the fit saw the weights that were scored afterwards.
    last = validation[-1]
    for name in ("val/pck@0.1[clip,clip-box]", "val/loss"):
        assert last[name] == result.metrics[name]


def test_a_killed_run_leaves_no_result(root, tmp_path):
    run.execute(spec(root, tmp_path))
    assert (tmp_path / RESULT).exists()

    def die(step, total, numbers):
        if step >= 2:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run.execute(spec(root, tmp_path), die)
    assert not (tmp_path / RESULT).exists()
    assert not (tmp_path / run.FINAL).exists()
    assert RunResult.load(tmp_path) is None
    same(run.execute(spec(root, tmp_path)), run.execute(spec(root, tmp_path / "again")))


def test_the_result_is_written_after_everything_else(root, tmp_path, monkeypatch):
    def fail(self, folder):
        left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        left -= {"checkpoints/last.ckpt", "checkpoints/previous.ckpt"}  # they go when the result is there
        expected = {CONFIG, HISTORY, run.FINAL, WEIGHTS, "predictions-val.npz", "predictions-test.npz"}
        assert left == expected
        raise OSError("disk full")

    monkeypatch.setattr(RunResult, "publish", fail)
    with pytest.raises(OSError, match="disk full"):
        run.execute(spec(root, tmp_path))


def test_other_ranks_leave_no_result(root, tmp_path, monkeypatch):
    """A rank that ends first must not declare a run finished whose files the first rank has yet to write."""
    monkeypatch.setattr(run.rank_zero_only, "rank", 1)
    assert run.execute(spec(root, tmp_path)).status == "finished"
    assert RunResult.load(tmp_path) is None


def test_a_tuning_run_never_sees_the_test_split(root, tmp_path, monkeypatch):
    def refuse(self):
        raise AssertionError("the test split's loader")

    monkeypatch.setattr(PoseDataModule, "test_dataloader", refuse)
    result = run.execute(spec(root, tmp_path, score=("val",)))
    assert result.scorings == {}
    assert set(result.predictions) == {"val"}
    assert {k.split("/")[0] for k in result.metrics} == {"val"}


def test_bad_data_are_told_as_what_they_are(tmp_path):
    root = write_jhmdb(tmp_path / "data")
    for picture in root.rglob("Rename_Images/move/scene00000_0/*.png"):
        picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(BiposeError, match=r"scene00000_0") as error:
        run.execute(spec(root, tmp_path / "run", **{"trainer.val_check_interval": None}))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / RESULT).exists()


def test_averaged_weights_are_scored_and_kept(root, tmp_path):
    average = [{"class_path": "lightning.pytorch.callbacks.EMAWeightAveraging", "init_args": {"decay": 1.0}}]
    plain = spec(root, tmp_path / "plain", **{"trainer.val_check_interval": None})
    averaged = spec(root, tmp_path / "ema", **{"trainer.val_check_interval": None, "trainer.callbacks": average})
    one, two = run.execute(plain), run.execute(averaged)
    assert one.weights_hash != two.weights_hash
    module = PoseModule.load_from_checkpoint(tmp_path / "ema" / run.FINAL)
    assert fingerprint(module.network) == two.weights_hash
    # decay 1 keeps the first copy, which is taken after the first step: that of a run of one step.
    first = spec(root, tmp_path / "first", **{"trainer.val_check_interval": None})
    first.config["trainer"]["max_steps"] = 1
    first.config["model"]["recipe"]["schedule"] = averaged.config["model"]["recipe"]["schedule"] = "constant"
    first.config["model"]["recipe"]["warmup"] = averaged.config["model"]["recipe"]["warmup"] = 0.0
    kept, short = run.execute(averaged), run.execute(first)
    assert kept.weights_hash == short.weights_hash
    assert kept.metrics == short.metrics


def cached(root, folder, cache, budget=1.0, **options) -> RunSpec:
    return spec(
        root,
        folder,
        **{
            "model.freeze_backbone": True,
            "data.cache": {
                "class_path": "bipose_lit.feature_cache.FeatureCache",
                "init_args": {"root": str(cache), "dtype": "float32", "budget_gb": budget, "progress": False},
            },
            **options,
        },
    )


@pytest.mark.parametrize("flip", [False, True])
def test_cached_features_equal_recomputed_ones(root, tmp_path, flip):
    options = {"model.flip_test": flip}
    one = run.execute(cached(root, tmp_path / "cached", tmp_path / "cache", **options))
    two = run.execute(cached(root, tmp_path / "pixels", tmp_path / "none", budget=0.0, **options))
    assert any((tmp_path / "cache").iterdir())
    assert one.metrics.keys() == two.metrics.keys()
    for name, value in one.metrics.items():
        assert value == pytest.approx(two.metrics[name], rel=5e-3, abs=5e-3), name
    first, second = (Predictions.load(tmp_path / n / "predictions-test.npz") for n in ("cached", "pixels"))
    np.testing.assert_allclose(first.pred, second.pred, atol=0.01)


def test_prepared_features_are_found_again(root, tmp_path):
    job = cached(root, tmp_path / "run", tmp_path / "cache", **{"model.flip_test": True})
    assert run.cache_bytes(job.config) > 0
    assert not (tmp_path / "cache").exists()
    told = []
    run.prepare(job.config, lambda done, total, what: told.append((done, total, what)))
    assert told[0][0] == 0
    assert told[-1] == (3, 3, "features")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file() and "lock" not in p.name}
    assert sum(p.stat().st_size for p in before) >= run.cache_bytes(job.config)
    torch.rand(5)
    run.execute(job)
    after = {p for p in (tmp_path / "cache").rglob("*") if p.is_file() and "lock" not in p.name}
    assert {p.parent for p in after} == {p.parent for p in before}
    assert {p: p.stat().st_mtime_ns for p in before if p.suffix == ".npy"} == {
        p: t for p, t in before.items() if p.suffix == ".npy"
    }
    run.prepare(job.config)
    assert {p.parent for p in (tmp_path / "cache").rglob("*") if p.is_file() and "lock" not in p.name} == {
        p.parent for p in before
    }


def test_prepare_tells_when_the_features_find_no_room(root, tmp_path):
    job = cached(root, tmp_path / "run", tmp_path / "cache", **{"data.cache.budget_gb": 0.0})
    notes = run.prepare(job.config)
    assert len(notes) == 3
    assert all("recomputing features in every step" in note for note in notes)


def test_a_model_that_diverged_is_no_result(root, tmp_path):
    job = spec(root, tmp_path / "run", **{"model.recipe.lr": 1e30, "trainer.gradient_clip_val": None})
    with pytest.raises(BiposeError, match=r"training diverged: .*; lower model\.recipe\.lr"):
        run.execute(job)
    assert not (job.folder / "result.json").exists()


def test_a_tuning_trial_that_diverged_is_no_result_either(root, tmp_path):
    """The tuning counts a failed trial as the worst; a number from a broken model could be anything."""
    job = spec(root, tmp_path / "run", score=("val",), **{"model.recipe.lr": 1e30, "trainer.gradient_clip_val": None})
    with pytest.raises(BiposeError, match="training diverged"):
        run.execute(replace(job, tags=("tune",)))
    assert not (job.folder / "result.json").exists()


def test_prepare_without_a_cache_does_nothing(root, tmp_path):
    run.prepare(spec(root, tmp_path).config)
    assert run.cache_bytes(spec(root, tmp_path).config) == 0
    assert list(tmp_path.iterdir()) == []


def test_data_fingerprint_sees_a_changed_label_and_a_changed_picture(tmp_path):
    root = write_jhmdb(tmp_path / "data")
    config = spec(root, tmp_path).config
    before = run.data_fingerprint(config)
    assert before == run.data_fingerprint(config)
    picture = next(iter(sorted(root.rglob("*.png"))))
    picture.write_bytes(picture.read_bytes() + b" ")
    assert run.data_fingerprint(config) != before


def test_what_readers_left_out_is_kept_with_the_result(tmp_path):
    root = write_jhmdb(tmp_path / "data")
    break_joint(root)
    told = run.execute(spec(root, tmp_path / "run")).facts["left_out"]
    assert told.endswith("/train[clip-box]: joints not finite, taken as absent: move/scene00000_0 (1)")


def test_a_result_holds_its_predictions_sums_by_cluster(finished):
    """What reports read instead of the predictions is what the saved predictions give, to the last bit."""
    folder, result, _ = finished
    stored = RunResult.load(folder).clusters
    assert set(stored) == {"val", "test"}
    for split, detail in (("val", False), ("test", True)):
        p = Predictions.load(folder / result.predictions[split])
        assert stored[split] == condense(p, detail=detail).plain()
    name = "test/pck@0.1[clip,clip-box]"
    assert Condensed.read(stored["test"]).sums["all"].mean == pytest.approx(result.metrics[name], abs=1e-12)
    p = Predictions.load(folder / result.predictions["test"])
    assert run.sums_by_cluster("test", p, "error_px")["test"]["endpoint"] == "error_px"
    assert run.sums_by_cluster("test", p, "ap[gt-box]") == {}
