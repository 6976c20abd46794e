"""
Trees as linked nodes -> `fraudsdk.model.forest.Tree`, breadth first.

Both the validator's arrays and Treelite's pass through here, so that the two can be compared node by node whatever order
each of them numbers nodes in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import InvalidModelError
from fraudsdk.model.forest import MAX_DEPTH, Tree

Int64Array = npt.NDArray[np.int64]


def breadth_first_order(left: npt.NDArray[np.int32], right: npt.NDArray[np.int32], *, where: str) -> Int64Array:
    """
    Nodes that the root (node 0) reaches, level by level, siblings side by side.

    Parameters
    ----------
    left, right : int32[n_nodes]
        Children; -1 and -1 at a leaf.
    where : str
        Names the tree in messages.

    Raises
    ------
    InvalidModelError
        A child out of range, a node with two parents (every cycle has one), half a split, or a tree too deep.
    """
    n_nodes = left.size
    seen = np.zeros(n_nodes, np.bool_)
    level = np.zeros(1, np.int64)
    seen[0] = True
    order = [level]
    while True:
        half = level[(left[level] == -1) != (right[level] == -1)]
        if half.size:
            raise InvalidModelError(
                f"{where}, node {half[0]}: one child is -1 and the other is not; a split needs both"
            )
        parents = level[left[level] != -1]
        if parents.size == 0:
            return np.concatenate(order)
        if len(order) > MAX_DEPTH:
            raise InvalidModelError(f"{where} is deeper than {MAX_DEPTH}; limit max_depth when training")
        level = np.stack((left[parents], right[parents]), axis=1).ravel().astype(np.int64)
        _check_children(level, parents, seen, where)
        order.append(level)


def _check_children(children: Int64Array, parents: Int64Array, seen: npt.NDArray[np.bool_], where: str) -> None:
    outside = (children < 0) | (children >= seen.size)
    if outside.any():
        k = int(outside.argmax())
        raise InvalidModelError(
            f"{where}, node {parents[k // 2]}: child {children[k]} does not exist; the tree has nodes 0 to {seen.size - 1}"
        )
    twice = seen[children]
    if not twice.any():
        seen[children] = True
        twice = np.bincount(children, minlength=seen.size)[children] > 1
    if twice.any():
        k = int(twice.argmax())
        raise InvalidModelError(
            f"{where}, node {parents[k // 2]}: child {children[k]} has a second parent; a tree has no cycles and no sharing"
        )


def lay_out(
    order: Int64Array,
    *,
    left: npt.NDArray[np.int32],
    feature: npt.NDArray[np.int32],
    threshold: npt.NDArray[np.float32],
    leaf_value: npt.NDArray[np.float32],
    default_left: npt.NDArray[np.bool_],
    categories: Mapping[int, npt.NDArray[np.int32]],
) -> Tree:
    """A `Tree` of the nodes in `order`; what a node has no use for (the threshold of a leaf) becomes zero."""
    position = np.full(left.size, -1, np.int64)
    position[order] = np.arange(order.size)
    leaf = left[order] == -1
    categorical = np.zeros(left.size, np.bool_)
    categorical[list(categories)] = True
    zero = np.float32(0)
    return Tree(
        left=np.where(leaf, -1, position[left[order]]).astype(np.int32),
        feature=np.where(leaf, 0, feature[order]).astype(np.int32),
        threshold=np.where(leaf | categorical[order], zero, threshold[order]).astype(np.float32),
        value=np.where(leaf, leaf_value[order], zero).astype(np.float32),
        default_left=np.where(leaf, False, default_left[order]),
        categories={int(position[node]): members for node, members in categories.items() if position[node] >= 0},
    )


def first_difference(ours: Sequence[Tree], theirs: Sequence[Tree]) -> str | None:
    """Where two forests differ, or None.  Floats are compared by their bits."""
    if len(ours) != len(theirs):
        return f"{len(ours)} trees against {len(theirs)}"
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for name in ("left", "feature", "threshold", "value", "default_left"):
            mine, other = getattr(a, name), getattr(b, name)
            if mine.shape != other.shape or mine.tobytes() != other.tobytes():
                return f"tree {index}, {name}"
        if a.categories.keys() != b.categories.keys() or any(
            not np.array_equal(members, b.categories[node]) for node, members in a.categories.items()
        ):
            return f"tree {index}, categories"
    return None
