"""Heads over time: the contract for every arm, and the laws that tell the arms apart."""

import copy

import pytest
import torch
from torch import nn

from bipose_lit.models.temporal.attention import TemporalAttention
from bipose_lit.models.temporal.controls import TCN, WindowMean
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.models.temporal.film import FiLM
from bipose_lit.models.temporal.recurrence import cell, hidden_gates, scan
from bipose_lit.models.temporal.spatial import SpatialLSTM
from bipose_lit.testing import check_temporal_head
from bipose_lit.types import BiposeError, FeatureSpec

SPEC = FeatureSpec(12, 32)

ARMS = {
    "lstm": ConvLSTM(8, direction="forward"),
    "bilstm": ConvLSTM(8),
    "lstm_wide": ConvLSTM(8, direction="forward", match="bilstm"),
    "none_matched": ConvLSTM(8, reset="every_frame"),
    "repeated": ConvLSTM(8, reset="every_frame", repeats=3),
    "shuffled": ConvLSTM(8, order="shuffled"),
    "shuffled_forward": ConvLSTM(8, direction="forward", order="shuffled"),
    "delayed": ConvLSTM(8, direction="forward", delay=2),
    "bare": ConvLSTM(8, reduce=5, norm="none", dropout=0.1),
    "film": FiLM(8),
    "film_forward": FiLM(8, "forward"),
    "spatial": SpatialLSTM(8),
    "spatial_forward": SpatialLSTM(8, "forward"),
    "mean": WindowMean(),
    "mean_window": WindowMean(2, 1, 8),
    "mean_causal": WindowMean(2, 0, 8),
    "mean_past": WindowMean(None, 0, 8),
    "tcn": TCN(8, layers=2),
    "tcn_causal": TCN(8, kernel=2, causal=True),
    "attention": TemporalAttention(8, 2),
    "attention_window": TemporalAttention(8, 2, 2, 1, reach=1),
    "attention_causal": TemporalAttention(8, 4, None, 0),
    "attention_causal_window": TemporalAttention(8, 1, 2, 0, reach=3, dropout=0.1),
}


def built(head, spec=SPEC, seed=0, wake=True):
    head = copy.deepcopy(head)
    torch.manual_seed(seed)
    head.build(spec)
    if wake:
        for p in head.parameters():
            if not p.detach().any():
                nn.init.normal_(p, std=0.3)
    return head.double().eval()


def count(head, spec=SPEC):
    return sum(p.numel() for p in built(head, spec).parameters())


@pytest.mark.parametrize("name", ARMS)
def test_contract(name):
    check_temporal_head(ARMS[name])


@pytest.mark.parametrize("name", ["lstm", "bilstm", "none_matched", "shuffled"])
def test_contract_on_vectors(name):
    arguments = {**ARMS[name].config()["init_args"], "kernel": 1}
    check_temporal_head(ConvLSTM(**arguments), size=(1, 1))


def test_causality_by_arm():
    causal = {name for name, head in ARMS.items() if head.causal}
    assert causal == {
        "lstm", "lstm_wide", "none_matched", "repeated", "film_forward", "spatial", "spatial_forward", "mean_causal",
        "mean_past", "tcn_causal", "attention_causal", "attention_causal_window",
    }  # fmt: skip
    assert ARMS["delayed"].context == (None, 2)
    assert ARMS["none_matched"].context == (0, 0)
    assert ARMS["tcn"].context == (3, 3)


