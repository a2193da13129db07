"""The contracts of heads over time and of refiners."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from bipose_lit.models.base import Refiner, State, TemporalHead
from bipose_lit.testing.clauses import MAPS, Report, built_part
from bipose_lit.testing.over_time import OverTime, check_over_time
from bipose_lit.types import FeatureSpec


def check_temporal_head(
    head: TemporalHead,
    spec: FeatureSpec = MAPS,
    size: tuple[int, int] = (3, 4),
    frames: int = 7,
    tolerance: float = 1e-5,
) -> None:
    """Checks a head that was not built yet against the contract of `TemporalHead`.

    Shapes; identity at the start; frames that are not valid influence nothing, whatever they hold, at the end of a
    clip and inside; clips of a batch do not see each other; `causal` and `context` are true; `step` equals `forward`;
    gradients are finite and reach every parameter; two runs are equal; float64 works; the configuration rebuilds it;
    the state dict fits the rebuilt head.

    Args:
        head: as its constructor makes it; it is copied.
        spec: features to build it for.
        size: height and width of the map; (1, 1) for a head of the `pool` slot.
        frames: length of the test clips.
        tolerance: largest difference, relative to features of unit variance, that counts as equal in float64 (a thousand
            times that in float32).

    Raises:
        AssertionError: lists every broken clause.
    """
    report, draw = Report(head), torch.Generator().manual_seed(0)
    how = OverTime(
        kind="head",
        inputs=("features",),
        build=lambda part: part.build(spec),
        run=lambda part, x, valid: part(x[0], valid),
        start=lambda part, x: part.init_state(x[0]),
        step=lambda part, x, state: part.step(x[0], state),
    )
    fresh = built_part(copy.deepcopy(head), how.build).double().eval()
    check_over_time(report, head, fresh, how, draw, ((spec.channels, *size),), frames, tolerance)
    report.close()


def check_refiner(
    refiner: Refiner,
    predicts: Literal["heatmaps", "xy"] = "heatmaps",
    spec: FeatureSpec = MAPS,
    stride: int = 32,
    joints: int = 5,
    size: tuple[int, int] = (4, 5),
    frames: int = 6,
    tolerance: float = 1e-5,
) -> None:
    """Checks a refiner that was not built yet against the contract of `Refiner`, clause by clause as `check_temporal_head`.

    Predictions and features are watched alike: padding in either influences nothing, and no frame of either reaches further than
    `context` says. A refiner whose `identity` is False must not start as the identity; any other must.

    Args:
        refiner: as its constructor makes it; it is copied.
        predicts: what the decoder before it predicts.
        spec: features to build it for.
        stride: of the heatmaps against the crop; no effect on coordinates.
        joints: number of joints K.
        size: height and width of the features' map.
        frames: length of the test clips.
        tolerance: largest difference, relative to predictions of unit variance, that counts as equal in float64 (times 1000 in
            float32).

    Raises:
        AssertionError: lists every broken clause.
    """
    report, draw = Report(refiner), torch.Generator().manual_seed(0)
    maps = predicts == "heatmaps"
    predicted = FeatureSpec(joints, stride) if maps else FeatureSpec(2 * joints, spec.stride)
    rows, columns = (n * spec.stride // stride for n in size)

    def step(part: Refiner, x: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
        encoded, state = part.step({predicts: x[0]}, x[1], state)
        return encoded[predicts], state

    how = OverTime(
        kind="refiner",
        inputs=("predictions", "features"),
        build=lambda part: part.build(spec, predicted, joints),
        run=lambda part, x, valid: part({predicts: x[0]}, x[1], valid)[predicts],
        start=lambda part, x: part.init_state({predicts: x[0]}, x[1]),
        step=step,
    )
    fresh = built_part(copy.deepcopy(refiner), how.build).double().eval()
    shapes = ((joints, rows, columns) if maps else (joints, 2), (spec.channels, *size))
    check_over_time(report, refiner, fresh, how, draw, shapes, frames, tolerance, refiner.identity)
    report.close()


__all__ = ["check_refiner", "check_temporal_head"]
