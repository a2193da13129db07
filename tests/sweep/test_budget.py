"""Hours of a search: the time in which anybody was at it."""

import numpy as np
import pytest

from bipose_lit.sweep.budget import busy_seconds, room, without
from bipose_lit.sweep.manifest import Budget


def test_union_equals_counting_by_the_second():
    rng = np.random.default_rng(0)
    for _ in range(50):
        spans = [(int(a), int(a + b)) for a, b in zip(rng.integers(0, 90, 6), rng.integers(0, 30, 6), strict=True)]
        marked = np.zeros(200, bool)
        for a, b in spans:
            marked[a:b] = True
        assert busy_seconds(spans) == marked.sum()
        gaps = [(int(a), int(a + b)) for a, b in zip(rng.integers(0, 90, 3), rng.integers(0, 20, 3), strict=True)]
        left = np.zeros(200, bool)
        left[spans[0][0] : spans[0][1]] = True
        for a, b in gaps:
            left[a:b] = False
        assert busy_seconds(without(spans[0], gaps)) == left.sum()


@pytest.mark.parametrize(
    ("budget", "trials", "spans", "more"),
    [
        (Budget(3), 2, [], True),
        (Budget(3), 3, [], False),
        (Budget(None, 1.0), 99, [(0, 3599)], True),
        (Budget(None, 1.0), 0, [(0, 3600)], False),
        (
            Budget(None, 1.0),
            0,
            [(0, 2000), (90000, 91000), (90000, 91000)],
            True,
        ),  # a night in between, two side by side
        (Budget(10, 1.0), 2, [(0, 4000)], False),
        (Budget(), 10**6, [(0, 10**9)], True),
    ],
)
def test_room(budget, trials, spans, more):
    assert room(budget, trials, spans) is more
