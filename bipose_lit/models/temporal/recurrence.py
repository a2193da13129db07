"""The ConvLSTM recurrence itself, written so that a laptop can train it.

Shi et al. 2015 without peepholes. The input convolution of all frames is one call made by the caller; here only the
hidden convolution runs in the time loop, both directions as groups of one convolution. The backward pass is written
out: the local derivatives of all gates are computed for all frames at once and the weights' gradient is one
    convolution over the whole clip,
which is two to three times faster than autograd through the loop.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight


def cell(
    gates: Float[Tensor, "*rest G h w"], memory: Float[Tensor, "*rest H h w"]
) -> tuple[Float[Tensor, "*rest H h w"], Float[Tensor, "*rest H h w"]]:
    """One LSTM update from pre-activations (input, forget, output, candidate; G = 4 H): new hidden and new memory."""
    hidden = memory.shape[-3]
    squashed = torch.sigmoid(gates.narrow(-3, 0, 3 * hidden))
    i, f, o = squashed.chunk(3, dim=-3)
    memory = torch.addcmul(f * memory, i, torch.tanh(gates.narrow(-3, 3 * hidden, hidden)))
    return o * torch.tanh(memory), memory


class _Scan(torch.autograd.Function):
    """Hidden states of all frames from the input's share of the gates; see `scan` for the shapes."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor) -> Tensor:
        T, B, D, G, h, w = gates.shape
        H, k = weight.shape[2], weight.shape[3]
        grouped = weight.reshape(D * G, H, k, k)
        hidden = gates.new_zeros(T + 1, B, D * H, h, w)
        memory = gates.new_zeros(T + 1, B, D, H, h, w)
        active = torch.empty_like(gates, memory_format=torch.contiguous_format)
        squashed = gates.new_empty(T, B, D, H, h, w)
        for t in range(T):
            a = active[t]
            if t:
                torch.add(gates[t], functional.conv2d(hidden[t], grouped, padding=k // 2, groups=D).view_as(a), out=a)
            else:
                a.copy_(gates[t])
            a[:, :, : 3 * H].sigmoid_()
            a[:, :, 3 * H :].tanh_()
            torch.mul(a[:, :, H : 2 * H], memory[t], out=memory[t + 1])
            memory[t + 1].addcmul_(a[:, :, :H], a[:, :, 3 * H :])
            torch.tanh(memory[t + 1], out=squashed[t])
            torch.mul(a[:, :, 2 * H : 3 * H], squashed[t], out=hidden[t + 1].view(B, D, H, h, w))
        ctx.save_for_backward(weight, hidden, memory, active, squashed)
        return hidden[1:].view(T, B, D, H, h, w)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        weight, hidden, memory, active, squashed = ctx.saved_tensors
        (grad,) = grads
        T, B, D, G, h, w = active.shape
        H, k = weight.shape[2], weight.shape[3]
        i, f, o, g = active.split(H, dim=3)
        # d(loss)/d(pre-activation) = local * d(loss)/d(memory), but for the output gate local * d(loss)/d(hidden).
        local = torch.empty_like(active)
        torch.mul(active[:, :, :, : 3 * H], 1 - active[:, :, :, : 3 * H], out=local[:, :, :, : 3 * H])
        local[:, :, :, :H] *= g
        local[:, :, :, H : 2 * H] *= memory[:-1]
        local[:, :, :, 2 * H : 3 * H] *= squashed
        torch.mul(i, 1 - g * g, out=local[:, :, :, 3 * H :])
        through = o * (1 - squashed * squashed)
        transposed = weight.flip(-1, -2).transpose(1, 2).reshape(D * H, G, k, k).contiguous()
        d_gates = torch.empty_like(active)
        d_memory = torch.zeros_like(memory[0])
        d_hidden = grad[T - 1]
        for t in range(T - 1, -1, -1):
            d_memory.addcmul_(d_hidden, through[t])
            d, slope = d_gates[t].view(B, D, 4, H, h, w), local[t].view(B, D, 4, H, h, w)
            torch.mul(slope, d_memory.unsqueeze(2), out=d)
            torch.mul(slope[:, :, 2], d_hidden, out=d[:, :, 2])
            if t:
                d_memory.mul_(f[t])
                back = functional.conv2d(d_gates[t].view(B, D * G, h, w), transposed, padding=k // 2, groups=D)
                d_hidden = grad[t - 1] + back.view(B, D, H, h, w)
        d_weight = conv2d_weight(  # type: ignore[no-untyped-call]
            hidden[:-1].reshape(T * B, D * H, h, w),
            (D * G, H, k, k),
            d_gates.view(T * B, D * G, h, w),
            padding=k // 2,
            groups=D,
        )
        return d_gates, d_weight.view_as(weight)


def scan(gates: Float[Tensor, "T B D G h w"], weight: Float[Tensor, "D G H k k"]) -> Float[Tensor, "T B D H h w"]:
    """Runs D independent ConvLSTMs from zero states over T frames.

    Args:
        gates: what the input and the bias add to the gates (G = 4 H: input, forget, output, candidate).
        weight: hidden-to-gates kernels, k odd.

    Returns:
        The hidden states. Computed in the gates' type with autocast off: a recurrence in half precision drifts.
    """
    with torch.autocast(gates.device.type, enabled=False):
        weight = weight.to(gates.dtype)
        if not torch.compiler.is_compiling():
            scanned: Tensor = _Scan.apply(gates, weight)
            return scanned
        T, B, D, _, h, w = gates.shape
        H = weight.shape[2]
        hidden = memory = gates.new_zeros(B, D, H, h, w)
        out = []
        for t in range(T):
            added = hidden_gates(hidden, weight)
            hidden, memory = cell(gates[t] + added, memory)
            out.append(hidden)
        return torch.stack(out)


def hidden_gates(hidden: Float[Tensor, "B D H h w"], weight: Float[Tensor, "D G H k k"]) -> Float[Tensor, "B D G h w"]:
    """What the hidden states add to the gates."""
    B, D, H, h, w = hidden.shape
    k = weight.shape[-1]
    grouped = weight.reshape(-1, H, k, k).to(hidden.dtype)
    added = functional.conv2d(hidden.reshape(B, D * H, h, w), grouped, padding=k // 2, groups=D)
    return added.view(B, D, -1, h, w)


__all__ = ["cell", "hidden_gates", "scan"]
