"""`bipose data fetch`, against a server in this process: what is asked for, unpacked, told and refused; never a real home."""

import errno
import fcntl
import hashlib
import io
import json
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bipose_lit.datasets import catalogue, fetch
from bipose_lit.datasets.catalogue_entry import CLICK, HAND, OPEN, OWN, DataSet, Download
from bipose_lit.types import BiposeError


def zipped(files):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return data.getvalue()


@pytest.fixture
def toy(server, monkeypatch):
    server.content = {
        "/labels.zip": zipped({"Toy/labels/1.txt": "1"}),
        "/map.txt": b"map",
        "/big.zip": zipped({"b": "b"}),
    }
    md5 = hashlib.md5(server.content["/labels.zip"]).hexdigest()
    files = (
        Download(f"{server.url}/labels.zip", "labels.zip", f"md5:{md5}", top="Toy"),
        Download(f"{server.url}/map.txt", "map.txt", into=None),
        Download(f"{server.url}/big.zip", "big.zip", into="more", extra=True),
    )  # fmt: skip
    data = DataSet("toy", "Toy", "", "http://toy", "free", OPEN, "", "x.Y", 3, "data/toy", "toy", downloads=files)
    monkeypatch.setattr(catalogue, "CATALOGUE", {"toy": data})
    return server


def test_fetching_unpacks_and_is_done_once(toy, tmp_path, capsys):
    root = tmp_path / "toy"
    fetch.fetch("toy", root, yes=True)
    assert (root / "labels" / "1.txt").read_text() == "1"
    assert (root / "map.txt").read_text() == "map"
    assert not (root / "more").exists()
    out = capsys.readouterr().out
    assert "checksum right" in out
    assert "no checksum known" in out
    assert f"next 'bipose data check toy {root}'" in out
    toy.asked.clear()
    (root / "downloads" / "labels.zip").unlink()  # unpacked: no longer needed
    fetch.fetch("toy", root)
    assert toy.asked == []
    assert f"{root}: complete; " in capsys.readouterr().out
    (root / "labels" / "1.txt").unlink()
    (root / "labels").rmdir()
    fetch.fetch("toy", root, yes=True)
    assert [path for path, _ in toy.asked] == ["/labels.zip"]


def test_one_file_by_name(toy, tmp_path):
    fetch.fetch("toy", tmp_path, only=["big.zip"], yes=True)
    assert [path for path, _ in toy.asked] == ["/big.zip"]
    assert (tmp_path / "more" / "b").exists()
    with pytest.raises(BiposeError, match=r"no file 'x'; it has labels\.zip, map\.txt, big\.zip"):
        fetch.fetch("toy", tmp_path, only=["x"], yes=True)


def test_nothing_without_consent(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(BiposeError, match="add --yes"):
        fetch.fetch("toy", tmp_path)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: "")
    with pytest.raises(BiposeError, match="nothing was downloaded"):
        fetch.fetch("toy", tmp_path)
    monkeypatch.setattr("builtins.input", lambda _: "y")
    fetch.fetch("toy", tmp_path)


def test_too_little_space_is_told_before_the_start(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(BiposeError, match=r"are needed to download and unpack, 10 B are free"):
        fetch.fetch("toy", tmp_path / "new", yes=True)
    assert toy.asked == []


def test_an_archive_that_would_leave_the_folder(toy, tmp_path):
    toy.content["/big.zip"] = zipped({"../../evil": "b"})
    with pytest.raises(BiposeError, match="would leave the folder"):
        fetch.fetch("toy", tmp_path / "toy", only=["big.zip"], yes=True)
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path / "toy" / "downloads" / "big.zip.done").exists()


def test_an_archive_that_would_mark_another_file_as_fetched(toy, tmp_path):
    toy.content["/labels.zip"] = zipped({"Toy/Downloads/map.txt.done": "{}"})
    data = catalogue.CATALOGUE["toy"]
    first = replace(data.downloads[0], checksum="")
    catalogue.CATALOGUE["toy"] = replace(data, downloads=(first, *data.downloads[1:]))
    with pytest.raises(BiposeError, match="would lie where downloads are kept"):
        fetch.fetch("toy", tmp_path, only=["labels.zip"], yes=True)
    assert sorted(p.name for p in (tmp_path / "downloads").iterdir()) == [".lock", "labels.zip.bad"]


