"""The `bipose` command: a thin front that imports what a sub-command needs when it is called, so that help comes at once."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from bipose_lit import __version__
from bipose_lit.ablation.arguments import add_ablate
from bipose_lit.dashboard import add_dashboard
from bipose_lit.datasets.arguments import add_data_commands, names
from bipose_lit.evaluate.arguments import add_evaluate
from bipose_lit.published.arguments import add_import
from bipose_lit.sweep.arguments import add_sweep
from bipose_lit.types import BiposeError, Preempted

LIGHTNING = {
    "fit": "train one model (LightningCLI: -c FILE ..., --help for all options)",
    "validate": "score a model on the validation split",
    "test": "score a model on the test split",
    "predict": "predict joints",
}
TRACEBACK = "BIPOSE_TRACEBACK"
PAPER = "paper"
HIDDEN = "run-one"


class Parser(argparse.ArgumentParser):
    """Mistakes end with one line that says what may have been meant, and status 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def options(self) -> list[str]:
        """Option names of this command."""
        return [name for action in self._actions for name in action.option_strings if name.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Prints one line and exits with 2."""
        choice = re.match(r"argument .*: invalid choice: '(.*?)' \(choose from (.*)\)", message)
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if choice:
            known = [name for name in re.findall(r"[\w-]+", choice[2]) if name != HIDDEN]
            message = f"there is no '{choice[1]}'{_near(choice[1], known)}; it is one of: {', '.join(known)}"
        elif unknown:
            word = unknown[1].split("=")[0]
            message = f"unknown option {word}{_near(word, self.options())}"
        print(f"bipose: error: {message} ('{self.prog} --help' tells more)", file=sys.stderr)
        raise SystemExit(2)


def _near(word: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, known, 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit status: 0 good, 1 failed, 2 misused, 130 interrupted.

    128 + the number of a signal (SIGTERM: 143, SIGUSR1: 138): stopped by it, and the same command goes on with what it had done.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments and arguments[0] in LIGHTNING:
            return _lightning(arguments)
        parser, leaves = make_parser()
        known, rest = parser.parse_known_args(arguments)
        if rest:
            leaves.get(getattr(known, "leaf", ""), parser).error(f"unrecognized arguments: {rest[0]}")
        known.words = arguments
        return int(known.run(known) or 0)
    except Preempted as stopped:
        if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID")):
            print(f"bipose: {stopped}", file=sys.stderr)
        return stopped.code
    except BiposeError as error:
        return _complain(" ".join(str(error).split()), error)
    except KeyboardInterrupt:
        print("bipose: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `bipose ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _complain(f"{_system(error)} (set {TRACEBACK}=1 to see where)", error)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = f"{type(error).__name__}: {lines[0] if lines else ''}"
        return _complain(f"unexpected {text} (set {TRACEBACK}=1 to see where)", error)


def _system(error: OSError) -> str:
    """What the operating system refused, and what to do, for the few refusals that a user can mend."""
    name = str(error.filename) if error.filename else ""
    at = f"{name}: " if name else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{at}the disk is full; free some space, then start the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{at}may not be read or written ({error.strerror}); check the rights or give another place"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR) and name:
        return f"{at}{(error.strerror or '').lower()}; check the path or give another place"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"unexpected {type(error).__name__}: {lines[0] if lines else ''}"


def _complain(line: str, error: Exception) -> int:
    if os.environ.get(TRACEBACK):
        import traceback

        traceback.print_exception(error)
    print(f"bipose: error: {line}", file=sys.stderr)
    return 1


def _lightning(arguments: list[str]) -> int:
    from bipose_lit.cli import main as lightning_main

    try:
        lightning_main(arguments)
    except SystemExit as stop:  # --help, --print_config, and the parser's own errors
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def make_parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser of all commands, and the parser of each command by name."""
    parser = Parser(prog="bipose", description="Human pose estimation experiments in stills and video.")
    parser.add_argument("--version", action="version", version=f"bipose {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    leaves: dict[str, Parser] = {}

    def leaf(group: Any, name: str, run: Callable[[argparse.Namespace], int], about: str, **options: Any) -> Parser:
        made: Parser = group.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".", **options)
        made.set_defaults(run=run, leaf=made.prog)
        leaves[made.prog] = made
        return made

    for name, about in LIGHTNING.items():
        commands.add_parser(name, help=about, add_help=False)
    add_ablate(leaf(commands, "ablate", _ablate, "run or resume an ablation, then report"))
    add_sweep(leaf(commands, "sweep", _sweep, "search a space of options, compare the best with baselines, report"))
    report = leaf(commands, "report", _report, "write report.html, table.md and summary.csv from result files")
    report.add_argument(
        "folder",
        type=Path,
        metavar="DIR",
        help=f"folder of one ablation or sweep (OUT/NAME); '{PAPER}': the paper's claims",
    )
    report.add_argument(
        "--runs", type=Path, metavar="OUT", help=f"with '{PAPER}': where recipes of experiments/recipes ran"
    )
    report.add_argument("--markdown", type=Path, metavar="FILE", help=f"with '{PAPER}': write the table here as well")
    data = commands.add_parser(
        "data", help="make, fetch, check and look at data", description="Make, fetch, check and look at data."
    )
    add_data_commands(data.add_subparsers(dest="action", required=True, metavar="ACTION"), leaf)
    add_evaluate(leaf(commands, "evaluate", _evaluate, "score anybody's predictions by a data set's own protocol"))
    weights = leaf(
        commands, "weights", _weights, "weights of a run's parts as one small file, for other runs to start from"
    )
    weights.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished run (OUT/NAME/ARM/seedK)")
    weights.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    weights.add_argument("--parts", type=names, default=["backbone", "decoder"], metavar="A,B,..", help="which parts")
    weights.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="of the numbers")
    add_import(leaf(commands, "import-weights", _import_weights, "published weights as ours, for model.weights"))
    codecs = leaf(commands, "codecs", _codecs, "round-trip errors and best possible scores of all codecs by crop size")
    for name in ("coco", "mpii"):
        codecs.add_argument(
            f"--{name}",
            type=Path,
            metavar="DIR",
            help=f"labels to score (default: {name}_mini in BIPOSE_REAL_DATA, else synthetic)",
        )
    codecs.add_argument("--out", type=Path, metavar="FILE.md", help="write the table here as well")
    add_dashboard(leaf(commands, "dashboard", _dashboard, "look at a sweep's or an ablation's studies in a browser"))
    leaf(commands, "doctor", _doctor, "what is installed, reachable, missing, and what to do")
    one = leaf(commands, HIDDEN, _run_one, "one run of an ablation (started by 'ablate')")
    commands._choices_actions = [a for a in commands._choices_actions if a.dest != HIDDEN]  # not for people
    one.add_argument("spec", type=Path)
    one.add_argument("--events", type=int, default=-1)
    one.add_argument("--parent", type=int, default=0)
    one.add_argument("--prepare", action="store_true")
    return parser, leaves


