"""
An Arrow table, its columns as arrays, its rows one by one, natively or in Python: the same bits, or the same error.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.encoding.tables import columns_of, rows_of
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

LAYOUT = RecordLayout(
    identifiers=(*IDENTIFIERS, *CATEGORIES, "tier"),
    numbers=(*NUMBERS, *CATEGORIES, "points", "tier"),
    custom_numbers=("points",),
    custom_categories=("tier",),
)
VOCABULARY = Vocabulary(
    {
        "channel": ("pos", "ecommerce"),
        "mcc": ("5411",),
        "merchant_country": ("GB", "XK"),
        "currency": ("JPY",),
        "tier": ("a name of more than eight",),
    }
)


def encoder():
    rates = {"JPY": "0.0061", "KWD": "3.01", "USD": "100000000"}
    return Encoder(LAYOUT, key=b"sixteen byte key", vocabulary=VOCABULARY, currency="EUR", rates=rates)


NATIVE = encoder()
with mock.patch("fraudsdk.encoding.encoder.LAYOUT_IS_KNOWN", False):
    IN_PYTHON = encoder()

names = st.sampled_from(
    [
        None,
        "",
        "u-1",
        "u-2",
        " u-1 ",
        "Ünï",
        "b3f1-77",
        "1234567890123",
        "x" * 64,
        "x" * 128,
        "20491",
        "a\u00a0b",
        "é" * 40,
    ]
)
wrong_names = st.sampled_from(["4111111111111111", "x" * 129, "a\nb", ";4111111111111111=2512"])
countries = st.sampled_from([None, "GB", "gb", "GBR", "826", "XK", "xk", " de", ""])
TEXTS = {
    "type": st.sampled_from([None, "authorisation", "Refund", "reversal", "chargeback", "REFUND", ""]),
    "direction": st.sampled_from([None, "debit", "CREDIT", " credit", ""]),
    "declined": st.sampled_from([None, "true", "N", "yes ", "0", ""]),
    "card_present": st.sampled_from([None, "T", "false", "1.0"]),
    "original_transaction_id": st.sampled_from(["o-1", "o-2", " o-3"]),
    **dict.fromkeys(IDENTIFIERS, names),
    "card_id": st.sampled_from([None, "c-1", "4111 1111 1111 1111", "tok_1234567890abcdef"]),
    "ip": st.sampled_from([None, "203.0.113.7", "2001:DB8::1", "::ffff:203.0.113.7", ""]),
    **dict.fromkeys(
        ("channel", "entry_mode", "three_ds"), st.sampled_from([None, "POS", "pos", "ecommerce", "tele phone", "É"])
    ),
    "tier": st.sampled_from([None, "a name of more than eight", "A Name Of More Than Eight", "Gold"]),
    "mcc": st.sampled_from([None, "5411", "0742", " 5411"]),
    **dict.fromkeys(("merchant_country", "card_country", "ip_country"), countries),
    "currency": st.sampled_from([None, "EUR", "eur", "JPY", "KWD", "CHF", ""]),
}
WRONG = {
    **dict.fromkeys(IDENTIFIERS, wrong_names),
    "transaction_id": st.sampled_from([None, "", "4111111111111111", "o-1"]),
    "type": st.just("gift"),
    "declined": st.just("perhaps"),
    "currency": st.sampled_from(["XAU", "€", "USD"]),
    "mcc": st.just("grocery"),
    "merchant_country": st.just("Germany"),
    "amount": st.sampled_from([None, "-1", "1.005", "1e3", "", "12,50", "99999999999999999"]),
    "event_time": st.sampled_from([None, "", "2026-11-23", "2026-02-30T00:00:00Z", "1989-12-31T00:00:00Z"]),
}
moments = st.integers(0, 10**9).map(
    lambda s: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=s, microseconds=s % 10**6)
)
times = st.one_of(
    moments.map(datetime.isoformat),
    moments.map(lambda moment: moment.strftime("%Y-%m-%d %H:%M:%SZ")),
    moments.map(lambda moment: " " + moment.strftime("%Y-%m-%dT%H:%M:%S.%f+05:30")),
    st.just("2016-12-31T23:59:60Z"),
)
amounts = st.sampled_from(["12", "0", "7.00", "100", "5.000", " 8", "1e2", "33.", "000012"])


@st.composite
def tables_of_text(draw):
    """
    Tables of nothing but text, stored in any of the ways that Arrow has, of which some have something wrong in them.
    """
    n = draw(st.integers(1, 9))

    def values(strategy):
        return draw(st.lists(strategy, min_size=n, max_size=n))

    columns = {"transaction_id": [f"t-{i}" for i in range(n)], "event_time": values(times), "amount": values(amounts)}
    columns["user_id"] = values(st.sampled_from(["u-1", "u-2", "Ü"]))
    for name in draw(st.sets(st.sampled_from(sorted(TEXTS)), max_size=12)):
        columns.setdefault(name, values(TEXTS[name]))
    if any(kind is not None and kind.lower() in ("reversal", "chargeback") for kind in columns.get("type", ())):
        columns.setdefault("original_transaction_id", ["o-1"] * n)
    for name in draw(st.lists(st.sampled_from(sorted(WRONG)), max_size=2)):
        if name in columns:
            columns[name][draw(st.integers(0, n - 1))] = draw(WRONG[name])
    return pa.table({name: stored(draw, column) for name, column in columns.items()})


def stored(draw, values):
    kind = draw(st.sampled_from([pa.string(), pa.large_string()]))
    array = pa.array([*values, "beyond"], kind)
    if draw(st.booleans()):
        array = array.dictionary_encode()
    cut = draw(st.integers(0, len(values)))
    return pa.chunked_array([array[:cut], array[cut : len(values)]])


def outcome(encode):
    """The bits, or all that an error says."""
    try:
        encoded = encode()
    except InvalidTransactionError as error:
        return error.field, error.row, str(error)
    ids = encoded.transaction_ids.tolist()
    return encoded.ints.tobytes(), encoded.numbers.tobytes(), encoded.amount_major.tobytes(), ids


def row_by_row(table):
    rows = rows_of(table)
    ints, numbers = IN_PYTHON.empty(len(rows))
    for i, row in enumerate(rows):
        IN_PYTHON.encode(IN_PYTHON.prepare(row), ints, numbers, i)
    return ints.tobytes(), numbers.tobytes()


@settings(max_examples=150, deadline=None)
@given(tables_of_text())
def test_text_of_any_storage_is_read_as_python_reads_it(table):
    expected = outcome(lambda: IN_PYTHON.encode_columns(columns_of(table)))

    assert expected == outcome(lambda: NATIVE.encode_columns(columns_of(table)))
    assert expected == outcome(lambda: NATIVE.encode_table(table)) == outcome(lambda: IN_PYTHON.encode_table(table))
    if len(expected) == 4:
        assert expected[:2] == row_by_row(table)


NUMBERS_OF_ARROW = {
    "latitude": (st.floats(-90, 90, width=32), (pa.float32(), pa.float64())),
    "balance": (st.integers(-(10**9), 10**9), (pa.int64(), pa.float64(), pa.int32(), pa.decimal128(20, 4))),
    "points": (st.integers(0, 100), (pa.uint8(), pa.int16(), pa.uint64())),
    "merchant_id": (st.integers(0, 10**9), (pa.int64(), pa.uint32(), pa.uint64())),
    "mcc": (st.integers(0, 9999), (pa.int16(), pa.int64())),
    "merchant_country": (st.integers(0, 999), (pa.int16(),)),
    "declined": (st.booleans(), (pa.bool_(),)),
    "card_present": (st.integers(0, 1), (pa.int8(), pa.float64())),
}


@settings(max_examples=80, deadline=None)
@given(data=st.data(), n=st.integers(1, 8))
def test_numbers_of_any_storage_are_read_as_python_reads_them(data, n):
    columns = {"transaction_id": pa.array(range(n), pa.int64()), "user_id": pa.array(range(10**15, 10**15 + n))}
    for name, (values, kinds) in NUMBERS_OF_ARROW.items():
        drawn = data.draw(st.lists(st.none() | values, min_size=n, max_size=n), label=name)
        columns[name] = pa.array(drawn, data.draw(st.sampled_from(kinds)))
    cents = data.draw(st.lists(st.integers(0, 10**9), min_size=n, max_size=n))
    columns |= data.draw(
        st.sampled_from(
            [
                {"amount": pa.array([cent / 100 for cent in cents])},
                {"amount": pa.array(cents, pa.int64())},
                {"amount": pa.array(cents, pa.decimal128(20, 0)).cast(pa.decimal128(22, 2))},
                {"amount_minor": pa.array(cents, pa.int32())},
            ]
        )
    )
    when = data.draw(st.lists(moments, min_size=n, max_size=n))
    unit, zone = (
        data.draw(st.sampled_from(["s", "ms", "us", "ns"])),
        data.draw(st.sampled_from([None, "UTC", "Asia/Tokyo"])),
    )
    columns["event_time"] = pa.array(when, pa.timestamp("us", "UTC")).cast(pa.timestamp(unit, zone), safe=False)
    table = pa.table(columns)
    expected = outcome(lambda: IN_PYTHON.encode_columns(columns_of(table)))

    assert expected == outcome(lambda: NATIVE.encode_columns(columns_of(table)))
    assert expected == outcome(lambda: NATIVE.encode_table(table)) == outcome(lambda: IN_PYTHON.encode_table(table))
    assert expected[:2] == row_by_row(table)


WIDTHS = ["f2", "f4", ">f8", "f8", "g", "i1", "i4", "i8", "u2", "u8"]
ODD_NUMBERS = st.sampled_from(
    [0.0, 1.0, -1.0, 2.5, 90.0, 90.5, 1e12, 4_222_222_222_222.0, 1e300, np.nan, np.inf, -np.nan]
)


@st.composite
def arrays_of_numbers(draw, n):
    """Arrays of any width, byte order and stride, of which some cannot be written to, with right and wrong numbers."""
    width = np.dtype(draw(st.sampled_from(WIDTHS)))
    drawn = draw(st.lists(ODD_NUMBERS | st.floats(-90, 90), min_size=n, max_size=n))
    with np.errstate(all="ignore"):
        array = np.array(drawn).astype(width)
    array = draw(st.sampled_from([array, array[::-1], np.repeat(array, 3)[::3]]))
    array.flags.writeable = draw(st.booleans())
    return array


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n=st.integers(1, 6))
def test_arrays_of_numbers_are_read_or_refused_as_python_reads_or_refuses_them(data, n):
    columns = columns_of(least(ip=["203.0.113.7"] * n))
    for name in data.draw(st.sets(st.sampled_from(["latitude", "balance", "points", "card_present", "declined"]))):
        columns[name] = data.draw(arrays_of_numbers(n), label=name)
    kept = {name: column.copy() for name, column in columns.items()}

    assert outcome(lambda: IN_PYTHON.encode_columns(columns)) == outcome(lambda: NATIVE.encode_columns(columns))
    assert all(kept[name].tobytes() == column.tobytes() for name, column in columns.items())


def test_a_flag_of_more_digits_than_a_float_has_is_not_rounded_to_one():
    present = np.ones(1, np.longdouble) + np.finfo(np.longdouble).eps
    columns = {**columns_of(least(ip=["203.0.113.7"])), "card_present": present}
    expected = outcome(lambda: IN_PYTHON.encode_columns(columns))

    assert "card_present" == expected[0]
    assert expected == outcome(lambda: NATIVE.encode_columns(columns))


def least(**columns):
    n = len(next(iter(columns.values()))) if columns else 2
    table = {"transaction_id": [f"t-{i}" for i in range(n)], "event_time_s": [1_700_000_000] * n, "amount": ["1"] * n}
    return pa.table({**table, "user_id": ["u"] * n, **columns})


def test_a_record_batch_is_a_table():
    table = least(ip=["203.0.113.7", None])

    assert outcome(lambda: NATIVE.encode_table(table)) == outcome(lambda: NATIVE.encode_table(table.to_batches()[0]))


@pytest.mark.parametrize("table", [least()[:0], pa.table(least()[:0].schema.empty_table())])
def test_an_empty_table_is_no_rows(table):
    assert 0 == len(NATIVE.encode_table(table))


def test_a_dictionary_may_differ_from_chunk_to_chunk_and_hold_nulls():
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.uint8()), pa.array(["u-1", None])),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 1], pa.uint8()), pa.array(["u-3", "u-1"])),
    ]
    ints = NATIVE.encode_table(least(session_id=pa.chunked_array(chunks))).ints
    keys = ints[:, 5 + LAYOUT.identifiers.index("session_id")].tolist()

    assert keys[0] == keys[3] == keys[5] != keys[4]
    assert [0, 0] == keys[1:3]
    assert 0 not in (keys[0], keys[4])


@pytest.mark.parametrize(
    "amounts",
    [["1.50", None], ["1.50", "-0.50"], ["1.505", "1.50"], ["1.50", "99999999999999.00"], ["1.50", "0.0000001"]],
)
def test_decimals_are_refused_as_they_are_one_by_one(amounts):
    decimals = [None if amount is None else Decimal(amount) for amount in amounts]
    table = least(ip=[None, None]).set_column(2, "amount", pa.array(decimals, pa.decimal128(38, 7)))
    expected = outcome(lambda: IN_PYTHON.encode_columns(columns_of(table)))

    assert "amount" == expected[0]
    assert expected == outcome(lambda: NATIVE.encode_table(table)) == outcome(lambda: IN_PYTHON.encode_table(table))


def test_tables_of_different_schemas_may_follow_each_other():
    texts, ids = ["7", None, "9"], [7, None, 9]
    tables = [
        least(merchant_id=texts),
        least(merchant_id=pa.array(texts).dictionary_encode()),
        least(merchant_id=pa.array(ids, pa.int64())),
        least(merchant_id=pa.array(texts, pa.large_string())),
        least(mcc=[None] * 3, merchant_id=texts),
        least(merchant_id=texts).to_batches()[0],
    ]
    one = encoder()
    for table in (*tables, *reversed(tables)):
        assert outcome(lambda table=table: IN_PYTHON.encode_columns(columns_of(table))) == outcome(
            lambda table=table: one.encode_table(table)
        )


def test_a_schema_that_was_refused_is_refused_again_and_hinders_no_other():
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["user_id", "user_id"])
    one = encoder()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="more than once"):
            one.encode_table(twice)

        assert 2 == len(one.encode_table(least(ip=[None, None])))


def test_two_columns_of_one_name_are_refused():
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["user_id", "user_id"])
    with pytest.raises(ConfigurationError, match="more than once"):
        NATIVE.encode_table(table)


def test_a_caller_keeps_its_own_columns():
    amounts = np.array([100, 200])
    columns = {
        "transaction_id": ["a", "b"],
        "user_id": ["u", "u"],
        "amount_minor": amounts,
        "currency": ["JPY", "JPY"],
        "event_time_s": np.array([1_700_000_000] * 2),
    }
    for one in (NATIVE, IN_PYTHON):
        one.encode_columns(columns)

        assert [100, 200] == amounts.tolist()


def test_many_blocks_of_objects_are_read_like_one():
    n = 40_000
    columns = {
        "transaction_id": np.array([f"t-{i}" for i in range(n)], object),
        "user_id": np.arange(n) * 7_919,
        "amount": [i / 100 for i in range(n)],
        "event_time": ["2026-11-23T10:00:00Z"] * n,
        "latitude": [None if i % 3 else i % 90 for i in range(n)],
        "declined": [i % 2 == 0 for i in range(n)],
    }

    assert outcome(lambda: IN_PYTHON.encode_columns(columns)) == outcome(lambda: NATIVE.encode_columns(columns))


@pytest.mark.parametrize(
    ("more", "without", "expected"),
    [
        ([], [], True),
        (["points", "tier", "pan", "direction"], [], True),
        (["notes"], [], False),
        (["is_fraud"], [], False),
        (["custom"], [], False),
        (["amount_minor"], [], False),
        (["amount_minor"], ["amount"], True),
        (["event_time_us"], [], False),
        ([], ["event_time_s"], False),
    ],
)
def test_columns_are_known_where_a_table_means_what_its_rows_mean(more, without, expected):
    names = [name for name in least().column_names if name not in without]

    assert expected == NATIVE.knows_columns([*names, *more])


MAPPINGS = [
    {"transaction_id": 7, "user_id": "u-1", "amount": "12.50", "event_time": "2026-11-23T10:00:00Z"},
    {"transaction_id": " t-2 ", "user_id": "u-1", "amount": "12.50", "event_time": "2026-11-23T10:00:00Z"},
    {
        "transaction_id": "t-3",
        "pan": "4111111111111111",
        "amount_minor": 5,
        "currency": "CHF",
        "event_time_s": 1_700_000_000,
    },
]


def test_mappings_are_encoded_as_one_by_one():
    ints, numbers = IN_PYTHON.empty(3)
    for row, mapping in enumerate(MAPPINGS):
        IN_PYTHON.encode(IN_PYTHON.prepare(mapping), ints, numbers, row)
    prepared = [IN_PYTHON.prepare(mapping) for mapping in MAPPINGS]
    for mappings in (MAPPINGS, tuple(MAPPINGS), prepared):
        encoded = NATIVE.encode_mappings(mappings)

        assert (ints.tobytes(), numbers.tobytes()) == (encoded.ints.tobytes(), encoded.numbers.tobytes())
        assert ["7", "t-2", "t-3"] == encoded.transaction_ids.tolist()
        assert [12.5, 12.5] == encoded.amount_major[:2].tolist()
        assert np.isnan(encoded.amount_major[2])


def test_a_wrong_mapping_is_named_by_its_row():
    with pytest.raises(InvalidTransactionError) as caught:
        NATIVE.encode_mappings([*MAPPINGS, {"transaction_id": "t-4"}])

    assert 3 == caught.value.row
