"""
What of a memory, a part or a log is about one identifier, and how it is taken out.

The key of an entity is ``mix64(... mix64(salt ^ id_0) ^ id_1 ...)``, and `mix64` can be undone: from the key of a pair and one of
its identifiers the other one follows.  It follows for any key, so that it must be known from elsewhere to be believed.

A *set* here is an ``int64[2**n]`` of keys that are not 0, open-addressed; 0 is a free place.
"""

from __future__ import annotations

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk.domain.fields import ORIGINAL_KEY, TRANSACTION_KEY
from fraudsdk.entity_state.kernels import (
    FLAG_BITS,
    find,
    forget,
    journal_find,
    journal_remove,
    mix64,
    ring_find,
    size_class,
)
from fraudsdk.entity_state.layout import (
    COLUMN_TAG,
    DISTINCT_CAPACITY,
    DISTINCT_CHUNK,
    DISTINCT_IDENTIFIER,
    DISTINCT_LENGTH,
    DISTINCT_WORDS,
    HEAD_BORN,
    HEAD_KEY,
    HEAD_KIND,
    HEAD_LAST_US,
    HEAD_NEWER,
    JOURNAL_KEY,
    JOURNAL_TIME_US,
    KIND_COMPONENT_0,
    KIND_COMPONENTS,
    KIND_DISTINCT,
    KIND_DISTINCTS,
    KIND_FIRST_DISTINCT,
    KIND_HEAD_WORDS,
    KIND_JOURNAL,
    KIND_RING,
    KIND_RING_COLUMNS,
    KIND_SALT,
    KIND_TILE_WORDS,
    META_FREE,
    META_JOURNAL_NEXT,
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
from fraudsdk.entity_state.log_format import EVENT, EVENT_INTS, RECORD_KIND
from fraudsdk.entity_state.part_kernels import (
    PART_CHECKSUM,
    PART_KEY,
    PART_KIND,
    PART_WORDS,
    after_tiles,
    part_checksum,
)

_UNMIX_1 = -7575587736534282103  # 0x96DE1B173F119089, the inverse of `mix64`'s first factor modulo 2**64
_UNMIX_2 = 3573116690164977347  # 0x319642B2D24D8EC3, and of its second
_LOW = 0xFFFFFFFF
# No set is filled beyond a half, so that a search for what is not there ends soon.
FULL = -1


# --- keys ------------------------------------------------------------------------------------------------------------


@device
def unmix64(x):
    """What `mix64` made `x` of."""
    x = (x ^ ((x >> 31) & ((1 << 33) - 1)) ^ ((x >> 62) & 3)) * _UNMIX_2
    x = (x ^ ((x >> 27) & ((1 << 37) - 1)) ^ ((x >> 54) & ((1 << 10) - 1))) * _UNMIX_1
    return x ^ ((x >> 30) & ((1 << 34) - 1)) ^ ((x >> 60) & 15)


@device
def single_key(kind, identifier):
    """Key of an entity of one component."""
    return mix64(kind[KIND_SALT] ^ identifier)


@device
def other_component(kind, key, place, identifier):
    """The identifier that makes this the key of a pair, with the given one in its place."""
    if place == 0:
        return unmix64(key) ^ mix64(kind[KIND_SALT] ^ identifier)
    return unmix64(unmix64(key) ^ identifier) ^ kind[KIND_SALT]


@device
def names_column(kind, column):
    """Whether keys of this kind are made of a column."""
    is_named = False
    for c in range(kind[KIND_COMPONENTS]):
        is_named |= kind[KIND_COMPONENT_0 + c] == column
    return is_named


@device
def contains(keys, key):
    """Whether a key is in a set."""
    mask = keys.shape[0] - 1
    i = key & mask
    while keys[i] != 0:
        if keys[i] == key:
            return True
        i = (i + 1) & mask
    return False


@device
def put(keys, key):
    """Add a key that is not 0 to a set that is not full; how many more are in it."""
    mask = keys.shape[0] - 1
    i = key & mask
    while keys[i] != 0:
        if keys[i] == key:
            return np.int64(0)
        i = (i + 1) & mask
    keys[i] = key
    return np.int64(1)


@kernel("void(int64[::1], int64[::1])")
def fill(keys, members):
    """Put members into a set that has room for them."""
    keys, members = borrowed(keys), borrowed(members)
    for i in range(members.shape[0]):
        put(keys, members[i])


@device
def is_known(identifier, column, kinds, table, known):
    """Whether an identifier of a column was ever met: it is among those given, or its own entity is remembered."""
    if contains(known, identifier):
        return True
    for k in range(kinds.shape[0]):
        kind = kinds[k]
        if kind[KIND_COMPONENTS] == 1 and kind[KIND_COMPONENT_0] == column:
            return find(table, single_key(kind, identifier)) != 0
    return False


@device
def belongs(key, kind, column, identifier, kinds, table, known):
    """Whether the entity of a key is one of an identifier, alone or in a pair; of three and more it is not known."""
    if kind[KIND_COMPONENTS] == 1:
        return kind[KIND_COMPONENT_0] == column and key == single_key(kind, identifier)
    if kind[KIND_COMPONENTS] == 2:
        for place in range(2):
            if kind[KIND_COMPONENT_0 + place] == column:
                other = other_component(kind, key, place, identifier)
                if is_known(other, kind[KIND_COMPONENT_0 + 1 - place], kinds, table, known):
                    return True
    return False


# --- find ------------------------------------------------------------------------------------------------------------


@kernel("int64(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[::1])")
def know_counted(pool, meta, kinds, distincts, columns, known):
    """
    Put the identifiers of distinct counts into a set.

    Parameters
    ----------
    pool, meta, kinds, distincts
        Of a memory.
    columns : int64[n]
        Columns whose identifiers are wanted.
    known : int64[2**n]

    Returns
    -------
    int64
        How many there are now; `FULL` where the set is too small.
    """
    pool, meta, kinds, distincts = borrowed(pool), borrowed(meta), borrowed(kinds), borrowed(distincts)
    columns, known = borrowed(columns), borrowed(known)
    n = np.int64(0)
    for i in range(known.shape[0]):
        n += known[i] != 0
    head = meta[META_OLDEST]
    while head != 0:
        kind = kinds[pool[head + HEAD_KIND]]
        for d in range(kind[KIND_DISTINCTS]):
            part = head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
            is_wanted = False
            for c in range(columns.shape[0]):
                is_wanted |= columns[c] == distincts[kind[KIND_FIRST_DISTINCT] + d, DISTINCT_IDENTIFIER]
            if not is_wanted or pool[part + DISTINCT_CAPACITY] == SKETCHED:
                continue
            for k in range(pool[part + DISTINCT_LENGTH]):
                if 2 * n >= known.shape[0]:
                    return np.int64(FULL)
                n += put(known, pool[pool[part + DISTINCT_CHUNK] + k])
        head = pool[head + HEAD_NEWER]
    return n


@kernel("boolean(int64[::1], int64[::1], int64[:, ::1], int64, int64[::1])")
def know_alone(pool, meta, kinds, column, known):
    """Put the identifiers of the entities of one column into a set; False where it is too small."""
    pool, meta, kinds, known = borrowed(pool), borrowed(meta), borrowed(kinds), borrowed(known)
    n, head = np.int64(0), meta[META_OLDEST]
    for i in range(known.shape[0]):
        n += known[i] != 0
    while head != 0:
        kind = kinds[pool[head + HEAD_KIND]]
        if kind[KIND_COMPONENTS] == 1 and kind[KIND_COMPONENT_0] == column:
            if 2 * n >= known.shape[0]:
                return False
            n += put(known, unmix64(pool[head + HEAD_KEY]) ^ kind[KIND_SALT])
        head = pool[head + HEAD_NEWER]
    return True


@kernel("boolean(int64[::1], int64, int64, int64[::1])")
def know_logged(words, at, column, known):
    """Put the identifiers that logged transactions have in a column into a set; False where it is too small."""
    words, known, n = borrowed(words), borrowed(known), np.int64(0)
    for i in range(known.shape[0]):
        n += known[i] != 0
    while at < words.shape[0]:
        if words[at + RECORD_KIND] == EVENT and words[at + EVENT_INTS + column] != 0:
            if 2 * n >= known.shape[0]:
                return False
            n += put(known, words[at + EVENT_INTS + column])
        at += words[at] & _LOW
    return True


@kernel("int64(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64, int64, int64[::1], int64[::1])")
def find_entities(pool, meta, table, kinds, column, identifier, known, out):
    """
    Keys of the entities of an identifier, alone and in pairs.

    Parameters
    ----------
    pool, meta, table, kinds
        Of a memory.
    column, identifier : int64
        Where in a transaction, and its keyed hash.
    known : int64[2**n]
        Identifiers that were met, besides those whose own entities are remembered.
    out : int64[m]
        Receives keys, as many as there is room for.

    Returns
    -------
    int64
        How many there are.
    """
    pool, meta, table, kinds = borrowed(pool), borrowed(meta), borrowed(table), borrowed(kinds)
    known, out = borrowed(known), borrowed(out)
    n = np.int64(0)
    head = meta[META_OLDEST]
    while head != 0:
        kind = kinds[pool[head + HEAD_KIND]]
        if belongs(pool[head + HEAD_KEY], kind, column, identifier, kinds, table, known):
            if n < out.shape[0]:
                out[n] = pool[head + HEAD_KEY]
            n += 1
        head = pool[head + HEAD_NEWER]
    return n


@device
def journalled_identifier(journal, row, kinds, column):
    """The identifier of a column, where a row of the journal has the key of its own entity; else 0."""
    for k in range(kinds.shape[0]):
        word = kinds[k, KIND_JOURNAL]
        if word != 0 and kinds[k, KIND_COMPONENTS] == 1 and kinds[k, KIND_COMPONENT_0] == column:
            return np.int64(0) if journal[row, word] == 0 else unmix64(journal[row, word]) ^ kinds[k, KIND_SALT]
    return np.int64(0)


@device
def is_joined(journal, row, kinds, k, column, identifier):
    """Whether a row of the journal has the key that an identifier makes with the others which the row tells."""
    key, kind = kinds[k, KIND_SALT], kinds[k]
    for c in range(kind[KIND_COMPONENTS]):
        other = kind[KIND_COMPONENT_0 + c]
        its = identifier if other == column else journalled_identifier(journal, row, kinds, other)
        if its == 0:
            return False
        key = mix64(key ^ its)
    return key == journal[row, kind[KIND_JOURNAL]]


@kernel("UniTuple(int64, 2)(int64[:, ::1], int64[:, ::1], int64, int64, int64, int64[::1], int64[::1])")
def find_transactions(journal, kinds, n_rows, column, identifier, keys, out):
    """
    Transactions of the entities of an identifier, and the other entities that they say are of it.

    Parameters
    ----------
    journal : int64[n, journal_words]
    kinds
        Of its layout.
    n_rows : int64
        Of the journal in use.
    column, identifier : int64
        Where in a transaction, and its keyed hash.
    keys : int64[2**n]
        A set of entities; those of the rows are added, so that a second look may find more.
    out : int64[m]
        Receives keys of transactions, as many as there is room for.

    Returns
    -------
    n_transactions, n_added : int64
        `n_added` is `FULL` where the set is too small.
    """
    journal, kinds, keys, out = borrowed(journal), borrowed(kinds), borrowed(keys), borrowed(out)
    n, n_added, n_keys = np.int64(0), np.int64(0), np.int64(0)
    for i in range(keys.shape[0]):
        n_keys += keys[i] != 0
    for row in range(n_rows):
        is_ours = False
        for k in range(kinds.shape[0]):
            word = kinds[k, KIND_JOURNAL]
            if word != 0 and journal[row, word] != 0 and names_column(kinds[k], column):
                is_ours |= contains(keys, journal[row, word]) or is_joined(journal, row, kinds, k, column, identifier)
        if not is_ours:
            continue
        if n < out.shape[0]:
            out[n] = journal[row, JOURNAL_KEY]
        n += 1
        for k in range(kinds.shape[0]):
            word = kinds[k, KIND_JOURNAL]
            if word != 0 and journal[row, word] != 0 and names_column(kinds[k], column):
                if 2 * (n_keys + n_added) >= keys.shape[0]:
                    return n, np.int64(FULL)
                n_added += put(keys, journal[row, word])
    return n, n_added


@device
def logged_key(words, at, kind):
    """Key of the entity of a kind that a logged transaction names, or 0; as `fraudsdk.entity_state.kernels.entity_key`."""
    key = kind[KIND_SALT]
    for c in range(kind[KIND_COMPONENTS]):
        identifier = words[at + EVENT_INTS + kind[KIND_COMPONENT_0 + c]]
        if identifier == 0:
            return np.int64(0)
        key = mix64(key ^ identifier)
    return key if key != 0 else np.int64(1)


@kernel("boolean(int64[::1], int64, int64[:, ::1], int64, int64, int64, int64[::1], int64[::1])")
def trace_in_log(words, at, kinds, column, identifier, is_own, entities, transactions):
    """
    Put the keys of what logged transactions say of an identifier into two sets.

    Parameters
    ----------
    words : int64[n]
        Of a segment, intact.
    at : int64
        Where the first record begins.
    kinds
        Of the layout of the memory.
    column, identifier : int64
    is_own : int64
        1: a transaction with the identifier in this column is the subject's own; 0: its entities alone are about the subject.
    entities, transactions : int64[2**n]

    Returns
    -------
    bool
        False where a set is too small.
    """
    words, kinds, entities, transactions = borrowed(words), borrowed(kinds), borrowed(entities), borrowed(transactions)
    n_entities, n_transactions = np.int64(0), np.int64(0)
    for i in range(entities.shape[0]):
        n_entities += entities[i] != 0
    for i in range(transactions.shape[0]):
        n_transactions += transactions[i] != 0
    while at < words.shape[0]:
        if words[at + RECORD_KIND] == EVENT and words[at + EVENT_INTS + column] == identifier:
            if 2 * (n_entities + kinds.shape[0]) > entities.shape[0] or 2 * n_transactions + 4 > transactions.shape[0]:
                return False
            if is_own == 1:
                n_transactions += put(transactions, words[at + EVENT_INTS + TRANSACTION_KEY])
            if is_own == 1 and words[at + EVENT_INTS + ORIGINAL_KEY] != 0:
                n_transactions += put(transactions, words[at + EVENT_INTS + ORIGINAL_KEY])
            for k in range(kinds.shape[0]):
                if names_column(kinds[k], column):
                    key = logged_key(words, at, kinds[k])
                    if key != 0:
                        n_entities += put(entities, key)
        at += words[at] & _LOW
    return True


# --- take out --------------------------------------------------------------------------------------------------------


@device
def unlink_event(pool, table, kind, journal, row, arrival):
    """Take the transaction's key out of the event that an entity has of it: the event is nobody's from then on."""
    head = find(table, journal[row, kind[KIND_JOURNAL]])
    # As for a label: an entity that was forgotten and is back never saw it.
    if head == 0 or arrival < pool[head + HEAD_BORN] or pool[head + kind[KIND_RING] + RING_CHUNK] == 0:
        return
    at = ring_find(pool, head, kind, journal[row, JOURNAL_TIME_US], journal[row, JOURNAL_KEY])
    if at >= 0:
        ring_part = head + kind[KIND_RING]
        pool[pool[ring_part + RING_CHUNK] + COLUMN_TAG * pool[ring_part + RING_CAPACITY] + at] &= FLAG_BITS


@kernel("int64(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[::1], int64[:, ::1], int64[::1])")
def forget_transactions(pool, meta, table, journal, index, kinds, keys):
    """Take transactions out of the journal, and their keys out of the events of others; how many were there."""
    pool, meta, table, journal = borrowed(pool), borrowed(meta), borrowed(table), borrowed(journal)
    index, kinds, keys = borrowed(index), borrowed(kinds), borrowed(keys)
    n, newest = np.int64(0), meta[META_JOURNAL_NEXT] - 1
    for i in range(keys.shape[0]):
        row = journal_find(journal, index, keys[i])
        if row < 0:
            continue
        arrival = newest - (newest - row) % journal.shape[0]
        for k in range(kinds.shape[0]):
            if kinds[k, KIND_JOURNAL] != 0 and journal[row, kinds[k, KIND_JOURNAL]] != 0:
                unlink_event(pool, table, kinds[k], journal, row, arrival)
        journal_remove(journal, index, row)
        journal[row, :] = 0
        n += 1
    return n


@kernel("int64(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64[::1])")
def forget_entities(pool, meta, table, kinds, keys):
    """Forget entities; how many were remembered."""
    pool, meta, table, kinds, keys = borrowed(pool), borrowed(meta), borrowed(table), borrowed(kinds), borrowed(keys)
    n = np.int64(0)
    for i in range(keys.shape[0]):
        head = find(table, keys[i])
        if head != 0:
            forget(pool, table, meta, kinds, head)
            n += 1
    return n


@kernel("void(int64[:, ::1], int64[:, ::1], int64, int64[::1])")
def unname(journal, kinds, n_rows, keys):
    """Take a set of entities out of the journal: transactions of others that named one name one less."""
    journal, kinds, keys = borrowed(journal), borrowed(kinds), borrowed(keys)
    for row in range(n_rows):
        for k in range(kinds.shape[0]):
            word = kinds[k, KIND_JOURNAL]
            if word != 0 and journal[row, word] != 0 and contains(keys, journal[row, word]):
                journal[row, word] = 0


@device
def close_gap(words, first, n, k):
    """Move what comes after place `k` of `n` one place down, and empty the last place."""
    for place in range(first + k, first + n - 1):
        words[place] = words[place + 1]
    words[first + n - 1] = 0


@kernel("int64(int64[::1], int64[::1], int64[:, ::1], int64[:, ::1], int64, int64)")
def strike(pool, meta, kinds, distincts, column, identifier):
    """Take an identifier out of the distinct keys of every entity; of how many.  A sketch has none."""
    pool, meta, kinds, distincts = borrowed(pool), borrowed(meta), borrowed(kinds), borrowed(distincts)
    n, head = np.int64(0), meta[META_OLDEST]
    while head != 0:
        kind = kinds[pool[head + HEAD_KIND]]
        for d in range(kind[KIND_DISTINCTS]):
            part = head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
            chunk, capacity = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY]
            if capacity == SKETCHED or distincts[kind[KIND_FIRST_DISTINCT] + d, DISTINCT_IDENTIFIER] != column:
                continue
            length = pool[part + DISTINCT_LENGTH]
            for k in range(length):
                if pool[chunk + k] == identifier:
                    close_gap(pool, chunk, length, k)
                    close_gap(pool, chunk + capacity, length, k)
                    pool[part + DISTINCT_LENGTH] = length - 1
                    n += 1
                    break
        head = pool[head + HEAD_NEWER]
    return n