def test_an_archive_without_checksum_that_does_not_unpack_is_set_aside(toy, tmp_path):
    good = toy.content["/big.zip"]
    toy.content["/big.zip"] = good[:-30]
    with pytest.raises(
        BiposeError, match=r"not a readable archive .*; kept as .*big\.zip\.bad\. Fetch again"
    ) as caught:
        fetch.fetch("toy", tmp_path, only=["big.zip"], yes=True)
    assert "\n" not in str(caught.value)
    toy.content["/big.zip"] = good
    fetch.fetch("toy", tmp_path, only=["big.zip"], yes=True)
    assert (tmp_path / "more" / "b").read_text() == "b"


def test_what_is_told_of_a_file_without_checksum(toy, tmp_path, capsys):
    fetch.fetch("toy", tmp_path / "a", only=["map.txt"], yes=True)
    assert "no checksum known, as long as the server said" in capsys.readouterr().out
    toy.length = False
    fetch.fetch("toy", tmp_path / "b", only=["map.txt"], yes=True)
    assert "no checksum known, size unknown: not verified" in capsys.readouterr().out
    assert fetch._verified(Download("", "a", size=5), 0) == "no checksum known, as long as published"
    assert fetch._verified(Download("", "a", size=5_000_000), 0) == "no checksum known, about as long as published"


def test_a_part_of_the_set_is_not_called_complete(toy, tmp_path, capsys):
    fetch.fetch("toy", tmp_path, only=["map.txt"], yes=True)
    capsys.readouterr()
    fetch.fetch("toy", tmp_path, only=["map.txt"], yes=True)
    out = capsys.readouterr().out
    assert "what was asked for is there, other files of the set are not" in out
    assert "complete" not in out
    fetch.fetch("toy", tmp_path, yes=True)
    fetch.fetch("toy", tmp_path, only=["map.txt"])
    assert f"{tmp_path}: complete" in capsys.readouterr().out


def test_amounts_as_text():
    known, unknown = Download("", "a", size=2_100_000), Download("", "b")
    assert fetch._amount([unknown]) == "1 file of unknown size"
    assert fetch._amount([unknown, unknown]) == "2 files of unknown size"
    assert fetch._amount([known]) == "1 file, 2.1 MB"
    assert fetch._amount([known, known, unknown]) == "3 files, 4.2 MB and 1 of unknown size"


def test_two_at_a_time(toy, tmp_path):
    (tmp_path / "downloads").mkdir()
    with (tmp_path / "downloads" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BiposeError, match="another 'bipose data fetch' is at work in it; wait until it has ended"):
            fetch.fetch("toy", tmp_path, yes=True)
        assert toy.asked == []
    fetch.fetch("toy", tmp_path, yes=True)  # a lock file alone locks nothing


def test_a_disk_that_is_full_when_a_file_is_put_in_place(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.copyfile", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(BiposeError, match="the disk is full"):
        fetch.fetch("toy", tmp_path, only=["map.txt"], yes=True)


def test_a_broken_mark_is_no_mark(toy, tmp_path):
    (tmp_path / "downloads").mkdir()
    for text in ("", "[]", "{}", json.dumps({"names": []}), json.dumps({"names": 5})):
        (tmp_path / "downloads" / "map.txt.done").write_text(text)
        assert not fetch._done(tmp_path, catalogue.CATALOGUE["toy"].downloads[1])


def test_listing_asks_nobody(toy, tmp_path, capsys):
    fetch.fetch("toy", tmp_path, listing=True)
    out = capsys.readouterr().out
    assert "labels.zip: " in out
    assert "only when named" in out
    fetch.fetch("toy", tmp_path, only=["map.txt"], listing=True)
    out = capsys.readouterr().out
    assert "map.txt: " in out
    assert "labels.zip: " not in out
    assert toy.asked == []


@pytest.mark.parametrize(
    ("access", "told"), [(CLICK, "not for plain download"), (HAND, "open, by hand"), (OWN, "is made by you")]
)
def test_sets_that_are_not_downloaded_say_what_to_do(monkeypatch, capsys, tmp_path, access, told):
    data = DataSet("toy", "Toy", "", "http://toy", "terms", access, "go there", "x.Y", 3, "data/toy", "toy")
    monkeypatch.setattr(catalogue, "CATALOGUE", {"toy": data})
    with pytest.raises(BiposeError, match=f"{told}.*go there"):
        fetch.fetch("toy", tmp_path)
    assert f"where to: {tmp_path}" in capsys.readouterr().out


def test_unknown_set(tmp_path):
    with pytest.raises(BiposeError, match=r"'coko' is none of .*did you mean coco\?"):
        fetch.fetch("coko", tmp_path)


def test_overview_names_all():
    assert all(name in fetch.overview() for name in catalogue.CATALOGUE)
