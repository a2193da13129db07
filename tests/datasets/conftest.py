"""What tests of data sets share."""

import pytest
from file_server import serve

from bipose_lit.datasets import transfer


@pytest.fixture
def server(monkeypatch):
    """A server of files in this process (see `file_server`), asked again without waiting."""
    monkeypatch.setattr(transfer, "WAIT", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serve({}) as state:
        yield state
