"""COCO's ten numbers by other people's programs: pycocotools (the reference) and faster-coco-eval (its C++ remake).

Both are fed from memory and say nothing. They are here to check `metrics.coco` against, and for papers whose readers expect
the one or the other.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.metrics import coco
from bipose_lit.metrics.instances import Detected, Truth
from bipose_lit.metrics.oks import extent
from bipose_lit.types import BiposeError

Engine = Callable[..., dict[str, float]]


def with_pycocotools(
    truth: Truth,
    detected: Detected,
    sigmas: Sequence[float] | NDArray[np.float64],
    area: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """`metrics.coco.average_precision` by pycocotools; the same arguments, numbers and errors."""
    coco.check(truth, detected, sigmas)
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labels, results = (_index(COCO(), content) for content in as_dicts(truth, detected, area))
        judge = COCOeval(labels, results, "keypoints")
        judge.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        return _scores(judge)


def with_faster_coco_eval(
    truth: Truth,
    detected: Detected,
    sigmas: Sequence[float] | NDArray[np.float64],
    area: NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """`metrics.coco.average_precision` by faster-coco-eval; the same arguments, numbers and errors.

    Raises:
        BiposeError: it is not installed; and as `average_precision`.
    """
    coco.check(truth, detected, sigmas)
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise BiposeError(
            "engine faster-coco-eval is not installed; install it with pip install 'bipose_lit[coco]', "
            "or take engine bipose or pycocotools, which give the same numbers"
        ) from error
    if not len(truth):  # it takes the categories from the annotations
        return dict.fromkeys(coco.NAMES, math.nan)
    with contextlib.redirect_stdout(io.StringIO()):
        labels, results = (_index(COCO(), content) for content in as_dicts(truth, detected, area))
        return _scores(COCOeval_faster(labels, results, "keypoints", kpt_oks_sigmas=list(sigmas)))


ENGINES: dict[str, Engine] = {
    "bipose": coco.average_precision,
    "pycocotools": with_pycocotools,
    "faster-coco-eval": with_faster_coco_eval,
}
"""`average_precision` by the name of who computes it."""


def find_engine(name: str) -> Engine:
    """One of `ENGINES`.

    Raises:
        BiposeError: an unknown name.
    """
    if name not in ENGINES:
        raise BiposeError(f"engine {name!r} is unknown; it is one of {', '.join(ENGINES)}")
    return ENGINES[name]


def as_dicts(
    truth: Truth, detected: Detected, area: NDArray[np.floating] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels and results as the dicts that COCO's files hold, for their programs.

    Annotation ids count from 1, as these programs take an id of 0 for "not matched". Results have the fields that `loadRes`
    adds.
    """
    images = [{"id": i} for i in truth.images.tolist()]
    categories = [{"id": i, "name": str(i)} for i in np.unique(truth.category).tolist()]
    keypoints = np.concatenate([truth.joints, truth.visible[..., None]], axis=2).reshape(
        len(truth), 3 * truth.visible.shape[1]
    )
    labels = [
        {
            "id": i, "image_id": image, "category_id": category, "keypoints": points, "bbox": box, "area": size,
            "iscrowd": int(crowd), "num_keypoints": 0 if ignore else 1,
        }
        for i, (image, category, points, box, size, crowd, ignore) in enumerate(zip(
            truth.image.tolist(), truth.category.tolist(), keypoints.tolist(), truth.boxes.tolist(), truth.area.tolist(),
            truth.crowd.tolist(), truth.ignore.tolist(), strict=True,
        ), 1)
    ]  # fmt: skip
    found = np.concatenate([detected.joints, detected.confidence[..., None]], axis=2)
    found = found.reshape(len(detected), 3 * detected.confidence.shape[1])
    areas = extent(detected.joints) if area is None else np.asarray(area, np.float64)
    results = [
        {"id": i, "image_id": image, "category_id": category, "keypoints": points, "score": score, "area": size}
        for i, (image, category, points, score, size) in enumerate(zip(
            detected.image.tolist(), detected.category.tolist(), found.tolist(), detected.score.tolist(), areas.tolist(),
            strict=True,
        ), 1)
    ]  # fmt: skip
    base = {"info": {}, "images": images, "categories": categories}
    return {**base, "annotations": labels}, {**base, "annotations": results}


def _index(holder: Any, content: dict[str, Any]) -> Any:
    holder.dataset = content
    holder.createIndex()
    return holder


def _scores(judge: Any) -> dict[str, float]:
    with np.errstate(over="ignore"):
        judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return {
        name: math.nan if value < 0 else float(value) for name, value in zip(coco.NAMES, judge.stats[:10], strict=True)
    }
