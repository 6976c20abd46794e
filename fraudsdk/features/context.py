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
POSITIONS: Final = 6  # int64[most edges of a kind]
BITS: Final = 7  # int64[most sets of a kind, words]: one bit per event of a ring, or tile of a level
# What is remembered.
POOL: Final = 8  # int64[n_words]; the same memory is read as float64 where a word is one
TABLE: Final = 9  # int64[n, 2]
META: Final = 10
JOURNAL: Final = 11  # int64[n, journal_words]
JOURNAL_INDEX: Final = 12
# How it is laid out (`StateLayout`).
KINDS: Final = 13
COLUMNS: Final = 14
MEASURES: Final = 15
DISTINCTS: Final = 16
DECAYEDS: Final = 17
# What is computed (`FeaturePlan`).
WINDOWED: Final = 18
SETS: Final = 19
EDGES: Final = 20
SLOTS: Final = 21
OPS: Final = 22
PARAMS: Final = 23
FILTERS: Final = 24
FILTER_RANGES: Final = 25
LIMITS: Final = 26
PLACES: Final = 27
FIELDS: Final = 28

# One number after the addresses: words of the pool in use beyond which it must grow first.
BUMP_MAX: Final = FIELDS * ADDRESS_WORDS
WORDS: Final = BUMP_MAX + 1


def empty_context() -> npt.NDArray[np.int64]:
    """A context that points nowhere yet."""
    return np.zeros(WORDS, dtype=np.int64)


def point(context: npt.NDArray[np.int64], field: int, array: npt.NDArray[Any]) -> None:
    """Let a field be this array, which the caller keeps alive and in place."""
    assert array.flags.c_contiguous
    columns = array.shape[1] if array.ndim == 2 else 1
    at = field * ADDRESS_WORDS
    context[at : at + ADDRESS_WORDS] = array.__array_interface__["data"][0], array.shape[0], columns
