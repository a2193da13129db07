"""The stacked hourglass: the layers of its references, every pixel's way down and up, odd maps, settings."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.models.backbones.classic import HourglassStem
from bipose_lit.models.decoders.hourglass import Hourglass, StackedHourglass
from bipose_lit.models.layers import Residual
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec


def parameters(*parts) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def built(decoder, channels=8, size=(64, 64), joints=3, stride=4):
    torch.manual_seed(0)
    decoder.build(FeatureSpec(channels, stride), joints, size)
    return decoder.eval()


def settle(module):
    """Statistics as after some training, in float64."""
    draw = torch.Generator().manual_seed(1)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(torch.randn(buffer.shape, generator=draw) * 0.3)
        elif name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    return module.double().eval()


@pytest.mark.parametrize(
    ("stacks", "blocks", "middle", "wanted"),
    [
        # Counted in the references themselves, for 16 joints: HourglassNet of bearpaw/pytorch-pose ...
        (1, 1, 256, 3_586_960),
        (2, 1, 256, 6_730_912),
        (8, 1, 256, 25_594_624),
        (2, 2, 256, 12_737_696),
        # ... and PoseNet of princeton-vl/pytorch_stacked_hourglass without the shortcuts that it never reads.
        (2, 1, None, 8_429_088 - 1_858_688),
        (8, 1, None, 32_819_328 - 7_385_216),
    ],
)
def test_it_has_the_references_parameters(stacks, blocks, middle, wanted):
    stem, decoder = HourglassStem(middle=middle), StackedHourglass(stacks, blocks=blocks)
    decoder.build(stem.spec, 16, (256, 256))
    assert parameters(stem, decoder) == wanted


@pytest.mark.parametrize("middle", [None, 24])
def test_stem_keeps_the_contract(middle):
    stem = HourglassStem(16, middle)
    assert stem.spec == FeatureSpec(16, 4)
    check_backbone(stem, (72, 40))


@pytest.mark.parametrize(
    "decoder",
    [StackedHourglass(1, depth=2), StackedHourglass(2, channels=6, depth=3), StackedHourglass(3, depth=1, blocks=2)],
)
def test_decoder_keeps_the_contract(decoder):
    check_decoder(decoder, HeatmapCodec(4), FeatureSpec(8, 4), size=(72, 40))


def bottleneck(block, x):
    """Oracle: the paper's residual, written out."""
    y = x
    for norm, conv, padding in (
        (block.norm1, block.conv1, 0), (block.norm2, block.conv2, 1), (block.norm3, block.conv3, 0),
    ):  # fmt: skip
        y = (y - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
        y = (y * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        y = functional.conv2d(y, conv.weight, conv.bias, padding=padding)
    return y + (x if isinstance(block.skip, nn.Identity) else functional.conv2d(x, block.skip.weight, block.skip.bias))


def recursive(hourglass, x, level):
    """Oracle: the recursion of the paper, for maps of even sizes."""
    if level < 0:
        return bottleneck(hourglass.bottom[0], x)
    low = bottleneck(hourglass.downs[level][0], functional.max_pool2d(x, 2))
    low = bottleneck(hourglass.ups[level][0], recursive(hourglass, low, level - 1))
    return bottleneck(hourglass.skips[level][0], x) + low.repeat_interleave(2, -1).repeat_interleave(2, -2)


@pytest.mark.parametrize(("before", "after"), [(6, 6), (6, 10)])
def test_residual_is_the_pre_activation_bottleneck(before, after):
    torch.manual_seed(0)
    block, x = settle(Residual(before, after)), torch.randn(2, before, 5, 4).double()
    torch.testing.assert_close(block(x), bottleneck(block, x), rtol=0, atol=1e-12)


def test_stacks_are_those_of_the_paper():
    decoder = settle(built(StackedHourglass(2, depth=3), channels=6))
    x = torch.randn(1, 6, 16, 8).double()
    first, second = (stage["heatmaps"] for stage in decoder(x))
    for i, maps in enumerate((first, second)):
        found = bottleneck(decoder.residuals[i][0], recursive(decoder.hourglasses[i], x, 2))
        found = decoder.features[i](found)
        torch.testing.assert_close(maps, decoder.heads[i](found), rtol=0, atol=1e-12)
        if i == 0:
            x = x + decoder.merge_features[0](found) + decoder.merge_maps[0](maps)
    assert len(decoder.merge_maps) == 1


@pytest.mark.parametrize(("h", "w"), [(8, 8), (9, 5), (7, 11), (4, 1)])
def test_every_pixel_comes_back_to_where_it_was_pooled(h, w):
    """Residuals that add nothing: an hourglass is then the map plus the maxima of its blocks of 2, 4, 8, ... pixels."""
    hourglass = Hourglass(2, 2, 1).eval()
    for module in hourglass.modules():
        if isinstance(module, Residual):
            nn.init.zeros_(module.conv3.weight)
            nn.init.zeros_(module.conv3.bias)
    x = torch.randn(1, 2, h, w)
    wanted = x.clone()
    for size in (2, 4):
        for i in range(h):
            for j in range(w):
                top, left = i // size * size, j // size * size
                wanted[..., i, j] += x[..., top : top + size, left : left + size].amax((-2, -1))
    torch.testing.assert_close(hourglass(x), wanted)


def test_another_width_than_the_features_is_made_by_a_residual_in_front():
    same, other = built(StackedHourglass(1, depth=1)), built(StackedHourglass(1, 12, depth=1))
    assert parameters(same.first) == 0
    assert parameters(other.first) == parameters(Residual(8, 12))
    assert other.heads[0].in_channels == 12


def test_maps_start_near_zero_and_every_stack_is_a_stage():
    stages = built(StackedHourglass(4, depth=2))(torch.randn(2, 8, 16, 16))
    assert [s["heatmaps"].shape for s in stages] == [(2, 3, 16, 16)] * 4
    assert all(s["heatmaps"].abs().max() < 0.1 for s in stages)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: HourglassStem(6), "channels 6 must be a multiple of 4"),
        (lambda: HourglassStem(8, 3), "middle 3 must be an even number"),
        (lambda: HourglassStem(8, mean=[0.5, 0.5]), "mean .* must be three numbers"),
        (lambda: HourglassStem(8, std=[1.0, 0.0, 1.0]), "std .* must be three numbers, deviations above 0"),
        (lambda: StackedHourglass(0), "stacks 0 must be 1 to 8"),
        (lambda: StackedHourglass(9), "stacks 9 must be 1 to 8"),
        (lambda: StackedHourglass(1, 5), "channels 5 must be an even number"),
        (lambda: StackedHourglass(1, depth=0), "depth 0 must be at least 1"),
        (lambda: StackedHourglass(1, blocks=0), "blocks 0 must be at least 1"),
        (lambda: built(StackedHourglass(1), size=(64, 60)), "64x60 at stride 4 cannot be halved 4 times; use crops of at"),
        (lambda: built(StackedHourglass(1), channels=7), "7 features cannot be halved"),
    ],
)  # fmt: skip
def test_wrong_settings_are_told(make, told):
    with pytest.raises(BiposeError, match=told):
        make()
