"""Configuration files to objects: LightningCLI for people, `resolve` and `build` for the engine. Defines no component."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import lightning.pytorch as L
from jsonargparse import ArgumentError, Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from bipose_lit import losses
from bipose_lit.callbacks.checkpoint_io import FOLDER as CHECKPOINTS
from bipose_lit.callbacks.checkpoint_io import newest, with_checkpoint_io
from bipose_lit.callbacks.checkpoints import Resume
from bipose_lit.callbacks.guard import explained
from bipose_lit.callbacks.preemption import Signals
from bipose_lit.callbacks.step_seeds import StepSeeds
from bipose_lit.cli_errors import explain, read_configs
from bipose_lit.codecs import heatmap, regression, simcc
from bipose_lit.compatibility import check_asked
from bipose_lit.datamodule import PoseDataModule
from bipose_lit.datamodule_base import SeededData
from bipose_lit.datasets import jhmdb, penn, pixel
from bipose_lit.datasets.index import Reader
from bipose_lit.losses import rle
from bipose_lit.memory import reuse_freed_memory
from bipose_lit.models.backbones import classic, hog, plain_vit, timm_backbone
from bipose_lit.models.base import plain
from bipose_lit.models.decoders import cpm, deconv, hourglass, part_filters, recurrent
from bipose_lit.models.decoders import regression as regression_decoder
from bipose_lit.models.decoders import simcc as simcc_decoder
from bipose_lit.models.structured import crf, pictorial
from bipose_lit.models.temporal import attention, controls, conv_lstm, film, joint_lstm, lstm_pm, spatial, st_lstm
from bipose_lit.module import PoseModule
from bipose_lit.scene_datamodule import SceneDataModule
from bipose_lit.scene_module import SceneModule
from bipose_lit.tracking import continuing
from bipose_lit.types import BiposeError

BUILT_IN = (
    timm_backbone, hog, classic, plain_vit, conv_lstm, controls, attention, film, spatial, joint_lstm, st_lstm, lstm_pm,
    pictorial, crf, deconv, part_filters, regression_decoder, simcc_decoder, hourglass, cpm, recurrent, heatmap, regression,
    simcc, losses, rle, jhmdb, penn, pixel,
)  # fmt: skip
"""Modules of the parts that come with bipose; imported, so that bare names work as options (--model.temporal ConvLSTM)."""

TASKS: dict[str, tuple[type[PoseModule], type[SeededData]]] = {
    "persons": (PoseModule, PoseDataModule),
    "scenes": (SceneModule, SceneDataModule),
}
"""What a configuration is of: single persons in boxes, or whole images with all their people."""

SIGNALS = Signals()
_log = logging.getLogger(__name__)
os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class PoseCLI(LightningCLI):
    """The links that spare a configuration from saying a number twice, and checkpoints from which training goes on exactly."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_lightning_class_args(Resume, "checkpoint")
        _link(parser)

    def instantiate_classes(self) -> None:
        anew = self.subcommand == "fit" and not self.config["fit"].get("ckpt_path")
        options = self.config[self.subcommand] if self.subcommand else self.config
        with one_line_errors(values=True, task=_task([options])), continuing(not anew):
            super().instantiate_classes()
        if self.subcommand is None:
            return
        chosen = self.config_init[self.subcommand]
        if chosen.get("ckpt_path") == "last":
            chosen.ckpt_path = self._last()
        if self.subcommand != "fit" and chosen.get("ckpt_path"):
            self.model.expect_checkpoint()

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Adds what makes a fit one that can be stopped at any time."""
        chosen = self.config_init[str(self.subcommand)]
        check_asked(chosen.trainer.as_dict())
        resume: Resume = chosen.checkpoint
        resume.signals = SIGNALS
        if chosen.trainer.get("enable_checkpointing") is False:
            resume.enabled, kwargs["enable_checkpointing"] = False, None
        own = chosen.trainer.get("callbacks") or []
        kwargs["callbacks"] = [*(own if isinstance(own, list) else [own]), StepSeeds()]
        kwargs["plugins"] = with_checkpoint_io(chosen.trainer.get("plugins"))
        return super().instantiate_trainer(**kwargs)

    def _last(self) -> str | None:
        """The newest whole checkpoint below the folder of the run; None, with a word about it, to start from the beginning."""
        folder = Path(self.trainer.default_root_dir) / CHECKPOINTS
        found = newest(folder)
        if found is None and any(isinstance(c, ModelCheckpoint) for c in self.trainer.checkpoint_callbacks):
            return "last"  # theirs, as Lightning looks for it
        if found is None and self.subcommand != "fit":
            raise BiposeError(f"ckpt_path=last: there is no whole checkpoint in {folder}; give the path of one")
        if found is None:
            _log.warning("ckpt_path=last: no whole checkpoint in %s; training starts from the beginning", folder)
        return None if found is None else str(found)


def _link(parser: LightningArgumentParser) -> None:
    parser.add_argument(
        "--task", type=Literal["persons", "scenes"], default="persons", help="persons in boxes or whole images"
    )
    parser.link_arguments("data.size", "model.size")
    parser.link_arguments("seed_everything", "data.seed", compute_fn=int)


class KeepConfig(SaveConfigCallback):
    """config.yaml beside the checkpoints: in the trainer's default_root_dir, once, whatever the logger thinks its folder is."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or stage != "fit":
            return
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.parser.save(self.config, folder / "config.yaml", skip_none=False, overwrite=True, multifile=False)


