"""
Walk a forest by blocks: all decisions of six levels of a tree in one comparison of 64 bytes.

A row is ranked once.  The rank of a value is how many of its feature's *cuts* (the distinct thresholds of the forest) it
reaches, a byte; a value that is missing has 255.  A node asks whether a rank reaches that of its own threshold::

    columns of the row   128 bytes in two registers, or more
    block                64 lanes: which column, which rank           one node per lane, 63 of them
    mask                 rank[column[lane]] >= test[lane]             one permute, one comparison -> 64 bits
    path                 7 bits -> exit of the upper three levels     two look-ups of 128 entries
                         7 bits of that exit's own subtree -> exit of the lower three

Lanes are numbered so that a subtree of three levels is seven bits in a row: the upper one first, then its eight children.

A missing value needs no second comparison: a node that sends it left adds one to the rank and to its test, modulo 256, which
makes a 0 of 255.  A feature with more than 254 cuts has several columns.  A categorical test is a bit of its column: the bits
of all sets of a feature are looked up by the row's category, once per row.

Leaves are added in tree order, in float32, onto the base margin, as XGBoost does.  `fraudsdk.model.blocks` makes the tables from
forest tables that have been checked; here nothing is.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import device
from fraudsdk._simd import (
    at_least,
    count_at_most,
    fetched,
    load_bytes,
    load_float32,
    load_floats,
    load_int32,
    load_int64,
    load_uint8,
    load_uint16,
    on_stack,
    plus_sign_bit,
    replaced_where_equal,
    shares_bit,
    shifted_right,
    store_float32,
    store_uint8,
)
from fraudsdk.model import block_layout as layout

_row_columns = on_stack(layout.ROW_BYTES)
_batch_columns = on_stack(layout.BATCH_BYTES)
_batch_totals = on_stack(4 * layout.MAX_BLOCK_ROWS)


@device
def _word(tables, word):
    return load_int64(tables + 8 * word)


@device
def _rank_tiny(row, tables, columns):
    """Features with at most 16 cuts."""
    entries = tables + _word(tables, layout.TINY_AT)
    for k in range(_word(tables, layout.N_TINY)):
        entry = load_int64(entries + 8 * k)
        value = load_float32(row + 4 * (entry & layout.FEATURE_MASK))
        rank = count_at_most(load_floats(tables + (entry >> layout.PLACE_SHIFT)), value)
        store_uint8(columns + k, rank if value == value else layout.MISSING)
    return _word(tables, layout.N_TINY)


@device
def _rank_narrow(row, tables, columns):
    """Features with at most 254 cuts: every sixteenth of them says which sixteen to look at."""
    entries = tables + _word(tables, layout.NARROW_AT)
    for k in range(_word(tables, layout.N_NARROW)):
        entry = load_int64(entries + 8 * k)
        value = load_float32(row + 4 * (entry & layout.FEATURE_MASK))
        at = tables + (entry >> layout.PLACE_SHIFT)
        sixteenth = count_at_most(load_floats(at), value)
        rank = 16 * sixteenth + count_at_most(load_floats(at + 64 + 64 * sixteenth), value)
        store_uint8(columns + k, rank if value == value else layout.MISSING)


@device
def _rank_wide(row, tables, columns):
    """Features with more cuts: as many levels as it takes, and a column per 254 cuts."""
    for k in range(_word(tables, layout.N_WIDE)):
        entry = tables + _word(tables, layout.WIDE_AT) + 8 * layout.WIDE_WORDS * k
        value = load_float32(row + 4 * _word(entry, layout.WIDE_FEATURE))
        rank = 0
        for level in range(_word(entry, layout.WIDE_LEVELS)):
            at = tables + _word(entry, layout.WIDE_LEVEL_AT + level)
            rank = 16 * rank + count_at_most(load_floats(at + 64 * rank), value)
        own = columns + _word(entry, layout.WIDE_COLUMN)
        for column in range(_word(entry, layout.WIDE_COLUMNS)):
            within = min(max(rank - layout.MAX_CUTS_PER_COLUMN * column, 0), layout.MAX_CUTS_PER_COLUMN)
            store_uint8(own + column, within if value == value else layout.MISSING)


@device
def _look_up_sets(row, tables, columns):
    """Categorical features: for each set of a feature, a bit that says whether the row's category goes right."""
    for k in range(_word(tables, layout.N_CATEGORICAL)):
        entry = tables + _word(tables, layout.CATEGORICAL_AT) + 8 * layout.CATEGORICAL_WORDS * k
        value = load_float32(row + 4 * _word(entry, layout.CATEGORICAL_FEATURE))
        n_codes = _word(entry, layout.CATEGORICAL_CODES)
        # As XGBoost: 2.9 is category 2; a negative, unknown or huge code is in no set, hence goes left.
        code = n_codes
        if value >= 0.0 and value < n_codes:
            code = np.int64(value)
        if value != value:
            code = n_codes + 1
        n_bytes = _word(entry, layout.CATEGORICAL_COLUMNS)
        own = columns + _word(entry, layout.CATEGORICAL_COLUMN)
        bits = tables + _word(entry, layout.CATEGORICAL_ROWS_AT) + n_bytes * code
        for byte in range(n_bytes):
            store_uint8(own + byte, load_uint8(bits + byte))


