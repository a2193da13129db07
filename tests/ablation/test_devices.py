"""Workers pin themselves: who sees which GPU, told by a stub of nvidia-smi and a stub of the command that records what it saw."""

import json
import os
import sys
from pathlib import Path

import pytest

from bipose_lit.ablation.devices import check_names, choose, gpus, share
from bipose_lit.types import BiposeError

RECORDER = """
import argparse, json, os, time
from pathlib import Path
import fake
from bipose_lit.ablation.runner import run_one
from bipose_lit.store import RunSpec
p = argparse.ArgumentParser()
p.add_argument("spec", type=Path)
for name in ("--events", "--parent"):
    p.add_argument(name, type=int, default=0)
p.add_argument("--prepare", action="store_true")
a = p.parse_args()
spec = RunSpec.load(a.spec)
line = {"key": f"{spec.arm}/seed{spec.seed}", "sees": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
line |= {name: os.environ.get(name) for name in ("MASTER_PORT", "WORLD_SIZE", "OMP_NUM_THREADS")}
def note(what):
    with open(os.environ["FAKE_LOG"] + "/seen.log", "a") as handle:
        handle.write(json.dumps({**line, "what": what}) + "\\n")
note("begin")
if not a.prepare:
    time.sleep(0.5)
code = run_one(a.spec, a.events, a.parent, a.prepare, fake.BACKEND)
note("end")
raise SystemExit(code)
"""


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """nvidia-smi tells of so many GPUs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def tell(count: int) -> None:
        (folder / "nvidia-smi").write_text(f"#!/bin/sh\nseq 0 {count - 1}\n")
        (folder / "nvidia-smi").chmod(0o755)

    return tell


def test_what_devices_names(smi, monkeypatch):
    smi(4)
    assert gpus() == choose(None) == choose("auto") == ("0", "1", "2", "3")
    assert choose("cpu") == ()
    assert choose("2") == ("0", "1")
    assert choose("3,1") == ("3", "1")
    assert choose("2,") == ("2",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    assert choose("auto") == ("GPU-a", "GPU-b")
    assert choose("1") == ("GPU-a",)
    assert choose("GPU-b") == ("GPU-b",)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose("auto") == ()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("5", "only 4 GPUs are visible"),
        ("0", "at least one GPU is needed; write cpu"),
        ("0,7", "there is no GPU 7; visible: 0, 1, 2, 3"),
        ("1,1", "GPU 1 is named twice"),
        ("all", "write auto, cpu, a number"),
        ("", "write auto, cpu, a number"),
    ],
)
def test_devices_that_are_not_there(smi, asked, told):
    smi(4)
    with pytest.raises(BiposeError, match=told):
        choose(asked)


def test_shares_do_not_overlap():
    eight = tuple("01234567")
    for each in (1, 2, 3, 4, 8):
        shares = [share(eight, each, slot) for slot in range(8 // each)]
        flat = [device for one in shares for device in one]
        assert len(flat) == len(set(flat)) == each * len(shares)
    assert share(eight, 3, 2) == share(eight, 3, 0)


def seen(site) -> list[dict]:
    return [json.loads(line) for line in (site.folder / "seen.log").read_text().splitlines()]


def run(site, trainer: str, environ: dict, seeds: int = 2, **arguments):
    (site.folder / "one.py").write_text(RECORDER)
    site.write(
        site.text.replace("base: base.yaml", "base: base.yaml\nmode: full").replace("seeds: 2", f"seeds: {seeds}")
    )
    base = (site.folder / "base.yaml").read_text()
    (site.folder / "base.yaml").write_text(base.replace("max_steps: 10", f"max_steps: 10, {trainer}"))
    environ = {"FAKE_COMMAND": json.dumps([sys.executable, str(site.folder / "one.py")]), **environ}
    process = site.start(environ={**environ, "MASTER_PORT": "29500", "WORLD_SIZE": "2"}, workers=None, **arguments)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return seen(site)


def overlapping(lines: list[dict]) -> int:
    """The most runs at the same moment; meanwhile no two of them see one GPU."""
    running: dict[str, set[str]] = {}
    most = 0
    for line in lines:
        if line["what"] == "end":
            running.pop(line["key"])
            continue
        mine = set(line["sees"].split(","))
        assert all(mine.isdisjoint(other) for other in running.values()), (line, running)
        running[line["key"]] = mine
        most = max(most, len(running))
    return most


def test_one_gpu_a_run(site):
    """Six runs on four GPUs: as many workers as GPUs, each with its own."""
    lines = run(site, "accelerator: gpu, devices: 1", {"CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert len(lines) == 12
    assert {line["sees"] for line in lines} == {"0", "1", "2", "3"}
    assert overlapping(lines) >= 2
    assert all(line["MASTER_PORT"] is None and line["WORLD_SIZE"] is None for line in lines), (
        "runs would meet at one port"
    )


def test_two_gpus_a_run_of_those_that_were_named(site):
    lines = run(
        site,
        "accelerator: auto, devices: 2",
        {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"},
        devices="1,2,5,6",
        seeds=4,
        arms=["none"],
    )
    assert {line["sees"] for line in lines} == {"1,2", "5,6"}
    assert overlapping(lines) <= 2


def test_runs_of_different_sizes_do_not_meet(site):
    """Two GPUs a slot, since one arm takes two: the other arm leaves one idle rather than taking its neighbour's."""
    text, environ = site.text, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    site.text = text.replace("lstm: {model", "lstm: {trainer: {devices: 2}, model", 1)
    lines = run(site, "accelerator: gpu, devices: 1", environ, arms=["none", "lstm"])
    assert {line["sees"] for line in lines if line["key"].startswith("lstm")} <= {"0,1", "2,3"}
    assert {line["sees"] for line in lines if line["key"].startswith("none")} <= {"0", "2"}
    overlapping(lines)


