"""
Exact SHAP contributions of one row, sixteen trees side by side.

A contribution of path-dependent TreeSHAP is an integral over the chance u that a feature is *known*.  For one u, a row walks
a tree like this: at a split on a feature that is known it goes the row's way, else it goes either way with the shares of
the training data.  The integrand is a polynomial, and Gauss-Legendre quadrature with half as many points as a path has
features gives its exact integral.  For one point u and one split:

    known      chance that the feature is known, given that the walk got here: u; or, where it was split on above, 0 if the
               row parted from this path there, and otherwise u / (u + reach (1 - u))
    spread     (1 or 0, as the row goes to the first child or not) - share of the first child
    split      chance of the first child:  share + known * spread
    weight     chance of getting here, times the point's weight; a child's is the weight times its chance
    value      expected leaf:  split * value of the first child + (1 - split) * value of the second
    term       spread * weight * known (1 - known) / (u (1 - u)) * (difference of the two values)

`_descend` computes weights from the root down, `_ascend` values and terms from the leaves up; the terms of a feature add up
to its contribution.  Nothing is divided by a number that can be zero: u and 1 - u are not, and a reach of zero is harmless.

Points are taken four at a time, so that deep trees need more passes and not other code.  Which of the sixteen trees split on
a feature twice, and whether the row has parted from the path at such a split, is kept as bits (*marks*), one per repeated
feature of a path.  The tables are described in `fraudsdk.model.shap_tables`.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device
from fraudsdk._simd_shap import (
    add,
    choose_floats,
    choose_integers,
    disjoint,
    divide,
    gather,
    less_than,
    load_floats,
    load_integers,
    look_up,
    missing,
    multiply,
    multiply_add,
    no_bits,
    repeat,
    store_floats,
    store_integers,
    subtract,
    union,
)
from fraudsdk.model import shap_layout as layout

LANES = layout.LANES
POINT_FLOATS = layout.POINT_FLOATS
WEIGHTS_AT = layout.ROW_FLOATS
# Relative error that a sum of contributions may have; float32 arithmetic stays ten times below it.
TOLERANCE = 1e-5


@device
def _known_again(reach, odds, alive):
    """`known` where the feature of some tree was split on above; `odds` are u / (1 - u)."""
    return choose_floats(alive, divide(odds, add(reach, odds)), repeat(np.float32(0.0)))


@device
def _sensitive(weight, known, steepness):
    """The weight, times what a change of u changes `known` by."""
    doubt = subtract(repeat(np.float32(1.0)), known)
    return multiply(multiply(weight, steepness), multiply(known, doubt))


@device
def _spread(decision, share):
    return subtract(choose_floats(decision, repeat(np.float32(1.0)), repeat(np.float32(0.0))), share)


@device
def _decide(way, row, tables, floats, scratch, decisions, first, n):
    """For each place of a chunk, the mask of the trees in which the row goes to the first child."""
    thresholds_at, features_at = tables[layout.THRESHOLDS_AT], tables[layout.FEATURES_AT]
    places_at = tables[layout.PLACES_AT]
    narrow = row.shape[0] <= layout.ROW_FLOATS
    a, b = load_floats(scratch, 0), load_floats(scratch, 16)
    c, d = load_floats(scratch, 32), load_floats(scratch, 48)
    e, f = load_floats(scratch, 64), load_floats(scratch, 80)
    g, h = load_floats(scratch, 96), load_floats(scratch, 112)
    for k in range(n):
        place = first + k
        features = load_integers(tables, features_at + LANES * place)
        if narrow:
            values = look_up(way, scratch, features, a, b, c, d, e, f, g, h)
        else:
            values = gather(row, features)
        sides = np.uint32(tables[np.uintp(places_at + layout.PLACE_WORDS * place + layout.SIDES)])
        missing_left = np.uint16(sides)
        swapped = np.uint16(sides >> 16)
        left = less_than(values, load_floats(floats, thresholds_at + LANES * place)) | (missing(values) & missing_left)
        decisions[np.uintp(k)] = left ^ swapped


@device
def _decide_categorical(row, tables, decisions, chunk_at):
    """Send known categories that are not in their node's set to the left, where `_decide` sent them to the right."""
    first_cell = LANES * tables[chunk_at + layout.CHUNK_PLACE]
    for k in range(tables[chunk_at + layout.FIRST_CATEGORICAL], tables[chunk_at + layout.END_CATEGORICAL]):
        at = tables[layout.CATEGORICAL_AT] + layout.CATEGORICAL_WORDS * k
        value = row[tables[at + layout.CELL_FEATURE]]
        if value != value:
            continue
        # As XGBoost: 2.9 is category 2; a negative, unknown or huge code is in no set, hence goes left.
        member = 0
        if value >= 0.0 and value < tables[at + layout.SET_SIZE]:
            category = int(value)
            word = tables[tables[layout.SETS_AT] + tables[at + layout.SET_AT] + (category >> 5)]
            member = (word >> (category & 31)) & 1
        if member == 0:
            cell = tables[at + layout.CELL] - first_cell
            decisions[cell >> 4] ^= np.uint16(1 << (cell & 15))


