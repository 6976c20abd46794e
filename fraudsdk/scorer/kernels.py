"""
One transaction from what the host sent to a score, in one call.

::

    mapping ── read ──> encoded row ── observe ──> features ── forest ──> margin ── calibrate ──> score
                                                                                      │
                              below every band, and nobody else has a say? ───────────┴──> approved, and recorded as such

The stages are the kernels of their own folders; what is here calls them one after another and takes the time between.
"""

from __future__ import annotations

import math

import numpy as np

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._native import (
    ADDRESS_WORDS,
    call_float32,
    float_rows_of,
    int_rows_of,
    ints_of,
    measured_ints_of,
    measured_rows_of,
    row_of,
)
from fraudsdk._ticks import elapsed_ns, ticks
from fraudsdk.domain.fields import CHARGEBACK, EVENT_TIME_US, FLAGS, ORIGINAL_KEY, REVERSAL, TRANSACTION_KEY
from fraudsdk.encoding.mapping_kernels import WRITTEN, read_mapping
from fraudsdk.entity_state.kernels import (
    entity_key,
    evict_oldest,
    find,
    journal_find,
    link_newest,
    may_be_elsewhere,
    note_elsewhere,
    unlink,
)
from fraudsdk.entity_state.layout import (
    CHANGED_BLIND,
    CHANGED_CAPACITY,
    CHANGED_FULL,
    HEAD_BORN,
    JOURNAL_MARGIN,
    JOURNAL_SCORE,
    JOURNAL_VERDICT,
    KIND_JOURNAL,
    META_ENTITIES,
    META_JOURNAL_NEXT,
    META_MAX_ENTITIES,
)
from fraudsdk.entity_state.log_kernels import LOG_WORDS, has_room_for_events, log_event
from fraudsdk.features.context import (
    CHANGED,
    ELSEWHERE,
    ERASED_UNTIL_US,
    INTS,
    JOURNAL,
    JOURNAL_INDEX,
    KEYS,
    KINDS,
    META,
    NUMBERS,
    POOL,
    ROW,
    TABLE,
)
from fraudsdk.features.kernels import (
    DUPLICATE,
    LIFECYCLE,
    NEEDS_ROOM,
    SCORED,
    foresee_now,
    foresee_row,
    observe_at,
)
from fraudsdk.telemetry.kernels import bump

LATEST_US = 2**63 - 1  # later than any event
NO_LOG = np.zeros(LOG_WORDS, np.int64)

# Besides what `observe_at` says.
APPROVED = 4  # below every band, and recorded as such
UNREAD = 5  # nothing was done: not spelt in an everyday way, or from the future
FULL = 6  # nothing was done: to remember it, the log or the store needs room first
NOT_AT_HAND = 7  # nothing was done: others may know entities of it that are not in memory

# Words of a judge.
FOREST = 0  # address of ``float f(int64_t row, int64_t tables)``, 0 = none
FOREST_TABLES = 1
APPROVAL = 2  # the word of the journal that says "approved by its band, by this model"
AFTERMATH = 3  # and the one that says "changes what was decided, and is not itself judged"
JUDGE_WORDS = 4

# A judge's scale.
APPROVES_BELOW = 0
FIRST_OF_CALIBRATION = 1

# What comes out.
MARGIN = 0
SCORE = 1

# Stages that the kernel times: fields of ``latency``.  After them, which clock there is and how long its tick is.
ENCODE = 0
FEATURES = 1
MODEL = 2
CLOCK = 3 * ADDRESS_WORDS
NS_PER_TICK = CLOCK + 1
LATENCY_WORDS = CLOCK + 2


@device
def probability(margin, table):
    """`Calibration.probability` of a margin, from `Calibration.table`: the same bits."""
    n_knots = (table.shape[0] - 2) >> 1
    if n_knots == 0:
        log_odds = table[0] * margin + table[1]
        if log_odds >= 0.0:
            return 1.0 / (1.0 + math.exp(-log_odds))
        odds = math.exp(log_odds)
        return odds / (1.0 + odds)
    if np.isnan(margin):
        return np.nan
    low, high = 0, n_knots
    while low < high:  # knots at or below the margin
        middle = (low + high) >> 1
        if table[2 + middle] <= margin:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return table[2 + n_knots]
    if low == n_knots:
        return table[1 + 2 * n_knots]
    at = 1 + low
    share = (margin - table[at]) / (table[at + 1] - table[at])
    below, above = table[at + n_knots], table[at + n_knots + 1]
    risen = below + share * (above - below)
    return above if risen > above else risen


