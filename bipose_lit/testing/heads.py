"""The contract of heads over time, clause by clause."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bipose_lit.models.base import TemporalHead
from bipose_lit.testing.clauses import MAPS, Report, built_part, not_finite, rebuilds, shape_differs, woken
from bipose_lit.types import FeatureSpec


def check_temporal_head(
    head: TemporalHead,
    spec: FeatureSpec = MAPS,
    size: tuple[int, int] = (3, 4),
    frames: int = 7,
    tolerance: float = 1e-5,
) -> None:
    """Checks a head that was not built yet against the contract of `TemporalHead`.

    Shapes; identity at the start; frames that are not valid influence nothing, whatever they hold, at the end of a
    clip and inside; clips of a batch do not see each other; `causal` and `context` are true; `step` equals `forward`;
    gradients are finite and reach every parameter; two runs are equal; float64 works; the configuration rebuilds it;
    the state dict fits the rebuilt head.

    Args:
        head: as its constructor makes it; it is copied.
        spec: features to build it for.
        size: height and width of the map; (1, 1) for a head of the `pool` slot.
        frames: length of the test clips.
        tolerance: largest difference, relative to features of unit variance, that counts as equal in float64 (times 10
            in float32).

    Raises:
        AssertionError: lists every broken clause.
    """
    report = Report(head)
    draw = torch.Generator().manual_seed(0)
    B, T, (h, w) = 3, frames, size
    x = torch.randn(B, T, spec.channels, h, w, generator=draw, dtype=torch.float64)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, T - 2 :] = False
    valid[2, 1] = valid[2, T - 1] = False
    gaps = valid[:, :, None, None, None]

    fresh = built_part(copy.deepcopy(head), lambda part: part.build(spec)).double().eval()
    awake = woken(fresh, draw)

    def run(module: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(features, mask)
        return out

    def differs(a: Tensor, b: Tensor, what: str) -> str | None:
        off = float((a - b).abs().max()) if a.numel() else 0.0
        return None if off <= tolerance else f"{what} differ by {off:.2g}"

    report.clause("the output has the features' shape", lambda: shape_differs(run(fresh, x, valid), x.shape))
    report.clause(
        "an untrained head is the identity on valid frames (its last layer starts at zero)",
        lambda: differs(run(fresh, x, valid)[valid], x[valid], "output and features"),
    )
    report.clause(
        "the head does something once trained",
        lambda: (
            None
            if differs(run(awake, x, valid)[valid], x[valid], "")
            else "random weights leave the features unchanged"
        ),
    )
    report.clause(
        "the output is zero where a frame is not valid",
        lambda: None if not run(awake, x, valid)[~valid].any() else "it is not",
    )

    def padding() -> str | None:
        base = run(awake, x, valid)
        for filler in (1e3, float("nan")):
            wrong = differs(
                run(awake, torch.where(gaps, x, filler), valid)[valid], base[valid], f"outputs with {filler} there"
            )
            nan = torch.isnan(run(awake, torch.where(gaps, x, filler), valid)).any()
            if wrong or nan:
                return wrong or "NaN in such a frame reaches the output"
        return None

    report.clause("frames that are not valid influence nothing", padding)

    def longer() -> str | None:
        extra = torch.randn(1, 3, spec.channels, h, w, generator=draw, dtype=torch.float64)
        padded = torch.cat([x[:1], extra], dim=1)
        mask = torch.cat([torch.ones(1, T, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)], dim=1)
        return differs(run(awake, padded, mask)[:, :T], run(awake, x[:1], valid[:1]), "a clip alone and padded")

    report.clause("padding at the end changes nothing", longer)
    report.clause(
        "clips of a batch do not see each other",
        lambda: differs(
            torch.cat([run(awake, x[b : b + 1], valid[b : b + 1]) for b in range(B)]),
            run(awake, x, valid),
            "one by one and together",
        ),
    )
    report.clause("a batch without any valid frame works", lambda: not_finite(run(awake, x, torch.zeros_like(valid))))
    report.clause("a clip of one frame works", lambda: not_finite(run(awake, x[:, :1], valid[:, :1])))

    past, future = head.context
    report.clause(
        "causal and context agree",
        lambda: None if head.causal == (future == 0) else f"causal is {head.causal}, context {head.context}",
    )

    def reach() -> str | None:
        every = torch.ones_like(valid[:1])
        base = run(awake, x[:1], every)
        for s in range(T):
            moved = x[:1].clone()
            moved[:, s] += 1.0
            touched = (
                ((run(awake, moved, every) - base).abs().amax((0, 2, 3, 4)) > tolerance * 1e-3).nonzero().flatten()
            )
            for t in touched.tolist():
                if (future is not None and s - t > future) or (past is not None and t - s > past):
                    return f"frame {s} changes the output of frame {t}, beyond context {head.context}"
        return None

    report.clause("context is true", reach)

    def stepping() -> str | None:
        every = torch.ones_like(valid)
        wanted = run(awake, x, every)
        with torch.no_grad():
            state = awake.init_state(x[:, 0])
            for t in range(T):
                out, state = awake.step(x[:, t], state)
                wrong = differs(out, wanted[:, t], f"at frame {t}, step and forward")
                if wrong:
                    return wrong
        return None

    if head.causal:
        report.clause("step equals forward frame by frame", stepping)

    def gradients() -> str | None:
        module = copy.deepcopy(awake).train()
        features = x.clone().requires_grad_()
        module(features, valid)[valid].square().sum().backward()
        missing = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
        broken = [n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
        if features.grad is None or not torch.isfinite(features.grad).all():
            broken.append("the features")
        if features.grad is not None and features.grad[~valid].any():
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
        module = copy.deepcopy(awake).float()
        off = float((run(module, x.float(), valid).double() - run(awake, x, valid)).abs().max())
        return None if off < 1e3 * tolerance else f"float32 is off by {off:.2g}"

    report.clause("float32 and float64 agree", single)
    report.clause(
        "the configuration is plain data and rebuilds the head", lambda: rebuilds(head, fresh, lambda p: p.build(spec))
    )
    report.close()
