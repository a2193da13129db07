"""A scoring's fingerprint: other with everything that its numbers depend on, the same otherwise."""

from dataclasses import fields, replace

import numpy as np
import pytest
from coco_persons import SIGMAS
from test_coco_scoring import setting

from bipose_lit.metrics.coco_scoring import CocoScoring
from bipose_lit.metrics.instances import Truth
from bipose_lit.metrics.pckh import MpiiScoring
from bipose_lit.metrics.posetrack import Frame
from bipose_lit.metrics.posetrack_scoring import PoseTrackScoring


def coco(**changes):
    truth, known, _ = setting()
    given = {"truth": truth, **known, "sigmas": tuple(SIGMAS), "nms": 0.9, "area": np.arange(40.0), **changes}
    return CocoScoring(**given).fingerprint()


def moved(values):
    values = values.copy()
    values.flat[0] = not values.flat[0] if values.dtype == bool else values.flat[0] + 1
    return values


@pytest.mark.parametrize("field", [f.name for f in fields(Truth)])
def test_cocos_sees_every_label(field):
    truth, _, _ = setting()
    assert coco() == coco()
    assert coco(truth=replace(truth, **{field: moved(getattr(truth, field))})) != coco()
    one_more = np.r_[truth.images, 99_999]  # an image without persons
    assert coco(truth=replace(truth, images=one_more)) != coco()


def test_cocos_sees_boxes_and_options():
    _, known, _ = setting()
    found = {coco()}
    for name in known:
        found.add(coco(**{name: moved(known[name])}))
    found |= {
        coco(area=None),
        coco(area=np.arange(1, 41.0)),
        coco(nms=None),
        coco(nms=0.8),
        coco(sigmas=tuple(SIGMAS * 2)),
    }
    assert len(found) == 1 + len(known) + 5
    order = np.random.default_rng(1).permutation(40)
    mixed = {name: values[order] for name, values in known.items()}
    assert coco(**mixed, area=np.arange(40.0)[order]) == coco()


def frame(**changes):
    rng = np.random.default_rng(0)
    given = {
        "joints": rng.uniform(0, 50, (2, 15, 2)), "labelled": rng.random((2, 15)) < 0.8, "head": np.array([9.0, 12.0]),
        "regions": (rng.uniform(0, 50, (4, 2)),), **changes,
    }  # fmt: skip
    return Frame(**given)


def posetrack(frames=None, **changes):
    given = {"uid": np.array([7, 3]), "frame": np.array([0, -1]), "box_score": np.array([0.5, 1.0]), **changes}
    return PoseTrackScoring(frames if frames is not None else [frame(), frame()], **given).fingerprint()


def test_posetracks_sees_labels_regions_and_boxes():
    assert posetrack() == posetrack()
    one = frame()
    found = {posetrack(), posetrack([frame()]), posetrack([])}
    for name in ("joints", "labelled", "head"):
        found.add(posetrack([frame(), frame(**{name: moved(getattr(one, name))})]))
    found |= {posetrack([frame(regions=())] * 2), posetrack([frame(regions=(one.regions[0] + 1,))] * 2)}
    found |= {
        posetrack(uid=np.array([7, 4])),
        posetrack(frame=np.array([1, -1])),
        posetrack(box_score=np.array([0.5, 0.9])),
    }
    found.add(
        posetrack(uid=np.array([3, 7]), frame=np.array([-1, 0]), box_score=np.array([1.0, 0.5]))
    )  # ties go by order
    assert len(found) == 12


def test_mpiis_knows_estimated_heads():
    assert MpiiScoring().fingerprint() == MpiiScoring(False).fingerprint() != MpiiScoring(True).fingerprint()
