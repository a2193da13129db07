"""The body's points that the data sets label: the 22 joints and what follows from them (face, belly, pelvis, ...).

Everything is a point of the moving body in the world, projected by the frame's camera, so that derived labels are as exact
as the joints'. The head's points sit where the head is modelled and painted (`anatomy`, `paint`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.synthetic.body import INDEX, JOINTS

Array = NDArray[np.float64]

# Place in the head: x to the person's left and z forward in heads (the head's height / 0.2275 m), t the height over the chin
# as a share of the head's height.
_HEAD: Final[dict[str, tuple[float, float, float]]] = {
    "nose": (0.0, 0.41, 0.110),
    "left_eye": (0.032, 0.505, 0.075), "right_eye": (-0.032, 0.505, 0.075),
    "left_ear": (0.085, 0.44, -0.006), "right_ear": (-0.085, 0.44, -0.006),
    "face": (0.0, 0.42, 0.060), "head_centre": (0.0, 0.5, 0.0), "chin": (0.0, 0.0, 0.055),
    "_back": (0.0, 0.6, -0.097), "_left": (0.077, 0.7, 0.0), "_right": (-0.077, 0.7, 0.0), "_crown": (0.0, 1.0, 0.0),
}  # fmt: skip
_CHIN_BELOW = 0.24  # the chin lies this share of the head segment's length below its joint
_HEAD_UNIT = 0.2275  # metres
_GRAZING = -0.15  # cosine to the line of sight; nose and ears stand out, so a little past the profile they still show

SOURCES: Final[dict[str, tuple[str, ...]]] = {
    "belly": ("pelvis", "chest"),
    "thorax": ("left_shoulder", "right_shoulder"),
    "upper_neck": ("neck", "head"),
}
"""Points that are the middle of two joints."""

NAMES: Final[tuple[str, ...]] = (*JOINTS, *SOURCES, *(name for name in _HEAD if not name.startswith("_")))
HEAD_OUTLINE: Final[tuple[str, ...]] = ("chin", "nose", "left_ear", "right_ear", "_back", "_left", "_right", "_crown")


def world_points(positions: Array, frames: Array) -> dict[str, Array]:
    """Named points of a moving body.

    Args:
        positions: (T, 22, 3) joints, metres.
        frames: (T, 22, 3, 3) orientations of the segments (`body.Motion`).

    Returns:
        {name: (T, 3)} for `NAMES` and `HEAD_OUTLINE`.
    """
    out = {name: positions[:, i] for name, i in INDEX.items()}
    for name, (a, b) in SOURCES.items():
        out[name] = (positions[:, INDEX[a]] + positions[:, INDEX[b]]) / 2
    base, top = positions[:, INDEX["head"]], positions[:, INDEX["head_top"]]
    segment = np.linalg.norm(top - base, axis=-1, keepdims=True)
    height = segment * (1 + _CHIN_BELOW)
    unit = height / _HEAD_UNIT
    left, up, ahead = np.moveaxis(frames[:, INDEX["head"]], -1, 0)
    for name, (x, t, z) in _HEAD.items():
        out[name] = base + left * x * unit + up * (t * height - _CHIN_BELOW * segment) + ahead * z * unit
    return out


def project(world: Array, K: Array, R: Array, t: Array) -> Array:
    """(T, N, 2) pixels of (T, N, 3) world points under T cameras; NaN behind the camera."""
    seen = np.einsum("tij,tnj->tni", R, world) + t[:, None]
    depth = np.where(seen[..., 2:] > 0, seen[..., 2:], np.nan)
    flat = np.einsum("tij,tnj->tni", K, seen / depth)
    return np.asarray(flat[..., :2])


def outside(pixels: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(...,) whether the nearest pixel of points (..., 2) is not in the image (width, height); True for NaN."""
    near = np.round(pixels)
    return np.asarray(~((near >= 0) & (near <= (size[0] - 1, size[1] - 1))).all(-1))


def covered(alpha: NDArray[np.float32], pixels: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(N,) whether a layer covers points: its mean over the 3x3 pixels around exceeds one half (as `RenderedClip` has it).

    Args:
        alpha: (H, W) coverage.
        pixels: (N, 2); points outside the image are not covered.
    """
    H, W = alpha.shape
    out = np.zeros(len(pixels), bool)
    for n in np.flatnonzero(~outside(pixels, (W, H))):
        x, y = (int(v) for v in np.round(pixels[n]))
        out[n] = alpha[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean() > 0.5
    return out


def face_away(world: dict[str, Array], centres: Array) -> dict[str, NDArray[np.bool_]]:
    """{name: (T,)} for nose, eyes and ears: whether the head itself hides the point from the camera.

    Args:
        world: of `world_points`.
        centres: (T, 3) the cameras' places.
    """
    hidden = {}
    for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear"):
        out = world[name] - world["head_centre"]
        to_camera = centres - world[name]
        cosine = (out * to_camera).sum(-1) / np.linalg.norm(out, axis=-1) / np.linalg.norm(to_camera, axis=-1)
        hidden[name] = cosine < _GRAZING
    return hidden
