"""
Kernels over the pool: find an entity, add an event to it, amend an event that is already there.

All are pure integer work except sums of squares, decayed totals and places, which are float64 words of the same pool
(``poolf`` is ``pool`` seen as float64).  Each event is added to its entities in arrival order, so a replay that presents
the same events in the same order leaves the same bits.

The windows themselves are read in `fraudsdk.features.kernels`; what is here changes state.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import device
from fraudsdk._native import lowest_bit, matching8
from fraudsdk.domain.fields import AMOUNT_MINOR, AMOUNT_UNKNOWN, EVENT_TIME_US, TRANSACTION_KEY
from fraudsdk.entity_state.layout import (
    CHANGED_CAPACITY,
    CHANGED_FIRST,
    CHANGED_N,
    COLUMN_TAG,
    COLUMN_TIME,
    DAY_US,
    DECAYED_COLUMN,
    DECAYED_HALF_LIFE_US,
    DECAYED_MASK,
    DECAYED_WANT,
    DECAYED_WORDS,
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_EXACT_MAX,
    DISTINCT_FIRST_CAPACITY,
    DISTINCT_HORIZON_US,
    DISTINCT_IDENTIFIER,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    FIRST_VALUE,
    HEAD_BORN,
    HEAD_COUNT,
    HEAD_FIRST_US,
    HEAD_KEY,
    HEAD_KIND,
    HEAD_LAST_US,
    HEAD_NEWER,
    HEAD_OLDER,
    JOURNAL_KEY,
    KIND_COMPONENT_0,
    KIND_COMPONENTS,
    KIND_DECAYED,
    KIND_DECAYEDS,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_FIRST_COLUMN,
    KIND_FIRST_DECAYED,
    KIND_FIRST_DISTINCT,
    KIND_FIRST_MEASURE,
    KIND_HEAD_WORDS,
    KIND_HOURS,
    KIND_MEASURES,
    KIND_PLACE,
    KIND_RETENTION_US,
    KIND_RING,
    KIND_RING_CAP,
    KIND_RING_COLUMNS,
    KIND_SALT,
    KIND_TILE_LEVELS,
    KIND_TILE_STRIDE,
    KIND_TILE_WORDS,
    KIND_TOP_TILES,
    MEASURE_COLUMN,
    MEASURE_MASK,
    MEASURE_TILE,
    MEASURE_WANT,
    META_BUMP,
    META_ENTITIES,
    META_EVICTED,
    META_FREE,
    META_JOURNAL_NEXT,
    META_LATE,
    META_LATE_DROPPED,
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
    RING_FIRST_CAPACITY,
    RING_FLAGS,
    RING_FLOOR_US,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
    TILE_COUNTS,
    TILE_MAX,
    TILE_MIN,
    TILE_SUM,
    TILE_SUM_SQUARES,
    TILE_VALUES,
    TILE_WIDTHS_US,
)

NEVER_US = -(2**62)  # earlier than any event
VALUE_UNKNOWN = AMOUNT_UNKNOWN
# Other numbers than the amount are remembered in millionths, so that sums are exact and order-free.
FIXED_POINT = 1_000_000.0
FIXED_POINT_LIMIT = 1e12
FLAG_BITS = (1 << 32) - 1
PLACE_HALF_LIFE_US = 30 * DAY_US
HOURS_HALF_LIFE_US = 30 * DAY_US

# Words of the scratch ``own``: sine and cosine of the time of day, position and home on the unit sphere.
OWN_CLOCK_SINE = 0
OWN_CLOCK_COSINE = 1
OWN_X = 2
OWN_HOME_X = 5
OWN_WORDS = 8
# After the four columns of ``places``: 1 = somebody asks for the time of day as an angle.
PLACES_CLOCK = 4

# How far from the guess an event is looked for first, in events; then twice as far, and so on.
GUESS_REACH = 8

_PROBES = 4  # of a Bloom filter of at most 2 ** 31 bits
_TILE_WIDTHS = np.array(TILE_WIDTHS_US, dtype=np.int64)
_TILE_COUNTS = np.array(TILE_COUNTS, dtype=np.int64)
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9, splitmix64
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


@device
def mix64(x):
    """Scatter 64 bits (the finaliser of splitmix64; Steele, Lea and Flood, OOPSLA 2014)."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX_2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


@device
def entity_key(ints, i, kind):
    """Key of the entity of this kind that transaction `i` names, or 0 when a component is absent."""
    key = kind[KIND_SALT]
    for c in range(kind[KIND_COMPONENTS]):
        identifier = ints[i, kind[KIND_COMPONENT_0 + c]]
        if identifier == 0:
            return np.int64(0)
        key = mix64(key ^ identifier)
    return key if key != 0 else np.int64(1)


# --- the table: key -> head ------------------------------------------------------------------------------------------


@device
def find(table, key):
    """Head of the entity with this key, or 0."""
    mask = table.shape[0] - 1
    i = key & mask
    while True:
        head = table[i, 1]
        if head == 0 or table[i, 0] == key:
            return head
        i = (i + 1) & mask


