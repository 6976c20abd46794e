"""
Parts: one entity as words that another process can take up, as exact as it was here.

::

    magic | schema | checksum and length | sequence | kind | key | head without addresses | ring | tiles | distinct keys

Addresses are left out and made anew; everything else is kept, spare room of chunks too: what is packed, unpacked and packed again
is the same part, and goes on to the same parts by the same events.  Tiles and sketches are mostly empty, and packed by what is
in them.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.entity_state.kernels import NEVER_US, allocate, create, evict_oldest, find, tiles_on_level
from fraudsdk.entity_state.layout import (
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_EXACT_MAX,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    HEAD_BORN,
    HEAD_KEY,
    HEAD_KIND,
    HEAD_LAST_US,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_HEAD_WORDS,
    KIND_RING,
    KIND_RING_CAP,
    KIND_RING_COLUMNS,
    KIND_TILE_LEVELS,
    KIND_TILE_STRIDE,
    KIND_TILE_WORDS,
    META_BUMP,
    META_ENTITIES,
    META_MAX_ENTITIES,
    META_SKETCHES,
    META_TILE_LADDERS,
    OTHERS_ONLY,
    RING_CAPACITY,
    RING_CHUNK,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
)
from fraudsdk.entity_state.log_kernels import crc_of_word

MAGIC = int.from_bytes(b"fsdkPRT\x01", "little")
PART_MAGIC = 0
PART_SCHEMA = 1
PART_CHECKSUM = 2  # CRC-32C of all other words in the high half, number of words in the low half
PART_SEQUENCE = 3
PART_KIND = 4
PART_KEY = 5
PART_WORDS = 6

# What `unpack` says.
TAKEN = 0
FOREIGN = 1  # no part, or of another schema
CHANGED = 2  # not as it was packed
KNOWN = 3  # an entity of that key is remembered
NO_ROOM = 4  # grow the memory first

_LOW = 0xFFFFFFFF
_SKETCH_WORDS = SKETCH_REGISTERS * SKETCH_RANKS
_MIN_CHUNK_WORDS = 8


@device
def part_checksum(words, at, n):
    """CRC-32C of a part, the word of the checksum taken as its length."""
    crc = np.int64(_LOW)
    for word in range(n):
        crc = crc_of_word(crc, n if word == PART_CHECKSUM else words[at + word])
    return crc ^ _LOW


@device
def tiles_in_use(pool, first, kind):
    """How many tiles of a ladder were ever written to."""
    used = 0
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        for tile in range(first, first + n):
            used += pool[tile] != -1
        first += n * kind[KIND_TILE_STRIDE]
    return used


@device
def marks_in_use(pool, chunk):
    """How many words of a sketch were ever written to."""
    used = 0
    for word in range(chunk, chunk + _SKETCH_WORDS):
        used += pool[word] != NEVER_US
    return used


@device
def words_of_part(pool, head, kind):
    """Words that an entity takes when it is packed."""
    words = PART_WORDS + kind[KIND_HEAD_WORDS] - HEAD_LAST_US
    if kind[KIND_RING] != 0:
        ring_part = head + kind[KIND_RING]
        words += pool[ring_part + RING_LENGTH] * kind[KIND_RING_COLUMNS]
        if pool[ring_part + RING_TILES] != 0:
            words += 1 + tiles_in_use(pool, pool[ring_part + RING_TILES], kind) * (1 + kind[KIND_TILE_STRIDE])
    for d in range(kind[KIND_DISTINCTS]):
        part = head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        if pool[part + DISTINCT_CAPACITY] == SKETCHED:
            words += 1 + 2 * marks_in_use(pool, pool[part + DISTINCT_CHUNK])
        else:
            words += 2 * pool[part + DISTINCT_LENGTH]
    return words


@device
def pack_ring(pool, ring_part, kind, out, to):
    """The events of a ring, column by column, then its tiles; where the next word goes."""
    events = pool[ring_part + RING_CHUNK] + pool[ring_part + RING_START]
    for column in range(kind[KIND_RING_COLUMNS]):
        for k in range(pool[ring_part + RING_LENGTH]):
            out[to] = pool[events + column * pool[ring_part + RING_CAPACITY] + k]
            to += 1
    first, stride = pool[ring_part + RING_TILES], kind[KIND_TILE_STRIDE]
    if first == 0:
        return to
    out[to] = tiles_in_use(pool, first, kind)
    to += 1
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        for tile in range(n):
            if pool[first + tile] == -1:
                continue
            out[to] = (level << 32) | tile
            for word in range(stride):
                out[to + 1 + word] = pool[first + word * n + tile]
            to += 1 + stride
        first += n * stride
    return to


@device
def pack_distinct(pool, part, out, to):
    """Keys and when they were last seen, or the marks of a sketch; where the next word goes."""
    chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
    if capacity != SKETCHED:
        for k in range(pool[part + DISTINCT_LENGTH]):
            out[to] = pool[chunk + k]
            out[to + 1] = pool[chunk + capacity + k]
            to += 2
        return to
    out[to] = marks_in_use(pool, chunk)
    to += 1
    for word in range(_SKETCH_WORDS):
        if pool[chunk + word] != NEVER_US:
            out[to] = word
            out[to + 1] = pool[chunk + word]
            to += 2
    return to


@device
def pack_entity(pool, head, kind, schema, sequence, out, at):
    """Write a part; there must be room for `words_of_part`.  How many words it took."""
    out[at + PART_MAGIC] = MAGIC
    out[at + PART_SCHEMA] = schema
    out[at + PART_SEQUENCE] = sequence
    out[at + PART_KIND] = pool[head + HEAD_KIND]
    out[at + PART_KEY] = pool[head + HEAD_KEY]
    own = at + PART_WORDS - HEAD_LAST_US  # where word 0 of the head would be
    to = own + kind[KIND_HEAD_WORDS]
    for word in range(HEAD_LAST_US, kind[KIND_HEAD_WORDS]):
        out[own + word] = pool[head + word]
    out[own + HEAD_BORN] = 0  # an arrival number means something here alone
    if kind[KIND_RING] != 0:
        ring_part = kind[KIND_RING]
        out[own + ring_part + RING_CHUNK] = pool[head + ring_part + RING_CHUNK] != 0
        out[own + ring_part + RING_TILES] = pool[head + ring_part + RING_TILES] != 0
        to = pack_ring(pool, head + ring_part, kind, out, to)
    for d in range(kind[KIND_DISTINCTS]):
        part = kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        out[own + part + DISTINCT_CHUNK] = pool[head + part + DISTINCT_CHUNK] != 0
        to = pack_distinct(pool, head + part, out, to)
    n = to - at
    out[at + PART_CHECKSUM] = (part_checksum(out, at, n) << 32) | n
    return n


@device
def own_head(pool, head):
    """The head of our own events of an entity, of which `head` is what is read; 0 where there is none."""
    if head == 0 or pool[head + HEAD_BORN] >= 0:
        return np.int64(head)
    return np.int64(0 if pool[head + HEAD_BORN] == OTHERS_ONLY else -pool[head + HEAD_BORN])


@kernel("int64(int64[::1], int64[:, ::1], int64[:, ::1], int64, int64, int64[::1], int64, int64[::1], int64[::1])")
def pack(pool, kinds, table, schema, sequence, keys, first, out, ends):
    """
    Pack entities by their keys, our own events of them.

    Parameters
    ----------
    pool, kinds, table
        Of a memory.
    schema, sequence : int64
        What the words mean, and which change of state they are of.
    keys : int64[n]
    first : int64
        The key to begin with.
    out : int64[m]
        Receives parts, one after another.
    ends : int64[n]
        Receives where each part ends; the end of the one before for a key that is not known, or by others alone.

    Returns
    -------
    int64
        The key to go on with: less than `n` where `out` is full.
    """
    pool, kinds, table, keys = borrowed(pool), borrowed(kinds), borrowed(table), borrowed(keys)
    out, ends = borrowed(out), borrowed(ends)
    at = np.int64(0)
    for i in range(first, keys.shape[0]):
        head = own_head(pool, find(table, keys[i]))
        if head != 0:
            kind = kinds[pool[head + HEAD_KIND]]
            if at + words_of_part(pool, head, kind) > out.shape[0]:
                return np.int64(i)
            at += pack_entity(pool, head, kind, schema, sequence, out, at)
        ends[i] = at
    return np.int64(keys.shape[0])


@device
def is_chunk(capacity, columns):
    """Whether so many events or keys are what a chunk holds: all of a power of two of words."""
    words = capacity * columns
    size = np.int64(_MIN_CHUNK_WORDS)
    while size < words:
        size *= 2
    return capacity == size // columns


@device
def is_sound_ring(words, own, ring_part, kind):
    """Whether the numbers of a ring agree with each other."""
    at = own + ring_part
    capacity, start, length = words[at + RING_CAPACITY], words[at + RING_START], words[at + RING_LENGTH]
    if words[at + RING_CHUNK] == 0:
        return capacity == 0 and start == 0 and length == 0
    if capacity < 1 or capacity > 4 * kind[KIND_RING_CAP] or not is_chunk(capacity, kind[KIND_RING_COLUMNS]):
        return False
    # No sum of what was read: it could wrap round.
    return 0 <= length <= kind[KIND_RING_CAP] and 0 <= start <= capacity - length


@device
def after_tiles(words, to, end, kind):
    """Where the tiles of a part end; -1 where they are not sound."""
    if to >= end or words[to] < 0 or words[to] > kind[KIND_TILE_WORDS]:
        return np.int64(-1)
    used, stride = words[to], kind[KIND_TILE_STRIDE]
    to += 1
    for _ in range(used):
        if to + 1 + stride > end:
            return np.int64(-1)
        level, tile = words[to] >> 32, words[to] & _LOW
        if level < 0 or level >= kind[KIND_TILE_LEVELS] or tile >= tiles_on_level(kind, level):
            return np.int64(-1)
        to += 1 + stride
    return np.int64(to)


@device
def after_distinct(words, part, to, end):
    """Where the keys or marks of a part end; -1 where they are not sound."""
    capacity, length = words[part + DISTINCT_CAPACITY], words[part + DISTINCT_LENGTH]
    if capacity != SKETCHED:
        if words[part + DISTINCT_CHUNK] == 0:
            return np.int64(to) if capacity == 0 and length == 0 else np.int64(-1)
        if not 1 <= capacity <= DISTINCT_EXACT_MAX or not is_chunk(capacity, 2) or not 0 <= length <= capacity:
            return np.int64(-1)
        return np.int64(to + 2 * length)
    if to >= end or words[to] < 0 or words[to] > _SKETCH_WORDS or to + 1 + 2 * words[to] > end:
        return np.int64(-1)
    for mark in range(words[to]):
        if not 0 <= words[to + 1 + 2 * mark] < _SKETCH_WORDS:
            return np.int64(-1)
    return np.int64(to + 1 + 2 * words[to])


@device
def is_sound(words, at, n, kind):
    """Whether a part is what `pack_entity` could have written: no number in it leads outside."""
    own = at + PART_WORDS - HEAD_LAST_US
    to, end = own + kind[KIND_HEAD_WORDS], at + n
    if to > end:
        return False
    if kind[KIND_RING] != 0:
        if not is_sound_ring(words, own, kind[KIND_RING], kind):
            return False
        ring_part = own + kind[KIND_RING]
        to += words[ring_part + RING_LENGTH] * kind[KIND_RING_COLUMNS]
        if words[ring_part + RING_TILES] != 0:
            to = after_tiles(words, to, end, kind)
            if to < 0:
                return False
    for d in range(kind[KIND_DISTINCTS]):
        if to > end:
            return False
        to = after_distinct(words, own + kind[KIND_DISTINCT] + d * DISTINCT_WORDS, to, end)
        if to < 0:
            return False
    return to == end


@device
def unpack_ring(words, to, pool, meta, ring_part, kind):
    """Give a ring its chunk, its events and its tiles; where the next word is.  Its numbers are in the head already."""
    columns, capacity, length = kind[KIND_RING_COLUMNS], pool[ring_part + RING_CAPACITY], pool[ring_part + RING_LENGTH]
    if pool[ring_part + RING_CHUNK] != 0:
        chunk = allocate(pool, meta, capacity * columns)
        pool[ring_part + RING_CHUNK] = chunk
        for column in range(columns):
            for k in range(length):
                pool[chunk + column * capacity + pool[ring_part + RING_START] + k] = words[to]
                to += 1
    if pool[ring_part + RING_TILES] == 0:
        return to
    first, stride = allocate(pool, meta, kind[KIND_TILE_WORDS]), kind[KIND_TILE_STRIDE]
    pool[ring_part + RING_TILES] = first
    meta[META_TILE_LADDERS] += 1
    begin = first
    for level in range(kind[KIND_TILE_LEVELS]):
        n = tiles_on_level(kind, level)
        for tile in range(begin, begin + n):
            pool[tile] = -1
        begin += n * stride
    used = words[to]
    to += 1
    for _ in range(used):
        level, tile = words[to] >> 32, words[to] & _LOW
        begin = first
        for finer in range(level):
            begin += tiles_on_level(kind, finer) * stride
        for word in range(stride):
            pool[begin + word * tiles_on_level(kind, level) + tile] = words[to + 1 + word]
        to += 1 + stride
    return to


@device
def unpack_distinct(words, to, pool, meta, part):
    """Give distinct keys their chunk, or a sketch; where the next word is."""
    capacity = pool[part + DISTINCT_CAPACITY]
    if capacity == SKETCHED:
        chunk = allocate(pool, meta, _SKETCH_WORDS)
        pool[part + DISTINCT_CHUNK] = chunk
        meta[META_SKETCHES] += 1
        for word in range(chunk, chunk + _SKETCH_WORDS):
            pool[word] = NEVER_US
        for mark in range(words[to]):
            pool[chunk + words[to + 1 + 2 * mark]] = words[to + 2 + 2 * mark]
        return to + 1 + 2 * words[to]
    if pool[part + DISTINCT_CHUNK] == 0:
        return to
    chunk = allocate(pool, meta, 2 * capacity)
    pool[part + DISTINCT_CHUNK] = chunk
    for k in range(pool[part + DISTINCT_LENGTH]):
        pool[chunk + k] = words[to]
        pool[chunk + capacity + k] = words[to + 1]
        to += 2
    return to


@device
def problem_with(words, at, n, schema, kinds):
    """`TAKEN` where a part may be taken up, else why it may not."""
    if n < PART_WORDS or words[at + PART_MAGIC] != MAGIC or words[at + PART_SCHEMA] != schema:
        return np.int64(FOREIGN)
    checksum = words[at + PART_CHECKSUM]
    if checksum & _LOW != n or (checksum >> 32) & _LOW != part_checksum(words, at, n):
        return np.int64(CHANGED)
    if not 0 <= words[at + PART_KIND] < kinds.shape[0] or words[at + PART_KEY] == 0:
        return np.int64(CHANGED)
    return np.int64(TAKEN if is_sound(words, at, n, kinds[words[at + PART_KIND]]) else CHANGED)


@device
def unpack_into(words, at, pool, meta, head, kind):
    """Make a blank head what a sound part says."""
    own = at + PART_WORDS - HEAD_LAST_US
    for word in range(HEAD_LAST_US, kind[KIND_HEAD_WORDS]):
        pool[head + word] = words[own + word]
    pool[head + HEAD_BORN] = 0  # it has seen whatever the journal knows of it
    to = own + kind[KIND_HEAD_WORDS]
    if kind[KIND_RING] != 0:
        to = unpack_ring(words, to, pool, meta, head + kind[KIND_RING], kind)
    for d in range(kind[KIND_DISTINCTS]):
        to = unpack_distinct(words, to, pool, meta, head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS)


@kernel("int64(int64[::1], int64, int64[::1], float64[::1], int64[:, ::1], int64[::1], int64[:, ::1], int64)")
def unpack(words, schema, pool, poolf, table, meta, kinds, bump_max):
    """
    Take up one entity; the most recently used one from then on.

    Parameters
    ----------
    words : int64[n]
        A part.
    schema : int64
        What words must mean.
    pool, poolf, table, meta, kinds
        Of a memory; `pool` and `poolf` are the same words.
    bump_max : int64
        Of the memory.

    Returns
    -------
    int64
        `TAKEN`, or why nothing was done: `FOREIGN`, `CHANGED`, `KNOWN` or `NO_ROOM`.
    """
    words, pool, poolf, table = borrowed(words), borrowed(pool), borrowed(poolf), borrowed(table)
    meta, kinds = borrowed(meta), borrowed(kinds)
    problem = problem_with(words, 0, words.shape[0], schema, kinds)
    if problem != TAKEN:
        return problem
    if find(table, words[PART_KEY]) != 0:
        return np.int64(KNOWN)
    if meta[META_BUMP] > bump_max:
        return np.int64(NO_ROOM)
    while meta[META_ENTITIES] >= meta[META_MAX_ENTITIES]:
        evict_oldest(pool, table, meta, kinds)
    kind = kinds[words[PART_KIND]]
    head = create(pool, poolf, table, meta, kind, words[PART_KIND], words[PART_KEY])
    unpack_into(words, 0, pool, meta, head, kind)
    return np.int64(TAKEN)
