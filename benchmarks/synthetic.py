"""Rendering and writing the synthetic set: what one process of `bipose data make` does."""

from __future__ import annotations

import itertools
import time

from benchmarks.measure import Spread, hottest, listed, number, profile, stages, table
from benchmarks.setting import FRAMES, Setting, paragraphs
from bipose_lit.datasets.synthetic import worker
from bipose_lit.datasets.synthetic.assay import ClipPlan, plan_clips
from bipose_lit.datasets.synthetic.make import MakeOptions
from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS

SIZE = (320, 240)
PARENTS = [
    ("worker.py", "_make"),
    ("worker.py", "render_plan"),
    ("render.py", "render_clip"),
    ("worker.py", "make_clips"),
]


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    frames = setting.pick(FRAMES, 12)
    plans = plan_clips({"train": setting.pick(24, 2)}, MOTION_SPLITS, 0, 2)
    groups: list[list[tuple[int, ClipPlan]]] = [
        list(group) for _, group in itertools.groupby(enumerate(plans), key=lambda pair: pair[1].cluster)
    ]
    options = MakeOptions(str(setting.work / "rendered"), 0, frames, 25.0, SIZE, ("jhmdb",), "video")
    setting.tell("warm-up")
    worker.render_plan(plans[0], 1, 12, 25.0, SIZE)
    values = []
    for n, group in enumerate(groups):
        setting.tell(f"scene {n + 1} of {len(groups)}")
        start = time.perf_counter()
        done = worker.make_clips(group, options)
        values.append(done * frames / (time.perf_counter() - start))
    rates = Spread(tuple(values))
    # The rate of the whole is that of the mean time, not of the median scene.
    whole = len(values) / sum(1 / v for v in values)
    setting.tell("profile")
    stats = profile(lambda: [worker.make_clips(g, options) for g in groups[: setting.pick(4, 1)]])
    by_stage, own = stages(stats, PARENTS), hottest(stats)
    return paragraphs(
        f"{len(plans)} planned clips of {frames} frames at {SIZE[0]}x{SIZE[1]}, rendered, written as motion JPEG with labels and "
        "digests, one process. Rates differ between scenes because of what is in them.",
        table(
            ["frames/s and core", "over all", "by scene"],
            [["rendered and written", number(whole), rates]],
        ),
        "What limits it now (share of profiled time; cProfile makes Python calls dearer than they are):",
        [f"with all that is called: {listed(by_stage)}", f"own time: {listed(own)}"],
    )