@device
def insert(table, key, head):
    """Enter a key that is not there yet; the caller keeps the table at most half full."""
    mask = table.shape[0] - 1
    i = key & mask
    while table[i, 1] != 0:
        i = (i + 1) & mask
    table[i, 0] = key
    table[i, 1] = head


@device
def remove(table, key):
    """Delete a key and close the gap, so that probing never needs tombstones (Knuth, TAOCP 3, 6.4, algorithm R)."""
    mask = table.shape[0] - 1
    i = key & mask
    while table[i, 0] != key or table[i, 1] == 0:
        if table[i, 1] == 0:
            return
        i = (i + 1) & mask
    j = i
    while True:
        j = (j + 1) & mask
        if table[j, 1] == 0:
            break
        home = table[j, 0] & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            table[i, 0] = table[j, 0]
            table[i, 1] = table[j, 1]
            i = j
    table[i, 0] = 0
    table[i, 1] = 0


# --- the pool: chunks of a power of two words, one free list per size -------------------------------------------------


@device
def size_class(words):
    """Smallest power of two, at least 8, that holds `words`, as its exponent."""
    exponent = 3
    while (1 << exponent) < words:
        exponent += 1
    return exponent


@device
def allocate(pool, meta, words):
    """A chunk for `words`; the caller has made sure of the headroom, so this cannot fail."""
    exponent = size_class(words)
    chunk = meta[META_FREE + exponent]
    if chunk != 0:
        meta[META_FREE + exponent] = pool[chunk]
        return chunk
    chunk = meta[META_BUMP]
    meta[META_BUMP] = chunk + (1 << exponent)
    return chunk


@device
def release(pool, meta, chunk, words):
    """Give a chunk back."""
    exponent = size_class(words)
    pool[chunk] = meta[META_FREE + exponent]
    meta[META_FREE + exponent] = chunk


# --- the LRU list ----------------------------------------------------------------------------------------------------


@device
def unlink(pool, meta, head):
    """Take a head out of the LRU list."""
    newer = pool[head + HEAD_NEWER]
    older = pool[head + HEAD_OLDER]
    if newer != 0:
        pool[newer + HEAD_OLDER] = older
    else:
        meta[META_NEWEST] = older
    if older != 0:
        pool[older + HEAD_NEWER] = newer
    else:
        meta[META_OLDEST] = newer


@device
def link_newest(pool, meta, head):
    """Put a head at the recently-used end of the LRU list."""
    newest = meta[META_NEWEST]
    pool[head + HEAD_NEWER] = 0
    pool[head + HEAD_OLDER] = newest
    if newest != 0:
        pool[newest + HEAD_NEWER] = head
    else:
        meta[META_OLDEST] = head
    meta[META_NEWEST] = head


@device
def blank(pool, poolf, meta, kind, kind_index, key):
    """A head with nothing remembered, that nothing leads to yet."""
    words = kind[KIND_HEAD_WORDS]
    head = allocate(pool, meta, words)
    for word in range(head, head + words):
        pool[word] = 0
    pool[head + HEAD_KEY] = key
    pool[head + HEAD_KIND] = kind_index
    pool[head + HEAD_LAST_US] = NEVER_US
    pool[head + HEAD_FIRST_US] = -NEVER_US
    pool[head + HEAD_BORN] = meta[META_JOURNAL_NEXT] - 1
    if kind[KIND_RING] != 0:
        pool[head + kind[KIND_RING] + RING_FLOOR_US] = NEVER_US
    if kind[KIND_PLACE] != 0:
        poolf[head + kind[KIND_PLACE] + PLACE_X] = np.nan
    return head


@device
def create(pool, poolf, table, meta, kind, kind_index, key):
    """A new entity with nothing remembered."""
    head = blank(pool, poolf, meta, kind, kind_index, key)
    insert(table, key, head)
    link_newest(pool, meta, head)
    meta[META_ENTITIES] += 1
    return head


@device
def release_head(pool, meta, head, kind):
    """Give back a head and its chunks, when nothing leads to it any more."""
    if kind[KIND_RING] != 0:
        ring = head + kind[KIND_RING]
        if pool[ring + RING_CHUNK] != 0:
            release(pool, meta, pool[ring + RING_CHUNK], pool[ring + RING_CAPACITY] * kind[KIND_RING_COLUMNS])
        if pool[ring + RING_TILES] != 0:
            release(pool, meta, pool[ring + RING_TILES], kind[KIND_TILE_WORDS])
    for d in range(kind[KIND_DISTINCTS]):
        part = head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        if pool[part + DISTINCT_CAPACITY] == SKETCHED:
            release(pool, meta, pool[part + DISTINCT_CHUNK], SKETCH_REGISTERS * SKETCH_RANKS)
        elif pool[part + DISTINCT_CHUNK] != 0:
            release(pool, meta, pool[part + DISTINCT_CHUNK], 2 * pool[part + DISTINCT_CAPACITY])
    release(pool, meta, head, kind[KIND_HEAD_WORDS])


