"""Make the tables over a pool and a journal anew, from what is in them."""

from __future__ import annotations

from fraudsdk._jit import borrowed, kernel
from fraudsdk.entity_state.kernels import insert, journal_insert
from fraudsdk.entity_state.layout import HEAD_KEY, HEAD_NEWER, JOURNAL_KEY, META_OLDEST


@kernel("void(int64[::1], int64[::1], int64[:, ::1])")
def index_entities(pool, meta, table):
    """Enter every entity, from the least recently used on, into an empty table."""
    pool, meta, table = borrowed(pool), borrowed(meta), borrowed(table)
    head = meta[META_OLDEST]
    while head != 0:
        insert(table, pool[head + HEAD_KEY], head)
        head = pool[head + HEAD_NEWER]


@kernel("void(int64[:, ::1], int64[::1], int64[::1])")
def index_journal(journal, rows, index):
    """Make these rows of a journal findable in an empty index; of a transaction that was erased none is left."""
    journal, rows, index = borrowed(journal), borrowed(rows), borrowed(index)
    for i in range(rows.shape[0]):
        if journal[rows[i], JOURNAL_KEY] != 0:
            journal_insert(journal, index, rows[i])
