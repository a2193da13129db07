"""LSTM pose machines: the authors' sizes, the paper's recurrence, clips and streams, what is refused."""

import copy

import pytest
import torch
from torch import nn

from bipose_lit.models.layers import centre_map
from bipose_lit.models.temporal.joint_lstm import JointLSTM
from bipose_lit.models.temporal.lstm_pm import LSTMPoseMachine
from bipose_lit.testing import check_refiner
from bipose_lit.types import BiposeError, FeatureSpec

K, C, SPEC = 3, 6, FeatureSpec(6, 8)
SMALL = {"hidden": 6, "reduced": 5, "channels": 7, "kernel": 3}
ARMS = {
    "paper": LSTMPoseMachine(**SMALL),
    "matched": LSTMPoseMachine(**SMALL, reset="every_frame"),
    "residual": LSTMPoseMachine(**SMALL, residual=True),
    "residual_matched": LSTMPoseMachine(**SMALL, residual=True, reset="every_frame"),
}


def built(refiner, wake=True):
    refiner = copy.deepcopy(refiner)
    torch.manual_seed(0)
    refiner.build(SPEC, FeatureSpec(K, 8), K)
    if wake:
        nn.init.normal_(refiner.layers[-1].weight, std=0.3)
    return refiner.double().eval()


def inputs(B=2, T=5, seed=0):
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randn(B, T, K, 4, 5, generator=draw, dtype=torch.float64)
    features = torch.randn(B, T, C, 4, 5, generator=draw, dtype=torch.float64)
    return maps, features, torch.ones(B, T, dtype=torch.bool)


@pytest.mark.parametrize("name", ARMS)
def test_contract(name):
    check_refiner(ARMS[name])


@pytest.mark.parametrize("predicts", ["heatmaps", "xy"])
@pytest.mark.parametrize("direction", ["both", "forward"])
@pytest.mark.parametrize("bare", [False, True])
def test_contract_of_the_other_refiner(predicts, direction, bare):
    more = {"sampled": 0, "embedding": 0} if bare else {}
    check_refiner(JointLSTM(6, direction, **more), predicts, stride=16)
    check_refiner(JointLSTM(6, direction, reset="every_frame", **more), predicts, stride=16)


def test_it_has_the_parameters_of_the_authors_network():
    """Oracle: the layers of LSTM_deploy2.prototxt in lawy623/LSTM_Pose_Machines after the trunk, with one bias per gate."""
    refiner = LSTMPoseMachine()
    refiner.build(FeatureSpec(128, 8), FeatureSpec(14, 8), 14)
    convolutions = (5, 128, 32), (11, 48, 128), (11, 128, 128), (11, 128, 128), (1, 128, 128), (1, 128, 14)
    wanted = sum((k * k * before + 1) * after for k, before, after in convolutions)
    wanted += 4 * ((9 * (32 + 14 + 1) + 1) * 48 + 9 * 48 * 48)
    assert sum(p.numel() for p in refiner.parameters()) == wanted
    gates = refiner.input.bias.detach().view(4, 48)
    assert [round(float(g.mean()), 6) for g in gates] == [1.4, 1.0, 0.2, 0.0], "input, forget, output, candidate"
    assert (gates == gates[:, :1]).all()


def paper(refiner, maps, features):
    """Oracle: the paper's equations, frame after frame, with a cell written out."""
    before, hidden, memory, found = maps[:, 0], None, None, []
    recurrent = nn.functional.conv2d
    for t in range(maps.shape[1]):
        reduced = refiner.reduction(features[:, t])
        x = torch.cat([reduced, centre_map(reduced, refiner.centre), before], dim=1)
        gates = refiner.input(x)
        if hidden is not None:
            gates = gates + recurrent(hidden, refiner.recurrent[0], padding=1)
        i, f, o, g = gates.chunk(4, dim=1)
        memory = i.sigmoid() * g.tanh() + (0 if memory is None else f.sigmoid() * memory)
        hidden = o.sigmoid() * memory.tanh()
        before = refiner.layers(hidden)
        found.append(before)
    return torch.stack(found, dim=1)


def test_it_computes_what_the_paper_says():
    refiner = built(ARMS["paper"])
    maps, features, valid = inputs()
    found = refiner({"heatmaps": maps}, features, valid)["heatmaps"]
    torch.testing.assert_close(found, paper(refiner, maps, features), rtol=0, atol=1e-12)


