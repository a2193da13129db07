"""The flip test of `PoseModule`, with every codec: what is found in the mirrored picture is the mirror image of what is found."""

import pytest
import torch
from plain_parts import PlainBackbone, PlainDecoder

from bipose_lit import skeletons
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.losses import HeatmapMSE, SimCCLoss, SmoothL1
from bipose_lit.losses.rle import RLE
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.decoders.simcc import SimCCDecoder
from bipose_lit.models.flops import blank_batch
from bipose_lit.module import PoseModule

WIDTH = 64
MSRA = {"refine": "quarter", "grid": "msra", "quantised": True, "patch": 3.0}


def heatmaps(**options):
    return PlainDecoder(), HeatmapCodec(4, 1.0, skeleton="jhmdb", **options), HeatmapMSE()


EXACT = {
    "pixel": heatmaps,
    "udp": lambda: heatmaps(grid="udp", patch=3.0),
    "simcc": lambda: (SimCCDecoder(), SimCCCodec(skeleton="jhmdb"), SimCCLoss()),
    "regression": lambda: (RegressionDecoder(), RegressionCodec("jhmdb"), SmoothL1()),
    "rle": lambda: (RegressionDecoder(sigma=True), RegressionCodec("jhmdb"), RLE(layers=1, hidden=2)),
}


def both_views(parts):
    """Predictions of a clip of noise and of its mirror image, by a network with random weights."""
    torch.manual_seed(0)
    decoder, codec, loss = parts
    module = PoseModule(PlainBackbone(), decoder, codec, loss, joints=15, size=(WIDTH, 48), flip_test=True).eval()
    for parameter in module.network.parameters():
        parameter.data.normal_(std=0.3)
    batch = blank_batch(2, 3, (WIDTH, 48), 15)
    batch.images = torch.randint(0, 256, batch.images.shape, dtype=torch.uint8)
    straight, mirrored = module.predict_step(batch), module.predict_step(batch.flipped())
    order = list(skeletons.JHMDB.flip)
    module.flip_test = False
    alone = module.predict_step(batch)
    assert not torch.equal(alone["joints"], straight["joints"])
    return straight["joints"], straight["score"], mirrored["joints"][:, :, order], mirrored["score"][:, :, order]


@pytest.mark.parametrize("kind", EXACT)
def test_predictions_of_the_mirrored_clip_are_mirror_images(kind):
    joints, score, mirrored, mirrored_score = both_views(EXACT[kind]())
    torch.testing.assert_close(joints[..., 0] + mirrored[..., 0], torch.full_like(score, WIDTH - 1), rtol=0, atol=1e-3)
    torch.testing.assert_close(joints[..., 1], mirrored[..., 1], rtol=0, atol=1e-3)
    torch.testing.assert_close(score, mirrored_score, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("shift", "total"), [(True, WIDTH), (False, WIDTH - 4)])
def test_the_reference_s_grid_mirrors_about_another_axis(shift, total):
    """Map pixel u is crop pixel 4 u, and mirrored w - 1 - u, or w - u with the shift: with its image it makes 4 w - 4, or 4 w."""
    joints, _, mirrored, _ = both_views(heatmaps(shift_flipped=shift, **MSRA))
    # The shift moves a column out of the map, and the peak may have been there.
    inner = torch.stack([(x > 4) & (x < WIDTH - 8) for x in (joints[..., 0], mirrored[..., 0])]).all(0)
    assert inner.float().mean() > 0.5
    sums = (joints[..., 0] + mirrored[..., 0])[inner]
    torch.testing.assert_close(sums, torch.full_like(sums, total), rtol=0, atol=1e-3)
    torch.testing.assert_close(joints[..., 1][inner], mirrored[..., 1][inner], rtol=0, atol=1e-3)
