"""
Whether the words of a memory are some that the kernels could have left: every number that leads somewhere leads inside.

Checksums tell what was changed by accident.  This tells whether what has a right checksum may be walked: each chunk lies in the
pool and belongs to one owner, lists end, and a ring or a sketch has the room that it says.
"""

from __future__ import annotations

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.entity_state.kernels import find, insert, size_class
from fraudsdk.entity_state.layout import (
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_EXACT_MAX,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    HEAD_KEY,
    HEAD_KIND,
    HEAD_NEWER,
    HEAD_OLDER,
    HEAD_WORDS,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_HEAD_WORDS,
    KIND_RING,
    KIND_RING_CAP,
    KIND_RING_COLUMNS,
    KIND_TILE_WORDS,
    META_BUMP,
    META_ENTITIES,
    META_FREE,
    META_JOURNAL_NEXT,
    META_NEWEST,
    META_OLDEST,
    RING_CAPACITY,
    RING_CHUNK,
    RING_LENGTH,
    RING_START,
    RING_TILES,
    SIZE_CLASSES,
    SKETCH_RANKS,
    SKETCH_REGISTERS,
    SKETCHED,
)

# Chunks are whole units, and the first unit is nobody's.
UNIT_WORDS = 8
_SMALLEST_CLASS = 3


@device
def is_chunk(capacity, columns):
    """Whether so many events or keys are what a chunk holds: all of a power of two of words."""
    words = capacity * columns
    size = UNIT_WORDS
    while size < words:
        size *= 2
    return capacity == size // columns


@device
def claim(claimed, chunk, words):
    """Let a chunk have an owner; False where it does not lie in the pool or has one already."""
    size = 1 << size_class(words)
    if chunk < UNIT_WORDS or chunk % UNIT_WORDS != 0 or chunk > claimed.shape[0] * UNIT_WORDS - size:
        return False
    for unit in range(chunk // UNIT_WORDS, (chunk + size) // UNIT_WORDS):
        if claimed[unit] != 0:
            return False
        claimed[unit] = 1
    return True


@device
def is_sound_ring_in(pool, ring_part, kind, claimed):
    """Whether a ring has its chunk, and its tiles theirs."""
    chunk, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    start, length = pool[ring_part + RING_START], pool[ring_part + RING_LENGTH]
    if chunk == 0:
        if capacity != 0 or start != 0 or length != 0:
            return False
    else:
        if capacity < 1 or capacity > 4 * kind[KIND_RING_CAP] or not is_chunk(capacity, kind[KIND_RING_COLUMNS]):
            return False
        if not 0 <= length <= kind[KIND_RING_CAP] or length > capacity or not 0 <= start <= capacity - length:
            return False
        if not claim(claimed, chunk, capacity * kind[KIND_RING_COLUMNS]):
            return False
    tiles = pool[ring_part + RING_TILES]
    return tiles == 0 or claim(claimed, tiles, kind[KIND_TILE_WORDS])


@device
def is_sound_distinct_in(pool, part, claimed):
    """Whether distinct keys, or their sketch, have their chunk."""
    chunk, capacity, length = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY], pool[part + DISTINCT_LENGTH]
    if capacity == SKETCHED:
        return claim(claimed, chunk, SKETCH_REGISTERS * SKETCH_RANKS)
    if chunk == 0:
        return capacity == 0 and length == 0
    if not 1 <= capacity <= DISTINCT_EXACT_MAX or not is_chunk(capacity, 2) or not 0 <= length <= capacity:
        return False
    return claim(claimed, chunk, 2 * capacity)


@device
def is_sound_entity(pool, head, older, kinds, claimed):
    """Whether an entity lies in the pool with all that it has, and in the list after `older`."""
    if not claim(claimed, head, HEAD_WORDS) or not 0 <= pool[head + HEAD_KIND] < kinds.shape[0]:
        return False
    kind = kinds[pool[head + HEAD_KIND]]
    # The first units of a head are claimed, which say how many there are.
    for unit in range(head // UNIT_WORDS, head // UNIT_WORDS + HEAD_WORDS // UNIT_WORDS):
        claimed[unit] = 0
    if (
        not claim(claimed, head, kind[KIND_HEAD_WORDS])
        or pool[head + HEAD_KEY] == 0
        or pool[head + HEAD_OLDER] != older
    ):
        return False
    if kind[KIND_RING] != 0 and not is_sound_ring_in(pool, head + kind[KIND_RING], kind, claimed):
        return False
    for d in range(kind[KIND_DISTINCTS]):
        if not is_sound_distinct_in(pool, head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS, claimed):
            return False
    return True


@device
def are_sound_free_lists(pool, meta, claimed):
    """Whether what is free is nobody's, and free once."""
    for size in range(SIZE_CLASSES):
        chunk = meta[META_FREE + size]
        if chunk != 0 and size < _SMALLEST_CLASS:
            return False
        while chunk != 0:
            if not claim(claimed, chunk, 1 << size):
                return False
            chunk = pool[chunk]
    return True


@kernel("boolean(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int8[::1])")
def is_sound_memory(pool, meta, kinds, table, claimed):
    """
    Whether a memory may be walked.

    Parameters
    ----------
    pool : int64[n]
        As far as it is in use.
    meta, kinds
        Of the memory and its layout.
    table : int64[m, 2]
        Zeros, for twice as many entities as `meta` says that there are, and a power of two.
    claimed : int8[n // UNIT_WORDS]
        Zeros; says afterwards which units have an owner.
    """
    pool, meta, kinds = borrowed(pool), borrowed(meta), borrowed(kinds)
    table, claimed = borrowed(table), borrowed(claimed)
    n = pool.shape[0]
    if n < UNIT_WORDS or n % UNIT_WORDS != 0 or meta[META_BUMP] != n or meta[META_JOURNAL_NEXT] < 0:
        return False
    older, head, entities = 0, meta[META_OLDEST], 0
    while head != 0:
        if entities == meta[META_ENTITIES] or not is_sound_entity(pool, head, older, kinds, claimed):
            return False
        if find(table, pool[head + HEAD_KEY]) != 0:
            return False
        insert(table, pool[head + HEAD_KEY], head)
        older, head = head, pool[head + HEAD_NEWER]
        entities += 1
    if older != meta[META_NEWEST] or entities != meta[META_ENTITIES]:
        return False
    return are_sound_free_lists(pool, meta, claimed)