@device
def forget(pool, table, meta, kinds, head):
    """Give back all that is remembered of an entity."""
    kind = kinds[pool[head + HEAD_KIND]]
    unlink(pool, meta, head)
    remove(table, pool[head + HEAD_KEY])
    if pool[head + HEAD_BORN] < OTHERS_ONLY:
        release_head(pool, meta, -pool[head + HEAD_BORN], kind)
    release_head(pool, meta, head, kind)
    meta[META_ENTITIES] -= 1


@device
def evict_oldest(pool, table, meta, kinds):
    """Forget the least recently used entity."""
    forget(pool, table, meta, kinds, meta[META_OLDEST])
    meta[META_EVICTED] += 1


# --- values and tags -------------------------------------------------------------------------------------------------


@device
def source_value(ints, numbers, i, source):
    """Value of a ring column: the amount in minor units (source -1), or a number in millionths."""
    if source < 0:
        return ints[i, AMOUNT_MINOR]
    x = numbers[i, source]
    if np.isnan(x):
        return np.int64(VALUE_UNKNOWN)
    return np.int64(np.rint(min(max(x, -FIXED_POINT_LIMIT), FIXED_POINT_LIMIT) * FIXED_POINT))


@device
def tag_of(flags, transaction_key):
    """Flags below, the upper half of the transaction's key above: finds one of several events of one microsecond."""
    return (flags & FLAG_BITS) | (transaction_key & ~FLAG_BITS)


# --- tiles -----------------------------------------------------------------------------------------------------------


@device
def tiles_on_level(kind, level):
    """Number of tiles on a level; the top one is lengthened to reach the longest window."""
    return kind[KIND_TOP_TILES] if level == kind[KIND_TILE_LEVELS] - 1 else _TILE_COUNTS[level]


@device
def clear_tile(pool, poolf, tile, n, kind, measures):
    """Empty statistics: count 0, maximum below and minimum above every value."""
    for word in range(1, kind[KIND_TILE_STRIDE]):
        pool[tile + word * n] = 0
    for m in range(kind[KIND_FIRST_MEASURE], kind[KIND_FIRST_MEASURE] + kind[KIND_MEASURES]):
        if measures[m, MEASURE_COLUMN] >= 0:
            word = tile + measures[m, MEASURE_TILE] * n
            poolf[word + TILE_SUM_SQUARES * n] = 0.0
            pool[word + TILE_MAX * n] = VALUE_UNKNOWN
            pool[word + TILE_MIN * n] = -(VALUE_UNKNOWN + 1)


@device
def tile_at(pool, poolf, kind, measures, level, first, time_us):
    """
    The tile of a level that holds a time, emptied if it held an older one; 0 when the time has left the level.

    A level is stored word by word, not tile by tile: word ``w`` of tile ``k`` is at ``first + w * n + k``.  A window
    reads two or three words of hundreds of tiles, and so reads them side by side.
    """
    n = tiles_on_level(kind, level)
    epoch = time_us // _TILE_WIDTHS[level]
    tile = first + epoch % n
    if pool[tile] > epoch:
        return np.int64(0)
    if pool[tile] < epoch:
        pool[tile] = epoch
        clear_tile(pool, poolf, tile, n, kind, measures)
    return tile


@device
def tiles_add(pool, poolf, chunk, kind, measures, time_us, flags, ring, column_stride, position, sign):
    """
    Add (`sign` 1) or take out (-1) one event on every level that still reaches it.

    The event's values are read from the ring: column ``c`` at ``pool[ring + c * column_stride + position]``.  A maximum
    or minimum cannot be taken out; it stays as an outer bound.
    """
    first = chunk
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        tile = tile_at(pool, poolf, kind, measures, level, first, time_us)
        first += n * kind[KIND_TILE_STRIDE]
        if tile == 0:
            continue
        for m in range(kind[KIND_FIRST_MEASURE], kind[KIND_FIRST_MEASURE] + kind[KIND_MEASURES]):
            if (flags & measures[m, MEASURE_MASK]) != measures[m, MEASURE_WANT]:
                continue
            word = tile + measures[m, MEASURE_TILE] * n
            pool[word] += sign
            column = measures[m, MEASURE_COLUMN]
            if column < 0:
                continue
            value = pool[ring + column * column_stride + position]
            if value == VALUE_UNKNOWN:
                continue
            amend_tile_amount(pool, poolf, word, n, value, sign)


@device
def amend_tile_amount(pool, poolf, word, n, value, sign):
    """Add a value to the statistics of one tile, or take it out of its sums."""
    pool[word + TILE_VALUES * n] += sign
    pool[word + TILE_SUM * n] += sign * value
    poolf[word + TILE_SUM_SQUARES * n] += sign * (np.float64(value) * np.float64(value))
    if sign > 0:
        pool[word + TILE_MAX * n] = max(pool[word + TILE_MAX * n], value)
        pool[word + TILE_MIN * n] = min(pool[word + TILE_MIN * n], value)


