"""A process that has imported everything and forks a fresh process, or one per rank, for every fit that it is told of.

`python resume_jobs.py` reads a JSON object a line: {"kind": "execute" | "fit", "arguments": ..., "log": file, "world": 1,
"kill": [step, place, rank] | null} and answers {"codes": [...]} when all have ended. `Jobs` is the other side of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch

KILL = "RESUME_TEST_KILL"
PLACES = ("start", "backward", "update", "end", "validation", "validated", "epoch", "write")
"""Where a process may die; "write" is in the middle of a checkpoint's bytes."""
LIMIT = 150.0


class Witness(L.Callback):
    """Tells every step and the end, and kills its process (SIGKILL) or warns it (SIGTERM, SIGUSR1) where the test says so.

    Args:
        folder: gets told-RANK.jsonl, a line a micro-batch, and end-RANK.pt.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        step, self.place, rank, number = (os.environ.get(KILL) or "-1:none:0:9").split(":")
        self.step, self.rank, self.number = int(step), int(rank), int(number)

    def at(self, trainer: L.Trainer, place: str) -> None:
        if (self.step, self.place, self.rank) == (trainer.global_step, place, trainer.global_rank):
            os.kill(os.getpid(), self.number)
            self.step = -1

    def tell(self, trainer: L.Trainer, **said: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"told-{trainer.global_rank}.jsonl").open("a") as handle:
            handle.write(json.dumps({"step": trainer.global_step, **said}) + "\n")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.place == "write":
            cut_writes(trainer, self)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell(trainer, what="epoch", epoch=trainer.current_epoch)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, index: int) -> None:
        self.at(trainer, "start")

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.at(trainer, "backward")

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        self.at(trainer, "update")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, out: Any, batch: Any, i: int
    ) -> None:
        logged = trainer.fit_loop.epoch_loop._batches_that_stepped
        told = {"batch": i, "loss": float(out["loss"]), "uid": batch.uid.sum().item(), "logged": logged}
        drawn = torch.rand(1).item()
        self.tell(trainer, what="batch", epoch=trainer.current_epoch, drawn=drawn, **told)
        self.at(trainer, "end")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.at(trainer, "validation")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val")}
            self.tell(trainer, what="validation", epoch=trainer.current_epoch, metrics=metrics)
        self.at(trainer, "validated")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.tell(trainer, what="epoch end", epoch=trainer.current_epoch)
        self.at(trainer, "epoch")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        end = {
            "weights": pl_module.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict(),
            "schedule": trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "callbacks": {
                c.state_key: c.state_dict() for c in trainer.callbacks if type(c).__name__ not in ("Clock", "History")
            },
            "random": torch.get_rng_state(),
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
        }
        torch.save(end, self.folder / f"end-{trainer.global_rank}.pt")


def cut_writes(trainer: L.Trainer, witness: Witness) -> None:
    """Lets the process die in the middle of writing the bytes of a checkpoint; they come slowly, in halves."""
    from bipose_lit.callbacks.checkpoint_io import _Recorder

    write = _Recorder.write

    def slowly(self: Any, data: Any) -> int:
        if trainer.global_step == witness.step and self.written > 20_000:
            half = bytes(data)[: len(bytes(data)) // 2]
            write(self, half)
            self.handle.flush()
            os.kill(os.getpid(), witness.number)
        return write(self, data)

    _Recorder.write = slowly  # type: ignore[method-assign]


def _job(job: Mapping[str, Any]) -> int:
    """What a child does."""
    torch.set_num_threads(1)
    if job["kind"] == "fit":
        from bipose_lit.__main__ import main

        sys.argv = ["bipose", *job["arguments"]]
        return main()
    from bipose_lit.run import execute
    from bipose_lit.store import RunSpec
    from bipose_lit.types import BiposeError, Preempted

    try:
        execute(RunSpec.load(Path(job["arguments"])))
    except Preempted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.code
    except BiposeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _fork(job: Mapping[str, Any], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        with open(job["log"], "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        if job.get("kill"):
            os.environ[KILL] = ":".join(str(part) for part in job["kill"])
        if job["world"] > 1:
            os.environ.update(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                NODE_RANK="0",
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(job["world"]),
            )
            from lightning.pytorch.utilities import rank_zero_only

            rank_zero_only.rank = rank  # as in a process that was started with these
        limit = job.get("file_bytes")
        if limit:
            import resource

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails with EFBIG
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = _job(job)
    except BaseException as error:  # a forked process must not go on as its parent
        import traceback

        traceback.print_exception(error)
    finally:
        with contextlib.suppress(Exception):
            import atexit

            atexit._run_exitfuncs()
        os._exit(code)


def serve() -> None:
    """Reads jobs until the input ends."""
    import bipose_lit.cli
    import bipose_lit.run  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = [_fork(job, rank, port) for rank in range(job["world"])]
        codes: dict[int, int] = {}
        end = time.monotonic() + LIMIT
        while len(codes) < len(children):
            for child in children:
                if child not in codes:
                    pid, status = os.waitpid(child, os.WNOHANG)
                    if pid:
                        codes[child] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                for child in set(children) - set(codes):
                    os.killpg(child, signal.SIGKILL)
            time.sleep(0.01)
        for child in children:  # loading processes of one that was killed
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        print(json.dumps({"codes": [codes[child] for child in children]}), flush=True)


class Jobs:
    """The other side of `serve`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def run(self, **job: Any) -> list[int]:
        """Exit codes of the ranks; a signal's number negative."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"world": 1, **job}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return list(json.loads(answer)["codes"])


@contextlib.contextmanager
def jobs() -> Iterator[Jobs]:
    """A server with one thread and without a GPU, ended with the block."""
    here = str(Path(__file__).parent)
    made = Jobs({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": here})
    try:
        yield made
    finally:
        assert made.process.stdin is not None
        made.process.stdin.close()
        made.process.wait(30)


if __name__ == "__main__":
    from resume_jobs import serve as _serve  # the class that checkpoints and configurations name is resume_jobs.Witness

    _serve()
