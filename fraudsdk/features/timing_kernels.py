"""The feature kernel once more, feature by feature, with a clock: what is read and computed is that of `kernels`."""

from __future__ import annotations

from fraudsdk._jit import borrowed, device, kernel
from fraudsdk._native import (
    bytes_of,
    float_rows_of,
    floats_of,
    int_rows_of,
    ints_of,
    measured_floats_of,
    measured_rows_of,
)
from fraudsdk._ticks import elapsed_ns, ticks
from fraudsdk.domain.fields import EVENT_TIME_US
from fraudsdk.features.context import (
    ACC,
    BITS,
    EDGES,
    FILTER_RANGES,
    FILTERS,
    INTS,
    KEYS,
    KINDS,
    LIMITS,
    NUMBERS,
    OPS,
    OWN,
    PARAMS,
    POOL,
    POSITIONS,
    RUNS,
    SETS,
    SLOTS,
    SQUARES,
    WINDOWED,
)
from fraudsdk.features.kernels import FIRST_ENTITY_OP, KEY, KEY_HEAD, flags_with_filters, read_kind, write_run
from fraudsdk.features.plan import (
    OP_CODE,
    OP_COLUMN,
    OP_KIND,
    RUN_CODE,
    RUN_END,
    RUN_FIRST,
    WINDOWED_KIND,
)
from fraudsdk.telemetry.kernels import bump

# Columns of ``reading``: one row per entity kind.
READERS = 0  # features that read a window of it
READ_TICKS = 1  # how long all its windows took, 0 = there was nothing to read
READING_FIELDS = 2

# Of which the last counts.  This copy of the code has not run for a thousand transactions, as that of `observe_at` has: the
# first passes bring it into the cache and teach the branch predictor.  The features of the reference set take 3.3 us
# together in the first pass, 3.1 in the second, 1.75 in the fourth and in the eighth.
PASSES = 4


@device
def time_windows(context, ints, source, reading, acc, squares):
    """Read the windows of each entity that is known, into `acc` and `squares`."""
    keys, pool = int_rows_of(context, KEYS), ints_of(context, POOL)
    kinds, windowed = int_rows_of(context, KINDS), measured_rows_of(context, WINDOWED)
    sets, edges, slots = int_rows_of(context, SETS), ints_of(context, EDGES), int_rows_of(context, SLOTS)
    positions, bits, octets = ints_of(context, POSITIONS), measured_rows_of(context, BITS), bytes_of(context, BITS)
    for w in range(windowed.shape[0]):
        k = windowed[w, WINDOWED_KIND]
        reading[k, READ_TICKS] = 0
        if keys[k, KEY] == 0 or keys[k, KEY_HEAD] == 0:
            continue
        ticks_before = ticks(source)
        read_kind(
            pool, keys[k, KEY_HEAD], kinds[k], windowed[w], sets, edges, slots, ints[0, EVENT_TIME_US],
            positions, bits, octets, acc, squares,
        )  # fmt: skip
        reading[k, READ_TICKS] = ticks(source) - ticks_before


@device
def time_ops(context, ints, source, row, took_ticks):
    """Compute each feature alone, into `row`."""
    numbers, keys, acc = float_rows_of(context, NUMBERS), int_rows_of(context, KEYS), int_rows_of(context, ACC)
    pool, poolf, kinds = ints_of(context, POOL), floats_of(context, POOL), int_rows_of(context, KINDS)
    squares, own, runs = floats_of(context, SQUARES), floats_of(context, OWN), measured_rows_of(context, RUNS)
    ops, params, limits = int_rows_of(context, OPS), float_rows_of(context, PARAMS), measured_floats_of(context, LIMITS)
    flags = flags_with_filters(
        ints, numbers, 0, measured_rows_of(context, FILTERS), float_rows_of(context, FILTER_RANGES)
    )
    ticks_before = ticks(source)
    for r in range(runs.shape[0]):
        for f in range(runs[r, RUN_FIRST], runs[r, RUN_END]):
            write_run(
                runs[r, RUN_CODE], f, f + 1,
                ints, numbers, 0, flags, keys, pool, poolf, kinds, ops, params, limits, acc, squares, own, row,
            )  # fmt: skip
            ticks_after = ticks(source)
            took_ticks[f] = ticks_after - ticks_before
            ticks_before = ticks_after


@device
def count_times(ops, took_ticks, reading, multiplier, words):
    """Each feature's own time and, where it reads a window, an even share of what reading those of its entity took."""
    for f in range(took_ticks.shape[0]):
        spent_ns = elapsed_ns(0, took_ticks[f], multiplier)
        if ops[f, OP_CODE] < FIRST_ENTITY_OP:
            k = ops[f, OP_KIND]
            spent_ns += elapsed_ns(0, reading[k, READ_TICKS], multiplier) // reading[k, READERS]
        bump(words[ops[f, OP_COLUMN]], spent_ns)


@kernel(
    "void(int64[::1], int64, int64, int64[:, ::1], int64[:, ::1], float64[::1], float32[::1], int64[::1], int64[:, ::1])",
    nogil=False,
)
def time_features(
    context, source, multiplier, reading, acc, squares, row, took_ticks, words
):  # fmt: skip
    """
    Compute every feature of the transaction that the context still holds once more, and count how long each takes.

    Reads the windows and entities as they are now, so with the transaction itself where it has been remembered.  Of what
    the context points at, only the marks and positions that a reading of windows leaves behind are written.

    Parameters
    ----------
    context : int64[WORDS]
        Its last transaction has been through `kernels.observe_at`.
    source, multiplier : int64
        `fraudsdk.telemetry.ticks.TickClock`.
    reading : int64[n_kinds, READING_FIELDS]
        `READ_TICKS` is scratch.
    acc, squares, row, took_ticks : int64[n_slots, ACC_FIELDS], float64[n_slots], float32[n_features], int64[n_features]
        Scratch: windows, values, and time by op.
    words : int64[n_features, N_WORDS]
        Histograms, by column of the row.
    """
    context, reading, acc, squares = borrowed(context), borrowed(reading), borrowed(acc), borrowed(squares)
    row, took_ticks, words = borrowed(row), borrowed(took_ticks), borrowed(words)
    ints, ops = int_rows_of(context, INTS), int_rows_of(context, OPS)
    for _ in range(PASSES):
        time_windows(context, ints, source, reading, acc, squares)
        time_ops(context, ints, source, row, took_ticks)
    # Only now: histograms are in no cache, and to wait for them would be counted with the next feature.
    count_times(ops, took_ticks, reading, multiplier, words)
