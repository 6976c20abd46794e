"""
The forest tables: built from trees, checked before a kernel may walk them, written to and read from one file.

A kernel trusts every index it reads.  `check_tables` is where that trust is earned: it proves, for tables from a file that
anybody may have edited, that each walk stays inside its tree and ends at a leaf.  Nothing here executes a model.

    header | steps per group | steps per tree | roots | nodes (2 words each) | values | categorical features | sets

The words of the header and the two words of a node are named in `fraudsdk.model.layout`.  Nodes of a tree are in
breadth-first order, the right child next to the left one, so that one distance finds both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import InvalidModelError
from fraudsdk.model import layout

Int32Array = npt.NDArray[np.int32]
Float32Array = npt.NDArray[np.float32]

MAGIC: Final = b"fraudsdk-forest\n"
MAX_TREES: Final = 5_000
MAX_DEPTH: Final = 64
MAX_NODES: Final = 2_000_000
MAX_SET_WORDS: Final = 16_000_000  # 64 MB of category sets: more is a mistake, and would not fit a cache anyway


@dataclass(frozen=True, slots=True)
class Tree:
    """
    One tree, breadth first, the right child right after the left one.

    Attributes
    ----------
    left : int32[n_nodes]
        Index of the left child; -1 at a leaf.
    feature : int32[n_nodes]
        Feature that an inner node splits on; 0 at a leaf.
    threshold : float32[n_nodes]
        ``value < threshold`` goes left; 0 at a leaf or a categorical node.
    value : float32[n_nodes]
        What a leaf adds to the margin; 0 at an inner node.
    default_left : bool[n_nodes]
        Where a missing value goes.
    categories : mapping of int to int32[k]
        Categorical nodes -> the categories that go right, ascending.
    """

    left: Int32Array
    feature: Int32Array
    threshold: Float32Array
    value: Float32Array
    default_left: npt.NDArray[np.bool_]
    categories: Mapping[int, Int32Array] = field(default_factory=dict)

    def depth(self) -> int:
        """Edges from the root to the deepest leaf."""
        return len(_levels(self.left, np.zeros(1, np.int64))) - 1


# -0.0 is the one float that changes no other: -0.0 + -0.0 is -0.0, where adding 0.0 would give 0.0.
_NOTHING: Final = Tree(
    left=np.full(1, -1, np.int32),
    feature=np.zeros(1, np.int32),
    threshold=np.zeros(1, np.float32),
    value=np.full(1, -0.0, np.float32),
    default_left=np.zeros(1, np.bool_),
)


def build_tables(trees: Sequence[Tree], *, n_features: int, base_margin: np.float32) -> Int32Array:
    """
    Lay a forest out for the kernels.

    Parameters
    ----------
    trees : sequence of Tree
        In the order in which their leaves are added.
    n_features : int
        Length of a row.
    base_margin : float32
        Margin of the empty forest; leaves are added to it.

    Returns
    -------
    int32[n_words]
        Checked tables.

    Raises
    ------
    InvalidModelError
        The forest exceeds a cap, or its trees are not what `Tree` promises.
    """
    n_groups = -(-len(trees) // layout.LANES)
    padded = [*trees, *[_NOTHING] * (n_groups * layout.LANES - len(trees))]
    n_categories = _categories_per_feature(trees)
    sizes = np.array([tree.left.size for tree in padded], np.int64)
    roots = np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int32)
    words_per_set = {feature: (n + 2 + 31) // 32 for feature, n in n_categories.items()}
    n_set_words = sum(words_per_set[int(tree.feature[node])] for tree in trees for node in tree.categories)
    if n_set_words > MAX_SET_WORDS:
        raise InvalidModelError(
            f"category sets need {n_set_words:,} words, the cap is {MAX_SET_WORDS:,}; merge rare categories before training"
        )
    header = np.zeros(layout.HEADER_WORDS, np.int32)
    header[layout.N_FEATURES] = n_features
    header[layout.N_TREES] = len(trees)
    header[layout.N_GROUPS] = n_groups
    header[layout.N_NODES] = int(sizes.sum())
    header[layout.N_CATEGORICAL] = len(n_categories)
    header[layout.N_SET_WORDS] = n_set_words
    header[layout.BASE_MARGIN] = np.float32(base_margin).view(np.int32)
    total = _place_parts(header)

    words = np.zeros(total, np.int32)
    words[: layout.HEADER_WORDS] = header
    tree_steps = np.array([tree.depth() | (layout.MIXED if tree.categories else 0) for tree in padded], np.int32)
    sets: list[Int32Array] = []
    n_written = 0
    nodes = np.empty((int(sizes.sum()), 2), np.int32)
    for tree, root in zip(padded, roots, strict=True):
        nodes[root : root + tree.left.size] = _node_words(tree)
        for node, members in sorted(tree.categories.items()):
            feature = int(tree.feature[node])
            nodes[root + node, 0] = n_written
            sets.append(_set_words(members, n_categories[feature], words_per_set[feature]))
            n_written += words_per_set[feature]
    parts = _parts(words, header)
    parts["group_steps"][:] = _group_steps(tree_steps)
    parts["tree_steps"][:] = tree_steps
    parts["roots"][:] = roots
    parts["nodes"][:] = nodes.ravel()
    parts["values"][:] = np.concatenate([tree.value for tree in padded]).astype(np.float32).view(np.int32)
    parts["categorical"][:] = np.array(sorted(n_categories.items()), np.int32).ravel()
    if sets:
        parts["sets"][:] = np.concatenate(sets)
    check_tables(words)
    return words


def check_tables(words: Int32Array) -> None:
    """
    Prove that the kernels may walk these tables.

    Raises
    ------
    InvalidModelError
        Says which part is wrong.
    """
    header = words[: layout.HEADER_WORDS]
    _require(header.size == layout.HEADER_WORDS, "forest tables end inside their header")
    _check_counts(header)
    expected = header.copy()
    total = _place_parts(expected)
    _require(bool((expected == header).all()), "forest tables misplace a part")
    _require(words.size == total, f"forest tables must have {total} words, had {words.size}")
    parts = _parts(words, header)
    _check_nodes(parts, header)
    _check_steps(parts)


def write_forest(words: Int32Array) -> bytes:
    """Bytes of a forest file: `MAGIC`, then the words, little-endian."""
    return MAGIC + words.astype("<i4").tobytes()


def read_forest(data: bytes) -> Int32Array:
    """
    Tables of a forest file, checked.

    The bytes are copied into memory of our own rather than mapped: a mapped file that somebody truncates kills the
    process (SIGBUS), and one that somebody edits after it was verified is walked unverified.
    """
    _require(data[: len(MAGIC)] == MAGIC, "not a forest file: its first bytes are not 'fraudsdk-forest'")
    _require((len(data) - len(MAGIC)) % 4 == 0, "a forest file is truncated: its length is no whole number of words")
    words = np.frombuffer(data, "<i4", offset=len(MAGIC)).astype(np.int32)
    check_tables(words)
    return words


@dataclass(frozen=True, slots=True)
class ForestView:
    """
    The nodes of checked forest tables, for those who lay them out otherwise.

    Attributes
    ----------
    n_features : int
        Length of a row.
    depth : int
        Of the deepest tree.
    base_margin : float32
        What leaves are added to.
    roots : int64[n_trees]
        First node of each tree, without those that fill up the last group.
    distance : int64[n_nodes]
        From a node to its left child, which the right one follows; 0 at a leaf.
    feature : int64[n_nodes]
        That an inner node tests.
    default_right : bool[n_nodes]
        Whether a missing value goes right.
    threshold : float32[n_nodes]
        Of an inner numeric node.
    value : float32[n_nodes]
        Of a leaf.
    categorical : bool[n_nodes]
        Whether a node tests a set.
    set_begin : int64[n_nodes]
        Where the set of a categorical node begins.
    sets : int32[n_set_words]
        Sets of categories.
    n_categories : dict of int to int
        Categorical features -> codes that some set knows.
    """

    n_features: int
    depth: int
    base_margin: np.float32
    roots: npt.NDArray[np.int64]
    distance: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    default_right: npt.NDArray[np.bool_]
    threshold: Float32Array
    value: Float32Array
    categorical: npt.NDArray[np.bool_]
    set_begin: npt.NDArray[np.int64]
    sets: Int32Array
    n_categories: dict[int, int]

    @classmethod
    def of(cls, words: Int32Array) -> ForestView:
        """View of checked tables."""
        parts = _parts(words, words)
        first, moves = np.ascontiguousarray(parts["nodes"].reshape(-1, 2).T)
        slot = (moves >> layout.SLOT_SHIFT) & layout.SLOT_MASK
        return cls(
            n_features=int(words[layout.N_FEATURES]),
            depth=depth_of(words),
            base_margin=words[layout.BASE_MARGIN : layout.BASE_MARGIN + 1].view(np.float32)[0],
            roots=parts["roots"][: int(words[layout.N_TREES])].astype(np.int64),
            distance=(moves & layout.DISTANCE_MASK).astype(np.int64),
            feature=(slot >> 1).astype(np.int64),
            default_right=(slot & 1).astype(np.bool_),
            threshold=first.view(np.float32),
            value=parts["values"].view(np.float32),
            categorical=moves < 0,
            set_begin=first.astype(np.int64),
            sets=parts["sets"],
            n_categories=categories_of(words),
        )


def depth_of(words: Int32Array) -> int:
    """Depth of the deepest tree."""
    return int((_parts(words, words)["tree_steps"] & ~layout.MIXED).max())


def categories_of(words: Int32Array) -> dict[int, int]:
    """Categorical features -> number of categories that some node knows (codes 0 to n - 1)."""
    pairs = _parts(words, words)["categorical"].reshape(-1, 2)
    return {int(feature): int(n) for feature, n in pairs}


def _place_parts(header: Int32Array) -> int:
    """Fill in where each part begins, given the counts; return the number of words."""
    n_padded = int(header[layout.N_GROUPS]) * layout.LANES
    n_nodes = int(header[layout.N_NODES])
    at = layout.HEADER_WORDS
    header[layout.FORMAT] = layout.FORMAT_VERSION
    for part, size in (
        (layout.GROUP_STEPS_AT, int(header[layout.N_GROUPS])),
        (layout.TREE_STEPS_AT, n_padded),
        (layout.ROOTS_AT, n_padded),
        (layout.NODES_AT, 2 * n_nodes),
        (layout.VALUES_AT, n_nodes),
        (layout.CATEGORICAL_AT, 2 * int(header[layout.N_CATEGORICAL])),
        (layout.SETS_AT, int(header[layout.N_SET_WORDS])),
    ):
        at += at % 2  # a node is 8 bytes and should not straddle two cache lines
        header[part] = at
        at += size
    # One word more than the sets: the kernel reads sets[0] at numeric nodes of a mixed walk, and an empty tail is no array.
    return at + 1


def _parts(words: Int32Array, header: Int32Array) -> dict[str, Int32Array]:
    def part(at: int, size: int) -> Int32Array:
        begin = int(header[at])
        return words[begin : begin + size]

    n_padded = int(header[layout.N_GROUPS]) * layout.LANES
    n_nodes = int(header[layout.N_NODES])
    return {
        "group_steps": part(layout.GROUP_STEPS_AT, int(header[layout.N_GROUPS])),
        "tree_steps": part(layout.TREE_STEPS_AT, n_padded),
        "roots": part(layout.ROOTS_AT, n_padded),
        "nodes": part(layout.NODES_AT, 2 * n_nodes),
        "values": part(layout.VALUES_AT, n_nodes),
        "categorical": part(layout.CATEGORICAL_AT, 2 * int(header[layout.N_CATEGORICAL])),
        "sets": part(layout.SETS_AT, int(header[layout.N_SET_WORDS])),
    }


def _categories_per_feature(trees: Sequence[Tree]) -> dict[int, int]:
    n_categories: dict[int, int] = {}
    for tree in trees:
        for node, members in tree.categories.items():
            feature = int(tree.feature[node])
            n_categories[feature] = max(n_categories.get(feature, 0), int(members.max()) + 1)
    too_many = [n for n in n_categories.values() if n > layout.MAX_CATEGORIES]
    _require(
        not too_many, f"a feature has {max(too_many, default=0):,} categories, the cap is {layout.MAX_CATEGORIES:,}"
    )
    return n_categories


def _node_words(tree: Tree) -> Int32Array:
    inner = tree.left >= 0
    distance = np.where(inner, tree.left - np.arange(tree.left.size), 0)
    slot = np.where(inner, 2 * tree.feature + ~tree.default_left, 0)
    categorical = np.zeros(tree.left.size, np.int64)
    categorical[list(tree.categories)] = 1
    words = np.empty((tree.left.size, 2), np.int32)
    words[:, 0] = np.where(inner, tree.threshold, np.float32(np.nan)).astype(np.float32).view(np.int32)
    words[:, 1] = distance | (slot << layout.SLOT_SHIFT) | (-categorical << layout.SIGN_SHIFT)
    return words


def _set_words(members: Int32Array, n_categories: int, n_words: int) -> Int32Array:
    """Bit k: category k goes right.  Bit n_categories, "none of these", is 0; the next, "missing, and that goes right", is 1."""
    bits = np.zeros(32 * n_words, np.uint8)
    bits[members] = 1
    bits[n_categories + 1] = 1
    return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)


def _group_steps(tree_steps: Int32Array) -> Int32Array:
    by_group = tree_steps.reshape(-1, layout.LANES)
    steps: Int32Array = (by_group & ~layout.MIXED).max(axis=1) | (by_group & layout.MIXED).max(axis=1)
    return steps


def _levels(left: Int32Array, roots: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Nodes by level, for children that lie after their parents (hence no cycle)."""
    levels = [roots]
    while True:
        inner = levels[-1][left[levels[-1]] >= 0]
        if inner.size == 0:
            return levels
        levels.append(np.stack((left[inner], left[inner] + 1), axis=1).ravel().astype(np.int64))


