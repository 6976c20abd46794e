"""
A transaction as a message, and as the mapping that every border of the product reads.

`mapping_of` checks nothing and `message_of` only what a message cannot carry: whoever scores the mapping is the judge, so that a
transaction is taken or refused alike whichever way it came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final

from fraudsdk.adapters.protobuf._generated import transaction_pb2 as pb
from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.fields import IDENTIFIERS
from fraudsdk.domain.masking import masked, shown
from fraudsdk.domain.money import parse_amount, parse_amount_minor
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.scalars import integer_of, is_absent, is_boolean, is_integer, is_number, is_numpy_float
from fraudsdk.domain.transaction import (
    EVENT_TIME_PARSERS,
    FIELD_PARSERS,
    MAPPING_FIELDS,
    Transaction,
    TransactionType,
    parse_direction,
    parse_type,
)
from fraudsdk.domain.values import parse_custom_category, parse_quantity
from fraudsdk.errors import InvalidTransactionError

_US_PER_S: Final = 1_000_000
_NS_PER_US: Final = 1_000
_NS_PER_S: Final = 1_000_000_000

_TYPES: Final = {
    pb.TRANSACTION_TYPE_AUTHORISATION: TransactionType.AUTHORISATION,
    pb.TRANSACTION_TYPE_REVERSAL: TransactionType.REVERSAL,
    pb.TRANSACTION_TYPE_REFUND: TransactionType.REFUND,
    pb.TRANSACTION_TYPE_CHARGEBACK: TransactionType.CHARGEBACK,
}
_TYPE_NUMBERS: Final = {kind: number for number, kind in _TYPES.items()}
_TYPE_TEXTS: Final = {number: kind.value for number, kind in _TYPES.items()}
_DIRECTIONS: Final = {pb.DIRECTION_DEBIT: "debit", pb.DIRECTION_CREDIT: "credit"}

_NUMBERS: Final = ("latitude", "longitude", "home_latitude", "home_longitude", "account_age_days", "balance")
_FLAGS: Final = ("declined", "card_present")
_CARDS: Final = ("card_id", "pan")
_TEXTS: Final = (
    "transaction_id",
    "original_transaction_id",
    *IDENTIFIERS,
    *("currency", "channel", "entry_mode", "mcc", "merchant_country", "card_country", "ip_country", "three_ds"),
)
# Text that most transactions have, and text that most have not.
_OFTEN: Final = tuple(
    "transaction_id currency user_id card_id merchant_id device_id ip channel entry_mode mcc merchant_country card_country".split()
)
_RARELY: Final = tuple(name for name in (*_TEXTS, "pan") if name not in _OFTEN)
_PRESENT: Final = ("amount_minor", "amount", *_FLAGS, *_NUMBERS)
_often, _rarely = attrgetter(*_OFTEN), attrgetter(*_RARELY)
# How a border names what a message calls otherwise.
_WIRE_NAMES: Final = {"event_time_us": "event_time"}


def field_on_the_wire(field: str) -> str:
    """What a message calls a field that was refused."""
    return _WIRE_NAMES.get(field, field)


def mapping_of(message: pb.Transaction) -> dict[str, Any]:
    """
    A message as a mapping for `Scorer.score`, field by field and unchecked.

    What is absent is left out, or empty text, which means the same.  A number that stands for no type or direction stays a
    number, and a time that is none becomes text: both are refused under their own name by whoever reads the mapping.
    """
    # 1.8 us, where asking the message for its fields (`ListFields`) takes 3.2: it makes an object of each descriptor.
    mapping: dict[str, Any] = dict(zip(_OFTEN, _often(message), strict=True))
    has = message.HasField
    for name in _PRESENT:
        if has(name):
            mapping[name] = getattr(message, name)
    if has("event_time"):
        _read_time(mapping, message.event_time)
    kind, direction = message.type, message.direction
    if kind:
        mapping["type"] = _TYPE_TEXTS.get(kind, kind)
    if direction:
        mapping["direction"] = _DIRECTIONS.get(direction, direction)
    rest = _rarely(message)
    if any(rest):
        mapping.update(pair for pair in zip(_RARELY, rest, strict=True) if pair[1])
    if message.custom:
        _spread_custom(mapping, message.custom)
    return mapping


def message_of(transaction: Transaction | Mapping[str, Any]) -> pb.Transaction:
    """
    What a host would hand to `Scorer.score`, as a message.

    Raises
    ------
    InvalidTransactionError
        A value that no message can carry, and no scorer would take.  Everything else is left to whoever reads the message.

    Examples
    --------
    >>> message_of({"transaction_id": "t-1", "card_id": "c-1", "amount": 12.5, "event_time": "2026-11-23T10:00:00Z"}).amount
    '12.5'
    """
    message = pb.Transaction()
    name: Any = "transaction_id"
    try:
        if isinstance(transaction, Transaction):
            for name, value in _attributes_of(transaction):
                _WRITERS[name](message, name, value)
        elif isinstance(transaction, Mapping):
            for name, value in transaction.items():
                if name in MAPPING_FIELDS:
                    if value is not None:
                        _WRITERS[name](message, name, value)
                else:
                    _write_custom(message, name, value)
        else:
            raise _Refused(
                "transaction", f"must be a mapping of fields, was {type(transaction).__name__}", "send a dict"
            )
    except RefusedValue as refused:
        field = refused.field if isinstance(refused, _Refused) else name
        raise InvalidTransactionError(
            field, refused.problem, refused.remedy, transaction_id=_whose(transaction)
        ) from None
    return message


class _Refused(RefusedValue):
    """A refusal that knows its field."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.field = field


