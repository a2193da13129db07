"""Contract checks for parts, ours and a stranger's: does a head, backbone, decoder or codec keep its promises?

    from bipose_lit.testing import check_temporal_head
    check_temporal_head(MyHead(hidden=16))

Each check raises one AssertionError that lists every broken clause, and returns None if all hold.
"""

from __future__ import annotations

import copy
import json
import traceback
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.geometry import flip_points
from bipose_lit.models.base import Backbone, Part, PoseDecoder, TemporalHead
from bipose_lit.models.rebuild import instantiate
from bipose_lit.types import FeatureSpec

P = TypeVar("P", bound=Part)
_MAPS = FeatureSpec(12, 32)


class _Report:
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


def check_temporal_head(
    head: TemporalHead,
    spec: FeatureSpec = _MAPS,
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
    report = _Report(head)
    draw = torch.Generator().manual_seed(0)
    B, T, (h, w) = 3, frames, size
    x = torch.randn(B, T, spec.channels, h, w, generator=draw, dtype=torch.float64)
    valid = torch.ones(B, T, dtype=torch.bool)
    valid[1, T - 2 :] = False
    valid[2, 1] = valid[2, T - 1] = False
    gaps = valid[:, :, None, None, None]

    fresh = _built(copy.deepcopy(head), lambda part: part.build(spec)).double().eval()
    woken = _woken(fresh, draw)

    def run(module: nn.Module, features: Tensor, mask: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(features, mask)
        return out

    def differs(a: Tensor, b: Tensor, what: str) -> str | None:
        off = float((a - b).abs().max()) if a.numel() else 0.0
        return None if off <= tolerance else f"{what} differ by {off:.2g}"

    report.clause("the output has the features' shape", lambda: _shape(run(fresh, x, valid), x.shape))
    report.clause(
        "an untrained head is the identity on valid frames (its last layer starts at zero)",
        lambda: differs(run(fresh, x, valid)[valid], x[valid], "output and features"),
    )
    report.clause(
        "the head does something once trained",
        lambda: (
            None
            if differs(run(woken, x, valid)[valid], x[valid], "")
            else "random weights leave the features unchanged"
        ),
    )
    report.clause(
        "the output is zero where a frame is not valid",
        lambda: None if not run(woken, x, valid)[~valid].any() else "it is not",
    )

    def padding() -> str | None:
        base = run(woken, x, valid)
        for filler in (1e3, float("nan")):
            wrong = differs(
                run(woken, torch.where(gaps, x, filler), valid)[valid], base[valid], f"outputs with {filler} there"
            )
            nan = torch.isnan(run(woken, torch.where(gaps, x, filler), valid)).any()
            if wrong or nan:
                return wrong or "NaN in such a frame reaches the output"
        return None

    report.clause("frames that are not valid influence nothing", padding)

    def longer() -> str | None:
        extra = torch.randn(1, 3, spec.channels, h, w, generator=draw, dtype=torch.float64)
        padded = torch.cat([x[:1], extra], dim=1)
        mask = torch.cat([torch.ones(1, T, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)], dim=1)
        return differs(run(woken, padded, mask)[:, :T], run(woken, x[:1], valid[:1]), "a clip alone and padded")

    report.clause("padding at the end changes nothing", longer)
    report.clause(
        "clips of a batch do not see each other",
        lambda: differs(
            torch.cat([run(woken, x[b : b + 1], valid[b : b + 1]) for b in range(B)]),
            run(woken, x, valid),
            "one by one and together",
        ),
    )
    report.clause("a batch without any valid frame works", lambda: _finite(run(woken, x, torch.zeros_like(valid))))
    report.clause("a clip of one frame works", lambda: _finite(run(woken, x[:, :1], valid[:, :1])))

    past, future = head.context
    report.clause(
        "causal and context agree",
        lambda: None if head.causal == (future == 0) else f"causal is {head.causal}, context {head.context}",
    )

    def reach() -> str | None:
        every = torch.ones_like(valid[:1])
        base = run(woken, x[:1], every)
        for s in range(T):
            moved = x[:1].clone()
            moved[:, s] += 1.0
            touched = (
                ((run(woken, moved, every) - base).abs().amax((0, 2, 3, 4)) > tolerance * 1e-3).nonzero().flatten()
            )
            for t in touched.tolist():
                if (future is not None and s - t > future) or (past is not None and t - s > past):
                    return f"frame {s} changes the output of frame {t}, beyond context {head.context}"
        return None

    report.clause("context is true", reach)

    def stepping() -> str | None:
        every = torch.ones_like(valid)
        wanted = run(woken, x, every)
        with torch.no_grad():
            state = woken.init_state(x[:, 0])
            for t in range(T):
                out, state = woken.step(x[:, t], state)
                wrong = differs(out, wanted[:, t], f"at frame {t}, step and forward")
                if wrong:
                    return wrong
        return None

    if head.causal:
        report.clause("step equals forward frame by frame", stepping)

    def gradients() -> str | None:
        module = copy.deepcopy(woken).train()
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
        lambda: None if torch.equal(run(woken, x, valid), run(woken, x, valid)) else "they are not",
    )

    def single() -> str | None:
        module = copy.deepcopy(woken).float()
        off = float((run(module, x.float(), valid).double() - run(woken, x, valid)).abs().max())
        return None if off < 1e3 * tolerance else f"float32 is off by {off:.2g}"

    report.clause("float32 and float64 agree", single)
    report.clause(
        "the configuration is plain data and rebuilds the head", lambda: _rebuilds(head, fresh, lambda p: p.build(spec))
    )
    report.close()


def check_backbone(backbone: Backbone, size: tuple[int, int] = (64, 64)) -> None:
    """Checks a backbone on crops of (width, height): shapes, independent frames, gradients, configuration.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = _Report(backbone)
    module = copy.deepcopy(backbone).eval()
    width, height = size
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    spec = module.spec
    expected = torch.Size((2, spec.channels, height // spec.stride, width // spec.stride))
    with torch.no_grad():
        report.clause("spec tells the shape of the output", lambda: _shape(module(x), expected))
        report.clause(
            "frames do not see each other in eval mode",
            lambda: (
                None
                if torch.allclose(module(x), torch.cat([module(x[:1]), module(x[1:])]), rtol=1e-3, atol=1e-4)
                else "they do"
            ),
        )

    def gradients() -> str | None:
        other = copy.deepcopy(backbone).train()
        if not any(p.requires_grad for p in other.parameters()):
            return None
        other(x).square().sum().backward()
        missing = [n for n, p in other.named_parameters() if p.requires_grad and p.grad is None]
        return f"no gradient reaches {', '.join(missing[:5])} (DDP would fail)" if missing else None

    report.clause("gradients reach every trainable parameter", gradients)
    report.clause(
        "the configuration is plain data and rebuilds the backbone", lambda: _rebuilds(backbone, module, None)
    )
    report.close()


def check_decoder(
    decoder: PoseDecoder,
    codec: TargetCodec,
    spec: FeatureSpec = _MAPS,
    joints: int = 15,
    size: tuple[int, int] = (128, 96),
) -> None:
    """Checks a decoder that was not built yet: it predicts what the codec makes, for every row on its own, and trains.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = _Report(decoder)
    h, w = (1, 1) if decoder.pooled else (size[1] // spec.stride, size[0] // spec.stride)
    x = torch.randn(4, spec.channels, h, w, generator=torch.Generator().manual_seed(0))
    codec = copy.deepcopy(codec)
    codec.build(joints, size)
    target, _ = codec.encode(torch.zeros(4, joints, 2), torch.ones(4, joints))
    module = _built(copy.deepcopy(decoder), lambda part: part.build(spec, joints, size)).eval()

    def shapes() -> str | None:
        out = module(x)
        missing = [k for k in target if k not in out]
        if missing:
            return f"it predicts {', '.join(out)}, not {', '.join(missing)}"
        wrong = [k for k in target if out[k].shape != target[k].shape]
        return (
            f"{wrong[0]} is {list(out[wrong[0]].shape)}, the codec's {list(target[wrong[0]].shape)}" if wrong else None
        )

    def rows() -> str | None:
        together, alone = module(x), module(x[:1])
        return next(
            (f"{k} do" for k in together if not torch.allclose(together[k][:1], alone[k], rtol=1e-3, atol=1e-5)), None
        )

    def gradients() -> str | None:
        other = copy.deepcopy(module).train()
        torch.autograd.backward([v.square().sum() for v in other(x).values()])
        missing = [n for n, p in other.named_parameters() if p.requires_grad and p.grad is None]
        return f"no gradient reaches {', '.join(missing[:5])} (DDP would fail)" if missing else None

    with torch.no_grad():
        report.clause("it predicts what the codec makes", shapes)
        report.clause("rows do not see each other in eval mode", rows)
    report.clause("gradients reach every parameter", gradients)
    report.clause(
        "the configuration is plain data and rebuilds the decoder",
        lambda: _rebuilds(decoder, module, lambda p: p.build(spec, joints, size)),
    )
    report.close()


def check_codec(
    codec: TargetCodec, joints: int = 15, size: tuple[int, int] = (128, 96), margin: float = 16.0, error: float = 0.25
) -> None:
    """Checks a codec that was not built yet: round trip, weights, flips, odd input, configuration.

    Args:
        codec: as its constructor makes it; it is copied.
        joints: number of joints; that of its skeleton if it has one.
        size: width and height of the crops.
        margin: joints are drawn this far inside the crop.
        error: allowed error of the round trip in crop pixels.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = _Report(codec)
    module = copy.deepcopy(codec)
    report.clause("it can be built", lambda: module.build(joints, size))
    if report.broken:
        report.close()
    draw = torch.Generator().manual_seed(0)
    extent = torch.tensor(size) - 1 - 2 * margin
    points = torch.rand(8, joints, 2, generator=draw) * extent + margin
    visible = torch.randint(1, 3, (8, joints), generator=draw, dtype=torch.uint8)
    visible[0, 0] = 0
    order = torch.randperm(joints, generator=draw)
    swap = torch.empty_like(order)
    swap[order[: joints // 2]], swap[order[joints - joints // 2 :]] = (
        order[joints - joints // 2 :],
        order[: joints // 2],
    )
    if joints % 2:
        swap[order[joints // 2]] = order[joints // 2]
    target, weight = module.encode(points, visible)
    decoded, score = module.decode(target)
    present = visible > 0

    def trip(found: Tensor, wanted: Tensor) -> str | None:
        off = float((found - wanted).abs()[present].max())
        return None if off <= error else f"off by {off:.3g} crop pixels"

    report.clause(
        "weights are 1 for labelled joints, occluded ones too", lambda: None if (weight[present] == 1).all() else "not"
    )
    report.clause("weights are 0 for absent joints", lambda: None if (weight[~present] == 0).all() else "not")
    report.clause("decode(encode(joints)) gives the joints", lambda: trip(decoded, points))
    report.clause("scores lie in [0, 1]", lambda: None if bool(((score >= 0) & (score <= 1)).all()) else "not")
    report.clause(
        "flipping twice changes nothing",
        lambda: (
            None
            if all(torch.equal(v, target[k]) for k, v in module.flip(module.flip(target, swap), swap).items())
            else "it does"
        ),
    )

    def mirrored() -> str | None:
        wanted = flip_points(decoded, size[0], swap)
        found = module.decode(module.flip(target, swap))[0]
        off = float((found - wanted).abs()[present[:, swap]].max())
        return None if off < 0.05 else f"off by {off:.3g} crop pixels"

    report.clause("decode(flip(e)) is flip_points(decode(e))", mirrored)

    def odd() -> str | None:
        broken = {k: torch.full_like(v, float("nan")) for k, v in target.items()}
        place, confidence = module.decode(broken)
        wrong = not (torch.isfinite(place).all() and torch.isfinite(confidence).all())
        hidden = module.encode(torch.full_like(points, float("nan")), torch.zeros_like(visible))
        wrong = wrong or not all(torch.isfinite(v).all() for v in (*hidden[0].values(), hidden[1]))
        return "NaN passes" if wrong else None

    report.clause("NaN predictions and absent joints at NaN give finite numbers", odd)
    report.clause(
        "no rows are no problem",
        lambda: _shape(module.decode(module.encode(points[:0], visible[:0])[0])[0], torch.Size((0, joints, 2))),
    )
    report.clause(
        "the configuration is plain data and rebuilds the codec",
        lambda: _rebuilds(codec, module, lambda p: p.build(joints, size)),
    )
    report.close()


def _built(part: P, build: Callable[[P], None]) -> P:
    """Builds with a stream of its own, so that a check draws nothing from the caller's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build(part)
    return part


def _woken(head: TemporalHead, draw: torch.Generator) -> TemporalHead:
    """A copy with its zero-initialised weights replaced, as after some training."""
    other = copy.deepcopy(head)
    for parameter in other.parameters():
        if not parameter.detach().any():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw, dtype=parameter.dtype) * 0.3)
    return other


def _rebuilds(part: P, built: nn.Module, build: Callable[[P], None] | None) -> str | None:
    config = part.config()
    if json.loads(json.dumps(config)) != config:
        return f"{config} changes on its way through JSON"
    again = instantiate(config)
    if again.config() != config:
        return f"{config} comes back as {again.config()}"
    if build is not None:
        _built(again, build)
    try:
        again.to(next((p.dtype for p in built.parameters()), torch.float32)).load_state_dict(built.state_dict())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


def _shape(out: Tensor, expected: torch.Size) -> str | None:
    return None if out.shape == expected else f"it is {list(out.shape)}, expected {list(expected)}"


def _finite(out: Tensor) -> str | None:
    return None if torch.isfinite(out).all() else "the output is not finite"


__all__ = ["check_backbone", "check_codec", "check_decoder", "check_temporal_head"]
