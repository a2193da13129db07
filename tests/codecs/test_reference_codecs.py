"""Codecs of the reference codes: their formulas, restated in float64, and what their flips do to a perfect network."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given

from bipose_lit import geometry
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.geometry import flip_points, from_map, to_map
from bipose_lit.skeletons import COCO
from bipose_lit.testing import check_codec
from bipose_lit.types import BiposeError

SIZE, STRIDE = (96, 128), 4
MAP = (24, 32)
MSRA = {"refine": "quarter", "grid": "msra", "quantised": True, "patch": 3.0}
UDP = {"grid": "udp", "patch": 3.0}


def built(joints=1, size=SIZE, **options):
    codec = HeatmapCodec(STRIDE, options.pop("sigma", 2.0), **options)
    codec.build(joints, size)
    return codec


def encoded(codec, *points):
    target, weight = codec.encode(torch.tensor([points]), torch.ones(1, len(points), dtype=torch.uint8))
    return target["heatmaps"][0].numpy(), weight[0].tolist()


# --- the formulas ----------------------------------------------------------------------------------------------------


def reference_map(point, sigma, pitch, quantised):
    """Target and weight of a joint: the nearest pixel by truncation, and a square patch of a Gaussian of 3 sigma about it.

    As JointsDataset.generate_target has it in the code of Simple Baselines (pitch: the stride) and of UDP ((W - 1) / (w - 1)).
    """
    (w, h), reach = MAP, 3 * sigma
    place = [c / p for c, p in zip(point, pitch, strict=True)]
    nearest = [int(c + 0.5) for c in place]
    lowest, beyond = [int(n - reach) for n in nearest], [int(n + reach + 1) for n in nearest]
    if lowest[0] >= w or lowest[1] >= h or beyond[0] < 0 or beyond[1] < 0:
        return np.zeros((h, w)), 0.0
    found = np.zeros((h, w))
    middle = nearest if quantised else place
    for v in range(max(0, lowest[1]), min(beyond[1], h)):
        for u in range(max(0, lowest[0]), min(beyond[0], w)):
            found[v, u] = math.exp(-((u - middle[0]) ** 2 + (v - middle[1]) ** 2) / (2 * sigma**2))
    return found, 1.0


def reference_quarter(heatmap):
    """Place on the map as get_final_preds of Simple Baselines finds it."""
    h, w = heatmap.shape
    v, u = divmod(int(heatmap.argmax()), w)
    place = np.array([u, v], np.float64)
    if 1 < u < w - 1 and 1 < v < h - 1:
        slope = [heatmap[v, u + 1] - heatmap[v, u - 1], heatmap[v + 1, u] - heatmap[v - 1, u]]
        place += 0.25 * np.sign(slope)
    return place


def reference_taylor(heatmap, sigma):
    """Place on the map by one Newton step on the logarithm, neighbours one pixel away, as UDP's code takes it of a clean peak."""
    w = heatmap.shape[1]
    v, u = divmod(int(heatmap.argmax()), w)
    p = np.log(np.maximum(heatmap[v - 1 : v + 2, u - 1 : u + 2], 1e-3))
    slope = np.array([p[1, 2] - p[1, 0], p[2, 1] - p[0, 1]]) / 2
    across, down = p[1, 2] - 2 * p[1, 1] + p[1, 0], p[2, 1] - 2 * p[1, 1] + p[0, 1]
    mixed = (p[2, 2] - p[1, 2] - p[2, 1] + 2 * p[1, 1] - p[1, 0] - p[0, 1] + p[0, 0]) / 2
    return np.array([u, v]) - np.linalg.solve([[across, mixed], [mixed, down]], slope)