@device
def open_tiles(pool, poolf, meta, ring_part, kind, measures):
    """First overflow of a ring: lay out the ladder and enter every event that the ring holds."""
    chunk = allocate(pool, meta, kind[KIND_TILE_WORDS])
    first = chunk
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        for tile in range(first, first + n):
            pool[tile] = -1
        first += n * kind[KIND_TILE_STRIDE]
    pool[ring_part + RING_TILES] = chunk
    meta[META_TILE_LADDERS] += 1
    ring, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    for k in range(pool[ring_part + RING_LENGTH]):
        at = pool[ring_part + RING_START] + k
        time_us = pool[ring + COLUMN_TIME * capacity + at]
        flags = pool[ring + COLUMN_TAG * capacity + at] & FLAG_BITS
        tiles_add(pool, poolf, chunk, kind, measures, time_us, flags, ring, capacity, at, 1)


# --- the ring --------------------------------------------------------------------------------------------------------


@device
def move_ring(pool, ring_part, columns, new, new_capacity):
    """Copy the events to the start of a chunk, which may be the one that they are in."""
    old, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    start, length = pool[ring_part + RING_START], pool[ring_part + RING_LENGTH]
    for column in range(columns):
        source, target = old + column * capacity + start, new + column * new_capacity
        for k in range(length):
            pool[target + k] = pool[source + k]
    pool[ring_part + RING_CHUNK] = new
    pool[ring_part + RING_CAPACITY] = new_capacity
    pool[ring_part + RING_START] = 0


@device
def grow_ring(pool, meta, ring_part, kind):
    """Move the ring to a chunk of twice the size, or give it its first."""
    columns = kind[KIND_RING_COLUMNS]
    old, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    exponent = size_class(max(2 * capacity, RING_FIRST_CAPACITY) * columns)
    new = allocate(pool, meta, 1 << exponent)
    move_ring(pool, ring_part, columns, new, (1 << exponent) // columns)
    if old != 0:
        release(pool, meta, old, capacity * columns)


@device
def drop_oldest(pool, ring_part):
    """Let go of the oldest event; windows that reach behind the floor are no longer answered by the ring."""
    start = pool[ring_part + RING_START]
    dropped_us = pool[pool[ring_part + RING_CHUNK] + start]
    pool[ring_part + RING_FLOOR_US] = max(pool[ring_part + RING_FLOOR_US], dropped_us)
    pool[ring_part + RING_START] = start + 1
    pool[ring_part + RING_LENGTH] -= 1


@device
def make_room(pool, poolf, meta, ring_part, kind, measures, newest_us):
    """
    Room for one more event: forget what no window can reach, let the tiles take over, slide or grow.

    Events lie side by side, so that windows are read eight at a time.  A chunk that is used up to its end slides back
    once an eighth of its events have left, and grows otherwise: each event is moved some eight times in its life.
    """
    columns, capacity = kind[KIND_RING_COLUMNS], pool[ring_part + RING_CAPACITY]
    is_at_end = pool[ring_part + RING_START] + pool[ring_part + RING_LENGTH] >= capacity
    if not is_at_end and pool[ring_part + RING_LENGTH] < kind[KIND_RING_CAP]:
        return
    while pool[ring_part + RING_LENGTH] > 0:
        oldest_us = pool[pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START]]
        if oldest_us > newest_us - kind[KIND_RETENTION_US]:
            break
        drop_oldest(pool, ring_part)
    if pool[ring_part + RING_LENGTH] >= kind[KIND_RING_CAP]:
        if pool[ring_part + RING_TILES] == 0:
            open_tiles(pool, poolf, meta, ring_part, kind, measures)
        drop_oldest(pool, ring_part)
    if not is_at_end:
        return
    if pool[ring_part + RING_START] >= max(1, pool[ring_part + RING_LENGTH] >> 3):
        move_ring(pool, ring_part, columns, pool[ring_part + RING_CHUNK], capacity)
    else:
        grow_ring(pool, meta, ring_part, kind)