@device
def _descend_point(scratch, splits_at, here, first, second, both, known, spread, share):
    """One point at one place; `here`, `first` and `second` are its floats at the place and at both children."""
    weight = load_floats(scratch, WEIGHTS_AT + here)
    split = multiply_add(known, spread, share)
    store_floats(scratch, splits_at + here, split)
    to_first = multiply(weight, split)
    store_floats(scratch, WEIGHTS_AT + first, to_first)
    if both:
        store_floats(scratch, WEIGHTS_AT + second, subtract(weight, to_first))


@device
def _sensitise(scratch, here, known, steepness):
    weight = load_floats(scratch, WEIGHTS_AT + here)
    store_floats(scratch, WEIGHTS_AT + here, _sensitive(weight, known, steepness))


@device
def _descend(tables, floats, rules, rule_at, scratch, marks, decisions, splits_at, group_at, first_decision):
    """Weights of all places of a group, and the splits of those with children that are places."""
    first_place, n = np.int64(tables[group_at + layout.FIRST_PLACE]), np.int64(tables[group_at + layout.GROUP_PLACES])
    four = rules[rule_at + layout.WEIGHT + 3] != 0.0
    marks_at = splits_at + POINT_FLOATS * tables[layout.MAX_GROUP_PLACES]
    for point in range(layout.BLOCK_POINTS):
        store_floats(scratch, WEIGHTS_AT + LANES * point, repeat(rules[rule_at + layout.WEIGHT + point]))
    store_integers(marks, marks_at, no_bits())
    places_at, shares_at = np.int64(tables[layout.PLACES_AT]), np.int64(tables[layout.SHARES_AT])
    bits_at, reaches_at = np.int64(tables[layout.BITS_AT]), np.int64(tables[layout.REACHES_AT])
    # Constants in registers: the compiler may not keep them there by itself, as stores to scratch might change `rules`.
    u0, u1 = repeat(rules[rule_at + layout.KNOWN]), repeat(rules[rule_at + layout.KNOWN + 1])
    u2, u3 = repeat(rules[rule_at + layout.KNOWN + 2]), repeat(rules[rule_at + layout.KNOWN + 3])
    o0, o1 = repeat(rules[rule_at + layout.ODDS]), repeat(rules[rule_at + layout.ODDS + 1])
    o2, o3 = repeat(rules[rule_at + layout.ODDS + 2]), repeat(rules[rule_at + layout.ODDS + 3])
    s0, s1 = repeat(rules[rule_at + layout.STEEPNESS]), repeat(rules[rule_at + layout.STEEPNESS + 1])
    s2, s3 = repeat(rules[rule_at + layout.STEEPNESS + 2]), repeat(rules[rule_at + layout.STEEPNESS + 3])
    for place in range(n):
        word_at = places_at + layout.PLACE_WORDS * (first_place + place)
        kind = tables[np.uintp(word_at + layout.KIND)]
        inner_children = kind & layout.INNER_CHILDREN
        if inner_children == 0:
            continue
        first = np.int64(tables[np.uintp(word_at + layout.FIRST_CHILD)])
        second = np.int64(tables[np.uintp(word_at + layout.SECOND_CHILD)])
        both = inner_children == 2
        cells = LANES * (first_place + place)
        decision = decisions[np.uintp(first_decision + place)]
        share = load_floats(floats, shares_at + cells)
        spread = _spread(decision, share)
        mark = load_integers(marks, marks_at + LANES * place)
        mark_first, mark_second = mark, mark
        if kind & layout.MARKS:
            bit = load_integers(tables, bits_at + cells)
            mark_first = union(mark, choose_integers(decision, no_bits(), bit))
            mark_second = union(mark, choose_integers(decision, bit, no_bits()))
        store_integers(marks, marks_at + LANES * first, mark_first)
        if both:
            store_integers(marks, marks_at + LANES * second, mark_second)
        here = POINT_FLOATS * place
        at_first, at_second = POINT_FLOATS * first, POINT_FLOATS * second
        # A point has 16 floats.  Four times the same, written out: a loop over three or four points takes a quarter longer.
        # Offsets are sums, for numba would compile a helper once per literal.
        if kind & layout.REPEATED:
            bit = load_integers(tables, bits_at + cells)
            alive = disjoint(mark, bit)
            reach = load_floats(floats, reaches_at + cells)
            k0 = _known_again(reach, o0, alive)
            k1 = _known_again(reach, o1, alive)
            k2 = _known_again(reach, o2, alive)
            _descend_point(scratch, splits_at, here, at_first, at_second, both, k0, spread, share)
            _descend_point(scratch, splits_at, here + 16, at_first + 16, at_second + 16, both, k1, spread, share)
            _descend_point(scratch, splits_at, here + 32, at_first + 32, at_second + 32, both, k2, spread, share)
            _sensitise(scratch, here, k0, s0)
            _sensitise(scratch, here + 16, k1, s1)
            _sensitise(scratch, here + 32, k2, s2)
            if four:
                k3 = _known_again(reach, o3, alive)
                _descend_point(scratch, splits_at, here + 48, at_first + 48, at_second + 48, both, k3, spread, share)
                _sensitise(scratch, here + 48, k3, s3)
        else:
            _descend_point(scratch, splits_at, here, at_first, at_second, both, u0, spread, share)
            _descend_point(scratch, splits_at, here + 16, at_first + 16, at_second + 16, both, u1, spread, share)
            _descend_point(scratch, splits_at, here + 32, at_first + 32, at_second + 32, both, u2, spread, share)
            if four:
                _descend_point(scratch, splits_at, here + 48, at_first + 48, at_second + 48, both, u3, spread, share)