@device
def settle(margin, scale, out):
    """Write margin and score to `out`; True where the score lies below every band and nobody else has a say."""
    score = probability(np.float64(margin), scale[FIRST_OF_CALIBRATION:])
    out[MARGIN] = margin
    out[SCORE] = score
    return 0.0 <= score < scale[APPROVES_BELOW]


@device
def record_verdict(engine, journal_row, out, verdict):
    """Keep a decision with its transaction, for its duplicates."""
    numbers = float_rows_of(engine, JOURNAL)
    numbers[journal_row, JOURNAL_MARGIN] = out[MARGIN]
    numbers[journal_row, JOURNAL_SCORE] = out[SCORE]
    int_rows_of(engine, JOURNAL)[journal_row, JOURNAL_VERDICT] = verdict


@device
def verdict_on(status, judge):
    """The word of a decision that needs nobody's opinion; 0 where it does."""
    if status == APPROVED:
        return judge[APPROVAL]
    return judge[AFTERMATH] if status == LIFECYCLE else np.int64(0)


@device
def is_new(engine, ints):
    """Whether a transaction is none of those remembered."""
    journal, index = measured_rows_of(engine, JOURNAL), measured_ints_of(engine, JOURNAL_INDEX)
    return journal_find(journal, index, ints[0, TRANSACTION_KEY]) < 0


@device
def original_of(engine, ints, i):
    """Where in the journal the original of a reversal or chargeback is, -1 = nowhere; -2 for any other transaction."""
    if ints[i, FLAGS] & (REVERSAL | CHARGEBACK) == 0:
        return np.int64(-2)
    journal, index = measured_rows_of(engine, JOURNAL), measured_ints_of(engine, JOURNAL_INDEX)
    return np.int64(journal_find(journal, index, ints[i, ORIGINAL_KEY]))


@device
def key_needed(engine, ints, i, kinds, k, original):
    """Key of the entity of a kind that a transaction reads or changes, 0 = none."""
    if original == -2:
        return entity_key(ints, i, kinds[k])
    if original < 0 or kinds[k, KIND_JOURNAL] == 0:
        return np.int64(0)
    return measured_rows_of(engine, JOURNAL)[original, kinds[k, KIND_JOURNAL]]


@device
def not_at_hand(engine, ints, i, keys, n):
    """
    Add the entities that a transaction needs, and that the store may have but memory has not, to `keys`; how many are then there.

    A reversal or chargeback needs those of its original, as they were when that came or later; one that is known already needs
    none.
    """
    kinds, table = measured_rows_of(engine, KINDS), measured_rows_of(engine, TABLE)
    elsewhere, pool = measured_ints_of(engine, ELSEWHERE), ints_of(engine, POOL)
    journal, index = measured_rows_of(engine, JOURNAL), measured_ints_of(engine, JOURNAL_INDEX)
    if journal_find(journal, index, ints[i, TRANSACTION_KEY]) >= 0:
        return n
    original, newest = original_of(engine, ints, i), ints_of(engine, META)[META_JOURNAL_NEXT] - 1
    arrival = newest - (newest - original) % journal.shape[0]
    for k in range(kinds.shape[0]):
        key = key_needed(engine, ints, i, kinds, k, original)
        if key == 0 or not may_be_elsewhere(elsewhere, key):
            continue
        head = find(table, key)
        if head == 0 or (original >= 0 and arrival < pool[head + HEAD_BORN]):
            keys[n] = key
            n += 1
    return n


@kernel("int64(int64[:, ::1], int64[::1], int64[::1])")
def entities_not_at_hand(ints, engine, keys):
    """
    Entities that transactions need, and that the store may have but memory has not.

    Parameters
    ----------
    ints : int64[n, n_ints]
    engine : int64[m]
        `FeatureEngine.context`.
    keys : int64[n * n_kinds]
        Receives their keys, some of them more than once.

    Returns
    -------
    int64
        How many.
    """
    ints, engine, keys = borrowed(ints), borrowed(engine), borrowed(keys)
    n = np.int64(0)
    for i in range(ints.shape[0]):
        n = not_at_hand(engine, ints, i, keys, n)
    return n