@device
def ring_add(pool, poolf, meta, head, kind, columns, measures, ints, numbers, i, flags):
    """
    Put event `i` in its place by event time, after those of the same microsecond that arrived before it.

    An event older than any window can reach is counted as dropped.
    """
    ring_part = head + kind[KIND_RING]
    time_us = ints[i, EVENT_TIME_US]
    newest_us = max(pool[head + HEAD_LAST_US], time_us)
    if time_us <= newest_us - kind[KIND_RETENTION_US]:
        meta[META_LATE_DROPPED] += 1
        return
    make_room(pool, poolf, meta, ring_part, kind, measures, newest_us)
    ring, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    start, length = pool[ring_part + RING_START], pool[ring_part + RING_LENGTH]
    n_columns = kind[KIND_RING_COLUMNS]
    at = start + length
    while at > start and pool[ring + at - 1] > time_us:
        for column in range(n_columns):
            pool[ring + column * capacity + at] = pool[ring + column * capacity + at - 1]
        at -= 1
    pool[ring + COLUMN_TIME * capacity + at] = time_us
    pool[ring + COLUMN_TAG * capacity + at] = tag_of(flags, ints[i, TRANSACTION_KEY])
    for column in range(n_columns - FIRST_VALUE):
        source = columns[kind[KIND_FIRST_COLUMN] + column]
        pool[ring + (FIRST_VALUE + column) * capacity + at] = source_value(ints, numbers, i, source)
    pool[ring_part + RING_LENGTH] = length + 1
    pool[ring_part + RING_FLAGS] |= flags & FLAG_BITS
    if pool[ring_part + RING_TILES] != 0:
        tiles_add(pool, poolf, pool[ring_part + RING_TILES], kind, measures, time_us, flags, ring, capacity, at, 1)
        if time_us < pool[ring_part + RING_FLOOR_US]:
            # Behind events that the ring has let go of: the tiles have it, and the ring must stay gapless.
            while pool[ring_part + RING_LENGTH] > 0 and pool[ring + pool[ring_part + RING_START]] <= time_us:
                drop_oldest(pool, ring_part)


@device
def ring_guess(pool, head, kind, time_us):
    """Where in a ring an event of this time would be if events came evenly; a guess, from the head alone."""
    length = pool[head + kind[KIND_RING] + RING_LENGTH]
    newest_us = pool[head + HEAD_LAST_US]
    oldest_us = max(
        pool[head + HEAD_FIRST_US], newest_us - kind[KIND_RETENTION_US], pool[head + kind[KIND_RING] + RING_FLOOR_US]
    )
    share = np.float64(time_us - oldest_us) / np.float64(max(newest_us - oldest_us, 1))
    return np.int64(min(max(share, 0.0), 1.0) * length)


@device
def ring_find(pool, head, kind, time_us, tag):
    """Position of an event in the chunk of a ring by its time and the key half of its tag, or -1."""
    ring_part = head + kind[KIND_RING]
    ring, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    first, end = pool[ring_part + RING_START], pool[ring_part + RING_START] + pool[ring_part + RING_LENGTH]
    # The first event at or after the time is between low and high, and mostly near the guess: memory answers line by line.
    low = high = first + ring_guess(pool, head, kind, time_us)
    reach = np.int64(GUESS_REACH)
    while low > first and pool[ring + low - 1] >= time_us:
        high = low - 1
        low = max(low - reach, first)
        reach *= 2
    while high < end and pool[ring + high] < time_us:
        low = high + 1
        high = min(high + reach, end)
        reach *= 2
    while low < high:
        middle = (low + high) >> 1
        if pool[ring + middle] < time_us:
            low = middle + 1
        else:
            high = middle
    while low < end and pool[ring + COLUMN_TIME * capacity + low] == time_us:
        if (pool[ring + COLUMN_TAG * capacity + low] & ~FLAG_BITS) == (tag & ~FLAG_BITS):
            return np.int64(low)
        low += 1
    return np.int64(-1)


# --- distinct keys ---------------------------------------------------------------------------------------------------


@device
def sketch_add(pool, chunk, key, time_us):
    """
    Sliding HyperLogLog: each (register, rank) remembers when it was last hit, so that any window can be asked.

    After Flajolet et al., "HyperLogLog", AOFA 2007, and Chabchoub and Hebrail, "Sliding HyperLogLog", ICDMW 2010.
    """
    scattered = mix64(key)
    register = scattered & (SKETCH_REGISTERS - 1)
    rest = (scattered >> 7) & ((1 << 57) - 1)
    rank = 0
    while rank < SKETCH_RANKS - 1 and (rest & 1) == 0:
        rest >>= 1
        rank += 1
    word = chunk + register * SKETCH_RANKS + rank
    pool[word] = max(pool[word], time_us)


@device
def promote_to_sketch(pool, meta, part):
    """More than 64 live keys: from here on their number is estimated."""
    chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    words = SKETCH_REGISTERS * SKETCH_RANKS
    sketch = allocate(pool, meta, words)
    for word in range(sketch, sketch + words):
        pool[word] = NEVER_US
    for k in range(pool[part + DISTINCT_LENGTH]):
        sketch_add(pool, sketch, pool[chunk + k], pool[chunk + capacity + k])
    release(pool, meta, chunk, 2 * capacity)
    pool[part + DISTINCT_CHUNK] = sketch
    pool[part + DISTINCT_CAPACITY] = SKETCHED
    meta[META_SKETCHES] += 1


@device
def forget_expired_keys(pool, part, before_us):
    """Close the gaps that keys last seen at or before a time leave."""
    chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    kept = 0
    for k in range(pool[part + DISTINCT_LENGTH]):
        if pool[chunk + capacity + k] > before_us:
            pool[chunk + kept] = pool[chunk + k]
            pool[chunk + capacity + kept] = pool[chunk + capacity + k]
            kept += 1
    pool[part + DISTINCT_LENGTH] = kept


