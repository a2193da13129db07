"""Structured inference: what pictorial structures and a CRF add to the largest value of a map, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Spread, interleave, listed, operator_profiler, operators, table
from benchmarks.setting import EXPERIMENTS, Setting, paragraphs
from bipose_lit.codecs.heatmap import HeatmapCodec
from bipose_lit.losses import HeatmapMSE
from bipose_lit.models.backbones.hog import HOGFeatures
from bipose_lit.models.decoders.part_filters import PartFilters
from bipose_lit.models.structured.crf import MeanFieldCRF
from bipose_lit.models.structured.distance import LONGEST, dense, envelope
from bipose_lit.models.structured.frames import MapRefiner
from bipose_lit.models.structured.pictorial import PictorialStructures
from bipose_lit.types import NORMS, OCCLUDED, VISIBLE, FeatureSpec

THRESHOLD, SLACKS = 0.1, (1.0, 2.0, 4.0, 8.0)
LENGTHS = (32, 64, 256, 1024)


@dataclass(frozen=True)
class Frames:
    """Of one split, not augmented: crops, what the per-frame model sees in them, labels, and who shares a scene."""

    images: Tensor
    maps: Tensor
    joints: Tensor
    visible: Tensor
    scale: Tensor
    cluster: Tensor


def run(setting: Setting) -> str:
    """The section."""
    setting.limit_threads()
    torch.manual_seed(0)
    train, test, codec = _seen(setting)
    persons, steps = len(test.maps), setting.pick(150, 3)
    argmax = _hits(codec, test, test.maps)
    rows = [["largest value", *_told(test, argmax)]]

    def add(name: str, maps: Tensor, base: np.ndarray = argmax) -> None:
        setting.tell(name)
        rows.append([name, *_told(test, _hits(codec, test, maps), base)])

    for springs, slacks in ((1, SLACKS), (4, (4.0,))):
        for slack in slacks:
            refiner = _built(PictorialStructures(springs=springs), train)
            refiner.fit(train.joints, train.visible, codec.size, slack)
            add(f"pictorial structures, {springs} spring(s), fitted, slack {slack:g}", _through(refiner, test.maps))
    for refiner, count in ((PictorialStructures(), steps // 2), (MeanFieldCRF(rounds=2), steps)):
        setting.tell(f"{type(refiner).__name__}, training")
        _train(_built(refiner, train)._refined, refiner, codec, train, train.maps, count)
        add(f"{type(refiner).__name__}, trained for {count} steps", _through(refiner, test.maps))

    setting.tell("part filters, training")
    hog, filters = HOGFeatures(4), PartFilters()
    filters.build(hog.spec, train.maps.shape[1], codec.size)
    score = lambda images: filters(hog(images.float() / 255))["heatmaps"]  # noqa: E731
    _train(score, filters, codec, train, train.images, 2 * steps)
    parts = torch.cat([_quiet(score, some) for some in test.images.split(32)])
    alone = _hits(codec, test, parts)
    rows.append(["HOG part filters, largest value", *_told(test, alone)])
    for slack in SLACKS[:3]:
        refiner = _built(PictorialStructures(), train)
        refiner.fit(train.joints, train.visible, codec.size, slack)
        add(f"HOG part filters, pictorial structures, slack {slack:g}", _through(refiner, parts), alone)

    return paragraphs(
        f"PCK@{THRESHOLD:g} by clip box of {persons} test frames of the synthetic set, in per cent; springs and training from "
        f"{len(train.maps)} frames that the per-frame network (experiments/weights/stage1.safetensors) was not trained on. "
        "Differences are from the row of the largest value above, with 95% intervals over resampled scenes.",
        table(["where a joint is", "visible", "difference", "hidden", "difference"], rows),
        *_costs(setting, test.maps[: setting.pick(64, 2)]),
    )


def _seen(setting: Setting) -> tuple[Frames, Frames, HeatmapCodec]:
    from bipose_lit.cli import build, resolve
    from bipose_lit.datasets.synthetic.make import make_dataset
    from bipose_lit.run import quiet

    root, length = setting.work / "structured", setting.pick(24, 12)
    counts = setting.pick({"train": 48, "val": 2, "test": 32}, {"train": 1, "val": 1, "test": 1})
    setting.tell("making a synthetic set")
    make_dataset(root, counts, frames=length, workers=1, formats=("jhmdb",), progress=False)
    config = resolve(
        [EXPERIMENTS / "base.yaml", EXPERIMENTS / "data/synthetic.yaml"],
        {
            "data.reader.init_args.root": str(root), "data.clips.length": length, "data.augmentation": None,
            "data.batch_size": 1, "model.weights": str(EXPERIMENTS / "weights/stage1.safetensors"),
        },
    )  # fmt: skip
    with quiet():
        module, data, _ = build(config)
        module.start_from_weights()
    found = {}
    for split, loader in (("train", data.train_dataloader()), ("test", data.test_dataloader())):
        setting.tell(f"{split} clips through the network")
        names = [track.cluster for track in data.index(split).tracks]
        number_of = {name: n for n, name in enumerate(dict.fromkeys(names))}
        parts: list[tuple[Tensor, ...]] = []
        for batch in loader:
            v = batch.valid
            maps = _quiet(lambda b: module.eval().network(b, b.valid)[-1]["heatmaps"], batch)
            # Original pixels of a crop pixel, by the norm: what turns crop distances into those that PCK compares.
            scale = batch.to_image[..., :2, 0].norm(dim=-1) / batch.norms[..., NORMS.index("clip")]
            cluster = torch.tensor([number_of[names[int(c)]] for c in batch.clip])[:, None].expand_as(v)
            parts.append((batch.images[v], maps, batch.joints[v], batch.visible[v], scale[v], cluster[v]))
        found[split] = Frames(*(torch.cat(column) for column in zip(*parts, strict=True)))
    return found["train"], found["test"], module.codec


def _quiet(function: Callable, value: object) -> Tensor:
    with torch.no_grad():
        result: Tensor = function(value)
    return result


def _built(refiner: MapRefiner, frames: Frames) -> MapRefiner:
    joints = frames.maps.shape[1]
    refiner.build(FeatureSpec(1, 32), FeatureSpec(joints, 4), joints)
    return refiner


def _through(refiner: MapRefiner, maps: Tensor) -> Tensor:
    return torch.cat([_quiet(refiner._refined, some) for some in maps.split(64)])


def _train(
    predict: Callable, part: torch.nn.Module, codec: HeatmapCodec, frames: Frames, inputs: Tensor, steps: int
) -> None:
    """By the maps' own loss, from frames in an order of its own."""
    draw = torch.Generator().manual_seed(0)
    optimizer, loss = torch.optim.AdamW(part.parameters(), 2e-3), HeatmapMSE()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (16,), generator=draw)
        target, weight = codec.encode(frames.joints[rows], frames.visible[rows])
        optimizer.zero_grad()
        loss({"heatmaps": predict(inputs[rows])}, target, weight)["loss"].backward()
        optimizer.step()
        schedule.step()


