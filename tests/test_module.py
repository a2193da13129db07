"""PoseModule: checkpoints that rebuild alone, arms that start equal, weights in time, data that do not fit."""

import socket
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from memory_index import MemoryReader
from plain_parts import PlainBackbone, StagedDecoder
from strange_parts import Smear
from tiny import tiny_options, write_jhmdb

from bipose_lit import geometry, skeletons
from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.cli import build, resolve
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import HeatmapMSE, SmoothL1
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.flops import blank_batch
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe
from bipose_lit.types import BiposeError, ClipBatch
from bipose_lit.weights import fingerprint, save_parts

BASE = Path(__file__).parents[1] / "experiments"
ARMS = sorted((BASE / "temporal").glob("*.yaml"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_jhmdb(tmp_path_factory.mktemp("jhmdb"))


def make(temporal=None, **options) -> PoseModule:
    parts = {"backbone": TimmBackbone("test_resnet", weights=options.pop("backbone_weights", None))}
    return PoseModule(
        **parts,
        decoder=DeconvDecoder(8, 3),
        loss=HeatmapMSE(),
        temporal=temporal,
        **{
            "codec": HeatmapCodec(stride=4, sigma=1.0),
            "joints": 5,
            "size": (64, 64),
            "recipe": Recipe("adamw", 3e-3),
            **options,
        },
    )


def data(**options) -> PoseDataModule:
    return PoseDataModule(
        MemoryReader(3, 5), **{"size": (64, 64), "clips": ClipSampling(4), "batch_size": 2, **options}
    )


def trainer(folder: Path, **options) -> L.Trainer:
    return L.Trainer(
        **{
            "default_root_dir": folder,
            "max_steps": 2,
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "use_distributed_sampler": False,
            **options,
        }
    )


def some_batch(joints: int = 5, frames: int = 5) -> ClipBatch:
    batch = blank_batch(2, frames, (64, 64), joints)
    assert batch.images is not None
    generator = torch.Generator().manual_seed(0)
    batch.images = torch.randint(0, 256, batch.images.shape, generator=generator, dtype=torch.uint8)
    batch.valid[1, 3:] = False
    return batch


def predictions(module: PoseModule, joints: int = 5) -> dict[str, torch.Tensor]:
    return module.eval().predict_step(some_batch(joints))


def assert_same_predictions(one: PoseModule, two: PoseModule, joints: int = 5) -> None:
    first, second = predictions(one, joints), predictions(two, joints)
    assert torch.equal(first["joints"], second["joints"])
    assert torch.equal(first["score"], second["score"])


# --- checkpoints -----------------------------------------------------------------------------------------------------


def test_checkpoint_of_a_configured_module_rebuilds_alone(tmp_path, root):
    options = tiny_options(root, **{"model.temporal.init_args.hidden": 4, "trainer.max_steps": 2})
    torch.manual_seed(1)
    module, datamodule, _ = build(resolve([BASE / "base.yaml", BASE / "temporal" / "bilstm.yaml"], options))
    run = trainer(tmp_path)
    run.fit(module, datamodule=datamodule)
    run.save_checkpoint(tmp_path / "whole.ckpt")
    torch.load(tmp_path / "whole.ckpt", weights_only=True)
    again = PoseModule.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    assert again.recipe == module.recipe
    assert fingerprint(again) == fingerprint(module)
    assert_same_predictions(module, again, 15)


@pytest.mark.parametrize("head", [ConvLSTM(4, dropout=0.1), Smear(0.25), Smear(0.25, ConvLSTM(3))])
def test_checkpoint_of_live_objects_rebuilds_alone(tmp_path, head):
    module = make(head, weights_for=["decoder"], freeze_backbone=True)
    run = trainer(tmp_path)
    run.fit(module, datamodule=data())
    run.save_checkpoint(tmp_path / "whole.ckpt")
    again = PoseModule.load_from_checkpoint(tmp_path / "whole.ckpt", weights_only=True)
    assert type(again.network.temporal) is type(head)
    assert again.network.frozen
    assert again.weights_for == ["decoder"]
    assert_same_predictions(module, again)
    # A second generation is as good as the first.
    run.strategy.connect(again)
    run.save_checkpoint(tmp_path / "second.ckpt", weights_only=True)
    assert_same_predictions(module, PoseModule.load_from_checkpoint(tmp_path / "second.ckpt"))


def test_training_resumes_from_a_checkpoint_of_live_objects(tmp_path):
    straight = make(ConvLSTM(4))
    state = {k: v.clone() for k, v in straight.state_dict().items()}
    run = trainer(tmp_path, max_steps=4)
    run.fit(straight, datamodule=data())
    broken = make(ConvLSTM(4))
    broken.load_state_dict(state)
    keep = ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=3)
    first = trainer(tmp_path, max_steps=3, callbacks=[keep], enable_checkpointing=True)
    first.fit(broken, datamodule=data())
    resumed = make(ConvLSTM(4))
    trainer(tmp_path, max_steps=4).fit(resumed, datamodule=data(), ckpt_path=keep.best_model_path, weights_only=True)
    assert fingerprint(resumed) == fingerprint(straight)


def test_checkpoints_need_neither_weight_files_nor_a_hub(tmp_path, monkeypatch):
    donor = make()
    save_parts(donor.network, tmp_path / "parts.safetensors")
    save_parts(donor.network.backbone, tmp_path / "timm.safetensors", ["net"])
    module = make(
        ConvLSTM(4), weights=str(tmp_path / "parts.safetensors"), backbone_weights=str(tmp_path / "timm.safetensors")
    )
    run = trainer(tmp_path)
    run.fit(module, datamodule=data())
    run.save_checkpoint(tmp_path / "whole.ckpt")
    checkpoint = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    backbone = checkpoint["hyper_parameters"]["backbone"]["init_args"]
    backbone.update(pretrained=True, weights=None)
    torch.save(checkpoint, tmp_path / "pretrained.ckpt")
    (tmp_path / "parts.safetensors").unlink()
    (tmp_path / "timm.safetensors").unlink()

    def refuse(*args, **kwargs):
        raise AssertionError("a checkpoint must not reach for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    expected = predictions(module)
    for name in ("whole", "pretrained"):
        again = PoseModule.load_from_checkpoint(tmp_path / f"{name}.ckpt")
        fresh = trainer(tmp_path)
        fresh.predict(again, datamodule=data())  # setup runs here, and must not look for weights either
        assert torch.equal(predictions(again)["joints"], expected["joints"])


@pytest.mark.parametrize(("parts", "fetched"), [(["backbone", "decoder"], False), (["decoder"], True)])
def test_pretrained_weights_that_would_be_replaced_are_not_fetched(tmp_path, monkeypatch, parts, fetched):
    save_parts(make().network, tmp_path / "parts.safetensors")
    module = make(weights=str(tmp_path / "parts.safetensors"), weights_for=parts)
    asked = []
    monkeypatch.setattr(module.network.backbone, "initialise", lambda: asked.append(True))
    module.start_from_weights()
    assert bool(asked) is fetched


def test_a_resumed_fit_does_not_look_for_weights(tmp_path):
    save_parts(make().network, tmp_path / "parts.safetensors")
    module = make(weights=str(tmp_path / "parts.safetensors"))
    run = trainer(tmp_path)
    run.fit(module, datamodule=data())
    run.save_checkpoint(tmp_path / "half.ckpt")
    (tmp_path / "parts.safetensors").unlink()
    other = make(weights=str(tmp_path / "parts.safetensors"))
    trainer(tmp_path, max_steps=3).fit(other, datamodule=data(), ckpt_path=tmp_path / "half.ckpt")
    scored = make(weights=str(tmp_path / "parts.safetensors"))
    trainer(tmp_path).test(scored, datamodule=data(), ckpt_path=tmp_path / "half.ckpt", verbose=False)
    with pytest.raises(BiposeError, match="not found"):
        trainer(tmp_path).test(make(weights=str(tmp_path / "parts.safetensors")), datamodule=data(), verbose=False)
    with pytest.raises(BiposeError, match="not found"):
        trainer(tmp_path).fit(make(weights=str(tmp_path / "parts.safetensors")), datamodule=data())


# --- start -----------------------------------------------------------------------------------------------------------


def test_all_arms_start_as_the_same_function(tmp_path, root):
    torch.manual_seed(7)
    donor, _, _ = build(resolve([BASE / "base.yaml"], tiny_options(root)))
    save_parts(donor.network, tmp_path / "parts.safetensors")
    options = tiny_options(root, **{"model.weights": str(tmp_path / "parts.safetensors")})
    assert len(ARMS) >= 8
    expected = predictions(donor, 15)
    for arm in ARMS:
        torch.manual_seed(3)
        module, _, _ = build(resolve([BASE / "base.yaml", arm], options))
        module.start_from_weights()
        found = predictions(module, 15)
        assert torch.equal(found["joints"], expected["joints"]), arm.stem
        assert torch.equal(found["score"], expected["score"]), arm.stem


def test_one_seed_gives_all_arms_the_same_backbone_and_decoder(root):
    prints = set()
    for arm in ARMS:
        torch.manual_seed(3)
        module, _, _ = build(resolve([BASE / "base.yaml", arm], tiny_options(root)))
        prints.add((fingerprint(module.network.backbone), fingerprint(module.network.decoder)))
    assert len(prints) == 1


def test_starting_weights_are_there_before_callbacks_copy_the_model(tmp_path):
    """An average that never updates must end as the weights that training started from, not as a random network."""
    donor = make()
    save_parts(donor.network, tmp_path / "parts.safetensors")
    module = make(weights=str(tmp_path / "parts.safetensors"))
    average = EMAWeightAveraging(update_starting_at_step=1000)
    trainer(tmp_path, callbacks=[average]).fit(module, datamodule=data())
    assert fingerprint(module.network) == fingerprint(donor.network)


def test_averaged_weights_are_those_that_are_scored(tmp_path):
    """EMA by hand over the raw weights of every step gives the network that the callback leaves behind."""
    torch.manual_seed(0)
    module = make()
    raw: list[dict[str, torch.Tensor]] = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            raw.append({k: v.detach().clone() for k, v in pl_module.named_parameters()})

    run = trainer(tmp_path, max_steps=4, callbacks=[Watch(), EMAWeightAveraging(decay=0.5)])
    run.fit(module, datamodule=data())
    expected = raw[0]
    for weights in raw[1:]:
        expected = {k: 0.5 * expected[k] + 0.5 * weights[k] for k in expected}
    for name, value in module.named_parameters():
        torch.testing.assert_close(value, expected[name])
    before = fingerprint(module.network)
    run.validate(module, datamodule=data(), verbose=False)
    run.test(module, datamodule=data(), verbose=False)
    assert fingerprint(module.network) == before


def test_frozen_backbone_stays_and_clipping_and_precision_pass_through(tmp_path):
    module = make(ConvLSTM(4), freeze_backbone=True)
    before, decoder = fingerprint(module.network.backbone), fingerprint(module.network.decoder)
    norms = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norms.append(torch.stack([g.norm() for g in grads]).norm().item())
            assert all(p.grad is None for p in pl_module.network.backbone.parameters())

    clipped = trainer(tmp_path, gradient_clip_val=1e-3, precision="bf16-mixed", callbacks=[Watch()])
    clipped.fit(module, datamodule=data())
    assert fingerprint(module.network.backbone) == before
    assert fingerprint(module.network.decoder) != decoder
    assert clipped.precision == "bf16-mixed"
    assert norms
    assert all(n <= 1e-3 * 1.001 for n in norms)
    clipped.test(module, datamodule=data(), verbose=False)  # bf16 predictions reach the metrics as float32


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refine", ["dark", "parabola"])
def test_joints_are_located_outside_autocast(refine, monkeypatch):
    """Under bfloat16 a joint at pixel 1003.7 of the original picture must not end at 1000 or 1008."""
    module = make(codec=HeatmapCodec(stride=4, sigma=1.0, refine=refine)).eval()
    batch = some_batch()
    batch.to_image = torch.tensor([[7.31, 0.2, 1003.7], [-0.2, 7.31, 641.3]]).expand(2, 5, 2, 3).contiguous()
    wanted = torch.rand(int(batch.valid.sum()), 5, 2, generator=torch.Generator().manual_seed(1)) * 30 + 16
    encoded, _ = module.codec.encode(wanted, torch.full(wanted.shape[:2], 2))
    monkeypatch.setattr(module.network, "forward", lambda *args: [{k: v.bfloat16() for k, v in encoded.items()}])
    exact = geometry.apply(batch.to_image[batch.valid], module.codec.decode({
        k: v.bfloat16().float() for k, v in encoded.items()})[0])  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        found = module.predict_step(batch)["joints"]
    assert found.dtype == torch.float32
    assert torch.equal(found[batch.valid], exact)
    truth = geometry.apply(batch.to_image[batch.valid], wanted)
    assert (exact - truth).abs().max() < 2.0  # the maps themselves are bfloat16, to three digits


def test_validation_in_mixed_bfloat16_scores_what_float32_scores(tmp_path):
    """A joint found where it is labelled costs nothing, whatever the Trainer's precision."""
    errors = {}
    for precision in ("32-true", "bf16-mixed"):
        module, datamodule = make(codec=HeatmapCodec(stride=4, sigma=1.0, refine="dark")), data()

        def perfect(batch: ClipBatch, select: torch.Tensor, module: PoseModule = module):
            encoded, _ = module.codec.encode(batch.joints[select], batch.visible[select])
            return [{k: v.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else v
                     for k, v in encoded.items()}]  # fmt: skip

        module.network.forward = perfect  # type: ignore[method-assign]
        run = trainer(tmp_path, precision=precision)
        run.validate(module, datamodule=datamodule, verbose=False)
        (evaluation,) = (c for c in run.callbacks if isinstance(c, Evaluation))
        errors[precision] = next(v for k, v in evaluation.metrics["val"].items() if k.startswith("val/error_px"))
    assert errors["bf16-mixed"] == pytest.approx(errors["32-true"], abs=0.1)


# --- flip test -------------------------------------------------------------------------------------------------------


def test_flip_test_makes_predictions_of_a_mirrored_clip_mirror_images():
    torch.manual_seed(0)
    module = PoseModule(
        TimmBackbone("test_resnet"),
        DeconvDecoder(8, 3),
        HeatmapCodec(stride=4, sigma=1.0, skeleton="jhmdb"),
        HeatmapMSE(),
        temporal=ConvLSTM(4),
        joints=15,
        size=(64, 64),
        flip_test=True,
    ).eval()
    with torch.no_grad():  # an untrained head would pass features on, and hide a mistake in it
        for parameter in module.network.temporal.parameters():
            parameter.normal_(std=0.1)
    batch = some_batch(15)
    straight = module.predict_step(batch)
    mirrored = module.predict_step(batch.flipped())
    joints = mirrored["joints"][:, :, list(skeletons.JHMDB.flip)]
    valid = batch.valid
    torch.testing.assert_close(straight["joints"][valid][..., 0], 63 - joints[valid][..., 0], rtol=0, atol=1e-3)
    torch.testing.assert_close(straight["joints"][valid][..., 1], joints[valid][..., 1], rtol=0, atol=1e-3)
    module.flip_test = False
    assert not torch.equal(module.predict_step(batch)["joints"], straight["joints"])


def test_flip_test_from_cached_features_equals_that_from_pictures():
    torch.manual_seed(0)
    codec = HeatmapCodec(stride=4, sigma=1.0, skeleton="jhmdb")
    module = PoseModule(
        TimmBackbone("test_resnet"), DeconvDecoder(8, 3), codec, HeatmapMSE(), temporal=ConvLSTM(4),
        joints=15, size=(64, 64), flip_test=True, freeze_backbone=True,
    ).eval()  # fmt: skip
    pictures = some_batch(15)

    def features(batch: ClipBatch) -> torch.Tensor:
        rows = module.network.extract(batch.images[batch.valid])
        out = rows.new_zeros(*batch.valid.shape, *rows.shape[1:])
        out[batch.valid] = rows
        return out

    cached = some_batch(15)
    cached.features, cached.mirrored, cached.images = features(pictures), features(pictures.flipped()), None
    one, two = module.predict_step(pictures), module.predict_step(cached)
    torch.testing.assert_close(one["joints"], two["joints"], rtol=0, atol=1e-4)
    cached.mirrored = None
    with pytest.raises(BiposeError, match="no mirrored view"):
        module.predict_step(cached)


def test_padding_and_unlabelled_frames_do_not_matter():
    module = make(ConvLSTM(4)).eval()
    batch = some_batch()
    out = module.predict_step(batch)
    assert (out["joints"][1, 3:] == 0).all()
    assert "loss" not in out  # a blank batch holds no label
    other = some_batch()
    assert other.images is not None
    other.images[1, 3:] = 255
    assert torch.equal(module.predict_step(other)["joints"], out["joints"])


@pytest.mark.filterwarnings("ignore:.*self.trainer")
def test_earlier_stages_have_a_weight_of_their_own():
    batch = some_batch()
    batch.joints[:], batch.visible[:] = 20.0, 2

    def loss(**options):
        torch.manual_seed(0)
        module = PoseModule(**parts(backbone=PlainBackbone(), decoder=StagedDecoder(), **options))
        stages = [
            module.loss(s, *module.codec.encode(batch.joints[batch.valid], batch.visible[batch.valid]))
            for s in module.network(batch)
        ]
        return float(module.training_step(batch, 0)["loss"].detach()), [float(s["loss"].detach()) for s in stages]

    (total, (first, last)), (half, _) = loss(), loss(intermediate=0.5)
    assert total == pytest.approx(first + last)
    assert half == pytest.approx(first / 2 + last)
    with pytest.raises(BiposeError, match=r"model\.intermediate is -1"):
        loss(intermediate=-1)


# --- what does not fit -----------------------------------------------------------------------------------------------


def parts(**changed):
    return {
        "backbone": TimmBackbone("test_resnet"),
        "decoder": DeconvDecoder(8, 3),
        "codec": HeatmapCodec(stride=4, sigma=1.0),
        "loss": HeatmapMSE(),
        "joints": 5,
        "size": (64, 64),
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"codec": HeatmapCodec(stride=8, sigma=1.0)}, r"decoder predicts \[5, 16, 16\], codec makes \[5, 8, 8\]"),
        ({"decoder": DeconvDecoder(8, 2)}, r"decoder predicts \[5, 8, 8\], codec makes \[5, 16, 16\]"),
        ({"codec": RegressionCodec()}, "loss HeatmapMSE needs heatmaps, codec RegressionCodec makes xy"),
        ({"codec": RegressionCodec(), "loss": SmoothL1()}, "needs xy, but the decoder predicts heatmaps"),
        ({"decoder": RegressionDecoder()}, "needs heatmaps, but the decoder predicts xy"),
        (
            {"decoder": RegressionDecoder(sigma=True), "codec": RegressionCodec(), "loss": SmoothL1()},
            "RegressionDecoder predicts sigma besides, which loss SmoothL1 does not read: spread",
        ),
        ({"codec": HeatmapCodec(4, 1.0, skeleton="jhmdb")}, "skeleton jhmdb has 15 joints"),
        ({"size": (65, 64)}, "65x64"),
    ],
)
def test_parts_that_do_not_fit_are_refused_at_construction(changed, told):
    with pytest.raises(BiposeError, match=told):
        PoseModule(**parts(**changed))


