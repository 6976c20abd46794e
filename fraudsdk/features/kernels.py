"""
The feature kernel: one encoded transaction and what is remembered of its entities in, one float32 row out.

::

    keys -> heads         one probe per entity kind
    windows -> slots      edges once per entity, a mark per event and set; counts are ranks of marks, sums go by eight
    ops -> row            one line per feature
    remember              the event joins its entities and the journal

Read before write: a transaction must not see itself in its own velocity.  `score_one` and `replay` run the same
`observe`, so online and offline rows are the same bits.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._native import (
    add_tiles,
    add_values,
    bytes_of,
    consecutive8,
    float_rows_of,
    floats_of,
    highest_bit,
    int_rows_of,
    ints_of,
    later8,
    leave_chunks8,
    lowest_bit,
    matching8,
    measured_floats_of,
    measured_ints_of,
    measured_rows_of,
    ones,
    prefetch,
    row_of,
    sum_consecutive,
    sum_values,
    sum_words,
    unmeasured,
)
from fraudsdk.domain.fields import (
    AMOUNT_MINOR,
    AMOUNT_UNKNOWN,
    CHARGEBACK,
    EVENT_TIME_US,
    FLAGS,
    FRAUD,
    GENUINE,
    ORIGINAL_KEY,
    REVERSAL,
    REVERSED,
    TRANSACTION_KEY,
)
from fraudsdk.entity_state.kernels import (
    FLAG_BITS,
    NEVER_US,
    OWN_CLOCK_COSINE,
    OWN_CLOCK_SINE,
    OWN_HOME_X,
    OWN_X,
    VALUE_UNKNOWN,
    amend_everywhere,
    create,
    decay_factor,
    entity_key,
    evict_oldest,
    find,
    first_lanes,
    journal_find,
    journal_insert,
    journal_remove,
    link_newest,
    mark_changed,
    remember,
    remember_as_own,
    ring_find,
    ring_guess,
    say_when_and_where,
    source_value,
    tiles_on_level,
    unlink,
)
from fraudsdk.entity_state.layout import (
    CHANGED_CAPACITY,
    CHANGED_ELSEWHERE,
    COLUMN_TAG,
    DAY_US,
    DECAYED_WORDS,
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    FIRST_VALUE,
    HEAD_BORN,
    HEAD_COUNT,
    HEAD_FIRST_US,
    HEAD_KEY,
    HEAD_LAST_US,
    HEAD_NEWER,
    HEAD_OLDER,
    JOURNAL_AMOUNT_MINOR,
    JOURNAL_FLAGS,
    JOURNAL_KEY,
    JOURNAL_TIME_US,
    KIND_DECAYED,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_HEAD_WORDS,
    KIND_HOURS,
    KIND_JOURNAL,
    KIND_PLACE,
    KIND_RING,
    KIND_RING_COLUMNS,
    KIND_TILE_LEVELS,
    KIND_TILE_STRIDE,
    META_BUMP,
    META_DUPLICATES,
    META_ENTITIES,
    META_EVENTS,
    META_JOURNAL_NEXT,
    META_LABELS,
    META_LABELS_UNKNOWN,
    META_MAX_ENTITIES,
    META_REVERSALS_UNKNOWN,
    OTHERS_ONLY,
    PLACE_CENTRE_X,
    PLACE_LAST_US,
    PLACE_X,
    RING_CAPACITY,
    RING_CHUNK,
    RING_FLAGS,
    RING_FLOOR_US,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    RING_WORDS,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
    TILE_VALUES,
    TILE_WIDTHS_US,
)
from fraudsdk.features.context import (
    ACC,
    AHEAD,
    AHEAD_LABELS,
    BITS,
    BUMP_MAX,
    CHANGED,
    COLUMNS,
    DECAYEDS,
    DISTINCTS,
    EDGES,
    FILTER_RANGES,
    FILTERS,
    INTS,
    JOURNAL,
    JOURNAL_INDEX,
    KEYS,
    KINDS,
    LIMITS,
    MEASURES,
    META,
    NUMBERS,
    OPS,
    OWN,
    PARAMS,
    PLACES,
    POOL,
    POSITIONS,
    ROW,
    RUNS,
    SETS,
    SLOTS,
    SQUARES,
    TABLE,
    WINDOWED,
)
from fraudsdk.features.plan import (
    OP_CODE,
    OP_COLUMN,
    OP_CURRENT,
    OP_KIND,
    OP_MASK,
    OP_OTHER,
    OP_SLOT,
    OP_SOURCE,
    OP_WANT,
    OP_WINDOW_US,
    OPCODES,
    PARAM_BOUND,
    PARAM_EMPTY,
    PARAM_SCALE,
    RUN_CODE,
    RUN_END,
    RUN_FIRST,
    SET_MASK,
    SET_WANT,
    SLOT_COLUMN,
    SLOT_END,
    SLOT_SET,
    SLOT_START,
    SLOT_TILE,
    SLOT_TIMES,
    SLOT_WHOLE,
    WINDOWED_COUNTS,
    WINDOWED_EDGES,
    WINDOWED_FIRST_EDGE,
    WINDOWED_FIRST_SET,
    WINDOWED_FIRST_SLOT,
    WINDOWED_KIND,
    WINDOWED_SETS,
    WINDOWED_SLOTS,
)

# What `observe` says happened.
SCORED = 0
DUPLICATE = 1
LIFECYCLE = 2  # a reversal or chargeback changed state; there is no row
NEEDS_ROOM = 3  # nothing was done: grow the memory and call again

# Columns of the window scratch ``acc``.
ACC_COUNT = 0  # -1: the transaction names no such entity
ACC_VALUES = 1
ACC_SUM = 2
ACC_MAX = 3
ACC_MIN = 4
ACC_NEWEST_US = 5
ACC_OLDEST_US = 6
ACC_BOUNDED = 7  # 1: by tiles, too high by at most one at either end; or, for an event later than allowed, too low
ACC_FIELDS = 8

# Columns of the scratch ``keys``: what the transaction names, one row per entity kind.
KEY = 0  # 0: no such entity
KEY_HEAD = 1  # 0: not known yet
KEY_LAST_US = 2
KEY_BLANK = 3  # what the slots of the kind hold: 1 no event, 2 no entity, 0 something
KEY_FIELDS = 4

# How many transactions ahead a replay asks for what the next step will read, so that memory answers in time.
AHEAD_INPUT = 32
AHEAD_KEYS = 24
AHEAD_HEADS = 16
AHEAD_EVENTS = 4
AHEAD_WRITING = 8
# What a transaction uses of the pool for the first time, and how far ahead of that it is asked for.
FRESH_WORDS = 64
AHEAD_FRESH_WORDS = 256
# The same of labels.
AHEAD_JOURNAL_INDEX = 20
AHEAD_JOURNAL = 16
AHEAD_LABEL_KEYS = 12
AHEAD_LABEL_HEADS = 8
AHEAD_LABEL_EVENTS = 4
AHEAD_ROWS = 32  # a power of two, more than any of these
# Events of a ring that are asked for: most windows hold fewer, and hardware goes on by itself.
AHEAD_RING_EVENTS = 64
WORDS_PER_LINE = 8

FLOAT32_MAX = 3.4028234663852886e38
EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
MAX_VALUE = -(VALUE_UNKNOWN + 1)
# A z-score against an entity that always pays the same would be infinite: one minor unit is the least deviation.
LEAST_DEVIATION = 1.0
# Two authorisations a second apart at two sides of a city are not a flight.
LEAST_TRAVEL_S = 60.0
IMPOSSIBLE_TRAVEL_KM = 100.0

_TILE_WIDTHS = np.array(TILE_WIDTHS_US, dtype=np.int64)
_COUNT, _SUM, _MEAN, _MIN, _MAX = (OPCODES[n] for n in ("count", "sum", "mean", "min", "max"))
_STD, _ZSCORE, _TO_MEAN, _TO_MAX = (OPCODES[n] for n in ("std", "zscore", "ratio_to_mean", "ratio_to_max"))
_RATE, _NEWEST, _OLDEST = (OPCODES[n] for n in ("rate", "seconds_since_newest", "seconds_since_oldest"))
_SINCE_LAST, _SINCE_FIRST, _IS_NEW, _EVER = (
    OPCODES[n] for n in ("seconds_since_last", "seconds_since_first", "is_new", "count_ever")
)
_DISTINCT, _DECAYED_COUNT, _DECAYED_SUM = (OPCODES[n] for n in ("distinct", "decayed_count", "decayed_sum"))
_DISTANCE_LAST, _SPEED, _DISTANCE_CENTRE = (
    OPCODES[n] for n in ("distance_from_last_km", "speed_kmh", "distance_from_centre_km")
)
_HOUR_DEVIATION, _HOUR_CONCENTRATION = (OPCODES[n] for n in ("hour_deviation", "hour_concentration"))
_LOG, _KNOWN, _KNOWN_IDENTIFIER = (OPCODES[n] for n in ("log", "known", "known_identifier"))
_HOUR_SIN, _HOUR_COS, _WEEKDAY_SIN, _WEEKDAY_COS = (
    OPCODES[n] for n in ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos")
)
_WEEKEND, _NIGHT, _DAY_OF_MONTH = (OPCODES[n] for n in ("is_weekend", "is_night", "day_of_month"))
_DIFFERS, _DISTANCE, _ROUND, _BELOW_LIMIT = (
    OPCODES[n] for n in ("differs", "distance_km", "round_amount", "below_limit")
)
_DIFFERENCE = OPCODES["difference"]
FIRST_ENTITY_OP, _FIRST_TRANSACTION_OP, _FIRST_DERIVED_OP = 100, 200, 300


# --- windows ---------------------------------------------------------------------------------------------------------


@device
def start_slot(acc, squares, slot, count):
    """An empty window, of `count` 0 or -1."""
    acc[slot, ACC_COUNT] = count
    acc[slot, ACC_VALUES] = 0
    acc[slot, ACC_SUM] = 0
    acc[slot, ACC_MAX] = VALUE_UNKNOWN
    acc[slot, ACC_MIN] = MAX_VALUE
    acc[slot, ACC_NEWEST_US] = NEVER_US
    acc[slot, ACC_OLDEST_US] = NEVER_US
    acc[slot, ACC_BOUNDED] = 0
    squares[slot] = 0.0


@device
def find_edges(pool, times, length, edges, windowed, t_us, positions):
    """
    Where the windows of a kind begin and end in a ring: per edge the number of events that are at least that old.

    No edge waits for another: all step over whole chunks of eight together, and then each looks into the one it is in.
    """
    first, n_edges = windowed[WINDOWED_FIRST_EDGE], windowed[WINDOWED_EDGES]
    for e in range(0, n_edges, 8):
        leave_chunks8(pool, times, length, t_us, edges, first + e, positions, e)
    for e in range(n_edges):
        n = positions[e]
        later = later8(pool, times + n - 8, t_us - edges[first + e])
        # What is before the first event is no event.
        positions[e] = n - ones(later & (0xFF << max(8 - n, 0)))


@device
def mark_set(pool, tags, first, end, mask, want, bits, row, ranks):
    """
    One bit for each event from `first` to `end` that is in a set, and per word of bits how many there are before it.

    Bits and numbers of what is not between them are undefined; numbers are good for differences.
    """
    count = marks = np.int64(0)
    for chunk in range(first >> 3, (end + 7) >> 3):
        marks |= matching8(pool, tags + 8 * chunk, mask, want) << (8 * (chunk & 7))
        if chunk & 7 == 7:
            bits[row, chunk >> 3], bits[ranks, chunk >> 3] = marks, count
            count += ones(marks)
            marks = np.int64(0)
    # Of the last chunk, or of none where the one before filled its word.
    bits[row, (end + 7) >> 6], bits[ranks, (end + 7) >> 6] = marks, count


@device
def mark_none(first, end, bits, row, ranks):
    """The marks of a set that has no event."""
    for word in range(first >> 6, (end >> 6) + 1):
        bits[row, word] = bits[ranks, word] = 0


@device
def rank(bits, row, ranks, position):
    """Number of marks before a position, from where the marks begin."""
    word = position >> 6
    return bits[ranks, word] + ones(bits[row, word] & ((np.int64(1) << (position & 63)) - 1))


@device
def count_slot(slot, positions, bits, n_sets):
    """How many events of its set a window holds."""
    row, first, end = slot[SLOT_SET], positions[slot[SLOT_START]], positions[slot[SLOT_END]]
    return rank(bits, row, n_sets + row, end) - rank(bits, row, n_sets + row, first)


@device
def up_to(n):
    """The lowest `n` bits, 0 < n <= 64."""
    return ((np.int64(1) << (n - 1)) << 1) - 1


@device
def marked(bits, row, word, first, end):
    """One word of marks without those before `first` and from `end` on."""
    one = bits[row, word]
    if word == first >> 6:
        one &= np.int64(-1) << (first & 63)
    if word == (end - 1) >> 6:
        one &= up_to(((end - 1) & 63) + 1)
    return one


@device
def count_marks(bits, row, first, end):
    """Number of marks from `first` to `end`."""
    count = np.int64(0)
    if first < end:
        for word in range(first >> 6, ((end - 1) >> 6) + 1):
            count += ones(marked(bits, row, word, first, end))
    return count


@device
def newest_mark(bits, row, first, end):
    """Position of the last mark; there must be one."""
    word = (end - 1) >> 6
    while marked(bits, row, word, first, end) == 0:
        word -= 1
    return word * 64 + highest_bit(marked(bits, row, word, first, end))


@device
def oldest_mark(bits, row, first, end):
    """Position of the first mark; there must be one."""
    word = first >> 6
    while marked(bits, row, word, first, end) == 0:
        word += 1
    return word * 64 + lowest_bit(marked(bits, row, word, first, end))


@device
def read_from_ring(pool, ring_part, slot, s, positions, bits, n_sets, acc, squares):
    """One window from the marks of its set."""
    count = count_slot(slot, positions, bits, n_sets)
    acc[s, ACC_COUNT] = count
    if count == 0:
        return
    row, first, end = slot[SLOT_SET], positions[slot[SLOT_START]], positions[slot[SLOT_END]]
    events, capacity = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START], pool[ring_part + RING_CAPACITY]
    if slot[SLOT_TIMES]:
        acc[s, ACC_NEWEST_US] = pool[events + newest_mark(bits, row, first, end)]
        acc[s, ACC_OLDEST_US] = pool[events + oldest_mark(bits, row, first, end)]
    if slot[SLOT_COLUMN] >= 0:
        values = events + slot[SLOT_COLUMN] * capacity + first
        first_bit = row * bits.shape[1] * 64 + first
        if slot[SLOT_WHOLE]:
            add_values(pool, values, end - first, bits, first_bit, acc, s * ACC_FIELDS + ACC_VALUES, squares, s)
        else:
            sum_values(pool, values, end - first, bits, first_bit, acc, s * ACC_FIELDS + ACC_VALUES)


@device
def covering_level(kind, last_us, after_us, end_us):
    """The finest level of tiles that still reaches back to the start of a window, else the top one."""
    level, newest_us = 0, max(last_us, end_us)
    while level < kind[KIND_TILE_LEVELS] - 1:
        width_us, n = _TILE_WIDTHS[level], tiles_on_level(kind, level)
        # Most levels are far too short, which a product tells at less than the price of two divisions.
        if newest_us - after_us <= n * width_us and (after_us + 1) // width_us > newest_us // width_us - n:
            break
        level += 1
    return level


@device
def read_tile_run(pool, first, n, tile_us, oldest_epoch, length, slot, s, after_us, end_us, bits, octets, acc, squares):
    """Add to a window a run of tiles that lie side by side, oldest first."""
    epochs = first + oldest_epoch % n
    counts = epochs + slot[SLOT_TILE] * n
    if slot[SLOT_COLUMN] < 0 and not slot[SLOT_TIMES]:
        acc[s, ACC_COUNT] += sum_consecutive(pool, epochs, oldest_epoch, counts, length)
        return
    row = bits.shape[0] - 1  # the one that no set has
    first_bit = row * bits.shape[1] * 64
    for chunk in range((length + 7) >> 3):
        of_epoch = consecutive8(pool, epochs + 8 * chunk, oldest_epoch + 8 * chunk)
        octets[first_bit // 8 + chunk] = of_epoch & ~matching8(pool, counts + 8 * chunk, -1, 0)
    if count_marks(bits, row, 0, length) == 0:
        return
    acc[s, ACC_COUNT] += sum_words(pool, counts, length, bits, first_bit)
    if slot[SLOT_TIMES]:
        newest = oldest_epoch + newest_mark(bits, row, 0, length)
        oldest = oldest_epoch + oldest_mark(bits, row, 0, length)
        acc[s, ACC_NEWEST_US] = max(acc[s, ACC_NEWEST_US], min((newest + 1) * tile_us - 1, end_us))
        if acc[s, ACC_OLDEST_US] == NEVER_US:
            acc[s, ACC_OLDEST_US] = max(oldest * tile_us, after_us + 1)
    if slot[SLOT_COLUMN] >= 0:
        values = counts + TILE_VALUES * n
        add_tiles(pool, values, n, length, bits, first_bit, acc, s * ACC_FIELDS + ACC_VALUES, squares, s)


@device
def read_from_tiles(pool, head, kind, slot, s, after_us, end_us, bits, octets, acc, squares):
    """
    One window from the finest level of tiles that covers it, where the ring no longer does.

    Every tile that overlaps the window counts in full, so a paced attacker is never under-counted.
    """
    level = covering_level(kind, pool[head + HEAD_LAST_US], after_us, end_us)
    first = pool[head + kind[KIND_RING] + RING_TILES]
    for finer in range(level):
        first += tiles_on_level(kind, finer) * kind[KIND_TILE_STRIDE]
    tile_us, n = _TILE_WIDTHS[level], tiles_on_level(kind, level)
    newest = end_us // tile_us
    oldest = max((after_us + 1) // tile_us, newest - n + 1)
    # A level is a circle: its tiles lie in at most two runs, the older one up to the end.
    older = min(newest - oldest + 1, n - oldest % n)
    read_tile_run(
        pool, first, n, tile_us, oldest, older, slot, s, after_us, end_us, bits, octets, acc, squares
    )  # fmt: skip
    if oldest + older <= newest:
        read_tile_run(
            pool, first, n, tile_us, oldest + older, newest - oldest - older + 1, slot, s, after_us, end_us,
            bits, octets, acc, squares,
        )  # fmt: skip
    acc[s, ACC_BOUNDED] = 1


@device
def mark_ring(pool, ring_part, windowed, sets, edges, t_us, positions, bits):
    """Edges of all windows of a kind in a ring, and marks of all its sets between the oldest and the newest of them."""
    n_sets, first_set = windowed[WINDOWED_SETS], windowed[WINDOWED_FIRST_SET]
    times, seen = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START], pool[ring_part + RING_FLAGS]
    tags = times + COLUMN_TAG * pool[ring_part + RING_CAPACITY]
    find_edges(pool, times, pool[ring_part + RING_LENGTH], edges, windowed, t_us, positions)
    oldest, newest = positions[windowed[WINDOWED_EDGES] - 1], positions[0]
    for e in range(n_sets):
        mask, want = sets[first_set + e, SET_MASK], sets[first_set + e, SET_WANT]
        if (seen & want) == want:
            mark_set(pool, tags, oldest, newest, mask, want, bits, e, n_sets + e)
        else:
            mark_none(oldest, newest, bits, e, n_sets + e)


@device
def read_partly(pool, head, kind, windowed, sets, edges, slot, s, t_us, positions, bits, octets, acc, squares):
    """One window of an entity whose ring no longer covers them all."""
    ring_part, first_edge = head + kind[KIND_RING], windowed[WINDOWED_FIRST_EDGE]
    after_us = t_us - edges[first_edge + slot[SLOT_START]]
    start_slot(acc, squares, s, 0)
    if pool[ring_part + RING_FLOOR_US] > after_us:
        # Without tiles this is an event later than the allowed lateness, asking for what has been let go.
        acc[s, ACC_BOUNDED] = 1
    want = sets[windowed[WINDOWED_FIRST_SET] + slot[SLOT_SET], SET_WANT]
    if (pool[ring_part + RING_FLAGS] & want) != want:
        return
    if pool[ring_part + RING_FLOOR_US] > after_us and pool[ring_part + RING_TILES] != 0:
        end_us = t_us - edges[first_edge + slot[SLOT_END]]
        read_from_tiles(pool, head, kind, slot, s, after_us, end_us, bits, octets, acc, squares)
        return
    read_from_ring(pool, ring_part, slot, s, positions, bits, windowed[WINDOWED_SETS], acc, squares)


@device
def read_kind(pool, head, kind, windowed, sets, edges, slots, t_us, positions, bits, octets, acc, squares):
    """All windows of one entity: exact from the ring where it covers them, bounded from tiles where not."""
    ring_part, first_edge = head + kind[KIND_RING], windowed[WINDOWED_FIRST_EDGE]
    floor_us, last_edge = pool[ring_part + RING_FLOOR_US], first_edge + windowed[WINDOWED_EDGES] - 1
    first, end = windowed[WINDOWED_FIRST_SLOT], windowed[WINDOWED_FIRST_SLOT] + windowed[WINDOWED_SLOTS]
    # The second youngest edge is the youngest that a window can begin at: where the ring has let go of it, tiles answer all.
    if floor_us <= t_us - edges[first_edge + 1] or pool[ring_part + RING_TILES] == 0:
        mark_ring(pool, ring_part, windowed, sets, edges, t_us, positions, bits)
    if floor_us > t_us - edges[last_edge]:
        for s in range(first, end):
            read_partly(
                pool, head, kind, windowed, sets, edges, slots[s], s, t_us, positions, bits, octets, acc, squares
            )
        return
    n_sets, valued = windowed[WINDOWED_SETS], first + windowed[WINDOWED_COUNTS]
    for s in range(first, valued):
        acc[s, ACC_COUNT], acc[s, ACC_BOUNDED] = count_slot(slots[s], positions, bits, n_sets), 0
    for s in range(valued, end):
        start_slot(acc, squares, s, 0)
        read_from_ring(pool, ring_part, slots[s], s, positions, bits, n_sets, acc, squares)


@device
def read_windows(
    pool, kinds, windowed, sets, edges, slots, keys, t_us, positions, bits, octets, acc, squares
):  # fmt: skip
    """Every window of every entity that is named."""
    for w in range(windowed.shape[0]):
        one = windowed[w]
        k = one[WINDOWED_KIND]
        if keys[k, 1] != 0:
            read_kind(pool, keys[k, 1], kinds[k], one, sets, edges, slots, t_us, positions, bits, octets, acc, squares)
            keys[k, KEY_BLANK] = 0
            continue
        # Of an entity that is new (1) or absent (2) the slots may still be as they were left for the last one.
        blank = 1 if keys[k, 0] != 0 else 2
        if keys[k, KEY_BLANK] != blank:
            for s in range(one[WINDOWED_FIRST_SLOT], one[WINDOWED_FIRST_SLOT] + one[WINDOWED_SLOTS]):
                start_slot(acc, squares, s, 1 - blank)
        keys[k, KEY_BLANK] = blank


# --- one feature each ------------------------------------------------------------------------------------------------


@device
def deviation(count, total, sum_squares):
    """Sample standard deviation (n - 1) from count, sum and sum of squares; NaN below two values."""
    if count < 2:
        return np.nan
    centred = sum_squares - np.float64(total) * np.float64(total) / count
    return np.sqrt(max(centred, 0.0) / (count - 1))


@device
def window_feature(code, op, param, acc, squares, own, own_joins, t_us):
    """
    A window aggregate from its slot; `own` is the current value, `own_joins` whether it counts too.
    """
    slot = op[OP_SLOT]
    count = acc[slot, ACC_COUNT]
    if count < 0:
        return np.nan
    empty, scale = param[PARAM_EMPTY], param[PARAM_SCALE]
    if code == _COUNT:
        return np.float64(count + own_joins)
    if code == _RATE:
        among = acc[op[OP_OTHER], ACC_COUNT]
        return np.float64(count) / np.float64(among) if among > 0 else empty
    if code == _NEWEST or code == _OLDEST:
        if own_joins and (code == _NEWEST or count == 0):
            return 0.0
        if count == 0:
            return empty
        return (t_us - acc[slot, ACC_NEWEST_US if code == _NEWEST else ACC_OLDEST_US]) / 1e6
    values, total, sum_squares = acc[slot, ACC_VALUES], acc[slot, ACC_SUM], squares[slot]
    largest, smallest = acc[slot, ACC_MAX], acc[slot, ACC_MIN]
    known = own != VALUE_UNKNOWN
    if own_joins and known:
        values += 1
        total += own
        sum_squares += np.float64(own) * np.float64(own)
        largest, smallest = max(largest, own), min(smallest, own)
    if code == _SUM:
        return np.float64(total) / scale
    if values == 0:
        return empty
    if code == _MEAN:
        return np.float64(total) / np.float64(values) / scale
    if code == _MAX:
        return np.float64(largest) / scale
    if code == _MIN:
        return np.float64(smallest) / scale
    if code == _STD:
        spread = deviation(values, total, sum_squares)
        return empty if np.isnan(spread) else spread / scale
    if not known:
        return np.nan
    return comparison(code, empty, np.float64(own), values, total, sum_squares, largest)


@device
def comparison(code, empty, own, values, total, sum_squares, largest):
    """The current value against those before it."""
    mean = np.float64(total) / np.float64(values)
    if code == _ZSCORE:
        spread = deviation(values, total, sum_squares)
        return empty if np.isnan(spread) else (own - mean) / max(spread, LEAST_DEVIATION)
    if code == _TO_MEAN:
        return own / mean if mean != 0.0 else empty
    if code == _TO_MAX:
        return own / np.float64(largest) if largest != 0 else empty
    whole = np.float64(total) + own  # share of the window's total
    return own / whole if whole != 0.0 else empty


@device
def distance_km(x_1, y_1, z_1, x_2, y_2, z_2):
    """Great-circle distance of two points of the unit sphere, from the chord between them; exact for near ones too."""
    x, y, z = x_1 - x_2, y_1 - y_2, z_1 - z_2
    half = np.sqrt(x * x + y * y + z * z) / 2.0
    # Not min(1.0, half): that is 1 for NaN, and a missing position would be at the antipode.
    return 2.0 * EARTH_RADIUS_KM * np.arcsin(1.0 if half > 1.0 else half)


@device
def distinct_count(pool, part, after_us, own_key, counts_own):
    """Keys last seen after a time, exact or sketched; `own_key` is added when it counts and was not among them."""
    chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    if capacity == SKETCHED:
        return sketch_count(pool, chunk, after_us)
    n, count, own_seen = pool[part + DISTINCT_LENGTH], np.int64(0), np.int64(0)
    for k in range(0, n, 8):
        live = later8(pool, chunk + capacity + k, after_us) & first_lanes(n - k)
        count += ones(live)
        own_seen |= live & matching8(pool, chunk + k, -1, own_key)
    if counts_own and own_key != 0 and own_seen == 0:
        count += 1
    return np.float64(count)


@device
def sketch_count(pool, chunk, after_us):
    """HyperLogLog estimate over the registers hit after a time, with linear counting below 2.5 m (Flajolet et al. 2007)."""
    m = np.float64(SKETCH_REGISTERS)
    harmonic, untouched = 0.0, 0
    for register in range(SKETCH_REGISTERS):
        rank = SKETCH_RANKS - 1
        word = chunk + register * SKETCH_RANKS
        while rank >= 0 and pool[word + rank] <= after_us:
            rank -= 1
        harmonic += 2.0 ** -np.float64(rank + 1)
        untouched += rank < 0
    estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / harmonic
    if estimate <= 2.5 * m and untouched > 0:
        estimate = m * np.log(m / untouched)
    return estimate


@device
def place_feature(code, param, pool, poolf, word, own, t_us):
    """Distance, speed and travel from what is remembered of an entity's places."""
    x, y, z = own[OWN_X], own[OWN_X + 1], own[OWN_X + 2]
    last = word + PLACE_X
    if np.isnan(x) or np.isnan(poolf[last]):
        return param[PARAM_EMPTY]
    if code == _DISTANCE_CENTRE:
        centre = word + PLACE_CENTRE_X
        x_2, y_2, z_2 = poolf[centre], poolf[centre + 1], poolf[centre + 2]
        length = np.sqrt(x_2 * x_2 + y_2 * y_2 + z_2 * z_2)
        if length == 0.0:  # as often here as on the other side of the world: there is no centre
            return param[PARAM_EMPTY]
        return distance_km(x, y, z, x_2 / length, y_2 / length, z_2 / length)
    km = distance_km(x, y, z, poolf[last], poolf[last + 1], poolf[last + 2])
    if code == _DISTANCE_LAST:
        return km
    kmh = km / max(np.float64(abs(t_us - pool[word + PLACE_LAST_US])) / 1e6, LEAST_TRAVEL_S) * 3600.0
    if code == _SPEED:
        return kmh
    return np.float64(kmh > param[PARAM_BOUND] and km > IMPOSSIBLE_TRAVEL_KM)