@device
def grow_distinct(pool, meta, part):
    """Move the keys to a chunk of twice the capacity."""
    old, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    doubled = max(2 * capacity, DISTINCT_FIRST_CAPACITY)
    new = allocate(pool, meta, 2 * doubled)
    for k in range(pool[part + DISTINCT_LENGTH]):
        pool[new + k] = pool[old + k]
        pool[new + doubled + k] = pool[old + capacity + k]
    if old != 0:
        release(pool, meta, old, 2 * capacity)
    pool[part + DISTINCT_CHUNK] = new
    pool[part + DISTINCT_CAPACITY] = doubled


@device
def first_lanes(n):
    """Mask of the first `n` of eight words, n > 0."""
    return 0xFF if n >= 8 else (1 << n) - 1


@device
def distinct_add(pool, meta, part, key, time_us, expired_us):
    """Remember when a key was last seen: exact to 64 live keys, then sketched."""
    chunk = pool[part + DISTINCT_CHUNK]
    if pool[part + DISTINCT_CAPACITY] == SKETCHED:
        sketch_add(pool, chunk, key, time_us)
        return
    capacity = pool[part + DISTINCT_CAPACITY]
    for k in range(0, pool[part + DISTINCT_LENGTH], 8):
        hit = matching8(pool, chunk + k, -1, key) & first_lanes(pool[part + DISTINCT_LENGTH] - k)
        if hit != 0:
            at = chunk + capacity + k + lowest_bit(hit)
            pool[at] = max(pool[at], time_us)
            return
    if pool[part + DISTINCT_LENGTH] == capacity:
        forget_expired_keys(pool, part, expired_us)
        if pool[part + DISTINCT_LENGTH] == capacity:
            if capacity == DISTINCT_EXACT_MAX:
                promote_to_sketch(pool, meta, part)
                sketch_add(pool, pool[part + DISTINCT_CHUNK], key, time_us)
                return
            grow_distinct(pool, meta, part)
    chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    length = pool[part + DISTINCT_LENGTH]
    pool[chunk + length] = key
    pool[chunk + capacity + length] = time_us
    pool[part + DISTINCT_LENGTH] = length + 1


# --- decayed totals, places, hours -----------------------------------------------------------------------------------


@device
def decay_factor(age_us, half_life_us):
    """
    ``2 ** (-age / half_life)``, and 1 for an age that is not positive.

    Several producers write the same card, so events arrive out of order; a negative age would grow the total.
    Source: Cormode, Shkapenyuk, Srivastava and Xu, "Forward Decay", ICDE 2009 (backward exponential decay).
    """
    if age_us <= 0:
        return 1.0
    return np.exp2(-np.float64(age_us) / np.float64(half_life_us))


@device
def decayed_add(pool, poolf, word, value, time_us, half_life_us):
    """Add to a decayed total; a late event is added at its own decayed weight."""
    last_us = pool[word + 1]
    if time_us >= last_us:
        poolf[word] = poolf[word] * decay_factor(time_us - last_us, half_life_us) + value
        pool[word + 1] = time_us
    else:
        poolf[word] += value * decay_factor(last_us - time_us, half_life_us)


