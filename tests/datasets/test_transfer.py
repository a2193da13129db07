"""One download, against a server in this process: whole, cut off and gone on with, wrong, missing; never a real home."""

import errno
import gzip
import hashlib

import numpy as np
import pytest

from bipose_lit.datasets import transfer
from bipose_lit.datasets.catalogue_entry import Download
from bipose_lit.types import BiposeError

C = transfer.CHUNK
PAYLOAD = np.random.default_rng(0).bytes(900_000)
MD5 = f"md5:{hashlib.md5(PAYLOAD).hexdigest()}"


@pytest.fixture(autouse=True)
def payload(server):
    server.content["/a.bin"] = PAYLOAD


def item(server, checksum=MD5, path="/a.bin", **further):
    return Download(f"{server.url}{path}", path[1:], checksum, **{"into": None, **further})


def test_a_whole_download_reports_its_progress(server, tmp_path):
    seen = []
    path = transfer.download(item(server), tmp_path, lambda have, whole: seen.append((have, whole)))
    assert path.read_bytes() == PAYLOAD
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert server.asked == [("/a.bin", None)]


def test_a_dropped_connection_is_gone_on_with(server, tmp_path):
    server.drop = [C, 3 * C, *[C] * 5]  # more often than there are tries: each brought something
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD
    asked = [None, *(f"bytes={n * C}-" for n in (1, 4, 5, 6, 7, 8, 9))]
    assert server.asked == [("/a.bin", a) for a in asked]


def test_what_has_come_is_kept_for_the_next_command(server, tmp_path):
    server.drop = [2 * C, *[0] * transfer.TRIES]
    with pytest.raises(
        BiposeError, match=r"ended early; a\.bin has 131\.1 kB so far; the same command goes on from there"
    ):
        transfer.download(item(server), tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 2 * C
    server.asked.clear()
    server.drop = []
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD
    assert server.asked == [("/a.bin", f"bytes={2 * C}-")]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.drop = False, [100_000, 300_000]
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_file_that_changed_meanwhile_is_taken_whole(server, tmp_path):
    server.drop = [C, *[0] * transfer.TRIES]
    with pytest.raises(BiposeError):
        transfer.download(item(server, checksum=""), tmp_path)
    server.drop = []
    server.content["/a.bin"], server.etag = PAYLOAD[::-1], '"v2"'
    assert transfer.download(item(server, checksum=""), tmp_path).read_bytes() == PAYLOAD[::-1]


@pytest.mark.parametrize("there", [len(PAYLOAD), len(PAYLOAD) + 5])
def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path, there):
    (tmp_path / "a.bin.part").write_bytes(b"\0" * there)
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_part_that_is_all_of_it_is_not_fetched_again(server, tmp_path):
    server.sized = True
    (tmp_path / "a.bin.part").write_bytes(PAYLOAD)
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD
    assert len(server.asked) == 1


def test_a_wrong_checksum_is_told_and_the_file_set_aside(server, tmp_path):
    with pytest.raises(BiposeError, match=rf"the checksum is {MD5}, published is md5:0000; kept as .*a\.bin\.bad"):
        transfer.download(item(server, checksum="md5:0000"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin.bad"]


def test_a_file_that_is_there_is_checked_and_not_asked_for(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(PAYLOAD)
    transfer.download(item(server), tmp_path)
    assert server.asked == []
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(BiposeError, match="remove it and fetch again"):
        transfer.download(item(server), tmp_path)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, "not there"),
        (410, "not there"),
        (403, "refused"),
        (401, "refused"),
        (418, "answers 418"),
        (503, "answers 503"),
    ],
)
def test_what_servers_refuse(server, tmp_path, status, told):
    server.status["/a.bin"] = [status]
    with pytest.raises(BiposeError, match=told):
        transfer.download(item(server), tmp_path)
    assert len(server.asked) == (transfer.TRIES if status == 503 else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.status["/a.bin"] = [503, 429, 200]
    assert transfer.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_page_in_the_place_of_the_file(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(BiposeError, match="answers with a page"):
        transfer.download(item(server), tmp_path)


def test_no_server_and_no_name(server, tmp_path):
    with pytest.raises(BiposeError, match=r"127\.0\.0\.1: cannot be reached"):
        transfer.download(Download("http://127.0.0.1:9/a", "a"), tmp_path)
    with pytest.raises(BiposeError, match=r"nowhere\.invalid: (the name is unknown here|cannot be reached)"):
        transfer.download(Download("http://nowhere.invalid/a", "a"), tmp_path)


def test_a_full_disk_keeps_the_part(server, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_transfer", full)
    with pytest.raises(BiposeError, match="the disk is full; free some space, then the same command goes on"):
        transfer.download(item(server), tmp_path)


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="choose another place"):
        transfer.download(item(server), tmp_path / "file" / "x")


# Without a length, and with an encoding


def test_a_length_that_nobody_tells_is_the_published_one(server, tmp_path):
    server.length, server.drop = False, [C, 2 * C]
    path = transfer.download(item(server, checksum="", size=len(PAYLOAD)), tmp_path)
    assert path.read_bytes() == PAYLOAD
    assert [asked for _, asked in server.asked] == [None, f"bytes={C}-", f"bytes={3 * C}-"]


def test_a_file_that_stays_too_short_is_not_taken(server, tmp_path):
    server.length, server.drop = False, [C, *[0] * 10]
    with pytest.raises(BiposeError, match="ended early"):
        transfer.download(item(server, checksum="", size=len(PAYLOAD)), tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".tag"] == ["a.bin.part"]


def test_how_much_is_enough():
    exact, rough = Download("", "a", size=12_340_483), Download("", "a", size=17_000_000_000)
    assert (transfer.least_size(exact), transfer.least_size(rough)) == (12_340_483, 16.15e9)
    assert transfer.least_size(Download("", "a", MD5, 5)) == transfer.least_size(Download("", "a")) == 0


def test_nothing_known_of_the_length(server, tmp_path):
    server.length = False
    seen = []
    transfer.download(item(server, checksum=""), tmp_path, lambda have, whole: seen.append(whole))
    assert set(seen) == {0}


@pytest.mark.parametrize("encoding", ["x-gzip", "gzip"])
def test_an_archive_that_the_server_calls_encoded_is_taken_as_it_is(server, tmp_path, encoding):
    packed = gzip.compress(PAYLOAD[:1000])
    server.content["/a.tar.gz"], server.encoding = packed, encoding
    md5 = f"md5:{hashlib.md5(packed).hexdigest()}"
    path = transfer.download(item(server, md5, "/a.tar.gz"), tmp_path)
    assert path.read_bytes() == packed
