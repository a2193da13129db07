"""MATLAB files: what scipy writes is read as scipy reads it, and no damaged byte does harm."""

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from bipose_lit.datasets.matfile import DamagedError, Foreign, parse_mat

RNG = np.random.default_rng(0)
CONTENT = {
    "a": RNG.normal(size=(3, 4, 5)), "b": RNG.integers(0, 9, (2, 3)).astype(np.uint8), "c": "hello",
    "d": np.array(["ab", "cde"]), "e": np.array([[True, False]]), "f": {"x": 1.0, "y": {"z": "q"}},
    "g": np.array([1, "a", np.ones(3)], dtype=object), "h": np.zeros((0, 0)), "i": 1j * np.ones((2, 2)),
    "j": np.float32(3), "k": "", "l": "uml\u00e4ut \u4e2d", "m": np.int64(-5), "n": [], "o": np.array([], dtype=object),
    "p": np.array([(1.0, "a"), (2.0, "b")], dtype=[("u", object), ("v", object)]), "q": np.int16([[300, -2]]),
}  # fmt: skip


def written(content, **options):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, content, **options)
    return buffer.getvalue()


def same(mine, theirs):
    assert mine.shape == theirs.shape
    if theirs.dtype.names:
        assert mine.dtype.names == theirs.dtype.names
        for a, b in zip(mine.ravel(), theirs.ravel(), strict=True):
            for name in theirs.dtype.names:
                same(a[name], b[name])
    elif theirs.dtype == object:
        for a, b in zip(mine.ravel(), theirs.ravel(), strict=True):
            same(a, b)
    else:
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("do_compression", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(do_compression):
    data = written(CONTENT, do_compression=do_compression)
    mine, theirs = parse_mat(data), scipy.io.loadmat(io.BytesIO(data))
    assert set(mine) == {name for name in theirs if not name.startswith("__")} == set(CONTENT)
    for name, value in mine.items():
        same(value, theirs[name])
    assert mine["e"].dtype == bool
    assert mine["b"].dtype == np.uint8


def test_a_sparse_matrix_is_told_apart():
    assert parse_mat(written({"s": scipy.sparse.eye(3).tocsc()}))["s"] == Foreign("sparse matrix")


def test_big_endian_files_are_read():
    def element(kind, data):
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    inside = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 2)) + element(1, b"v")
    data = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    data += element(14, inside + element(9, struct.pack(">dd", 1.5, -2)))
    np.testing.assert_array_equal(parse_mat(data)["v"], [[1.5, -2]])


@pytest.mark.parametrize("do_compression", [False, True])
def test_every_cut_is_found(do_compression):
    data = written({"x": np.arange(6.0), "s": {"a": "text", "b": np.array([1, "u"], dtype=object)}},
                   do_compression=do_compression)  # fmt: skip
    ends = {len(written({"x": np.arange(6.0)}, do_compression=do_compression)), 128}
    for size in range(len(data)):
        if size not in ends:  # where a file may end
            with pytest.raises(DamagedError):
                parse_mat(data[:size])


def test_any_changed_byte_is_read_or_refused():
    # In scipy some of these end the process with a segmentation fault.
    data = written({"x": np.zeros((3, 13)), "s": {"a": np.ones(2), "b": "hi"}, "c": np.array([1, "a"], dtype=object)})
    refused = 0
    for position in range(128, len(data)):
        for value in (0, 1, 14, 20, 127, 200, 255):
            changed = bytearray(data)
            changed[position] = value
            try:
                parse_mat(bytes(changed))
            except DamagedError:
                refused += 1
    assert refused > 1000


def test_a_bomb_is_not_inflated():
    header = written({})[:128]
    body = zlib.compress(b"\0" * 2**27, 9)
    with pytest.raises(DamagedError, match="inflates"):
        parse_mat(header + struct.pack("<II", 15, len(body)) + body)


def test_deep_nesting_is_refused():
    cell = np.ones(1)
    for _ in range(40):
        outer = np.empty((1, 1), dtype=object)
        outer[0, 0] = cell
        cell = outer
    with pytest.raises(DamagedError, match="nested"):
        parse_mat(written({"c": cell}))


def test_other_versions_are_named():
    with pytest.raises(DamagedError, match=r"v7\.3"):
        parse_mat(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(DamagedError, match="version 5"):
        parse_mat(written({"x": np.ones((9, 9))}, format="4"))
    with pytest.raises(DamagedError, match="header"):
        parse_mat(b"")
    data = written({"x": 1.0})
    with pytest.raises(DamagedError, match="twice"):
        parse_mat(data + data[128:])
