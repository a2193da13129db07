"""Skeletons: joints, left/right swaps, limbs, sigmas and reference segments, all by name; indices are derived, never typed.

Sources: COCO sigmas from pycocotools' `Params.setKpParams`; joint orders from each data set's own documentation (JHMDB:
Jhuang et al. 2013; Penn Action: Zhang et al. 2013; MPII: Andriluka et al. 2014; PoseTrack18: Andriluka et al. 2018;
Human3.6M: Ionescu et al. 2014, the 17 joints that lifting papers keep of its 32).
"""

from __future__ import annotations

import re
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bipose_lit.types import BiposeError


@dataclass(frozen=True)
class Skeleton:
    """A set of joints.

    Attributes:
        name: the data set's name for it.
        joints: joint names in storage order. Left and right are the person's own.
        swaps: pairs of names that a horizontal flip exchanges.
        limbs: pairs of names to draw.
        sigmas: OKS fall-off per joint (COCO), empty where the data set defines none.
        torso: the two joints whose distance normalises PCK by torso.
        groups: joints reported together, e.g. "wrist" for both wrists.
    """

    name: str
    joints: tuple[str, ...]
    swaps: tuple[tuple[str, str], ...]
    limbs: tuple[tuple[str, str], ...]
    torso: tuple[str, str] = ("left_shoulder", "right_hip")
    sigmas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.joints)
        named = [n for pair in (*self.swaps, *self.limbs, self.torso) for n in pair]
        unknown = sorted(set(named) - known)
        if not unknown and len(known) != len(self.joints):
            unknown = sorted(name for name, count in Counter(self.joints).items() if count > 1)
        if unknown:
            raise ValueError(f"skeleton {self.name}: unknown or repeated joints {', '.join(unknown[:8])}")
        sides = [name for pair in self.swaps for name in pair]
        if len(set(sides)) != len(sides):
            raise ValueError(f"skeleton {self.name}: a joint is in more than one swap, or swapped with itself")
        if self.sigmas and len(self.sigmas) != len(self.joints):
            raise ValueError(f"skeleton {self.name}: {len(self.sigmas)} sigmas for {len(self.joints)} joints")

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Position of a joint; ValueError if the skeleton lacks it."""
        return self.joints.index(joint)

    @cached_property
    def flip(self) -> np.ndarray:
        """(K,) permutation that a horizontal flip applies: flipped[k] = original[flip[k]]."""
        order = np.arange(len(self.joints))
        for left, right in self.swaps:
            a, b = self.index(left), self.index(right)
            order[a], order[b] = b, a
        return order

    @cached_property
    def limb_indices(self) -> np.ndarray:
        """(L, 2) joint indices of the limbs."""
        return np.array([(self.index(a), self.index(b)) for a, b in self.limbs], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Joints with their left and right taken together, in order of first appearance: {"wrist": (9, 10), ...}."""
        found: dict[str, list[int]] = {}
        for i, joint in enumerate(self.joints):
            found.setdefault(joint.removeprefix("left_").removeprefix("right_"), []).append(i)
        return {name: tuple(ids) for name, ids in found.items()}

    def mapping_from(self, other: Skeleton) -> np.ndarray:
        """(K,) indices into `other` by joint name, -1 where `other` lacks the joint."""
        return np.array([other.joints.index(j) if j in other.joints else -1 for j in self.joints], dtype=np.int64)


