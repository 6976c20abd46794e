"""
Block tables: what the vector kernels walk, made from checked forest tables when a model is loaded.

They are not in the file, on purpose.  Made here they are right whatever a file says, and one file serves every CPU; it takes 2 ms
for 300 trees (ADR 0008).  The kernels and the form of a block are described in `fraudsdk.model.block_kernels`, the places in
`fraudsdk.model.block_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import ConfigurationError
from fraudsdk.model import block_layout as layout
from fraudsdk.model.forest import Float32Array, ForestView, Int32Array

Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]

# 128 MB: a forest at the cap of nodes whose trees fill their blocks needs half of it.
MAX_BYTES: Final = 128 * 1024 * 1024
_CUTS: Final = layout.MAX_CUTS_PER_COLUMN


def build_blocks(words: Int32Array) -> UInt8Array:
    """
    Block tables of a forest.

    Parameters
    ----------
    words : int32[n_words]
        Checked forest tables.

    Returns
    -------
    uint8[n_bytes]
        To be copied to an address that is a multiple of 64.

    Raises
    ------
    ConfigurationError
        The forest has more columns than a row may have, or needs more than `MAX_BYTES`.
    """
    forest = ForestView.of(words)
    writer = _Writer()
    header = np.zeros(layout.HEADER_WORDS, np.int64)
    columns = _Columns.of(forest)
    n_pairs = max(1, -(-columns.n_columns // layout.COLUMNS_PER_PAIR))
    if n_pairs > layout.MAX_PAIRS:
        raise ConfigurationError(
            f"the forest tests {columns.n_columns:,} columns, a row of the vector engines has at most "
            f"{layout.MAX_PAIRS * layout.COLUMNS_PER_PAIR:,}; choose the portable engine"
        )
    general = n_pairs > 1 or bool(columns.sets)
    header[layout.N_FEATURES] = forest.n_features
    header[layout.N_TREES] = forest.roots.size
    header[layout.BASE_MARGIN] = forest.base_margin.view(np.int32)
    header[[layout.GENERAL, layout.N_PAIRS]] = general, n_pairs
    writer.add(np.zeros(layout.HEADER_WORDS, np.int64))
    writer.add(_paths())
    _write_ranking(columns, header, writer)
    _write_blocks(forest, columns, header, writer)
    return writer.joined(header)


class _Writer:
    """Parts one after another, each at a multiple of a register."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[Any]] = []
        self._size = 0

    def add(self, part: npt.NDArray[Any]) -> int:
        """Where the part is."""
        at = self._size
        self._size += -(-part.nbytes // layout.REGISTER) * layout.REGISTER
        if self._size > MAX_BYTES:
            raise ConfigurationError(
                f"block tables of this forest take over {MAX_BYTES:,} bytes; choose the portable engine"
            )
        self._parts.append(part)
        return at

    def joined(self, header: Int64Array) -> UInt8Array:
        """All parts, with the header in place of the first."""
        # A register more: the last part may be empty, and an empty part has no address of its own.
        data = np.zeros(self._size + layout.REGISTER, np.uint8)
        at = 0
        for part in [header, *self._parts[1:]]:
            data[at : at + part.nbytes] = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            at += -(-part.nbytes // layout.REGISTER) * layout.REGISTER
        return data


@dataclass(frozen=True, slots=True)
class _Columns:
    """
    The columns of a ranked row, and what each node asks of them.

    Attributes
    ----------
    cuts : sequence of (int, float32[n])
        Numeric features in the order of their columns, fewest cuts first, and their cuts, ascending.
    sets : sequence of (int, int, uint8[n_codes + 2, n_bytes])
        Categorical features, their first column, and the columns for each code, for "none of these", and for "missing".
    n_columns : int
        Of a row.
    column : int64[n_nodes]
        Column that a node looks at; 0 at leaves, which ask nothing.
    flag : uint8[n_nodes]
        `DEFAULT_LEFT` where a missing value goes left.  Categorical columns know that themselves.
    test : uint8[n_nodes]
        What the rank must reach.
    bits : uint8[n_nodes]
        The bit of a categorical node's set; 0 elsewhere.
    """

    cuts: Sequence[tuple[int, Float32Array]]
    sets: Sequence[tuple[int, int, UInt8Array]]
    n_columns: int
    column: Int64Array
    flag: UInt8Array
    test: UInt8Array
    bits: UInt8Array

    @classmethod
    def of(cls, forest: ForestView) -> _Columns:
        """Columns of a forest."""
        n_nodes = forest.distance.size
        column, bits = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.uint8)
        flag, test = np.zeros(n_nodes, np.uint8), np.zeros(n_nodes, np.uint8)
        numeric = np.flatnonzero((forest.distance > 0) & ~forest.categorical)
        cuts, n_columns, position = _distinct(forest.feature[numeric], forest.threshold[numeric])
        left = ~forest.default_right[numeric]
        column[numeric] = position // _CUTS
        flag[numeric] = left * np.uint8(layout.DEFAULT_LEFT)
        test[numeric] = position % _CUTS + 1 + left
        sets = []
        for feature, n_codes in forest.n_categories.items():
            nodes = np.flatnonzero(forest.categorical & (forest.feature == feature))
            table, position = _memberships(forest, nodes, n_codes)
            column[nodes] = n_columns + (position >> 3)
            bits[nodes] = np.uint8(1) << (position & 7).astype(np.uint8)
            sets.append((feature, n_columns, table))
            n_columns += table.shape[1]
        return cls(cuts, sets, n_columns, column, flag, test, bits)


def _distinct(features: Int64Array, thresholds: Float32Array) -> tuple[list[tuple[int, Float32Array]], int, Int64Array]:
    """
    Features with their cuts, fewest first; the number of their columns; and for each test 254 times its column, plus its
    place among the cuts of that column.
    """
    # Zero and minus zero are one cut, as they compare equal; the bits of other floats sort as the floats do, but for the sign.
    ordered = (thresholds + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(ordered < 0, -(ordered & 0x7FFF_FFFF), ordered)
    distinct, first, which = np.unique((features << 33) + ordered, return_index=True, return_inverse=True)
    used, begins, n_cuts = np.unique(features[first], return_index=True, return_counts=True)
    by_size = np.argsort(n_cuts, kind="stable")
    n_columns = -(-n_cuts[by_size] // _CUTS)
    ends = np.cumsum(n_columns)
    first_column = np.empty(used.size, np.int64)
    first_column[by_size] = ends - n_columns
    rank_of_feature = np.repeat(np.arange(used.size), n_cuts)
    place = _CUTS * first_column[rank_of_feature] + np.arange(distinct.size) - begins[rank_of_feature]
    cuts = [(int(used[k]), thresholds[first[begins[k] : begins[k] + n_cuts[k]]]) for k in by_size.tolist()]
    return cuts, int(n_columns.sum()), place[which]


def _memberships(forest: ForestView, nodes: Int64Array, n_codes: int) -> tuple[UInt8Array, Int64Array]:
    """
    Bits of a categorical feature's distinct sets by code, eight sets to a column; and which set each node has.

    Row ``n_codes`` is for a code in no set, the last one for a missing value.
    """
    n_words = (n_codes + 2 + 31) // 32
    known: dict[tuple[bytes, bool], int] = {}
    position = np.empty(nodes.size, np.int64)
    for k, (begin, right) in enumerate(
        zip(forest.set_begin[nodes].tolist(), forest.default_right[nodes].tolist(), strict=True)
    ):
        members = forest.sets[begin : begin + n_words].tobytes()
        position[k] = known.setdefault((members, right), len(known))
    table = np.zeros((n_codes + 2, -(-len(known) // 8)), np.uint8)
    for (members, right), number in known.items():
        own = np.unpackbits(np.frombuffer(members, np.uint8), count=n_codes + 2, bitorder="little")
        own[n_codes + 1] = right
        table[:, number >> 3] |= own << np.uint8(number & 7)
    return table, position


def _write_ranking(columns: _Columns, header: Int64Array, writer: _Writer) -> None:
    tiny, narrow, wide = [], [], []
    column = 0
    for feature, cuts in columns.cuts:
        levels = _levels(cuts)
        if cuts.size <= layout.FANOUT:
            tiny.append(feature | writer.add(levels[0]) << layout.PLACE_SHIFT)
        elif cuts.size <= _CUTS:
            narrow.append(feature | writer.add(np.concatenate(levels)) << layout.PLACE_SHIFT)
        else:
            entry = np.zeros(layout.WIDE_WORDS, np.int64)
            n_columns = -(-cuts.size // _CUTS)
            entry[[layout.WIDE_FEATURE, layout.WIDE_COLUMN, layout.WIDE_COLUMNS]] = feature, column, n_columns
            entry[layout.WIDE_LEVELS] = len(levels)
            for k, level in enumerate(levels):
                entry[layout.WIDE_LEVEL_AT + k] = writer.add(level)
            wide.append(entry)
        column += -(-cuts.size // _CUTS)
    categorical = [
        np.array([feature, len(table) - 2, first, table.shape[1], writer.add(table), 0, 0, 0], np.int64)
        for feature, first, table in columns.sets
    ]
    for count, at, entries in (
        (layout.N_TINY, layout.TINY_AT, tiny),
        (layout.N_NARROW, layout.NARROW_AT, narrow),
        (layout.N_WIDE, layout.WIDE_AT, wide),
        (layout.N_CATEGORICAL, layout.CATEGORICAL_AT, categorical),
    ):
        header[count], header[at] = len(entries), writer.add(np.array(entries, np.int64))


def _levels(cuts: Float32Array) -> list[Float32Array]:
    """
    A search tree of sixteens, coarsest level first: how many of a node's entries a value reaches is which child to go to.

    Filled up with NaN, which no value reaches.
    """
    levels = [_filled_up(cuts, cuts.size)]
    begins = levels[0][:: layout.FANOUT]  # the first cut below each node of the level
    while begins.size > 1:
        upper = _filled_up(begins[1:], begins.size)
        upper[layout.FANOUT - 1 :: layout.FANOUT] = np.nan  # begins the next node
        levels.insert(0, upper)
        begins = begins[:: layout.FANOUT]
    return levels


def _filled_up(cuts: Float32Array, n_children: int) -> Float32Array:
    level = np.full(-(-n_children // layout.FANOUT) * layout.FANOUT, np.nan, np.float32)
    level[: cuts.size] = cuts
    return level


def _write_blocks(forest: ForestView, columns: _Columns, header: Int64Array, writer: _Writer) -> None:
    depth = forest.depth
    size = layout.LARGE_BLOCK if header[layout.GENERAL] else layout.SMALL_BLOCK
    if depth <= layout.BLOCK_DEPTH:
        header[layout.SHAPE] = layout.ONE_BLOCK
        levels = _subtrees(forest, forest.roots, layout.BLOCK_DEPTH)
        header[layout.TESTS_AT] = writer.add(_blocks(columns, levels, size))
        header[layout.EXITS_AT] = writer.add(forest.value[levels[-1]])
    elif depth <= layout.TWO_BLOCK_DEPTH:
        header[layout.SHAPE] = layout.TWO_BLOCKS
        header[layout.ROOT_LEVELS] = root_levels = depth - layout.BLOCK_DEPTH
        _check_size(forest.roots.size << root_levels, size)
        levels = _subtrees(forest, forest.roots, depth)
        lower = [level.reshape(-1, 1 << k) for k, level in enumerate(levels[root_levels:])]
        header[layout.ROOTS_AT] = writer.add(_root_blocks(columns, levels[:root_levels], size))
        header[layout.TESTS_AT] = writer.add(_blocks(columns, lower, size))
        header[layout.EXITS_AT] = writer.add(forest.value[lower[-1]])
    else:
        header[layout.SHAPE] = layout.CHAINED
        _write_chained(forest, columns, header, size, writer)


def _check_size(n_blocks: int, size: int) -> None:
    """Refuse before the memory is taken."""
    n_bytes = n_blocks * (size + 4 * layout.EXITS)
    if n_bytes > MAX_BYTES:
        raise ConfigurationError(
            f"block tables of this forest take over {MAX_BYTES:,} bytes; choose the portable engine"
        )


def _write_chained(forest: ForestView, columns: _Columns, header: Int64Array, size: int, writer: _Writer) -> None:
    """Blocks below blocks: an exit is the number of a block, or, negative, what is left of the number of a leaf."""
    tests, exits = [], []
    roots, n_blocks = forest.roots, forest.roots.size
    while roots.size:
        _check_size(n_blocks, size)
        levels = _subtrees(forest, roots, layout.BLOCK_DEPTH)
        tests.append(_blocks(columns, levels, size))
        ends = levels[-1].ravel()
        inner = forest.distance[ends] > 0
        own = ~ends
        own[inner] = n_blocks + np.arange(int(inner.sum()))
        exits.append(own.astype(np.int32))
        roots = ends[inner]
        n_blocks += roots.size
    header[layout.TESTS_AT] = writer.add(np.concatenate(tests))
    header[layout.EXITS_AT] = writer.add(np.concatenate(exits))
    header[layout.VALUES_AT] = writer.add(forest.value)


def _subtrees(forest: ForestView, roots: Int64Array, depth: int) -> list[Int64Array]:
    """Nodes by level, as if each tree were complete: what lies below a leaf is that leaf."""
    levels = [roots[:, None]]
    for _ in range(depth):
        nodes = levels[-1]
        left = nodes + forest.distance[nodes]
        levels.append(np.stack((left, left + (forest.distance[nodes] > 0)), axis=-1).reshape(len(roots), -1))
    return levels


def _blocks(columns: _Columns, levels: Sequence[Int64Array], size: int) -> UInt8Array:
    blocks = np.zeros((len(levels[0]), size), np.uint8)
    for depth, nodes in enumerate(levels[: layout.BLOCK_DEPTH]):
        _fill(blocks, _lanes(depth), nodes, columns)
    return blocks


def _root_blocks(columns: _Columns, levels: Sequence[Int64Array], size: int) -> UInt8Array:
    n_trees = len(levels[0])
    blocks = np.zeros((-(-n_trees // layout.TREES_PER_ROOT), size), np.uint8)
    for k in range(min(layout.TREES_PER_ROOT, n_trees)):
        for depth, nodes in enumerate(levels):
            own = nodes[k :: layout.TREES_PER_ROOT]
            _fill(blocks[: len(own)], layout.TREES_PER_ROOT * k + _lanes(depth), own, columns)
    return blocks


def _fill(blocks: UInt8Array, lanes: Int64Array, nodes: Int64Array, columns: _Columns) -> None:
    column = columns.column[nodes]
    blocks[:, layout.COLUMN + lanes] = (column % layout.COLUMNS_PER_PAIR) | columns.flag[nodes]
    blocks[:, layout.TEST + lanes] = columns.test[nodes]
    if blocks.shape[1] > layout.SMALL_BLOCK:
        blocks[:, layout.PAIR + lanes] = column // layout.COLUMNS_PER_PAIR
        blocks[:, layout.BITS + lanes] = columns.bits[nodes]


def _lanes(depth: int) -> Int64Array:
    """Lanes of the nodes of a level of a block: subtrees of three levels, in heap order, lie side by side."""
    nodes = np.arange(1 << depth)
    if depth < layout.ROOT_DEPTH:
        return (1 << depth) - 1 + nodes
    below = depth - layout.ROOT_DEPTH
    subtree, node = nodes >> below, nodes & ((1 << below) - 1)
    return layout.PATH_BITS * (1 + subtree) + (1 << below) - 1 + node


def _paths() -> npt.NDArray[np.uint16]:
    """For each outcome of seven tests: the exit, above the bit where that exit's own seven tests begin."""
    outcomes = np.arange(1 << layout.PATH_BITS)
    node = np.zeros_like(outcomes)
    for _ in range(layout.ROOT_DEPTH):
        node = 2 * node + 1 + (outcomes >> node & 1)
    exits = node - (layout.ROOT_EXITS - 1)
    return (layout.PATH_BITS * (1 + exits) | exits << 8).astype(np.uint16)
