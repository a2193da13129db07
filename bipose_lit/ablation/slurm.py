"""`--submit slurm`: the same command as an array job, one task a machine, whose workers join through the shared folder.

When the time of a task is nearly up, SLURM signals its script (SIGUSR1), which hands the signal on; the runs write checkpoints,
the command ends with 128 + SIGUSR1, and the script puts itself back into the cluster's queue. The next copy goes on.

Checked with stubs of sbatch, scontrol and the scheduler's environment that really run the script; a real SLURM was not at hand.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bipose_lit.ablation.storage import shown
from bipose_lit.store import atomic
from bipose_lit.types import BiposeError

NOTICE_SECONDS = 120
"""Between SLURM's signal and the end; twice what the engine gives its runs to write checkpoints."""
TURNS = 100
"""How often a task puts itself back at most: one whose time is too short to get anywhere would go on for ever."""
KEY = re.compile(r"[a-z][a-z0-9-]*")
COMMAND = (sys.executable, "-m", "bipose_lit")
OWN = ("--submit", "--slurm")

SCRIPT = """#!/bin/bash
{options}
# Written by bipose; submit it again to go on with what is left: sbatch {path}
cd {place} || exit 1
{command} &
child=$!
trap 'kill -s USR1 "$child" 2>/dev/null' USR1
trap 'kill -s TERM "$child" 2>/dev/null' TERM
while :; do  # a trapped signal ends the waiting before the command ends
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
done
if [ "$code" -eq {drained} ]; then  # it stopped for SIGUSR1 with its work kept: another turn
    if [ "${{SLURM_RESTART_COUNT:-0}}" -ge {turns} ]; then
        echo "bipose: {turns} turns are enough for a start; to go on: sbatch" {path} >&2
        exit "$code"
    fi
    job=$SLURM_JOB_ID
    [ -n "$SLURM_ARRAY_JOB_ID" ] && job="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    scontrol requeue "$job" && exit 0
    echo "bipose: could not be put back into the queue; to go on: sbatch" {path} >&2
fi
exit "$code"
"""


def submit(
    words: Sequence[str],
    name: str,
    folder: Path,
    asked: Sequence[str],
    storage: str | None = None,
    command: Sequence[str] = COMMAND,
) -> int:
    """Writes FOLDER/slurm/job.sh and hands it to sbatch; prints the job and how to look at it.

    Args:
        words: the command line after "bipose"; `--submit` and `--slurm` are left out.
        name: of the ablation or sweep.
        folder: OUT/NAME, which all machines must see.
        asked: "KEY=VALUE" or "KEY", options of sbatch over the default ones.
        storage: as it was given.
        command: what stands for "bipose".

    Returns:
        0.

    Raises:
        BiposeError: an option that cannot be one, a password, no sbatch, or its refusal.
    """
    if storage and shown(storage) != storage:
        raise BiposeError(
            "--storage: its password would stand in the job's script; put it into ~/.pgpass, which the driver reads, instead"
        )
    options = read_options(asked)
    path = folder / "slurm" / "job.sh"
    line = [*command, *without(words)]
    with atomic(path) as handle:
        handle.write(script(line, name, path.absolute(), options))
    path.chmod(0o755)
    if shutil.which("sbatch") is None:
        raise BiposeError(f"sbatch not found: wrote {path}; submit it where SLURM is: sbatch {path}")
    done = subprocess.run(["sbatch", "--parsable", str(path.absolute())], capture_output=True, text=True)
    job = done.stdout.strip().partition(";")[0]
    if done.returncode or not re.fullmatch(r"\d+", job):
        said = " ".join((done.stderr.strip() or done.stdout.strip() or "no reason").split())
        raise BiposeError(f"sbatch refused {path}: {said}; mend it by --slurm KEY=VALUE")
    print(f"submitted job {job} ({path})")
    print(f"look at it:   squeue -j {job}; tail -f {path.parent}/{job}_*.log; the same command with --plan")
    print(f"cancel it:    scancel {job}   (what is done is kept; submitting again goes on)")
    return 0


def read_options(asked: Sequence[str]) -> dict[str, str]:
    """Sbatch's options by name; a flag has the value "".

    Raises:
        BiposeError: one that has no name, or a second line.
    """
    options: dict[str, str] = {}
    for text in asked:
        key, _, value = text.strip().removeprefix("--").partition("=")
        if not KEY.fullmatch(key) or not value.isprintable():
            raise BiposeError(f"--slurm {text!r}: write KEY=VALUE as sbatch knows it, e.g. --slurm partition=gpu")
        options[key] = value
    return options


def script(line: Sequence[str], name: str, path: Path, options: Mapping[str, str]) -> str:
    """The job's script, which runs `line` in the present folder and puts itself back when time is up.

    Args:
        line: the command.
        name: of the job.
        path: where the script will lie; logs go beside it.
        options: of sbatch, over the default ones.
    """
    chosen = {
        "job-name": f"bipose-{name}",
        "array": "0-0",
        "signal": f"B:USR1@{NOTICE_SECONDS}",
        "requeue": "",
        "open-mode": "append",
        "output": str(path.parent / "%A_%a.log"),
        "ntasks": "1",
        **options,
    }
    return SCRIPT.format(
        options="\n".join(f"#SBATCH --{key}{f'={quoted(value)}' if value else ''}" for key, value in chosen.items()),
        path=shlex.quote(str(path)),
        place=shlex.quote(os.getcwd()),
        command=shlex.join(line),
        drained=128 + signal.SIGUSR1,
        turns=TURNS,
    )


def quoted(value: str) -> str:
    """A value as sbatch reads it in a script: it knows quotes, and takes a space for the end and "#" for a comment."""
    return shlex.quote(value) if re.search(r"[\s'\"\\#]", value) else value


def without(words: Sequence[str], options: Sequence[str] = OWN) -> list[str]:
    """A command line without some options and their values."""
    left: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in options)):
            left.append(word)
    return left


def leave_allocation() -> None:
    """Lets what is started here be no part of the allocation's task count.

    Lightning takes SLURM's variables for orders: it would count this one task as all processes of a run, and requeue the job
    itself on SIGUSR1. Which job this is (SLURM_JOB_ID and the like) stays readable.
    """
    for name in [n for n in os.environ if re.match(r"SLURM_(NTASKS|NPROCS|PROCID|LOCALID|NODEID|TASKS_|STEP)", n)]:
        del os.environ[name]