@pytest.mark.parametrize(("direction", "D"), [("forward", 1), ("both", 2)])
def test_vectors_equal_packed_lstm_of_torch(direction, D):
    """Oracle: torch.nn.LSTM on packed sequences, with the same weights."""
    head = built(ConvLSTM(6, 1, direction, reduce=5, norm="none"))
    H, lengths = 6, torch.tensor([7, 3, 5])
    oracle = nn.LSTM(5, H, batch_first=True, bidirectional=D == 2).double()
    order = [0, 1, 3, 2]  # ours: input, forget, output, candidate; torch: input, forget, candidate, output
    weight = head.input.weight.detach().view(D, 4, H, 5)[:, order]
    bias = head.input.bias.detach().view(D, 4, H)[:, order]
    recurrent = head.recurrent.detach().view(D, 4, H, H)[:, order]
    for d, suffix in enumerate(["", "_reverse"][:D]):
        getattr(oracle, f"weight_ih_l0{suffix}").data = weight[d].reshape(4 * H, 5)
        getattr(oracle, f"weight_hh_l0{suffix}").data = recurrent[d].reshape(4 * H, H)
        getattr(oracle, f"bias_ih_l0{suffix}").data = bias[d].reshape(4 * H)
        getattr(oracle, f"bias_hh_l0{suffix}").data.zero_()
    x = torch.randn(3, 7, 12, 1, 1, dtype=torch.float64)
    valid = torch.arange(7) < lengths[:, None]
    reduced = head.reduction(x.flatten(0, 1)).view(3, 7, 5)
    packed = nn.utils.rnn.pack_padded_sequence(reduced, lengths, batch_first=True, enforce_sorted=False)
    hidden, _ = nn.utils.rnn.pad_packed_sequence(oracle(packed)[0], batch_first=True)
    wanted = x + head.gain * head.output(hidden.flatten(0, 1)[:, :, None, None]).view_as(x)
    torch.testing.assert_close(head(x, valid)[valid], wanted[valid], rtol=0, atol=1e-12)


def test_written_gradient_equals_autograd():
    """Oracle: autograd through the plain loop; and finite differences."""
    draw = torch.Generator().manual_seed(3)
    gates = torch.randn(4, 2, 2, 12, 3, 2, generator=draw, dtype=torch.float64, requires_grad=True)
    weight = (torch.randn(2, 12, 3, 3, 3, generator=draw, dtype=torch.float64) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(scan, (gates, weight))
    hidden = memory = torch.zeros(2, 2, 3, 3, 2, dtype=torch.float64)
    steps = []
    for t in range(4):
        hidden, memory = cell(gates[t] + hidden_gates(hidden, weight), memory)
        steps.append(hidden)
    torch.testing.assert_close(scan(gates, weight), torch.stack(steps), rtol=0, atol=1e-14)


def test_reversing_time_swaps_the_directions():
    head = built(ARMS["bilstm"])
    other = copy.deepcopy(head)
    G, H = 32, 8
    other.recurrent.data = head.recurrent.data.flip(0)
    other.input.weight.data = torch.cat([head.input.weight.data[G:], head.input.weight.data[:G]])
    other.input.bias.data = torch.cat([head.input.bias.data[G:], head.input.bias.data[:G]])
    other.output.weight.data = torch.cat([head.output.weight.data[:, H:], head.output.weight.data[:, :H]], dim=1)
    x = torch.randn(2, 6, 12, 3, 4, dtype=torch.float64)
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 4:] = False
    torch.testing.assert_close(other(x.flip(1), valid.flip(1)), head(x, valid).flip(1), rtol=0, atol=1e-12)
    assert (head(x, valid) - head(x.flip(1), valid.flip(1)).flip(1)).abs().max() > 1e-3


def test_bilstm_without_its_backward_half_is_lstm():
    both, forward = built(ARMS["bilstm"]), built(ARMS["lstm"])
    forward.reduction.load_state_dict(both.reduction.state_dict())
    forward.norm.load_state_dict(both.norm.state_dict())
    forward.recurrent.data = both.recurrent.data[:1]
    forward.input.weight.data, forward.input.bias.data = both.input.weight.data[:32], both.input.bias.data[:32]
    forward.output.weight.data = both.output.weight.data[:, :8]
    forward.output.bias.data = both.output.bias.data
    both.output.weight.data[:, 8:] = 0
    x = torch.randn(2, 5, 12, 3, 4, dtype=torch.float64)
    valid = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(both(x, valid), forward(x, valid), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [64, 256, 576, 2048])
