"""Features read from disk against features computed again, and what that makes of whole runs."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import Spread, interleave, listed, number, operators, table
from benchmarks.setting import MANIFEST, Setting, paragraphs, without_video_cache

HEADS = {
    "none": ("temporal/none.yaml",),
    "lstm": ("temporal/lstm.yaml",),
    "bilstm": ("temporal/bilstm.yaml",),
    "pooled lstm, regression": ("decoder/regression.yaml", "pool/lstm.yaml"),
}
MODES = ("cached", "recomputed", "end to end")
BOUND = 1 / 20


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
    config = setting.config(*HEADS["none"], options={"data.cache.root": str(setting.work / "features")})
    plan = Plan.of_default(config)
    build = _building(setting, config)
    reading = _reading(setting, config)
    steps, scoring, spots = _training(setting)
    return paragraphs(reading, *_runs(plan, build, steps, scoring, spots), _built(plan, build))


def _cache_options(config: dict[str, Any]) -> dict[str, Any]:
    cache: dict[str, Any] = config["data"]["cache"]
    return cache.get("init_args", cache)


def _build(config: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    from bipose_lit.cli import build
    from bipose_lit.run import quiet

    with quiet():
        module, data, options = build(config)
        module.start_from_weights()
    data.extractor, data.flip_test = module.network, module.flip_test
    if data.cache is not None:
        data.cache.progress = False
    return module, data, options


def _building(setting: Setting, config: dict[str, Any]) -> Spread:
    """Seconds per frame-view of making the cache; leaves the cache behind."""
    module, data, _ = _build(config)
    root = data.cache.root
    values = []
    for number_ in range(setting.pick(3, 1)):
        setting.tell(f"building features, time {number_ + 1}")
        shutil.rmtree(root, ignore_errors=True)
        start = time.perf_counter()
        views = [data.dataset(split).entry["joints"].shape[:2] for split in ("train", "val", "test")]
        values.append((time.perf_counter() - start) / sum(v * f for v, f in views))
    return Spread(tuple(values))


def _reading(setting: Setting, config: dict[str, Any]) -> str:
    """The same batches from the cache and from pixels."""
    module, data, _ = _build(config)
    network = module.network.eval()
    cached, pixels = data.dataset("train"), _pixels(data)
    size, collate = data.batch_size, data._collate
    items = len(cached) // size * size
    batches = [[(e, i) for i in range(b, b + size)] for e in range(4) for b in range(0, items, size)]
    turns: dict[str, Iterator[list[tuple[int, int]]]] = {}

    def keys(name: str) -> list[tuple[int, int]]:
        if name not in turns:
            turns[name] = (batches[n % len(batches)] for n in range(10**9))
        return next(turns[name])

    def read(chosen: list[tuple[int, int]]) -> torch.Tensor:
        return collate([cached[k] for k in chosen]).features.to(network.gain.dtype)

    def make(chosen: list[tuple[int, int]]) -> torch.Tensor:
        images = collate([pixels[k] for k in chosen]).images
        return torch.cat([network.extract(part) for part in images.flatten(0, 1).split(data.cache.batch)])

    with torch.inference_mode():
        error, peak = 0.0, 0.0
        for chosen in batches[:2]:
            made = make(chosen)
            error = max(error, float((read(chosen).flatten(0, 1) - made).abs().max()))
            peak = max(peak, float(made.abs().max()))
        loaded = _crops(collate, pixels)
        jobs: dict[str, Callable[[], object]] = {
            "reading the cache": lambda: read(keys("read")),
            "decoding, cropping": lambda: loaded(keys("crop")),
            "decoding, cropping, forwarding": lambda: make(keys("make")),
        }
        times = interleave(jobs, setting.pick(9, 2), setting.pick(0.05, 0.0), setting.tell)
    whole = times["decoding, cropping, forwarding"]
    ratio = times["reading the cache"].over(whole)
    held = "holds" if ratio.median <= BOUND else "**does not hold**"
    rows = [[name, t.map(lambda s: 1e3 * s), t.over(whole)] for name, t in times.items()]
    frames = size * (data.clips.length or 0)
    return paragraphs(
        f"Batches of {size} clips of {data.clips.length} frames ({frames} frames) at {data.size[0]}x{data.size[1]}, "
        f"files in the page cache. The same features: they differ by at most {number(error)} where the largest is "
        f"{number(peak)} (float16 on disk).",
        table(["one batch", "ms", "share of making it"], rows),
        f"Reading must cost at most 1/{1 / BOUND:.0f} of making: it costs 1/{number(1 / ratio.median)}; {held}.",
    )


def _crops(collate: Any, pixels: Any) -> Callable[[list[tuple[int, int]]], object]:
    return lambda chosen: collate([pixels[k] for k in chosen])


def _pixels(data: Any) -> Any:
    """The training samples that the cache stands for, from pixels: the same finite set of views."""
    from bipose_lit.datasets.clips import ClipDataset

    return ClipDataset(
        data.index("train"), data.size, data.padding, data.clips, True, data.augmentation, data.pixels, data.occluders,
        data.seed, data.cache.views,
    )  # fmt: skip


def _training(setting: Setting) -> tuple[dict[str, dict[str, Spread]], dict[str, dict[str, Spread]], dict[str, str]]:
    """Seconds per training step and per scored clip, by head and mode; and where cached steps spend them."""
    steps: dict[str, dict[str, Spread]] = {}
    scoring: dict[str, dict[str, Spread]] = {}
    spots: dict[str, str] = {}
    rounds = setting.pick(3, 1)
    counts = dict(zip(MODES, setting.pick((25, 3, 2), (2, 1, 1)), strict=True))
    for head, overlays in HEADS.items():
        configs = {mode: _mode(setting, mode, overlays) for mode in MODES}
        values: dict[str, list[float]] = {mode: [] for mode in MODES}
        for r in range(rounds):
            for mode in MODES[r % 3 :] + MODES[: r % 3]:
                setting.tell(f"training, {head}, {mode}, round {r + 1} of {rounds}")
                values[mode].append(statistics.median(_fit(configs[mode], counts[mode], setting.work)))
        steps[head] = {mode: Spread(tuple(v)) for mode, v in values.items()}
        scoring[head] = _scoring(setting, {mode: configs[mode] for mode in MODES[:2]}, head)
        spots[head] = listed(operators(lambda c=configs["cached"]: _fit(c, setting.pick(10, 1), setting.work), 3))
    return steps, scoring, spots


def _mode(setting: Setting, mode: str, overlays: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {"data.cache.root": str(setting.work / "features")}
    if mode != "cached":
        options = {"data.cache": None, "model.freeze_backbone": mode != "end to end"}
    return setting.config(*overlays, options=options)


def _fit(config: dict[str, Any], steps: int, folder: Path) -> list[float]:
    """Seconds of each of `steps` training steps by the Trainer, after an unmeasured one."""
    import lightning.pytorch as L

    from bipose_lit.run import quiet

    class Stamps(L.Callback):
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            self.times.append(time.perf_counter())

    torch.manual_seed(0)
    module, data, options = _build(config)
    stamps = Stamps()
    chosen = {k: v for k, v in options.items() if v is not None}
    chosen.update(
        max_steps=steps + 1, limit_val_batches=0, default_root_dir=str(folder), logger=False, callbacks=[stamps],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    chosen.pop("val_check_interval", None)
    with quiet():
        L.Trainer(**chosen).fit(module, datamodule=data)
    return [b - a for a, b in zip(stamps.times, stamps.times[1:], strict=False)]


def _scoring(setting: Setting, configs: dict[str, dict[str, Any]], head: str) -> dict[str, Spread]:
    """Seconds per clip of predicting the test split."""
    jobs: dict[str, Callable[[], object]] = {}
    clips = 1
    for mode, config in configs.items():
        module, data, _ = _build(config)
        module.eval()
        clips = len(data.index("test").tracks)
        loader = data.test_dataloader()
        jobs[mode] = lambda m=module, b=loader: [m.predict_step(batch) for batch in b]  # type: ignore[misc]
    tell = lambda line: setting.tell(f"scoring, {head}, {line}")  # noqa: E731
    return {mode: t.map(lambda s: s / clips) for mode, t in interleave(jobs, setting.pick(3, 1), 0.0, tell).items()}


def _runs(
    plan: Plan, build: Spread, steps: dict[str, dict[str, Spread]], scoring: dict[str, dict[str, Spread]],
    spots: dict[str, str],
) -> list[str]:  # fmt: skip
    ms = lambda s: s.map(lambda v: 1e3 * v)  # noqa: E731
    per_step, per_run = [], []
    made = build.median * plan.views
    totals = dict.fromkeys(MODES, 0.0)
    for head, by in steps.items():
        cached = by["cached"]
        per_step.append(
            [head, *(ms(by[m]) for m in MODES), by["recomputed"].over(cached), by["end to end"].over(cached)]
        )
        train = {m: plan.steps * by[m].median for m in MODES}
        score = {m: plan.scored * scoring[head]["cached" if m == "cached" else "recomputed"].median for m in MODES}
        whole = {m: train[m] + score[m] for m in MODES}
        for m in MODES:
            totals[m] += whole[m]
        runs = plan.arms * plan.seeds
        per_run.append([
            head, _ratio(train, 1, made), _ratio(whole, 1, made), _ratio(train, runs, made), _ratio(whole, runs, made)
        ])  # fmt: skip
    many = {m: plan.seeds * t for m, t in totals.items()}
    ratios = [number(many[m] / (many["cached"] + made)) for m in MODES[1:]]
    n, k = len(steps), plan.seeds
    return [
        "Training steps by the Trainer, loading included (no validation):",
        table(["ms per step", *MODES, "recomputed / cached", "end to end / cached"], per_step),
        f"Whole runs, from these medians and one building of the features for the default ablation's set "
        f"({plan.views:,} frame-views): {plan.steps} steps, and with the scoring of {plan.scored} clips "
        f"(validations and one test). Each cell: recomputed / cached, end to end / cached, both with the building in "
        f"the cached side.",
        table(
            [
                "head", "one run, steps", "one run, with scoring", f"{plan.arms * plan.seeds} runs, steps",
                f"{plan.arms * plan.seeds} runs, with scoring",
            ],
            per_run,
        ),  # fmt: skip
        f"These {n} arms x {k} seeds = {n * k} runs sharing one cache, with scoring: recomputed costs {ratios[0]} times, "
        f"end to end {ratios[1]} times as much.",
        "What limits cached steps now (share of a fit's operator time): "
        + "; ".join(f"{head}: {text}" for head, text in spots.items())
        + ".",
    ]


def _ratio(seconds: dict[str, float], runs: int, made: float) -> str:
    cached = runs * seconds["cached"] + made
    return ", ".join(number(runs * seconds[m] / cached) for m in MODES[1:])


def _built(plan: Plan, build: Spread) -> str:
    return (
        f"Building takes {build.map(lambda s: 1e3 * s)} ms per frame-view, {number(build.median * plan.views)} s for "
        "the default ablation's set; the backbone's forward pass limits it."
    )
