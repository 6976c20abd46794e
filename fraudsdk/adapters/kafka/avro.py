"""
Avro records as mappings.

A schema is looked at once: it is a record whose fields are plain values, or a record or map of these named ``custom``.  Decimals
are made here, exactly: the library would round to the schema's precision without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from typing import Any, Final

from fraudsdk.errors import MissingExtraError, PoisonMessageError

_PLAIN: Final = ("null", "boolean", "int", "long", "float", "double", "string", "enum")
_MAX_DECIMAL_BYTES: Final = 16
_MAX_SCALE: Final = 30
# Logical types of times, and the field that says the same unit.
_TIMES: Final = {"timestamp-millis": "event_time_ms", "timestamp-micros": "event_time_us"}

_Make = Callable[[Any], Any]


class AvroSchema:
    """
    Reads records of one schema.

    Parameters
    ----------
    text : str
        JSON.

    Raises
    ------
    PoisonMessageError
        It is no schema, or one that cannot be a transaction's: whoever sends messages in it must change.
    """

    def __init__(self, text: str) -> None:
        try:
            import fastavro
            from fastavro.schema import SchemaParseException, UnknownType
        except ImportError as error:
            raise MissingExtraError("fastavro", "kafka") from error
        self._read = fastavro.schemaless_reader
        try:
            written = json.loads(text)
            self._fields = _fields_of(written)
            self._schema = fastavro.parse_schema(_without_logical_types(written))
        except (ValueError, KeyError, TypeError, RecursionError, SchemaParseException, UnknownType) as error:
            raise _unsupported("cannot be understood") from error

    def read(self, payload: bytes) -> dict[str, Any]:
        """
        The mapping of one record.

        Raises
        ------
        PoisonMessageError
            It is no record of this schema, or something follows it.
        """
        octets = BytesIO(payload)
        try:
            record: Any = self._read(octets, self._schema, None)
        except Exception as error:  # fastavro documents none: EOFError, ValueError, IndexError, UnicodeDecodeError, ...
            raise PoisonMessageError(
                "bad_avro", f"is no record of its schema ({type(error).__name__})", "write it in the schema it names"
            ) from None
        if octets.tell() != len(payload):
            raise PoisonMessageError(
                "bad_avro", f"goes on for {len(payload) - octets.tell()} bytes after its record", "send one record"
            )
        for name, (target, make) in self._fields.items():
            value = record.pop(name)
            if value is not None:
                record[target] = make(value)
        mapping: dict[str, Any] = record
        return mapping


def _fields_of(schema: Any) -> dict[str, tuple[str, _Make]]:
    """What becomes of the fields that are not passed on as they are: under which name, and made how."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise _unsupported("is no record")
    made = {}
    for each in schema["fields"]:
        name, kind = each["name"], _one_kind(each["type"])
        if name == "custom" and _kind_name(kind) in ("record", "map"):
            _check_custom(kind)
        elif isinstance(kind, dict) and kind.get("logicalType") == "decimal":
            made[name] = name, _decimal_maker(kind)
        elif _kind_name(kind) not in _PLAIN:
            raise _unsupported("has a field that is neither a plain value nor custom")
        elif isinstance(kind, dict) and kind.get("logicalType") in _TIMES and name == "event_time":
            made[name] = _TIMES[kind["logicalType"]], _as_it_is
    if any(
        target in (each["name"] for each in schema["fields"]) for name, (target, _) in made.items() if target != name
    ):
        raise _unsupported("has its time twice")
    return made


def _one_kind(kind: Any) -> Any:
    """The one type of a field that may also be null."""
    if not isinstance(kind, list):
        return kind
    others = [each for each in kind if each != "null"]
    if len(others) != 1:
        raise _unsupported("has a field of several types")
    return others[0]


def _kind_name(kind: Any) -> Any:
    return kind.get("type") if isinstance(kind, dict) else kind


def _check_custom(kind: Any) -> None:
    kinds = [kind["values"]] if kind["type"] == "map" else [each["type"] for each in kind["fields"]]
    # A map whose values take no bytes could be of any length.
    if any(_kind_name(_one_kind(each)) not in _PLAIN[1:] for each in kinds):
        raise _unsupported("has a custom field that is no plain value")


def _decimal_maker(kind: dict[str, Any]) -> _Make:
    scale, precision = kind.get("scale", 0), kind["precision"]
    if kind.get("type") not in ("bytes", "fixed") or not 0 <= scale <= _MAX_SCALE or precision < 1:
        raise _unsupported("has a decimal that is none")

    def make(unscaled: bytes) -> Decimal:
        if len(unscaled) > _MAX_DECIMAL_BYTES:
            raise PoisonMessageError("bad_avro", f"has a decimal of {len(unscaled)} bytes", "send a smaller number")
        return Decimal(f"{int.from_bytes(unscaled, 'big', signed=True)}E-{scale}")

    return make


def _as_it_is(value: Any) -> Any:
    return value


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {name: _without_logical_types(each) for name, each in schema.items() if name != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(each) for each in schema]
    return schema


def _unsupported(problem: str) -> PoisonMessageError:
    return PoisonMessageError(
        "unsupported_schema",
        f"has a schema that {problem}",
        "send a record of plain fields named as those of a transaction",
    )
