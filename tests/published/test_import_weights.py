"""`bipose import-weights`: what published codes write comes back as our parts, tensor by tensor, or is refused with a list."""

import hashlib
import json
from pathlib import Path

import naming
import pytest
import timm
import torch
import torchvision
import yaml
from naming import configuration, made, named, same
from safetensors.torch import load_file, save_file

from bipose_lit.__main__ import main
from bipose_lit.cli import resolve
from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.rebuild import instantiate
from bipose_lit.published.arguments import SOURCES as WORDS
from bipose_lit.published.command import import_weights
from bipose_lit.published.networks import MSRA, UDP
from bipose_lit.published.sources import SOURCES, grid_of
from bipose_lit.types import BiposeError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BASE = EXPERIMENTS / "base.yaml"
WRAPPERS = {
    "bare": dict,
    "state_dict": lambda state: {"epoch": 3, "model": "pose", "state_dict": state},
    "model": lambda state: {"model": state},
    "module": lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "perf": 0.7},
    "twice": lambda state: {f"module.module.{k}": v for k, v in state.items()},
}


@pytest.fixture(scope="module")
def baseline():
    return naming.simplebaseline()


def test_every_source_has_words():
    assert list(WORDS) == list(SOURCES)


@pytest.mark.parametrize(("wrapper", "zipped"), [*((w, True) for w in WRAPPERS), ("module", False)])
def test_simplebaseline(save, baseline, wrapper, zipped):
    path = save(WRAPPERS[wrapper](named(baseline, naming.SIMPLEBASELINE)), "pose_resnet.pth.tar", zipped)
    lines = import_weights(path, "simplebaseline")
    out = path.with_name("pose_resnet.safetensors")
    again = made(out)
    assert same(again, baseline)
    assert again.backbone.bgr, "that code trains on OpenCV's pictures as they come"
    assert lines[0].endswith("ResNet-18, 2 transposed convolutions, 5 joints")
    assert str(out.with_suffix(".yaml")) in lines[-1]


def test_equal_weights_give_equal_tensors(save, baseline, tmp_path):
    """Whatever the order of names, the wrapper and the format of the file."""
    state = named(baseline, naming.SIMPLEBASELINE)
    turned = {f"module.{k}": state[k] for k in reversed(state)}
    written = []
    for number, (content, zipped) in enumerate(((state, True), ({"state_dict": turned}, False))):
        path = save(content, f"{number}.pth", zipped)
        import_weights(path, "simplebaseline", tmp_path / f"{number}.safetensors")
        written.append(load_file(tmp_path / f"{number}.safetensors"))
    assert written[0].keys() == written[1].keys()
    assert all(torch.equal(written[0][k], written[1][k]) for k in written[0])


@pytest.mark.parametrize(
    ("make", "names", "source"),
    [
        (naming.hrnet, naming.SIMPLEBASELINE, "hrnet"),
        (naming.hrnet, naming.MMPOSE, "mmpose"),
        (naming.simcc, naming.SIMCC, "mmpose"),
        (naming.vit, naming.VITPOSE, "mmpose"),
        (naming.vit, naming.MMPRETRAIN, "mmpose"),
    ],
)
def test_configured_networks(save, make, names, source, tmp_path):
    net = make()
    out = tmp_path / "ours.safetensors"
    import_weights(save({"state_dict": named(net, names), "meta": {}}), source, out, configuration(net))
    assert same(made(out), net)


def test_mmpose_resnet_is_told_from_its_tensors(save, tmp_path):
    net = naming.simplebaseline(bgr=False)
    state = named(net, naming.MMPOSE)
    state = {k.replace("head.", "keypoint_head."): v for k, v in state.items()}  # as 0.x has it
    state |= {"data_preprocessor.mean": torch.zeros(3, 1, 1), "ema_backbone_conv1_weight": torch.zeros(1)}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save({"meta": {"epoch": 210}, "state_dict": state}), "mmpose", out)
    assert same(made(out), net)
    assert not made(out).backbone.bgr
    assert "data_preprocessor.mean" in next(line for line in lines if "dropped" in line)
    about = json.loads(out.with_suffix(".json").read_text())
    assert set(about["dropped"]) == {"data_preprocessor.mean", "ema_backbone_conv1_weight"}


@pytest.mark.parametrize(("names", "folded"), [(naming.VITPOSE, True), (naming.MMPRETRAIN, False)])
def test_a_class_tokens_row_of_position_embeddings(save, tmp_path, names, folded):
    """ViTPose's code adds it to all others; mmpretrain cuts it off."""
    net = naming.vit()
    state = named(net, names)
    row = torch.full((1, 1, 24), 0.25)
    own = state["backbone.pos_embed"]
    state["backbone.pos_embed"] = torch.cat([row, own], dim=1)
    out = tmp_path / "ours.safetensors"
    import_weights(save(state), "mmpose", out, configuration(net))
    assert torch.equal(made(out).backbone.net.model.pos_embed, own + 0.25 if folded else own)


