"""
Many transactions out of the bytes of a message: the very rows, refusals and answers that one by one gives.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.adapters.protobuf import decision_message, mapping_of, message_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf._generated import transaction_pb2
from fraudsdk.adapters.protobuf.wire import WireTransactions, warm_up_wire
from fraudsdk.domain.decision import Decision, Outcome
from fraudsdk.domain.decisions import Decisions
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.errors import InvalidTransactionError

LAYOUT = RecordLayout(
    (*IDENTIFIERS, "mcc"), (*NUMBERS, *CATEGORIES, "basket", "coupon"), ("basket",), ("coupon",)
)  # fmt: skip
VOCABULARY = Vocabulary(
    {
        "channel": ("ecommerce", "pos"),
        "mcc": ("5411", "5812"),
        "currency": ("EUR", "GBP"),
        "coupon": ("X",),
        "card_country": ("GB",),
    }
)
PAN = "4111111111111111"


@pytest.fixture(scope="module")
def encoder():
    warm_up_wire()
    return Encoder(
        LAYOUT, key=b"sixteen byte key", vocabulary=VOCABULARY, currency="EUR", rates={"GBP": "1.17", "JPY": "0.0061"}
    )


def wired(*messages, record=None, most=1_000):
    request = pb.ScoreBatchRequest(transactions=messages, record=record)
    return WireTransactions(request.SerializeToString(), most)


# Text that is everyday, and text that is not.
TEXTS = st.one_of(
    st.sampled_from(["", " ", "u-1", " u-2 ", "EUR", "gbp", "JPY", "XXX", "GB", "GBR", "826", "5411", "541", "pos", "POS", "::1",
                     "203.0.113.7", "é", "a\nb", "\x00", PAN, PAN[:12], "x" * 128, "x" * 129, "0", "-1", "12.50", "1e3", "12.505"]),
    st.text(max_size=20),
)  # fmt: skip
FLOATS = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 90.0, -180.0, 1e12, 1e15, float(PAN), math.nan]))
INTS = st.one_of(st.integers(0, 10**6), st.sampled_from([-1, 10**15, 10**15 + 1, -(2**63), 2**63 - 1]))
MOMENTS = st.builds(
    transaction_pb2.Transaction().event_time.__class__,
    seconds=st.sampled_from([1_795_428_000, 0, -1, 631_152_000, 7_258_118_400, 2**62]),
    nanos=st.sampled_from([0, 999, 1_000, 999_999_999, -1, 10**9]),
)
CUSTOM = st.builds(transaction_pb2.CustomValue, number=FLOATS) | st.builds(transaction_pb2.CustomValue, text=TEXTS)
VALUES = {
    "amount_minor": INTS,
    "amount": TEXTS,
    "event_time": MOMENTS,
    "type": st.integers(0, 6),
    "direction": st.integers(0, 3),
}
VALUES |= {"custom": st.dictionaries(st.sampled_from(["basket", "coupon", "user_id", "nonsense"]), CUSTOM, max_size=2)}
VALUES |= {name: FLOATS for name in NUMBERS if name not in ("amount", "card_present")}
VALUES |= {name: st.booleans() for name in ("declined", "card_present")}
EVERY_FIELD = [field.name for field in transaction_pb2.Transaction.DESCRIPTOR.fields]
SENT = {
    "transaction_id": "t-1",
    "card_id": "c-1",
    "amount_minor": 1250,
    "currency": "GBP",
    "event_time_us": 1_795_428_000_123_456,
}


@st.composite
def messages(draw):
    """Nearly everyday transactions: a few fields are anything that the contract lets through."""
    message = message_of(
        SENT | {"transaction_id": draw(st.text("abc-", min_size=1, max_size=5)), "latitude": 1.5, "mcc": "5411"}
    )
    for name in draw(st.lists(st.sampled_from(EVERY_FIELD), max_size=3, unique=True)):
        value = draw(VALUES.get(name, TEXTS))
        if name in ("custom", "event_time"):
            message.ClearField(name)
            message.MergeFrom(transaction_pb2.Transaction(**{name: value}))
        else:
            setattr(message, name, value)
    if draw(st.integers(0, 9)) == 0:
        message.ClearField(draw(st.sampled_from(["event_time", "money", "card_id", "currency"])))
    return message


def by_mappings(encoder, sent):
    """What the border makes of the mappings: its arrays as bytes, or the field and row that it refuses."""
    try:
        encoded = encoder.encode_mappings(sent)
    except InvalidTransactionError as error:
        return error.field, error.row, str(error)
    return (
        encoded.ints.tobytes(),
        encoded.numbers.tobytes(),
        encoded.transaction_ids.tolist(),
        encoded.amount_major.tobytes(),
    )


def by_wire(encoder, sent):
    try:
        encoded = sent.encoded_by(encoder)
    except InvalidTransactionError as error:
        return error.field, error.row, str(error)
    return (
        encoded.ints.tobytes(),
        encoded.numbers.tobytes(),
        encoded.transaction_ids.tolist(),
        encoded.amount_major.tobytes(),
    )


@given(st.lists(messages(), min_size=1, max_size=4))
@settings(max_examples=600, deadline=None)
def test_rows_and_refusals_are_those_of_the_mappings(encoder, sent):
    assert by_mappings(encoder, [mapping_of(each) for each in sent]) == by_wire(encoder, wired(*sent))


def test_everyday_transactions_take_no_python(encoder):
    full = {
        **SENT, "user_id": "u", "merchant_id": "m", "device_id": "d", "ip": "203.0.113.7", "channel": "pos", "mcc": "5411",
        "merchant_country": "GB", "card_present": True, "declined": False, "type": "refund", "direction": "credit",
        "latitude": 1.5, "balance": -3.0, "account_age_days": 3.0,
    }  # fmt: skip
    in_major_units = {name: value for name, value in full.items() if name != "amount_minor"} | {"amount": "12.50"}
    sent = wired(message_of(full), message_of(in_major_units | {"transaction_id": "t-2"}))

    sent.encoded_by(encoder)

    assert [] == sent._read_by_python


@given(st.binary(max_size=60), st.data())
@settings(max_examples=400, deadline=None)
def test_bytes_of_any_kind_are_rows_or_a_refusal(encoder, noise, data):
    """
    Cut, changed or made up: never a crash, and never another answer than the library of protocol buffers leads to.
    """
    whole = pb.ScoreBatchRequest(transactions=[message_of(SENT)]).SerializeToString()
    at = data.draw(st.integers(0, len(whole)))
    mutilated = data.draw(
        st.sampled_from([noise, whole[:at], whole[:at] + noise + whole[at:], whole + noise, noise + whole])
    )
    try:
        parsed = pb.ScoreBatchRequest.FromString(mutilated).transactions
        expected = by_mappings(encoder, [mapping_of(each) for each in parsed])
    except Exception:  # the library's own DecodeError: these bytes are no message
        expected = None

    try:
        seen = by_wire(encoder, WireTransactions(mutilated, 1_000))
    except InvalidTransactionError:
        seen = None

    if expected is None:
        assert seen is None or "transactions" == seen[0]
    elif seen is not None:
        assert expected == seen


def test_a_field_that_comes_twice_counts_as_the_last(encoder):
    first, second = message_of(SENT).SerializeToString(), transaction_pb2.Transaction(card_id="c-2").SerializeToString()
    request = pb.ScoreBatchRequest()
    request.transactions.add().MergeFromString(first + second)
    merged = b"\x0a" + bytes([len(first + second)]) + first + second

    assert by_mappings(encoder, [mapping_of(request.transactions[0])]) == by_wire(encoder, WireTransactions(merged, 10))


@pytest.mark.parametrize(("said", "meant"), [(None, True), (True, True), (False, False)])
def test_recording_is_what_the_message_says(said, meant):
    assert meant is wired(message_of(SENT), record=said).record


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 1_000])
def test_messages_of_every_size_are_read_whole(encoder, n):
    sent = [message_of(SENT | {"transaction_id": f"t-{i}"}) for i in range(n)]

    assert [f"t-{i}" for i in range(n)] == wired(*sent).encoded_by(encoder).transaction_ids.tolist()


def test_more_transactions_than_may_are_refused():
    with pytest.raises(InvalidTransactionError, match="must be at most 3, were 4"):
        wired(*[message_of(SENT)] * 4, most=3)


def test_text_that_is_no_utf_8_is_refused_with_its_row(encoder):
    good = message_of(SENT)
    bad = good.SerializeToString().replace(b"c-1", b"\xff\xfe1")
    data = pb.ScoreBatchRequest(transactions=[good]).SerializeToString() + b"\x0a" + bytes([len(bad)]) + bad

    with pytest.raises(InvalidTransactionError, match="in row 1") as refused:
        WireTransactions(data, 10).encoded_by(encoder)

    assert ("transactions", 1) == (refused.value.field, refused.value.row)


@pytest.mark.parametrize("version", ["m/1", "a-model-with-a-long-name-" * 5 + "/2026-11-24"])
@pytest.mark.parametrize("names", [["a", "b", "c"], ["x" * 128, " padded ", "é"], ["only"], []])
@pytest.mark.parametrize("others", [(), (0,), (1, 2), (0, 1, 2)])
def test_an_answer_is_byte_for_byte_what_the_library_makes_of_it(encoder, version, names, others):
    sent = wired(*[message_of(SENT | {"transaction_id": name}) for name in names])
    ids = sent.encoded_by(encoder).transaction_ids
    reviews = {
        row: Decision(ids[row], Outcome.REVIEW, 0.5, 0.0, (), version, "band") for row in others if row < len(names)
    }
    scores, margins = np.linspace(0.0, 1e-3, len(names)), np.linspace(-7.5, -0.0, len(names))
    decisions = Decisions(ids, scores, margins, version, reviews)

    expected = pb.ScoreBatchResponse(decisions=[decision_message(each) for each in decisions])

    assert expected.SerializeToString() == sent.answer(decisions)