def main(args: Sequence[str] | None = None) -> None:
    """`bipose fit | validate | test | predict`: LightningCLI with one-line errors.

    Raises:
        BiposeError: an option, a value or a file is wrong.
        Preempted: SIGTERM or SIGUSR1 stopped a fit, with a checkpoint that ckpt_path=last finds.
    """
    given = list(sys.argv[1:] if args is None else args)
    reuse_freed_memory()
    configs = read_configs(_config_files(given))
    task = _task(configs.values(), given)
    with one_line_errors(configs, task=task), _without_advertisements(), _watched(given), explained():
        kind = _cli_of(given[0] if given else "")
        kind(
            *TASKS[task],
            args=None if given == sys.argv[1:] else given,
            save_config_callback=KeepConfig,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, **{c: {"exit_on_error": False} for c in kind.subcommands()}},
        )


def _cli_of(command: str) -> type[PoseCLI]:
    """The command line with the parser of one command: Lightning's own makes those of all four."""
    skipped = LightningCLI.subcommands()
    if command not in skipped:
        return PoseCLI
    return type("PoseCLI", (PoseCLI,), {"subcommands": staticmethod(lambda: {command: skipped[command]})})


def _watched(args: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """Signals are heeded while something is trained; what only scores ends by them as any program."""
    return SIGNALS.watch() if args and args[0] == "fit" else contextlib.nullcontext()


def _config_files(args: Sequence[str]) -> list[Path]:
    """The files behind -c and --config, in their order."""
    found = []
    for word, following in zip(args, [*args[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in ("-c", "--config") and (equals or following):
            found.append(Path(value if equals else following))
    return found


def _task(configs: Iterable[Mapping[str, Any]], args: Sequence[str] = ()) -> str:
    """The task of a command: the option --task, else what the last file that names one says.

    The options of model and data depend on it, so it is looked for before they are read.

    Raises:
        BiposeError: no such task.
    """
    named = [config["task"] for config in configs if "task" in config]
    for word, following in pairwise([*args, ""]):
        name, equals, value = word.partition("=")
        if name == "--task":
            named.append(value if equals else following)
    task = str(named[-1]) if named else "persons"
    if task not in TASKS:
        raise BiposeError(f"task takes one of {', '.join(TASKS)}, not {task!r}")
    return task


def make_parser(task: str = "persons") -> LightningArgumentParser:
    """The parser of `bipose fit`, without the command."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(L.Trainer, "trainer")
    model, data = TASKS[task]
    parser.add_lightning_class_args(model, "model")
    parser.add_lightning_class_args(data, "data")
    parser.add_lightning_class_args(Resume, "checkpoint")
    _link(parser)
    return parser


def resolve(files: Sequence[Path], overrides: Mapping[str, Any] | Sequence[str] = ()) -> dict[str, Any]:
    """Merges configuration files left to right, then overrides, and checks every option against its type.

    Args:
        files: YAML files as `bipose fit -c` takes them.
        overrides: dotted options, as a mapping ({"model.recipe.lr": 0.1}) or as arguments (["--model.recipe.lr=0.1"]).

    Returns:
        The complete configuration as plain data; nothing is built.

    Raises:
        BiposeError: a missing file, broken YAML, an unknown option or class, a value of the wrong type.
    """
    configs = read_configs(Path(file) for file in files)
    args = [f"--config={file}" for file in configs]
    if isinstance(overrides, Mapping):
        import yaml

        for key, value in overrides.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10**9).strip().removesuffix("\n...")
            args.append(f"--{key}={text}")
    else:
        args.extend(overrides)
    task = _task(configs.values(), args)
    parser = make_parser(task)
    with one_line_errors(configs, task=task):
        config = parser.parse_args(args)
        config.pop("config", None)
    if task == "persons":
        config.pop("task", None)  # what is usual is not said, so that older results stay valid
    return dict(plain(config.as_dict()))


def build(config: Mapping[str, Any]) -> tuple[PoseModule, Any, dict[str, Any]]:
    """Model and data of a resolved configuration, and the Trainer's arguments.

    Raises:
        BiposeError: as `resolve`, and whatever the parts complain about.
    """
    task = _task([config])
    parser = make_parser(task)
    with one_line_errors(values=True, task=task), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {k: v for k, v in config.items() if k not in ("trainer", "config")}
        namespace = parser.parse_object(wanted)
        trainer = namespace.pop("trainer", None)
        del trainer
        objects = parser.instantiate(Namespace(model=namespace.model, data=namespace.data))
    return objects.model, objects.data, dict(config.get("trainer") or {})


@contextlib.contextmanager
def one_line_errors(
    configs: Mapping[Path, Mapping[str, Any]] | None = None, values: bool = False, task: str = "persons"
) -> Iterator[None]:
    """Turns the parser's errors into one clear line; with `values` also what constructors say of their arguments.

    Args:
        configs: content of the configuration files, so that the line can name the one with the mistake.
        values: set while objects are built.
        task: whose options are meant.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    except ArgumentError as error:
        raise BiposeError(explain(str(error), _options(task), _choices(task), configs)) from error
    except (ValueError, ImportError, MisconfigurationException) as error:
        if not values:
            raise
        raise BiposeError(explain(str(error), _options(task), _choices(task), configs)) from error


@cache
def _options(task: str) -> tuple[str, ...]:
    """Dotted names of all options."""
    return tuple(a.dest for a in make_parser(task)._actions if a.dest)


@cache
def _choices(task: str) -> dict[str, list[str]]:
    """Names of the built-in classes for every option that takes one."""
    found: dict[str, list[str]] = {}
    classes = [
        value
        for module in BUILT_IN
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__ and not value.__name__.startswith("_")
    ]
    for group, owner in zip(("model", "data"), TASKS[task], strict=True):
        for name, hint in get_type_hints(owner.__init__).items():
            for kind in (hint, *get_args(hint)):
                if not inspect.isclass(kind) or kind.__module__.split(".")[0] != "bipose_lit":
                    continue
                if kind is Reader:  # a protocol: readers fit by what they have, and a bare name is not enough
                    fits = [
                        f"{c.__module__}.{c.__name__}"
                        for c in classes
                        if hasattr(c, "index") and hasattr(c, "skeleton")
                    ]
                else:
                    fits = [c.__name__ for c in classes if c is not kind and kind in c.__mro__]
                if fits:
                    found.setdefault(f"{group}.{name}", []).extend(fits)
    return found


@contextlib.contextmanager
def _without_advertisements() -> Iterator[None]:
    """Keeps Lightning's tips for other products, and its advice that does not apply here, off the screen."""

    def useful(record: logging.LogRecord) -> bool:
        return "Tip: For seamless" not in record.getMessage()

    loggers = [logging.getLogger(f"lightning.pytorch.{name}") for name in ("utilities.rank_zero", "trainer")]
    for logger in loggers:
        logger.addFilter(useful)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*overridden `transfer_batch_to_device`")
            warnings.filterwarnings(
                "ignore", message=".*recommended to use `self.log"
            )  # all processes hold the same numbers
            warnings.filterwarnings(
                "ignore", message=".*WeightAveraging callback with a model that overrides the configure"
            )
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\)")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(useful)
