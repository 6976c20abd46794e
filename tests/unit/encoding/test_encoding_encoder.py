"""
One transaction becomes one row of two arrays.
"""

from __future__ import annotations

import threading
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain import fields
from fraudsdk.domain.card_number import passes_luhn
from fraudsdk.domain.fields import FIRST_IDENTIFIER, RecordLayout
from fraudsdk.domain.transaction import Transaction
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.encoding.hashing import keyed_hasher, pan_token
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

KEY = b"sixteen byte key"
LAYOUT = RecordLayout(
    identifiers=("user_id", "card_id", "counterparty_id", "merchant_country", "ip_country", "tier"),
    numbers=("amount", "latitude", "card_present", "channel", "points", "tier"),
    custom_numbers=("points",),
    custom_categories=("tier",),
)
VOCABULARY = Vocabulary({"channel": ("pos", "web"), "tier": ("gold",)})
MINIMAL = {"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50", "event_time": "2026-11-23T10:00:00Z"}


def encoder_of(currency="GBP", rates=None, layout=LAYOUT):
    return Encoder(layout, key=KEY, vocabulary=VOCABULARY, currency=currency, rates=rates or {})


def encode(encoder=None, **changes):
    encoder = encoder or encoder_of()
    ints, numbers = encoder.empty(1)
    encoder.encode(encoder.prepare({**MINIMAL, **changes}), ints, numbers)
    return ints[0].tolist(), numbers[0].tolist()


def test_a_row_holds_time_money_flags_and_keys():
    ints, numbers = encode()

    assert [1795428000000000, 1250, fields.AUTHORISATION] == ints[:3]
    assert [keyed_hasher("transaction_id", KEY)("t-1"), 0, keyed_hasher("user_id", KEY)("u-1")] == ints[3:6]
    assert 12.5 == numbers[0]


def test_what_is_absent_is_zero_among_hashes_and_nan_among_numbers():
    ints, numbers = encode()

    assert [0] * 5 == ints[FIRST_IDENTIFIER + 1 :]
    assert np.isnan(numbers[1:]).all()


def test_unknown_is_zero_and_absent_is_nan():
    assert [1.0, 2.0, 0.0] == [encode(channel=channel)[1][3] for channel in ("POS", "web", "carrier pigeon")]
    assert np.isnan(encode(channel="")[1][3])


def test_custom_fields_are_encoded_like_any_other():
    ints, numbers = encode(points=7, tier="gold")

    assert keyed_hasher("tier", KEY)("gold") == ints[-1]
    assert [7.0, 1.0] == numbers[-2:]


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, fields.AUTHORISATION),
        ({"type": "reversal", "original_transaction_id": "t-0"}, fields.REVERSAL),
        ({"type": "refund"}, fields.REFUND),
        ({"type": "chargeback", "original_transaction_id": "t-0"}, fields.CHARGEBACK),
        ({"direction": "credit"}, fields.AUTHORISATION | fields.CREDIT),
        ({"declined": True}, fields.AUTHORISATION | fields.DECLINED),
        ({"declined": False}, fields.AUTHORISATION),
        ({"card_present": True}, fields.AUTHORISATION | fields.CARD_PRESENT),
        ({"card_present": False}, fields.AUTHORISATION | fields.CARD_NOT_PRESENT),
    ],
)
def test_flags_say_what_happened(changes, flags):
    assert flags == encode(**changes)[0][fields.FLAGS]


def test_a_reversal_points_at_what_it_undoes():
    original = encode(transaction_id="t-0")[0]
    reversal = encode(type="reversal", original_transaction_id="t-0")[0]

    assert original[fields.TRANSACTION_KEY] == reversal[fields.ORIGINAL_KEY]


def test_a_counterparty_and_a_country_can_be_recognised_elsewhere():
    ints = encode(counterparty_id="u-1", merchant_country="GB", ip_country="GBR")[0]

    assert ints[FIRST_IDENTIFIER] == ints[FIRST_IDENTIFIER + 2]
    assert ints[FIRST_IDENTIFIER + 3] == ints[FIRST_IDENTIFIER + 4] != 0


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("10.00", "GBP", 1000),
        ("10.00", "EUR", 850),
        ("0.01", "EUR", 1),
        ("1000", "JPY", 525),
        ("1", "JPY", 1),
        ("1", "KWD", 250),
        ("0.005", "KWD", 1),
        ("0.002", "KWD", 0),
        ("0.006", "KWD", 2),
    ],
)
def test_other_currencies_are_converted_and_rounded_half_to_even(amount, currency, minor):
    encoder = encoder_of(rates={"EUR": "0.85", "JPY": Decimal("0.00525"), "KWD": "2.5"})
    ints, numbers = encode(encoder, amount=amount, currency=currency)

    assert minor == ints[fields.AMOUNT_MINOR]
    assert minor / 100 == numbers[0]


