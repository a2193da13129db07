"""An LSTM over each joint's own track: place, confidence and the feature found there."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from bipose_lit.models.base import State
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.models.temporal.joint_tokens import JointRefiner
from bipose_lit.types import FeatureSpec


class JointLSTM(JointRefiner):
    """One recurrence over the tokens of every joint, with weights that all joints share; what a joint is, an embedding tells it.

    Tokens and answers are those of `JointRefiner`. GroupNorm runs over all tokens of a frame, so the joints of a frame see each
    other's spread; the recurrence does not mix them. All answers start at zero.

    Args:
        hidden: channels of the state, per direction.
        direction: "forward" (causal) or "both".
        sampled: channels of the sampled feature; 0 for none.
        embedding: numbers that stand for a joint.
        sigma: of the Gaussians, in map pixels; that of the codec.
        hold: frames over which a held place forgets.
        reset: "never", or "every_frame": the same module without memory, its held places its own.
        memory: as `ConvLSTM`'s.
        gain: factor on the answer, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings that exclude each other.
    """

    def __init__(
        self,
        hidden: int = 64,
        direction: Literal["forward", "both"] = "both",
        sampled: int = 16,
        embedding: int = 8,
        sigma: float = 1.5,
        hold: float = 3.0,
        reset: Literal["never", "every_frame"] = "never",
        memory: float = 32.0,
        gain: float = 10.0,
    ) -> None:
        super().__init__(hidden, sampled, embedding, sigma, hold, reset == "every_frame", direction == "both")
        self.lstm = _Answer(hidden, 1, direction, reset=reset, memory=memory, gain=gain)
        self.causal, self.context = self.lstm.causal, self.lstm.context

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        numbers, self.lstm.answers = self.build_tokens(spec, predicted, joints)
        self.lstm.build(FeatureSpec(numbers, spec.stride))

    def answer(self, tokens: Float[Tensor, "B T D K 1"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T A K 1"]:
        told: Tensor = self.lstm(tokens, valid)
        return told

    def answer_state(self, tokens: Float[Tensor, "B D K 1"]) -> State:
        return self.lstm.init_state(tokens)

    def answer_step(self, tokens: Float[Tensor, "B D K 1"], state: State) -> tuple[Float[Tensor, "B A K 1"], State]:
        return self.lstm.step(tokens, state)


class _Answer(ConvLSTM):
    """`ConvLSTM` on tokens, joints in the place of rows; it hands nothing on but its answer."""

    answers = 5

    def _written(self, channels: int) -> int:
        return self.answers

    def _write(self, features: Float[Tensor, "N D K 1"], hidden: Float[Tensor, "N H K 1"]) -> Tensor:
        written: Tensor = (self.gain * self.output(self.dropout(hidden))).to(features.dtype)
        return written


__all__ = ["JointLSTM"]
