"""COCO's AP and AR by our own numpy and by two other programs, the suppression of doubles, and reading results."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure import hottest, interleave, listed, profile, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.evaluate.coco import read_results
from bipose_lit.metrics.coco import NAMES, average_precision
from bipose_lit.metrics.coco_engines import as_dicts
from bipose_lit.metrics.instances import Detected, Truth
from bipose_lit.metrics.oks import oks_nms
from bipose_lit.skeletons import COCO

IMAGES, PERSONS, DETECTIONS = 5000, 11000, 104_000
"""About those of COCO's val2017 and of the person detections that papers share for it."""
SIGMAS = np.array(COCO.sigmas)


def run(setting: Setting) -> str:
    """The section."""
    images = setting.pick(IMAGES, 50)
    truth, detected = simulated(images, PERSONS * images // IMAGES, DETECTIONS * images // IMAGES)
    setting.tell("loading")
    engines: dict[str, Callable[[], dict[str, float]]] = {
        "bipose": lambda: average_precision(truth, detected, SIGMAS),
        "pycocotools": _pycocotools(truth, detected),
        "faster-coco-eval": _faster(truth, detected),
    }
    found: dict[str, dict[str, float]] = {}
    jobs = {name: partial(_keep, found, name, engine) for name, engine in engines.items()}
    times = interleave(jobs, setting.pick(3, 1), 0.0, setting.tell)
    apart = max(abs(v[n] - found["pycocotools"][n]) for v in found.values() for n in NAMES)
    rows = [[name, t, t.over(times["pycocotools"])] for name, t in times.items()]
    path = setting.work / "results.json"
    path.write_text(json.dumps(as_dicts(truth, detected)[1]["annotations"]))
    others: dict[str, Callable[[], object]] = {
        "suppression by OKS": lambda: oks_nms(detected.joints, detected.score, detected.image, SIGMAS),
        "reading the results": lambda: read_results(path, len(SIGMAS)),
    }
    further = interleave(others, setting.pick(5, 1), 0.0, setting.tell)
    spots = listed(hottest(profile(jobs["bipose"])))
    return paragraphs(
        f"{len(detected):,} detections on {images:,} images with {len(truth):,} labelled persons; from persons in memory, "
        f"each in its program's own form, to the ten numbers, which differ by at most {apart:.0e}.",
        table(["engine", "s", "of pycocotools"], rows),
        table(["step", "s"], [[name, t] for name, t in further.items()]),
        f"What limits our engine now (share of profiled time): {spots}.",
    )


def simulated(images: int, persons: int, detections: int) -> tuple[Truth, Detected]:
    """Labels, half of the images without; detections near them and strays, some images with a hundred."""
    rng = np.random.default_rng(0)
    ids = np.sort(rng.choice(600_000, images, replace=False))
    busy = rng.gamma(0.6, 1, images)
    image = rng.choice(ids, persons, p=busy / busy.sum())
    side, start = np.exp(rng.normal(4.3, 0.8, persons)), rng.uniform(0, 500, (persons, 2))
    K = len(SIGMAS)
    joints = start[:, None] + rng.uniform(0, 1, (persons, K, 2)) * side[:, None, None]
    visible = np.where(rng.random((persons, K)) < 0.65, 2, 0).astype(np.uint8)
    visible[rng.random(persons) < 0.35] = 0
    crowd = rng.random(persons) < 0.02
    truth = Truth(
        images=ids, id=np.arange(1, persons + 1), image=image, category=np.ones(persons, np.int64), joints=joints,
        visible=visible, boxes=np.c_[start, side, side], area=0.6 * side**2, crowd=crowd,
        ignore=crowd | ~visible.any(axis=1),
    )  # fmt: skip
    near = np.repeat(np.arange(persons), rng.poisson(2, persons))
    strays = detections - len(near)
    noise = rng.normal(0, 1, (len(near), K, 2)) * SIGMAS[:, None] * 1.5 * side[near, None, None]
    found = joints[near] + noise * rng.uniform(0, 1, (len(near), 1, 1))
    size = np.exp(rng.normal(4.3, 0.8, (strays, 1, 1)))
    stray = rng.uniform(0, 500, (strays, 1, 2)) + rng.uniform(0, 1, (strays, K, 2)) * size
    odds = rng.gamma(2.0, 1, images)
    order = rng.permutation(detections)
    return truth, Detected(
        image=np.r_[image[near], rng.choice(ids, strays, p=odds / odds.sum())][order],
        category=np.ones(detections, np.int64), joints=np.concatenate([found, stray])[order],
        confidence=rng.random((detections, K)), score=rng.random(detections),
    )  # fmt: skip


def _keep(found: dict[str, dict[str, float]], name: str, engine: Callable[[], dict[str, float]]) -> None:
    found[name] = engine()


def _pycocotools(truth: Truth, detected: Detected) -> Callable[[], dict[str, float]]:
    from pycocotools import coco, cocoeval

    labels, results = _indexed(coco.COCO, truth, detected)
    return lambda: _stats(cocoeval.COCOeval(labels, results, "keypoints"))


def _faster(truth: Truth, detected: Detected) -> Callable[[], dict[str, float]]:
    import faster_coco_eval as faster

    labels, results = _indexed(faster.COCO, truth, detected)
    return lambda: _stats(faster.COCOeval_faster(labels, results, "keypoints"))


def _indexed(index: Any, truth: Truth, detected: Detected) -> list[Any]:
    held: list[Any] = []
    for content in as_dicts(truth, detected):
        with contextlib.redirect_stdout(io.StringIO()):
            held.append(index())
            held[-1].dataset = content
            held[-1].createIndex()
    return held


def _stats(judge: Any) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(NAMES, map(float, judge.stats[:10]), strict=True))
