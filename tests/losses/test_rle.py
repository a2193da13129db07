"""RLE: two densities that are densities, a flow whose Jacobian is the true one, and parameters that train with the network's."""

import math

import hypothesis.strategies as st
import lightning.pytorch as L
import pytest
import torch
from hypothesis import given
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from memory_index import MemoryReader
from plain_parts import PlainBackbone
from torch.distributions import Laplace, MultivariateNormal

from bipose_lit import skeletons
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.compatibility import check_launch
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datasets.clips import ClipSampling
from bipose_lit.losses import SmoothL1
from bipose_lit.losses.rle import RLE, RealNVP
from bipose_lit.losses.steps import StepLoss
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.models.flops import blank_batch
from bipose_lit.models.sharding import Sharded
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.models.temporal.joint_lstm import JointLSTM
from bipose_lit.module import PoseModule
from bipose_lit.recipe import Recipe
from bipose_lit.testing import check_codec, check_decoder
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def bent(module, seed=0, spread=0.5):
    """Weights as after some training, in float64."""
    draw = torch.Generator().manual_seed(seed)
    for parameter in module.double().parameters():
        parameter.data = (
            torch.randn(parameter.shape, generator=draw, dtype=torch.float64) * spread / math.sqrt(parameter.shape[-1])
        )
    return module


def plane(reach, cells):
    """Points of a grid over the plane and the area of a cell."""
    at = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2 * reach - reach
    return torch.cartesian_prod(at, at), (2 * reach / cells) ** 2


# --- the flow --------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(0, 7))
def test_the_jacobian_is_autograd_s(seed, layers):
    flow = bent(RealNVP(layers, 8), seed, spread=1.5)
    points = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2
    origin, volume = flow.normalise(points)
    for point, log_determinant in zip(points, volume, strict=True):
        matrix = torch.autograd.functional.jacobian(lambda p: flow.normalise(p)[0], point)
        torch.testing.assert_close(torch.linalg.slogdet(matrix)[1], log_determinant, rtol=1e-9, atol=1e-9)
    normal = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(flow(points), normal.log_prob(origin) + volume)


