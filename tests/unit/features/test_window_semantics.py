"""What a window, a label, a reversal and a late event mean, one sentence at a time."""

from __future__ import annotations

import math

import pytest
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.features import kernels
from fraudsdk.features.spec import EventFilter, Feature, FeatureSet

SECOND_US = 10**6
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
NOW_US = 1_795_428_000_000_000


def engine(*features, **shared):
    return Driver(FeatureSet("semantics", features, **shared))


def count(window="1h", **more):
    return Feature("n", "count", entity="user", window=window, **more)


def purchase(name, age_us, amount_minor=1_000, **more):
    return Event(name, NOW_US - age_us, amount_minor=amount_minor, texts={"user_id": "u"}, **more)


def asked(driver, age_us=0, **more):
    """The row of a purchase that is read and not remembered."""
    return driver.values(purchase("asked", age_us, **more), record=False)


# --- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_us", "counted"), [(0, 1), (1, 1), (HOUR_US - 1, 1), (HOUR_US, 0), (HOUR_US + 1, 0), (-1, 0)]
)
def test_a_window_is_open_at_its_start_and_closed_at_its_end(age_us, counted):
    driver = engine(count())
    driver.observe(purchase("a", age_us))

    assert counted == asked(driver)["n"]


@pytest.mark.parametrize(
    ("age_us", "counted"), [(HOUR_US - 1, 0), (HOUR_US, 1), (2 * HOUR_US - 1, 1), (2 * HOUR_US, 0)]
)
def test_a_delayed_window_is_the_same_window_earlier(age_us, counted):
    driver = engine(count(delay="1h"))
    driver.observe(purchase("a", age_us))

    assert counted == asked(driver)["n"]


def test_a_transaction_is_not_in_its_own_window_unless_declared():
    driver = engine(count(), Feature("with_own", "count", entity="user", window="1h", current=True))

    assert {"n": 0.0, "with_own": 1.0} == driver.values(purchase("a", 0))
    assert {"n": 1.0, "with_own": 2.0} == driver.values(purchase("b", 0))


def test_two_events_of_one_microsecond_both_count():
    driver = engine(count())
    driver.observe(purchase("a", 5))
    driver.observe(purchase("b", 5))

    assert 2 == asked(driver)["n"]


def test_the_current_event_counts_only_if_it_passes_the_filter():
    driver = engine(count(filter=("card_present",), current=True))

    assert 1 == asked(driver, card_present=True)["n"]
    assert 0 == asked(driver, card_present=False)["n"]
    assert 0 == asked(driver, card_present=None)["n"]


def test_an_entity_that_is_not_named_gives_no_answer():
    driver = engine(count(), Feature("new", "is_new", entity="user+device"))

    row = driver.values(Event("a", NOW_US, texts={"device_id": "d"}))

    assert all(math.isnan(value) for value in row.values())


def test_a_new_entity_counts_nothing_and_averages_to_what_was_declared():
    driver = engine(
        count(),
        Feature("sum", "sum", entity="user", window="1h"),
        Feature("mean", "mean", entity="user", window="1h"),
        Feature("mean_or_zero", "mean", entity="user", window="1h", empty=0.0),
    )

    row = asked(driver)

    assert (0.0, 0.0, 0.0) == (row["n"], row["sum"], row["mean_or_zero"])
    assert math.isnan(row["mean"])


def test_an_unknown_amount_counts_but_is_not_summed():
    driver = engine(count(), Feature("mean", "mean", entity="user", window="1h"))
    driver.observe(purchase("a", 2, amount_minor=300))
    driver.observe(purchase("b", 1, amount_minor=None))

    assert {"n": 2.0, "mean": 3.0} == asked(driver)


def test_credits_and_refunds_are_counted_only_where_they_are_named():
    driver = engine(
        *(Feature(name, "count", entity="user", window="1h", filter=(name,)) for name in ("credit", "refund", "any")),
        count(),
    )
    for i, kind in enumerate(("purchase", "credit", "credit", "refund")):
        driver.observe(purchase(f"t{i}", i, kind=kind))

    assert {"credit": 2.0, "refund": 1.0, "any": 4.0, "n": 1.0} == asked(driver)


def test_a_declared_filter_keeps_what_is_within_its_closed_ranges():
    below = EventFilter("below", "amount", between=((9.0, 9.99), (90.0, 99.99)))
    driver = engine(count(filter=("below",)), filters=(below,))
    for i, amount_minor in enumerate((899, 900, 999, 1_000, 9_000, 9_999, 10_000)):
        driver.observe(purchase(f"t{i}", i, amount_minor))

    assert 4 == asked(driver)["n"]


def test_a_category_filter_knows_only_values_of_the_vocabulary():
    grocery = EventFilter("grocery", "mcc", equals=("5411", "7995"))
    driver = engine(count(filter=("grocery",)), filters=(grocery,))
    for i, mcc in enumerate(("5411", "7995", "5999")):
        driver.observe(Event(f"t{i}", NOW_US - i, texts={"user_id": "u", "mcc": mcc}))

    assert 1 == asked(driver)["n"]


