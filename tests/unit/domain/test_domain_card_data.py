"""
Card numbers, track data and verification codes are recognised for what they are.
"""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.card_number import is_sensitive_name, looks_like_card_number, looks_like_track_data, passes_luhn

CARD_NUMBERS = (
    "4111111111111111",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "3530111333300000",
    "30569309025904",
    "4222222222222",
    "6304000000000000000",
)


@pytest.mark.parametrize("number", CARD_NUMBERS)
def test_the_test_numbers_of_the_card_schemes_are_recognised(number):
    assert looks_like_card_number(number)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "４１１１１１１１１１１１１１１１",
        "4111\u20131111\u20131111\u20131111",
    ],
)
def test_grouping_and_foreign_digits_hide_nothing(text):
    assert looks_like_card_number(text)


@pytest.mark.parametrize(
    "text", ["4111111111111112", "1111111111111117", "411111111111", "4111x111111111111", "", "9" * 16]
)
def test_a_failed_check_digit_or_another_shape_is_no_card_number(text):
    assert not looks_like_card_number(text)


@given(st.text("0123456789", min_size=12, max_size=18))
def test_exactly_one_check_digit_passes_luhn(digits):
    assert 1 == sum(passes_luhn(digits + check) for check in "0123456789")


@pytest.mark.parametrize(
    "text",
    [
        "%B4111111111111111^DOE/JANE^28121010000000000",
        ";4111111111111111=28121010000000000?",
        "4111111111111111D2812101000000000F",
    ],
)
def test_track_data_of_stripe_and_chip_is_recognised(text):
    assert looks_like_track_data(text)


def test_digests_are_not_taken_for_card_data():
    digests = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2_000)]

    assert not any(looks_like_card_number(text) or looks_like_track_data(text) for text in digests)
    assert not any(looks_like_track_data(text.upper()) for text in digests)


@pytest.mark.parametrize(
    "name",
    [
        "cvv",
        "CVV2",
        "cvc",
        "csc",
        "cid",
        "card_cvv",
        "pin",
        "PIN-Block",
        "track1",
        "track_2",
        "trackData",
        "MagStripe",
        "57",
        "DE35",
    ],
)
def test_names_of_what_must_never_be_stored_are_known(name):
    assert is_sensitive_name(name)


@pytest.mark.parametrize("name", ["pan", "card_id", "pinned", "channel", "tracking_number", "city"])
def test_innocent_names_are_not(name):
    assert not is_sensitive_name(name)
