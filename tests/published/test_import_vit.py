"""ImageNet's and masked autoencoders' ViTs into ViTPose's, which has no class token."""

import json
import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file

from bipose_lit.__main__ import main
from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.published.command import import_weights
from bipose_lit.types import BiposeError

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WIDTH, DEPTH, HEADS = 24, 2, 2


def whole(seed=0, **kwargs):
    """A whole ViT of timm for pictures of 64x64, as DeiT's and MAE's codes name it, a class token's row of positions included."""
    small = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "img_size": 64}
    torch.manual_seed(seed)
    net = timm.create_model("vit_base_patch16_224", **{**small, **kwargs}).eval()
    for name in ("pos_embed", "cls_token"):
        torch.nn.init.normal_(getattr(net, name))
    return net


def autoencoder(net):
    """As MAE's code saves it in pretraining: a decoder beside it, no classifier."""
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("head.")}
    state["pos_embed"] = state["pos_embed"].clone()
    state["pos_embed"][:, 0] = 0
    decoder = (
        "mask_token",
        "decoder_pos_embed",
        "decoder_embed.weight",
        "decoder_blocks.0.attn.qkv.weight",
        "decoder_norm.bias",
    )
    return {"model": {**state, **{name: torch.ones(1, 1, 8) for name in decoder}}}  # fmt: skip


def config(size, backbone=None):
    backbone = backbone or PlainViT(WIDTH, DEPTH, HEADS, size)
    return {"model": {"backbone": backbone.config(), "joints": 5}, "data": {"size": list(size)}}


def started(out):
    """The overlay's backbone with its weights."""
    model = yaml.safe_load(out.with_suffix(".yaml").read_text())["model"]
    backbone = PlainViT(**model["backbone"]["init_args"]).eval()
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in load_file(out).items()})
    return backbone


def wanted(net, x, rows):
    """ViTPose's forward pass on timm's blocks, by hand: patches two pixels off, positions, blocks, the last LayerNorm."""
    tokens = torch.nn.functional.conv2d(x, net.patch_embed.proj.weight, net.patch_embed.proj.bias, 16, 2)
    h, w = tokens.shape[-2:]
    tokens = net.norm(net.blocks(tokens.flatten(2).transpose(1, 2) + rows))
    return tokens.transpose(1, 2).reshape(len(x), -1, h, w)


@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
@pytest.mark.parametrize("kind", ["mae", "deit"])
def test_weights_with_a_class_token(save, tmp_path, kind, size):
    """The token and its row are cut off, then the grid is resampled as timm does it."""
    net = whole()
    state = autoencoder(net) if kind == "mae" else {"model": net.state_dict()}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(save(state), "timm", out, config(size))
    rows = net.pos_embed[:, 1:]
    if size == (48, 64):
        rows = timm.layers.resample_abs_pos_embed(rows, [4, 3], num_prefix_tokens=0)
        assert any("4x4 -> 4x3" in line for line in lines)
    x, again = torch.randn(2, 3, size[1], size[0]), started(out)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), wanted(net, x, rows), rtol=1e-4, atol=1e-5)
    assert any("cls_token (the network has no class token)" in line for line in lines)
    assert any("pos_embed: the class token's row is cut off, as mmpretrain does" in line for line in lines)
    about = json.loads(out.with_suffix(".json").read_text())
    assert [note for note in about["notes"] if "row is cut off" in note]
    others = {k for k in about["dropped"] if k != "cls_token"}
    if kind == "mae":
        assert others == {k for k in state["model"] if k.startswith(("mask_token", "decoder_"))}
        assert any("(the decoder of a masked autoencoder)" in line for line in lines)
    else:
        assert others == {"head.weight", "head.bias"}


def test_a_class_token_stays_where_the_network_has_one(save, tmp_path):
    net = whole()
    kwargs = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS, "img_size": [64, 48]}
    out = tmp_path / "ours.safetensors"
    lines = import_weights(
        save(net.state_dict()), "timm", out, config((48, 64), TimmBackbone("vit_base_patch16_224", kwargs=kwargs))
    )
    written = load_file(out)
    assert torch.equal(written["backbone.net.model.cls_token"], net.cls_token)
    torch.testing.assert_close(
        written["backbone.net.model.pos_embed"], timm.layers.resample_abs_pos_embed(net.pos_embed, [4, 3])
    )
    assert not [line for line in lines if "cut off" in line]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"dist_token": torch.zeros(1, 1, WIDTH)}, "left over: dist_token"),
        ({"fc_norm.weight": torch.zeros(WIDTH)}, "left over: fc_norm.weight"),
        ({"pos_embed": torch.zeros(1, 18, WIDTH)}, r"wrong shape: pos_embed is \[1, 18, 24\], not \[1, 12, 24\]"),
    ],
)
def test_what_else_is_of_no_use_is_refused(save, tmp_path, change, told):
    state = {**whole().state_dict(), **change}
    with pytest.raises(BiposeError, match=told):
        import_weights(save(state), "timm", tmp_path / "ours.safetensors", config((48, 64)))
    assert not (tmp_path / "ours.safetensors").exists()


def test_the_recipes_way(save, tmp_path, capsys, make_module):
    """As the notes of recipes/vitpose_small_coco.yaml have it, and without the data: the overlay brings the crops' size."""
    net = whole(embed_dim=384, num_heads=12, img_size=224, depth=1)
    path = save(autoencoder(net))
    depth = tmp_path / "depth.yaml"
    depth.write_text("model: {backbone: {init_args: {depth: 1}}}\n")
    files = [EXPERIMENTS / name for name in ("base.yaml", "backbone/vitpose_small.yaml", "decoder/vitpose.yaml")]
    given = [word for file in (*files, depth) for word in ("-c", str(file))]
    out = tmp_path / "start.safetensors"
    assert main(["import-weights", str(path), "--from", "timm", *given, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "14x14 -> 16x12 patches" in said
    found = [Path(file) for file in re.findall(r"-c (\S+)", said.splitlines()[-1])]
    assert found == [*files, depth, out.with_suffix(".yaml")]
    by_overlay = make_module(found)
    options = {"model.weights": str(out), "model.weights_for": ["backbone"]}
    by_option = make_module([*found[:-1], EXPERIMENTS / "data/coco.yaml"], options)
    for module in (by_overlay, by_option):
        assert module.size == (192, 256)
        assert torch.equal(module.network.backbone.norm.weight, net.norm.weight)
