"""The open-addressing table and the journal's index against a dictionary, under churn."""

from __future__ import annotations

import numba
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.entity_state.kernels import find, insert, journal_find, journal_insert, journal_remove, remove
from fraudsdk.entity_state.layout import JOURNAL_FIRST_ENTITY, JOURNAL_KEY

SLOTS = 16
INSERT, REMOVE = 1, 2

# Keys that share their low bits collide: long probe sequences, some across the end of the table.
KEYS = st.builds(lambda low, high: low + SLOTS * high or 1, st.sampled_from((0, 1, 7, 14, 15)), st.integers(-4, 4))
STEPS = st.lists(st.tuples(st.sampled_from((INSERT, INSERT, REMOVE)), KEYS), max_size=60)


@numba.njit
def churn_table(table, steps, probes, found):
    """Apply (what, key, head) steps; after each, look up every probe."""
    for s in range(steps.shape[0]):
        if steps[s, 0] == 1:
            insert(table, steps[s, 1], steps[s, 2])
        else:
            remove(table, steps[s, 1])
        for p in range(probes.shape[0]):
            found[s, p] = find(table, probes[p])


@numba.njit
def churn_journal(journal, index, keys, probes, found):
    """Journal one key after another, the oldest giving way; after each, look up every probe."""
    for s in range(keys.shape[0]):
        row = s % journal.shape[0]
        if s >= journal.shape[0]:
            journal_remove(journal, index, row)
        journal[row, JOURNAL_KEY] = keys[s]
        journal_insert(journal, index, row)
        for p in range(probes.shape[0]):
            found[s, p] = journal_find(journal, index, probes[p])


@settings(max_examples=200, print_blob=True, deadline=None)
@given(steps=STEPS)
def test_the_table_finds_what_a_dictionary_finds_after_every_insertion_and_removal(steps):
    known, plain, expected = {}, [], []
    probes = sorted({key for _, key in steps} | {99})
    for head, (what, key) in enumerate(steps, start=8):
        # The engine inserts only what is not there, and keeps the table at most half full.
        if what == INSERT and (key in known or len(known) == SLOTS // 2):
            continue
        if what == INSERT:
            known[key] = head
        else:
            known.pop(key, None)
        plain.append((what, key, head))
        expected.append([known.get(probe, 0) for probe in probes])
    found = np.zeros((len(plain), len(probes)), dtype=np.int64)

    churn_table(
        np.zeros((SLOTS, 2), dtype=np.int64),
        np.array(plain, dtype=np.int64).reshape(-1, 3),
        np.array(probes, dtype=np.int64),
        found,
    )

    assert expected == found.tolist()


@settings(max_examples=200, print_blob=True, deadline=None)
@given(keys=st.lists(KEYS, max_size=60, unique=True))
def test_the_journal_finds_the_newest_transactions_and_no_older_ones(keys):
    capacity = SLOTS // 2
    journal = np.zeros((capacity, JOURNAL_FIRST_ENTITY), dtype=np.int64)
    found = np.zeros((len(keys), len(keys)), dtype=np.int64)
    plain = np.array(keys, dtype=np.int64)

    churn_journal(journal, np.zeros(SLOTS, dtype=np.int64), plain, plain, found)

    expected = [[p % capacity if s - capacity < p <= s else -1 for p in range(len(keys))] for s in range(len(keys))]
    assert expected == found.tolist()
