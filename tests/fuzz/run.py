"""Feeds broken files to every reader and protocol, each case in a process of its own.

    python tests/fuzz/run.py --cases 10000 --workers 2          (`make fuzz`)
    python tests/fuzz/run.py --only coco --first 421 --cases 1  (one case again, with its traceback)

A case is a number: it breaks one file of a small good set and reads the set. Good ends are a BiposeError, and an index
without a single number that is not usable. Everything else is a finding: another exception, a warning of arithmetic, a
signal, more than LIMIT_S seconds or LIMIT_MB of memory, a number that should not be there.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
from mutate import break_file
from targets import TARGETS, Target, UnusableNumberError

from bipose_lit.types import BiposeError

LIMIT_S, LIMIT_MB = 20, 1024
MARK = Path("/tmp/bipose-fuzz-executed")
"""What a hostile pickle of `mutate` would write, were it executed."""


def run_case(target: Target, template: Path, place: Path, number: int) -> dict[str, str]:
    """Breaks and reads; runs in the child."""
    rng = np.random.default_rng([number, *target.name.encode()])
    root = place / "set"
    shutil.copytree(template, root)
    files = target.breakable(root)
    chosen = files[int(rng.integers(len(files)))]
    break_file(chosen, rng)
    what = chosen.relative_to(root).as_posix()
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", RuntimeWarning)  # overflow, NaN from nowhere
    try:
        skipped = target.read(root)
    except BiposeError as error:
        text = str(error)
        if not text.strip() or len(text) > 2000:
            return {"end": "unclear error", "file": what, "text": text[:300]}
        return {"end": "error", "file": what, "text": text}
    except UnusableNumberError as error:
        return {"end": "wrong numbers", "file": what, "text": str(error)}
    except BaseException as error:
        return {"end": f"traceback {type(error).__name__}", "file": what, "text": traceback.format_exc()}
    if MARK.exists():
        return {"end": "executed", "file": what, "text": "a pickle was executed"}
    return {"end": "skip" if skipped else "read", "file": what, "text": ""}


def isolated(target: Target, template: Path, number: int) -> dict[str, str]:
    """One case in a forked child with limits on time and memory."""
    with tempfile.TemporaryDirectory(prefix="bipose-fuzz-") as place:
        inward, outward = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(inward)
                os.setsid()
                devnull = os.open(os.devnull, os.O_RDWR)
                os.dup2(devnull, 1)
                os.dup2(devnull, 2)  # codecs of video complain there
                used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
                limit = used + LIMIT_MB * 2**20
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                os.environ["BIPOSE_CACHE"] = f"{place}/cache"
                try:
                    found = run_case(target, template, Path(place), number)
                except BaseException:  # the fuzzer's own
                    found = {"end": "fuzzer failed", "file": "", "text": traceback.format_exc()}
                found["text"] = found["text"][-4000:]
                os.write(outward, json.dumps(found).encode())
            finally:
                os._exit(0)
        os.close(outward)
        deadline = time.monotonic() + LIMIT_S
        data = b""
        os.set_blocking(inward, False)
        while time.monotonic() < deadline:
            try:
                piece = os.read(inward, 65536)
            except BlockingIOError:
                time.sleep(0.002)
                continue
            if not piece:
                break
            data += piece
        else:
            os.killpg(child, signal.SIGKILL)
        os.close(inward)
        _, status = os.waitpid(child, 0)
        if data:
            return dict(json.loads(data))
        if os.WIFSIGNALED(status):
            hung = os.WTERMSIG(status) == signal.SIGKILL and time.monotonic() >= deadline
            return {"end": "hang" if hung else f"signal {os.WTERMSIG(status)}", "file": "", "text": ""}
        return {"end": "silent end", "file": "", "text": ""}


def fuzz(
    cases: int, first: int = 0, only: str = "", step: int = 1, offset: int = 0
) -> tuple[collections.Counter, list[dict]]:
    """Runs cases FIRST to FIRST + CASES in turn over the targets; returns ends by target and the findings."""
    targets = [t for t in TARGETS if not only or t.name in only.split(",")]
    if not targets:
        raise SystemExit(f"no target {only}; there are {', '.join(t.name for t in TARGETS)}")
    MARK.unlink(missing_ok=True)
    counts: collections.Counter = collections.Counter()
    findings: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="bipose-fuzz-good-") as good:
        for target in targets:
            root = Path(good) / target.name
            root.mkdir()
            target.make(root)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                if target.read(root) and not target.told:
                    raise SystemExit(f"{target.name}: the good set is not read without a skip: {target.read(root)}")
        for number in range(first + offset, first + cases, step):
            target = targets[number % len(targets)]
            found = isolated(target, Path(good) / target.name, number)
            counts[target.name, found["end"]] += 1
            if found["end"] not in ("error", "skip", "read"):
                findings.append({"target": target.name, "number": number, **found})
    return counts, findings


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pipes = []
    for offset in range(args.workers):
        inward, outward = os.pipe()
        if not os.fork():
            counts, findings = fuzz(args.cases, args.first, args.only, args.workers, offset)
            with os.fdopen(outward, "w") as file:
                json.dump([[[*key, n] for key, n in counts.items()], findings], file)
            os._exit(0)
        os.close(outward)
        pipes.append(inward)
    counts: collections.Counter = collections.Counter()
    findings: list[dict] = []
    for inward in pipes:
        with os.fdopen(inward) as file:
            text = file.read()
        if not text:
            print("a worker of the fuzzer itself died", file=sys.stderr)
            return 1
        part, found = json.loads(text)
        counts.update({(name, end): n for name, end, n in part})
        findings += found
    for name in sorted({name for name, _ in counts}):
        print(f"{name:<22}", ", ".join(f"{end} {n}" for (t, end), n in sorted(counts.items()) if t == name))
    total = sum(counts.values())
    kinds = collections.Counter(f["end"] for f in findings)
    print(f"{total} cases: {len(findings)} findings {dict(kinds) or ''}")
    for found in findings[:40]:
        again = f"--only '{found['target']}' --first {found['number']} --cases 1"
        print(f"\n{again}: {found['end']} from {found['file']}\n{found['text'][-1500:]}")
    if args.json:
        args.json.write_text(
            json.dumps({"cases": total, "counts": [[*k, n] for k, n in counts.items()], "findings": findings})
        )
    return 1 if findings or total < args.cases else 0


if __name__ == "__main__":
    sys.exit(main())
