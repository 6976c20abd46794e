"""What a latency histogram promises: never flattering, at most 3.1 % too high, exact at the maximum."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.telemetry import MicrosecondHistogram

DURATIONS_NS = st.lists(st.integers(0, 10_000_000_000), min_size=1, max_size=200)


def recorded(durations_ns):
    histogram = MicrosecondHistogram()
    for elapsed_ns in durations_ns:
        histogram.record(elapsed_ns)
    return histogram


def exact_percentile_us(durations_ns, percent):
    rank = max(math.ceil(round(percent * len(durations_ns) / 100, 6)), 1)
    return sorted(durations_ns)[rank - 1] / 1_000


@given(durations_ns=DURATIONS_NS, percent=st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_a_percentile_is_never_below_the_truth_and_at_most_one_thirty_second_above(durations_ns, percent):
    truth_us = exact_percentile_us(durations_ns, percent)

    answer_us = recorded(durations_ns).percentile_us(percent)

    assert truth_us <= answer_us <= truth_us * (1 + 1 / 32) + 1e-9


@given(durations_ns=DURATIONS_NS)
def test_the_maximum_is_exact(durations_ns):
    assert max(durations_ns) / 1_000 == recorded(durations_ns).max_us


@given(first=DURATIONS_NS, second=DURATIONS_NS)
def test_merged_histograms_are_the_histogram_of_everything(first, second):
    merged = recorded(first)
    merged.merge(recorded(second))

    assert recorded(first + second).summary() == merged.summary()


def test_one_microsecond_and_two_are_told_apart():
    histogram = recorded([1_000] * 50 + [2_000] * 50)

    assert histogram.percentile_us(50) < 1.04
    assert histogram.percentile_us(51) > 1.99


def test_p999_of_a_thousand_recordings_is_not_the_maximum():
    # 99.9 * 1000 / 100 is 999.0000000000001 in floating point
    histogram = recorded([1_000] * 999 + [5_000_000])

    assert histogram.percentile_us(99.9) < 1.04


def test_a_duration_beyond_the_range_is_counted_and_shows_in_the_maximum():
    histogram = recorded([1_000, 60_000_000_000])

    assert 2 == histogram.n
    assert 60_000_000.0 == histogram.max_us == histogram.percentile_us(100)


def test_an_empty_histogram_says_nan_rather_than_zero():
    summary = MicrosecondHistogram().summary()

    assert 0 == summary.n
    assert all(math.isnan(x) for x in (summary.p50_us, summary.p99_us, summary.p999_us, summary.max_us))


def test_a_negative_duration_is_refused():
    with pytest.raises(ValueError, match="must be >= 0, was -5"):
        recorded([-5])


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan])
def test_a_percentile_outside_0_to_100_is_refused(percent):
    with pytest.raises(ValueError, match="from 0 to 100"):
        recorded([1]).percentile_us(percent)


@given(st.lists(st.integers(0, 20_000_000_000), max_size=50))
def test_wider_buckets_never_flatter_and_miss_nothing(durations_ns):
    """
    A recording is counted at an edge that it surely does not exceed, at the latest 3.2 % above itself.
    """
    histogram, edges = MicrosecondHistogram(), [step * 10**decade for decade in range(3, 10) for step in (1, 2, 5)]
    for each in durations_ns:
        histogram.record(each)
    *counts, n, total_ns = histogram.cumulated(edges)

    assert n == len(durations_ns)
    for edge, counted in zip(edges, counts, strict=True):
        assert sum(each * 1.04 < edge for each in durations_ns) <= counted <= sum(each <= edge for each in durations_ns)
    within = [each for each in durations_ns if each < 10**10]
    if len(within) == len(durations_ns):
        assert sum(within) <= total_ns <= 1.04 * sum(within)
