"""
A table and its rows one by one are the same bits, and the same mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.domain import fields
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.encoding import LABEL_NEVER, Encoder, Vocabulary, native_columns
from fraudsdk.errors import InvalidTransactionError

LAYOUT = RecordLayout(
    identifiers=(*IDENTIFIERS, *CATEGORIES, "tier"),
    numbers=(*NUMBERS, *CATEGORIES, "points", "tier"),
    custom_numbers=("points",),
    custom_categories=("tier",),
)
VOCABULARY = Vocabulary(
    {"channel": ("pos", "web"), "currency": ("EUR", "JPY"), "merchant_country": ("GB",), "tier": ("a",)}
)
ENCODER = Encoder(
    LAYOUT, key=b"sixteen byte key", vocabulary=VOCABULARY, currency="EUR", rates={"JPY": "0.0061", "KWD": "3.01"}
)
ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)

names = st.sampled_from(["", "a", "b", "u-1", " u-1", "Ünï", "x" * 70, 42, "42", None, math.nan])
short_names = st.sampled_from(["", "a", "POS", "web", "tele phone", None])
flags = st.sampled_from([None, True, False, "yes", "N", 0, 1, ""])
numbers = st.one_of(
    st.none(), st.floats(-90, 90), st.integers(-90, 90), st.just(math.nan), st.just("12.5"), st.just(-0.0)
)
moments = st.integers(0, 10**9).map(
    lambda seconds: ORIGIN + timedelta(seconds=seconds, microseconds=seconds % 1_000_000)
)
countries = st.sampled_from(["GB", "gbr", "826", 826, "US", "XK", "", None])
ROW = {
    "transaction_id": st.integers(0, 999).map(lambda i: f"t-{i}"),
    "event_time": st.one_of(
        moments, moments.map(datetime.isoformat), moments.map(lambda moment: np.datetime64(moment.replace(tzinfo=None)))
    ),
    "amount": st.sampled_from(["12", "0", 7, 7.0, Decimal("250"), "100.00", 1e3, "1e3"]),
    "currency": st.sampled_from([None, "EUR", "eur", "JPY", "KWD", "CHF", ""]),
    "type": st.sampled_from([None, "authorisation", "Refund", "reversal", "chargeback", ""]),
    "direction": st.sampled_from([None, "debit", "credit", ""]),
    "declined": flags,
    "original_transaction_id": st.sampled_from(["o-0", "o-1"]),
    **dict.fromkeys(IDENTIFIERS, names),
    "user_id": st.sampled_from(["u-1", "u-2", 7]),
    "card_id": st.sampled_from([None, "c-1", "4111 1111 1111 1111", 5555555555554444]),
    "ip": st.sampled_from([None, "203.0.113.7", "2001:DB8::1", "::ffff:203.0.113.7", ""]),
    **dict.fromkeys(("channel", "entry_mode", "three_ds", "tier"), short_names),
    "mcc": st.sampled_from([None, 742, "0742", "5411", ""]),
    **dict.fromkeys(("merchant_country", "card_country", "ip_country"), countries),
    **dict.fromkeys(("latitude", "longitude", "home_latitude", "home_longitude", "balance", "points"), numbers),
    "account_age_days": st.one_of(st.none(), st.integers(0, 9000), st.floats(0, 9000)),
    "card_present": flags,
}


def table_of(rows):
    columns = {}
    for name in rows[0]:
        columns[name] = np.empty(len(rows), object)
        columns[name][:] = [row[name] for row in rows]
    return columns


def encode_rows(rows, encoder=ENCODER):
    ints, numbers = encoder.empty(len(rows))
    for i, row in enumerate(rows):
        encoder.encode(encoder.prepare(row), ints, numbers, i)
    return ints, numbers


def assert_same_bits(rows, columns, encoder=ENCODER):
    ints, numbers = encode_rows(rows, encoder)
    encoded = encoder.encode_columns(columns)

    assert ints.tobytes() == encoded.ints.tobytes()
    assert numbers.tobytes() == encoded.numbers.tobytes()
    assert [encoder.prepare(row).transaction_id for row in rows] == encoded.transaction_ids.tolist()
    assert encoded.ints.flags.c_contiguous and encoded.numbers.flags.c_contiguous


@given(st.lists(st.fixed_dictionaries(ROW), min_size=1, max_size=8))
def test_a_table_is_encoded_to_the_same_bits_as_its_rows(rows):
    assert_same_bits(rows, table_of(rows))
    assert_same_bits(rows, {name: list(column) for name, column in table_of(rows).items()})


@given(data=st.data(), unit=st.sampled_from(["s", "ms", "us", "ns"]), n=st.integers(1, 10))
def test_typed_columns_are_encoded_to_the_same_bits_as_their_values(data, unit, n):
    def column(strategy, dtype):
        return np.array(data.draw(st.lists(strategy, min_size=n, max_size=n)), dtype)

    cents = column(st.integers(0, 10**15), np.int64)
    columns = {
        "transaction_id": column(st.integers(-(2**63), 2**31), np.int64),
        "event_time": column(st.integers(10**9, 2 * 10**9), "datetime64[s]").astype(f"datetime64[{unit}]"),
        "amount": cents / 100,
        "user_id": column(st.integers(0, 3), np.uint8),
        "latitude": column(st.floats(-90, 90, width=32), np.float32),
        "balance": column(st.floats(-1e12, 1e12), np.float64),
        "points": column(st.integers(-(10**12), 10**12), np.int64),
        "card_present": column(st.booleans(), np.bool_),
        "channel": column(st.sampled_from(["pos", "web"]), "<U3"),
        "mcc": column(st.sampled_from([742, 5411]), np.int32),
    }
    rows = [{name: values[i] for name, values in columns.items()} for i in range(n)]

    assert cents.tolist() == ENCODER.encode_columns(columns).ints[:, fields.AMOUNT_MINOR].tolist()
    assert_same_bits(rows, columns)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("event_time_s", np.array([1.7e9, 1.7e9 + 1])),
        ("event_time_s", np.array([1.7e9 + 0.1, 1.7e9 + 0.25])),
        ("event_time_s", np.array([1_700_000_000, 1_700_000_001])),
        ("event_time_s", ["1700000000.5", Decimal("1700000000")]),
        ("event_time_ms", np.array([1_700_000_000_123, 1_700_000_001_456], np.uint64)),
        ("event_time_us", [1_700_000_000_000_123, 1_700_000_001_000_456]),
    ],
)
def test_epoch_columns_are_read_in_their_unit(name, column):
    rows = [{"transaction_id": f"t-{i}", "user_id": "u", "amount": 1, name: column[i]} for i in range(2)]
    columns = {name: [row[name] for row in rows] for name in ("transaction_id", "user_id", "amount")}

    assert_same_bits(rows, {**columns, name: column})


@given(st.lists(st.floats(0, 1e13), min_size=1, max_size=20))
def test_float_amounts_are_accepted_and_refused_just_as_one_by_one(amounts):
    def outcome(encode):
        try:
            return encode().tolist()
        except InvalidTransactionError as error:
            return error.problem

    rows = [
        {"transaction_id": "t", "user_id": "u", "amount": amount, "event_time_s": 1_700_000_000} for amount in amounts
    ]
    columns = {**table_of(rows), "amount": np.array(amounts)}

    expected = outcome(lambda: encode_rows(rows)[0][:, fields.AMOUNT_MINOR])
    assert expected == outcome(lambda: ENCODER.encode_columns(columns).ints[:, fields.AMOUNT_MINOR])


GOOD = {
    "transaction_id": "t-1",
    "user_id": "u-1",
    "merchant_id": "m-1",
    "amount": "12.50",
    "event_time": "2024-01-01T00:00:00Z",
    "latitude": 1.0,
    "declined": None,
    "type": None,
    "original_transaction_id": None,
}


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("transaction_id", None),
        ("transaction_id", "4111111111111111"),
        ("user_id", 1.5),
        ("user_id", ["u"]),
        ("user_id", "x" * 129),
        ("merchant_id", 4111111111111111),
        ("amount", "-1"),
        ("amount", None),
        ("amount", "1.234"),
        ("amount", math.inf),
        ("event_time", "2024-01-01"),
        ("event_time", None),
        ("event_time", 5),
        ("latitude", 91),
        ("latitude", "x"),
        ("declined", "maybe"),
        ("type", "void"),
    ],
)
@pytest.mark.parametrize("row", [0, 3, 4])
def test_an_error_names_the_row_and_says_what_it_would_say_alone(field, bad, row):
    rows = [dict(GOOD) for _ in range(5)]
    rows[row][field] = bad
    with pytest.raises(InvalidTransactionError) as alone:
        ENCODER.prepare(rows[row])
    with pytest.raises(InvalidTransactionError) as in_table:
        ENCODER.encode_columns(table_of(rows))

    assert (field, row) == (in_table.value.field, in_table.value.row)
    assert alone.value.problem == in_table.value.problem


@pytest.mark.parametrize(
    ("field", "column", "row"),
    [
        ("amount", np.array([1.0, -1.0]), 1),
        ("amount", np.array([1.0, -0.0]), 1),
        ("amount", np.array([np.nan, 1.0]), 0),
        ("amount", np.array([1.0, 1e308]), 1),
        ("amount", np.array([1, -1]), 1),
        ("amount", np.array([1, 2**62]), 1),
        ("amount", np.array([True, True]), 0),
        ("event_time", np.array(["2024-01-01", "NaT"], "datetime64[s]"), 1),
        ("event_time", np.array([0, 1], "datetime64[s]"), 0),
        ("event_time", np.array([10**9, 2**62], "datetime64[s]"), 1),
        ("event_time", np.array([10**9, 10**9]), 0),
        ("latitude", np.array([0.0, np.inf]), 1),
        ("latitude", np.array([91, 0]), 0),
        ("points", np.array([1.0, 4222222222222.0]), 1),
    ],
)
def test_a_typed_column_with_a_wrong_value_is_refused_by_row(field, column, row):
    columns = {**table_of([GOOD, GOOD]), field: column}
    with pytest.raises(InvalidTransactionError) as caught:
        ENCODER.encode_columns(columns)

    assert (field, row) == (caught.value.field, caught.value.row)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"transaction_id": None}, "transaction_id", "is missing"),
        ({"amount": None}, "amount", "is missing"),
        ({"amount_minor": [1, 2]}, "amount", "given twice"),
        ({"event_time": None}, "event_time", "is missing"),
        ({"event_time_s": [1, 2]}, "event_time", "given twice"),
        ({"user_id": ["u-1"]}, "user_id", "has 1 rows where transaction_id has 2"),
        ({"latitude": np.zeros((2, 2))}, "latitude", "one value a row"),
        ({"cvv": ["123", "456"]}, "cvv", "must never be sent"),
    ],
)
def test_a_table_of_the_wrong_shape_is_refused(changes, field, words):
    columns = {name: column for name, column in {**table_of([GOOD, GOOD]), **changes}.items() if column is not None}
    with pytest.raises(InvalidTransactionError, match=words) as caught:
        ENCODER.encode_columns(columns)

    assert field == caught.value.field


def test_rows_that_do_not_fit_together_are_refused_by_row():
    lonely = {**GOOD, "user_id": None, "merchant_id": None}
    reversal = {**GOOD, "type": "reversal"}
    own = {**reversal, "transaction_id": "t-own", "original_transaction_id": "t-own"}
    for rows, field in (
        ([GOOD, lonely], "user_id"),
        ([GOOD, reversal], "original_transaction_id"),
        ([GOOD, own], "original_transaction_id"),
    ):
        with pytest.raises(InvalidTransactionError) as caught:
            ENCODER.encode_columns(table_of(rows))
        assert (field, 1) == (caught.value.field, caught.value.row)
    both = {**table_of([GOOD, GOOD]), "pan": [None, "4111111111111111"], "card_id": ["c-1", "c-2"]}
    with pytest.raises(InvalidTransactionError, match="in row 1"):
        ENCODER.encode_columns(both)


def test_equal_values_of_different_types_are_not_mixed_up():
    columns = {**table_of([GOOD] * 2), "user_id": [1, True]}
    with pytest.raises(InvalidTransactionError, match="in row 1"):
        ENCODER.encode_columns(columns)


def test_every_nan_becomes_the_same_nan():
    odd_nan = np.array([0x7FF8_0000_0000_0001]).view(np.float64)

    assert_same_bits([{**GOOD, "latitude": odd_nan[0]}], {**table_of([GOOD]), "latitude": odd_nan})


def test_pan_and_card_id_may_share_a_table():
    rows = [{**GOOD, "pan": "4111111111111111"}, {**GOOD, "card_id": "c-1"}, GOOD]
    columns = {**table_of([GOOD] * 3), "pan": ["4111111111111111", None, None], "card_id": [None, "c-1", None]}

    assert_same_bits(rows, columns)


def test_labels_are_one_zero_or_unknown_and_are_known_at_some_time_or_never():
    columns = {
        **table_of([GOOD] * 4),
        "is_fraud": ["Yes", 0, None, 1.0],
        "label_time": np.array(["2024-02-01", "NaT", "NaT", "2024-03-01"], "datetime64[s]"),
    }
    encoded = ENCODER.encode_columns(columns)

    assert [1, 0, -1, 1] == encoded.labels.tolist()
    assert [1706745600_000_000, LABEL_NEVER, LABEL_NEVER, 1709251200_000_000] == encoded.label_time_us.tolist()
    assert ENCODER.encode_columns(table_of([GOOD])).labels is None


def test_an_empty_table_is_an_empty_answer():
    columns = {name: np.empty(0, object) for name in GOOD}
    encoded = ENCODER.encode_columns(columns)

    assert 0 == len(encoded) == len(encoded.transaction_ids)


def test_rows_can_be_taken_in_another_order():
    columns = {**table_of([{**GOOD, "transaction_id": f"t-{i}"} for i in range(4)]), "is_fraud": [0, 1, 0, 1]}
    encoded = ENCODER.encode_columns(columns)
    taken = encoded.take(np.array([3, 1]))

    assert ["t-3", "t-1"] == taken.transaction_ids.tolist()
    assert [1, 1] == taken.labels.tolist()
    assert taken.ints.flags.c_contiguous and encoded.ints[[3, 1]].tolist() == taken.ints.tolist()
    assert 2 == len(encoded.take(slice(1, 3))) == len(encoded.take(encoded.labels == 1))


def test_columns_that_are_no_field_are_not_read():
    columns = table_of([GOOD, GOOD])

    assert (
        ENCODER.encode_columns(columns).ints.tolist()
        == ENCODER.encode_columns({**columns, "zip": [1, 2]}).ints.tolist()
    )


class LengthThatLies(Sequence):
    """A sequence that says one length and gives another, as a list does that another thread appends to."""

    def __init__(self, values, said):
        self._values, self._said = values, said

    def __len__(self):
        return self._said

    def __getitem__(self, index):
        return self._values[index]

    def __iter__(self):
        return iter(self._values)


@pytest.mark.parametrize("name", ["transaction_id", "user_id", "amount", "event_time_s", "declined", "latitude"])
def test_a_column_with_more_values_than_it_says_is_refused_and_not_written_past_the_end(name):
    columns = {
        "transaction_id": ["a", "b"],
        "user_id": ["u", "v"],
        "amount": [1, 2],
        "event_time_s": [10**9, 10**9],
        "declined": [False, True],
        "latitude": [0.5, None],
    }
    columns[name] = LengthThatLies(columns[name] * 50_000, 2)

    with pytest.raises(InvalidTransactionError, match="rows where transaction_id has"):
        ENCODER.encode_columns(columns)


def test_the_reader_of_objects_refuses_another_number_of_them():
    with pytest.raises(ValueError, match="a column of 2 values gave 100"):
        native_columns._Objects(LengthThatLies([1] * 100, 2), 2)


def test_a_column_that_grows_while_the_table_is_read_gives_the_rows_it_had():
    users = ["u", "v"]

    class Appending(LengthThatLies):
        def __iter__(self):
            users.extend(["w"] * 50_000)
            return super().__iter__()

    columns = {"user_id": users, "transaction_id": Appending(["a", "b"], 2), "amount": [1, 2]}

    encoded = ENCODER.encode_columns({**columns, "event_time_s": [10**9, 10**9]})

    assert 50_002 == len(users)
    assert 2 == len(encoded.ints)