# --- late, duplicate ---------------------------------------------------------------------------------------------------


def test_a_late_event_joins_the_window_it_belongs_to_and_reads_the_past_it_had():
    driver = engine(count(window="1m"))
    driver.observe(purchase("a", 10 * MINUTE_US))
    driver.observe(purchase("b", 0))

    assert 1 == driver.values(purchase("late", 10 * MINUTE_US - 1))["n"]
    assert 1 == asked(driver, age_us=-1)["n"]
    assert 2 == asked(driver, age_us=9 * MINUTE_US + 1)["n"]


def test_a_late_event_does_not_move_what_was_last_seen():
    driver = engine(Feature("since", "seconds_since_last", entity="user"))
    driver.observe(purchase("a", MINUTE_US))
    driver.observe(purchase("late", 5 * MINUTE_US))

    assert 60 == asked(driver)["since"]
    assert 0 == asked(driver, age_us=3 * MINUTE_US)["since"]


def test_an_event_older_than_any_window_is_dropped_from_windows_alone():
    driver = engine(count(), Feature("ever", "count_ever", entity="user"), allowed_lateness="0s")
    driver.observe(purchase("a", 0))
    driver.observe(purchase("much too late", HOUR_US))

    assert {"n": 1.0, "ever": 2.0} == asked(driver)
    assert 1 == driver.engine.memory.counters()["dropped_late_events"]


def test_a_duplicate_is_recognised_by_its_id_and_not_counted_twice():
    driver = engine(count())
    first = driver.observe(purchase("a", 1))[0]
    second = driver.observe(purchase("a", 0, amount_minor=7))[0]

    assert (kernels.SCORED, kernels.DUPLICATE) == (first, second)
    assert 1 == asked(driver)["n"]


# --- reversals, refunds, chargebacks -------------------------------------------------------------------------------------


def spending():
    return engine(count(), Feature("sum", "sum", entity="user", window="1h"))


@pytest.mark.parametrize("given_back", [1_000, 1_001])
def test_a_reversal_in_full_takes_the_purchase_back(given_back):
    driver = spending()
    driver.observe(purchase("a", 9))
    driver.observe(purchase("b", 8, 50))

    status, _ = driver.observe(purchase("r", 7, given_back, kind="reversal", original="a"))

    assert kernels.LIFECYCLE == status
    assert {"n": 1.0, "sum": 0.5} == asked(driver)


def test_a_reversal_that_does_not_say_how_much_takes_nothing_back_and_is_counted():
    """
    A cent given back in a currency that cannot be converted must not wipe out a velocity.
    """
    driver = spending()
    driver.observe(purchase("a", 9))

    driver.observe(purchase("r", 7, None, kind="reversal", original="a"))

    assert {"n": 1.0, "sum": 10.0} == asked(driver)
    assert 1 == driver.engine.memory.counters()["reversals_that_undid_nothing"]


def test_a_purchase_of_an_unknown_amount_is_taken_back_by_any_reversal():
    driver = spending()
    driver.observe(purchase("a", 9, None))

    driver.observe(purchase("r", 7, None, kind="reversal", original="a"))

    assert {"n": 0.0, "sum": 0.0} == asked(driver)


def test_reversals_in_part_take_the_amount_down_until_nothing_is_left():
    driver = spending()
    driver.observe(purchase("a", 9))

    driver.observe(purchase("r1", 8, 400, kind="reversal", original="a"))
    assert {"n": 1.0, "sum": 6.0} == asked(driver)

    driver.observe(purchase("r1", 8, 400, kind="reversal", original="a"))  # the same one again
    assert {"n": 1.0, "sum": 6.0} == asked(driver)

    driver.observe(purchase("r2", 7, 600, kind="reversal", original="a"))
    assert {"n": 0.0, "sum": 0.0} == asked(driver)


def test_a_refund_is_an_event_of_its_own_and_undoes_nothing():
    driver = spending()
    driver.observe(purchase("a", 9))
    driver.observe(purchase("back", 8, kind="refund"))

    assert {"n": 1.0, "sum": 10.0} == asked(driver)


def test_a_chargeback_labels_its_original_as_fraud():
    driver = engine(count(filter=("fraud",)))
    driver.observe(purchase("a", 9))
    driver.observe(purchase("c", 8, kind="chargeback", original="a"))

    assert 1 == asked(driver)["n"]


def test_what_is_not_a_window_is_not_undone():
    driver = engine(
        Feature("ever", "count_ever", entity="user"),
        Feature("decayed", "decayed_count", entity="user", half_life="400d"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="1h"),
    )
    driver.observe(Event("a", NOW_US, texts={"user_id": "u", "merchant_id": "m"}))
    driver.observe(purchase("r", 0, kind="reversal", original="a"))

    assert {"ever": 1.0, "decayed": 1.0, "merchants": 1.0} == asked(driver)


# --- labels and answers --------------------------------------------------------------------------------------------------