# --- what is left in unused words -------------------------------------------------------------------------------------


@device
def wipe(pool, first, end):
    """Zero words."""
    for word in range(first, end):
        pool[word] = 0


@device
def wipe_chunk(pool, chunk, used):
    """Zero what a chunk has beyond the words that were asked for."""
    wipe(pool, chunk + used, chunk + (1 << size_class(used)))


@device
def wipe_ring(pool, ring_part, kind):
    """Zero the places of a ring that hold no event any more, or none yet."""
    ring, capacity = pool[ring_part + RING_CHUNK], pool[ring_part + RING_CAPACITY]
    start, length, columns = pool[ring_part + RING_START], pool[ring_part + RING_LENGTH], kind[KIND_RING_COLUMNS]
    for column in range(columns):
        first = ring + column * capacity
        wipe(pool, first, first + start)
        wipe(pool, first + start + length, first + capacity)
    wipe_chunk(pool, ring, capacity * columns)


@device
def wipe_distinct(pool, part):
    """Zero the places of distinct keys that hold none."""
    chunk, capacity, length = pool[part + DISTINCT_CHUNK], pool[part + DISTINCT_CAPACITY], pool[part + DISTINCT_LENGTH]
    if capacity == SKETCHED:
        wipe_chunk(pool, chunk, SKETCH_REGISTERS * SKETCH_RANKS)
    elif chunk != 0:
        wipe(pool, chunk + length, chunk + capacity)
        wipe(pool, chunk + capacity + length, chunk + 2 * capacity)
        wipe_chunk(pool, chunk, 2 * capacity)


