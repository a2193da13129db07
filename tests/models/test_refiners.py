"""Refiners start as the identity, keep their promises about time, and mend what one frame cannot."""

import copy
import math

import pytest
import torch
from torch import nn

from bipose_lit.models.base import Refiner
from bipose_lit.models.temporal.joint_lstm import JointLSTM
from bipose_lit.models.temporal.joint_tokens import JointRefiner, peaks
from bipose_lit.models.temporal.st_lstm import STLSTM
from bipose_lit.types import BiposeError, FeatureSpec

K, C, SPEC = 3, 6, FeatureSpec(6, 16)
ARM = {"name": "arm", "joints": ["hand", "elbow", "shoulder"], "torso": ["hand", "shoulder"]}
ARM["limbs"] = [["hand", "elbow"], ["elbow", "shoulder"]]
ARMS = {
    "both": JointLSTM(6),
    "forward": JointLSTM(6, "forward"),
    "matched": JointLSTM(6, reset="every_frame"),
    "bare": JointLSTM(6, "forward", sampled=0, embedding=0),
    "st both": STLSTM(ARM, 6),
    "st forward": STLSTM(ARM, 6, "forward"),
    "st matched": STLSTM(ARM, 6, reset="every_frame"),
    "st plain": STLSTM(ARM, 6, "forward", trust=None, sampled=0, embedding=0),
}
KINDS = ["heatmaps", "xy"]


def built(refiner: JointRefiner, kind: str, wake: bool = True) -> JointRefiner:
    refiner = copy.deepcopy(refiner)
    torch.manual_seed(0)
    refiner.build(SPEC, FeatureSpec(K if kind == "heatmaps" else 2 * K, 4), K)
    if wake:
        nn.init.normal_(getattr(refiner, "lstm", refiner).output.weight, std=0.1)
    return refiner.double().eval()


def inputs(kind: str, B: int = 2, T: int = 5, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    shape = (B, T, K, 8, 7) if kind == "heatmaps" else (B, T, K, 2)
    scale = 1.0 if kind == "heatmaps" else 0.3
    values = scale * torch.randn(shape, generator=draw, dtype=torch.float64)
    features = torch.randn(B, T, C, 4, 3, generator=draw, dtype=torch.float64)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[-1, T - 2 :] = False
    return {kind: values}, features, valid


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARMS)
def test_it_starts_as_the_identity(name, kind):
    encoded, features, valid = inputs(kind)
    out = built(ARMS[name], kind, wake=False)(encoded, features, valid)
    assert list(out) == [kind]
    torch.testing.assert_close(out[kind][valid], encoded[kind][valid], rtol=0, atol=0)
    assert not out[kind][~valid].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ARMS)
def test_padding_influences_nothing_and_reach_is_told(name, kind):
    refiner = built(ARMS[name], kind)
    encoded, features, valid = inputs(kind)
    before = refiner(encoded, features, valid)[kind]
    other = encoded[kind].clone()
    other[~valid] = torch.nan
    holes = features.clone()
    holes[~valid] = torch.inf
    torch.testing.assert_close(refiner({kind: other}, holes, valid)[kind], before, rtol=0, atol=0)
    for t in range(5):
        moved = encoded[kind].clone()
        moved[0, t] = moved[0, t].flip(-1) + 0.3
        changed = (refiner({kind: moved}, features, valid)[kind] - before)[0].flatten(1).abs().amax(1) > 1e-12
        past, future = refiner.context
        for s in range(5):
            reaches = (past is None or s - t <= past) if s >= t else (future is None or t - s <= future)
            assert bool(changed[s]) is reaches, (t, s)
    short = refiner({kind: encoded[kind][1:, :3]}, features[1:, :3], valid[1:, :3])[kind]
    torch.testing.assert_close(short, before[1:, :3], rtol=0, atol=1e-12)
    assert not changed_clip(refiner, encoded, features, valid, kind)


def changed_clip(refiner, encoded, features, valid, kind) -> bool:
    """Whether the first clip depends on the second."""
    alone = refiner({kind: encoded[kind][:1]}, features[:1], valid[:1])[kind]
    return bool((alone - refiner(encoded, features, valid)[kind][:1]).abs().max() > 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [n for n, r in ARMS.items() if r.causal])
def test_a_stream_equals_the_clip(name, kind):
    refiner = built(ARMS[name], kind)
    encoded, features, _ = inputs(kind)
    whole = refiner(encoded, features, torch.ones(2, 5, dtype=torch.bool))[kind]
    state = refiner.init_state({kind: encoded[kind][:, 0]}, features[:, 0])
    for t in range(5):
        out, state = refiner.step({kind: encoded[kind][:, t]}, features[:, t], state)
        torch.testing.assert_close(out[kind], whole[:, t], rtol=0, atol=1e-12)


