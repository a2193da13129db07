"""One run in this process: build, fit, score, publish. The ablation engine calls it in a child of its own."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import random
import resource
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_only

from bipose_lit.callbacks.checkpoint_io import FOLDER as CHECKPOINTS
from bipose_lit.callbacks.checkpoint_io import LAST, PREVIOUS, with_checkpoint_io
from bipose_lit.callbacks.checkpoints import Resume, find
from bipose_lit.callbacks.clock import Clock
from bipose_lit.callbacks.evaluation import Evaluation
from bipose_lit.callbacks.guard import explained
from bipose_lit.callbacks.history import History
from bipose_lit.callbacks.pruning import Judge, Pruning
from bipose_lit.callbacks.step_seeds import StepSeeds
from bipose_lit.cli import build
from bipose_lit.compatibility import check_asked, check_whole
from bipose_lit.datamodule import SPLITS, PoseDataModule
from bipose_lit.feature_cache import Recomputing
from bipose_lit.metrics.condensed import condense
from bipose_lit.metrics.terms import ENDPOINT
from bipose_lit.models.flops import blank_batch, measure_cost
from bipose_lit.module import PoseModule
from bipose_lit.store import CONFIG, HISTORY, RESULT, WEIGHTS, Predictions, RunResult, RunSpec, atomic
from bipose_lit.types import BiposeError
from bipose_lit.weights import fingerprint, save_parts

Report = Callable[[int, int, Mapping[str, float]], None]
FINAL = f"{CHECKPOINTS}/final.ckpt"
PACKAGES = ("torch", "lightning", "timm", "numpy", "opencv-python-headless", "optuna", "bipose_lit")
TIMED_CLIPS = 3


def prepare(config: Mapping[str, Any], progress: Callable[[int, int, str], None] | None = None) -> list[str]:
    """Builds what the runs of one configuration share (the feature cache), once; a no-op where there is nothing.

    Returns:
        What the user must be told: that features are computed anew in every step, and why.
    """
    with quiet(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Recomputing)
        _seed(int(config.get("seed_everything") or 0))  # a backbone without given weights is the runs' own
        module, data, _ = _built(config)
        if data.cache is None:
            return []
        module.start_from_weights()
        data.extractor, data.flip_test = module.network, module.flip_test
        for number, split in enumerate(SPLITS):
            if progress is not None:
                report, name = progress, f"features of {data.index(split).name}"
                data.cache.progress = False
                data.cache.tell = lambda done, total, report=report, name=name: report(done, total, name)
                progress(number, len(SPLITS), name)
            data.dataset(split)
        if progress is not None:
            progress(len(SPLITS), len(SPLITS), "features")
    return list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, Recomputing)))


def data_fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 over the labels, boxes and files of all splits that a configuration reads."""
    with quiet():
        return _fingerprint(_built(config)[1])


def cache_bytes(config: Mapping[str, Any]) -> int:
    """Disk space of the features that runs of a configuration share; 0 without a cache. Nothing is computed."""
    with quiet():
        module, data, _ = _built(config)
        cache = data.cache
        if cache is None:
            return 0
        views = {"train": None if data.augmentation is not None else 1}
        plain = 2 if module.flip_test else 1
        spec = module.network.backbone.spec
        return sum(cache.plan(data.index(s), spec, data.size, views.get(s, plain)) for s in SPLITS)


def _built(config: Mapping[str, Any]) -> tuple[PoseModule, PoseDataModule, dict[str, Any]]:
    if config.get("task", "persons") != "persons":
        raise BiposeError(
            f"task {config['task']}: ablations and sweeps are of single persons in boxes; train whole images with 'bipose fit -c'"
        )
    return build(config)


def _fingerprint(data: PoseDataModule) -> str:
    return hashlib.sha256("".join(data.fingerprint(split) for split in SPLITS).encode()).hexdigest()


