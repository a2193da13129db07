"""Feature maps to heatmaps by one linear template for each joint."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from bipose_lit.models.base import PoseDecoder
from bipose_lit.models.layers import check_sizes, heatmap_head
from bipose_lit.types import Encoded, FeatureSpec


class PartFilters(PoseDecoder):
    """A convolution of one layer: the part filters of deformable part models (Felzenszwalb et al. 2010).

    Trained by `HeatmapMSE` they are least-squares templates of the joint against everything else that pictures show, which like
    linear discriminants (Hariharan et al. 2012) need no mining of hard negatives. The maps have the features' own stride.

    Args:
        kernel: side of a template in places of the map, odd.

    Attributes:
        stride: of the heatmaps against the crop, known after `build`.

    Raises:
        BiposeError: a kernel that has no middle.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        check_sizes(self, {"kernel": kernel})
        self.kernel, self.stride = kernel, 0

    def build(self, spec: FeatureSpec, joints: int, size: tuple[int, int]) -> None:
        self.stride = spec.stride
        self.filters = heatmap_head(spec.channels, joints, self.kernel)

    def forward(self, features: Float[Tensor, "N C h w"]) -> Encoded:
        return {"heatmaps": self.filters(features)}


__all__ = ["PartFilters"]