def _one_thread() -> None:
    """Before the first import of a numerical library: a parent that forks must not have threads."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"


def _ablate(args: argparse.Namespace) -> int:
    _one_thread()
    from bipose_lit.ablation.backend import Backend
    from bipose_lit.ablation.engine import ablate
    from bipose_lit.ablation.manifest import load_manifest

    _check_submit(args)
    code = ablate(
        args.manifest,
        workers=args.workers,
        storage=args.storage,
        out=args.out,
        plan_only=args.plan or args.submit is not None,  # mistakes are told here, not hours later in a log
        seeds=args.seeds,
        arms=args.arms,
        options=args.options,
        wandb=not args.no_wandb,
        fresh=args.fresh,
        devices=None if args.submit else args.devices,  # the cluster's machines have others than this one
        backend=Backend(report=report_folder),
    )
    return code or _submit(args, lambda: load_manifest(args.manifest).name)


def _check_submit(args: argparse.Namespace) -> None:
    if args.slurm and not args.submit:
        raise BiposeError(f"--slurm {args.slurm[0]}: nothing is submitted; add --submit slurm, or leave it out")


def _submit(args: argparse.Namespace, name: Callable[[], str]) -> int:
    """Hands the command to a cluster if it says so, after its plan has been shown."""
    if args.submit is None or args.plan:
        return 0
    from bipose_lit.ablation.slurm import submit

    return submit(args.words, name(), args.out / name(), args.slurm, args.storage)


def _sweep(args: argparse.Namespace) -> int:
    _one_thread()
    from bipose_lit.ablation.backend import Backend
    from bipose_lit.sweep.engine import sweep
    from bipose_lit.sweep.manifest import load_sweep

    _check_submit(args)
    if args.submit and args.fresh:
        raise BiposeError(
            "--fresh with --submit: every job would begin the search anew; use --fresh once without --submit"
        )
    code = sweep(
        args.manifest,
        workers=args.workers,
        storage=args.storage,
        out=args.out,
        plan_only=args.plan or args.submit is not None,
        options=args.options,
        wandb=not args.no_wandb,
        fresh=args.fresh,
        retry=args.retry,
        devices=None if args.submit else args.devices,  # the cluster's machines have others than this one
        trials=args.trials,
        backend=Backend(report=report_folder),
    )
    return code or _submit(args, lambda: load_sweep(args.manifest).name)


def report_folder(folder: Path, manifest: dict[str, Any] | None, config: dict[str, Any] | None) -> str:
    """Builds the report of one ablation or sweep; with pictures if the data of `config` can be read.

    Returns:
        The tables as text for a terminal, and where the files are.

    Raises:
        BiposeError: no finished run.
    """
    import io

    from rich.console import Console

    from bipose_lit.report.build import tracks_by_clip
    from bipose_lit.report.choose import build_any_report

    frames = train = None
    note = ""
    if config is not None:
        from bipose_lit.cli import build

        try:
            data = build(config)[1]
            frames, train = tracks_by_clip(data.index("test").tracks), data.index("train").tracks
        except BiposeError as error:
            note = f"no pictures in the report: {error}\n"
    built = build_any_report(folder, manifest, frames, train)
    terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), force_terminal=terminal, width=None if terminal else 160)
    built.show(console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue() + note


def _report(args: argparse.Namespace) -> int:
    if str(args.folder) == PAPER:
        from bipose_lit.report.paper import paper_report

        paper_report(args.runs, args.markdown)
        return 0
    if args.runs or args.markdown:
        raise BiposeError(f"--runs and --markdown go with 'bipose report {PAPER}' alone; leave them out")
    from bipose_lit.store import SPEC, RunSpec

    specs = sorted(args.folder.glob(f"*/seed*/{SPEC}"))
    config = RunSpec.load(specs[0]).config if specs else None
    print(report_folder(args.folder, None, config).rstrip())
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from bipose_lit.evaluate.command import evaluate

    names = ("engine", "oks", "min_score", "nms", "skeleton", "split", "subjects", "unit", "cameras")
    evaluate(
        args.protocol, args.annotations, args.predictions, args.json, **{name: getattr(args, name) for name in names}
    )
    return 0


def _weights(args: argparse.Namespace) -> int:
    from bipose_lit.weights import export

    print(export(args.folder, args.out, args.parts, args.dtype))
    return 0


def _import_weights(args: argparse.Namespace) -> int:
    from bipose_lit.published.command import import_weights

    config = None
    if args.configs:
        from bipose_lit.cli import resolve

        config = resolve(args.configs)
    print("\n".join(import_weights(args.file, args.source, args.out, config, args.configs)))
    return 0


def _codecs(args: argparse.Namespace) -> int:
    _one_thread()
    from bipose_lit.ceilings import codecs

    codecs(args.coco, args.mpii, args.out)
    return 0


def _dashboard(args: argparse.Namespace) -> int:
    from bipose_lit.dashboard import dashboard

    return dashboard(args.folder, args.storage, args.host, args.port)


def _doctor(args: argparse.Namespace) -> int:
    from bipose_lit.doctor import main as doctor

    return doctor()


def _run_one(args: argparse.Namespace) -> int:
    from bipose_lit.ablation.backend import Backend
    from bipose_lit.ablation.runner import run_one

    return run_one(args.spec, args.events, args.parent, args.prepare, Backend(judge=_judge))


def _judge(data: Mapping[str, Any]) -> Any:
    """What a sweep's trial is given up by, in a process of its own."""
    from bipose_lit.sweep.judge import make_judge

    return make_judge(data)


if __name__ == "__main__":
    sys.exit(main())
