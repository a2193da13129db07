"""The cache of big label files: used, renewed when the file changes, made anew when damaged, never an error."""

import os
import zipfile

import numpy as np
import pytest

from bipose_lit.datasets import index_cache
from bipose_lit.datasets.index_cache import cache_folder, cache_path, cached
from bipose_lit.types import BiposeError


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """A label file that is big enough, and a fresh place for caches."""
    monkeypatch.setattr(index_cache, "LEAST_BYTES", 10)
    monkeypatch.setenv("BIPOSE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "labels of mine.json"
    path.write_text("0123456789 first")
    return path


class Reading:
    """Counts how often the file is read."""

    def __init__(self, path):
        self.path, self.built = path, 0

    def __call__(self, kind="text", version=1):
        return cached(self.path, kind, version, self.build, self.pack, self.unpack)

    def build(self):
        self.built += 1
        return self.path.read_text()

    def pack(self, text):
        return {"text": np.frombuffer(text.encode(), np.uint8), "extra": np.arange(3.0)}

    def unpack(self, arrays):
        assert arrays["extra"].tolist() == [0, 1, 2]
        return arrays["text"].tobytes().decode()


def test_second_start_reads_the_cache(labels):
    read = Reading(labels)
    assert [read(), read(), read()] == [labels.read_text()] * 3
    assert read.built == 1
    assert cache_path(labels, "text").name.startswith("labels-of-mine-")


def test_a_changed_file_an_other_version_and_an_other_kind_are_read(labels):
    read = Reading(labels)
    read()
    labels.write_text("9876543210 again")
    assert read() == "9876543210 again"
    stamp = labels.stat().st_mtime_ns
    labels.write_text("9876543210 newer")  # as long as before
    os.utime(labels, ns=(stamp + 1, stamp + 1))
    assert read() == "9876543210 newer"
    assert read.built == 3
    read(version=2)
    assert read.built == 4
    read(kind="other")
    assert read.built == 5
    read(version=2)
    assert read.built == 5  # kinds lie side by side
    assert len(list(cache_folder().glob("*.npz"))) == 2


def test_a_small_file_is_not_kept(labels, monkeypatch):
    monkeypatch.setattr(index_cache, "LEAST_BYTES", labels.stat().st_size)
    read = Reading(labels)
    read()
    read()
    assert read.built == 2
    assert not cache_folder().exists()


@pytest.mark.parametrize("fault", ["empty", "cut", "flipped", "no zip", "objects", "foreign", "other names", "folder"])
def test_a_damaged_or_foreign_cache_is_made_anew(labels, fault):
    read = Reading(labels)
    read()
    place = cache_path(labels, "text")
    data = bytearray(place.read_bytes())
    with np.load(place) as content:
        key = content["key"]
    if fault == "empty":
        place.write_bytes(b"")
    elif fault == "cut":
        place.write_bytes(data[: len(data) // 2])
    elif fault == "flipped":
        at = data.find(b"first")
        data[at : at + 5] = b"wrong"
        place.write_bytes(data)
    elif fault == "no zip":
        place.write_text("hello")
    elif fault == "objects":
        np.savez(place, key=key, text=np.array([{"a": 1}], object), extra=np.arange(3.0))
    elif fault == "foreign":
        np.savez(place, key=np.frombuffer(b"another", np.uint8), text=np.zeros(3, np.uint8), extra=np.arange(3.0))
    elif fault == "other names":
        np.savez(place, key=key, words=np.zeros(3))
    else:
        place.unlink()
        place.mkdir()
    assert read() == labels.read_text()
    assert read.built == 2
    assert read() == labels.read_text()
    assert read.built == (3 if fault == "folder" else 2)


def test_every_flipped_byte_of_a_cache_is_noticed(labels):
    read = Reading(labels)
    read()
    place = cache_path(labels, "text")
    data = place.read_bytes()
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 0xFF
        place.write_bytes(broken)
        assert read() == labels.read_text()


def test_a_place_that_cannot_be_written_is_no_error(labels, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BIPOSE_CACHE", str(tmp_path / "file" / "below"))
    read = Reading(labels)
    assert [read(), read()] == [labels.read_text()] * 2
    assert read.built == 2
    monkeypatch.setenv("BIPOSE_CACHE", "\0".join(["/tmp", "x"]) if os.name == "nt" else "/proc/none")
    assert read() == labels.read_text()


def test_the_place(monkeypatch, tmp_path):
    monkeypatch.setenv("BIPOSE_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert str(cache_folder()) == "/a"
    monkeypatch.setenv("BIPOSE_CACHE", "")
    assert str(cache_folder()) == "/b/bipose"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "bipose"


def test_what_reading_raises_is_passed_on_and_nothing_is_kept(labels):
    def fail():
        raise BiposeError("labels: broken; mend them")

    with pytest.raises(BiposeError, match="mend them"):
        cached(labels, "text", 1, fail, lambda x: {}, lambda x: None)
    assert not cache_path(labels, "text").exists()
    missing = labels.with_name("none.json")
    with pytest.raises(BiposeError, match="mend them"):
        cached(missing, "text", 1, fail, lambda x: {}, lambda x: None)


def test_no_pickles_and_no_leftovers(labels):
    Reading(labels)()
    with zipfile.ZipFile(cache_path(labels, "text")) as archive:
        assert sorted(archive.namelist()) == ["extra.npy", "key.npy", "text.npy"]
    assert len(list(cache_folder().iterdir())) == 1


def test_the_path_and_the_size_are_part_of_what_is_kept(labels):
    """A cache that came to lie in another file's place, and a file that changed within the clock's resolution."""
    read = Reading(labels)
    read()
    state = labels.stat()
    other = labels.with_name("others.json")
    other.write_text("9876543210 other"[: state.st_size])
    os.utime(other, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert other.stat().st_size == state.st_size
    cache_path(labels, "text").rename(cache_path(other, "text"))
    assert Reading(other)() == other.read_text()
    read()
    labels.write_text("0123456789 longer than before")
    os.utime(labels, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert read() == "0123456789 longer than before"
