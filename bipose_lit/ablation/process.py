"""Processes of an ablation: forked from a parent that only imports, dying with it, speaking through pipes.

The parent runs no tensor operation, holds no storage connection and starts no thread; so a fork of it is a fresh, warm
interpreter. Locks are the kernel's (flock): they end with the process that holds them, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from bipose_lit.lifeline import die_with_parent
from bipose_lit.types import BiposeError

BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
HEARTBEAT, STALE = 10.0, 60.0
"""Seconds between two signs of life of a run, and without one after which a run on another machine counts as dead."""


class Channel:
    """The child's end: one JSON object a line; a parent that is gone is no error (the child is about to die too)."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._last = 0.0

    def send(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, **values}, default=str) + "\n"
        data = line.encode()
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.fd, data) :]

    def step(self, step: int, total: int, **values: Any) -> None:
        """Progress, at most five times a second, and always the last step."""
        now = time.monotonic()
        if now - self._last >= 0.2 or step >= total:
            self._last = now
            self.send("step", step=step, total=total, **values)

    def step_text(self, step: int, total: int, text: str = "") -> None:
        """As `step`, in the form in which data makers and caches report."""
        self.step(step, total, text=text)


@dataclass
class Child:
    """The parent's end of one forked process.

    Attributes:
        pid: its process.
        fd: where its events are read.
        slot: number of the worker that it is.
        code: exit status once it has ended: negative for a signal, None while it runs.
    """

    pid: int
    fd: int
    slot: int = 0
    code: int | None = None
    started: float = field(default_factory=time.monotonic)
    info: dict[str, Any] = field(default_factory=dict)
    _rest: bytes = b""

    def events(self) -> Iterator[dict[str, Any]]:
        """What has arrived; never blocks."""
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def poll(self) -> bool:
        """Whether the process has ended."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def close(self) -> None:
        os.close(self.fd)


def fork(body: Callable[[Channel], None], slot: int = 0, siblings: tuple[Child, ...] = ()) -> Child:
    """Runs `body` in a forked process that dies with this one, ignores Ctrl-C (the parent sees to it), never returns.

    An exception in `body` arrives as the event "error" with one line; the exit status is then 1.
    """
    read, write = os.pipe()
    os.set_blocking(read, False)
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1})
    pid = os.fork()
    if pid:
        os.close(write)
        child = Child(pid, read, slot)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # a signal that came meanwhile is handled here
        except BaseException:
            stop([child])
            child.close()
            raise
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        die_with_parent(parent)
        os.close(read)
        for sibling in siblings:
            os.close(sibling.fd)
        channel = Channel(write)
        try:
            body(channel)
            code = 0
        except (Exception, SystemExit) as error:
            if not isinstance(error, BiposeError):
                traceback.print_exc()
            channel.send("error", line=one_line(error))
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


class Pending:
    """A forked process whose value (plain data) is fetched later."""

    def __init__(self, body: Callable[[Channel], Any]) -> None:
        self._child = fork(lambda channel: channel.send("value", value=body(channel)))
        self._ended = False

    def result(self, watch: Callable[[dict[str, Any]], None] | None = None) -> Any:
        """Waits for the value; `watch` sees the process's events and, in between, empty ones.

        Raises:
            BiposeError: the body failed or its process died.
        """
        values: list[Any] = []
        errors: list[str] = []
        child = self._child
        try:
            ended = False
            while not ended:
                ended = child.poll()
                for event in child.events():
                    if event["event"] == "value":
                        values.append(event["value"])
                    elif event["event"] == "error":
                        errors.append(event["line"])
                    elif watch is not None:
                        watch(event)
                if watch is not None:
                    watch({"event": ""})
                if not ended:
                    time.sleep(0.02)
        finally:
            self.stop()
        if errors or not values:
            raise BiposeError(errors[0] if errors else f"a helper process {describe_exit(child.code)}")
        return values[0]

    def stop(self) -> None:
        """Ends the process if it still runs; its value is lost. Any number of times."""
        if not self._ended:
            self._ended = True
            stop([self._child])
            self._child.close()


def call(body: Callable[[Channel], Any], watch: Callable[[dict[str, Any]], None] | None = None) -> Any:
    """The value (plain data) of `body` run in a forked process; `watch` sees its events and, in between, empty ones.

    Raises:
        BiposeError: `body` failed or its process died.
    """
    return Pending(body).result(watch)


def stop(children: list[Child], grace: float = 3.0) -> None:
    """Ends processes: SIGTERM, then SIGKILL after `grace` seconds; returns when all have ended."""
    for child in children:
        if not child.poll():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
    end = time.monotonic() + grace
    while any(not c.poll() for c in children) and time.monotonic() < end:
        time.sleep(0.02)
    for child in children:
        if not child.poll():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            _, status = os.waitpid(child.pid, 0)
            child.code = os.waitstatus_to_exitcode(status)


def limit_threads(threads: int) -> None:
    """Fixes the number of threads of whatever numerical library this process has loaded or will load."""
    for name in BLAS:
        os.environ[name] = str(threads)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(0)


def redirect(path: Path) -> None:
    """Sends this process's output, also that of C libraries, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def one_line(error: BaseException) -> str:
    """An exception as one line; its kind is named unless it is one of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else ""
    if isinstance(error, BiposeError):
        return " ".join(lines)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_exit(code: int | None) -> str:
    """An exit status in words."""
    if code is None:
        return "is still running"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")


@cache
def machine() -> str:
    """Names this machine: its host name, and its boot, since containers on many machines may have one name."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        boot = ""
    return socket.gethostname() + (f"/{boot}" if boot else "")


