"""Downloads, against a server in this process: whole, cut off and gone on with, wrong, missing; never the real homes."""

import errno
import hashlib
import http.server
import io
import json
import threading
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from bipose_lit.datasets import catalogue, fetch
from bipose_lit.datasets.catalogue_entry import CLICK, OPEN, OWN, DataSet, Download
from bipose_lit.types import BiposeError

C = fetch.CHUNK
PAYLOAD = np.random.default_rng(0).bytes(900_000)
MD5 = f"md5:{hashlib.md5(PAYLOAD).hexdigest()}"


@pytest.fixture
def server(monkeypatch):
    """A server whose behaviour a test sets: content by path, `drop` (bytes before it hangs up), `ranges`, `status`."""
    state = SimpleNamespace(
        content={"/a.bin": PAYLOAD},
        drop=[],
        ranges=True,
        status={},
        asked=[],
        etag='"v1"',
        kind="application/zip",
        sized=False,
    )

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            asked = self.headers.get("Range") if body else None
            if body:
                state.asked.append((self.path, asked))
            code = state.status.get(self.path, [200])
            code = code.pop(0) if len(code) > 1 else code[0]
            data = state.content.get(self.path)
            if code != 200 or data is None:
                self.send_error(code if code != 200 else 404)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and state.ranges else 0
            if self.headers.get("If-Range", state.etag) != state.etag:
                start = 0
            if start >= len(data):
                self.send_response(416)
                if state.sized:
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("Content-Type", state.kind)
            self.send_header("ETag", state.etag)
            self.end_headers()
            if body:
                end = start + state.drop.pop(0) if state.drop else len(data)
                self.wfile.write(data[start:end])

        def log_message(self, *args):
            pass

    monkeypatch.setattr(fetch, "WAIT", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{made.server_port}"
    yield state
    made.shutdown()
    made.server_close()


def item(server, checksum=MD5, path="/a.bin", **further):
    return Download(f"{server.url}{path}", path[1:], checksum, **{"into": None, **further})


def test_a_whole_download_reports_its_progress(server, tmp_path):
    seen = []
    path = fetch.download(item(server), tmp_path, lambda have, whole: seen.append((have, whole)))
    assert path.read_bytes() == PAYLOAD
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert server.asked == [("/a.bin", None)]


def test_a_dropped_connection_is_gone_on_with(server, tmp_path):
    server.drop = [C, 3 * C, *[C] * 5]  # more often than there are tries: each brought something
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD
    asked = [None, *(f"bytes={n * C}-" for n in (1, 4, 5, 6, 7, 8, 9))]
    assert server.asked == [("/a.bin", a) for a in asked]


def test_what_has_come_is_kept_for_the_next_command(server, tmp_path):
    server.drop = [2 * C, *[0] * fetch.TRIES]
    with pytest.raises(
        BiposeError, match=r"ended early; a\.bin has 131\.1 kB so far; the same command goes on from there"
    ):
        fetch.download(item(server), tmp_path)
    assert (tmp_path / "a.bin.part").stat().st_size == 2 * C
    server.asked.clear()
    server.drop = []
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD
    assert server.asked == [("/a.bin", f"bytes={2 * C}-")]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.drop = False, [100_000, 300_000]
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_file_that_changed_meanwhile_is_taken_whole(server, tmp_path):
    server.drop = [C, *[0] * fetch.TRIES]
    with pytest.raises(BiposeError):
        fetch.download(item(server, checksum=""), tmp_path)
    server.drop = []
    server.content["/a.bin"], server.etag = PAYLOAD[::-1], '"v2"'
    assert fetch.download(item(server, checksum=""), tmp_path).read_bytes() == PAYLOAD[::-1]


@pytest.mark.parametrize("there", [len(PAYLOAD), len(PAYLOAD) + 5])
def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path, there):
    (tmp_path / "a.bin.part").write_bytes(b"\0" * there)
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_part_that_is_all_of_it_is_not_fetched_again(server, tmp_path):
    server.sized = True
    (tmp_path / "a.bin.part").write_bytes(PAYLOAD)
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD
    assert len(server.asked) == 1


def test_a_wrong_checksum_is_told_and_the_file_set_aside(server, tmp_path):
    with pytest.raises(BiposeError, match=rf"the checksum is {MD5}, published is md5:0000; kept as .*a\.bin\.bad"):
        fetch.download(item(server, checksum="md5:0000"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin.bad"]


def test_a_file_that_is_there_is_checked_and_not_asked_for(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(PAYLOAD)
    fetch.download(item(server), tmp_path)
    assert server.asked == []
    (tmp_path / "a.bin").write_bytes(b"other")
    with pytest.raises(BiposeError, match="remove it and fetch again"):
        fetch.download(item(server), tmp_path)


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
        fetch.download(item(server), tmp_path)
    assert len(server.asked) == (fetch.TRIES if status == 503 else 1)
    assert list(tmp_path.iterdir()) == []


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.status["/a.bin"] = [503, 429, 200]
    assert fetch.download(item(server), tmp_path).read_bytes() == PAYLOAD


def test_a_page_in_the_place_of_the_file(server, tmp_path):
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(BiposeError, match="answers with a page"):
        fetch.download(item(server), tmp_path)


def test_no_server_and_no_name(server, tmp_path):
    with pytest.raises(BiposeError, match=r"127\.0\.0\.1: cannot be reached"):
        fetch.download(Download("http://127.0.0.1:9/a", "a"), tmp_path)
    with pytest.raises(BiposeError, match=r"nowhere\.invalid: (the name is unknown here|cannot be reached)"):
        fetch.download(Download("http://nowhere.invalid/a", "a"), tmp_path)


def test_a_full_disk_keeps_the_part(server, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetch, "_transfer", full)
    with pytest.raises(BiposeError, match="the disk is full; free some space, then the same command goes on"):
        fetch.download(item(server), tmp_path)


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BiposeError, match="choose another place"):
        fetch.download(item(server), tmp_path / "file" / "x")


# The command


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
    assert "complete" in capsys.readouterr().out
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
    assert toy.asked == []


@pytest.mark.parametrize(("access", "told"), [(CLICK, "not for plain download"), (OWN, "is made by you")])
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
