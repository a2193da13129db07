"""What the tests of published weights share."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import write_jhmdb

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from good import make_coco, make_mpii

from bipose_lit.cli import build, resolve
from bipose_lit.module import PoseModule


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def save(tmp_path):
    def write(state, name="reference.pth", zipped=True) -> Path:
        path = tmp_path / name
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        return path

    return write


@pytest.fixture(scope="session")
def roots(tmp_path_factory) -> Mapping[str, Path]:
    """Tiny sets in the official layouts, by reader."""
    folder = tmp_path_factory.mktemp("sets")
    for name, make in (("COCO", make_coco), ("MPII", make_mpii)):
        (folder / name).mkdir()
        make(folder / name)
    return {"JHMDB": write_jhmdb(folder / "jhmdb"), "COCO": folder / "COCO", "MPII": folder / "MPII"}


@pytest.fixture
def make_module(roots) -> Callable[..., PoseModule]:
    """The module of configuration files, with its starting weights; the data's folder alone is another one."""

    def make(files: Sequence[Path], options: Mapping[str, Any] | None = None) -> PoseModule:
        reader = resolve(files)["data"]["reader"]["class_path"].rpartition(".")[2]
        module, data, _ = build(resolve(files, {**(options or {}), "data.reader.init_args.root": str(roots[reader])}))
        assert data.size == module.size == module.network.size
        module.start_from_weights()
        return module

    return make
