"""Schedules follow their formulas; optimisers take the right parameters."""

import math
import re

import pytest
import torch
from torch import nn

from bipose_lit.models.backbones.plain_vit import PlainViT
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.recipe import Recipe
from bipose_lit.types import BiposeError


def test_the_default_is_the_papers_recipe() -> None:
    recipe = Recipe()
    net = nn.Linear(2, 2)
    optimizer = recipe.build(net, None)
    assert isinstance(optimizer, torch.optim.SGD)
    assert {g["lr"] for g in optimizer.param_groups} == {0.001}
    assert {g["momentum"] for g in optimizer.param_groups} == {0.9}
    assert [recipe.factor(100)(s) for s in (0, 50, 99)] == [1, 1, 1]


def test_step_schedule_of_simple_baselines() -> None:
    factor = Recipe(schedule="step", milestones=[90 / 140, 120 / 140], gamma=0.1).factor(140)
    assert factor(89) == 1
    assert factor(90) == pytest.approx(0.1)
    assert factor(120) == pytest.approx(0.01)
    slow = Recipe(schedule="step", milestones=[0.5], gamma=0.1, warmup=99).factor(80)
    assert [slow(s) for s in (39, 40, 79)] == pytest.approx([0.40, 0.041, 0.08]), "a warm-up that never ends"


def test_cosine_with_warmup() -> None:
    factor = Recipe(schedule="cosine", warmup=0.1, final=0.05).factor(100)
    assert factor(0) == pytest.approx(1 / 11)
    assert factor(10) == pytest.approx(1)
    assert factor(55) == pytest.approx(0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert factor(100) == pytest.approx(0.05)
    assert Recipe(schedule="linear", final=0.5).factor(10)(5) == pytest.approx(0.75)
    assert Recipe(warmup=4).factor(100)(3) == pytest.approx(0.8)


def test_groups_decay_and_backbone_rate() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
    optimizer = Recipe("adamw", lr=0.1, backbone_lr=0.1, weight_decay=0.2).build(net, net[0])
    rates = {
        (round(g["lr"], 6), g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in optimizer.param_groups
    }
    assert rates == {(0.1, 0.2): 8, (0.1, 0.0): 2 + 8, (0.01, 0.2): 108, (0.01, 0.0): 4}


def test_rates_fall_from_layer_to_layer_as_in_vitpose() -> None:
    """The rule of mmpose for L blocks: a decoder's rate times decay for the last block, ^L for the first, ^(L+1) before it."""
    vit = PlainViT(width=16, depth=3, heads=2, size=(32, 32))
    net = nn.Sequential(vit, nn.Conv2d(16, 2, 1))
    groups = Recipe("adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5).build(net, vit).param_groups
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    names = {n: rate[id(p)] for n, p in net.named_parameters() if p.requires_grad}
    assert len(names) == sum(p.requires_grad for p in net.parameters())

    def expected(name: str) -> float:
        if "pos_embed" in name or "patch_embed" in name:
            return 0.5**4
        block = re.search(r"blocks\.(\d)", name)
        return 0.5 ** (3 - int(block[1])) if block else 1.0

    assert names == {n: expected(n) for n in names}
    assert {v for n, v in names.items() if n.startswith(("0.norm", "1."))} == {1.0}
    assert len({id(p) for g in groups for p in g["params"]}) == sum(len(g["params"]) for g in groups)


def test_layer_decay_needs_a_backbone_that_tells_its_layers() -> None:
    resnet = TimmBackbone("resnet18")
    with pytest.raises(BiposeError, match=r"layer_decay 0\.9: TimmBackbone does not tell its layers.*backbone_lr"):
        Recipe(layer_decay=0.9).build(resnet, resnet)
    with pytest.raises(BiposeError, match=r"layer_decay 1\.1 must be above 0"):
        Recipe(layer_decay=1.1)


def test_frozen_parameters_are_left_out_and_nothing_left_is_an_error() -> None:
    net = nn.Linear(2, 2)
    net.weight.requires_grad = False
    assert sum(len(g["params"]) for g in Recipe("adam").build(net, None).param_groups) == 1
    net.bias.requires_grad = False
    with pytest.raises(BiposeError, match="no trainable parameter"):
        Recipe().build(net, None)


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0}, {"warmup": -1}, {"base_batch": 0}, {"schedule": "step"}, {"schedule": "step", "milestones": [90]}],
    ids=str,
)
def test_recipes_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(BiposeError, match="recipe"):
        Recipe(**wrong)


def test_rates_scale_with_the_batch_only_where_a_base_is_given() -> None:
    assert Recipe().scale(None) == Recipe().scale(64) == 1
    recipe = Recipe(lr=0.1, backbone_lr=0.5, base_batch=32)
    assert recipe.scale(64) == 2
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    rates = [g["lr"] for g in recipe.build(net, net[0], scale=recipe.scale(64)).param_groups]
    assert rates == pytest.approx([0.2, 0.1])
    with pytest.raises(BiposeError, match="base_batch needs the data's batch size"):
        recipe.scale(None)
