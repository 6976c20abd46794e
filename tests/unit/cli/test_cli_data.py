"""
A user's table on its way to the scorer.
"""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.cli.data import bad_rows_of, currency_of, map_columns, timeline_of, transactions_of
from fraudsdk.encoding.encoder import LABEL_NEVER
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.errors import ConfigurationError, InvalidTransactionError
from fraudsdk.features.spec import Feature, FeatureSet

KEY = b"sixteen byte key"
START_US = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
HOUR_US = 3_600_000_000
LATE_US = START_US + 1_000 * HOUR_US
FEATURES = FeatureSet("one", (Feature("amount", "value", field="amount"),), currency="EUR", custom_numbers=("points",))


def table_of(pairs=(), **columns):
    raw = {name: np.array(values, dtype=object) for name, values in columns.items()}
    return map_columns(raw, ColumnMapping.from_pairs(pairs), "table.csv", feature_set=FEATURES)


def three_rows(**columns):
    return table_of(
        **{
            "transaction_id": ["t-1", "t-2", "t-3"],
            "user_id": ["u-1", "u-2", "u-3"],
            "amount": ["1.00", "2.00", "3.00"],
            "event_time_us": [START_US + 2 * HOUR_US, START_US, START_US + HOUR_US],
            **columns,
        }
    )


def test_what_is_absent_is_left_out_of_a_transaction():
    table = three_rows(channel=["pos", None, float("nan")])

    assert [True, False, False] == ["channel" in each for each in transactions_of(table, np.arange(3))]


def test_labels_are_never_sent_to_the_scorer():
    table = three_rows(is_fraud=[0, 1, 0], label_time_us=[LATE_US] * 3)

    assert {"transaction_id", "user_id", "amount", "event_time_us"} == set(transactions_of(table, np.arange(1))[0])


def test_a_declared_custom_column_is_sent():
    table = three_rows(points=[1.5, 2.5, 3.5])

    assert 2.5 == transactions_of(table, np.arange(3))[1]["points"]


def test_a_datetime64_column_is_sent_as_microseconds():
    """
    NumPy's times have no zone and are UTC by declaration; Python's would be refused without one.
    """
    times = np.array(["2025-01-01T00:00:00.000001", "NaT"], "datetime64[ns]")
    raw = {"transaction_id": np.array(["a", "b"]), "user_id": np.array(["u", "u"]), "amount": np.array([1.0, 2.0])}
    table = map_columns({**raw, "event_time": times}, ColumnMapping(), "table.parquet", feature_set=FEATURES)
    first, second = transactions_of(table, np.arange(2))

    assert START_US + 1 == first["event_time_us"]
    assert "event_time" not in first and "event_time_us" not in second


def test_a_timeline_is_in_event_time_order_and_keeps_the_order_of_equal_times():
    table = three_rows(event_time_us=[START_US + HOUR_US, START_US, START_US + HOUR_US])

    assert ["t-2", "t-1", "t-3"] == timeline_of(table, FEATURES, KEY, 0).transaction_id.tolist()


def test_a_label_without_a_time_is_known_after_the_delay():
    table = three_rows(is_fraud=[1, None, 0])
    timeline = timeline_of(table, FEATURES, KEY, 24 * HOUR_US)

    assert [-1, 0, 1] == timeline.label.tolist()
    assert [LABEL_NEVER, START_US + 25 * HOUR_US, START_US + 26 * HOUR_US] == timeline.label_time_us.tolist()


def test_a_label_whose_time_is_missing_is_known_after_the_delay():
    table = three_rows(is_fraud=[1, 1, None], label_time_us=[None, LATE_US, LATE_US])
    timeline = timeline_of(table, FEATURES, KEY, 24 * HOUR_US)

    assert [LATE_US, LABEL_NEVER, START_US + 26 * HOUR_US] == timeline.label_time_us.tolist()


def test_a_label_is_never_known_before_its_transaction():
    table = three_rows(is_fraud=[1, 0, 1], label_time_us=[START_US, START_US, START_US + HOUR_US + 1])
    timeline = timeline_of(table, FEATURES, KEY, 0)

    assert (timeline.event_time_us + 1).tolist() == timeline.label_time_us.tolist()


def test_a_bad_row_is_named_by_its_place_in_the_file():
    table = three_rows(amount=["1.00", "2.00", "free"]).where(np.array([False, True, True]))

    with pytest.raises(InvalidTransactionError, match="in row 2"):
        timeline_of(table, FEATURES, KEY, 0)


def test_every_bad_row_is_found_with_its_reason():
    table = three_rows(
        amount=["1.00", "minus one", "3.00"],
        is_fraud=[0, 0, "perhaps"],
        event_time_us=[LATE_US + 1, START_US, START_US],
    )
    bad = bad_rows_of(table, FEATURES, KEY, latest_us=LATE_US)

    assert {0: "event_time", 1: "amount", 2: "is_fraud"} == {row: error.field for row, error in bad.items()}
    assert [0, 1, 2] == [error.row for error in bad.values()]


def test_good_rows_are_not_among_the_bad():
    table = three_rows(is_fraud=[0, 1, None], pan=["4111111111111111", None, None])

    assert {} == bad_rows_of(table, FEATURES, KEY, latest_us=LATE_US)


def test_a_bad_card_number_is_not_shown():
    table = three_rows(pan=["4111111111111111x", None, None])
    [error] = bad_rows_of(table, FEATURES, KEY, latest_us=LATE_US).values()

    assert "411111" not in str(error)


def test_the_currency_is_the_commonest_one():
    assert "GBP" == currency_of(three_rows(currency=["GBP", "EUR", "GBP"]))


def test_a_table_without_a_currency_asks_for_one():
    with pytest.raises(ConfigurationError, match="names no currency; add --currency"):
        currency_of(three_rows())


def test_segments_are_the_known_columns_and_those_asked_for():
    table = three_rows(channel=["pos", "pos", "atm"], fraud_pattern=["none", "mule", "none"], REGION=["n", "s", "n"])

    assert ["channel", "fraud_pattern", "REGION"] == list(table.segments(["REGION"]))
    with pytest.raises(ConfigurationError, match="--segment names 'CITY'"):
        table.segments(["CITY"])


def test_only_the_simulators_own_patterns_make_a_table_simulated():
    assert three_rows(fraud_pattern=["none", "mule", "none"]).simulated
    assert not three_rows(fraud_pattern=["none", "cheque kiting", "none"]).simulated
    assert not three_rows().simulated


def test_an_empty_table_is_refused():
    with pytest.raises(ConfigurationError, match="has no rows"):
        table_of(transaction_id=[])
