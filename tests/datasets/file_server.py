"""A server of files in this process, for the tests of downloads; the fixture `server` of conftest runs it."""

import http.server
import threading
from contextlib import contextmanager
from types import SimpleNamespace


@contextmanager
def serve(content):
    """A server whose behaviour a test sets.

    content: bytes by path; drop: bytes before it hangs up, request by request; ranges: it knows them; status: by path;
    etag, kind: headers; sized: says the length where nothing is left to send; length: says it at all; encoding: a header;
    asked: (path, range) of the requests for bodies.
    """
    state = SimpleNamespace(
        content=dict(content), drop=[], ranges=True, status={}, asked=[], etag='"v1"', kind="application/zip", sized=False,
        length=True, encoding="",
    )  # fmt: skip

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
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data) if state.length else '*'}")
            if state.length:
                self.send_header("Content-Length", str(len(data) - start))
            if state.encoding:
                self.send_header("Content-Encoding", state.encoding)
            self.send_header("Content-Type", state.kind)
            self.send_header("ETag", state.etag)
            self.end_headers()
            if body:
                end = start + state.drop.pop(0) if state.drop else len(data)
                self.wfile.write(data[start:end])

        def log_message(self, *args):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{made.server_port}"
    try:
        yield state
    finally:
        made.shutdown()
        made.server_close()
