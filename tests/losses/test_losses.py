"""Losses: normalisation, weights, pairing."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.losses import HeatmapMSE, HeatmapOHKM, PoseLoss, SimCCLoss, SmoothL1
from bipose_lit.losses.steps import StepLoss
from bipose_lit.types import BiposeError


def example(joints=5, persons=4, stride=4, sigma=2.0, absent=0):
    codec = HeatmapCodec(stride, sigma)
    codec.build(joints, (128, 128))
    visible = torch.full((persons, joints), 2, dtype=torch.uint8)
    visible[:, :absent] = 0
    points = torch.rand(persons, joints, 2, generator=torch.Generator().manual_seed(0)) * 60 + 30
    return codec.encode(points, visible)


@pytest.mark.parametrize(
    "arguments", [{}, {"joints": 17}, {"persons": 1}, {"stride": 2}, {"sigma": 1.0}, {"absent": 3}]
)
def test_blank_maps_cost_one_whatever_the_setting(arguments):
    target, weight = example(**arguments)
    blank = {"heatmaps": torch.zeros_like(target["heatmaps"])}
    assert HeatmapMSE()(blank, target, weight)["loss"].item() == pytest.approx(1, rel=1e-5)
    assert HeatmapMSE()(target, target, weight)["loss"].item() == 0


@pytest.mark.parametrize("loss", [HeatmapMSE(), HeatmapOHKM(2)], ids=["mse", "ohkm"])
def test_a_joint_far_outside_with_an_empty_map_does_not_blow_up_the_loss(loss):
    """Codecs with a patch weigh joints whose patch ends before the map, as the reference codes do: the map is empty."""
    codec = HeatmapCodec(4, 2.0, grid="msra", quantised=True, patch=3.0)
    codec.build(2, (128, 128))
    target, weight = codec.encode(
        torch.tensor([[[-31.0, 60.0], [-31.0, 60.0]]]), torch.full((1, 2), 2, dtype=torch.uint8)
    )
    assert weight.tolist() == [[1, 1]]
    assert not target["heatmaps"].any()
    found = loss({"heatmaps": torch.full((1, 2, 32, 32), 0.01)}, target, weight)["loss"]
    assert found.item() == pytest.approx(0.01**2 * 32 * 32 / 0.5)


def test_by_hand():
    target = torch.tensor([[[[1.0, 0.0]], [[0.5, 0.5]]]])
    pred = torch.tensor([[[[0.5, 0.5]], [[9.0, 9.0]]]])
    loss = HeatmapMSE()({"heatmaps": pred}, {"heatmaps": target}, torch.tensor([[1.0, 0.0]]))["loss"]
    assert loss.item() == pytest.approx(0.5)
    loss = SmoothL1(0.1)(
        {"xy": torch.tensor([[[0.05, 0.0], [7.0, 7.0]]])}, {"xy": torch.zeros(1, 2, 2)}, torch.tensor([[1.0, 0.0]])
    )["loss"]
    assert loss.item() == pytest.approx(0.5 * 0.05**2 / 0.1 / 2)


def test_simcc_s_divergence_is_torch_s_own():
    """Oracle: torch's kl_div, joint by joint."""
    codec = SimCCCodec(1.0, 2.0)
    codec.build(3, (16, 12))
    draw = torch.Generator().manual_seed(0)
    target, weight = codec.encode(torch.rand(4, 3, 2, generator=draw) * 10, torch.tensor([[1, 2, 0]] * 4))
    pred = {k: torch.randn(v.shape, generator=draw) for k, v in target.items()}
    wanted = [
        sum(
            torch.nn.functional.kl_div(pred[k][n, j].log_softmax(-1), target[k][n, j], log_target=True, reduction="sum")
            for k in ("x", "y")
        )
        for n in range(4)
        for j in range(2)
    ]
    loss = SimCCLoss()(pred, target, weight)["loss"]
    assert loss.item() == pytest.approx(float(torch.stack(wanted).mean()), rel=1e-5)
    shifted = {k: v + 3 for k, v in target.items()}
    assert SimCCLoss()(shifted, target, weight)["loss"].item() == pytest.approx(0, abs=1e-5)
    assert SimCCLoss()(pred, target, 0 * weight)["loss"].item() == 0


