"""The ST-LSTM by its formulas, joint after joint and frame after frame."""

import pytest
import torch
from torch.nn import functional

from bipose_lit.models.temporal.st_lstm import STLSTM
from bipose_lit.types import BiposeError, FeatureSpec

BODY = {"name": "body", "joints": ["head", "neck", "left_hand", "right_hand"], "torso": ["head", "neck"]}
BODY["limbs"] = [["head", "neck"], ["neck", "left_hand"], ["neck", "right_hand"]]
K, H = 4, 5


def built(**arguments):
    refiner = STLSTM(BODY, H, sampled=0, embedding=2, **arguments)
    torch.manual_seed(0)
    refiner.build(FeatureSpec(3, 16), FeatureSpec(K, 4), K)
    for parameter in refiner.parameters():
        parameter.data.add_(0.3 * torch.randn(parameter.shape))
    return refiner.double()


def by_formula(refiner: STLSTM, tokens: torch.Tensor, side: int) -> torch.Tensor:
    """Hidden states (T, 2 K - 1, H) of one clip of tokens (T, D, K), read in this order: what the class's docstring says."""
    tour = refiner.tree.tour()
    blocks = 5 if refiner.trust is None else 6
    rows = slice(side * blocks * H, (side + 1) * blocks * H)
    weight, bias = refiner.input.weight[rows, :, 0, 0], refiner.input.bias[rows]
    U = refiner.recurrent[side]
    zero = torch.zeros(H, dtype=torch.float64)
    h, c = {}, {}
    for t, frame in enumerate(tokens):
        reduced = refiner.norm(refiner.reduce(frame[None, :, :, None]))[0, :, :, 0]
        for v, joint in enumerate(tour):
            x = reduced[:, joint]
            wx = (weight @ x + bias).view(blocks, H)
            h_s, c_s = h.get((t, v - 1), zero), c.get((t, v - 1), zero)
            h_t, c_t = h.get((t - 1, v), zero), c.get((t - 1, v), zero)
            wh = U @ torch.cat([h_s, h_t])
            i, f_s, f_t, o = torch.sigmoid(wx[:4] + wh[:4])
            u = torch.tanh(wx[4] + wh[4])
            tau, rest = 1.0, 1.0
            if refiner.trust is not None:
                p, own = torch.tanh(wh[5] + refiner.expectation[side, 0]), torch.tanh(wx[5])
                tau = torch.exp(-refiner.trust * (p - own) ** 2)
                rest = 1 - tau
            c[t, v] = tau * i * u + rest * (f_s * c_s + f_t * c_t)
            h[t, v] = o * torch.tanh(c[t, v])
    return torch.stack([torch.stack([h[t, v] for v in range(len(tour))]) for t in range(len(tokens))])


@pytest.mark.parametrize("trust", [None, 0.5, 3.0])
@pytest.mark.parametrize("direction", ["forward", "both"])
@torch.no_grad()
def test_it_is_its_formulas(direction, trust):
    """A gap and padding too: such frames are left out of the walk."""
    refiner = built(direction=direction, trust=trust)
    tokens = torch.randn(2, 5, 7, K, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 1] = valid[1, 4] = False
    found = refiner.answer(tokens, valid)
    assert refiner.tree.tour() == (1, 0, 1, 2, 1, 3, 1)
    last = [1, 6, 3, 5]
    for clip in range(2):
        frames = valid[clip].nonzero().flatten()
        states = [by_formula(refiner, tokens[clip, frames, ..., 0], 0)]
        if direction == "both":
            states.append(by_formula(refiner, tokens[clip, frames.flip(0), ..., 0], 1).flip(0))
        hidden = torch.cat([s[:, last] for s in states], dim=-1)  # (T, K, D H)
        wanted = refiner.gain * functional.linear(hidden, refiner.output.weight[:, :, 0, 0], refiner.output.bias)
        torch.testing.assert_close(found[clip, frames, :, :, 0], wanted.transpose(1, 2), rtol=0, atol=1e-12)


@torch.no_grad()
def test_what_was_expected_is_taken_and_the_rest_is_remembered():
    """The gate alone: with a token as expected the memory is all new, with a strange one all old."""
    refiner = built(direction="forward", trust=1e6)
    gates = torch.randn(1, 1, 1, 6 * H, dtype=torch.float64)
    heard = torch.randn(1, 1, 1, 2 * H, dtype=torch.float64)
    spatial, temporal = torch.randn(2, 1, 1, 1, H, dtype=torch.float64)
    added = heard[0, 0] @ refiner.recurrent[0].flatten(0, 1).T
    i, f_s, f_t, _ = torch.sigmoid(gates[0, 0, :, : 4 * H] + added[:, : 4 * H]).chunk(4, dim=-1)
    new = i * torch.tanh(gates[0, 0, :, 4 * H : 5 * H] + added[:, 4 * H : 5 * H])
    old = f_s * spatial[0, 0] + f_t * temporal[0, 0]
    torch.testing.assert_close(refiner._cell(gates, heard, spatial, temporal)[1][0, 0], old)
    gates[0, 0, :, 5 * H :] = added[:, 5 * H :] + refiner.expectation[0]
    torch.testing.assert_close(refiner._cell(gates, heard, spatial, temporal)[1][0, 0], new)


@pytest.mark.parametrize(("trust", "limit"), [(0.5, 2), (None, 200)])
def test_the_memory_of_an_untrained_one_does_not_explode(trust, limit):
    """Along every path through joints and frames two open forget gates multiply it (to 1e5 where it starts wide open)."""
    torch.manual_seed(0)
    refiner = STLSTM("coco", 48, trust=trust)
    refiner.build(FeatureSpec(3, 16), FeatureSpec(17, 4), 17)
    read = refiner._read(torch.randn(1, 29, 17, 1)).unsqueeze(2).expand(-1, -1, 40, -1, -1)
    _, (_, memory) = refiner._scan(read, refiner._nothing(read[:, :, 0]))
    assert 0.1 < memory.abs().max() < limit


def test_a_joint_far_along_the_limbs_is_heard_in_the_same_frame():
    refiner = built(reset="every_frame")
    tokens = torch.randn(1, 2, 7, K, 1, dtype=torch.float64)
    moved = tokens.clone()
    moved[0, 1, :, 2] += 1  # the left hand
    valid = torch.ones(1, 2, dtype=torch.bool)
    changed = (refiner.answer(moved, valid) - refiner.answer(tokens, valid)).abs().amax((0, 2, 4)) > 1e-9
    assert changed.tolist() == [[False] * K, [True] * K]  # GroupNorm tells the head, the walk those after it


def test_it_learns_after_it_was_scored():
    """What scoring leaves behind, under inference_mode as the Trainer has it, must not be needed for a gradient."""
    refiner = built()
    tokens, valid = torch.randn(2, 7, refiner.reduce.in_channels, K, 1).double(), torch.ones(2, 7, dtype=torch.bool)
    with torch.inference_mode():
        scored = refiner.answer(tokens, valid)
    learned = refiner.answer(tokens, valid)
    learned.sum().backward()
    assert torch.equal(learned, scored)
    assert torch.isfinite(refiner.recurrent.grad).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"memory": 0}, "memory 0 must be above 2 frames"),
        ({"trust": 0}, "trust 0 above 0"),
        ({"direction": "up"}, "direction 'up' is one of"),
        ({"hidden": 0}, "STLSTM: hidden 0 must be at least 1"),
    ],
)
def test_wrong_settings_are_told(arguments, told):
    with pytest.raises(BiposeError, match=told):
        STLSTM(**arguments)
