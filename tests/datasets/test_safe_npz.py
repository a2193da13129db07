"""Pickled npz files: what VideoPose3D's hold is read, and nothing that a pickle names is run or allocated."""

import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from bipose_lit.datasets.safe_npz import names_in, read_npz
from bipose_lit.datasets.safe_pickle import unpickle
from bipose_lit.types import BiposeError

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"


def tree():
    rng = np.random.default_rng(0)
    return {
        "S1": {"Walking": rng.normal(size=(3, 32, 3)).astype(np.float32), "Eating 1": np.asfortranarray(np.eye(3))},
        "S9": {"Walking": [rng.normal(size=(2, 17, 2)), np.arange(3, dtype=">i4")], "fps": np.float64(50), "n": 17},
        "meta": {
            "layout_name": "h36m",
            "pairs": [(4, 1), (5, 2)],
            "none": None,
            "yes": True,
            "bytes": b"ab",
            "empty": b"",
        },
    }


def npy(pickled: bytes) -> bytes:
    header = HEADER + b" " * (-(len(HEADER) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled


def write(path, pickled: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("positions_3d.npy", npy(pickled))
    return path


def same(a, b):
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_pickles_is_read(tmp_path, save):
    save(tmp_path / "a.npz", positions_3d=tree(), plain=np.arange(6.0).reshape(2, 3))
    assert names_in(tmp_path / "a.npz") == ("positions_3d", "plain")
    found = read_npz(tmp_path / "a.npz", objects=True)
    assert same(tree(), found["positions_3d"])
    np.testing.assert_array_equal(found["plain"], np.arange(6.0).reshape(2, 3))
    assert not found["positions_3d"]["S1"]["Walking"].flags.writeable


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol(tmp_path, protocol):
    wrapped = np.empty((), object)
    wrapped[()] = tree()
    assert same(
        tree(), read_npz(write(tmp_path / "a.npz", pickle.dumps(wrapped, protocol)), objects=True)["positions_3d"]
    )


def test_older_and_newer_module_names_and_object_arrays_within(tmp_path):
    wrapped = np.empty(2, object)
    wrapped[:] = [np.ones(2), {"a": np.zeros(1)}]
    data = pickle.dumps(wrapped, 2)
    old, new = data.replace(b"numpy._core", b"numpy.core"), data.replace(b"numpy.core", b"numpy._core")
    assert old != new
    for version in (old, new):
        assert same([np.ones(2), {"a": np.zeros(1)}], unpickle(version))


def test_plain_arrays_are_as_numpy_reads_them(tmp_path):
    arrays = {
        "a/b/c": np.arange(24, dtype=np.int16).reshape(2, 3, 4), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "s": np.array(["ab", "c"]), "zero": np.zeros((0, 3)), "scalar": np.array(3.5), "flag": np.array([True, False]),
        "big": np.arange(3, dtype=">f8"),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


class Call:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def marker(tmp_path):
    return str(tmp_path / "executed")


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (os.system, "posix.system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (open, "io.open"),
        (getattr, "builtins.getattr"),
        (np.load, "numpy.load"),
        (np.fromfile, "numpy.*fromfile"),
        (np.ones, "numpy.*ones"),
        (bytearray, "builtins.bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_calls_are_refused_by_name_and_not_run(tmp_path, function, named, protocol):
    argument = {os.system: f"touch {marker(tmp_path)}", eval: f"open({marker(tmp_path)!r}, 'w')",
                exec: f"open({marker(tmp_path)!r}, 'w')"}.get(function, marker(tmp_path))  # fmt: skip
    named = named.replace("builtins", "(builtins|__builtin__)").replace("io.open", "(_?io|builtins).open")
    data = pickle.dumps({"S1": Call(function, argument)}, protocol)
    with pytest.raises(BiposeError, match=rf"positions_3d asks for {named}; refused") as error:
        read_npz(write(tmp_path / "a.npz", data), objects=True)
    assert "\n" not in str(error.value)
    assert not os.path.exists(marker(tmp_path))


def test_the_same_pickle_does_run_elsewhere(tmp_path):
    data = pickle.dumps({"S1": Call(os.system, f"touch {marker(tmp_path)}")})
    pickle.loads(data)
    assert os.path.exists(marker(tmp_path))  # so the test above would see it


def npy_file(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", data)
    return path


def plain(header: bytes, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00\x10\x00", plain(b""), plain(b"{}"), b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{",
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }", b"\0" * 8),
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", b"\0" * 8),
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 9),
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", b"\0" * 8),
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (0, 999999999999999999, 999999999999999999), }"),
        plain(b"{'descr': '<V8', 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        plain(b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        plain(b"{'descr': '<U0', 'fortran_order': False, 'shape': (9999999999,), }"),
        plain(b"{'descr': __import__('os').system('x'), 'fortran_order': False, 'shape': (1,), }", b"\0" * 8),
        plain(b"(" * 60000), plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1" * 60000),
        plain(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,)" + b" " * 65000),  # no quadratic search among blanks
        plain(b" " * 65000),
        plain(b"{'descr': '|O', 'fortran_order': False, 'shape': (), }", b""),
    ],
)  # fmt: skip
def test_broken_arrays(tmp_path, data):
    with pytest.raises(BiposeError, match=r"a\.npz: a ") as error:
        read_npz(npy_file(tmp_path / "a.npz", data), objects=True)
    assert "\n" not in str(error.value)


def test_broken_files(tmp_path):
    with pytest.raises(BiposeError, match="no such file"):
        read_npz(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_bytes(b"not a zip")
    with pytest.raises(BiposeError, match="not a readable npz"):
        read_npz(tmp_path / "a.npz")
    with pytest.raises(BiposeError, match="not a readable npz"):
        read_npz(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.ones(3), o=np.array({"a": 1}, dtype=object))
    with pytest.raises(BiposeError, match="no array y; it holds x, o"):
        read_npz(tmp_path / "a.npz", ("y",))
    with pytest.raises(BiposeError, match="o holds pickled objects"):
        read_npz(tmp_path / "a.npz")
    data = (tmp_path / "a.npz").read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(len(data), size=3):
            broken[at] = int(rng.integers(256))
        (tmp_path / "b.npz").write_bytes(broken if rng.random() < 0.7 else broken[: int(rng.integers(len(data)))])
        try:
            read_npz(tmp_path / "b.npz", objects=True)
        except BiposeError as error:
            assert "\n" not in str(error)  # noqa: PT017


def claim(path, size):
    """Says in both headers of a file's only member that it unpacks to another size."""
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[22:26] = data[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(data)


def test_constant_arrays_are_no_bomb(tmp_path):
    """Predictions of one place, compressed: a thousand times smaller than what they hold."""
    same = np.zeros((5000, 17, 3))
    np.savez_compressed(tmp_path / "a.npz", **{f"S9/Walking {i}/positions_3d": same for i in range(36)})
    assert (tmp_path / "a.npz").stat().st_size < 36 * same.nbytes / 500
    assert len(names_in(tmp_path / "a.npz")) == 36
    assert (
        read_npz(tmp_path / "a.npz", ("S9/Walking 35/positions_3d",))["S9/Walking 35/positions_3d"].shape == same.shape
    )


def test_zip_bombs(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * (2**24 + 2**20))
    claim(path, 2**30 + 1)
    with pytest.raises(BiposeError, match=r"unpacks to 1\.0 GiB, at most 1 GiB is read; .* several files"):
        read_npz(path)
    claim(path, 1000)
    tracemalloc.start()
    try:
        with pytest.raises(BiposeError, match="a is "):
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_memory_that_is_not_there(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))

    def full(self, size):
        raise MemoryError

    monkeypatch.setattr(zipfile.ZipExtFile, "read", full)
    with pytest.raises(BiposeError, match=r"a needs 0\.0 MiB of memory, which are not free"):
        read_npz(tmp_path / "a.npz")


def test_the_same_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", b"")
    with pytest.raises(BiposeError, match="holds a twice"):
        names_in(tmp_path / "a.npz")
