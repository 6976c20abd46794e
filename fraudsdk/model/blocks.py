"""
Block tables: what the vector kernels walk, made from checked forest tables when a model is loaded.

They are not in the file, on purpose.  Made here they are right whatever a file says, and one file serves every CPU; it takes 2 ms
for 300 trees (ADR 0008).  The kernels and the form of a block are described in `fraudsdk.model.block_kernels`, the places in
`fraudsdk.model.block_layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
# Bits that are a byte each while tables of decisions are made.
_MAX_UNPACKED_BYTES: Final = 4 * 1024 * 1024


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
    decisions = _Decisions(forest)
    header[layout.N_FEATURES] = forest.n_features
    header[layout.N_TREES] = forest.roots.size
    header[layout.BASE_MARGIN] = forest.base_margin.view(np.int32)
    mixed = layout.MIXED if forest.n_categories else layout.NUMERIC
    header[[layout.KIND, layout.N_PAIRS]] = layout.GENERAL if n_pairs > 1 else mixed, n_pairs
    writer.add(np.zeros(layout.HEADER_WORDS, np.int64))
    writer.add(_paths())
    _write_ranking(columns, header, writer)
    _write_blocks(forest, columns, decisions, header, writer)
    header[layout.N_DECISION_REGISTERS] = decisions.n_registers
    _check_row(columns.n_columns, n_pairs, decisions.n_registers)
    _write_decisions(decisions, header, writer)
    return writer.joined(header)


def _check_row(n_columns: int, n_pairs: int, n_registers: int) -> None:
    n_bytes = layout.COLUMNS_PER_PAIR * n_pairs + layout.REGISTER * n_registers
    if n_bytes > layout.ROW_BYTES:
        raise ConfigurationError(
            f"a row of this forest has {n_columns:,} columns and {layout.REGISTER * n_registers:,} bytes of decisions, the "
            f"vector engines have {layout.ROW_BYTES:,} bytes for both; choose the portable engine"
        )


def _check_bytes(n_bytes: int) -> None:
    if n_bytes > MAX_BYTES:
        raise ConfigurationError(
            f"block tables of this forest take over {MAX_BYTES:,} bytes; choose the portable engine"
        )


class _Writer:
    """Parts one after another, each at a multiple of a register."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[Any]] = []
        self._size = 0

    def add(self, part: npt.NDArray[Any]) -> int:
        """Where the part is."""
        at = self._size
        self._size += -(-part.nbytes // layout.REGISTER) * layout.REGISTER
        _check_bytes(self._size)
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
    n_columns : int
        Of a row.
    column : int64[n_nodes]
        Column that a node looks at; 0 at leaves and categorical nodes, which look at none.
    flag : uint8[n_nodes]
        `DEFAULT_LEFT` where a missing value goes left, and at categorical nodes.
    test : uint8[n_nodes]
        What the rank must reach; `NEVER` at categorical nodes.
    """

    cuts: Sequence[tuple[int, Float32Array]]
    n_columns: int
    column: Int64Array
    flag: UInt8Array
    test: UInt8Array

    @classmethod
    def of(cls, forest: ForestView) -> _Columns:
        """Columns of a forest."""
        n_nodes = forest.distance.size
        column, flag, test = np.zeros(n_nodes, np.int64), np.zeros(n_nodes, np.uint8), np.zeros(n_nodes, np.uint8)
        numeric = np.flatnonzero((forest.distance > 0) & ~forest.categorical)
        cuts, n_columns, position = _distinct(forest.feature[numeric], forest.threshold[numeric])
        left = ~forest.default_right[numeric]
        column[numeric] = position // _CUTS
        flag[numeric] = left * np.uint8(layout.DEFAULT_LEFT)
        test[numeric] = position % _CUTS + 1 + left
        flag[forest.categorical], test[forest.categorical] = layout.DEFAULT_LEFT, layout.NEVER
        return cls(cuts, n_columns, column, flag, test)


def _distinct(features: Int64Array, thresholds: Float32Array) -> tuple[list[tuple[int, Float32Array]], int, Int64Array]:
    """
    Features with their cuts, fewest first; the number of their columns; and for each test 253 times its column, plus its
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


@dataclass(slots=True)
class _Decisions:
    """
    The bits of a row that decide categorical tests: block by block, each from a byte of its own, in the order of its lanes.

    Attributes
    ----------
    forest : ForestView
    position : int64[n_nodes]
        Bit that decides a node; -1 where none does.
    n_bytes : int
        That blocks have taken so far.
    """

    forest: ForestView
    position: Int64Array = field(init=False)
    n_bytes: int = 0

    def __post_init__(self) -> None:
        self.position = np.full(self.forest.distance.size, -1, np.int64)

    @property
    def n_registers(self) -> int:
        """That hold all bits and the seven bytes more that are loaded with the last ones."""
        return -(-(self.n_bytes + 7) // layout.REGISTER) if self.n_bytes else 0

    def take(self, nodes: Int64Array) -> tuple[Int64Array, Int64Array]:
        """
        Bits for the categorical tests of blocks.

        Parameters
        ----------
        nodes : int64[n_blocks, 64]
            Of each lane.

        Returns
        -------
        number : int64[n_blocks, 64]
            Of each lane's test among those of its block; -1 where it is none.
        begin : int64[n_blocks]
            The byte where a block's bits begin.
        """
        categorical = self.forest.categorical[nodes]
        number = np.where(categorical, np.cumsum(categorical, axis=1) - 1, -1)
        ends = self.n_bytes + np.cumsum(-(-categorical.sum(axis=1) // 8))
        begin = np.concatenate(([self.n_bytes], ends[:-1]))
        self.n_bytes = int(ends[-1])
        self.position[nodes[categorical]] = (8 * begin[:, None] + number)[categorical]
        return number, begin

    def features(self) -> list[int]:
        """That some block tests; a file may name others."""
        tested: list[int] = np.unique(self.forest.feature[self.position >= 0]).tolist()
        return tested

    def of_feature(self, feature: int) -> tuple[UInt8Array, Int64Array]:
        """
        What the codes of a feature decide.

        Returns
        -------
        rows : uint8[n_rows, n_registers * 64]
            All decisions, by those of the feature; each row once, as most codes of many decide the same.
        which : int64[n_codes + 2]
            The row of each code, of "none of these", and of "missing".
        """
        nodes = np.flatnonzero((self.position >= 0) & (self.forest.feature == feature))
        n_codes = self.forest.n_categories[feature]
        known: dict[bytes, int] = {}
        which = np.empty(n_codes + 2, np.int64)
        step = 32 * max(1, _MAX_UNPACKED_BYTES // (32 * nodes.size))
        for first in range(0, n_codes + 1, step):
            members = self._members(nodes, first, min(step, n_codes + 1 - first))
            for code, row in enumerate(np.packbits(members.T, axis=1), first):
                which[code] = known.setdefault(row.tobytes(), len(known))
        missing = np.packbits(self.forest.default_right[nodes]).tobytes()
        which[-1] = known.setdefault(missing, len(known))
        own = np.frombuffer(b"".join(known), np.uint8).reshape(len(known), -1)
        return self._in_place(nodes, own), which

    def _in_place(self, nodes: Int64Array, own: UInt8Array) -> UInt8Array:
        """Rows of all decisions, from those of a feature's nodes."""
        width = layout.REGISTER * self.n_registers
        _check_bytes(len(own) * width)
        rows = np.empty((len(own), width), np.uint8)
        step = max(1, _MAX_UNPACKED_BYTES // (8 * width))
        for first in range(0, len(own), step):
            some = own[first : first + step]
            bits = np.zeros((len(some), 8 * width), np.uint8)
            bits[:, self.position[nodes]] = np.unpackbits(some, axis=1, count=nodes.size)
            rows[first : first + step] = np.packbits(bits, axis=1, bitorder="little")
        return rows

    def _members(self, nodes: Int64Array, first: int, n_codes: int) -> UInt8Array:
        """For each node, whether codes from `first`, a multiple of 32, go right."""
        words = first // 32 + np.arange(-(-n_codes // 32))
        own = self.forest.sets[self.forest.set_begin[nodes][:, None] + words]
        return np.unpackbits(own.view(np.uint8), axis=1, count=n_codes, bitorder="little")


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
    for count, at, entries in (
        (layout.N_TINY, layout.TINY_AT, tiny),
        (layout.N_NARROW, layout.NARROW_AT, narrow),
        (layout.N_WIDE, layout.WIDE_AT, wide),
    ):
        header[count], header[at] = len(entries), writer.add(np.array(entries, np.int64))


def _write_decisions(decisions: _Decisions, header: Int64Array, writer: _Writer) -> None:
    entries = []
    for feature in decisions.features():
        rows, which = decisions.of_feature(feature)
        places = writer.add(rows) + rows.shape[1] * which
        entries.append((feature, which.size - 2, writer.add(places.astype(np.int32)), 0))
    if len(entries) % layout.CATEGORICAL_PER_STEP:
        nothing = writer.add(np.zeros(layout.REGISTER * decisions.n_registers, np.uint8))
        places_at = writer.add(np.full(2, nothing, np.int32))
        entries += [(0, 0, places_at, 0)] * (-len(entries) % layout.CATEGORICAL_PER_STEP)
    header[layout.N_CATEGORICAL] = len(entries)
    header[layout.CATEGORICAL_AT] = writer.add(np.array(entries, np.int64))


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


def _write_blocks(
    forest: ForestView, columns: _Columns, decisions: _Decisions, header: Int64Array, writer: _Writer
) -> None:
    depth = forest.depth
    kind = _BlockKind(columns, decisions, header[layout.KIND] == layout.NUMERIC, int(header[layout.N_PAIRS]))
    a_leaf = int(np.argmin(forest.distance))
    if depth <= layout.BLOCK_DEPTH:
        header[layout.SHAPE] = layout.ONE_BLOCK
        levels = _subtrees(forest, forest.roots, layout.BLOCK_DEPTH)
        _write_tests([kind.blocks(_in_lanes(levels, a_leaf))], layout.TESTS_AT, layout.SETS_AT, header, writer)
        header[layout.EXITS_AT] = writer.add(forest.value[levels[-1]])
    elif depth <= layout.TWO_BLOCK_DEPTH:
        header[layout.SHAPE] = layout.TWO_BLOCKS
        header[layout.ROOT_LEVELS] = root_levels = depth - layout.BLOCK_DEPTH
        kind.check_size(forest.roots.size << root_levels)
        levels = _subtrees(forest, forest.roots, depth)
        lower = [level.reshape(-1, 1 << k) for k, level in enumerate(levels[root_levels:])]
        roots = kind.blocks(_roots_in_lanes(levels[:root_levels], a_leaf))
        _write_tests([roots], layout.ROOTS_AT, layout.ROOT_SETS_AT, header, writer)
        _write_tests([kind.blocks(_in_lanes(lower, a_leaf))], layout.TESTS_AT, layout.SETS_AT, header, writer)
        header[layout.EXITS_AT] = writer.add(forest.value[lower[-1]])
    else:
        header[layout.SHAPE] = layout.CHAINED
        _write_chained(forest, kind, a_leaf, header, writer)


@dataclass(frozen=True, slots=True)
class _BlockKind:
    """What all blocks of a forest are made from."""

    columns: _Columns
    decisions: _Decisions
    numeric: bool
    n_pairs: int

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return layout.SMALL_BLOCK if self.numeric else layout.LARGE_BLOCK

    def check_size(self, n_blocks: int) -> None:
        """Refuse before the memory is taken."""
        _check_bytes(n_blocks * (self.size + 4 * layout.EXITS))

    def blocks(self, nodes: Int64Array) -> tuple[UInt8Array, Int64Array]:
        """
        Blocks of the nodes in their lanes, and what they have besides unless the forest is numeric.

        Parameters
        ----------
        nodes : int64[n_blocks, 64]

        Returns
        -------
        tests : uint8[n_blocks, size]
        sets : int64[n_blocks, SET_WORDS]
        """
        columns = self.columns
        tests = np.zeros((len(nodes), self.size), np.uint8)
        column = columns.column[nodes]
        lanes = np.arange(layout.REGISTER)
        tests[:, layout.COLUMN + lanes] = (column % layout.COLUMNS_PER_PAIR) | columns.flag[nodes]
        tests[:, layout.TEST + lanes] = columns.test[nodes]
        sets = np.zeros((0 if self.numeric else len(nodes), layout.SET_WORDS), np.int64)
        if not self.numeric:
            number, begin = self.decisions.take(nodes)
            decided = number >= 0
            tests[:, layout.COLUMN + lanes] |= np.where(decided, number >> 3, 0).astype(np.uint8)
            tests[:, layout.BITS + lanes] = np.where(decided, 1 << (number & 7), 0)
            tests[:, layout.PAIR + lanes] = column // layout.COLUMNS_PER_PAIR
            sets[:, layout.SET_LANES] = np.packbits(decided, axis=1, bitorder="little").view("<i8")[:, 0]
            # A block without any reads the row's first word, of which nothing is kept: no row need have decisions.
            place = layout.COLUMNS_PER_PAIR * self.n_pairs + begin
            sets[:, layout.SET_PLACE] = np.where(decided.any(axis=1), place, 0)
        return tests, sets


def _write_tests(
    parts: Sequence[tuple[UInt8Array, Int64Array]], tests_at: int, sets_at: int, header: Int64Array, writer: _Writer
) -> None:
    header[tests_at] = writer.add(np.concatenate([tests for tests, _ in parts]))
    header[sets_at] = writer.add(np.concatenate([sets for _, sets in parts]))


def _write_chained(forest: ForestView, kind: _BlockKind, a_leaf: int, header: Int64Array, writer: _Writer) -> None:
    """Blocks below blocks: an exit is the number of a block, or, negative, what is left of the number of a leaf."""
    parts, exits = [], []
    roots, n_blocks = forest.roots, forest.roots.size
    while roots.size:
        kind.check_size(n_blocks)
        levels = _subtrees(forest, roots, layout.BLOCK_DEPTH)
        parts.append(kind.blocks(_in_lanes(levels, a_leaf)))
        ends = levels[-1].ravel()
        inner = forest.distance[ends] > 0
        own = ~ends
        own[inner] = n_blocks + np.arange(int(inner.sum()))
        exits.append(own.astype(np.int32))
        roots = ends[inner]
        n_blocks += roots.size
    _write_tests(parts, layout.TESTS_AT, layout.SETS_AT, header, writer)
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


def _in_lanes(levels: Sequence[Int64Array], a_leaf: int) -> Int64Array:
    """Nodes of blocks by lane; a leaf, which asks nothing, where a lane has none."""
    nodes = np.full((len(levels[0]), layout.REGISTER), a_leaf)
    for depth, level in enumerate(levels[: layout.BLOCK_DEPTH]):
        nodes[:, _lanes(depth)] = level
    return nodes


def _roots_in_lanes(levels: Sequence[Int64Array], a_leaf: int) -> Int64Array:
    """`_in_lanes` for the upper levels of trees, eight to a block."""
    n_trees = len(levels[0])
    nodes = np.full((-(-n_trees // layout.TREES_PER_ROOT), layout.REGISTER), a_leaf)
    for k in range(min(layout.TREES_PER_ROOT, n_trees)):
        for depth, level in enumerate(levels):
            own = level[k :: layout.TREES_PER_ROOT]
            nodes[: len(own), layout.TREES_PER_ROOT * k + _lanes(depth)] = own
    return nodes


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
