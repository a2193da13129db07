"""Random labels and detections with everything that COCO's matching minds, and pycocotools' own answer to them."""

import contextlib
import copy
import io

import numpy as np

from bipose_lit.metrics.coco import NAMES
from bipose_lit.metrics.instances import Detected, Truth
from bipose_lit.skeletons import COCO as SKELETON

SIGMAS = np.array(SKELETON.sigmas)


def make_truth(rng, images=6, K=17, most=4, categories=(1,), empty=0.2, crowds=0.15, unlabelled=0.15, few=False):
    """Labels; where `few`, joints lie on a coarse grid, so that OKS ties happen."""
    ids = rng.choice(10_000, images, replace=False)
    image = np.repeat(ids, [0 if rng.random() < empty else rng.integers(1, most + 1) for _ in ids])
    image = rng.permutation(image)
    G = len(image)
    side = rng.choice([20.0, 31.9, 32.0, 32.1, 60.0, 95.9, 96.0, 96.1, 200.0], G)
    area = side**2 * np.where(rng.random(G) < 0.5, 1.0, rng.uniform(0.3, 1, G))
    area[rng.random(G) < 0.03] = 0
    start = rng.integers(0, 3, (G, 2)) * 40.0 if few else rng.uniform(0, 300, (G, 2))
    joints = start[:, None] + rng.uniform(0, 1, (G, K, 2)) * side[:, None, None]
    joints = np.round(joints / 16) * 16 if few else np.round(joints)
    visible = rng.choice([0, 1, 2], (G, K), p=[0.3, 0.2, 0.5]).astype(np.uint8)
    visible[rng.random(G) < unlabelled] = 0
    for i in range(1, G):  # the same person labelled twice
        if rng.random() < 0.1:
            joints[i], visible[i], area[i], image[i] = joints[i - 1], visible[i - 1], area[i - 1], image[i - 1]
    joints[visible == 0] = 0
    crowd = rng.random(G) < crowds
    return Truth(
        images=ids.astype(np.int64), id=rng.permutation(G).astype(np.int64) + 1, image=image.astype(np.int64),
        category=rng.choice(categories, G).astype(np.int64), joints=joints, visible=visible,
        boxes=np.concatenate([start, np.repeat(side[:, None], 2, 1)], axis=1), area=area, crowd=crowd,
        ignore=crowd | ~visible.any(axis=1),
    )  # fmt: skip


def make_detected(rng, truth, sigmas=SIGMAS, extra=2.0, ties=False, blur=1.0):
    """Detections near labels and elsewhere; where `ties`, with few distinct scores and doubles."""
    G, K = truth.visible.shape
    near = rng.permutation(np.repeat(np.arange(G), rng.choice([0, 1, 1, 2, 4], G)))
    noise = rng.normal(0, 1, (len(near), K, 2)) * (sigmas * 2)[:, None] * np.sqrt(truth.area[near])[:, None, None]
    joints = truth.joints[near] + blur * noise * rng.uniform(0, 1.2, (len(near), 1, 1))
    image, category = truth.image[near], truth.category[near].copy()
    category[rng.random(len(near)) < 0.05] += 1
    n = rng.poisson(extra * len(truth.images))
    stray = rng.uniform(0, 400, (n, 1, 2)) + rng.uniform(0, 1, (n, K, 2)) * rng.choice([10, 32, 96, 300], (n, 1, 1))
    kinds = np.unique(np.r_[truth.category, 1])
    joints = np.concatenate([joints, stray])
    image = np.r_[image, rng.choice(truth.images, n)] if len(truth.images) else image
    category = np.r_[category, rng.choice(kinds, n)]
    D = len(joints)
    score = rng.choice([0.25, 0.5, 0.75], D) if ties else rng.permutation(D) / max(D, 1) + rng.uniform(0, 1e-6, D)
    if ties and D:
        joints = np.round(joints)
        again = rng.integers(0, D, D // 3)
        joints, image, category, score = (
            np.concatenate([v, v[again]]) for v in (joints, image, category, score)
        )  # fmt: skip
        exact = rng.random(len(joints)) < 0.2
        if G:
            source = rng.integers(0, G, len(joints))
            joints[exact], image[exact] = truth.joints[source[exact]], truth.image[source[exact]]
    order = rng.permutation(len(joints))
    return Detected(
        image[order].astype(np.int64), category[order].astype(np.int64), joints[order],
        rng.uniform(0, 1, (len(order), K)), score[order].astype(np.float64),
    )  # fmt: skip


def files(truth, detected, boxes=None):
    """The two files' content."""
    categories = np.unique(np.r_[truth.category, 1]).tolist()
    labels = {
        "info": {}, "images": [{"id": int(i)} for i in truth.images],
        "categories": [{"id": c, "name": f"kind{c}"} for c in categories],
        "annotations": [
            {
                "id": int(truth.id[i]), "image_id": int(truth.image[i]), "category_id": int(truth.category[i]),
                "keypoints": np.c_[truth.joints[i], truth.visible[i]].ravel().tolist(), "bbox": truth.boxes[i].tolist(),
                "area": float(truth.area[i]), "iscrowd": int(truth.crowd[i]),
                "num_keypoints": int((truth.visible[i] > 0).sum()),
            }
            for i in range(len(truth))
        ],
    }  # fmt: skip
    results = [
        {
            "image_id": int(detected.image[i]), "category_id": int(detected.category[i]),
            "keypoints": np.c_[detected.joints[i], detected.confidence[i]].ravel().tolist(),
            "score": float(detected.score[i]),
        }
        for i in range(len(detected))
    ]  # fmt: skip
    if boxes is not None:
        for result, box in zip(results, boxes, strict=True):
            result["bbox"] = box.tolist()
    return labels, results


def judge(truth, detected, sigmas=SIGMAS, boxes=None):
    """What pycocotools makes of the files, by the road of its own documentation; there must be a detection."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels, results = files(truth, detected, boxes)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = labels
        coco.createIndex()
        found = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "keypoints")
        found.params.kpt_oks_sigmas = np.array(sigmas)
        found.evaluate()
        found.accumulate()
        found.summarize()
    return found


def official(labels, results):
    """The ten numbers of pycocotools, which reads both files itself."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(labels))
        found = COCOeval(coco, coco.loadRes(str(results)), "keypoints")
        found.evaluate()
        found.accumulate()
        found.summarize()
    return {name: np.nan if v == -1 else v for name, v in zip(NAMES, found.stats, strict=True)}


def reference(truth, detected, sigmas=SIGMAS, boxes=None):
    """The ten numbers of pycocotools."""
    stats = judge(truth, detected, sigmas, boxes).stats
    return {name: np.nan if v == -1 else v for name, v in zip(NAMES, stats, strict=True)}


def nms_loop(joints, score, image, sigmas, threshold, area):
    """Rows that remain of detections, as the reference code removes them: a plain loop."""
    kept = []
    for one in np.unique(image):
        rows = sorted(np.flatnonzero(image == one), key=lambda i: (-score[i], i))
        while rows:
            best = rows.pop(0)
            kept.append(best)
            rows = [i for i in rows if _alike(joints[best], joints[i], (area[best] + area[i]) / 2, sigmas) <= threshold]
    return sorted(kept)


def _alike(a, b, area, sigmas):
    d2 = (a[:, 0] - b[:, 0]) ** 2 + (a[:, 1] - b[:, 1]) ** 2
    return np.exp(-d2 / (2 * sigmas) ** 2 / (area + np.spacing(1)) / 2).sum() / len(sigmas)