@device
def say_where(own, at, latitude, longitude):
    """A position on the unit sphere into three words of `own`; NaN where it is not known."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    across = np.cos(phi)
    own[at] = across * np.cos(lam)
    own[at + 1] = across * np.sin(lam)
    own[at + 2] = np.sin(phi)


@device
def say_when_and_where(time_us, numbers, i, places, own):
    """The angles of a transaction that several features and entities read, once: time of day, position, home."""
    if places[PLACES_CLOCK]:
        angle = day_angle(time_us)
        own[OWN_CLOCK_SINE] = np.sin(angle)
        own[OWN_CLOCK_COSINE] = np.cos(angle)
    for which in range(2):
        at = OWN_X + 3 * which
        own[at] = np.nan
        if places[2 * which] >= 0:
            latitude, longitude = numbers[i, places[2 * which]], numbers[i, places[2 * which + 1]]
            if not (np.isnan(latitude) or np.isnan(longitude)):
                say_where(own, at, latitude, longitude)


@device
def place_add(pool, poolf, word, own, time_us):
    """
    Remember a position: the newest one as it is, and the decayed mean of unit vectors as the usual centre.

    Unit vectors, since a mean of longitudes is wrong across the 180th meridian.
    """
    decayed_us = pool[word + PLACE_DECAY_US]
    old = decay_factor(time_us - decayed_us, PLACE_HALF_LIFE_US)
    new = decay_factor(decayed_us - time_us, PLACE_HALF_LIFE_US)
    is_newest = np.isnan(poolf[word + PLACE_X]) or time_us >= pool[word + PLACE_LAST_US]
    for axis in range(3):
        centre = word + PLACE_CENTRE_X + axis
        poolf[centre] = poolf[centre] * old + new * own[OWN_X + axis]
        if is_newest:
            poolf[word + PLACE_X + axis] = own[OWN_X + axis]
    pool[word + PLACE_DECAY_US] = max(decayed_us, time_us)
    if is_newest:
        pool[word + PLACE_LAST_US] = time_us


@device
def day_angle(time_us):
    """Time of day on the circle, radians: midnight UTC is 0."""
    return (time_us % DAY_US) * (2.0 * np.pi / DAY_US)


@device
def hours_add(pool, poolf, word, own, time_us):
    """Remember a time of day in the decayed circular mean (Mardia and Jupp, Directional Statistics, 2.2)."""
    last_us = pool[word + 3]
    old, new = decay_factor(time_us - last_us, HOURS_HALF_LIFE_US), decay_factor(last_us - time_us, HOURS_HALF_LIFE_US)
    poolf[word] = poolf[word] * old + new * own[OWN_CLOCK_SINE]
    poolf[word + 1] = poolf[word + 1] * old + new * own[OWN_CLOCK_COSINE]
    poolf[word + 2] = poolf[word + 2] * old + new
    pool[word + 3] = max(last_us, time_us)


# --- one event into one entity ---------------------------------------------------------------------------------------


@device
def remember(pool, poolf, meta, head, kind, columns, measures, distincts, decayeds, ints, numbers, i, flags, own):
    """
    Add event `i` to one entity: ring, tiles, distinct keys, decayed totals, place and hours, then first and last.

    Parameters
    ----------
    own : float64[OWN_WORDS]
        What `say_when_and_where` said of the event.
    """
    time_us = ints[i, EVENT_TIME_US]
    if time_us < pool[head + HEAD_LAST_US]:
        meta[META_LATE] += 1
    if kind[KIND_RING] != 0:
        ring_add(pool, poolf, meta, head, kind, columns, measures, ints, numbers, i, flags)
    newest_us = max(pool[head + HEAD_LAST_US], time_us)
    for d in range(kind[KIND_DISTINCTS]):
        row = distincts[kind[KIND_FIRST_DISTINCT] + d]
        key = ints[i, row[DISTINCT_IDENTIFIER]]
        if key != 0:
            part = head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
            distinct_add(pool, meta, part, key, time_us, newest_us - row[DISTINCT_HORIZON_US])
    for d in range(kind[KIND_DECAYEDS]):
        row = decayeds[kind[KIND_FIRST_DECAYED] + d]
        if (flags & row[DECAYED_MASK]) == row[DECAYED_WANT]:
            word = head + kind[KIND_DECAYED] + d * DECAYED_WORDS
            source = row[DECAYED_COLUMN]
            value = np.int64(1) if source < -1 else source_value(ints, numbers, i, source)
            if value != VALUE_UNKNOWN:
                decayed_add(pool, poolf, word, np.float64(value), time_us, row[DECAYED_HALF_LIFE_US])
    if kind[KIND_PLACE] != 0 and not np.isnan(own[OWN_X]):
        place_add(pool, poolf, head + kind[KIND_PLACE], own, time_us)
    if kind[KIND_HOURS] != 0:
        hours_add(pool, poolf, head + kind[KIND_HOURS], own, time_us)
    pool[head + HEAD_LAST_US] = newest_us
    pool[head + HEAD_FIRST_US] = min(pool[head + HEAD_FIRST_US], time_us)
    pool[head + HEAD_COUNT] += 1


@device
def remember_as_own(
    pool, poolf, meta, head, kind, columns, measures, distincts, decayeds, ints, numbers, i, flags, own
):  # fmt: skip
    """Add event `i` to our own events of an entity, where `head` is of everybody's."""
    if pool[head + HEAD_BORN] == OTHERS_ONLY:
        pool[head + HEAD_BORN] = -blank(pool, poolf, meta, kind, pool[head + HEAD_KIND], pool[head + HEAD_KEY])
    late, dropped = meta[META_LATE], meta[META_LATE_DROPPED]  # an event is late once
    remember(
        pool, poolf, meta, -pool[head + HEAD_BORN], kind, columns, measures, distincts, decayeds,
        ints, numbers, i, flags, own,
    )  # fmt: skip
    meta[META_LATE], meta[META_LATE_DROPPED] = late, dropped


@device
def amend(pool, poolf, head, kind, columns, measures, time_us, tag, new_flags, new_amount):
    """
    Change the flags and amount of an event that the ring still holds, in ring and tiles.

    Returns
    -------
    bool
        False when the ring no longer holds it.
    """
    ring_part = head + kind[KIND_RING]
    if pool[ring_part + RING_CHUNK] == 0:
        return False
    at = ring_find(pool, head, kind, time_us, tag)
    if at < 0:
        return False
    ring, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    tiles = pool[ring_part + RING_TILES]
    old_flags = pool[ring + COLUMN_TAG * capacity + at] & FLAG_BITS
    if tiles != 0:
        tiles_add(pool, poolf, tiles, kind, measures, time_us, old_flags, ring, capacity, at, -1)
    pool[ring + COLUMN_TAG * capacity + at] = tag_of(new_flags, tag)
    pool[ring_part + RING_FLAGS] |= new_flags & FLAG_BITS
    for column in range(kind[KIND_RING_COLUMNS] - FIRST_VALUE):
        if columns[kind[KIND_FIRST_COLUMN] + column] < 0:
            pool[ring + (FIRST_VALUE + column) * capacity + at] = new_amount
    if tiles != 0:
        tiles_add(pool, poolf, tiles, kind, measures, time_us, new_flags, ring, capacity, at, 1)
    return True