def _sides(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{n}", f"right_{n}") for n in names)


_LIMBS_BODY = (
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"),
    ("left_knee", "left_ankle"),
    ("right_hip", "right_knee"),
    ("right_knee", "right_ankle"),
)
_TRUNK = (
    ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_hip", "right_hip"),
)

COCO = Skeleton(
    name="coco",
    joints=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    swaps=_sides("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        *_LIMBS_BODY, *_TRUNK, ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
)  # fmt: skip

MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    swaps=_sides("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        *_LIMBS_BODY, ("pelvis", "thorax"), ("thorax", "upper_neck"), ("upper_neck", "head_top"),
        ("pelvis", "left_hip"), ("pelvis", "right_hip"), ("thorax", "left_shoulder"), ("thorax", "right_shoulder"),
    ),
)  # fmt: skip

PENN_ACTION = Skeleton(
    name="penn_action",
    joints=(
        "head", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    swaps=_sides("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(*_LIMBS_BODY, *_TRUNK, ("head", "left_shoulder"), ("head", "right_shoulder")),
)  # fmt: skip

JHMDB = Skeleton(
    name="jhmdb",
    joints=(
        "neck", "belly", "face", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_elbow",
        "left_elbow", "right_knee", "left_knee", "right_wrist", "left_wrist", "right_ankle", "left_ankle",
    ),
    swaps=_sides("shoulder", "hip", "elbow", "knee", "wrist", "ankle"),
    limbs=(
        *_LIMBS_BODY, ("face", "neck"), ("neck", "belly"), ("neck", "left_shoulder"), ("neck", "right_shoulder"),
        ("belly", "left_hip"), ("belly", "right_hip"),
    ),
)  # fmt: skip

POSETRACK18 = Skeleton(
    name="posetrack18",  # 17 slots as in the files; the ears are never labelled
    joints=(
        "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    swaps=_sides("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        *_LIMBS_BODY, *_TRUNK, ("head_bottom", "nose"), ("nose", "head_top"), ("head_bottom", "left_shoulder"),
        ("head_bottom", "right_shoulder"),
    ),
)  # fmt: skip

H36M = Skeleton(
    name="h36m",
    joints=(
        "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "thorax",
        "upper_neck", "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
        "right_wrist",
    ),
    swaps=_sides("hip", "knee", "ankle", "shoulder", "elbow", "wrist"),
    limbs=(
        *_LIMBS_BODY, ("pelvis", "right_hip"), ("pelvis", "left_hip"), ("pelvis", "spine"), ("spine", "thorax"),
        ("thorax", "upper_neck"), ("upper_neck", "head_top"), ("thorax", "left_shoulder"), ("thorax", "right_shoulder"),
    ),
)  # fmt: skip

SKELETONS = {s.name: s for s in (COCO, MPII, PENN_ACTION, JHMDB, POSETRACK18, H36M)}


RESERVED = frozenset(("all", "visible", "occluded", "n", "n_hidden", "p", "f", "b", "joint_mean"))
"""What a joint, or both sides of one, cannot be called: what else stands in that place of a metric's name (the strata of
`metrics.occlusion` and the mean of joints), in lower case, as dashboards do not tell capitals."""

FIELDS = ("name", "joints", "swaps", "limbs", "torso", "sigmas")

_LARGEST, _DEEPEST = 2**16, 8  # bytes of a YAML file, levels of it


def load_skeleton(path: str | Path) -> Skeleton:
    """A skeleton from a YAML file: the fields of `Skeleton` by name, `name` and `joints` at least (see `make_skeleton`).

    Raises:
        BiposeError: no such file, not YAML, an unknown or missing field, or a skeleton that is not consistent.
    """
    import yaml

    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise BiposeError(f"{path}: cannot read the skeleton ({error.strerror}); check the path") from error
    except ValueError as error:  # a path with a null character
        raise BiposeError(f"{str(path)!r}: is no path of a skeleton; check it") from error
    if len(data) > _LARGEST:
        raise BiposeError(f"{path}: larger than {_LARGEST} bytes; a skeleton is a small YAML file")
    try:
        text = data.decode("utf-8")
        fault = _unfit(text)
        content = None if fault else yaml.safe_load(text)
    except (
        yaml.YAMLError, RecursionError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
    ) as error:  # fmt: skip  # tags with values that do not suit them, e.g. dates that do not exist
        first = " ".join(str(error).split())[:200]
        raise BiposeError(f"{path}: not a YAML file ({first}); mend it") from error
    if fault:
        raise BiposeError(f"{path}: {fault}")
    return make_skeleton(content, str(path))


def make_skeleton(content: object, where: str = "skeleton") -> Skeleton:
    """A skeleton from plain data, as a YAML file or a checkpoint holds it.

    Pairs are lists of two joint names. `limbs` and `sigmas` may be left out; `torso` is left shoulder and right hip where the
    joints have these names, else it must be given; `swaps` are all joints left_X and right_X where they are left out (an empty
    list means that a flip exchanges nothing). Joints are named in lower case, as they become parts of metrics' names.

    Args:
        content: a mapping of `FIELDS`.
        where: it comes from, for the message.

    Raises:
        BiposeError: an unknown or missing field, or a skeleton that is not consistent.
    """
    if not isinstance(content, Mapping) or not {"name", "joints"} <= set(content) <= set(FIELDS):
        raise BiposeError(
            f"{where}: a skeleton has the fields name, joints and, if need be, swaps, limbs, torso, sigmas"
        )
    try:
        joints = tuple(_joint(j) for j in _listed(content["joints"]))
        swaps = _listed(content.get("swaps"))
        return Skeleton(
            name=_word(content["name"]),
            joints=joints,
            swaps=sides(joints) if content.get("swaps") is None else tuple(_pair(p) for p in swaps),
            limbs=tuple(_pair(p) for p in _listed(content.get("limbs"))),
            torso=_pair(content["torso"]) if "torso" in content else ("left_shoulder", "right_hip"),
            sigmas=tuple(_positive(s) for s in _listed(content.get("sigmas"))),
        )
    except ValueError as error:
        raise BiposeError(f"{where}: {error}; mend the skeleton") from error


def fields_of(skeleton: Skeleton) -> dict[str, Any]:
    """A skeleton as plain data, which `make_skeleton` takes."""
    return {
        "name": skeleton.name,
        "joints": list(skeleton.joints),
        "swaps": [list(p) for p in skeleton.swaps],
        "limbs": [list(p) for p in skeleton.limbs],
        "torso": list(skeleton.torso),
        "sigmas": list(skeleton.sigmas),
    }


def standing_alone(given: Any, skeleton: Skeleton) -> Any:
    """What a configuration says of a skeleton, with the fields in the place of a file's path."""
    return given if SKELETONS.get(str(given)) == skeleton else fields_of(skeleton)


def sides(joints: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs (left_X, right_X) of the joints that have both, in order of the left ones."""
    pairs = [(j, f"right_{j.removeprefix('left_')}") for j in joints if j.startswith("left_")]
    return tuple(pair for pair in pairs if pair[1] in joints)


def _unfit(text: str) -> str:
    """What no skeleton needs and a parser may choke on: aliases in aliases outgrow any memory, depth costs its square in time."""
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            return "holds aliases (*name); write the names out"
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            return f"lists within lists, more than {_DEEPEST} deep; a skeleton needs three"
    return ""


def find_skeleton(name: str | Path | Mapping[str, Any]) -> Skeleton:
    """A skeleton by its name (one of `SKELETONS`), by the path of a YAML file or from its fields (`make_skeleton`).

    Raises:
        BiposeError: none of these.
    """
    if isinstance(name, Mapping):
        return make_skeleton(name)
    if str(name) in SKELETONS:
        return SKELETONS[str(name)]
    if str(name).endswith((".yaml", ".yml")):
        return load_skeleton(name)
    raise BiposeError(f"skeleton {str(name)!r} is unknown; it is one of {', '.join(SKELETONS)}, or a YAML file")


def _word(value: object) -> str:
    # Names become parts of metrics' names, which slashes, brackets and commas divide.
    if not isinstance(value, str) or not re.fullmatch(r"[\w.-][\w .-]{0,63}", value):
        raise ValueError(f"{_short(value)} is not a name (at most 64 letters, digits, spaces and _ . -)")
    return value


def _joint(value: object) -> str:
    # One spelling per joint: names that differ in capitals, signs or alphabets alone would share a column of a dashboard.
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", value) or len(value) > 64:
        raise ValueError(f"{_short(value)} is not a name of a joint (at most 64 of a-z, 0-9, single _ between them)")
    if {value, value.removeprefix("left_").removeprefix("right_")} & RESERVED:
        raise ValueError(f"a joint cannot be called {value}, which means something else in metrics' names")
    return value


def _listed(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{_short(value)} is not a list")
    return list(value)


def _pair(value: object) -> tuple[str, str]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError(f"{_short(value)} is not a pair of joint names")
    return _joint(value[0]), _joint(value[1])


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise ValueError(f"sigma {_short(value)} is not a positive number")
    return float(value)


def _short(value: object) -> str:
    return " ".join(reprlib.repr(value).split())
