"""The metrics' callback against a plain loop over the same batches."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, Logger
from memory_index import MemoryReader
from plain_parts import PatchyReader, PlainBackbone, PlainDecoder
from torch import Tensor

from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import HeatmapMSE
from bipose_lit.metrics.summary import alias, mean_of
from bipose_lit.module import PoseModule
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, BiposeError, ClipBatch


class Oracle(L.LightningModule):
    """Predicts the labels, shifted by known pixels; its loss is the number of labels of the batch."""

    def __init__(self, shift: float = 3.0) -> None:
        super().__init__()
        self.shift = shift
        self.layer = torch.nn.Linear(1, 1)
        self.losses: list[tuple[float, int]] = []

    def validation_step(self, batch: ClipBatch, batch_idx: int) -> dict[str, Tensor]:
        from bipose_lit import geometry

        joints = geometry.apply(batch.to_image, batch.joints) + torch.tensor([self.shift, 0.0])
        labels = int((batch.visible[batch.valid] != ABSENT).sum())
        self.losses.append((float(len(self.losses) + 1), labels))
        return {"joints": joints, "score": torch.ones(joints.shape[:-1]), "loss": torch.tensor(self.losses[-1][0])}

    test_step = validation_step

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        return self.layer(torch.ones(1, 1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Recorder(Logger):
    name, version = "recorder", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(dict(metrics))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


def run(tmp_path, callback, logger: Any = False, **options) -> L.Trainer:
    return L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", devices=1, logger=logger, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[callback], use_distributed_sampler=False,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        (("P", "left_shoulder", "right_shoulder", "x", "right_hip"), "is two metrics"),
        (("left_visible", "left_shoulder", "right_shoulder", "x", "right_hip"), "is two metrics"),
        (("joint_mean", "left_shoulder", "right_shoulder", "x", "right_hip"), "is two metrics"),
        (("a b", "left_shoulder", "right_shoulder", "a_b", "right_hip"), "share the alias"),
        (("\u0440", "left_shoulder", "right_shoulder", "\u0443", "right_hip"), "share the alias"),
        (("n", "left_shoulder", "right_shoulder", "x", "right_hip"), "share the alias"),
    ],
)
def test_two_numbers_never_share_a_name(tmp_path, joints, said):
    class Named(MemoryReader):
        skeleton = Skeleton("named", joints, (), ())

        def index(self, split):
            return replace(super().index(split), skeleton=self.skeleton)

    with pytest.raises(BiposeError, match=said):
        run(tmp_path, Evaluation()).test(Oracle(), datamodule=PoseDataModule(Named(2), size=(48, 64)), verbose=False)


def data(**options) -> PoseDataModule:
    return PoseDataModule(
        MemoryReader(5, 6), size=(48, 64), clips=ClipSampling(4, **options), batch_size=2, eval_batch_size=2
    )


@pytest.mark.parametrize("options", [{}, {"eval": "windows", "overlap": 2}])
def test_known_errors_give_known_numbers(tmp_path, options):
    callback, module, datamodule = Evaluation(), Oracle(3.0), data(**options)
    trainer = run(tmp_path, callback)
    trainer.validate(module, datamodule=datamodule, verbose=False)
    found = callback.predictions["val"]
    frames = sum(len(t) for t in datamodule.index("val").tracks)
    assert len(found.uid) == len(np.unique(found.uid)) == frames  # windows overlap, persons count once
    np.testing.assert_allclose(found.pred[..., 0] - found.joints[..., 0], 3, atol=1e-3)
    assert mean_of(found, "error_px") == pytest.approx(3, abs=1e-3)
    assert callback.metrics["val"]["val/error_px"] == pytest.approx(3, abs=1e-3)
    assert callback.metrics["val"]["val/pck@0.1[clip,clip-box]"] == 1.0
    labels = sum(n for _, n in module.losses)
    expected = sum(loss * n for loss, n in module.losses) / labels
    assert callback.metrics["val"]["val/loss"] == pytest.approx(expected)
    assert len({loss for loss, _ in module.losses}) > 1
    assert trainer.callback_metrics["val_pck_0_1_clip_clip_box"] == 1.0
    assert trainer.callback_metrics["val/loss"] == pytest.approx(expected)


def test_the_loss_does_not_depend_on_how_clips_are_dealt_to_batches(tmp_path):
    """Batches hold very different numbers of labels, and joints at the border have little of their map in the crop."""

    class Patchy(PatchyReader):
        def index(self, split):
            return replace(super().index("train"), split=split, name=f"memory/{split}")

    torch.manual_seed(0)
    found = []
    for clips in (1, 3, 7):
        module = PoseModule(
            PlainBackbone(), PlainDecoder(), HeatmapCodec(stride=4, sigma=2.0), HeatmapMSE(), joints=5, size=(32, 32)
        )
        with torch.no_grad():
            for number, weight in enumerate(module.parameters()):
                weight.copy_(torch.linspace(-0.4, 0.5, weight.numel()).reshape(weight.shape) * (1 + number % 2))
        callback = Evaluation()
        datamodule = PoseDataModule(Patchy(7, 4), size=(32, 32), clips=ClipSampling(2), eval_batch_size=clips)
        run(tmp_path, callback).validate(module, datamodule=datamodule, verbose=False)
        found.append(callback.metrics["val"]["val/loss"])
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-5)


class Judge:
    """A measure of its own: how many rows it was given, and one number that nothing was there for."""

    def score(self, predictions):
        return {"ap": len(predictions.uid) / 100, "ap_m": float("nan")}

    def fingerprint(self):
        return "judge"


class Judged(MemoryReader):
    def index(self, split):
        return replace(super().index(split), scoring=Judge())


@pytest.mark.parametrize("part", [None, 1])
def test_a_measure_of_its_own_is_of_whole_splits_and_of_what_is_there(tmp_path, caplog, part):
    callback = Evaluation()
    datamodule = PoseDataModule(Judged(5, 6), size=(48, 64), clips=ClipSampling(4), batch_size=2, eval_batch_size=2)
    options = {} if part is None else {"limit_val_batches": part}
    run(tmp_path, callback, **options).validate(Oracle(), datamodule=datamodule, verbose=False)
    metrics = callback.metrics["val"]
    persons = sum(len(t) for t in datamodule.index("val").tracks)
    assert "val/ap_m[clip-box]" not in metrics  # a number that is none would stop an early stopping
    assert all(v == v for v in metrics.values())
    if part is None:
        assert metrics["val/ap[clip-box]"] == persons / 100
        assert not any("no measure of its own" in r.getMessage() for r in caplog.records)
    else:
        assert "val/ap[clip-box]" not in metrics
        assert any(f"of {persons} persons were scored: no measure of its own" in r.getMessage() for r in caplog.records)


def test_counts_of_what_nobody_labelled_are_not_printed(tmp_path):
    """Detector boxes of a test split: AP alone."""

    class Unlabelled(Judged):
        def index(self, split):
            index = super().index(split)
            none = [
                replace(t, visible=t.visible * 0, joints=t.joints * 0, norms=t.norms * np.nan) for t in index.tracks
            ]
            return replace(index, tracks=tuple(none))

    callback = Evaluation()
    datamodule = PoseDataModule(Unlabelled(5, 6), size=(48, 64), batch_size=2)
    run(tmp_path, callback).test(Oracle(), datamodule=datamodule, verbose=False)
    assert list(callback.metrics["test"]) == ["test/ap[clip-box]"]


def test_a_second_scoring_forgets_the_first_and_is_counted(tmp_path):
    callback, datamodule = Evaluation(), data()
    trainer = run(tmp_path, callback)
    trainer.test(Oracle(3.0), datamodule=datamodule, verbose=False)
    first = callback.metrics["test"]
    trainer.test(Oracle(3.0), datamodule=datamodule, verbose=False)
    assert callback.metrics["test"] == first
    assert callback.scorings == {"test": 2}


def test_sanity_checks_and_fits_score_as_they_should(tmp_path):
    callback, datamodule = Evaluation(), data()
    trainer = run(tmp_path, callback, max_epochs=2, num_sanity_val_steps=1)
    trainer.fit(Oracle(), datamodule=datamodule)
    assert callback.scorings == {"val": 2}


def test_table_holds_headlines_and_loggers_get_everything(tmp_path):
    callback, logger = Evaluation(), Recorder()
    (table,) = run(tmp_path, callback, logger).test(Oracle(), datamodule=data(), verbose=False)
    metrics = callback.metrics["test"]
    assert "test_error_px" in table
    assert "test_error_px_head" not in table
    assert len(table) < 60 < len(metrics)
    logged = {k for row in logger.rows for k in row}
    assert {alias(n) for n in metrics if not n.endswith("/loss")} <= logged


def test_in_a_fit_every_number_can_be_monitored(tmp_path):
    callback = Evaluation()
    trainer = run(tmp_path, callback, CSVLogger(tmp_path), max_epochs=1, num_sanity_val_steps=0)
    trainer.fit(Oracle(), datamodule=data())
    assert "val_error_px_occluded" in trainer.callback_metrics
    assert set(map(alias, callback.metrics["val"])) <= {alias(n) for n in trainer.callback_metrics}


def test_prediction_that_is_not_finite_says_where(tmp_path):
    from bipose_lit.types import BiposeError

    with pytest.raises(BiposeError, match=r"memory/val.* clip clip100, frame 0 is not finite"):
        run(tmp_path, Evaluation()).validate(Oracle(float("nan")), datamodule=data(), verbose=False)
