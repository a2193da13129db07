"""Features read from disk against features computed again, and what that makes of whole runs."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.measure import Spread, interleave, listed, number, table
from benchmarks.setting import MANIFEST, Setting, paragraphs, without_video_cache
from benchmarks.training import HEADS, MODES, Speed, build_all, speeds

BOUND = 1 / 20
Keys = list[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """What the default ablation asks of one run, and how many runs share the features.

    Attributes:
        steps: optimiser steps.
        views: frame-views in the cache, all splits.
        scored: clips that one run scores, validation during the fit included.
        arms, seeds: of the manifest.
    """

    steps: int
    views: int
    scored: int
    arms: int
    seeds: int

    @classmethod
    def of_default(cls, config: dict[str, Any]) -> Plan:
        import yaml

        manifest = yaml.safe_load(MANIFEST.read_text())
        clips, frames, seeds = manifest["make"]["clips"], manifest["make"]["frames"], manifest["seeds"]
        trainer, plain = config["trainer"], 2 if config["model"]["flip_test"] else 1
        steps, every = trainer["max_steps"], trainer["val_check_interval"]
        validations = steps // every + 1 if every else 1
        views = frames * (clips["train"] * _cache_options(config)["views"] + (clips["val"] + clips["test"]) * plain)
        count = seeds if isinstance(seeds, int) else len(seeds)
        return cls(steps, views, clips["val"] * validations + clips["test"], len(manifest["arms"]), count)


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    without_video_cache()
    config = setting.config(*HEADS["none"])
    plan = Plan.of_default(config)
    build = _building(setting, config)
    reading = _reading(setting, config)
    return paragraphs(reading, *_runs(plan, build, speeds(setting)), _built(plan, build))


def _cache_options(config: dict[str, Any]) -> dict[str, Any]:
    cache: dict[str, Any] = config["data"]["cache"]
    inner: dict[str, Any] = cache.get("init_args", cache)
    return inner


def _building(setting: Setting, config: dict[str, Any]) -> Spread:
    """Seconds per frame-view of making the cache; leaves the cache behind."""
    _module, data, _ = build_all(config)
    root = data.cache.root
    values = []
    for n in range(setting.pick(2, 1)):
        setting.tell(f"building features, time {n + 1}")
        shutil.rmtree(root, ignore_errors=True)
        start = time.perf_counter()
        views = [data.dataset(split).entry["joints"].shape[:2] for split in ("train", "val", "test")]
        values.append((time.perf_counter() - start) / sum(v * f for v, f in views))
    return Spread(tuple(values))


def _reading(setting: Setting, config: dict[str, Any]) -> str:
    """The same batches from the cache and from pixels."""
    module, data, _ = build_all(config)
    network = module.network.eval()
    cached, pixels = data.dataset("train"), _pixels(data)
    size, collate = data.batch_size, data._collate
    items = len(cached) // size * size
    batches = [[(e, i) for i in range(b, b + size)] for e in range(4) for b in range(0, items, size)]

    def read(keys: Keys) -> torch.Tensor:
        features: torch.Tensor = collate([cached[k] for k in keys]).features
        return features.to(network.gain.dtype)

    def crop(keys: Keys) -> torch.Tensor:
        images: torch.Tensor = collate([pixels[k] for k in keys]).images
        return images

    def make(keys: Keys) -> torch.Tensor:
        return torch.cat([network.extract(part) for part in torch.split(crop(keys).flatten(0, 1), data.cache.batch)])

    def over_batches(job: Callable[[Keys], object]) -> Callable[[], object]:
        turn = itertools.cycle(batches)
        return lambda: job(next(turn))

    with torch.inference_mode():
        error, peak = 0.0, 0.0
        for chosen in batches[:2]:
            made = make(chosen)
            error = max(error, float((read(chosen).flatten(0, 1) - made).abs().max()))
            peak = max(peak, float(made.abs().max()))
        jobs = {
            "reading the cache": over_batches(read),
            "decoding, cropping": over_batches(crop),
            "decoding, cropping, forwarding": over_batches(make),
        }
        times = interleave(jobs, setting.pick(9, 2), setting.pick(0.05, 0.0), setting.tell)
    whole = times["decoding, cropping, forwarding"]
    ratio = times["reading the cache"].over(whole)
    held = "holds" if ratio.median <= BOUND else "**does not hold**"
    rows = [[name, t.ms, t.over(whole)] for name, t in times.items()]
    frames = size * (data.clips.length or 0)
    return paragraphs(
        f"Batches of {size} clips of {data.clips.length} frames ({frames} frames) at {data.size[0]}x{data.size[1]}, "
        f"files in the page cache. The same features: they differ by at most {number(error)} where the largest is "
        f"{number(peak)} (float16 on disk).",
        table(["one batch", "ms", "share of making it"], rows),
        f"Reading must cost at most 1/{1 / BOUND:.0f} of making: it costs 1/{number(1 / ratio.median)}; {held}. What limits "
        f"making now: the forward pass takes {1 - times['decoding, cropping'].over(whole).median:.0%} of it.",
    )


def _pixels(data: Any) -> Any:
    """The training samples that the cache stands for, from pixels: the same finite set of views."""
    from bipose_lit.datasets.clips import ClipDataset

    return ClipDataset(
        data.index("train"), data.size, data.padding, data.clips, True, data.augmentation, data.pixels, data.occluders,
        data.seed, data.cache.views,
    )  # fmt: skip


def _runs(plan: Plan, build: Spread, found: dict[str, Speed]) -> list[str]:
    made = build.median * plan.views
    per_step, per_run = [], []
    totals = dict.fromkeys(MODES, 0.0)
    runs = plan.arms * plan.seeds
    for head, speed in found.items():
        by, scoring = speed.steps, speed.scoring
        ratios = [by[m].over(by["cached"]) for m in MODES[1:]]
        per_step.append([head, *(by[m].ms for m in MODES), *ratios, *(scoring[m].ms for m in MODES[:2])])
        train = {m: plan.steps * by[m].median for m in MODES}
        whole = {m: train[m] + plan.scored * scoring[m].median for m in MODES}
        per_run.append([head, *(_ratio(cost, n, made) for n in (1, runs) for cost in (train, whole))])
        for m in MODES:
            totals[m] += plan.seeds * whole[m]
    ratios_all = [number(totals[m] / (totals["cached"] + made)) for m in MODES[1:]]
    n, k = len(found), plan.seeds
    return [
        "Training steps by the Trainer, loading included, and scoring (forward, decode) a clip of the test split:",
        table(
            ["ms", *(f"step, {m}" for m in MODES), *(f"{m} / cached" for m in MODES[1:])]
            + [f"scored clip, {m}" for m in MODES[:2]],
            per_step,
        ),
        f"Whole runs, from these medians and one building of the features for the default ablation's set "
        f"({plan.views:,} frame-views): {plan.steps} steps; with scoring also {plan.scored} clips (validations and one "
        "test). Each cell: recomputed / cached, end to end / cached, with the building on the cached side.",
        table(
            ["head", "1 run, steps", "1 run, with scoring", f"{runs} runs, steps", f"{runs} runs, with scoring"],
            per_run,
        ),
        f"These {n} arms x {k} seeds = {n * k} runs sharing one cache, with scoring: recomputed costs {ratios_all[0]} times, "
        f"end to end {ratios_all[1]} times as much.",
        "What limits cached steps now (share of the operators' time): "
        + "; ".join(f"{head}: {listed(speed.operators)}" for head, speed in found.items())
        + ".",
    ]


def _ratio(seconds: dict[str, float], runs: int, made: float) -> str:
    cached = runs * seconds["cached"] + made
    return ", ".join(number(runs * seconds[m] / cached) for m in MODES[1:])


def _built(plan: Plan, build: Spread) -> str:
    return (
        f"Building takes {build.ms} ms per frame-view, so {number(build.median * plan.views)} s for "
        "the default ablation's set (one decode for all views of a frame)."
    )
