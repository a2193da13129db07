"""Broken files from good ones: every mutation is a pure function of a random generator.

Formats with a structure (JSON, MATLAB, HDF5, npz, text) are taken apart, broken at one to three places with values of the
wrong type, size or sign, and written again; any file can also be cut, damaged or replaced as bytes.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

Rng = np.random.Generator

HUGE = (1e308, -1e308, 1e20, 2**63, -(2**63), 2**31, 2**64, 10**400, 1e-320)
ODD = (None, True, False, "", "x", "NaN", "1", "\x00", "0" * 300, "é中\U0001f600", "../../etc/passwd", [], {}, [[]], [None], -1,
       0, 1, -1.5, 0.5, float("nan"), float("inf"), float("-inf"), *HUGE)  # fmt: skip
WORDS = (
    "id",
    "image_id",
    "category_id",
    "keypoints",
    "bbox",
    "area",
    "iscrowd",
    "num_keypoints",
    "score",
    "images",
    "annotations",
    "file_name",
    "width",
    "height",
    "track_id",
    "joints",
    "center",
    "scale",
    "image",
    "joints_vis",
)


def pick(rng: Rng, options: Any) -> Any:
    """One of a sequence."""
    return options[int(rng.integers(len(options)))]


def random_value(rng: Rng, depth: int = 0) -> Any:
    """Any JSON-like value, nested a little; now and then very deep."""
    kind = int(rng.integers(7 if depth < 3 else 4))
    if kind < 4:
        return pick(rng, ODD)
    if kind == 4:
        return [random_value(rng, depth + 1) for _ in range(int(rng.integers(6)))]
    if kind == 5:
        return {pick(rng, WORDS): random_value(rng, depth + 1) for _ in range(int(rng.integers(5)))}
    deep: Any = 1
    for _ in range(int(pick(rng, (3, 50, 3000)))):
        deep = [deep]
    return deep


def damage_bytes(data: bytes, rng: Rng) -> bytes:
    """Cut, empty, flipped, overwritten, repeated or foreign bytes."""
    size = len(data)
    kind = int(rng.integers(8))
    at = int(rng.integers(max(size, 1)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return b""
    if kind == 2:  # flipped bits
        found = bytearray(data)
        for _ in range(int(rng.integers(1, 9))):
            if found:
                found[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
        return bytes(found)
    if kind == 3:  # a run of other bytes
        run = int(rng.integers(1, 64))
        return data[:at] + rng.integers(0, 256, run, dtype=np.uint8).tobytes() + data[at + run :]
    if kind == 4:  # a piece missing
        return data[:at] + data[at + int(rng.integers(1, 64)) :]
    if kind == 5:  # a piece twice
        return data[: at + 40] + data[at:]
    if kind == 6:
        return pick(rng, (b"<html>404</html>", b"\x00" * 64, b"{}", b"[]", b"null", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n",
                          b"\xff\xd8", b"version https://git-lfs.github.com/spec/v1\n", b"\x80\x04."))  # fmt: skip
    return rng.integers(0, 256, int(rng.integers(1, 400)), dtype=np.uint8).tobytes()


def _places(tree: Any, path: tuple = ()) -> list[tuple]:
    found = [path]
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += _places(value, (*path, key))
    return found


def _at(tree: Any, path: tuple) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def break_tree(tree: Any, rng: Rng) -> Any:
    """Replaces, removes, repeats, renames or lengthens one to three places of a tree of dicts and lists."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        paths = [p for p in _places(tree) if p]
        if not paths:
            return random_value(rng)
        # Long lists of numbers would take nearly every draw: choose a depth first.
        depth = pick(rng, sorted({len(p) for p in paths}))
        path = pick(rng, [p for p in paths if len(p) == depth])
        parent, key = _at(tree, path[:-1]), path[-1]
        kind = int(rng.integers(7))
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == 2 and isinstance(parent, list) and len(parent) < 2000:
            parent.extend(copy.deepcopy(parent[: int(rng.integers(1, 8))]))
        elif kind == 3 and isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        elif kind == 4 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
            parent[key] = pick(
                rng, (-parent[key], parent[key] * 1e6, parent[key] + 0.5, str(parent[key]), [parent[key]])
            )
        elif kind == 5:
            parent[key] = random_value(rng)
        else:
            parent[key] = pick(rng, ODD)
    return tree


