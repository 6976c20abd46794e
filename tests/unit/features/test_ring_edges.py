"""Where windows begin and end in a ring, and how many events of a set lie between, against NumPy event by event."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.features import plan
from fraudsdk.features.kernels import find_edges, mark_none, mark_set, rank

LEAD = 8  # words before the ring, which are read and must not count
NOW_US = 1_000

SEEDS = st.integers(0, 2**32 - 1)
# Around the ends of chunks and words of marks above all.
LENGTHS = st.one_of(
    st.integers(0, 20), st.sampled_from([55, 56, 57, 63, 64, 65, 120, 127, 128, 129]), st.integers(0, 256)
)


@settings(max_examples=200, print_blob=True, deadline=None)
@given(seed=SEEDS, length=LENGTHS, n_edges=st.integers(2, 11), first_edge=st.integers(0, 3))
def test_an_edge_is_the_number_of_events_that_are_at_least_that_old(seed, length, n_edges, first_edge):
    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(0, NOW_US + 50, length))
    pool = np.concatenate([rng.integers(0, 2 * NOW_US, LEAD), times, rng.integers(0, 2 * NOW_US, 8)])
    ages = np.sort(rng.integers(0, NOW_US, n_edges))
    edges = np.concatenate([rng.integers(0, NOW_US, first_edge), ages, np.zeros(7, dtype=np.int64)])
    windowed = np.zeros(plan.WINDOWED_FIELDS, dtype=np.int64)
    windowed[[plan.WINDOWED_FIRST_EDGE, plan.WINDOWED_EDGES]] = first_edge, n_edges
    positions = np.zeros(len(edges), dtype=np.int64)

    find_edges(pool, LEAD, length, edges, windowed, NOW_US, positions)

    expected = np.searchsorted(times, NOW_US - ages, side="right")
    assert expected.tolist() == positions[:n_edges].tolist()


@settings(max_examples=200, print_blob=True, deadline=None)
@given(seed=SEEDS, length=LENGTHS)
def test_ranks_tell_how_many_events_of_a_set_lie_between_two_positions(seed, length):
    rng = np.random.default_rng(seed)
    tags = rng.integers(0, 4, length + 16)
    oldest, first, end, newest = np.sort(rng.integers(0, length + 1, 4)).tolist()
    bits = rng.integers(-(2**63), 2**63 - 1, (2, 6))  # whatever was left there

    mark_set(tags, 0, oldest, newest, 3, 1, bits, 0, 1)

    expected = int((tags[first:end] == 1).sum())
    assert expected == rank(bits, 0, 1, end) - rank(bits, 0, 1, first)


@settings(max_examples=100, print_blob=True, deadline=None)
@given(seed=SEEDS, length=LENGTHS)
def test_a_set_without_events_counts_none_anywhere(seed, length):
    rng = np.random.default_rng(seed)
    oldest, first, end, newest = np.sort(rng.integers(0, length + 1, 4)).tolist()
    bits = rng.integers(-(2**63), 2**63 - 1, (2, 6))

    mark_none(oldest, newest, bits, 0, 1)

    assert 0 == rank(bits, 0, 1, end) - rank(bits, 0, 1, first)
