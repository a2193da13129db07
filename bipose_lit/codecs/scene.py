"""All people of an image as heat maps and part affinity fields (Cao et al. 2017, 2019), and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from bipose_lit.codecs.assembly import People, Rules, find_people
from bipose_lit.codecs.base import TargetCodec
from bipose_lit.geometry import from_map, to_map
from bipose_lit.skeletons import Skeleton
from bipose_lit.types import ABSENT, BiposeError, Encoded

HEAD_LINKS = (
    ("left_eye", "right_eye"), ("left_ear", "left_shoulder"), ("right_ear", "right_shoulder"),
    ("nose", "left_shoulder"), ("nose", "right_shoulder"),
)  # fmt: skip
"""Limbs beside those that are drawn. The first three make COCO's limbs those of its label files' own `skeleton`."""
_CHUNK = 1 << 22
"""Numbers of one temporary array while fields are drawn."""


class SceneCodec(TargetCodec):
    """K heat maps and the fields of L limbs, 2 L maps, for any number of people.

    A heat map is the largest of the people's Gaussians, each of peak 1 about its joint's own sub-pixel place (the mean would blur
    neighbours into one). A field is the unit vector from the limb's first joint to its second at every pixel within `width` of
    the line between them, 0 elsewhere; where the limbs of several people cover a pixel, their mean. There is no map of the
    background: nothing reads it.

    COCO's joints have no neck. The paper derives one from the shoulders, which is lost with either of them; here the head hangs
    on each shoulder by its ear and by the nose instead (`HEAD_LINKS`). Such limbs are no tree: of COCO's people, only the loss of
    a shoulder, elbow, hip or knee parts joints from the others, those beyond it.

    A joint outside the map has no Gaussian; a limb with such an end is drawn as far as the map goes. A limb needs both ends.

    Args:
        stride: of the maps against the image.
        sigma: of the Gaussians in map pixels; the authors' 7 pixels of the image.
        width: of the limbs in map pixels, either side of the line; theirs.
        skeleton: name, YAML file or fields of the skeleton.
        limbs: pairs of joint names; null for those of the skeleton and `HEAD_LINKS`, as far as it has the joints.
        peak: least height of a joint's peak.
        line: least value of the field at a sample of a limb.
        share: of a limb's samples that must reach it.
        samples: along a limb.
        parts: joints of a person, at least.
        score: of a person per joint, at least; peaks and limbs count 1 each.

    Raises:
        BiposeError: limbs that do not connect all joints, or a number out of range.
    """

    keys = ("heatmaps", "pafs")

    def __init__(
        self,
        stride: int = 8,
        sigma: float = 0.875,
        width: float = 1.0,
        skeleton: str | dict[str, Any] = "coco",
        limbs: list[list[str]] | None = None,
        peak: float = 0.05,
        line: float = 0.05,
        share: float = 0.95,
        samples: int = 10,
        parts: int = 3,
        score: float = 0.4,
    ) -> None:
        super().__init__(skeleton)
        if stride < 1 or sigma <= 0 or width <= 0:
            raise BiposeError(
                f"SceneCodec: stride {stride} must be at least 1, sigma {sigma} and width {width} above 0"
            )
        self.rules = Rules(peak, line, share, samples, parts, score)
        self.rules.check()
        self.stride, self.sigma, self.width = stride, sigma, width
        if self._skeleton is None:
            raise BiposeError("SceneCodec: it needs a skeleton, whose limbs it draws; set codec.init_args.skeleton")
        self.limbs = limb_indices(self._skeleton, limbs)

    def build(self, joints: int, size: tuple[int, int]) -> None:
        super().build(joints, size)
        check_size("SceneCodec: images", size, self.stride)

    @property
    def map_size(self) -> tuple[int, int]:
        """Width and height of the maps."""
        return self.size[0] // self.stride, self.size[1] // self.stride

    def encode(
        self,
        joints: Float[Tensor, "N ... K 2"],
        visible: Shaped[Tensor, "N ... K"],
        ignore: Bool[Tensor, "N h w"] | None = None,
    ) -> tuple[Encoded, Float[Tensor, "N h w"]]:
        """Training targets of the people of N images; any axis of people, or none for one person.

        Args:
            joints: image pixels.
            visible: 0 absent, 1 occluded, 2 visible; people who are none are absent in all joints.
            ignore: where the maps are not known, at the maps' size; None for nowhere, and maps of the size it was built for.

        Returns:
            heatmaps (N, K, h, w) and pafs (N, 2 L, h, w); the weight of each pixel, 0 where ignored and 1 elsewhere.
        """
        if joints.ndim == 3:
            joints, visible = joints.unsqueeze(1), visible.unsqueeze(1)
        w, h = self.map_size if ignore is None else (ignore.shape[-1], ignore.shape[-2])
        places, present = to_map(joints.float(), self.stride), visible != ABSENT
        # Somewhere finite for what is not there: NaN times zero would still be NaN.
        places = torch.where(present.unsqueeze(-1), places, 0)
        target = {"heatmaps": self._heatmaps(places, present, w, h), "pafs": self._pafs(places, present, w, h)}
        return target, places.new_ones((len(places), h, w)) if ignore is None else (~ignore).to(places.dtype)

    def _heatmaps(
        self, places: Float[Tensor, "N P K 2"], present: Bool[Tensor, "N P K"], w: int, h: int
    ) -> Float[Tensor, "N K h w"]:
        x, y = places.unbind(-1)
        present = present & (x >= -0.5) & (x < w - 0.5) & (y >= -0.5) & (y < h - 0.5)
        scale = -0.5 / self.sigma**2
        across = torch.exp((torch.arange(w, device=x.device) - x.unsqueeze(-1)).square() * scale)
        down = torch.exp((torch.arange(h, device=x.device) - y.unsqueeze(-1)).square() * scale) * present.unsqueeze(-1)
        maps = places.new_zeros((*x.shape[::2], h, w))
        for person in range(x.shape[1]):
            maps = torch.maximum(maps, down[:, person].unsqueeze(-1) * across[:, person].unsqueeze(-2))
        return maps

    def _pafs(
        self, places: Float[Tensor, "N P K 2"], present: Bool[Tensor, "N P K"], w: int, h: int
    ) -> Float[Tensor, "N L*2 h w"]:
        N, L = len(places), len(self.limbs)
        first, second = torch.as_tensor(self.limbs, device=places.device).unbind(-1)
        image, person, limb = (present[..., first] & present[..., second]).nonzero(as_tuple=True)
        start, end = places[image, person, first[limb]], places[image, person, second[limb]]
        field, count = places.new_zeros((N * L, 2, h, w)), places.new_zeros((N * L, h, w))
        step = max(1, _CHUNK // (2 * h * w))
        for begin in range(0, len(limb), step):
            part = slice(begin, begin + step)
            inside, unit = self._cover(start[part], end[part], w, h)
            row = image[part] * L + limb[part]
            count.index_add_(0, row, inside)
            field.index_add_(0, row, inside.unsqueeze(1) * unit[..., None, None])
        return (field / count.clamp(min=1).unsqueeze(1)).reshape(N, 2 * L, h, w)

    def _cover(
        self, start: Float[Tensor, "M 2"], end: Float[Tensor, "M 2"], w: int, h: int
    ) -> tuple[Float[Tensor, "M h w"], Float[Tensor, "M 2"]]:
        """1 at pixels within the width of a limb's line, and its direction; a limb without length covers nothing."""
        along = end - start
        length = along.norm(dim=-1)
        unit = along / torch.where(length > 1e-3, length, torch.inf).unsqueeze(-1)
        x = torch.arange(w, device=start.device) - start[:, :1]
        y = torch.arange(h, device=start.device) - start[:, 1:]
        reach = (x * unit[:, :1]).unsqueeze(1) + (y * unit[:, 1:]).unsqueeze(2)
        reach = reach.clamp(min=0).minimum(length[:, None, None])
        off_x = x.unsqueeze(1) - reach * unit[:, 0, None, None]
        off_y = y.unsqueeze(2) - reach * unit[:, 1, None, None]
        inside = (off_x.square() + off_y.square() <= self.width**2) & (length > 1e-3)[:, None, None]
        return inside.to(start.dtype), unit

    def decode(self, encoded: Encoded) -> tuple[Float[Tensor, "N K 2"], Float[Tensor, "N K"]]:
        """Raises BiposeError: an image has many people, which `people` finds."""
        raise BiposeError(
            "SceneCodec finds all people of whole images: train and score with SceneModule (task: scenes)"
        )

    @torch.no_grad()
    def people(self, encoded: Encoded) -> list[People]:
        """The people of each image, in image pixels."""
        heatmaps, pafs = (encoded[key].detach().float().cpu().numpy() for key in self.keys)
        found = [find_people(maps, field, self.limbs, self.rules) for maps, field in zip(heatmaps, pafs, strict=True)]
        return [People(from_map(torch.from_numpy(p.joints), self.stride).numpy(), p.confidence, p.score) for p in found]

    def flip(self, encoded: Encoded, order: Tensor | None = None) -> Encoded:
        """The encoding of the mirrored image; `order` must be that of the skeleton, which the limbs follow.

        Raises:
            BiposeError: a limb whose mirror image is none.
        """
        device = next(iter(encoded.values())).device
        flipped = {}
        if "heatmaps" in encoded:
            flipped["heatmaps"] = encoded["heatmaps"][:, self._flip_order(order, device)].flip(-1)
        if "pafs" in encoded:
            assert self._skeleton is not None
            limb, sign = (torch.as_tensor(v, device=device) for v in mirrored_limbs(self.limbs, self._skeleton))
            pafs = encoded["pafs"]
            N, _, h, w = pafs.shape
            turned = pafs.reshape(N, -1, 2, h, w)[:, limb].flip(-1) * sign.to(pafs.dtype)[..., None, None]
            flipped["pafs"] = turned.flatten(1, 2)
        return flipped


