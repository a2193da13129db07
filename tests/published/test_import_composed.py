"""What `bipose import-weights` prints and writes is a configuration: it composes, builds, and starts from the weights."""

import re
from pathlib import Path

import naming
import pytest
import timm
import torch
import torchvision
import yaml
from naming import named
from safetensors.torch import load_file

from bipose_lit.cli import resolve
from bipose_lit.codecs.simcc import SimCCCodec
from bipose_lit.losses import SimCCLoss
from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.simcc import SimCCDecoder
from bipose_lit.models.network import PoseNetwork
from bipose_lit.published.command import import_weights
from bipose_lit.types import BiposeError

ROOT = Path(__file__).parents[2]
WIDE = (192, 256)


def resnet(joints=17, bgr=False, channels=(8, 8, 8)):
    return naming.network(TimmBackbone("resnet18", bgr=bgr), DeconvDecoder(list(channels)), joints=joints)


def simcc(size, joints, deconv=None):
    return PoseNetwork(TimmBackbone("resnet18"), SimCCDecoder(deconv=deconv), joints=joints, size=size)


def vit(size):
    backbone = PlainViT(width=384, depth=1, heads=12, size=size)
    return PoseNetwork(backbone, DeconvDecoder([8, 8]), joints=17, size=size)


def hrnet():
    backbone = TimmBackbone("hrnet_w18", out_index=1, kwargs={"feature_location": ""})
    return naming.network(backbone, DeconvDecoder([], 0), joints=17)


def newell(joints):
    net = naming.hourglass(joints, mean=[0.0] * 3, std=[1.0] * 3)
    return net, naming.newell(net.state_dict())


def bearpaw(joints):
    net = naming.hourglass(joints, middle=16, mean=[0.44044283, 0.44402671, 0.43268284], std=[1.0] * 3)
    return net, naming.bearpaw(net.state_dict())


def pair(net, names):
    return net, named(net, names)


KINDS = {
    "simplebaseline": ("simplebaseline", lambda: pair(resnet(bgr=True), naming.SIMPLEBASELINE), (192, 256)),
    "simplebaseline_mpii": ("simplebaseline", lambda: pair(resnet(16, True), naming.SIMPLEBASELINE), (256, 256)),
    "simplebaseline_jhmdb": ("simplebaseline", lambda: pair(resnet(15, True), naming.SIMPLEBASELINE), (128, 128)),
    "simplebaseline_odd": (
        "simplebaseline",
        lambda: pair(resnet(5, True, (8, 8)), naming.SIMPLEBASELINE),
        (128, 128),
    ),
    "hrnet": ("hrnet", lambda: pair(hrnet(), naming.SIMPLEBASELINE), (192, 256)),
    "mmpose_resnet": ("mmpose", lambda: pair(resnet(), naming.MMPOSE), (192, 256)),
    "mmpose_hrnet": ("mmpose", lambda: pair(hrnet(), naming.MMPOSE), (192, 256)),
    "vitpose": ("mmpose", lambda: pair(vit((192, 256)), naming.VITPOSE), (192, 256)),
    "vitpose_wide": ("mmpose", lambda: pair(vit((288, 384)), naming.VITPOSE), (288, 384)),
    "simcc": ("mmpose", lambda: pair(simcc((192, 256), 17, [8, 8, 8]), naming.SIMCC), (192, 256)),
    "simcc_wide": ("mmpose", lambda: pair(simcc((288, 384), 17, [8, 8, 8]), naming.SIMCC), (288, 384)),
    "simcc_mpii": ("mmpose", lambda: pair(simcc((256, 256), 16), naming.SIMCC), (256, 256)),
    "newell": ("hourglass", lambda: newell(16), (256, 256)),
    "newell_odd": ("hourglass", lambda: newell(5), (256, 256)),
    "bearpaw": ("hourglass", lambda: bearpaw(16), (256, 256)),
}
"""Word for --from, a network and its checkpoint, and the size of the crops that the printed files must have."""
BARE = {
    "torchvision_resnet": ("torchvision", torchvision.models.resnet18, (128, 128)),
    "torchvision_vit": ("torchvision", lambda: torchvision.models.VisionTransformer(224, 16, 12, 6, 384, 1536), (224, 224)),
    "timm_resnet": ("timm", lambda: timm.create_model("resnet18"), (128, 128)),
    "timm_hrnet": ("timm", lambda: timm.create_model("hrnet_w18"), (128, 128)),
}  # fmt: skip


def printed(lines):
    """The files of the last line."""
    return [ROOT / file for file in re.findall(r"-c ([^ ,]+)", lines[-1])]


