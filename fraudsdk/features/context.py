"""
One array that tells a kernel where everything is.

Handing thirty arrays to a kernel costs more than a microsecond per call, each time for the same arrays.  The context is an
``int64`` vector of addresses and sizes, `ADDRESS_WORDS` words a field, that `FeatureEngine` owns together with the arrays;
whoever replaces an array points the context at the new one before the next call.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk._native import ADDRESS_WORDS

# What the caller hands over.
INTS: Final = 0  # int64[1, n_ints]
NUMBERS: Final = 1  # float64[1, n_numbers]
ROW: Final = 2  # float32[n_features]
# Scratch.
KEYS: Final = 3  # int64[n_kinds, KEY_FIELDS]
ACC: Final = 4  # int64[n_slots, ACC_FIELDS]
SQUARES: Final = 5  # float64[n_slots]
POSITIONS: Final = 6  # int64[n_edges + 7]: of the edges of a kind, eight written at a time
# int64[2 * n_sets + 1, words]: one bit per event of a ring for each set of a kind, how many bits are set before each word
# for each of them, and in the last row one bit per tile of a level.
BITS: Final = 7
OWN: Final = 8  # float64[OWN_WORDS]: angles of the transaction
AHEAD: Final = 9  # int64[AHEAD_ROWS, 2 * n_kinds]: keys, then heads, of transactions to come
AHEAD_LABELS: Final = 10  # int64[AHEAD_ROWS, n_kinds]: heads that labels to come are about
# What is remembered.
POOL: Final = 11  # int64[n_words]; the same memory is read as float64 where a word is one
TABLE: Final = 12  # int64[n, 2]
META: Final = 13
JOURNAL: Final = 14  # int64[n, journal_words]
JOURNAL_INDEX: Final = 15
# How it is laid out (`StateLayout`).
KINDS: Final = 16
COLUMNS: Final = 17
MEASURES: Final = 18
DISTINCTS: Final = 19
DECAYEDS: Final = 20
# What is computed (`FeaturePlan`).
WINDOWED: Final = 21
SETS: Final = 22
EDGES: Final = 23  # int64[n_edges + 7], read eight at a time
SLOTS: Final = 24
OPS: Final = 25
PARAMS: Final = 26
RUNS: Final = 27
FILTERS: Final = 28
FILTER_RANGES: Final = 29
LIMITS: Final = 30
PLACES: Final = 31
# Who else wants to know.
CHANGED: Final = 32  # int64[CHANGED_FIRST + n]: keys of entities that changed
ELSEWHERE: Final = 33  # int64[n]: bits of a Bloom filter of the entities that the store of shared state has
FIELDS: Final = 34

# Numbers after the addresses: words of the pool in use beyond which it must grow first, and the time until which an event may be of
# somebody who was erased.
BUMP_MAX: Final = FIELDS * ADDRESS_WORDS
ERASED_UNTIL_US: Final = BUMP_MAX + 1
WORDS: Final = ERASED_UNTIL_US + 1


def empty_context() -> npt.NDArray[np.int64]:
    """A context that points nowhere yet."""
    return np.zeros(WORDS, dtype=np.int64)


def point(context: npt.NDArray[np.int64], field: int, array: npt.NDArray[Any]) -> None:
    """Let a field be this array, which the caller keeps alive and in place."""
    assert array.flags.c_contiguous
    columns = array.shape[1] if array.ndim == 2 else 1
    at = field * ADDRESS_WORDS
    context[at : at + ADDRESS_WORDS] = array.__array_interface__["data"][0], array.shape[0], columns