def _check_counts(header: Int32Array) -> None:
    n_trees, n_groups = int(header[layout.N_TREES]), int(header[layout.N_GROUPS])
    for name, count, low, high in (
        ("format", int(header[layout.FORMAT]), layout.FORMAT_VERSION, layout.FORMAT_VERSION),
        ("number of features", int(header[layout.N_FEATURES]), 1, layout.MAX_FEATURES),
        ("number of trees", n_trees, 1, MAX_TREES),
        ("number of groups", n_groups, -(-n_trees // layout.LANES), -(-n_trees // layout.LANES)),
        ("number of nodes", int(header[layout.N_NODES]), n_groups * layout.LANES, MAX_NODES + layout.LANES),
        ("number of categorical features", int(header[layout.N_CATEGORICAL]), 0, int(header[layout.N_FEATURES])),
        ("number of set words", int(header[layout.N_SET_WORDS]), 0, MAX_SET_WORDS),
    ):
        _require(low <= count <= high, f"forest tables: {name} must be {low} to {high}, was {count}")
    base = header[layout.BASE_MARGIN : layout.BASE_MARGIN + 1].view(np.float32)
    _require(bool(np.isfinite(base).all()), "forest tables: the base margin must be finite")


def _check_nodes(parts: Mapping[str, Int32Array], header: Int32Array) -> None:
    roots, n_nodes = parts["roots"].astype(np.int64), int(header[layout.N_NODES])
    ends = np.append(roots[1:], n_nodes)
    _require(int(roots[0]) == 0 and bool((ends > roots).all()), "forest tables: roots must ascend from node 0")
    _require(bool((ends - roots <= layout.MAX_NODES_PER_TREE).all()), "forest tables: a tree has too many nodes")
    nodes = parts["nodes"].reshape(-1, 2)
    thresholds = np.ascontiguousarray(nodes[:, 0]).view(np.float32)
    moves = nodes[:, 1]
    distance = (moves & layout.DISTANCE_MASK).astype(np.int64)
    slot = (moves >> layout.SLOT_SHIFT) & layout.SLOT_MASK
    categorical = moves < 0
    leaf = distance == 0
    here = np.arange(n_nodes)
    end = np.repeat(ends, ends - roots)
    _require(bool((leaf | (here + distance + 1 < end)).all()), "forest tables: a child lies outside its tree")
    _require(
        bool((slot < 2 * header[layout.N_FEATURES]).all()), "forest tables: a node reads a feature that does not exist"
    )
    _require(
        bool((~leaf | (np.isnan(thresholds) & ~categorical)).all()), "forest tables: a leaf does not stay in place"
    )
    _require(bool((leaf | categorical | np.isfinite(thresholds)).all()), "forest tables: a threshold is not finite")
    _require(bool(np.isfinite(parts["values"].view(np.float32)).all()), "forest tables: a leaf is not finite")
    left = np.where(leaf, -1, here + distance)
    visits = np.bincount(np.concatenate((roots, left[~leaf], left[~leaf] + 1)), minlength=n_nodes)
    _require(bool((visits == 1).all()), "forest tables: a node has no parent, or two")
    _check_sets(parts, slot[categorical] >> 1, nodes[categorical, 0].astype(np.int64))
    numeric = np.unique(slot[~leaf & ~categorical] >> 1)
    both = np.intersect1d(numeric, parts["categorical"][::2])
    _require(both.size == 0, "forest tables: a feature is both numeric and categorical")


def _check_sets(parts: Mapping[str, Int32Array], features: Int32Array, begins: npt.NDArray[np.int64]) -> None:
    known, n_categories = parts["categorical"][::2], parts["categorical"][1::2].astype(np.int64)
    n_features_ok = bool((np.diff(known) > 0).all()) and (known.size == 0 or int(known[0]) >= 0)
    _require(n_features_ok, "forest tables: categorical features must ascend")
    in_range = bool(((n_categories >= 1) & (n_categories <= layout.MAX_CATEGORIES)).all())
    _require(in_range, "forest tables: a number of categories is out of range")
    _require(bool(np.isin(features, known).all()), "forest tables: a set belongs to a feature that is not categorical")
    if features.size == 0:
        return
    n = n_categories[np.searchsorted(known, features)]
    last = begins + ((n + 1) >> 5)
    _require(bool(((begins >= 0) & (last < parts["sets"].size)).all()), "forest tables: a set lies outside the sets")
    none_of_these = parts["sets"][begins + (n >> 5)] >> (n & 31) & 1
    missing_right = parts["sets"][last] >> ((n + 1) & 31) & 1
    _require(
        bool(((none_of_these == 0) & (missing_right == 1)).all()), "forest tables: a set has lost its last two bits"
    )


def _check_steps(parts: Mapping[str, Int32Array]) -> None:
    moves = parts["nodes"][1::2]
    distance = moves & layout.DISTANCE_MASK
    left = np.where(distance == 0, -1, np.arange(moves.size) + distance).astype(np.int32)
    roots = parts["roots"].astype(np.int64)
    tree_of = np.repeat(np.arange(roots.size), np.diff(np.append(roots, moves.size)))
    depth = np.zeros(roots.size, np.int64)
    for level, nodes in enumerate(_levels(left, roots)):
        _require(level <= MAX_DEPTH, f"forest tables: a tree is deeper than {MAX_DEPTH}")
        depth[tree_of[nodes]] = level
    mixed = np.zeros(roots.size, np.int64)
    mixed[tree_of[moves < 0]] = layout.MIXED
    _require(bool((parts["tree_steps"] == depth | mixed).all()), "forest tables: a tree's steps are not its depth")
    _require(
        bool((parts["group_steps"] == _group_steps(parts["tree_steps"])).all()), "forest tables: wrong group steps"
    )


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidModelError(f"{problem}; compile the model again")
