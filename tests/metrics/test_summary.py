"""Names, aliases and sums by cluster."""

import math
import re
import subprocess
import sys

import numpy as np
import pytest

from bipose_lit.metrics import summary
from bipose_lit.metrics.terms import parse, stratum_mask
from bipose_lit.skeletons import COCO, SKELETONS
from bipose_lit.types import ABSENT, BiposeError


def test_headline_numbers(predictions):
    p = predictions
    found = summary.summarise(p)
    hits = {"": [], "/visible": [], "/occluded": [], "/left_wrist": [], "/wrist": []}
    for i in range(len(p.uid)):
        for k, joint in enumerate(p.joint_names):
            if p.visible[i, k] == ABSENT:
                continue
            e = np.hypot(*(p.pred[i, k].astype(float) - p.joints[i, k].astype(float)))
            hit = e <= 0.1 * float(p.norms[i, 1])
            hits[""].append(hit)
            hits["/visible" if p.visible[i, k] == 2 else "/occluded"].append(hit)
            if joint == "left_wrist":
                hits["/left_wrist"].append(hit)
            if joint.endswith("wrist"):
                hits["/wrist"].append(hit)
    for stratum, values in hits.items():
        assert found[f"test/pck@0.1[clip,clip-box]{stratum}"] == pytest.approx(np.mean(values), abs=1e-12)
    assert found["test/joints"] == len(hits[""])
    assert found["test/excluded_persons[torso,clip-box]"] == np.isnan(p.norms[:, 2]).sum()
    assert not any("[head" in name for name in found)
    assert all(math.isfinite(v) for v in found.values())
    assert {
        "test/error_px",
        "test/jitter_px",
        "test/accel_error_per_s[clip,clip-box]",
        "test/auc@0.2[bbox,clip-box]",
    } <= set(found)


def test_every_printed_mean_can_be_asked_for_by_its_name(predictions):
    found = summary.summarise(predictions)
    for name, value in found.items():
        if name.endswith(("/joint_mean", "/persons", "/joints")) or "excluded" in name:
            continue
        sums = summary.per_cluster(predictions, name)
        assert sums.mean == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("name", SKELETONS)
def test_aliases_are_plain_and_injective(make, name):
    p = make(skeleton=SKELETONS[name])
    p.norms[:] = 100  # all normalisers exist
    names = [*summary.summarise(p, "val"), *summary.summarise(p, "test")]
    found = summary.aliases(names)
    assert sorted(found.values()) == sorted(names)
    assert all(re.fullmatch(r"[a-z0-9_]+", short) for short in found)
    assert found["val_pck_0_1_clip_clip_box"] == "val/pck@0.1[clip,clip-box]"


def test_alias_clash_is_refused():
    with pytest.raises(BiposeError, match="share the alias"):
        summary.aliases(["test/a-b", "test/a_b"])


def test_still_images_have_no_motion(make):
    found = summary.summarise(make(frames=1, clips=1, gaps=False, skeleton=COCO))
    assert not any("jitter" in name or "accel" in name for name in found)
    assert found["test/persons"] == 1


def test_without_detail_there_are_no_joints(predictions):
    found = summary.summarise(predictions, detail=False)
    assert not any("wrist" in name for name in found)
    assert len(found) < len(summary.summarise(predictions)) / 2
    assert found["test/pck@0.1[clip,clip-box]/occluded"] > 0


def test_per_cluster_sums(predictions):
    p = predictions
    sums = summary.per_cluster(p, "error_px", "occluded")
    assert sums.clusters == ("scene0", "scene1", "scene2")
    for cluster, total, count in zip(*sums, strict=True):
        e = [
            float(np.hypot(*(p.pred[i, k].astype(float) - p.joints[i, k].astype(float))))
            for i in range(len(p.uid))
            for k in range(13)
            if p.visible[i, k] == 1 and p.clusters[p.clip[i]] == cluster
        ]
        assert count == len(e)
        assert total == pytest.approx(sum(e))
    own = summary.per_cluster(p, "error_px", p.visible == 1)
    assert np.array_equal(own.values, sums.values)
    assert summary.per_cluster(p, "error_px/occluded").mean == sums.mean


def test_clusters_without_terms_have_weight_zero(predictions):
    predictions.visible[predictions.clip < 2] = 2
    sums = summary.per_cluster(predictions, "pck@0.1[clip]", "occluded")
    assert len(sums.clusters) == 3
    assert sums.weights[0] == 0


@pytest.mark.parametrize(
    "name",
    [
        "pck",
        "pck@0.1",
        "pck[clip]",
        "pck@0[clip]",
        "error",
        "error@0.1[clip]",
        "mse_px",
        "error_px[clip]",
        "pck@0.1[knee]",
        "",
    ],
)
def test_unknown_metrics_are_refused(name):
    with pytest.raises(BiposeError, match="unknown"):
        parse(name)


def test_unknown_stratum_is_refused(predictions):
    with pytest.raises(BiposeError, match="stratum 'tail'"):
        stratum_mask(predictions, "tail")


def test_box_rule():
    assert summary.box_rule("jhmdb/split1/test[clip-box]") == "clip-box"
    assert summary.box_rule("mine/test") == ""
    assert parse("test/pck@0.05[bbox,gt-box]/P").stratum == "P"


def test_reports_need_no_torch():
    modules = ("metrics.summary", "metrics.reference", "report.assay", "report.statistics_bootstrap")
    code = f"import sys, {', '.join(f'bipose_lit.{m}' for m in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