@device
def amend_tiles(pool, poolf, head, kind, columns, measures, time_us, old_flags, old_amount, new_flags, new_amount):
    """
    Change an event that the ring has let go of: the tiles still count it.

    Only counts and the amount are corrected; a custom number of a departed event is no longer known.
    """
    chunk = pool[head + kind[KIND_RING] + RING_TILES]
    # An event that left every window may never have entered the tiles; taking it out would under-count its neighbours.
    if chunk == 0 or time_us <= pool[head + HEAD_LAST_US] - kind[KIND_RETENTION_US]:
        return
    pool[head + kind[KIND_RING] + RING_FLAGS] |= new_flags & FLAG_BITS
    first = chunk
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        tile = tile_at(pool, poolf, kind, measures, level, first, time_us)
        first += n * kind[KIND_TILE_STRIDE]
        if tile == 0:
            continue
        for m in range(kind[KIND_FIRST_MEASURE], kind[KIND_FIRST_MEASURE] + kind[KIND_MEASURES]):
            was = (old_flags & measures[m, MEASURE_MASK]) == measures[m, MEASURE_WANT]
            now = (new_flags & measures[m, MEASURE_MASK]) == measures[m, MEASURE_WANT]
            word = tile + measures[m, MEASURE_TILE] * n
            pool[word] += np.int64(now) - np.int64(was)
            column = measures[m, MEASURE_COLUMN]
            if column < 0 or columns[kind[KIND_FIRST_COLUMN] + column - FIRST_VALUE] >= 0:
                continue
            if old_amount == VALUE_UNKNOWN:
                continue
            if was:
                amend_tile_amount(pool, poolf, word, n, old_amount, -1)
            if now:
                amend_tile_amount(pool, poolf, word, n, new_amount, 1)


@device
def amend_everywhere(
    pool, poolf, head, kind, columns, measures, time_us, tag, old_flags, old_amount, new_flags, new_amount
):  # fmt: skip
    """Change an event of an entity, whether its ring still holds it or not."""
    if not amend(pool, poolf, head, kind, columns, measures, time_us, tag, new_flags, new_amount):
        amend_tiles(
            pool, poolf, head, kind, columns, measures, time_us, old_flags, old_amount, new_flags, new_amount
        )  # fmt: skip


# --- who else wants to know -------------------------------------------------------------------------------------------


@device
def mark_changed(changed, key):
    """Say that an entity changed; more than there is room for are counted all the same, so that it can be seen."""
    if changed[CHANGED_N] < changed[CHANGED_CAPACITY]:
        changed[CHANGED_FIRST + changed[CHANGED_N]] = key
    changed[CHANGED_N] += 1


@device
def may_be_elsewhere(bits, key):
    """
    Whether a key may be among those of a Bloom filter; False: it surely is not.

    Source: Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 1970; four bits a key, of one hash.
    """
    hashed, mask = mix64(key), 64 * bits.shape[0] - 1
    for probe in range(_PROBES):
        bit = (hashed >> (11 * probe)) & mask
        if (bits[bit >> 6] >> (bit & 63)) & 1 == 0:
            return False
    return True


@device
def note_elsewhere(bits, key):
    """Add a key to a Bloom filter."""
    hashed, mask = mix64(key), 64 * bits.shape[0] - 1
    for probe in range(_PROBES):
        bit = (hashed >> (11 * probe)) & mask
        bits[bit >> 6] |= np.int64(1) << (bit & 63)


# --- the journal: what is remembered of each recent transaction ------------------------------------------------------


@device
def journal_find(journal, index, key):
    """Row of a transaction in the journal, or -1."""
    mask = index.shape[0] - 1
    i = key & mask
    while True:
        row = index[i] - 1
        if row < 0 or journal[row, JOURNAL_KEY] == key:
            return row
        i = (i + 1) & mask


@device
def journal_insert(journal, index, row):
    """Make a row findable by its key."""
    mask = index.shape[0] - 1
    i = journal[row, JOURNAL_KEY] & mask
    while index[i] != 0:
        i = (i + 1) & mask
    index[i] = row + 1


@device
def journal_remove(journal, index, row):
    """Make a row unfindable, before it is written over; closes the gap as `remove` does."""
    mask = index.shape[0] - 1
    i = journal[row, JOURNAL_KEY] & mask
    while index[i] != row + 1:
        if index[i] == 0:  # a row that was empty: of a journal that was smaller when it was kept
            return
        i = (i + 1) & mask
    j = i
    while True:
        j = (j + 1) & mask
        if index[j] == 0:
            break
        home = journal[index[j] - 1, JOURNAL_KEY] & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            index[i] = index[j]
            i = j
    index[i] = 0