def test_cpu_though_there_are_gpus(site):
    """Runs that leave it to Lightning would take a GPU each: they are kept from seeing any."""
    (site.folder / "one.py").write_text(RECORDER)
    done = site.run(devices="cpu", environ={"CUDA_VISIBLE_DEVICES": "0,1"}, arms=["none"])
    assert done.returncode == 0, done.stderr
    assert not (site.folder / "seen.log").exists(), "a run on the processor needs no fresh command"
    assert all(r["facts"]["threads"] == "1" and r["facts"]["sees"] == "" for r in site.results().values())


def test_side_by_side_runs_of_two_processes_find_ports_of_their_own(monkeypatch):
    """Lightning's own choice, given an environment without a launcher's words."""
    from lightning.fabric.plugins.environments import LightningEnvironment

    for name in ("MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    ports = set()
    for _ in range(3):
        one = LightningEnvironment()
        ports.add(one.main_port)
        monkeypatch.delenv("MASTER_PORT", raising=False)
    assert len(ports) == 3
    assert all(1024 < port < 65536 for port in ports)


def test_mistaken_devices_are_one_line(site):
    done = site.run(devices="0,9", environ={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "bipose: error: --devices 0,9: there is no GPU 9; visible: 0, 1"
    assert not Path(site.folder / "runs").exists()


@pytest.mark.parametrize("devices", [[1], ["1"], [2, 3], "2,3"])
def test_gpus_by_number_are_the_workers_to_give(devices):
    with pytest.raises(BiposeError, match=r"workers share them out: write how many a run takes \(\d\), and --devices"):
        check_names([{}, {"trainer": {"devices": devices}}])
    check_names([{"trainer": {"devices": devices, "accelerator": "cpu"}}])
    check_names([{"trainer": {"devices": devices}}], "cpu")


@pytest.mark.parametrize("devices", [None, 2, "auto", [0], [0, 1], "0,1", -1, [-1]])
def test_how_many_gpus_or_the_first_of_them(devices):
    check_names([{"trainer": {"devices": devices}}])