def _read_time(mapping: dict[str, Any], moment: Any) -> None:
    seconds, nanos = moment.seconds, moment.nanos
    if 0 <= nanos < _NS_PER_S:
        mapping["event_time_us"] = seconds * _US_PER_S + nanos // _NS_PER_US
    else:
        mapping["event_time"] = f"{seconds} s and {nanos} ns"


def _spread_custom(mapping: dict[str, Any], custom: Mapping[str, pb.CustomValue]) -> None:
    bag: dict[str, Any] = {}
    for name, value in custom.items():
        kind = value.WhichOneof("kind")
        # By its own name it is read natively; under the name of another field it must not pass for that field.
        (bag if name in MAPPING_FIELDS else mapping)[name] = None if kind is None else getattr(value, kind)
    if bag:
        mapping["custom"] = bag


def _attributes_of(transaction: Transaction) -> list[tuple[str, Any]]:
    """Fields of a transaction that are not absent, as a mapping would name them."""
    names = (*_TEXTS, *_FLAGS, *_NUMBERS, "event_time_us", "amount_minor", "type")
    values = [(name, getattr(transaction, name)) for name in names]
    values += [("direction", "credit" if transaction.credit else None), ("custom", transaction.custom or None)]
    return [(name, value) for name, value in values if value is not None]


def _write_text(message: pb.Transaction, name: str, value: Any) -> None:
    text: str | None
    if isinstance(value, str):
        text = str(value)
    elif name in _CARDS and is_integer(value):
        text = str(int(value.__index__()))  # only whoever has the key may say whether that is a card number
    else:
        text = FIELD_PARSERS[name](value) if name in FIELD_PARSERS else parse_custom_category(value)
    if text is not None:
        try:
            setattr(message, name, text)
        except ValueError:
            raise _no_utf_8(text) from None


def _no_utf_8(text: str) -> RefusedValue:
    return RefusedValue(
        f"must be Unicode without lone surrogates, was {masked(text)}", "send text that has a UTF-8 form"
    )


def _write_number(message: pb.Transaction, name: str, value: Any) -> None:
    number = value if type(value) is float else FIELD_PARSERS[name](value)
    if number == number:
        setattr(message, name, number)


def _write_flag(message: pb.Transaction, name: str, value: Any) -> None:
    flag = FIELD_PARSERS[name](value)
    if flag is not None:
        setattr(message, name, flag)


