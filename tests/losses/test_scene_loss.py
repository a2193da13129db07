"""The loss of scenes: the mean over known pixels, whoever stands in them."""

import pytest
import torch

from bipose_lit.codecs.scene import SceneCodec
from bipose_lit.losses.scene import SceneMSE
from bipose_lit.losses.steps import StepLoss
from bipose_lit.types import BiposeError


def maps(seed=0, images=3, K=5, L=4, h=6, w=7):
    draw = torch.Generator().manual_seed(seed)
    pred = {
        "heatmaps": torch.randn(images, K, h, w, generator=draw),
        "pafs": torch.randn(images, 2 * L, h, w, generator=draw),
    }
    target = {k: torch.randn(v.shape, generator=draw) for k, v in pred.items()}
    return pred, target, (torch.rand(images, h, w, generator=draw) > 0.3).float()


def test_it_is_the_mean_over_known_pixels_of_the_sum_over_maps():
    pred, target, weight = maps()
    total, count = 0.0, 0
    for n, y, x in torch.cartesian_prod(torch.arange(3), torch.arange(6), torch.arange(7)).tolist():
        if weight[n, y, x]:
            count += 1
            total += sum(float((pred[k][n, :, y, x].double() - target[k][n, :, y, x]).square().sum()) for k in pred)
    found = SceneMSE()(pred, target, weight)
    assert float(found["loss"]) == pytest.approx(total / count, rel=1e-5)
    assert float(found["heatmaps"] + found["pafs"]) == pytest.approx(float(found["loss"]), rel=1e-6)


def test_what_is_ignored_does_not_count_and_gets_no_gradient():
    pred, target, weight = maps()
    pred = {k: v.requires_grad_() for k, v in pred.items()}
    loss = SceneMSE()(pred, target, weight)["loss"]
    loss.backward()
    strange = {k: torch.where(weight.unsqueeze(1) > 0, v.detach(), 1e3) for k, v in pred.items()}
    assert torch.equal(SceneMSE()(strange, target, weight)["loss"], loss.detach())
    for value in pred.values():
        assert not value.grad[(weight == 0).unsqueeze(1).expand_as(value)].any()
        assert value.grad[(weight > 0).unsqueeze(1).expand_as(value)].all()


def test_a_stage_of_one_kind_has_its_share():
    pred, target, weight = maps()
    whole = SceneMSE()(pred, target, weight)
    for key in pred:
        part = SceneMSE()({key: pred[key]}, target, weight)
        assert torch.equal(part["loss"], whole[key])
        assert set(part) == {"loss", key}
    with pytest.raises(BiposeError, match="needs heatmaps or pafs, but the decoder predicts xy"):
        SceneMSE()({"xy": torch.zeros(1)}, target, weight)


def test_images_without_people_teach_that_there_are_none():
    codec = SceneCodec()
    codec.build(17, (64, 64))
    target, weight = codec.encode(torch.zeros(2, 0, 17, 2), torch.zeros(2, 0, 17))
    pred = {k: torch.full_like(v, 0.1) for k, v in target.items()}
    assert float(SceneMSE()(pred, target, weight)["loss"]) == pytest.approx(0.01 * (17 + 42), rel=1e-5)
    unknown = SceneMSE()(pred, target, torch.zeros_like(weight))
    assert float(unknown["loss"]) == 0


def test_two_processes_have_the_gradient_of_one():
    """Each with another number of known pixels: sums over sums."""
    pred, target, weight = maps(images=4)
    weight[3] = 0
    loss = SceneMSE()
    one = {k: v.clone().requires_grad_() for k, v in pred.items()}
    loss(one, target, weight)["loss"].backward()
    shares = [slice(0, 1), slice(1, 4)]
    norms = torch.stack([loss.normaliser({k: v[s] for k, v in target.items()}, weight[s]) for s in shares])
    for s in shares:
        part = {k: v[s].clone().requires_grad_() for k, v in pred.items()}
        labels = {k: v[s] for k, v in target.items()}
        losses = loss(part, labels, weight[s])
        step = StepLoss(2, 1, lambda sums: sums * (norms.sum() / sums[0]))
        own, _ = step.part(losses, loss.normaliser(labels, weight[s]), first=True)
        (own / 2).backward()
        for k in part:
            torch.testing.assert_close(part[k].grad, one[k].grad[s], rtol=1e-5, atol=1e-8)


def test_another_number_of_limbs_is_told():
    pred, target, weight = maps()
    pred["pafs"] = pred["pafs"][:, :6]
    with pytest.raises(
        BiposeError, match=r"predicts 6 maps, the codec has 4 limbs of 2 maps each; set decoder\.init_args\.limbs to 4"
    ):
        SceneMSE()(pred, target, weight)
    pred["pafs"] = torch.zeros(3, 8, 3, 3)
    with pytest.raises(BiposeError, match="pafs: decoder predicts"):
        SceneMSE()(pred, target, weight)