def execute(spec: RunSpec, report: Report | None = None, judge: Judge | None = None) -> RunResult:
    """Fits and scores one run, or what is left of it; result.json is written last, so a killed run leaves none.

    It goes on from FOLDER/checkpoints where a whole checkpoint of the same configuration lies there, bit for bit as if it had
    never stopped, and starts from the beginning otherwise.

    Args:
        spec: what to run and where.
        report: called with (step, total steps, metrics).
        judge: asked after every validation of the fit; where it says so the run ends there with the status "pruned", the
            validation's metrics and no scoring.

    Raises:
        BiposeError: whatever is wrong with the configuration or the data; the caller records the failure.
        Preempted: SIGTERM or SIGUSR1 asked the run to stop; the same call goes on with it.
    """
    start = time.perf_counter()
    torch.set_num_threads(spec.threads)
    resume = Resume(**(spec.config.get("checkpoint") or {}))
    resume.tag, resume.keep_final, resume.again = spec.config_hash, False, "the same run goes on from there"
    with quiet(), resume.signals.watch():
        result = _execute(spec, report, judge, resume, start)
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        if not result.publish(spec.folder):  # another process was first: one result counts, and it is the same
            result = RunResult.load(spec.folder) or result
        for name in (LAST, PREVIOUS):
            (spec.folder / CHECKPOINTS / name).unlink(missing_ok=True)
    return result


def _execute(spec: RunSpec, report: Report | None, judge: Judge | None, resume: Resume, start: float) -> RunResult:
    folder = spec.folder
    source = find(folder, spec.config_hash)
    _make_ready(spec, anew=source is None)
    _seed(spec.seed)
    module, data, options = _built(spec.config)
    history = History(folder / HISTORY, every=int(options.get("log_every_n_steps") or 10), report=report)
    evaluation = Evaluation()
    clock = Clock(start)
    callbacks: list[L.Callback] = [history, evaluation, clock, StepSeeds(spec.seed)]
    pruning = Pruning(judge, evaluation) if judge is not None else None
    trainer = _trainer(options, folder, [*callbacks, *([pruning] if pruning else [])], resume)
    with explained():
        trainer.fit(module, datamodule=data, ckpt_path=source, weights_only=None if source is None else True)
    resume.finish(trainer, module)
    pruned = pruning.pruned_at if pruning is not None else None
    if pruned is None:
        check_finite(module, trainer.global_step)
    trainer.save_checkpoint(folder / FINAL, weights_only=True)

    metrics = dict(pruning.metrics) if pruning is not None else {}
    predictions: dict[str, str] = {}
    clusters: dict[str, Any] = {}
    for split in spec.score if pruned is None else ():
        # The model as it is now: final weights, or their average where an averaging callback swapped it in.
        (trainer.validate if split == "val" else trainer.test)(module, datamodule=data, verbose=False)
        metrics |= evaluation.metrics[split]
        predictions[split] = f"predictions-{split}.npz"
        if trainer.is_global_zero:
            evaluation.predictions[split].save(folder / predictions[split])
            clusters |= sums_by_cluster(split, evaluation.predictions[split], spec.endpoint)
    if trainer.is_global_zero:
        save_parts(module.network, folder / WEIGHTS, [n for n, _ in module.network.named_children()])
    facts = describe(module, data)
    facts["steps"] = trainer.global_step
    if pruned is not None:
        facts["pruned_at"] = pruned
    return RunResult(
        name=spec.name,
        arm=spec.arm,
        seed=spec.seed,
        status="finished" if pruned is None else "pruned",
        metrics=metrics,
        measured={
            **clock.measured(),
            "ms_per_frame": milliseconds_per_frame(module, data),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
        facts=facts,
        scorings={split: evaluation.scorings[split] for split in predictions if split != "val"},
        predictions=predictions,
        clusters=clusters,
        config_hash=spec.config_hash,
        data_fingerprint=_fingerprint(data),
        weights_hash=fingerprint(module.network),
        commit=commit(),
        versions=versions(),
    )


def _make_ready(spec: RunSpec, anew: bool) -> None:
    """The run's folder with its configuration; what an earlier attempt left goes, unless it is continued."""
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return  # the other ranks are started when rank 0 has been here
    folder = spec.folder
    for stale in (RESULT, HISTORY) if anew else (RESULT,):
        (folder / stale).unlink(missing_ok=True)
    if anew:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / CONFIG) as handle:
        yaml.safe_dump(dict(spec.config), handle, sort_keys=False)


