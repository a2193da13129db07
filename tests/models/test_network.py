"""PoseNetwork: arms start equal, padding never leaks, streaming equals the clip, costs add up."""

import copy
from dataclasses import replace

import pytest
import torch
from plain_parts import PlainBackbone, StagedDecoder

from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.base import Backbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.flops import blank_batch, measure_cost
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.models.temporal.attention import TemporalAttention
from bipose_lit.models.temporal.controls import TCN, WindowMean
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.models.temporal.film import FiLM
from bipose_lit.models.temporal.joint_lstm import JointLSTM
from bipose_lit.models.temporal.spatial import SpatialLSTM
from bipose_lit.types import BiposeError, FeatureSpec

SIZE, K = (64, 64), 5
HEADS = {
    "lstm": lambda: ConvLSTM(4, direction="forward"),
    "bilstm": lambda: ConvLSTM(4),
    "lstm_wide": lambda: ConvLSTM(16, direction="forward", match="bilstm"),
    "none_matched": lambda: ConvLSTM(4, reset="every_frame"),
    "shuffled": lambda: ConvLSTM(4, order="shuffled"),
    "film": lambda: FiLM(4),
    "spatial": lambda: SpatialLSTM(4),
    "mean": lambda: WindowMean(hidden=4),
    "tcn": lambda: TCN(4),
    "attention": lambda: TemporalAttention(4, 2),
}


def network(seed=0, pooled=False, **slots):
    torch.manual_seed(seed)
    decoder = RegressionDecoder() if pooled else DeconvDecoder(8, 2)
    return PoseNetwork(TimmBackbone("test_resnet"), decoder, joints=K, size=SIZE, **slots)


def clip(B=2, T=4, seed=1):
    batch = blank_batch(B, T, SIZE, K)
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, batch.images.shape, generator=draw, dtype=torch.uint8)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[-1, T - 1] = False
    return replace(batch, images=images, valid=valid)


def wake(net, std=0.3):
    draw = torch.Generator().manual_seed(9)
    for head in net.heads.values():
        for p in head.parameters():
            if not p.detach().any():
                p.data.copy_(torch.randn(p.shape, generator=draw) * std)
    return net


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("slot", ["temporal", "refiner"])
@pytest.mark.parametrize("name", HEADS)
def test_every_arm_starts_as_the_none_arm(name, slot, mode):
    none, arm = network(), network(**{slot: HEADS[name]()})
    for part in ("backbone", "decoder"):
        for a, b in zip(getattr(none, part).parameters(), getattr(arm, part).parameters(), strict=True):
            assert torch.equal(a, b)
    batch = clip()
    wanted = none.train(mode == "train")(batch)[-1]["heatmaps"]
    found = arm.train(mode == "train")(batch)[-1]["heatmaps"]
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    assert torch.equal(torch.rand(3), (network(), torch.rand(3))[1])  # the global stream goes on alike in every arm


@pytest.mark.parametrize("name", ["lstm", "bilstm", "none_matched", "shuffled", "tcn", "mean"])
def test_pool_arms_start_as_the_none_arm(name):
    head = HEADS[name]()
    if isinstance(head, ConvLSTM):
        head = ConvLSTM(**{**head.config()["init_args"], "kernel": 1})
    batch = clip()
    wanted = network(pooled=True).eval()(batch)[-1]["xy"]
    found = network(pooled=True, pool=head).eval()(batch)[-1]["xy"]
    assert found.shape == (7, K, 2)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_seed_decides_the_weights():
    same, other = network(3, temporal=ConvLSTM(4)), network(4, temporal=ConvLSTM(4))
    again = network(3, temporal=ConvLSTM(4))
    assert torch.equal(same.temporal.recurrent, again.temporal.recurrent)
    assert not torch.equal(same.temporal.recurrent, other.temporal.recurrent)
    assert not torch.equal(same.decoder.head.weight, other.decoder.head.weight)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_padding_never_leaks(mode):
    """In training mode too: BatchNorm sees valid frames alone."""
    net = wake(network(temporal=ConvLSTM(4))).train(mode == "train")
    batch = clip()
    other = replace(batch, images=torch.where(batch.valid[:, :, None, None, None], batch.images, 255))
    twin = copy.deepcopy(net)
    torch.testing.assert_close(net(batch)[-1]["heatmaps"], twin(other)[-1]["heatmaps"], rtol=0, atol=0)
    for (key, a), b in zip(net.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_selected_rows_are_those_of_all_rows():
    net = wake(network(temporal=ConvLSTM(4))).eval()
    batch = clip()
    select = batch.valid.clone()
    select[0, 1] = select[1, 0] = False
    every = net(batch)[-1]["heatmaps"]
    assert every.shape == (7, K, 8, 8)
    torch.testing.assert_close(net(batch, select)[-1]["heatmaps"], every[select[batch.valid]], rtol=1e-4, atol=1e-5)


def test_cached_features_give_the_same_predictions():
    net = wake(network(temporal=ConvLSTM(4))).eval()
    batch = clip()
    with torch.no_grad():
        features = net.extract(batch.images.flatten(0, 1)).unflatten(0, (2, 4))
        wanted = net(batch)[-1]["heatmaps"]
        found = net(replace(batch, images=None, features=features.half()))[-1]["heatmaps"]
    torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)
    with pytest.raises(BiposeError, match="neither images nor features"):
        net(replace(batch, images=None))