def test_an_amount_without_a_rate_is_unknown_and_not_zero():
    ints, numbers = encode(amount="10", currency="CHF")

    assert fields.AMOUNT_UNKNOWN == ints[fields.AMOUNT_MINOR]
    assert np.isnan(numbers[0])


def test_an_amount_that_is_too_large_once_converted_is_refused():
    with pytest.raises(InvalidTransactionError, match="check the unit and the rate"):
        encode(encoder_of(rates={"EUR": "1000000"}), amount="9999999999", currency="EUR")


def test_an_amount_without_a_currency_is_in_the_reference_currency():
    assert 1250 == encode(encoder_of("EUR"))[0][fields.AMOUNT_MINOR]
    assert 12500 == encode(encoder_of("KWD"))[0][fields.AMOUNT_MINOR]


def test_a_transaction_made_directly_is_encoded_as_it_is():
    encoder = encoder_of()
    transaction = Transaction("t-1", 1795428000000000, 1250, "GBP", user_id="u-1")
    ints, numbers = encoder.empty(1)
    encoder.encode(transaction, ints, numbers)

    assert transaction is encoder.prepare(transaction)
    assert encode()[0] == ints[0].tolist()


def test_any_row_of_a_block_can_be_written():
    encoder = encoder_of()
    ints, numbers = encoder.empty(3)
    encoder.encode(encoder.prepare(MINIMAL), ints, numbers, 1)

    assert [[0] * len(ints[0]), encode()[0], [0] * len(ints[0])] == ints.tolist()
    assert [True, False, True] == np.isnan(numbers[:, 0]).tolist()


def test_a_layout_may_be_nearly_empty():
    layout = RecordLayout(identifiers=(), numbers=())
    ints, numbers = encode(encoder_of(layout=layout))

    assert (5, 0) == (len(ints), len(numbers))


def test_a_card_number_and_its_token_are_the_same_card():
    pan = "4111111111111111"
    by_pan, by_token = encode(pan=pan)[0], encode(card_id=pan_token(pan, KEY))[0]

    assert by_pan == by_token == encode(card_id="4111-1111-1111-1111")[0] == encode(pan=int(pan))[0]


@given(st.text("0123456789", min_size=15, max_size=15))
def test_a_card_number_is_nowhere_in_what_is_kept(body):
    pan = next(number for check in "0123456789" if passes_luhn(number := "4" + body[1:] + check))
    encoder = encoder_of()
    transaction = encoder.prepare({**MINIMAL, "pan": pan})
    ints, numbers = encoder.empty(1)
    encoder.encode(transaction, ints, numbers)
    encoded = encoder.encode_columns({**{name: [value] for name, value in MINIMAL.items()}, "pan": [pan]})

    assert pan not in repr(transaction) + repr(encoded) + repr(vars(encoder))
    for array in (ints, numbers, encoded.ints, encoded.numbers):
        assert pan.encode() not in array.tobytes()
        assert int(pan) not in array.ravel().tolist()


def test_the_key_does_not_show():
    encoder = encoder_of()

    assert KEY.decode() not in repr(encoder)


def test_threads_share_an_encoder():
    encoder = encoder_of()
    expected = [encode(encoder, user_id=f"u-{i}") for i in range(200)]
    results: list[list[object]] = [[] for _ in range(8)]

    def work(result):
        for i in range(200):
            result.append(encode(encoder, user_id=f"u-{i}"))

    threads = [threading.Thread(target=work, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(str(expected) == str(result) for result in results)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": b"short"}, "at least 16 bytes"),
        ({"currency": "ZZZ"}, "ISO 4217"),
        ({"currency": ""}, "currency is missing"),
        ({"rates": {"EUR": "-1"}}, "positive decimal"),
        ({"rates": {"EUR": 1.1}}, "positive decimal"),
        ({"rates": {"ZZZ": "1"}}, "ISO 4217"),
        ({"rates": {"GBP": "1"}}, "other currencies than the reference"),
        ({"layout": RecordLayout(("colour",), ())}, "no such field"),
        ({"layout": RecordLayout((), ("user_id",))}, "no such field"),
        ({"layout": RecordLayout((), (), custom_numbers=("cvv",))}, "card verification"),
        ({"layout": RecordLayout((), (), custom_numbers=("amount",))}, "taken"),
    ],
)
def test_a_wrong_configuration_is_refused_at_once(changes, words):
    arguments = {"layout": LAYOUT, "key": KEY, "vocabulary": VOCABULARY, "currency": "GBP", **changes}
    with pytest.raises(ConfigurationError, match=words):
        Encoder(arguments.pop("layout"), **arguments)
