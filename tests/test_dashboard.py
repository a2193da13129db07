"""`bipose dashboard`: it serves the study with a real process, changes nothing, and says what is wrong in one line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bipose_lit import dashboard as module
from bipose_lit.__main__ import main
from bipose_lit.ablation.storage import close_storage, open_storage, open_study

POINTS = (0.1, 0.3, 0.2)


def write_study(url: str, name: str) -> None:
    storage = open_storage(url)
    study = open_study(storage, url, name, "maximize")
    for value in POINTS:
        trial = study.ask()
        trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        study.tell(trial, value)
    close_storage(storage)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "heads"
    folder.mkdir()
    write_study(str(folder / "queue.journal"), "heads/search")
    return folder


class Served:
    """A running command and its address."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "bipose_lit", "dashboard", *arguments, "--port", "0"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            # Whoever started these tests in the background may have had Ctrl-C ignored, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.process.stdout is not None
        self.lines = []
        while line := self.process.stdout.readline():
            self.lines.append(line.strip())
            if "all studies" in line:
                break
        else:
            pytest.fail(self.process.communicate()[1])
        self.address = self.lines[-1].split("/dashboard")[0]

    def get(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        request = urllib.request.Request(self.address + path, data=body, method=method)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def stop(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    server = Served(str(folder))
    yield server
    if server.process.poll() is None:
        server.stop(signal.SIGKILL)


def test_it_serves_the_page_and_the_study(served: Served) -> None:
    status, page = served.get("/dashboard/")
    assert status == 200
    assert b"<html" in page.lower()
    status, body = served.get("/api/studies")
    assert status == 200
    (study,) = json.loads(body)["study_summaries"]
    assert study["study_name"] == "heads/search"
    status, body = served.get(f"/api/studies/{study['study_id']}?after=0")
    assert status == 200
    assert [t["values"] for t in json.loads(body)["trials"]] == [[v] for v in POINTS]
    assert served.lines[0] == f"{served.address}/dashboard/studies/{study['study_id']}  heads/search"
    assert served.get(f"/dashboard/studies/{study['study_id']}")[0] == 200


def test_the_page_loads_nothing_from_elsewhere(served: Served) -> None:
    page = served.get("/dashboard/")[1].decode()
    assert "src=" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_it_changes_nothing(served: Served, folder: Path) -> None:
    before = (folder / "queue.journal").read_bytes()
    (study,) = json.loads(served.get("/api/studies")[1])["study_summaries"]
    for method, path in (
        ("DELETE", f"/api/studies/{study['study_id']}"),
        ("POST", "/api/studies"),
        ("PUT", f"/api/studies/{study['study_id']}/note"),
    ):
        status, body = served.get(
            path, method, json.dumps({"body": "x", "version": 1}).encode() if method != "DELETE" else None
        )
        assert status == 403
        assert "only looks" in json.loads(body)["reason"]
    assert (folder / "queue.journal").read_bytes() == before


def test_what_a_worker_adds_is_seen(served: Served, folder: Path) -> None:
    write_study(str(folder / "queue.journal"), "heads")
    names = {s["study_name"] for s in json.loads(served.get("/api/studies")[1])["study_summaries"]}
    assert names == {"heads", "heads/search"}


def test_a_taken_port_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["dashboard", str(folder), "--port", str(port)]) == 1
    assert capsys.readouterr().err == (
        f"bipose: error: port {port} is taken at 127.0.0.1; give another one by --port (0: any free one)\n"
    )


def test_ctrl_c_ends_it_well(folder: Path, tmp_path: Path) -> None:
    write_study(f"sqlite:///{tmp_path / 'x.db'}", "heads")
    server = Served(str(folder), "--storage", f"sqlite:///{tmp_path / 'x.db'}")
    assert server.lines[0].endswith("heads")
    assert server.get("/api/studies")[0] == 200
    time.sleep(0.2)
    assert server.stop(signal.SIGINT) == 0
    assert server.process.stderr is not None
    assert "Traceback" not in server.process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is no folder"),
        (["out"], "has no study (out/queue.journal is not there); give one of heads, other in it"),
        (
            ["out/empty"],
            "has no study (out/empty/queue.journal is not there); give its --storage, or start the sweep first",
        ),
        (["out/other"], "has no study of other (it holds heads)"),
        (["out/heads", "--storage", "none.journal"], "none.journal is not there"),
        (["out/heads", "--storage", "postgresql://me:secret@127.0.0.1:1/x"], "cannot be reached"),
        (["out/heads", "--port", "99999"], "--port 99999 is no port"),
        (["out/heads", "--port", "0", "--host", "no.such.host.invalid"], "--host no.such.host.invalid is no address"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, study in (("heads", "heads"), ("empty", ""), ("other", "heads")):
        Path("out", name).mkdir(parents=True)
        if study:
            write_study(str(Path("out", name, "queue.journal")), study)
    assert main(["dashboard", *arguments]) == 1
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
    assert "secret" not in said


def test_without_the_package_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = module.importlib.util.find_spec
    monkeypatch.setattr(
        module.importlib.util, "find_spec", lambda name: None if name == "optuna_dashboard" else find(name)
    )
    assert main(["dashboard", str(folder)]) == 1
    assert "optuna-dashboard is not installed; pip install 'bipose_lit[cluster]'" in capsys.readouterr().err


def test_reading_is_let_through() -> None:
    def app(environ: dict, start: object) -> list[bytes]:
        return [environ["REQUEST_METHOD"].encode()]

    told: list[str] = []
    served = module.read_only(app)
    assert served({"REQUEST_METHOD": "HEAD"}, told.append) == [b"HEAD"]
    assert b"changed" in b"".join(served({"REQUEST_METHOD": "PATCH"}, lambda status, head: told.append(status)))
    assert told == ["403 Forbidden"]