def test_of_the_decoders_maps_the_first_frames_alone_are_read():
    refiner = built(ARMS["paper"])
    maps, features, valid = inputs()
    before = refiner({"heatmaps": maps}, features, valid)["heatmaps"]
    later = maps.clone()
    later[:, 1:] += 1
    assert torch.equal(refiner({"heatmaps": later}, features, valid)["heatmaps"], before)
    first = maps.clone()
    first[:, 0] += 1
    changed = (refiner({"heatmaps": first}, features, valid)["heatmaps"] - before).abs().amax((0, 2, 3, 4))
    assert (changed > 1e-9).all()


@pytest.mark.parametrize("name", ARMS)
def test_gaps_are_left_out_of_the_sequence(name):
    """A clip with frames that are not valid equals the clip without them, wherever they lie."""
    refiner = built(ARMS[name])
    maps, features, valid = inputs(1, 6)
    valid[0, [0, 3]] = False
    found = refiner({"heatmaps": maps}, features, valid)["heatmaps"]
    alone = refiner({"heatmaps": maps[valid][None]}, features[valid][None], valid[valid][None])["heatmaps"]
    torch.testing.assert_close(found[valid], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["matched", "residual_matched"])
def test_without_memory_every_frame_is_a_first_one(name):
    refiner = built(ARMS[name])
    maps, features, valid = inputs()
    found = refiner({"heatmaps": maps}, features, valid)["heatmaps"]
    other = built(ARMS[name.replace("matched", "").rstrip("_") or "paper"])
    other.load_state_dict(refiner.state_dict())
    for t in range(5):
        one = other({"heatmaps": maps[:, t : t + 1]}, features[:, t : t + 1], valid[:, :1])["heatmaps"]
        torch.testing.assert_close(found[:, t : t + 1], one, rtol=0, atol=1e-12)
    assert refiner.context == (0, 0)
    assert other.context == (None, 0)


def test_what_is_seen_in_the_first_frame_is_remembered():
    """Joints stand still and are shown in frame 0 alone; a module without memory cannot tell where they are."""
    B, T, n = 8, 3, 5
    place = torch.randint(0, n, (B, K, 2), generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(B, T, K, n, n)
    for b in range(B):
        for k in range(K):
            truth[b, :, k, place[b, k, 1], place[b, k, 0]] = 1
    seen = truth.clone()
    seen[:, 1:] = 0
    features, valid = torch.zeros(B, T, C, n, n), torch.ones(B, T, dtype=torch.bool)
    losses = {}
    for reset in ("never", "every_frame"):
        torch.manual_seed(0)
        refiner = LSTMPoseMachine(8, 2, 12, 3, reset=reset)
        refiner.build(SPEC, FeatureSpec(K, 8), K)
        optimizer = torch.optim.Adam(refiner.parameters(), 0.01)
        for _ in range(60):
            found = refiner({"heatmaps": seen}, features, valid)["heatmaps"]
            loss = (found - truth)[:, 1:].square().sum() / truth[:, 1:].sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[reset] = loss.item()
    assert losses["never"] < 0.1
    assert losses["every_frame"] > 0.6


def test_half_precision_keeps_the_memory():
    refiner = built(ARMS["paper"]).float()
    maps, features, valid = (v.float() if v.is_floating_point() else v for v in inputs())
    whole = refiner({"heatmaps": maps}, features, valid)["heatmaps"]
    with torch.autocast("cpu", torch.bfloat16):
        half = refiner({"heatmaps": maps.bfloat16()}, features.bfloat16(), valid)["heatmaps"]
        _, state = refiner.step(
            {"heatmaps": maps[:, 0].bfloat16()},
            features[:, 0].bfloat16(),
            refiner.init_state({"heatmaps": maps[:, 0].bfloat16()}, features[:, 0]),
        )
    assert half.dtype == torch.float32
    assert (half - whole).abs().max() < 0.1 * whole.abs().max()
    assert {v.dtype for v in state} == {torch.float32}


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: LSTMPoseMachine(0), "hidden 0 must be at least 1"),
        (lambda: LSTMPoseMachine(kernel=4), "kernel 4 must be odd"),
        (lambda: LSTMPoseMachine(centre=0), "centre 0 and gain 10.0 must be above 0"),
        (lambda: LSTMPoseMachine(reset="always"), "reset 'always' is not one of"),
        (lambda: LSTMPoseMachine().build(SPEC, FeatureSpec(K, 4), K), "stride 8, but the decoder gives 3 channels at 4"),
        (lambda: LSTMPoseMachine().build(SPEC, FeatureSpec(2 * K, 8), K), "decoder gives 6 channels"),
        (lambda: built(ARMS["paper"])({"x": torch.zeros(1), "y": torch.zeros(1)}, None, torch.ones(1, 1)), "not x, y"),
    ],
)  # fmt: skip
def test_wrong_settings_are_told(make, told):
    with pytest.raises(BiposeError, match=told):
        make()
