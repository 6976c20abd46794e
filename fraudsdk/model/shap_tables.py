"""
The tables of explanations: built from trees and their covers, checked before a kernel may read them, kept in one file.

Sixteen trees at a time are laid over each other, the larger child of every split first, so that the shape they have together
is little larger than each of them.  Where a tree ends above a place of that shape, its leaf is repeated below: the
difference of two equal leaves is zero, and so is all that comes of it.

    header | groups | places | thresholds | features | shares | reaches | bits | leaves | chunks | runs | terms | categorical | sets

`fraudsdk.model.shap_layout` names the words.  Parents come before their children.  `check_shap_tables` is for explanations
what `fraudsdk.model.forest.check_tables` is for margins: the proof, for bytes that anybody may have edited, that every index
a kernel reads lies in the tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import InvalidModelError
from fraudsdk.model import shap_layout as layout
from fraudsdk.model.forest import MAX_NODES, MAX_TREES, Tree
from fraudsdk.model.layout import MAX_CATEGORIES, MAX_FEATURES

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

MAGIC: Final = b"fraudsdk-shap-1\n"
LANES: Final = layout.LANES
# A group stops growing here: 18 MB of scratch per thread, which only forests of huge trees come near.
MAX_GROUP_PLACES: Final = 32_768
MAX_MARKS: Final = 32
# How far the covers of two children may miss that of their parent, relatively: sums of float32 hessians differ by 1e-6.
COVER_TOLERANCE: Final = 1e-3
_ALIGNMENT: Final = 64


@dataclass(frozen=True, slots=True)
class _Forest:
    """All nodes of all trees, one after the other; what is said of inner nodes is of no meaning at leaves."""

    roots: Int64Array
    levels: list[Int64Array]
    inner: npt.NDArray[np.bool_]
    left: Int64Array
    feature: Int64Array
    threshold: Float32Array
    value: Float32Array
    default_left: npt.NDArray[np.bool_]
    categories: Mapping[int, Int32Array]
    share: Float64Array  # of the left child
    reach: Float64Array  # product of the shares above that belong to the same feature
    repeated: npt.NDArray[np.bool_]  # split on above
    marks: npt.NDArray[np.bool_]  # split on again below
    bit: Int64Array
    swapped: npt.NDArray[np.bool_]  # the right child is the larger one
    size: Int64Array  # inner nodes of the subtree
    n_unique: Int64Array  # per tree: most features on one path


@dataclass(frozen=True, slots=True)
class _Group:
    """Up to sixteen trees in one shape.  Lanes without a tree, or beyond its leaves, have nodes of -1 or a leaf."""

    nodes: Int64Array  # [n_places, LANES]
    leaves: Int64Array  # [n_leaves, LANES]
    inner_children: Int64Array
    children: Int64Array  # [n_places, 2]
    points: int


def build_shap_tables(
    trees: Sequence[Tree], covers: Sequence[Float32Array], *, n_features: int, base_margin: float
) -> Int32Array:
    """
    Lay a forest out for the kernels that explain.

    Parameters
    ----------
    trees : sequence of Tree
        In any order: contributions are sums over trees.
    covers : sequence of float32[n_nodes]
        Per tree, the weight of the training rows that came to each node (XGBoost: ``sum_hessian``).
    n_features : int
        Length of a row.
    base_margin : float
        Margin of the empty forest.

    Returns
    -------
    int32[n_words]
        Checked tables.

    Raises
    ------
    InvalidModelError
        Covers are negative or do not add up, or more than 32 features of one path are split on again below it.

    Notes
    -----
    The shares of two children are taken of the sum of their covers.  Where both are zero (no training row came there), each
    gets one half: the node is then met only by a row that goes there itself, and any shares give an exact sum; XGBoost
    divides zero by zero and returns NaN for the whole row.
    """
    forest = _linked(trees, covers)
    groups = _grouped(forest)
    expected = base_margin + float(_expected(forest)[forest.roots].sum())
    words = _laid_out(forest, groups, n_features, len(trees), expected)
    check_shap_tables(words)
    return words


def write_shap(words: Int32Array) -> bytes:
    """Bytes of an explanation file: `MAGIC`, then the words, little-endian."""
    return MAGIC + words.astype("<i4").tobytes()


def read_shap(data: bytes) -> Int32Array:
    """
    Tables of an explanation file, checked and aligned.

    Raises
    ------
    InvalidModelError
        Says what is wrong.
    """
    _require(data[: len(MAGIC)] == MAGIC, "not an explanation file: its first bytes are not 'fraudsdk-shap-1'")
    _require(
        (len(data) - len(MAGIC)) % 4 == 0, "an explanation file is truncated: its length is no whole number of words"
    )
    words: Int32Array = aligned((len(data) - len(MAGIC)) // 4, np.int32)
    words[:] = np.frombuffer(data, "<i4", offset=len(MAGIC))
    check_shap_tables(words)
    return words


def expected_margin(words: Int32Array) -> float:
    """Expected margin over the training rows: what all contributions are relative to."""
    return float(words[layout.EXPECTED : layout.EXPECTED + 2].view(np.float64)[0])


def numeric_cuts(words: Int32Array) -> dict[int, Float32Array]:
    """Features that the forest compares with thresholds -> their distinct thresholds, ascending."""
    parts = _parts(words)
    chunk_of_term = np.repeat(parts["chunks"][:, layout.CHUNK_PLACE], parts["runs"][:, -1] - parts["runs"][:, 0])
    cells = parts["terms"] + LANES * chunk_of_term.astype(np.int64)  # all cells that are splits of a tree
    features = parts["features"].ravel()[cells]
    thresholds = parts["thresholds"].view(np.float32).ravel()[cells]
    numeric = np.isfinite(thresholds)
    features, thresholds = features[numeric], thresholds[numeric]
    # Sorted once for all features: a load and a swap wait for this.
    order = np.lexsort((thresholds, features))
    features, thresholds = features[order], thresholds[order]
    # Numbers are compared, not bits: -0.0 and 0.0 are one cut.
    first = np.append(True, (np.diff(features) != 0) | (thresholds[1:] != thresholds[:-1]))[: features.size]
    features, thresholds = features[first], thresholds[first]
    edges = np.append(np.flatnonzero(np.append(True, np.diff(features) != 0)[: features.size]), features.size).tolist()
    return {int(features[begin]): thresholds[begin:end] for begin, end in itertools.pairwise(edges)}


def require_forest(words: Int32Array, *, n_features: int, n_trees: int) -> None:
    """
    Refuse tables of another forest.

    Raises
    ------
    InvalidModelError
        They have another number of features or trees.
    """
    found = (int(words[layout.N_FEATURES]), int(words[layout.N_TREES]))
    _require(
        found == (n_features, n_trees),
        f"the explanation file has (features, trees) {found}, the manifest says {(n_features, n_trees)}",
    )


def quadrature_rules() -> Float32Array:
    """
    Gauss-Legendre rules on (0, 1), by number of points, as the kernels read them.

    Returns
    -------
    float32[(MAX_POINTS + 1) * RULE_FLOATS]
        Points are shared out evenly among blocks of at most four; a block is filled up with points of weight zero.
    """
    rules: Float32Array = aligned((layout.MAX_POINTS + 1) * layout.RULE_FLOATS, np.float32)
    for n_points in range(1, layout.MAX_POINTS + 1):
        nodes, weights = np.polynomial.legendre.leggauss(n_points)
        n_blocks = -(-n_points // layout.BLOCK_POINTS)
        at = n_points * layout.RULE_FLOATS
        rules[at] = n_blocks
        blocks = rules[at + 1 : at + 1 + n_blocks * layout.BLOCK_FLOATS].reshape(n_blocks, 4, layout.BLOCK_POINTS)
        for block, of_block in zip(blocks, np.array_split(np.arange(n_points), n_blocks), strict=True):
            u = np.full(layout.BLOCK_POINTS, 0.5)
            u[: of_block.size] = (nodes[of_block] + 1) / 2
            block[:3] = u, u / (1 - u), 1 / (u * (1 - u))
            block[3, : of_block.size] = weights[of_block] / 2
    return rules


def aligned(n: int, dtype: type) -> npt.NDArray[Any]:
    """Zeros that begin at a cache line: a load of 64 bytes that straddles two of them takes twice as long."""
    n_bytes = n * np.dtype(dtype).itemsize
    memory = np.zeros(n_bytes + _ALIGNMENT, np.uint8)
    begin = -memory.ctypes.data % _ALIGNMENT
    return memory[begin : begin + n_bytes].view(dtype)


# --- from trees to places ---------------------------------------------------------------------------------------------


def _linked(trees: Sequence[Tree], covers: Sequence[Float32Array]) -> _Forest:
    sizes = np.array([tree.left.size for tree in trees], np.int64)
    roots = np.cumsum(sizes) - sizes
    left = np.concatenate([tree.left for tree in trees]).astype(np.int64)
    inner = left >= 0
    left = np.where(inner, left + np.repeat(roots, sizes), -1)
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
    levels = _levels(left, inner, roots)
    share = _shares(np.concatenate([np.asarray(cover, np.float64) for cover in covers]), left, inner)
    parent = np.full(left.size, -1, np.int64)
    nodes = np.flatnonzero(inner)
    parent[left[nodes]] = parent[left[nodes] + 1] = nodes
    reach, above, marks = _repeats(nodes, parent, left, feature, share)
    top = inner & (above < 0)
    bit, n_unique = _bits_and_unique(levels, inner, left, top, marks, above)
    size, depth = inner.astype(np.int64), np.zeros(left.size, np.int64)
    for level in reversed(levels):
        own = level[inner[level]]
        size[own] += size[left[own]] + size[left[own] + 1]
        depth[own] = 1 + np.maximum(depth[left[own]], depth[left[own] + 1])
    swapped = np.zeros(left.size, np.bool_)
    a, b = left[nodes], left[nodes] + 1
    swapped[nodes] = (size[b] > size[a]) | ((size[b] == size[a]) & (depth[b] > depth[a]))
    return _Forest(
        roots=roots,
        levels=levels,
        inner=inner,
        left=left,
        feature=feature,
        threshold=np.concatenate([tree.threshold for tree in trees]),
        value=np.concatenate([tree.value for tree in trees]),
        default_left=np.concatenate([tree.default_left for tree in trees]),
        categories={
            int(root) + node: members
            for root, tree in zip(roots, trees, strict=True)
            for node, members in tree.categories.items()
        },
        share=share,
        reach=reach,
        repeated=inner & (above >= 0),
        marks=marks,
        bit=bit,
        swapped=swapped,
        size=size,
        n_unique=np.maximum.reduceat(np.where(inner, 0, n_unique), roots),
    )


def _levels(left: Int64Array, inner: npt.NDArray[np.bool_], roots: Int64Array) -> list[Int64Array]:
    levels = [roots]
    while True:
        parents = levels[-1][inner[levels[-1]]]
        if parents.size == 0:
            return levels
        levels.append(np.stack((left[parents], left[parents] + 1), axis=1).ravel())


def _shares(cover: Float64Array, left: Int64Array, inner: npt.NDArray[np.bool_]) -> Float64Array:
    """Share of the left child of every inner node."""
    _require(bool((np.isfinite(cover) & (cover >= 0)).all()), "the cover of a node (sum_hessian) is below zero")
    nodes = np.flatnonzero(inner)
    first, second = cover[left[nodes]], cover[left[nodes] + 1]
    both = first + second
    _require(
        bool((np.abs(both - cover[nodes]) <= COVER_TOLERANCE * np.maximum(both, cover[nodes])).all()),
        "the covers of two children (sum_hessian) do not add up to their parent's",
    )
    share = np.full(cover.size, 0.5)
    share[nodes] = np.divide(first, both, out=np.full(nodes.size, 0.5), where=both > 0)
    return share


def _repeats(
    nodes: Int64Array, parent: Int64Array, left: Int64Array, feature: Int64Array, share: Float64Array
) -> tuple[Float64Array, Int64Array, npt.NDArray[np.bool_]]:
    """Per node: its reach, the nearest node above that splits on the same feature (-1 for none), and whether one below does."""
    edge = np.ones(parent.size)
    edge[left[nodes]], edge[left[nodes] + 1] = share[nodes], 1.0 - share[nodes]
    reach, above, marks = np.ones(parent.size), np.full(parent.size, -1, np.int64), np.zeros(parent.size, np.bool_)
    climbing, at = nodes, nodes
    while climbing.size:
        ancestor = parent[at]
        climbing, at, ancestor = climbing[ancestor >= 0], at[ancestor >= 0], ancestor[ancestor >= 0]
        same = feature[ancestor] == feature[climbing]
        reach[climbing[same]] *= edge[at[same]]
        marks[ancestor[same]] = True
        nearest = same & (above[climbing] < 0)
        above[climbing[nearest]] = ancestor[nearest]
        at = ancestor
    return reach, above, marks


def _bits_and_unique(
    levels: Sequence[Int64Array],
    inner: npt.NDArray[np.bool_],
    left: Int64Array,
    top: npt.NDArray[np.bool_],
    marks: npt.NDArray[np.bool_],
    above: Int64Array,
) -> tuple[Int64Array, Int64Array]:
    """A bit per repeated feature of a path, the same for all its nodes; and the features on the path to each node."""
    n_repeated, n_unique = np.zeros(left.size, np.int64), np.zeros(left.size, np.int64)
    bit = np.zeros(left.size, np.int64)
    for level in levels:
        own = level[inner[level]]
        new = top[own] & marks[own]
        _require(
            not new.any() or int(n_repeated[own[new]].max()) < MAX_MARKS,
            f"over {MAX_MARKS} features are split on more than once below one another; limit max_depth when training",
        )
        bit[own] = np.where(new, np.int64(1) << n_repeated[own], np.where(top[own], 0, bit[above[own]]))
        for child in (left[own], left[own] + 1):
            n_repeated[child] = n_repeated[own] + new
            n_unique[child] = n_unique[own] + top[own]
    return bit, n_unique


def _expected(forest: _Forest) -> Float64Array:
    expected = np.where(forest.inner, 0.0, forest.value.astype(np.float64))
    for level in reversed(forest.levels):
        own = level[forest.inner[level]]
        first, second = expected[forest.left[own]], expected[forest.left[own] + 1]
        expected[own] = forest.share[own] * first + (1.0 - forest.share[own]) * second
    return expected


def _grouped(forest: _Forest) -> list[_Group]:
    """Trees of like size together.  Trees of one leaf explain nothing and are left out."""
    by_size = np.argsort(-forest.size[forest.roots], kind="stable")
    waiting = by_size[forest.inner[forest.roots[by_size]]]
    groups = []
    while waiting.size:
        # The places of a group are at most those of its trees together.
        n_places = np.cumsum(forest.size[forest.roots[waiting[:LANES]]])
        n_trees = max(1, int((n_places <= MAX_GROUP_PLACES).sum()))
        groups.append(_group(forest, waiting[:n_trees]))
        waiting = waiting[n_trees:]
    return groups


def _group(forest: _Forest, trees: Int64Array) -> _Group:
    level = np.full((1, LANES), -1, np.int64)
    level[0, : trees.size] = forest.roots[trees]
    cells, is_place, parent = [level], [], [np.zeros(0, np.int64)]
    n_before = 0
    while True:
        here = cells[-1]
        splits = (here >= 0) & forest.inner[here]
        places = np.flatnonzero(splits.any(axis=1))
        is_place.append(splits.any(axis=1))
        if places.size == 0:
            break
        node, own = here[places], splits[places]
        second = forest.swapped[node]
        cells.append(
            np.concatenate(
                (
                    np.where(own, forest.left[node] + second, node),  # a leaf is repeated in both children
                    np.where(own, forest.left[node] + ~second, node),
                )
            )
        )
        parent.append(np.concatenate((places, places)) + n_before)
        n_before += here.shape[0]
    return _numbered(
        np.concatenate(cells),
        np.concatenate(is_place),
        np.concatenate(parent),
        np.repeat(np.arange(len(cells)), [level.shape[0] for level in cells]),
        points=max(1, -(-int(forest.n_unique[trees].max()) // 2)),
    )


def _numbered(
    cells: Int64Array, is_place: npt.NDArray[np.bool_], parent: Int64Array, depth: Int64Array, *, points: int
) -> _Group:
    """Number places level by level and, within a level, by kind: the branches of the kernels then repeat themselves."""
    children = np.full((cells.shape[0], 2), -1, np.int64)
    half = np.flatnonzero(depth > 0)
    side = np.zeros(cells.shape[0], np.int64)
    for level in range(1, int(depth.max()) + 1):
        of_level = np.flatnonzero(depth == level)
        side[of_level[of_level.size // 2 :]] = 1
    children[parent, side[half]] = half
    places, leaves = np.flatnonzero(is_place), np.flatnonzero(~is_place)
    inner_children = is_place[children].sum(axis=1)
    places = places[np.lexsort((-inner_children[places], depth[places]))]
    number = np.zeros(cells.shape[0], np.int64)
    number[places], number[leaves] = np.arange(places.size), np.arange(leaves.size)
    return _Group(
        nodes=cells[places],
        leaves=cells[leaves],
        inner_children=inner_children[places],
        children=number[children[places]],
        points=points,
    )


# --- from places to words ---------------------------------------------------------------------------------------------


def _laid_out(forest: _Forest, groups: Sequence[_Group], n_features: int, n_trees: int, expected: float) -> Int32Array:
    n_places = np.array([len(group.nodes) for group in groups], np.int64)
    n_leaves = np.array([len(group.leaves) for group in groups], np.int64)
    nodes = np.concatenate([np.empty((0, LANES), np.int64), *(group.nodes for group in groups)])
    real = (nodes >= 0) & forest.inner[nodes]
    chunk_ends = _chunk_ends(n_places)
    categorical = _categorical_cells(forest, nodes, real)
    header = np.zeros(layout.HEADER_WORDS, np.int32)
    header[layout.N_FEATURES], header[layout.N_TREES] = n_features, n_trees
    header[layout.N_GROUPS], header[layout.N_PLACES], header[layout.N_LEAVES] = (
        len(groups),
        n_places.sum(),
        n_leaves.sum(),
    )
    header[layout.N_CHUNKS], header[layout.N_TERMS] = len(chunk_ends), real.sum()
    header[layout.N_CATEGORICAL] = len(categorical)
    header[layout.N_SET_WORDS] = sum(_set_words(forest.categories[node]).size for _, node in categorical)
    begins = np.concatenate(([0], np.cumsum(n_places)))
    edges = begins[np.concatenate(([0], chunk_ends)).astype(np.int64)]
    header[layout.MAX_GROUP_PLACES] = n_places.max(initial=0)
    header[layout.MAX_CHUNK_PLACES] = np.diff(edges).max(initial=0)
    header[layout.EXPECTED : layout.EXPECTED + 2] = np.array([expected], np.float64).view(np.int32)
    words: Int32Array = aligned(_place_parts(header), np.int32)
    words[: layout.HEADER_WORDS] = header
    parts = _parts(words)
    parts["groups"][:, : layout.POINTS + 1] = np.stack(
        (begins[:-1], n_places, np.cumsum(n_leaves) - n_leaves, n_leaves, [group.points for group in groups]), axis=1
    )
    _write_cells(forest, nodes, real, groups, parts)
    leaves = np.concatenate([np.empty((0, LANES), np.int64), *(group.leaves for group in groups)])
    parts["leaves"].view(np.float32)[:] = np.where(leaves >= 0, forest.value[leaves], 0)
    _write_chunks(nodes, real, forest.feature, chunk_ends, edges, n_features, parts)
    _write_categorical(forest, categorical, edges, parts)
    return words


def _chunk_ends(n_places: Int64Array) -> list[int]:
    ends: list[int] = []
    filled = layout.PLACES_PER_CHUNK
    for group, n in enumerate(n_places.tolist()):
        if filled + n > layout.PLACES_PER_CHUNK:
            ends.append(group)
            filled = 0
        ends[-1] = group + 1
        filled += n
    return ends


def _categorical_cells(forest: _Forest, nodes: Int64Array, real: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Cell and node of every categorical split, in the order of cells."""
    if not forest.categories:
        return []
    flat = nodes.ravel()
    cells = np.flatnonzero(real.ravel() & np.isin(flat, list(forest.categories)))
    return list(zip(cells.tolist(), flat[cells].tolist(), strict=True))