@kernel("void(int64[:, ::1], int64[::1])")
def keep_at_hand(ints, engine):
    """
    Forget others, so that entities which transactions name stay in memory until all those have been remembered.

    Parameters
    ----------
    ints : int64[n, n_ints]
        They name at most half of the entities that memory holds.
    engine : int64[m]
        `FeatureEngine.context`.
    """
    ints, engine = borrowed(ints), borrowed(engine)
    kinds, table = measured_rows_of(engine, KINDS), measured_rows_of(engine, TABLE)
    pool, meta = ints_of(engine, POOL), ints_of(engine, META)
    if meta[META_ENTITIES] + ints.shape[0] * kinds.shape[0] <= meta[META_MAX_ENTITIES]:
        return
    n_new = np.int64(0)
    for i in range(ints.shape[0]):
        original = original_of(engine, ints, i)
        for k in range(kinds.shape[0]):
            key = key_needed(engine, ints, i, kinds, k, original)
            head = find(table, key) if key != 0 else np.int64(0)
            if head != 0:
                unlink(pool, meta, head)
                link_newest(pool, meta, head)
            elif key != 0:
                n_new += 1
    while meta[META_ENTITIES] + n_new > meta[META_MAX_ENTITIES]:
        evict_oldest(pool, table, meta, kinds)


@kernel("int64(int64[::1], int64[::1], int64[::1])")
def entities_at_hand(keys, engine, known):
    """
    Copy those keys to `known` whose entities are in memory; how many.

    These are needed: what is read besides must not make memory forget them.
    """
    keys, engine, known = borrowed(keys), borrowed(engine), borrowed(known)
    table, n = measured_rows_of(engine, TABLE), np.int64(0)
    pool, meta = ints_of(engine, POOL), ints_of(engine, META)
    for i in range(keys.shape[0]):
        head = find(table, keys[i])
        if head != 0:
            unlink(pool, meta, head)
            link_newest(pool, meta, head)
            known[n] = keys[i]
            n += 1
    return n


@kernel("void(int64[::1], int64[::1])")
def add_elsewhere(keys, bits):
    """Add keys to a Bloom filter of a power of two of words."""
    keys, bits = borrowed(keys), borrowed(bits)
    for i in range(keys.shape[0]):
        note_elsewhere(bits, keys[i])


@device
def log_observed(log, ints, numbers, i, status, judge, out):
    """Log a transaction that was remembered, with its decision where that is settled."""
    if status == SCORED:
        log_event(log, ints, numbers, i, np.nan, np.nan, 0)
    elif status == APPROVED or status == LIFECYCLE:
        log_event(log, ints, numbers, i, out[MARGIN], out[SCORE], verdict_on(status, judge))


@device
def lap(latency, stage, started):
    """Count what a stage took; returns when the next one starts."""
    now = ticks(latency[CLOCK])
    bump(ints_of(latency, stage), elapsed_ns(started, now, latency[NS_PER_TICK]))
    return now


@kernel(
    "UniTuple(int64, 2)(int64, int64, int64, int64, int64[::1], int64[::1], int64[::1], float64[::1], float64[::1], int64[::1], "
    "int64[::1])",
    nogil=False,
)
def score_one(mapping, latest_us, record, ask, program, engine, judge, scale, out, latency, log):
    """
    Read, remember and score one transaction.

    Parameters
    ----------
    mapping : int64
        ``id`` of the dict that the host sent; 0: the row that `engine` points at has been encoded already.
    latest_us : int64
        An event after this time is not looked at.
    record, ask : int64
        1: remember it; 1: ask the model.
    program : int64[n]
        `Encoder.program`.
    engine : int64[n]
        `FeatureEngine.context`.
    judge : int64[JUDGE_WORDS]
        The forest to call, 0 = none, and the word that an approval is recorded by.
    scale : float64[1 + n]
        `APPROVES_BELOW`, then `Calibration.table`.
    out : float64[2]
        Receives `MARGIN` and `SCORE`; NaN where the model was not asked.
    latency : int64[n]
        Where the histograms of the stages are (`fraudsdk.scorer.latency`).
    log : int64[LOG_WORDS]
        Where what is remembered is logged (`fraudsdk.entity_state.log_kernels`).

    Returns
    -------
    status : int64
        As `observe_at`, or `APPROVED`; or `UNREAD` (Python must look at it), `FULL` or `NOT_AT_HAND`, where nothing was done.
    journal_row : int64
    """
    program, engine, judge = borrowed(program), borrowed(engine), borrowed(judge)
    scale, out, latency, log = borrowed(scale), borrowed(out), borrowed(latency), borrowed(log)
    started = ticks(latency[CLOCK])
    ints, numbers, row = int_rows_of(engine, INTS), float_rows_of(engine, NUMBERS), row_of(engine, ROW)
    if mapping != 0 and read_mapping(mapping, program, ints, numbers, 0) != WRITTEN:
        return np.int64(UNREAD), np.int64(-1)
    if ints[0, EVENT_TIME_US] > latest_us:
        return np.int64(UNREAD), np.int64(-1)
    if mapping != 0 and ints[0, EVENT_TIME_US] <= engine[ERASED_UNTIL_US]:  # Python knows who was erased
        return np.int64(UNREAD), np.int64(-1)
    if mapping != 0:  # what Python has read is not timed here
        started = lap(latency, ENCODE, started)
    changed = ints_of(engine, CHANGED)
    if record == 1 and (changed[CHANGED_FULL] != 0 or not has_room_for_events(log, 1)) and is_new(engine, ints):
        return np.int64(FULL), np.int64(-1)
    foresee_now(engine, ints)
    must_be_at_hand = changed[CHANGED_CAPACITY] != 0 and changed[CHANGED_BLIND] == 0
    if must_be_at_hand and not_at_hand(engine, ints, 0, ints_of(engine, KEYS), np.int64(0)) != 0:  # into scratch
        return np.int64(NOT_AT_HAND), np.int64(-1)
    status, journal_row = observe_at(engine, ints, numbers, 0, record == 1, row)
    started = lap(latency, FEATURES, started)
    out[MARGIN] = np.nan
    out[SCORE] = np.nan
    if status == SCORED and ask == 1 and judge[FOREST] != 0:
        margin = call_float32(judge[FOREST], engine[ROW * ADDRESS_WORDS], judge[FOREST_TABLES])
        if settle(margin, scale, out):
            status = APPROVED
        lap(latency, MODEL, started)
    if record == 1:
        if status == APPROVED or status == LIFECYCLE:
            record_verdict(engine, journal_row, out, verdict_on(status, judge))
        log_observed(log, ints, numbers, 0, status, judge, out)
    return np.int64(status), np.int64(journal_row)


