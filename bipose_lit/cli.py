"""Configuration files to objects: LightningCLI for people, `resolve` and `build` for the ablation engine. Defines no component."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as L
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from bipose_lit.datamodule import PoseDataModule
from bipose_lit.module import PoseModule
from bipose_lit.types import BiposeError

os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


class PoseCLI(LightningCLI):
    """The links that spare a configuration from saying the same number twice."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.size", "model.size")


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
    """
    with one_line_errors():
        PoseCLI(
            PoseModule,
            PoseDataModule,
            args=list(args) if args is not None else sys.argv[1:],
            save_config_callback=KeepConfig,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False, **{c: {"exit_on_error": False} for c in COMMANDS}},
        )


COMMANDS = ("fit", "validate", "test", "predict")


def make_parser() -> LightningArgumentParser:
    """The parser of `bipose fit`, without the command."""
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_lightning_class_args(L.Trainer, "trainer")
    parser.add_lightning_class_args(PoseModule, "model")
    parser.add_lightning_class_args(PoseDataModule, "data")
    parser.link_arguments("data.size", "model.size")
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
    args: list[str] = []
    for file in files:
        if not Path(file).is_file():
            raise BiposeError(f"configuration {file} not found")
        args.append(f"--config={file}")
    if isinstance(overrides, Mapping):
        import yaml

        for key, value in overrides.items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10**9).strip().removesuffix("\n...")
            args.append(f"--{key}={text}")
    else:
        args.extend(overrides)
    parser = make_parser()
    with one_line_errors():
        config = parser.parse_args(args)
        config.pop("config", None)
        plain = config.as_dict()
    return plain if isinstance(plain, dict) else dict(plain)


def build(config: Mapping[str, Any]) -> tuple[PoseModule, PoseDataModule, dict[str, Any]]:
    """Model and data of a resolved configuration, and the Trainer's arguments.

    Raises:
        BiposeError: as `resolve`, and whatever the parts complain about.
    """
    parser = make_parser()
    with one_line_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = {k: v for k, v in config.items() if k not in ("trainer", "config")}
        namespace = parser.parse_object(wanted)
        trainer = namespace.pop("trainer", None)
        del trainer
        objects = parser.instantiate(Namespace(model=namespace.model, data=namespace.data))
    return objects.model, objects.data, dict(config.get("trainer") or {})


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns the parser's and the parts' errors into one clear line."""
    noise = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            yield
    except ArgumentError as error:
        raise BiposeError(_explain(str(error))) from error
    finally:
        del noise


def _explain(message: str) -> str:
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    inner = re.search(r"BiposeError: (.*)", message)
    if inner:
        return inner.group(1)
    text = " ".join(lines)
    unknown = re.search(r"(?:Key|Option|Unrecognized arguments?:?|option) '?-*([\w.]+)'?", text)
    if unknown:
        hint = _closest(unknown.group(1))
        if hint:
            text += f"; did you mean {hint}?"
    return text if len(text) <= 600 else text[:600] + " ..."


def _closest(key: str) -> str:
    known = [a.dest for a in make_parser()._actions if a.dest]
    names = {name.split(".")[-1]: name for name in known}
    found = difflib.get_close_matches(key, known, 1, 0.7) or [
        names[m] for m in difflib.get_close_matches(key.split(".")[-1], list(names), 1, 0.7)
    ]
    return found[0] if found else ""
