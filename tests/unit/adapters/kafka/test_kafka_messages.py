"""What a message holds, and what makes it poison."""

from __future__ import annotations

import io
import json
from decimal import Decimal

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.adapters.kafka.framing import without_indexes
from fraudsdk.adapters.kafka.messages import message_format, poison_of
from fraudsdk.adapters.kafka.schemas import FolderOfSchemas
from fraudsdk.adapters.protobuf import message_of
from fraudsdk.domain.money import parse_amount
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, PoisonMessageError, SchemaUnavailableError

PAN = "4111111111111111"
JSON = message_format("json")
PROTOBUF = message_format("protobuf")

POISON = {
    "no value": (None, "empty"),
    "nothing": (b"", "empty"),
    "blanks": (b"  \n", "bad_json"),
    "a byte order mark": (b'\xef\xbb\xbf{"transaction_id":"t-1"}', "bad_json"),
    "UTF-16": ('{"transaction_id":"t-1"}'.encode("utf-16-le"), "bad_json"),
    "bad UTF-8": (b'{"transaction_id":"t\xff1"}', "bad_utf8"),
    "a lone surrogate": (b'{"transaction_id":"\\ud800"}', "bad_json"),
    "an overlong spelling": (b'{"transaction_id":"\xc0\xaf"}', "bad_utf8"),
    "cut short": (b'{"transaction_id":"t-1"', "bad_json"),
    "more behind it": (b'{"transaction_id":"t-1"}{}', "bad_json"),
    "NUL behind it": (b'{"transaction_id":"t-1"}\x00', "bad_json"),
    "NaN": (b'{"amount":NaN}', "bad_json"),
    "Infinity": (b'{"amount":-Infinity}', "bad_json"),
    "a number past any float": (b'{"amount":1e400}', "bad_json"),
    "an array": (b'[{"transaction_id":"t-1"}]', "not_an_object"),
    "text": (b'"t-1"', "not_an_object"),
    "null": (b"null", "not_an_object"),
    "a name twice": (b'{"user_id":"u-1","user_id":"u-2"}', "duplicate_name"),
    "a name twice, with blanks": (b'{"user_id" :"u-1","user_id":"u-2"}', "duplicate_name"),
    "a name twice, once in escapes": (b'{"user_id":"u-1","user\\u005fid":"u-2"}', "duplicate_name"),
    "a custom name twice": (b'{"custom":{"points":1,"points":2}}', "duplicate_name"),
    "a name twice, and a time": (b'{"a":1,"a":2,"event_time":"2026-11-23T10:00:00Z"}', "duplicate_name"),
    "a name twice, and an escaped colon": (b'{"a" :1,"a":2,"event_time":"\\u003a"}', "duplicate_name"),
    "nested deeper than anybody reads": (b'{"a":' * 2_000 + b"1" + b"}" * 2_000, "bad_json"),
    "nested deeply": (b'{"a":' * 1_020 + b"1" + b"}" * 1_020, "bad_json"),
    "too large": (b'{"transaction_id":"' + b"t" * 70_000 + b'"}', "too_large"),
}


def reason_of(value: bytes | None, reads=JSON) -> str:
    with pytest.raises(PoisonMessageError) as caught:
        reads.decode(value)
    return caught.value.reason


@pytest.mark.parametrize("kind", POISON)
def test_poison_has_its_reason(kind):
    value, reason = POISON[kind]

    assert reason == reason_of(value)


def test_poison_among_others_leaves_them_alone():
    values = [b'{"transaction_id":"t-1"}', b"{", None, b'{"transaction_id":"t-2"}']

    decoded = JSON.decode_all(values)

    assert [{"transaction_id": "t-1"}, {"transaction_id": "t-2"}] == [decoded[0], decoded[3]]
    assert ["bad_json", "empty"] == [each.reason for each in decoded[1:3]]


