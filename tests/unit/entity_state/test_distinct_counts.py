"""Distinct counts: exact to 64 live keys, then a sketch that forgets nothing it was told and still slides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.features.spec import Feature, FeatureSet

SECOND_US = 10**6
START_US = 10**15
MERCHANTS = FeatureSet(
    "distinct",
    (
        Feature("hour", "distinct", entity="user", field="merchant", window="1h"),
        Feature("day", "distinct", entity="user", field="merchant", window="24h"),
        Feature("with_own", "distinct", entity="user", field="merchant", window="24h", current=True),
    ),
    allowed_lateness="0s",
)
STANDARD_ERROR = 0.092  # 1.04 / sqrt(128)


def purchase(name, seconds, merchant):
    return Event(name, START_US + round(seconds * SECOND_US), texts={"user_id": "u", "merchant_id": merchant})


def visited(merchants, *, every_s=0.001):
    driver = Driver(MERCHANTS, journal_capacity=20_000)
    for i, merchant in enumerate(merchants):
        driver.observe(purchase(f"t{i}", i * every_s, merchant))
    return driver


def asked(driver, seconds, merchant="another"):
    return driver.values(purchase("q", seconds, merchant), record=False)


@pytest.mark.parametrize("n", [0, 1, 4, 5, 63, 64])
def test_up_to_64_keys_are_counted_exactly(n):
    answer = asked(visited([f"m{i}" for i in range(n)] * 2), 10)

    assert (n, n, n + 1) == (answer["hour"], answer["day"], answer["with_own"])


def test_the_own_key_counts_once_when_it_was_there_already():
    driver = visited(["m0", "m1"])

    assert 2 == asked(driver, 10, "m1")["with_own"]
    assert 3 == asked(driver, 10, "m2")["with_own"]
    assert 0 == asked(driver, 48 * 3_600, "m1")["day"]
    assert 1 == asked(driver, 48 * 3_600, "m1")["with_own"]


def test_the_65th_live_key_is_the_first_that_is_estimated():
    driver = visited([f"m{i}" for i in range(64)])
    assert 0 == driver.engine.memory.counters()["distinct_counts_sketched"]

    driver.observe(purchase("t64", 1, "m64"))

    assert 1 == driver.engine.memory.counters()["distinct_counts_sketched"]
    assert not any(origin.exact for origin in _provenance(driver, 10))


def test_keys_that_left_every_window_do_not_lead_to_a_sketch():
    driver = visited([f"m{i}" for i in range(300)], every_s=3_600)

    assert 0 == driver.engine.memory.counters()["distinct_counts_sketched"]
    assert 23 == asked(driver, 299 * 3_600 + 1)["day"] - 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [65, 100, 300, 1_000, 5_000])
def test_a_sketched_count_is_within_five_standard_errors(seed, n):
    answer = asked(visited([f"{seed}-{i}" for i in range(n)]), 10)["day"]

    assert n * (1 - 5 * STANDARD_ERROR) < answer < n * (1 + 5 * STANDARD_ERROR)


def test_the_mean_over_many_sketches_is_within_five_percent():
    n, seeds = 400, range(30)

    mean = sum(asked(visited([f"{seed}-{i}" for i in range(n)]), 10)["day"] for seed in seeds) / len(seeds)

    assert 0.95 * n < mean < 1.05 * n


def test_promotion_takes_every_key_and_its_time_along():
    """
    Sixty-five keys a minute apart: after promotion each window still sees the keys of that window.
    """
    driver = visited([f"m{i}" for i in range(70)], every_s=60)

    answer = asked(driver, 70 * 60)

    assert answer["hour"] < answer["day"]
    assert 59 == pytest.approx(answer["hour"], rel=5 * STANDARD_ERROR)
    assert 70 == pytest.approx(answer["day"], rel=5 * STANDARD_ERROR)


def test_more_keys_never_make_a_sketched_count_smaller():
    driver = visited([f"m{i}" for i in range(65)])
    last = asked(driver, 100)["day"]
    for i in range(65, 200):
        driver.observe(purchase(f"t{i}", 1 + i / 1_000, f"m{i}"))
        count = asked(driver, 100)["day"]
        assert count >= last
        last = count


def test_seeing_the_same_keys_again_does_not_change_a_sketched_count():
    merchants = [f"m{i}" for i in range(90)]

    assert asked(visited(merchants), 10)["day"] == asked(visited(merchants * 3), 10)["day"]


def test_a_sketched_count_slides_on():
    driver = visited([f"m{i}" for i in range(500)])
    for i in range(3):
        driver.observe(purchase(f"later{i}", 40 * 3_600 + i, f"m{i}"))

    assert 3 == pytest.approx(asked(driver, 40 * 3_600 + 10)["day"], rel=0.05)


def test_a_late_sighting_does_not_age_a_key_of_a_sketch():
    """
    A hundred keys seen now, and then, late, seen ten hours ago: they were still seen in the last hour.
    """
    driver = visited([f"m{i}" for i in range(100)])
    for i in range(100):
        driver.observe(purchase(f"now{i}", 10 * 3_600, f"m{i}"))
    in_the_last_hour = asked(driver, 10 * 3_600 + 10)["hour"]

    for i in range(100):
        driver.observe(purchase(f"late{i}", 1, f"m{i}"))

    assert 100 == pytest.approx(in_the_last_hour, rel=5 * STANDARD_ERROR)
    assert in_the_last_hour == asked(driver, 10 * 3_600 + 10)["hour"]


@pytest.mark.parametrize("n", [4, 8, 16, 32])
def test_keys_are_kept_for_the_latest_event_that_is_allowed(n):
    """
    Room for `n` keys is full when the next arrives, and none of them is in a window of that event any more.

    To an event as late as allowed they are all still in it, by one microsecond.
    """
    hour = Feature("hour", "distinct", entity="user", field="merchant", window="1h")
    driver = Driver(FeatureSet("late", (hour,), allowed_lateness="10m"))
    for i in range(n):
        driver.observe(purchase(f"t{i}", 0, f"m{i}"))
    newest = purchase("newest", 70 * 60 - 1e-6, "newest")
    driver.observe(newest)
    late = purchase("late", 60 * 60 - 1e-6, "m0")

    # One that was first seen later counts as well: only the last sighting of a key is known.
    assert n + 1 == driver.values(late, record=False)["hour"]
    assert driver.provenance(late)[0].exact
    assert 1 == driver.values(replace(newest, transaction="asked"), record=False)["hour"]


def _provenance(driver, seconds):
    event = purchase("q", seconds, "another")
    driver.observe(event, record=False)
    return driver.provenance(event)