def sums_by_cluster(split: str, predictions: Predictions, endpoint: str) -> dict[str, Any]:
    """What a report needs of a split's predictions, by the split's name; nothing for a measure that is no mean of joints."""
    with contextlib.suppress(BiposeError):
        return {split: condense(predictions, endpoint or ENDPOINT, detail=split == "test").plain()}
    return {}


def check_finite(module: PoseModule, step: int) -> None:
    """Refuses a model that has diverged: its predictions would still be places in the picture, and count.

    Raises:
        BiposeError: a parameter or a running statistic is not finite.
    """
    for name, value in module.network.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BiposeError(
                f"training diverged: {name} is not finite after step {step}; lower model.recipe.lr, set or lower "
                "trainer.gradient_clip_val, or set trainer.detect_anomaly true to see where it begins"
            )


def _trainer(options: Mapping[str, Any], folder: Path, callbacks: list[L.Callback], resume: Resume) -> L.Trainer:
    """The Trainer as configured, without what a run in a batch of runs must not have: bars and loggers."""
    check_asked(options)
    chosen = dict(options)  # null means null: check_val_every_n_epoch
    own = _instances(chosen.pop("callbacks", None))
    chosen.update(
        default_root_dir=str(folder),
        logger=False,
        enable_checkpointing=True,
        plugins=with_checkpoint_io(chosen.get("plugins")),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer = L.Trainer(**chosen, callbacks=[*callbacks, *own, resume])
    check_whole(trainer)
    return trainer


def _instances(callbacks: Any) -> list[L.Callback]:
    from bipose_lit.models.rebuild import instantiate

    listed = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    return [c if isinstance(c, L.Callback) else instantiate(c, L.Callback) for c in listed]


def describe(module: PoseModule, data: PoseDataModule) -> dict[str, Any]:
    """What the model is and costs, independent of the machine."""
    frames = clip_frames(data)
    cost = measure_cost(module.network, frames)
    parts = {k: v for k, v in cost.parameters.items() if k != "total"}
    return {
        "parameters": cost.parameters["total"],
        "parameters_by_part": parts,
        "trainable_parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "flops_per_frame": cost.gflops * 1e9,
        "look_back_frames": module.network.context[0],
        "look_ahead_frames": module.network.context[1],
        "causal": module.network.causal,
        "eval_frames": frames,
        "left_out": left_out(data),
        "hardware": platform_line(),
    }


def left_out(data: PoseDataModule) -> str:
    """What the readers left out or mended, and why, of all splits; "" if nothing."""
    return "; ".join(
        f"{data.index(split).name}: {reason}: {', '.join(names[:3])}"
        + (f" and {len(names) - 3} more" * (len(names) > 3))
        for split in SPLITS
        for reason, names in data.index(split).skipped.items()
    )


def clip_frames(data: PoseDataModule) -> int:
    """Frames of the test split's median clip, 64 at most: the length at which cost and speed are told."""
    return min(64, int(np.median([len(track) for track in data.index("test").tracks])))


@torch.no_grad()
def milliseconds_per_frame(module: PoseModule, data: PoseDataModule) -> float:
    """Median wall time per frame of pictures to joints, one clip at a time, on the run's device and threads."""
    frames = clip_frames(data)
    device = next(module.parameters()).device
    module.eval()
    batch = blank_batch(1, frames, module.size, module.joints).to(device)
    times = []
    for _ in range(TIMED_CLIPS):
        start = time.perf_counter()
        module.predict_step(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1000 / frames


def _seed(seed: int) -> None:
    """Seeds the global generators (initial weights, dropout); data draws from generators of its own."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party layers may still read it
    torch.manual_seed(seed)
    os.environ["PL_GLOBAL_SEED"] = str(seed)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's banners and advice out of a batch of runs; errors still surface."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@cache
def commit() -> str:
    """Commit of the checkout that this package lies in, with "+" if files differ from it; "" outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + ("+" if dirty.stdout.strip() else "") if head.returncode == 0 else ""


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    return {name: version(name) for name in PACKAGES}


@cache
def platform_line() -> str:
    """The processor (and CUDA device) in words."""
    words = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        words.append(next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), ""))
    words.append(f"{os.cpu_count()} cores")
    if torch.cuda.is_available():
        words.append(torch.cuda.get_device_name())
    return ", ".join(w for w in words if w)