@pytest.mark.parametrize(
    "value",
    [f'{{"transaction_id":"{PAN}"'.encode(), f'"{PAN}"'.encode(), f'{{"{PAN}":1,"{PAN}":2}}'.encode(), PAN.encode()],
)
def test_no_message_of_poison_holds_a_card_number(value):
    with pytest.raises(PoisonMessageError) as caught:
        JSON.decode(value)

    assert PAN not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("literal", "minor"),
    [
        ("12.50", 1250),
        ("12.5", 1250),
        ("0.07", 7),
        ("1e2", 10_000),
        ("1.1E1", 1100),
        ("9999999999999.99", 999_999_999_999_999),
        ("10000000000000.00", 10**15),
        ('"12.50"', 1250),
        ("12", 1200),
    ],
)
@pytest.mark.parametrize("name", ['"amount":', '"amount" : ', '"\\u0061mount":'])
def test_an_amount_is_what_was_written(literal, minor, name):
    mapping = JSON.decode(f'{{"user_id":"u-1",{name}{literal}}}'.encode())

    assert minor == parse_amount(mapping["amount"], "EUR")


@pytest.mark.parametrize("literal", ["12.500000000000000001", "0.0700000000000000000001", "12.5000000000000001E0"])
@pytest.mark.parametrize("name", ['"amount":', '"amount" : ', '"\\u0061mount":'])
def test_an_amount_too_fine_for_a_float_is_not_rounded_to_one_that_is_right(literal, name):
    mapping = JSON.decode(f'{{"user_id":"u-1",{name}{literal}}}'.encode())

    with pytest.raises(RefusedValue, match="at most 2 decimals"):
        parse_amount(mapping["amount"], "EUR")


# Text that has what names are told by: colons, quotes and escapes.
TEXT = st.text(alphabet='ab:":\\ \n,{}é', max_size=6)
NUMBER = st.one_of(st.integers(-(10**6), 10**6), st.floats(allow_nan=False, allow_infinity=False))
SCALAR = st.one_of(TEXT, NUMBER, st.booleans(), st.none())
NAME = st.sampled_from(["user_id", "amount", "event_time", "custom", "a:", '":', "b"])
BLANK = st.sampled_from(["", "", "", " ", "\n", "\t"])


@given(
    st.lists(st.tuples(NAME, BLANK, st.one_of(SCALAR, st.dictionaries(TEXT, SCALAR, max_size=2))), max_size=5),
    st.booleans(),
)
def test_names_are_seen_twice_exactly_where_they_are_twice(pairs, ascii_only):
    written = [f"{json.dumps(n)}{blank}:{json.dumps(v, ensure_ascii=ascii_only)}" for n, blank, v in pairs]
    value = ("{" + ",".join(written) + "}").encode()
    is_twice = len({name for name, _, _ in pairs}) < len(pairs)

    if is_twice:
        assert "duplicate_name" == reason_of(value)
    else:
        assert json.loads(value) == {
            name: float(each) if name == "amount" and type(each) is not type(json.loads(value)[name]) else each
            for name, each in JSON.decode(value).items()
        }


@given(st.decimals(0, 10**13, places=2, allow_nan=False, allow_infinity=False), st.integers(0, 30))
def test_every_amount_of_two_decimals_is_exact(amount, more_zeros):
    mapping = JSON.decode(b'{"amount":%s}' % f"{amount:f}{'0' * more_zeros}"[:40].encode())

    assert int(amount * 100) == parse_amount(mapping["amount"], "EUR")


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({"transaction_id": "t-1", "user_id": "u-1", "amount": -1, "currency": "EUR"}, "invalid_transaction:amount"),
        ({"transaction_id": PAN}, "invalid_transaction:transaction_id"),
        ({"transaction_id": "t-1", PAN: 1}, "invalid_transaction:unknown_field"),
        ({"transaction_id": "t-1", "cvv": "123"}, "invalid_transaction:forbidden_field"),
    ],
)
def test_what_a_scorer_refuses_becomes_a_reason_in_our_own_words(mapping, reason):
    with pytest.raises(InvalidTransactionError) as caught:
        Transaction.from_mapping(mapping)

    poison = poison_of(caught.value)

    assert reason == poison.reason
    assert PAN not in str(poison) and "123" not in str(poison)


AVRO_FIELDS = [
    {"name": "transaction_id", "type": "string"},
    {"name": "user_id", "type": ["null", "string"], "default": None},
    {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "channel", "type": {"type": "enum", "name": "Channel", "symbols": ["pos", "ecommerce"]}},
    {"name": "custom", "type": {"type": "map", "values": "double"}, "default": {}},
]
RECORD = {"transaction_id": "t-1", "user_id": None, "amount": b"\x04\xe2", "event_time": 1_795_428_000_000_000}
RECORD |= {"channel": "pos", "custom": {"points": 3.0}}


