"""Messages that are no transactions: many kinds, a card number in most, and the reason that each must be given."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

_Draw = random.Random


@dataclass(frozen=True)
class Poison:
    """
    One message.

    Attributes
    ----------
    kind : str
    key, value : bytes or None
    reason : str
        What its dead letter must say.
    pan : str
        The card number in it, where there is one.
    """

    kind: str
    key: bytes | None
    value: bytes | None
    reason: str
    pan: str


def poison_messages(n: int, seed: int) -> list[Poison]:
    """`n` messages, each kind as often as another."""
    draw = random.Random(seed)
    kinds = sorted(KINDS)
    made = []
    for i in range(n):
        kind = kinds[i % len(kinds)]
        reason, make = KINDS[kind]
        pan = card_number(draw)
        made.append(Poison(kind, draw.choice([None, b"u-1", pan.encode()]), make(draw, pan), reason, pan))
    draw.shuffle(made)
    return made


def card_number(draw: _Draw) -> str:
    """Sixteen digits that pass Luhn."""
    digits = [draw.choice([4, 5]), *(draw.randrange(10) for _ in range(14))]
    total = sum(digits[-2::-2]) + sum((2 * each) // 10 + (2 * each) % 10 for each in digits[-1::-2])
    return "".join(map(str, [*digits, -total % 10]))


def grouped(draw: _Draw, pan: str) -> str:
    return draw.choice(["", " ", "-", "\u00a0"]).join(pan[i : i + 4] for i in range(0, 16, 4))


def transaction(draw: _Draw, **changes: object) -> dict[str, object]:
    """One that a scorer would take, but for the changes; None takes a field out."""
    sent = {
        "transaction_id": f"t-{draw.randrange(10**9)}",
        "user_id": f"u-{draw.randrange(1000)}",
        "event_time": "2026-11-23T10:00:00Z",
        "amount": f"{draw.randrange(10_000)}.50",
        "currency": "EUR",
        "channel": "ecommerce",
    }
    return {name: value for name, value in (sent | changes).items() if value is not None}


def text(draw: _Draw, **changes: object) -> bytes:
    return json.dumps(transaction(draw, **changes), ensure_ascii=draw.random() < 0.5).encode()


def _note(draw: _Draw, pan: str) -> str:
    return f"paid with {grouped(draw, pan)}, thanks"


def _changed(**changes: object) -> Callable[[_Draw, str], bytes]:
    """With these fields, and no card number."""
    return lambda draw, pan: text(draw, **changes)


def _with_note(around: Callable[[bytes, _Draw], bytes]) -> Callable[[_Draw, str], bytes]:
    return lambda draw, pan: around(text(draw, note=_note(draw, pan)), draw)


KINDS: dict[str, tuple[str, Callable[[_Draw, str], bytes | None]]] = {
    "no value": ("empty", lambda draw, pan: None),
    "nothing": ("empty", lambda draw, pan: b""),
    "bad UTF-8": ("bad_utf8", _with_note(lambda value, draw: value.replace(b"paid", b"p\xe9id"))),
    "byte order mark": ("bad_json", _with_note(lambda value, draw: b"\xef\xbb\xbf" + value)),
    "UTF-16": ("bad_json", lambda draw, pan: json.dumps(transaction(draw, note=pan)).encode("utf-16-le")),
    "cut short": ("bad_json", _with_note(lambda value, draw: value[:-1])),
    "something behind it": ("bad_json", _with_note(lambda value, draw: value + b"\n" + value)),
    "NaN": ("bad_json", lambda draw, pan: text(draw, note=_note(draw, pan), amount=float("nan"))),
    "Infinity": ("bad_json", lambda draw, pan: text(draw, note=_note(draw, pan), amount=float("inf"))),
    "lone surrogate": ("bad_json", _with_note(lambda value, draw: value.replace(b"paid", b"\\udc00"))),
    "nested deeply": ("bad_json", lambda draw, pan: b'{"a":' * 1_500 + json.dumps(pan).encode() + b"}" * 1_500),
    "an array": ("not_an_object", _with_note(lambda value, draw: b"[" + value + b"]")),
    "a card number alone": ("not_an_object", lambda draw, pan: pan.encode()),
    "a card number as text": ("not_an_object", lambda draw, pan: json.dumps(grouped(draw, pan)).encode()),
    "null": ("not_an_object", lambda draw, pan: b"null"),
    "huge": ("too_large", lambda draw, pan: text(draw, note=f"{pan} " * 10_000)),
    "a field twice": ("duplicate_name", _with_note(lambda value, draw: value[:-1] + b', "note": "again"}')),
    "free text": ("invalid_transaction:unknown_field", _with_note(lambda value, draw: value)),
    "a verification code": ("invalid_transaction:forbidden_field", lambda draw, pan: text(draw, cvv="837", note=pan)),
    "a card number as an id": (
        "invalid_transaction:transaction_id",
        lambda draw, pan: text(draw, transaction_id=grouped(draw, pan)),
    ),
    "a track": ("invalid_transaction:channel", lambda draw, pan: text(draw, channel=f";{pan}=2512101000")),
    "a list for an amount": ("invalid_transaction:amount", _changed(amount=[12, 50])),
    "true for an amount": ("invalid_transaction:amount", _changed(amount=True)),
    "a negative amount": ("invalid_transaction:amount", _changed(amount=-12.5)),
    "an amount too fine": ("invalid_transaction:amount", _changed(amount="12.505")),
    "an amount too large": ("invalid_transaction:amount", _changed(amount=1e300)),
    "a number for a user, with a fraction": ("invalid_transaction:user_id", _changed(user_id=1.5)),
    "a control character": ("invalid_transaction:user_id", _changed(user_id="u\x001")),
    "a far future": ("invalid_transaction:event_time", _changed(event_time="2300-01-01T00:00:00Z")),
    "a time without offset": ("invalid_transaction:event_time", _changed(event_time="2026-11-23T10:00:00")),
    "milliseconds for microseconds": (
        "invalid_transaction:event_time_us",
        _changed(event_time=None, event_time_us=1_795_428_000_000),
    ),
    "no id": ("invalid_transaction:transaction_id", _changed(transaction_id=None)),
    "nobody": ("invalid_transaction:user_id", _changed(user_id=None)),
    "no such currency": ("invalid_transaction:currency", _changed(currency="EURO")),
    "a port in an address": ("invalid_transaction:ip", _changed(ip="203.0.113.7:80")),
}
