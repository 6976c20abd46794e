"""A request that is recorded is the same transaction to whoever consumes it."""

from __future__ import annotations

import pytest

pytest.importorskip("confluent_kafka")
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.adapters.kafka.messages import JsonMessages
from fraudsdk.adapters.kafka.recorder import message_of
from fraudsdk.domain.transaction import Transaction, TransactionType
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.engine import FeatureEngine

CUSTOM_NUMBERS, CUSTOM_CATEGORIES = ("basket", "risk"), ("segment",)

names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z", "Nd", "No", "Nl"]), min_size=1, max_size=20)
finite = st.floats(-1e12, 1e12)
degrees = st.floats(-90, 90)


def transactions():
    optional = {
        **dict.fromkeys(("card_id", "merchant_id", "device_id", "session_id", "counterparty_id", "email_hash"), names),
        "currency": st.sampled_from(["EUR", "JPY", "TND"]),
        "ip": st.ip_addresses().map(str),
        "mcc": st.sampled_from(["5411", "7995"]),
        "channel": st.sampled_from(["web", "pos"]),
        "merchant_country": st.sampled_from(["DE", "FR"]),
        "latitude": degrees,
        "home_longitude": degrees,
        "balance": finite,
        "account_age_days": st.floats(0, 73_000),
        "card_present": st.booleans(),
        "declined": st.booleans(),
        "credit": st.booleans(),
        "type": st.sampled_from(TransactionType),
        "custom": st.fixed_dictionaries(
            {}, optional={"basket": finite, "risk": finite, "segment": st.sampled_from(["new", "vip"])}
        ),
    }
    required = {
        "transaction_id": names.map("t-{}".format),
        "user_id": names,
        "event_time_us": st.integers(10**15, 2 * 10**15),
        "amount_minor": st.integers(0, 10**15),
        "original_transaction_id": names.map("o-{}".format),
    }
    return st.fixed_dictionaries(required, optional=optional).map(lambda fields: Transaction(**fields))


@given(transactions())
def test_a_message_is_read_as_the_transaction_that_it_was_made_of(transaction):
    mapping = JsonMessages(1 << 16).decode(message_of(transaction))

    read = Transaction.from_mapping(mapping, custom_numbers=CUSTOM_NUMBERS, custom_categories=CUSTOM_CATEGORIES)
    assert transaction == read


@pytest.mark.parametrize("field", ["pan", "card_id"])
def test_a_card_number_is_not_in_the_message_and_its_card_is_the_same(field):
    engine = FeatureEngine(reference_feature_set("EUR"), Vocabulary(), max_entities=200, journal_capacity=10)
    encoder = Encoder(engine.record_layout, key=b"a key for tests only", vocabulary=Vocabulary(), currency="EUR")
    sent = {"transaction_id": "t", "user_id": "u", field: "4111 1111 1111 1111", "amount": "12.50"}
    prepared = encoder.prepare(sent | {"event_time": "2026-11-23T10:00:00Z"})

    message = message_of(prepared)

    assert b"1111" not in message
    again = encoder.prepare(JsonMessages(1 << 16).decode(message))
    assert prepared == again and prepared.card_id is not None
