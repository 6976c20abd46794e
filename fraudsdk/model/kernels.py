"""
Walk a forest: eight trees (one row) or eight rows (a batch) side by side, without a branch per node.

A walk is a chain of dependent loads, about 15 cycles a node, and a mispredicted branch costs as much again.  Eight
independent chains hide each other's latency, and arithmetic instead of branches leaves nothing to mispredict::

    word of node i        threshold (float32 bits)  |  move
    move                  bit 31: categorical  |  bits 16-28: slot  |  bits 0-15: distance to the left child
    next node             i + distance + (scratch[slot] >= threshold)          the right child follows the left one
    a leaf                distance 0 and threshold NaN: stays where it is

A row is copied once to `scratch`, two slots per feature, so that a missing value needs no test in the walk:
slot ``2 f`` holds -inf and slot ``2 f + 1`` holds +inf where feature f is missing; a node names the slot of its own
default direction.  A categorical feature's slots hold integers instead: a position in the node's set of categories.

Leaves are added in tree order, in float32, onto the base margin: the order and the precision of XGBoost, hence its bits.
The tables are described in `fraudsdk.model.forest`, which also proves that every index read here is in range.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._simd import float32_array, int32_array, on_stack
from fraudsdk.model import layout

LANES = layout.LANES
# On the stack: no allocation, and none that a caller would have to keep per thread.
_row_slots = on_stack(4 * 2 * layout.MAX_FEATURES)


@device
def _spread(row, tables, scratch, at):
    """Copy a row to ``scratch[at : at + 2 * n_features]``, each feature once per default direction."""
    for feature in range(row.shape[0]):
        value = row[feature]
        missing = value != value
        scratch[at + 2 * feature] = -np.inf if missing else value
        scratch[at + 2 * feature + 1] = np.inf if missing else value
    positions = scratch.view(np.int32)
    pairs_at = tables[layout.CATEGORICAL_AT]
    for k in range(tables[layout.N_CATEGORICAL]):
        feature = tables[pairs_at + 2 * k]
        n_categories = tables[pairs_at + 2 * k + 1]
        value = row[feature]
        # As XGBoost: 2.9 is category 2; a negative, unknown or huge code is in no set, hence goes left.
        position = n_categories
        if value >= 0.0 and value < n_categories:
            position = int(value)
        missing = value != value
        positions[at + 2 * feature] = position
        positions[at + 2 * feature + 1] = n_categories + 1 if missing else position


@device
def _next(i, slots_at, tables, floats, scratch):
    """The node after node i: its left child, or the one behind it."""
    move = tables[np.uintp(2 * i + 1)]
    value = scratch[np.uintp(slots_at) + np.uintp(move >> layout.SLOT_SHIFT)]
    return i + (move & layout.DISTANCE_MASK) + (value >= floats[np.uintp(2 * i)])


@device
def _next_mixed(i, slots_at, tables, floats, scratch, positions):
    """`_next` where a node may be categorical."""
    move = np.int64(tables[np.uintp(2 * i + 1)])
    slot = slots_at + ((move >> layout.SLOT_SHIFT) & layout.SLOT_MASK)
    categorical = move >> layout.SIGN_SHIFT
    # At a numeric node these two would be the bits of floats; the mask makes them zeros, which are safe to look up.
    position = positions[np.uintp(slot)] & categorical
    members_at = tables[np.uintp(2 * i)] & categorical
    members = tables[np.uintp(tables[layout.SETS_AT] + members_at + (position >> 5))]
    member = (members >> (position & 31)) & 1
    above = np.int64(scratch[np.uintp(slot)] >= floats[np.uintp(2 * i)])
    return i + (move & layout.DISTANCE_MASK) + ((member & categorical) | (above & ~categorical))


@device
def _arrived(a, b, c, d, e, f, g, h, tables):
    """Whether all eight nodes are leaves."""
    moves = tables[np.uintp(2 * a + 1)] | tables[np.uintp(2 * b + 1)] | tables[np.uintp(2 * c + 1)]
    moves |= tables[np.uintp(2 * d + 1)] | tables[np.uintp(2 * e + 1)] | tables[np.uintp(2 * f + 1)]
    moves |= tables[np.uintp(2 * g + 1)] | tables[np.uintp(2 * h + 1)]
    return moves & layout.DISTANCE_MASK == 0


@device
def _walk(a, b, c, d, e, f, g, h, steps, at, w, tables, floats, scratch):
    """
    Walk from nodes a to h to their leaves; lane k reads its row at ``scratch[at + k * w]``.

    Deep trees are uneven: past the first `CHECK_EVERY` steps it is worth asking whether all eight have arrived.
    """
    while steps > 0:
        for _ in range(min(steps, layout.CHECK_EVERY)):
            a = _next(a, at, tables, floats, scratch)
            b = _next(b, at + w, tables, floats, scratch)
            c = _next(c, at + 2 * w, tables, floats, scratch)
            d = _next(d, at + 3 * w, tables, floats, scratch)
            e = _next(e, at + 4 * w, tables, floats, scratch)
            f = _next(f, at + 5 * w, tables, floats, scratch)
            g = _next(g, at + 6 * w, tables, floats, scratch)
            h = _next(h, at + 7 * w, tables, floats, scratch)
        steps -= layout.CHECK_EVERY
        if steps > 0 and _arrived(a, b, c, d, e, f, g, h, tables):
            break
    return a, b, c, d, e, f, g, h


@device
def _walk_mixed(a, b, c, d, e, f, g, h, steps, at, w, tables, floats, scratch):
    """Walk from nodes a to h to their leaves; lane k reads its row at ``scratch[at + k * w]``."""
    positions = scratch.view(np.int32)
    for _ in range(steps):
        a = _next_mixed(a, at, tables, floats, scratch, positions)
        b = _next_mixed(b, at + w, tables, floats, scratch, positions)
        c = _next_mixed(c, at + 2 * w, tables, floats, scratch, positions)
        d = _next_mixed(d, at + 3 * w, tables, floats, scratch, positions)
        e = _next_mixed(e, at + 4 * w, tables, floats, scratch, positions)
        f = _next_mixed(f, at + 5 * w, tables, floats, scratch, positions)
        g = _next_mixed(g, at + 6 * w, tables, floats, scratch, positions)
        h = _next_mixed(h, at + 7 * w, tables, floats, scratch, positions)
    return a, b, c, d, e, f, g, h


@device
def _root(tables, tree):
    """Root of a tree, in nodes from the start of the tables: a node is two words, and the nodes begin at an even word."""
    return np.int64(tables[np.uintp(tables[layout.ROOTS_AT] + tree)] + (tables[layout.NODES_AT] >> 1))


@device
def _tables_at(address):
    """The words at an address; `fraudsdk.model.forest` has proved that no walk leaves them, so that nobody asks how many."""
    return int32_array(address, layout.MAX_WORDS)


@device
def _margin(row, tables):
    """Margin of one row, eight trees at a time."""
    scratch = float32_array(_row_slots(), 2 * row.shape[0])
    _spread(row, tables, scratch, 0)
    floats = tables.view(np.float32)
    steps_at = tables[layout.GROUP_STEPS_AT]
    values_at = tables[layout.VALUES_AT] - (tables[layout.NODES_AT] >> 1)
    total = floats[layout.BASE_MARGIN]
    for group in range(tables[layout.N_GROUPS]):
        t = LANES * group
        a, b, c, d = _root(tables, t), _root(tables, t + 1), _root(tables, t + 2), _root(tables, t + 3)
        e, f, g, h = _root(tables, t + 4), _root(tables, t + 5), _root(tables, t + 6), _root(tables, t + 7)
        steps = np.int64(tables[np.uintp(steps_at + group)])
        if steps & layout.MIXED:
            steps -= layout.MIXED
            a, b, c, d, e, f, g, h = _walk_mixed(a, b, c, d, e, f, g, h, steps, 0, 0, tables, floats, scratch)
        else:
            a, b, c, d, e, f, g, h = _walk(a, b, c, d, e, f, g, h, steps, 0, 0, tables, floats, scratch)
        total += floats[np.uintp(values_at + a)]
        total += floats[np.uintp(values_at + b)]
        total += floats[np.uintp(values_at + c)]
        total += floats[np.uintp(values_at + d)]
        total += floats[np.uintp(values_at + e)]
        total += floats[np.uintp(values_at + f)]
        total += floats[np.uintp(values_at + g)]
        total += floats[np.uintp(values_at + h)]
    return total


@kernel("float32(int64, float32[::1])")
def margin(tables, row):
    """
    Margin of one row.

    Parameters
    ----------
    tables : int64
        Address of forest tables; see `fraudsdk.model.forest`.
    row : float32[n_features]
        NaN = missing.  The caller has checked its length.

    Returns
    -------
    float32
        Log-odds: what ``Booster.predict(output_margin=True)`` returns, bit for bit.
    """
    return _margin(borrowed(row), _tables_at(tables))


@kernel("float32(int64, int64)")
def margin_at(row, tables):
    """`margin` for other kernels, which have the address of a row: ``float32 f(int64 row, int64 tables)`` in C."""
    words = _tables_at(tables)
    return _margin(float32_array(row, words[layout.N_FEATURES]), words)


@kernel("void(float32[:, ::1], int64, float32[::1])")
def margins(rows, tables, out):
    """
    Margins of many rows: a block of them at a time, one tree at a time, eight rows side by side.

    Parameters
    ----------
    rows : float32[n, n_features]
        NaN = missing.
    tables : int64
        Address of forest tables; see `fraudsdk.model.forest`.
    out : float32[n]
        Receives the margins.
    """
    rows, tables, out = borrowed(rows), _tables_at(tables), borrowed(out)
    n = rows.shape[0]
    w = 2 * rows.shape[1]
    # Zeros: the idle lanes of a last, partial block walk whatever it holds, and zero is a valid position in a set.
    scratch = np.zeros(layout.BLOCK_ROWS * w, np.float32)
    totals = np.empty(layout.BLOCK_ROWS, np.float32)
    floats = tables.view(np.float32)
    steps_at = tables[layout.TREE_STEPS_AT]
    values_at = tables[layout.VALUES_AT] - (tables[layout.NODES_AT] >> 1)
    for start in range(0, n, layout.BLOCK_ROWS):
        n_block = min(layout.BLOCK_ROWS, n - start)
        for r in range(n_block):
            _spread(rows[start + r], tables, scratch, r * w)
        totals[:] = floats[layout.BASE_MARGIN]
        for tree in range(tables[layout.N_TREES]):
            root = _root(tables, tree)
            for r in range(0, n_block, LANES):
                at = r * w
                a = b = c = d = e = f = g = h = root
                steps = np.int64(tables[np.uintp(steps_at + tree)])
                if steps & layout.MIXED:
                    steps -= layout.MIXED
                    a, b, c, d, e, f, g, h = _walk_mixed(a, b, c, d, e, f, g, h, steps, at, w, tables, floats, scratch)
                else:
                    a, b, c, d, e, f, g, h = _walk(a, b, c, d, e, f, g, h, steps, at, w, tables, floats, scratch)
                totals[r] += floats[np.uintp(values_at + a)]
                totals[r + 1] += floats[np.uintp(values_at + b)]
                totals[r + 2] += floats[np.uintp(values_at + c)]
                totals[r + 3] += floats[np.uintp(values_at + d)]
                totals[r + 4] += floats[np.uintp(values_at + e)]
                totals[r + 5] += floats[np.uintp(values_at + f)]
                totals[r + 6] += floats[np.uintp(values_at + g)]
                totals[r + 7] += floats[np.uintp(values_at + h)]
        out[start : start + n_block] = totals[:n_block]
