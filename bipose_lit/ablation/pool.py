"""The workers of one start: each turn is a forked process; this side starts them, listens, and buries the dead."""

from __future__ import annotations

import math
import time

from bipose_lit.ablation.plan import run_seconds
from bipose_lit.ablation.process import HEARTBEAT, Child, describe_exit, fork, stop
from bipose_lit.ablation.progress import Progress
from bipose_lit.ablation.worker import Session, fail, work
from bipose_lit.types import BiposeError

RETRY_SECONDS = 2.0
"""Between two looks at the queue while another process has what this one waits for."""


class Pool:
    """Runs side by side.

    Args:
        session: what is to be done.
        workers: how many at a time.
        progress: the display.
    """

    def __init__(self, session: Session, workers: int, progress: Progress) -> None:
        self.session, self.workers, self.progress = session, workers, progress
        self.children: list[Child] = []
        self._ended = 0

    def work_off(self) -> None:
        """Keeps the workers busy until nothing is left that can be done."""
        progress, plan = self.progress, self.session.plan
        finished = [s.result for t in plan.tasks.values() if (s := plan.state(t)).name == "finished" and s.result]
        progress.endpoint = plan.manifest.endpoint
        progress.start_runs(len(finished), len(plan.tasks), self.workers, [run_seconds(r) for r in finished])
        idle: dict[int, float] = {}
        beat = time.monotonic()
        waiting_for: list[str] = []
        try:
            while True:
                now = time.monotonic()
                busy = {child.slot for child in self.children}
                for slot in range(self.workers):
                    if slot not in busy and idle.get(slot, 0.0) <= now:
                        self.start(slot)
                for child in list(self.children):
                    ended = child.poll()
                    self.listen(child)
                    if not ended:
                        continue
                    self.children.remove(child)
                    child.close()
                    self.bury(child)
                    empty = child.info.get("empty")
                    if empty is None:
                        self._ended += 1
                        idle.clear()  # an ended run may have made others possible
                        continue
                    if child.info["ended before"] != self._ended:
                        continue  # it looked before the last one ended
                    own = {c.info.get("key") for c in self.children}
                    waiting_for = [key for key in empty["elsewhere"] if key not in own]
                    idle[child.slot] = now + RETRY_SECONDS if waiting_for else math.inf
                if not self.children and all(idle.get(s, 0.0) == math.inf for s in range(self.workers)):
                    break
                if time.monotonic() - beat > HEARTBEAT:
                    beat = time.monotonic()
                    for child in self.children:
                        if "key" in child.info:
                            self.session.lock(child.info["key"]).touch()
                progress.note = f"waiting for {', '.join(waiting_for[:3])} of another process" if waiting_for else ""
                progress.tick()
                time.sleep(0.02)
        finally:
            stop(self.children)
            for child in self.children:
                child.close()
            self.children.clear()

    def start(self, slot: int) -> None:
        """Lets a worker take its turn."""
        session = self.session
        child = fork(lambda channel: work(session, slot, channel), slot, tuple(self.children))
        child.info["ended before"] = self._ended
        self.children.append(child)

    def listen(self, child: Child) -> None:
        """Hands a worker's events to the display."""
        progress, slot = self.progress, child.slot
        for event in child.events():
            kind = event["event"]
            if kind == "taken":
                child.info["key"] = event["key"]
                progress.taken(slot, event["key"])
            elif kind == "step":
                progress.run_step(slot, event["step"], event["total"], event.get("metrics", {}), event.get("text", ""))
            elif kind == "phase":
                progress.run_phase(slot, event["text"])
            elif kind == "tell":
                progress.line(f"bipose: warning: {event['line']}")
            elif kind == "empty":
                child.info["empty"] = event
            elif kind == "error":
                child.info["error"] = event["line"]
            elif kind == "abort":
                raise BiposeError(event["line"])
            elif kind == "ended":
                child.info["ended"] = True
                progress.ended(
                    slot,
                    event["key"],
                    event["status"],
                    event["seconds"] if event["seconds"] is not None else math.nan,
                    event["value"],
                    event["error"],
                    "" if event["key"].startswith("stage1/") else self._value_name(event["key"]),
                )

    def _value_name(self, key: str) -> str:
        m = self.session.plan.manifest
        return m.tune.metric if m.tune is not None and self.session.plan.tasks[key].kind == "tune" else m.endpoint

    def bury(self, child: Child) -> None:
        """A worker that ended without a word: its run failed, unless the result was out already."""
        if "ended" in child.info or "empty" in child.info:
            return
        key = child.info.get("key")
        line = child.info.get("error") or f"the process {describe_exit(child.code)}"
        if key is None:  # it could not even look into the queue
            raise BiposeError(line)
        task = self.session.plan.tasks[key]
        state = self.session.plan.state(task)
        if state.name == "finished" and state.result is not None:
            self.progress.ended(child.slot, key, "finished", run_seconds(state.result), None, "", "")
            return
        spec = self.session.plan.bind(task)
        if spec is not None:
            fail(spec, line)
        self.progress.ended(child.slot, key, "failed", math.nan, None, line, "")