@device
def _ascend_point(scratch, splits_at, here, first, second, both, leaf, term):
    """Value of a place with children that are places, written where its split was; returns the term so far."""
    value = load_floats(scratch, splits_at + first)
    other = leaf
    if both:
        other = load_floats(scratch, splits_at + second)
    difference = subtract(value, other)
    split = load_floats(scratch, splits_at + here)
    store_floats(scratch, splits_at + here, multiply_add(split, difference, other))
    return multiply_add(load_floats(scratch, WEIGHTS_AT + here), difference, term)


@device
def _last_point(scratch, splits_at, here, known, rise, value):
    """Value of a place whose children are leaves; returns its weight."""
    store_floats(scratch, splits_at + here, multiply_add(known, rise, value))
    return load_floats(scratch, WEIGHTS_AT + here)


@device
def _ascend(
    tables, floats, rules, rule_at, scratch, marks, decisions, splits_at, terms_at, group_at, first_decision, more
):
    """Terms of all places of a group; added to those that are there where `more`."""
    first_place, n = np.int64(tables[group_at + layout.FIRST_PLACE]), np.int64(tables[group_at + layout.GROUP_PLACES])
    leaves_at = tables[layout.LEAVES_AT] + LANES * tables[group_at + layout.FIRST_LEAF]
    four = rules[rule_at + layout.WEIGHT + 3] != 0.0
    marks_at = splits_at + POINT_FLOATS * tables[layout.MAX_GROUP_PLACES]
    nothing = repeat(np.float32(0.0))
    places_at, shares_at = np.int64(tables[layout.PLACES_AT]), np.int64(tables[layout.SHARES_AT])
    bits_at, reaches_at = np.int64(tables[layout.BITS_AT]), np.int64(tables[layout.REACHES_AT])
    # Constants in registers: the compiler may not keep them there by itself, as stores to scratch might change `rules`.
    u0, u1 = repeat(rules[rule_at + layout.KNOWN]), repeat(rules[rule_at + layout.KNOWN + 1])
    u2, u3 = repeat(rules[rule_at + layout.KNOWN + 2]), repeat(rules[rule_at + layout.KNOWN + 3])
    o0, o1 = repeat(rules[rule_at + layout.ODDS]), repeat(rules[rule_at + layout.ODDS + 1])
    o2, o3 = repeat(rules[rule_at + layout.ODDS + 2]), repeat(rules[rule_at + layout.ODDS + 3])
    s0, s1 = repeat(rules[rule_at + layout.STEEPNESS]), repeat(rules[rule_at + layout.STEEPNESS + 1])
    s2, s3 = repeat(rules[rule_at + layout.STEEPNESS + 2]), repeat(rules[rule_at + layout.STEEPNESS + 3])
    for place in range(n - 1, -1, -1):
        word_at = places_at + layout.PLACE_WORDS * (first_place + place)
        kind = tables[np.uintp(word_at + layout.KIND)]
        inner_children = kind & layout.INNER_CHILDREN
        first = np.int64(tables[np.uintp(word_at + layout.FIRST_CHILD)])
        second = np.int64(tables[np.uintp(word_at + layout.SECOND_CHILD)])
        cells = LANES * (first_place + place)
        share = load_floats(floats, shares_at + cells)
        spread = _spread(decisions[np.uintp(first_decision + place)], share)
        here = POINT_FLOATS * place
        if inner_children == 0:
            last = load_floats(floats, leaves_at + LANES * second)
            difference = subtract(load_floats(floats, leaves_at + LANES * first), last)
            rise = multiply(spread, difference)
            value = multiply_add(share, difference, last)
            if kind & layout.REPEATED:
                bit = load_integers(tables, bits_at + cells)
                alive = disjoint(load_integers(marks, marks_at + LANES * place), bit)
                reach = load_floats(floats, reaches_at + cells)
                k0 = _known_again(reach, o0, alive)
                k1 = _known_again(reach, o1, alive)
                k2 = _known_again(reach, o2, alive)
                w0 = _last_point(scratch, splits_at, here, k0, rise, value)
                w1 = _last_point(scratch, splits_at, here + 16, k1, rise, value)
                w2 = _last_point(scratch, splits_at, here + 32, k2, rise, value)
                total = _sensitive(w0, k0, s0)
                total = add(total, _sensitive(w1, k1, s1))
                total = add(total, _sensitive(w2, k2, s2))
                if four:
                    k3 = _known_again(reach, o3, alive)
                    w3 = _last_point(scratch, splits_at, here + 48, k3, rise, value)
                    total = add(total, _sensitive(w3, k3, s3))
            else:
                total = _last_point(scratch, splits_at, here, u0, rise, value)
                total = add(total, _last_point(scratch, splits_at, here + 16, u1, rise, value))
                total = add(total, _last_point(scratch, splits_at, here + 32, u2, rise, value))
                if four:
                    total = add(total, _last_point(scratch, splits_at, here + 48, u3, rise, value))
            term = multiply(rise, total)
        else:
            both = inner_children == 2
            leaf = nothing
            if not both:
                leaf = load_floats(floats, leaves_at + LANES * second)
            at_first, at_second = POINT_FLOATS * first, POINT_FLOATS * second
            term = _ascend_point(scratch, splits_at, here, at_first, at_second, both, leaf, nothing)
            term = _ascend_point(scratch, splits_at, here + 16, at_first + 16, at_second + 16, both, leaf, term)
            term = _ascend_point(scratch, splits_at, here + 32, at_first + 32, at_second + 32, both, leaf, term)
            if four:
                term = _ascend_point(scratch, splits_at, here + 48, at_first + 48, at_second + 48, both, leaf, term)
            term = multiply(spread, term)
        at = terms_at + LANES * (first_decision + place)
        if more:
            term = add(term, load_floats(scratch, at))
        store_floats(scratch, at, term)


