"""The checkpoint to go on from: always whole, between two optimiser steps, and exact to the last bit.

Lightning's own checkpoints are taken in the middle of things: at the end of a batch a validation that is due is lost on resuming,
at the end of an epoch the next batch is counted to the epoch before (2.6). `Resume` saves when everything that follows a step is
done, and writes the loops' counters as they are between two steps.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from bipose_lit.callbacks.checkpoint_io import (
    FOLDER,
    LAST,
    PREVIOUS,
    AtomicCheckpointIO,
    clean,
    keep_previous,
    newest,
    read,
    set_aside,
)
from bipose_lit.callbacks.preemption import Signals
from bipose_lit.types import BiposeError, Preempted

KEY = "bipose"
"""Of what `Resume` adds to a checkpoint."""
SHARE = 0.05
"""Most of the time that checkpoints at the ends of epochs may take."""
THEIRS = "kept-last"
"""What a `ModelCheckpoint` with `save_last` calls its file where it would be last.ckpt in our folder."""
_SAVE = 1  # below the number of any signal
_log = logging.getLogger(__name__)


class Resume(Checkpoint):
    """Keeps checkpoints/last.ckpt, from which ckpt_path=last goes on bit for bit; SIGTERM and SIGUSR1 end training with one.

    The exit status is then 143 or 138 (128 + the signal's number).

    Best-of checkpoints by a metric are Lightning's `ModelCheckpoint`, which works beside this; with `save_last` and in the same
    folder it names its last one kept-last.ckpt.

    Args:
        every_minutes: minutes between two checkpoints; null for none by the clock.
        every_n_steps: optimiser steps between two checkpoints; null for none by steps.
        epoch_ends: also at the end of an epoch, as long as saving takes less than 5 % of the time.

    Attributes:
        keep_final: leave a checkpoint of the last step in any case.
        tag: kept in the checkpoint, to tell whose it is: the hash of the run's configuration.
        signals: what this process was warned of.
        enabled: False: nothing is saved, and nothing but signals heeded.
        again: what to do after a signal, for the message.
    """

    def __init__(
        self, every_minutes: float | None = 5.0, every_n_steps: int | None = None, epoch_ends: bool = True
    ) -> None:
        if (every_minutes is not None and every_minutes <= 0) or (every_n_steps is not None and every_n_steps < 1):
            raise BiposeError("checkpoint: every_minutes and every_n_steps are above 0, or null for never")
        self.every_minutes, self.every_n_steps, self.epoch_ends = every_minutes, every_n_steps, epoch_ends
        self.keep_final, self.tag, self.signals, self.enabled = True, "", Signals(), True
        self.again = "start the same command with ckpt_path=last to go on"
        self.best_model_path = ""  # Lightning asks any checkpoint callback for one
        self._folder = Path()
        self._seen, self._todo = 0, 0
        self._start = self._saved = time.monotonic()
        self._spent = 0.0
        self._pending: bool | None = None  # while saving: whether a validation is due
        self._restored: dict[str, Any] | None = None

    # --- when ----------------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = Path(trainer.default_root_dir) / FOLDER
        self.enabled = self.enabled and not getattr(trainer, "fast_dev_run", False)
        if self.enabled and stage == "fit":
            for callback in self._rivals(trainer):
                callback.CHECKPOINT_NAME_LAST = THEIRS

    def _rivals(self, trainer: L.Trainer) -> list[ModelCheckpoint]:
        """Those that keep a last checkpoint in the same folder; theirs is one that training does not go on from exactly."""
        return [
            callback
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint)
            and callback.save_last
            and callback.CHECKPOINT_NAME_LAST in (Path(LAST).stem, THEIRS)
            and os.path.realpath(callback.dirpath or "") == os.path.realpath(self._folder)
        ]

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.install()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.install()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.install()
        self.signals.deferred = True
        self._seen, self._todo = trainer.global_step, 0
        self._start = self._saved = time.monotonic()
        self._spent = 0.0
        self._agreed(trainer)
        for callback in self._rivals(trainer):
            if Path(callback.last_model_path).name == LAST:  # of a time when it was theirs: they would delete it
                callback.last_model_path = ""
        if self._restored is not None:  # early stopping and the like read metrics of before
            trainer.callback_metrics.update(self._restored["metrics"])
            if self._restored.get("stop") and not self.keep_final:
                trainer.should_stop = True  # a fit may be told to go on longer, a run is what it is
        if trainer.is_global_zero and self.enabled:
            self._tidy(Path(trainer.ckpt_path) if trainer.ckpt_path else None)

    def _agreed(self, trainer: L.Trainer) -> None:
        """Refuses to train with processes that begin at different steps: they would wait for each other, or mix their gradients.

        Raises:
            BiposeError: on rank 0; the others leave by SystemExit.
        """
        if trainer.world_size == 1:
            return
        own = torch.tensor([trainer.global_step, -trainer.global_step], device=trainer.strategy.root_device)
        most, least = trainer.strategy.reduce(own, reduce_op="max").tolist()
        if most == -least:
            return
        if not trainer.is_global_zero:
            raise SystemExit(1)
        raise BiposeError(
            f"the processes would go on from different checkpoints, of steps {-least} to {most}: {self._folder} must be one "
            "folder that all machines see; give trainer.default_root_dir on a disk that they share, or a ckpt_path that all can "
            "read"
        )

    def _tidy(self, source: Path | None) -> None:
        """Leaves last.ckpt only where this training goes on from it: no save puts a bad file in the place of a good one."""
        clean(self._folder)
        last, previous = self._folder / LAST, self._folder / PREVIOUS
        if source is not None and source.absolute() == previous.absolute():
            os.replace(previous, last)  # the one that was last is damaged
        elif (source is None or source.absolute() != last.absolute()) and (aside := set_aside(last)) is not None:
            _log.warning("this training does not go on from %s of an earlier one, which is now %s", last, aside)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._restored is not None:
            if not self._restored["pending"]:
                # The loggers' step. Lightning counts it anew on some ways into a resumed epoch, and has no public way to set it.
                trainer.fit_loop.epoch_loop._batches_that_stepped = self._restored["logged"]
            self._restored = None
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        todo, self._todo = self._todo, 0
        if todo:
            self._act(trainer, todo)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step != self._seen:
            self._todo = self._agree(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit":
            self.signals.install()
        elif self._todo > _SAVE and not trainer.sanity_checking and self._will_validate(trainer):
            self._act(trainer, self._todo, pending=True)  # a validation may take longer than is left

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._todo = max(self._todo, self._agree(trainer))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._todo = max(self._todo, self._agree(trainer, epoch_end=True))
        if _over(trainer) and (self.keep_final or self._todo) and self.enabled:
            # Here, not when training ends: an averaging callback then puts the average in the place of the weights.
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.deferred, self._restored = False, None
        if self._todo > _SAVE and not self.keep_final:
            raise self._stopped(trainer, self._todo)
        if self.enabled and trainer.is_global_zero and self.keep_final:
            (self._folder / PREVIOUS).unlink(missing_ok=True)

    def finish(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """After a fit: makes up for the end of one that was stopped between its last step and its end.

        Lightning leaves such a resumed fit at once; what callbacks do at the end (the average of weights in their place) is due.
        """
        if self._restored is None:
            return
        restored, self._restored = self._restored, None
        trainer.callback_metrics.update(restored["metrics"])
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            callback.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.signals.deferred = False

    def _agree(self, trainer: L.Trainer, epoch_end: bool = False) -> int:
        """What all ranks do when this step is over: 0 nothing, 1 save, else the signal's number; rank 0's clock counts."""
        todo = self.signals.number or (_SAVE if trainer.is_global_zero and self._due(trainer, epoch_end) else 0)
        if trainer.world_size > 1:
            told = torch.tensor(todo, device=trainer.strategy.root_device)
            todo = int(trainer.strategy.reduce(told, reduce_op="max"))
        return todo

    def _due(self, trainer: L.Trainer, epoch_end: bool) -> bool:
        if not self.enabled:
            return False
        now = time.monotonic()
        if epoch_end:
            return self.epoch_ends and self._spent <= SHARE * (now - self._start)
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        return self.every_minutes is not None and now - self._saved >= 60 * self.every_minutes

    def _will_validate(self, trainer: L.Trainer) -> bool:
        """Whether a resumed training would start with the validation that begins now: counts decide, and steps are left."""
        last = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        return not (last or trainer.should_stop) and isinstance(trainer.val_check_interval, int | float | None)

    # --- how -----------------------------------------------------------------------------------------------------------

    def _act(self, trainer: L.Trainer, todo: int, pending: bool = False) -> None:
        if self.enabled:
            self.save(trainer, pending)
        if todo > _SAVE:
            raise self._stopped(trainer, todo)

    def save(self, trainer: L.Trainer, pending: bool = False) -> None:
        """Writes last.ckpt; the one before stays as previous.ckpt.

        Args:
            trainer: in a fit, between two optimiser steps.
            pending: the validation that belongs to the last step has not been made.

        Raises:
            BiposeError: it could not be written; on rank 0, the others leave by SystemExit.
        """
        start = time.monotonic()
        writer = trainer.strategy.checkpoint_io
        if isinstance(writer, AtomicCheckpointIO):
            writer.collect, writer.failure = True, None
        if trainer.is_global_zero:
            keep_previous(self._folder / LAST)
        self._pending = pending
        try:
            trainer.save_checkpoint(self._folder / LAST, weights_only=False)
        finally:
            self._pending = None
            if isinstance(writer, AtomicCheckpointIO):
                writer.collect = False
        line = str(writer.failure or "") if isinstance(writer, AtomicCheckpointIO) else ""
        if trainer.world_size > 1:
            line = trainer.strategy.broadcast(line)
        if line and not trainer.is_global_zero:
            raise SystemExit(1)  # rank 0 says why
        if line:
            raise BiposeError(line)
        self._saved = time.monotonic()
        self._spent += self._saved - start

    def _stopped(self, trainer: L.Trainer, number: int) -> Preempted:
        where = f"a checkpoint in {self._folder}" if self.enabled else "no checkpoint (it is switched off)"
        stopped = Preempted(
            f"stopped by {signal.Signals(number).name} after step {trainer.global_step}, with {where}; {self.again}",
            number,
        )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if trainer.local_rank > 0 and isinstance(environment, LightningEnvironment):
            stopped.code = (
                0  # the launcher kills rank 0 in the middle of its own end where a rank that it started fails
            )
        return stopped

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._pending is None:  # somebody else's checkpoint
            return
        loops = checkpoint["loops"]["fit_loop"]
        settle(loops, int(trainer.num_training_batches), self._pending)
        metrics = {k: v.detach().cpu().clone() for k, v in trainer.callback_metrics.items()}
        checkpoint[KEY] = {
            "tag": self.tag,
            "step": trainer.global_step,
            "pending": self._pending,
            "stop": bool(trainer.should_stop),  # given up or no better for long, it stays so when it goes on
            "metrics": metrics,
            "logged": loops["epoch_loop.state_dict"]["_batches_that_stepped"],
        }

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get(KEY)


def _over(trainer: L.Trainer) -> bool:
    """Whether no batch follows, at the end of an epoch."""
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    limit, current = trainer.max_epochs, trainer.fit_loop.epoch_progress.current
    epochs = limit is not None and limit != -1 and current.processed >= limit  # type: ignore[attr-defined]
    return bool(steps or epochs or trainer.should_stop)


def settle(loops: dict[str, Any], batches: int, pending: bool) -> None:
    """Writes Lightning's counters as they are between two steps, so that it goes on there on all of its ways.

    Args:
        loops: the fit loop's part of a checkpoint; changed in place.
        batches: of an epoch.
        pending: the validation that follows the last step has not been made and is to be made first.
    """
    epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    validation = loops["epoch_loop.val_loop.batch_progress"]
    done = batch["current"]["processed"]
    for progress in (batch["total"], batch["current"]):  # the batch that was fetched but not begun
        progress.update(dict.fromkeys(("ready", "started", "completed"), progress["processed"]))
    if 0 < done < batches or pending:  # within an epoch
        for progress in (epoch["total"], epoch["current"]):
            progress.update(
                processed=progress["started"] - 1, completed=progress["started"] - 1, ready=progress["started"]
            )
        batch["is_last_batch"] = done >= batches
    else:
        for progress in (epoch["total"], epoch["current"]):
            progress.update(dict.fromkeys(("ready", "started", "completed"), progress["processed"]))
        batch["is_last_batch"] = False
        names = ("epoch_loop.batch_progress", "epoch_loop.scheduler_progress")
        optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for counts in (*(loops[name]["current"] for name in names), *(part["current"] for part in optimizer.values())):
            counts.update(dict.fromkeys(counts, 0))
        validation["total"].update(dict.fromkeys(validation["total"], 0))
    if pending:  # what Lightning writes in the middle of a validation, which it then makes anew
        finished = validation["total"]["completed"]
        validation["total"].update(ready=finished + 1, started=finished + 1, processed=finished)
        validation["current"].update(dict.fromkeys(validation["current"], 0))
        validation["is_last_batch"] = False


def find(folder: Path, tag: str) -> Path | None:
    """The newest whole checkpoint in FOLDER/checkpoints that was written under `tag`; None: start from the beginning."""
    for name in (LAST, PREVIOUS):
        path = newest(folder / FOLDER, [name])
        if path is None:
            continue
        try:
            info = read(path).get(KEY)
        except BiposeError as error:
            _log.warning("%s", error)
            continue
        if isinstance(info, Mapping) and info.get("tag") == tag:
            return path
    return None


__all__ = ["KEY", "Resume", "find", "settle"]
