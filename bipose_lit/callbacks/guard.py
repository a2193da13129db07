"""Says in one line why a fit failed: a loss that is not finite, a batch too large for memory, a process that hangs or died."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor

from bipose_lit.types import BiposeError, ClipBatch, SceneBatch

NOTE = "bipose: "
"""What the notes begin with that `explained` turns into errors."""
NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "cannot allocate memory", "bad_alloc", "out of memory")
LOST = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Connection refused",
    "NCCL",
    "Timed out waiting",
)
WAITING = (f"torch{os.sep}distributed", f"torch{os.sep}nn{os.sep}parallel", f"torch{os.sep}autograd")
"""Where a process that waits for the others is."""


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Around a fit: raises what a `Guard` said of a failure in its place.

    Raises:
        BiposeError: the guard's line.
        SystemExit: another process of the job says it.
    """
    try:
        yield
    except Exception as error:
        lines = [note.removeprefix(NOTE) for note in getattr(error, "__notes__", ()) if note.startswith(NOTE)]
        if not lines:
            raise
        if not lines[0]:
            raise SystemExit(1) from error
        raise BiposeError(lines[0]) from error


class Guard(L.Callback):
    """Ends a fit that cannot go on, on all its processes, with one line that says where it was and what to try.

    The loss that it looks at is the one that all processes share (`PoseModule` hands it on), so all of them stop at one step.

    Args:
        every: batches between two looks at the loss on a GPU, since each look waits for the device; elsewhere every batch is
            looked at. A checkpoint is never written without a look.
        stall: seconds without any progress after which a process of several ends itself, and thereby the job. It must be longer
            than the longest piece of work in one go: scoring a validation, a checkpoint, compiling the first step. 0: never.
    """

    def __init__(self, every: int = 20, stall: float = 1800.0) -> None:
        if every < 1 or stall < 0:
            raise BiposeError(f"Guard: every {every} is 1 or more batches, stall {stall} seconds, 0 for never")
        self.every, self.stall = every, stall
        self._recent: list[tuple[int, Tensor, Tensor, Any]] = []
        self._step, self._shape, self._part = 0, "", "before the first step"
        self._watch: _Watch | None = None

    # --- a loss that is not finite -----------------------------------------------------------------------------------

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._progress(trainer, "between steps")
        own = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(own, Tensor):
            return
        whole = outputs.get("step_loss", own) if isinstance(outputs, dict) else own
        clips = batch.clip if isinstance(batch, ClipBatch) else None
        self._recent.append((trainer.global_step, whole.detach(), own.detach(), clips))
        if own.device.type == "cpu" or len(self._recent) >= self.every:
            self._look(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)  # a model that diverged must not take the place of the last good checkpoint

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: L.Trainer) -> None:
        """Raises if one of the losses since the last look is not finite. All processes see the same losses, so all come here."""
        recent, self._recent = self._recent, []
        if not recent:
            return
        losses = torch.stack([whole for _, whole, _, _ in recent]).tolist()
        bad = next((i for i, loss in enumerate(losses) if loss - loss != 0), None)
        if bad is None:
            return
        step, _, own, clips = recent[bad]
        found = _names(trainer, clips) if not bool(torch.isfinite(own)) else []
        if trainer.world_size > 1:
            lists: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(lists, found)
            found = [name for names in lists for name in names]
        self._stop_watch()
        if not trainer.is_global_zero:
            raise SystemExit(1)  # one line for the job, by rank 0
        where = f" (clips {_listed(found)})" if found else ""
        first = "look at their pictures and labels; " if step <= 1 and found else ""
        raise BiposeError(
            f"training diverged: the loss is {losses[bad]} at step {step}{where}; {first}lower model.recipe.lr, set or lower "
            "trainer.gradient_clip_val, or set trainer.detect_anomaly true to see where it begins"
        )

    # --- where it is -------------------------------------------------------------------------------------------------

    def _progress(self, trainer: L.Trainer, part: str, batch: Any = None) -> None:
        self._step, self._part = trainer.global_step, part
        if isinstance(batch, ClipBatch | SceneBatch):
            self._shape = _shape(batch)
        if self._watch is not None:
            self._watch.since = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._progress(trainer, "in the training step", batch)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._progress(trainer, "in the backward pass")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self._progress(trainer, "in the optimiser's step")

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._progress(trainer, "in validation", batch)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        self._progress(trainer, "in validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._progress(trainer, "between steps")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._step, self._recent = trainer.global_step, []
        if trainer.world_size > 1:
            self._watch = _Watch(self, trainer)
            self._watch.start()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._stop_watch()

    def _stop_watch(self) -> bool:
        """Nobody else speaks from here on; False if the watch has spoken already."""
        watch, self._watch = self._watch, None
        return watch is None or watch.stop()

    # --- failures that others raise ----------------------------------------------------------------------------------

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leaves a note on what `explained` can tell better; the rest passes as it is."""
        watch = self._watch
        if not self._stop_watch():
            time.sleep(60)  # the watch is about to end this process
        if isinstance(exception, (BiposeError, KeyboardInterrupt, SystemExit)):
            return
        said = " ".join(str(exception).split())
        at = f"step {self._step}" + (f", {self._part}" if self._part else "")
        rank = f"rank {trainer.global_rank} of {trainer.world_size}: " if trainer.world_size > 1 else ""
        if isinstance(exception, (torch.OutOfMemoryError, MemoryError)) or any(sign in said for sign in NO_MEMORY):
            exception.add_note(
                f"{NOTE}{rank}out of memory at {at}, with a batch of {self._shape or 'unknown shape'} ({said[:120]}); "
                "set trainer.accumulate_grad_batches 2 (the same recipe in half the memory), trainer.precision bf16-mixed, a "
                "smaller data.size or data.clips.length, or model.freeze_backbone true"
            )
        elif trainer.world_size > 1 and _lost(exception, said):
            if watch is not None and watch.rank_0_speaks():
                exception.add_note(NOTE)
                return
            who = (watch.dead(patience=2.0) if watch is not None else "") or "another process of the job ended"
            exception.add_note(f"{NOTE}{_death(who, at)}")


class _Watch(threading.Thread):
    """Ends this process when it makes no progress, or when one that it started has died."""

    def __init__(self, guard: Guard, trainer: L.Trainer) -> None:
        super().__init__(daemon=True, name="bipose-guard")
        self.guard, self.since = guard, time.monotonic()
        self.rank, self.world, self.local = trainer.global_rank, trainer.world_size, trainer.local_rank
        self.folder = Path(trainer.default_root_dir)
        # Where rank 0 has started the others itself, it can tell which of them died and how.
        self.children: Sequence[Any] = tuple(getattr(trainer.strategy.launcher, "procs", ()))
        self.parent = os.getppid()
        self.started_by_rank_0 = trainer.strategy.launcher is not None and self.local > 0
        self.main = threading.main_thread().ident
        self._turn = threading.Lock()  # held by whoever speaks
        self._done = False

    def stop(self) -> bool:
        """Silences the watch; False if it has begun to speak."""
        if not self._turn.acquire(timeout=0.5):
            return False
        self._done = True
        self._turn.release()
        return True

    def run(self) -> None:
        pause = min(0.5, self.guard.stall / 10) if self.guard.stall else 0.5
        while not self._done:
            time.sleep(pause)
            line = self._dead_child() or self._stalled()
            if line and self._turn.acquire(blocking=False):
                if not self._done:
                    self._end(line)
                self._turn.release()

    def _end(self, line: str) -> None:
        """One line, then the end of this process: its main thread cannot be woken. The others notice."""
        sys.stderr.write(f"bipose: error: {line}\n")
        sys.stderr.flush()
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
        os._exit(1)

    def _dead_child(self) -> str:
        who = self.dead()
        return _death(who, f"step {self.guard._step}, {self.guard._part}") if who else ""

    def dead(self, patience: float = 0.0) -> str:
        """A process that this one started and that has failed, in words; "" if there is none.

        Args:
            patience: seconds to wait for one to be seen dead.
        """
        end = time.monotonic() + patience
        while True:
            for number, child in enumerate(self.children):
                code = child.poll()
                if code:
                    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                    return f"rank {self.rank + 1 + number} of {self.world} (process {child.pid}) {how}"
            if time.monotonic() >= end or not self.children:
                return ""
            time.sleep(0.05)

    def rank_0_speaks(self) -> bool:
        """Rank 0 of this machine has started this process and is alive, so it tells of a death itself."""
        end = time.monotonic() + 1  # its connections close before it counts as ended
        while self.started_by_rank_0 and os.getppid() == self.parent and time.monotonic() < end:
            time.sleep(0.05)
        return self.started_by_rank_0 and os.getppid() == self.parent

    def _stalled(self) -> str:
        if not self.guard.stall or self.main is None:
            return ""
        idle = time.monotonic() - self.since
        if idle < self.guard.stall:
            return ""
        frame = sys._current_frames().get(self.main)  # documented, for all its underscore
        waits = frame is not None and any(sign in frame.f_code.co_filename for sign in WAITING)
        # Whoever waits for the others lets the one that they wait for speak first.
        if waits and idle < 1.5 * self.guard.stall + 5:
            return ""
        path = self.folder / f"stacks-rank{self.rank}.txt"
        where = ""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w") as handle:
                faulthandler.dump_traceback(handle, all_threads=True)
            where = f" (stacks in {path})"
        return (
            f"rank {self.rank} of {self.world} on {socket.gethostname()} made no progress for {idle:.0f} s at step "
            f"{self.guard._step}, {self.guard._part}{_place(frame)}{where}; mend what hangs there, or set a longer stall of "
            "bipose_lit.callbacks.guard.Guard under trainer.callbacks; the same command goes on from the last checkpoint"
        )


def _death(who: str, at: str) -> str:
    """Who died, where this process was then, and what may have been the reason."""
    if "signal 9" in who:
        reason = "the kernel does so where memory runs out, and so does a scheduler; "
    elif "status" in who:
        reason = "it says why above; "
    else:
        reason = "it was killed, failed with a message of its own, or its machine went away; "
    return f"{who} while this process was at {at}: {reason}the same command goes on from the last checkpoint"


def _lost(exception: BaseException, said: str) -> bool:
    return isinstance(exception, torch.distributed.DistError) or (
        isinstance(exception, RuntimeError) and any(sign in said for sign in LOST)
    )


def _place(frame: FrameType | None) -> str:
    return f" (in {frame.f_code.co_name}, {frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""


def _shape(batch: ClipBatch | SceneBatch) -> str:
    clips, frames = batch.valid.shape
    data = batch.images if batch.images is not None else batch.features
    size = f" of {data.shape[-1]}x{data.shape[-2]}" if data is not None else ""
    return f"{clips} clips x {frames} frames{size}" + ("" if batch.images is not None else " (features)")


def _names(trainer: L.Trainer, clips: Any) -> list[str]:
    datamodule: Any = getattr(trainer, "datamodule", None)
    if clips is None or datamodule is None:
        return []
    tracks = datamodule.index("train").tracks
    return list(dict.fromkeys(str(tracks[int(c)].clip) for c in clips.tolist()))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


__all__ = ["Guard", "explained"]