def limb_indices(skeleton: Skeleton, limbs: Sequence[Sequence[str]] | None = None) -> np.ndarray:
    """(L, 2) joints of limbs that hold a person together.

    Args:
        skeleton: the joints.
        limbs: pairs of names; None for those of the skeleton and `HEAD_LINKS`.

    Raises:
        BiposeError: an unknown joint, a limb that is no pair or is there twice, or joints that no limb connects with the others.
    """
    given: Sequence[Sequence[str]] = (
        [*skeleton.limbs, *(p for p in HEAD_LINKS if set(p) <= set(skeleton.joints))] if limbs is None else limbs
    )
    wrong = [
        list(pair) for pair in given if len(set(pair)) != 2 or len(pair) != 2 or not set(pair) <= set(skeleton.joints)
    ]
    if wrong:
        raise BiposeError(
            f"SceneCodec: limb {wrong[0]} is no pair of joints of {skeleton.name}; mend codec.init_args.limbs"
        )
    if len({frozenset(pair) for pair in given}) != len(given):
        raise BiposeError("SceneCodec: a limb is there twice; mend codec.init_args.limbs")
    reached, grown = set[str](), {skeleton.joints[0]}
    while grown != reached:
        reached = grown
        grown = reached | {joint for pair in given if set(pair) & reached for joint in pair}
    apart = [joint for joint in skeleton.joints if joint not in reached]
    if apart:
        raise BiposeError(
            f"SceneCodec: no limbs of {skeleton.name} lead from {skeleton.joints[0]} to {', '.join(apart[:4])}: people would "
            "fall apart; give codec.init_args.limbs that connect all joints"
        )
    return np.array([[skeleton.index(a), skeleton.index(b)] for a, b in given], np.int64)


