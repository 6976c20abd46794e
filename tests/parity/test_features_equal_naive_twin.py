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
from twin.comparison import Pair, agree, first_difference
from twin.events import Event
from twin.streams import DAY_US, HOUR_US, MINUTE_US, SECOND_US, START_US, feature_set, stream

from fraudsdk.entity_state import memory
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.spec import Feature, FeatureSet

SEEDS = st.integers(0, 2**32 - 1)

# As long as all tiles of a level together: 72 of 5 s, 72 of a minute, 78 of 20 min.  Unless such a window starts with a
# tile it touches one more than there are, and only the next level still holds all of it.
AS_LONG_AS_A_LEVEL = ("6m", "72m", "26h")

# Windows that the four levels answer, in whole tiles of each.
IN_WHOLE_TILES = {"5m": 5 * MINUTE_US, "1h": HOUR_US, "24h": DAY_US, "4d": 4 * DAY_US}
# The last microsecond of a tile on every level: windows in whole tiles that end here also start with one.
END_OF_TILES_US = START_US // (4 * HOUR_US) * 4 * HOUR_US - 1


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


@examples(20)
@given(seed=SEEDS)
def test_a_window_as_long_as_a_level_of_tiles_loses_nothing_at_its_start(seed):
    random = Random(seed)
    windows = tuple(
        Feature(f"{aggregate}_{window}", aggregate, entity="user", window=window)
        for window in AS_LONG_AS_A_LEVEL
        for aggregate in ("count", "sum")
    )
    features = FeatureSet("levels", windows, ring_cap=8, allowed_lateness="24h")
    time_us, steps = START_US, []
    for i in range(200):
        time_us += random.choice(
            (1, 5 * SECOND_US, 5 * SECOND_US, MINUTE_US, 20 * MINUTE_US, random.randrange(1, 2**24))
        )
        steps.append(("observe", _purchase(f"t{i}", time_us, random.randrange(1, 10_000))))

    assert "" == first_difference(features, steps)


@examples(20)
@given(seed=SEEDS)
def test_tiles_are_exact_for_windows_of_whole_tiles(seed):
    """
    No tile is only partly inside: every statistic that a tile keeps must be the truth, not a bound of it.
    """
    random = Random(seed)
    pair = Pair(_features_in_whole_tiles())
    ages_us = [random.randrange(width_us) for width_us in IN_WHOLE_TILES.values() for _ in range(30)]
    # The oldest microsecond of each window, and the newest before it.
    ages_us += [age_us for width_us in IN_WHOLE_TILES.values() for age_us in (width_us - 1, width_us)]
    for i, age_us in enumerate(sorted(ages_us, reverse=True)):
        amount_minor = random.choice((None, random.randrange(10_000), random.randrange(10_000)))
        event = _purchase(f"t{i}", END_OF_TILES_US - age_us, amount_minor, declined=random.random() < 0.3)
        pair.driver.observe(event)
        pair.naive.remember(event)
    event = _purchase("asked", END_OF_TILES_US, random.randrange(10_000))

    values = pair.driver.values(event, record=False)
    wanted = dict(zip(pair.set.names, pair.naive.row(event), strict=True))
    wrong = [feature for feature in pair.set.features if not agree(feature, wanted[feature.name], values[feature.name])]

    assert not any(origin.exact for origin in pair.driver.provenance(event))
    assert {} == {feature.name: (wanted[feature.name], values[feature.name]) for feature in wrong}


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


def _features_in_whole_tiles() -> FeatureSet:
    """Every statistic of amounts over a window of each level, and those that take it with the current event in it."""
    comparisons = ("zscore", "ratio_to_mean", "ratio_to_max", "share")
    plain = ("count", "sum", "mean", "min", "max", "std")
    features = []
    for window in IN_WHOLE_TILES:
        over = {"entity": "user", "window": window}
        features += [Feature(f"{name}_{window}", name, **over) for name in (*plain, *comparisons)]
        features += [Feature(f"{name}_with_own_{window}", name, **over, current=True) for name in plain]
        features.append(Feature(f"declined_rate_{window}", "rate", **over, filter=("declined",)))
    return FeatureSet("whole_tiles", tuple(features), ring_cap=8, allowed_lateness="0s")


def _purchase(name: str, time_us: int, amount_minor: int | None, *, declined: bool = False) -> Event:
    return Event(name, time_us, amount_minor=amount_minor, declined=declined, texts={"user_id": "u"})
