"""An LSTM over joints and frames at once, along the limbs and along time, with gates that weigh what it reads (ST-LSTM)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bipose_lit.models.base import State
from bipose_lit.models.temporal.joint_tokens import JointRefiner
from bipose_lit.models.tree import SkeletonRefiner
from bipose_lit.types import BiposeError, FeatureSpec


class STLSTM(SkeletonRefiner, JointRefiner):
    """Spatio-temporal LSTM with trust gates (Liu et al. 2016) over the tokens of the joints.

    In every frame a walk along the tree of limbs visits the joints, there and back (2 K - 1 visits; their tree traversal). The
    unit of a visit reads the joint's token x, the state of the visit before in the same frame (s) and that of the same visit in
    the frame before (t):

        i, f_s, f_t, o = sigmoid, u = tanh of W (x, h_s, h_t)
        tau = exp(-trust (p - x')^2),  p = tanh(W_p (h_s, h_t)),  x' = tanh(W_x x)
        c = tau i u + (1 - tau) (f_s c_s + f_t c_t),  h = o tanh(c)

    so that a token which is not what its neighbours let expect (a joint that is hidden, or found in the wrong place) changes the
    memory less. The state of a joint's last visit, which has seen its whole branch, answers to its token as `JointRefiner` says;
    all answers start at zero.

    Units whose neighbours are ready are computed together, so a clip of T frames takes T + 2 K - 2 steps. The untrained forget
    gates over time are spread over 1 to `memory` frames, and the input gate and the forget gate along the limbs let in what time
    forgets. Two open forget gates multiply the memory along every path through joints and frames; trust gates hold that in check,
    and without them both start lower.

    Args:
        skeleton: as `SkeletonRefiner`'s.
        hidden: channels of the state, per direction.
        direction: "forward" (causal) or "both" ways in time.
        trust: how fast a token that is not expected loses its say (their lambda); null for a plain ST-LSTM, with 1 for tau and
            for 1 - tau.
        sampled: channels of the sampled feature; 0 for none.
        embedding: numbers that stand for a joint.
        sigma: of the Gaussians, in map pixels; that of the codec.
        hold: frames over which a held place forgets.
        reset: "never", or "every_frame": the same module along the limbs alone, its held places its own.
        memory: as `ConvLSTM`'s; above 2 frames.
        gain: factor on the answer, as `ConvLSTM`'s.

    Raises:
        BiposeError: settings out of range, or another number of joints.
    """

    def __init__(
        self,
        skeleton: str | dict[str, Any] = "jhmdb",
        hidden: int = 48,
        direction: Literal["forward", "both"] = "both",
        trust: float | None = 0.5,
        sampled: int = 16,
        embedding: int = 8,
        sigma: float = 1.5,
        hold: float = 3.0,
        reset: Literal["never", "every_frame"] = "never",
        memory: float = 32.0,
        gain: float = 10.0,
    ) -> None:
        alone = reset == "every_frame"
        JointRefiner.__init__(self, hidden, sampled, embedding, sigma, hold, alone, direction == "both")
        self.take_skeleton(skeleton)
        if direction not in ("forward", "both") or reset not in ("never", "every_frame"):
            raise BiposeError(
                f"STLSTM: direction {direction!r} is one of 'forward', 'both', reset {reset!r} of 'never', 'every_frame'"
            )
        if memory <= 2 or gain <= 0 or (trust is not None and trust <= 0):
            raise BiposeError(f"STLSTM: memory {memory} must be above 2 frames, gain {gain} and trust {trust} above 0")
        self.hidden, self.directions, self.alone = hidden, 2 if direction == "both" else 1, alone
        self.trust, self.memory, self.gain = trust, memory, gain
        self.causal = alone or direction == "forward"
        self.context = (0, 0) if alone else (None, 0 if self.causal else None)

    def build(self, spec: FeatureSpec, predicted: FeatureSpec, joints: int) -> None:
        self.check_joints(joints)
        numbers, answers = self.build_tokens(spec, predicted, joints)
        H, D = self.hidden, self.directions
        blocks = 5 if self.trust is None else 6
        tour = self.tree.tour()
        self._tour = list(tour)
        self._last = [len(tour) - 1 - tour[::-1].index(joint) for joint in range(joints)]
        self.reduce = nn.Conv2d(numbers, H, 1)
        self.norm = nn.GroupNorm(1, H)
        self.input = nn.Conv2d(H, D * blocks * H, 1)
        self.recurrent = nn.Parameter(torch.empty(D, blocks, H, 2 * H))
        self.output = nn.Conv2d(D * H, answers, 1)
        for block in self.input.weight.data.chunk(D * blocks):
            nn.init.xavier_uniform_(block)
        for block in self.recurrent.data.flatten(0, 1):
            nn.init.orthogonal_(block)
        if self.trust is not None:
            self.expectation = nn.Parameter(torch.zeros(D, 1, H))
        frames = 1 + (self.memory - 2) * (torch.arange(H) + 0.5) / H
        bias = torch.zeros(D, blocks, H)
        bias[:, 2] = frames.log()
        bias[:, 0] = bias[:, 1] = -frames.log()
        if self.trust is None:
            bias[:, 1:3] -= 1
        self.input.bias.data.copy_(bias.flatten())  # type: ignore[union-attr]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def answer(self, tokens: Float[Tensor, "B T N K 1"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B T A K 1"]:
        shape = valid.shape
        if self.alone:
            tokens, valid = tokens.flatten(0, 1).unsqueeze(1), valid.flatten()[:, None]
        (B, T), D = valid.shape, self.directions
        read = self._read(tokens.flatten(0, 1))
        read = read.reshape(D, B, T, *read.shape[2:])
        side, clip = torch.arange(D, device=valid.device)[:, None, None], torch.arange(B, device=valid.device)[:, None]
        order = self._order(valid)
        hidden, _ = self._scan(read[side, clip, order], self._nothing(read[:, :, 0]))
        found = hidden[side, clip, order.argsort(-1)]
        told = self._told(found.flatten(1, 2))
        return told.view(*shape, *told.shape[1:])

    def answer_state(self, tokens: Float[Tensor, "B N K 1"]) -> State:
        return tuple(s.transpose(0, 1) for s in self._nothing(self._read(tokens)))

    def answer_step(self, tokens: Float[Tensor, "B N K 1"], state: State) -> tuple[Float[Tensor, "B A K 1"], State]:
        read = self._read(tokens)
        before = self._nothing(read) if self.alone else (state[0].transpose(0, 1), state[1].transpose(0, 1))
        hidden, after = self._scan(read.unsqueeze(2), before)
        return self._told(hidden[:, :, 0]), tuple(s.transpose(0, 1) for s in after)

    def _read(self, tokens: Float[Tensor, "N F K 1"]) -> Float[Tensor, "D N V G"]:
        """What each visit's unit makes of its token."""
        gates = self.input(self.norm(self.reduce(tokens))).to(tokens.dtype).squeeze(-1)
        N, G = len(tokens), gates.shape[1] // self.directions
        rows: Tensor = gates[..., self._tour].reshape(N, self.directions, G, len(self._tour))
        return rows.permute(1, 0, 3, 2)

    def _told(self, hidden: Float[Tensor, "D N V H"]) -> Float[Tensor, "N A K 1"]:
        last = hidden[:, :, self._last].permute(1, 0, 3, 2).flatten(1, 2).unsqueeze(-1)
        told: Tensor = self.gain * self.output(last)
        return told.to(hidden.dtype)

    def _nothing(self, read: Float[Tensor, "D B V G"]) -> tuple[Tensor, Tensor]:
        """States before the first frame; before the first visit there is one more, which stays zero."""
        D, B, V, _ = read.shape
        zero = read.new_zeros(D, B, V + 1, self.hidden)
        return zero, zero

    def _order(self, valid: Bool[Tensor, "B T"]) -> Int[Tensor, "D B T"]:
        """The frame that each direction reads at each step: valid frames, then the others, for nobody to use."""
        present = torch.argsort((~valid).to(torch.uint8), dim=1, stable=True)
        if self.directions == 1:
            return present[None]
        step, count = torch.arange(valid.shape[1], device=valid.device), valid.sum(1, keepdim=True)
        return torch.stack([present, present.gather(1, torch.where(step < count, count - 1 - step, step))])

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # steps would be written out one by one
    def _scan(
        self, read: Float[Tensor, "D B T V G"], state: tuple[Tensor, Tensor]
    ) -> tuple[Float[Tensor, "D B T V H"], tuple[Tensor, Tensor]]:
        """States of all visits, and those after the last frame. A step takes all visits v of frames t with one v + t."""
        T, V = read.shape[2:4]
        numbers, sizes = _diagonals(T, V)
        order = torch.tensor(numbers, device=read.device)
        chosen = torch.split(read.flatten(2, 3)[:, :, order], sizes, dim=2)
        hidden, memory = state
        found = []
        with torch.autocast(read.device.type, enabled=False):
            for number, gates in enumerate(chosen):
                first, end = max(0, number - T + 1), min(V, number + 1)
                # Row v of a state is visit v - 1, the neighbour of visit v along the limbs; its own, one frame ago, is row v + 1.
                spatial, temporal = slice(first, end), slice(first + 1, end + 1)
                heard = torch.cat([hidden[:, :, spatial], hidden[:, :, temporal]], dim=-1)
                h, c = self._cell(gates, heard, memory[:, :, spatial], memory[:, :, temporal])
                hidden = torch.cat([hidden[:, :, : first + 1], h, hidden[:, :, end + 1 :]], dim=2)
                memory = torch.cat([memory[:, :, : first + 1], c, memory[:, :, end + 1 :]], dim=2)
                found.append(h)
        states = torch.cat(found, dim=2)[:, :, order.argsort()]
        return states.view(*read.shape[:4], self.hidden), (hidden, memory)

    def _cell(
        self,
        gates: Float[Tensor, "D B n G"],
        heard: Float[Tensor, "D B n H2"],
        spatial: Float[Tensor, "D B n H"],
        temporal: Float[Tensor, "D B n H"],
    ) -> tuple[Float[Tensor, "D B n H"], Float[Tensor, "D B n H"]]:
        """New hidden state and memory, from the token's share of the gates and the two neighbours' states."""
        H = self.hidden
        weight = self.recurrent.to(gates.dtype).flatten(1, 2)
        added = torch.bmm(heard.flatten(1, 2), weight.transpose(1, 2)).view(gates.shape)
        active = gates[..., : 5 * H] + added[..., : 5 * H]
        i, f_s, f_t, o = torch.sigmoid(active[..., : 4 * H]).chunk(4, dim=-1)
        new, kept = i * torch.tanh(active[..., 4 * H :]), f_s * spatial + f_t * temporal
        if self.trust is None:
            memory = new + kept
        else:
            expected = torch.tanh(added[..., 5 * H :] + self.expectation.to(gates.dtype).unsqueeze(1))
            tau = torch.exp(-self.trust * (expected - torch.tanh(gates[..., 5 * H :])).square())
            memory = tau * new + (1 - tau) * kept
        return o * torch.tanh(memory), memory


@lru_cache(maxsize=64)
def _diagonals(frames: int, visits: int) -> tuple[list[int], list[int]]:
    """Units (t, v) as t * visits + v, in the order of their step v + t, and how many there are to each step.

    No tensors: those made while scoring could not be kept for a later gradient.
    """
    visit = torch.arange(visits)
    step = torch.arange(frames)[:, None] + visit
    return (step * visits + visit).flatten().argsort().tolist(), torch.bincount(step.flatten()).tolist()


__all__ = ["STLSTM"]
