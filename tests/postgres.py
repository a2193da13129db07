"""A PostgreSQL server for the length of a test: Debian's package, in a folder of its own, gone with the test."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
USER = "bipose"
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
"""A server that lives for one test may forget everything when the machine fails."""


def programs() -> Path | None:
    """The folder of initdb and postgres, of the newest version; None if there is none."""
    found = [path for place in PLACES for path in Path("/").glob(place.lstrip("/")) if (path / "initdb").is_file()]
    on_path = shutil.which("initdb")
    return (
        max(found, key=lambda p: [int(n) for n in p.parent.name.split(".") if n.isdigit()])
        if found
        else (Path(on_path).parent if on_path else None)
    )


def why_not() -> str:
    """Why no server can be started here; "" if one can."""
    if programs() is None:
        return "PostgreSQL is not installed (Debian: apt install postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres"
    return ""


class Server:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
    """

    def __init__(self, folder: Path, port: int, who: dict) -> None:
        self.folder, self.port, self.who = folder, port, who
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts it, also again, and waits until it answers."""
        options = {**QUICK, "unix_socket_directories": str(self.folder), "listen_addresses": "127.0.0.1"}
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [programs() / "postgres", "-D", self.folder / "data", "-p", str(self.port), *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                **self.who,
            )
        ready = [programs() / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-q"]
        end = time.monotonic() + 60
        while subprocess.run(ready).returncode:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError((self.folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it and every connection; what was told it stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(30)
            self.process = None

    def url(self, database: str) -> str:
        """The address of a database, made new."""
        subprocess.run(
            [programs() / "createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, database],
            check=True,
            capture_output=True,
        )
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Starts a server, as the user postgres where this is root; the kernel ends it with this process."""
    bin_, folder = programs(), Path(tempfile.mkdtemp(prefix="bipose-pg-"))
    data, who = folder / "data", {}
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    running = None
    try:
        made = subprocess.run(
            [bin_ / "initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "--no-locale"],
            cwd=folder,
            capture_output=True,
            text=True,
            **who,
        )
        assert made.returncode == 0, made.stderr
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        running = Server(folder, port, who)
        running.start()
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _die_with_parent() -> None:
    if os.uname().sysname == "Linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT, 0, 0, 0)
