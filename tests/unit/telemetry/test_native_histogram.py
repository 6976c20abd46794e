"""
What a kernel records and what Python records is one histogram; a kernel's clock agrees with the system's.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk import _ticks
from fraudsdk._jit import kernel
from fraudsdk._ticks import elapsed_ns, read_ticks, ticks
from fraudsdk.telemetry import MicrosecondHistogram
from fraudsdk.telemetry import ticks as clocks
from fraudsdk.telemetry.kernels import bump
from fraudsdk.telemetry.ticks import TickClock, tick_clock

DURATIONS_NS = st.lists(
    st.one_of(st.integers(0, 10_000_000_000), st.integers(0, 200), st.integers(2**34 - 2, 2**34 + 2), st.just(2**62)),
    max_size=100,
)


@kernel("int64(int64[::1], int64, int64, int64)")
def timed_rounds(words, source, multiplier, rounds):
    """A stage timed as the scorer's are: one reading ends it and begins the next."""
    before = ticks(source)
    state = 1
    for _ in range(rounds):
        for i in range(2_000):
            state = (state ^ (state << 13)) * 31 + i
        now = ticks(source)
        bump(words, elapsed_ns(before, now, multiplier))
        before = now
    return state


@kernel("void(int64[::1], int64[::1])")
def bump_all(words, durations_ns):
    for duration_ns in durations_ns:
        bump(words, duration_ns)


@kernel("void(int64[::1], int64, int64, int64)")
def bump_between(words, before, after, multiplier):
    bump(words, elapsed_ns(before, after, multiplier))


@kernel("int64(int64, int64, int64)")
def elapsed_between(before, after, multiplier):
    return elapsed_ns(before, after, multiplier)


def recorded(durations_ns):
    histogram = MicrosecondHistogram()
    for duration_ns in durations_ns:
        histogram.record(duration_ns)
    return histogram


@settings(deadline=None)
@given(durations_ns=DURATIONS_NS)
def test_a_kernel_counts_into_the_buckets_that_python_does(durations_ns):
    native = MicrosecondHistogram()

    bump_all(native.words, np.array(durations_ns, dtype=np.int64))

    np.testing.assert_array_equal(recorded(durations_ns).words, native.words)


def test_python_and_a_kernel_record_into_one_histogram():
    histogram = recorded([1_000] * 3)

    bump_all(histogram.words, np.array([2_000] * 2 + [9_000]))
    histogram.record(500)

    assert 7 == histogram.n
    assert 9.0 == histogram.max_us == histogram.percentile_us(100)


def test_merging_leaves_the_other_as_it_was_and_keeps_the_words_where_kernels_know_them():
    one, other = recorded([1_000]), recorded([5_000, 6_000])
    address = one.words.ctypes.data

    one.merge(other)
    bump_all(one.words, np.array([7_000]))

    assert (4, 7.0, 2) == (one.n, one.max_us, other.n)
    assert address == one.words.ctypes.data


@pytest.mark.parametrize("source", [_ticks.SYSTEM_CLOCK, _ticks.CYCLE_COUNTER])
def test_a_clock_never_goes_back(source):
    readings = [read_ticks(source) for _ in range(1_000)]

    assert readings == sorted(readings)
    assert readings[0] < readings[-1]


def test_the_system_clock_of_kernels_is_pythons_monotonic_clock():
    before_ns = time.monotonic_ns()
    reading_ns = read_ticks(_ticks.SYSTEM_CLOCK)

    assert before_ns <= reading_ns <= time.monotonic_ns()


@pytest.mark.parametrize(
    "clock", [tick_clock(), TickClock(_ticks.SYSTEM_CLOCK, 1 << _ticks.TICK_SHIFT)], ids=["found", "system"]
)
def test_stages_timed_in_a_kernel_add_up_to_what_python_sees(clock):
    histogram = MicrosecondHistogram()
    timed_rounds(histogram.words, clock.source, clock.multiplier, 1)
    elapsed_between.warm_up()
    histogram.words[:] = 0

    # One clock read around the other, twice: an interruption at any place moves no bound the wrong way.
    outer_ns, before = time.perf_counter_ns(), read_ticks(clock.source)
    inner_ns = time.perf_counter_ns()
    timed_rounds(histogram.words, clock.source, clock.multiplier, 3_000)
    inner_ns = time.perf_counter_ns() - inner_ns
    told_ns = elapsed_between(before, read_ticks(clock.source), clock.multiplier)
    outer_ns = time.perf_counter_ns() - outer_ns

    assert 3_000 == histogram.n
    assert inner_ns * 0.999 < told_ns < outer_ns * 1.001


def test_a_counter_that_stepped_back_took_no_time():
    """
    Counters of two cores may differ by a few ticks.
    """
    assert 0 == elapsed_between(1_000, 990, 1 << _ticks.TICK_SHIFT)


@pytest.mark.parametrize("elapsed_s", [1, 3_600])
def test_long_durations_do_not_overflow(elapsed_s):
    """
    An hour at five gigahertz.
    """
    multiplier = round(0.2 * (1 << _ticks.TICK_SHIFT))

    answer_ns = elapsed_between(0, elapsed_s * 5_000_000_000 // 10, multiplier)

    assert pytest.approx(elapsed_s * 1e8, rel=1e-5) == answer_ns


@pytest.mark.parametrize("ns_per_tick", [0.2, 1.0, 1_000.0])
@settings(deadline=None)
@given(ticks_taken=st.integers(0, 1 << 62))
def test_a_pause_of_any_length_is_counted_whole_up_to_the_longest(ns_per_tick, ticks_taken):
    """
    A machine was suspended in the middle of a kernel: it took hours, and is counted once, in the last bucket.
    """
    multiplier = round(ns_per_tick * (1 << _ticks.TICK_SHIFT))
    expected_ns = min(ticks_taken, _ticks.LONGEST_TICKS) * multiplier >> _ticks.TICK_SHIFT
    histogram = MicrosecondHistogram()

    bump_between(histogram.words, 0, ticks_taken, multiplier)

    np.testing.assert_array_equal(recorded([expected_ns]).words, histogram.words)


@pytest.mark.parametrize(
    ("machine", "flags", "steady"),
    [
        ("x86_64", "fpu tsc constant_tsc nonstop_tsc avx", True),
        ("x86_64", "fpu tsc constant_tsc avx", False),
        ("x86_64", None, False),
        ("aarch64", None, True),
        ("riscv64", None, False),
    ],
)
def test_a_counter_that_nobody_calls_steady_is_not_used(monkeypatch, tmp_path, machine, flags, steady):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(f"model name\t: some\nflags\t\t: {flags}\n")
    monkeypatch.setattr(clocks.platform, "machine", lambda: machine)
    monkeypatch.setattr(clocks, "_CPU_INFO", info)

    assert steady == clocks._counter_is_steady()
    if not steady:
        tick_clock.cache_clear()
        assert TickClock(_ticks.SYSTEM_CLOCK, 1 << _ticks.TICK_SHIFT) == tick_clock()
        assert 1.0 == tick_clock().ns_per_tick
        tick_clock.cache_clear()
