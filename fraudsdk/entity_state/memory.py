"""The memory of one process: the pool, the table over it and the journal, as the arrays that kernels take."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fraudsdk._pages import populate
from fraudsdk.entity_state.index_kernels import index_entities, index_journal
from fraudsdk.entity_state.layout import (
    CHANGED_CAPACITY,
    CHANGED_FIRST,
    CHANGED_N,
    COUNTER_NAMES,
    JOURNAL_FIRST_ENTITY,
    META_BUMP,
    META_ENTITIES,
    META_FREE,
    META_JOURNAL_NEXT,
    META_MAX_ENTITIES,
    META_NEWEST,
    META_OLDEST,
    META_WORDS,
    SIZE_CLASSES,
    StateLayout,
)
from fraudsdk.errors import ConfigurationError, StateError

# Zeroed pages cost nothing until they are touched, so a generous first reservation saves every later copy.
FIRST_POOL_WORDS = 1 << 26
# The first words are never handed out: chunk 0 means "none".
FIRST_CHUNK = 8
# Kernels read eight words at a time, and up to seven past what they want: the last words are never handed out either.
SPARE_WORDS = 8

# Of the smallest page there is.
_WORDS_PER_PAGE = 512
# Words of pool and journal that are asked for ahead of use, for some 160,000 transactions; and how few are too few.
_AHEAD_WORDS = (1 << 23, 1 << 21)
_SHORT_WORDS = (1 << 21, 1 << 19)
_WORDS_PER_LINE = 8
# An event is added to an entity, and to our own events of it where others have some as well.
_HEADS_EACH = 2
# Of a row of ``EntityMemory.tombstones``.
TOMBSTONE_WORDS = 3


class EntityMemory:
    """
    State of every entity this process remembers.

    Parameters
    ----------
    layout : StateLayout
    max_entities : int
        Entities of all kinds together; beyond it the least recently used is forgotten, and counted.
    journal_capacity : int
        Transactions that labels, reversals and duplicates can still refer to; beyond it the oldest is forgotten.

    Notes
    -----
    Not thread-safe: whoever owns it serialises access.
    """

    def __init__(self, layout: StateLayout, *, max_entities: int, journal_capacity: int) -> None:
        least = 4 * len(layout.names) + 64
        if max_entities < least:
            raise ConfigurationError(
                f"max_entities must be at least {least} for this feature set, was {max_entities}; raise it"
            )
        if journal_capacity < 1:
            raise ConfigurationError(f"journal_capacity must be at least 1, was {journal_capacity}; raise it")
        self.layout = layout
        self.pool = _whole_lines(FIRST_POOL_WORDS + 2 * (layout.worst_words + SPARE_WORDS))
        # At most half full, so that a probe ends after two or three slots.
        self.table = np.zeros((_power_of_two(2 * max_entities), 2), dtype=np.int64)
        self.meta = np.zeros(META_WORDS, dtype=np.int64)
        self.meta[META_BUMP] = FIRST_CHUNK
        self.meta[META_MAX_ENTITIES] = max_entities
        self.journal = np.zeros((journal_capacity, layout.journal_words), dtype=np.int64)
        self.journal_index = np.zeros(_power_of_two(2 * journal_capacity), dtype=np.int64)
        self.changed = np.zeros(CHANGED_FIRST, dtype=np.int64)
        self.elsewhere = everything()
        # Marks of what was erased: who, not told; when; and since which change (`fraudsdk.entity_state.erasure`).
        self.tombstones = np.zeros((0, TOMBSTONE_WORDS), dtype=np.int64)
        # Of a stream: how far it is remembered (`fraudsdk.entity_state.place`); no words where there is none.
        self.place = np.zeros(0, dtype=np.int64)
        self._supplied_words = [0, 0]  # of pool and journal
        for hashed in (self.table, self.journal_index):
            # Looked up at random: touched now, a page each, or the first 10,000 decisions pay for 2,000 page faults.
            hashed.reshape(-1)[::_WORDS_PER_PAGE] = 0

    def grow(self) -> None:
        """Double the pool.  Offsets stay as they are, so nothing else changes."""
        larger = _whole_lines(2 * len(self.pool))
        used = int(self.meta[META_BUMP])
        larger[:used] = self.pool[:used]
        self.pool = larger
        self._supplied_words[0] = used

    @property
    def is_short_of_pages(self) -> bool:
        """Whether `supply_pages` is due."""
        return any(
            supplied < min(used + short, size)
            for supplied, short, (used, size) in zip(self._supplied_words, _SHORT_WORDS, self._in_use(), strict=True)
        )

    def supply_pages(self) -> None:
        """
        Have the system supply the pages that are written to next; another thread may use the memory meanwhile.

        Two megabytes that come when they are first written to hold a transaction up for 0.1 ms, and for 4 ms or more on a
        virtual machine whose host must find them first.
        """
        for place, (array, (used, size)) in enumerate(zip((self.pool, self.journal), self._in_use(), strict=True)):
            first, end = max(used, self._supplied_words[place]), min(used + _AHEAD_WORDS[place], size)
            if first < end:
                can = populate(array.ctypes.data + 8 * first, 8 * (end - first))
                self._supplied_words[place] = end if can else size  # not asked again

    def _in_use(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Words in use and in all, of pool and journal."""
        journalled = min(int(self.meta[META_JOURNAL_NEXT]), len(self.journal)) * self.journal.shape[1]
        return (int(self.meta[META_BUMP]), len(self.pool)), (journalled, self.journal.size)

    def restore(
        self,
        meta: npt.NDArray[np.int64],
        pool: npt.NDArray[np.int64],
        journal: npt.NDArray[np.int64],
        journal_capacity: int,
    ) -> None:
        """
        Become what another memory of this layout was; bounds stay one's own.

        Parameters
        ----------
        meta, pool, journal : int64[META_WORDS], int64[n], int64[m, journal_words]
            Of the other: pool and journal as far as they are in use.
        journal_capacity : int
            Of the other.

        Raises
        ------
        StateError
            It remembers more entities than this one may.
        """
        max_entities, n_entities = int(self.meta[META_MAX_ENTITIES]), int(meta[META_ENTITIES])
        if n_entities > max_entities:
            raise StateError(
                f"{n_entities} entities were kept and max_entities is {max_entities}; raise it to at least as many"
            )
        self.meta[:] = meta
        self.meta[META_MAX_ENTITIES] = max_entities
        least = len(pool) + 2 * (self.layout.worst_words + SPARE_WORDS)
        if len(self.pool) < least:
            self.pool = _whole_lines(_power_of_two(least))
        self.pool[: len(pool)] = pool
        self._supplied_words = [0, 0]
        # A transaction's row is its arrival number, modulo the capacity.
        arrived = int(meta[META_JOURNAL_NEXT])
        arrivals = np.arange(max(0, arrived - min(len(journal), len(self.journal))), arrived)
        rows = arrivals % len(self.journal)
        self.journal[rows] = journal[arrivals % journal_capacity]
        index_entities(self.pool, self.meta, self.table)
        index_journal(self.journal, rows, self.journal_index)

    @property
    def max_entities(self) -> int:
        """Bound of entities of all kinds together."""
        return int(self.meta[META_MAX_ENTITIES])

    @property
    def bump_max(self) -> int:
        """Words in use beyond which the pool may not fit whatever one more event can claim."""
        return len(self.pool) - _HEADS_EACH * self.layout.worst_words - SPARE_WORDS

    def tell_changes(self, capacity: int) -> None:
        """Keep the keys of entities that change, so many of them, for `take_changes`."""
        self.changed = np.zeros(CHANGED_FIRST + capacity, dtype=np.int64)
        self.changed[CHANGED_CAPACITY] = capacity

    def take_changes(self) -> npt.NDArray[np.int64]:
        """
        Keys of entities that changed since they were last asked for, some of them more than once.

        Of all entities, where more changed than there was room for.
        """
        n, capacity = int(self.changed[CHANGED_N]), int(self.changed[CHANGED_CAPACITY])
        self.changed[CHANGED_N] = 0
        return self.entity_keys() if n > capacity else self.changed[CHANGED_FIRST : CHANGED_FIRST + n].copy()

    def entity_keys(self) -> npt.NDArray[np.int64]:
        """Keys of all entities that are remembered, in no order that means anything."""
        keys: npt.NDArray[np.int64] = self.table[self.table[:, 1] != 0, 0].copy()
        return keys

    def forget_entities(self) -> None:
        """Forget every entity; which transactions were seen, and what was decided on them, stays known."""
        self.table[:] = 0
        self.meta[[META_NEWEST, META_OLDEST, META_ENTITIES]] = 0
        self.meta[META_FREE : META_FREE + SIZE_CLASSES] = 0
        self.meta[META_BUMP] = FIRST_CHUNK
        self.journal[:, JOURNAL_FIRST_ENTITY:] = 0
        self.changed[CHANGED_N] = 0

    def forget_everything(self) -> None:
        """Forget every entity and every transaction."""
        self.forget_entities()
        n_used = min(int(self.meta[META_JOURNAL_NEXT]), len(self.journal))
        self.journal[:n_used] = 0
        self.journal_index[:] = 0
        self.meta[META_JOURNAL_NEXT] = 0

    def counters(self) -> dict[str, int]:
        """What has happened so far, by name."""
        counters = {name: int(self.meta[word]) for name, word in COUNTER_NAMES.items()}
        counters["state_bytes"] = 8 * int(self.meta[META_BUMP])
        return counters


def everything() -> npt.NDArray[np.int64]:
    """A filter that every entity passes: nothing is known of what there is."""
    return np.full(1, -1, np.int64)


def _whole_lines(n_words: int) -> npt.NDArray[np.int64]:
    """
    Zeros that begin with a cache line.

    Chunks are multiples of a line, and NumPy begins 16 bytes into one: a head of eight words would lie in two.
    """
    words = np.zeros(n_words + _WORDS_PER_LINE, dtype=np.int64)
    first = -(words.__array_interface__["data"][0] // words.itemsize) % _WORDS_PER_LINE
    return words[first : first + n_words]


def _power_of_two(least: int) -> int:
    return 1 << max(4, (least - 1).bit_length())
