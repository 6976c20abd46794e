"""
What several writers know of one entity, joined into what is read.

Each writer keeps a part of its own events.  Joined in the order of the writers they are what one memory would hold that had seen
all events: counts, sums and distinct keys to the last unit, decayed totals and places but for the order of their sums, which
is that of the writers for whoever joins them.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.entity_state.kernels import (
    HOURS_HALF_LIFE_US,
    NEVER_US,
    PLACE_HALF_LIFE_US,
    allocate,
    blank,
    decay_factor,
    decayed_add,
    distinct_add,
    evict_oldest,
    find,
    insert,
    link_newest,
    open_tiles,
    promote_to_sketch,
    release,
    release_head,
    tiles_add,
    tiles_on_level,
)
from fraudsdk.entity_state.layout import (
    COLUMN_TAG,
    COLUMN_TIME,
    DECAYED_HALF_LIFE_US,
    DECAYED_WORDS,
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_HORIZON_US,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    HEAD_BORN,
    HEAD_COUNT,
    HEAD_FIRST_US,
    HEAD_KIND,
    HEAD_LAST_US,
    HEAD_NEWER,
    HEAD_OLDER,
    KIND_DECAYED,
    KIND_DECAYEDS,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_FIRST_DECAYED,
    KIND_FIRST_DISTINCT,
    KIND_FIRST_MEASURE,
    KIND_HOURS,
    KIND_MEASURES,
    KIND_PLACE,
    KIND_RETENTION_US,
    KIND_RING,
    KIND_RING_CAP,
    KIND_RING_COLUMNS,
    KIND_TILE_LEVELS,
    KIND_TILE_STRIDE,
    MEASURE_COLUMN,
    MEASURE_TILE,
    META_ENTITIES,
    META_MAX_ENTITIES,
    META_NEWEST,
    META_OLDEST,
    META_SKETCHES,
    META_TILE_LADDERS,
    OTHERS_ONLY,
    PLACE_CENTRE_X,
    PLACE_DECAY_US,
    PLACE_LAST_US,
    PLACE_X,
    RING_CAPACITY,
    RING_CHUNK,
    RING_FLAGS,
    RING_FLOOR_US,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
    TILE_MAX,
    TILE_MIN,
    TILE_SUM,
    TILE_SUM_SQUARES,
    TILE_VALUES,
)
from fraudsdk.entity_state.part_kernels import CHANGED, PART_KEY, PART_KIND, TAKEN, own_head, problem_with, unpack_into

_SKETCH_WORDS = SKETCH_REGISTERS * SKETCH_RANKS
_FLAG_BITS = (1 << 32) - 1


# --- tiles -----------------------------------------------------------------------------------------------------------


@device
def join_tile(pool, poolf, tile, other, n, kind, measures):
    """Add the statistics of a tile to another of the same time."""
    for m in range(kind[KIND_FIRST_MEASURE], kind[KIND_FIRST_MEASURE] + kind[KIND_MEASURES]):
        to, of = tile + measures[m, MEASURE_TILE] * n, other + measures[m, MEASURE_TILE] * n
        pool[to] += pool[of]
        if measures[m, MEASURE_COLUMN] < 0:
            continue
        pool[to + TILE_VALUES * n] += pool[of + TILE_VALUES * n]
        pool[to + TILE_SUM * n] += pool[of + TILE_SUM * n]
        poolf[to + TILE_SUM_SQUARES * n] += poolf[of + TILE_SUM_SQUARES * n]
        pool[to + TILE_MAX * n] = max(pool[to + TILE_MAX * n], pool[of + TILE_MAX * n])
        pool[to + TILE_MIN * n] = min(pool[to + TILE_MIN * n], pool[of + TILE_MIN * n])


@device
def join_tiles(pool, poolf, chunk, other, kind, measures):
    """Add a ladder of tiles to another: of two tiles at one place the later stays, as if its events had come last."""
    stride, first = kind[KIND_TILE_STRIDE], np.int64(0)
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        for k in range(n):
            tile, of = chunk + first + k, other + first + k
            if pool[of] == -1 or pool[of] < pool[tile]:
                continue
            if pool[of] > pool[tile]:
                for word in range(stride):
                    pool[tile + word * n] = pool[of + word * n]
            else:
                join_tile(pool, poolf, tile, of, n, kind, measures)
        first += n * stride


@device
def enter_tiles(pool, poolf, meta, ring_part, other, kind, measures):
    """Have the tiles of one ring count the events of another as well."""
    if pool[ring_part + RING_TILES] == 0:
        open_tiles(pool, poolf, meta, ring_part, kind, measures)
    tiles = pool[ring_part + RING_TILES]
    if pool[other + RING_TILES] != 0:
        join_tiles(pool, poolf, tiles, pool[other + RING_TILES], kind, measures)
        return
    ring, capacity = pool[other + RING_CHUNK], pool[other + RING_CAPACITY]
    for at in range(pool[other + RING_START], pool[other + RING_START] + pool[other + RING_LENGTH]):
        time_us = pool[ring + COLUMN_TIME * capacity + at]
        flags = pool[ring + COLUMN_TAG * capacity + at] & _FLAG_BITS
        tiles_add(pool, poolf, tiles, kind, measures, time_us, flags, ring, capacity, at, 1)


# --- rings -----------------------------------------------------------------------------------------------------------


@device
def n_after(pool, ring_part, time_us):
    """How many events of a ring are later than a time."""
    times = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START]
    k = pool[ring_part + RING_LENGTH]
    while k > 0 and pool[times + k - 1] > time_us:
        k -= 1
    return pool[ring_part + RING_LENGTH] - k


@device
def newest_at_or_before(pool, ring_part, time_us):
    """When the last event of a ring was that is not later than a time."""
    k = pool[ring_part + RING_LENGTH] - n_after(pool, ring_part, time_us)
    return pool[pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START] + k - 1] if k > 0 else NEVER_US


@device
def interleave(pool, one, other, n_one, n_other, n, new, new_capacity, columns):
    """
    Copy the last `n` of the last events of two rings to a chunk, by time; of one microsecond those of the first come first.

    Returns
    -------
    int64
        When the last event was that found no place.
    """
    ring_one, capacity_one = pool[one + RING_CHUNK], pool[one + RING_CAPACITY]
    ring_other, capacity_other = pool[other + RING_CHUNK], pool[other + RING_CAPACITY]
    end_one, end_other = (
        pool[one + RING_START] + pool[one + RING_LENGTH],
        pool[other + RING_START] + pool[other + RING_LENGTH],
    )
    at_one, at_other = end_one - 1, end_other - 1
    first_one, first_other = end_one - n_one, end_other - n_other
    for to in range(n - 1, -1, -1):
        is_other = at_one < first_one or (
            at_other >= first_other and pool[ring_other + at_other] >= pool[ring_one + at_one]
        )
        for column in range(columns):
            if is_other:
                pool[new + column * new_capacity + to] = pool[ring_other + column * capacity_other + at_other]
            else:
                pool[new + column * new_capacity + to] = pool[ring_one + column * capacity_one + at_one]
        if is_other:
            at_other -= 1
        else:
            at_one -= 1
    left_us = np.int64(NEVER_US)
    if at_one >= first_one:
        left_us = pool[ring_one + at_one]
    if at_other >= first_other:
        left_us = max(left_us, pool[ring_other + at_other])
    return left_us


@device
def join_ring(pool, poolf, meta, head, of, kind, measures):
    """Add the events of a ring to another, and its tiles; `HEAD_LAST_US` of both is still their own."""
    one, other, columns = head + kind[KIND_RING], of + kind[KIND_RING], kind[KIND_RING_COLUMNS]
    newest_us = max(pool[head + HEAD_LAST_US], pool[of + HEAD_LAST_US])
    # A ring has every event since its floor, and so has the joined one since the later of the two.
    floor_us = max(pool[one + RING_FLOOR_US], pool[other + RING_FLOOR_US])
    after_us = max(floor_us, newest_us - kind[KIND_RETENTION_US])
    n_one, n_other = n_after(pool, one, after_us), n_after(pool, other, after_us)
    if pool[one + RING_TILES] != 0 or pool[other + RING_TILES] != 0 or n_one + n_other > kind[KIND_RING_CAP]:
        enter_tiles(pool, poolf, meta, one, other, kind, measures)
    for ring_part in (one, other):
        floor_us = max(floor_us, newest_at_or_before(pool, ring_part, after_us))
    n = min(n_one + n_other, kind[KIND_RING_CAP])
    old, old_words = pool[one + RING_CHUNK], pool[one + RING_CAPACITY] * columns
    new, capacity = np.int64(0), np.int64(0)
    if n > 0:
        words = np.int64(8)
        while words < n * columns:
            words *= 2
        new, capacity = allocate(pool, meta, words), words // columns
        floor_us = max(floor_us, interleave(pool, one, other, n_one, n_other, n, new, capacity, columns))
    if old != 0:
        release(pool, meta, old, old_words)
    pool[one + RING_CHUNK] = new
    pool[one + RING_CAPACITY] = capacity
    pool[one + RING_START] = 0
    pool[one + RING_LENGTH] = n
    pool[one + RING_FLOOR_US] = floor_us
    pool[one + RING_FLAGS] |= pool[other + RING_FLAGS]


# --- distinct keys, decayed totals, places, hours ---------------------------------------------------------------------


@device
def join_distinct(pool, meta, part, other, expired_us):
    """Add distinct keys, or a sketch of them, to others."""
    chunk = pool[other + DISTINCT_CHUNK]
    if pool[other + DISTINCT_CAPACITY] != SKETCHED:
        for k in range(pool[other + DISTINCT_LENGTH]):
            time_us = pool[chunk + pool[other + DISTINCT_CAPACITY] + k]
            distinct_add(pool, meta, part, pool[chunk + k], time_us, expired_us)
        return
    if pool[part + DISTINCT_CAPACITY] == 0:
        sketch = allocate(pool, meta, _SKETCH_WORDS)
        for word in range(sketch, sketch + _SKETCH_WORDS):
            pool[word] = NEVER_US
        pool[part + DISTINCT_CHUNK] = sketch
        pool[part + DISTINCT_CAPACITY] = SKETCHED
        meta[META_SKETCHES] += 1
    elif pool[part + DISTINCT_CAPACITY] != SKETCHED:
        promote_to_sketch(pool, meta, part)
    sketch = pool[part + DISTINCT_CHUNK]
    for word in range(_SKETCH_WORDS):
        pool[sketch + word] = max(pool[sketch + word], pool[chunk + word])


@device
def join_place(pool, poolf, word, other):
    """Add a decayed centre to another, and keep the later of the last positions."""
    if np.isnan(poolf[other + PLACE_X]):
        return
    decayed_us, its_us = pool[word + PLACE_DECAY_US], pool[other + PLACE_DECAY_US]
    old, new = (
        decay_factor(its_us - decayed_us, PLACE_HALF_LIFE_US),
        decay_factor(decayed_us - its_us, PLACE_HALF_LIFE_US),
    )
    is_newest = np.isnan(poolf[word + PLACE_X]) or pool[other + PLACE_LAST_US] >= pool[word + PLACE_LAST_US]
    for axis in range(3):
        centre = word + PLACE_CENTRE_X + axis
        poolf[centre] = poolf[centre] * old + poolf[other + PLACE_CENTRE_X + axis] * new
        if is_newest:
            poolf[word + PLACE_X + axis] = poolf[other + PLACE_X + axis]
    pool[word + PLACE_DECAY_US] = max(decayed_us, its_us)
    if is_newest:
        pool[word + PLACE_LAST_US] = pool[other + PLACE_LAST_US]


@device
def join_hours(pool, poolf, word, other):
    """Add a decayed circular mean to another."""
    last_us, its_us = pool[word + 3], pool[other + 3]
    old, new = decay_factor(its_us - last_us, HOURS_HALF_LIFE_US), decay_factor(last_us - its_us, HOURS_HALF_LIFE_US)
    for at in range(3):
        poolf[word + at] = poolf[word + at] * old + poolf[other + at] * new
    pool[word + 3] = max(last_us, its_us)


@device
def join(pool, poolf, meta, head, of, kind, measures, distincts, decayeds):
    """Add what one head remembers of an entity to what another does."""
    if kind[KIND_RING] != 0:
        join_ring(pool, poolf, meta, head, of, kind, measures)
    newest_us = max(pool[head + HEAD_LAST_US], pool[of + HEAD_LAST_US])
    for d in range(kind[KIND_DISTINCTS]):
        part = kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        horizon_us = distincts[kind[KIND_FIRST_DISTINCT] + d, DISTINCT_HORIZON_US]
        join_distinct(pool, meta, head + part, of + part, newest_us - horizon_us)
    for d in range(kind[KIND_DECAYEDS]):
        word, half_life_us = (
            kind[KIND_DECAYED] + d * DECAYED_WORDS,
            decayeds[kind[KIND_FIRST_DECAYED] + d, DECAYED_HALF_LIFE_US],
        )
        decayed_add(pool, poolf, head + word, poolf[of + word], pool[of + word + 1], half_life_us)
    if kind[KIND_PLACE] != 0:
        join_place(pool, poolf, head + kind[KIND_PLACE], of + kind[KIND_PLACE])
    if kind[KIND_HOURS] != 0:
        join_hours(pool, poolf, head + kind[KIND_HOURS], of + kind[KIND_HOURS])
    pool[head + HEAD_LAST_US] = newest_us
    pool[head + HEAD_FIRST_US] = min(pool[head + HEAD_FIRST_US], pool[of + HEAD_FIRST_US])
    pool[head + HEAD_COUNT] += pool[of + HEAD_COUNT]


# --- what is read ----------------------------------------------------------------------------------------------------


@device
def unpacked(words, at, pool, poolf, meta, kind):
    """A head of its own for a sound part."""
    head = blank(pool, poolf, meta, kind, words[at + PART_KIND], words[at + PART_KEY])
    unpack_into(words, at, pool, meta, head, kind)
    return head


@device
def enter_head(pool, table, meta, kinds, key, head):
    """Let a key that is not known lead to a head."""
    while meta[META_ENTITIES] >= meta[META_MAX_ENTITIES]:
        evict_oldest(pool, table, meta, kinds)
    insert(table, key, head)
    link_newest(pool, meta, head)
    meta[META_ENTITIES] += 1


@device
def replace_head(pool, table, meta, key, old, new):
    """Let a key lead to another head, which is as recently used as the old one."""
    mask = table.shape[0] - 1
    i = key & mask
    while table[i, 1] != old:
        i = (i + 1) & mask
    table[i, 1] = new
    newer, older = pool[old + HEAD_NEWER], pool[old + HEAD_OLDER]
    pool[new + HEAD_NEWER] = newer
    pool[new + HEAD_OLDER] = older
    if newer != 0:
        pool[newer + HEAD_OLDER] = new
    else:
        meta[META_NEWEST] = new
    if older != 0:
        pool[older + HEAD_NEWER] = new
    else:
        meta[META_OLDEST] = new


@device
def own_of(words, begin, end, lacks_stored, head, pool, poolf, meta, kind, measures, distincts, decayeds):
    """
    The head of our own events, with those that are in our part where they are not in memory; 0 where there are none.

    The old one is given back where another takes its place and nothing else leads to it.
    """
    own = own_head(pool, head)
    if begin == end or (head != 0 and lacks_stored == 0):
        return own
    stored = unpacked(words, begin, pool, poolf, meta, kind)
    if own != 0:
        join(pool, poolf, meta, stored, own, kind, measures, distincts, decayeds)
        if own != head:
            release_head(pool, meta, own, kind)
    return stored


@device
def joined(words, ends, mine, verdicts, own, pool, poolf, meta, kind, measures, distincts, decayeds):
    """A head of everybody's events, in the order of the writers; 0 where there are ours alone."""
    view = np.int64(0)
    for writer in range(ends.shape[0]):
        begin = ends[writer - 1] if writer > 0 else np.int64(0)
        if writer != mine and ends[writer] > begin and verdicts[writer] == TAKEN and view == 0:
            view = blank(pool, poolf, meta, kind, words[begin + PART_KIND], words[begin + PART_KEY])
    if view == 0:
        return view
    for writer in range(ends.shape[0]):
        begin = ends[writer - 1] if writer > 0 else np.int64(0)
        if writer == mine:
            if own != 0:
                join(pool, poolf, meta, view, own, kind, measures, distincts, decayeds)
        elif ends[writer] > begin and verdicts[writer] == TAKEN:
            part = unpacked(words, begin, pool, poolf, meta, kind)
            join(pool, poolf, meta, view, part, kind, measures, distincts, decayeds)
            release_head(pool, meta, part, kind)
    pool[view + HEAD_BORN] = -own if own != 0 else np.int64(OTHERS_ONLY)
    return view


