"""What the contract checks share: collecting broken clauses, building, rebuilding, waking a zero-initialised head."""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from bipose_lit.models.base import Part
from bipose_lit.models.rebuild import instantiate
from bipose_lit.types import FeatureSpec

P = TypeVar("P", bound=Part)
MAPS = FeatureSpec(12, 32)


class Report:
    """Runs clauses and collects those that break, an exception inside a clause being a break too."""

    def __init__(self, part: object) -> None:
        self.part, self.broken = type(part).__name__, list[str]()

    def clause(self, promise: str, check: Callable[[], str | None]) -> None:
        try:
            wrong = check()
        except Exception as error:  # whatever a stranger's code raises is part of the answer
            where = traceback.extract_tb(error.__traceback__)[-1]
            wrong = f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"
        if wrong:
            self.broken.append(f"- {promise}: {wrong}")

    def close(self) -> None:
        if self.broken:
            raise AssertionError(f"{self.part} breaks {len(self.broken)} clause(s):\n" + "\n".join(self.broken))


def built_part(part: P, build: Callable[[P], None]) -> P:
    """Builds with a stream of its own, so that a check draws nothing from the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build(part)
    return part


def woken(head: P, draw: torch.Generator) -> P:
    """A copy with its zero-initialised weights replaced, as after some training."""
    other = copy.deepcopy(head)
    for parameter in other.parameters():
        if not parameter.detach().any():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype) * 0.3)
    return other


def rebuilds(part: P, built: nn.Module, build: Callable[[P], None] | None) -> str | None:
    config = part.config()
    if json.loads(json.dumps(config)) != config:
        return f"{config} changes on its way through JSON"
    again = instantiate(config)
    if again.config() != config:
        return f"{config} comes back as {again.config()}"
    if build is not None:
        built_part(again, build)
    try:
        again.to(next((p.dtype for p in built.parameters()), torch.float32)).load_state_dict(built.state_dict())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def shape_differs(out: Tensor, expected: torch.Size) -> str | None:
    return None if out.shape == expected else f"it is {list(out.shape)}, expected {list(expected)}"


def not_finite(out: Tensor) -> str | None:
    return None if torch.isfinite(out).all() else "the output is not finite"