def _hits(codec: HeatmapCodec, frames: Frames, maps: Tensor) -> np.ndarray:
    """(N, K) 1 where a joint is right."""
    places, _ = codec.decode({"heatmaps": maps})
    away = (places - frames.joints).norm(dim=-1) * frames.scale[:, None]
    return (away <= THRESHOLD).double().numpy()


def _told(frames: Frames, hits: np.ndarray, base: np.ndarray | None = None) -> list[str]:
    """Means over visible and over hidden joints, each with its difference from those of `base`."""
    cells = []
    cluster = frames.cluster.numpy()
    for kind in (VISIBLE, OCCLUDED):
        chosen = (frames.visible == kind).numpy()
        cells.append(f"{100 * hits[chosen].mean():.1f}" if chosen.any() else "none")
        if base is None or not chosen.any():
            cells.append("")
            continue
        gain = np.bincount(cluster, ((hits - base) * chosen).sum(1))
        count = np.bincount(cluster, chosen.sum(1))
        drawn = np.random.default_rng(0).integers(len(count), size=(2000, len(count)))
        means = 100 * gain[drawn].sum(1) / np.maximum(count[drawn].sum(1), 1)
        low, high = np.percentile(means, (2.5, 97.5))
        cells.append(f"{100 * gain.sum() / count.sum():+.1f} ({low:+.1f}..{high:+.1f})")
    return cells


def _costs(setting: Setting, maps: Tensor) -> list[str]:
    rows = []
    for n in LENGTHS[: setting.pick(4, 2)]:
        lines = torch.randn(setting.pick(128, 1), 1, 32, n)
        stiffness, shift = torch.full((1,), 0.5 / (0.1 * n) ** 2), torch.full((1,), 0.15 * n)
        alone = lines.flatten(0, 2)
        each = (alone, stiffness.expand(len(alone)), shift.expand(len(alone)))
        times = interleave(
            {
                "values": lambda s=lines, a=stiffness, m=shift: dense(s, a, m, remember=False),
                "winners": lambda s=lines, a=stiffness, m=shift: dense(s, a, m),
                "envelope": lambda e=each: envelope(*e),
            },
            setting.pick(3, 1), setting.pick(0.1, 0.0), setting.tell,
        )  # fmt: skip
        count = lines.numel()
        per = {name: Spread(tuple(1e9 * s / count for s in t.values)) for name, t in times.items()}
        rows.append([n, per["values"], per["winners"], per["envelope"], times["envelope"].over(times["winners"])])
    refiners = {
        "pictorial structures": PictorialStructures(),
        "pictorial structures, 4 springs": PictorialStructures(springs=4),
        "CRF, 3 rounds": MeanFieldCRF(),
    }
    frames = Frames(maps, maps, maps, maps, maps, maps)
    jobs: dict[str, Callable[[], object]] = {}
    for name, refiner in refiners.items():
        _built(refiner, frames)
        jobs[name] = lambda r=refiner: _quiet(r._refined, maps)
        jobs[f"{name}, training"] = lambda r=refiner: r._refined(maps).square().sum().backward()
    times = interleave(jobs, setting.pick(5, 1), 0.0, setting.tell)
    profiler = operator_profiler()
    with profiler:
        jobs["pictorial structures, training"]()
    return [
        f"Generalised distance transforms of {32 * setting.pick(128, 1)} lines, ns per place (`transform` takes the definition "
        f"up to {LONGEST} places):",
        table(
            ["places of a line", "definition, values", "definition, winners too", "envelope", "envelope / winners"],
            rows,
        ),
        f"The refiners on {len(maps)} frames of {maps.shape[1]} maps of {maps.shape[2]}x{maps.shape[3]}, ms per frame:",
        table(
            ["refiner", "inference", "forward and backward"],
            [[n, *(times[k].map(lambda s: 1e3 * s / len(maps)) for k in (n, f"{n}, training"))] for n in refiners],
        ),
        "What limits training through pictorial structures now (share of operators' time): "
        + listed(operators(profiler, 3))
        + ".",
    ]
