"""The person's solid body: lofted sections around the skeleton, skinned to its segments.

Every part is a stack of elliptical rings (a loft) in the rest pose. A vertex carries its place at rest, normal, place
in the texture atlas and up to all segments' weights; a clip's vertices are the weighted sum of the segments' rigid
motions (linear blend skinning).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bipose_lit.datasets.synthetic.body import INDEX, JOINTS, PARENTS

Weights = Mapping[str, np.ndarray]


@dataclass
class Loft:
    """One part: rings x (segments + 1) vertices at rest; the seam (first = last column) is at the section's back.

    Attributes:
        name: the part's name, also that of its texture.
        points: (rings, segments + 1, 3) metres, rest pose.
        weights: joint name -> (rings, segments + 1) weights that sum to one over joints.
        region: which body region the part counts as when it hides a joint.
    """

    name: str
    points: np.ndarray
    weights: dict[str, np.ndarray]
    region: str


@dataclass
class BodyMesh:
    """All parts in one vertex list.

    Attributes:
        points, normals: (V, 3) rest pose.
        uv: (V, 2) pixels in the atlas.
        faces: (F, 3) vertex indices, anticlockwise seen from outside.
        region: (F,) index into `regions`.
        weights: (V, 22).
        lofts: the parts, for painting.
        rects: part name -> (x, y, width, height) in the atlas.
        atlas_size: (height, width).
    """

    points: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    faces: np.ndarray
    region: np.ndarray
    regions: tuple[str, ...]
    weights: np.ndarray
    lofts: list[Loft]
    rects: dict[str, tuple[int, int, int, int]]
    atlas_size: tuple[int, int]

    def pose(self, positions: np.ndarray, frames: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Skins the mesh.

        Args:
            positions: (T, 22, 3) joints, metres.
            frames: (T, 22, 3, 3) segment orientations.
            rest: (22, 3) joints at rest.

        Returns:
            (T, V, 3) float32 points in the world and unit normals.
        """
        T, V = len(positions), len(self.points)
        points = np.zeros((T, V, 3), np.float32)
        normals = np.zeros((T, V, 3), np.float32)
        for j in range(len(JOINTS)):
            rows = np.flatnonzero(self.weights[:, j] > 1e-4)
            if not len(rows):
                continue
            w = self.weights[rows, j, None].astype(np.float32)
            turn = np.swapaxes(frames[:, j], 1, 2).astype(np.float32)
            local = (self.points[rows] - rest[j]).astype(np.float32) * w
            points[:, rows] += local @ turn + w * positions[:, j, None].astype(np.float32)
            normals[:, rows] += (self.normals[rows].astype(np.float32) * w) @ turn
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        return points, normals


def rest_pose(positions: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """(22, 3) joints at rest, recovered from a motion: each bone's mean offset in its parent segment's frame."""
    rest = np.zeros((len(JOINTS), 3))
    for j, p in enumerate(PARENTS[1:], start=1):
        offset = np.einsum("tji,tj->ti", frames[:, p], positions[:, j] - positions[:, p]).mean(0)
        rest[j] = rest[p] + offset
    low = min(rest[INDEX["left_toe"], 1], rest[INDEX["right_toe"], 1])
    rest[:, 1] -= low - 0.012 * (rest[INDEX["head_top"], 1] - low) / 0.988
    return rest


def knots(x: np.ndarray, table: Sequence[Sequence[float]]) -> np.ndarray:
    """Interpolates the rows (x, a, b, ...) of `table` at `x` by monotone cubic segments: (n, columns - 1)."""
    t = np.asarray(table, dtype=np.float64)
    xs, ys = t[:, 0], t[:, 1:]
    slope = np.diff(ys, axis=0) / np.diff(xs)[:, None]
    tangent = np.zeros_like(ys)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    same = slope[:-1] * slope[1:] > 0
    total = np.where(same, slope[:-1] + slope[1:], 1.0)
    tangent[1:-1] = np.where(same, 2 * slope[:-1] * slope[1:] / total, 0.0)
    i = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)
    h = (xs[i + 1] - xs[i])[:, None]
    s = np.clip((x - xs[i])[:, None] / h, 0.0, 1.0)
    out = (
        (1 + 2 * s) * (1 - s) ** 2 * ys[i]
        + s * (1 - s) ** 2 * h * tangent[i]
        + s**2 * (3 - 2 * s) * ys[i + 1]
        + s**2 * (s - 1) * h * tangent[i + 1]
    )
    return np.asarray(out)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; `low` may exceed `high`."""
    s = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(s * s * (3 - 2 * s))


def loft(
    name: str,
    centres: np.ndarray,
    side: np.ndarray,
    front: np.ndarray,
    weights: Weights,
    region: str,
    segments: int,
    exponent: float | np.ndarray = 2.0,
) -> Loft:
    """Builds a part of superelliptical rings.

    Args:
        name: the part's name.
        centres: (n, 3) ring centres, metres.
        side: (n, 3) semi-axes to the person's left.
        front: (n, 3) semi-axes to the front.
        weights: joint name -> (n,) or (n, segments + 1) weights; normalised here.
        region: body region.
        segments: columns around.
        exponent: 2 is an ellipse, more is boxier; scalar or (n,).
    """
    phi = np.linspace(0, 2 * np.pi, segments + 1)
    power = 2.0 / np.broadcast_to(np.asarray(exponent, dtype=np.float64), (len(centres),))[:, None]
    s, c = np.sin(phi)[None], -np.cos(phi)[None]
    a = np.sign(s) * np.abs(s) ** power
    b = np.sign(c) * np.abs(c) ** power
    points = centres[:, None] + a[..., None] * side[:, None] + b[..., None] * front[:, None]
    points[:, -1] = points[:, 0]
    full = {
        j: np.broadcast_to(w[:, None] if w.ndim == 1 else w, points.shape[:2]).astype(np.float64)
        for j, w in weights.items()
    }
    total = np.maximum(sum(full.values()), 1e-9)
    return Loft(name, points, {j: w / total for j, w in full.items()}, region)


def capped(radius: np.ndarray, first: bool = True, last: bool = True) -> np.ndarray:
    """Closes a profile of radii at its ends."""
    out = radius.copy()
    if first:
        out[0] = 1e-4
    if last:
        out[-1] = 1e-4
    return out


def loft_normals(points: np.ndarray) -> np.ndarray:
    """Outward unit normals (rings, columns, 3) of a loft; degenerate rings take their neighbours'."""
    along = np.gradient(points, axis=0)
    around = np.empty_like(points)
    around[:, 1:-1] = points[:, 2:] - points[:, :-2]
    around[:, 0] = around[:, -1] = points[:, 1] - points[:, -2]
    n = np.cross(around, along)
    size = np.linalg.norm(n, axis=-1, keepdims=True)
    thin = np.linalg.norm(points - points[:, :-1].mean(1, keepdims=True), axis=-1).max(1) < 2e-3
    unit = n / np.maximum(size, 1e-12)
    centre = points[:, :-1].mean(1, keepdims=True)
    body = ~thin
    if (unit[body] * (points - centre)[body]).sum() < 0:
        unit = -unit
    for end, inner in ((0, 1), (len(points) - 1, len(points) - 2)):
        if thin[end]:
            axis = centre[end, 0] - centre[inner, 0]
            axis = axis / max(float(np.linalg.norm(axis)), 1e-9)
            unit[end] = axis
    return np.asarray(unit)