def test_joints_without_weight_change_nothing():
    target, weight = example(absent=2)
    pred = torch.zeros_like(target["heatmaps"])
    pred[:, :2] = 7.0
    pred.requires_grad_()
    loss = HeatmapMSE()({"heatmaps": pred}, target, weight)["loss"]
    loss.backward()
    assert loss.item() == pytest.approx(1, rel=1e-5)
    assert not pred.grad[:, :2].any()
    assert pred.grad[:, 2:].any()


@pytest.mark.parametrize(
    ("loss", "key", "shape"), [(HeatmapMSE(), "heatmaps", (2, 3, 4, 4)), (SmoothL1(), "xy", (2, 3, 2))]
)
def test_a_batch_without_labels_costs_nothing_and_has_a_gradient(loss, key, shape):
    pred = torch.randn(shape, requires_grad=True)
    value = loss({key: pred}, {key: torch.zeros(shape)}, torch.zeros(2, 3))["loss"]
    value.backward()
    assert value.item() == 0
    assert not pred.grad.any()


def test_loss_in_half_precision_is_computed_in_float32():
    target, weight = example()
    loss = HeatmapMSE()({"heatmaps": target["heatmaps"].bfloat16()}, target, weight)["loss"]
    assert loss.dtype == torch.float32


def test_pairing_is_checked_and_says_what_to_do():
    HeatmapMSE().check(HeatmapCodec())
    SmoothL1().check(RegressionCodec())
    with pytest.raises(BiposeError, match="pair HeatmapCodec with HeatmapMSE"):
        HeatmapMSE().check(RegressionCodec())
    target, weight = example()
    with pytest.raises(BiposeError, match="change the decoder"):
        HeatmapMSE()({"xy": torch.zeros(4, 5, 2)}, target, weight)
    with pytest.raises(BiposeError, match="stride must agree"):
        HeatmapMSE()({"heatmaps": torch.zeros(4, 5, 16, 16)}, target, weight)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_parts_of_a_step_have_the_gradient_of_the_whole(processes, accumulate):
    """By hand: every part's share, the mean over processes and batches that others take, and the last rescaling."""
    rng = torch.Generator().manual_seed(3)
    rows = 3 * processes * accumulate
    inputs = torch.randn(rows, 4, 2, generator=rng, dtype=torch.float64)
    wanted = torch.randn(rows, 4, 2, generator=rng, dtype=torch.float64)
    weight = (torch.rand(rows, 4, generator=rng) < 0.4).double()
    weight[:3] = 0  # the first part has no label at all
    loss = SmoothL1()

    def graded(parameter, rows, first=None, step=None):
        pred, target = {"xy": inputs[rows] * parameter}, {"xy": wanted[rows]}
        parts = loss(pred, target, weight[rows])
        if step is None:
            return parts["loss"], None
        return step.part(parts, loss.normaliser(target, weight[rows]), first)

    whole = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    expected, _ = graded(whole, slice(None))
    expected.backward()

    parameters = [torch.nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(processes)]
    pieces = [
        [slice(3 * (m * processes + r), 3 * (m * processes + r + 1)) for m in range(accumulate)]
        for r in range(processes)
    ]
    sums = {
        m: torch.stack([_sums(loss, inputs, wanted, weight, pieces[r][m]) for r in range(processes)]).sum(0)
        for m in range(accumulate)
    }
    for rank, parameter in enumerate(parameters):
        now = iter(range(accumulate))
        step = StepLoss(processes, accumulate, lambda _, now=now: sums[next(now)])
        for m in range(accumulate):
            value, so_far = graded(parameter, pieces[rank][m], m == 0, step)
            (value / accumulate).backward()
        step.rescale([parameter])
        assert so_far["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    mean = torch.stack([p.grad for p in parameters]).mean(0)
    torch.testing.assert_close(mean, whole.grad, rtol=1e-6, atol=0)


def _sums(loss, inputs, wanted, weight, rows):
    """What a rank sends to the others: its normaliser, and its loss times that."""
    target = {"xy": wanted[rows]}
    own = loss.normaliser(target, weight[rows])
    return torch.stack([own, loss({"xy": inputs[rows]}, target, weight[rows])["loss"] * own])


def test_a_single_batch_keeps_its_loss_to_the_bit():
    value = torch.tensor(0.3, requires_grad=True)
    step = StepLoss(1, 1, lambda sums: sums)
    given, told = step.part({"loss": value}, torch.tensor(7.0), True)
    assert given is value
    assert told["loss"] == value.detach()


def test_a_loss_of_ones_own_is_weighted_by_its_labels():
    class Mean(PoseLoss):
        keys = ("xy",)

    assert Mean().normaliser({}, torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item() == 2
    assert Mean().normaliser({}, torch.zeros(2, 2)).item() > 0


# --- the hardest joints ----------------------------------------------------------------------------------------------


def noisy(seed=0, persons=4, joints=5, absent=1):
    target, weight = example(joints, persons, absent=absent)
    draw = torch.Generator().manual_seed(seed)
    blur = torch.rand(persons, joints, 1, 1, generator=draw)
    return {"heatmaps": target["heatmaps"] * blur}, target, weight


@pytest.mark.parametrize("hardest", [1, 2, 4, 8])
def test_hardest_joints_by_hand(hardest):
    """Oracle: sort, person by person."""
    pred, target, weight = noisy()
    error = (pred["heatmaps"] - target["heatmaps"]).double().square().sum((-2, -1)) * weight
    energy = target["heatmaps"].double().square().sum((-2, -1)) * weight
    worst = sum(sum(sorted(person.tolist())[-hardest:]) for person in error)
    largest = sum(sum(sorted(person.tolist())[-hardest:]) for person in energy)
    assert HeatmapOHKM(hardest)(pred, target, weight)["loss"].item() == pytest.approx(worst / largest, rel=1e-5)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_laws_of_the_hardest_joints(seed, hardest):
    pred, target, weight = noisy(seed)
    ohkm, plain = HeatmapOHKM(hardest), HeatmapMSE()
    found, mean = (loss(pred, target, weight)["loss"].item() for loss in (ohkm, plain))
    assert found == pytest.approx(mean, rel=1e-6) if hardest >= 4 else found > mean - 1e-6, "four joints have labels"
    blank = {"heatmaps": torch.zeros_like(target["heatmaps"])}
    assert ohkm(blank, target, weight)["loss"].item() == pytest.approx(1, rel=1e-5)
    assert ohkm(target, target, weight)["loss"].item() == 0
    assert ohkm(pred, target, 0 * weight)["loss"].item() == 0


def test_only_the_hardest_joints_have_a_gradient_and_it_is_the_reference_s():
    """Oracle: the reference's loss (k largest of half the mean squared errors, averaged), up to a constant of the batch."""
    pred, target, weight = noisy(absent=0)
    maps = pred["heatmaps"].requires_grad_()
    HeatmapOHKM(2)(pred, target, weight)["loss"].backward()
    found, maps.grad = maps.grad, None
    each = 0.5 * (maps - target["heatmaps"]).square().mean((-2, -1))
    (each.topk(2, dim=1).values.sum() / 2 / len(maps)).backward()
    assert (found.flatten(2).abs().sum(-1) > 0).sum(1).tolist() == [2] * 4
    chosen = maps.grad.abs() > 1e-12
    ratio = found[chosen] / maps.grad[chosen]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_hardest_joints_of_parts_are_those_of_the_whole(processes, accumulate):
    """The step's loss over parts of unequal numbers of labels is that of one batch."""
    pred, target, weight = noisy(persons=2 * processes * accumulate)
    weight[0] = 0
    loss = HeatmapOHKM(2)
    whole = loss(pred, target, weight)["loss"]
    so_far = None
    pieces = [
        [slice(2 * (m * processes + r), 2 * (m * processes + r + 1)) for r in range(processes)]
        for m in range(accumulate)
    ]

    def part(rows):
        own = {"heatmaps": target["heatmaps"][rows]}
        return loss({"heatmaps": pred["heatmaps"][rows]}, own, weight[rows])["loss"], loss.normaliser(own, weight[rows])

    sums = [torch.stack([torch.stack([n, v * n]) for v, n in map(part, rows)]).sum(0) for rows in pieces]
    now = iter(sums)
    step = StepLoss(processes, accumulate, lambda _: next(now))
    for m, rows in enumerate(pieces):
        value, own = part(rows[0])
        _, so_far = step.part({"loss": value}, own, m == 0)
    assert so_far["loss"].item() == pytest.approx(whole.item(), rel=1e-5)


def test_no_hardest_joint_is_refused():
    with pytest.raises(BiposeError, match="hardest 0 is a number of joints"):
        HeatmapOHKM(0)