def test_vitpose_is_told_from_its_tensors(save, tmp_path):
    net = naming.network(PlainViT(width=384, depth=1, heads=12, size=naming.SIZE), naming.DeconvDecoder([8], 1))
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save(named(net, naming.VITPOSE)), "mmpose", out)
    assert same(made(out), net)
    assert "ViT of width 384 and depth 1" in lines[0]


@pytest.mark.parametrize("joints", [5, 16])
def test_stacked_hourglass_of_its_authors(save, tmp_path, joints):
    """Shortcuts that they make and do not read are dropped; their pictures are not normalised."""
    net = naming.hourglass(joints, mean=[0.0, 0.0, 0.0], std=[1.0, 1.0, 1.0])
    state = {f"model.module.{k}": v for k, v in naming.newell(net.state_dict()).items()}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save({"state_dict": state, "optimizer": {}}), "hourglass", out)
    again = made(out)
    assert same(again, net)
    assert (again.backbone.mean, again.backbone.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert f"2 stacked hourglasses of 1 residual, {joints} joints" in lines[0]
    assert any("read by nothing" in line for line in lines)


def test_stacked_hourglass_of_pytorch_pose(save, tmp_path):
    mean = [0.44044283, 0.44402671, 0.43268284]
    net = naming.hourglass(16, middle=16, mean=mean, std=[1.0, 1.0, 1.0])
    state = naming.bearpaw(net.state_dict())
    out = tmp_path / "ours.safetensors"
    import_weights(save({"state_dict": {f"module.{k}": v for k, v in state.items()}}), "hourglass", out)
    again = made(out)
    assert same(again, net)
    assert again.backbone.mean == pytest.approx(mean)
    with pytest.raises(BiposeError, match="pictures of mean"):
        import_weights(tmp_path / "reference.pth", "hourglass", None, configuration(naming.hourglass(16, middle=16)))
    odd = naming.hourglass(5, middle=16, mean=[0.0] * 3, std=[1.0] * 3)
    path = save(naming.bearpaw(odd.state_dict()), "odd.pth")
    with pytest.raises(BiposeError, match="nobody knows the mean"):
        import_weights(path, "hourglass", out)
    import_weights(path, "hourglass", out, configuration(odd))
    assert same(made(out), odd)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_torchvision_resnet_gives_equal_features(save, tmp_path, name):
    torch.manual_seed(0)
    net = getattr(torchvision.models, name)().eval()
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save(net.state_dict()), "torchvision", out)
    assert any(line.strip().startswith("dropped: fc.") for line in lines)
    model = yaml.safe_load(out.with_suffix(".yaml").read_text())["model"]
    assert set(model) == {"backbone", "weights", "weights_for"}
    assert model["weights_for"] == ["backbone"]
    backbone = started(model)
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        wanted = torch.nn.Sequential(*list(net.children())[:-2])(x)
        torch.testing.assert_close(backbone(x), wanted, rtol=1e-5, atol=1e-5)


def started(model):
    """The backbone of an overlay, with its weights."""
    backbone = instantiate(model["backbone"]).eval()
    tensors = load_file(model["weights"])
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in tensors.items()})
    return backbone


