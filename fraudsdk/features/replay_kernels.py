"""Give the engine back what a log says: the same kernels as the first time, so the same state, byte for byte."""

from __future__ import annotations

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._native import float_rows_of, int_rows_of, measured_ints_of, measured_rows_of, row_of
from fraudsdk.entity_state.kernels import journal_find
from fraudsdk.entity_state.layout import JOURNAL_MARGIN, JOURNAL_SCORE, JOURNAL_VERDICT
from fraudsdk.entity_state.log_format import (
    AMENDMENT,
    AMENDMENT_CLEAR,
    AMENDMENT_KEY,
    AMENDMENT_SET,
    AMENDMENT_WORDS,
    EVENT,
    EVENT_INTS,
    EVENT_MARGIN,
    EVENT_VERDICT,
    RECORD_KIND,
    VERDICT,
    VERDICT_KEY,
    VERDICT_MARGIN,
    VERDICT_WORDS,
)
from fraudsdk.features.context import INTS, JOURNAL, JOURNAL_INDEX, NUMBERS, ROW
from fraudsdk.features.kernels import DUPLICATE, NEEDS_ROOM, SCORED, amend_remembered, foresee_now, observe_at

# Why `replay_log` stopped.
DONE = 0
GROW = 1  # the memory must grow first
FOR_PYTHON = 2  # a record of another kind
CONTRADICTION = 3  # a transaction that is remembered already
UNDECIDED = 4  # after a transaction that was logged without a decision: its row is in the context
MALFORMED = 5  # a record of another length than its kind has


@device
def copy_bits(words, at, into, column, n):
    """Copy words into the first row of a table."""
    for j in range(n):
        into[0, column + j] = words[at + j]


@device
def has_its_length(kind, n, n_ints, n_numbers):
    """Whether a record has the words that its kind has; whoever knows other kinds knows their lengths."""
    if kind == EVENT:
        return n == EVENT_INTS + n_ints + n_numbers
    if kind == VERDICT:
        return n == VERDICT_WORDS
    return kind != AMENDMENT or n == AMENDMENT_WORDS


@device
def keep_verdict(context, row, words, at):
    """Write margin, score and verdict, which lie side by side in both, into a row of the journal."""
    journal = int_rows_of(context, JOURNAL)
    journal[row, JOURNAL_MARGIN] = words[at]
    journal[row, JOURNAL_SCORE] = words[at + 1]
    journal[row, JOURNAL_VERDICT] = words[at + 2]


@device
def replay_event(context, words, floats, at, n_ints, n_numbers):
    """Remember one transaction; the status of `observe_at`."""
    ints, numbers = int_rows_of(context, INTS), float_rows_of(context, NUMBERS)
    copy_bits(words, at + EVENT_INTS, ints, 0, n_ints)
    copy_bits(floats, at + EVENT_INTS + n_ints, numbers, 0, n_numbers)
    foresee_now(context, ints)
    status, journal_row = observe_at(context, ints, numbers, 0, True, row_of(context, ROW))
    if status != NEEDS_ROOM and status != DUPLICATE and words[at + EVENT_VERDICT] != 0:
        keep_verdict(context, journal_row, words, at + EVENT_MARGIN)
    return status


@kernel("UniTuple(int64, 2)(int64[::1], float64[::1], int64, int64, int64, int64[::1])")
def replay_log(words, floats, at, n_ints, n_numbers, context):
    """
    Apply records, which must be intact.

    Parameters
    ----------
    words, floats : int64[n], float64[n]
        The same memory: a segment.
    at : int64
        Where the first record to apply begins.
    n_ints, n_numbers : int64
        Words of an encoded transaction.
    context : int64[WORDS]
        `FeatureEngine.context`, with arrays attached that are written over.

    Returns
    -------
    (at, why)
        Where it stopped: at the end, at the record that was not applied, or after one that is undecided.
    """
    words, floats, context = borrowed(words), borrowed(floats), borrowed(context)
    while at < words.shape[0]:
        kind, n = words[at + RECORD_KIND], words[at] & 0xFFFFFFFF
        if not has_its_length(kind, n, n_ints, n_numbers):
            return at, MALFORMED
        if kind == EVENT:
            status = replay_event(context, words, floats, at, n_ints, n_numbers)
            if status == NEEDS_ROOM:
                return at, GROW
            if status == DUPLICATE:
                return at, CONTRADICTION
            if status == SCORED and words[at + EVENT_VERDICT] == 0:
                return at + n, UNDECIDED
        elif kind == VERDICT:
            journal, index = measured_rows_of(context, JOURNAL), measured_ints_of(context, JOURNAL_INDEX)
            row = journal_find(journal, index, words[at + VERDICT_KEY])
            if row >= 0:
                keep_verdict(context, row, words, at + VERDICT_MARGIN)
        elif kind == AMENDMENT:
            amend_remembered(context, words[at + AMENDMENT_KEY], words[at + AMENDMENT_SET], words[at + AMENDMENT_CLEAR])
        else:
            return at, FOR_PYTHON
        at += n
    return at, DONE