@kernel(
    "void(int64, int64[::1], int64[::1], int64, int64, int64, int64[::1], float64[::1], int64[:, ::1], int64[::1], "
    "int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[:, ::1], int64[::1])"
)
def take_up(
    key, words, ends, mine, lacks_stored, schema, pool, poolf, table, meta, kinds, measures, distincts, decayeds, verdicts
):  # fmt: skip
    """
    Remember an entity as all writers know it: our own events as they are here, those of others as their parts say.

    The caller has made sure that every part fits twice.

    Parameters
    ----------
    key : int64
    words : int64[n]
        Parts, one after another, in the order of their writers.
    ends : int64[n_writers]
        Where each ends; where the one before does for a writer that has none.
    mine : int64
        Which writer we are; -1: none.
    lacks_stored : int64
        1: what is in memory of our own events lacks those of our part.
    schema : int64
        What words must mean.
    pool, poolf, table, meta, kinds, measures, distincts, decayeds
        Of a memory; `pool` and `poolf` are the same words.
    verdicts : int64[n_writers]
        Receives `TAKEN`, `FOREIGN` or `CHANGED` of each part; whatever else than the first is left out.
    """
    words, ends, pool, poolf = borrowed(words), borrowed(ends), borrowed(pool), borrowed(poolf)
    table, meta, kinds, verdicts = borrowed(table), borrowed(meta), borrowed(kinds), borrowed(verdicts)
    head = find(table, key)
    begin, kind_index = np.int64(0), np.int64(-1)
    if head != 0:
        kind_index = pool[head + HEAD_KIND]  # what is of another kind cannot be joined
    for writer in range(ends.shape[0]):
        n = ends[writer] - begin
        verdicts[writer] = problem_with(words, begin, n, schema, kinds) if n > 0 else np.int64(TAKEN)
        if n > 0 and verdicts[writer] == TAKEN:
            is_same_kind = kind_index < 0 or kind_index == words[begin + PART_KIND]
            if words[begin + PART_KEY] != key or not is_same_kind:
                verdicts[writer] = CHANGED
            else:
                kind_index = words[begin + PART_KIND]
        begin = ends[writer]
    if kind_index < 0:  # nobody has anything to say
        return
    kind = kinds[kind_index]
    ladders, sketches = meta[META_TILE_LADDERS], meta[META_SKETCHES]  # what is only joined is not counted
    own_begin = ends[mine - 1] if mine > 0 else np.int64(0)
    own_end = ends[mine] if mine >= 0 and verdicts[mine] == TAKEN else own_begin
    own = own_of(words, own_begin, own_end, lacks_stored, head, pool, poolf, meta, kind, measures, distincts, decayeds)
    view = joined(words, ends, mine, verdicts, own, pool, poolf, meta, kind, measures, distincts, decayeds)
    meta[META_TILE_LADDERS], meta[META_SKETCHES] = ladders, sketches
    if view == 0:
        if own == own_head(pool, head):  # nothing new: what others had has expired, and what we know of it stays
            return
        view = own
    if head == 0:
        enter_head(pool, table, meta, kinds, key, view)
        return
    replace_head(pool, table, meta, key, head, view)
    if head != own:
        release_head(pool, meta, head, kind)