@pytest.mark.parametrize(
    "slots",
    [
        {},
        {"temporal": ConvLSTM(4, direction="forward")},
        {"temporal": WindowMean(2, 0, 4), "refiner": ConvLSTM(4, direction="forward")},
        {"pooled": True, "temporal": SpatialLSTM(4), "pool": ConvLSTM(4, 1, "forward"), "refiner": TCN(4, causal=True)},
        {"temporal": TemporalAttention(4, 2, future=0), "refiner": JointLSTM(4, "forward")},
        {"pooled": True, "pool": ConvLSTM(4, 1, "forward"), "refiner": JointLSTM(4, "forward")},
    ],
)
def test_streaming_equals_the_clip(slots):
    net = wake(network(**copy.deepcopy(slots))).eval()
    batch = clip(B=2, T=4)
    batch = replace(batch, valid=torch.ones_like(batch.valid))
    (key,) = net(batch)[-1]
    with torch.no_grad():
        wanted = net(batch)[-1][key].unflatten(0, (2, 4))
        state = None
        for t in range(4):
            encoded, state = net.stream(batch.images[:, t], state)
            torch.testing.assert_close(encoded[key], wanted[:, t], rtol=1e-4, atol=1e-5)
    assert net.causal
    assert net.context[1] == 0


def test_bidirectional_network_refuses_to_stream():
    net = network(temporal=ConvLSTM(4))
    assert not net.causal
    assert net.context == (None, None)
    with pytest.raises(BiposeError, match=r"model.temporal \(ConvLSTM\) reads later frames"):
        net.stream(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_reaches_of_heads_add_up():
    net = network(temporal=WindowMean(2, 1, 4), refiner=TCN(4, layers=1))
    assert net.context == (3, 2)
    assert network().context == (0, 0)


@pytest.mark.parametrize("refiner", [ConvLSTM(4), JointLSTM(4)], ids=lambda r: type(r).__name__)
def test_refiner_gives_two_stages_on_selected_rows(refiner):
    net = wake(network(refiner=copy.deepcopy(refiner))).eval()
    batch = clip()
    select = batch.valid.clone()
    select[0, 0] = False
    first, refined = net(batch, select)
    assert first["heatmaps"].shape == refined["heatmaps"].shape == (6, K, 8, 8)
    torch.testing.assert_close(refined["heatmaps"], net(batch)[-1]["heatmaps"][1:], rtol=1e-4, atol=1e-5)


def test_stages_of_a_decoder_come_before_the_refined_one():
    def staged(**slots):
        torch.manual_seed(0)
        return PoseNetwork(PlainBackbone(), StagedDecoder(), joints=K, size=SIZE, **slots).eval()

    batch = clip()
    select = batch.valid.clone()
    select[0, 0] = False
    plain, refined = staged()(batch, select), wake(staged(refiner=ConvLSTM(4)))(batch, select)
    assert len(plain) == 2
    assert len(refined) == 3
    for a, b in zip(plain, refined, strict=False):
        torch.testing.assert_close(a["heatmaps"], b["heatmaps"])
    assert not torch.allclose(refined[1]["heatmaps"], refined[2]["heatmaps"])
    streamed, _ = staged().stream(batch.images[:1, 1])
    torch.testing.assert_close(streamed["heatmaps"], plain[1]["heatmaps"][:1])


def test_freezing_the_backbone():
    torch.manual_seed(0)
    net = PoseNetwork(TimmBackbone("test_resnet"), DeconvDecoder(8, 2), joints=K, size=SIZE, freeze_backbone=True)
    before = {k: v.clone() for k, v in net.backbone.state_dict().items()}
    net.train()
    net(clip())[0]["heatmaps"].square().sum().backward()
    assert all(p.grad is None for p in net.backbone.parameters())
    assert all(p.grad is not None for p in net.decoder.parameters())
    assert all(torch.equal(v, before[k]) for k, v in net.backbone.state_dict().items())
    assert not any(m.training for m in net.backbone.modules())
    assert net.decoder.training


@pytest.mark.parametrize(
    "slots",
    [
        {"temporal": ConvLSTM(4)},
        {"pooled": True, "pool": ConvLSTM(4, 1)},
        {"refiner": FiLM(4)},
        {"refiner": JointLSTM(4)},
        {"temporal": TemporalAttention(4, 2)},
    ],
)
def test_every_parameter_gets_a_gradient(slots):
    net = wake(network(**copy.deepcopy(slots))).train()
    sum(v.square().sum() for stage in net(clip()) for v in stage.values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_a_refiner_starts_as_the_identity_and_counts_as_a_part():
    plain, refined = network(pooled=False).eval(), network(refiner=JointLSTM(4)).eval()
    batch = clip()
    first, second = refined(batch)
    assert torch.equal(second["heatmaps"], first["heatmaps"])
    torch.testing.assert_close(first["heatmaps"], plain(batch)[-1]["heatmaps"], rtol=0, atol=1e-6)
    assert refined.count_parameters()["refiner"] == sum(p.numel() for p in refined.refiner.parameters()) > 0
    assert refined.context == (None, None)
    assert measure_cost(refined, 4).gflops_by_part["refiner"] > 0


def test_a_refiner_of_three_by_three_on_coordinates_is_refused():
    with pytest.raises(BiposeError, match=r"model\.refiner: kernel 3 on coordinates"):
        network(pooled=True, refiner=ConvLSTM(4))


@pytest.mark.parametrize("refiner", [None, JointLSTM(4)], ids=["heads", "refiner"])
def test_configuration_rebuilds_the_network(refiner):
    net = wake(
        network(temporal=ConvLSTM(4, direction="forward", match="bilstm"), refiner=copy.deepcopy(refiner))
    ).eval()
    again = instantiate(net.config()).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(clip())[-1]["heatmaps"], net(clip())[-1]["heatmaps"], rtol=0, atol=0)


def test_normalisation_is_that_of_the_backbone():
    class Same(Backbone):
        spec = FeatureSpec(3, 1)
        mean, std = (0.5, 0.25, 0.0), (0.5, 0.25, 1.0)

        def forward(self, images):
            return images

    net = PoseNetwork(Same(), DeconvDecoder([]), joints=K, size=(4, 4))
    out = net.extract(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([1.0, 3.0, 1.0]))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda b: PoseNetwork(b, DeconvDecoder(8, 2), joints=K, size=(100, 64)), "no multiple of the backbone's stride"),
        (
            lambda _: PoseNetwork(TimmBackbone("hrnet_w18_small"), DeconvDecoder(8, 3), joints=K, size=(144, 192)),
            "144x192 are no multiple of 32, as backbone TimmBackbone needs",
        ),
        (lambda b: PoseNetwork(b, DeconvDecoder(8, 2), pool=ConvLSTM(4, 1), joints=K, size=SIZE), "use RegressionDecoder"),
        (lambda b: PoseNetwork(b, RegressionDecoder(), pool=ConvLSTM(4, 3), joints=K, size=SIZE), "kernel 3 on a 1x1 map"),
        (lambda b: PoseNetwork(b, DeconvDecoder(8, 6), joints=K, size=SIZE), "fewer layers"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit(make, told):
    with pytest.raises(BiposeError, match=told):
        make(TimmBackbone("test_resnet"))


def test_cost_by_hand():
    net = network(temporal=ConvLSTM(4, direction="forward"))
    few, many = measure_cost(net, 4), measure_cost(net, 9)
    assert few.gflops == pytest.approx(sum(few.gflops_by_part.values()))
    assert few.parameters["total"] == sum(p.numel() for p in net.parameters())
    assert few.parameters == net.count_parameters()
    assert few.lookahead == 0
    C, R, G, H, places = 96, 4, 16, 4, 4
    fixed, step = C * R + R * G * 9 + H * C, H * G * 9
    for cost, T in ((few, 4), (many, 9)):
        wanted = 2 * places * (fixed + step * (T - 1) / T) / 1e9  # the first step has no state to convolve
        assert cost.gflops_by_part["temporal"] == pytest.approx(wanted)
    assert few.gflops_by_part["decoder"] == pytest.approx(2 * (96 * 8 * 16 * 4 + 8 * 8 * 16 * 16 + 8 * K * 64) / 1e9)
