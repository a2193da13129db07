"""The contracts of backbones, decoders and codecs, clause by clause."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from bipose_lit.codecs.base import TargetCodec
from bipose_lit.geometry import flip_points
from bipose_lit.models.base import Backbone, PoseDecoder, as_stages
from bipose_lit.testing.clauses import MAPS, Report, built_part, rebuilds, shape_differs
from bipose_lit.types import FeatureSpec

MIRROR = 0.05
"""Crop pixels by which what is decoded from a flipped encoding may lie beside the mirrored joints."""


def check_backbone(backbone: Backbone, size: tuple[int, int] = (64, 64)) -> None:
    """Checks a backbone on crops of (width, height): shapes, independent frames, gradients, configuration.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = Report(backbone)
    module = copy.deepcopy(backbone).eval()
    width, height = size
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    spec = module.spec
    expected = torch.Size((2, spec.channels, height // spec.stride, width // spec.stride))
    with torch.no_grad():
        report.clause("spec tells the shape of the output", lambda: shape_differs(module(x), expected))
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
    report.clause("the configuration is plain data and rebuilds the backbone", lambda: rebuilds(backbone, module, None))
    report.close()


def check_decoder(
    decoder: PoseDecoder,
    codec: TargetCodec,
    spec: FeatureSpec = MAPS,
    joints: int = 15,
    size: tuple[int, int] = (128, 96),
) -> None:
    """Checks a decoder that was not built yet: all its stages predict what the codec makes, for every row on its own, and train.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = Report(decoder)
    h, w = (1, 1) if decoder.pooled else (size[1] // spec.stride, size[0] // spec.stride)
    x = torch.randn(4, spec.channels, h, w, generator=torch.Generator().manual_seed(0))
    codec = copy.deepcopy(codec)
    codec.build(joints, size)
    target, _ = codec.encode(torch.zeros(4, joints, 2), torch.ones(4, joints))
    module = built_part(copy.deepcopy(decoder), lambda part: part.build(spec, joints, size)).eval()

    def shapes() -> str | None:
        for out in as_stages(module(x)):
            missing = [k for k in target if k not in out]
            if missing:
                return f"it predicts {', '.join(out)}, not {', '.join(missing)}"
            wrong = [k for k in target if out[k].shape != target[k].shape]
            if wrong:
                return f"{wrong[0]} is {list(out[wrong[0]].shape)}, the codec's {list(target[wrong[0]].shape)}"
        return None

    def rows() -> str | None:
        for together, alone in zip(as_stages(module(x)), as_stages(module(x[:1])), strict=True):
            for k in together:
                if not torch.allclose(together[k][:1], alone[k], rtol=1e-3, atol=1e-5):
                    return f"{k} do"
        return None

    def gradients() -> str | None:
        other = copy.deepcopy(module).train()
        torch.autograd.backward([v.square().sum() for stage in as_stages(other(x)) for v in stage.values()])
        missing = [n for n, p in other.named_parameters() if p.requires_grad and p.grad is None]
        return f"no gradient reaches {', '.join(missing[:5])} (DDP would fail)" if missing else None

    with torch.no_grad():
        report.clause("it predicts what the codec makes", shapes)
        report.clause("rows do not see each other in eval mode", rows)
    report.clause("gradients reach every parameter", gradients)
    report.clause(
        "the configuration is plain data and rebuilds the decoder",
        lambda: rebuilds(decoder, module, lambda p: p.build(spec, joints, size)),
    )
    report.close()


def check_codec(
    codec: TargetCodec,
    joints: int = 15,
    size: tuple[int, int] = (128, 96),
    margin: float = 16.0,
    error: float = 0.25,
    mirror: float = MIRROR,
) -> None:
    """Checks a codec that was not built yet: round trip, weights, flips, odd input, configuration.

    Args:
        codec: as its constructor makes it; it is copied.
        joints: number of joints; that of its skeleton if it has one.
        size: width and height of the crops.
        margin: joints are drawn this far inside the crop.
        error: allowed error of the round trip in crop pixels.
        mirror: allowed difference of what is decoded from a flipped encoding, likewise.

    Raises:
        AssertionError: lists every broken clause.
    """
    report = Report(codec)
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

    def twice() -> str | None:
        again = module.flip(module.flip(target, swap), swap)
        if mirror > MIRROR:  # what leaves the map on one side does not come back
            off = float((module.decode(again)[0] - decoded).abs()[present].max())
            return None if off < MIRROR else f"it moves joints by {off:.3g} crop pixels"
        return None if all(torch.equal(v, target[k]) for k, v in again.items()) else "it does"

    report.clause("flipping twice changes nothing", twice)

    def mirrored() -> str | None:
        wanted = flip_points(decoded, size[0], swap)
        found = module.decode(module.flip(target, swap))[0]
        off = float((found - wanted).abs()[present[:, swap]].max())
        return None if off < mirror else f"off by {off:.3g} crop pixels"

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
        lambda: shape_differs(module.decode(module.encode(points[:0], visible[:0])[0])[0], torch.Size((0, joints, 2))),
    )
    report.clause(
        "the configuration is plain data and rebuilds the codec",
        lambda: rebuilds(codec, module, lambda p: p.build(joints, size)),
    )
    report.close()
