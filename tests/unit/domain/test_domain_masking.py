"""
A message never holds a card number.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.masking import masked, shown

SEPARATORS = st.sampled_from(["", " ", "-", "  ", ".", "/", "\u2013", "\u00a0", "_"])
GROUPED_DIGITS = st.lists(st.tuples(st.sampled_from("0123456789"), SEPARATORS), min_size=13, max_size=25).map(
    lambda pairs: "".join(digit + separator for digit, separator in pairs)
)


def longest_digit_run(text: str) -> int:
    joined = re.sub(r"[\s\-\u2013._/]+", "", text)
    return max((len(run) for run in re.findall(r"\d+", joined)), default=0)


@given(before=st.text(max_size=30), digits=GROUPED_DIGITS, after=st.text(max_size=30))
def test_no_long_digit_run_survives_masking(before, digits, after):
    text = before + digits + after

    assert 12 >= longest_digit_run(masked(text))
    assert 13 > max((len(run) for run in re.findall(r"\d+", shown(text))), default=0)


@given(digits=GROUPED_DIGITS)
def test_a_grouped_card_number_is_shown_by_its_last_four_digits_only(digits):
    plain = re.sub(r"\D", "", digits)

    assert "…" + plain[-4:] == masked(digits)
    assert plain[:-4] not in re.sub(r"\D", "", shown(digits))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("customer-20491", "cu…91"),
        ("t-1", "t-1"),
        ("", ""),
        (4111111111111111, "…1111"),
        ("４１１１１１１１１１１１１１１１", "…１１１１"),
    ],
)
def test_an_identifier_keeps_at_most_its_first_and_last_two_characters(value, expected):
    assert expected == masked(value)


def test_control_characters_cannot_forge_a_log_line():
    assert "'a?b'" == shown("a\nb")


def test_a_number_too_long_to_print_is_named_not_printed():
    assert "a number of over 40 digits" == shown(10**5000)
