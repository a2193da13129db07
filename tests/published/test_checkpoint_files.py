"""Reading checkpoints: what they pickle is never run, and whatever is no checkpoint ends in one line."""

import os
import pickle
import random
import sys
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from bipose_lit.published.checkpoint import read_checkpoint
from bipose_lit.types import BiposeError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Attack:
    """Unpickled by pickle itself, it would make a file."""

    def __init__(self, kind, path):
        self.kind, self.path = kind, str(path)

    def __reduce__(self):
        if self.kind == "system":
            return os.system, (f"touch {self.path}",)
        if self.kind == "eval":
            return eval, (f"open({self.path!r}, 'w').close()",)
        if self.kind == "open":
            return open, (self.path, "w")
        return getattr, (os, "system")


KINDS = ("system", "eval", "open")


def stored(content, path, how):
    if how == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_is_not_run(tmp_path, kind, how):
    mark = tmp_path / "ran"
    path = stored({"state_dict": STATE, "meta": Attack(kind, mark)}, tmp_path / "bad.pth", how)
    with pytest.raises(BiposeError) as error:
        read_checkpoint(path)
    if how != "pickle":
        assert "refused, and nothing of it was run" in str(error.value)
        assert {"system": "system", "eval": "eval", "open": "open"}[kind] in str(error.value)
    assert not mark.exists()


def test_the_attack_would_work(tmp_path):
    """Else the test above shows nothing."""
    for kind in KINDS:
        mark = tmp_path / kind
        pickle.loads(pickle.dumps(Attack(kind, mark)))
        assert mark.exists()


def test_the_environment_does_not_open_the_door(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "ran"
    path = stored({"state_dict": STATE, "meta": Attack("eval", mark)}, tmp_path / "bad.pth", "zip")
    with pytest.raises(BiposeError, match="refused"):
        read_checkpoint(path)
    assert not mark.exists()


def test_what_stands_for_nothing_cannot_be_used_to_reach_further(tmp_path):
    """`getattr` is among the harmless names: it gives nothing that could be called."""
    path = tmp_path / "bad.pth"
    calls = b"\x80\x02cbuiltins\ngetattr\ncnumpy\nndarray\nX\x06\x00\x00\x00systemq\x00\x86RX\x04\x00\x00\x00echoq\x01\x85R."
    torch.save(STATE, path)
    with zipfile.ZipFile(path) as old:
        content = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w") as new:
        for name, data in content.items():
            new.writestr(name, calls if name.endswith("data.pkl") else data)
    with pytest.raises(BiposeError, match="unrecognized function"):
        read_checkpoint(path)


def history_buffer(monkeypatch):
    """Mmengine's class as it pickles: its state names its own methods by way of getattr."""
    module = types.ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self):
            self.log = np.arange(3.0)
            self.methods = {"min": HistoryBuffer.least}

        @classmethod
        def least(cls):
            raise AssertionError("was run")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return HistoryBuffer()


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_numbers_and_logs_beside_the_weights_are_read_over(tmp_path, monkeypatch, how):
    meta = {"sigmas": np.full(17, 0.05), "colours": np.zeros((3, 3), np.uint8), "best": np.float32(0.7), "text": "x"}
    content = {"meta": meta, "state_dict": STATE, "message_hub": {"log": {"loss": history_buffer(monkeypatch)}}}
    path = stored(content, tmp_path / "train.pth", how)
    monkeypatch.undo()
    assert "mmengine" not in sys.modules
    before = torch.serialization.get_safe_globals()
    found = read_checkpoint(path)
    assert all(torch.equal(found.tensors[k], v) for k, v in STATE.items())
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ([1, 2], "holds a list, not named tensors"),
        ({"epoch": 3, "lr": 0.1}, "'epoch' in it is no tensor"),
        ({"state_dict": {}}, "it is empty"),
        ({"state_dict": {"a": torch.ones(1), "b": "text"}}, "'b' in it is no tensor"),
        ({"a": torch.ones(3).to_sparse()}, "sparse or quantised"),
        (torch.ones(3), "holds a Tensor"),
        (torch.nn.Linear(2, 2), "asks for torch.nn.modules.linear.Linear"),
    ],
)
def test_what_holds_no_plain_weights(tmp_path, content, told):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(BiposeError) as error:
        read_checkpoint(tmp_path / "x.pth")
    assert told in str(error.value)


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_what_is_no_file_of_weights(tmp_path):
    for name, data in (
        ("empty", b""),
        ("text", b"no weights\n" * 50),
        ("html", b"<html>404</html>"),
        ("zip", b"PK\x03\x04"),
    ):
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with pytest.raises(BiposeError, match="no checkpoint that can be read"):
            read_checkpoint(path)
    with pytest.raises(BiposeError, match="not found"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(BiposeError, match="is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"damaged")
    with pytest.raises(BiposeError, match="cannot be read"):
        read_checkpoint(tmp_path / "bad.safetensors")
    script = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(script, str(tmp_path / "script.pt"))
    with pytest.raises(BiposeError, match="no checkpoint that can be read"):
        read_checkpoint(tmp_path / "script.pt")


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_damaged_files_end_in_one_line_or_are_whole(tmp_path, how):
    """Bytes changed, cut and doubled at random: an error of ours or tensors, nothing else."""
    whole = stored({"state_dict": STATE, "meta": {"epoch": 3}}, tmp_path / "whole.pth", how).read_bytes()
    draw, lines = random.Random(0), []
    for number in range(150):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: draw.randrange(len(data))]
        elif number % 3 == 1:
            for _ in range(draw.randrange(1, 6)):
                data[draw.randrange(min(len(data), 600))] = draw.randrange(256)
        else:
            at = draw.randrange(len(data))
            data[at:at] = data[at : at + draw.randrange(1, 40)]
        path = tmp_path / "damaged.pth"
        path.write_bytes(bytes(data))
        try:
            found = read_checkpoint(path)
        except BiposeError as error:
            lines.append(str(error))
        else:
            assert all(isinstance(v, torch.Tensor) for v in found.tensors.values())
    assert len(lines) > 50
    assert not [line for line in lines if "\n" in line]


def test_safetensors(tmp_path):
    save_file({f"module.{k}": v for k, v in STATE.items()}, str(tmp_path / "x.safetensors"))
    found = read_checkpoint(tmp_path / "x.safetensors")
    assert all(torch.equal(found.tensors[k], v) for k, v in STATE.items())


def test_a_prefix_of_some_names_alone_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.pth")
    assert set(read_checkpoint(tmp_path / "x.pth").tensors) == {"module.a", "b"}
