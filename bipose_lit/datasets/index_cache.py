"""Arrays of big label files, kept on disk, so that a second start does not read a quarter of a gigabyte of JSON again.

Place: `$BIPOSE_CACHE`, else `$XDG_CACHE_HOME/bipose`, else `~/.cache/bipose`; one .npz per label file and kind of content,
without pickles. It holds the label file's absolute path, size and time of change and the version of the content; where one
of them differs, or the cache is damaged, it is made anew. A place that cannot be written is no error: there is no cache then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bipose_lit.store import atomic

LEAST_BYTES = 8 * 2**20
"""Label files up to this size are read anew each time: that takes less than a second."""

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

_KEY = "key"


def cache_folder() -> Path:
    """Where caches lie.

    Raises:
        RuntimeError: no variable says so and there is no home.
    """
    if chosen := os.environ.get("BIPOSE_CACHE"):
        return Path(chosen)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "bipose"
    return Path.home() / ".cache" / "bipose"


def source_digest(*files: str | Path) -> str:
    """A hash of source files, so that what code made is kept no longer than the code; one that cannot be read counts as empty."""
    digest = hashlib.blake2b(digest_size=10)
    for file in files:
        data = b""
        with contextlib.suppress(OSError):
            data = Path(file).read_bytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def cache_path(path: Path, kind: str) -> Path:
    """The cache of a label file. RuntimeError as `cache_folder`."""
    absolute = os.path.abspath(path)
    digest = hashlib.blake2b(f"{absolute}\n{kind}".encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", path.stem)[:60]
    return cache_folder() / f"{readable}-{digest}.npz"


def cached(
    path: Path,
    kind: str,
    version: int | str,
    build: Callable[[], T],
    pack: Callable[[T], Arrays],
    unpack: Callable[[Arrays], T],
) -> T:
    """What `build` makes of a label file, from the cache where there is a good one; else the cache is written.

    Args:
        path: the label file.
        kind: what is kept of it, with the arguments that it depends on, e.g. "coco-17"; kinds lie side by side.
        version: of the content and of the code that makes it (`source_digest`); another one replaces the cache.
        build: reads the label file.
        pack: to arrays without objects; the name "key" is taken.
        unpack: the inverse; an exception from it means that the cache is not good.

    Raises:
        BiposeError: what `build` raises.
    """
    try:
        state = path.stat()
        if not path.is_file() or state.st_size <= LEAST_BYTES:
            return build()
        place = cache_path(path, kind)
    except (OSError, ValueError, RuntimeError):
        return build()  # which says what is wrong with the file
    # The state before reading: if the file changes meanwhile, the cache is stale at the next start, never wrong.
    key = json.dumps([os.path.abspath(path), state.st_size, state.st_mtime_ns, kind, version]).encode()
    try:
        return unpack(_load(place, key))
    except Exception:
        pass  # whatever is wrong with a cache (zip, header, checksum, content), it is made anew
    made = build()
    with contextlib.suppress(OSError), atomic(place, "wb") as handle:
        np.savez(handle, **{_KEY: np.frombuffer(key, np.uint8)}, **pack(made))  # type: ignore[arg-type]
    return made


def _load(place: Path, key: bytes) -> Arrays:
    with np.load(place, allow_pickle=False) as content:
        if content[_KEY].tobytes() != key:
            raise ValueError("the cache of another state of the file")
        return {name: content[name] for name in content.files if name != _KEY}
