"""The refiners' contract check finds what is broken: each of these refiners breaks one promise."""

import pytest
import torch
from torch import nn

from bipose_lit.models.base import Refiner
from bipose_lit.testing import check_refiner


class Honest(Refiner):
    """Adds to the maps what a 1x1 convolution makes of their own frame's features: keeps every promise."""

    causal, context = True, (0, 0)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def build(self, spec, predicted, joints):
        self.out = nn.Conv2d(spec.channels, joints, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, encoded, features, valid):
        mask = valid[:, :, None, None, None]
        maps, features = torch.where(mask, encoded["heatmaps"], 0), torch.where(mask, features, 0)
        return {"heatmaps": torch.where(mask, maps + self.mix(features, maps), 0)}

    def mix(self, features, maps):
        return self.gain * self.out(features.flatten(0, 1)).view_as(maps)

    def init_state(self, encoded, features):
        return ()

    def step(self, encoded, features, state):
        return {"heatmaps": encoded["heatmaps"] + self.gain * self.out(features)}, state


class NotZero(Honest):
    def build(self, spec, predicted, joints):
        super().build(spec, predicted, joints)
        nn.init.ones_(self.out.weight)


class DeclaredNotZero(NotZero):
    identity = False


class DeclaredInVain(Honest):
    identity = False


class Inert(Honest):
    def mix(self, features, maps):
        return 0 * super().mix(features, maps)

    def step(self, encoded, features, state):
        return encoded, state


class Shrinks(Honest):
    def forward(self, encoded, features, valid):
        return {"heatmaps": super().forward(encoded, features, valid)["heatmaps"][..., 1:]}


class Renames(Honest):
    def forward(self, encoded, features, valid):
        return {"maps": super().forward(encoded, features, valid)["heatmaps"]}


class LeavesPadding(Honest):
    def forward(self, encoded, features, valid):
        mask = valid[:, :, None, None, None]
        maps, features = torch.where(mask, encoded["heatmaps"], 0), torch.where(mask, features, 0)
        return {"heatmaps": maps + self.mix(features, maps)}


class ReadsPaddedFeatures(Honest):
    causal, context = False, (None, None)

    def forward(self, encoded, features, valid):
        mask = valid[:, :, None, None, None]
        maps = torch.where(mask, encoded["heatmaps"], 0)
        mean = features.mean(1, keepdim=True).expand_as(features)
        return {"heatmaps": torch.where(mask, maps + self.mix(mean, maps), 0)}


class ReadsPaddedMaps(Honest):
    causal, context = False, (None, None)

    def forward(self, encoded, features, valid):
        mask = valid[:, :, None, None, None]
        out = super().forward(encoded, features, valid)["heatmaps"]
        return {"heatmaps": torch.where(mask, out + self.out.bias.sum() * encoded["heatmaps"].mean(1, keepdim=True), 0)}


class SeesLaterFeatures(Honest):
    def mix(self, features, maps):
        return super().mix(features.roll(-1, 1), maps)


class SeesLaterMaps(Honest):
    def mix(self, features, maps):
        return super().mix(features, maps) + self.out.bias.sum() * maps.roll(-1, 1)


class SeesTheBatch(Honest):
    def mix(self, features, maps):
        return super().mix(features - features.mean(0, keepdim=True), maps)


class SaysItIsNotCausal(Honest):
    causal = False


class WrongStep(Honest):
    def step(self, encoded, features, state):
        return {"heatmaps": encoded["heatmaps"] + 2 * self.out(features)}, state


class StateOfTheFrame(Honest):
    def init_state(self, encoded, features):
        return (features.mean(),)


class UnusedLayer(Honest):
    def build(self, spec, predicted, joints):
        super().build(spec, predicted, joints)
        self.idle = nn.Linear(2, 2)


class Detached(Honest):
    def forward(self, encoded, features, valid):
        return super().forward({"heatmaps": encoded["heatmaps"].detach()}, features.detach(), valid)


class InfiniteGradient(Honest):
    def mix(self, features, maps):
        return super().mix(features, maps) + 0 * maps.sum().mul(0).sqrt()


class Forgets(Honest):
    def config(self):
        return {**super().config(), "init_args": {"gian": 1.0}}


class Restless(Honest):
    def mix(self, features, maps):
        return super().mix(features, maps) * (1 + 1e-9 * torch.rand((), dtype=torch.float64))


class Crude(Honest):
    def mix(self, features, maps):
        drift = 0.1 * (maps.dtype == torch.float32)
        return super().mix(features, maps) + drift * self.out.bias.sum()


class Picky(Honest):
    def build(self, spec, predicted, joints):
        assert predicted.stride == spec.stride, "another stride"
        super().build(spec, predicted, joints)


@pytest.mark.parametrize("refiner", [Honest(), Honest(3.0), DeclaredNotZero()], ids=["honest", "gain", "declared"])
def test_who_keeps_the_contract_passes(refiner):
    check_refiner(refiner)


@pytest.mark.parametrize(
    ("refiner", "told"),
    [
        (NotZero(), "an untrained refiner is the identity"),
        (DeclaredInVain(), "leave `identity` True"),
        (Inert(), "does something once trained"),
        (Shrinks(), "the output has the predictions' shape"),
        (Renames(), "KeyError: 'heatmaps'"),
        (LeavesPadding(), "zero where a frame is not valid"),
        (ReadsPaddedFeatures(), "frames that are not valid influence nothing"),
        (ReadsPaddedMaps(), "frames that are not valid influence nothing"),
        (SeesLaterFeatures(), "context is true: frame 0 changes the output of frame 5"),
        (SeesLaterMaps(), "context is true: frame 0 changes the output of frame 5"),
        (SeesTheBatch(), "clips of a batch do not see each other"),
        (SaysItIsNotCausal(), "causal and context agree"),
        (WrongStep(), "step equals forward frame by frame"),
        (StateOfTheFrame(), "the state before the first frame depends on shapes alone: it reads the frame"),
        (UnusedLayer(), "no gradient reaches idle"),
        (Detached(), "none reaches the predictions or the features"),
        (InfiniteGradient(), "gradients of the predictions are not finite"),
        (Forgets(), "the configuration is plain data and rebuilds the refiner"),
        (Restless(), "two runs are equal to the bit"),
        (Crude(), "float32 and float64 agree"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Refiner) else "",
)
def test_each_broken_promise_is_found_and_told(refiner, told):
    with pytest.raises(AssertionError, match=f"{type(refiner).__name__} breaks") as error:
        check_refiner(refiner)
    assert told in str(error.value)


def test_what_the_builder_refuses_is_told():
    check_refiner(Picky())
    with pytest.raises(AssertionError, match="another stride"):
        check_refiner(Picky(), stride=16)


def test_it_leaves_the_global_stream_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    check_refiner(Honest())
    assert torch.equal(before, torch.random.get_rng_state())
