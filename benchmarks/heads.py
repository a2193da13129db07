"""Heads over time: training and streaming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import yaml

from benchmarks.measure import interleave, listed, number, operator_profiler, operators, table
from benchmarks.setting import EXPERIMENTS, FRAMES, Setting, paragraphs
from bipose_lit.models.base import TemporalHead
from bipose_lit.models.rebuild import instantiate
from bipose_lit.types import FeatureSpec

HEADS = ("none_matched", "lstm", "lstm_wide", "bilstm", "tcn")
WATCHED = "lstm"
"""The head that is also timed in a whole network that streams."""


def run(setting: Setting) -> str:
    """The section."""
    from bipose_lit.cli import build
    from bipose_lit.run import quiet

    setting.limit_threads()
    torch.manual_seed(0)
    with quiet():
        module, data, _ = build(setting.config(f"temporal/{WATCHED}.yaml", options={"data.cache": None}))
    network = module.network.eval()
    spec, (width, height) = network.backbone.spec, data.size
    h, w = height // spec.stride, width // spec.stride
    B, T = data.batch_size, setting.pick(FRAMES, 6)
    features = torch.randn(B, T, spec.channels, h, w)
    valid = torch.ones(B, T, dtype=torch.bool)
    heads = {name: _head(name, spec) for name in HEADS}
    heads["tcn, causal"] = _head("tcn", spec, causal=True)

    train = interleave(
        {name: _training(head, features, valid) for name, head in heads.items()},
        setting.pick(9, 1), setting.pick(0.3, 0.0), setting.tell,
    )  # fmt: skip
    causal = {name: head for name, head in heads.items() if head.causal}
    jobs = {name: _streaming(head, features[:1, 0]) for name, head in causal.items()}
    image = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    jobs["network"] = _network(network, image)
    jobs["backbone"] = lambda: network.extract(image)
    with torch.inference_mode():
        stream = interleave(jobs, setting.pick(9, 1), setting.pick(0.1, 0.0), setting.tell)
    base = train["none_matched"]
    rows = [
        [
            name, f"{sum(p.numel() for p in head.parameters()):,}", train[name].ms,
            train[name].over(base), stream[name].ms if name in stream else "reads later frames",
        ]
        for name, head in heads.items()
    ]  # fmt: skip
    ms = {name: stream[name].ms for name in ("network", "backbone")}
    shares = {name: _hot(_training(heads[name], features, valid)) for name in ("lstm", "bilstm", "tcn")}
    return paragraphs(
        f"Forward and backward of the head alone, {B} clips of {T} frames, features of {spec.channels} channels at {h}x{w}; "
        "streaming one frame of one video, in inference mode.",
        table(["head", "parameters", "ms, forward + backward", "of none_matched", "ms per streamed frame"], rows),
        f"A whole network with {WATCHED} streams a {width}x{height} crop in {ms['network']} ms, of which the backbone takes "
        f"{stream['backbone'].over(stream['network'])}: {number(1 / stream['network'].median)} frames/s.",
        "What limits forward and backward now (share of operators' time): "
        + "; ".join(f"{name}: {text}" for name, text in shares.items())
        + ".",
    )


def _head(name: str, spec: FeatureSpec, **more: Any) -> TemporalHead:
    """The head of an overlay, with an output that is not zero, so that the whole backward pass has something to do."""
    overlay = yaml.safe_load((EXPERIMENTS / "temporal" / f"{name}.yaml").read_text())
    config = overlay["model"]["temporal"]
    head: TemporalHead = instantiate({**config, "init_args": {**config["init_args"], **more}}, TemporalHead)
    head.build(spec)
    with torch.no_grad():
        for parameter in head.parameters():
            if not parameter.any():
                parameter.normal_(std=0.01)
    return head


def _training(head: TemporalHead, features: torch.Tensor, valid: torch.Tensor) -> Callable[[], object]:
    def job() -> None:
        head.train()
        head.zero_grad(set_to_none=True)
        head(features, valid).square().mean().backward()

    return job


def _streaming(head: TemporalHead, frame: torch.Tensor) -> Callable[[], object]:
    state = [head.init_state(frame)]

    def job() -> None:
        head.eval()
        state[0] = head.step(frame, state[0])[1]

    return job


def _network(network: Any, image: torch.Tensor) -> Callable[[], object]:
    state: list[Any] = [None]

    def job() -> None:
        state[0] = network.stream(image, state[0])[1]

    return job


def _hot(job: Callable[[], object]) -> str:
    job()
    profiler = operator_profiler()
    with profiler:
        job()
    return listed(operators(profiler, 3))