def break_json(path: Path, rng: Rng) -> None:
    """A JSON file with a broken tree (NaN and Infinity literals too) or, at times, broken bytes."""
    if rng.random() < 0.25:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    tree = break_tree(json.loads(path.read_text()), rng) if rng.random() < 0.9 else random_value(rng)
    path.write_text(json.dumps(tree), encoding="utf-8", errors="surrogatepass")


def odd_array(array: Any, rng: Rng) -> Any:
    """An array of another type, shape or content."""
    array = np.asarray(array)
    kind = int(rng.integers(12))
    if kind == 0:
        return np.zeros((0,) * max(array.ndim, 1))
    if kind == 1:
        return array[..., :-1] if array.ndim else np.zeros((2, 2))
    if kind == 2:
        return array[:-1] if array.ndim and len(array) else np.zeros(3)
    if kind == 3:
        return array.T
    if kind == 4:
        return "text"
    if kind == 5:
        return np.array([["a", "bb"]], dtype=object)
    if kind == 6:
        return array.astype(np.complex128) if array.dtype.kind in "iuf" else np.array(1j)
    if kind == 7:
        return np.concatenate([array, array], axis=int(rng.integers(array.ndim))) if array.ndim else np.arange(5)
    if kind == 8:
        return np.array(pick(rng, (float("nan"), float("inf"), -1, 0, 1e300, 2.0**63)))
    if kind == 9 and array.dtype.kind in "iuf":
        return -array.astype(np.float64) if array.size else array
    if array.dtype.kind in "iuf" and array.size:
        found = array.astype(np.float64).copy()
        flat = found.reshape(-1)
        for _ in range(int(rng.integers(1, 6))):
            flat[int(rng.integers(flat.size))] = pick(
                rng, (np.nan, np.inf, -np.inf, 1e300, -1e300, -1.0, 0.0, 1e7, -1e7, 4.2e9)
            )
        return flat.reshape(array.shape)
    return random_value(rng) or 0


def break_mat(path: Path, rng: Rng) -> None:
    """A MATLAB file with a variable missing, of another name, type, shape or content; or broken bytes."""
    if rng.random() < 0.35:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    content = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    for _ in range(int(rng.integers(1, 3))):
        if not content:
            break
        name = pick(rng, sorted(content))
        kind = int(rng.integers(5))
        if kind == 0:
            del content[name]
        elif kind == 1:
            content[name] = {"field": 1.0, "other": content[name]}
        elif content[name].dtype.names:
            content[name] = _odd_struct(content[name], rng)
        else:
            content[name] = odd_array(content[name], rng)
    _save_mat(path, content)


def _odd_struct(array: np.ndarray, rng: Rng) -> Any:
    """Breaks one field somewhere inside nested MATLAB structs."""
    array = copy.deepcopy(array)
    where = array
    while True:
        if not where.size:
            return array
        place = tuple(int(rng.integers(n)) for n in where.shape)
        name = pick(rng, where.dtype.names)
        inner = where[place][name]
        if isinstance(inner, np.ndarray) and inner.dtype.names and rng.random() < 0.8:
            where = inner
            continue
        where[place][name] = odd_array(inner, rng)
        return array


def _save_mat(path: Path, content: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content)
    path.write_bytes(buffer.getvalue())


def break_h5(path: Path, rng: Rng) -> None:
    """An HDF5 file with a data set missing, of another type, shape or content; or broken bytes."""
    if rng.random() < 0.35:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    with h5py.File(path, "r") as file:
        content = {name: file[name][()] for name in file}
    name = pick(rng, sorted(content))
    kind = int(rng.integers(4))
    if kind == 0:
        del content[name]
    else:
        content[name] = odd_array(content[name], rng)
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            try:
                if key == name and kind == 1:
                    file.create_group(key)
                else:
                    file[key] = value
            except (TypeError, ValueError):
                file[key] = "odd"


