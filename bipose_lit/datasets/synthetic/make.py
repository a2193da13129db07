"""Makes the synthetic set: plans it, renders clips in several processes, writes the official layouts, seals it.

A set grows in ROOT.part and gets its name when it is complete. An interrupted call is taken up where it stopped: a clip
counts as done when its record is there, which is written last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bipose_lit.datasets.synthetic.assay import SPLITS, ClipPlan, plan_clips, shortest
from bipose_lit.datasets.synthetic.finish import MANIFEST, RECORDS, finish, record_path
from bipose_lit.types import BiposeError

FORMATS = ("jhmdb", "coco", "mpii", "h36m", "penn")
GENERATOR = 2
"""Raised when the same parameters give other clips."""

DEFAULT_CLIPS = {"stage1": 240, "train": 320, "val": 80, "test": 160}
_BYTES_PER_PIXEL = {"video": 0.40, "png": 2.5}  # 0.28 and 2.2 measured with stills; noise varies


@dataclass(frozen=True)
class MakeOptions:
    """What a worker needs to know besides the clip's plan."""

    part: str
    seed: int
    frames: int
    fps: float
    size: tuple[int, int]
    formats: tuple[str, ...]
    pixels: str


def make_dataset(
    root: str | Path,
    clips: Mapping[str, int] | None = None,
    frames: int = 32,
    fps: float = 25.0,
    size: tuple[int, int] = (320, 240),
    seed: int = 0,
    workers: int = 2,
    formats: Sequence[str] = ("jhmdb", "coco", "mpii", "h36m"),
    motion_files: Sequence[str | Path] = (),
    clips_per_cluster: int = 2,
    pixels: str = "video",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the synthetic set; the same arguments give the same bytes, whatever the number of workers.

    `root` itself has JHMDB's layout: official split 1 is the ablation (train, val, test), 2 the per-frame stage before it
    (its train clips are those of "stage1"), 3 trains on both. The other formats are folders in it, clips.csv lists each
    clip's plan and picture quality, manifest.json parameters, versions, measured run statistics and the fingerprint.

    Args:
        root: where; it must not exist, be empty, or hold the result of an earlier call.
        clips: number of clips of "stage1", "train", "val", "test"; default `DEFAULT_CLIPS`.
        frames: per clip.
        fps: frames per second.
        size: width and height in pixels.
        seed: of everything.
        workers: processes.
        formats: of FORMATS; "jhmdb" always comes with them.
        motion_files: BVH files, held out by split as a whole; every second clip then uses captured motion.
        clips_per_cluster: clips that share scene and person.
        pixels: "video" (motion JPEG) or "png" (lossless).
        progress: show a bar.

    Returns:
        The manifest.

    Raises:
        BiposeError: bad arguments, a folder with other content or parameters, a full disk.
    """
    root = Path(root)
    wanted = {split: int(n) for split, n in (DEFAULT_CLIPS if clips is None else clips).items() if n}
    parameters = _parameters(
        wanted, frames, fps, size, seed, formats, [Path(f) for f in motion_files], clips_per_cluster, pixels
    )
    if workers < 1:
        raise BiposeError(f"workers={workers}: at least one process is needed")
    done = _already_there(root, parameters)
    if done is not None:
        return done
    plans = _plans(wanted, frames, fps, seed, [Path(f) for f in motion_files], clips_per_cluster)
    if frames < (needed := max(shortest(plan.regime) for plan in plans)):
        raise BiposeError(f"clips of {frames} frames are too short for the assay; use at least {needed}")
    part = root.with_name(f"{root.name}.part")
    _open_part(part, parameters)
    options = MakeOptions(str(part), seed, frames, fps, size, tuple(parameters["formats"]), pixels)
    missing = [(i, plan) for i, plan in enumerate(plans) if not record_path(part, plan.name).exists()]
    need = len(missing) * frames * size[0] * size[1] * _BYTES_PER_PIXEL[pixels]
    free = shutil.disk_usage(part).free
    if free < need:
        raise BiposeError(
            f"{part}: {free / 1e9:.2f} GB free, about {need / 1e9:.2f} GB needed; free some space or make fewer clips"
        )
    try:
        _render_all(missing, len(plans), options, workers, progress)
        manifest = finish(part, plans, parameters)
        if root.exists():
            root.rmdir()  # it was empty when this began
        os.replace(part, root)
    except OSError as error:
        raise _explained(error, part) from error
    return manifest


def _parameters(
    clips: dict[str, int], frames: int, fps: float, size: tuple[int, int], seed: int, formats: Sequence[str],
    motion_files: Sequence[Path], clips_per_cluster: int, pixels: str,
) -> dict[str, Any]:  # fmt: skip
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise BiposeError(f"format {unknown[0]!r} is none of {', '.join(FORMATS)}")
    if pixels not in _BYTES_PER_PIXEL:
        raise BiposeError(f"pixels {pixels!r} is neither video nor png")
    unknown = [name for name in clips if name not in SPLITS]
    if unknown:
        raise BiposeError(f"split {unknown[0]!r} is none of {', '.join(SPLITS)}")
    if not clips:
        raise BiposeError("no clips asked for; say how many, for example train=320 val=80 test=160")
    if min(size) < 64 or size[0] % 2 or size[1] % 2 or frames < 1 or not fps > 0:
        raise BiposeError(
            f"size {size[0]}x{size[1]}, {frames} frames, {fps:g} fps: sides must be even and at least 64, the rest positive"
        )
    return {
        "generator": GENERATOR,
        "clips": {split: clips[split] for split in SPLITS if split in clips},
        "frames": frames,
        "fps": float(fps),
        "size": list(size),
        "seed": seed,
        "formats": ["jhmdb", *(name for name in FORMATS[1:] if name in formats)],
        "motion_files": [{"name": path.name, "digest": _digest(path)} for path in sorted(motion_files)],
        "clips_per_cluster": clips_per_cluster,
        "pixels": pixels,
    }


def _digest(path: Path) -> str:
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the motion file ({error.strerror})") from error


def _already_there(root: Path, parameters: dict[str, Any]) -> dict[str, Any] | None:
    if not root.exists():
        return None
    if not root.is_dir():
        raise BiposeError(f"{root}: is a file; give a folder")
    if not any(root.iterdir()):
        return None
    try:
        manifest: dict[str, Any] = json.loads((root / MANIFEST).read_text())
        found = manifest["parameters"]
    except FileNotFoundError:
        raise BiposeError(f"{root}: holds files that bipose did not write; give an empty or a new folder") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BiposeError(f"{root / MANIFEST}: is damaged; delete the folder and make the set again") from error
    _same(root, found, parameters)
    return manifest


def _open_part(part: Path, parameters: dict[str, Any]) -> None:
    """Starts the unfinished folder, or finds it with the same parameters."""
    plan = part / RECORDS / "parameters.json"
    if part.exists():
        try:
            found = json.loads(plan.read_text())
        except (OSError, ValueError) as error:
            if part.is_dir() and not any(part.iterdir()):
                part.rmdir()
                return _open_part(part, parameters)
            raise BiposeError(f"{part}: holds files that bipose did not write; move or delete it") from error
        return _same(part, found, parameters)
    try:
        plan.parent.mkdir(parents=True)
        plan.write_text(json.dumps(parameters))
    except OSError as error:
        raise _explained(error, part) from error


def _same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise BiposeError(
                f"{folder}: was made with {key}={_short(found.get(key))}, now asked for {_short(wanted[key])}; "
                "give another folder or delete this one"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plans(
    clips: dict[str, int], frames: int, fps: float, seed: int, motion_files: list[Path], clips_per_cluster: int
) -> list[ClipPlan]:
    from bipose_lit.datasets.synthetic.motions import MOTION_SPLITS

    captured: dict[str, list[tuple[str, str]]] = {}
    if motion_files:
        from bipose_lit.datasets.synthetic.bvh import clips_in

        # Whole files are dealt out: test and val get theirs first, so that they are never empty.
        order = [split for split in ("test", "train", "val", "stage1") if split in clips]
        if len(motion_files) < len(order):
            raise BiposeError(f"{len(motion_files)} motion files for {len(order)} splits; give at least one for each")
        for i, path in enumerate(
            sorted(motion_files, key=lambda p: (hashlib.blake2b(p.name.encode()).digest(), p.name))
        ):
            if not clips_in(path, frames, fps):
                raise BiposeError(f"{path}: shorter than {frames} frames at {fps:g} fps; leave it out")
            captured.setdefault(order[i % len(order)], []).append(("captured", str(path.resolve())))
    return plan_clips(clips, MOTION_SPLITS, seed, clips_per_cluster, captured)


def _render_all(
    missing: list[tuple[int, ClipPlan]], total: int, options: MakeOptions, workers: int, progress: bool
) -> None:
    """Renders the missing clips in fresh processes of one thread each; the first failure stops all."""
    if not missing:
        return
    from bipose_lit.datasets.synthetic import worker

    # Clips of one scene go to one process, which then makes scene and person once.
    groups: dict[str, list[tuple[int, ClipPlan]]] = {}
    for i, plan in missing:
        groups.setdefault(plan.cluster, []).append((i, plan))
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(groups))
    with _one_thread_each(), _bar(progress, total, total - len(missing)) as advance:
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=worker.start, initargs=(os.getpid(),))
        futures: set[Future[int]] = set()
        try:
            for group in groups.values():
                futures.add(pool.submit(worker.make_clips, group, options))
            while futures:
                finished, futures = wait(futures, return_when=FIRST_COMPLETED)
                for future in finished:
                    advance(future.result())
        except BrokenProcessPool as error:
            raise BiposeError(
                f"{options.part}: a rendering process was killed (out of memory?); repeat the command with fewer workers, "
                "it goes on where it stopped"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Children read these at start; sums in another order by another number of threads would change the last bit."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _bar(show: bool, total: int, done: int) -> Iterator[Any]:
    if not show:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("rendering clips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("clips", total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _explained(error: OSError, part: Path) -> BiposeError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BiposeError(
            f"{part}: the disk is full; free some space and repeat the command, it goes on where it stopped"
        )
    return BiposeError(f"{part}: cannot write ({error.strerror or error}); choose another folder")
