"""HOG by its definition: votes pixel by pixel, laws of light and mirrors; and part filters on it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.models.backbones.hog import HOGFeatures
from bipose_lit.models.decoders.part_filters import PartFilters
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("backbone", [HOGFeatures(), HOGFeatures(8, 6), HOGFeatures(5)])
def test_contract(backbone):
    size = 12 * backbone.cell
    check_backbone(backbone, (size, size))
    assert not list(backbone.parameters())
    assert not backbone.state_dict()


@pytest.mark.parametrize("kernel", [1, 5])
def test_part_filters_keep_the_contract_of_decoders(kernel):
    check_decoder(PartFilters(kernel), HeatmapCodec(4), FeatureSpec(12, 4))


@pytest.mark.parametrize(("cell", "bins"), [(4, 9), (3, 4)])
def test_histograms_are_votes_of_pixels(cell, bins):
    """Every pixel, in loops: its strongest colour, two directions, up to four cells."""
    h, w = 3, 4
    images = picture(1, 3, h * cell, w * cell)
    root = images[0].sqrt().numpy()
    wanted = torch.zeros(bins, h, w, dtype=torch.float64)
    H, W = h * cell, w * cell
    for y in range(H):
        for x in range(W):
            slopes = [
                (c[y, min(x + 1, W - 1)] - c[y, max(x - 1, 0)], c[min(y + 1, H - 1), x] - c[max(y - 1, 0), x])
                for c in root
            ]
            dx, dy = max(slopes, key=lambda s: s[0] ** 2 + s[1] ** 2)
            angle = math.degrees(math.atan2(dy, dx)) % 180
            for b in range(bins):
                apart = abs(angle - (b + 0.5) * 180 / bins)
                share = max(0, 1 - min(apart, 180 - apart) / (180 / bins))
                for cy in range(h):
                    for cx in range(w):
                        away = [abs(p - ((c + 0.5) * cell - 0.5)) / cell for p, c in ((y, cy), (x, cx))]
                        wanted[b, cy, cx] += math.hypot(dx, dy) * share * max(0, 1 - away[0]) * max(0, 1 - away[1])
    found = HOGFeatures(cell, bins).histograms(images)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-6)  # the weights of cells are kept in float32


def test_blocks_are_normalised_twice_about_every_corner():
    cells = picture(1, 5, 3, 4)
    found = HOGFeatures(4, 5).normalised(cells)[0].unflatten(0, (4, 5))
    for y in range(3):
        for x in range(4):
            for n, (up, left) in enumerate([(1, 1), (1, 0), (0, 1), (0, 0)]):
                rows, columns = (
                    range(max(0, p - back), min(m, p - back + 2)) for p, back, m in ((y, up, 3), (x, left, 4))
                )
                block = torch.stack([cells[0, :, j, i] for j in rows for i in columns])
                clipped = (block / (block.square().sum() + 1e-4).sqrt()).clamp(max=0.2)
                norm = (clipped.square().sum() + 1e-4).sqrt()
                own = (cells[0, :, y, x] / (block.square().sum() + 1e-4).sqrt()).clamp(max=0.2)
                torch.testing.assert_close(found[n, :, y, x], own / norm)


def test_flat_pictures_show_nothing_and_ramps_one_direction():
    hog = HOGFeatures(4, 9)
    assert not hog(torch.full((1, 3, 16, 16), 0.7)).any()
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    for b in range(9):
        angle = math.radians((b + 0.5) * 20)
        ramp = (0.3 + 0.01 * (x * math.cos(angle) + y * math.sin(angle))).square()  # linear after the square root
        cells = hog.histograms(ramp.expand(1, 3, -1, -1))[0, :, 1:-1, 1:-1]
        assert torch.allclose(cells[b], torch.tensor(0.02 * 16), rtol=1e-3), "gradient times the area of a cell"
        assert cells.sum(0).sub(cells[b]).abs().max() < 1e-3


@given(st.integers(0, 10**6), st.floats(0.3, 1.0))
def test_light_changes_little_and_mirrors_exchange_directions(seed, light):
    hog = HOGFeatures(4, 9)
    images = picture(1, 3, 24, 20, seed=seed)
    plain = hog(images)
    assert (hog(light * images) - plain).abs().max() < 1e-3
    assert plain.min() >= 0
    assert plain.unflatten(1, (4, 9)).square().sum(2).max() <= 1 + 1e-9
    mirrored = hog(images.flip(-1)).unflatten(1, (4, 9))
    blocks = plain.unflatten(1, (4, 9))[:, [1, 0, 3, 2]]  # left and right of a cell
    torch.testing.assert_close(mirrored, blocks.flip(2).flip(-1), rtol=0, atol=1e-9)


def test_wrong_settings_are_told():
    with pytest.raises(BiposeError, match="cell 1 must be at least 2 pixels"):
        HOGFeatures(1)
    with pytest.raises(BiposeError, match="kernel 4 must be odd"):
        PartFilters(4)
