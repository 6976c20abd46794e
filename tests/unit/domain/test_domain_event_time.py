"""
Event time is integer microseconds, UTC, and its unit is stated, never guessed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.event_time import (
    MAX_EVENT_TIME_US,
    MIN_EVENT_TIME_US,
    parse_epoch_ms,
    parse_epoch_s,
    parse_epoch_us,
    parse_event_time,
)
from fraudsdk.domain.refusal import RefusedValue

TEN_O_CLOCK_US = 1_795_428_000_000_000  # 2026-11-23T10:00:00Z


@pytest.mark.parametrize(
    ("value", "after_us"),
    [
        ("2026-11-23T10:00:00Z", 0),
        ("2026-11-23t10:00:00z", 0),
        ("2026-11-23 10:00:00Z", 0),
        (" 2026-11-23T10:00:00Z ", 0),
        ("2026-11-23T11:00:00+01:00", 0),
        ("2026-11-23T04:30:00-05:30", 0),
        ("2026-11-23T10:00:00-00:00", 0),
        ("2026-11-23T10:00:00.5Z", 500_000),
        ("2026-11-23T10:00:00.123456Z", 123_456),
        ("2026-11-23T10:00:00.123456999Z", 123_456),
        ("2026-11-23T11:00:00.25+01:00", 250_000),
        (datetime(2026, 11, 23, 10, tzinfo=UTC), 0),
        (datetime(2026, 11, 23, 12, tzinfo=timezone(timedelta(hours=2))), 0),
        (np.datetime64("2026-11-23T10:00:00"), 0),
        (np.datetime64("2026-11-23T10:00:00.000000999", "ns"), 0),
    ],
)
def test_text_and_datetimes_are_read_to_the_microsecond(value, after_us):
    assert TEN_O_CLOCK_US + after_us == parse_event_time(value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_epoch_us, TEN_O_CLOCK_US),
        (parse_epoch_ms, TEN_O_CLOCK_US // 1_000),
        (parse_epoch_s, TEN_O_CLOCK_US // 1_000_000),
        (parse_epoch_s, float(TEN_O_CLOCK_US // 1_000_000)),
        (parse_epoch_s, "1795428000"),
        (parse_epoch_s, "1795428000.000000"),
        (parse_epoch_s, Decimal("1795428000")),
        (parse_epoch_us, np.int64(TEN_O_CLOCK_US)),
    ],
)
def test_epoch_numbers_are_read_in_the_unit_of_their_field(parse, value):
    assert TEN_O_CLOCK_US == parse(value)


def test_a_float_of_seconds_means_its_shortest_decimal_form():
    assert 1_700_000_000_100_000 == parse_epoch_s(1700000000.1)


@given(st.datetimes(datetime(1990, 1, 1), datetime(2199, 12, 31)), st.integers(-23 * 60, 23 * 60))
def test_every_offset_names_the_same_instant(naive, offset_minutes):
    moment = naive.replace(tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(minutes=offset_minutes)))
    expected = round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))

    assert (
        expected == parse_event_time(moment) == parse_event_time(elsewhere) == parse_event_time(elsewhere.isoformat())
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("2026-11-23T10:00:00", "no offset"),
        ("2026-11-23 10:00:00.5", "no offset"),
        (datetime(2026, 11, 23, 10), "no offset"),
        ("2026-11-23", "RFC 3339"),
        ("20261123T100000Z", "RFC 3339"),
        ("2026-W48-1T10:00:00Z", "RFC 3339"),
        ("2026-11-23T10:00:00,5Z", "RFC 3339"),
        ("2026-11-23T10:00Z", "RFC 3339"),
        ("2026-11-23T24:00:00Z", "RFC 3339"),
        ("2026-02-30T10:00:00Z", "RFC 3339"),
        ("2026-11-23T10:00:00+01:00:30", "RFC 3339"),
        ("2026-11-23T10:00:00.1234567 Z", "RFC 3339"),
        ("yesterday", "RFC 3339"),
        ("1795428000", "RFC 3339"),
        ("1989-12-31T23:59:59Z", "between 1990 and 2200"),
        ("2200-01-01T00:00:00Z", "between 1990 and 2200"),
        ("2026-11-23T10:00:60Z", "no leap second"),
        (1795428000, "without a unit"),
        (1795428000.5, "without a unit"),
        (True, "without a unit"),
        ([2026], "list"),
    ],
)
def test_what_is_no_event_time_is_refused(value, words):
    with pytest.raises(RefusedValue) as caught:
        parse_event_time(value)

    assert words in caught.value.problem


@pytest.mark.parametrize("text", ["2016-12-31T23:59:60Z", "2017-01-01T00:59:60.9+01:00"])
def test_a_leap_second_is_the_instant_after_it(text):
    assert parse_event_time("2017-01-01T00:00:00Z") == parse_event_time(text)


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_epoch_s, TEN_O_CLOCK_US // 1_000),
        (parse_epoch_ms, TEN_O_CLOCK_US),
        (parse_epoch_us, TEN_O_CLOCK_US // 1_000),
        (parse_epoch_us, -1),
        pytest.param(parse_epoch_us, 10**5000, id="too large to print"),
    ],
)
def test_a_mixed_up_unit_is_refused_with_a_word_about_units(parse, value):
    with pytest.raises(RefusedValue) as caught:
        parse(value)

    assert "check the unit" in caught.value.remedy


@pytest.mark.parametrize("value", [1.5, "1795428000000000.5", "1e15", True, [1]])
def test_microseconds_are_an_integer(value):
    with pytest.raises(RefusedValue):
        parse_epoch_us(value)


@pytest.mark.parametrize("value", ["", " ", float("nan"), np.datetime64("NaT")])
def test_nothing_is_an_absent_time(value):
    assert parse_event_time(value) is None


def test_the_bounds_are_1990_and_2200():
    assert MIN_EVENT_TIME_US == parse_event_time("1990-01-01T00:00:00Z")
    assert MAX_EVENT_TIME_US - 1 == parse_event_time("2199-12-31T23:59:59.999999Z")


def test_microseconds_may_be_spelled_as_text():
    """
    One bad cell of a CSV column makes text of its neighbours; the error must name the bad one.
    """
    assert 1_795_428_000_000_000 == parse_epoch_us("1795428000000000")