@pytest.mark.parametrize("hidden", [8, 32, 64, 100])
@pytest.mark.parametrize("kernel", [1, 3])
def test_wide_and_memoryless_arms_match_bilstm_in_parameters(channels, hidden, kernel):
    sizes = {}
    for name, arguments in {
        "bilstm": {"direction": "both"},
        "none_matched": {"direction": "both", "reset": "every_frame"},
        "lstm_wide": {"direction": "forward", "match": "bilstm"},
    }.items():
        head = ConvLSTM(hidden, kernel, **arguments)
        width, reduced = head._matched(channels) if head.match else (head.hidden, head.reduced)
        sizes[name] = head._size(channels, reduced, width, head.directions)
    assert sizes["none_matched"] == sizes["bilstm"]
    assert abs(sizes["lstm_wide"] / sizes["bilstm"] - 1) <= 0.01


@pytest.mark.parametrize("name", ["lstm", "bilstm", "lstm_wide", "none_matched", "bare"])
def test_counted_parameters_are_the_real_ones(name):
    head = built(ARMS[name])
    assert count(ARMS[name]) == head._size(SPEC.channels, head.reduced, head.hidden, head.directions)


def test_memory_is_used_and_reset_forgets_it():
    x = torch.randn(1, 6, 12, 3, 4, dtype=torch.float64)
    valid = torch.ones(1, 6, dtype=torch.bool)
    other = x.clone()
    other[:, 0] += 1
    for name, remembers in {"lstm": True, "bilstm": True, "none_matched": False, "repeated": False}.items():
        head = built(ARMS[name])
        changed = (head(x, valid) - head(other, valid))[:, 1:].abs().max() > 1e-6
        assert bool(changed) is remembers, name


def test_shuffled_order_is_fixed_and_wrong():
    head = built(ARMS["shuffled"])
    valid = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    order = head._order(valid)
    assert torch.equal(order, head._order(valid))
    for b, n in enumerate((8, 5)):
        assert sorted(order[:n, b, 0].tolist()) == list(range(n))
        assert order[:n, b, 0].tolist() != list(range(n))
        assert order[:n, b, 1].tolist() == order[:n, b, 0].tolist()[::-1]
    alone = head._order(torch.ones(1, 5, dtype=torch.bool))
    assert torch.equal(alone[:, 0], order[:5, 1])


def test_delay_reads_ahead_by_its_frames():
    late, now = built(ARMS["delayed"]), built(ARMS["lstm"])
    now.load_state_dict(late.state_dict())
    x = torch.randn(1, 6, 12, 3, 4, dtype=torch.float64)
    valid = torch.ones(1, 6, dtype=torch.bool)
    added_late, added_now = late(x, valid) - x, now(x, valid) - x
    torch.testing.assert_close(added_late[:, :4], added_now[:, 2:], rtol=0, atol=1e-12)
    torch.testing.assert_close(added_late[:, 4:], added_now[:, -1:].expand(-1, 2, -1, -1, -1), rtol=0, atol=1e-12)


def test_window_mean_by_hand():
    head = built(WindowMean(1, 1, 4))
    x = torch.randn(1, 4, 12, 2, 2, dtype=torch.float64)
    valid = torch.tensor([[True, True, False, True]])
    reduced = head.norm(head.reduction(x[0]))
    mean = (reduced[0] + reduced[1]) / 2  # frame 1's window holds frames 0 and 1: frame 2 is not valid
    wanted = x[0, 1] + head.gain * head.output(torch.relu(mean[None]))[0]
    torch.testing.assert_close(head(x, valid)[0, 1], wanted, rtol=0, atol=1e-12)


def test_window_mean_ignores_order_inside_the_window():
    head = built(WindowMean())
    x = torch.randn(1, 5, 12, 2, 2, dtype=torch.float64)
    valid = torch.ones(1, 5, dtype=torch.bool)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(head(x[:, order], valid), head(x, valid)[:, order], rtol=0, atol=1e-12)