def test_checking_the_parts_changes_nothing():
    torch.manual_seed(5)
    module = PoseModule(**parts())
    assert module.network.decoder.training
    assert all(p.grad is None for p in module.parameters())
    torch.manual_seed(5)
    again = PoseModule(**parts())
    assert fingerprint(again) == fingerprint(module)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"joints": 15}, r"model.joints is 15, but the data's skeleton \(five\) has 5; set model.joints to 5"),
        ({"size": (96, 64)}, r"model.size is \(96, 64\), data.size \(64, 64\)"),
    ],
)
def test_data_of_another_shape_are_refused_before_the_first_step(tmp_path, options, told):
    with pytest.raises(BiposeError, match=told):
        trainer(tmp_path).fit(make(**options), datamodule=data())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_precisions_that_convert_labels_are_refused(tmp_path, precision):
    with pytest.raises(BiposeError, match=f"trainer.precision {precision} .*use 32-true, bf16-mixed or 16-mixed"):
        trainer(tmp_path, precision=precision).validate(make(), datamodule=data(), verbose=False)


def test_a_flip_in_another_order_of_joints_is_refused(tmp_path, monkeypatch):
    mixed = replace(skeletons.JHMDB, name="mixed", joints=skeletons.JHMDB.joints[::-1])
    monkeypatch.setitem(skeletons.SKELETONS, "mixed", mixed)
    reader = MemoryReader(2, 5)
    reader.skeleton = skeletons.JHMDB  # type: ignore[misc]
    module = PoseModule(**parts(codec=HeatmapCodec(4, 1.0, skeleton="mixed"), joints=15))
    datamodule = PoseDataModule(reader, size=(64, 64))
    datamodule.setup = lambda stage: None  # type: ignore[method-assign,assignment]
    with pytest.raises(BiposeError, match="a flip test would exchange the wrong ones"):
        trainer(tmp_path).fit(module, datamodule=datamodule)


def test_metrics_without_a_data_module_say_what_is_missing(tmp_path):
    module, loaders = make(), data()
    with pytest.raises(BiposeError, match="pass datamodule="):
        trainer(tmp_path).validate(module, dataloaders=loaders.val_dataloader(), verbose=False)
