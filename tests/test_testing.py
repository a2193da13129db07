"""The contract checks find what is broken: each of these heads breaks one promise."""

import pytest
import torch
from plain_parts import StagedDecoder
from torch import nn

from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.codecs.regression import RegressionCodec
from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.models.base import Backbone, PoseDecoder, TemporalHead
from bipose_lit.models.decoders.deconv import DeconvDecoder
from bipose_lit.models.decoders.regression import RegressionDecoder
from bipose_lit.testing import check_backbone, check_codec, check_decoder, check_temporal_head
from bipose_lit.types import FeatureSpec


class Honest(TemporalHead):
    """A causal head that adds its own frame through a 1x1 convolution: keeps every promise."""

    causal, context = True, (0, 0)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def build(self, spec):
        self.out = nn.Conv2d(spec.channels, spec.channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, features, valid):
        mask = valid[:, :, None, None, None]
        features = torch.where(mask, features, 0)
        return torch.where(mask, features + self.mix(features, valid), 0)

    def mix(self, features, valid):
        return self.out(features.flatten(0, 1)).view_as(features)

    def init_state(self, features):
        return ()

    def step(self, features, state):
        return features + self.out(features), state


class NotZero(Honest):
    def build(self, spec):
        super().build(spec)
        nn.init.ones_(self.out.weight)


class SeesTheFuture(Honest):
    def mix(self, features, valid):
        return super().mix(features.roll(-1, 1), valid)


class SeesTheBatch(Honest):
    def mix(self, features, valid):
        return super().mix(features - features.mean(0, keepdim=True), valid)


class ReadsPadding(Honest):
    causal, context = False, (None, None)

    def forward(self, features, valid):
        mean = features.mean(1, keepdim=True).expand_as(features)
        return torch.where(valid[:, :, None, None, None], features + self.mix(mean, valid), 0)


class LeavesPadding(Honest):
    def forward(self, features, valid):
        clean = torch.where(valid[:, :, None, None, None], features, 0)
        return clean + self.mix(clean, valid)


class WrongStep(Honest):
    def step(self, features, state):
        return features + 2 * self.out(features), state


class UnusedLayer(Honest):
    def build(self, spec):
        super().build(spec)
        self.idle = nn.Linear(2, 2)


class Forgets(Honest):
    def build(self, spec):
        super().build(spec)
        self.table = nn.Parameter(torch.ones(int(self.gain)))

    def mix(self, features, valid):
        return super().mix(features, valid) + 0 * self.table.sum()

    def config(self):
        return {**super().config(), "init_args": {"gain": 3.0}}


class Inert(Honest):
    def mix(self, features, valid):
        return 0 * super().mix(features, valid)

    def step(self, features, state):
        return features, state


def test_an_honest_head_passes():
    check_temporal_head(Honest())


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (NotZero(), "identity"),
        (SeesTheFuture(), "context is true: frame 0 changes the output of frame 6"),
        (SeesTheBatch(), "do not see each other"),
        (ReadsPadding(), "frames that are not valid influence nothing"),
        (LeavesPadding(), "zero where a frame is not valid"),
        (WrongStep(), "step equals forward"),
        (UnusedLayer(), "no gradient reaches idle"),
        (Forgets(), "rebuilds the head"),
        (Inert(), "does something once trained"),
    ],
)
def test_each_broken_promise_is_found_and_told(head, told):
    with pytest.raises(AssertionError, match="breaks") as error:
        check_temporal_head(head)
    assert told in str(error.value)


def test_several_broken_clauses_are_told_at_once():
    class Bad(NotZero, WrongStep):
        pass

    with pytest.raises(AssertionError) as error:
        check_temporal_head(Bad())
    assert "identity" in str(error.value)
    assert "step equals forward" in str(error.value)


def test_an_exception_inside_a_head_is_a_broken_clause():
    class Raises(Honest):
        def mix(self, features, valid):
            raise RuntimeError("no idea")

    with pytest.raises(AssertionError, match="no idea"):
        check_temporal_head(Raises())


def test_checks_leave_the_global_stream_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    check_temporal_head(Honest())
    check_codec(HeatmapCodec(), error=0.05)
    assert torch.equal(before, torch.random.get_rng_state())


def test_backbone_that_lies_about_its_spec():
    class Liar(Backbone):
        def __init__(self):
            super().__init__()
            self.spec = FeatureSpec(4, 4)
            self.conv = nn.Conv2d(3, 4, 3, stride=8, padding=1)

        def forward(self, images):
            return self.conv(images)

    with pytest.raises(AssertionError, match="spec tells the shape"):
        check_backbone(Liar())


def test_backbone_passes():
    check_backbone(TimmBackbone("test_resnet"))


@pytest.mark.parametrize(
    ("decoder", "codec"),
    [
        (DeconvDecoder(8), HeatmapCodec()),
        (DeconvDecoder([8, 4]), HeatmapCodec(stride=8)),
        (RegressionDecoder(), RegressionCodec()),
        (RegressionDecoder([8, 8], dropout=0.1), RegressionCodec()),
    ],
)
def test_decoders_pass(decoder, codec):
    check_decoder(decoder, codec)


def test_decoder_of_another_stride_is_found():
    with pytest.raises(AssertionError, match="the codec's"):
        check_decoder(DeconvDecoder(8, layers=2), HeatmapCodec(stride=4))


def test_every_stage_of_a_decoder_is_checked():
    check_decoder(StagedDecoder(), HeatmapCodec(stride=8), FeatureSpec(6, 8))

    class Shrinks(StagedDecoder):
        def forward(self, features):
            first, second = super().forward(features)
            return [{"heatmaps": first["heatmaps"][..., 1:]}, second]

    with pytest.raises(AssertionError, match="the codec's"):
        check_decoder(Shrinks(), HeatmapCodec(stride=8), FeatureSpec(6, 8))


def test_decoder_that_mixes_rows_is_found():
    class Mixes(PoseDecoder):
        pooled = True

        def build(self, spec, joints, size):
            self.last = nn.Linear(spec.channels, 2 * joints)

        def forward(self, features):
            x = features.flatten(1)
            return {"xy": self.last(x - x.mean(0)).unflatten(1, (-1, 2))}

    with pytest.raises(AssertionError, match="rows do not see each other"):
        check_decoder(Mixes(), RegressionCodec())


def test_codec_off_by_half_a_pixel_is_found():
    class Off(RegressionCodec):
        def decode(self, encoded):
            joints, score = super().decode(encoded)
            return joints + 0.5, score

    with pytest.raises(AssertionError, match="gives the joints"):
        check_codec(Off())
