"""OpenPose's decoder and the front of VGG-19: the authors' layers, by their numbers and their order."""

import pytest
import torch
from torch import nn

from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.models.backbones.vgg import VGG19Front
from bipose_lit.models.decoders.openpose import OpenPoseDecoder
from bipose_lit.testing import check_backbone, check_decoder
from bipose_lit.types import BiposeError, FeatureSpec

SPEC = FeatureSpec(12, 8)
SMALL = {"fields": 2, "heatmaps": 2, "reduced": [6], "blocks": 2, "width": [4, 5], "hidden": [6, 7]}


def built(spec=SPEC, joints=17, **options) -> OpenPoseDecoder:
    decoder = OpenPoseDecoder(**options)
    torch.manual_seed(0)
    decoder.build(spec, joints, (96, 96))
    return decoder


def test_contract():
    check_decoder(OpenPoseDecoder(**SMALL), SceneCodec(), SPEC, 17, (96, 72))
    check_decoder(
        OpenPoseDecoder(20, **{**SMALL, "heatmaps": 1}), SceneCodec(skeleton="jhmdb", limbs=_jhmdb()), SPEC, 15
    )


def _jhmdb() -> list[list[str]]:
    from bipose_lit.skeletons import JHMDB

    more = [["face", f"{side}_shoulder"] for side in ("left", "right")]
    return [list(p) for p in JHMDB.limbs] + more + [["neck", f"{side}_hip"] for side in ("left", "right")] + [
        ["left_hip", "right_hip"], ["left_shoulder", "right_shoulder"]
    ]  # fmt: skip


def test_fields_come_first_and_the_last_stage_holds_both():
    stages = built(fields=3, heatmaps=2, **{k: v for k, v in SMALL.items() if k not in ("fields", "heatmaps")})(
        torch.randn(2, 12, 6, 9)
    )
    assert [sorted(s) for s in stages] == [["pafs"], ["pafs"], ["heatmaps"], ["heatmaps", "pafs"]]
    assert stages[-1]["pafs"].shape == (2, 42, 6, 9)
    assert stages[-1]["heatmaps"].shape == (2, 17, 6, 9)


def test_what_each_stage_reads():
    """Fields: features and the fields before. Heat maps: features, the LAST fields, and the heat maps before."""
    decoder = built(**SMALL)
    read = {name: [] for name in ("fields", "heatmaps")}
    for name, found in read.items():
        for stage in getattr(decoder, name):
            stage.register_forward_pre_hook(lambda m, args, found=found: found.append(args[0]))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.normal_(0, 0.3)
        stages = decoder.eval()(torch.randn(1, 12, 5, 5))
    features = read["fields"][0]
    assert features.shape[1] == 6
    for inputs, rest in (
        (read["fields"][1], [stages[0]["pafs"]]),
        (read["heatmaps"][0], [stages[-1]["pafs"]]),
        (read["heatmaps"][1], [stages[-1]["pafs"], stages[1]["heatmaps"]]),
    ):
        torch.testing.assert_close(inputs, torch.cat([features, *rest], dim=1))


def test_a_block_keeps_all_three_of_its_scales():
    """The three parts of its output see 3, 5 and 7 pixels."""
    block = built(**SMALL).fields[0][0]
    x = torch.zeros(1, 6, 15, 15, requires_grad=True)
    out = block(x)
    assert out.shape[1] == 3 * 4
    for part in range(3):
        (gradient,) = torch.autograd.grad(out[0, 4 * part : 4 * part + 4, 7, 7].sum(), x, retain_graph=True)
        seen = gradient[0].abs().sum(0) > 0
        assert seen.sum() == (3 + 2 * part) ** 2


def test_the_defaults_are_the_authors_network():
    """Layers of BODY_25's pose_deploy.prototxt, with 26 fields and 25 joints and a background in the place of ours."""
    decoder = built(FeatureSpec(512, 8), joints=26, limbs=26)
    first = [
        (c.in_channels, c.out_channels, c.kernel_size[0])
        for c in decoder.fields[0].modules()
        if isinstance(c, nn.Conv2d)
    ]
    start = [(128, 96, 3), (96, 96, 3), (96, 96, 3)]
    assert first == [*start, *4 * [(288, 96, 3), (96, 96, 3), (96, 96, 3)], (288, 256, 1), (256, 52, 1)]
    later = [(c.in_channels, c.out_channels) for c in decoder.fields[3].modules() if isinstance(c, nn.Conv2d)]
    assert later[0] == (128 + 52, 128)
    assert later[-2:] == [(384, 512), (512, 52)]
    heat = [next(c for c in s.modules() if isinstance(c, nn.Conv2d)).in_channels for s in decoder.heatmaps]
    assert heat == [128 + 52, 128 + 52 + 26]
    assert [(c.in_channels, c.out_channels) for c in decoder.reduction if isinstance(c, nn.Conv2d)] == [
        (512, 256),
        (256, 128),
    ]
    assert sum(isinstance(m, nn.PReLU) for m in decoder.modules()) == 2 + 6 * 16
    assert (len(decoder.fields), len(decoder.heatmaps), decoder.stride) == (4, 2, 8)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"limbs": 0}, "at least 1"),
        ({"heatmaps": 0}, "at least 1"),
        ({"reduced": [0]}, "at least 1"),
        ({"width": [8]}, "two numbers each"),
        ({"hidden": [8, 8, 8]}, "two numbers each"),
    ],
)
def test_settings_that_are_none(options, told):
    with pytest.raises(BiposeError, match=told):
        OpenPoseDecoder(**options)


def test_the_front_of_vgg_has_ten_convolutions():
    backbone = VGG19Front()
    check_backbone(backbone, (24, 16))
    convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [64, 64, 128, 128, 256, 256, 256, 256, 512, 512]
    assert isinstance(list(backbone.net)[-1], nn.ReLU)
    assert sum(p.numel() for p in backbone.parameters()) == 5_865_536
    assert not any(p.requires_grad for p in VGG19Front(frozen=True).parameters())


def test_the_front_of_vgg_reads_the_whole_network_s_weights(tmp_path):
    import timm
    from safetensors.torch import save_file

    whole = timm.create_model("vgg19", num_classes=0, mlp_ratio=1 / 4096, features_only=True, out_indices=(3,))
    save_file(
        {k.replace("features_", "features."): v for k, v in whole.state_dict().items()}, tmp_path / "vgg.safetensors"
    )
    backbone = VGG19Front(weights=str(tmp_path / "vgg.safetensors"))
    backbone.initialise()
    assert torch.equal(backbone.net[21].weight, whole.state_dict()["features_21.weight"])
    x = torch.randn(1, 3, 32, 32)
    expected = x
    for _, module in list(whole.eval().named_children())[:23]:
        expected = module(expected)
    torch.testing.assert_close(backbone.eval()(x), expected)