def schema_of(*fields: dict) -> dict:
    return {"type": "record", "name": "Transaction", "fields": list(fields)}


def framed(schema: dict, record: dict, schema_id: int = 7) -> bytes:
    plain = json.loads(json.dumps(schema).replace('"logicalType"', '"told"'))
    octets = io.BytesIO()
    fastavro.schemaless_writer(octets, fastavro.parse_schema(plain), record)
    return b"\0" + schema_id.to_bytes(4, "big") + octets.getvalue()


@pytest.fixture
def avro(tmp_path):
    def reader(schema: dict = schema_of(*AVRO_FIELDS)):  # noqa: B008
        (tmp_path / "7.avsc").write_text(json.dumps(schema), encoding="utf-8")
        return message_format("avro", schemas=FolderOfSchemas(tmp_path))

    return reader


def test_an_avro_record_is_a_mapping_with_exact_amounts_and_times(avro):
    mapping = avro().decode(framed(schema_of(*AVRO_FIELDS), RECORD))

    assert {
        "transaction_id": "t-1",
        "user_id": None,
        "amount": Decimal("12.50"),
        "event_time_us": 1_795_428_000_000_000,
        "channel": "pos",
        "custom": {"points": 3.0},
    } == mapping


def test_a_decimal_is_not_rounded_to_the_precision_that_its_schema_claims(avro):
    mapping = avro().decode(framed(schema_of(*AVRO_FIELDS), RECORD | {"amount": (1_234_567).to_bytes(3, "big")}))

    assert Decimal("12345.67") == mapping["amount"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda value: b"\1" + value[1:], "bad_frame"),
        (lambda value: value[:4], "bad_frame"),
        (lambda value: b"\0\0\0\0\x08" + value[5:], "unknown_schema"),
        (lambda value: value[:-2], "bad_avro"),
        (lambda value: value + b"\0", "bad_avro"),
        (lambda value: value.replace(b"t-1", b"t\xff1"), "bad_avro"),
        (lambda value: value[:5] + b"\xff" * 9 + b"\x01", "bad_avro"),
        (lambda value: value[:5], "bad_avro"),
    ],
)
def test_poison_in_avro_has_its_reason(avro, change, reason):
    value = change(framed(schema_of(*AVRO_FIELDS), RECORD))

    assert reason == reason_of(value, avro())


def test_an_avro_decimal_of_many_bytes_is_refused_before_it_is_computed(avro):
    assert "bad_avro" == reason_of(framed(schema_of(*AVRO_FIELDS), RECORD | {"amount": b"\x7f" * 60_000}), avro())


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "record", "name": "Transaction"},
        schema_of({"name": "amounts", "type": {"type": "array", "items": "null"}}),
        schema_of({"name": "custom", "type": {"type": "map", "values": "null"}}),
        schema_of({"name": "amount", "type": ["string", "double"]}),
        schema_of({"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 99}}),
        schema_of(AVRO_FIELDS[3], {"name": "event_time_us", "type": "long"}),
        schema_of({"name": "again", "type": "Transaction"}),
    ],
)
def test_a_schema_that_is_no_transaction_s_is_refused(avro, schema):
    assert "unsupported_schema" == reason_of(b"\0\0\0\0\x07\0", avro(schema))


def in_protobuf(schema_id: int = 7, indexes: bytes = b"\0", **fields) -> bytes:
    message = message_of({"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50", "currency": "EUR"} | fields)
    return b"\0" + schema_id.to_bytes(4, "big") + indexes + message.SerializeToString()