@device
def _add_up(tables, scratch, terms_at, chunk, out):
    """Add the terms of a chunk to the contributions of their features: four sums each, to keep the adders busy."""
    n_features = tables[layout.N_FEATURES]
    runs_at = tables[layout.RUNS_AT] + (n_features + 1) * chunk
    for feature in range(n_features):
        at = np.int64(tables[layout.TERMS_AT] + tables[np.uintp(runs_at + feature)])
        end = np.int64(tables[layout.TERMS_AT] + tables[np.uintp(runs_at + feature + 1)])
        if at == end:
            continue
        a = b = c = d = np.float32(0.0)
        while at + 4 <= end:
            a += scratch[np.uintp(terms_at + tables[np.uintp(at)])]
            b += scratch[np.uintp(terms_at + tables[np.uintp(at + 1)])]
            c += scratch[np.uintp(terms_at + tables[np.uintp(at + 2)])]
            d += scratch[np.uintp(terms_at + tables[np.uintp(at + 3)])]
            at += 4
        while at < end:
            a += scratch[np.uintp(terms_at + tables[np.uintp(at)])]
            at += 1
        out[feature] += np.float64(a) + np.float64(b) + np.float64(c) + np.float64(d)


@device
def explain_row(way, row, tables, rules, scratch, out):
    """
    Contributions of one row; for kernels that have a row at hand.

    Parameters
    ----------
    way : by_gathers() or by_permutes()
        How values of a row are looked up; of `fraudsdk._simd_shap`.
    row : float32[n_features]
        NaN = missing.
    tables : int32[n_words]
        See `fraudsdk.model.shap_tables`.
    rules : float32[(MAX_POINTS + 1) * RULE_FLOATS]
        Quadrature rules, by number of points.
    scratch : float32[`shap_layout.scratch_floats`]
        Of this thread alone; 64-byte alignment makes it faster.
    out : float64[n_features + 1]
        Receives the contributions, log-odds, and the expected margin.
    """
    floats, marks, decisions = tables.view(np.float32), scratch.view(np.int32), scratch.view(np.uint16)
    n_features = tables[layout.N_FEATURES]
    splits_at = WEIGHTS_AT + POINT_FLOATS * tables[layout.MAX_GROUP_PLACES]
    terms_at = splits_at + (POINT_FLOATS + LANES) * tables[layout.MAX_GROUP_PLACES]
    decisions = decisions[2 * (terms_at + LANES * tables[layout.MAX_CHUNK_PLACES]) :]
    for feature in range(n_features):
        out[feature] = 0.0
    if n_features <= layout.ROW_FLOATS:
        for feature in range(n_features):
            scratch[feature] = row[feature]
    for chunk in range(tables[layout.N_CHUNKS]):
        chunk_at = tables[layout.CHUNKS_AT] + layout.CHUNK_WORDS * chunk
        chunk_place = np.int64(tables[chunk_at + layout.CHUNK_PLACE])
        _decide(way, row, tables, floats, scratch, decisions, chunk_place, tables[chunk_at + layout.CHUNK_PLACES])
        _decide_categorical(row, tables, decisions, chunk_at)
        for group in range(tables[chunk_at + layout.FIRST_GROUP], tables[chunk_at + layout.END_GROUP]):
            group_at = tables[layout.GROUPS_AT] + layout.GROUP_WORDS * group
            first = tables[group_at + layout.FIRST_PLACE] - chunk_place
            rule_at = layout.RULE_FLOATS * tables[group_at + layout.POINTS]
            n_blocks = int(rules[rule_at])
            rule_at += 1
            for block in range(n_blocks):
                _descend(tables, floats, rules, rule_at, scratch, marks, decisions, splits_at, group_at, first)
                _ascend(
                    tables,
                    floats,
                    rules,
                    rule_at,
                    scratch,
                    marks,
                    decisions,
                    splits_at,
                    terms_at,
                    group_at,
                    first,
                    block > 0,
                )
                rule_at += layout.BLOCK_FLOATS
        _add_up(tables, scratch, terms_at, chunk, out)
    out[n_features] = tables[layout.EXPECTED : layout.EXPECTED + 2].view(np.float64)[0]