@kernel("int64(int64[:, ::1], float64[:, ::1], int64, int64, float32[:, ::1], int64[::1], int64[:, ::1])")
def observe_many(ints, numbers, start, record, rows, engine, seen):
    """
    Read and remember many encoded transactions, from one of them on.

    Parameters
    ----------
    ints, numbers : int64[n, n_ints], float64[n, n_numbers]
    start : int64
    record : int64
    rows : float32[n, n_features]
        Written where the status is `SCORED`.
    engine : int64[m]
        `FeatureEngine.context`.
    seen : int64[n, 2]
        Receives status and journal row.

    Returns
    -------
    int64
        Where it stopped: before the end where the memory must grow first, and after a duplicate.  It must be answered
        before what comes later can take its place in the journal.
    """
    ints, numbers, rows = borrowed(ints), borrowed(numbers), borrowed(rows)
    engine, seen = borrowed(engine), borrowed(seen)
    for i in range(start, ints.shape[0]):
        foresee_row(engine, ints, i)
        status, journal_row = observe_at(engine, ints, numbers, i, record == 1, rows[i])
        seen[i, 0] = status
        if status == NEEDS_ROOM:
            return np.int64(i)
        seen[i, 1] = journal_row
        if status == DUPLICATE:
            return np.int64(i + 1)
    return np.int64(ints.shape[0])


@kernel("void(float32[::1], int64, int64[::1], int64[::1], float64[::1], int64[:, ::1], float64[:, ::1])")
def settle_many(margins, record, engine, judge, scale, seen, out):
    """
    Calibrate margins, and settle what needs nobody's opinion.

    Parameters
    ----------
    margins : float32[n]
        NaN where the model did not say.
    seen : int64[n, 2]
        Of `observe_many`; `SCORED` becomes `APPROVED` where that is so.
    out : float64[n, 2]
        Receives `MARGIN` and `SCORE`.
    """
    margins, engine, judge, scale = borrowed(margins), borrowed(engine), borrowed(judge), borrowed(scale)
    seen, out = borrowed(seen), borrowed(out)
    for i in range(margins.shape[0]):
        if seen[i, 0] == SCORED and settle(margins[i], scale, out[i]):
            seen[i, 0] = APPROVED
        if record == 1 and (seen[i, 0] == APPROVED or seen[i, 0] == LIFECYCLE):
            record_verdict(engine, seen[i, 1], out[i], verdict_on(seen[i, 0], judge))


@kernel("void(int64[:, ::1], float64[:, ::1], int64[:, ::1], float64[:, ::1], int64[::1], int64[::1])")
def log_many(ints, numbers, seen, out, judge, log):
    """
    Log what `observe_many` remembered and `settle_many` settled; there must be room.

    Parameters
    ----------
    ints, numbers : int64[n, n_ints], float64[n, n_numbers]
    seen, out : int64[m, 2], float64[m, 2]
        Of the first m of them.
    """
    ints, numbers, seen, out = borrowed(ints), borrowed(numbers), borrowed(seen), borrowed(out)
    judge, log = borrowed(judge), borrowed(log)
    for i in range(seen.shape[0]):
        log_observed(log, ints, numbers, i, seen[i, 0], judge, out[i])
