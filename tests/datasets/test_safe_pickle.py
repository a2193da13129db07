"""Pickles by hand: every instruction that is not needed is refused, and nothing is allocated that the bytes do not hold."""

import contextlib
import io
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from bipose_lit.datasets import safe_pickle
from bipose_lit.datasets.safe_pickle import MAX_DEPTH, BrokenError, shown, unpickle


@contextlib.contextmanager
def at_most(limit):
    """That not more bytes are allocated at any time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


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
    with at_most(2**22), pytest.raises(BrokenError) as error:
        unpickle(data)
    assert str(error.value)


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


def short(text: bytes, times: int, once: bytes, each: bytes) -> bytes:
    """A list of `times` things that are made from one text: `once` follows it and may use memo 0 (the text), `each` repeats."""
    return b"X" + struct.pack("<I", len(text)) + text + b"q\x00" + once + b"](" + each * times + b"e."


ENCODE = b"c_codecs\nencode\nq\x01h\x00Vlatin1\n\x86q\x02000"
AMPLIFIED = {
    "one text, encoded again and again": short(b"x" * 15_000, 3000, ENCODE, b"h\x01h\x02R"),
    "one text, the data of many arrays": short(
        b"x" * 160_000,
        400,
        ARRAY.partition(b"(")[0]  # the function, then its arguments, then the state
        + b"q\x01(cnumpy\nndarray\n(I0\ntC\x01btq\x02(I1\n(I160000\nt"
        + FLOAT4.replace(b"\x66\x34", b"i1")
        + b"I00\nh\x00tq\x030000",
        b"h\x01h\x02Rh\x03b",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(AMPLIFIED))
def test_bytes_are_made_once_of_a_text(name):
    with at_most(2**22):
        found = unpickle(AMPLIFIED[name])
    assert len(found) in (400, 3000)
    assert bytes(found[0]) == bytes(found[-1]) == b"x" * len(found[0])


def nest(levels: int, width: int, leaf: bytes = b"]") -> bytes:
    """A list of `width` references to a list of `width` references to ... a leaf."""
    out = io.BytesIO()
    out.write(leaf)
    for level in range(levels):
        out.write(b"r" + struct.pack("<I", level) + b"0](" + (b"j" + struct.pack("<I", level)) * width + b"e")
    return out.getvalue() + b"."


@pytest.mark.parametrize("data", [nest(4, 20_000), nest(7, 2000), nest(2, 80), nest(1, 30, nest(3, 60)[:-1])])
def test_shared_containers_count_as_often_as_they_stand(data):
    with pytest.raises(BrokenError, match="in many places"):
        unpickle(data)
    assert len(unpickle(nest(2, 60))[7]) == 60


def test_a_dict_of_shared_dicts_is_not_thousands_of_takes():
    takes = {f"a{i}": np.zeros(1) for i in range(90)}
    with pytest.raises(BrokenError, match="in many places"):
        unpickle(pickle.dumps({f"S{i}": takes for i in range(90)}))
    assert len(unpickle(pickle.dumps({f"S{i}": takes for i in range(7)}))) == 7
    assert len(unpickle(pickle.dumps([[i, i] for i in range(20_000)]))) == 20_000  # large, but not shared


def test_shared_arrays_count_as_often_as_they_stand():
    big = np.zeros(2**17)  # a mebibyte
    with pytest.raises(BrokenError, match="in many places"):
        unpickle(pickle.dumps([big] * 65))
    found = unpickle(pickle.dumps({"S9": {"Walking": [big] * 4}}))  # one prediction for all cameras
    assert [len(view) for view in found["S9"]["Walking"]] == [2**17] * 4
    several = [np.full(2**20, i, np.int8) for i in range(5)]
    assert len(unpickle(pickle.dumps(several * 15))) == 75  # 16 times the file's own bytes
    with pytest.raises(BrokenError, match="in many places"):
        unpickle(pickle.dumps(several * 17))
    with pytest.raises(BrokenError, match="in many places"):
        unpickle(pickle.dumps(["x" * 2**20] * 65))


def test_depth():
    def deep(levels):
        return b"(" * levels + b"I1\n" + b"t" * levels + b"."

    assert unpickle(deep(MAX_DEPTH)) == ((((((((1,),),),),),),),)
    with pytest.raises(BrokenError, match="nested more than 8 deep"):
        unpickle(deep(MAX_DEPTH + 1))
    # a shared one that lies shallow at first, and deeper afterwards: [five, [[[[five]]]]]
    five = b"(((((ttttt"
    with pytest.raises(BrokenError, match="nested more than 8 deep"):
        unpickle(b"](" + five + b"q\x00" + b"((((h\x00tttt" + b"e.")
    assert unpickle(b"](" + five + b"q\x00" + b"((h\x00tt" + b"e.")


@pytest.mark.parametrize(
    "key", [2**60, -(2**60), 10**5000, 7 * (2**61 - 1)], ids=["large", "negative", "long", "equal"]
)
def test_keys_that_are_no_small_integers(key):
    """Python hashes integers modulo 2^61 - 1: keys that collide make a dict quadratic. And a long one cannot be printed."""
    with pytest.raises(BrokenError, match="keys"):
        unpickle(pickle.dumps({key: 1}))
    with pytest.raises(BrokenError, match="keys"):
        unpickle(b"(" + pickle.dumps(key, 2)[2:-1] + b"I1\nd.")
    assert unpickle(pickle.dumps({2**60 - 1: 1, -5: 2, True: 3})) == {2**60 - 1: 1, -5: 2, True: 3}


def test_what_is_shown_of_a_value():
    shared: object = "x"
    for _ in range(7):
        shared = [shared] * 1000
    assert shown(shared) == "a list of 1000"
    assert shown({"a": shared}) == "a dict of 1"
    assert shown((3, 17, 3)) == "(3, 17, 3)"
    assert shown((1,) * 1000) == shown((shared,) * 1000) == "a tuple of 1000"
    assert shown((shared,)) == "a tuple of 1"
    assert shown(10**5000) == "a number of many digits"
    assert shown((10**5000, 2)) == "a tuple of 2"
    assert shown(np.zeros((2, 3))) == "an array (2, 3)"
    assert shown("a\nb\x1b") == "a?b?"
    assert shown("x" * 1000, 10) == "xxxxxxx..."
    assert (shown(None), shown(True), shown(2.5), shown(b"ab")) == ("None", "True", "2.5", "2 bytes")


def test_a_far_place_in_the_memo_sizes_no_table():
    with at_most(2**20):
        assert unpickle(b"]r\xff\xff\xff\x7f.") == []


def test_long_pickles_are_refused(monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", 100)
    with pytest.raises(BrokenError, match="more than 100 steps"):
        unpickle(b"](" + b"N" * 200 + b"e.")
