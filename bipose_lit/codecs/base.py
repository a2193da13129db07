"""What turns joints into training targets and predictions into joints, by one object of one size."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from bipose_lit.models.base import Part
from bipose_lit.skeletons import find_skeleton, standing_alone
from bipose_lit.types import BiposeError, Encoded


class TargetCodec(Part):
    """Joints in crop pixels to `Encoded` and back, batched, on any device.

    Args:
        skeleton: name of the skeleton in `bipose_lit.skeletons`, a YAML file as `skeletons.load_skeleton` reads it, or its
            fields as `skeletons.make_skeleton` takes them; only a flip needs it, to exchange left and right.

    Attributes:
        keys: entries of the `Encoded` that it makes and reads.
        joints: number of joints K, known after `build`.
        size: width and height of the crops, known after `build`.
    """

    keys: tuple[str, ...] = ()

    def __init__(self, skeleton: str | dict[str, Any] | None = None) -> None:
        super().__init__()
        self.skeleton = skeleton
        self._skeleton = None if skeleton is None else find_skeleton(skeleton)
        self.joints, self.size = 0, (0, 0)

    def config(self) -> dict[str, Any]:
        """As `Part.config`, but with the fields of a skeleton that came from a file: a checkpoint rebuilds alone."""
        found = super().config()
        if self._skeleton is not None:
            found["init_args"]["skeleton"] = standing_alone(self.skeleton, self._skeleton)
        return found

    def build(self, joints: int, size: tuple[int, int]) -> None:
        """Fixes the number of joints and the crop's (width, height).

        Raises:
            BiposeError: the skeleton has another number of joints, or the size does not suit the codec.
        """
        if self._skeleton is not None and len(self._skeleton) != joints:
            raise BiposeError(
                f"codec: skeleton {self._skeleton.name} has {len(self._skeleton)} joints, the data {joints}; "
                "set codec.init_args.skeleton to the data's"
            )
        self.joints, self.size = joints, (size[0], size[1])

    def encode(
        self, joints: Float[Tensor, "N K 2"], visible: Shaped[Tensor, "N K"]
    ) -> tuple[Encoded, Float[Tensor, "N K"]]:
        """Training targets of joints (crop pixels) with visibility 0 absent, 1 occluded, 2 visible.

        Returns:
            The targets and the weight of each joint: 1 for labelled joints, occluded ones too; 0 for absent ones and for those
                that the targets cannot express (see the codec).
        """
        raise NotImplementedError

    def decode(self, encoded: Encoded) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        """Joints in crop pixels and scores in [0, 1]; float32, without gradient."""
        raise NotImplementedError

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        """The encoding of the mirrored crop: decode(flip(e)) = flip_points(decode(e)), but for `HeatmapCodec`'s grid msra.

        Args:
            encoded: predictions or targets.
            order: (K,) permutation that exchanges left and right; null for that of `skeleton`.
        """
        raise NotImplementedError

    def _flip_order(self, order: Tensor | None, device: torch.device) -> Tensor:
        if order is not None:
            return order.to(device)
        if self._skeleton is None:
            raise BiposeError("flip test: the codec does not know left from right; set codec.init_args.skeleton")
        return torch.as_tensor(self._skeleton.flip, device=device)


__all__ = ["TargetCodec"]
