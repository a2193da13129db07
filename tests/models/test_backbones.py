"""TimmBackbone: layouts, cut layers, weights and their errors."""

import socket
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import NarrowResNet, TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.network import PoseNetwork
from bipose_lit.testing import check_backbone
from bipose_lit.types import BiposeError, FeatureSpec

SWIN = {"img_size": [64, 64], "embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]}
HRNET = {"feature_location": ""}


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        ({"name": "resnet18", "kwargs": {"channels": [32, 64, 128, 256]}}, (256, 32)),
        ({"name": "test_resnet"}, (96, 32)),
        ({"name": "test_resnet", "out_index": 2}, (48, 8)),
        ({"name": "test_resnet", "frozen": True}, (96, 32)),
        ({"name": "test_vit", "kwargs": {"img_size": [64, 64]}}, (64, 16)),
        ({"name": "test_convnext"}, (64, 32)),
        ({"name": "mobilenetv3_small_100"}, (576, 32)),
        ({"name": "mobilenetv3_small_100", "out_index": 2}, (24, 8)),
        ({"name": "hrnet_w18_small", "out_index": 1, "kwargs": HRNET}, (16, 4)),
        ({"name": "hrnet_w18_small", "out_index": 2}, (256, 8)),
        ({"name": "hrnet_w18_small"}, (1024, 32)),
        ({"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN}, (192, 32)),
    ],
)
def test_contract(arguments, spec):
    backbone = TimmBackbone(**arguments)
    assert backbone.spec == FeatureSpec(*spec)
    check_backbone(backbone)
    assert all(p.requires_grad for p in backbone.parameters()) is not backbone.frozen


@pytest.mark.parametrize(
    ("name", "index", "kwargs"),
    [
        ("swin_tiny_patch4_window7_224", 1, SWIN),
        ("hrnet_w18_small", 1, HRNET),
        ("hrnet_w18_small", 3, {}),
        ("mobilenetv3_small_100", 2, {}),
    ],
)
def test_cut_model_computes_what_the_whole_one_does(name, index, kwargs):
    """Oracle: timm's own list of all feature maps, with the same weights."""
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
    whole = timm.create_model(name, pretrained=False, features_only=True, **plain).eval()
    backbone = TimmBackbone(name, out_index=index, kwargs=kwargs).eval()
    own = backbone.net.state_dict()
    tensors = whole.state_dict()
    assert set(own) < set(tensors)
    backbone.net.load_state_dict({k: tensors[k] for k in own})
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = whole(x)[index]
        if name.startswith("swin"):
            wanted = wanted.permute(0, 3, 1, 2)
        torch.testing.assert_close(backbone(x), wanted)


def test_frozen_keeps_its_statistics_and_gets_no_gradient():
    backbone = TimmBackbone("test_resnet", frozen=True)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone.train()
    out = backbone(torch.randn(2, 3, 64, 64))
    assert not out.requires_grad
    assert not any(m.training for m in backbone.modules())
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"name": "resnet81"}, "did you mean resnet"),
        ({"name": "test_resnet", "out_index": 9}, "no feature map 9"),
        ({"name": "test_resnet", "kwargs": {"widht": 3}}, "timm refuses"),
        ({"name": "test_resnet", "kwargs": {"out_indices": [1]}}, "use out_index"),
        ({"name": "test_resnet", "pretrained": True, "weights": "x.safetensors"}, "not both"),
        ({"name": "hrnet_w18_small", "out_index": 0}, "stem alone"),
    ],
)
def test_configurations_that_cannot_be(arguments, told):
    with pytest.raises(BiposeError, match=told):
        TimmBackbone(**arguments)


def test_pretrained_without_a_hub_names_both_ways_out(monkeypatch):
    backbone = TimmBackbone("test_resnet", pretrained=True)  # makes no connection

    def unreachable(*args, **kwargs):
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(BiposeError, match="pretrained: false, or weights: FILE") as error:
        backbone.initialise()
    assert "no route to the hub" in str(error.value)


