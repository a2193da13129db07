"""RESULTS.md: one section per case, each with the commit and the machine that it was measured on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping

from benchmarks import CASES
from benchmarks.measure import ROOT

INTRODUCTION = """# How fast bipose is

Written by `make bench` (`python -m benchmarks`). Values are medians over rounds with (lowest..highest). What a ratio
compares was timed side by side in one run, in interleaved rounds, with the threads named in each section. Trust the
ratios: milliseconds and rates move by 15% and more from run to run on one machine, and are no promise for another.
"""


def facts(threads: int) -> str:
    """Commit with its date, machine, threads and load: what a section's numbers belong to."""
    from bipose_lit.run import commit, platform_line

    made = commit()
    day = _git("log", "-1", "--format=%cs") if made else ""
    code = f"commit {made[:10]}{'+' if made.endswith('+') else ''} of {day}" if made else "no commit known"
    note = " (+: files differ from it)" if made.endswith("+") else ""
    others = os.getloadavg()[0]
    busy = "; other work was running, so trust ratios alone" if others > 0.7 else ""
    plural = "" if threads == 1 else "s"
    return f"*{code}{note}; {platform_line()}; {threads} thread{plural}; load {others:.1f} before the start{busy}.*"


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
