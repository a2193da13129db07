"""The classic networks as parts: with heads before them and refiners after them, in clips, streams and checkpoints."""

import copy
from dataclasses import replace

import pytest
import torch

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.classic import CPMTrunk, HourglassStem, RecurrentTrunk
from bipose_lit.models.decoders.cpm import CPMStages
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.hourglass import StackedHourglass
from bipose_lit.models.decoders.recurrent import RecurrentDecoder
from bipose_lit.models.flops import blank_batch, measure_cost
from bipose_lit.models.network import PoseNetwork
from bipose_lit.models.rebuild import instantiate
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.models.temporal.joint_lstm import JointLSTM
from bipose_lit.models.temporal.lstm_pm import LSTMPoseMachine
from bipose_lit.module import PoseModule
from bipose_lit.types import BiposeError

SIZE, K = (64, 48), 5
NETWORKS = {
    "hourglass": (HourglassStem(8), StackedHourglass(2, depth=2), 2),
    "cpm": (CPMTrunk(4, 3), CPMStages(3, 4, 6, 3, 5, 3), 3),
    "recurrent": (RecurrentTrunk(4), RecurrentDecoder(2, 8, 3, 3, 5), 3),
    "cpm_one": (CPMTrunk(4, 3), CPMStages(1, 4, 6, 3), 1),
}
SLOTS = {
    "plain": {},
    "temporal": {"temporal": ConvLSTM(3, direction="forward")},
    "temporal_refiner": {"temporal": ConvLSTM(3, direction="forward"), "refiner": JointLSTM(4, "forward")},
    "heatmap_refiner": {"refiner": ConvLSTM(3, direction="forward")},
}
MACHINES = {
    "paper": LSTMPoseMachine(4, 3, 5, 3),
    "residual": LSTMPoseMachine(4, 3, 5, 3, residual=True),
    "matched": LSTMPoseMachine(4, 3, 5, 3, reset="every_frame"),
}


def network(name, seed=0, **slots):
    torch.manual_seed(seed)
    backbone, decoder, _ = copy.deepcopy(NETWORKS[name])
    return PoseNetwork(backbone, decoder, joints=K, size=SIZE, **copy.deepcopy(slots))


def clip(B=2, T=3):
    batch = blank_batch(B, T, SIZE, K)
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, batch.images.shape, generator=draw, dtype=torch.uint8)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[-1, T - 1] = False
    return replace(batch, images=images, valid=valid)


def wake(net):
    """Weights that are not zero and not tiny, so that nothing is hidden."""
    draw = torch.Generator().manual_seed(9)
    for part in (*net.heads.values(), net.decoder):
        for p in part.parameters():
            if p.detach().abs().max() < 0.01:
                p.data.copy_(torch.randn(p.shape, generator=draw) * 0.3)
    return net


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_stages_streams_and_the_start(name, slots):
    """As many stages as told; the untrained arm is the plain network; a stream equals the clip; gradients reach everything."""
    net, plain = network(name, **SLOTS[slots]).eval(), network(name).eval()
    batch = clip()
    stages = net(batch)
    assert len(stages) == NETWORKS[name][2] + ("refiner" in slots)
    torch.testing.assert_close(stages[-1]["heatmaps"], plain(batch)[-1]["heatmaps"], rtol=0, atol=1e-6)
    wake(net)
    whole = replace(batch, valid=torch.ones_like(batch.valid))
    with torch.no_grad():
        wanted, state = net(whole)[-1]["heatmaps"].unflatten(0, (2, 3)), None
        for t in range(3):
            encoded, state = net.stream(whole.images[:, t], state)
            torch.testing.assert_close(encoded["heatmaps"], wanted[:, t], rtol=1e-4, atol=1e-5)
    sum(v.square().sum() for stage in net.train()(batch) for v in stage.values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("name", MACHINES)
def test_an_lstm_pose_machine_streams_and_starts_as_it_says(name):
    net = network("cpm_one", refiner=MACHINES[name]).eval()
    batch = clip()
    first, refined = net(batch)
    assert torch.allclose(first["heatmaps"], refined["heatmaps"]) == MACHINES[name].identity
    wake(net)
    whole = replace(batch, valid=torch.ones_like(batch.valid))
    with torch.no_grad():
        wanted, state = net(whole)[-1]["heatmaps"].unflatten(0, (2, 3)), None
        for t in range(3):
            encoded, state = net.stream(whole.images[:, t], state)
            torch.testing.assert_close(encoded["heatmaps"], wanted[:, t], rtol=1e-4, atol=1e-5)
    other = replace(batch, images=torch.where(batch.valid[:, :, None, None, None], batch.images, 255))
    torch.testing.assert_close(net(other)[-1]["heatmaps"], net(batch)[-1]["heatmaps"], rtol=0, atol=0)
    assert net.causal
    assert net.context == MACHINES[name].context
    again = instantiate(net.config()).eval()
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(batch)[-1]["heatmaps"], net(batch)[-1]["heatmaps"], rtol=0, atol=0)
    assert measure_cost(net, 3).gflops_by_part["refiner"] > 0


def test_an_lstm_pose_machine_sees_earlier_frames_and_no_later_one():
    net, batch = wake(network("cpm_one", refiner=MACHINES["paper"])).eval(), clip(1, 4)
    batch = replace(batch, valid=torch.ones_like(batch.valid))
    base = net(batch)[-1]["heatmaps"]
    images = batch.images.clone()
    images[:, 2] = 255 - images[:, 2]
    changed = (net(replace(batch, images=images))[-1]["heatmaps"] - base).abs().amax((1, 2, 3)) > 1e-6
    assert changed.tolist() == [False, False, True, True]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_module_takes_them_and_supervises_every_stage(name):
    backbone, decoder, stages = copy.deepcopy(NETWORKS[name])
    module = PoseModule(backbone, decoder, HeatmapCodec(backbone.spec.stride), HeatmapMSE(), joints=K, size=SIZE)
    module.log_dict = lambda *_, **__: None
    batch = replace(clip(), joints=torch.full((2, 3, K, 2), 20.0), visible=torch.full((2, 3, K), 2, dtype=torch.uint8))
    loss = module.training_step(batch, 0)["loss"].detach()
    assert float(loss) == pytest.approx(stages, rel=0.2), "maps start near zero, and each stage of zeros costs 1"


def test_what_does_not_fit_is_told():
    with pytest.raises(BiposeError, match="keeps the map's size"):
        PoseNetwork(HourglassStem(8), DeconvDecoder(4, 1), refiner=LSTMPoseMachine(2), joints=K, size=SIZE)
    with pytest.raises(BiposeError, match="64x48 at stride 4 cannot be halved 4 times"):
        PoseNetwork(HourglassStem(8), StackedHourglass(1), joints=K, size=SIZE)
    with pytest.raises(BiposeError, match="codec's stride must agree"):
        PoseModule(CPMTrunk(4, 3), CPMStages(1, 2, 2), HeatmapCodec(4), HeatmapMSE(), joints=K, size=SIZE)
