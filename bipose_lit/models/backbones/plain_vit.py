"""The vision transformer of ViTPose."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bipose_lit.models.backbones.timm_backbone import TimmBackbone
from bipose_lit.types import BiposeError

PATCH, MARGIN = 16, 2
"""Side of a patch, and how far before the picture's edge the first one begins, in pixels."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainViT(TimmBackbone):
    """A vision transformer as ViTPose has it (Xu et al. 2022): patches of 16 pixels, no class token, a last LayerNorm; stride 16.

    It differs from timm's own in three ways: no class token takes part; the grid of patches begins two pixels outside of the
    picture (and so ends two before its end); the last block's tokens pass a LayerNorm. It starts from random weights, or from
    what `bipose import-weights` made of a published file.

    Args:
        width: of a token; S, B, L and H have 384, 768, 1024 and 1280.
        depth: number of blocks: 12, 12, 24 and 32.
        heads: of attention: 12, 12, 16 and 16 (timm's own small one has 6).
        size: width and height of the crops.
        drop_path: largest probability of leaving out a block's branch in training; it grows from 0 with depth.
        frozen: no gradients.

    Raises:
        BiposeError: a width that its heads do not share evenly, or crops that are no multiple of 16.
    """

    def __init__(
        self,
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        size: tuple[int, int] | list[int] = (192, 256),
        drop_path: float = 0.0,
        frozen: bool = False,
    ) -> None:
        if heads < 1 or width < 1 or width % heads:
            raise BiposeError(f"PlainViT: width {width} must be a multiple of heads {heads}")
        if len(size) != 2 or any(n < PATCH or n % PATCH for n in size):
            raise BiposeError(f"PlainViT: size {list(size)} must be a width and a height, multiples of {PATCH}")
        super().__init__(
            "vit_base_patch16_224",
            kwargs={
                "embed_dim": width, "depth": depth, "num_heads": heads, "img_size": [size[1], size[0]], "class_token": False,
                "global_pool": "", "drop_path_rate": drop_path,
            },
            frozen=frozen,
        )  # fmt: skip
        self.mean, self.std = MEAN, STD
        self.net.model.patch_embed.proj.padding = (MARGIN, MARGIN)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        if frozen:
            self.requires_grad_(False)

    def forward(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C h w"]:
        tokens = super().forward(images).permute(0, 2, 3, 1)
        features: Tensor = self.norm(tokens).permute(0, 3, 1, 2)
        return features


__all__ = ["PlainViT"]