def test_autocast_keeps_the_recurrence_in_float32():
    head = built(ARMS["bilstm"]).float()
    x = torch.randn(2, 4, 12, 3, 4)
    valid = torch.ones(2, 4, dtype=torch.bool)
    wanted = head(x, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(x, valid)
        out.square().sum().backward()
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, wanted, rtol=0.1, atol=0.1)
    assert torch.isfinite(head.recurrent.grad).all()
    seen = []
    head.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(x.bfloat16(), valid)  # as a convolutional backbone gives them under autocast
    assert seen == [torch.float32]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.1, atol=0.1)
    causal = built(ARMS["lstm"]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, state = causal.step(x[:, 0].bfloat16(), causal.init_state(x[:, 0].bfloat16()))
    assert {s.dtype for s in state} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"kernel": 2}, "odd"),
        ({"direction": "both", "delay": 1}, "delay"),
        ({"repeats": 2}, "reset every_frame"),
        ({"direction": "backward"}, "not one of"),
        ({"hidden": 0}, "at least 1"),
    ],
)
def test_settings_that_exclude_each_other(arguments, told):
    with pytest.raises(BiposeError, match=told):
        ConvLSTM(**arguments)


def test_step_of_a_bidirectional_head_says_why_not():
    head = built(ARMS["bilstm"])
    with pytest.raises(NotImplementedError, match="not causal"):
        head.init_state(torch.zeros(1, 12, 3, 4))


def test_chrono_initialisation_spreads_the_time_scales() -> None:
    head = ConvLSTM(hidden=8, kernel=1, direction="both", memory=32)
    head.build(FeatureSpec(4, 32))
    bias = head.input.bias.detach().view(2, 4, 8)
    forget = torch.sigmoid(bias[:, 1])
    scale = 1 / (1 - forget)  # frames after which a state has decayed to 1/e, about
    assert scale.min() < 4
    assert scale.max() > 25
    torch.testing.assert_close(bias[:, 0], -bias[:, 1])
    assert bool((bias[:, 2:] == 0).all())
    plain = ConvLSTM(hidden=8, kernel=1, memory=0)
    plain.build(FeatureSpec(4, 32))
    assert bool((plain.input.bias.detach().view(2, 4, 8)[:, 1] == 1).all())


@pytest.mark.parametrize("wrong", [{"memory": -1.0}, {"memory": 1.5}, {"gain": 0.0}], ids=str)
def test_impossible_memory_and_gain_are_refused(wrong) -> None:
    with pytest.raises(BiposeError, match="memory"):
        ConvLSTM(**wrong)


def test_attention_equals_torch_s_own_at_every_place():
    """Oracle: scaled_dot_product_attention of torch, frame vectors of one place at a time, the biases as its mask."""
    head = built(TemporalAttention(8, 2, reach=2))
    x = torch.randn(2, 5, 12, 3, 4, dtype=torch.float64)
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 3:] = False
    wanted = torch.zeros_like(x)
    for b, n in enumerate((5, 3)):
        tokens = head.tokens(head.norm(head.reduction(x[b, :n])))  # (n, 24, 3, 4)
        distance = torch.tensor([[min(max(s - t, -2), 2) + 2 for s in range(n)] for t in range(n)])
        for i in range(3):
            for j in range(4):
                q, k, v = tokens[:, :, i, j].view(n, 3, 2, 4).permute(1, 2, 0, 3)
                out = nn.functional.scaled_dot_product_attention(q, k, v, head.distance[:, distance])
                written = head.output(out.transpose(0, 1).reshape(n, 8, 1, 1))[..., 0, 0]
                wanted[b, :n, :, i, j] = x[b, :n, :, i, j] + head.gain * written
    torch.testing.assert_close(head(x, valid)[valid], wanted[valid], rtol=0, atol=1e-12)


def test_attention_without_biases_knows_no_order():
    head = built(TemporalAttention(8, 2), wake=False)
    nn.init.normal_(head.output.weight)
    x = torch.randn(1, 6, 12, 3, 4, dtype=torch.float64)
    valid, order = torch.ones(1, 6, dtype=torch.bool), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(head(x[:, order], valid), head(x, valid)[:, order], rtol=0, atol=1e-12)
    nn.init.normal_(head.distance)
    assert (head(x[:, order], valid) - head(x, valid)[:, order]).abs().max() > 1e-3


@pytest.mark.parametrize(
    "arguments", [{"hidden": 8, "heads": 3}, {"past": -1}, {"future": -2}, {"reach": 0}, {"gain": 0}, {"heads": 0}]
)
def test_attention_with_settings_that_are_none(arguments):
    with pytest.raises(BiposeError, match="TemporalAttention: "):
        TemporalAttention(**arguments)
