"""
From the bytes of a message to the mapping that a scorer takes.

    JSON                one object, UTF-8
    Avro, Protobuf      0x00, the id of a schema (4 bytes, big-endian), and the payload, as a schema registry frames it

What is no mapping is a `PoisonMessageError` with a reason for programs; what the fields hold is for the scorer to say.  Amounts
are the decimals that were sent: a JSON number is passed on as the float of the same shortest form, and as text where it has more
digits than a float keeps.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import orjson

from fraudsdk.adapters.kafka.avro import AvroSchema
from fraudsdk.adapters.kafka.framing import unframed, without_indexes
from fraudsdk.adapters.kafka.schemas import MAX_SCHEMAS, SchemaSource
from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.transaction import MAPPING_FIELDS
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, MissingExtraError, PoisonMessageError

Decoded = dict[str, Any] | PoisonMessageError

FORMATS: Final = ("json", "protobuf", "avro")
# A transaction with every field takes 1.5 KB; what is larger is a mistake, and 10 MB of it would stall a partition.
MAX_MESSAGE_BYTES: Final = 1 << 16

# With fifteen significant digits a decimal survives a float, and with a point these have sixteen characters.
_LONG_AMOUNT: Final = re.compile(rb'"amount"[ \t\r\n]*:[ \t\r\n]*[-+.0-9eE]{17}')
_BLANK_BEFORE_COLON: Final = re.compile(rb"[ \t\r\n]:")
_INT64_END: Final = 1 << 63
_OUR_PACKAGE: Final = re.compile(r"^\s*package\s+fraudsdk\.v1\s*;", re.MULTILINE)

_Read = TypeVar("_Read")


class MessageFormat(Protocol):
    """Reads messages of one format; used by one thread at a time."""

    def decode(self, value: bytes | None) -> dict[str, Any]:
        """
        The mapping in a message.

        Raises
        ------
        PoisonMessageError
            It holds none.
        SchemaUnavailableError
            Its schema cannot be had now: read the message again.
        """

    def decode_all(self, values: Sequence[bytes | None]) -> list[Decoded]:
        """
        The mapping in each of many messages, or why it holds none.

        Raises
        ------
        SchemaUnavailableError
            As `decode`; nothing of these is lost by reading all of them again.
        """


def message_format(
    name: str, *, schemas: SchemaSource | None = None, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> MessageFormat:
    """
    The reader of a format.

    Parameters
    ----------
    name : str
        One of `FORMATS`.
    schemas : SchemaSource or None
        Where schemas are found.  Avro needs one; with it, Protobuf is checked to be written in ours.
    max_message_bytes : int
        Larger messages are poison.

    Raises
    ------
    ConfigurationError
        No such format, or one that lacks its schemas.

    Examples
    --------
    >>> message_format("json").decode(b'{"transaction_id": "t-1", "amount": 12.50}')
    {'transaction_id': 't-1', 'amount': 12.5}
    """
    if not isinstance(max_message_bytes, int) or max_message_bytes < 1:
        raise ConfigurationError(f"max_message_bytes must be at least 1, was {max_message_bytes!r}")
    if name == "json":
        return JsonMessages(max_message_bytes)
    if name == "protobuf":
        return ProtobufMessages(schemas, max_message_bytes)
    if name == "avro":
        if schemas is None:
            raise ConfigurationError("messages in Avro need their schemas; name a schema registry or a folder of them")
        return AvroMessages(schemas, max_message_bytes)
    raise ConfigurationError(f"message format must be one of {', '.join(FORMATS)}, was {name!r}")


def poison_of(error: InvalidTransactionError) -> PoisonMessageError:
    """
    What a scorer refused, as the reason of a dead letter.

    Only names that are ours get into the reason: a sender may have put anything into those of his fields.
    """
    if error.field in MAPPING_FIELDS or error.field == "transaction":
        what = error.field
    else:
        what = "forbidden_field" if is_sensitive_name(error.field) else "unknown_field"
    whose = "" if error.transaction_id is None else f" (transaction {error.transaction_id})"
    problem = f"holds a {error.field} that {error.problem}{whose}"
    return PoisonMessageError(f"invalid_transaction:{what}", problem, error.remedy)


class _Messages:
    """What the formats share: bounds, and poison among many."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_bytes = max_message_bytes

    def decode(self, value: bytes | None) -> dict[str, Any]:
        """See `MessageFormat.decode`."""
        if not value:
            raise PoisonMessageError("empty", "has no value", "send one transaction in each message")
        if len(value) > self._max_bytes:
            raise PoisonMessageError(
                "too_large", f"has {len(value):,} bytes, more than {self._max_bytes:,}", "send the transaction alone"
            )
        return self._decode(value)

    def decode_all(self, values: Sequence[bytes | None]) -> list[Decoded]:
        """See `MessageFormat.decode_all`."""
        decoded: list[Decoded] = []
        for value in values:
            try:
                decoded.append(self.decode(value))
            except PoisonMessageError as error:
                decoded.append(error)
        return decoded

    def _decode(self, value: bytes) -> dict[str, Any]:
        raise NotImplementedError