@pytest.mark.parametrize("size", [(64, 64), (64, 32)])
def test_torchvision_vit_gives_equal_features(save, tmp_path, size):
    """In crops of another form its position embeddings are what timm makes of its own."""
    torch.manual_seed(0)
    net = torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64).eval()
    torch.nn.init.normal_(net.encoder.pos_embedding)
    kwargs = {"embed_dim": 32, "depth": 2, "num_heads": 4, "mlp_ratio": 2.0, "img_size": list(size)}
    backbone = TimmBackbone("vit_base_patch16_224.mae", kwargs=kwargs)
    config = {"model": {"backbone": backbone.config(), "joints": 5}, "data": {"size": [size[1], size[0]]}}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save(net.state_dict()), "torchvision", out, config)
    backbone = started(yaml.safe_load(out.with_suffix(".yaml").read_text())["model"])
    if size != (64, 64):
        assert any("4x4 -> 4x2" in line for line in lines)
        rows = timm.layers.resample_abs_pos_embed(net.encoder.pos_embedding, [4, 2])
        torch.testing.assert_close(backbone.net.model.pos_embed, rows)
        return
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        tokens = net.encoder.pos_embedding + torch.cat([net.class_token.expand(2, -1, -1), net._process_input(x)], 1)
        wanted = net.encoder.layers(tokens)[:, 1:].transpose(1, 2).reshape(2, 32, 4, 4)
        torch.testing.assert_close(backbone(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["hrnet_w18_small", "test_resnet", "test_convnext"])
def test_timms_whole_models(tmp_path, name):
    """Its classifier, and what lies past the map, are dropped by name; features are those of timm's own feature net."""
    torch.manual_seed(0)
    kwargs, index = ({"feature_location": ""}, 1) if name.startswith("hrnet") else ({}, -1)
    net = timm.create_model(name).eval()
    path = tmp_path / "model.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, str(path))
    backbone = TimmBackbone(name, out_index=index, kwargs=kwargs)
    lines = import_weights(
        path, "timm", None, {"model": {"backbone": backbone.config(), "joints": 5}, "data": {"size": [64, 64]}}
    )
    out = tmp_path / "model-bipose.safetensors"
    about = json.loads(out.with_suffix(".json").read_text())
    classifier = timm.get_pretrained_cfg(name).classifier
    assert f"{classifier}.weight" in about["dropped"]
    own = {n.removeprefix("net.").replace(".", "_") for n in backbone.state_dict()}
    assert set(about["dropped"]) == {k for k in net.state_dict() if k.replace(".", "_") not in own}
    assert "backbone;" in lines[-2]
    x = torch.randn(1, 3, 64, 64)
    whole = timm.create_model(name, features_only=True, **kwargs).eval()
    whole.load_state_dict(timm_names(whole, net))
    again = started(yaml.safe_load(out.with_suffix(".yaml").read_text())["model"])
    with torch.inference_mode():
        torch.testing.assert_close(again(x), whole(x)[index])


def timm_names(features, net):
    """A whole model's tensors under a feature net's names."""
    bare = {k.replace(".", "_"): v for k, v in net.state_dict().items()}
    return {k: bare[k.replace(".", "_")] for k in features.state_dict()}


def test_timm_prefers_the_average(save, tmp_path):
    state, averaged = (torchvision.models.resnet18().state_dict() for _ in range(2))
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save({"state_dict": state, "state_dict_ema": averaged}), "timm", out)
    assert torch.equal(load_file(out)["backbone.net.conv1.weight"], averaged["conv1.weight"])
    assert any("averaged" in line for line in lines)


def test_old_files_have_no_counters_and_small_ones_half_the_digits(save, baseline, tmp_path):
    state = {k: v for k, v in named(baseline, naming.SIMPLEBASELINE).items() if not k.endswith("num_batches_tracked")}
    state = {k: v.half() for k, v in state.items()}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save(state), "simplebaseline", out)
    assert any("22 counters" in line for line in lines)
    again = made(out).state_dict()
    for name, value in baseline.state_dict().items():
        assert again[name].dtype == value.dtype
        if name.endswith("num_batches_tracked"):
            assert again[name] == 0
        else:
            torch.testing.assert_close(again[name], value.half().to(value.dtype), rtol=0, atol=0)


