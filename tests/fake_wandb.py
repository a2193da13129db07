"""A small server that speaks as much of W&B's interface as wandb 0.31 asks for online: GraphQL, file stream, uploads.

It keeps what it was told per run, the way the real service does: lines of the history are written at an offset, a resumed run
is told how many lines there are, a file is uploaded to an address that the service hands out. It can also fail on purpose.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"
ENTITY = "people"


@dataclass
class FakeRun:
    """One run as the service knows it.

    Attributes:
        project: the project.
        upserts: arguments of every call that creates or changes it; the first ones of a client say how it was opened.
        history: lines by their number.
        overwritten: numbers of history lines that were sent a second time, each time they were.
        summary: as of the last message.
        files: content by path in the run.
        exits: exit codes, one per end.
        resumes: how often a client asked whether it is there and it was.
        preempting: whether a client said that it was about to be stopped.
    """

    project: str
    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    overwritten: list[int] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exits: list[int] = field(default_factory=list)
    resumes: int = 0
    preempting: bool = False

    def last(self, name: str) -> Any:
        """The newest value told for an argument of the run; None if there was none."""
        return next((u[name] for u in reversed(self.upserts) if u.get(name) is not None), None)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, without W&B's wrapping and without its own section."""
        told = json.loads(self.last("config") or "{}")
        return {key: entry["value"] for key, entry in told.items() if key != "_wandb"}

    @property
    def rows(self) -> list[dict[str, Any]]:
        """History rows in their order."""
        return [self.history[i] for i in sorted(self.history)]


@dataclass
class FakeArtifact:
    """A version of an artifact: its name, kind, the files uploaded and whether it was committed."""

    name: str
    kind: str
    run: str
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    committed: bool = False


