"""What the pool says while its workers wait."""

import time

from bipose_lit.ablation.pool import QUEUE_LOCK, Pool
from bipose_lit.ablation.process import Child, Lock
from bipose_lit.ablation.progress import PlainProgress


class Turns:
    def __init__(self, folder):
        self.folder = folder

    def lock(self, key):
        return Lock(self.folder / f"{key}.lock")


def test_a_queue_that_somebody_holds_for_long_is_told(tmp_path):
    pool = Pool(Turns(tmp_path), 1, PlainProgress())
    pool.children = [Child(1, -1)]
    with Lock(tmp_path / f"{QUEUE_LOCK}.lock") as held:
        assert pool.note([]) == "", "every turn takes the queue for a moment"
        pool.children[0].started = time.monotonic() - 11
        assert pool.note([]) == f"waiting for the queue, which {held.holder()} holds"
    pool.children[0].info["key"] = "a/seed0"
    assert pool.note([]) == ""
    assert pool.note(["b/seed0"]) == "waiting for b/seed0 of another process"