def test_who_reads_later_frames_cannot_stream():
    refiner = built(ARMS["both"], "xy")
    encoded, features, _ = inputs("xy")
    with pytest.raises(NotImplementedError, match="JointLSTM is not causal"):
        refiner.init_state({"xy": encoded["xy"][:, 0]}, features[:, 0])
    with pytest.raises(NotImplementedError, match="not causal"):
        refiner.step({"xy": encoded["xy"][:, 0]}, features[:, 0], ())
    with pytest.raises(NotImplementedError):
        Refiner().init_state({}, features[:, 0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["both", "st both", "st matched"])
def test_every_parameter_learns_but_maps_get_no_gradient_through_tokens(name, kind):
    refiner = built(ARMS[name], kind)
    encoded, features, valid = inputs(kind)
    features.requires_grad_()
    encoded[kind].requires_grad_()
    out = refiner(encoded, features, valid)[kind]
    (out - encoded[kind])[valid].sum().backward()
    assert encoded[kind].grad.abs().max() < 1e-12, "the answer depends on the predictions but through their places"
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in refiner.parameters())
    assert features.grad[valid].abs().sum() > 0


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0])
def test_peaks_are_where_gaussians_are(sigma):
    """To the map's very edge."""
    places = torch.tensor([[[3.2, 2.7], [0.0, 11.0], [15.0, 0.4]]], dtype=torch.float64)
    maps = built(JointLSTM(6, sigma=sigma), "heatmaps")._gaussian(places, 16, 12)
    found, value = peaks(maps)
    torch.testing.assert_close(found, places, rtol=0, atol=1e-6)
    assert value.min() > 0.75
    empty, confidence = peaks(torch.full((1, 1, 4, 5), torch.nan))
    assert torch.isfinite(empty).all()
    assert not confidence.any()


def test_tokens_sample_the_feature_at_the_joint():
    refiner = built(JointLSTM(4, sampled=1, embedding=0), "xy")
    nn.init.ones_(refiner.reduction.weight)
    nn.init.zeros_(refiner.reduction.bias)
    features = torch.zeros(1, C, 4, 8, dtype=torch.float64)
    features[0, :, 1, 6] = 1 / C  # the pixel whose centre is x = 6.5 / 8, y = 1.5 / 4 of the crop
    xy = torch.tensor(
        [[[6.5 / 8 - 0.5, 1.5 / 4 - 0.5], [0.5 / 8 - 0.5, 0.5 / 4 - 0.5], [6.0 / 8 - 0.5, 1.5 / 4 - 0.5]]]
    )
    xy = xy.double()
    tokens = refiner._tokens(xy, xy, torch.ones(1, 3).double(), xy, features)
    torch.testing.assert_close(tokens[0, 5, :, 0], torch.tensor([1.0, 0.0, 0.5]).double(), rtol=0, atol=1e-12)


def test_a_track_is_mended_where_one_frame_cannot_tell():
    """Joints move on straight lines and their maps are empty in the middle: what one frame shows is nothing."""
    torch.manual_seed(0)
    refiner = JointLSTM(16, sampled=0, sigma=1.0)
    refiner.build(SPEC, FeatureSpec(K, 4), K)
    B, T = 24, 7
    start, end = 3 + 9 * torch.rand(2, B, 1, K, 2)
    share = torch.linspace(0, 1, T).view(1, T, 1, 1)
    truth = refiner._gaussian((start + share * (end - start)).flatten(0, 1), 16, 16).unflatten(0, (B, T))
    seen = truth.clone()
    seen[:, 2:5] = 0
    valid, features = torch.ones(B, T, dtype=torch.bool), torch.zeros(B, T, C, 4, 4)
    optimizer = torch.optim.Adam(refiner.parameters(), 3e-3)
    losses = []
    for _ in range(200):
        loss = (refiner({"heatmaps": seen}, features, valid)["heatmaps"] - truth)[:, 2:5].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    memoryless = JointLSTM(16, sampled=0, sigma=1.0, reset="every_frame")
    torch.manual_seed(0)
    memoryless.build(SPEC, FeatureSpec(K, 4), K)
    optimizer = torch.optim.Adam(memoryless.parameters(), 3e-3)
    for _ in range(200):
        loss = (memoryless({"heatmaps": seen}, features, valid)["heatmaps"] - truth)[:, 2:5].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() > 1.5 * losses[-1], "it needs no other frame"