@device
def hours_feature(code, empty, poolf, word, own):
    """Hours from the usual time of day, or how concentrated it is (mean resultant length, 0 to 1)."""
    weight = poolf[word + 2]
    if weight <= 0.0:
        return empty
    sine, cosine = poolf[word], poolf[word + 1]
    if code == _HOUR_CONCENTRATION:
        return np.sqrt(sine * sine + cosine * cosine) / weight
    own_sine, own_cosine = own[OWN_CLOCK_SINE], own[OWN_CLOCK_COSINE]
    turn = np.arctan2(own_sine * cosine - own_cosine * sine, own_cosine * cosine + own_sine * sine)
    return abs(turn) * (12.0 / np.pi)


@device
def entity_feature(code, op, param, pool, poolf, kind, key, head, ints, i, own):
    """What is remembered of one entity outside windows."""
    empty, t_us = param[PARAM_EMPTY], ints[i, EVENT_TIME_US]
    if key == 0:
        return np.nan
    if head == 0:
        if code == _IS_NEW:
            return 1.0
        if code == _DISTINCT:
            return np.float64(op[OP_CURRENT] == 1 and ints[i, op[OP_OTHER]] != 0)
        if code == _EVER or code == _DECAYED_COUNT or code == _DECAYED_SUM:
            return 0.0
        return empty
    if code == _SINCE_LAST:
        return np.float64(max(t_us - pool[head + HEAD_LAST_US], 0)) / 1e6
    if code == _SINCE_FIRST:
        return np.float64(max(t_us - pool[head + HEAD_FIRST_US], 0)) / 1e6
    if code == _IS_NEW:
        return 0.0
    if code == _EVER:
        return np.float64(pool[head + HEAD_COUNT])
    if code == _DISTINCT:
        part = head + kind[KIND_DISTINCT] + op[OP_SLOT] * DISTINCT_WORDS
        key = ints[i, op[OP_OTHER]]
        return distinct_count(pool, part, t_us - op[OP_WINDOW_US], key, op[OP_CURRENT] == 1)
    if code == _DECAYED_COUNT or code == _DECAYED_SUM:
        word = head + kind[KIND_DECAYED] + op[OP_SLOT] * DECAYED_WORDS
        return poolf[word] * decay_factor(t_us - pool[word + 1], op[OP_WINDOW_US]) / param[PARAM_SCALE]
    if code == _HOUR_DEVIATION or code == _HOUR_CONCENTRATION:
        return hours_feature(code, empty, poolf, head + kind[KIND_HOURS], own)
    return place_feature(code, param, pool, poolf, head + kind[KIND_PLACE], own, t_us)


