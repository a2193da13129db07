"""Largest pixels of maps, and where between the pixels the peak is."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TINY = 1e-10


def peak(rows: Float[Tensor, "M P"]) -> tuple[Int[Tensor, " M"], Float[Tensor, " M"]]:
    """Index and value of the first largest entry of each row."""
    # numpy finds it several times faster than torch.max on the CPU.
    index = torch.from_numpy(rows.numpy().argmax(axis=1)) if rows.device.type == "cpu" else rows.argmax(dim=1)
    return index, rows.gather(1, index.unsqueeze(1)).squeeze(1)


def quarter(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> Float[Tensor, "M 2"]:
    """A quarter pixel towards the higher neighbour on each axis; nothing along an axis where pixel x, y is the outermost."""
    triple, cx, cy = _along(rows, x, y, w, h)
    towards = torch.sign(triple[..., 2] - triple[..., 0]) / 4
    return towards * torch.stack([cx == x, cy == y], dim=-1)


def parabola(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> Float[Tensor, "M 2"]:
    """Vertex of the parabola through the logarithms of three pixels on each axis, from the largest pixel x, y."""
    triple, cx, cy = _along(rows, x, y, w, h)
    before, middle, after = torch.log(triple.clamp(min=_TINY)).unbind(-1)
    bend = before - 2 * middle + after
    vertex = 0.5 * (before - after) / torch.where(bend < 0, bend, torch.inf)
    inwards = torch.stack([cx - x, cy - y], dim=-1)
    # The true peak lies within half a pixel of the largest one.
    return (torch.where(bend < 0, vertex + inwards, 0)).clamp(-0.5, 0.5)


def dark(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int, sigma: float
) -> Float[Tensor, "M 2"]:
    """One Newton step on the logarithm of the smoothed map (Zhang et al. 2020); `parabola` where that leaves the map.

    Args:
        rows: maps, row by row.
        x: columns of the largest pixels.
        y: their rows.
        w: width of the maps.
        h: height of the maps.
        sigma: of the smoothing Gaussian in pixels: that of the targets.
    """
    offset = parabola(rows, x, y, w, h)
    # Zhang et al. smooth with a kernel as wide as the training Gaussian: 11 taps for sigma 2.
    r = max(1, round(2.5 * sigma))
    reach = r + 2
    inside = (x >= reach) & (x < w - reach) & (y >= reach) & (y < h - reach)
    chosen = inside.nonzero().squeeze(1)
    if not len(chosen):
        return offset
    around = torch.arange(-reach, reach + 1, device=rows.device)
    steps = (around[:, None] * w + around).flatten()
    start = chosen * rows.shape[1] + y[chosen] * w + x[chosen]
    patch = rows.reshape(-1)[start[:, None] + steps].view(-1, 2 * reach + 1, 2 * reach + 1)
    taps = torch.exp(-0.5 * (torch.arange(-r, r + 1, device=rows.device) / sigma) ** 2)
    blur = torch.stack([torch.nn.functional.pad(taps / taps.sum(), (i, 4 - i)) for i in range(5)])  # (5, 2 r + 5)
    p = torch.log((blur @ patch @ blur.T).clamp(min=_TINY))
    dx, dy = (p[:, 2, 3] - p[:, 2, 1]) / 2, (p[:, 3, 2] - p[:, 1, 2]) / 2
    dxx = (p[:, 2, 4] - 2 * p[:, 2, 2] + p[:, 2, 0]) / 4
    dyy = (p[:, 4, 2] - 2 * p[:, 2, 2] + p[:, 0, 2]) / 4
    dxy = (p[:, 3, 3] - p[:, 1, 3] - p[:, 3, 1] + p[:, 1, 1]) / 4
    det = dxx * dyy - dxy * dxy
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / det.unsqueeze(-1)
    # A Newton step of more than a pixel leaves its peak; a flat or saddle-shaped top has no maximum.
    sound = (det > 0) & (dxx < 0) & (step.abs() <= 1).all(-1)
    offset[chosen[sound]] = step[sound]
    return offset


def _along(
    rows: Float[Tensor, "M P"], x: Int[Tensor, " M"], y: Int[Tensor, " M"], w: int, h: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Three pixels along x and along y, shifted inwards at the map's edge: (M, 2, 3), and their middles x, y."""
    cx, cy = x.clamp(1, w - 2), y.clamp(1, h - 2)
    side = torch.arange(-1, 2, device=rows.device)
    across = (y * w + cx).unsqueeze(1) + side
    down = (cy * w + x).unsqueeze(1) + side * w
    return rows.gather(1, torch.cat([across, down], dim=1)).view(-1, 2, 3), cx, cy


__all__ = ["dark", "parabola", "peak", "quarter"]
