"""Where studies are kept: what is not there is told in one line, what two make at once is made once."""

import contextlib
import importlib.util
import multiprocessing
import time

import postgres
import pytest

pytest.importorskip("optuna")

from bipose_lit.ablation.process import Lock
from bipose_lit.ablation.queue import Queue
from bipose_lit.ablation.storage import StorageLostError, close_storage, exclusive, open_storage, shown
from bipose_lit.types import BiposeError


@pytest.fixture(scope="module")
def server():
    if reason := postgres.why_not():
        pytest.skip(reason)
    with postgres.server() as running:
        yield running


def _open(url: str, gate, errors) -> None:
    gate.wait()
    try:
        with Queue(url, "m") as queue:
            queue.put("a")
    except BaseException as error:
        errors.put(f"{type(error).__name__}: {error}")
        raise


def open_together(url: str, count: int = 4) -> None:
    """So many processes make the tables, and the study, of a storage that is not there yet."""
    context = multiprocessing.get_context("spawn")
    gate, errors = context.Barrier(count), context.Queue()
    tries = [context.Process(target=_open, args=(url, gate, errors)) for _ in range(count)]
    for process in tries:
        process.start()
    for process in tries:
        process.join(120)
    told = [errors.get() for _ in range(sum(p.exitcode != 0 for p in tries))]
    assert told == []
    with Queue(url, "m") as queue:
        assert len(queue.entries()) == count
        assert [e.number for e in queue.entries()] == list(range(count))


@pytest.mark.slow
def test_many_that_begin_together_on_sqlite(tmp_path):
    open_together(f"sqlite:///{tmp_path}/q.db")


@pytest.mark.slow
def test_many_that_begin_together_on_postgresql(server):
    open_together(server.url("together"))


@pytest.mark.slow
def test_many_that_begin_together_on_a_journal(tmp_path):
    open_together(str(tmp_path / "deeper" / "q.journal"))


@pytest.mark.slow
def test_the_engine_on_postgresql(site, server):
    url = server.url("engine")
    first, second = (site.start(seconds=0.3, storage=url, workers=1) for _ in range(2))
    outs = [p.communicate(timeout=60) for p in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outs
    assert len(site.events("start")) == len(site.events("end")) == 6
    assert not (site.folder / "runs/m/queue.journal").exists()
    with Queue(url, "m") as queue:
        assert [e.state for e in queue.entries()] == ["done"] * 6


@pytest.mark.slow
def test_a_killed_holder_leaves_no_lock_in_the_database(server):
    """The lock of machines that share no file locks: it ends with the connection."""
    url = server.url("locks")
    close_storage(open_storage(url))
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(url, ready))
    holder.start()
    assert ready.wait(60)
    waiter_done = context.Event()
    waiter = context.Process(target=_hold, args=(url, waiter_done))
    waiter.start()
    assert not waiter_done.wait(3)
    holder.kill()
    assert waiter_done.wait(60)
    waiter.kill()
    for process in (holder, waiter):
        process.join()


def _hold(url: str, ready) -> None:
    storage = open_storage(url)
    with exclusive(storage, "m"):
        ready.set()
        time.sleep(600)


@pytest.mark.ddp
def test_a_server_that_is_started_anew_stops_nobody(site, server):
    """Between two runs, and while one tells how it ended."""
    url = server.url("anew")
    process = site.start(seconds=1.0, storage=url, workers=2)
    try:
        site.wait_for("step", 5)
        server.stop()
        site.wait_for("end", 1)
        time.sleep(2)
        assert process.poll() is None
    finally:
        server.start()
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 0, err
    assert len(site.events("start")) == len(site.events("end")) == 6
    with Queue(url, "m") as queue:
        assert [e.state for e in queue.entries()] == ["done"] * 6


@pytest.mark.ddp
def test_a_stopped_holder_of_the_database_lock_is_put_out(server, monkeypatch):
    """Its machine may be gone without the server's notice; the lock is needed for a moment only."""
    monkeypatch.setattr("bipose_lit.ablation.storage.IDLE_SECONDS", 1)
    url = server.url("stopped")
    first, second = open_storage(url), open_storage(url)
    holder = contextlib.ExitStack()
    holder.enter_context(exclusive(first, "m"))
    with exclusive(second, "m"):
        pass
    close_storage(second)
    with pytest.raises(StorageLostError, match="idle-in-transaction"):
        holder.close()
    close_storage(first)


def test_a_server_that_is_not_there():
    with pytest.raises(BiposeError) as told:
        open_storage("postgresql://me:opensesame@127.0.0.1:1/db")
    line = str(told.value)
    assert line.startswith("storage postgresql://me:***@127.0.0.1:1/db: cannot be reached or refuses (")
    assert "Connection refused" in line
    assert "check that the server runs" in line
    assert "opensesame" not in line
    assert "\n" not in line


def test_a_database_that_is_not_there(server):
    url = server.url("there").replace("/there", "/elsewhere")
    with pytest.raises(BiposeError, match=r'database "elsewhere" does not exist.*check that the server runs'):
        open_storage(url)


def test_a_missing_driver(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "psycopg" else find(name, *a))
    with pytest.raises(BiposeError, match=r"not installed; pip install 'bipose_lit\[cluster\]'"):
        open_storage("postgresql://me@host/db")


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db?password=secret&x=1", "postgresql://me@host/db?password=***&x=1"),
        ("runs/m/queue.journal", "runs/m/queue.journal"),
        ("sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_passwords_are_not_shown(url, safe):
    assert shown(url) == safe


def test_a_journal_that_is_no_journal(tmp_path):
    (tmp_path / "q").write_text("once upon a time\n")
    with pytest.raises(BiposeError, match=r"cannot open the queue .*delete a damaged queue file"):
        Queue(str(tmp_path / "q"), "m")


def test_exclusive_needs_no_database(tmp_path):
    storage = open_storage(str(tmp_path / "q.journal"))
    with Lock(tmp_path / "x.lock"), exclusive(storage, "m"):
        pass
