"""A reader's labels on another skeleton, joint by joint by name: train on one set, score on another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bipose_lit.datasets.index import PoseIndex, Reader, Track
from bipose_lit.skeletons import Skeleton, find_skeleton
from bipose_lit.types import ABSENT, BiposeError


class Converted:
    """A reader's tracks with the joints of another skeleton.

    A target joint comes from the source joint of the same name, or from what `rename` or `midpoints` say, which go first; else it
    is ABSENT everywhere. A midpoint is VISIBLE where both of its joints are, OCCLUDED where both are labelled, else ABSENT.
    Boxes, ids, pixels and norms stay those of the source (the torso is that of its skeleton). Names tell no definitions: Penn
    Action's "head" lies elsewhere than COCO's "nose", so nothing is matched that is not named.

    Args:
        reader: any reader.
        skeleton: the target: a name in `bipose_lit.skeletons`, a YAML file as `skeletons.load_skeleton` reads it, or its fields.
        rename: source joint to target joint, e.g. {"head": "head_top"}; a source joint that is renamed gives up its own name.
        midpoints: target joint to the two source joints that it lies between, e.g. {"pelvis": ["left_hip", "right_hip"]}.

    Attributes:
        skeleton: the target.
        official: the reader's split lists are their owners' own.

    Raises:
        BiposeError: an unknown skeleton or joint, no joint in common, a target joint that is given twice, or one side of the
            body that is converted otherwise than the other or crosses over (a flip would then exchange the wrong joints).
    """

    def __init__(
        self,
        reader: Reader,
        skeleton: str | dict[str, Any],
        rename: dict[str, str] | None = None,
        midpoints: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        self.reader, self.skeleton = reader, find_skeleton(skeleton)
        self.official = bool(getattr(reader, "official", False))
        self.layout: Any = getattr(reader, "layout", ())
        self.pairs = joint_pairs(reader.skeleton, self.skeleton, rename or {}, midpoints or {})
        self._same = reader.skeleton.joints == self.skeleton.joints and bool(
            (self.pairs == np.arange(len(self.skeleton))[:, None]).all()
        )

    def index(self, split: str) -> PoseIndex:
        """The reader's index on the other skeleton, named "penn_action/test>coco12[gt-box]" after the joints that it has.

        `skipped` also says which joints fell away or are absent, and which clips have no labelled joint left. The data set's own
        measure is kept only where the joints are the same, in the same order.

        Raises:
            BiposeError: the reader's own, or no clip that has a labelled joint left.
        """
        index = self.reader.index(split)
        if self._same:
            return replace(index, skeleton=self.skeleton)
        source, target = index.skeleton, self.skeleton
        skipped = dict(index.skipped)
        unused = [name for i, name in enumerate(source.joints) if not (self.pairs == i).any()]
        missing = [name for name, pair in zip(target.joints, self.pairs, strict=True) if pair[0] < 0]
        if unused:
            skipped[f"joints of {source.name} that {target.name} lacks, dropped"] = unused
        if missing:
            skipped[f"joints of {target.name} that {source.name} lacks, absent"] = missing
        tracks = [self._track(track) for track in index.tracks]
        empty = [track.clip for track in tracks if not (track.visible != ABSENT).any()]
        if empty:
            skipped[f"no joint of {target.name} labelled"] = empty
        kept = tuple(track for track in tracks if (track.visible != ABSENT).any())
        if index.tracks and not kept:
            raise BiposeError(
                f"{index.name}: no clip has a labelled joint that {target.name} has too; give rename or midpoints"
            )
        head, bracket, rule = index.name.partition("[")
        return replace(
            index,
            name=f"{head}>{target.name}{len(target) - len(missing)}{bracket}{rule}",
            skeleton=target,
            tracks=kept,
            skipped=skipped,
            scoring=None,
        )

    def _track(self, track: Track) -> Track:
        joints, visible = convert(track.joints, track.visible, self.pairs)

        def moved(places: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
            if places is None:
                return None
            return np.where((self.pairs[:, 0] < 0)[:, None], 0, _mean(places, self.pairs)).astype(np.float32)

        joints_3d = moved(track.joints_3d)
        return replace(track, joints=joints, visible=visible, joints_3d=joints_3d, detected=moved(track.detected))


def joint_pairs(
    source: Skeleton,
    target: Skeleton,
    rename: Mapping[str, str] | None = None,
    midpoints: Mapping[str, Sequence[str]] | None = None,
) -> NDArray[np.int64]:
    """(K, 2) the two source joints whose mean each target joint is (the same one twice for a plain match); -1 for none.

    Raises:
        BiposeError: see `Converted`.
    """
    rename, midpoints = rename or {}, midpoints or {}
    between = f"{source.name} to {target.name}"
    for name, joints, which in [
        *((a, source.joints, source.name) for a in rename),
        *((b, target.joints, target.name) for b in rename.values()),
        *((b, target.joints, target.name) for b in midpoints),
        *((a, source.joints, source.name) for pair in midpoints.values() for a in pair),
    ]:
        if name not in joints:
            raise BiposeError(f"{between}: {which} has no joint {name!r}; it has {', '.join(joints)}")
    given = [*rename.values(), *midpoints]
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise BiposeError(f"{between}: rename and midpoints give {', '.join(twice)} more than once; keep one")
    if any(len(pair) != 2 for pair in midpoints.values()):
        raise BiposeError(f"{between}: a midpoint lies between two joints; give a list of two names")
    pairs = np.full((len(target), 2), -1, dtype=np.int64)
    for i, name in enumerate(target.joints):
        if name in source.joints and name not in rename:
            pairs[i] = source.index(name)
    for old, new in rename.items():
        pairs[target.index(new)] = source.index(old)
    for new, pair in midpoints.items():
        pairs[target.index(new)] = [source.index(name) for name in pair]
    if (pairs < 0).all():
        raise BiposeError(
            f"{between}: no joint in common ({', '.join(source.joints)}; {', '.join(target.joints)}); give rename or midpoints"
        )
    _check_sides(source, target, pairs, between)
    return pairs


def _check_sides(source: Skeleton, target: Skeleton, pairs: NDArray[np.int64], between: str) -> None:
    """Converting must commute with a flip, and a joint that is named left must stay left.

    Sides are told by swaps, and by names too: a skeleton may lack swaps, or one side of a joint.
    """
    ours, theirs = _partners(target), _partners(source)
    uneven = np.zeros(len(target), bool)
    for i in np.flatnonzero(pairs[:, 0] >= 0):
        other = ours[i]
        if other != _LACKING:
            mirrored = np.sort(theirs[pairs[i]])
            if mirrored[0] == _LACKING:
                mirrored[:] = -1  # the source lacks the other side, so nothing may take its place
            if np.any(mirrored != np.sort(pairs[other])):
                uneven[[i, other]] = True
        side = _side(target.joints[i])
        told = {_side(source.joints[j]) for j in pairs[i]} - {""}
        swapped = any(source.flip[j] != j for j in pairs[i])
        if side and told != {side} and (told or not swapped):  # a swap without names of sides has been looked at above
            uneven[i] = True
    if uneven.any():
        names = ", ".join(target.joints[i] for i in np.flatnonzero(uneven))
        raise BiposeError(
            f"{between}: {names} would not survive a flip: left and right are converted differently; treat both alike"
        )


_LACKING = -2


def _partners(skeleton: Skeleton) -> NDArray[np.int64]:
    """(K,) the joint that a flip should put in a joint's place, by swap or else by name; `_LACKING` where there is none."""
    found = skeleton.flip.astype(np.int64)
    for i, name in enumerate(skeleton.joints):
        side = _side(name)
        if side and found[i] == i:
            other = {"left": "right", "right": "left"}[side] + name.removeprefix(side)
            found[i] = skeleton.index(other) if other in skeleton.joints else _LACKING
    return found


def _side(name: str) -> str:
    return next((side for side in ("left", "right") if name.startswith(f"{side}_")), "")


def convert(
    joints: NDArray[np.float32], visible: NDArray[np.uint8], pairs: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Joints (..., K, 2) and visibility (..., K) of the target from those of the source; joints are 0 where absent."""
    flags = np.where(pairs < 0, ABSENT, visible[..., pairs]).min(axis=-1).astype(np.uint8)
    return np.where((flags != ABSENT)[..., None], _mean(joints, pairs), 0).astype(np.float32), flags


def _mean(places: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """(..., K, D) means of pairs of places (..., S, D); a joint paired with itself keeps its place to the last bit."""
    return np.asarray(places[..., pairs, :].astype(np.float64).mean(axis=-2))


__all__ = ["Converted", "convert", "joint_pairs"]