def test_tokens_tell_place_and_distance_in_units_of_the_crop():
    """Maps of 16 x 8 pixels, so that width and height cannot be exchanged; a feature that is its own place."""
    refiner = JointLSTM(4, sampled=2, embedding=0)
    refiner.build(FeatureSpec(2, 32), FeatureSpec(K, 4), K)
    refiner.reduction.weight.data.copy_(torch.eye(2)[:, :, None, None])
    nn.init.zeros_(refiner.reduction.bias)
    across, down = (torch.arange(16) + 0.5) / 16 - 0.5, (torch.arange(8) + 0.5) / 8 - 0.5
    features = torch.stack([across.expand(8, 16), down[:, None].expand(8, 16)])[None]
    places = torch.tensor([[[4.0, 2.0], [11.25, 5.5], [8.5, 3.0]]])
    tokens = refiner._tokens(
        torch.zeros(1, K, 8, 16), places, torch.ones(1, K), places + torch.tensor([4.0, -2.0]), features
    )[0, ..., 0]
    wanted = (places[0].T + 0.5) / torch.tensor([[16.0], [8.0]]) - 0.5
    torch.testing.assert_close(tokens[:2], wanted)
    torch.testing.assert_close(tokens[2:4], torch.tensor([[0.25], [-0.25]]).expand(2, K))
    torch.testing.assert_close(tokens[5:], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("direction", ["both", "forward"])
def test_held_places_are_weighted_means(direction):
    """Oracle: the sum written out."""
    refiner = built(JointLSTM(4, direction, hold=2.0), "heatmaps")
    draw = torch.Generator().manual_seed(1)
    places = torch.rand(1, 6, K, 2, generator=draw, dtype=torch.float64) * 9
    weight = torch.rand(1, 6, K, generator=draw, dtype=torch.float64)
    weight[:, 2] = 0  # a frame that is not valid
    held = refiner._held(places, weight)
    for t in range(6):
        seen = range(6) if direction == "both" else range(t + 1)
        shares = torch.stack([weight[0, s] * math.exp(-abs(s - t) / 2) for s in seen])
        wanted = (
            sum(share[:, None] * places[0, s] for share, s in zip(shares, seen, strict=True)) / shares.sum(0)[:, None]
        )
        torch.testing.assert_close(held[0, t], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["both", "st both"])
def test_gaps_inside_a_clip_hold_nothing_and_give_finite_gradients(name):
    refiner = built(ARMS[name], "heatmaps")
    encoded, features, valid = inputs("heatmaps")
    valid[0, 2] = False
    maps = encoded["heatmaps"]
    maps[~valid] = torch.nan
    out = refiner({"heatmaps": maps.requires_grad_()}, features.requires_grad_(), valid)["heatmaps"]
    out.square().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in refiner.parameters())
    assert torch.isfinite(maps.grad[valid]).all()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("name", ["both", "st both"])
def test_half_precision_keeps_places(name):
    refiner = built(ARMS[name], "heatmaps").float()
    _, features, valid = inputs("heatmaps")
    places = torch.tensor([[[33.3, 21.4], [40.7, 10.1], [5.2, 50.6]]]).expand(10, -1, -1)
    maps = refiner._gaussian(places, 64, 64).view(2, 5, K, 64, 64)
    found, _ = refiner._found(maps.flatten(0, 1).bfloat16())
    assert (found - places).abs().max() < 0.05
    whole = refiner({"heatmaps": maps}, features.float(), valid)["heatmaps"]
    with torch.autocast("cpu", torch.bfloat16):
        half = refiner({"heatmaps": maps.bfloat16()}, features.bfloat16(), valid)["heatmaps"]
        tokens = refiner._tokens(
            maps[:, 0].bfloat16(), places[:2], torch.ones(2, K), places[:2], features[:, 0].bfloat16()
        )
    assert half.dtype == tokens.dtype == torch.float32
    assert (tokens[:, 0, :, 0] * 64 - 0.5 + 32 - places[:2, :, 0]).abs().max() < 1e-3, (
        "x in crop units, not rounded to half"
    )
    assert (half - whole).abs().max() < 0.1 * whole.abs().max()


def test_wrong_settings_are_told():
    with pytest.raises(BiposeError, match="sigma 0 and hold"):
        JointLSTM(sigma=0)
    with pytest.raises(BiposeError, match="heatmaps or coordinates alone, not a, b"):
        built(ARMS["both"], "xy")._only({"a": torch.zeros(1), "b": torch.zeros(1)})