@device
def _adds_up(contributions, margin):
    """
    Whether contributions are the margin, to `TOLERANCE` of the largest number involved and of 1 where all are smaller.

    Where a large expected margin and large contributions cancel, the margin itself carries the rounding of the large ones.
    """
    total, largest = 0.0, max(1.0, abs(margin))
    for k in range(contributions.shape[0]):
        total += contributions[k]
        largest = max(largest, abs(contributions[k]))
    # A sum that is NaN is below nothing.
    return abs(total - margin) <= TOLERANCE * largest


@device
def contributions_of(way, rows, margins, tables, rules, scratch, out):
    """
    Contributions of many rows, each checked against its margin.

    Parameters
    ----------
    way
        As `explain_row` has it.
    rows : float32[n, n_features]
        NaN = missing.
    margins : float32[n]
        Margins of the rows, from the engine that scores.
    tables, rules, scratch
        As `explain_row` has them.
    out : float64[n, n_features + 1]
        Receives the contributions.

    Returns
    -------
    int64
        The first row whose contributions do not add up to its margin; -1 where all do.
    """
    rows, margins, tables, rules = borrowed(rows), borrowed(margins), borrowed(tables), borrowed(rules)
    scratch, out = borrowed(scratch), borrowed(out)
    for r in range(rows.shape[0]):
        explain_row(way, rows[r], tables, rules, scratch, out[r])
        if not _adds_up(out[r], np.float64(margins[r])):
            return r
    return -1