class JsonMessages(_Messages):
    """One JSON object (RFC 8259) in a message: no byte order mark, no name twice, no NaN, nothing behind it."""

    def decode_all(self, values: Sequence[bytes | None]) -> list[Decoded]:
        """See `MessageFormat.decode_all`."""
        decoded: list[Decoded] = []
        for value in values:
            mapping = _plain(value, self._max_bytes)
            decoded += [mapping] if mapping is not None else super().decode_all([value])
        return decoded

    def _decode(self, value: bytes) -> dict[str, Any]:
        try:
            mapping = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            # Not the cause of ours: it carries the whole document, which may hold a card number.
            raise _bad_json(value, error) from None
        if type(mapping) is not dict:
            raise PoisonMessageError(
                "not_an_object", f"is a JSON {_JSON_KINDS[type(mapping)]}", "send one object in each message"
            )
        return mapping if _is_read_whole(value, mapping) else _read_with_care(value)


class ProtobufMessages(_Messages):
    """
    ``fraudsdk.v1.Transaction`` in a schema registry's frame.

    Fields that this version does not know are passed over, as Protobuf has it, and as the scoring service does.
    """

    def __init__(self, schemas: SchemaSource | None, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        super().__init__(max_message_bytes)
        try:
            from google.protobuf.message import DecodeError

            from fraudsdk.adapters.protobuf import mapping_of
            from fraudsdk.adapters.protobuf._generated.transaction_pb2 import Transaction
        except ImportError as error:
            raise MissingExtraError("protobuf", "kafka") from error
        self._message, self._mapping_of, self._no_message = Transaction, mapping_of, DecodeError
        self._indexes = (list(Transaction.DESCRIPTOR.file.message_types_by_name).index(Transaction.DESCRIPTOR.name),)
        self._schemas = None if schemas is None else _Cache(schemas, _check_is_ours)

    def _decode(self, value: bytes) -> dict[str, Any]:
        schema_id, payload = unframed(value)
        if self._schemas is not None:
            self._schemas.get(schema_id)
        indexes, payload = without_indexes(payload)
        if indexes != self._indexes:
            raise PoisonMessageError("unsupported_schema", "is another message of its schema", "send a Transaction")
        message = self._message()
        try:
            message.ParseFromString(payload)
        except self._no_message:  # its text is of no use, and may come from the message
            raise PoisonMessageError("bad_protobuf", "is no Transaction", "write it by fraudsdk.v1") from None
        return self._mapping_of(message)


class AvroMessages(_Messages):
    """Avro records, each in the schema that its frame names."""

    def __init__(self, schemas: SchemaSource, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        super().__init__(max_message_bytes)
        self._schemas = _Cache(schemas, AvroSchema)

    def _decode(self, value: bytes) -> dict[str, Any]:
        schema_id, payload = unframed(value)
        return self._schemas.get(schema_id).read(payload)


class _Cache(Generic[_Read]):
    """Schemas that were read, by their ids; past `MAX_SCHEMAS` the oldest makes room."""

    def __init__(self, source: SchemaSource, read: Callable[[str], _Read]) -> None:
        self._source = source
        self._read = read
        self._schemas: dict[int, _Read] = {}

    def get(self, schema_id: int) -> _Read:
        if schema_id not in self._schemas:
            schema = self._read(self._source.schema(schema_id))
            if len(self._schemas) >= MAX_SCHEMAS:
                del self._schemas[next(iter(self._schemas))]
            self._schemas[schema_id] = schema
        return self._schemas[schema_id]


def _check_is_ours(schema: str) -> None:
    if not _OUR_PACKAGE.search(schema):
        raise PoisonMessageError(
            "unsupported_schema", "has a schema of another package than fraudsdk.v1", "write it by fraudsdk.v1"
        )


def _plain(value: bytes | None, n_bytes_max: int) -> dict[str, Any] | None:
    """
    The mapping of a message that is as nearly all are, in one look: a colon for each name, none in a text but the time, no escapes
    and no amount with a point; None for any other.
    """
    if not value or len(value) > n_bytes_max or b"\\" in value:
        return None
    try:
        mapping = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if type(mapping) is not dict or type(mapping.get("amount")) is float:
        return None
    time = mapping.get("event_time")
    n_colons = len(mapping) + (time.count(":") if type(time) is str else 0)
    return mapping if value.count(b":") == n_colons else None


_JSON_KINDS: Final = {
    list: "array", str: "text", int: "number", float: "number", bool: "boolean", type(None): "null",
}  # fmt: skip


def _bad_json(value: bytes, error: orjson.JSONDecodeError) -> PoisonMessageError:
    try:
        value.decode()
    except UnicodeDecodeError as not_text:
        return PoisonMessageError("bad_utf8", f"is no UTF-8 at byte {not_text.start}", "send JSON in UTF-8")
    return PoisonMessageError("bad_json", f"is no JSON: {error.msg} at character {error.pos}", "send one JSON object")


def _is_read_whole(value: bytes, mapping: dict[str, Any]) -> bool:
    """Whether no name was dropped for a later one of its kind, and no digit of an amount; False where that is not plain."""
    has_escapes = b"\\" in value
    if not _has_each_name_once(value, mapping, has_escapes):
        return False
    # An escape may hide the name of the amount.
    return type(mapping.get("amount")) is not float or not (has_escapes or _LONG_AMOUNT.search(value))


def _has_each_name_once(value: bytes, mapping: dict[str, Any], has_escapes: bool) -> bool:
    """
    Compare the colons that are there with those that the names account for: a name that was dropped left one more.

    Text may hold colons too, and only those of the time are counted; where there are others, or escapes that may stand for one,
    it is ``":`` that every name brings, but one with a blank behind it.
    """
    custom, time = mapping.get("custom"), mapping.get("event_time")
    n_names = len(mapping) + (len(custom) if type(custom) is dict else 0)
    n_in_time = 0 if has_escapes or type(time) is not str else time.count(":")
    if value.count(b":") == n_names + n_in_time:
        return True
    return value.count(b'":') == n_names and _BLANK_BEFORE_COLON.search(value) is None


class _Literal(str):
    """A JSON number with a fraction or an exponent, as it was written."""


def _read_with_care(value: bytes) -> dict[str, Any]:
    """As orjson reads it, with names and amounts looked at one by one."""
    try:
        mapping: dict[str, Any] = json.loads(
            value, object_pairs_hook=_unique, parse_float=_Literal, parse_int=_integer_or_float
        )
    except RecursionError:
        raise PoisonMessageError("bad_json", "is nested too deep", "send one flat object") from None
    return {
        name: each if name == "amount" and type(each) is _Literal else _as_float(each) for name, each in mapping.items()
    }


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise PoisonMessageError("duplicate_name", "has a name twice", "send each field once")
    return mapping


def _integer_or_float(literal: str) -> int | float:
    number = int(literal)
    return number if -_INT64_END <= number < 2 * _INT64_END else float(number)


def _as_float(value: Any) -> Any:
    if type(value) is _Literal:
        return float(value)
    if type(value) is dict:  # custom fields; what lies deeper is refused for being there
        return {name: float(each) if type(each) is _Literal else each for name, each in value.items()}
    return value
