"""When the checkpoint to go on from is written, what becomes of the one before, and Lightning's counters in it."""

from __future__ import annotations

import errno
import time
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from small_fit import Saves, fit

from bipose_lit.callbacks.checkpoint_io import LAST, PREVIOUS, AtomicCheckpointIO, _Recorder, newest, read
from bipose_lit.callbacks.checkpoints import KEY, Resume, settle
from bipose_lit.types import BiposeError


def step_of(path: Any) -> int:
    return int(read(path)["global_step"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "trainer", "expected"),
    [
        ({"every_n_steps": 4}, {}, [4, 8, 12, 16, 20]),
        ({"every_n_steps": 4}, {"max_epochs": -1, "max_steps": 15}, [4, 8, 12, 15]),
        ({"every_n_steps": 2}, {"accumulate_grad_batches": 5, "max_epochs": 3}, [2, 4, 6]),
        ({"epoch_ends": True}, {}, [10, 20]),
        ({}, {}, [20]),  # the last step always
        ({"every_minutes": 1e-9}, {"max_epochs": 1, "limit_train_batches": 4}, [1, 2, 3, 4]),
    ],
)
def test_at_which_steps_it_saves(tmp_path, options, trainer, expected):
    keeper = Saves(**{"every_minutes": None, "epoch_ends": False, **options})
    fit(tmp_path, keeper, **trainer)
    assert keeper.steps == expected
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == [LAST]
    assert step_of(tmp_path / "checkpoints" / LAST) == expected[-1]


@pytest.mark.filterwarnings("ignore")
def test_ends_of_epochs_do_not_take_more_than_their_share(tmp_path, monkeypatch):
    """Where saving takes as long as training, most ends of epochs pass without."""
    keeper = Saves(every_minutes=None)
    keeper.keep_final = False
    original = AtomicCheckpointIO.save_checkpoint

    def slow(self: Any, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.2)
        original(self, *args, **kwargs)

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", slow)
    fit(tmp_path, keeper, max_epochs=6)
    assert keeper.steps == [10]


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_saved_where_it_is_switched_off(tmp_path):
    keeper = Saves(every_n_steps=1)
    keeper.enabled = False
    fit(tmp_path, keeper)
    assert keeper.steps == []
    keeper = Saves(every_n_steps=1)
    fit(tmp_path, keeper, fast_dev_run=True)
    assert keeper.steps == []
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_new_training_in_the_same_folder_does_not_take_the_place_of_an_old_one(tmp_path, caplog):
    fit(tmp_path, Resume())
    fit(tmp_path, Resume(), max_epochs=1)
    folder = tmp_path / "checkpoints"
    assert {p.name: step_of(p) for p in folder.iterdir()} == {LAST: 10, "replaced-1.ckpt": 20}
    assert "does not go on from" in caplog.text
    fit(tmp_path, Resume(), ckpt=folder / LAST, max_epochs=3)  # one that goes on does
    assert {p.name: step_of(p) for p in folder.iterdir()} == {LAST: 30, "replaced-1.ckpt": 20}
    fit(tmp_path, Resume(), ckpt=folder / "replaced-1.ckpt", max_epochs=4)
    assert {p.name: step_of(p) for p in folder.iterdir()} == {LAST: 40, "replaced-1.ckpt": 20, "replaced-2.ckpt": 30}


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_does_not_take_the_place_of_the_good_one_before(tmp_path, monkeypatch):
    """Gone on from previous.ckpt, and killed in the next save: there is still a good one."""
    folder = tmp_path / "checkpoints"
    keeper = Resume(every_n_steps=3, every_minutes=None, epoch_ends=False)
    keeper.keep_final = False
    fit(tmp_path, keeper, max_epochs=1)
    last, previous = folder / LAST, folder / PREVIOUS
    assert (step_of(last), step_of(previous)) == (9, 6)
    last.write_bytes(last.read_bytes()[:1000])

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(_Recorder, "write", full)
    with pytest.raises(BiposeError, match="the last whole one stays"):
        fit(tmp_path, Resume(every_n_steps=1), ckpt=newest(folder))
    assert step_of(newest(folder)) == 6


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [True, "link"])
def test_a_callback_that_keeps_a_last_one_too_does_not_take_the_place_of_ours(tmp_path, kind):
    folder = tmp_path / "checkpoints"

    def both() -> tuple[ModelCheckpoint, Resume]:
        theirs = ModelCheckpoint(every_n_train_steps=2, save_last=kind, filename="{step}")
        return theirs, Resume(every_n_steps=3, every_minutes=None, epoch_ends=False)

    fit(tmp_path, both()[1], callbacks=[*both()], max_epochs=1, limit_train_batches=8)
    assert sorted(p.name for p in folder.iterdir()) == ["kept-last.ckpt", LAST, "step=8.ckpt"]
    assert {p.name: KEY in read(p) for p in folder.iterdir()} == {
        "kept-last.ckpt": False, LAST: True, "step=8.ckpt": False,
    }  # fmt: skip
    # A checkpoint of before, whose state says that last.ckpt is theirs.
    state = read(folder / "step=8.ckpt")
    for name, values in state["callbacks"].items():
        if "ModelCheckpoint" in name:
            values["last_model_path"] = str(folder / LAST)
    torch.save(state, tmp_path / "old.ckpt")
    fit(tmp_path, both()[1], ckpt=tmp_path / "old.ckpt", callbacks=[*both()], max_epochs=3, limit_train_batches=8)
    assert KEY in read(folder / LAST)
    assert step_of(folder / LAST) == 24


