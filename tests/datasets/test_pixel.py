"""Pixel augmentation: the same for a clip, a function of the seed, and never a move."""

import pickle

import numpy as np
import pytest

from bipose_lit.datasets.pixel import Albumentations, ColourJitter, InTurn, Occluders, Pixels
from bipose_lit.types import BiposeError

CLIP = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), dtype=np.uint8)
STILL = np.repeat(CLIP[:1], 4, axis=0)


@pytest.fixture(scope="module")
def albumentations() -> Albumentations:
    return Albumentations(
        {"GaussNoise": {"p": 1.0}, "RandomBrightnessContrast": {"p": 0.5}, "CoarseDropout": {"p": 1.0}}
    )


@pytest.mark.parametrize("kind", ["jitter", "albumentations", "both"])
def test_seeded_and_equal_over_the_clip(kind: str, albumentations: Albumentations) -> None:
    jitter = ColourJitter(probability=1.0)
    pixels: Pixels = {"jitter": jitter, "albumentations": albumentations, "both": InTurn(jitter, albumentations)}[kind]
    one = pixels(STILL.copy(), 7)
    assert one.dtype == np.uint8
    assert one.shape == STILL.shape
    assert (one == one[:1]).all()
    assert not np.array_equal(one, STILL)
    assert not np.array_equal(one, pixels(STILL.copy(), 8))
    np.testing.assert_array_equal(one, pixels(STILL.copy(), 7))
    np.testing.assert_array_equal(one, pickle.loads(pickle.dumps(pixels))(STILL.copy(), 7))


def test_transforms_draw_apart_from_each_other() -> None:
    # With one seed for all, two coins of albumentations always fall alike.
    coins = Albumentations({"InvertImg": {"p": 0.5}, "ChannelShuffle": {"p": 0.5}})
    outcomes = set()
    for seed in range(40):
        out = coins(CLIP[:1].copy(), seed)
        inverted = abs(int(out.astype(int).sum()) - int((255 - CLIP[:1].astype(int)).sum())) < 1
        base = 255 - CLIP[:1] if inverted else CLIP[:1]
        outcomes.add((inverted, bool(np.array_equal(out, base))))
    assert len(outcomes) == 4


def test_jitter_is_a_colour_matrix() -> None:
    jitter = ColourJitter(0.3, 0.3, 0.3, 20, probability=1.0)
    matrix = jitter.matrix(3)
    expected = np.clip(np.round(CLIP @ matrix[:, :3].T + matrix[:, 3]), 0, 255)
    assert np.abs(jitter(CLIP.copy(), 3).astype(int) - expected).max() <= 1
    np.testing.assert_allclose(ColourJitter(0, 0, 0, 0, 1.0).matrix(0), np.eye(3, 4), atol=1e-12)
    # Saturation and hue leave grey as it is.
    np.testing.assert_allclose(ColourJitter(0, 0, 1, 90, 1.0).matrix(1)[:, :3] @ np.ones(3), np.ones(3), atol=2e-3)
    np.testing.assert_array_equal(ColourJitter(probability=0.0)(CLIP.copy(), 1), CLIP)


@pytest.mark.parametrize(
    ("ops", "said"),
    [
        ({"NoSuch": {}}, "no transform NoSuch"),
        ({"HorizontalFlip": {}}, "HorizontalFlip moves pixels"),
        ({"Affine": {}}, "Affine moves pixels"),
        ({"GaussNoise": {"sdt_range": [0.1, 0.2]}}, "sdt_range"),
        ({"GaussNoise": {"std_range": [0.1, 7]}}, "GaussNoise does not take"),
    ],
)
def test_mistakes_are_named(ops: dict, said: str) -> None:
    with pytest.raises(BiposeError, match=said):
        Albumentations(ops)


def test_occluders_move_smoothly_and_fit_over_parts_of_a_track() -> None:
    joints = np.tile(np.stack(np.meshgrid(np.arange(0, 64, 4), np.arange(0, 64, 4)), -1).reshape(1, -1, 2), (40, 1, 1))
    joints = joints.astype(np.float32)
    occluders = Occluders(1.0, 2, (0.3, 0.5))
    ever = 0
    for seed in range(8):
        whole = np.zeros((40, 64, 64, 3), np.uint8)
        hidden = occluders.paste(whole, joints, np.arange(40), 40, np.random.default_rng(seed))
        part = np.zeros((10, 64, 64, 3), np.uint8)
        again = occluders.paste(part, joints[:10], np.arange(20, 30), 40, np.random.default_rng(seed))
        np.testing.assert_array_equal(part, whole[20:30])
        np.testing.assert_array_equal(again, hidden[20:30])
        # What is called hidden is what was painted.
        painted = whole[:, ::4, ::4].any(-1).reshape(40, -1)
        assert (painted == hidden).mean() > 0.999
        ever += int(hidden.any())
    assert ever >= 4
    clean = CLIP.copy()
    assert not Occluders(0.0).paste(clean, joints[:4], np.arange(4), 4, np.random.default_rng(0)).any()
    np.testing.assert_array_equal(clean, CLIP)
