"""Where a value came from: which entity, whether it was known, how long ago, and whether the answer is exact."""

from __future__ import annotations

from twin.comparison import Driver
from twin.events import Event

from fraudsdk.features.engine import Provenance
from fraudsdk.features.spec import Feature, FeatureSet

SECOND_US = 10**6
FEATURES = FeatureSet(
    "provenance",
    (
        Feature("amount", "value", field="amount"),
        Feature("n", "count", entity="user", window="1h"),
        Feature("at_merchant", "count", entity="user+merchant", window="1h"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
    ),
    ring_cap=8,
)


def event(i, merchant="m"):
    return Event(f"t{i}", 10**15 + i * SECOND_US, texts={"user_id": "u", "merchant_id": merchant})


def read(driver, asked):
    driver.observe(asked, record=False)
    return driver.provenance(asked)


def test_what_the_transaction_says_itself_has_no_entity_and_no_age():
    assert Provenance("", True, None, True) == read(Driver(FEATURES), event(0))[0]


def test_an_entity_never_seen_is_not_known_and_has_no_age():
    assert Provenance("user", False, None, True) == read(Driver(FEATURES), event(0))[1]


def test_a_known_entity_has_the_age_of_its_newest_event():
    driver = Driver(FEATURES)
    driver.observe(event(0))

    assert Provenance("user", True, 5 * SECOND_US, True) == read(driver, event(5))[1]
    assert Provenance("user+merchant", False, None, True) == read(driver, event(5, "other"))[2]


def test_an_answer_from_tiles_or_a_sketch_says_that_it_is_bounded():
    driver = Driver(FEATURES)
    for i in range(70):
        driver.observe(event(i, f"m{i}"))

    _, windowed, at_merchant, distinct = read(driver, event(70, "m0"))

    assert (False, False) == (windowed.exact, distinct.exact)
    assert at_merchant.exact


def test_recording_a_new_entity_does_not_make_it_known_before():
    driver = Driver(FEATURES)
    driver.observe(event(0))

    assert Provenance("user", False, None, True) == driver.provenance(event(0))[1]
    driver.observe(event(5))
    assert Provenance("user", True, 5 * SECOND_US, True) == driver.provenance(event(5))[1]