def test_options_are_checked():
    for wrong in ({"every_minutes": 0.0}, {"every_n_steps": 0}):
        with pytest.raises(BiposeError, match="above 0, or null for never"):
            Resume(**wrong)  # type: ignore[arg-type]


# --- the counters ----------------------------------------------------------------------------------------------------


def counters(**numbers: int) -> dict[str, int]:
    return {"ready": 0, "completed": 0, "started": 0, "processed": 0, **numbers}


def loops(done: int, total: int, epoch: dict[str, int]) -> dict[str, Any]:
    """As they are when the next batch has been fetched."""
    pair = {"total": {"ready": total, "completed": total}, "current": {"ready": done, "completed": done}}
    fetched = {"ready": total + 1, "completed": total, "started": total, "processed": total}
    return {
        "epoch_progress": {"total": dict(epoch), "current": dict(epoch)},
        "epoch_loop.state_dict": {"_batches_that_stepped": total},
        "epoch_loop.batch_progress": {
            "total": fetched,
            "current": {"ready": done + 1, "completed": done, "started": done, "processed": done},
            "is_last_batch": True,
        },
        "epoch_loop.scheduler_progress": {k: dict(v) for k, v in pair.items()},
        "epoch_loop.automatic_optimization.optim_progress": {"optimizer": {"step": pair, "zero_grad": pair}},
        "epoch_loop.val_loop.batch_progress": {
            "total": counters(ready=6, completed=6, started=6, processed=6),
            "current": counters(ready=3, completed=3, started=3, processed=3),
            "is_last_batch": True,
        },
    }


def test_counters_in_the_middle_of_an_epoch():
    state = loops(3, 13, counters(ready=2, started=2, processed=1, completed=1))
    settle(state, 10, pending=False)
    batch = state["epoch_loop.batch_progress"]
    assert batch["total"] == counters(ready=13, completed=13, started=13, processed=13)
    assert batch["current"] == counters(ready=3, completed=3, started=3, processed=3)
    assert batch["is_last_batch"] is False
    assert state["epoch_progress"]["total"] == counters(ready=2, started=2, processed=1, completed=1)


def test_counters_where_the_last_step_was_in_the_middle_of_an_epoch():
    """Lightning calls that epoch over; a longer training goes on in it."""
    state = loops(3, 13, counters(ready=2, started=2, processed=2, completed=1))
    settle(state, 10, pending=False)
    assert state["epoch_progress"]["current"] == counters(ready=2, started=2, processed=1, completed=1)


def test_counters_between_epochs():
    for epoch in (
        counters(ready=2, started=2, processed=2, completed=1),
        counters(ready=2, started=2, processed=2, completed=2),
    ):
        state = loops(10, 20, epoch)
        settle(state, 10, pending=False)
        assert state["epoch_progress"]["total"] == counters(ready=2, started=2, processed=2, completed=2)
        assert state["epoch_loop.batch_progress"]["current"] == counters()
        assert state["epoch_loop.batch_progress"]["total"]["ready"] == 20
        assert state["epoch_loop.val_loop.batch_progress"]["total"] == counters()


def test_counters_before_a_validation():
    state = loops(10, 20, counters(ready=2, started=2, processed=1, completed=1))
    settle(state, 10, pending=True)
    assert state["epoch_progress"]["total"] == counters(ready=2, started=2, processed=1, completed=1)
    assert state["epoch_loop.batch_progress"]["is_last_batch"] is True
    assert state["epoch_loop.val_loop.batch_progress"]["total"] == counters(
        ready=7, started=7, processed=6, completed=6
    )
    assert state["epoch_loop.val_loop.batch_progress"]["current"] == counters()