@pytest.mark.parametrize(
    ("name", "kwargs"), [("test_resnet", {}), ("test_convnext", {}), ("test_vit", {"img_size": 160})]
)
def test_weights_of_the_whole_model_fit(tmp_path, name, kwargs):
    source = timm.create_model(name, pretrained=False)
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, str(path))
    backbone = TimmBackbone(name, weights=str(path), kwargs=kwargs).eval()
    backbone.initialise()
    x = torch.randn(1, 3, 160, 160)
    wanted = source.eval().forward_intermediates(x, intermediates_only=True)[-1]
    torch.testing.assert_close(backbone(x), wanted, rtol=1e-4, atol=1e-5)


def test_weights_that_do_not_fit(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(BiposeError, match="not found"):
        TimmBackbone("test_resnet", weights=str(path)).initialise()
    path.write_bytes(b"damaged")
    with pytest.raises(BiposeError, match="cannot be read"):
        TimmBackbone("test_resnet", weights=str(path)).initialise()
    save_file({"conv1.weight": torch.zeros(1)}, str(path))
    with pytest.raises(BiposeError, match="lack or misshape"):
        TimmBackbone("test_resnet", weights=str(path)).initialise()


def test_an_unreachable_hub_is_told_at_once(monkeypatch, tmp_path):
    def unknown(*args, **kwargs):
        raise socket.gaierror("name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    before, start = constants.HF_HUB_OFFLINE, time.monotonic()
    with pytest.raises(BiposeError, match="pretrained: false, or weights: FILE"):
        TimmBackbone("test_resnet", pretrained=True).initialise()
    assert time.monotonic() - start < 5
    assert before == constants.HF_HUB_OFFLINE


def test_narrow_resnet():
    backbone = NarrowResNet(depth=18, channels=[8, 16, 24, 32])
    assert backbone.spec == FeatureSpec(32, 32)
    check_backbone(backbone)
    assert set(backbone.config()["init_args"]) == {"depth", "channels", "frozen"}
    own = {k: v.shape for k, v in TimmBackbone("resnet18", kwargs={"channels": [8, 16, 24, 32]}).state_dict().items()}
    assert {k: v.shape for k, v in backbone.state_dict().items()} == own


@pytest.mark.parametrize(
    ("options", "told"), [({"depth": 19}, "no model 'resnet19'"), ({"channels": [8, 8]}, "four numbers")]
)
def test_narrow_resnet_refuses(options, told):
    with pytest.raises(BiposeError, match=told):
        NarrowResNet(**options)


VIT = {"img_size": [64, 32], "embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("backbone", "fixed"),
    [
        (lambda: TimmBackbone("vit_base_patch16_224", kwargs=VIT), (32, 64)),
        (lambda: TimmBackbone("vit_base_patch16_224", kwargs={**VIT, "img_size": 64}), (64, 64)),
        (lambda: TimmBackbone("vit_base_patch16_224", kwargs={**VIT, "dynamic_img_size": True}), None),
        (lambda: TimmBackbone("swin_tiny_patch4_window7_224", kwargs=SWIN), (64, 64)),
        (lambda: TimmBackbone("swin_tiny_patch4_window7_224", kwargs={**SWIN, "strict_img_size": False}), None),
        (lambda: PlainViT(24, 1, 2, (32, 64)), (32, 64)),
        (lambda: TimmBackbone("test_resnet"), None),
        (lambda: TimmBackbone("test_convnext"), None),
    ],
)
def test_a_network_has_the_crops_that_its_backbone_takes(backbone, fixed):
    """Exactly those sizes are refused in which the backbone's own forward pass fails."""
    backbone = backbone().eval()
    assert backbone.fixed_size == fixed
    for width, height in ((32, 64), (64, 64), (64, 32)):
        images = torch.zeros(1, 3, height, width)
        if fixed in (None, (width, height)):
            network = PoseNetwork(backbone, DeconvDecoder(8, 1), joints=3, size=(width, height))
            assert network.backbone(images).shape[-2:] == (
                height // backbone.spec.stride,
                width // backbone.spec.stride,
            )
            continue
        with pytest.raises(BiposeError) as error:
            PoseNetwork(backbone, DeconvDecoder(8, 1), joints=3, size=(width, height))
        assert f"crops of {width}x{height}, but backbone" in str(error.value)
        assert f"is made for {fixed[0]}x{fixed[1]} alone" in str(error.value)
        with pytest.raises(AssertionError):
            backbone(images)
