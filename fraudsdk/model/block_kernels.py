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
makes a 0 of 255.  A feature with more than 253 cuts has several columns.

A categorical test has no column: the row's category decides it.  The decisions of all categorical tests follow the columns as
bits, those of a block side by side from a byte of their own::

    decisions of the row   for each categorical feature, a look-up by its category; what is found is united
    mask                   | the block's decisions, spread to the lanes of its categorical tests

The comparison says 0 in those lanes: their test, 255, is reached by no rank, as 253 are counted and a missing value becomes 0.

Leaves are added in tree order, in float32, onto the base margin, as XGBoost does.  `fraudsdk.model.blocks` makes the tables from
forest tables that have been checked; here nothing is.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import device
from fraudsdk._simd import (
    at_least,
    avx2,
    avx512,
    clear_bytes,
    count_at_most,
    fetched,
    fetched_half,
    four_eights,
    in_its_own_frame,
    load_bytes,
    load_float32,
    load_floats,
    load_int32,
    load_int64,
    load_uint16,
    on_stack,
    picked_from_eights,
    plus_sign_bit,
    replaced_where_equal,
    shares_bit,
    shifted_right,
    spread,
    store_float32,
    store_uint8,
    unite_bytes,
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
    """Features with at most 253 cuts: every sixteenth of them says which sixteen to look at."""
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
    """Features with more cuts: as many levels as it takes, and a column per 253 cuts."""
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
def _decisions_of(row, tables, entry):
    """Where what a row's category decides is, of one categorical feature."""
    value = load_float32(row + 4 * _word(entry, layout.CATEGORICAL_FEATURE))
    n_codes = _word(entry, layout.CATEGORICAL_CODES)
    # As XGBoost: 2.9 is category 2; a negative, unknown or huge code is in no set, hence goes left.
    code = n_codes
    if value >= 0.0 and value < n_codes:
        code = np.int64(value)
    if value != value:
        code = n_codes + 1
    return tables + load_int32(tables + _word(entry, layout.CATEGORICAL_PLACES_AT) + 4 * code)


@device
def _decide(row, tables, columns):
    """Categorical tests: a bit for each, which says whether the row's category goes right."""
    # The lanes of categorical tests look at the first columns, which a forest of few numeric features leaves unfilled.
    clear_bytes(columns)
    decisions = columns + layout.COLUMNS_PER_PAIR * _word(tables, layout.N_PAIRS)
    n_bytes = layout.REGISTER * _word(tables, layout.N_DECISION_REGISTERS)
    for at in range(0, n_bytes, layout.REGISTER):
        clear_bytes(decisions + at)
    entries, size = tables + _word(tables, layout.CATEGORICAL_AT), 8 * layout.CATEGORICAL_WORDS
    for k in range(0, _word(tables, layout.N_CATEGORICAL), layout.CATEGORICAL_PER_STEP):
        entry = entries + size * k
        a, b = _decisions_of(row, tables, entry), _decisions_of(row, tables, entry + size)
        c, d = _decisions_of(row, tables, entry + 2 * size), _decisions_of(row, tables, entry + 3 * size)
        for at in range(0, n_bytes, layout.REGISTER):
            unite_bytes(decisions + at, a + at, b + at, c + at, d + at)


@device
def _rank(row, tables, columns):
    """Fill the columns of a row and its decisions: what all tests of the forest look at."""
    if _word(tables, layout.KIND) != layout.NUMERIC:
        _decide(row, tables, columns)
    n_tiny = _rank_tiny(row, tables, columns)
    _rank_narrow(row, tables, columns + n_tiny)
    _rank_wide(row, tables, columns)


@device
def _mask(instruction_set, tests, sets, block, columns, n_pairs):
    """Bit k: node k of a block goes right; for at most 128 columns and numeric tests."""
    at = tests + layout.SMALL_BLOCK * block
    index = load_bytes(at + layout.COLUMN)
    ranks = fetched(instruction_set, columns, index)
    return at_least(plus_sign_bit(ranks, index), load_bytes(at + layout.TEST))


@device
def _decided(instruction_set, at, index, sets, block, columns):
    """Bit k: node k of a block is a categorical test that goes right."""
    own = sets + 8 * layout.SET_WORDS * block
    decisions, lanes = load_int64(columns + _word(own, layout.SET_PLACE)), _word(own, layout.SET_LANES)
    return spread(instruction_set, decisions, lanes, index, load_bytes(at + layout.BITS))


@device
def _mixed_mask(instruction_set, tests, sets, block, columns, n_pairs):
    """Bit k: node k of a block goes right; for at most 128 columns."""
    at = tests + layout.LARGE_BLOCK * block
    index = load_bytes(at + layout.COLUMN)
    ranks = fetched(instruction_set, columns, index)
    above = at_least(plus_sign_bit(ranks, index), load_bytes(at + layout.TEST))
    return above | _decided(instruction_set, at, index, sets, block, columns)


@device
def _general_mask(instruction_set, tests, sets, block, columns, n_pairs):
    """Bit k: node k of a block goes right."""
    at = tests + layout.LARGE_BLOCK * block
    index, pair = load_bytes(at + layout.COLUMN), load_bytes(at + layout.PAIR)
    ranks = fetched(instruction_set, columns, index)
    for k in range(1, n_pairs):
        other = fetched(instruction_set, columns + layout.COLUMNS_PER_PAIR * k, index)
        ranks = replaced_where_equal(ranks, other, pair, k)
    above = at_least(plus_sign_bit(ranks, index), load_bytes(at + layout.TEST))
    return above | _decided(instruction_set, at, index, sets, block, columns)


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
def _leaf(mask_of, instruction_set, tests, sets, block, exits, columns, n_pairs, tables):
    """Value of the leaf that a last block leads to."""
    mask = mask_of(instruction_set, tests, sets, block, columns, n_pairs)
    return load_float32(exits + 4 * (layout.EXITS * block + _exit(mask, tables)))


@device
def _one_block(mask_of, instruction_set, tables, columns, begin, end, total):
    """Add the leaves of trees `begin` to `end`, of depth 6 at most."""
    in_its_own_frame()
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    for tree in range(begin, end):
        total += _leaf(mask_of, instruction_set, tests, sets, tree, exits, columns, n_pairs, tables)
    return total


@device
def _two_blocks(mask_of, instruction_set, tables, columns, begin, end, total):
    """Add the leaves of trees `begin`, a multiple of eight, to `end`, of depth 9 at most."""
    in_its_own_frame()
    roots, root_sets = tables + _word(tables, layout.ROOTS_AT), tables + _word(tables, layout.ROOT_SETS_AT)
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    for first in range(begin, end, layout.TREES_PER_ROOT):
        mask = mask_of(instruction_set, roots, root_sets, first >> 3, columns, n_pairs)
        for k in range(min(layout.TREES_PER_ROOT, end - first)):
            block = _second_block(mask, first, k, tables)
            total += _leaf(mask_of, instruction_set, tests, sets, block, exits, columns, n_pairs, tables)
    return total


@device
def _second_block(mask, first, k, tables):
    """The block that the root of tree ``first + k`` leads to."""
    root_levels = _word(tables, layout.ROOT_LEVELS)
    below = shifted_right(_root_exit(mask, k, tables), layout.ROOT_DEPTH - root_levels)
    return ((first + k) << root_levels) + below


@device
def _next_block(mask_of, instruction_set, tests, sets, block, exits, columns, n_pairs, tables):
    """Where a block of a chain leads: another one, or, negative, what is left of the number of a leaf."""
    mask = mask_of(instruction_set, tests, sets, block, columns, n_pairs)
    return load_int32(exits + 4 * (layout.EXITS * block + _exit(mask, tables)))


@device
def _chained(mask_of, instruction_set, tables, columns, begin, end, total):
    """
    Add the leaves of trees `begin` to `end`, of any depth.

    Where a path ends in its first block the second is walked for nothing: cheaper than a branch that nobody can predict.  Few
    paths go deeper than two blocks.
    """
    in_its_own_frame()
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    values = tables + _word(tables, layout.VALUES_AT)
    for tree in range(begin, end):
        block = _next_block(mask_of, instruction_set, tests, sets, tree, exits, columns, n_pairs, tables)
        second = max(block, 0)
        found = _next_block(mask_of, instruction_set, tests, sets, second, exits, columns, n_pairs, tables)
        block = found if block >= 0 else block
        while block >= 0:
            block = _next_block(mask_of, instruction_set, tests, sets, block, exits, columns, n_pairs, tables)
        total += load_float32(values + 4 * ~block)
    return total


@device
def _decisions_at(sets, block, columns):
    """Where the decisions of a block's categorical tests are."""
    return columns + _word(sets + 8 * layout.SET_WORDS * block, layout.SET_PLACE)


@device
def _half_mask(a, b, c, d, sets, p, q, r, s, columns, n_pairs):
    """Decisions of seven nodes of each of four blocks, p to s, whose lanes begin at a to d: eight bits for each."""
    index = four_eights(a, b, c, d)
    tests = four_eights(a + layout.TEST, b + layout.TEST, c + layout.TEST, d + layout.TEST)
    return at_least(plus_sign_bit(fetched_half(columns, index), index), tests)


@device
def _half_decided(a, b, c, d, index, sets, p, q, r, s, columns):
    """Categorical tests among seven nodes of each of four blocks that go right."""
    bits = four_eights(a + layout.BITS, b + layout.BITS, c + layout.BITS, d + layout.BITS)
    decisions = four_eights(
        _decisions_at(sets, p, columns),
        _decisions_at(sets, q, columns),
        _decisions_at(sets, r, columns),
        _decisions_at(sets, s, columns),
    )
    return shares_bit(picked_from_eights(decisions, index), bits)


@device
def _mixed_half_mask(a, b, c, d, sets, p, q, r, s, columns, n_pairs):
    """`_half_mask`, also of categorical tests."""
    index = four_eights(a, b, c, d)
    tests = four_eights(a + layout.TEST, b + layout.TEST, c + layout.TEST, d + layout.TEST)
    above = at_least(plus_sign_bit(fetched_half(columns, index), index), tests)
    return above | _half_decided(a, b, c, d, index, sets, p, q, r, s, columns)


@device
def _general_half_mask(a, b, c, d, sets, p, q, r, s, columns, n_pairs):
    """`_half_mask`, of any forest."""
    index = four_eights(a, b, c, d)
    pair = four_eights(a + layout.PAIR, b + layout.PAIR, c + layout.PAIR, d + layout.PAIR)
    tests = four_eights(a + layout.TEST, b + layout.TEST, c + layout.TEST, d + layout.TEST)
    ranks = fetched_half(columns, index)
    for k in range(1, n_pairs):
        other = fetched_half(columns + layout.COLUMNS_PER_PAIR * k, index)
        ranks = replaced_where_equal(ranks, other, pair, k)
    above = at_least(plus_sign_bit(ranks, index), tests)
    return above | _half_decided(a, b, c, d, index, sets, p, q, r, s, columns)


@device
def _seven(mask, k, tables):
    """What seven decisions lead to; see `blocks._paths`."""
    return load_uint16(tables + layout.PATHS_AT + 2 * ((mask >> (8 * k)) & layout.PATH_MASK))


@device
def _four_leaves(half_mask_of, size, p, q, r, s, tests, sets, exits, columns, n_pairs, tables, n, total):
    """
    Add the leaves that blocks p to s lead to, the first `n` of them.

    With shuffles of 16 bytes a comparison of 64 nodes costs four times what it does with one permute.  So the upper three levels
    of four trees share one of 32 bytes, and then the subtrees that they lead to share another.
    """
    kinds = 4 * layout.EXITS
    a, b, c, d = tests + size * p, tests + size * q, tests + size * r, tests + size * s
    mask = half_mask_of(a, b, c, d, sets, p, q, r, s, columns, n_pairs)
    e, f, g, h = _seven(mask, 0, tables), _seven(mask, 1, tables), _seven(mask, 2, tables), _seven(mask, 3, tables)
    a, b, c, d = a + (e & 255), b + (f & 255), c + (g & 255), d + (h & 255)
    mask = half_mask_of(a, b, c, d, sets, p, q, r, s, columns, n_pairs)
    total += load_float32(exits + kinds * p + 4 * (8 * (e >> 8) + (_seven(mask, 0, tables) >> 8)))
    if n > 1:
        total += load_float32(exits + kinds * q + 4 * (8 * (f >> 8) + (_seven(mask, 1, tables) >> 8)))
    if n > 2:
        total += load_float32(exits + kinds * r + 4 * (8 * (g >> 8) + (_seven(mask, 2, tables) >> 8)))
    if n > 3:
        total += load_float32(exits + kinds * s + 4 * (8 * (h >> 8) + (_seven(mask, 3, tables) >> 8)))
    return total


@device
def _one_block_in_fours(half_mask_of, size, tables, columns, begin, end, total):
    """`_one_block`, four trees at a time."""
    in_its_own_frame()
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    # The last few trees apart: asking each time how many there are costs a tenth.
    fours_end = end - ((end - begin) & 3)
    for p in range(begin, fours_end, 4):
        q, r, s = p + 1, p + 2, p + 3
        total = _four_leaves(half_mask_of, size, p, q, r, s, tests, sets, exits, columns, n_pairs, tables, 4, total)
    if fours_end < end:
        p, s, n = fours_end, end - 1, end - fours_end
        q, r = min(p + 1, s), min(p + 2, s)
        total = _four_leaves(half_mask_of, size, p, q, r, s, tests, sets, exits, columns, n_pairs, tables, n, total)
    return total


@device
def _two_blocks_in_fours(half_mask_of, mask_of, instruction_set, size, tables, columns, begin, end, total):
    """`_two_blocks`, four trees at a time below their roots."""
    in_its_own_frame()
    roots, root_sets = tables + _word(tables, layout.ROOTS_AT), tables + _word(tables, layout.ROOT_SETS_AT)
    n_pairs = _word(tables, layout.N_PAIRS)
    for first in range(begin, end, layout.TREES_PER_ROOT):
        mask = mask_of(instruction_set, roots, root_sets, first >> 3, columns, n_pairs)
        n_trees = min(layout.TREES_PER_ROOT, end - first)
        fours_end = n_trees & ~3
        for k in range(0, fours_end, 4):
            total = _four_below(half_mask_of, size, mask, first, k, k + 1, k + 2, k + 3, tables, columns, 4, total)
        if fours_end < n_trees:
            k, last, n = fours_end, n_trees - 1, n_trees - fours_end
            m, o = min(k + 1, last), min(k + 2, last)
            total = _four_below(half_mask_of, size, mask, first, k, m, o, last, tables, columns, n, total)
    return total


@device
def _four_below(half_mask_of, size, mask, first, a, b, c, d, tables, columns, n, total):
    """Add the leaves of trees a to d of eight, the first `n` of them, by what their roots' common block says."""
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    p, q = _second_block(mask, first, a, tables), _second_block(mask, first, b, tables)
    r, s = _second_block(mask, first, c, tables), _second_block(mask, first, d, tables)
    return _four_leaves(half_mask_of, size, p, q, r, s, tests, sets, exits, columns, n_pairs, tables, n, total)


@device
def _walk(mask_of, tables, columns, begin, end, total):
    """Add the leaves of trees `begin` to `end` of a forest of any shape, with AVX-512."""
    chosen, shape = avx512(), _word(tables, layout.SHAPE)
    if shape == layout.ONE_BLOCK:
        return _one_block(mask_of, chosen, tables, columns, begin, end, total)
    if shape == layout.TWO_BLOCKS:
        return _two_blocks(mask_of, chosen, tables, columns, begin, end, total)
    return _chained(mask_of, chosen, tables, columns, begin, end, total)


@device
def walk_avx512(tables, columns, begin, end, total):
    """Add the leaves that a ranked row reaches in trees `begin`, a multiple of eight, to `end`."""
    kind = _word(tables, layout.KIND)
    if kind == layout.NUMERIC:
        return _walk(_mask, tables, columns, begin, end, total)
    if kind == layout.MIXED:
        return _walk(_mixed_mask, tables, columns, begin, end, total)
    return _walk(_general_mask, tables, columns, begin, end, total)


@device
def _walk_in_fours(half_mask_of, mask_of, size, tables, columns, begin, end, total):
    """Add the leaves of trees `begin` to `end` of a forest of any shape, with AVX2."""
    chosen, shape = avx2(), _word(tables, layout.SHAPE)
    if shape == layout.ONE_BLOCK:
        return _one_block_in_fours(half_mask_of, size, tables, columns, begin, end, total)
    if shape == layout.TWO_BLOCKS:
        return _two_blocks_in_fours(half_mask_of, mask_of, chosen, size, tables, columns, begin, end, total)
    return _chained(mask_of, chosen, tables, columns, begin, end, total)


@device
def walk_avx2(tables, columns, begin, end, total):
    """Add the leaves that a ranked row reaches in trees `begin`, a multiple of eight, to `end`."""
    kind = _word(tables, layout.KIND)
    if kind == layout.NUMERIC:
        return _walk_in_fours(_half_mask, _mask, layout.SMALL_BLOCK, tables, columns, begin, end, total)
    if kind == layout.MIXED:
        return _walk_in_fours(_mixed_half_mask, _mixed_mask, layout.LARGE_BLOCK, tables, columns, begin, end, total)
    return _walk_in_fours(_general_half_mask, _general_mask, layout.LARGE_BLOCK, tables, columns, begin, end, total)


@device
def margin_of(walk, row, tables):
    """
    Margin of one row.

    Parameters
    ----------
    walk : device function
        `walk_avx512` or `walk_avx2`.
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
    return walk(tables, columns, 0, _word(tables, layout.N_TREES), base)


@device
def _one_block_by_four(mask_of, instruction_set, tables, columns, width, begin, end, totals):
    """`_one_block` for four rows, `width` bytes apart: blocks are loaded once, and four sums do not wait for each other."""
    in_its_own_frame()
    tests, sets = tables + _word(tables, layout.TESTS_AT), tables + _word(tables, layout.SETS_AT)
    exits, n_pairs = tables + _word(tables, layout.EXITS_AT), _word(tables, layout.N_PAIRS)
    a, b = load_float32(totals), load_float32(totals + 4)
    c, d = load_float32(totals + 8), load_float32(totals + 12)
    for tree in range(begin, end):
        a += _leaf(mask_of, instruction_set, tests, sets, tree, exits, columns, n_pairs, tables)
        b += _leaf(mask_of, instruction_set, tests, sets, tree, exits, columns + width, n_pairs, tables)
        c += _leaf(mask_of, instruction_set, tests, sets, tree, exits, columns + 2 * width, n_pairs, tables)
        d += _leaf(mask_of, instruction_set, tests, sets, tree, exits, columns + 3 * width, n_pairs, tables)
    store_float32(totals, a)
    store_float32(totals + 4, b)
    store_float32(totals + 8, c)
    store_float32(totals + 12, d)


@device
def _each_of_four(walk, tables, columns, width, begin, end, totals):
    """Walk for four rows, one after another."""
    for k in range(layout.ROWS_PER_STEP):
        total = walk(tables, columns + width * k, begin, end, load_float32(totals + 4 * k))
        store_float32(totals + 4 * k, total)


@device
def four_rows_avx512(tables, columns, width, begin, end, totals):
    """`walk_avx512` for four rows, `width` bytes apart."""
    kind = _word(tables, layout.KIND)
    if _word(tables, layout.SHAPE) != layout.ONE_BLOCK:
        # Rows of a deeper tree part company after its first block: there is nothing to load once.
        _each_of_four(walk_avx512, tables, columns, width, begin, end, totals)
    elif kind == layout.NUMERIC:
        _one_block_by_four(_mask, avx512(), tables, columns, width, begin, end, totals)
    elif kind == layout.MIXED:
        _one_block_by_four(_mixed_mask, avx512(), tables, columns, width, begin, end, totals)
    else:
        _one_block_by_four(_general_mask, avx512(), tables, columns, width, begin, end, totals)


@device
def four_rows_avx2(tables, columns, width, begin, end, totals):
    """`walk_avx2` for four rows, `width` bytes apart; four trees of one row gain more than one tree of four rows does."""
    _each_of_four(walk_avx2, tables, columns, width, begin, end, totals)


@device
def margins_of(walk_four_rows, rows, n_rows, tables, out):
    """
    Margins of many rows: a block of rows is ranked, then meets the forest a chunk of trees at a time.

    Parameters
    ----------
    walk_four_rows : device function
        `four_rows_avx512` or `four_rows_avx2`.
    rows : int64
        Address of float32[n_rows, n_features], C-contiguous.
    n_rows : int64
        How many.
    tables : int64
        Address of block tables.
    out : float32[n_rows]
        Receives the margins.
    """
    columns = _batch_columns()
    totals = _batch_totals()
    width = layout.COLUMNS_PER_PAIR * _word(tables, layout.N_PAIRS)
    width += layout.REGISTER * _word(tables, layout.N_DECISION_REGISTERS)
    row_bytes = 4 * _word(tables, layout.N_FEATURES)
    n_trees = _word(tables, layout.N_TREES)
    base = load_float32(tables + 8 * layout.BASE_MARGIN)
    # A whole number of steps; the idle rows of a last, partial step repeat what an earlier block left; nothing of them is kept.
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
                walk_four_rows(tables, columns + width * k, width, begin, end, totals + 4 * k)
        for k in range(n):
            out[start + k] = load_float32(totals + 4 * k)
