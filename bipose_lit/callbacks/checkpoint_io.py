"""Checkpoint files that are whole or not there: written beside, flushed to the disk, renamed; checked before they are read."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO

from bipose_lit.types import BiposeError

FOLDER, LAST, PREVIOUS = "checkpoints", "last.ckpt", "previous.ckpt"
"""Below a run's folder: where to go on from, and the one before it, which is kept until the next one is whole."""
PART = ".part"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes local checkpoints so that a kill or a full disk in the middle leaves what was there before.

    The bytes go to a file beside the target and to the disk (fsync) before it takes the target's name; then the folder's entry
    goes to the disk too. Nothing is held in memory twice. Addresses of other file systems (s3://...) are left to Lightning.

    Attributes:
        collect: keep a failure in `failure` instead of raising it, so that all ranks can be told of it together.
        failure: what went wrong in the last save.
    """

    def __init__(self) -> None:
        self.collect = False
        self.failure: BiposeError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """As Lightning calls it, on the rank that writes.

        Raises:
            BiposeError: the disk is full, or the place may not be written.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        try:
            write(checkpoint, Path(path))
        except BiposeError as error:
            if not self.collect:
                raise
            self.failure = error


def with_checkpoint_io(plugins: Any) -> list[Any]:
    """A Trainer's plugins with an `AtomicCheckpointIO`, unless they bring a way of writing checkpoints of their own."""
    listed = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    own = any(isinstance(plugin, CheckpointIO) for plugin in listed)
    return listed if own else [*listed, AtomicCheckpointIO()]


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Writes a checkpoint atomically and durably.

    Raises:
        BiposeError: one line that tells what could not be written, where, and what to do.
    """
    recorder: _Recorder | None = None
    name = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        with os.fdopen(descriptor, "wb") as handle:
            recorder = _Recorder(handle)
            torch.save(dict(checkpoint), cast(IO[bytes], recorder))  # it needs no more than these two methods
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
        name = ""
        sync(path.parent)
    except (OSError, RuntimeError) as error:
        # torch reports a write that failed as a RuntimeError of its own; what the system said is with the recorder.
        cause = error if isinstance(error, OSError) else recorder.error if recorder is not None else None
        if cause is None:
            raise
        _discard(name)
        name = ""
        raise BiposeError(_refused(cause, checkpoint, path, recorder.written if recorder else 0)) from error
    finally:
        _discard(name)


def _discard(name: str) -> None:
    if name:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _refused(cause: OSError, checkpoint: Mapping[str, Any], path: Path, written: int) -> str:
    what = f"the checkpoint of step {checkpoint.get('global_step', '?')} could not be written to {path}"
    kept = "the last whole one stays" if path.is_file() else "there is no earlier one"
    if cause.errno in FULL:
        free = ""
        with contextlib.suppress(OSError):
            free = f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB free, {written / 1e6:.0f} MB written before it stopped)"
        why = (
            "the disk is full"
            if cause.errno == errno.ENOSPC
            else f"no more may be written ({os.strerror(cause.errno)})"
        )
        return f"{what}: {why}{free}; {kept}; free some space, then start again with ckpt_path=last"
    return f"{what}: {os.strerror(cause.errno or 0).lower()}; {kept}; mend the folder or give another place, then start again"


class _Recorder:
    """A file handle that remembers why a write failed."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.error: OSError | None = None
        self.written = 0

    def write(self, data: Any) -> int:
        try:
            count = self.handle.write(data)
        except OSError as error:
            self.error = error
            raise
        self.written += count
        return count

    def flush(self) -> None:
        try:
            self.handle.flush()
        except OSError as error:
            self.error = error
            raise


def sync(folder: Path) -> None:
    """Makes renames in a folder durable; a file system that cannot do so is left as it is."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def keep_previous(path: Path) -> None:
    """Gives the checkpoint that is about to be replaced a second name beside it; `path` itself is there all the time."""
    if not path.is_file():
        return
    second = path.with_name(PREVIOUS)
    spare = path.with_name(f".{PREVIOUS}{PART}")
    try:
        spare.unlink(missing_ok=True)
        os.link(path, spare)
        os.replace(spare, second)
    except OSError:  # no hard links here: one whole file must do, and it is replaced atomically
        _log.debug("no second name for %s", path)


def set_aside(path: Path) -> Path | None:
    """Moves a checkpoint that a new training would replace to the next free name beside it; None if there is none."""
    if not path.is_file():
        return None
    number = 1
    while (aside := path.with_name(f"replaced-{number}.ckpt")).exists():
        number += 1
    os.replace(path, aside)
    return aside


def clean(folder: Path) -> None:
    """Deletes what a killed writer left half written."""
    for path in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            path.unlink()


def is_whole(path: Path) -> bool:
    """Whether a checkpoint can be read to its last byte: its directory is there and every record's checksum is right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError):
        return False


def newest(folder: Path, names: Iterable[str] = (LAST, PREVIOUS)) -> Path | None:
    """The newest whole checkpoint of a folder, in the order of `names`; a damaged one is passed over with a warning."""
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        if is_whole(path):
            return path
        _log.warning("%s is damaged and is not used", path)
    return None


def read(path: Path) -> dict[str, Any]:
    """A checkpoint's content; plain data and tensors only, the tensors on the CPU and read from the disk when they are used.

    Raises:
        BiposeError: it cannot be read.
    """
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
    except Exception as error:  # torch raises what its reader, its unpickler and the system raise
        line = " ".join(str(error).split())[:200]
        raise BiposeError(
            f"cannot read the checkpoint {path}: {line}; delete it to start from the beginning"
        ) from error


__all__ = [
    "FOLDER",
    "LAST",
    "PREVIOUS",
    "AtomicCheckpointIO",
    "clean",
    "is_whole",
    "keep_previous",
    "newest",
    "read",
    "set_aside",
    "sync",
    "with_checkpoint_io",
    "write",
]