@device
def month_day(t_us):
    """Day of the month, 1 to 31 (Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days)."""
    z = t_us // DAY_US + 719_468
    day_of_era = z % 146_097
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * day_of_year + 2) // 153
    return day_of_year - (153 * month + 2) // 5 + 1


@device
def calendar_feature(code, bound, t_us, own):
    """Time of day, of week and of month, UTC."""
    if code == _HOUR_SIN:
        return own[OWN_CLOCK_SINE]
    if code == _HOUR_COS:
        return own[OWN_CLOCK_COSINE]
    weekday = (t_us // DAY_US + 3) % 7  # Monday is 0; 1 January 1970 was a Thursday
    if code == _WEEKDAY_SIN:
        return np.sin(weekday * (2.0 * np.pi / 7.0))
    if code == _WEEKDAY_COS:
        return np.cos(weekday * (2.0 * np.pi / 7.0))
    if code == _WEEKEND:
        return np.float64(weekday >= 5)
    if code == _NIGHT:
        return np.float64((t_us % DAY_US) / 3.6e9 < bound)
    return np.float64(month_day(t_us))


@device
def amount_feature(code, param, amount, limits):
    """Round amounts, and amounts just under a limit."""
    if np.isnan(amount):
        return np.nan
    if code == _ROUND:
        return np.float64(amount > 0.0 and amount % param[PARAM_BOUND] == 0.0)
    for j in range(limits.shape[0]):
        if amount < limits[j]:
            return np.float64((limits[j] - amount) <= param[PARAM_BOUND] * limits[j])
    return 0.0


@device
def transaction_feature(code, op, param, ints, numbers, i, limits, own):
    """What the transaction says of itself."""
    source = op[OP_SOURCE]
    if code == _DIFFERS:
        one, other = ints[i, op[OP_SLOT]], ints[i, op[OP_OTHER]]
        return np.nan if one == 0 or other == 0 else np.float64(one != other)
    if code == _KNOWN_IDENTIFIER:
        return np.float64(ints[i, op[OP_SLOT]] != 0)
    if code == _DISTANCE:
        home = OWN_HOME_X
        return distance_km(own[OWN_X], own[OWN_X + 1], own[OWN_X + 2], own[home], own[home + 1], own[home + 2])
    if _HOUR_SIN <= code <= _DAY_OF_MONTH:
        return calendar_feature(code, param[PARAM_BOUND], ints[i, EVENT_TIME_US], own)
    amount = np.nan
    if ints[i, AMOUNT_MINOR] != AMOUNT_UNKNOWN:
        amount = np.float64(ints[i, AMOUNT_MINOR]) / param[PARAM_SCALE]
    if code == _ROUND or code == _BELOW_LIMIT:
        return amount_feature(code, param, amount, limits)
    value = amount if source < 0 else numbers[i, source]
    if code == _LOG:
        return np.log1p(max(value, 0.0)) if not np.isnan(value) else np.nan
    if code == _KNOWN:
        return np.float64(not np.isnan(value))
    return value


@device
def derived_feature(op, param, row):
    """Ratio or difference of two earlier features, in float64."""
    one, other = np.float64(row[op[OP_SLOT]]), np.float64(row[op[OP_OTHER]])
    if op[OP_CODE] == _DIFFERENCE:
        return one - other
    if np.isnan(one) or np.isnan(other):
        return np.nan
    if other == 0.0 or abs(one / other) > FLOAT32_MAX:  # over next to nothing: as good as over nothing
        return param[PARAM_EMPTY]
    return one / other


@device
def joins(op, flags):
    """1 when the current event counts too, else 0."""
    return np.int64(op[OP_CURRENT] == 1 and (flags & op[OP_MASK]) == op[OP_WANT])


@device
def write_counts(first, end, ops, flags, acc, row):
    """A run of counts: a fifth of all features."""
    for f in range(first, end):
        op = ops[f]
        count = acc[op[OP_SLOT], ACC_COUNT]
        row[op[OP_COLUMN]] = np.float32(count + joins(op, flags)) if count >= 0 else np.float32(np.nan)


@device
def write_windows(code, first, end, ops, params, ints, numbers, i, flags, acc, squares, row):
    """A run of another aggregate over windows."""
    for f in range(first, end):
        op = ops[f]
        own = source_value(ints, numbers, i, op[OP_SOURCE]) if op[OP_SOURCE] >= -1 else np.int64(0)
        value = window_feature(code, op, params[f], acc, squares, own, joins(op, flags), ints[i, EVENT_TIME_US])
        row[op[OP_COLUMN]] = np.float32(value)


@device
def write_run(
    code, first, end, ints, numbers, i, flags, keys, pool, poolf, kinds, ops, params, limits, acc, squares, own, row
):  # fmt: skip
    """Features of one code, side by side."""
    if code == _COUNT:
        write_counts(first, end, ops, flags, acc, row)
    elif code < FIRST_ENTITY_OP:
        write_windows(code, first, end, ops, params, ints, numbers, i, flags, acc, squares, row)
    elif code < _FIRST_TRANSACTION_OP:
        for f in range(first, end):
            op, k = ops[f], ops[f, OP_KIND]
            key, head = keys[k, KEY], keys[k, KEY_HEAD]
            value = entity_feature(code, op, params[f], pool, poolf, kinds[k], key, head, ints, i, own)
            row[op[OP_COLUMN]] = np.float32(value)
    elif code < _FIRST_DERIVED_OP:
        for f in range(first, end):
            value = transaction_feature(code, ops[f], params[f], ints, numbers, i, limits, own)
            row[ops[f, OP_COLUMN]] = np.float32(value)
    else:
        for f in range(first, end):
            row[ops[f, OP_COLUMN]] = np.float32(derived_feature(ops[f], params[f], row))


@device
def write_row(
    ints, numbers, i, flags, keys, pool, poolf, kinds, ops, params, runs, limits, acc, squares, own, row
):  # fmt: skip
    """Every feature, run by run; derived ones come last and read the columns before them."""
    for r in range(runs.shape[0]):
        write_run(
            runs[r, RUN_CODE], runs[r, RUN_FIRST], runs[r, RUN_END],
            ints, numbers, i, flags, keys, pool, poolf, kinds, ops, params, limits, acc, squares, own, row,
        )  # fmt: skip


# --- one transaction -------------------------------------------------------------------------------------------------


@device
def flags_with_filters(ints, numbers, i, filters, filter_ranges):
    """The encoder's flags and one bit per declared filter that the transaction passes."""
    flags = ints[i, FLAGS]
    for r in range(filters.shape[0]):
        source = filters[r, 1]
        value = np.float64(ints[i, AMOUNT_MINOR]) / filter_ranges[r, 2] if source < 0 else numbers[i, source]
        if source < 0 and ints[i, AMOUNT_MINOR] == AMOUNT_UNKNOWN:
            continue
        if filter_ranges[r, 0] <= value <= filter_ranges[r, 1]:
            flags |= filters[r, 0]
    return flags


@device
def foresee_writing(pool, meta, journal, row):
    """Ask for the next rows of the journal, and for words of the pool that no chunk has had yet."""
    first = (row + AHEAD_WRITING) * journal.shape[1]
    for word in range(first, first + journal.shape[1], WORDS_PER_LINE):
        prefetch(journal, word)
    fresh = meta[META_BUMP] + AHEAD_FRESH_WORDS
    for word in range(fresh, fresh + FRESH_WORDS, WORDS_PER_LINE):
        prefetch(pool, word)


@device
def remember_everywhere(
    ints, numbers, i, flags, keys, pool, poolf, table, meta, journal, index, changed,
    kinds, columns, measures, distincts, decayeds, own,
):  # fmt: skip
    """The event joins each entity it names, and the journal."""
    row = meta[META_JOURNAL_NEXT] % journal.shape[0]
    if meta[META_JOURNAL_NEXT] >= journal.shape[0]:
        journal_remove(journal, index, row)
    meta[META_JOURNAL_NEXT] += 1
    foresee_writing(pool, meta, journal, row)
    journal[row, :] = 0
    journal[row, JOURNAL_KEY] = ints[i, TRANSACTION_KEY]
    journal[row, JOURNAL_TIME_US] = ints[i, EVENT_TIME_US]
    journal[row, JOURNAL_AMOUNT_MINOR] = ints[i, AMOUNT_MINOR]
    journal[row, JOURNAL_FLAGS] = flags
    journal_insert(journal, index, row)
    for k in range(kinds.shape[0]):
        if keys[k, 0] == 0:
            continue
        # `keys` keeps what was known before, for provenance.
        head = keys[k, 1]
        if head == 0:
            head = create(pool, poolf, table, meta, kinds[k], k, keys[k, 0])
        remember(
            pool, poolf, meta, head, kinds[k], columns, measures, distincts, decayeds,
            ints, numbers, i, flags, own,
        )  # fmt: skip
        if pool[head + HEAD_BORN] < 0:
            remember_as_own(
                pool, poolf, meta, head, kinds[k], columns, measures, distincts, decayeds,
                ints, numbers, i, flags, own,
            )  # fmt: skip
        mark_changed(changed, keys[k, 0])
        if kinds[k, KIND_JOURNAL] != 0:
            journal[row, kinds[k, KIND_JOURNAL]] = keys[k, 0]
    meta[META_EVENTS] += 1
    return row


@device
def make_room_for_entities(pool, table, meta, kinds, keys):
    """Forget the least recently used until the new entities of this transaction fit; never one that it names."""
    new = 0
    for k in range(kinds.shape[0]):
        if keys[k, 0] == 0:
            continue
        if keys[k, 1] == 0:
            new += 1
        else:
            unlink(pool, meta, keys[k, 1])
            link_newest(pool, meta, keys[k, 1])
    while meta[META_ENTITIES] + new > meta[META_MAX_ENTITIES]:
        evict_oldest(pool, table, meta, kinds)


@device
def amend_journalled(
    row, set_bits, clear_bits, amount, pool, poolf, table, meta, journal, changed, kinds, columns, measures
):  # fmt: skip
    """Change flags and amount of a remembered transaction, in the journal and in every entity that still has it."""
    old_flags, old_amount = journal[row, JOURNAL_FLAGS], journal[row, JOURNAL_AMOUNT_MINOR]
    new_flags = (old_flags | set_bits) & ~clear_bits
    time_us, tag = journal[row, JOURNAL_TIME_US], journal[row, JOURNAL_KEY] & ~FLAG_BITS
    newest = meta[META_JOURNAL_NEXT] - 1
    arrival = newest - (newest - row) % journal.shape[0]
    for k in range(kinds.shape[0]):
        if kinds[k, KIND_JOURNAL] == 0 or journal[row, kinds[k, KIND_JOURNAL]] == 0:
            continue
        head = find(table, journal[row, kinds[k, KIND_JOURNAL]])
        if head == 0 or arrival < pool[head + HEAD_BORN]:
            # Forgotten since, or forgotten and back: what is there now never saw this event.
            continue
        amend_everywhere(
            pool, poolf, head, kinds[k], columns, measures, time_us, tag, old_flags, old_amount, new_flags, amount
        )  # fmt: skip
        if pool[head + HEAD_BORN] < OTHERS_ONLY:
            amend_everywhere(
                pool, poolf, -pool[head + HEAD_BORN], kinds[k], columns, measures, time_us, tag,
                old_flags, old_amount, new_flags, amount,
            )  # fmt: skip
        mark_changed(changed, pool[head + HEAD_KEY])
    journal[row, JOURNAL_FLAGS] = new_flags
    journal[row, JOURNAL_AMOUNT_MINOR] = amount


@device
def apply_lifecycle(ints, i, pool, poolf, table, meta, journal, index, changed, kinds, columns, measures):
    """
    A reversal undoes its original (in part: takes its amount down); a chargeback labels it as fraud.

    Of a transaction that the journal has forgotten nothing can be undone; that is counted.
    """
    row = journal_find(journal, index, ints[i, ORIGINAL_KEY])
    if row < 0:
        meta[META_REVERSALS_UNKNOWN] += 1
        return
    amount = journal[row, JOURNAL_AMOUNT_MINOR]
    if ints[i, FLAGS] & CHARGEBACK:
        meta[META_LABELS] += 1
        amend_journalled(
            row, FRAUD, GENUINE, amount, pool, poolf, table, meta, journal, changed, kinds, columns, measures
        )  # fmt: skip
        return
    back = ints[i, AMOUNT_MINOR]
    if back == AMOUNT_UNKNOWN and amount != AMOUNT_UNKNOWN:
        # How much went back cannot be said: to undo it all would let a cent in a foreign currency wipe out a velocity.
        meta[META_REVERSALS_UNKNOWN] += 1
        return
    in_full = amount == AMOUNT_UNKNOWN or back >= amount
    amend_journalled(
        row, REVERSED if in_full else 0, 0, amount if in_full else amount - back,
        pool, poolf, table, meta, journal, changed, kinds, columns, measures,
    )  # fmt: skip


@device
def was_seen_elsewhere(ints, i, keys, pool, kinds):
    """
    Whether another process, or we before a restart, remember this transaction: it is among the events of the first entity
    that has some.  One that was met here first has none of those.
    """
    for k in range(kinds.shape[0]):
        if kinds[k, KIND_RING] == 0 or keys[k, 0] == 0:
            continue
        head = keys[k, 1]
        if head == 0 or pool[head + HEAD_BORN] > 0 or pool[head + kinds[k, KIND_RING] + RING_CHUNK] == 0:
            return False
        tag = ints[i, TRANSACTION_KEY] & ~FLAG_BITS
        return ring_find(pool, head, kinds[k], ints[i, EVENT_TIME_US], tag) >= 0
    return False


@device
def has_room(context, meta):
    """Whether whatever one more event can claim surely fits the pool."""
    return meta[META_BUMP] <= context[BUMP_MAX]


@device
def foresee_input(ints, numbers, i):
    """
    Ask for an encoded transaction, which need not be there.

    Rows lie one after another, and still processors do not come to ask for them by themselves among all else that is read.
    """
    for word in range(0, ints.shape[1], WORDS_PER_LINE):
        prefetch(ints, i * ints.shape[1] + word)
    for word in range(0, numbers.shape[1], WORDS_PER_LINE):
        prefetch(numbers, i * numbers.shape[1] + word)


@device
def observe_at(context, ints, numbers, i, record, row):
    """
    Read, then (when `record`) remember, one encoded transaction; for kernels to inline.

    Parameters
    ----------
    context : int64[WORDS]
        Where everything is (`fraudsdk.features.context`).
    ints, numbers : int64[n, n_ints], float64[n, n_numbers]
        Encoded transactions (`fraudsdk.domain.fields`).
    i : int64
        The row of them that is meant.
    record : bool
    row : float32[n_features]
        Written, unless the status says that there is no row.

    Returns
    -------
    status : int64
        `SCORED`, `DUPLICATE`, `LIFECYCLE` or `NEEDS_ROOM`.
    journal_row : int64
        Where the transaction is in the journal, -1 = nowhere.
    """
    ints, numbers, row = unmeasured(ints), unmeasured(numbers), unmeasured(row)
    keys, acc, squares = int_rows_of(context, KEYS), int_rows_of(context, ACC), floats_of(context, SQUARES)
    pool, poolf, meta = ints_of(context, POOL), floats_of(context, POOL), ints_of(context, META)
    table, journal, index = (
        measured_rows_of(context, TABLE),
        measured_rows_of(context, JOURNAL),
        measured_ints_of(context, JOURNAL_INDEX),
    )
    kinds, columns, measures = (
        measured_rows_of(context, KINDS),
        ints_of(context, COLUMNS),
        int_rows_of(context, MEASURES),
    )
    distincts, decayeds = int_rows_of(context, DISTINCTS), int_rows_of(context, DECAYEDS)
    windowed, sets, slots = measured_rows_of(context, WINDOWED), int_rows_of(context, SETS), int_rows_of(context, SLOTS)
    edges, positions, places = ints_of(context, EDGES), ints_of(context, POSITIONS), ints_of(context, PLACES)
    bits, octets = measured_rows_of(context, BITS), bytes_of(context, BITS)
    own, runs = floats_of(context, OWN), measured_rows_of(context, RUNS)
    ops, params, limits = int_rows_of(context, OPS), float_rows_of(context, PARAMS), measured_floats_of(context, LIMITS)
    filters, filter_ranges = measured_rows_of(context, FILTERS), float_rows_of(context, FILTER_RANGES)
    changed = ints_of(context, CHANGED)
    foresee_input(ints, numbers, i + AHEAD_INPUT)
    known_row = journal_find(journal, index, ints[i, TRANSACTION_KEY])
    if known_row >= 0 and record:
        meta[META_DUPLICATES] += 1
        return np.int64(DUPLICATE), known_row
    if ints[i, FLAGS] & (REVERSAL | CHARGEBACK):
        if record:
            if not has_room(context, meta):
                return np.int64(NEEDS_ROOM), np.int64(-1)
            apply_lifecycle(ints, i, pool, poolf, table, meta, journal, index, changed, kinds, columns, measures)
            for k in range(kinds.shape[0]):
                keys[k, 0] = 0
            known_row = remember_everywhere(
                ints, numbers, i, ints[i, FLAGS], keys, pool, poolf, table, meta, journal, index, changed,
                kinds, columns, measures, distincts, decayeds, own,
            )  # fmt: skip
        return np.int64(LIFECYCLE), known_row
    if record and not has_room(context, meta):
        return np.int64(NEEDS_ROOM), np.int64(-1)
    flags = flags_with_filters(ints, numbers, i, filters, filter_ranges)
    for k in range(kinds.shape[0]):
        keys[k, 0] = entity_key(ints, i, kinds[k])
        keys[k, 1] = find(table, keys[k, 0]) if keys[k, 0] != 0 else 0
        keys[k, 2] = pool[keys[k, 1] + HEAD_LAST_US] if keys[k, 1] != 0 else NEVER_US
    counts_once = changed[CHANGED_CAPACITY] != 0 and (record or changed[CHANGED_ELSEWHERE] != 0)
    if counts_once and was_seen_elsewhere(ints, i, keys, pool, kinds):
        meta[META_DUPLICATES] += 1
        return np.int64(DUPLICATE), np.int64(-1)
    read_windows(
        pool, kinds, windowed, sets, edges, slots, keys, ints[i, EVENT_TIME_US], positions, bits, octets, acc, squares
    )  # fmt: skip
    say_when_and_where(ints[i, EVENT_TIME_US], numbers, i, places, own)
    write_row(ints, numbers, i, flags, keys, pool, poolf, kinds, ops, params, runs, limits, acc, squares, own, row)
    if not record:
        return np.int64(SCORED), known_row
    make_room_for_entities(pool, table, meta, kinds, keys)
    journal_row = remember_everywhere(
        ints, numbers, i, flags, keys, pool, poolf, table, meta, journal, index, changed,
        kinds, columns, measures, distincts, decayeds, own,
    )  # fmt: skip
    return np.int64(SCORED), np.int64(journal_row)


# --- asking memory ahead ---------------------------------------------------------------------------------------------
#
# A row reads some sixty cache lines of a memory that no cache holds.  One after another they would take longer than all
# the arithmetic; asked for some rows ahead they come side by side.  Nothing here changes what is computed: whatever was
# foreseen is looked up again, and an entity that has been forgotten meanwhile costs a fetch in vain.


@device
def foresee_keys(ints, i, kinds, table, index, ahead):
    """Ask for the table slots of the entities that transaction `i` names, and for its slot in the journal's index."""
    for k in range(kinds.shape[0]):
        key = entity_key(ints, i, kinds[k])
        ahead[i & (AHEAD_ROWS - 1), k] = key
        if key != 0:
            prefetch(table, 2 * (key & (table.shape[0] - 1)))
    prefetch(index, ints[i, TRANSACTION_KEY] & (index.shape[0] - 1))


@device
def foresee_heads(i, kinds, table, pool, ahead):
    """Ask for the heads of the entities, which the table now tells."""
    n_kinds, row = kinds.shape[0], i & (AHEAD_ROWS - 1)
    for k in range(n_kinds):
        head = find(table, ahead[row, k]) if ahead[row, k] != 0 else np.int64(0)
        ahead[row, n_kinds + k] = head
        if head != 0:
            for word in range(0, kinds[k, KIND_HEAD_WORDS], WORDS_PER_LINE):
                prefetch(pool, head + word)


@device
def foresee_events(i, kinds, pool, ahead):
    """Ask for the newest events and the distinct keys of the entities, which their heads now tell."""
    n_kinds, row = kinds.shape[0], i & (AHEAD_ROWS - 1)
    for k in range(n_kinds):
        head = ahead[row, n_kinds + k]
        if head == 0:
            continue
        # Its neighbours by use, which are written to when it becomes the newest.
        prefetch(pool, pool[head + HEAD_NEWER])
        prefetch(pool, pool[head + HEAD_OLDER])
        if kinds[k, KIND_RING] != 0:
            foresee_ring(pool, head + kinds[k, KIND_RING], kinds[k, KIND_RING_COLUMNS])
        for d in range(kinds[k, KIND_DISTINCTS]):
            part = head + kinds[k, KIND_DISTINCT] + d * DISTINCT_WORDS
            chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
            if chunk != 0 and capacity != SKETCHED:
                prefetch(pool, chunk)
                prefetch(pool, chunk + capacity)


@device
def foresee_ring(pool, ring_part, columns):
    """Ask for the newest events of a ring."""
    capacity = pool[ring_part + RING_CAPACITY]
    end = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START] + pool[ring_part + RING_LENGTH]
    n = min(pool[ring_part + RING_LENGTH], AHEAD_RING_EVENTS)
    for column in range(columns):
        for word in range(end - n, end + 1, WORDS_PER_LINE):
            prefetch(pool, column * capacity + word)