@kernel("void(int64[::1], int64[::1], int64[:, ::1])")
def scrub(pool, meta, kinds):
    """Zero every word of a pool that nothing reads: a snapshot writes the pool as it is, what was there before too."""
    pool, meta, kinds = borrowed(pool), borrowed(meta), borrowed(kinds)
    for exponent in range(SIZE_CLASSES):
        chunk = meta[META_FREE + exponent]
        while chunk != 0:
            wipe(pool, chunk + 1, chunk + (1 << exponent))  # its first word says which one is free next
            chunk = pool[chunk]
    head = meta[META_OLDEST]
    while head != 0:
        kind = kinds[pool[head + HEAD_KIND]]
        wipe_chunk(pool, head, kind[KIND_HEAD_WORDS])
        if kind[KIND_RING] != 0:
            ring_part = head + kind[KIND_RING]
            if pool[ring_part + RING_CHUNK] != 0:
                wipe_ring(pool, ring_part, kind)
            if pool[ring_part + RING_TILES] != 0:
                wipe_chunk(pool, pool[ring_part + RING_TILES], kind[KIND_TILE_WORDS])
        for d in range(kind[KIND_DISTINCTS]):
            wipe_distinct(pool, head + kind[KIND_DISTINCT] + d * DISTINCT_WORDS)
        head = pool[head + HEAD_NEWER]


