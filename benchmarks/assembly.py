"""Maps to people: peaks, line integrals, matching and merging, against plain loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import hottest, interleave, listed, profile, table
from benchmarks.setting import Setting, paragraphs
from bipose_lit.codecs.assembly import Rules, find_people
from bipose_lit.codecs.scene import SceneCodec

SIZE, NOISE = (656, 368), 0.02
COUNTS = (1, 5, 10, 20)
STAND = [
    (0, -8.5), (0.8, -9.3), (-0.8, -9.3), (1.8, -9), (-1.8, -9), (3, -6), (-3, -6), (4.5, -3), (-4.5, -3), (5.5, 0), (-5.5, 0),
    (2, 1), (-2, 1), (2.4, 5), (-2.4, 5), (2.8, 9), (-2.8, 9),
]  # fmt: skip
"""COCO's joints of somebody who stands."""

Found = list[dict[int, tuple[float, float]]]


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    codec = SceneCodec()
    codec.build(17, SIZE)
    rules, rows, spots, same, everybody = codec.rules, [], "", 0, 0
    for count in setting.pick(COUNTS, COUNTS[:2]):
        maps, pafs = drawn(codec, count)
        jobs: dict[str, Callable[[], Any]] = {
            "ours": lambda maps=maps, pafs=pafs: find_people(maps, pafs, codec.limbs, rules),
            "loops": lambda maps=maps, pafs=pafs: loops(maps, pafs, codec.limbs, rules),
        }
        times = interleave(
            jobs, setting.pick(9, 1), setting.pick(0.3, 0.0), lambda line, n=count: setting.tell(f"{n} people, {line}")
        )
        rows.append([str(count), times["ours"].ms, times["loops"].ms, times["loops"].over(times["ours"])])
        ours, theirs = jobs["ours"](), jobs["loops"]()
        everybody += count
        same += sum(
            _alike(joints, confidence, theirs) for joints, confidence in zip(ours.joints, ours.confidence, strict=True)
        )
        spots = listed(hottest(profile(lambda job=jobs["ours"]: [job() for _ in range(setting.pick(20, 1))]), 4))
    width, height = codec.map_size
    return paragraphs(
        f"One image of {SIZE[0]}x{SIZE[1]}, 17 joints and {len(codec.limbs)} limbs at {height}x{width}: clean maps at 0.8 of "
        f"their height with noise of {NOISE}, some hundred of whose peaks are nobody's. The loops are our own, over pixels, "
        "pairs and samples in plain Python; they match greedily, as the authors' first release did.",
        table(["people", "ms per image", "plain loops, ms", "times as fast"], rows),
        f"Both find the same joints of {same} of {everybody} people.",
        f"What limits it now (share of profiled time, {rows[-1][0]} people): {spots}.",
    )


def drawn(codec: SceneCodec, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Maps of people on a grid of five by four, with noise."""
    rng = np.random.default_rng(count)
    width, height = SIZE
    cells = rng.permutation(20)[:count]
    centre = np.stack([(cells % 5 + 0.5) * width / 5, (cells // 5 + 0.5) * height / 4], axis=1)
    people = centre[:, None] + np.array(STAND) * 4.2 + rng.normal(0, 1.5, (count, 17, 2))
    joints = torch.from_numpy(people).float()[None]
    target, _ = codec.encode(joints, torch.full(joints.shape[:-1], 2))
    noisy = [0.8 * v[0].numpy() + rng.normal(0, NOISE, v[0].shape).astype(np.float32) for v in target.values()]
    return noisy[0], noisy[1]


def loops(maps: NDArray[np.floating], pafs: NDArray[np.floating], limbs: NDArray[np.int64], rules: Rules) -> Found:
    """The same in plain loops: what a straightforward program does."""
    K, h, w = maps.shape
    peaks: list[list[tuple[float, float, float]]] = []
    for k in range(K):
        rows, found = maps[k].tolist(), []
        for y in range(h):
            for x in range(w):
                value = rows[y][x]
                if value > rules.peak and _highest(rows, x, y, w, h):
                    found.append((x + _offset(rows[y], x, w), y + _offset([r[x] for r in rows], y, h), value))
        peaks.append(found)
    fields = pafs.tolist()
    joined: list[tuple[float, tuple[int, int], tuple[int, int]]] = []
    for number, (a, b) in enumerate(limbs.tolist()):
        pairs = []
        for i, first in enumerate(peaks[a]):
            for j, second in enumerate(peaks[b]):
                score = _line(first, second, fields[2 * number], fields[2 * number + 1], w, h, rules)
                if score > 0:
                    pairs.append((score, (a, i), (b, j)))
        taken: set[tuple[int, int]] = set()
        for pair in sorted(pairs, reverse=True):
            if not taken & set(pair[1:]):
                taken |= set(pair[1:])
                joined.append(pair)
    people: list[dict[int, int]] = []
    for _, first, second in sorted(joined, reverse=True):
        own = [next((p for p in people if p.get(k) == i), None) or {k: i} for k, i in (first, second)]
        if own[0] is own[1] or own[0].keys() & own[1].keys():
            continue
        people = [p for p in people if p is not own[0] and p is not own[1]] + [own[0] | own[1]]
    return [{k: peaks[k][i][:2] for k, i in p.items()} for p in people if len(p) >= rules.parts]


def _highest(rows: list[list[float]], x: int, y: int, w: int, h: int) -> bool:
    for v in range(max(0, y - 1), min(h, y + 2)):
        for u in range(max(0, x - 1), min(w, x + 2)):
            if (v, u) != (y, x) and (rows[v][u] >= rows[y][x] if (v, u) < (y, x) else rows[v][u] > rows[y][x]):
                return False
    return True


def _offset(values: list[float], at: int, length: int) -> float:
    middle = min(max(at, 1), length - 2)
    before, centre, after = (math.log(max(values[middle + s], 1e-10)) for s in (-1, 0, 1))
    bend = before - 2 * centre + after
    return min(max(middle - at + 0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else 0.0


def _line(
    first: tuple[float, ...], second: tuple[float, ...], across: list[list[float]], down: list[list[float]], w: int, h: int,
    rules: Rules,
) -> float:  # fmt: skip
    dx, dy = second[0] - first[0], second[1] - first[1]
    length = math.hypot(dx, dy)
    if length < 1e-6:
        return 0.0
    total, good = 0.0, 0
    for n in range(rules.samples):
        t = n / (rules.samples - 1)
        x = min(max(int(first[0] + t * dx + 0.5), 0), w - 1)
        y = min(max(int(first[1] + t * dy + 0.5), 0), h - 1)
        value = (across[y][x] * dx + down[y][x] * dy) / length
        total += value
        good += value > rules.line
    return total / rules.samples if good >= rules.share * rules.samples else 0.0


def _alike(joints: NDArray[np.float64], confidence: NDArray[np.float64], others: Found) -> bool:
    """Whether somebody among the others has the same joints at the same places."""
    mine = {int(k): joints[k] for k in np.flatnonzero(confidence)}
    return any(
        other.keys() == mine.keys() and all(np.abs(mine[k] - other[k]).max() < 1e-3 for k in mine) for other in others
    )
