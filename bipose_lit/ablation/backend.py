"""What the engine asks of the rest of the suite, as functions that tests replace. The defaults import lazily."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bipose_lit.ablation.text import close
from bipose_lit.store import RunResult, RunSpec
from bipose_lit.types import BiposeError

Progress = Callable[[int, int, str], None]
Report = Callable[[int, int, Mapping[str, float]], None]
Judge = Callable[[int, Mapping[str, float], Mapping[str, float]], bool]
"""Whether to prune: given the step, the metrics of a validation by protocol name, and the watched metric per cluster."""


def _warm() -> None:
    import cv2  # noqa: F401

    import bipose_lit.run  # noqa: F401


def _resolve(files: Sequence[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    from bipose_lit.cli import resolve

    return resolve(files, options)


def _prepare(config: dict[str, Any], progress: Progress) -> list[str]:
    from bipose_lit.run import prepare

    return prepare(config, progress)


def _execute(spec: RunSpec, report: Report, judge: Judge | None = None) -> RunResult:
    from bipose_lit.run import execute

    return execute(spec, report) if judge is None else execute(spec, report, judge)


def _fingerprint(config: dict[str, Any]) -> str:
    from bipose_lit.run import data_fingerprint

    return data_fingerprint(config)


def _cache_bytes(config: dict[str, Any]) -> int:
    from bipose_lit.run import cache_bytes

    return cache_bytes(config)


def _make(recipe: Mapping[str, Any], root: Path, workers: int, progress: Progress) -> None:
    from bipose_lit.datasets.synthetic.finish import RECORDS
    from bipose_lit.datasets.synthetic.make import DEFAULT_CLIPS, make_dataset

    known = [k for k in inspect.signature(make_dataset).parameters if k not in ("root", "workers", "progress")]
    for key in recipe:
        if key not in known:
            raise BiposeError(f"make: unknown key '{key}'{close(key, known)}; known: {', '.join(known)}")
    total = sum((recipe.get("clips") or DEFAULT_CLIPS).values())
    records = root.with_name(f"{root.name}.part") / RECORDS
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            progress(max(0, len(list(records.rglob("*.json"))) - 1), total, "clips")  # one of them holds the parameters

    def end(number: int, frame: Any) -> None:
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)  # its rendering processes would outlive it
    signal.signal(signal.SIGINT, end)
    threading.Thread(target=watch, daemon=True).start()
    try:
        make_dataset(root, workers=workers, progress=False, **recipe)
    finally:
        done.set()


def _mirror(folder: Path, tags: Sequence[str]) -> int:
    from bipose_lit.ablation.overlays import Overlays
    from bipose_lit.tracking import mirror_all

    return len(mirror_all(folder, tags=tags, images=Overlays()))


@dataclass(frozen=True)
class Backend:
    """The suite as the engine sees it.

    Attributes:
        warm: imports what runs need, and does nothing else; called in the parent before it forks.
        resolve: configuration files and dotted options to a complete configuration; makes no tensor.
        prepare: builds what runs of a configuration share; a no-op where it is there. Returns lines for the user, or None.
        execute: one run, or what its checkpoint leaves to do; writes result.json last. Takes the judge as its third argument.
        fingerprint: of the data that a configuration reads, as runs put it into their results.
        cache_bytes: disk space of the features that runs of a configuration share.
        make: writes the synthetic data of a recipe into a folder unless they are there; runs in a process of its own.
        mirror: results to W&B; returns how many.
        report: tables, figures and report.html of one ablation's folder, given its manifest and one run's configuration;
            returns the text to print, which says where the files are. None: no report. (This layer does not know that one.)
        judge: makes the function that decides about pruning from the plain data beside a run's specification. None: there is
            none here.
    """

    warm: Callable[[], None] = _warm
    resolve: Callable[[Sequence[Path], Mapping[str, Any]], dict[str, Any]] = _resolve
    prepare: Callable[[dict[str, Any], Progress], list[str] | None] = _prepare
    execute: Callable[..., RunResult] = _execute
    fingerprint: Callable[[dict[str, Any]], str] = _fingerprint
    cache_bytes: Callable[[dict[str, Any]], int] = _cache_bytes
    make: Callable[[Mapping[str, Any], Path, int, Progress], None] = _make
    mirror: Callable[[Path, Sequence[str]], int] = _mirror
    report: Callable[[Path, dict[str, Any], dict[str, Any]], str] | None = None
    judge: Callable[[Mapping[str, Any]], Judge] | None = None