def _write_type(message: pb.Transaction, name: str, value: Any) -> None:
    message.type = _TYPE_NUMBERS[parse_type(value)]


def _write_direction(message: pb.Transaction, name: str, value: Any) -> None:
    message.direction = pb.DIRECTION_CREDIT if parse_direction(value) else pb.DIRECTION_DEBIT


def _write_time(message: pb.Transaction, name: str, value: Any) -> None:
    event_time_us = EVENT_TIME_PARSERS[name](value)
    if event_time_us is None:
        return
    if message.HasField("event_time"):
        raise _Refused(
            "event_time", "is given twice", "send one of event_time, event_time_s, event_time_ms and event_time_us"
        )
    message.event_time.seconds, us = divmod(event_time_us, _US_PER_S)
    message.event_time.nanos = us * _NS_PER_US


def _write_amount(message: pb.Transaction, name: str, value: Any) -> None:
    if message.HasField("money"):
        raise _Refused("amount", "is given twice", "send amount or amount_minor, not both")
    if name == "amount_minor":
        message.amount_minor = parse_amount_minor(value)
        return
    try:
        message.amount = _decimal_text(value)
    except ValueError:
        raise _no_utf_8(str(value)) from None


def _decimal_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, Decimal) or is_numpy_float(value):
        return str(value)  # a float32 has a shorter decimal form of its own
    number = integer_of(value)
    if number is None or abs(number) >= 10**40:
        parse_amount(value, "EUR")  # which refuses it, and says why
    return str(number)


def _write_bag(message: pb.Transaction, name: str, bag: Any) -> None:
    if not isinstance(bag, Mapping):
        raise RefusedValue(f"must be a mapping, was {type(bag).__name__}", "send the custom fields by name")
    for each, value in bag.items():
        _write_custom(message, each, value)


def _write_custom(message: pb.Transaction, name: Any, value: Any) -> None:
    if not isinstance(name, str):
        raise _Refused(shown(name).strip("'"), "is not a known field", "leave it out, or declare it as a custom field")
    if is_sensitive_name(name):  # what must never be sent must not leave this process
        raise _Refused(
            name, "must never be sent: it is card verification, PIN or track data", "leave it out of the transaction"
        )
    try:
        entry = message.custom[name]  # made, where there was none
    except UnicodeEncodeError:
        raise _Refused(shown(name).strip("'"), "is not a known field", "leave it out") from None
    if entry.WhichOneof("kind") is not None and value is not None:
        raise _Refused(name, "is given twice", "send it by name or in custom, not both")
    try:
        _fill_custom(entry, value)
    except RefusedValue as refused:
        raise _Refused(name, refused.problem, refused.remedy) from None


def _fill_custom(entry: pb.CustomValue, value: Any) -> None:
    if is_absent(value):
        return
    if isinstance(value, str):
        try:
            entry.text = str(value)
        except ValueError:
            raise _no_utf_8(value) from None
    elif is_boolean(value) or not is_number(value):
        parse_quantity(value)  # which refuses it, and says why
        raise RefusedValue(f"must be a number or text, was {type(value).__name__}", "send a number or text")
    elif is_integer(value):
        number = int(value.__index__())
        if -(2**63) <= number < 2**63:
            entry.integer = number
        else:
            entry.text = str(parse_custom_category(number))
    else:
        entry.number = parse_quantity(value)


def _whose(transaction: Any) -> str | None:
    named = transaction.get("transaction_id") if isinstance(transaction, Mapping) else None
    return masked(named) if isinstance(named, (str, int)) else None


_Writer = Callable[[pb.Transaction, str, Any], None]
_WRITERS: Final[dict[str, _Writer]] = {
    **dict.fromkeys((*_TEXTS, "pan"), _write_text),
    **dict.fromkeys(_NUMBERS, _write_number),
    **dict.fromkeys(_FLAGS, _write_flag),
    **dict.fromkeys(EVENT_TIME_PARSERS, _write_time),
    **dict.fromkeys(("amount", "amount_minor"), _write_amount),
    "type": _write_type,
    "direction": _write_direction,
    "custom": _write_bag,
}
