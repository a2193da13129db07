"""Checkpoint files: whole or not there, whatever happens while they are written; the last good one is found."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from small_fit import Line, Saves, fit

from bipose_lit.callbacks.checkpoint_io import (
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    _Recorder,
    clean,
    is_whole,
    keep_previous,
    newest,
    read,
    set_aside,
    with_checkpoint_io,
    write,
)
from bipose_lit.callbacks.checkpoints import KEY, find
from bipose_lit.types import BiposeError


def content(step: int, size: int = 1000) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"w": torch.full((size,), float(step))}, KEY: {"tag": "t", "step": step}}


def step_of(path: Path) -> int:
    return int(read(path)["global_step"])


# --- whole files -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_what_was_saved_and_nothing_else_is_left(tmp_path):
    AtomicCheckpointIO().save_checkpoint(content(3), tmp_path / "new" / LAST)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [LAST]
    assert (tmp_path / "new" / LAST).stat().st_mode & 0o777 == 0o644
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / "new" / LAST, weights_only=True)
    assert loaded["global_step"] == 3
    assert torch.equal(loaded["state_dict"]["w"], content(3)["state_dict"]["w"])


def test_damage_anywhere_is_seen(tmp_path):
    """Cut off at any place, or one bit wrong in any record: not whole, never an error."""
    path = tmp_path / LAST
    write(content(1, 5000), path)
    assert is_whole(path)
    good = path.read_bytes()
    for cut in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:cut])
        assert not is_whole(path), cut
    at = good.index(torch.full((8,), 1.0).numpy().tobytes())
    for place in (at, at + 10_000):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        assert not is_whole(path), place
    assert not is_whole(tmp_path / "none")
    assert not is_whole(tmp_path)


def test_the_newest_whole_one_is_found(tmp_path, caplog):
    assert newest(tmp_path) is None
    last, previous = tmp_path / LAST, tmp_path / PREVIOUS
    write(content(1), last)
    keep_previous(last)
    write(content(2), last)
    assert (step_of(newest(tmp_path)), step_of(previous)) == (2, 1)
    last.write_bytes(last.read_bytes()[:-200])
    assert newest(tmp_path) == previous
    assert f"{last} is damaged and is not used" in caplog.text
    previous.write_bytes(b"")
    assert newest(tmp_path) is None


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(tmp_path):
    folder = tmp_path / "checkpoints"
    write(content(4), folder / LAST)
    assert find(tmp_path, "t") == folder / LAST
    assert find(tmp_path, "u") is None
    keep_previous(folder / LAST)
    write({**content(5), KEY: {"tag": "u"}}, folder / LAST)
    assert find(tmp_path, "t") == folder / PREVIOUS
    write({"global_step": 1}, folder / LAST)  # somebody else's file
    assert find(tmp_path, "t") == folder / PREVIOUS
    assert find(tmp_path / "nowhere", "t") is None


def test_an_earlier_training_is_not_lost(tmp_path):
    assert set_aside(tmp_path / LAST) is None
    for step in (1, 2):
        write(content(step), tmp_path / LAST)
        aside = set_aside(tmp_path / LAST)
        assert aside is not None
        assert step_of(aside) == step
    assert sorted(p.name for p in tmp_path.iterdir()) == ["replaced-1.ckpt", "replaced-2.ckpt"]


def test_plugins_keep_a_way_of_writing_of_their_own():
    own = TorchCheckpointIO()
    assert with_checkpoint_io([own]) == [own]
    assert with_checkpoint_io(own) == [own]
    (added,) = with_checkpoint_io(None)
    assert isinstance(added, AtomicCheckpointIO)


# --- a full disk -----------------------------------------------------------------------------------------------------


def mounted(folder: Path, megabytes: int) -> bool:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True
    )
    return done.returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        if not mounted(folder, 4):
            pytest.skip("no right to mount a small file system")
    except OSError:
        pytest.skip("there is no mount command")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_the_last_good_one(small_disk):
    path = small_disk / LAST
    write(content(1, 300_000), path)
    keep_previous(path)
    with pytest.raises(BiposeError) as caught:
        write(content(2, 900_000), path)
    line = str(caught.value)
    assert line.startswith(f"the checkpoint of step 2 could not be written to {path}: the disk is full (")
    assert "\n" not in line
    assert "the last whole one stays" in line
    assert line.endswith("free some space, then start again with ckpt_path=last")
    assert step_of(newest(small_disk)) == 1
    assert sorted(p.name for p in small_disk.iterdir()) == [LAST, PREVIOUS]
    write(content(3, 300_000), path)  # there was room again
    assert step_of(path) == 3


@pytest.mark.filterwarnings("ignore")
def test_a_full_disk_ends_the_training_in_one_line(small_disk):
    keeper = Saves(every_n_steps=5)

    class Growing(Line):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["more"] = torch.zeros(100_000 * self.global_step)

    with pytest.raises(BiposeError, match=r"^the checkpoint of step 10 could not be written to .*: the disk is full"):
        fit(small_disk, keeper, Growing())
    assert keeper.steps == [5]
    assert step_of(newest(small_disk / "checkpoints")) == 5


def forked(work: Callable[[], None]) -> int:
    """A process of its own that does some work; its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def test_a_limit_on_files_leaves_the_last_good_one(tmp_path):
    path, told = tmp_path / LAST, tmp_path / "told"
    write(content(1), path)

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            write(content(2, 1_000_000), path)
        except BiposeError as error:
            told.write_text(str(error))

    assert os.waitpid(forked(work), 0)[1] == 0
    assert told.read_text().startswith(
        f"the checkpoint of step 2 could not be written to {path}: no more may be written ("
    )
    assert os.strerror(errno.EFBIG) in told.read_text()
    assert "\n" not in told.read_text()
    assert step_of(path) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [LAST, "told"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        BiposeError, match=r"^the checkpoint of step 1 could not be written to .*; there is no earlier one; mend"
    ):
        write(content(1), tmp_path / "file" / LAST)


def test_what_is_no_matter_of_the_disk_is_not_called_one(tmp_path):
    with pytest.raises(Exception, match="pickle"):
        write({"global_step": 1, "bad": lambda: None}, tmp_path / LAST)
    assert list(tmp_path.iterdir()) == []


# --- a kill in the middle of writing ---------------------------------------------------------------------------------


def test_a_kill_in_the_middle_of_a_slow_write_leaves_the_last_good_one(tmp_path):
    path = tmp_path / LAST
    write(content(1), path)
    ear, mouth = os.pipe()
    whole = _Recorder.write

    def slowly(self: _Recorder, data: Any) -> int:
        """A thousand bytes at a time, as over a slow network."""
        data = bytes(data)
        for start in range(0, len(data), 1000):
            whole(self, data[start : start + 1000])
            self.handle.flush()
            if self.written > 100_000:
                os.write(mouth, b"writing")
                time.sleep(0.01)
        return len(data)

    def work() -> None:
        _Recorder.write = slowly  # type: ignore[method-assign]
        write(content(2, 1_000_000), path)

    child = forked(work)
    assert os.read(ear, 7) == b"writing"
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert step_of(newest(tmp_path)) == 1
    left = [p for p in tmp_path.iterdir() if p.name != LAST]
    assert len(left) == 1, "the half-written file"
    assert left[0].stat().st_size > 100_000
    clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [LAST]