@pytest.mark.parametrize("seed", range(3))
def test_the_flow_is_a_density(seed):
    """It sums to 1 over the plane, however it is bent."""
    flow = bent(RealNVP(6, 16), seed, spread=0.3)
    points, cell = plane(15, 300)
    with torch.no_grad():
        density = flow(points).exp()
        start = RealNVP(6, 16)(points.float()).double()
    assert float(density.sum() * cell) == pytest.approx(1, abs=1e-4)
    normal = MultivariateNormal(torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    assert float((density.log() - normal.log_prob(points)).abs().max()) > 0.5, "bent"
    torch.testing.assert_close(start, normal.log_prob(points), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("residual", ["laplace", "gaussian", "none"])
def test_the_loss_is_made_of_densities_of_places(residual):
    """Over all places that a joint might have been labelled at, for the sigmas that were predicted."""
    loss = bent(RLE(residual, 4, 16), spread=0.4)
    sigma = torch.tensor([0.03, 0.11], dtype=torch.float64)
    error, cell = plane(1, 400)
    reach = 20 * sigma
    with torch.no_grad():
        densities = loss.log_densities(error * reach, sigma.expand_as(error))
    assert len(densities) == (1 if residual == "none" else 2)
    for density in densities:
        assert float(density.exp().sum() * cell * reach.prod()) == pytest.approx(1, abs=1e-3)


def test_the_fixed_densities_are_torch_s_own():
    error, sigma = torch.randn(50, 2).double() / 10, torch.rand(50, 2).double() + 0.01
    laplace = Laplace(torch.zeros_like(error), math.sqrt(2) * sigma).log_prob(error).sum(-1)
    torch.testing.assert_close(RLE().double().log_densities(error, sigma)[0], laplace)
    normal = torch.distributions.Normal(torch.zeros_like(error), sigma).log_prob(error).sum(-1)
    gaussian, untrained = RLE("gaussian").double().log_densities(error, sigma)
    torch.testing.assert_close(gaussian, normal)
    torch.testing.assert_close(untrained, normal)


def test_by_hand():
    """One joint counts, the other has no label; the flow is the normal density still."""
    pred = {"xy": torch.tensor([[[0.1, 0.0], [9.0, 9.0]]]), "sigma": torch.tensor([[[0.1, 0.2], [0.5, 0.5]]])}
    found = RLE()(pred, {"xy": torch.zeros(1, 2, 2)}, torch.tensor([[1.0, 0.0]]))["loss"]
    volume = math.log(0.1 * 0.2)
    laplace = -1 / math.sqrt(2) - 2 * math.log(2 * math.sqrt(2)) - volume
    normal = -0.5 - math.log(2 * math.pi) - volume
    assert found.item() == pytest.approx(-laplace - normal, rel=1e-5)


def test_sigma_is_learned_to_be_the_errors_size():
    """Errors of a known Laplace density: sigma ends near the sigma at which the two densities' likelihood is largest."""
    draw = torch.Generator().manual_seed(0)
    uniform = torch.rand(20_000, 1, 2, generator=draw) - 0.5
    error = -0.05 * math.sqrt(2) * uniform.sign() * torch.log1p(-2 * uniform.abs())  # Laplace of scale 0.05 sqrt(2)
    raw = torch.zeros(2, requires_grad=True)
    loss = RLE("laplace", layers=0)
    optimiser = torch.optim.Adam([raw], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        pred = {"xy": torch.zeros_like(error), "sigma": raw.sigmoid().expand_as(error)}
        loss(pred, {"xy": error}, torch.ones(20_000, 1))["loss"].backward()
        optimiser.step()
    # d/ds of 2 log s + |e| / (sqrt(2) s) + e^2 / (2 s^2) is 0 where 2 s^2 - s E|e| / sqrt(2) - E e^2 is.
    linear, square = float(error.abs().mean()) / math.sqrt(2), float(error.square().mean())
    wanted = (linear + math.sqrt(linear**2 + 8 * square)) / 4
    assert raw.sigmoid().tolist() == pytest.approx([wanted, wanted], rel=0.05)


def test_a_sigma_near_zero_gains_nothing():
    loss = RLE(least=0.01)
    target, weight = {"xy": torch.zeros(1, 1, 2)}, torch.ones(1, 1)
    xy = torch.zeros(1, 1, 2, requires_grad=True)
    values = [
        loss({"xy": xy, "sigma": torch.full((1, 1, 2), s)}, target, weight)["loss"].item() for s in (0, 0.005, 0.01)
    ]
    assert values[0] == values[1] == pytest.approx(values[2])
    assert loss({"xy": xy, "sigma": torch.full((1, 1, 2), 0.02)}, target, weight)["loss"].item() > values[0]


def test_a_batch_without_labels_costs_nothing_and_reaches_every_parameter():
    loss = RLE()
    pred = {"xy": torch.randn(2, 3, 2, requires_grad=True), "sigma": torch.rand(2, 3, 2, requires_grad=True)}
    value = loss(pred, {"xy": torch.zeros(2, 3, 2)}, torch.zeros(2, 3))["loss"]
    value.backward()
    assert value.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in loss.parameters()), "DDP waits for each of them"


def test_half_precision_around_it_changes_nothing():
    loss = bent(RLE()).float()
    draw = torch.Generator().manual_seed(0)
    pred = {"xy": torch.randn(8, 3, 2, generator=draw), "sigma": torch.rand(8, 3, 2, generator=draw)}
    target, weight = {"xy": torch.zeros(8, 3, 2)}, torch.ones(8, 3)
    plain = loss(pred, target, weight)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(pred, target, weight)["loss"], plain)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"residual": "cauchy"}, "residual 'cauchy' is not one of 'laplace', 'gaussian', 'none'"),
        ({"layers": -1}, "layers -1 must not be below 0"),
        ({"hidden": 0}, "hidden 0 at least 1"),
        ({"least": 0.0}, "least 0.0 between 0 and 1"),
        ({"residual": "none", "layers": 0}, "nothing to learn"),
    ],
)
def test_settings_that_are_none(options, told):
    with pytest.raises(BiposeError, match=told):
        RLE(**options)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_flow_s_gradient_is_that_of_one_batch(processes, accumulate):
    """Parts of unequal numbers of labels, as `test_losses` has it for the network's gradient."""
    draw = torch.Generator().manual_seed(0)
    rows = 4 * processes * accumulate
    pred = {"xy": torch.randn(rows, 3, 2, generator=draw), "sigma": torch.rand(rows, 3, 2, generator=draw) + 0.1}
    target = {"xy": torch.randn(rows, 3, 2, generator=draw)}
    weight = (torch.rand(rows, 3, generator=draw) < 0.5).float()

    def take(part, values):
        return {k: v[part] for k, v in values.items()}

    def graded(part, step=None, first=True):
        losses = loss(take(part, pred), take(part, target), weight[part])
        return losses["loss"] if step is None else step.part(losses, loss.normaliser(target, weight[part]), first)[0]

    loss = bent(RLE("laplace", 2, 8)).float()
    graded(slice(None)).backward()
    wanted = [p.grad.clone() for p in loss.parameters()]
    pieces = [
        [slice(4 * (m * processes + r), 4 * (m * processes + r + 1)) for m in range(accumulate)]
        for r in range(processes)
    ]
    sums = [
        torch.stack(
            [torch.stack([n := loss.normaliser(target, weight[p[m]]), n * graded(p[m]).detach()]) for p in pieces]
        ).sum(0)
        for m in range(accumulate)
    ]
    total = [torch.zeros_like(p) for p in loss.parameters()]
    for rank in range(processes):
        loss.zero_grad()
        now = iter(sums)
        step = StepLoss(processes, accumulate, lambda _, now=now: next(now))
        for m in range(accumulate):
            (graded(pieces[rank][m], step, m == 0) / accumulate).backward()
        step.rescale(loss.parameters())
        total = [t + p.grad / processes for t, p in zip(total, loss.parameters(), strict=True)]
    for found, one in zip(total, wanted, strict=True):
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-6)


