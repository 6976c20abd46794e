"""
Money is an integer of minor units, and nothing is rounded on the way in.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.money import (
    CURRENCY_EXPONENTS,
    MAX_AMOUNT_MINOR,
    convert_minor,
    parse_amount,
    parse_amount_minor,
    parse_currency,
    parse_rate,
)
from fraudsdk.domain.refusal import RefusedValue

CURRENCIES = st.sampled_from(["JPY", "EUR", "KWD", "CLF"])


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        ("12.50", "GBP", 1250),
        ("12.5", "GBP", 1250),
        ("12", "GBP", 1200),
        ("12.", "GBP", 1200),
        (".5", "GBP", 50),
        ("0", "GBP", 0),
        ("0.00", "GBP", 0),
        ("1e2", "GBP", 10000),
        ("12.500", "GBP", 1250),
        (12, "GBP", 1200),
        (12.5, "GBP", 1250),
        (0.1, "GBP", 10),
        (100.0, "JPY", 100),
        (1e15, "JPY", 10**15),
        (Decimal("12.50"), "GBP", 1250),
        (np.int64(12), "GBP", 1200),
        (np.float64(12.5), "GBP", 1250),
        (np.float32(12.1), "GBP", 1210),
        ("1200", "JPY", 1200),
        ("1.234", "KWD", 1234),
        ("1.2345", "CLF", 12345),
    ],
)
def test_an_amount_is_read_exactly(value, currency, minor):
    assert minor == parse_amount(value, currency)


@given(minor=st.integers(0, MAX_AMOUNT_MINOR), currency=CURRENCIES)
def test_an_amount_written_as_text_comes_back_to_the_minor_unit(minor, currency):
    text = str(Decimal(minor).scaleb(-CURRENCY_EXPONENTS[currency]))

    assert minor == parse_amount(text, currency)


@given(minor=st.integers(0, MAX_AMOUNT_MINOR), currency=CURRENCIES)
def test_a_float_means_its_shortest_decimal_form(minor, currency):
    as_float = minor / 10 ** CURRENCY_EXPONENTS[currency]

    assert minor == parse_amount(as_float, currency)


@pytest.mark.parametrize(
    ("value", "currency", "words"),
    [
        ("-5", "EUR", "must be >= 0"),
        (-5, "EUR", "must be >= 0"),
        ("-0", "EUR", "must be >= 0"),
        (-0.0, "EUR", "must be >= 0"),
        ("nan", "EUR", "finite"),
        (float("nan"), "EUR", "finite"),
        ("inf", "EUR", "finite"),
        (float("inf"), "EUR", "finite"),
        (1e308, "EUR", "at most"),
        ("1e999999999", "EUR", "at most"),
        ("1e-999999999", "EUR", "at most 2 decimals for EUR"),
        pytest.param(10**5000, "EUR", "at most", id="too large to print"),
        ("9" * 5000, "EUR", "finite"),
        (10**14, "EUR", "at most"),
        ("9999999999999.9", "CLF", "at most"),
        ("12.345", "EUR", "at most 2 decimals for EUR"),
        (0.1 + 0.2, "EUR", "at most 2 decimals for EUR"),
        ("100.5", "JPY", "at most 0 decimals for JPY"),
        ("12,50", "EUR", "finite decimal"),
        ("1_000", "EUR", "finite decimal"),
        ("€5", "EUR", "finite decimal"),
        ("٣", "EUR", "finite decimal"),
        ("", "EUR", "is empty"),
        (True, "EUR", "True (bool)"),
        (np.True_, "EUR", "bool"),
        ([1], "EUR", "list"),
        (b"12", "EUR", "bytes"),
    ],
)
def test_what_is_no_amount_is_refused(value, currency, words):
    with pytest.raises(RefusedValue) as caught:
        parse_amount(value, currency)

    assert words in caught.value.problem
    assert caught.value.remedy


def test_a_negative_amount_is_told_about_refunds_and_directions():
    with pytest.raises(RefusedValue) as caught:
        parse_amount("-5", "EUR")

    assert "refund" in caught.value.remedy and "direction" in caught.value.remedy


@pytest.mark.parametrize("value", [-1, 12.5, "12.5", "-1", "", "1e3", True, 10**15 + 1, 10**39, -(10**39)])
def test_minor_units_are_a_non_negative_integer(value):
    with pytest.raises(RefusedValue):
        parse_amount_minor(value)


def test_a_number_too_large_to_print_is_refused_all_the_same():
    for value in (10**5000, -(10**5000)):
        with pytest.raises(RefusedValue):
            parse_amount_minor(value)


def test_the_exponents_are_those_of_iso_4217():
    assert (0, 0, 2, 3, 3, 4, 4) == tuple(
        CURRENCY_EXPONENTS[c] for c in ("JPY", "ISK", "EUR", "KWD", "TND", "CLF", "UYW")
    )
    assert not {"XAU", "XTS", "XXX", "XDR"} & CURRENCY_EXPONENTS.keys()
    assert all(len(code) == 3 and code.isupper() for code in CURRENCY_EXPONENTS)


def test_a_currency_is_read_in_any_case_and_an_unknown_one_is_refused():
    assert ("EUR", "EUR", None) == (parse_currency("eur"), parse_currency(" EUR "), parse_currency(""))
    for wrong in ("ZZZ", "XXX", "euro", 978, ["EUR"]):
        with pytest.raises(RefusedValue):
            parse_currency(wrong)


@given(minor=st.integers(0, 10**15), numerator=st.integers(1, 10**9), denominator=st.integers(1, 10**9))
def test_conversion_rounds_half_to_even(minor, numerator, denominator):
    exact = Fraction(minor * numerator, denominator)

    assert round(exact) == convert_minor(minor, numerator, denominator)


def test_a_tie_goes_to_the_even_minor_unit():
    assert [0, 2, 2] == [convert_minor(minor, 1, 2) for minor in (1, 3, 4)]
    assert Decimal("0.5").to_integral_value(ROUND_HALF_EVEN) == convert_minor(1, 1, 2)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", 1.1, True, "1e400", "x", None, "9" * 100])
def test_a_rate_is_a_positive_decimal(rate):
    with pytest.raises(RefusedValue):
        parse_rate(rate)


def test_minor_units_may_be_spelled_as_text():
    """
    One bad cell of a CSV column makes text of its neighbours; the error must name the bad one.
    """
    assert 1250 == parse_amount_minor(" 1250 ")
