"""Pickled npz files: what VideoPose3D's hold is read, and nothing that a pickle names is run or allocated."""

import io
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from bipose_lit.datasets import safe_pickle
from bipose_lit.datasets.safe_npz import names_in, read_npz
from bipose_lit.datasets.safe_pickle import BrokenError, unpickle
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


ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"
FLOAT4 = b"cnumpy\ndtype\n(V\x66\x34\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb"


def state(shape=b"(I2\nt", dtype=FLOAT4, fortran=b"I00\n", data=b"C\x08" + b"\0" * 8):
    return ARRAY + b"(I1\n" + shape + dtype + fortran + data + b"tb."


def test_the_hand_made_array_is_one():
    np.testing.assert_array_equal(unpickle(state()), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    "data",
    [
        state(shape=b"(I1000000000000\nt"),  # far more than the data
        state(shape=b"(L99999999999999999999999999999L\nt"),
        state(shape=b"(I-2\nI-1\nt"),
        state(shape=b"(" + b"I1\n" * 500 + b"I2\nt"),
        state(shape=b"(I0\nI1000000000000000000\nI1000000000000000000\nt", data=b"C\x00"),
        state(shape=b"(I2\nF1.5\nt"),
        state(shape=b"(I2\nI01\nt"),
        state(shape=b"N"),
        state(data=b"N"),
        state(data=b"(lp0\n"),
        state(data=b"V12345678\nI1\n"),
        state(fortran=b"I7\n"),
        state(dtype=b"Vf4\n"),
        state(dtype=FLOAT4.replace(b"\x66\x34", b"V999999999")),
        state(dtype=FLOAT4.replace(b"\x66\x34", b"U999999999")),
        state(dtype=FLOAT4.replace(b"\x66\x34", b"f4,(9999999,)f8")),
        state(dtype=FLOAT4.replace(b"\x66\x34", b"O8")),  # pointers from the file
        state(dtype=FLOAT4.replace(b"I-1\nI-1", b"I99999\nI-1")),
        state(dtype=FLOAT4.replace(b"NNN", b"N(V\x61\nt}")),
        state(dtype=b"cnumpy\ndtype\n(cnumpy\nndarray\ntR"),
        ARRAY + b".",  # never filled
        ARRAY + b"(I1\ntb.",
        ARRAY + b"}b.",
        ARRAY + b"I5\nb.",
        state()[:-1] + b"(I1\n(I2\nt" + FLOAT4 + b"I00\nC\x08" + b"\0" * 8 + b"tb.",  # a second state
        ARRAY.replace(b"(I0\nt", b"(I99999999999\nt").replace(b"cnumpy\nndarray\n", b"Vx\n") + b".",
        b"cnumpy\nndarray\n.",
        b"cnumpy\nndarray\n)R.",
        b"cnumpy\nndarray\n)\x81.",  # NEWOBJ
        b"cnumpy\ndtype\n)R.",
        b"cnumpy._core.multiarray\nscalar\n(" + FLOAT4 + b"C\x02\0\0tR.",
        b"cnumpy._core.multiarray\nscalar\n)R.",
        b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
        b"cbuiltins\nbytes\n(L99999999999L\ntR.",
        b"Pposix.system\n.",  # persistent ids
        b"I1\nQ.",
        b"(Vecho\niposix\nsystem\n.",  # INST
        b"(cposix\nsystem\nVecho\no.",  # OBJ
        b"\x82\x01.",  # EXT1
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # BYTEARRAY8
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fab.",  # BINBYTES8 longer than the file
        b"]r\xff\xff\xff\x7fj\x00\x00\x00\x00.",
        b"I1\nI2\n.",
        b".",
        b"a.",
        b"\x85.",
        b"u.",
        b"t.",
        b"0.",
        b"}(I1\nu.",
        b"}(](Na](Nau.",
        b"}((((((((((((((ttttttttttttttI1\nu.",  # a tuple as a key
        b"](" * 500 + b"e" * 500 + b".",
        b"(" * 1000 + b"t" * 1000 + b".",
        b"]2a.",  # a list within itself
        b"I" + b"9" * 10_000 + b"\n.",
        b"L" + b"9" * 10_000 + b"L\n.",
        b"\x8a\xff" + b"\x7f" * 100,
        b"cno\n",
        b"\xff",
        b"",
        b"V\\ud800\n",
        b"\x80\xff.",
    ],
    ids=lambda data: repr(data[:24]),
)  # fmt: skip
def test_hostile_and_broken_pickles(data):
    tracemalloc.start()
    try:
        try:
            found = unpickle(data)
        except BrokenError as error:
            assert str(error)  # noqa: PT017
        else:
            raise AssertionError(f"took {data!r} for {found!r}"[:300])
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_every_truncation_and_many_damages_of_a_good_pickle_end_well():
    wrapped = np.empty((), object)
    wrapped[()] = {"S1": {"W": np.arange(4, dtype=np.float32), "L": [np.eye(2)]}}
    data = pickle.dumps(wrapped)
    for cut in range(len(data)):
        with pytest.raises(BrokenError):
            unpickle(data[:cut])
    rng = np.random.default_rng(0)
    for _ in range(1000):
        broken = bytearray(data)
        for at in rng.integers(len(data), size=int(rng.integers(1, 4))):
            broken[at] = int(rng.integers(256))
        try:
            unpickle(bytes(broken))
        except BrokenError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_shared_containers_cost_nothing():
    data = pickletools.optimize(pickle.dumps([], 2))[:-1]
    out = io.BytesIO()
    out.write(data)  # a list of lists of ..., each 20,000 references to one below
    for level in range(4):
        out.write(b"r" + struct.pack("<I", level) + b"0](" + (b"j" + struct.pack("<I", level)) * 20_000 + b"e")
    out.write(b".")
    found = unpickle(out.getvalue())
    assert len(found) == len(found[0]) == len(found[7][9]) == 20_000


def test_a_far_place_in_the_memo_sizes_no_table():
    tracemalloc.start()
    assert unpickle(b"]r\xff\xff\xff\x7f.") == []
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_long_pickles_are_refused(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", 100)
    with pytest.raises(BrokenError, match="more than 100 steps"):
        unpickle(b"](" + b"N" * 200 + b"e.")


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


def test_zip_bombs(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", b"\0" * (2**26 + 2**20))
    with pytest.raises(BiposeError, match="unpacks to more than 100 times"):
        read_npz(path)
    data = bytearray(path.read_bytes())  # now lie about the size in both headers
    data[22:26] = data[data.rindex(b"PK\x01\x02") + 24 : data.rindex(b"PK\x01\x02") + 28] = struct.pack("<I", 1000)
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(BiposeError, match="a is "):
        read_npz(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_the_same_name_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", b"")
    with pytest.raises(BiposeError, match="holds a twice"):
        names_in(tmp_path / "a.npz")
