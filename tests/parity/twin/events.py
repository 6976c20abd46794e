"""Events as people write them, and their encoding, independent of the encoder of the library."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fraudsdk.domain import fields as record
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.encoding.vocabulary import Vocabulary

KIND_BITS = {
    "purchase": record.AUTHORISATION,
    "credit": record.AUTHORISATION | record.CREDIT,
    "refund": record.REFUND,
    "reversal": record.REVERSAL,
    "chargeback": record.CHARGEBACK,
}


@dataclass(frozen=True)
class Event:
    """
    One transaction.

    Attributes
    ----------
    transaction : str
    time_us : int
    kind : str
        A key of `KIND_BITS`.
    amount_minor : int or None
        None = not known in the reference currency.
    original : str
        What a reversal or a chargeback is about.
    declined : bool
        The host's answer, where the event already carries it.
    card_present : bool or None
    texts : Mapping
        Identifiers and categories by field name; an absent one is not listed.
    numbers : Mapping
        Quantities by field name; an absent one is not listed.
    """

    transaction: str
    time_us: int
    kind: str = "purchase"
    amount_minor: int | None = 100
    original: str = ""
    declined: bool = False
    card_present: bool | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def key_of(text: str) -> int:
    """A scattered, signed 64-bit key of a text, never 0; 0 for no text."""
    if not text:
        return 0
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def encode(events: Sequence[Event], layout: RecordLayout, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """The two arrays of `fraudsdk.domain.fields`."""
    ints = np.zeros((len(events), layout.n_ints), dtype=np.int64)
    numbers = np.full((len(events), len(layout.numbers)), np.nan)
    for i, event in enumerate(events):
        ints[i, record.EVENT_TIME_US] = event.time_us
        ints[i, record.AMOUNT_MINOR] = record.AMOUNT_UNKNOWN if event.amount_minor is None else event.amount_minor
        ints[i, record.FLAGS] = _flags(event)
        ints[i, record.TRANSACTION_KEY] = key_of(event.transaction)
        ints[i, record.ORIGINAL_KEY] = key_of(event.original)
        for column, name in enumerate(layout.identifiers):
            ints[i, record.FIRST_IDENTIFIER + column] = key_of(event.texts.get(name, ""))
        for column, name in enumerate(layout.numbers):
            numbers[i, column] = number_of(event, name, vocabulary)
    return ints, numbers


def number_of(event: Event, name: str, vocabulary: Vocabulary) -> float:
    """A quantity, or the vocabulary code of a category (0 = unknown); NaN = absent."""
    if name == "card_present":
        return math.nan if event.card_present is None else float(event.card_present)
    if name in event.texts:
        known = vocabulary.values.get(name, ())
        return float(known.index(event.texts[name]) + 1) if event.texts[name] in known else 0.0
    return event.numbers.get(name, math.nan)


def _flags(event: Event) -> int:
    flags = KIND_BITS[event.kind]
    if event.declined:
        flags |= record.DECLINED
    if event.card_present is not None:
        flags |= record.CARD_PRESENT if event.card_present else record.CARD_NOT_PRESENT
    return flags