class FakeService:
    """The service on a free port of 127.0.0.1.

    Attributes:
        runs: by id.
        artifacts: by the id that the service gave them.
        requests: (what was asked, HTTP status) in order.
        status: answer everything with this HTTP status while it is not 0.
        delay: seconds to wait before every answer.
        key: the only API key that is let in.
    """

    def __init__(self) -> None:
        self.runs: dict[str, FakeRun] = {}
        self.artifacts: dict[str, FakeArtifact] = {}
        self.requests: list[tuple[str, int]] = []
        self.unknown: list[str] = []
        self.status, self.delay, self.key = 0, 0.0, KEY
        self.stopping = threading.Event()
        self.lock = threading.RLock()
        service = self

        class Handler(_Handler):
            owner = service

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def named(self, display: str) -> FakeRun:
        """The one run that shows a name.

        Raises:
            AssertionError: none or several do.
        """
        found = [run for run in self.runs.values() if run.last("displayName") == display]
        assert len(found) == 1, f"{len(found)} runs are called {display}"
        return found[0]

    def answer(self, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """What a GraphQL operation gives back."""
        with self.lock:
            operation = getattr(self, "_" + re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower(), None)
            if operation is None:
                self.unknown.append(name)
                return {}
            return operation(given)

    def _viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {"id": "u1", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}
        }

    def _get_default_entity(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._viewer(given)

    def _run(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        if run is None:
            return {"project": {"run": None}}
        told = {
            "projectId": "1",
            "id": _id("run", given["name"]),
            "name": given["name"],
            "displayName": run.last("displayName"),
            "state": "finished" if run.exits else "running",
            "tags": run.last("tags") or [],
            "config": run.last("config") or "{}",
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
        }
        return {"project": {"run": told}}

    def _server_features_query(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _run_resume_status(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["name"])
        project = given.get("project") or "uncategorized"
        bucket = None
        if run is not None and run.project == project:
            run.resumes += 1
            rows = [json.dumps(row) for row in run.rows[-1:]]
            bucket = {
                "id": _id("run", given["name"]),
                "name": given["name"],
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.last("displayName"),
                "logLineCount": 0,
                "historyLineCount": len(run.history),
                "eventsLineCount": 0,
                "historyTail": json.dumps(rows),
                "eventsTail": "[]",
                "config": run.last("config") or "{}",
                "tags": run.last("tags") or [],
                "notes": None,
                "wandbConfig": json.dumps({"t": 1}),
            }
        entity = {"id": "e1", "name": ENTITY}
        return {"model": {"id": _id("project", project), "name": project, "entity": entity, "bucket": bucket}}

    def _upsert_bucket(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or base64.b64decode(given["id"]).decode().split(":")[1]
        inserted = name not in self.runs
        run = self.runs.setdefault(name, FakeRun(given.get("project") or "uncategorized"))
        run.upserts.append(given)
        if given.get("summaryMetrics"):
            run.summary = json.loads(given["summaryMetrics"])
        project = {"id": _id("project", run.project), "name": run.project, "entity": {"id": "e1", "name": ENTITY}}
        bucket = {
            "id": _id("run", name),
            "name": name,
            "displayName": run.last("displayName") or name,
            "description": "",
            "config": run.last("config") or "{}",
            "sweepName": None,
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _create_run_files(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [{"name": f, "uploadUrl": f"{self.url}/put/run/{given['run']}/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": _id("run", given["run"]), "uploadHeaders": [], "files": files}}

    def _organization_core_weave_organization_id(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"organization": {"coreWeaveOrganizationId": None}}}

    def _xxhash_digests_enabled(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"entity": {"xxhashDigestsEnabled": False}}

    def _fetch_artifact_digest_algorithm(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"project": {"artifactType": {"artifactCollection": None}}}

    def _artifact_type(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["name"].partition(":")[0]
        kinds = [a.kind for a in self.artifacts.values() if a.name == name]
        return {"project": {"artifact": {"artifactType": {"name": kinds[-1]}} if kinds else None}}

    def _create_artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        told = given["input"]
        name = (told.get("artifactCollectionNames") or [told.get("artifactCollectionName")])[0]
        key = f"artifact{len(self.artifacts)}"
        self.artifacts[key] = FakeArtifact(name, told["artifactTypeName"], told["runName"])
        inner = {"id": key, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": inner}}

    def _manifest(self, key: str, upload: bool) -> dict[str, Any]:
        file: dict[str, Any] = {"id": f"file-{key}"}
        if upload:
            file.update(uploadUrl=f"{self.url}/put/manifest/{key}", uploadHeaders=[])
        return {"artifactManifest": {"id": f"manifest-{key}", "file": file}}

    def _create_artifact_manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"createArtifactManifest": self._manifest(given["artifactID"], given["includeUpload"])}

    def _update_artifact_manifest(self, given: dict[str, Any]) -> dict[str, Any]:
        key = given["artifactManifestID"].removeprefix("manifest-")
        return {"updateArtifactManifest": self._manifest(key, given["includeUpload"])}

    def _create_artifact_files(self, given: dict[str, Any]) -> dict[str, Any]:
        edges = []
        for told in given["input"]["artifactFiles"]:
            key, name = told["artifactID"], told["name"]
            node = {
                "storagePath": f"{key}/{name}",
                "uploadUrl": f"{self.url}/put/artifact/{key}/{name}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": key},
            }
            edges.append({"node": node})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit_artifact(self, given: dict[str, Any]) -> dict[str, Any]:
        self.artifacts[given["artifactID"]].committed = True
        return {"commitArtifact": {"artifact": {"id": given["artifactID"], "digest": ""}}}

    def stream(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """A message of the file stream."""
        with self.lock:
            run = self.runs[name]
            for file, chunk in (body.get("files") or {}).items():
                if file == "wandb-history.jsonl":
                    for number, line in enumerate(chunk["content"], chunk["offset"]):
                        if number in run.history:
                            run.overwritten.append(number)
                        run.history[number] = json.loads(line)
                elif file == "wandb-summary.json":
                    run.summary = json.loads(chunk["content"][-1])
            run.preempting |= bool(body.get("preempting"))
            if body.get("complete"):
                run.exits.append(int(body.get("exitcode") or 0))
            return {"limits": {}}

    def put(self, kind: str, rest: str, content: bytes) -> None:
        """An uploaded file."""
        with self.lock:
            owner, _, name = rest.partition("/")
            if kind == "run":
                self.runs[owner].files[name] = content
            elif kind == "manifest":
                self.artifacts[owner].manifest = json.loads(content)
            else:
                self.artifacts[owner].files[name] = content


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients may go at any time
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: FakeService
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def _reply(self, what: str, status: int, data: Any) -> None:
        self.owner.requests.append((what, status))
        content = json.dumps(data).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # who asked did not wait

    def _refused(self, what: str) -> bool:
        service = self.owner
        service.stopping.wait(service.delay)
        status = service.status
        if not status and "/put/" not in self.path:
            given = self.headers.get("Authorization", "")
            if given != "Basic " + base64.b64encode(f"api:{service.key}".encode()).decode():
                status = 401
        if status:
            self._reply(what, status, {"errors": [{"message": f"refused with {status}"}]})
        return bool(status)

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path == "/graphql":
            query = body.get("query", "")
            match = re.search(r"(?:query|mutation)\s+(\w+)", query)
            name = body.get("operationName") or (match[1] if match else query.split()[1] if query else "")
            if not self._refused(name):
                self._reply(name, 200, {"data": self.owner.answer(name, body.get("variables") or {})})
            return
        match = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", self.path)
        if match is None:
            self._reply(f"POST {self.path}", 404, {})
        elif not self._refused("file_stream"):
            self._reply("file_stream", 200, self.owner.stream(match[1], body))

    def do_PUT(self) -> None:
        content = self._body()
        _, _, kind, rest = self.path.split("/", 3)
        if not self._refused("upload"):
            from urllib.parse import unquote

            self.owner.put(kind, unquote(rest), content)
            self._reply("upload", 200, {})

    def do_GET(self) -> None:
        self._reply(f"GET {self.path}", 404, {})


def _id(kind: str, name: str) -> str:
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


@contextmanager
def serving() -> Iterator[FakeService]:
    """A service that answers while the block runs."""
    service = FakeService()
    thread = threading.Thread(target=service.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.stopping.set()
        service.server.shutdown()
        service.server.server_close()
        thread.join()
