"""What a run leaves behind, written atomically and read without torch: result.json is the truth, dashboards mirror it.

A run is a folder runs/NAME/ARM/seedK/ with config.yaml, result.json, predictions-SPLIT.npz, history.jsonl,
checkpoints/ and wandb/.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import socket
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.types import BiposeError

SCHEMA = 1
RESULT, CONFIG, HISTORY, WEIGHTS = "result.json", "config.yaml", "history.jsonl", "weights.safetensors"
SPEC = "spec.json"
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
"""What a file system says that has no hard links."""


@dataclass
class Predictions:
    """Every scored person of one split, de-duplicated by uid and sorted by it; N persons-in-frames, K joints.

    Attributes:
        uid: (N,) annotation ids.
        clip: (N,) index into `clips` and `clusters`.
        frame: (N,) frame number in the clip.
        pred: (N, K, 2) predicted joints, original pixels; NaN never occurs.
        score: (N, K) confidence of the prediction.
        joints: (N, K, 2) labels, original pixels.
        visible: (N, K) ABSENT, OCCLUDED, VISIBLE.
        norms: (N, M), see `types.NORMS`.
        fps: (N,) frames per second of the clip, 0 where unknown.
        clips: names of the clips.
        clusters: cluster of each clip (same length as `clips`).
        joint_names: K names.
        data: the data's name with split and box rule.
    """

    uid: NDArray[np.int64]
    clip: NDArray[np.int64]
    frame: NDArray[np.int64]
    pred: NDArray[np.float32]
    score: NDArray[np.float32]
    joints: NDArray[np.float32]
    visible: NDArray[np.uint8]
    norms: NDArray[np.float32]
    fps: NDArray[np.float32]
    clips: tuple[str, ...]
    clusters: tuple[str, ...]
    joint_names: tuple[str, ...]
    data: str

    def save(self, path: Path) -> None:
        """Writes a compressed npz atomically; equal predictions give equal bytes."""
        arrays: dict[str, Any] = {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}
        with atomic(path, "wb") as handle:
            np.savez_compressed(handle, **arrays)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Reads what `save` wrote.

        Raises:
            BiposeError: missing or damaged file.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                values: dict[str, Any] = {f.name: data[f.name] for f in fields(cls)}
        except (OSError, KeyError, ValueError) as error:
            raise BiposeError(
                f"cannot read predictions {path}: {error}; delete the run's folder to repeat it"
            ) from error
        for name in ("clips", "clusters", "joint_names"):
            values[name] = tuple(str(v) for v in values[name])
        values["data"] = str(values["data"])
        return cls(**values)


@dataclass
class RunResult:
    """One finished (or failed) run.

    Attributes:
        name: the manifest's name (W&B group).
        arm: the arm (W&B job_type).
        seed: the seed.
        status: "finished" or "failed".
        metrics: by protocol name, e.g. "test/pck@0.1[clip,clip-box]"; fractions, pixels or units named by the metric.
        measured: what differs between equal runs: train_seconds, ms_per_frame, start_seconds, peak_memory_mb, ...
        facts: parameters, trainable_parameters, flops_per_frame, look_ahead_frames (null: the whole clip), steps, ...
        scorings: how often each split was scored, e.g. {"test": 1}.
        predictions: file name of the predictions by split, relative to the run's folder.
        clusters: by split, sums and counts by cluster as `metrics.condensed` writes them: reports read these, not the
            predictions. Results of older versions have none.
        config_hash: of the resolved configuration.
        data_fingerprint: of the files that were read.
        weights_hash: sha256 of the final weights.
        commit: git commit of the code, with "+" if the tree was dirty, "" outside a checkout.
        versions: of the packages that matter.
        error: one line, if failed.
    """

    name: str
    arm: str
    seed: int
    status: str
    metrics: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    scorings: dict[str, int] = field(default_factory=dict)
    predictions: dict[str, str] = field(default_factory=dict)
    clusters: dict[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    data_fingerprint: str = ""
    weights_hash: str = ""
    commit: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""
    schema: int = SCHEMA

    def save(self, folder: Path) -> None:
        """Writes FOLDER/result.json atomically, keys sorted, in the place of any other."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / RESULT) as handle:
            self._write(handle)

    def publish(self, folder: Path) -> bool:
        """Writes FOLDER/result.json as `save` does, unless one is there; however many processes try at once, one succeeds.

        Returns:
            False if a result was there before: it stays, and this one must not count.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / RESULT
        whole = folder / f".{RESULT}.{socket.gethostname()}.{os.getpid()}.part"
        try:
            with whole.open("w") as handle:
                self._write(handle)
                handle.flush()
                os.fsync(handle.fileno())
            try:
                os.link(whole, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise  # a full disk
                return self._create(path)
            return True
        finally:
            with contextlib.suppress(FileNotFoundError):
                whole.unlink()

    def _create(self, path: Path) -> bool:
        """`publish` on a file system without links: exclusive by creation; a kill in the middle leaves a damaged file."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        try:
            with os.fdopen(descriptor, "w") as handle:
                self._write(handle)
                handle.flush()
                os.fsync(handle.fileno())
        except BaseException:
            path.unlink()  # ours, and of no use
            raise
        return True

    def _write(self, handle: IO[str]) -> None:
        json.dump(asdict(self), handle, indent=1, sort_keys=True)
        handle.write("\n")

    @classmethod
    def load(cls, folder: Path) -> RunResult | None:
        """Reads FOLDER/result.json; None if there is none yet.

        Raises:
            BiposeError: a damaged file or one of another schema.
        """
        path = folder / RESULT
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text())
            result = cls(**data)
        except (ValueError, TypeError) as error:
            raise BiposeError(f"{path} is damaged ({error}); delete the folder to repeat the run") from error
        if result.schema != SCHEMA:
            raise BiposeError(f"{path} has schema {result.schema}, this version reads {SCHEMA}; repeat the run")
        return result


