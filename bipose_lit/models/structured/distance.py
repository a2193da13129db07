"""Generalised distance transforms: the best place of a child for every place of its parent, under a spring.

Felzenszwalb and Huttenlocher 2005 and 2012, for scores (larger is better) in the place of costs, along the last axis:

    D(i) = max_j  s(j) - a (j - i - m)^2

where j is the child's place, i the parent's, m the distance at rest and a the stiffness. Two ways lead to the same numbers.
`dense` is the definition, n^2 per line, but nothing else than sums and maxima of whole arrays; `envelope` is linear. On
processors the definition is the faster one up to some hundred places (benchmarks/structured.py measures both), so `transform`
takes it for every usual heatmap.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

LONGEST = 512
"""Places of a line up to which `transform` takes the definition."""

_CHUNK = 2**16  # numbers that are worked on at once: what a core's cache holds


def transform(
    scores: Float[Tensor, "N E R n"], stiffness: Float[Tensor, " E"], shift: Float[Tensor, " E"]
) -> Float[Tensor, "N E R n"]:
    """D of every line; its gradient is that of the winning place.

    Args:
        scores: R lines of n places for each of N frames and E springs.
        stiffness: a of each spring, per squared place; above 0.
        shift: m of each spring, in places.
    """
    wanted = torch.is_grad_enabled() and any(v.requires_grad for v in (scores, stiffness, shift))
    n = scores.shape[-1]
    with torch.no_grad():
        if n > LONGEST:
            lines = scores.shape[:-1]
            each = [v[:, None].expand(lines).flatten() for v in (stiffness, shift)]
            winner = envelope(scores.reshape(-1, n), *each).view(scores.shape)
        else:
            best, winner = dense(scores, stiffness, shift, remember=wanted)
            if not wanted:
                return best
    away = winner - torch.arange(n, device=scores.device) - shift[:, None, None]
    return scores.gather(-1, winner) - stiffness[:, None, None] * away.square()


def dense(
    scores: Float[Tensor, "N E R n"],
    stiffness: Float[Tensor, " E"],
    shift: Float[Tensor, " E"],
    remember: bool = True,
) -> tuple[Float[Tensor, "N E R n"], Int[Tensor, "N E R n"]]:
    """D by its definition, and the j that wins at every i (the last of equals); 0 where that is not to be remembered."""
    n = scores.shape[-1]
    place = torch.arange(n, device=scores.device, dtype=scores.dtype)
    cost = stiffness[:, None, None] * (place[:, None] - place - shift[:, None, None]).square()  # (E, j, i)
    values, winners = [], []
    frames = max(1, _CHUNK // max(1, scores.shape[1:].numel()))
    for some in torch.split(scores, frames):
        best = some[..., :1] - cost[:, None, 0]
        trial, winner = torch.empty_like(best), torch.zeros_like(best)
        for j in range(1, n):
            torch.sub(some[..., j : j + 1], cost[:, None, j], out=trial)
            torch.maximum(best, trial, out=best)
        # A second pass of floats is several times faster than masks of booleans in the first.
        for j in range(1, n if remember else 1):
            torch.sub(some[..., j : j + 1], cost[:, None, j], out=trial)
            torch.maximum(winner, trial.ge_(best).mul_(j), out=winner)
        values.append(best)
        winners.append(winner.long())
    return torch.cat(values), torch.cat(winners)


def envelope(
    scores: Float[Tensor, "M n"], stiffness: Float[Tensor, " M"], shift: Float[Tensor, " M"]
) -> Int[Tensor, "M n"]:
    """The j that wins at every i, in linear time per line; arguments as in `transform`, but one spring per line.

    Parabolas enter from the left; one that a newcomer covers wherever it still won leaves. All lines go on together, and those
    that drop several parabolas at once by themselves.
    """
    M, n = scores.shape
    place = torch.arange(n, device=scores.device, dtype=scores.dtype)
    lifted = stiffness[:, None] * place.square() - scores
    every = torch.arange(M, device=scores.device)
    winner = scores.new_zeros(M, n, dtype=torch.long)
    start = scores.new_full((M, n + 1), torch.inf)  # where each parabola of the envelope takes over from the one before
    start[:, 0] = -torch.inf
    top = torch.zeros_like(every)
    for j in range(1, n):
        meet, rows = scores.new_empty(M), every
        while len(rows):
            under = winner[rows, top[rows]]
            meet[rows] = (lifted[rows, j] - lifted[rows, under]) / (2 * stiffness[rows] * (j - under))
            rows = rows[meet[rows] <= start[rows, top[rows]]]
            top[rows] -= 1
        top += 1
        winner[every, top], start[every, top] = j, meet
    start[every, top + 1] = torch.inf
    chosen, at = torch.empty_like(winner), torch.zeros_like(top)
    for i in range(n):
        rows = every
        while len(rows):
            rows = rows[start[rows, at[rows] + 1] < i + shift[rows]]
            at[rows] += 1
        chosen[:, i] = winner[every, at]
    return chosen


__all__ = ["LONGEST", "dense", "envelope", "transform"]