# --- parts -----------------------------------------------------------------------------------------------------------


@kernel("int64(int64[::1], int64[:, ::1], int64[:, ::1], int64[::1])")
def know_part(words, kinds, distincts, known):
    """
    Put what a sound part says of identifiers into a set: its own, where it is of one, and those it counts.

    Returns
    -------
    int64
        How many were added; `FULL` where the set may be too small.
    """
    words, kinds, distincts, known = borrowed(words), borrowed(kinds), borrowed(distincts), borrowed(known)
    kind, n, n_known = kinds[words[PART_KIND]], np.int64(0), np.int64(0)
    for i in range(known.shape[0]):
        n_known += known[i] != 0
    if 2 * (n_known + words.shape[0]) > known.shape[0]:
        return np.int64(FULL)
    if kind[KIND_COMPONENTS] == 1:
        identifier = unmix64(words[PART_KEY]) ^ kind[KIND_SALT]
        if identifier != 0:
            n += put(known, identifier)
    to = first_distinct(words, kind)
    for d in range(kind[KIND_DISTINCTS]):
        part = PART_WORDS - HEAD_LAST_US + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        if words[part + DISTINCT_CAPACITY] != SKETCHED:
            for k in range(words[part + DISTINCT_LENGTH]):
                n += put(known, words[to + 2 * k])
        to = after_keys(words, part, to)
    return n