def assemble(lofts: Sequence[Loft], texture: Mapping[str, tuple[int, int]]) -> BodyMesh:
    """Joins parts into one mesh and packs their textures.

    Args:
        lofts: the parts.
        texture: part name -> (width, height) of its texture in pixels; left and right parts have their own.
    """
    rects, atlas = pack({p.name: texture[p.name] for p in lofts})
    points, normals, uv, faces, region, weights = [], [], [], [], [], []
    regions = tuple(dict.fromkeys(p.region for p in lofts))
    base = 0
    for part in lofts:
        n, m = part.points.shape[:2]
        normal = loft_normals(part.points)
        x, y, w, h = rects[part.name]
        u = x + 0.5 + (w - 2.0) * np.linspace(0, 1, m)
        v = y + 0.5 + (h - 2.0) * np.linspace(0, 1, n)
        grid = base + np.arange(n * m).reshape(n, m)
        a, b, c, d = grid[:-1, :-1].ravel(), grid[:-1, 1:].ravel(), grid[1:, 1:].ravel(), grid[1:, :-1].ravel()
        tri = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
        p = part.points.reshape(-1, 3)
        q = normal.reshape(-1, 3)
        face_normal = np.cross(p[tri[:, 1] - base] - p[tri[:, 0] - base], p[tri[:, 2] - base] - p[tri[:, 0] - base])
        if (face_normal * q[tri - base].mean(1)).sum() < 0:
            tri = tri[:, ::-1]
        area = np.linalg.norm(face_normal, axis=1)
        tri = tri[area > 1e-9]
        weight = np.zeros((n * m, len(JOINTS)))
        for joint, value in part.weights.items():
            weight[:, INDEX[joint]] = value.ravel()
        points.append(p)
        normals.append(q)
        uv.append(np.stack(np.broadcast_arrays(u[None], v[:, None]), -1).reshape(-1, 2))
        faces.append(tri)
        region.append(np.full(len(tri), regions.index(part.region)))
        weights.append(weight)
        base += n * m
    return BodyMesh(
        np.concatenate(points), np.concatenate(normals), np.concatenate(uv), np.concatenate(faces),
        np.concatenate(region), regions, np.concatenate(weights), list(lofts), rects, atlas,
    )  # fmt: skip


def pack(
    sizes: Mapping[str, tuple[int, int]], width: int = 384
) -> tuple[dict[str, tuple[int, int, int, int]], tuple[int, int]]:
    """Shelf packing: part name -> (x, y, w, h), and the atlas' (height, width)."""
    rects: dict[str, tuple[int, int, int, int]] = {}
    x = y = shelf = 0
    for name in sorted(sizes, key=lambda k: (-sizes[k][1], k)):
        w, h = sizes[name]
        if x + w > width:
            x, y, shelf = 0, y + shelf, 0
        rects[name] = (x, y, w, h)
        x, shelf = x + w, max(shelf, h)
    return rects, (y + shelf, width)
