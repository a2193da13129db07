"""A random split with everything that can go wrong in it."""

from collections.abc import Callable

import numpy as np
import pytest

from bipose_lit.skeletons import PENN_ACTION, Skeleton
from bipose_lit.store import Predictions
from bipose_lit.types import ABSENT, NORMS, OCCLUDED, VISIBLE


def make_predictions(
    seed: int = 0,
    clips: int = 5,
    frames: int = 12,
    skeleton: Skeleton = PENN_ACTION,
    noise: float = 6.0,
    gaps: bool = True,
) -> Predictions:
    rng = np.random.default_rng(seed)
    rows = [(c, f) for c in range(clips) for f in range(frames + c) if not (gaps and rng.random() < 0.1)]
    order = rng.permutation(len(rows))
    clip, frame = np.array(rows, dtype=np.int64)[order].T
    n, k = len(rows), len(skeleton)
    walk = np.cumsum(rng.normal(0, 2, (clips, frames + clips, k, 2)), axis=1) + rng.uniform(50, 150, (clips, 1, k, 2))
    joints = walk[clip, frame]
    visible = rng.choice([ABSENT, OCCLUDED, VISIBLE], (n, k), p=[0.1, 0.3, 0.6]).astype(np.uint8)
    visible[:, 0] = np.where(clip % 2, OCCLUDED, VISIBLE)  # one joint that never changes
    norms = rng.uniform(60, 120, (n, len(NORMS)))
    norms[:, NORMS.index("clip")] = 80 + clip
    norms[:, NORMS.index("head")] = np.nan
    norms[rng.random(n) < 0.2, NORMS.index("torso")] = np.nan
    return Predictions(
        uid=np.sort(rng.choice(10_000, n, replace=False)).astype(np.int64),
        clip=clip,
        frame=frame,
        pred=(joints + rng.normal(0, noise, joints.shape)).astype(np.float32),
        score=rng.uniform(0.05, 1, (n, k)).astype(np.float32),
        joints=(joints * (visible != ABSENT)[..., None]).astype(np.float32),
        visible=visible,
        norms=norms.astype(np.float32),
        fps=np.full(n, 25, np.float32),
        clips=tuple(f"clip{c}" for c in range(clips)),
        clusters=tuple(f"scene{c // 2}" for c in range(clips)),
        joint_names=skeleton.joints,
        data="made/test[clip-box]",
    )


@pytest.fixture
def make() -> Callable[..., Predictions]:
    return make_predictions


@pytest.fixture
def predictions() -> Predictions:
    return make_predictions()
