"""What flows through bipose: one batch type, one feature contract, one error.

Legend of the shapes used everywhere: B clips, T frames, P people, K joints, C channels, H W image, h w feature map, N flat frames
(the True entries of a (B, T) mask in row-major order), M normalisers. A still image is a clip with T = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

if TYPE_CHECKING:
    import torch
    from jaxtyping import Bool, Float, Int, UInt8
    from torch import Tensor

ABSENT, OCCLUDED, VISIBLE = 0, 1, 2
"""Visibility of a joint: not labelled; labelled but hidden; labelled and seen (COCO's convention)."""

NORMS = ("bbox", "clip", "torso", "head", "area")
"""Normalisers of errors, in this order in every `norms` tensor, in ORIGINAL pixels (area: square root of the area).

bbox: max(w, h) of the frame's own ground-truth box (JHMDB: the tight box around its joints, which is smaller than the one
around the puppet mask, or that one under the box rule "puppet-box"); clip: max(w, h) of the clip's unpadded box; torso: left
shoulder to right hip; head: 0.6 x head-box diagonal (PCKh). NaN where the data set does not define one.
"""


Batch = TypeVar("Batch", "ClipBatch", "SceneBatch")


class BiposeError(Exception):
    """A failure that the user can mend. The message is one line: what, where, what to do."""


class Preempted(BiposeError):  # noqa: N818 - an end in good order is no error
    """A signal asked a run to stop: it wrote a checkpoint, and the same run goes on from there when it is started again.

    Args:
        line: the message.
        number: of the signal.

    Attributes:
        code: exit status of a process that ends by this, 128 + the signal's number.
    """

    def __init__(self, line: str, number: int) -> None:
        super().__init__(line)
        self.code = 128 + int(number)


class AbsentSplitError(BiposeError):
    """A split that this data set's folder does not hold: no file or list names it. Damage is another matter."""


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """What a backbone hands on: number of channels and the stride against the input image (as timm's feature_info)."""

    channels: int
    stride: int


Encoded: TypeAlias = "dict[str, Tensor]"
"""What a decoder predicts and a codec encodes; the keys are the codec's (`heatmaps` (N,K,h,w), `xy` (N,K,2), ...)."""


@dataclass
class ClipBatch:
    """A batch of clips of single persons, padded at the end to the longest; `valid` tells real frames from padding.

    Exactly one of `images` and `features` is set: pixels, or what a frozen backbone made of them.

    Attributes:
        images: RGB crops.
        features: cached feature maps (float16 or float32).
        mirrored: the same of the mirrored crop (evaluation from a cache only), for the flip test.
        valid: True for real frames. False frames hold zeros and must influence nothing.
        supervise: frames that the training loss reads (a subset of valid); evaluation ignores it.
        joints: crop pixels; 0 where absent.
        visible: ABSENT, OCCLUDED or VISIBLE.
        to_image: affine that takes crop pixels to original pixels.
        norms: see NORMS; original pixels.
        box_score: detector score of the box, 1 for ground truth.
        uid: annotation id of the person in the frame; -1 in padding. Metrics de-duplicate by it.
        clip: index of the clip in the index of the data set; with `cluster` and `names` looked up there.
        frame: position of the frame in its whole clip (not in the sampled window).
        fps: frames per second; 0 where unknown.
    """

    valid: Bool[Tensor, "B T"]
    joints: Float[Tensor, "B T K 2"]
    visible: UInt8[Tensor, "B T K"]
    to_image: Float[Tensor, "B T 2 3"]
    norms: Float[Tensor, "B T M"]
    box_score: Float[Tensor, "B T"]
    uid: Int[Tensor, "B T"]
    clip: Int[Tensor, " B"]
    frame: Int[Tensor, "B T"]
    fps: Float[Tensor, " B"]
    images: UInt8[Tensor, "B T 3 H W"] | None = None
    features: Float[Tensor, "B T C h w"] | None = None
    supervise: Bool[Tensor, "B T"] | None = None
    mirrored: Float[Tensor, "B T C h w"] | None = None

    def flipped(self) -> ClipBatch:
        """The batch with mirrored pictures or features for a flip test; labels and `to_image` stay as they are.

        Raises:
            BiposeError: the batch holds features without their mirrored view.
        """
        if self.images is not None:
            return replace(self, images=self.images.flip(-1))
        if self.mirrored is None:
            raise BiposeError(
                "flip test: this batch of cached features holds no mirrored view; set model.flip_test false or data.cache null"
            )
        return replace(self, features=self.mirrored, mirrored=self.features)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ClipBatch:
        """The same batch on another device (Lightning calls this through the module's transfer hook)."""
        return _moved(self, lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ClipBatch:
        """The same batch in page-locked memory (the DataLoader's pin_memory protocol)."""
        return _moved(self, lambda value: value.pin_memory())

    def __len__(self) -> int:
        return int(self.valid.shape[0])


@dataclass
class SceneBatch:
    """A batch of whole images with all their people, for bottom-up models; P is the largest number of people in one of them.

    Attributes:
        images: RGB.
        valid: True for real images. False ones hold zeros and must influence nothing.
        joints: image pixels (of `images`); 0 where absent.
        visible: ABSENT, OCCLUDED or VISIBLE; ABSENT for all joints of people who are none.
        people: True for people, False where an image has fewer than P.
        ignore: True where the maps are not known, at their stride: crowds and people whose joints nobody labelled.
        to_image: affine that takes pixels of `images` to original pixels.
        image: the data set's id of the image; -1 in padding. Metrics de-duplicate by it.
        supervise: images that the training loss reads (a subset of valid); None for all.
    """

    images: UInt8[Tensor, "B T 3 H W"]
    valid: Bool[Tensor, "B T"]
    joints: Float[Tensor, "B T P K 2"]
    visible: UInt8[Tensor, "B T P K"]
    people: Bool[Tensor, "B T P"]
    ignore: Bool[Tensor, "B T h w"]
    to_image: Float[Tensor, "B T 2 3"]
    image: Int[Tensor, "B T"]
    supervise: Bool[Tensor, "B T"] | None = None

    features: ClassVar[None] = None
    """Scenes come as pixels alone: no cache keeps their features."""

    def flipped(self) -> SceneBatch:
        """The batch with mirrored pictures for a flip test; labels and `to_image` stay as they are."""
        return replace(self, images=self.images.flip(-1))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SceneBatch:
        """The same batch on another device."""
        return _moved(self, lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SceneBatch:
        """The same batch in page-locked memory."""
        return _moved(self, lambda value: value.pin_memory())

    def __len__(self) -> int:
        return int(self.valid.shape[0])


def _moved(batch: Batch, move: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with every tensor of it moved."""
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{name: move(value) for name, value in tensors.items() if value is not None})