@device
def _rank(row, tables, columns):
    """Fill the columns of a row: what all tests of the forest look at."""
    n_tiny = _rank_tiny(row, tables, columns)
    _rank_narrow(row, tables, columns + n_tiny)
    _rank_wide(row, tables, columns)
    _look_up_sets(row, tables, columns)


@device
def _mask(instruction_set, block, columns, n_pairs):
    """Bit k: node k of a block goes right; for at most 128 columns and numeric tests."""
    index = load_bytes(block + layout.COLUMN)
    ranks = fetched(instruction_set, columns, index)
    return at_least(plus_sign_bit(ranks, index), load_bytes(block + layout.TEST))


@device
def _general_mask(instruction_set, block, columns, n_pairs):
    """Bit k: node k of a block goes right."""
    index = load_bytes(block + layout.COLUMN)
    pair = load_bytes(block + layout.PAIR)
    bits = load_bytes(block + layout.BITS)
    ranks = fetched(instruction_set, columns, index)
    for k in range(1, n_pairs):
        other = fetched(instruction_set, columns + layout.COLUMNS_PER_PAIR * k, index)
        ranks = replaced_where_equal(ranks, other, pair, k)
    above = at_least(plus_sign_bit(ranks, index), load_bytes(block + layout.TEST))
    return (above & ~shares_bit(bits, bits)) | shares_bit(ranks, bits)


@device
def _exit(mask, tables):
    """Which of the 64 exits the decisions of a block lead to."""
    paths = tables + layout.PATHS_AT
    upper = load_uint16(paths + 2 * (mask & layout.PATH_MASK))
    # The low byte is where the bits of the exit's subtree begin: the shift looks at no more of it.
    lower = load_uint16(paths + 2 * (shifted_right(mask, upper) & layout.PATH_MASK))
    return 8 * (upper >> 8) + (lower >> 8)


@device
def _root_exit(mask, tree, tables):
    """Which of the eight exits of the root of one of eight trees the decisions of their common block lead to."""
    return load_uint16(tables + layout.PATHS_AT + 2 * (shifted_right(mask, 8 * tree) & layout.PATH_MASK)) >> 8


@device
def _leaf(mask_of, instruction_set, block, exits, columns, n_pairs, tables):
    """Value of the leaf that a last block leads to."""
    return load_float32(exits + 4 * _exit(mask_of(instruction_set, block, columns, n_pairs), tables))


@device
def _one_block(mask_of, instruction_set, size, tables, columns, begin, end, total):
    """Add the leaves of trees `begin` to `end`, of depth 6 at most."""
    tests, exits = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.EXITS_AT)
    n_pairs = _word(tables, layout.N_PAIRS)
    for tree in range(begin, end):
        values = exits + 4 * layout.EXITS * tree
        total += _leaf(mask_of, instruction_set, tests + size * tree, values, columns, n_pairs, tables)
    return total


@device
def _two_blocks(mask_of, instruction_set, size, tables, columns, begin, end, total):
    """Add the leaves of trees `begin`, a multiple of eight, to `end`, of depth 9 at most."""
    roots, tests = tables + _word(tables, layout.ROOTS_AT), tables + _word(tables, layout.TESTS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    root_levels = _word(tables, layout.ROOT_LEVELS)
    for first in range(begin, end, layout.TREES_PER_ROOT):
        mask = mask_of(instruction_set, roots + size * (first >> 3), columns, n_pairs)
        for k in range(min(layout.TREES_PER_ROOT, end - first)):
            below = shifted_right(_root_exit(mask, k, tables), layout.ROOT_DEPTH - root_levels)
            block = ((first + k) << root_levels) + below
            values = exits + 4 * layout.EXITS * block
            total += _leaf(mask_of, instruction_set, tests + size * block, values, columns, n_pairs, tables)
    return total


@device
def _chained(mask_of, instruction_set, size, tables, columns, begin, end, total):
    """Add the leaves of trees `begin` to `end`, of any depth."""
    tests, exits = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.EXITS_AT)
    values, n_pairs = tables + _word(tables, layout.VALUES_AT), _word(tables, layout.N_PAIRS)
    for tree in range(begin, end):
        block = np.int64(tree)
        while block >= 0:
            mask = mask_of(instruction_set, tests + size * block, columns, n_pairs)
            block = load_int32(exits + 4 * (layout.EXITS * block + _exit(mask, tables)))
        total += load_float32(values + 4 * ~block)
    return total


