"""Convolutional pose machines: the paper's sizes, what a prediction sees of the crop, the centre map, stages."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.models.backbones.classic import CPMTrunk
from bipose_lit.models.decoders.cpm import CPMStages
from bipose_lit.models.layers import centre_map
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec

SMALL = {"reduced": 4, "wide": 6, "wide_kernel": 3, "channels": 5, "kernel": 3}


def parameters(*parts) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def layers(*table) -> int:
    """Parameters of convolutions (kernel, inputs, outputs) with biases."""
    return sum((k * k * before + 1) * after for k, before, after in table)


@pytest.mark.parametrize(("stages", "K"), [(1, 14), (2, 14), (6, 14), (6, 17)])
def test_it_has_the_parameters_of_the_paper(stages, K):
    """Oracle: the layers of figure 2 of the paper, with the widths of the authors' prototxt files, one trunk and K maps."""
    trunk, decoder = CPMTrunk(), CPMStages(stages)
    decoder.build(trunk.spec, K, (368, 368))
    later = (11, 32 + K + 1, 128), (11, 128, 128), (11, 128, 128), (1, 128, 128), (1, 128, K)
    wanted = layers((9, 3, 128), (9, 128, 128), (9, 128, 128))
    wanted += layers((5, 128, 32), (9, 32, 512), (1, 512, 512), (1, 512, K))
    if stages > 1:
        wanted += layers((5, 128, 32)) + (stages - 1) * layers(*later)
    assert parameters(trunk, decoder) == wanted


def ones(module):
    """Weights that let everything through and drown nothing, on crops of few rows."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.constant_(m.weight, 1 / (m.kernel_size[0] * m.in_channels))
            nn.init.zeros_(m.bias)
    return module.double().eval()


@pytest.mark.parametrize(("stages", "wanted"), [(1, 160), (2, 400), (3, 640)])
def test_receptive_fields_are_the_papers(stages, wanted):
    """Figure 2: 160 pixels in stage 1, 400 in stage 2. One crop for every column near the field's ends that a spark can be in."""
    width = wanted + 48
    trunk, decoder = CPMTrunk(1), CPMStages(stages, 1, 1, channels=1)
    decoder.build(trunk.spec, 1, (width, 8))
    net = nn.Sequential(ones(trunk), ones(decoder))
    place = width // 16
    centre = 8 * place + 3.5  # of the map pixel, on the crop
    ends = torch.tensor([centre - wanted / 2 + 0.5, centre + wanted / 2 - 0.5]).long()
    columns = torch.cat([ends + step for step in (-8, -1, 0, 1, 8)]).sort().values
    images = torch.ones(len(columns) + 1, 3, 8, width, dtype=torch.float64)
    images[torch.arange(len(columns)), :, :, columns] += 1
    with torch.no_grad():
        row = net(images)[-1]["heatmaps"][:, 0, 0, place]
    seen = (row[:-1] - row[-1]).abs() > 1e-12 * row[-1]
    assert torch.equal(seen, (columns >= ends[0]) & (columns <= ends[1]))


def test_trunk_keeps_the_contract():
    assert CPMTrunk(6, 3).spec == FeatureSpec(6, 8)
    check_backbone(CPMTrunk(6, 3), (72, 40))


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_decoder_keeps_the_contract(stages):
    check_decoder(CPMStages(stages, **SMALL), HeatmapCodec(8), FeatureSpec(6, 8), size=(72, 40))


@pytest.mark.parametrize(("width", "height"), [(368, 368), (288, 384), (384, 288)])
def test_the_centre_map_is_the_pooled_gaussian_of_the_original(width, height):
    """Oracle: a Gaussian of 21 pixels for a crop of 368, averaged over the pixels of each place of the map."""
    longer, sigma = max(width, height), 21 / 368 * max(width, height)
    down = torch.exp(-0.5 * ((torch.arange(height) - (height - 1) / 2) / sigma) ** 2)
    across = torch.exp(-0.5 * ((torch.arange(width) - (width - 1) / 2) / sigma) ** 2)
    pooled = functional.avg_pool2d((down[:, None] * across)[None, None], 8)
    found = centre_map(torch.zeros(2, 5, height // 8, width // 8), 21 / 368)
    assert found.shape == (2, 1, height // 8, width // 8)
    assert (found - pooled).abs().max() < 0.02 * (368 / longer)
    assert torch.equal(found, found.flip(-1))
    assert torch.equal(found, found.flip(-2))


def test_the_centre_map_scales_with_the_crop():
    """Twice the crop, twice the map: the same map at every other place."""
    small, large = (centre_map(torch.zeros(1, 1, n, 2 * n).double(), 0.06) for n in (15, 45))
    torch.testing.assert_close(large[..., 1::3, 1::3], small)


def test_later_stages_read_features_beliefs_and_centre():
    torch.manual_seed(0)
    decoder = CPMStages(3, **SMALL)
    decoder.build(FeatureSpec(6, 8), 2, (64, 64))
    decoder.double()
    for head in decoder.modules():
        if isinstance(head, nn.Conv2d) and head.out_channels == 2:
            nn.init.normal_(head.weight)
    x = torch.randn(2, 6, 8, 8).double()
    first, second, third = (s["heatmaps"] for s in decoder(x))
    torch.testing.assert_close(first, decoder.first(x))
    seen = [decoder.reduction(x), centre_map(x, 21 / 368)]
    torch.testing.assert_close(second, decoder.later[0](torch.cat([*seen, first], 1)))
    torch.testing.assert_close(third, decoder.later[1](torch.cat([*seen, second], 1)))


def test_no_layer_starts_blind():
    """Signals keep their size through all stages: He et al.'s law, and what training from the first step needs."""
    torch.manual_seed(0)
    trunk, decoder = CPMTrunk(16, 5), CPMStages(3, 8, 24, 5, 16, 5)
    decoder.build(trunk.spec, 4, (96, 96))
    x = trunk(torch.randn(2, 3, 96, 96))
    assert 0.3 < x.std() < 6
    sum(s["heatmaps"].square().sum() for s in decoder(x)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (*trunk.parameters(), *decoder.parameters()))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: CPMTrunk(0), "CPMTrunk: channels 0 must be at least 1"),
        (lambda: CPMTrunk(8, 4), "CPMTrunk: kernel 4 must be odd"),
        (lambda: CPMStages(0), "stages 0 must be at least 1"),
        (lambda: CPMStages(reduced=0), "reduced 0 must be"),
        (lambda: CPMStages(wide_kernel=8), "wide_kernel 8 must be odd"),
        (lambda: CPMStages(kernel=0), "kernel 0 must be at least 1"),
        (lambda: CPMStages(centre=0.0), "centre 0.0 must be above 0"),
    ],
)
def test_wrong_settings_are_told(make, told):
    with pytest.raises(BiposeError, match=told):
        make()