@dataclass(frozen=True)
class RunSpec:
    """One run to be done; plain data, so that it can be handed to another process or machine.

    Attributes:
        name: the manifest's name.
        arm: the arm; "stage1" and "tune/ARM/trialT" are runs that serve other runs.
        seed: the seed.
        folder: where everything about the run goes.
        config: the resolved configuration, with the seed in it.
        threads: number of threads of the run; fixed by the manifest, since results depend on it in the last bit.
        question: the manifest's question.
        tags: free words ("trial", "tune", "stage1", "frozen", "full").
        config_hash: of `config`, as `config_hash` computes it; the run copies it into its result.
        score: splits that are scored once, after the fit. Tuning runs never see "test".
        endpoint: metric whose sums by cluster stay in the result, as in `metrics.terms.parse`; "": the usual one. It decides
            nothing about the training.
    """

    name: str
    arm: str
    seed: int
    folder: Path
    config: dict[str, Any]
    threads: int = 1
    question: str = ""
    tags: tuple[str, ...] = ()
    config_hash: str = ""
    score: tuple[str, ...] = ("val", "test")
    endpoint: str = ""

    def save(self) -> Path:
        """Writes FOLDER/spec.json atomically and returns its path."""
        path = self.folder / SPEC
        with atomic(path) as handle:
            json.dump({**asdict(self), "folder": str(self.folder)}, handle, indent=1, sort_keys=True, default=str)
            handle.write("\n")
        return path

    @classmethod
    def load(cls, path: Path) -> RunSpec:
        """Reads what `save` wrote.

        Raises:
            BiposeError: missing or damaged file.
        """
        try:
            data = json.loads(path.read_text())
            data["folder"] = Path(data["folder"])
            data["tags"], data["score"] = tuple(data["tags"]), tuple(data["score"])
            return cls(**data)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise BiposeError(f"cannot read {path}: {error}; start the ablation again") from error


UNHASHED = frozenset([
    "trainer.default_root_dir", "trainer.logger", "trainer.enable_progress_bar", "trainer.enable_model_summary",
    "trainer.log_every_n_steps", "data.reader.init_args.root", "data.train_reader.init_args.root",
    "data.reader.init_args.strict", "data.train_reader.init_args.strict", "data.reader.init_args.cache",
    "data.train_reader.init_args.cache", "data.cache.root", "data.cache.budget_gb", "data.cache.workers",
    "data.cache.progress", "data.cache.init_args.root", "data.cache.init_args.budget_gb",
    "data.cache.init_args.workers", "data.cache.init_args.progress", "data.num_workers", "data.pin_memory",
    "checkpoint", "config",
])  # fmt: skip
"""Options that do not change what is learned: places, displays, loading processes. The data has its own fingerprint.

Those of a reader also hold for the readers that it wraps (`innermost`)."""

