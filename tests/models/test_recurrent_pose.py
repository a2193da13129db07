"""Recurrent pose estimation: the authors' sizes, one module for all iterations, statistics for each."""

import pytest
import torch
from torch import nn

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.models.backbones.classic import RecurrentTrunk
from bipose_lit.models.decoders.recurrent import RecurrentDecoder
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec


def parameters(*parts) -> int:
    return sum(p.numel() for part in parts for p in part.parameters())


def small(iterations=2, seed=0):
    torch.manual_seed(seed)
    decoder = RecurrentDecoder(iterations, 8, 3, 3, 5)
    decoder.build(FeatureSpec(6, 4), 3, (64, 64))
    return decoder


def normal(k, before, after) -> int:
    """Parameters of a convolution with BatchNorm."""
    return (k * k * before + 1) * after + 2 * after


def bare(k, before, after) -> int:
    return (k * k * before + 1) * after


def test_it_has_the_parameters_of_the_authors_network():
    """Oracle: the layers of dagnetworks/initialize3ObjeRecFusion.m in ox-vgg/keypoint_detection, without maps of body parts."""
    trunk, decoder, K = RecurrentTrunk(), RecurrentDecoder(), 16
    decoder.build(trunk.spec, K, (248, 248))
    pairs = (3, 64), (64, 64), (64, 64), (64, 128), (128, 128), (128, 128)
    assert parameters(trunk) == sum(normal(3, *pair) for pair in pairs)
    wanted = normal(9, 128, 256) + normal(9, 256, 512) + bare(1, 512, 256) + bare(1, 256, 256) + bare(1, 256, K)
    wanted += normal(7, 384, 64) + normal(13, 64, 64) + normal(13, 64, 128) + bare(1, 128, 256) + bare(1, 256, K)
    assert parameters(decoder) == wanted


def test_weights_are_shared_over_iterations():
    counts = {parameters(small(n)) for n in (1, 2, 5)}
    assert len(counts) == 1
    assert parameters(small(0)) < counts.pop()
    one, three = small(1), small(3)
    buffers = [sum(1 for name, _ in d.named_buffers() if name.endswith("running_mean")) for d in (one, three)]
    assert buffers[1] - buffers[0] == 2 * 3, "three BatchNorms have statistics for each iteration"
    torch.testing.assert_close(three.train()(torch.ones(2, 6, 9, 7))[1], one.train()(torch.ones(2, 6, 9, 7))[1])


def test_an_iteration_reads_features_and_the_state_before():
    decoder = small(2).double().eval()
    nn.init.normal_(decoder.recurrent_head.weight)
    x = torch.randn(2, 6, 8, 8).double()
    stages = [s["heatmaps"] for s in decoder(x)]
    state = decoder.forward_module(x)
    torch.testing.assert_close(stages[0], decoder.forward_head(state))
    for maps in stages[1:]:  # without training, all iterations have the same statistics
        state = decoder.recurrent_module(torch.cat([x, state], 1), 0)
        torch.testing.assert_close(maps, decoder.recurrent_head(state))
    assert not torch.allclose(stages[1], stages[2])


def test_gradients_of_an_iteration_reach_the_one_module_from_all():
    """The gradient of a sum over iterations is the sum of the iterations' gradients: the weights are the same tensors."""
    decoder, x = small(3).double(), torch.randn(2, 6, 8, 8).double()
    weight = decoder.recurrent_module.convolutions[0].weight
    losses = [s["heatmaps"].square().sum() for s in decoder(x)]
    parts = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses[1:]]
    torch.testing.assert_close(torch.autograd.grad(sum(losses), weight)[0], sum(parts))
    assert all(p.abs().sum() > 0 for p in parts)


def test_each_iteration_has_its_own_statistics():
    """In eval mode, each stage gives what it gave in training, once the statistics are those of the batch."""
    decoder, x = small(2).double(), torch.randn(4, 6, 16, 16).double()
    for norm in decoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # the plain mean over batches: here of one
    trained = [s["heatmaps"] for s in decoder.train()(x)]
    scored = [s["heatmaps"] for s in decoder.eval()(x)]
    for a, b in zip(trained, scored, strict=True):
        assert (a - b).abs().max() < 0.01 * a.abs().max()
    means = [s.running_mean for s in decoder.recurrent_module.norms[0].statistics]
    assert not torch.allclose(*means)


def test_trunk_keeps_the_contract():
    assert RecurrentTrunk(4).spec == FeatureSpec(8, 4)
    check_backbone(RecurrentTrunk(4), (40, 24))


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_decoder_keeps_the_contract(iterations):
    check_decoder(RecurrentDecoder(iterations, 8, 3, 3, 5), HeatmapCodec(4), FeatureSpec(6, 4), size=(72, 40))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RecurrentTrunk(0), "RecurrentTrunk: channels 0 must be at least 1"),
        (lambda: RecurrentDecoder(-1), "iterations -1 must not be below 0"),
        (lambda: RecurrentDecoder(channels=6), "channels 6 a multiple of 4"),
        (lambda: RecurrentDecoder(reach=12), "reach 12 must be odd"),
        (lambda: RecurrentDecoder(entry=0), "entry 0 must be at least 1"),
    ],
)
def test_wrong_settings_are_told(make, told):
    with pytest.raises(BiposeError, match=told):
        make()
