"""PoseNetwork: backbone, heads over time and decoder as one module from clips to predictions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from bipose_lit.models.base import Backbone, Part, PoseDecoder, Refiner, State, TemporalHead, as_stages, flat, unflat
from bipose_lit.models.temporal.conv_lstm import ConvLSTM
from bipose_lit.types import BiposeError, ClipBatch, Encoded, FeatureSpec, SceneBatch

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_UNREFINED = ("sigma",)
"""Predictions that are no places: a head over time in the refiner's slot leaves them as they are."""


class PoseNetwork(Part):
    """Clips to predictions: normalise, backbone, `temporal`, (mean over the map, `pool`), decoder, `refiner`.

    Backbone and decoder see real frames alone, so BatchNorm never meets padding. Each part draws its initial weights
    from a stream of its own: networks that differ in a head have equal backbones and decoders under one seed, and since
    heads start as the identity, all arms of an ablation start as the same function. (A refiner whose `identity` is False
    does not; and in training a refiner sends every valid frame through the decoder, whose BatchNorm then sees more of them.)

    Args:
        backbone: images to maps.
        decoder: maps, or pooled vectors, to what the codec decodes.
        temporal: head on maps, before the decoder.
        pool: head on vectors pooled over the map (kernel 1), before a decoder that reads such vectors.
        refiner: the decoder's output over time to a better one. A `TemporalHead` reads it alone, as K maps, or as vectors of
            2 K numbers; a `Refiner` reads the features too.
        joints: number of joints K.
        size: width and height of the crops.
        freeze_backbone: no gradients in the backbone, and its BatchNorm keeps its running statistics.

    Raises:
        BiposeError: parts that do not fit together.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: PoseDecoder,
        temporal: TemporalHead | None = None,
        pool: TemporalHead | None = None,
        refiner: TemporalHead | Refiner | None = None,
        joints: int = 15,
        size: tuple[int, int] | list[int] = (128, 128),
        freeze_backbone: bool = False,
    ) -> None:
        super().__init__()
        width, height = size
        spec = backbone.spec
        fixed = backbone.fixed_size
        if fixed is not None and fixed != (width, height):
            raise BiposeError(
                f"crops of {width}x{height}, but backbone {type(backbone).__name__} is made for {fixed[0]}x{fixed[1]} alone; set "
                f"data.size to that, or the backbone's own (PlainViT's size: [{width}, {height}], timm's kwargs: "
                f"{{img_size: [{height}, {width}]}})"
            )
        if width % backbone.multiple or height % backbone.multiple:
            raise BiposeError(
                f"crops of {width}x{height} are no multiple of {backbone.multiple}, as backbone {type(backbone).__name__} needs: "
                "its branches would not meet; change data.size or the backbone"
            )
        if width % spec.stride or height % spec.stride:
            raise BiposeError(
                f"crops of {width}x{height} are no multiple of the backbone's stride {spec.stride}; "
                "change data.size or the backbone"
            )
        if pool is not None and not decoder.pooled:
            raise BiposeError(
                f"model.pool works on pooled vectors, but decoder {type(decoder).__name__} reads maps; "
                "use RegressionDecoder, or put the head under model.temporal"
            )
        if isinstance(pool, ConvLSTM) and pool.kernel != 1:
            raise BiposeError(
                f"model.pool: kernel {pool.kernel} on a 1x1 map leaves most weights dead; "
                "set pool.init_args.kernel to 1"
            )
        if isinstance(refiner, ConvLSTM) and decoder.pooled and refiner.kernel != 1:
            raise BiposeError(
                f"model.refiner: kernel {refiner.kernel} on coordinates leaves most weights dead; "
                "set refiner.init_args.kernel to 1"
            )
        self.compiled = False
        self.joints, self.size, self.frozen = joints, (width, height), freeze_backbone
        streams = _streams()
        self.backbone = backbone
        self.decoder = decoder
        streams("decoder", lambda: decoder.build(spec, joints, self.size))
        self.temporal, self.pool, self.refiner = temporal, pool, refiner
        if temporal is not None:
            streams("temporal", lambda: temporal.build(spec))
        if pool is not None:
            streams("pool", lambda: pool.build(spec))
        if refiner is not None:
            streams("refiner", lambda: self._build_refiner(refiner, spec))
        mean = torch.tensor(getattr(backbone, "mean", IMAGENET_MEAN)).view(3, 1, 1)
        std = torch.tensor(getattr(backbone, "std", IMAGENET_STD)).view(3, 1, 1)
        self.shift: Tensor
        self.gain: Tensor
        self.register_buffer("shift", 255 * mean, persistent=False)
        self.register_buffer("gain", 1 / (255 * std), persistent=False)
        for part in (backbone, decoder):
            part.to(memory_format=torch.channels_last)  # twice as fast on CPUs in eval mode, a fifth in training
        if freeze_backbone:
            backbone.requires_grad_(False)
            self.train(self.training)

    @property
    def heads(self) -> dict[str, TemporalHead | Refiner]:
        """The heads over time, in the order they run."""
        slots: dict[str, TemporalHead | Refiner | None] = {
            "temporal": self.temporal,
            "pool": self.pool,
            "refiner": self.refiner,
        }
        return {name: head for name, head in slots.items() if head is not None}

    @property
    def causal(self) -> bool:
        """True if no prediction reads a later frame."""
        return all(head.causal for head in self.heads.values())

    @property
    def context(self) -> tuple[int | None, int | None]:
        """Frames before and after t that can matter; None for the whole clip. The second is the look-ahead."""
        pairs = [head.context for head in self.heads.values()]
        past, future = zip(*pairs, strict=True) if pairs else ((0,), (0,))
        return _total(past), _total(future)

    def train(self, mode: bool = True) -> PoseNetwork:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def count_parameters(self) -> dict[str, int]:
        """Number of parameters by part, and in total."""
        names = ("backbone", "temporal", "pool", "decoder", "refiner")
        counts = {n: sum(p.numel() for p in m.parameters()) for n in names if (m := getattr(self, n)) is not None}
        return {**counts, "total": sum(counts.values())}

    def compile_parts(self) -> None:
        """Lets the parts run compiled, in place: names of parameters stay, and copies and checkpoints are plain."""
        for part in self.children():
            part.compile()
        self.compiled = True

    def extract(self, images: UInt8[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        """Feature maps of RGB crops."""
        normalised = _channels_last((images.to(self.gain.dtype) - self.shift) * self.gain)
        if not self.frozen:
            features: Tensor = self.backbone(normalised)
            return features
        with torch.no_grad():
            frozen: Tensor = self.backbone(normalised)
        return frozen

    def forward(self, batch: ClipBatch | SceneBatch, select: Bool[Tensor, "B T"] | None = None) -> list[Encoded]:
        """Predictions for the selected frames (all valid ones if None), in row-major order of the (B, T) mask.

        One for every stage of the decoder, and one of the refiner; the last one counts.

        Every valid frame passes the backbone and the heads; only selected ones pass the decoder, unless a refiner
        reads them all.
        """
        valid = batch.valid
        chosen = valid if select is None else select
        if batch.features is not None:
            features = batch.features.to(self.gain.dtype)
        elif batch.images is not None:
            features = unflat(self.extract(flat(batch.images, valid)), valid)
        else:
            raise BiposeError("the clip batch holds neither images nor features")
        if self.temporal is not None:
            features = self.temporal(features, valid)
        if self.decoder.pooled:
            features = features.mean((-2, -1), keepdim=True)
            if self.pool is not None:
                features = self.pool(features, valid)
        if self.refiner is None:
            return as_stages(self.decoder(_channels_last(flat(features, chosen))))
        stages = as_stages(self.decoder(_channels_last(flat(features, valid))))
        clips = {k: unflat(v, valid) for k, v in stages[-1].items()}
        refined = self.refine(clips, features, valid)
        wanted = chosen[valid]
        return [{k: v[wanted] for k, v in stage.items()} for stage in stages] + [
            {k: v[chosen] for k, v in refined.items()}
        ]

    def refine(self, encoded: Encoded, features: Float[Tensor, "B T C h w"], valid: Bool[Tensor, "B T"]) -> Encoded:
        """Predictions (B, T, ...) through the refiner, or as they are where there is none.

        Raises:
            BiposeError: a head over time that can make nothing of such predictions.
        """
        if self.refiner is None:
            return encoded
        if isinstance(self.refiner, Refiner):
            refined: Encoded = self.refiner(encoded, features, valid)
            return refined
        return {k: v if k in _UNREFINED else self._refine(self.refiner, v, valid) for k, v in encoded.items()}

    @torch.no_grad()
    def stream(self, images: UInt8[Tensor, "B 3 H W"], state: State | None = None) -> tuple[Encoded, State]:
        """The next frame of B running videos: its predictions, and the state to pass with the frame after it.

        Args:
            images: RGB crops.
            state: what the call for the frame before returned; None for the first frame.

        Raises:
            BiposeError: a head that reads later frames.
        """
        for name, head in self.heads.items():
            if not head.causal:
                raise BiposeError(
                    f"model.{name} ({type(head).__name__}) reads later frames and cannot stream; "
                    "use a causal head, or predict whole clips"
                )
        before = list(state) if state is not None else None
        after: list[Tensor] = []

        def advance(head: TemporalHead, x: Tensor) -> Tensor:
            own = head.init_state(x)
            if before is not None:
                own, before[:] = tuple(before[: len(own)]), before[len(own) :]
            x, own = head.step(x, own)
            after.extend(own)
            return x

        features = self.extract(images)
        if self.temporal is not None:
            features = advance(self.temporal, features)
        if self.decoder.pooled:
            features = features.mean((-2, -1), keepdim=True)
            if self.pool is not None:
                features = advance(self.pool, features)
        encoded = as_stages(self.decoder(_channels_last(features)))[-1]
        refiner = self.refiner
        if isinstance(refiner, Refiner):
            state = tuple(before) if before is not None else refiner.init_state(encoded, features)
            encoded, state = refiner.step(encoded, features, state)
            after.extend(state)
        elif refiner is not None:
            encoded = {
                k: v if k in _UNREFINED else advance(refiner, _as_map(v)).reshape(v.shape) for k, v in encoded.items()
            }
        return encoded, tuple(after)

    def _build_refiner(self, refiner: TemporalHead | Refiner, spec: FeatureSpec) -> None:
        predicted = self._predicted(spec)
        if isinstance(refiner, Refiner):
            refiner.build(spec, predicted, self.joints)
        else:
            refiner.build(predicted)

    def _predicted(self, spec: FeatureSpec) -> FeatureSpec:
        """What the refiner reads: K maps at the decoder's stride, or 2 K numbers per frame."""
        if self.decoder.pooled:
            return FeatureSpec(2 * self.joints, spec.stride)
        return FeatureSpec(self.joints, int(getattr(self.decoder, "stride", spec.stride)))

    @staticmethod
    def _refine(head: TemporalHead, values: Tensor, valid: Bool[Tensor, "B T"]) -> Tensor:
        if values.ndim != 5 and values.shape[3:] != (2,):
            raise BiposeError(
                f"model.refiner ({type(head).__name__}) reads heatmaps or coordinates, not {list(values.shape[2:])} numbers; "
                "leave it null"
            )
        maps = _as_map(values.flatten(0, 1))
        rows = maps.view(*valid.shape, *maps.shape[1:])
        refined: Tensor = head(rows, valid)
        return refined.reshape(values.shape)


def _channels_last(maps: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
    return maps.contiguous(memory_format=torch.channels_last)


def _as_map(values: Tensor) -> Float[Tensor, "N C h w"]:
    """Heatmaps as they are; coordinates (N, K, 2) as vectors (N, 2 K, 1, 1)."""
    return values if values.ndim == 4 else values.flatten(1)[:, :, None, None]


def _total(frames: tuple[int | None, ...]) -> int | None:
    """Reach of several heads one after another."""
    known = [f for f in frames if f is not None]
    return sum(known) if len(known) == len(frames) else None


def _streams() -> Callable[[str, Callable[[], None]], None]:
    """Runs initialisations, each with a stream of its own that depends on its name and one draw from the global one."""
    base = int(torch.randint(2**31, ()))
    slots = {"decoder": 0, "temporal": 1, "pool": 2, "refiner": 3}

    def run(name: str, build: Callable[[], None]) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(base * len(slots) + slots[name])
            build()

    return run


__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PoseNetwork"]