@device
def foresee_find(pool, head, kind, time_us):
    """Ask for the events around the one that a label is about, where the guess is."""
    ring_part = head + kind[KIND_RING]
    guess = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START] + ring_guess(pool, head, kind, time_us)
    for column in range(FIRST_VALUE):
        at = guess + column * pool[ring_part + RING_CAPACITY]
        prefetch(pool, at - WORDS_PER_LINE // 2)
        prefetch(pool, at + WORDS_PER_LINE // 2)


@device
def foresee_label(context, ints, label_rows, label):
    """Ask, for the labels after this one, for each step that `deliver` will take."""
    kinds, ahead = measured_rows_of(context, KINDS), int_rows_of(context, AHEAD_LABELS)
    table, journal, index = (
        measured_rows_of(context, TABLE),
        measured_rows_of(context, JOURNAL),
        measured_ints_of(context, JOURNAL_INDEX),
    )
    pool, n = ints_of(context, POOL), label_rows.shape[0]
    if label + AHEAD_JOURNAL_INDEX < n:
        key = ints[label_rows[label + AHEAD_JOURNAL_INDEX], TRANSACTION_KEY]
        prefetch(index, key & (index.shape[0] - 1))
    if label + AHEAD_JOURNAL < n:
        row = journal_find(journal, index, ints[label_rows[label + AHEAD_JOURNAL], TRANSACTION_KEY])
        if row >= 0:
            prefetch(journal, row * journal.shape[1])
            prefetch(journal, row * journal.shape[1] + WORDS_PER_LINE)
    if label + AHEAD_LABEL_KEYS < n:
        row = journal_find(journal, index, ints[label_rows[label + AHEAD_LABEL_KEYS], TRANSACTION_KEY])
        for k in range(kinds.shape[0]):
            if row >= 0 and kinds[k, KIND_JOURNAL] != 0:
                prefetch(table, 2 * (journal[row, kinds[k, KIND_JOURNAL]] & (table.shape[0] - 1)))
    if label + AHEAD_LABEL_HEADS < n:
        row = journal_find(journal, index, ints[label_rows[label + AHEAD_LABEL_HEADS], TRANSACTION_KEY])
        for k in range(kinds.shape[0]):
            key = journal[row, kinds[k, KIND_JOURNAL]] if row >= 0 and kinds[k, KIND_JOURNAL] != 0 else np.int64(0)
            head = find(table, key) if key != 0 else np.int64(0)
            ahead[(label + AHEAD_LABEL_HEADS) & (AHEAD_ROWS - 1), k] = head
            if head != 0:
                prefetch(pool, head)
                prefetch(pool, head + kinds[k, KIND_RING] + RING_WORDS - 1)
    if label + AHEAD_LABEL_EVENTS >= n:
        return
    for k in range(kinds.shape[0]):
        head = ahead[(label + AHEAD_LABEL_EVENTS) & (AHEAD_ROWS - 1), k]
        if head != 0:
            foresee_find(pool, head, kinds[k], ints[label_rows[label + AHEAD_LABEL_EVENTS], EVENT_TIME_US])


@device
def foresee_now(context, ints):
    """The same for one transaction that nobody announced: at least its entities are asked for side by side."""
    kinds, ahead, pool = measured_rows_of(context, KINDS), int_rows_of(context, AHEAD), ints_of(context, POOL)
    table, index = measured_rows_of(context, TABLE), measured_ints_of(context, JOURNAL_INDEX)
    foresee_keys(ints, 0, kinds, table, index, ahead)
    foresee_heads(0, kinds, table, pool, ahead)
    foresee_events(0, kinds, pool, ahead)


@device
def foresee_row(context, ints, i):
    """Ask, for the transactions after this one, for each step that `observe_at` will take."""
    kinds, ahead, pool = measured_rows_of(context, KINDS), int_rows_of(context, AHEAD), ints_of(context, POOL)
    table, index = measured_rows_of(context, TABLE), measured_ints_of(context, JOURNAL_INDEX)
    if i + AHEAD_KEYS < ints.shape[0]:
        foresee_keys(ints, i + AHEAD_KEYS, kinds, table, index, ahead)
    if i + AHEAD_HEADS < ints.shape[0]:
        foresee_heads(i + AHEAD_HEADS, kinds, table, pool, ahead)
    if i + AHEAD_EVENTS < ints.shape[0]:
        foresee_events(i + AHEAD_EVENTS, kinds, pool, ahead)


@kernel("UniTuple(int64, 2)(int64[::1], int64)", nogil=False)
def score_one(context, record):
    """
    Read and (when `record` is 1) remember the transaction that the context points at.

    Afterwards the scratch of the context holds (key, head, last seen) per kind and what each window saw.

    Returns
    -------
    (status, journal_row)
        As `observe_at`.
    """
    context = borrowed(context)
    ints, numbers = int_rows_of(context, INTS), float_rows_of(context, NUMBERS)
    foresee_now(context, ints)
    return observe_at(context, ints, numbers, 0, record == 1, row_of(context, ROW))


@kernel(
    "UniTuple(int64, 2)(int64[::1], int64[:, ::1], float64[:, ::1], int64[::1], int8[::1], int64[::1], int8[::1], "
    "int64, int64, int64, float32[:, ::1])"
)
def replay(
    context, ints, numbers, label_rows, label_values, label_times_us, statuses, first_row, next_row, next_label, rows
):  # fmt: skip
    """
    Observe many transactions in order, delivering each label at the time it would have been known.

    A label known at or before an event's time is delivered before that event is read.

    Parameters
    ----------
    context : int64[WORDS]
    ints, numbers : int64[n, n_ints], float64[n, n_numbers]
        In arrival order.
    label_rows, label_values, label_times_us : int64[m], int8[m], int64[m]
        Row that each label is about, 1 = fraud or 0 = genuine, and when it is known; by time.
    statuses : int8[n - first_row]
        Written: `SCORED`, `DUPLICATE` or `LIFECYCLE` per row.
    first_row : int64
        The transaction that `statuses` and `rows` begin with.
    next_row, next_label : int64
        Where to go on.
    rows : float32[n - first_row, n_features]
        Written where the status is `SCORED`; left alone elsewhere.

    Returns
    -------
    (next_row, next_label)
        Short of the end only when the memory must grow first.
    """
    context, ints, numbers, rows = borrowed(context), borrowed(ints), borrowed(numbers), borrowed(rows)
    label_rows = borrowed(label_rows)
    label = next_label
    for i in range(next_row, ints.shape[0]):
        while label < label_rows.shape[0] and label_times_us[label] <= ints[i, EVENT_TIME_US]:
            foresee_label(context, ints, label_rows, label)
            deliver(context, ints[label_rows[label], TRANSACTION_KEY], label_values[label] == 1)
            label += 1
        foresee_row(context, ints, i)
        status, _ = observe_at(context, ints, numbers, i, True, rows[i - first_row])
        if status == NEEDS_ROOM:
            return np.int64(i), np.int64(label)
        statuses[i - first_row] = status
    return np.int64(ints.shape[0]), np.int64(label)


@device
def deliver(context, key, is_fraud):
    """A label arrived: mark the event wherever it is remembered.  False when the journal has forgotten it."""
    return amend_remembered(context, key, FRAUD if is_fraud else GENUINE, GENUINE if is_fraud else FRAUD)


@device
def amend_remembered(context, key, set_bits, clear_bits):
    """Set and clear status bits of a remembered transaction.  False when the journal has forgotten it."""
    pool, poolf, meta = ints_of(context, POOL), floats_of(context, POOL), ints_of(context, META)
    table, journal, index = (
        measured_rows_of(context, TABLE),
        measured_rows_of(context, JOURNAL),
        measured_ints_of(context, JOURNAL_INDEX),
    )
    kinds, columns, measures = (
        measured_rows_of(context, KINDS),
        ints_of(context, COLUMNS),
        int_rows_of(context, MEASURES),
    )
    changed = ints_of(context, CHANGED)
    row = journal_find(journal, index, key)
    if row < 0:
        meta[META_LABELS_UNKNOWN] += 1
        return False
    meta[META_LABELS] += (set_bits & (FRAUD | GENUINE)) != 0
    amend_journalled(
        row, set_bits, clear_bits, journal[row, JOURNAL_AMOUNT_MINOR],
        pool, poolf, table, meta, journal, changed, kinds, columns, measures,
    )  # fmt: skip
    return True


@kernel("boolean(int64[::1], int64, int64, int64)", nogil=False)
def amend_transaction(context, key, set_bits, clear_bits):
    """
    Set and clear status bits of a remembered transaction: a label, or the host's final answer.

    Returns
    -------
    bool
        False when the journal has forgotten it (which is counted).
    """
    return amend_remembered(borrowed(context), key, set_bits, clear_bits)


@kernel("int64(int64[::1], int64)", nogil=False)
def journal_row(context, key):
    """Where a transaction is in the journal, -1 = nowhere."""
    context = borrowed(context)
    return np.int64(
        journal_find(measured_rows_of(context, JOURNAL), measured_ints_of(context, JOURNAL_INDEX), np.int64(key))
    )