def test_a_label_counts_from_when_it_arrives_and_can_be_corrected():
    driver = engine(
        count(filter=("fraud",)),
        Feature("genuine", "count", entity="user", window="1h", filter=("genuine",)),
        Feature("rate", "rate", entity="user", window="1h", filter=("fraud",)),
    )
    driver.observe(purchase("a", 9))
    driver.observe(purchase("b", 8))
    assert {"n": 0.0, "genuine": 0.0, "rate": 0.0} == asked(driver)

    assert driver.label("a", is_fraud=True)
    assert {"n": 1.0, "genuine": 0.0, "rate": 0.5} == asked(driver)

    assert driver.label("a", is_fraud=False)
    assert {"n": 0.0, "genuine": 1.0, "rate": 0.0} == asked(driver)
    assert not driver.label("unknown", is_fraud=True)


def test_the_hosts_answer_counts_from_when_it_arrives_and_can_be_corrected():
    driver = engine(
        count(filter=("declined",)), Feature("ok", "count", entity="user", window="1h", filter=("approved",))
    )
    driver.observe(purchase("a", 9))
    driver.observe(purchase("b", 8, declined=True))
    assert {"n": 1.0, "ok": 1.0} == asked(driver)

    assert driver.answered("a", declined=True)
    assert {"n": 2.0, "ok": 0.0} == asked(driver)

    assert driver.answered("b", declined=False)
    assert {"n": 1.0, "ok": 1.0} == asked(driver)
    assert not driver.answered("unknown", declined=True)


def test_a_delayed_rate_is_of_events_whose_labels_have_had_time():
    driver = engine(Feature("rate", "rate", entity="user", window="1h", delay="1h", filter=("fraud",)))
    for name, age_us in (("old", 90 * MINUTE_US), ("older", 100 * MINUTE_US), ("recent", MINUTE_US)):
        driver.observe(purchase(name, age_us))
        driver.label(name, is_fraud=name != "older")

    assert 0.5 == asked(driver)["rate"]


# --- tiles -----------------------------------------------------------------------------------------------------------


def test_an_attacker_who_paces_events_around_a_hop_is_still_seen():
    """
    Forty purchases, just outside each other's minute, where eight are remembered exactly: none is missed.
    """
    driver = engine(count(window="1h"), ring_cap=8)
    for i in range(40, 0, -1):
        driver.observe(purchase(f"t{i}", i * 61 * SECOND_US))

    assert 40 <= asked(driver)["n"] <= 41
    assert not driver.provenance(purchase("asked", 0))[0].exact


def test_short_windows_stay_exact_when_long_ones_are_answered_by_tiles():
    driver = engine(count(window="1h"), Feature("short", "count", entity="user", window="1m"), ring_cap=8)
    for i in range(40, 0, -1):
        driver.observe(purchase(f"t{i}", i * 9 * SECOND_US))

    assert 6 == asked(driver)["short"]
    assert [False, True] == [origin.exact for origin in driver.provenance(purchase("asked", 0))]


@pytest.mark.parametrize("late", [True, False])
def test_reversing_what_never_entered_the_tiles_takes_nothing_from_them(late):
    driver = engine(count(window="1h"), ring_cap=8, allowed_lateness="0s")
    old = [purchase("old", HOUR_US)]
    first = [purchase("a", 0), *old] if late else [*old, purchase("a", 0)]
    for event in first + [purchase(f"b{i}", -i * SECOND_US) for i in range(1, 21)]:
        driver.observe(event)

    driver.observe(purchase("r", -30 * SECOND_US, kind="reversal", original="old"))

    assert asked(driver, age_us=-30 * SECOND_US)["n"] >= 21


def test_reversing_what_an_entity_did_before_it_was_forgotten_takes_nothing_from_it():
    driver = Driver(FeatureSet("x", (count(),), ring_cap=8, allowed_lateness="0s"), max_entities=68)
    for i in range(5):
        driver.observe(purchase(f"old{i}", 60 * SECOND_US - i))
    for i in range(70):
        driver.observe(Event(f"other{i}", NOW_US - 50 * SECOND_US + i, texts={"user_id": f"v{i}"}))
    for i in range(20):
        driver.observe(purchase(f"new{i}", 20 * SECOND_US - i))

    for i in range(5):
        driver.observe(purchase(f"r{i}", 0, kind="reversal", original=f"old{i}"))

    assert asked(driver)["n"] >= 20


def test_a_ratio_over_next_to_nothing_is_empty_and_not_infinite():
    aged = Feature("aged", "decayed_count", entity="user", half_life="1h")
    driver = engine(aged, Feature("amount", "value", field="amount"), Feature("r", "ratio", of=("amount", "aged")))
    driver.observe(purchase("a", 147 * HOUR_US))

    assert 0.0 < asked(driver)["aged"] < 1e-38
    assert math.isnan(asked(driver)["r"])


def test_an_answer_about_the_host_is_no_label():
    driver = engine(count())
    driver.observe(purchase("a", 0))
    driver.answered("a", declined=True)

    assert 0 == driver.engine.memory.counters()["labels"]
