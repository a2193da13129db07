"""Differences in time against loops, in any row order, over gaps and absent joints."""

import numpy as np
import pytest

from bipose_lit.metrics import smooth
from bipose_lit.metrics.terms import terms
from bipose_lit.types import ABSENT


@pytest.mark.parametrize("measure", smooth.ORDERS)
def test_differences_equal_loops(predictions, measure):
    p = predictions
    at = {(c, f): i for i, (c, f) in enumerate(zip(p.clip, p.frame, strict=True))}
    x, y = p.pred.astype(float), p.joints.astype(float)
    found = smooth.differences(p, measure)
    assert found.defined.any()
    for i in range(len(p.uid)):
        c, f = p.clip[i], p.frame[i]
        rows = {o: at.get((c, f + o)) for o in (-2, -1, 0, 1)}
        need = {1: (-1, 0), 2: (-1, 0, 1), 3: (-2, -1, 0, 1)}[smooth.ORDERS[measure]]
        for k in range(x.shape[1]):
            ok = all(rows[o] is not None and p.visible[rows[o], k] != ABSENT for o in need)
            assert found.defined[i, k] == ok
            if not ok:
                continue
            gx, gy = ([a[rows[o], k] for o in need] for a in (x, y))
            if measure == "velocity_error":
                value = np.hypot(*((gx[1] - gx[0]) - (gy[1] - gy[0])))
            elif measure == "accel_error":
                second = [a[0] - 2 * a[1] + a[2] for a in (gx, gy)]
                value = np.hypot(*(second[0] - second[1]))
            else:
                a = gx if measure == "jitter" else gy
                value = np.hypot(*(a[3] - 3 * a[2] + 3 * a[1] - a[0]))
            assert found.values[i, k] == pytest.approx(value, abs=1e-9)


def test_units(predictions):
    pixels = terms(predictions, "accel_error_px")
    boxes = terms(predictions, "accel_error[clip]")
    seconds = terms(predictions, "accel_error_per_s[clip]")
    assert np.allclose(boxes.values, pixels.values / predictions.norms[:, 1:2].astype(float))
    assert np.allclose(seconds.values, boxes.values * 25**2)
    assert np.allclose(
        terms(predictions, "jitter_per_s_px".replace("_per_s_px", "_px")).values.shape, boxes.values.shape
    )
    predictions.fps[:] = 0
    assert not terms(predictions, "accel_error_per_s[clip]").defined.any()


def test_perfect_predictions_have_no_error_but_the_labels_jitter(predictions):
    predictions.pred = predictions.joints.copy()
    assert not smooth.differences(predictions, "accel_error").values.any()
    assert np.array_equal(
        smooth.differences(predictions, "jitter").values, smooth.differences(predictions, "label_jitter").values
    )
