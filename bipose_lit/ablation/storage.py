"""Where studies are kept: a journal file, also in a folder that several machines see, or a database.

Optuna's journal has no heartbeat and its databases' one fails trials instead of handing them on; so neither is used: who lives
is told by leases (`process.Lock`), equally for all kinds of storage.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from bipose_lit.ablation.process import Lock
from bipose_lit.types import BiposeError

optuna.logging.set_verbosity(optuna.logging.ERROR)
POSTGRES = "postgresql"
PATIENCE_SECONDS = 60.0
"""With a server that has gone away in the middle of the work."""
IDLE_SECONDS = 300
"""After which the server ends the connection of one that holds the lock and is stopped, or whose machine is gone."""
_opened: set[str] = set()


class StorageLostError(BiposeError):
    """The server went away in the middle of something; what was being done can be done again once it is back."""


class _KernelLock:
    """The journal's lock by flock: a killed holder leaves none behind, and its torn last line is cut off."""

    def __init__(self, path: Path) -> None:
        self._journal = path
        self._lock = Lock(path.with_name(path.name + ".flock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        with self._journal.open("rb+") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size:
                handle.seek(size - 1)
                if handle.read(1) != b"\n":
                    handle.seek(0)
                    handle.truncate(handle.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(url: str) -> BaseStorage:
    """Opens the storage of studies; made if it is a file that is not there.

    Args:
        url: a path (journal file), `sqlite:///FILE`, `postgresql://USER@HOST/DATABASE`, or another SQLAlchemy URL.

    Raises:
        BiposeError: a driver is missing, the server cannot be reached or refuses, the file is damaged. No password is shown.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if "://" not in url:
                return _journal(Path(url))
            if url.startswith("sqlite"):
                with Lock(_beside(url)):  # two that create its tables at once would fail
                    return RDBStorage(url, skip_compatibility_check=url in _opened, skip_table_creation=url in _opened)
            return _database(url)
        except BiposeError:
            raise
        except Exception as error:  # optuna, SQLAlchemy and drivers each have their own kinds
            raise _unusable(url, error) from error


def warm(url: str) -> None:
    """Imports what a storage of this kind needs, in the process that forks others, and connects to nothing."""
    if "://" not in url:
        return
    with (
        warnings.catch_warnings(),
        contextlib.suppress(Exception),
    ):  # what is missing is told when the storage is opened
        warnings.simplefilter("ignore")
        close_storage(RDBStorage("sqlite://"))  # in memory: optuna imports its models when a first storage is made
        if url.startswith(("postgres:", POSTGRES)):
            import psycopg  # noqa: F401
            import sqlalchemy.dialects.postgresql.psycopg  # noqa: F401


def was_opened(url: str) -> None:
    """Tells this process and those that it forks that its tables are there, of the right version: openings take half the time."""
    _opened.add(url)


def open_study(storage: BaseStorage, url: str, name: str, *directions: Literal["minimize", "maximize"]) -> optuna.Study:
    """The study of this name, made if it is not there; callers hold the lock under which all of them come.

    Raises:
        BiposeError: a damaged file, or a server that refuses.
        StorageLostError: it was there before and went away.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
    except Exception as error:
        if url in _opened and url.startswith("postgres"):
            raise StorageLostError(str(_unusable(url, error))) from error
        raise _unusable(url, error) from error


def close_storage(storage: BaseStorage) -> None:
    """Gives connections back; a journal has none."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def exclusive(storage: BaseStorage, name: str) -> Iterator[None]:
    """One process at a time among all that use this study in this database: PostgreSQL's own lock, or one beside a SQLite file.

    Callers hold a lock of their results folder besides, which is enough for a journal in it (a journal elsewhere locks every
    access by itself). With this, folders that share a database do not meet, nor machines that share a folder without its file
    locks. The lock ends with its connection, and so with its process.

    Raises:
        StorageLostError: the connection broke.
    """
    if isinstance(storage, RDBStorage) and storage.engine.dialect.name == "sqlite":
        with Lock(_beside(str(storage.url))):
            yield
        return
    if not (isinstance(storage, RDBStorage) and storage.engine.dialect.name == POSTGRES):
        yield
        return
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError

    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    try:
        with storage.engine.connect() as connection:
            connection.execute(text(f"SET idle_in_transaction_session_timeout = {IDLE_SECONDS * 1000}"))
            connection.execute(text("SELECT pg_advisory_lock(:number)"), {"number": number})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:number)"), {"number": number})
    except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
        raise StorageLostError(str(_unusable(str(storage.url), error))) from error


def shown(url: str) -> str:
    """An address without its password."""
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url))


def _journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_KernelLock(path)))  # type: ignore[arg-type]


def _database(url: str) -> BaseStorage:
    known = url in _opened
    scheme, _, rest = url.partition("://")
    if scheme in (POSTGRES, "postgres", f"{POSTGRES}+psycopg"):
        if importlib.util.find_spec("psycopg") is None or importlib.util.find_spec("sqlalchemy") is None:
            raise BiposeError(
                f"storage {shown(url)}: the driver of PostgreSQL is not installed; pip install 'bipose_lit[cluster]', or "
                "give a journal file in a folder that all machines see"
            )
        url = f"{POSTGRES}+psycopg://{rest}"
    # Every process opens the storage, works and closes it: a pool of connections would only keep some for nothing.
    options = {"pool_size": 2, "max_overflow": 2, "pool_pre_ping": True}
    tries, patience = 5, time.monotonic() + (PATIENCE_SECONDS if known else 0.0)
    while True:
        try:
            storage = RDBStorage(url, engine_kwargs=options, skip_compatibility_check=known, skip_table_creation=known)
            if known:  # nothing has been asked of the server yet
                storage.engine.connect().close()
            return storage
        except Exception as error:
            # Two that create the tables of a new database at the same time: the second finds them made a moment later.
            race = any(word in str(error).lower() for word in ("already exists", "unique", "duplicate"))
            tries -= race
            if tries > 0 and not race and time.monotonic() < patience:
                time.sleep(1.0)  # it was there a while ago: it is being started anew, or the network is
            elif not race or not tries:
                raise


def _beside(url: str) -> Path:
    """A lock file beside the file of an sqlite address."""
    path = Path(url.partition(":///")[2].partition("?")[0] or "memory")
    return path.with_name(f"{path.name}.flock")


def _unusable(url: str, error: Exception) -> BiposeError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = re.sub(r"^\(\S+\) ", "", lines[0]) if lines else ""
    secret = urlsplit(url).password if "://" in url else None
    reason = shown(reason if secret is None or len(secret) < 4 else reason.replace(secret, "***"))
    if url.startswith("postgres"):
        return BiposeError(
            f"storage {shown(url)}: cannot be reached or refuses ({reason}); check that the server runs, host, port, user and "
            "database, or give another --storage"
        )
    return BiposeError(
        f"cannot open the queue {shown(url)}: {type(error).__name__}: {reason}; give another --storage, or "
        "delete a damaged queue file (finished runs are kept in their folders)"
    )