@device
def first_distinct(words, kind):
    """Where in a sound part the distinct keys begin."""
    own = PART_WORDS - HEAD_LAST_US
    to = own + kind[KIND_HEAD_WORDS]
    if kind[KIND_RING] != 0:
        ring_part = own + kind[KIND_RING]
        to += words[ring_part + RING_LENGTH] * kind[KIND_RING_COLUMNS]
        if words[ring_part + RING_TILES] != 0:
            to = after_tiles(words, to, words.shape[0], kind)
    return to


@device
def after_keys(words, part, to):
    """Where the keys or marks of a sound part end that begin at `to`."""
    if words[part + DISTINCT_CAPACITY] == SKETCHED:
        return to + 1 + 2 * words[to]
    return to + 2 * words[part + DISTINCT_LENGTH]


@kernel("boolean(int64[::1], int64[:, ::1], int64, int64, int64[:, ::1], int64[::1])")
def part_belongs(words, kinds, column, identifier, table, known):
    """Whether a sound part is that of an entity of an identifier; `table` may be empty."""
    words, kinds, table, known = borrowed(words), borrowed(kinds), borrowed(table), borrowed(known)
    return belongs(words[PART_KEY], kinds[words[PART_KIND]], column, identifier, kinds, table, known)


@kernel("int64(int64[::1], int64[:, ::1], int64[:, ::1], int64, int64)")
def strike_from_part(words, kinds, distincts, column, identifier):
    """Take an identifier out of the distinct keys of a sound part, and seal it again; how many words it has then."""
    words, kinds, distincts = borrowed(words), borrowed(kinds), borrowed(distincts)
    kind, n = kinds[words[PART_KIND]], words.shape[0]
    to = first_distinct(words, kind)
    for d in range(kind[KIND_DISTINCTS]):
        part = PART_WORDS - HEAD_LAST_US + kind[KIND_DISTINCT] + d * DISTINCT_WORDS
        if (
            words[part + DISTINCT_CAPACITY] != SKETCHED
            and distincts[kind[KIND_FIRST_DISTINCT] + d, DISTINCT_IDENTIFIER] == column
        ):
            for k in range(words[part + DISTINCT_LENGTH]):
                if words[to + 2 * k] == identifier:
                    for word in range(to + 2 * k, n - 2):
                        words[word] = words[word + 2]
                    words[part + DISTINCT_LENGTH] -= 1
                    n -= 2
                    break
        to = after_keys(words, part, to)
    words[PART_CHECKSUM] = (part_checksum(words, 0, n) << 32) | n
    return np.int64(n)


# --- proof -----------------------------------------------------------------------------------------------------------


@kernel("UniTuple(int64, 2)(uint8[::1], int64[::1])")
def scan(octets, keys):
    """
    Look for keys at every byte.

    Parameters
    ----------
    octets : uint8[n]
    keys : int64[2**n]
        A set of eight bytes each, the lowest first.

    Returns
    -------
    n_found, first : int64
        How often, and where the first one begins; -1 where there is none.
    """
    octets, keys = borrowed(octets), borrowed(keys)
    n, first, word = np.int64(0), np.int64(-1), np.int64(0)
    for i in range(octets.shape[0]):
        word = ((word >> 8) & ((1 << 56) - 1)) | (np.int64(octets[i]) << 56)
        if i >= 7 and word != 0 and contains(keys, word):
            if n == 0:
                first = np.int64(i - 7)
            n += 1
    return n, first