def mirrored_limbs(limbs: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """For a flip: (L,) which limb's field each limb takes, and (L, 2) signs of its x and y.

    Raises:
        BiposeError: a limb whose mirror image is none.
    """
    number = {(int(a), int(b)): i for i, (a, b) in enumerate(limbs)}
    order, signs = [], []
    for a, b in skeleton.flip[limbs].tolist():
        there, back = number.get((a, b)), number.get((b, a))
        found = there if there is not None else back
        if found is None:
            names = f"{skeleton.joints[a]} and {skeleton.joints[b]}"
            raise BiposeError(
                f"SceneCodec: a flip makes a limb of {names}, which is none; give codec.init_args.limbs of both sides"
            )
        order.append(found)
        # A limb that is drawn the other way round has the opposite field.
        signs.append((-1.0, 1.0) if there is not None else (1.0, -1.0))
    return np.array(order, np.int64), np.array(signs)


def check_size(what: str, size: tuple[int, int], stride: int) -> None:
    """Raises BiposeError where a width or height is no multiple of the stride, or gives maps below 3x3."""
    if size[0] % stride or size[1] % stride:
        nearest = "x".join(str(max(3, round(side / stride)) * stride) for side in size)
        raise BiposeError(
            f"{what} of {size[0]}x{size[1]} are no multiple of the maps' stride {stride}; {nearest} would be one"
        )
    if min(size) // stride < 3:
        raise BiposeError(f"{what} of {size[0]}x{size[1]} at stride {stride} give maps below 3x3; make them larger")


__all__ = ["HEAD_LINKS", "SceneCodec", "check_size", "limb_indices", "mirrored_limbs"]
