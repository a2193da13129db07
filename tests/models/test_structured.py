"""Pictorial structures and the CRF: distance transforms, exact inference and mean field by their definitions."""

import copy
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.models.structured import distance
from bipose_lit.models.structured.crf import MeanFieldCRF
from bipose_lit.models.structured.distance import dense, envelope, transform
from bipose_lit.models.structured.pictorial import PictorialStructures
from bipose_lit.types import BiposeError, FeatureSpec

JOINTS = ["j0", "j1", "j2", "j3"]
TREES = {"chain": "01 12 23", "star": "20 21 23", "circle": "01 12 23 30", "apart": "01 23"}
K, SPEC = 4, FeatureSpec(6, 16)


def skeleton(limbs: str):
    pairs = [[f"j{a}", f"j{b}"] for a, b in TREES[limbs].split()]
    return {"name": limbs, "joints": JOINTS, "limbs": pairs, "torso": ["j0", "j1"]}


def built(refiner, wake: bool = True, seed: int = 0):
    refiner = copy.deepcopy(refiner)
    draw = torch.Generator().manual_seed(seed)
    refiner.build(SPEC, FeatureSpec(K, 4), K)
    for name, parameter in refiner.named_parameters():
        if wake:
            scale = {"offset": 0.03, "width": 0.1, "cost": 0.1, "potential": 0.1}.get(name, 0.05)
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=draw))
    return refiner.double().eval()


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Distance transforms


numbers = st.floats(-50, 50, allow_nan=False, width=32)


