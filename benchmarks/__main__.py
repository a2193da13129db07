"""`python -m benchmarks [case ...] [--quick] [--threads N] [--out FILE]`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import CASES
from benchmarks.measure import ROOT

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
LOCK = Path(tempfile.gettempdir()) / "bipose-benchmarks.lock"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs cases one after the other, each in a process of its own; returns 0, or 1 if one failed."""
    args = _arguments(argv)
    # Before the first import of a numerical library, here and in everything that is started from here.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler talks

    from bipose_lit.ablation.process import Lock

    lock = Lock(LOCK)
    if not lock.acquire(wait=False):
        print(f"benchmarks: another one is measuring ({LOCK}); wait for it", file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory(prefix="bipose-bench-") as work:
            return _run(args, Path(work))
    finally:
        lock.release()


def _run(args: argparse.Namespace, work: Path) -> int:
    from benchmarks.results import Load, render
    from bipose_lit.ablation.process import call
    from bipose_lit.types import BiposeError

    out: Path | None = args.out or (None if args.quick else RESULTS)
    failed = 0
    for position, name in enumerate(args.cases, 1):
        load = Load()
        screen = _Screen(f"[{position}/{len(args.cases)}] {name}")
        try:
            about, body = call(partial(_measured, name, work, args), screen.watch)
        except BiposeError as error:
            screen.end(f"failed: {error}")
            failed += 1
            continue
        if not body:
            screen.end(f"skipped: {about}")
            continue
        screen.end("done")
        warning = "**Quick run: the sizes are tiny and the numbers mean nothing.** " if args.quick else ""
        text = render(name, f"{warning}*{about}; {load}.*", body)
        if out is None:
            print(f"{text}\n")
        else:
            _replace(out, name, text)
    if out is not None and failed < len(args.cases):
        print(out)
    return 1 if failed else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures bipose; writes RESULTS.md.")
    shown = ", ".join(CASES)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {shown} (default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes; prints, and writes only with --out")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of torch (default 1, as the ablation's runs)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="instead of benchmarks/RESULTS.md")
    args = parser.parse_args(argv)
    unknown = [name for name in args.cases if name not in CASES]
    if unknown:
        parser.error(f"there is no case '{unknown[0]}'; it is one of: {shown}")
    if args.threads < 1:
        parser.error("--threads is 1 or more")
    args.cases = [name for name in CASES if name in args.cases] or list(CASES)
    return args


def _measured(name: str, work: Path, args: argparse.Namespace, channel: Any) -> tuple[str, str]:
    """In the case's own process: what the numbers belong to, and the section's body; or why there is none, and ""."""
    from benchmarks.results import facts
    from benchmarks.setting import Setting

    setting = Setting(work, args.quick, args.threads, lambda line: channel.send("tell", line=line))
    case = importlib.import_module(f"benchmarks.{name}")
    if reason := getattr(case, "why_not", lambda: "")():
        return reason, ""
    return facts(args.threads), case.run(setting)


def _replace(out: Path, name: str, text: str) -> None:
    from benchmarks.results import compose, parse
    from bipose_lit.store import atomic

    sections = parse(out.read_text()) if out.exists() else {}
    with atomic(out) as handle:
        handle.write(compose({**sections, name: text}))


class _Screen:
    """One line that changes on a terminal; a line per event elsewhere."""

    def __init__(self, head: str) -> None:
        self.head, self.start, self.line = head, time.monotonic(), "starting"
        self.live = sys.stderr.isatty()
        self._drawn = -1.0

    def watch(self, event: dict[str, Any]) -> None:
        """Takes an event of the measuring process; an empty one is a tick."""
        if event["event"] == "tell":
            self.line = str(event["line"])
            if not self.live:
                print(f"{self.head}: {self.line}", file=sys.stderr, flush=True)
        now = time.monotonic()
        # Drawing takes time from what is measured on a single core: twice a second is enough.
        if self.live and now - self._drawn > 0.5:
            self._drawn = now
            self._draw(self.line)

    def end(self, word: str) -> None:
        """The last line."""
        if self.live:
            self._draw(word)
            print(file=sys.stderr)
        else:
            print(f"{self.head}: {word}", file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        with contextlib.suppress(OSError):
            shown = f"{self.head} {time.monotonic() - self.start:4.0f} s  {text}"[: os.get_terminal_size(2).columns - 1]
            print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
