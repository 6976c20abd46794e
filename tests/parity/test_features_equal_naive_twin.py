"""
Random feature sets over random streams: the kernels against an engine written for obviousness.

Counts, sums, extremes, rates and times are equal to the bit; means to one unit in the last place of float32; deviations,
decayed totals, distances and angles to one in a million.  Where tiles answer, counts and sums are at least the truth and
at most what the tiles at both ends hold.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin.comparison import Pair, first_difference
from twin.streams import DAY_US, feature_set, stream

from fraudsdk.entity_state import memory
from fraudsdk.features.catalogue import reference_feature_set

SEEDS = st.integers(0, 2**32 - 1)


def examples(n: int) -> settings:
    """A failure prints the blob that reproduces it; the seed, the features and the step are in the message."""
    return settings(max_examples=n, print_blob=True, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def small_pools():
    """A pool that fits the example: hundreds of engines are built here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "FIRST_POOL_WORDS", 1 << 10)
        yield


@examples(600)
@given(seed=SEEDS, n_features=st.integers(1, 16), n_steps=st.integers(1, 60))
def test_every_feature_equals_its_definition_while_rings_cover_the_windows(seed, n_features, n_steps):
    random = Random(seed)
    features = feature_set(random, n_features=n_features, ring_cap=64)

    assert "" == first_difference(features, stream(random, n_steps))


@examples(200)
@given(seed=SEEDS, n_features=st.integers(1, 8), n_steps=st.integers(20, 200))
def test_small_rings_overflow_into_tiles_that_never_say_less_than_the_truth(seed, n_features, n_steps):
    random = Random(seed)
    features = feature_set(random, n_features=n_features, ring_cap=8, bounded_only=True, allowed_lateness="24h")

    assert "" == first_difference(features, stream(random, n_steps, crowded=True, amend_within_us=DAY_US))


@examples(12)
@given(seed=SEEDS)
def test_the_reference_set_equals_its_definition(seed):
    random = Random(seed)
    at_home = {"latitude": 51.5, "longitude": -0.1, "home_latitude": 48.9, "home_longitude": 2.4}
    steps = [
        (what, replace(rest[0], numbers={**at_home, **rest[0].numbers})) if what == "observe" else (what, *rest)
        for what, *rest in stream(random, 120)
    ]

    assert "" == first_difference(reference_feature_set(), steps)


def test_a_crowded_stream_does_overflow_its_rings():
    """
    What keeps the test of tiles from passing because no tile was ever asked.
    """
    random = Random(7)
    features = feature_set(random, n_features=8, ring_cap=8, bounded_only=True, allowed_lateness="24h")
    pair = Pair(features)
    bounded = 0
    for step in stream(random, 200, crowded=True, amend_within_us=DAY_US):
        pair.take(step)
        bounded += step[0] == "observe" and sum(not each.exact for each in pair.driver.provenance(step[1]))

    assert pair.driver.engine.memory.counters()["tile_ladders"] >= 3
    assert bounded > 100
