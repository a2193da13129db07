"""The front of `bipose evaluate`: what it refuses, what it prints and writes, and what it never imports."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from mpii_sets import persons, write_json

from bipose_lit.__main__ import main
from bipose_lit.evaluate.command import evaluate
from bipose_lit.evaluate.outcome import Outcome
from bipose_lit.evaluate.protocols import PROTOCOLS
from bipose_lit.types import BiposeError


@pytest.fixture
def files(tmp_path):
    people = persons(4)
    write_json(tmp_path / "valid.json", people, [f"{i:09d}.jpg" for i in range(4)])
    np.save(tmp_path / "preds.npy", people["joints"])
    return tmp_path / "gt_valid.mat", tmp_path / "preds.npy"


def test_mistakes_are_named_before_anything_is_read(files, tmp_path):
    with pytest.raises(BiposeError, match=r"protocol 'mpi' is none of coco, .*; did you mean mpii\?"):
        evaluate("mpi", *files)
    with pytest.raises(BiposeError, match="--min-score is not an option of protocol mpii; it belongs to coco"):
        evaluate("mpii", *files, min_score=0.3)
    with pytest.raises(BiposeError, match=r"--predictions .*gone\.npy: no such file or folder; mpii takes h5, mat"):
        evaluate("mpii", files[0], tmp_path / "gone.npy")
    with pytest.raises(BiposeError, match=r"--json .*: is a folder; name a file"):
        evaluate("mpii", *files, json=tmp_path)


def test_options_that_are_not_given_are_not_handed_on(files):
    assert evaluate("mpii", *files, engine=None, split=None).metrics["pckh@0.5"] == 1


def test_numbers_are_shown_even_where_they_cannot_be_written(files, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = ["evaluate", "mpii", "--annotations", str(files[0]), "--predictions", str(files[1])]
    assert main([*line, "--json", str(tmp_path / "file" / "out.json")]) == 1
    told = capsys.readouterr()
    assert "100.000%" in told.out
    assert len(told.err.strip().splitlines()) == 1


def test_json_holds_what_was_scored(tmp_path):
    Outcome("x", {"persons": 2}, {"a": 0.5, "b": float("nan")}, ("n",), {"split": "test"}).save(tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text()) == {
        "protocol": "x", "about": {"split": "test"}, "counts": {"persons": 2}, "metrics": {"a": 0.5, "b": None},
        "notes": ["n"],
    }  # fmt: skip


def test_every_protocol_has_its_module():
    for protocol in PROTOCOLS.values():
        assert callable(importlib.import_module(protocol.module).evaluate)


def test_torch_is_never_imported():
    modules = sorted({p.module for p in PROTOCOLS.values()})
    names = ", ".join([*modules, "bipose_lit.evaluate.command"])
    code = f"import sys, {names}; print(sorted({{'torch', 'lightning'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