def break_npz(path: Path, rng: Rng) -> None:
    """An npz with odd arrays, hostile pickles or broken bytes."""
    if rng.random() < 0.35:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    with np.load(path, allow_pickle=True) as file:
        content = {name: file[name] for name in file.files}
    name = pick(rng, sorted(content))
    kind = int(rng.integers(5))
    value = content[name]
    if kind == 0:
        del content[name]
    elif kind == 1:
        content[name] = np.array(_Hostile(), dtype=object)
    elif value.dtype == object and value.shape == ():
        content[name] = np.array(break_objects(value.item(), rng), dtype=object)
    else:
        content[name] = odd_array(value, rng)
    np.savez(path, **{k: np.asarray(v) for k, v in content.items()})


class _Hostile:
    """Pickles into a call that would leave a mark."""

    def __reduce__(self) -> tuple:
        return (exec, ("open('/tmp/bipose-fuzz-executed', 'w').write('x')",))


def break_objects(tree: Any, rng: Rng) -> Any:
    """Breaks a dict of dicts of arrays somewhere."""
    tree = copy.copy(tree)
    if isinstance(tree, dict) and tree:
        key = pick(rng, sorted(tree, key=str))
        kind = int(rng.integers(4))
        if kind == 0:
            del tree[key]
        elif kind == 1:
            tree[pick(rng, (7, None, "../x", "S99"))] = tree.pop(key)
        else:
            tree[key] = break_objects(tree[key], rng)
        return tree
    if isinstance(tree, list) and tree and rng.random() < 0.7:
        at = int(rng.integers(len(tree)))
        return [*tree[:at], break_objects(tree[at], rng), *tree[at + 1 :]]
    return odd_array(tree, rng) if isinstance(tree, np.ndarray) and rng.random() < 0.7 else random_value(rng)


def break_pickle(path: Path, rng: Rng) -> None:
    """A hostile or damaged pickle in the place of a file."""
    path.write_bytes(pickle.dumps(_Hostile()) if rng.random() < 0.5 else damage_bytes(path.read_bytes(), rng))


def break_text(path: Path, rng: Rng) -> None:
    """A text file with words or lines replaced, removed, repeated or swapped; or broken bytes."""
    if rng.random() < 0.3:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))
        return
    lines = path.read_text().splitlines()
    for _ in range(int(rng.integers(1, 4))):
        if not lines:
            break
        at = int(rng.integers(len(lines)))
        kind = int(rng.integers(6))
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[at])
        elif kind == 2:
            lines[at] = str(pick(rng, ODD))
        elif kind == 3:
            other = int(rng.integers(len(lines)))
            lines[at], lines[other] = lines[other], lines[at]
        else:
            words = re.split(r"(\s+)", lines[at])
            words[int(rng.integers(len(words)))] = str(
                pick(rng, (*ODD, "{", "}", "- &a [*a]", "CHANNELS", "nan", "1e999", "999999999999"))
            )
            lines[at] = "".join(words)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass")


def break_bytes(path: Path, rng: Rng) -> None:
    """Any file: broken bytes, gone, or a folder in its place."""
    kind = int(rng.integers(12))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes(damage_bytes(path.read_bytes(), rng))


BREAKERS: dict[str, Callable[[Path, Rng], None]] = {
    ".json": break_json, ".mat": break_mat, ".h5": break_h5, ".npz": break_npz, ".txt": break_text, ".bvh": break_text,
    ".yaml": break_text, ".npy": break_bytes, ".pkl": break_pickle,
}  # fmt: skip


def break_file(path: Path, rng: Rng) -> None:
    """Breaks a file in its own format, or as bytes where it has none that is known here (pictures, video) and now and then.

    Some oddities cannot be written in the format (a tree too deep for the writer, a header that hides a variable); then bytes are
    broken instead.
    """
    good = path.read_bytes()
    if rng.random() < 0.1:
        break_bytes(path, rng)
        return
    try:
        BREAKERS.get(path.suffix, break_bytes)(path, rng)
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
        NotImplementedError,
        OSError,
    ):
        path.write_bytes(damage_bytes(good, rng))
