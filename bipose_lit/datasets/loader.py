"""The data loader: seeded by its keys alone, one thread per worker, failures in one line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from bipose_lit.types import BiposeError


def start_worker(worker: int = 0) -> None:
    """One thread per process: OpenCV's and torch's own threads would only fight over the cores."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class ClipLoader(DataLoader[Any]):
    """A DataLoader whose workers hold to one thread each and whose errors are `BiposeError`s of one line.

    Its position is kept by `PoseDataModule`, which resumes in the middle of an epoch; the two state methods tell Lightning so.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("worker_init_fn", start_worker)
        # Else every epoch's start would take a number from the global generator, which dropout and others draw from.
        kwargs.setdefault("generator", torch.Generator())
        super().__init__(*args, **kwargs)
        if self.num_workers == 0:
            cv2.setNumThreads(0)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing: see the class."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return _OneLine(super().__iter__())


class _OneLine:
    """Turns what a worker raised back into the one line that it said."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self.inner = inner

    def __iter__(self) -> _OneLine:
        return self

    def __next__(self) -> Any:
        try:
            return next(self.inner)
        except BiposeError as error:
            # torch hands on a worker's traceback as the message; what was said is its last paragraph.
            _, found, said = str(error).rpartition(f"{BiposeError.__qualname__}: ")
            raise BiposeError(" ".join(said.split())) from (None if found else error)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise BiposeError(
                f"a data worker died ({' '.join(str(error).split())[:160]}); it was killed or ran out of "
                "memory or shared memory: lower data.num_workers or data.batch_size, or enlarge /dev/shm"
            ) from error


__all__ = ["ClipLoader", "start_worker"]