def _set_words(members: Int32Array) -> Int32Array:
    """Bit k: category k goes right."""
    bits = np.zeros(32 * (int(members[-1]) // 32 + 1), np.uint8)
    bits[members] = 1
    return np.packbits(bits, bitorder="little").view("<i4").astype(np.int32)


def _write_cells(
    forest: _Forest,
    nodes: Int64Array,
    real: npt.NDArray[np.bool_],
    groups: Sequence[_Group],
    parts: Mapping[str, Int32Array],
) -> None:
    lanes = np.int64(1) << np.arange(LANES)
    swapped = real & forest.swapped[nodes]
    categorical = np.zeros(forest.inner.size, np.bool_)
    categorical[list(forest.categories)] = True
    # No number is below minus infinity: at a categorical split all go right until their category is looked at.
    threshold = np.where(categorical, np.float32(-np.inf), forest.threshold)
    share = np.where(swapped, 1.0 - forest.share[nodes], forest.share[nodes])
    for part, values in (
        ("thresholds", np.where(real, threshold[nodes], 0)),
        ("shares", np.where(real, share, 0.5)),
        ("reaches", np.where(real, forest.reach[nodes], 1)),
    ):
        parts[part].view(np.float32)[:] = values
    parts["features"][:] = np.where(real, forest.feature[nodes], 0)
    parts["bits"][:] = np.where(real, forest.bit[nodes], 0).astype(np.uint32).view(np.int32)
    flags = np.where((real & forest.repeated[nodes]).any(axis=1), layout.REPEATED, 0)
    flags |= np.where((real & forest.marks[nodes]).any(axis=1), layout.MARKS, 0)
    sides = ((real & forest.default_left[nodes]) @ lanes) | ((swapped @ lanes) << 16)
    children = np.concatenate([np.empty((0, 2), np.int64), *(group.children for group in groups)])
    inner_children = np.concatenate([np.empty(0, np.int64), *(group.inner_children for group in groups)])
    parts["places"][:, layout.KIND] = inner_children | flags
    parts["places"][:, layout.FIRST_CHILD : layout.SECOND_CHILD + 1] = children
    parts["places"][:, layout.SIDES] = sides.astype(np.uint32).view(np.int32)


def _write_chunks(
    nodes: Int64Array,
    real: npt.NDArray[np.bool_],
    feature: Int64Array,
    chunk_ends: Sequence[int],
    edges: Int64Array,
    n_features: int,
    parts: Mapping[str, Int32Array],
) -> None:
    n_terms, first_group = 0, 0
    for chunk, end_group in enumerate(chunk_ends):
        begin, end = int(edges[chunk]), int(edges[chunk + 1])
        cells = np.flatnonzero(real[begin:end].ravel())
        own = feature[nodes[begin:end].ravel()[cells]]
        order = np.argsort(own, kind="stable")
        parts["terms"][n_terms : n_terms + cells.size] = cells[order]
        parts["runs"][chunk] = n_terms + np.searchsorted(own[order], np.arange(n_features + 1))
        parts["chunks"][chunk, [layout.FIRST_GROUP, layout.END_GROUP]] = first_group, end_group
        parts["chunks"][chunk, [layout.CHUNK_PLACE, layout.CHUNK_PLACES]] = begin, end - begin
        n_terms += cells.size
        first_group = end_group


def _write_categorical(
    forest: _Forest, categorical: Sequence[tuple[int, int]], edges: Int64Array, parts: Mapping[str, Int32Array]
) -> None:
    n_words = 0
    for k, (cell, node) in enumerate(categorical):
        members = forest.categories[node]
        words = _set_words(members)
        parts["categorical"][k] = cell, forest.feature[node], n_words, int(members[-1]) + 1
        parts["sets"][n_words : n_words + words.size] = words
        n_words += words.size
    cells = np.array([cell for cell, _ in categorical], np.int64)
    splits = np.searchsorted(cells, LANES * edges)
    parts["chunks"][:, layout.FIRST_CATEGORICAL], parts["chunks"][:, layout.END_CATEGORICAL] = splits[:-1], splits[1:]


def _place_parts(header: Int32Array) -> int:
    """Fill in where each part begins, given the counts; return the number of words."""
    n_cells = int(header[layout.N_PLACES]) * LANES
    header[layout.FORMAT] = layout.FORMAT_VERSION
    at = layout.HEADER_WORDS
    for part, size in (
        (layout.GROUPS_AT, int(header[layout.N_GROUPS]) * layout.GROUP_WORDS),
        (layout.PLACES_AT, int(header[layout.N_PLACES]) * layout.PLACE_WORDS),
        (layout.THRESHOLDS_AT, n_cells),
        (layout.FEATURES_AT, n_cells),
        (layout.SHARES_AT, n_cells),
        (layout.REACHES_AT, n_cells),
        (layout.BITS_AT, n_cells),
        (layout.LEAVES_AT, int(header[layout.N_LEAVES]) * LANES),
        (layout.CHUNKS_AT, int(header[layout.N_CHUNKS]) * layout.CHUNK_WORDS),
        (layout.RUNS_AT, int(header[layout.N_CHUNKS]) * (int(header[layout.N_FEATURES]) + 1)),
        (layout.TERMS_AT, int(header[layout.N_TERMS])),
        (layout.CATEGORICAL_AT, int(header[layout.N_CATEGORICAL]) * layout.CATEGORICAL_WORDS),
        (layout.SETS_AT, int(header[layout.N_SET_WORDS])),
    ):
        at += -at % LANES
        header[part] = at
        at += size
    return at


def _parts(words: Int32Array) -> dict[str, Int32Array]:
    n = {name: int(words[getattr(layout, name)]) for name in ("N_GROUPS", "N_PLACES", "N_LEAVES", "N_CHUNKS")}

    def part(at: int, rows: int, width: int) -> Int32Array:
        begin = int(words[at])
        return words[begin : begin + rows * width].reshape(rows, width)

    return {
        "groups": part(layout.GROUPS_AT, n["N_GROUPS"], layout.GROUP_WORDS),
        "places": part(layout.PLACES_AT, n["N_PLACES"], layout.PLACE_WORDS),
        "thresholds": part(layout.THRESHOLDS_AT, n["N_PLACES"], LANES),
        "features": part(layout.FEATURES_AT, n["N_PLACES"], LANES),
        "shares": part(layout.SHARES_AT, n["N_PLACES"], LANES),
        "reaches": part(layout.REACHES_AT, n["N_PLACES"], LANES),
        "bits": part(layout.BITS_AT, n["N_PLACES"], LANES),
        "leaves": part(layout.LEAVES_AT, n["N_LEAVES"], LANES),
        "chunks": part(layout.CHUNKS_AT, n["N_CHUNKS"], layout.CHUNK_WORDS),
        "runs": part(layout.RUNS_AT, n["N_CHUNKS"], int(words[layout.N_FEATURES]) + 1),
        "terms": part(layout.TERMS_AT, int(words[layout.N_TERMS]), 1).ravel(),
        "categorical": part(layout.CATEGORICAL_AT, int(words[layout.N_CATEGORICAL]), layout.CATEGORICAL_WORDS),
        "sets": part(layout.SETS_AT, int(words[layout.N_SET_WORDS]), 1).ravel(),
    }


# --- the proof --------------------------------------------------------------------------------------------------------


def check_shap_tables(words: Int32Array) -> None:
    """
    Prove that the kernels may read these tables.

    Raises
    ------
    InvalidModelError
        Says which part is wrong.
    """
    header = words[: layout.HEADER_WORDS]
    _require(header.size == layout.HEADER_WORDS, "explanation tables end inside their header")
    _check_counts(header)
    expected = header.copy()
    total = _place_parts(expected)
    _require(bool((expected == header).all()), "explanation tables misplace a part")
    _require(words.size == total, f"explanation tables must have {total} words, had {words.size}")
    parts = _parts(words)
    _check_groups(parts, header)
    _check_children(parts)
    _check_numbers(parts, header)
    _check_chunks(parts, header)
    _check_terms(parts, header)
    _check_categorical(parts)


def _check_counts(header: Int32Array) -> None:
    n_trees = int(header[layout.N_TREES])
    n_groups, n_places = int(header[layout.N_GROUPS]), int(header[layout.N_PLACES])
    for name, count, low, high in (
        ("format", int(header[layout.FORMAT]), layout.FORMAT_VERSION, layout.FORMAT_VERSION),
        ("number of features", int(header[layout.N_FEATURES]), 1, MAX_FEATURES),
        ("number of trees", n_trees, 1, MAX_TREES),
        ("number of groups", n_groups, 0, n_trees),
        ("number of places", n_places, n_groups, MAX_NODES),
        ("number of leaves", int(header[layout.N_LEAVES]), 0, MAX_NODES),
        ("largest group", int(header[layout.MAX_GROUP_PLACES]), 0, MAX_GROUP_PLACES),
        ("largest chunk", int(header[layout.MAX_CHUNK_PLACES]), 0, MAX_GROUP_PLACES),
        ("number of chunks", int(header[layout.N_CHUNKS]), 0, n_groups),
        ("number of terms", int(header[layout.N_TERMS]), 0, n_places * LANES),
        ("number of categorical cells", int(header[layout.N_CATEGORICAL]), 0, n_places * LANES),
        ("number of set words", int(header[layout.N_SET_WORDS]), 0, 2**26),
    ):
        _require(low <= count <= high, f"explanation tables: {name} must be {low} to {high}, was {count}")
    _require(
        bool(np.isfinite(header[layout.EXPECTED : layout.EXPECTED + 2].view(np.float64)).all()),
        "explanation tables: the expected margin must be finite",
    )


def _follow_on(begins: Int32Array, sizes: Int32Array, total: int) -> bool:
    """Whether stretches of these sizes, at least one long, follow each other from 0 to `total`."""
    wide = sizes.astype(np.int64)
    ends = np.cumsum(wide)
    return bool((wide >= 1).all() and (begins == ends - wide).all()) and (int(ends[-1]) if ends.size else 0) == total


def _check_groups(parts: Mapping[str, Int32Array], header: Int32Array) -> None:
    groups = parts["groups"]
    places_follow = _follow_on(
        groups[:, layout.FIRST_PLACE], groups[:, layout.GROUP_PLACES], int(header[layout.N_PLACES])
    )
    _require(places_follow, "explanation tables: the places of the groups do not follow each other")
    leaves_follow = _follow_on(
        groups[:, layout.FIRST_LEAF], groups[:, layout.GROUP_LEAVES], int(header[layout.N_LEAVES])
    )
    _require(leaves_follow, "explanation tables: the leaves of the groups do not follow each other")
    points = groups[:, layout.POINTS]
    _require(
        bool(((points >= 1) & (points <= layout.MAX_POINTS)).all()),
        "explanation tables: a number of points is out of range",
    )
    largest = int(groups[:, layout.GROUP_PLACES].max(initial=0))
    _require(
        largest == int(header[layout.MAX_GROUP_PLACES]), "explanation tables: the largest group is not what they say"
    )


def _check_children(parts: Mapping[str, Int32Array]) -> None:
    """Every child lies in its group, after its parent; every place but a root and every leaf has one parent."""
    groups, places = parts["groups"].astype(np.int64), parts["places"].astype(np.int64)
    sizes = groups[:, layout.GROUP_PLACES]
    n_places = np.repeat(sizes, sizes)
    n_leaves = np.repeat(groups[:, layout.GROUP_LEAVES], sizes)
    first_place = np.repeat(groups[:, layout.FIRST_PLACE], sizes)
    first_leaf = np.repeat(groups[:, layout.FIRST_LEAF], sizes)
    own = np.arange(len(places)) - first_place
    kind = places[:, layout.KIND]
    inner_children = kind & layout.INNER_CHILDREN
    known = (kind >= 0) & (kind <= layout.REPEATED + layout.MARKS + 2) & (inner_children <= 2)
    _require(bool(known.all()), "explanation tables: a place is of no known kind")
    parents_of_places, parents_of_leaves = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for rank, column in enumerate((layout.FIRST_CHILD, layout.SECOND_CHILD)):
        child = places[:, column]
        is_place = inner_children > rank
        inside = np.where(is_place, (child > own) & (child < n_places), (child >= 0) & (child < n_leaves))
        _require(bool(inside.all()), "explanation tables: a child lies outside its group, or before its parent")
        parents_of_places.append((first_place + child)[is_place])
        parents_of_leaves.append((first_leaf + child)[~is_place])
    visits = np.bincount(np.concatenate((*parents_of_places, groups[:, layout.FIRST_PLACE])), minlength=len(places))
    leaf_visits = np.bincount(np.concatenate(parents_of_leaves), minlength=len(parts["leaves"]))
    _require(
        bool((visits == 1).all() and (leaf_visits == 1).all()),
        "explanation tables: a place or leaf has no parent, or two",
    )


def _check_numbers(parts: Mapping[str, Int32Array], header: Int32Array) -> None:
    features = parts["features"]
    _require(
        bool(((features >= 0) & (features < header[layout.N_FEATURES])).all()),
        "explanation tables: a cell reads a feature that does not exist",
    )
    _require(not np.isnan(parts["thresholds"].view(np.float32)).any(), "explanation tables: a threshold is NaN")
    for name in ("shares", "reaches"):
        values = parts[name].view(np.float32)
        _require(bool(((values >= 0) & (values <= 1)).all()), f"explanation tables: {name} must be from 0 to 1")
    _require(bool(np.isfinite(parts["leaves"].view(np.float32)).all()), "explanation tables: a leaf is not finite")


def _check_chunks(parts: Mapping[str, Int32Array], header: Int32Array) -> None:
    chunks, groups = parts["chunks"], parts["groups"]
    first, end = chunks[:, layout.FIRST_GROUP], chunks[:, layout.END_GROUP]
    groups_follow = _follow_on(first, end - first, int(header[layout.N_GROUPS]))
    _require(groups_follow, "explanation tables: the groups of the chunks do not follow each other")
    begins = np.append(groups[:, layout.FIRST_PLACE], header[layout.N_PLACES])
    _require(
        np.array_equal(chunks[:, layout.CHUNK_PLACE], begins[first])
        and np.array_equal(chunks[:, layout.CHUNK_PLACES], begins[end] - begins[first]),
        "explanation tables: a chunk has other places than its groups",
    )
    largest = int(chunks[:, layout.CHUNK_PLACES].max(initial=0))
    _require(
        largest == int(header[layout.MAX_CHUNK_PLACES]), "explanation tables: the largest chunk is not what they say"
    )


def _check_terms(parts: Mapping[str, Int32Array], header: Int32Array) -> None:
    """The terms of a chunk are cells of it, each once at most, by feature; runs cut them without gap or overlap."""
    runs, terms, chunks = (
        parts["runs"].astype(np.int64),
        parts["terms"].astype(np.int64),
        parts["chunks"].astype(np.int64),
    )
    edges = np.append(runs[:, 0], int(header[layout.N_TERMS]))
    _require(
        (int(edges[0]) == 0) and bool((np.diff(runs, axis=1) >= 0).all()) and np.array_equal(runs[:, -1], edges[1:]),
        "explanation tables: the runs of terms do not follow each other",
    )
    sizes = runs[:, -1] - runs[:, 0]
    inside = (terms >= 0) & (terms < LANES * np.repeat(chunks[:, layout.CHUNK_PLACES], sizes))
    _require(bool(inside.all()), "explanation tables: a term lies outside its chunk")
    cells = terms + LANES * np.repeat(chunks[:, layout.CHUNK_PLACE], sizes)
    feature = np.tile(np.arange(runs.shape[1] - 1), len(runs))
    _require(
        np.array_equal(parts["features"].ravel()[cells], np.repeat(feature, np.diff(runs, axis=1).ravel())),
        "explanation tables: a term is counted for another feature",
    )
    once = np.bincount(cells, minlength=1).max(initial=0) <= 1
    _require(bool(once), "explanation tables: a term is counted twice")


def _check_categorical(parts: Mapping[str, Int32Array]) -> None:
    cells, chunks = parts["categorical"].astype(np.int64), parts["chunks"].astype(np.int64)
    cell = cells[:, layout.CELL]
    n_cells = parts["features"].size
    _require(
        bool(((cell >= 0) & (cell < n_cells)).all() and (np.diff(cell) > 0).all()),
        "explanation tables: categorical cells must ascend within the cells",
    )
    edges = np.searchsorted(cell, LANES * np.append(chunks[:, layout.CHUNK_PLACE], n_cells // LANES))
    _require(
        np.array_equal(chunks[:, layout.FIRST_CATEGORICAL], edges[:-1])
        and np.array_equal(chunks[:, layout.END_CATEGORICAL], edges[1:]),
        "explanation tables: a chunk has the categorical cells of another",
    )
    _require(
        np.array_equal(cells[:, layout.CELL_FEATURE], parts["features"].ravel()[cell]),
        "explanation tables: a categorical cell reads another feature",
    )
    begin, size = cells[:, layout.SET_AT], cells[:, layout.SET_SIZE]
    inside = (size >= 1) & (size <= MAX_CATEGORIES) & (begin >= 0) & (begin + (size + 31) // 32 <= parts["sets"].size)
    _require(bool(inside.all()), "explanation tables: a set lies outside the sets")


def _require(condition: bool, problem: str) -> None:
    if not condition:
        raise InvalidModelError(f"{problem}; compile the model again")
