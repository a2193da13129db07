"""MATLAB files: what scipy writes is read as scipy reads it, and no damaged byte does harm."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from mat_writer import CELL, CHAR, CLASSES, STORED, STRUCT, element, mat_file, matrix, struct_content

from bipose_lit.datasets import matfile
from bipose_lit.datasets.matfile import MAX_FIELDS, MAX_LETTERS, DamagedError, Foreign, parse_mat

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


def same(mine, plain, typed):
    """Equal to what scipy reads: `typed` has numbers in the type of their MATLAB class, but loses imaginary parts."""
    if isinstance(mine, Foreign):  # what scipy gives there is of no use either
        return
    assert mine.shape == plain.shape
    if plain.dtype.names:
        assert mine.dtype.names == plain.dtype.names
        for a, b, c in zip(mine.ravel(), plain.ravel(), typed.ravel(), strict=True):
            for name in plain.dtype.names:
                same(a[name], b[name], c[name])
    elif plain.dtype == object:
        for a, b, c in zip(mine.ravel(), plain.ravel(), typed.ravel(), strict=True):
            same(a, b, c)
    else:
        theirs = plain if plain.dtype.kind == "c" else typed
        assert mine.dtype.isnative
        assert mine.dtype == (theirs.dtype if theirs.dtype.kind == "U" else theirs.dtype.newbyteorder("="))
        np.testing.assert_array_equal(mine, theirs)


def same_file(data):
    mine = parse_mat(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imaginary parts
        plain, typed = (scipy.io.loadmat(io.BytesIO(data), mat_dtype=choice) for choice in (False, True))
    assert set(mine) == {name for name in plain if not name.startswith("__")}
    for name, value in mine.items():
        same(value, plain[name], typed[name])
    return mine


@pytest.mark.parametrize("do_compression", [False, True])
def test_what_scipy_writes_is_read_as_scipy_reads_it(do_compression):
    data = written(CONTENT, do_compression=do_compression)
    mine = same_file(data)
    assert set(mine) == set(CONTENT)
    assert not any(isinstance(value, Foreign) for value in mine.values())
    assert mine["e"].dtype == bool
    assert mine["j"].dtype == np.float32


SCIPY = sorted((Path(scipy.io.__file__).parent / "matlab" / "tests" / "data").glob("*.mat"))
UNREADABLE = {"bad_miuint32", "corrupted_zlib_checksum", "corrupted_zlib_data", "malformed1", "testhdf5_7.4_GLNX86"}
FOREIGN = {
    "broken_utf8", "nasty_duplicate_fieldnames", "parabola", "sqr", "testfunc_7.4_GLNX86", "test_empty_struct",
    "logical_sparse",
}  # fmt: skip


@pytest.mark.skipif(not SCIPY, reason="this scipy comes without its tests")
@pytest.mark.parametrize("path", SCIPY, ids=lambda p: p.stem)
def test_files_that_matlab_wrote_are_read_as_scipy_reads_them(path):
    data = path.read_bytes()
    if path.stem in UNREADABLE:
        with pytest.raises(DamagedError):
            parse_mat(data)
        return
    if "_4" in path.stem.replace("_7.4_", "") or "mat4" in path.stem or path.stem == "debigged_m4":
        with pytest.raises(DamagedError, match="version 4") as caught:
            parse_mat(data)
        assert caught.value.advice == "save it again with '-v7'"
        return
    mine = parse_mat(data)
    odd = [name for name, value in mine.items() if isinstance(value, Foreign)]
    if path.stem in FOREIGN or re.match("test(object|sparse)", path.stem):
        assert odd == list(mine)
        assert mine
        return
    assert bool(odd) == (path.stem == "some_functions")
    if path.stem == "bad_miutf8_array_name":  # scipy refuses it
        assert [name.isascii() for name in mine] == [False]
    else:
        same_file(data)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", CLASSES)
def test_numbers_have_the_type_of_their_class_however_they_are_stored(order, name):
    values = [[0, 1, 5], [7, 100, 127]]
    wanted = np.array(values, name)
    for stored, kind in STORED.items():
        if stored[0] == "f" and name[0] != "f":
            continue
        content = element(order, kind, np.array(values, order + stored).T.tobytes())
        found = parse_mat(mat_file(order, matrix(order, CLASSES[name], (2, 3), content)))["v"]
        assert found.dtype == wanted.dtype
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, wanted)
        both = matrix(order, CLASSES[name], (2, 3), content + content, flags=0x0800)
        found = parse_mat(mat_file(order, both))["v"]
        assert found.dtype == (np.complex64 if name == "f4" else np.complex128)
        np.testing.assert_array_equal(found, wanted * (1 + 1j))
        logical = parse_mat(mat_file(order, matrix(order, CLASSES[name], (2, 3), content, flags=0x0200)))["v"]
        assert logical.dtype == bool
        np.testing.assert_array_equal(logical, wanted != 0)


@pytest.mark.parametrize("order", "<>")
def test_the_largest_numbers_of_each_type(order):
    for name, code in CLASSES.items():
        info = np.finfo(name) if name[0] == "f" else np.iinfo(name)
        values = np.array([[info.min, info.max]], name)
        content = element(order, STORED[name], values.astype(order + name).tobytes())
        np.testing.assert_array_equal(parse_mat(mat_file(order, matrix(order, code, (1, 2), content)))["v"], values)
    content = element(order, STORED["i2"], np.array([300, -1], order + "i2").tobytes())
    with pytest.raises(DamagedError, match="beyond the range of uint8"):
        parse_mat(mat_file(order, matrix(order, CLASSES["u1"], (1, 2), content)))


ENCODED = {
    "latin-1": [(1, "latin-1"), (2, "latin-1")],
    "utf-8": [(16, "utf-8")],
    "utf-16": [(4, "utf-16"), (17, "utf-16")],
    "utf-32": [(6, "utf-32"), (18, "utf-32")],
}


def encoded(text, codec, order):
    return text.encode(codec + {"<": "-le", ">": "-be"}[order] * codec.startswith(("utf-16", "utf-32")))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("encoding", ENCODED)
def test_text_in_all_encodings(order, encoding):
    rows = ["abc ", "uml\u00e4"] if encoding == "latin-1" else ["\u4e2d\u00e4b ", "abcd"]
    flat = "".join(a + b for a, b in zip(*rows, strict=True))  # column by column
    for kind, codec in ENCODED[encoding]:
        content = element(order, kind, encoded(flat, codec, order))
        found = parse_mat(mat_file(order, matrix(order, CHAR, (2, 4), content)))["v"]
        assert found.dtype == np.dtype("U4")
        assert found.tolist() == rows
        cube = parse_mat(mat_file(order, matrix(order, CHAR, (2, 1, 4), content)))["v"]
        assert cube.tolist() == [[rows[0]], [rows[1]]]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("kind", "codec"), [(4, "utf-16"), (16, "utf-8"), (17, "utf-16"), (18, "utf-32")])
def test_letters_beyond_the_first_plane(order, kind, codec):
    text = "a\U0001f600b"
    units = {"utf-16": (4,), "utf-32": (3,), "utf-8": (3, 4)}[codec]  # MATLAB counts 4, scipy writes 3
    for count in units:
        content = element(order, kind, encoded(text, codec, order))
        assert parse_mat(mat_file(order, matrix(order, CHAR, (1, count), content)))["v"].tolist() == [text]


def test_two_rows_of_such_letters():
    flat = np.array([0xD83D, 0xD83D, 0xDE00, 0xDE01], "<u2").tobytes()  # column by column
    found = parse_mat(mat_file("<", matrix("<", CHAR, (2, 2), element("<", 17, flat))))["v"]
    assert found.tolist() == ["\U0001f600", "\U0001f601"]


@pytest.mark.parametrize(
    "odd",
    [
        matrix("<", CHAR, (1, 2), element("<", 16, b"\xff\xfe"), b"odd"),
        matrix("<", CHAR, (1, 1), element("<", 17, b"\x00\xd8"), b"odd"),
        matrix("<", CHAR, (1, 1), element("<", 18, b"\xff\xff\xff\xff"), b"odd"),
        matrix("<", CHAR, (1, 3), element("<", 1, b"ab"), b"odd"),
        matrix("<", CHAR, (1, 1), element("<", 17, b"a"), b"odd"),
        matrix("<", CHAR, (1, 2), element("<", 9, b"12345678"), b"odd"),
        matrix("<", STRUCT, (1, 1), struct_content("<", [b"a", b"a"]), b"odd"),
        matrix("<", STRUCT, (1, 1), struct_content("<", [b""]), b"odd"),
        matrix("<", STRUCT, (1, 1), struct_content("<", [b"a"], width=100), b"odd"),
        matrix("<", STRUCT, (1, 1), struct_content("<", [b"a"], names=9), b"odd"),
        matrix("<", 99, (1, 1), b"", b"odd"),
    ],
)
def test_an_odd_variable_spoils_no_other(odd):
    good = matrix("<", CLASSES["f8"], (1, 1), element("<", STORED["u1"], b"\x07"), b"good")
    for variables in ((odd, good), (good, odd)):
        found = parse_mat(mat_file("<", *variables))
        assert found["good"] == 7
        assert isinstance(found["odd"], Foreign)


@pytest.mark.parametrize("order", "<>")
def test_unsigned_dimensions_and_names_in_utf8(order):
    content = element(order, STORED["u1"], b"\x01\x02")
    name = "gr\u00f6\u00dfe"
    data = mat_file(order, matrix(order, 6, (1, 2), content, name.encode(), dimensions=6, names=16))
    np.testing.assert_array_equal(parse_mat(data)[name], [[1, 2]])
    inner = matrix(order, 6, (1, 2), content, b"")
    for names, codec in ((1, "latin-1"), (2, "latin-1"), (16, "utf-8")):
        fields = struct_content(order, [name.encode(codec)], inner, names=names)
        np.testing.assert_array_equal(
            parse_mat(mat_file(order, matrix(order, STRUCT, (1, 1), fields)))["v"][name][0, 0], [[1, 2]]
        )


def test_a_sparse_matrix_is_told_apart():
    assert parse_mat(written({"s": scipy.sparse.eye(3).tocsc()}))["s"] == Foreign("sparse matrix")


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


def test_a_bomb_is_not_inflated(monkeypatch):
    monkeypatch.setattr(matfile, "_INFLATED", 2**20)
    header = written({})[:128]
    body = zlib.compress(b"\0" * 2**23, 9)
    with pytest.raises(DamagedError, match="inflates"):
        parse_mat(header + struct.pack("<II", 15, len(body)) + body)


def packed(*variables):
    """A file of compressed variables."""
    bodies = [zlib.compress(v, 9) for v in variables]
    return mat_file("<", *(struct.pack("<II", 15, len(b)) + b for b in bodies))


def test_a_long_text_is_not_built():
    def text(letters, name=b"v"):
        return matrix("<", CHAR, (1, letters), element("<", 1, b"a" * letters), name)

    assert len(parse_mat(packed(text(MAX_LETTERS)))["v"][0]) == MAX_LETTERS
    assert isinstance(parse_mat(packed(text(MAX_LETTERS + 1)))["v"], Foreign)
    found = parse_mat(packed(*(text(MAX_LETTERS, b"v%d" % i) for i in range(6))))
    assert [isinstance(value, Foreign) for value in found.values()] == [False] * 4 + [True] * 2


def test_a_struct_of_many_fields_is_not_built():
    def fields(count):
        return matrix("<", STRUCT, (0, 0), struct_content("<", [b"%d" % i for i in range(count)], width=5))

    assert len(parse_mat(packed(fields(MAX_FIELDS)))["v"].dtype.names) == MAX_FIELDS
    assert isinstance(parse_mat(packed(fields(MAX_FIELDS + 1)))["v"], Foreign)
    with pytest.raises(DamagedError, match="more values"):  # an array's type takes time, be it empty
        parse_mat(packed(matrix("<", CELL, (1, 32), fields(MAX_FIELDS) * 32)))


def test_many_empty_cells_are_not_built():
    def cells(count):
        return matrix("<", CELL, (1, count), struct.pack("<II", 14, 0) * count)

    assert parse_mat(packed(cells(2**17)))["v"].shape == (1, 2**17)
    with pytest.raises(DamagedError, match="more values"):
        parse_mat(packed(cells(2**17 + 1)))
    with pytest.raises(DamagedError, match="more values"):
        parse_mat(packed(cells(2**16), cells(2**16 + 1)))
    large = mat_file("<", cells(2**17 + 1))  # a megabyte may
    assert parse_mat(large)["v"].shape == (1, 2**17 + 1)


def test_numbers_of_many_bytes_are_not_built(monkeypatch):
    monkeypatch.setattr(matfile, "_NUMBERS", 2**20)

    def zeros(count, name="f8", flags=0, variable=b"odd"):
        content = element("<", STORED["u1"], b"\0" * count) * (2 if flags else 1)
        return matrix("<", CLASSES[name], (1, count), content, variable, flags)

    good = matrix("<", CLASSES["f8"], (1, 1), element("<", STORED["u1"], b"\x07"), b"good")
    assert parse_mat(packed(zeros(2**17)))["odd"].shape == (1, 2**17)  # a byte each in the file, eight in memory
    found = parse_mat(packed(zeros(2**17), good))
    assert found["good"] == Foreign("array of 8 bytes, more than are read")
    found = parse_mat(packed(zeros(2**17 + 1), good))
    assert found["good"] == 7
    assert isinstance(found["odd"], Foreign)
    for name, most in (("f8", 2**16), ("i1", 2**16), ("f4", 2**17)):  # complex ones
        assert parse_mat(packed(zeros(most, name, 0x0800)))["odd"].shape == (1, most)
        assert isinstance(parse_mat(packed(zeros(most + 1, name, 0x0800)))["odd"], Foreign)


def test_other_versions_are_named():
    def refused(data, said, advice):
        with pytest.raises(DamagedError, match=said) as caught:
            parse_mat(data)
        assert advice in caught.value.advice

    refused(b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", r"v7\.3", "'-v7'")
    for content in ({"x": np.ones((9, 9))}, {"x": 1.0}, {"x": "text"}, {"x": np.uint8([[1]])}):
        refused(written(content, format="4"), "version 4", "'-v7'")
    refused(b"x" * 300, "no header of a version 5 file", "copy or download")
    refused(b"\0" * 300, "no header of a version 5 file", "copy or download")
    refused(b"", "header", "copy or download")
    data = written({"x": 1.0})
    refused(data + data[128:], "twice", "copy or download")
