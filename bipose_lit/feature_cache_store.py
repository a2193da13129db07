"""The files of the feature cache: written once by one process, complete or absent, read through memory maps."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.types import BiposeError

META = "meta.json"
ARRAYS = ("features", "joints", "visible", "to_image", "norms", "uid", "box_score", "offsets")


@dataclass(frozen=True)
class Shapes:
    """Sizes of one entry.

    Attributes:
        views: V.
        offsets: (clips + 1,) first row of each clip; the last is the number of rows F, one per frame.
        joints: K.
        norms: M.
        feature: C, h, w.
        dtype: of the features, "float16" or "float32".
    """

    views: int
    offsets: NDArray[np.int64]
    joints: int
    norms: int
    feature: tuple[int, int, int]
    dtype: str

    @property
    def arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Type and shape of each array."""
        v, f = self.views, int(self.offsets[-1])
        return {
            "features": (self.dtype, (v, f, *self.feature)),
            "joints": ("float32", (v, f, self.joints, 2)),
            "visible": ("uint8", (v, f, self.joints)),
            "to_image": ("float32", (v, f, 2, 3)),
            "norms": ("float32", (f, self.norms)),
            "uid": ("int64", (f,)),
            "box_score": ("float32", (f,)),
            "offsets": ("int64", (len(self.offsets),)),
        }

    @property
    def bytes(self) -> int:
        """Disk space of the entry."""
        return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(t).itemsize for t, shape in self.arrays.values())


@dataclass
class Entry:
    """One finished entry; the arrays are mapped on first use, in each process by itself."""

    path: Path
    _maps: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_maps": {}}  # a pickled memory map would carry its content along

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._maps:
            try:
                # A plain view of the map: np.memmap itself makes every slice slow.
                self._maps[name] = np.load(self.path / f"{name}.npy", mmap_mode="r").view(np.ndarray)
            except (OSError, ValueError) as error:
                raise BiposeError(
                    f"feature cache {self.path}/{name}.npy cannot be read ({error}); delete {self.path}"
                ) from error
        return self._maps[name]

    def complete(self) -> bool:
        """Whether the entry is there with every array at its full size."""
        try:
            sizes = json.loads((self.path / META).read_text())["sizes"]
            return all((self.path / f"{name}.npy").stat().st_size == sizes[name] for name in ARRAYS)
        except (OSError, ValueError, KeyError, TypeError):
            return False


def entry_bytes(root: Path, besides: str) -> int:
    """Bytes of all finished entries under a cache's root but one."""
    found = [p.parent for p in root.glob(f"*/{META}") if p.parent.name != besides]
    return sum(file.stat().st_size for path in found for file in path.glob("*.npy"))


@contextlib.contextmanager
def lock(path: Path, timeout: float = 24 * 3600.0) -> Iterator[None]:
    """Holds an exclusive lock on a file, waiting while another process has it.

    The kernel drops the lock of a process that ends in whatever way, so none is ever stale.

    Raises:
        BiposeError: the file system has no locks, or another process held it for longer than `timeout` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    begun, told = time.monotonic(), False
    with path.open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                if time.monotonic() - begun > timeout:
                    raise BiposeError(
                        f"{path} has been locked by {holder} for {timeout:.0f} s; end it, then retry"
                    ) from None
                if not told:
                    print(f"waiting for {holder}, which builds the same feature cache", flush=True)
                    told = True
                time.sleep(0.1)
            except OSError as error:
                raise BiposeError(f"{path}: cannot lock ({error.strerror}); put the cache on a local disk") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
            fcntl.flock(file, fcntl.LOCK_UN)


class Writer:
    """A new entry, invisible until `finish`; call it under the entry's lock.

    Args:
        root: folder of the cache.
        key: name of the entry.
        shapes: sizes.

    Raises:
        OSError: the disk is full (all space is taken at once, before anything is computed).
    """

    def __init__(self, root: Path, key: str, shapes: Shapes) -> None:
        # The lock is held, so what another process left half-made is nobody's.
        for left in root.glob(f".{key}-*"):
            shutil.rmtree(left, ignore_errors=True)
        self.final, self.path = root / key, root / f".{key}-{os.getpid()}"
        self.path.mkdir(parents=True)
        self.arrays: dict[str, np.memmap] = {}
        try:
            for name, (dtype, shape) in shapes.arrays.items():
                file = self.path / f"{name}.npy"
                self.arrays[name] = np.lib.format.open_memmap(file, mode="w+", dtype=dtype, shape=shape)
                # A map of a sparse file on a full disk ends the process with a bus error.
                with file.open("r+b") as handle:
                    os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
        except OSError:
            self.discard()
            raise
        self.arrays["offsets"][:] = shapes.offsets

    def finish(self, meta: Mapping[str, Any]) -> Entry:
        """Writes everything to disk, then makes the entry visible in one step."""
        for array in self.arrays.values():
            array.flush()
        self.arrays.clear()
        sizes = {name: (self.path / f"{name}.npy").stat().st_size for name in ARRAYS}
        with (self.path / META).open("w") as file:
            json.dump({**meta, "sizes": sizes}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        if self.final.exists():  # incomplete, or it would have been used
            shutil.rmtree(self.final)
        self.path.rename(self.final)
        return Entry(self.final)

    def discard(self) -> None:
        """Removes what was written."""
        self.arrays.clear()
        shutil.rmtree(self.path, ignore_errors=True)


def disk_full(error: OSError) -> bool:
    """Whether an error says that there is no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


__all__ = ["Entry", "Shapes", "Writer", "disk_full", "entry_bytes", "lock"]