@pytest.mark.parametrize("kind", KINDS)
def test_the_printed_files_make_the_network(save, tmp_path, make_module, kind):
    source, make, size = KINDS[kind]
    net, state = make()
    lines = import_weights(save(state), source, tmp_path / "ours.safetensors")
    files = printed(lines)
    if net.joints == 5:
        assert "where DATA names data of 5 joints" in lines[-1]
        files[1] = tmp_path / "data.yaml"
        files[1].write_text("model: {codec: {init_args: {skeleton: null}}}\n")
    module = make_module(files)
    assert naming.same(module.network, net)
    assert module.size == size


@pytest.mark.parametrize("kind", BARE)
def test_the_printed_files_make_a_network_about_a_bare_backbone(save, tmp_path, make_module, kind):
    source, make, size = BARE[kind]
    lines = import_weights(save(make().state_dict()), source, tmp_path / "ours.safetensors")
    module = make_module(printed(lines))
    own = {f"backbone.{k}": v for k, v in module.network.backbone.state_dict().items()}
    written = load_file(tmp_path / "ours.safetensors")
    assert own.keys() == written.keys()
    assert all(torch.equal(own[k], written[k]) for k in own)
    assert module.size == size


def test_simcc_has_its_codec_and_loss(save, tmp_path, make_module):
    """Over data whose codec is of maps; the data's skeleton stays, and the codec's numbers are mmpose's."""
    lines = import_weights(save(named(simcc(WIDE, 17), naming.SIMCC)), "mmpose", tmp_path / "ours.safetensors")
    module, config = make_module(printed(lines)), resolve(printed(lines))
    assert isinstance(module.codec, SimCCCodec)
    assert isinstance(module.loss, SimCCLoss)
    assert config["model"]["codec"]["init_args"] == {"ratio": 2.0, "sigma": 6.0, "skeleton": "coco"}


def test_files_that_were_given_are_those_that_are_printed(save, tmp_path, make_module):
    net = resnet(bgr=True)
    given = tmp_path / "given.yaml"
    model = {"backbone": net.backbone.config(), "decoder": net.decoder.config()}
    given.write_text(yaml.safe_dump({"model": model}))
    files = [ROOT / "experiments/base.yaml", ROOT / "experiments/data/coco.yaml", given]
    path = save(named(net, naming.SIMPLEBASELINE))
    out = tmp_path / "ours.safetensors"
    lines = import_weights(path, "simplebaseline", out, resolve(files), files)
    assert printed(lines) == [*files, out.with_suffix(".yaml")]
    assert naming.same(make_module(printed(lines)).network, net)


@pytest.mark.parametrize("law", ["udp", "dark"])
def test_mmpose_does_not_tell_by_which_law_maps_were_drawn(save, tmp_path, make_module, law):
    """The overlay of another law goes after the file's own, as is said."""
    lines = import_weights(save(named(resnet(), naming.MMPOSE)), "mmpose", tmp_path / "ours.safetensors")
    said = next(line for line in lines if "codec: MSRA's is assumed" in line)
    assert "-c experiments/codec/udp.yaml (dark.yaml) after it" in said
    overlay = ROOT / f"experiments/codec/{law}.yaml"
    files = [*printed(lines), overlay]
    make_module(files)
    wanted = yaml.safe_load(overlay.read_text())["model"]["codec"]["init_args"]
    assert resolve(files)["model"]["codec"]["init_args"].items() >= wanted.items()


@pytest.mark.parametrize(
    ("source", "make", "names"),
    [("simplebaseline", lambda: resnet(bgr=True), naming.SIMPLEBASELINE), ("mmpose", lambda: simcc(WIDE, 17), naming.SIMCC),
     ("mmpose", lambda: vit(WIDE), naming.VITPOSE)],
)  # fmt: skip
def test_the_law_is_in_question_only_where_a_code_has_several(save, tmp_path, source, make, names):
    lines = import_weights(save(named(make(), names)), source, tmp_path / "ours.safetensors")
    assert not [line for line in lines if "assumed" in line]


def test_a_timm_vit_is_not_guessed(save, tmp_path):
    """Of one shape, some of timm's saw pictures normalised by ImageNet's mean, and some by 0.5."""
    path = save(timm.create_model("deit_tiny_patch16_224", depth=1, embed_dim=384, num_heads=6).state_dict())
    out = tmp_path / "ours.safetensors"
    with pytest.raises(BiposeError, match="no tensor tells how its pictures were normalised; name the model with -c"):
        import_weights(path, "timm", out)
    assert not out.exists()
