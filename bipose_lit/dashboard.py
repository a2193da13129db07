"""`bipose dashboard DIR`: optuna-dashboard on the studies of one sweep or ablation, from the storage that they are in.

It looks and changes nothing: what would rename, annotate or delete a study is refused, so a search that runs is safe from a
click. Everything that the page needs comes from this machine; no connection is made. Importing this file imports nothing heavy.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bipose_lit.types import BiposeError

if TYPE_CHECKING:
    from wsgiref.simple_server import WSGIServer

QUEUE = "queue.journal"
PORT, HOST = 8080, "127.0.0.1"
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def add_dashboard(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.description = (
        "Opens optuna-dashboard on the studies of one sweep or ablation; Ctrl-C ends it. It changes nothing. On another machine: "
        f"ssh -L {PORT}:localhost:{PORT} THAT-MACHINE, then open the printed address here."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of one sweep or ablation (OUT/NAME)")
    parser.add_argument(
        "--storage", metavar="URL", help="where its studies are, as given to the sweep (default: in DIR)"
    )
    parser.add_argument("--port", type=int, default=PORT, metavar="P", help=f"default: {PORT}; 0 takes any free one")
    parser.add_argument(
        "--host", default=HOST, metavar="H", help=f"address to listen at (default: {HOST}, this machine alone)"
    )


def dashboard(folder: Path, storage: str | None = None, host: str = HOST, port: int = PORT) -> int:
    """Serves until it is interrupted; returns 0 then.

    Args:
        folder: OUT/NAME; its name is that of the studies.
        storage: a journal file or an SQLAlchemy URL; None: the journal in the folder.
        host: address to listen at.
        port: 0 takes any free one.

    Raises:
        BiposeError: optuna-dashboard is not installed, there is no such study, or the port cannot be had.
    """
    if importlib.util.find_spec("optuna_dashboard") is None:
        raise BiposeError(
            "optuna-dashboard is not installed; pip install 'bipose_lit[cluster]', or read 'bipose report'"
        )
    url, name = _url(folder, storage), folder.resolve().name
    from bipose_lit.ablation.storage import close_storage, open_storage, shown

    opened = open_storage(url)
    try:
        here = [study.study_name for study in opened.get_all_studies()]
        mine = {k: opened.get_study_id_from_name(k) for k in here if k == name or k.startswith(f"{name}/")}
        if not mine:
            there = f"it holds {', '.join(sorted(here)[:6])}" if here else "it is empty"
            raise BiposeError(
                f"{shown(url)} has no study of {name} ({there}); give the --storage that the sweep was given"
            )
        with _server(opened, host, port) as server:
            address = f"http://{host}:{server.server_port}/dashboard"
            for study, number in sorted(mine.items()):
                print(f"{address}/studies/{number}  {study}")
            print(f"{address}/  all studies; Ctrl-C ends", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print(file=sys.stderr)
    finally:
        close_storage(opened)
    return 0


def read_only(app: App) -> App:
    """The same application, but for whatever would change something."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("REQUEST_METHOD") in ("GET", "HEAD"):
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "bipose dashboard only looks; nothing was changed"}']

    return answer


def _server(storage: Any, host: str, port: int) -> WSGIServer:
    """Bound, not yet serving. Its classes live here: `bipose --help` imports no server."""
    import socket
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from optuna_dashboard import wsgi  # type: ignore[import-untyped]

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

        def server_bind(self) -> None:
            # WSGIServer asks the name service for the host's name here, which takes long where there is none
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()
            self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
            self.setup_environ()

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: a page asks every ten seconds."""

    if not 0 <= port <= 65535:
        raise BiposeError(f"--port {port} is no port; give one from 1024 to 65535, or 0 for any free one")
    try:
        return make_server(host, port, read_only(wsgi(storage)), server_class=Server, handler_class=Quiet)
    except socket.gaierror as error:
        raise BiposeError(f"--host {host} is no address ({error.strerror}); try {HOST}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BiposeError(
                f"port {port} is taken at {host}; give another one by --port (0: any free one)"
            ) from error
        raise BiposeError(
            f"cannot listen at {host}:{port} ({error.strerror}); give another --host or --port"
        ) from error


def _url(folder: Path, storage: str | None) -> str:
    if not folder.is_dir():
        raise BiposeError(f"{folder} is no folder; give the folder of one sweep or ablation (OUT/NAME)")
    url = storage or str(folder / QUEUE)
    if "://" not in url and not Path(url).is_file():
        below = sorted(p.parent.name for p in folder.glob(f"*/{QUEUE}")) if storage is None else []
        hint = f"give one of {', '.join(below)} in it" if below else "give its --storage, or start the sweep first"
        raise BiposeError(f"{folder} has no study ({url} is not there); {hint}")
    return url