@device
def _add_leaves(instruction_set, tables, columns, begin, end, total):
    """Add the leaves that a ranked row reaches in trees `begin`, a multiple of eight, to `end`."""
    shape = _word(tables, layout.SHAPE)
    if _word(tables, layout.GENERAL):
        size = layout.LARGE_BLOCK
        if shape == layout.ONE_BLOCK:
            return _one_block(_general_mask, instruction_set, size, tables, columns, begin, end, total)
        if shape == layout.TWO_BLOCKS:
            return _two_blocks(_general_mask, instruction_set, size, tables, columns, begin, end, total)
        return _chained(_general_mask, instruction_set, size, tables, columns, begin, end, total)
    size = layout.SMALL_BLOCK
    if shape == layout.ONE_BLOCK:
        return _one_block(_mask, instruction_set, size, tables, columns, begin, end, total)
    if shape == layout.TWO_BLOCKS:
        return _two_blocks(_mask, instruction_set, size, tables, columns, begin, end, total)
    return _chained(_mask, instruction_set, size, tables, columns, begin, end, total)


@device
def margin_of(instruction_set, row, tables):
    """
    Margin of one row.

    Parameters
    ----------
    instruction_set : `fraudsdk._simd.avx512` or `fraudsdk._simd.avx2`
        What to compile for.
    row : int64
        Address of float32[n_features]; NaN = missing.
    tables : int64
        Address of block tables.

    Returns
    -------
    float32
        Log-odds: what ``Booster.predict(output_margin=True)`` returns, bit for bit.
    """
    columns = _row_columns()
    _rank(row, tables, columns)
    base = load_float32(tables + 8 * layout.BASE_MARGIN)
    return _add_leaves(instruction_set, tables, columns, 0, _word(tables, layout.N_TREES), base)


@device
def _one_block_by_four(mask_of, instruction_set, size, tables, columns, width, begin, end, totals):
    """`_one_block` for four rows, `width` bytes apart: blocks are loaded once, and four sums do not wait for each other."""
    tests, exits = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.EXITS_AT)
    n_pairs = _word(tables, layout.N_PAIRS)
    a, b = load_float32(totals), load_float32(totals + 4)
    c, d = load_float32(totals + 8), load_float32(totals + 12)
    for tree in range(begin, end):
        block, values = tests + size * tree, exits + 4 * layout.EXITS * tree
        a += _leaf(mask_of, instruction_set, block, values, columns, n_pairs, tables)
        b += _leaf(mask_of, instruction_set, block, values, columns + width, n_pairs, tables)
        c += _leaf(mask_of, instruction_set, block, values, columns + 2 * width, n_pairs, tables)
        d += _leaf(mask_of, instruction_set, block, values, columns + 3 * width, n_pairs, tables)
    store_float32(totals, a)
    store_float32(totals + 4, b)
    store_float32(totals + 8, c)
    store_float32(totals + 12, d)


@device
def _add_leaves_by_four(instruction_set, tables, columns, width, begin, end, totals):
    """`_add_leaves` for four rows."""
    if _word(tables, layout.SHAPE) == layout.ONE_BLOCK:
        if _word(tables, layout.GENERAL):
            size = layout.LARGE_BLOCK
            _one_block_by_four(_general_mask, instruction_set, size, tables, columns, width, begin, end, totals)
        else:
            size = layout.SMALL_BLOCK
            _one_block_by_four(_mask, instruction_set, size, tables, columns, width, begin, end, totals)
        return
    # Rows of a deeper tree part company after its first block: there is nothing to load once.
    for k in range(layout.ROWS_PER_STEP):
        total = load_float32(totals + 4 * k)
        total = _add_leaves(instruction_set, tables, columns + width * k, begin, end, total)
        store_float32(totals + 4 * k, total)


@device
def margins_of(instruction_set, rows, n_rows, tables, out):
    """
    Margins of many rows: a block of rows is ranked, then meets the forest a chunk of trees at a time.

    Parameters
    ----------
    instruction_set, tables
        As for `margin_of`.
    rows : int64
        Address of float32[n_rows, n_features], C-contiguous.
    n_rows : int64
        How many.
    out : float32[n_rows]
        Receives the margins.
    """
    columns = _batch_columns()
    totals = _batch_totals()
    width = layout.COLUMNS_PER_PAIR * _word(tables, layout.N_PAIRS)
    row_bytes = 4 * _word(tables, layout.N_FEATURES)
    n_trees = _word(tables, layout.N_TREES)
    base = load_float32(tables + 8 * layout.BASE_MARGIN)
    # A whole number of steps; the idle rows of a last, partial step repeat what an earlier block left, or rank zero bytes.
    n_block = min(layout.MAX_BLOCK_ROWS, layout.BATCH_BYTES // (layout.ROWS_PER_STEP * width) * layout.ROWS_PER_STEP)
    for start in range(0, n_rows, n_block):
        n = min(n_block, n_rows - start)
        for k in range(n):
            _rank(rows + row_bytes * (start + k), tables, columns + width * k)
        for k in range(n_block):
            store_float32(totals + 4 * k, base)
        for begin in range(0, n_trees, layout.TREES_PER_CHUNK):
            end = min(begin + layout.TREES_PER_CHUNK, n_trees)
            for k in range(0, n, layout.ROWS_PER_STEP):
                _add_leaves_by_four(instruction_set, tables, columns + width * k, width, begin, end, totals + 4 * k)
        for k in range(n):
            out[start + k] = load_float32(totals + 4 * k)