def udp_pitch(size=SIZE):
    return [(n - 1) / (n // STRIDE - 1) for n in size]


POINTS = st.tuples(st.floats(-60, SIZE[0] + 60, width=32), st.floats(-60, SIZE[1] + 60, width=32))


@given(POINTS, st.sampled_from([1.0, 2.0, 3.0]))
def test_msra_targets_and_weights_are_the_reference_s(point, sigma):
    maps, weight = encoded(built(sigma=sigma, **MSRA), point)
    wanted, wanted_weight = reference_map(point, sigma, (STRIDE, STRIDE), quantised=True)
    assert weight == [wanted_weight]
    np.testing.assert_allclose(maps[0], wanted, rtol=1e-5, atol=1e-7)


@given(POINTS, st.sampled_from([1.0, 2.0, 3.0]))
def test_udp_targets_and_weights_are_the_reference_s(point, sigma):
    exact = [c / p + 0.5 for c, p in zip(point, udp_pitch(), strict=True)]
    assume(all(abs(c - round(c)) > 1e-4 for c in exact))  # float32 may round to the other pixel there
    maps, weight = encoded(built(sigma=sigma, **UDP), point)
    wanted, wanted_weight = reference_map(point, sigma, udp_pitch(), quantised=False)
    assert weight == [wanted_weight]
    np.testing.assert_allclose(maps[0], wanted, rtol=1e-4, atol=1e-6)


@given(POINTS, st.sampled_from([1.0, 2.0, 3.0]))
def test_dark_weights_are_the_reference_s(point, sigma):
    """A box of 3 sigma about the joint's own place, corners cut towards zero, as JointsDataset.adjust_target_weight has it."""
    place = [c / STRIDE for c in point]
    lowest, beyond = [int(c - 3 * sigma) for c in place], [int(c + 3 * sigma + 1) for c in place]
    off = any(c - 3 * sigma >= n for c, n in zip(place, MAP, strict=True)) or any(n < 0 for n in beyond)
    assert off == (any(a >= n for a, n in zip(lowest, MAP, strict=True)) or any(n < 0 for n in beyond))
    _, weight = encoded(built(sigma=sigma, grid="msra", reach=3.0, shift_flipped=True), point)
    assert weight == [0.0 if off else 1.0]


def test_dark_targets_are_the_whole_gaussian_about_the_joint_s_own_place():
    maps, _ = encoded(built(grid="msra"), (30.3, 71.9))
    u, v = np.meshgrid(np.arange(MAP[0]), np.arange(MAP[1]))
    wanted = np.exp(-((u - 30.3 / 4) ** 2 + (v - 71.9 / 4) ** 2) / 8)
    np.testing.assert_allclose(maps[0], wanted, rtol=1e-4, atol=1e-7)


@given(st.integers(0, 1000))
def test_msra_decoding_is_the_reference_s(seed):
    """On maps of noise; in the first two and the last rows and columns the reference refines nothing, ours what it can."""
    rng = np.random.default_rng(seed)
    maps = rng.random((1, 4, *MAP[::-1]), np.float32) * 0.5
    for k, (u, v) in enumerate(zip(rng.integers(2, MAP[0] - 1, 4), rng.integers(2, MAP[1] - 1, 4), strict=True)):
        maps[0, k, v, u] = 0.6 + 0.1 * k
    places, score = built(4, **MSRA).decode({"heatmaps": torch.from_numpy(maps)})
    wanted = np.stack([reference_quarter(m.astype(np.float64)) for m in maps[0]]) * STRIDE
    np.testing.assert_allclose(places[0].numpy(), wanted, atol=1e-5)
    np.testing.assert_allclose(score[0].numpy(), maps[0].max((1, 2)))


@given(st.floats(30, SIZE[0] - 31, width=32), st.floats(30, SIZE[1] - 31, width=32))
def test_udp_decoding_finds_what_the_reference_s_formula_finds(x, y):
    codec = built(grid="udp")
    target, _ = codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    places, _ = codec.decode(target)
    wanted = reference_taylor(target["heatmaps"][0, 0].double().numpy(), 2.0) * udp_pitch()
    np.testing.assert_allclose(places[0, 0].numpy(), wanted, atol=0.03)
    np.testing.assert_allclose(wanted, [x, y], atol=0.01)


def test_places_on_the_maps():
    """Closed forms at the corners: edges on edges; corner pixel on corner pixel; the first ones alone."""
    corner = torch.tensor([[SIZE[0] - 1.0, SIZE[1] - 1.0]])
    pitch = torch.tensor(udp_pitch())
    assert to_map(corner, pitch, 0.0)[0].tolist() == pytest.approx([MAP[0] - 1, MAP[1] - 1])
    assert to_map(corner, 4.0, 0.0).tolist() == [[23.75, 31.75]]
    assert to_map(corner + 0.5, 4.0).tolist() == [[23.5, 31.5]]
    for stride, origin in ((pitch, 0.0), (4.0, 0.0), (4.0, 0.5)):
        torch.testing.assert_close(from_map(to_map(corner, stride, origin), stride, origin), corner)


@pytest.mark.parametrize("grid", ["pixel", "msra", "udp"])
def test_a_broken_map_gives_the_crop_s_centre(grid):
    places, score = built(grid=grid).decode({"heatmaps": torch.full((1, 1, 32, 24), float("nan"))})
    assert places[0, 0].tolist() == pytest.approx([47.5, 63.5])
    assert score.item() == 0


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "mirror"),
    [
        ({"grid": "udp"}, 0.01, 0.05),
        (UDP, 0.05, 0.05),
        ({"grid": "msra"}, 0.01, 3.05),
        ({"grid": "msra", "shift_flipped": True}, 0.01, 1.05),
        (MSRA, 2.0, 3.05),
        ({**MSRA, "shift_flipped": True}, 2.0, 1.05),
        ({"quantised": True}, 2.0, 0.05),
    ],
)
def test_contract(options, error, mirror):
    check_codec(HeatmapCodec(STRIDE, **options), error=error, mirror=mirror)
    if mirror > 1:
        with pytest.raises(AssertionError, match=r"decode\(flip\(e\)\)"):
            check_codec(HeatmapCodec(STRIDE, **options), error=error, mirror=mirror - 0.1)
    if error == 2.0:
        with pytest.raises(AssertionError, match="gives the joints"):
            check_codec(HeatmapCodec(STRIDE, **options), error=1.9, mirror=mirror)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"grid": "pose"}, "grid 'pose' is not one of 'pixel', 'msra', 'udp'"),
        ({"patch": 0.0}, "patch 0.0 is a number of sigmas"),
        ({"patch": float("nan")}, "patch nan is a number of sigmas"),
        ({"shift_flipped": True}, "mirrored maps of grid pixel lie where they belong"),
        ({"shift_flipped": True, "grid": "udp"}, "mirrored maps of grid udp"),
    ],
)
def test_settings_that_are_none(options, told):
    with pytest.raises(BiposeError, match=told):
        HeatmapCodec(**options)