@pytest.mark.parametrize("indexes", [b"\0", b"\x02\0"])
def test_a_protobuf_transaction_is_a_mapping_with_an_exact_amount_and_time(indexes):
    mapping = PROTOBUF.decode(in_protobuf(indexes=indexes, event_time_us=1_795_428_000_000_001))

    expected = Transaction("t-1", 1_795_428_000_000_001, 1_250, "EUR", user_id="u-1")
    assert expected == Transaction.from_mapping(mapping)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (b"\1" + in_protobuf()[1:], "bad_frame"),
        (in_protobuf()[:5], "bad_frame"),
        (in_protobuf()[:-1], "bad_protobuf"),
        (in_protobuf().replace(b"u-1", b"u\xff1"), "bad_protobuf"),
        (in_protobuf(indexes=b"\x02\x02"), "unsupported_schema"),
        (in_protobuf(indexes=b"\x04\0\0"), "unsupported_schema"),
    ],
)
def test_poison_in_protobuf_has_its_reason(value, reason):
    assert reason == reason_of(value, PROTOBUF)


def test_protobuf_of_another_package_is_refused_where_schemas_are_known():
    reads = message_format(
        "protobuf", schemas=Schemas({7: "syntax = 'proto3';\npackage fraudsdk.v1;", 8: "package x;"})
    )

    assert "u-1" == reads.decode(in_protobuf(7))["user_id"]
    assert "unsupported_schema" == reason_of(in_protobuf(8), reads)
    assert "unknown_schema" == reason_of(in_protobuf(9), reads)


class Schemas:
    """Knows these, and counts how often it is asked."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts
        self.n_asked = 0

    def schema(self, schema_id: int) -> str:
        self.n_asked += 1
        if schema_id not in self.texts:
            raise PoisonMessageError("unknown_schema", f"names schema {schema_id}", "register it")
        return self.texts[schema_id]


def test_a_schema_is_asked_for_once():
    schemas = Schemas({7: json.dumps(schema_of(*AVRO_FIELDS))})
    reads = message_format("avro", schemas=schemas)

    assert 3 == len(reads.decode_all([framed(schema_of(*AVRO_FIELDS), RECORD)] * 3))
    assert 1 == schemas.n_asked


class NotNow:
    """A registry that is down."""

    def schema(self, schema_id: int) -> str:
        raise SchemaUnavailableError("the schema registry does not answer")


def test_a_schema_that_cannot_be_had_now_makes_no_poison():
    with pytest.raises(SchemaUnavailableError):
        message_format("avro", schemas=NotNow()).decode_all([framed(schema_of(*AVRO_FIELDS), RECORD)])


AVRO = message_format("avro", schemas=Schemas({7: json.dumps(schema_of(*AVRO_FIELDS))}))
WHOLE = {
    "json": (
        JSON,
        b'{"transaction_id":"t-1","amount":12.50,"custom":{"points":1.5},"event_time":"2026-11-23T10:00:00Z"}',
    ),
    "protobuf": (PROTOBUF, in_protobuf(event_time_us=1_795_428_000_000_001, ip="203.0.113.7")),
    "avro": (AVRO, framed(schema_of(*AVRO_FIELDS), RECORD)),
}


@pytest.mark.parametrize("kind", WHOLE)
@given(cut=st.integers(0, 120), put=st.binary(max_size=8), left_out=st.integers(0, 8))
def test_changed_bytes_are_a_mapping_or_poison_and_nothing_else(kind, cut, put, left_out):
    reads, value = WHOLE[kind]

    [decoded] = reads.decode_all([value[:cut] + put + value[cut + left_out :]])

    assert isinstance(decoded, dict | PoisonMessageError)


def test_the_index_of_a_protobuf_message_is_read_in_both_spellings():
    assert ((0,), b"rest") == without_indexes(b"\0rest")
    assert ((1,), b"rest") == without_indexes(b"\x02\x02rest")
    assert ((2, 3), b"") == without_indexes(b"\x04\x04\x06")


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x02", b"\x80\x80\x80\x80\x80\x01", b"\xfe\x01" + b"\0" * 200])
def test_an_index_that_is_none_is_a_bad_frame(payload):
    with pytest.raises(PoisonMessageError) as caught:
        without_indexes(payload)

    assert "bad_frame" == caught.value.reason


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"name": "xml"}, "must be one of json"),
        ({"name": "avro"}, "need their schemas"),
        ({"name": "json", "max_message_bytes": 0}, "must be at least 1"),
    ],
)
def test_a_format_that_cannot_be_read_is_refused_before_anything_is_read(arguments, problem):
    with pytest.raises(ConfigurationError, match=problem):
        message_format(**arguments)
