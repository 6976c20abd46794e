"""Transactions and decisions as messages: nothing is invented on the way, and nothing lost."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pytest

from fraudsdk.adapters.protobuf import Rung, decision_message, decision_of, mapping_of, message_of, rung_of
from fraudsdk.adapters.protobuf._generated import decision_pb2, explanation_pb2, transaction_pb2
from fraudsdk.adapters.protobuf.explanations import explanation_message, explanation_of
from fraudsdk.domain.decision import Decision, Outcome, Reason
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution
from fraudsdk.domain.transaction import MAPPING_FIELDS, Transaction, TransactionType
from fraudsdk.errors import InvalidTransactionError

SENT = {
    "transaction_id": "t-1",
    "card_id": "c-1",
    "amount_minor": 1250,
    "currency": "EUR",
    "event_time_us": 1_795_428_000_123_456,
}
FULL = Transaction(
    "t-1", 1_795_428_000_123_456, 1250, "GBP", TransactionType.REVERSAL, True, False, "t-0",
    "u", "c", "m", "d", "203.0.113.7", "s", "a", "f", "g", "e", "p", "ecommerce", "chip", "5411", "GB", "FR", "DE",
    "failed", -1.5, 0.0, 51.25, -0.125, False, 0.0, -12.5,
)  # fmt: skip


def read(message):
    """What a border without custom fields reads of the message's bytes."""
    sent = mapping_of(transaction_pb2.Transaction.FromString(message.SerializeToString()))
    return Transaction.from_mapping(sent, default_currency="EUR")


def test_a_transaction_with_every_field_comes_out_as_it_went_in():
    assert all(getattr(FULL, field.name) is not None for field in dataclasses.fields(FULL))

    assert FULL == read(message_of(FULL))


def test_a_message_has_a_field_for_everything_a_mapping_may_say():
    in_a_message = {field.name for field in transaction_pb2.Transaction.DESCRIPTOR.fields}

    assert set(MAPPING_FIELDS) - {"event_time_us", "event_time_ms", "event_time_s"} == in_a_message


def test_missing_is_not_zero():
    """
    A field that is absent stays absent, and a zero stays a zero.
    """
    zeros = dict.fromkeys(("latitude", "longitude", "account_age_days", "balance"), 0.0)

    nothing = read(message_of(SENT))
    something = read(message_of(SENT | zeros | {"card_present": False, "declined": False}))

    assert all(math.isnan(getattr(nothing, name)) for name in zeros)
    assert (None, None) == (nothing.card_present, nothing.declined)
    assert all(getattr(something, name) == 0.0 for name in zeros)
    assert (False, False) == (something.card_present, something.declined)


@pytest.mark.parametrize(
    ("spelt", "means"),
    [
        ({"amount": "12.50"}, 1250),
        ({"amount": 12.5}, 1250),
        ({"amount": Decimal("12.5")}, 1250),
        ({"amount": np.float32(12.5)}, 1250),
        ({"amount": 12}, 1200),
        ({"amount_minor": np.int32(7)}, 7),
        ({"amount_minor": 0}, 0),
    ],
)
def test_money_is_what_the_same_mapping_means_here(spelt, means):
    sent = {name: value for name, value in SENT.items() if name != "amount_minor"} | spelt

    assert means == Transaction.from_mapping(sent).amount_minor == read(message_of(sent)).amount_minor


@pytest.mark.parametrize(
    "spelt",
    [
        {"event_time": "2026-11-23T10:00:00.123456Z"},
        {"event_time": datetime(2026, 11, 23, 10, tzinfo=UTC)},
        {"event_time_ms": 1_795_428_000_123},
        {"event_time_s": "1795428000.5"},
        {"event_time": np.datetime64("2026-11-23T10:00:00")},
    ],
)
def test_time_is_what_the_same_mapping_means_here(spelt):
    sent = {name: value for name, value in SENT.items() if name != "event_time_us"} | spelt

    assert Transaction.from_mapping(sent).event_time_us == read(message_of(sent)).event_time_us


def test_custom_fields_are_read_by_name_and_none_passes_for_another_field():
    message = message_of(SENT | {"basket": 3, "custom": {"coupon": "X", "user_id": "u-9"}})

    assert {"basket": 3, "coupon": "X", "custom": {"user_id": "u-9"}}.items() <= mapping_of(message).items()
    assert not mapping_of(message).get("user_id")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"amount": "1"}, "amount"),
        ({"event_time_s": 1}, "event_time_s"),
        ({"event_time_ms": 1_795_428_000_000}, "event_time"),
        ({"type": "gift"}, "type"),
        ({"direction": "up"}, "direction"),
        ({"latitude": "north"}, "latitude"),
        ({"declined": "perhaps"}, "declined"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": "\ud800"}, "user_id"),
        ({"custom": ["a"]}, "custom"),
        ({"custom": {"basket": True}}, "basket"),
        ({"basket": 1, "custom": {"basket": 2}}, "basket"),
        ({7: 1}, "7"),
    ],
)
def test_what_no_message_can_carry_is_refused_under_the_name_that_the_border_gives_it(wrong, field):
    with pytest.raises(InvalidTransactionError) as there:
        message_of(SENT | wrong)
    with pytest.raises(InvalidTransactionError) as here:
        Transaction.from_mapping(SENT | wrong, custom_numbers=("basket",))

    assert field == there.value.field == here.value.field