# --- decoder and codec -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [None, [8]])
def test_the_decoder_with_sigma_keeps_the_contract_and_its_coordinates(hidden):
    check_decoder(RegressionDecoder(hidden, sigma=True), RegressionCodec())
    plain, both = RegressionDecoder(hidden), RegressionDecoder(hidden, sigma=True)
    for decoder in (plain, both):
        torch.manual_seed(0)
        decoder.build(PlainBackbone().spec, 5, (32, 32))
    x = torch.randn(3, PlainBackbone().spec.channels, 1, 1)
    assert torch.equal(plain(x)["xy"], both(x)["xy"])
    sigma = both(x)["sigma"]
    assert sigma.shape == (3, 5, 2)
    assert ((sigma > 0) & (sigma < 1)).all()


def test_scores_are_what_sigma_leaves_and_mirror_with_it():
    codec = RegressionCodec("jhmdb")
    check_codec(codec, error=1e-3)
    codec.build(15, (96, 128))
    xy, sigma = torch.rand(2, 15, 2) - 0.5, torch.rand(2, 15, 2)
    sigma[0, 0], sigma[0, 1] = float("nan"), 3.0
    joints, score = codec.decode({"xy": xy, "sigma": sigma})
    assert score[0, :2].tolist() == [0, 0]
    torch.testing.assert_close(score[0, 2:], 1 - sigma[0, 2:].mean(-1))
    assert torch.isfinite(joints).all()
    flipped_joints, flipped_score = codec.decode(codec.flip({"xy": xy, "sigma": sigma}))
    order = torch.as_tensor(skeletons.JHMDB.flip)
    assert torch.equal(flipped_score, score[:, order])
    torch.testing.assert_close(flipped_joints[..., 0], 95 - joints[:, order, 0], rtol=0, atol=1e-3)


