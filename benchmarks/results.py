"""RESULTS.md: one section per case, each with the commit and the machine that it was measured on."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import CASES
from benchmarks.measure import ROOT

INTRODUCTION = """# How fast bipose is

Written by `make bench` (`python -m benchmarks`). Values are medians over rounds with (lowest..highest). What a ratio
compares was timed side by side in one run, in interleaved rounds, with the threads named in each section. Trust the
ratios: milliseconds and rates move by 15% and more from run to run on one machine, and are no promise for another.
"""


def facts(threads: int) -> str:
    """Commit with its date, machine and threads: what a section's numbers belong to."""
    from bipose_lit.run import commit, platform_line

    made = commit()
    code = f"commit {made[:10]} of {_git('log', '-1', '--format=%cs')}" if made else "no commit known"
    note = ", with files that differ from it" if made.endswith("+") else ""
    return f"{code}{note}; {platform_line()}; {threads} thread{'' if threads == 1 else 's'}"


COUNTED = 0.1
"""Seconds; the system counts in hundredths of one, so shorter spans tell nothing."""


class Load:
    """How many cores other processes (and other guests of the host) kept busy since it was made."""

    def __init__(self) -> None:
        self._busy, self._own, self._start = _busy(), _own(), time.monotonic()

    def others(self) -> float | None:
        """Cores on average; None where the system does not tell, or within a moment. Children must have been waited for."""
        now = _busy()
        seconds = time.monotonic() - self._start
        if now is None or self._busy is None or seconds < COUNTED:
            return None
        return max(0.0, now - self._busy - (_own() - self._own)) / seconds

    def __str__(self) -> str:
        others = self.others()
        if others is None:
            return "other work on the machine unknown"
        warning = ": trust ratios alone, and those with care" if others > 0.1 else ""
        return f"other work took {others:.2f} cores meanwhile{warning}"


def _own() -> float:
    """CPU seconds of this process and the children that it has waited for."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _busy() -> float | None:
    """CPU seconds that the machine has worked since it started, time stolen by the host among them."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _wait, irq, soft, stolen = (int(w) for w in words[1:9])
    return (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def parse(text: str) -> dict[str, str]:
    """Sections of a results file by case; what is no known case is left out."""
    parts = re.split(r"^<!-- case: (\w+) -->\n", text, flags=re.M)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True) if name in CASES}


def compose(sections: Mapping[str, str]) -> str:
    """The whole file, sections in the order of `CASES`."""
    parts = [f"<!-- case: {name} -->\n{sections[name].strip()}\n" for name in CASES if name in sections]
    return "\n".join([INTRODUCTION, *parts])


def render(name: str, about: str, body: str) -> str:
    """One section with its heading."""
    title = CASES[name]
    return f"## {title[0].upper()}{title[1:]}\n\n{about}\n\n{body.strip()}"
