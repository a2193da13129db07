"""Heatmaps to joints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

import numpy as np
import torch

from benchmarks.measure import hottest, interleave, listed, number, profile, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit import geometry
from bipose_lit.codecs.heatmap import HeatmapCodec

BATCH, K, SIZE, STRIDE, SIGMA = 64, 17, (192, 256), 4, 2.0
REFINE = ("none", "quarter", "parabola", "dark")
PEERS = (
    "Peers at the same batch, in the project's survey (November 2026, one of two shared cores; not measured here, and on another "
    "run of such a machine): SimpleBaselines get_final_preds 3,660, mmpose 1.3.2 MSRA 4,650, DARK 720, UDP 790, "
    "lightning-pose 2.4.3 soft-argmax 16 persons/s."
)


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    rng = np.random.default_rng(0)
    persons = setting.pick(BATCH, 2)
    joints = torch.from_numpy(rng.uniform((24, 24), (SIZE[0] - 24, SIZE[1] - 24), (persons, K, 2)).astype(np.float32))
    to_image = torch.from_numpy(rng.normal(1, 0.1, (persons, 2, 3)).astype(np.float32))
    codecs = {name: HeatmapCodec(STRIDE, SIGMA, cast("Literal['dark']", name)) for name in REFINE}
    for codec in codecs.values():
        codec.build(K, SIZE)
    maps = codecs["dark"].encode(joints, torch.full((persons, K), 2))[0]["heatmaps"]
    noise = torch.from_numpy(rng.normal(0, 0.02, maps.shape).astype(np.float32))
    encoded = {"heatmaps": 0.8 * maps + noise}
    rows_ = encoded["heatmaps"].flatten(0, 1).flatten(1).numpy()

    def decoding(codec: HeatmapCodec) -> Callable[[], object]:
        return lambda: geometry.apply(to_image, codec.decode(encoded)[0])

    jobs: dict[str, Callable[[], object]] = {name: decoding(codec) for name, codec in codecs.items()}
    jobs["argmax"] = lambda: rows_.argmax(axis=1)
    times = interleave(jobs, setting.pick(11, 1), setting.pick(0.2, 0.0), setting.tell)
    rows = []
    for name, codec in codecs.items():
        error = (codec.decode(encoded)[0] - joints).norm(dim=-1).mean() / STRIDE
        rows.append([
            name, times[name].map(lambda s: persons / s), times[name].over(times["argmax"]), f"{float(error):.3f}"
        ])  # fmt: skip
    plain = times["argmax"].map(lambda s: persons / s)
    spots = {name: listed(hottest(profile(_often(jobs[name], setting.pick(30, 1))), 3)) for name in ("quarter", "dark")}
    width, height = codecs["dark"].map_size
    return paragraphs(
        f"{persons} persons of {K} maps of {height}x{width}, Gaussians (sigma {number(SIGMA)}) with noise, decoded and mapped "
        f"back to the image. An argmax pass (numpy, the same maps, nothing else) does {plain} persons/s.",
        table(["refinement", "persons/s", "argmax passes", "mean error, map pixels"], rows),
        PEERS,
        "What limits it now (share of profiled time): " + "; ".join(f"{n}: {text}" for n, text in spots.items()) + ".",
    )


def _often(job: Callable[[], object], times: int) -> Callable[[], object]:
    return lambda: [job() for _ in range(times)]
