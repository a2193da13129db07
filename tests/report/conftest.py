"""One simulated result tree for all report tests."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bipose_lit.datasets.index import Track

sys.path.insert(0, str(Path(__file__).parent))

import fake


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Track]]:
    """OUT/NAME of a finished ablation and its clips; read only."""
    return fake.write_tree(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Mapping[str, Track]]:
    """A small tree of its own for each test, to be spoilt."""
    return fake.write_tree(tmp_path, seeds=3, clusters=6, frames=12, arms=("none_matched", "lstm", "bilstm"))
