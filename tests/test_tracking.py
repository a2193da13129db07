"""W&B offline, read back with its own tool: one run stays one run, and what is in result.json is in W&B."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bipose_lit import tracking
from bipose_lit.store import Predictions, RunResult, RunSpec, run_folder
from bipose_lit.types import NORMS, BiposeError

WANDB = Path(sys.executable).with_name("wandb")
METRIC = "test/pck@0.1[clip,clip-box]"


def make_run(out: Path, seed: int = 0, steps: int = 5) -> Path:
    folder = run_folder(out, "question", "bilstm", seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("model:\n  hidden: 7\n")
    with (folder / "history.jsonl").open("w") as handle:
        for i in range(steps):
            row = {"step": 10 * i, "epoch": i, "train/loss": 1 / (i + 1), "val/pck@0.1[clip,clip-box]": 0.1 * i}
            handle.write(json.dumps(row) + "\n")
    n = 6
    Predictions(
        uid=np.arange(n), clip=np.zeros(n, np.int64), frame=np.arange(n), pred=np.ones((n, 2, 2), np.float32),
        score=np.ones((n, 2), np.float32), joints=np.zeros((n, 2, 2), np.float32),
        visible=np.array([[2, 1]] * n, np.uint8), norms=np.full((n, len(NORMS)), 10, np.float32),
        fps=np.full(n, 25, np.float32), clips=("a",), clusters=("a",), joint_names=("left_wrist", "right_wrist"),
        data="synthetic/test[clip-box]",
    ).save(folder / "predictions-test.npz")  # fmt: skip
    RunResult(
        "question", "bilstm", seed, "finished", metrics={METRIC: 0.75}, measured={"train_seconds": 3.0},
        facts={"parameters": 12}, config_hash="abc", predictions={"test": "predictions-test.npz"},
    ).save(folder)  # fmt: skip
    return folder


def inspect(path: Path, *options: str) -> str:
    (file,) = path.glob("*.wandb")
    return subprocess.run([WANDB, "leet", "inspect", *options, file], capture_output=True, text=True, check=True).stdout


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in inspect(path, "--json").splitlines()]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_mirror_is_read_back(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    overlay = np.zeros((20, 30, 3), np.uint8)
    path = tracking.mirror(folder, tags=["trial"], images={"clip 1": overlay}, predictions=True)
    assert path is not None
    assert path.parent == folder / "wandb"
    found = records(path)
    run = next(r["run"] for r in found if r["type"] == "run")
    assert (run["run_group"], run["job_type"], run["display_name"]) == ("question", "bilstm", "bilstm/seed0")
    assert run["tags"] == ["trial"]
    assert run["config"]["update"]["model"]["hidden"] == 7
    rows = [r["history"] for r in found if r["type"] == "history"]
    assert [r["step"]["num"] for r in rows] == [0, 10, 20, 30, 40, 41]
    assert rows[3]["item"]["val/pck_0_1_clip_clip_box"] == pytest.approx(0.3)
    assert rows[-1]["item"]["test/joints._type"] == "table-file"
    assert rows[-1]["item"]["overlays/clip 1._type"] == "image-file"
    summary = json.loads(inspect(path, "--summary", "--json"))["summary"]
    assert summary["test/pck_0_1_clip_clip_box"] == 0.75
    assert summary["measured/train_seconds"] == 3.0
    text = inspect(path, "--summary")
    assert "facts.parameters" in text
    assert METRIC in text
    (table,) = path.rglob("joints_*.table.json")
    data = json.loads(table.read_text())
    assert data["columns"] == ["joint", "labelled", "error_px", "visible_px", "occluded_px"]
    assert data["data"][1] == ["right_wrist", 6, pytest.approx(2**0.5), None, pytest.approx(2**0.5)]
    staged = [a["artifact"]["manifest"]["contents"][0] for a in found if a["type"] == "artifact"]
    assert {s["path"] for s in staged} == {
        "test/joints.table.json",
        "test/clusters.table.json",
        "predictions-test.npz",
    }
    assert all(Path(s["local_path"]).is_relative_to(folder) for s in staged)
    assert not (path / "files" / "output.log").exists()


def test_a_second_mirror_does_nothing_and_a_resumed_run_stays_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    first = tracking.mirror(folder)
    before = sorted(p for p in folder.rglob("*"))
    assert tracking.mirror(folder) == first
    assert sorted(p for p in folder.rglob("*")) == before
    time.sleep(1.1)  # W&B names its folders by the second
    make_run(tmp_path, steps=8)
    second = tracking.mirror(folder)
    assert first is not None
    assert second is not None
    assert second != first
    assert first.name.rsplit("-", 1)[1] == second.name.rsplit("-", 1)[1]
    assert [p.name for p in (folder / "wandb").glob("offline-run-*")] == [second.name]
    assert len([r for r in records(second) if r["type"] == "history"]) == 9


def test_a_synced_copy_is_kept(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    first = tracking.mirror(folder)
    assert first is not None
    (file,) = first.glob("*.wandb")
    file.with_name(file.name + ".synced").touch()
    make_run(tmp_path, steps=6)
    time.sleep(1.1)
    tracking.mirror(folder)
    assert first.is_dir()


def test_run_ids_tell_runs_apart(tmp_path: Path) -> None:
    def run_id(**change) -> str:
        spec = {"name": "n", "arm": "a", "seed": 0, "folder": tmp_path, "config": {"x": 1}, **change}
        return tracking.run_id(RunSpec(**spec))

    changes = [{}, {"name": "m"}, {"arm": "b"}, {"seed": 1}, {"config": {"x": 2}}, {"config_hash": "abc"}]
    assert len({run_id(**c) for c in changes}) == len(changes)
    assert run_id() == run_id(folder=tmp_path / "elsewhere")


def test_all_runs_in_one_process(tmp_path: Path) -> None:
    for seed in range(2):
        make_run(tmp_path, seed)
    paths = tracking.mirror_all(tmp_path)
    assert [p.parent.parent.name for p in paths] == ["seed0", "seed1"]


def test_modes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    for value, expected in (
        ("offline", "offline"),
        ("dryrun", "offline"),
        ("disabled", "disabled"),
        ("online", "online"),
    ):
        monkeypatch.setenv("WANDB_MODE", value)
        assert tracking.resolve_mode() == expected
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    assert tracking.resolve_mode() == "offline"
    for host in ("api.wandb.ai", "api.forge.coreweave.com"):
        (tmp_path / "netrc").write_text(f"machine {host} login user password secret\n")
        assert tracking.resolve_mode() == "online"
    (tmp_path / "settings").write_text("[default]\nbase_url = http://wandb.example.org:8080\n")
    assert tracking.resolve_mode() == "offline"
    (tmp_path / "netrc").write_text("machine wandb.example.org:8080 login user password secret\n")
    assert tracking.resolve_mode() == "online"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert tracking.resolve_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert tracking.resolve_mode() == "online"
    with pytest.raises(BiposeError, match="onlin"):
        tracking.resolve_mode("onlin")


def test_who_logs_in_by_wandbs_own_command_is_online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    assert tracking.resolve_mode() == "offline"
    subprocess.run([WANDB, "login", "--no-verify", "0123456789" * 4], check=True, capture_output=True, text=True)
    assert tracking.resolve_mode() == "online"


def test_nothing_to_mirror(tmp_path: Path) -> None:
    with pytest.raises(BiposeError, match=r"no result\.json"):
        tracking.mirror(tmp_path)
    assert tracking.mirror(make_run(tmp_path), mode="disabled") is None


def test_history_survives_a_kill_and_a_resume(tmp_path: Path) -> None:
    lines = [
        '{"step": 0, "a": 1}',
        '{"step": 10, "a": 2}',
        '{"step": 20, "a": 3}',
        '{"step": 10, "a": 5, "b": 1}',
        '{"st',
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(lines))
    assert [(r["step"], r["a"]) for r in tracking.history(tmp_path)] == [(0, 1), (10, 5), (20, 3)]
    (tmp_path / "history.jsonl").write_text('{"st\n{"step": 1}\n')
    with pytest.raises(BiposeError, match=r"history\.jsonl:1"):
        tracking.history(tmp_path)


def test_aliases_keep_the_section() -> None:
    assert tracking.alias("test/pck@0.1[clip,clip-box]/left_wrist") == "test/pck_0_1_clip_clip_box_left_wrist"
    assert tracking.alias("epoch") == "epoch"


def test_live_logger(tmp_path: Path) -> None:
    spec = RunSpec("question", "lstm", 3, tmp_path / "run", {"hidden": 7}, tags=("trial",))
    logger = tracking.make_logger(spec)
    logger.log_metrics({"train/loss": 0.5}, step=4)
    path = Path(logger.experiment.settings.sync_dir)
    logger.experiment.finish()
    assert path.parent == tmp_path / "run" / "wandb"
    run = next(r["run"] for r in records(path) if r["type"] == "run")
    assert (run["run_id"], run["job_type"], run["run_group"]) == (tracking.run_id(spec), "lstm", "question")


def test_logger_of_the_overlay(tmp_path: Path) -> None:
    first = tracking.wandb_logger(str(tmp_path), "a", tags=["x"])
    assert first.version == tracking.wandb_logger(str(tmp_path), "a").version
    assert first.version != tracking.wandb_logger(str(tmp_path), "b").version
    with pytest.raises(BiposeError, match="wandb login"):
        tracking.wandb_logger(str(tmp_path), log_model=True)


def test_a_folder_made_anew_under_an_old_name_is_another_run(tmp_path: Path) -> None:
    """Else a fit in a deleted folder, or in one of the same name on another machine, would go on with somebody's run."""
    names = []
    for _ in range(2):
        first = tracking.wandb_logger(str(tmp_path / "fit"))
        first.log_metrics({"train/loss": 0.5}, step=4)
        first.experiment.finish()
        assert tracking.wandb_logger(str(tmp_path / "fit")).version == first.version
        names.append(first.version)
        shutil.rmtree(tmp_path / "fit")
    assert names[0] != names[1]
    assert not (Path(tracking.wandb_logger(str(tmp_path / "off"), mode="disabled").save_dir) / "wandb").exists()


def test_importing_it_imports_neither_wandb_nor_lightning() -> None:
    code = "import sys, bipose_lit.tracking; print(sorted({'wandb', 'lightning', 'torch'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