# --- training --------------------------------------------------------------------------------------------------------


def make(**options) -> PoseModule:
    return PoseModule(
        **{
            "backbone": PlainBackbone(),
            "decoder": RegressionDecoder(sigma=True),
            "codec": RegressionCodec(),
            "loss": RLE(hidden=8),
            "joints": 5,
            "size": (64, 64),
            "recipe": Recipe("adamw", 3e-3),
            **options,
        }
    )


def fitted(module, folder, steps=3, ckpt_path=None, **options):
    data = PoseDataModule(MemoryReader(3, 5), size=(64, 64), clips=ClipSampling(2), batch_size=2)
    run = L.Trainer(
        default_root_dir=folder, max_steps=steps, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        **{"enable_checkpointing": False, **options},
    )  # fmt: skip
    run.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return run


def test_the_flow_trains_and_comes_back_from_the_checkpoint(tmp_path):
    torch.manual_seed(0)
    straight = make()
    state = {k: v.clone() for k, v in straight.state_dict().items()}
    before = fingerprint(straight.loss)
    run = fitted(straight, tmp_path, steps=4)
    assert fingerprint(straight.loss) != before
    run.save_checkpoint(tmp_path / "whole.ckpt")
    again = PoseModule.load_from_checkpoint(tmp_path / "whole.ckpt")
    assert fingerprint(again) == fingerprint(straight)
    # Stopped and resumed it ends as the straight run: the optimiser's moments of the flow are kept too.
    half = make()
    half.load_state_dict(state)
    keep = ModelCheckpoint(tmp_path, filename="half", every_n_train_steps=2)
    fitted(half, tmp_path, steps=2, callbacks=[keep], enable_checkpointing=True)
    resumed = make()
    fitted(resumed, tmp_path, steps=4, ckpt_path=keep.best_model_path)
    assert fingerprint(resumed) == fingerprint(straight)


def test_the_average_of_the_weights_has_the_flow_in_it(tmp_path):
    module, raw = make(), []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            raw.append({k: v.detach().clone() for k, v in pl_module.loss.named_parameters()})

    fitted(module, tmp_path, callbacks=[Watch(), EMAWeightAveraging(decay=0.5)])
    expected = raw[0]
    for weights in raw[1:]:
        expected = {k: (expected[k] + weights[k]) / 2 for k in expected}
    for name, value in module.loss.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_another_loss_leaves_the_network_s_start_as_it_is():
    torch.manual_seed(5)
    plain = make(loss=SmoothL1(), decoder=RegressionDecoder())
    torch.manual_seed(5)
    learned = make()
    assert fingerprint(plain.network.backbone) == fingerprint(learned.network.backbone)
    assert fingerprint(plain.network.decoder.layers) == fingerprint(learned.network.decoder.layers)


def test_a_head_over_time_refines_places_and_leaves_sigma():
    module = make(refiner=ConvLSTM(4, kernel=1))
    for parameter in module.network.refiner.parameters():
        parameter.data.normal_(std=0.3)
    stages = module.eval().network(blank_batch(2, 3, (64, 64), 5))
    assert torch.equal(stages[0]["sigma"], stages[1]["sigma"])
    assert not torch.equal(stages[0]["xy"], stages[1]["xy"])
    with pytest.raises(BiposeError, match="JointLSTM reads heatmaps or coordinates alone, not xy, sigma"):
        make(refiner=JointLSTM(4))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(
        BiposeError, match=r"needs sigma, but the decoder predicts xy; set decoder\.init_args\.sigma true"
    ):
        make(decoder=RegressionDecoder())
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
    trainer.strategy.__class__ = Sharded
    with pytest.raises(BiposeError, match=r"model\.loss RLE learns parameters of its own"):
        check_launch(trainer, loss=RLE())
    check_launch(trainer, loss=SmoothL1())
