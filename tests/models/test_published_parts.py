"""Parts as the published networks have them: ViTPose's ViT, BGR pictures, SimCC after doublings."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.simcc import SimCCDecoder
from bipose_lit.models.network import PoseNetwork
from bipose_lit.store import config_hash
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec


def test_plain_vit_is_what_its_text_says():
    """Oracle: its own layers one after another, as in the text."""
    torch.manual_seed(0)
    backbone = PlainViT(width=24, depth=2, heads=3, size=[48, 64])
    assert backbone.spec == FeatureSpec(24, 16)
    check_backbone(backbone, (48, 64))
    backbone.eval()
    vit = backbone.net.model
    nn.init.normal_(vit.pos_embed)
    x = torch.randn(2, 3, 64, 48)
    framed = functional.pad(x, (2, 2, 2, 2))[..., :64, :48]
    patches = functional.conv2d(framed, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=16)
    tokens = patches.flatten(2).transpose(1, 2) + vit.pos_embed
    for block in vit.blocks:
        normal = functional.layer_norm(tokens, (24,), block.norm1.weight, block.norm1.bias, 1e-6)
        q, k, v = block.attn.qkv(normal).view(2, 12, 3, 3, 8).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-1, -2)) * 8**-0.5).softmax(-1) @ v
        tokens = tokens + block.attn.proj(mixed.transpose(1, 2).flatten(2))
        normal = functional.layer_norm(tokens, (24,), block.norm2.weight, block.norm2.bias, 1e-6)
        tokens = tokens + block.mlp.fc2(functional.gelu(block.mlp.fc1(normal)))
    wanted = functional.layer_norm(tokens, (24,), eps=1e-6).transpose(1, 2).view(2, 24, 4, 3)
    torch.testing.assert_close(backbone(x), wanted, rtol=1e-4, atol=1e-5)


def test_plain_vit_sees_imagenets_colours_and_freezes():
    backbone = PlainViT(width=24, depth=1, heads=2, size=(64, 64), frozen=True)
    assert (backbone.mean, backbone.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"width": 50}, "multiple of heads"),
        ({"size": [190, 256]}, "multiples of 16"),
        ({"size": [192]}, "a width and a height"),
    ],
)
def test_plain_vit_refuses(options, told):
    with pytest.raises(BiposeError, match=told):
        PlainViT(**options)


def test_bgr_networks_see_what_opencv_reads():
    """Oracle: the plain network on pictures whose channels were turned round before the usual normalisation."""
    torch.manual_seed(0)
    plain = PoseNetwork(TimmBackbone("test_resnet"), DeconvDecoder(8, 1), joints=3, size=(64, 64)).eval()
    turned = PoseNetwork(TimmBackbone("test_resnet", bgr=True), DeconvDecoder(8, 1), joints=3, size=(64, 64)).eval()
    turned.load_state_dict(plain.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(turned.extract(images), plain.extract(images.flip(1)), rtol=1e-5, atol=1e-6)
        assert not torch.allclose(turned.extract(images), plain.extract(images), atol=1e-3)


def test_whole_names_hold_the_classifier_and_all_of_the_backbone():
    backbone = TimmBackbone("hrnet_w18_small", out_index=1, kwargs={"feature_location": ""})
    names = backbone.whole_names()
    assert {"classifier.weight", "incre_modules.0.0.conv1.weight", "stage4.0.fuse_layers.3.0.0.0.weight"} <= names
    assert {k.removeprefix("net.") for k in backbone.state_dict()} < names
    assert "head.weight" in TimmBackbone("vit_base_patch16_224.mae", kwargs={"depth": 1}).whole_names()


@pytest.mark.parametrize("deconv", [None, [12], [12, 8, 6]])
def test_simcc_after_doublings(deconv):
    check_decoder(SimCCDecoder(2.0, deconv), SimCCCodec(2.0, 6.0), FeatureSpec(16, 32), size=(64, 96))
    decoder = SimCCDecoder(2.0, deconv)
    decoder.build(FeatureSpec(16, 32), 5, (64, 96))
    scale = 2 ** len(deconv or [])
    assert decoder.x.weight.shape == (128, 2 * 3 * scale**2)
    assert decoder.y.weight.shape == (192, 2 * 3 * scale**2)
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in decoder.modules()) == len(deconv or [])


@pytest.mark.parametrize(("deconv", "told"), [([0], "channels"), ([8] * 6, "pass the crop's own resolution")])
def test_simcc_refuses(deconv, told):
    with pytest.raises(BiposeError, match=told):
        SimCCDecoder(2.0, deconv).build(FeatureSpec(16, 32), 5, (64, 96))


def test_new_options_leave_old_results_valid():
    def hashed(backbone, decoder):
        return config_hash({"model": {"backbone": {"init_args": backbone}, "decoder": {"init_args": decoder}}})

    old = hashed({"name": "resnet50"}, {"ratio": 2.0})
    assert hashed({"name": "resnet50", "bgr": False}, {"ratio": 2.0, "deconv": None}) == old
    assert hashed({"name": "resnet50", "bgr": True}, {"ratio": 2.0}) != old
    assert hashed({"name": "resnet50"}, {"ratio": 2.0, "deconv": [256]}) != old
    assert hashed({"name": "resnet50", "mean": None, "std": None}, {"ratio": 2.0}) == old
    assert hashed({"name": "resnet50", "std": [1, 1, 1]}, {"ratio": 2.0}) != old
    views = [config_hash({"data": {"augmentation": {"scale": 0.3, **more}}}) for more in ({}, {"normal": False})]
    assert views[0] == views[1] != config_hash({"data": {"augmentation": {"scale": 0.3, "normal": True}}})
