"""Parts as somebody else's package would have them."""

from torch import Tensor, nn

from bipose_lit.models.base import TemporalHead
from bipose_lit.types import FeatureSpec


class Smear(TemporalHead):
    """Adds a learned share of the clip's mean.

    Args:
        share: what it starts with.
        inner: a part of its own.
    """

    context = (None, None)

    def __init__(self, share: float = 0.5, inner: TemporalHead | None = None) -> None:
        super().__init__()
        self.share, self.inner = share, inner

    def build(self, spec: FeatureSpec) -> None:
        self.gate = nn.Conv2d(spec.channels, spec.channels, 1)
        if self.inner is not None:
            self.inner.build(spec)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        mask = valid[:, :, None, None, None]
        mean = (features * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        out = features + self.share * self.gate(mean.flatten(0, 1)).unflatten(0, (len(valid), 1))
        if self.inner is not None:
            out = self.inner(out, valid)
        return out * mask
