"""
A transaction is checked once, at the border, and holds nothing that must not be kept.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import pickle
from collections import UserDict
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain.card_number import passes_luhn
from fraudsdk.domain.countries import parse_country
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import MAPPING_FIELDS, Transaction, TransactionReader, TransactionType
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

MINIMAL = {
    "transaction_id": "t-1",
    "user_id": "u-1",
    "amount": "12.50",
    "currency": "GBP",
    "event_time": "2026-11-23T10:00:00Z",
}
PAN = "4111111111111111"


def read(**changes):
    return Transaction.from_mapping({**MINIMAL, **changes}, custom_numbers=("points",), custom_categories=("tier",))


def without(*names, **changes):
    mapping = {name: value for name, value in MINIMAL.items() if name not in names}
    return Transaction.from_mapping({**mapping, **changes})


card_numbers = st.text("0123456789", min_size=12, max_size=18).map(
    lambda body: next(number for check in "0123456789" if passes_luhn(number := "4" + body[1:] + check))
)


def test_what_is_not_sent_is_absent_and_not_zero():
    transaction = read()

    assert all(getattr(transaction, name) is None for name in IDENTIFIERS if name != "user_id")
    assert all(getattr(transaction, name) is None for name in CATEGORIES if name != "currency")
    assert all(math.isnan(getattr(transaction, name)) for name in NUMBERS if name not in ("amount", "card_present"))
    assert (None, None, {}) == (transaction.card_present, transaction.declined, transaction.custom)
    assert (TransactionType.AUTHORISATION, False) == (transaction.type, transaction.credit)


@pytest.mark.parametrize(
    "name", [*IDENTIFIERS[1:], *CATEGORIES[1:], "declined", "card_present", "original_transaction_id"]
)
@pytest.mark.parametrize("nothing", [None, "", "  ", float("nan")])
def test_nothing_in_a_text_or_flag_is_absent(name, nothing):
    assert getattr(read(**{name: nothing}), name) is None


@pytest.mark.parametrize("name", [*NUMBERS[1:5], "account_age_days", "balance"])
@pytest.mark.parametrize("nothing", [None, "", float("nan"), np.float32("nan")])
def test_nothing_in_a_number_is_nan(name, nothing):
    assert math.isnan(getattr(read(**{name: nothing}), name))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("user_id", 42, "42"),
        ("user_id", " u-1 ", "u-1"),
        ("user_id", np.int64(-7), "-7"),
        ("user_id", np.str_("u-1"), "u-1"),
        ("merchant_id", "x" * 128, "x" * 128),
        ("channel", "POS", "pos"),
        ("entry_mode", "Chip", "chip"),
        ("three_ds", "Frictionless", "frictionless"),
        ("mcc", 742, "0742"),
        ("mcc", "0742", "0742"),
        ("merchant_country", "gbr", "GB"),
        ("card_country", 826, "GB"),
        ("ip_country", "826", "GB"),
        ("ip_country", "XK", "XK"),
        ("currency", "gbp", "GBP"),
        ("ip", "203.0.113.7", "203.0.113.7"),
        ("ip", "2001:DB8:0:0::1", "2001:db8::1"),
        ("ip", "::ffff:203.0.113.7", "203.0.113.7"),
        ("latitude", "51.5", 51.5),
        ("latitude", Decimal("51.5"), 51.5),
        ("longitude", -180, -180.0),
        ("card_present", "yes", True),
        ("card_present", 0, False),
        ("card_present", np.bool_(True), True),
        ("declined", 1.0, True),
        ("type", "Refund", TransactionType.REFUND),
        ("type", "authorization", TransactionType.AUTHORISATION),
        ("type", TransactionType.REFUND, TransactionType.REFUND),
        ("type", "", TransactionType.AUTHORISATION),
    ],
)
def test_every_spelling_becomes_the_one_that_is_kept(name, value, expected):
    assert expected == getattr(read(**{name: value}), name)


def test_a_direction_becomes_the_credit_flag():
    assert [True, False, False, True] == [read(direction=d).credit for d in ("credit", "debit", "", "CREDIT")]


@pytest.mark.parametrize(
    "time",
    [
        {"event_time": "2026-11-23T10:00:00Z"},
        {"event_time": datetime(2026, 11, 23, 10, tzinfo=UTC)},
        {"event_time_s": 1795428000},
        {"event_time_ms": 1795428000000},
        {"event_time_us": 1795428000000000},
        {"event_time": None, "event_time_s": "1795428000"},
    ],
)
def test_event_time_is_read_from_any_one_of_its_fields(time):
    assert 1795428000000000 == without("event_time", **time).event_time_us


def test_minor_units_need_no_currency():
    transaction = without("amount", "currency", amount_minor=1250)

    assert (1250, None) == (transaction.amount_minor, transaction.currency)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"foo": 1}, "foo", "declare it as a custom field"),
        ({"user_idd": 1}, "user_idd", "did you mean user_id?"),
        ({"is_fraud": 1}, "is_fraud", "feedback"),
        ({"transaction_id": ""}, "transaction_id", "is missing"),
        ({"transaction_id": None}, "transaction_id", "is missing"),
        ({"transaction_id": PAN}, "transaction_id", "looks like a card number"),
        ({"user_id": ""}, "user_id", "at least one of user_id, card_id, merchant_id, device_id, ip"),
        ({"user_id": "x" * 129}, "user_id", "at most 128 characters, had 129"),
        ({"user_id": "a\nb"}, "user_id", "control characters"),
        ({"user_id": "a\ud800"}, "user_id", "control characters"),
        ({"user_id": 1.0}, "user_id", "text or an integer"),
        ({"user_id": True}, "user_id", "text or an integer"),
        ({"user_id": b"u"}, "user_id", "text or an integer"),
        ({"user_id": ["u"]}, "user_id", "text or an integer"),
        ({"user_id": np.array([1, 2])}, "user_id", "text or an integer"),
        ({"user_id": 10**200}, "user_id", "at most 128 digits"),
        ({"user_id": 4111111111111111}, "user_id", "put a letter before"),
        ({"merchant_id": "4111-1111-1111-1111"}, "merchant_id", "send a card number as pan"),
        ({"card_id": PAN}, "card_id", "no key here"),
        ({"pan": PAN}, "pan", "no key here"),
        ({"pan": "hello"}, "pan", "12 to 19 digits"),
        ({"session_id": f"%B{PAN}^DOE/J^2812101"}, "session_id", "track data"),
        ({"session_id": f";{PAN}=28121010000"}, "session_id", "track data"),
        ({"channel": "x" * 65}, "channel", "at most 64 characters"),
        ({"channel": 1.5}, "channel", "text or an integer"),
        ({"mcc": "742"}, "mcc", "four digits"),
        ({"mcc": "groceries"}, "mcc", "four digits"),
        ({"mcc": 12345}, "mcc", "four digits"),
        ({"merchant_country": "Britain"}, "merchant_country", "ISO 3166"),
        ({"merchant_country": 8.26}, "merchant_country", "must be text"),
        ({"currency": "ZZZ"}, "currency", "ISO 4217"),
        ({"currency": 978}, "currency", "must be text"),
        ({"ip": "203.0.113.7:443"}, "ip", "IPv4 or IPv6"),
        ({"ip": "203.0.113.0/24"}, "ip", "IPv4 or IPv6"),
        ({"ip": 3405803783}, "ip", "must be text"),
        ({"latitude": 90.1}, "latitude", "degrees from -90 to 90"),
        ({"longitude": float("inf")}, "longitude", "degrees from -180 to 180"),
        ({"latitude": "north"}, "latitude", "degrees"),
        ({"latitude": True}, "latitude", "degrees"),
        ({"latitude": "1_0"}, "latitude", "degrees"),
        ({"latitude": 10**400}, "latitude", "degrees"),
        ({"account_age_days": -1}, "account_age_days", "days from 0"),
        ({"balance": float("inf")}, "balance", "a number within"),
        ({"balance": float(PAN)}, "balance", "within"),
        ({"card_present": "maybe"}, "card_present", "true or false"),
        ({"card_present": 2}, "card_present", "true or false"),
        ({"declined": [True]}, "declined", "true or false"),
        ({"type": "void"}, "type", "authorisation, reversal, refund or chargeback"),
        ({"type": 5}, "type", "transaction type"),
        ({"direction": "sideways"}, "direction", "debit or credit"),
        ({"type": "reversal"}, "original_transaction_id", "is missing from a reversal"),
        ({"type": "chargeback"}, "original_transaction_id", "is missing from a chargeback"),
        ({"amount": None}, "amount", "is missing"),
        ({"amount": -1}, "amount", "refund"),
        ({"amount": "12.345"}, "amount", "at most 2 decimals for GBP"),
        ({"amount_minor": 1250}, "amount", "given twice"),
        ({"event_time_s": 1795428000}, "event_time", "given twice"),
        ({"event_time": None}, "event_time", "is missing"),
        ({"event_time": "2026-11-23T10:00:00"}, "event_time", "no offset"),
        ({"event_time": None, "event_time_s": 1795428000000}, "event_time_s", "milliseconds in event_time_ms"),
        ({"currency": None}, "currency", "is missing"),
        ({"custom": 5}, "custom", "must be a mapping"),
        ({"custom": {"colour": "red"}}, "colour", "not a known field"),
        ({"custom": {"points": 1}, "points": 2}, "points", "given twice"),
        ({"custom": {"points": "many"}}, "points", "a number"),
        ({"points": 4222222222222}, "points", "looks like a card number"),
        ({"tier": PAN}, "tier", "looks like a card number"),
    ],
)
def test_bad_input_is_refused_by_field_with_a_remedy(changes, field, words):
    with pytest.raises(InvalidTransactionError) as caught:
        read(**changes)

    assert field == caught.value.field
    assert words in str(caught.value)
    assert caught.value.remedy in str(caught.value)
    assert PAN not in str(caught.value).replace("-", "")


@pytest.mark.parametrize(
    "name", ["cvv", "CVV2", "cvc", "csc", "cid", "pin", "pin_block", "track1", "track2_data", "magstripe", "57"]
)
def test_card_verification_data_is_refused_without_being_repeated(name):
    with pytest.raises(InvalidTransactionError) as caught:
        read(**{name: "73195"})

    assert "must never be sent" in str(caught.value)
    assert "73195" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        TransactionReader(custom_numbers=(name,))


@pytest.mark.parametrize("mapping", [None, [], "t-1", 5, {5: "five"}, {PAN: "x"}])
def test_what_is_no_mapping_of_fields_is_refused(mapping):
    with pytest.raises(InvalidTransactionError) as caught:
        Transaction.from_mapping(mapping)

    assert PAN not in str(caught.value)


def test_an_error_names_the_transaction_masked():
    with pytest.raises(InvalidTransactionError, match=r"\(transaction pa…23\)"):
        read(transaction_id="payment-0123", latitude=91)


def test_a_card_number_becomes_a_token_where_there_is_a_key():
    mapping = {**MINIMAL, "pan": "4111 1111 1111 1111"}
    transaction = Transaction.from_mapping(mapping, tokenise=lambda digits: f"token of {digits[-4:]}")
    in_card_id = Transaction.from_mapping(
        {**MINIMAL, "card_id": PAN}, tokenise=lambda digits: f"token of {digits[-4:]}"
    )

    assert "token of 1111" == transaction.card_id == in_card_id.card_id


def test_a_pan_and_a_card_id_exclude_each_other():
    with pytest.raises(InvalidTransactionError, match="send one of them"):
        Transaction.from_mapping({**MINIMAL, "pan": PAN, "card_id": "c-1"}, tokenise=str)


@given(
    pan=card_numbers,
    name=st.sampled_from(
        [
            *IDENTIFIERS,
            *CATEGORIES,
            "transaction_id",
            "pan",
            "amount",
            "tier",
            "points",
            "balance",
            "direction",
            "type",
            "event_time",
            "account_age_days",
            "foo",
            "cvv",
        ]
    ),
    grouped=st.booleans(),
)
def test_no_card_number_survives_in_any_field(pan, name, grouped):
    value = " ".join(pan[i : i + 4] for i in range(0, len(pan), 4)) if grouped else pan
    mapping = {**MINIMAL, name: value}
    try:
        kept = repr(TransactionReader(("points",), ("tier",), tokenise=lambda digits: "token").read(mapping))
    except InvalidTransactionError as error:
        kept = f"{error!r} {error} {vars(error)}"

    if name != "amount":
        assert pan not in kept.replace(" ", "")


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.decimals(),
    st.complex_numbers(),
    st.datetimes(),
    st.dates(),
    st.fractions(),
    st.lists(st.integers()),
    st.dictionaries(st.text(), st.integers()),
    st.sampled_from(
        [
            np.array([1, 2]),
            np.array([]),
            np.array("x"),
            np.datetime64("NaT"),
            np.timedelta64(1, "s"),
            object(),
            Decimal("sNaN"),
            10**5000,
            np.float32("inf"),
            np.array(["a"], object),
            print,
            int,
        ]
    ),
)


@given(name=st.sampled_from(sorted({*MAPPING_FIELDS, "points", "tier"})), value=junk)
def test_whatever_is_sent_the_answer_is_a_transaction_or_a_typed_error(name, value):
    mapping = {**MINIMAL, name: value}
    if name.startswith("event_time_"):
        del mapping["event_time"]
    with contextlib.suppress(InvalidTransactionError):
        TransactionReader(("points",), ("tier",), "EUR", tokenise=lambda digits: "token").read(mapping)


def test_custom_fields_are_read_by_name_or_from_the_bag():
    assert {"points": 12.0, "tier": "Gold"} == read(points=12, custom={"tier": "Gold"}).custom
    assert {} == read(points=None, tier="").custom


def test_custom_names_cannot_take_the_place_of_a_field():
    for names in (("amount",), ("user_id",), ("event_time_us",), ("custom",), ("points", "points"), ("two words",)):
        with pytest.raises(ConfigurationError):
            TransactionReader(custom_numbers=names)


def test_any_mapping_will_do():
    assert read() == Transaction.from_mapping(UserDict(MINIMAL))


def test_a_transaction_made_directly_is_checked_just_the_same():
    made = Transaction("t-1", 1795428000000000, 1250, currency="gbp", user_id=" u-1 ", channel="POS", latitude=None)

    assert ("GBP", "u-1", "pos") == (made.currency, made.user_id, made.channel)
    assert math.isnan(made.latitude)
    for wrong in ({"card_id": PAN}, {"latitude": 91}, {"user_id": None}, {"custom": {"cvv": 1}}, {"custom": 5}):
        with pytest.raises(InvalidTransactionError):
            dataclasses.replace(made, **wrong)
    with pytest.raises(InvalidTransactionError):
        Transaction("t-1", 1795428000, 1250, user_id="u-1")


def test_both_ways_of_making_one_agree():
    made = Transaction("t-1", 1795428000000000, 1250, currency="GBP", user_id="u-1")

    assert made == read()
    assert hash(made) == hash(read())


def test_a_transaction_is_frozen_and_can_be_copied_and_sent_to_another_process():
    transaction = read(points=3)

    with pytest.raises(dataclasses.FrozenInstanceError):
        transaction.user_id = "u-2"
    assert repr(transaction) == repr(copy.deepcopy(transaction)) == repr(pickle.loads(pickle.dumps(transaction)))


def test_the_table_of_countries_is_iso_3166_1():
    codes = {parse_country(f"{number:03}") for number in range(1000)}

    assert 249 == sum(code.isalpha() for code in codes)
    assert ("US", "US", "DE", "JP") == tuple(map(parse_country, ("USA", 840, "deu", "392")))
    with pytest.raises(RefusedValue):
        parse_country("G8")