@given(
    scores=st.lists(numbers, min_size=1, max_size=12),
    stiffness=st.floats(1e-4, 30),
    shift=st.one_of(st.floats(-15, 15), st.integers(-4, 4).map(lambda n: n / 2)),
)
def test_distance_transform_is_its_definition(scores, stiffness, shift):
    """Both ways, for winners and values; ties and parabolas that never win included."""
    n = len(scores)
    wanted = [max(scores[j] - stiffness * (j - i - shift) ** 2 for j in range(n)) for i in range(n)]
    line, a, m = (torch.tensor(v, dtype=torch.float64) for v in (scores, [stiffness], [shift]))
    values, winner = dense(line.view(1, 1, 1, n), a, m)
    close = {"rtol": 1e-12, "atol": 1e-9}
    torch.testing.assert_close(values.flatten(), torch.tensor(wanted, dtype=torch.float64), **close)
    for won in (winner.flatten(), envelope(line.view(1, n), a, m).flatten()):
        found = line[won] - a * (won - torch.arange(n) - m).square()
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), **close)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 40))
def test_lines_go_together_as_they_go_alone(seed, lines, n):
    scores = 20 * drawn(lines, n, seed=seed)
    stiffness, shift = 0.01 + drawn(lines, seed=seed + 1), 6 * drawn(lines, seed=seed + 2) - 3
    together = envelope(scores, stiffness, shift)
    for row in range(lines):
        alone = envelope(scores[row : row + 1], stiffness[row : row + 1], shift[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_both_ways_have_one_gradient(monkeypatch):
    scores, stiffness, shift = 5 * drawn(2, 3, 2, 9), 0.1 + drawn(3, seed=1), 4 * drawn(3, seed=2) - 2
    inputs = [v.requires_grad_() for v in (scores, stiffness, shift)]
    assert torch.autograd.gradcheck(transform, inputs)
    weight = drawn(2, 3, 2, 9, seed=3)
    plain = torch.autograd.grad((transform(*inputs) * weight).sum(), inputs)
    with torch.no_grad():
        quick = transform(*inputs)
    monkeypatch.setattr(distance, "LONGEST", 4)
    torch.testing.assert_close(transform(*inputs).detach(), quick)
    for a, b in zip(plain, torch.autograd.grad((transform(*inputs) * weight).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_chunks_change_nothing(monkeypatch):
    scores, stiffness, shift = drawn(5, 2, 3, 8), 0.1 + drawn(2, seed=1), drawn(2, seed=2)
    whole = dense(scores, stiffness, shift)
    monkeypatch.setattr(distance, "_CHUNK", 1)
    for a, b in zip(whole, dense(scores, stiffness, shift), strict=True):
        assert torch.equal(a, b)
    assert transform(scores[:0], stiffness, shift).shape == (0, 2, 3, 8)


# Pictorial structures


def all_poses(refiner: PictorialStructures, unary: torch.Tensor) -> torch.Tensor:
    """Score of every pose of the first frame, an axis for each joint: the definition in the class's docstring."""
    h, w = unary.shape[-2:]
    across, down = torch.arange(w).double() / w, torch.arange(h).double() / h
    places = torch.stack([across.repeat(h), down.repeat_interleave(w)], dim=-1)
    offset, spread, cost = refiner.deformation()
    total = torch.zeros((h * w,) * K, dtype=torch.float64)
    for joint in range(K):
        total += unary[0, joint].flatten().view([-1 if k == joint else 1 for k in range(K)])
    for edge, (child, parent) in enumerate(refiner.tree.edges):
        away = places[:, None] - places  # child, parent
        each = [
            -((away - offset[edge, s]) / spread[edge, s]).square().sum(-1) / 2 - cost[edge, s]
            for s in range(refiner.springs)
        ]
        pair = torch.stack(each).amax(0)
        pair = pair if child < parent else pair.T
        total += pair.reshape([h * w if k in (child, parent) else 1 for k in range(K)])
    return total


@pytest.mark.parametrize(("limbs", "springs"), [*itertools.product(TREES, [1]), ("chain", 3), ("star", 2)])
def test_max_marginals_are_those_of_all_poses(limbs, springs):
    refiner = built(PictorialStructures(skeleton(limbs), springs=springs))
    maps = drawn(1, K, 3, 4, seed=springs)
    unary = refiner.unary(maps)
    found, poses = refiner.max_marginals(unary), all_poses(refiner, unary)
    for joint in range(K):
        wanted = poses.amax([k for k in range(K) if k != joint]).view(3, 4)
        torch.testing.assert_close(found[0, joint], wanted, rtol=0, atol=1e-10)
    assert torch.allclose(found.amax((-2, -1)), poses.max()), "the best pose is the best of every joint"
    best = [int(i) for i in torch.unravel_index(poses.argmax(), poses.shape)]
    assert refiner.estimate(maps)[0].flatten(1).argmax(1).tolist() == best
    with torch.enable_grad():  # the way with gradients has the same values
        torch.testing.assert_close(refiner.max_marginals(unary.requires_grad_()), found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("refiner", [PictorialStructures(skeleton("star")), MeanFieldCRF(skeleton("star"), reach=3)])
def test_estimates_keep_the_scale_of_heatmaps(refiner):
    maps = drawn(20, K, 6, 5)
    maps[1] = 0
    maps[2] *= 1e-8
    for seed in range(3):
        found = built(refiner, seed=seed).estimate(maps)
        assert torch.isfinite(found).all()
        assert found.min() >= 0
        assert found.max() <= 1 + 1e-12


def gaussians(places: torch.Tensor, size: int = 16, sigma: float = 1.5) -> torch.Tensor:
    """Maps of peak 1 at (N, K, 2) map pixels."""
    codec = HeatmapCodec(1, sigma)
    codec.build(places.shape[1], (size, size))
    return codec.encode(places, torch.ones(places.shape[:2]))[0]["heatmaps"]


def test_fitted_springs_are_the_statistics_of_the_labels():
    refiner = built(PictorialStructures(skeleton("chain")), wake=False)
    poses = 64 * drawn(50, K, 2)
    visible = torch.ones(50, K)
    visible[:20, 3] = 0
    poses[:20, 3] = torch.nan
    refiner.fit(poses, visible, (64, 32), slack=2.0)
    offset, spread, cost = refiner.deformation()
    for edge, (child, parent) in enumerate(refiner.tree.edges):
        rows = slice(20, None) if 3 in (child, parent) else slice(None)
        away = (poses[rows, child] - poses[rows, parent]) / torch.tensor([64.0, 32.0])
        torch.testing.assert_close(offset[edge, 0], away.mean(0))
        torch.testing.assert_close(spread[edge, 0], 2 * away.std(0, correction=0))
    assert not cost.any()
    with pytest.raises(BiposeError, match="0 poses have both j3 and j2"):
        refiner.fit(poses[:20], visible[:20], (64, 32))


def test_springs_of_a_mixture_find_the_clusters():
    refiner = built(PictorialStructures(skeleton("star"), springs=2), wake=False)
    poses = torch.full((40, K, 2), 32.0, dtype=torch.float64) + drawn(40, K, 2)
    poses[:30, 0, 0] += 20
    poses[30:, 0, 0] -= 20
    refiner.fit(poses, torch.ones(40, K), (64, 64), slack=1.0)
    offset, spread, cost = (v[refiner.tree.edges.index((0, 2))] for v in refiner.deformation())
    right, left = offset[:, 0].argmax(), offset[:, 0].argmin()
    torch.testing.assert_close(offset[[right, left], 0], torch.tensor([20, -20.0]).double() / 64, rtol=0, atol=0.01)
    assert spread.max() < 0.02
    shares = torch.tensor([30 / 40, 10 / 40]).double()
    wanted = spread[[right, left]].log().sum(-1) - shares.log()
    torch.testing.assert_close(cost[right] - cost[left], wanted[0] - wanted[1])


def test_a_settled_estimate_stands_alone_to_the_last_digit():
    refiner = built(PictorialStructures(skeleton("chain"), floor=1e-6, spread=0.05)).float()
    refiner.settle()
    maps = drawn(2, K, 9, 8).float() ** 4
    assert torch.equal(refiner._refined(maps), refiner.estimate(maps)), "small values drown in the maps"


def test_the_body_decides_between_two_places():
    """Joint 3 is half seen beside joint 2, and something stronger far away looks like it."""
    refiner = built(PictorialStructures(skeleton("chain"), springs=1), wake=False)
    start = torch.tensor([4.0, 5.0]) + 4 * drawn(40, 1, 2)
    poses = start + 2.0 * torch.arange(K).view(1, K, 1) + 0.5 * drawn(40, K, 2, seed=1)
    refiner.fit(poses, torch.ones(40, K), (16, 16), slack=1.0)
    maps = gaussians(poses[:5])
    false = gaussians(torch.tensor([2.0, 14.0]).expand(5, K, 2).clone())[:, 3]
    maps[:, 3] = 0.5 * maps[:, 3] + 0.8 * false
    places = lambda m: torch.stack([m[:, 3].flatten(1).argmax(1) % 16, m[:, 3].flatten(1).argmax(1) // 16], -1)  # noqa: E731
    assert (places(maps) == torch.tensor([2, 14])).all()
    found = refiner.estimate(maps)
    assert (places(found) - poses[:5, 3]).abs().max() < 1
    assert 0.2 < found[:, 3].amax() <= 0.6, "no stronger than what was seen there"


# The CRF


def mean_field(refiner: MeanFieldCRF, maps: torch.Tensor, rounds: int) -> torch.Tensor:
    """The formula in the class's docstring, sum by sum, for the first frame."""
    h, w = maps.shape[-2:]
    r, potential = refiner.reach, refiner.gain * refiner.potential
    trust = torch.exp(torch.tanh(refiner.gain * refiner.trust))
    places = list(itertools.product(range(h), range(w)))
    unary = trust[:, None, None] * maps[0].clamp(min=refiner.floor).log()
    belief = unary.flatten(1).softmax(1).view(K, h, w)
    for _ in range(rounds):
        score = unary.clone()
        for number, (a, b) in enumerate(refiner.limbs):
            for (ya, xa), (yb, xb) in itertools.product(places, places):
                dy, dx = ya - yb, xa - xb
                if max(abs(dy), abs(dx)) <= r:
                    value = potential[number, dy + r, dx + r]
                    score[a, ya, xa] += belief[b, yb, xb] * value
                    score[b, yb, xb] += belief[a, ya, xa] * value
        belief = score.flatten(1).softmax(1).view(K, h, w)
    return belief


@pytest.mark.parametrize(
    ("limbs", "rounds", "reach"), [("star", 1, 2), ("circle", 1, 1), ("chain", 2, 2), ("star", 1, 6)]
)
@torch.no_grad()
def test_mean_field_is_its_formula(limbs, rounds, reach):
    refiner = built(MeanFieldCRF(skeleton(limbs), rounds=rounds, reach=reach))
    maps = drawn(1, K, 4, 3)
    found = refiner.beliefs(maps)
    torch.testing.assert_close(found[0], mean_field(refiner, maps, rounds), rtol=0, atol=1e-13)
    torch.testing.assert_close(found.sum((-2, -1)), torch.ones(1, K, dtype=torch.float64))


def test_limbs_that_close_a_circle_couple_and_loose_joints_too():
    assert len(built(MeanFieldCRF(skeleton("circle"))).limbs) == 4
    assert built(MeanFieldCRF(skeleton("apart"))).limbs == [(0, 1), (0, 2), (2, 3)]


def test_a_clean_gaussian_keeps_its_peak():
    refiner = built(MeanFieldCRF(skeleton("star"), floor=1e-6), wake=False)
    places = torch.tensor([[[8.0, 7], [5, 9], [7, 7], [9, 6]]])
    maps = gaussians(places).double()
    torch.testing.assert_close(refiner.estimate(maps), maps, rtol=0, atol=2e-3)
    usual = built(MeanFieldCRF(skeleton("star")), wake=False)
    wide = torch.zeros(1, maps.shape[1], 32, 32).double()
    wide[..., : maps.shape[-2], : maps.shape[-1]] = maps
    assert usual.estimate(wide).amax((-2, -1))[0].tolist() == pytest.approx([0.93] * maps.shape[1], abs=0.01)


# Both as refiners


ARMS = {
    "pictorial": PictorialStructures(skeleton("chain"), floor=0.2),
    "mixture": PictorialStructures(skeleton("star"), springs=2),
    "crf": MeanFieldCRF(skeleton("circle"), rounds=2, reach=3),
}


def clips(B: int = 2, T: int = 3):
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[-1, -1] = valid[0, 1] = False
    return {"heatmaps": 2 * drawn(B, T, K, 8, 7) - 0.5}, drawn(B, T, 6, 2, 2, seed=1), valid


@pytest.mark.parametrize("name", ARMS)
def test_it_starts_as_the_identity_and_padding_influences_nothing(name):
    encoded, features, valid = clips()
    fresh = built(ARMS[name], wake=False)
    for parameter in ("mix", "potential", "width"):
        assert not getattr(fresh, parameter, torch.zeros(1)).any()
    out = fresh(encoded, features, valid)["heatmaps"]
    assert torch.equal(out[valid], encoded["heatmaps"][valid])
    assert not out[~valid].any()
    refiner = built(ARMS[name])
    before = refiner(encoded, features, valid)["heatmaps"]
    assert (before - encoded["heatmaps"])[valid].abs().amax() > 0.05
    other = encoded["heatmaps"].clone()
    other[~valid] = torch.nan
    assert torch.equal(refiner({"heatmaps": other}, features * torch.nan, valid)["heatmaps"], before)
    none = refiner(encoded, features, torch.zeros_like(valid))["heatmaps"]
    assert not none.any()


@pytest.mark.parametrize("name", ARMS)
def test_frames_do_not_see_each_other_and_a_stream_equals_the_clip(name):
    refiner = built(ARMS[name])
    encoded, features, valid = clips()
    whole = refiner(encoded, features, torch.ones_like(valid))["heatmaps"]
    assert refiner.causal
    assert refiner.context == (0, 0)
    state = refiner.init_state({"heatmaps": encoded["heatmaps"][:, 0]}, features[:, 0])
    for t in range(3):
        out, state = refiner.step({"heatmaps": encoded["heatmaps"][:, t]}, features[:, t], state)
        torch.testing.assert_close(out["heatmaps"], whole[:, t], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ARMS)
def test_gradients_are_finite_and_reach_everything(name):
    refiner = built(ARMS[name])
    encoded, features, valid = clips()
    maps = encoded["heatmaps"].requires_grad_()
    refiner({"heatmaps": maps}, features, valid)["heatmaps"][valid].square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any() for p in refiner.parameters())
    assert torch.isfinite(maps.grad).all()
    assert not maps.grad[~valid].any()


@pytest.mark.parametrize("name", ARMS)
def test_half_precision_in_full_out(name):
    refiner = built(ARMS[name]).float()
    encoded, features, valid = clips()
    whole = refiner({"heatmaps": encoded["heatmaps"].float()}, features, valid)["heatmaps"]
    with torch.autocast("cpu", torch.bfloat16):
        half = refiner({"heatmaps": encoded["heatmaps"].bfloat16()}, features, valid)["heatmaps"]
    assert half.dtype == torch.float32
    assert (half - whole).abs().max() < 0.1 * whole.abs().max()


@pytest.mark.parametrize(
    "refiner",
    [PictorialStructures(skeleton("chain"), spread=0.2), MeanFieldCRF(skeleton("chain"), rounds=2, reach=6, sigma=1.0)],
    ids=["pictorial", "crf"],
)
def test_it_learns_from_nothing_where_a_joint_is(refiner):
    """Joints lie four pixels from one another to the right; the last one shows two places, alone it cannot tell which."""
    torch.manual_seed(0)
    refiner.build(SPEC, FeatureSpec(K, 4), K)
    start = torch.tensor([1.0, 3.0]) + torch.tensor([2.0, 9.0]) * torch.rand(40, 1, 2)
    places = start + torch.tensor([3.5, 0.0]) * torch.arange(K).view(1, K, 1)
    truth = gaussians(places, sigma=1.0)
    maps = truth.clone()
    maps[:, 3] += gaussians(16 * torch.rand(40, K, 2), sigma=1.0)[:, 3]
    optimizer = torch.optim.Adam(refiner.parameters(), 1e-2)
    losses = []
    for _ in range(100):
        loss = (refiner._refined(maps[:30]) - truth[:30])[:, 3].square().sum((-2, -1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    with torch.no_grad():
        tested = (refiner._refined(maps[30:]) - truth[30:])[:, 3].square().sum((-2, -1)).mean()
    assert tested < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: PictorialStructures(springs=0), "springs 0 must be at least 1"),
        (lambda: PictorialStructures(floor=0), "floor 0 between 0 and 1"),
        (lambda: PictorialStructures(gain=0), "gain 0 must be above 0"),
        (lambda: MeanFieldCRF(rounds=0), "rounds 0 and reach 12"),
        (lambda: MeanFieldCRF(sigma=0), "sigma 0 above 0"),
    ],
)
def test_wrong_settings_are_told(make, told):
    with pytest.raises(BiposeError, match=told):
        make()


def test_parameters_are_few_and_named():
    names = {name for name, _ in built(PictorialStructures(skeleton("star"), springs=2)).named_parameters()}
    assert names == {"mix", "offset", "width", "cost"}
    assert isinstance(built(MeanFieldCRF(skeleton("star"))).potential, nn.Parameter)