def test_what_is_told_of_the_file(save, baseline, tmp_path):
    path = save({"state_dict": named(baseline, naming.SIMPLEBASELINE), "ema_state_dict": {}})
    out = tmp_path / "new" / "ours.safetensors"
    lines = import_weights(path, "simplebaseline", out)
    about = json.loads(out.with_suffix(".json").read_text())
    assert about["made_from"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert about["made_from"]["source"] == "simplebaseline"
    assert about["tensors"] == len(baseline.state_dict())
    assert about["numbers"] == sum(v.numel() for v in baseline.state_dict().values())
    assert about["parts"] == ["backbone", "decoder"]
    assert str(tmp_path) not in out.with_suffix(".json").read_text()
    assert any("averaged over training" in line for line in lines)


@pytest.mark.parametrize(("law", "name"), [(MSRA, "msra"), (UDP, "udp")])
def test_laws_are_those_of_the_codec_overlays(law, name):
    overlay = yaml.safe_load((EXPERIMENTS / "codec" / f"{name}.yaml").read_text())
    assert overlay["model"]["codec"]["init_args"] == law


def test_the_overlay_is_a_configuration(save, tmp_path):
    """Composed over the base it names the weights and nothing that would be fetched."""
    net = naming.network(TimmBackbone("resnet18", bgr=True), naming.DeconvDecoder(16, 3), joints=15)
    out = tmp_path / "ours.safetensors"
    path = save(named(net, naming.SIMPLEBASELINE))
    assert main(["import-weights", str(path), "--from", "simplebaseline", "--out", str(out)]) == 0
    config = resolve([BASE, out.with_suffix(".yaml")])
    model = config["model"]
    assert model["weights"] == str(out)
    assert model["backbone"]["init_args"] | {"pretrained": False, "bgr": True} == model["backbone"]["init_args"]
    assert model["decoder"]["init_args"]["channels"] == [16, 16, 16]
    codec = model["codec"]["init_args"]
    assert (codec["grid"], codec["refine"], codec["shift_flipped"]) == ("msra", "quarter", True)
    assert (codec["skeleton"], codec["sigma"]) == ("jhmdb", 1.5), "what the data say stays"
    again = tmp_path / "again.safetensors"
    import_weights(path, "simplebaseline", again, config)
    assert load_file(again).keys() == load_file(out).keys()


@pytest.mark.parametrize(
    ("places", "grid"),
    [(192, (16, 12)), (432, (24, 18)), (196, (14, 14)), (16, (4, 4)), (12, (4, 3)), (193, None), (0, None)],
)
def test_grids(places, grid):
    assert grid_of(places) == grid


def test_refuses_with_a_list(save, baseline, tmp_path):
    state = named(baseline, naming.SIMPLEBASELINE)
    del state["layer3.0.conv1.weight"], state["final_layer.bias"]
    state["extra.weight"] = torch.zeros(2)
    state["deconv_layers.0.weight"] = torch.zeros(512, 16, 3, 3)
    out = tmp_path / "ours.safetensors"
    with pytest.raises(BiposeError) as error:
        import_weights(save(state), "simplebaseline", out)
    told = str(error.value)
    assert "ResNet-18" in told
    assert "missing: backbone.net.layer3.0.conv1.weight, decoder.head.bias;" in told
    assert "left over: extra.weight;" in told
    assert "wrong shape: deconv_layers.0.weight is [512, 16, 3, 3], not [512, 16, 4, 4]" in told
    assert list(tmp_path.iterdir()) == [tmp_path / "reference.pth"], "nothing is written"


def changed(**changes):
    def change(state):
        return {**state, **changes}

    return change


@pytest.mark.parametrize(
    ("source", "change", "told"),
    [
        ("simplebaseline", changed(**{"fc.weight": torch.zeros(3)}), "left over: fc.weight"),
        ("simplebaseline", changed(**{"deconv_layers.0.bias": torch.zeros(16)}), "left over: deconv_layers.0.bias"),
        ("simplebaseline", lambda s: {k: v for k, v in s.items() if "layer4" not in k}, "of no ResNet"),
        ("simplebaseline", lambda s: {k: v for k, v in s.items() if "final" not in k}, "no head that is known"),
        ("simplebaseline", changed(**{"bn1.weight": torch.zeros(64, dtype=torch.int64)}), "bn1.weight is of type torch.int64"),
        ("simplebaseline", lambda s: {f"net.{k}": v for k, v in s.items()}, "names are not its own, such as net.conv1.weight"),
        ("mmpose", dict, "did you mean --from simplebaseline?"),
        ("torchvision", dict, "left over: deconv_layers.0.weight"),
    ],
)  # fmt: skip
def test_refuses_what_does_not_fit(save, baseline, tmp_path, source, change, told):
    path = save(change(named(baseline, naming.SIMPLEBASELINE)))
    with pytest.raises(BiposeError, match=f"--from {source}") as error:
        import_weights(path, source, tmp_path / "ours.safetensors")
    assert told in str(error.value)
    assert not (tmp_path / "ours.safetensors").exists()


def test_refuses_networks_that_see_other_colours(save, baseline, tmp_path):
    path = save(named(baseline, naming.SIMPLEBASELINE))
    with pytest.raises(BiposeError, match="trained on BGR pictures; set model"):
        import_weights(path, "simplebaseline", None, configuration(naming.simplebaseline(bgr=False)))
    net = naming.network(TimmBackbone("resnet18"), naming.DeconvDecoder([16, 8], 2))
    path = save(named(net, naming.MMPOSE))
    with pytest.raises(BiposeError, match="trained on RGB pictures"):
        import_weights(path, "mmpose", None, configuration(baseline))
    small = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": [64, 64]}
    vit = TimmBackbone("vit_base_patch16_224", kwargs=small)
    config = {"model": {"backbone": vit.config(), "joints": 5}, "data": {"size": [64, 64]}}
    state = torchvision.models.VisionTransformer(64, 16, 2, 4, 32, 64).state_dict()
    with pytest.raises(BiposeError, match="pictures of mean"):
        import_weights(save(state), "torchvision", None, config)


def test_the_command_says_what_went_wrong_in_a_line(save, baseline, capsys):
    path = save(named(baseline, naming.SIMPLEBASELINE))
    assert main(["import-weights", str(path), "--from", "hrnet"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("bipose: error: ")
    assert told.count("\n") == 1
    with pytest.raises(SystemExit) as stop:
        main(["import-weights", str(path), "--from", "hrnett"])
    assert stop.value.code == 2
    assert "did you mean hrnet?" in capsys.readouterr().err
