"""The tree of a skeleton's limbs, and refiners that go along it from joint to joint."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from bipose_lit.models.base import Refiner
from bipose_lit.skeletons import Skeleton, find_skeleton, standing_alone
from bipose_lit.types import BiposeError


@dataclass(frozen=True)
class Tree:
    """Joints that hang on one another.

    Attributes:
        parents: of each joint; -1 for the root.
        levels: joints by their distance from the root, the root alone first.
    """

    parents: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]

    @property
    def root(self) -> int:
        return self.levels[0][0]

    @property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each joint, in storage order."""
        K = len(self.parents)
        return tuple(tuple(c for c in range(K) if self.parents[c] == joint) for joint in range(K))

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) of every joint but the root, in storage order."""
        return tuple((c, p) for c, p in enumerate(self.parents) if p >= 0)

    def tour(self) -> tuple[int, ...]:
        """Joints in the order in which a walk along the limbs meets them, there and back: 2 K - 1 visits."""
        children = self.children

        def walk(joint: int) -> tuple[int, ...]:
            visits = [joint]
            for child in children[joint]:
                visits += [*walk(child), joint]
            return tuple(visits)

        return walk(self.root)


def spanning_tree(skeleton: Skeleton) -> Tree:
    """A tree of limbs, as shallow as can be: from the joint in the middle, each joint by its shortest way.

    Where limbs form circles, those that are on no shortest way are left out. What no limb connects with the rest hangs on the
    root by its own middle.
    """
    K = len(skeleton)
    near: list[list[int]] = [[] for _ in range(K)]
    for a, b in skeleton.limb_indices.tolist():
        near[a].append(b)
        near[b].append(a)
    parts: list[list[int]] = []
    for joint in range(K):
        if not any(joint in part for part in parts):
            parts.append(sorted(_ways(near, joint)))
    parts.sort(key=lambda part: -len(part))  # stable: among equals the first joint's
    middles = [min(part, key=lambda j: max(depth for _, depth in _ways(near, j).values())) for part in parts]
    root = middles[0]
    near[root] += middles[1:]
    ways = _ways(near, root)
    depth = max(d for _, d in ways.values())
    levels = tuple(tuple(j for j in range(K) if ways[j][1] == d) for d in range(depth + 1))
    return Tree(tuple(ways[j][0] for j in range(K)), levels)


def _ways(near: list[list[int]], start: int) -> dict[int, tuple[int, int]]:
    """Joints that can be reached: the one before each on a shortest way (-1 for the start), and the way's length."""
    found = {start: (-1, 0)}
    queue = deque([start])
    while queue:
        joint = queue.popleft()
        for other in near[joint]:
            if other not in found:
                found[other] = (joint, found[joint][1] + 1)
                queue.append(other)
    return found


class SkeletonRefiner(Refiner):
    """A refiner that knows which joints are connected.

    Args:
        skeleton: name of the skeleton in `bipose_lit.skeletons`, a YAML file as `skeletons.load_skeleton` reads it, or its fields
            as `skeletons.make_skeleton` takes them; the data's.
    """

    def __init__(self, skeleton: str | dict[str, Any]) -> None:
        super().__init__()
        self.take_skeleton(skeleton)

    def take_skeleton(self, skeleton: str | dict[str, Any]) -> None:
        """What the constructor does, for classes with other constructors beside."""
        self.skeleton = find_skeleton(skeleton)
        self.tree = spanning_tree(self.skeleton)

    def config(self) -> dict[str, Any]:
        """As `Part.config`, but with the fields of a skeleton that came from a file: a checkpoint rebuilds alone."""
        found = super().config()
        found["init_args"]["skeleton"] = standing_alone(found["init_args"]["skeleton"], self.skeleton)
        return found

    def check_joints(self, joints: int) -> None:
        """Raises BiposeError if the skeleton has another number of joints, or so few that nothing is connected."""
        if len(self.skeleton) != joints:
            raise BiposeError(
                f"model.refiner ({type(self).__name__}): skeleton {self.skeleton.name} has {len(self.skeleton)} joints, the "
                f"model {joints}; set model.refiner.init_args.skeleton to the data's"
            )
        if joints < 2:
            raise BiposeError(
                f"model.refiner ({type(self).__name__}): one joint alone has no limbs; set model.refiner null"
            )


__all__ = ["SkeletonRefiner", "Tree", "spanning_tree"]
