"""Codecs: round trips, flips, borders and degenerate maps."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.geometry import flip_points, to_map
from bipose_lit.skeletons import JHMDB
from bipose_lit.testing import check_codec
from bipose_lit.types import BiposeError

SIZE = (96, 128)


def built(codec, joints=15, size=SIZE):
    codec.build(joints, size)
    return codec


def ones(*shape):
    return torch.ones(*shape, dtype=torch.uint8)


@pytest.mark.parametrize("refine", ["dark", "parabola"])
@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 3.0])
def test_contract(refine, stride, sigma):
    check_codec(HeatmapCodec(stride, sigma, refine), error=0.05 * stride)


@pytest.mark.parametrize(("refine", "error"), [("quarter", 0.251), ("none", 0.501)])
def test_coarse_refinements_have_their_known_error(refine, error):
    check_codec(HeatmapCodec(4, 2.0, refine), error=4 * error)
    with pytest.raises(AssertionError, match="gives the joints"):
        check_codec(HeatmapCodec(4, 2.0, refine), error=4 * error * 0.8)


def test_contract_of_regression():
    check_codec(RegressionCodec(), error=1e-3)


@pytest.mark.parametrize(("ratio", "sigma"), [(1.0, 2.0), (2.0, 6.0), (2.0, 1.0), (0.5, 2.0), (3.0, 6.0)])
def test_contract_of_simcc(ratio, sigma):
    check_codec(SimCCCodec(ratio, sigma), error=0.01)


@given(
    x=st.floats(-0.4375, SIZE[0] - 0.5625, width=32),
    y=st.floats(-0.4375, SIZE[1] - 0.5625, width=32),
    ratio=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_simcc_round_trip_up_to_the_crop_s_edge(x, y, ratio):
    codec = built(SimCCCodec(ratio, 3.0), joints=1)
    point = torch.tensor([[[x, y]]])
    target, weight = codec.encode(point, ones(1, 1))
    joints, score = codec.decode(target)
    assert weight.item() == 1
    # Beyond the outermost bin's centre there is no third bin for a parabola: half a bin is left.
    assert float((joints - point).abs().max()) < 0.51 / ratio
    if min(x, y) >= 1 / ratio and x <= SIZE[0] - 1 - 1 / ratio and y <= SIZE[1] - 1 - 1 / ratio:
        assert float((joints - point).abs().max()) < 0.01
    assert score.item() > 0.95


def test_simcc_speaks_in_distributions():
    codec = built(SimCCCodec(2.0, 6.0), joints=2)
    target, weight = codec.encode(torch.tensor([[[20.0, 30.0], [-40.0, 3.0]]]), ones(1, 2))
    assert weight.tolist() == [[1.0, 0.0]], "outside the crop"
    assert target["x"].shape == (1, 2, 192)
    assert target["y"].shape == (1, 2, 256)
    mean = (target["x"][0, 0].exp() * torch.arange(192)).sum()
    assert target["x"][0, 0].exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert mean.item() == pytest.approx(2 * 20.5 - 0.5, abs=1e-3)
    shifted = {k: v + 7 for k, v in target.items()}
    for a, b in zip(codec.decode(shifted), codec.decode(target), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3)
    flat = {"x": torch.zeros(1, 2, 192), "y": torch.zeros(1, 2, 256)}
    assert codec.decode(flat)[1].max() < 0.1, "a guess is no confidence"


def test_simcc_with_settings_that_are_none():
    with pytest.raises(BiposeError, match="ratio 0 and sigma"):
        SimCCCodec(0)
    with pytest.raises(BiposeError, match="no whole number of bins"):
        built(SimCCCodec(0.3))


@given(
    x=st.floats(0, SIZE[0] - 1, width=32),
    y=st.floats(0, SIZE[1] - 1, width=32),
    refine=st.sampled_from(["dark", "parabola"]),
    stride=st.sampled_from([1, 2, 4, 8]),
)
def test_round_trip_everywhere_inside_the_map(x, y, refine, stride):
    """Up to the very edge: half a pixel of the map beyond its outer pixel centres is still inside the crop."""
    codec = built(HeatmapCodec(stride, 2.0, refine), joints=1)
    point = torch.tensor([[[x, y]]])
    target, weight = codec.encode(point, ones(1, 1))
    joints, score = codec.decode(target)
    assert weight.item() == 1
    assert float((joints - point).abs().max()) < 0.05 * stride
    assert 0.8 < score.item() <= 1


@given(st.floats(-500, 500), st.floats(-500, 500))
def test_weight_is_zero_exactly_outside_the_crop(x, y):
    codec = built(HeatmapCodec(), joints=1)
    _, weight = codec.encode(torch.tensor([[[x, y]]]), ones(1, 1))
    x, y = torch.tensor([x, y]).tolist()  # as float32
    inside = -0.5 <= x < SIZE[0] - 0.5 and -0.5 <= y < SIZE[1] - 0.5
    assert weight.item() == float(inside)


def test_targets_are_the_sampled_gaussian():
    """Oracle: the formula, pixel by pixel."""
    codec = built(HeatmapCodec(4, 1.5), joints=1)
    point = torch.tensor([[[30.3, 71.9]]])
    maps = codec.encode(point, ones(1, 1))[0]["heatmaps"][0, 0]
    mx, my = to_map(point, 4)[0, 0].tolist()
    assert maps.shape == (32, 24)
    for v, u in [(0, 0), (17, 7), (18, 8), (31, 23), (18, 3)]:
        wanted = math.exp(-((u - mx) ** 2 + (v - my) ** 2) / (2 * 1.5**2))
        assert maps[v, u].item() == pytest.approx(wanted, rel=1e-4, abs=1e-12)


def test_occluded_joints_are_supervised_and_absent_ones_not():
    for codec in (built(HeatmapCodec(), 3), built(RegressionCodec(), 3)):
        _, weight = codec.encode(torch.full((1, 3, 2), 40.0), torch.tensor([[0, 1, 2]], dtype=torch.uint8))
        assert weight.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("codec", [HeatmapCodec(), HeatmapCodec(refine="parabola"), RegressionCodec()])
def test_flip_commutes_with_geometry(codec):
    codec = built(codec)
    order = torch.as_tensor(JHMDB.flip)
    points = torch.rand(8, 15, 2) * torch.tensor(SIZE) - 0.5
    target, _ = codec.encode(points, ones(8, 15))
    mirrored, _ = codec.encode(flip_points(points, SIZE[0], order), ones(8, 15))
    for key, value in codec.flip(target, order).items():
        torch.testing.assert_close(value, mirrored[key], rtol=0, atol=1e-4)


def test_flip_knows_its_skeleton_or_says_so():
    target, _ = built(HeatmapCodec(), 15).encode(torch.rand(1, 15, 2) * 90, ones(1, 15))
    named = built(HeatmapCodec(skeleton="jhmdb"))
    assert torch.equal(
        named.flip(target)["heatmaps"], named.flip(target, torch.as_tensor(JHMDB.flip.copy()))["heatmaps"]
    )
    with pytest.raises(BiposeError, match="left from right"):
        built(HeatmapCodec()).flip(target)
    with pytest.raises(BiposeError, match="15 joints"):
        built(HeatmapCodec(skeleton="jhmdb"), joints=13)
    with pytest.raises(BiposeError, match="unknown"):
        HeatmapCodec(skeleton="martian")


@pytest.mark.parametrize("refine", ["dark", "parabola", "quarter", "none"])
def test_degenerate_maps(refine):
    codec = built(HeatmapCodec(refine=refine), joints=6)
    maps = torch.zeros(1, 6, 32, 24)
    maps[0, 1] = 0.5  # constant
    maps[0, 2] = float("nan")
    maps[0, 3, 5, 7] = float("inf")
    maps[0, 4] = -1.0
    maps[0, 5, 10, 10], maps[0, 5, 10, 20] = 3.0, 3.0  # two equal peaks, too high
    joints, score = codec.decode({"heatmaps": maps})
    assert torch.isfinite(joints).all()
    assert score[0].tolist() == [0, 0.5, 0, 0, 0, 1]
    centre = torch.tensor([(SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2])
    assert torch.equal(joints[0, 2], centre)
    assert torch.equal(joints[0, 3], centre)
    assert ((joints[0, 5] - (torch.tensor([10.0, 10.0]) * 4 + 1.5)).abs() <= 2.01).all()  # the first of the two


def test_one_broken_map_leaves_its_neighbours_alone():
    codec = built(HeatmapCodec(), joints=3)
    points = torch.tensor([[[30.3, 40.4], [50.0, 60.0], [20.7, 90.2]]])
    target, _ = codec.encode(points, ones(1, 3))
    target["heatmaps"][0, 1] = float("nan")
    joints, _ = codec.decode(target)
    torch.testing.assert_close(joints[0, [0, 2]], points[0, [0, 2]], rtol=0, atol=0.05)


def test_dark_beats_the_others_on_noisy_maps():
    codec = {r: built(HeatmapCodec(4, 2.0, r), 17) for r in ("dark", "parabola", "quarter")}
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(32, 17, 2, generator=draw) * torch.tensor([40.0, 70.0]) + 28
    target, _ = codec["dark"].encode(points, ones(32, 17))
    noisy = {"heatmaps": 0.8 * target["heatmaps"] + 0.02 * torch.randn(target["heatmaps"].shape, generator=draw)}
    error = {r: float((c.decode(noisy)[0] - points).norm(dim=-1).mean()) for r, c in codec.items()}
    assert error["dark"] < 0.7 * min(error["parabola"], error["quarter"])


def test_half_precision_maps_decode_in_float32():
    codec = built(HeatmapCodec(), joints=1)
    target, _ = codec.encode(torch.tensor([[[40.0, 50.0]]]), ones(1, 1))
    joints, score = codec.decode({"heatmaps": target["heatmaps"].bfloat16().requires_grad_()})
    assert joints.dtype == score.dtype == torch.float32
    assert not joints.requires_grad
    assert (joints - torch.tensor([40.0, 50.0])).abs().max() < 0.4


@pytest.mark.parametrize(
    ("arguments", "size", "told"),
    [({"stride": 5}, SIZE, "does not divide"), ({"stride": 32}, (64, 64), "below 3x3")],
)
def test_sizes_that_do_not_suit(arguments, size, told):
    with pytest.raises(BiposeError, match=told):
        HeatmapCodec(**arguments).build(15, size)


def test_regression_expresses_joints_outside_the_crop():
    codec = built(RegressionCodec(), joints=1)
    point = torch.tensor([[[-20.0, 150.0]]])
    target, weight = codec.encode(point, ones(1, 1))
    torch.testing.assert_close(codec.decode(target)[0], point)
    assert weight.item() == 1
    corner, _ = codec.encode(torch.tensor([[[-0.5, SIZE[1] - 0.5]]]), ones(1, 1))
    assert corner["xy"].flatten().tolist() == [-0.5, 0.5]
