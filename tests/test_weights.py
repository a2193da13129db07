"""Weights of parts: what goes in comes out; anything that does not fit is named."""

import json

import pytest
import torch
from torch import nn

from bipose_lit.store import CONFIG, WEIGHTS, RunResult
from bipose_lit.types import BiposeError
from bipose_lit.weights import export, fingerprint, load_parts, read, save_parts


def make(width: int = 4) -> nn.Module:
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width))
    net.decoder = nn.Conv2d(width, 2, 1)
    net.temporal = nn.Linear(2, 2)
    return net


def test_round_trip_leaves_other_parts_alone(tmp_path) -> None:
    source, target = make(), make()
    head = target.temporal.weight.clone()
    save_parts(source, tmp_path / "w.safetensors")
    load_parts(target, tmp_path / "w.safetensors")
    torch.testing.assert_close(target.backbone.state_dict(), source.backbone.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(target.decoder.weight, source.decoder.weight, rtol=0, atol=0)
    assert torch.equal(target.temporal.weight, head)


def test_half_precision_file_loads_into_single(tmp_path) -> None:
    source, target = make(), make()
    save_parts(source, tmp_path / "w.safetensors", dtype=torch.float16)
    load_parts(target, tmp_path / "w.safetensors")
    assert target.decoder.weight.dtype == torch.float32
    torch.testing.assert_close(target.decoder.weight, source.decoder.weight, rtol=1e-3, atol=1e-3)
    assert target.backbone[1].num_batches_tracked.dtype == torch.int64


def test_misfits_are_named(tmp_path) -> None:
    save_parts(make(4), tmp_path / "w.safetensors")
    with pytest.raises(BiposeError, match=r"backbone\.0\.weight"):
        load_parts(make(5), tmp_path / "w.safetensors")
    with pytest.raises(BiposeError, match="temporal"):
        load_parts(make(4), tmp_path / "w.safetensors", ["temporal"])


def test_layers_of_a_part_load_without_its_last_one(tmp_path) -> None:
    """As from a network with other joints."""
    source, target = make(4), make(4)
    source.decoder = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 7, 1))
    target.decoder = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1))
    last = target.decoder[1].weight.clone()
    save_parts(source, tmp_path / "w.safetensors")
    load_parts(target, tmp_path / "w.safetensors", ["backbone", "decoder.0"])
    torch.testing.assert_close(target.backbone.state_dict(), source.backbone.state_dict(), rtol=0, atol=0)
    assert torch.equal(target.decoder[0].weight, source.decoder[0].weight)
    assert torch.equal(target.decoder[1].weight, last)
    with pytest.raises(BiposeError, match=r"decoder\.1\.weight"):
        load_parts(target, tmp_path / "w.safetensors", ["decoder"])
    with pytest.raises(BiposeError, match=r"decoder has no layers 'layers'; it has 0, 1"):
        load_parts(target, tmp_path / "w.safetensors", ["backbone", "decoder.layers"])
    target.decoder = nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1)))
    with pytest.raises(BiposeError, match=r"decoder\.0 has no layers 'layers'; it has 0$"):
        load_parts(target, tmp_path / "w.safetensors", ["backbone", "decoder.0.layers"])


def test_missing_and_damaged_files(tmp_path) -> None:
    with pytest.raises(BiposeError, match="not found"):
        load_parts(make(), tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(BiposeError, match="cannot be read"):
        load_parts(make(), tmp_path / "bad.safetensors")


def test_fingerprint_sees_every_bit() -> None:
    net = make()
    before = fingerprint(net)
    assert fingerprint(net) == before
    with torch.no_grad():
        net.decoder.bias[0] += 1e-7
    assert fingerprint(net) != before


def finished_run(folder) -> None:
    folder.mkdir(parents=True)
    save_parts(make(), folder / WEIGHTS, ["backbone", "decoder", "temporal"])
    (folder / CONFIG).write_text("model: {joints: 2}\n")
    metrics = {"test/pck@0.2[clip,clip-box]/visible": 0.5, "val/loss": 1.0}
    RunResult("stage1", "a", 0, "finished", metrics=metrics, commit="abc").save(folder)


def test_export_halves_the_file_and_tells_what_made_it(tmp_path) -> None:
    finished_run(tmp_path / "run")
    line = export(tmp_path / "run", tmp_path / "out" / "w.safetensors")
    assert "w.safetensors" in line
    about = json.loads((tmp_path / "out" / "w.json").read_text())
    assert about["made_by"] == {"name": "stage1", "arm": "a", "seed": 0, "commit": "abc"}
    assert about["metrics"] == {"test/pck@0.2[clip,clip-box]/visible": 0.5}
    assert about["config"] == {"model": {"joints": 2}}
    target = make()
    load_parts(target, tmp_path / "out" / "w.safetensors")
    written = read(tmp_path / "out" / "w.safetensors")
    assert {k.split(".")[0] for k in written} == {"backbone", "decoder"}
    assert written["decoder.weight"].dtype == torch.float16
    again = export(tmp_path / "run", tmp_path / "again" / "w.safetensors")
    assert again.split(":")[1] == line.split(":")[1]
    assert json.loads((tmp_path / "again" / "w.json").read_text())["sha256"] == about["sha256"]


def test_export_refuses_what_is_no_finished_run_or_lacks_a_part(tmp_path) -> None:
    with pytest.raises(BiposeError, match="no finished run"):
        export(tmp_path, tmp_path / "w.safetensors")
    finished_run(tmp_path / "run")
    with pytest.raises(BiposeError, match="has no pool"):
        export(tmp_path / "run", tmp_path / "w.safetensors", ["pool"])