class Lock:
    """A lock on a path that ends with the process; the file says who holds it.

    Forked processes inherit it on purpose: while a run's loading processes live, its folder is taken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._mark = ""

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock; False if `wait` is false and another process holds it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        if not wait and self._elsewhere(fd):
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        self._mark = f"{machine()} {os.getpid()} {self.start_of(os.getpid())}\n"
        os.pwrite(fd, self._mark.encode(), 0)
        self._fd = fd
        return True

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def descriptors(self) -> tuple[int, ...]:
        """What a command must be given (`pass_fds`) to hold the lock too, until it has ended; empty if it is not held."""
        return (self._fd,) if self._fd >= 0 else ()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def held(self) -> bool:
        """Whether a process holds it, here or (by a sign of life within the last minute) on another machine."""
        try:
            fd = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return self._elsewhere(fd)
        finally:
            os.close(fd)

    def _elsewhere(self, fd: int) -> bool:
        """Whether a process on another machine holds it, though file locks are not shared: times still are."""
        host = os.pread(fd, 256, 0).decode(errors="replace").split(" ")[0].strip()
        if host in ("", machine()):
            return False
        with tempfile.TemporaryFile(dir=self.path.parent) as probe:  # the file server's clock, not this machine's
            return os.fstat(probe.fileno()).st_mtime - os.fstat(fd).st_mtime < STALE

    def mine(self) -> bool:
        """Whether this object holds it and nobody has taken it over since (where machines do not share file locks)."""
        return self._fd >= 0 and self._text() == self._mark

    def holder(self) -> str:
        """Who holds it, "HOST PID", or who did last; "" if nobody."""
        return " ".join(self._text().split()[:2])

    def _text(self) -> str:
        try:
            return self.path.read_text(errors="replace")
        except OSError:
            return ""

    def touch(self) -> None:
        """A sign of life."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)

    def clear(self) -> None:
        """Says that nobody holds it any more (before `release`, for machines that only see times)."""
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)

    @staticmethod
    def start_of(pid: int) -> str:
        """When a process started (clock ticks since boot), where the system tells; tells apart a pid used twice."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        except (OSError, IndexError):
            return ""