def test_configurations_from_before_these_options_mean_what_they_meant():
    old = HeatmapCodec(4, 1.5, "dark", "jhmdb")
    assert (
        old.config()["init_args"] | {"grid": "pixel", "quantised": False, "patch": None, "shift_flipped": False}
        == (old.config()["init_args"])
    )


# --- the flip test ---------------------------------------------------------------------------------------------------


def flip_tested(codec, points):
    """What a perfect network's maps of both views give after averaging, as `PoseModule.predict_step` has it."""
    order = torch.as_tensor(COCO.flip)
    visible = torch.ones(points.shape[:2])
    straight, _ = codec.encode(points, visible)
    mirrored, _ = codec.encode(flip_points(points, SIZE[0], order), visible)
    back = codec.flip(mirrored)
    return codec.decode({k: (v + back[k]) / 2 for k, v in straight.items()})[0]


@pytest.mark.parametrize(
    ("options", "bias"),
    [({}, 0.0), ({"grid": "udp"}, 0.0), ({"grid": "msra"}, -1.5), ({"grid": "msra", "shift_flipped": True}, 0.5)],
)
def test_a_perfect_network_under_the_flip_test(options, bias):
    """Equal Gaussians 1 - 1/s map pixels apart, or 1/s with the shift, have their peak in the middle: -1.5, +0.5 crop pixels.

    (Huang et al. 2020 derive both.) The other grids need no shift.
    """
    codec = built(17, skeleton="coco", **options)
    points = torch.rand(16, 17, 2, generator=torch.Generator().manual_seed(0)) * 36 + 30
    off = flip_tested(codec, points) - points
    torch.testing.assert_close(off[..., 0], torch.full_like(off[..., 0], bias), rtol=0, atol=0.05)
    assert off[..., 1].abs().max() < 0.05


def test_the_shift_is_the_reference_s():
    """Oracle: the three lines of validate() in the reference code."""
    maps = torch.rand(2, 17, 6, 8)
    shifted, plain = (
        built(17, skeleton="coco", grid="msra", shift_flipped=True),
        built(17, skeleton="coco", grid="msra"),
    )
    wanted = maps.numpy()[:, list(COCO.flip), :, ::-1].copy()
    assert np.array_equal(plain.flip({"heatmaps": maps})["heatmaps"].numpy(), wanted)
    wanted[:, :, :, 1:] = wanted.copy()[:, :, :, 0:-1]
    assert np.array_equal(shifted.flip({"heatmaps": maps})["heatmaps"].numpy(), wanted)


# --- the reference's crop --------------------------------------------------------------------------------------------


def test_the_reference_s_crop_lies_half_a_pixel_beside_ours_and_its_way_back_is_the_same():
    """transform_preds goes from the map to the picture at once; crop matrix and grid "msra" go there by the crop.

    So maps of the reference's own crops decode to its own joints once the crop's half pixel is added, and maps of our crops to
    the joints that they show: published weights need no other decoding, their pictures lie 0.5 crop pixels beside.
    """
    size, centre, extent = (192, 256), np.array([311.0, 207.5]), np.array([300.0, 400.0])  # extent: 200 x scale
    box = (*(centre + 0.5 - extent / 2), *extent)
    ours = geometry.crop_matrix(box, size)
    joints = np.random.default_rng(0).uniform(100, 400, (20, 2))
    theirs = (joints - centre) * (np.array(size) / extent) + np.array(size) / 2
    np.testing.assert_allclose(geometry.apply(ours, joints), theirs - 0.5, atol=1e-9)
    on_map = theirs / 4
    image = (on_map - np.array([24, 32])) * (extent / np.array([48, 64])) + centre  # transform_preds
    np.testing.assert_allclose(image, joints, atol=1e-9)
    by_crop = from_map(torch.from_numpy(on_map), 4.0, 0.0).numpy() - 0.5
    np.testing.assert_allclose(geometry.apply(geometry.invert(ours), by_crop), joints, atol=1e-9)
    # UDP's crop of the same person: smaller by (W - 1) / W about the middle.
    udp = (joints - centre) * ((np.array(size) - 1) / extent) + (np.array(size) - 1) / 2
    middle = (np.array(size) - 1) / 2
    np.testing.assert_allclose(
        geometry.apply(ours, joints) - middle, (udp - middle) * size / (np.array(size) - 1), atol=1e-9
    )
