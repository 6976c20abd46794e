"""
How an entity's memory is laid out, as tables of integers that kernels read.

Everything remembered lives in one pool of 64-bit words.  An entity is a *head* (fixed words per entity kind) that points
at chunks of the same pool::

    table: key -> head ──┬─ fixed: key, LRU links, first/last event, count
                         ├─ ring ──> [times | tags | values...]      exact, newest events by time, grows to a cap
                         ├─ tiles -> 4 levels of (epoch, statistics)  bounded, only once the ring has overflowed
                         ├─ distinct (one per counted field) ──> keys and last-seen times, then a sketch
                         ├─ decayed totals: (value, time)
                         ├─ place: last position and decayed centre
                         └─ hours: decayed circular mean of the time of day

Only the parts that some feature reads exist.  `StateLayout` is built once from a feature set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

IntTable = npt.NDArray[np.int64]

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

# Words of a head that every entity has.
HEAD_KEY: Final = 0
HEAD_KIND: Final = 1
HEAD_NEWER: Final = 2  # LRU list: towards the most recently used
HEAD_OLDER: Final = 3
HEAD_LAST_US: Final = 4
HEAD_FIRST_US: Final = 5
HEAD_COUNT: Final = 6
# Arrival number of the event that made it known.  Negative where other writers know the entity too, and the head is of all
# events together: minus the head of our own events alone, or `OTHERS_ONLY`.
HEAD_BORN: Final = 7
HEAD_WORDS: Final = 8
OTHERS_ONLY: Final = -1

# Words of the ring part, relative to its offset.
RING_CHUNK: Final = 0
RING_CAPACITY: Final = 1  # events that fit the chunk, more than are kept: they lie side by side, and slide
RING_START: Final = 2
RING_LENGTH: Final = 3
RING_FLOOR_US: Final = 4  # newest event time that the ring has let go of; windows that start at or after it are exact
RING_TILES: Final = 5  # chunk of the tile ladder, 0 until the ring first overflows
RING_FLAGS: Final = 6  # flags that any event had; a filter that wants another matches none
RING_WORDS: Final = 7

# Columns of a ring before the value columns.
COLUMN_TIME: Final = 0
COLUMN_TAG: Final = 1  # low 32 bits: flags; high 32 bits: of the transaction's key
FIRST_VALUE: Final = 2

# Words of a distinct part.
DISTINCT_CHUNK: Final = 0
DISTINCT_CAPACITY: Final = 1  # SKETCHED once promoted
DISTINCT_LENGTH: Final = 2
DISTINCT_WORDS: Final = 3
DISTINCT_EXACT_MAX: Final = 64
SKETCHED: Final = -1
SKETCH_REGISTERS: Final = 128  # standard error 1.04 / sqrt(128) = 9.2 %
SKETCH_RANKS: Final = 20

DECAYED_WORDS: Final = 2
# last position (unit vector), its time, decayed sum of unit vectors, time of decay
PLACE_X: Final = 0
PLACE_LAST_US: Final = 3
PLACE_CENTRE_X: Final = 4
PLACE_DECAY_US: Final = 7
PLACE_WORDS: Final = 8
# decayed sine, cosine, weight, time of decay
HOURS_WORDS: Final = 4

RING_FIRST_CAPACITY: Final = 1  # most entities, pairs above all, are met once or twice: ADR 0010
DISTINCT_FIRST_CAPACITY: Final = 4

# The tile ladder: width and number of tiles per level; the top level is lengthened to the longest window.
TILE_WIDTHS_US: Final = (5 * SECOND_US, MINUTE_US, 20 * MINUTE_US, 4 * HOUR_US)
TILE_COUNTS: Final = (72, 72, 78, 192)
# Statistics of one measure in one tile; the first, 0, is the number of its events.
TILE_VALUES: Final = 1  # events whose value is known
TILE_SUM: Final = 2
TILE_SUM_SQUARES: Final = 3
TILE_MAX: Final = 4
TILE_MIN: Final = 5
TILE_STATISTICS: Final = 6

# Columns of ``StateLayout.kinds``.
KIND_COMPONENTS: Final = 0  # number of identifier columns that make the key
KIND_COMPONENT_0: Final = 1  # ... their indices in ``ints``; at most four
KIND_SALT: Final = 5
KIND_HEAD_WORDS: Final = 6
KIND_RING_CAP: Final = 7  # events; 0 = no ring
KIND_RING_COLUMNS: Final = 8
KIND_RING: Final = 9  # offset in the head, 0 = none (also for the next parts)
KIND_RETENTION_US: Final = 10  # longest window plus delay plus allowed lateness
KIND_FIRST_MEASURE: Final = 11
KIND_MEASURES: Final = 12
KIND_TILE_STRIDE: Final = 13  # words per tile
KIND_TILE_LEVELS: Final = 14
KIND_TILE_WORDS: Final = 15
KIND_TOP_TILES: Final = 16  # tiles on the top level
KIND_DISTINCT: Final = 17
KIND_FIRST_DISTINCT: Final = 18
KIND_DISTINCTS: Final = 19
KIND_DECAYED: Final = 20
KIND_FIRST_DECAYED: Final = 21
KIND_DECAYEDS: Final = 22
KIND_PLACE: Final = 23
KIND_HOURS: Final = 24
KIND_JOURNAL: Final = 25  # column of the journal that keeps this kind's key, 0 = not kept
KIND_FIRST_COLUMN: Final = 26  # first entry in ``columns``
KIND_FIELDS: Final = 27

# Columns of ``measures``: what is summed for one kind.
MEASURE_MASK: Final = 0
MEASURE_WANT: Final = 1
MEASURE_COLUMN: Final = 2  # ring column of the value, -1 = events are only counted
MEASURE_TILE: Final = 3  # word within a tile
MEASURE_FIELDS: Final = 4

# Columns of ``distincts``.
DISTINCT_IDENTIFIER: Final = 0  # column of ``ints`` whose keys are counted
DISTINCT_HORIZON_US: Final = 1  # keys older than this can be forgotten
DISTINCT_FIELDS: Final = 2

# Columns of ``decayeds``.
DECAYED_MASK: Final = 0
DECAYED_WANT: Final = 1
DECAYED_COLUMN: Final = 2  # source of the value: -1 the amount, else a column of ``numbers``; -2 = count
DECAYED_HALF_LIFE_US: Final = 3
DECAYED_FIELDS: Final = 4

# Columns of the journal (what is remembered of each recent transaction).
JOURNAL_KEY: Final = 0
JOURNAL_TIME_US: Final = 1
JOURNAL_AMOUNT_MINOR: Final = 2
JOURNAL_FLAGS: Final = 3
JOURNAL_MARGIN: Final = 4  # float64 bits
JOURNAL_SCORE: Final = 5  # float64 bits
JOURNAL_VERDICT: Final = 6  # packed by the scorer; 0 = not decided
JOURNAL_FIRST_ENTITY: Final = 7

# Words of ``meta``: the allocator, the LRU list, and counters.
META_BUMP: Final = 0
META_NEWEST: Final = 1
META_OLDEST: Final = 2
META_ENTITIES: Final = 3
META_MAX_ENTITIES: Final = 4
META_JOURNAL_NEXT: Final = 5
META_EVICTED: Final = 6
META_LATE: Final = 7
META_LATE_DROPPED: Final = 8
META_DUPLICATES: Final = 9
META_EVENTS: Final = 10
META_LABELS: Final = 11
META_LABELS_UNKNOWN: Final = 12
META_REVERSALS_UNKNOWN: Final = 13
META_SKETCHES: Final = 14
META_TILE_LADDERS: Final = 15
META_FREE: Final = 16  # heads of the free lists, one per power-of-two size class
SIZE_CLASSES: Final = 32
META_WORDS: Final = META_FREE + SIZE_CLASSES

# Words of ``changed``: keys of entities that changed since they were last taken from it.
CHANGED_CAPACITY: Final = 0  # keys that it holds; 0: nobody wants to know
CHANGED_N: Final = 1  # more than the capacity: some are missing
CHANGED_BLIND: Final = 2  # 1: entities that are not in memory are taken for new, for want of an answer
CHANGED_FULL: Final = 3  # 1: nothing more may be remembered
CHANGED_ELSEWHERE: Final = 4  # 1: what is not remembered here may be elsewhere, and is a duplicate once it is
CHANGED_FIRST: Final = 8

COUNTER_NAMES: Final = {
    "entities": META_ENTITIES,
    "evicted_entities": META_EVICTED,
    "events": META_EVENTS,
    "late_events": META_LATE,
    "dropped_late_events": META_LATE_DROPPED,
    "duplicates": META_DUPLICATES,
    "labels": META_LABELS,
    "labels_for_forgotten_transactions": META_LABELS_UNKNOWN,
    "reversals_that_undid_nothing": META_REVERSALS_UNKNOWN,
    "distinct_counts_sketched": META_SKETCHES,
    "tile_ladders": META_TILE_LADDERS,
}


@dataclass(frozen=True)
class KindSpec:
    """
    What one entity kind must remember; `StateLayout.build` turns it into words.

    Attributes
    ----------
    name : str
        Such as ``"user"`` or ``"user+merchant"``.
    components : tuple of int
        Columns of ``ints`` whose hashes make the key, at most four.
    measures : tuple of (mask, want, column)
        What windows sum; `column` is an index into `columns`, or -1.
    columns : tuple of int
        Value columns of the ring: -1 is the amount, otherwise a column of ``numbers``.
    horizon_us : int
        Longest reach of a window, delay included; 0 = no ring.
    distincts : tuple of (identifier column, horizon_us)
    decayeds : tuple of (mask, want, source, half_life_us)
        `source` is -2 for a count, -1 for the amount, else a column of ``numbers``.
    place, hours : bool
    """

    name: str
    components: tuple[int, ...]
    measures: tuple[tuple[int, int, int], ...] = ()
    columns: tuple[int, ...] = ()
    horizon_us: int = 0
    distincts: tuple[tuple[int, int], ...] = ()
    decayeds: tuple[tuple[int, int, int, int], ...] = ()
    place: bool = False
    hours: bool = False


@dataclass(frozen=True)
class StateLayout:
    """
    The tables that the state kernels read.

    Attributes
    ----------
    names : tuple of str
        Entity kinds, in row order of `kinds`.
    kinds : int64[n_kinds, KIND_FIELDS]
    columns : int64[n_columns]
        Source of each ring value column, all kinds after one another: -1 = amount, else a column of ``numbers``.
    measures : int64[n_measures, MEASURE_FIELDS]
    distincts : int64[n_distincts, DISTINCT_FIELDS]
    decayeds : int64[n_decayeds, DECAYED_FIELDS]
    journal_words : int
        Words per journal entry.
    worst_words : int
        Pool words that one event can claim at most; the memory keeps that much headroom.
    """

    names: tuple[str, ...]
    kinds: IntTable
    columns: IntTable
    measures: IntTable
    distincts: IntTable
    decayeds: IntTable
    journal_words: int
    worst_words: int

    @classmethod
    def build(cls, specs: tuple[KindSpec, ...], *, ring_cap: int, allowed_lateness_us: int) -> StateLayout:
        """
        Lay out the heads and chunks of every kind.

        Parameters
        ----------
        specs : tuple of KindSpec
        ring_cap : int
            Events a ring grows to, a power of two; past it tiles answer.
        allowed_lateness_us : int
            Events are retained this much longer than the longest window, so that a late event still reads exactly.
        """
        kinds = np.zeros((len(specs), KIND_FIELDS), dtype=np.int64)
        columns: list[int] = []
        measures: list[tuple[int, int, int, int]] = []
        distincts: list[tuple[int, int]] = []
        decayeds: list[tuple[int, int, int, int]] = []
        journal_words, worst_words = JOURNAL_FIRST_ENTITY, 0
        for index, spec in enumerate(specs):
            kind = kinds[index]
            kind[KIND_COMPONENTS] = len(spec.components)
            kind[KIND_COMPONENT_0 : KIND_COMPONENT_0 + len(spec.components)] = spec.components
            kind[KIND_SALT] = _salt(spec.name)
            kind[KIND_FIRST_COLUMN] = len(columns)
            kind[KIND_FIRST_MEASURE] = len(measures)
            kind[KIND_FIRST_DISTINCT] = len(distincts)
            kind[KIND_FIRST_DECAYED] = len(decayeds)
            words = HEAD_WORDS
            if spec.horizon_us:
                kind[KIND_RING], words = words, words + RING_WORDS
                kind[KIND_RING_CAP] = ring_cap
                kind[KIND_RING_COLUMNS] = FIRST_VALUE + len(spec.columns)
                kind[KIND_RETENTION_US] = spec.horizon_us + allowed_lateness_us
                kind[KIND_JOURNAL], journal_words = journal_words, journal_words + 1
                columns.extend(spec.columns)
                measures.extend(_lay_out_tiles(kind, spec))
                worst_words += _class_words(3 * ring_cap * int(kind[KIND_RING_COLUMNS]))
                worst_words += _class_words(int(kind[KIND_TILE_WORDS]))
            if spec.distincts:
                kind[KIND_DISTINCT], words = words, words + DISTINCT_WORDS * len(spec.distincts)
                kind[KIND_DISTINCTS] = len(spec.distincts)
                distincts.extend(spec.distincts)
                worst_words += len(spec.distincts) * _class_words(SKETCH_REGISTERS * SKETCH_RANKS)
            if spec.decayeds:
                kind[KIND_DECAYED], words = words, words + DECAYED_WORDS * len(spec.decayeds)
                kind[KIND_DECAYEDS] = len(spec.decayeds)
                decayeds.extend(spec.decayeds)
            if spec.place:
                kind[KIND_PLACE], words = words, words + PLACE_WORDS
            if spec.hours:
                kind[KIND_HOURS], words = words, words + HOURS_WORDS
            kind[KIND_HEAD_WORDS] = words
            worst_words += _class_words(words)
        return cls(
            names=tuple(spec.name for spec in specs),
            kinds=kinds,
            columns=np.array(columns, dtype=np.int64),
            measures=np.array(measures, dtype=np.int64).reshape(-1, MEASURE_FIELDS),
            distincts=np.array(distincts, dtype=np.int64).reshape(-1, DISTINCT_FIELDS),
            decayeds=np.array(decayeds, dtype=np.int64).reshape(-1, DECAYED_FIELDS),
            journal_words=journal_words,
            worst_words=worst_words,
        )


def _lay_out_tiles(kind: IntTable, spec: KindSpec) -> list[tuple[int, int, int, int]]:
    """Place each measure in a tile, and choose the levels that reach the longest window."""
    laid_out, stride = [], 1  # word 0 of a tile is its epoch
    for mask, want, column in spec.measures:
        laid_out.append((mask, want, -1 if column < 0 else FIRST_VALUE + column, stride))
        stride += 1 if column < 0 else TILE_STATISTICS
    reach_us = int(kind[KIND_RETENTION_US])
    top = len(TILE_WIDTHS_US) - 1
    levels = next((i for i in range(top) if TILE_WIDTHS_US[i] * (TILE_COUNTS[i] - 1) >= reach_us), top) + 1
    top_tiles = max(TILE_COUNTS[levels - 1], -(-reach_us // TILE_WIDTHS_US[levels - 1]) + 2)
    kind[KIND_MEASURES] = len(laid_out)
    kind[KIND_TILE_STRIDE] = stride
    kind[KIND_TILE_LEVELS] = levels
    kind[KIND_TOP_TILES] = top_tiles
    kind[KIND_TILE_WORDS] = stride * (sum(TILE_COUNTS[: levels - 1]) + top_tiles)
    return laid_out


def _class_words(words: int) -> int:
    """Words that the allocator hands out for a request: the next power of two."""
    return 1 << max(3, (words - 1).bit_length())


def _salt(name: str) -> int:
    """A fixed odd number per kind, so that user 7 and card 7 are different entities.  FNV-1a, 63 bits."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return (value >> 1) | 1