def test_verification_codes_do_not_leave_the_process():
    with pytest.raises(InvalidTransactionError, match="cvv must never be sent") as refused:
        message_of(SENT | {"cvv": "123"})

    assert "123" not in str(refused.value)


def test_a_card_number_is_in_no_refusal():
    with pytest.raises(InvalidTransactionError) as refused:
        message_of(SENT | {"transaction_id": 4111111111111111})

    assert "411111" not in str(refused.value)


def test_neither_a_transaction_nor_a_mapping_is_refused():
    with pytest.raises(InvalidTransactionError, match="transaction must be a mapping of fields, was list"):
        message_of(["t-1"])


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"type": 9}, "type"),
        ({"direction": 9}, "direction"),
        ({"event_time": {"seconds": 1_795_428_000, "nanos": -1}}, "event_time"),
    ],
)
def test_numbers_that_mean_nothing_are_refused_and_not_guessed(broken, field):
    message = message_of(SENT)
    message.MergeFrom(transaction_pb2.Transaction(**broken))

    with pytest.raises(InvalidTransactionError) as refused:
        read(message)

    assert field == refused.value.field


# --- decisions ---------------------------------------------------------------------------------------------------------------

REASONS = (
    Reason("VEL01", "Many.", "Many.", "user_count_1h", 12.0, 0.1),
    Reason("GEO01", "Far.", "Far.", "user_speed", math.nan, 0.3),
    Reason("RULE", "A rule.", "A rule."),
)
DECLINED = Decision("t-1", Outcome.DECLINE, 0.1 + 0.2, -1 / 3, REASONS, "cards/7", "rule:fast")


@pytest.mark.parametrize(
    "decision",
    [
        DECLINED,
        dataclasses.replace(DECLINED, outcome=Outcome.STEP_UP, duplicate=True),
        Decision("t-2", Outcome.REVIEW, math.nan, math.nan, (), "none", "fallback", True, "model: none is loaded"),
        Decision("t-3", Outcome.APPROVE, 0.0, -0.0, (), "cards/7", "band"),
    ],
)
def test_a_decision_comes_back_bit_for_bit(decision):
    back = decision_of(decision_pb2.Decision.FromString(decision_message(decision).SerializeToString()))

    assert decision == back
    assert [math.copysign(1, decision.margin)] == [math.copysign(1, back.margin)] or math.isnan(decision.margin)


@pytest.mark.parametrize(
    ("decided", "rung"),
    [
        ({}, Rung.FULL),
        ({"degraded": True, "degraded_because": "state: the log is full"}, Rung.FULL),
        ({"degraded": True, "degraded_because": "explanation: DeadlineExceededError: late"}, Rung.WITHOUT_REASONS),
        ({"degraded": True, "decided_by": "fallback"}, Rung.RULES_ONLY),
        ({"degraded": True, "decided_by": "fallback", "outcome": Outcome.REVIEW, "reasons": ()}, Rung.DEFAULT),
        ({"degraded": True, "decided_by": "fallback", "outcome": Outcome.APPROVE, "reasons": ()}, Rung.RULES_ONLY),
    ],
)
def test_the_rung_tells_how_much_was_asked(decided, rung):
    decision = dataclasses.replace(DECLINED, **decided)

    assert rung is rung_of(decision)
    assert rung.value == decision_message(decision).rung


def test_an_outcome_that_this_version_does_not_know_is_a_review():
    message = decision_message(DECLINED)
    message.outcome = 99

    assert Outcome.REVIEW is decision_of(message).outcome


@pytest.mark.parametrize("low", [-math.inf, 0.0])
def test_an_explanation_comes_back_bit_for_bit(low):
    seen = FeatureContribution("a", "A.", 1.5, 0.1, "card", True, 0, True)
    never = FeatureContribution("b", "B.", 0.0, -0.2, "", False, None, False)
    change = Counterfactual("a", "A.", 1.5, 2.5, low, math.inf, 3, Outcome.APPROVE, Outcome.REVIEW, 0.3, 0.6)
    explanation = Explanation("t-1", "cards/7", -0.1, 0.0, 0.475, (seen, never), change, 0)

    back = explanation_of(explanation_pb2.Explanation.FromString(explanation_message(explanation).SerializeToString()))

    assert explanation == back
    assert dataclasses.replace(explanation, counterfactual=None, state_age_us=None) == explanation_of(
        explanation_message(dataclasses.replace(explanation, counterfactual=None, state_age_us=None))
    )