LATER = {
    "model.compile": False, "model.recipe.base_batch": None, "model.refiner": None, "model.intermediate": 1.0,
    "model.codec.init_args.grid": "pixel", "model.codec.init_args.quantised": False, "model.codec.init_args.patch": None,
    "model.codec.init_args.shift_flipped": False, "model.decoder.init_args.sigma": False,
    "model.backbone.init_args.bgr": False, "model.decoder.init_args.deconv": None, "data.augmentation.normal": False,
    "model.backbone.init_args.mean": None, "model.backbone.init_args.std": None, "model.recipe.layer_decay": 1.0,
    "model.codec.init_args.reach": None,
}  # fmt: skip
"""Options that came later, and their value that changes nothing: with it they are left out, so that older results stay valid."""
_NESTED = re.compile(r"(?<=^data\.reader)(\.init_args\.reader)+|(?<=^data\.train_reader)(\.init_args\.reader)+")


def is_unhashed(option: str) -> bool:
    """Whether a dotted option is one of `UNHASHED`, or the same of a reader within a reader."""
    return option in UNHASHED or _NESTED.sub("", option) in UNHASHED


def innermost(reader: Any) -> Mapping[str, Any]:
    """The configuration of the reader that reads files: what `reader` wraps, and that one wraps, and so on; {} for none.

    A wrapper has the argument `reader`, plain data with a class_path (`datasets.occluded`, `datasets.converted`).
    """
    while isinstance(reader, Mapping):
        arguments = reader.get("init_args")
        inner = arguments.get("reader") if isinstance(arguments, Mapping) else None
        if not isinstance(inner, Mapping):
            return reader
        reader = inner
    return {}


def config_hash(config: Mapping[str, Any], replaced: Mapping[str, str] | None = None) -> str:
    """sha256 (16 hexadecimal digits) of a resolved configuration as canonical JSON, without those that `is_unhashed` names,
    and without later ones that change nothing (`LATER`).

    Args:
        config: the resolved configuration, plain data.
        replaced: by dotted option, what stands for a value whose text says nothing (a weights file: its sha256).
    """
    replaced = replaced or {}

    def walk(value: Any, path: str) -> Any:
        if path in replaced:
            return replaced[path]
        if isinstance(value, Mapping):
            inner = {str(k): (f"{path}.{k}" if path else str(k), v) for k, v in value.items()}
            return {
                k: walk(v, p)
                for k, (p, v) in inner.items()
                if not is_unhashed(p) and not (p in LATER and v == LATER[p])
            }
        if isinstance(value, list | tuple):
            return [walk(v, f"{path}[]") for v in value]
        return value

    text = json.dumps(walk(config, ""), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A handle whose content replaces `path` only when the block ends without an error (same folder, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, mode) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def folder_mark(folder: Path) -> str:
    """What tells a folder of results (OUT/NAME) from others, on every machine that sees it; made if it is not there."""
    path, mark = folder / ".study", uuid.uuid4().hex
    if not path.is_file():
        mine = folder / f".study.{mark}"
        with atomic(mine) as handle:
            handle.write(mark + "\n")
        try:
            os.link(mine, path)
        except FileExistsError:
            pass  # another machine was first
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            os.replace(mine, path)
        mine.unlink(missing_ok=True)
    return path.read_text().strip()


def run_folder(out: Path, name: str, arm: str, seed: int) -> Path:
    """OUT/NAME/ARM/seedK."""
    return out / name / arm / f"seed{seed}"


def runs(out: Path) -> Iterator[tuple[Path, RunResult]]:
    """All results below a folder, in path order."""
    for path in sorted(out.rglob(RESULT)):
        result = RunResult.load(path.parent)
        if result is not None:
            yield path.parent, result
