"""The clauses that everything over time keeps, be it a head on features or a refiner of predictions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bipose_lit.models.base import State
from bipose_lit.testing.clauses import Report, not_finite, rebuilds, shape_differs, woken

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class OverTime:
    """How to run and to name one kind of part over time.

    Attributes:
        kind: "head" or "refiner".
        inputs: names of what it reads, each (B, T, ...) or, in a step, (B, ...); the output has the shape of the first.
        build: makes its layers.
        run: part, inputs and (B, T) mask to the output.
        start: part and inputs of a frame to the state before the first frame.
        step: part, inputs of a frame and state to output and state.
    """

    kind: str
    inputs: tuple[str, ...]
    build: Callable[[Any], None]
    run: Callable[[Any, Inputs, Tensor], Tensor]
    start: Callable[[Any, Inputs], State]
    step: Callable[[Any, Inputs, State], tuple[Tensor, State]]


def check_over_time(
    report: Report,
    part: Any,
    fresh: Any,
    how: OverTime,
    draw: torch.Generator,
    shapes: tuple[tuple[int, ...], ...],
    frames: int,
    tolerance: float,
    identity: bool = True,
) -> None:
    """Adds every broken clause to the report.

    Args:
        report: of the part.
        part: as its constructor made it.
        fresh: a built copy in float64, in eval mode.
        how: to run it.
        draw: of all random numbers.
        shapes: of each input in one frame.
        frames: length of the clips.
        tolerance: largest difference that counts as equal in float64.
        identity: an untrained part hands its first input on unchanged; if not, it must not.
    """
    B, T = 3, frames
    x = tuple(torch.randn(B, T, *shape, generator=draw, dtype=torch.float64) for shape in shapes)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, T - 2 :] = False
    valid[2, 1] = valid[2, T - 1] = False
    awake = woken(fresh, draw)
    kind, residual_to = how.kind, how.inputs[0]

    def run(module: nn.Module, inputs: Inputs, mask: Tensor) -> Tensor:
        with torch.no_grad():
            return how.run(module, inputs, mask)

    def differs(a: Tensor, b: Tensor, what: str) -> str | None:
        off = float((a - b).abs().max()) if a.numel() else 0.0
        return None if off <= tolerance else f"{what} differ by {off:.2g}"

    def gaps(values: Tensor) -> Tensor:
        return valid.view(B, T, *[1] * (values.ndim - 2))

    report.clause(f"the output has the {residual_to}' shape", lambda: shape_differs(run(fresh, x, valid), x[0].shape))
    if identity:
        report.clause(
            f"an untrained {kind} is the identity on valid frames (its last layer starts at zero)",
            lambda: differs(run(fresh, x, valid)[valid], x[0][valid], f"output and {residual_to}"),
        )
    else:
        report.clause(
            f"a {kind} whose `identity` is False does not start as the identity",
            lambda: None if differs(run(fresh, x, valid)[valid], x[0][valid], "") else "it is: leave `identity` True",
        )
    report.clause(
        f"the {kind} does something once trained",
        lambda: (
            None
            if differs(run(awake, x, valid)[valid], x[0][valid], "")
            else f"random weights leave the {residual_to} unchanged"
        ),
    )
    report.clause(
        "the output is zero where a frame is not valid",
        lambda: None if not run(awake, x, valid)[~valid].any() else "it is not",
    )

    def padding() -> str | None:
        base = run(awake, x, valid)
        for filler in (1e3, float("nan")):
            out = run(awake, tuple(torch.where(gaps(v), v, filler) for v in x), valid)
            wrong = differs(out[valid], base[valid], f"outputs with {filler} there")
            if wrong or torch.isnan(out).any():
                return wrong or "NaN in such a frame reaches the output"
        return None

    report.clause("frames that are not valid influence nothing", padding)

    def longer() -> str | None:
        padded = tuple(torch.cat([v[:1], torch.randn(1, 3, *v.shape[2:], generator=draw).to(v)], dim=1) for v in x)
        mask = torch.cat([torch.ones(1, T, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)], dim=1)
        alone = tuple(v[:1] for v in x)
        return differs(run(awake, padded, mask)[:, :T], run(awake, alone, valid[:1]), "a clip alone and padded")

    report.clause("padding at the end changes nothing", longer)
    report.clause(
        "clips of a batch do not see each other",
        lambda: differs(
            torch.cat([run(awake, tuple(v[b : b + 1] for v in x), valid[b : b + 1]) for b in range(B)]),
            run(awake, x, valid),
            "one by one and together",
        ),
    )
    report.clause("a batch without any valid frame works", lambda: not_finite(run(awake, x, torch.zeros_like(valid))))
    report.clause("a clip of one frame works", lambda: not_finite(run(awake, tuple(v[:, :1] for v in x), valid[:, :1])))

    past, future = part.context
    report.clause(
        "causal and context agree",
        lambda: None if part.causal == (future == 0) else f"causal is {part.causal}, context {part.context}",
    )

    def reach() -> str | None:
        every, own = torch.ones_like(valid[:1]), tuple(v[:1] for v in x)
        base = run(awake, own, every)
        for number in range(len(x)):
            for s in range(T):
                moved = [v.clone() for v in own]
                moved[number][:, s] = moved[number][:, s].flip(-1) + 1.0  # a sum alone may not see a constant
                off = (run(awake, tuple(moved), every) - base).abs().flatten(2).amax((0, 2))
                for t in (off > tolerance * 1e-3).nonzero().flatten().tolist():
                    if (future is not None and s - t > future) or (past is not None and t - s > past):
                        return f"frame {s} changes the output of frame {t}, beyond context {part.context}"
        return None

    report.clause("context is true", reach)

    def stepping() -> str | None:
        wanted = run(awake, x, torch.ones_like(valid))
        with torch.no_grad():
            state = how.start(awake, tuple(v[:, 0] for v in x))
            for t in range(T):
                out, state = how.step(awake, tuple(v[:, t] for v in x), state)
                wrong = differs(out, wanted[:, t], f"at frame {t}, step and forward")
                if wrong:
                    return wrong
        return None

    def starting() -> str | None:
        one, other = (how.start(awake, tuple(v[:, t] for v in x)) for t in (0, 1))
        same = len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        return None if same else "it reads the frame"

    if part.causal:
        report.clause("step equals forward frame by frame", stepping)
        report.clause("the state before the first frame depends on shapes alone", starting)

    def gradients() -> str | None:
        module = copy.deepcopy(awake).train()
        inputs = tuple(v.clone().requires_grad_() for v in x)
        torch.autograd.backward(how.run(module, inputs, valid)[valid].square().sum())
        missing = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
        broken = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        broken += [
            f"the {name}"
            for name, v in zip(how.inputs, inputs, strict=True)
            if v.grad is not None and not torch.isfinite(v.grad).all()
        ]
        if all(v.grad is None for v in inputs):
            return f"none reaches the {' or the '.join(how.inputs)}"
        if any(v.grad is not None and v.grad[~valid].any() for v in inputs):
            return "frames that are not valid get a gradient"
        if missing:
            return f"no gradient reaches {', '.join(missing)} (DDP would fail)"
        return f"gradients of {', '.join(broken)} are not finite" if broken else None

    report.clause("gradients are finite and reach every parameter", gradients)
    report.clause(
        "two runs are equal to the bit",
        lambda: None if torch.equal(run(awake, x, valid), run(awake, x, valid)) else "they are not",
    )

    def single() -> str | None:
        out = run(copy.deepcopy(awake).float(), tuple(v.float() for v in x), valid)
        off = float((out.double() - run(awake, x, valid)).abs().max())
        return None if off < 1e3 * tolerance else f"float32 is off by {off:.2g}"

    report.clause("float32 and float64 agree", single)
    report.clause(f"the configuration is plain data and rebuilds the {kind}", lambda: rebuilds(part, fresh, how.build))
