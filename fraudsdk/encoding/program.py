"""
What the native border knows of one encoder, as one array of int64 that kernels read.

::

    header      addresses of None, str, ...; where the rest begins
    values      a word per field: what the mapping at hand has for it, and a word more: the spelling that was found for
                it; written by every call, under the GIL
    records     RECORD words per field: how its value is read and where it goes
    names       a table: hash of a field's name -> its slot
    spellings   tables: an everyday spelling of a listed value -> its code, its key and what else it means
    currencies  CURRENCY_WORDS words each
    letters     names, and spellings that are longer than a word

Tables are open-addressing ones of a power of two of places, at most half full.  Every spelling went through the parser of its
field when the program was made: a table can only repeat what a parser says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from sys import intern
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain import fields
from fraudsdk.domain.countries import COUNTRY_SPELLINGS
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS, MAX_AMOUNT_MINOR
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import (
    ENTITY_FIELDS,
    FIELD_PARSERS,
    NUMBER_BOUNDS,
    TYPE_SPELLINGS,
    TransactionType,
    parse_direction,
    parse_type,
)
from fraudsdk.domain.values import FLAG_SPELLINGS, MAX_QUANTITY, Parser, parse_custom_category, parse_flag
from fraudsdk.encoding import words as w
from fraudsdk.encoding.hashing import hash_key, keyed_hasher
from fraudsdk.encoding.vocabulary import Vocabulary

CURRENCIES: Final = tuple(CURRENCY_EXPONENTS)  # in the order of their index
TYPE_FLAGS: Final = {
    TransactionType.AUTHORISATION: fields.AUTHORISATION,
    TransactionType.REVERSAL: fields.REVERSAL,
    TransactionType.REFUND: fields.REFUND,
    TransactionType.CHARGEBACK: fields.CHARGEBACK,
}


class Program:
    """
    See the head of this module.

    Parameters
    ----------
    layout : RecordLayout
    key : bytes
    vocabulary : Vocabulary
    currency : str
        Reference currency.
    factors : Mapping of str to (int, int)
        Currency -> (numerator, denominator) from its minor units to those of the reference currency.

    Attributes
    ----------
    words : int64[n]
    slots : dict of str to int
        Field -> slot.
    """

    def __init__(
        self,
        layout: RecordLayout,
        *,
        key: bytes,
        vocabulary: Vocabulary,
        currency: str,
        factors: Mapping[str, tuple[int, int]],
    ) -> None:
        self._layout = layout
        self._key = key
        self._second_utc = _utc_of_zoneinfo()  # kept, so that the cache of `zoneinfo` hands out this very object
        self._vocabulary = vocabulary
        texts = tuple(name for name in (*ENTITY_FIELDS, *IDENTIFIERS, *CATEGORIES) if name != "currency")
        texts = (*dict.fromkeys(texts), *layout.custom_categories)
        numbers = tuple(name for name in NUMBERS if name not in w.SPECIAL_FIELDS)
        self._names = tuple(intern(name) for name in (*w.SPECIAL_FIELDS, *texts, *numbers, *layout.custom_numbers))
        self.slots: dict[str, int] = {name: slot for slot, name in enumerate(self._names)}
        self._words: list[int] = [0] * (w.VALUES + len(self._names))
        self._write_header(w.FIRST_ENTITY + len(texts))
        self._words += [0] * ((1 + w.RECORD) * len(self._names))
        self._write_records()
        self._write_names()
        self._write_spellings(currency, factors)
        self.words: NDArray[np.int64] = np.array(self._words, np.int64)

    def record(self, name: str) -> int:
        """Where the record of a field begins."""
        return self._words[w.RECORDS] + w.RECORD * self.slots[name]

    def _write_header(self, first_number: int) -> None:
        known = (None, True, False, str, int, float, dict, datetime, UTC, self._second_utc)
        self._words[w.NONE : w.SECOND_UTC_ZONE + 1] = map(id, known)
        self._words[w.N_INTS], self._words[w.N_NUMBERS] = self._layout.n_ints, len(self._layout.numbers)
        self._words[w.FOUND] = len(self._words)
        self._words[w.RECORDS] = len(self._words) + len(self._names)
        self._words[w.FIRST_NUMBER], self._words[w.END] = first_number, len(self._names)

    def _write_records(self) -> None:
        layout = self._layout
        kinds = {
            **dict.fromkeys((*IDENTIFIERS, "transaction_id", "original_transaction_id"), w.IDENTIFIER),
            "card_id": w.CARD,
            "ip": w.ADDRESS,
            **dict.fromkeys(("channel", "entry_mode", "three_ds"), w.LOWER_CASE),
            **dict.fromkeys(layout.custom_categories, w.AS_SENT),
            "mcc": w.FOUR_DIGITS,
            **dict.fromkeys(("balance", *layout.custom_numbers), w.QUANTITY),
        }
        widths = {"mcc": 4, **dict.fromkeys(("merchant_country", "card_country", "ip_country"), 3)}
        for name, slot in self.slots.items():
            record = self.record(name)
            low, high, *_ = NUMBER_BOUNDS.get(name, (-MAX_QUANTITY, MAX_QUANTITY))
            of_record = {
                w.KIND: kinds.get(name, w.LISTED),
                w.INT_AT: fields.FIRST_IDENTIFIER + layout.identifiers.index(name)
                if name in layout.identifiers
                else -1,
                w.NUMBER_AT: layout.numbers.index(name) if name in layout.numbers else -1,
                w.WIDTH: widths.get(name, 0),
                w.LOW: bits_of(low),
                w.HIGH: bits_of(high),
                w.MOST_CHARACTERS: 64 if kinds.get(name) in (w.LOWER_CASE, w.AS_SENT) else 128,
                w.NAME: id(self._names[slot]),
                w.NAME_LETTERS: self._letters(name),
                w.NAME_LENGTH: len(name),
            }
            of_record[w.KEY_0], of_record[w.KEY_1] = hash_key(name, self._key)
            for word, value in of_record.items():
                self._words[record + word] = value
        for name, column in (
            ("transaction_id", fields.TRANSACTION_KEY),
            ("original_transaction_id", fields.ORIGINAL_KEY),
        ):
            self._words[self.record(name) + w.INT_AT] = column

    def _write_names(self) -> None:
        places, mask = self._table(len(self._names), 2)
        self._words[w.NAMES], self._words[w.NAMES_MASK] = places, mask
        for name, slot in self.slots.items():
            place = hash(name) & mask
            while self._words[places + 2 * place + 1]:
                place = (place + 1) & mask
            self._words[places + 2 * place : places + 2 * place + 2] = [hash(name), slot + 1]

    def _write_spellings(self, currency: str, factors: Mapping[str, tuple[int, int]]) -> None:
        self._words[w.MINOR_PER_MAJOR] = bits_of(float(10 ** CURRENCY_EXPONENTS[currency]))
        self._words[w.CURRENCIES] = len(self._words)
        for code in CURRENCIES:
            self._write_currency(code, currency, factors)
        currencies = {code: index for index, code in enumerate(CURRENCIES)}
        places = self._spell("currency", CURRENCY_EXPONENTS, FIELD_PARSERS["currency"], currencies)
        self._words[w.REFERENCE] = places[currency]
        self._spell("type", TYPE_SPELLINGS, parse_type, TYPE_FLAGS)
        self._spell("direction", ("debit", "credit"), parse_direction, {True: fields.CREDIT, False: 0})
        for name in ("declined", "card_present"):
            self._spell(name, FLAG_SPELLINGS, parse_flag, {True: 1, False: 0})
        for name in (*CATEGORIES, *self._layout.custom_categories):
            if name != "currency":
                listed: Iterable[str] = self._vocabulary.values.get(name, ())
                if name.endswith("country"):
                    listed = COUNTRY_SPELLINGS
                self._spell(name, listed, FIELD_PARSERS.get(name, parse_custom_category), {})

    def _write_currency(self, code: str, reference: str, factors: Mapping[str, tuple[int, int]]) -> None:
        exponent = CURRENCY_EXPONENTS[code]
        numerator, denominator = (1, 1) if code == reference else factors.get(code, (0, 1))
        largest = MAX_AMOUNT_MINOR if numerator == 0 else (2**63 - 1) // numerator
        if max(numerator, denominator) >= 2**62:
            numerator, denominator, largest = 1, 1, -1  # for Python's integers
        self._words += [10**exponent, exponent, numerator, denominator, largest]

    def _spell(self, name: str, listed: Iterable[str], parse: Parser, meanings: Mapping[Any, int]) -> dict[str, int]:
        """A table of the everyday spellings of listed values; where each begins."""
        codes, hash_of = self._vocabulary.codes(name), keyed_hasher(name, self._key)
        spelt = {}
        for text in listed:
            for spelling in (text, text.lower(), text.upper(), text.capitalize()):
                if spelling.isascii():
                    spelt[spelling] = _parsed_or_none(parse, spelling)
        spelt = {spelling: value for spelling, value in spelt.items() if value is not None}
        if not spelt:
            return {}
        begins = {}
        places, mask = self._table(len(spelt), w.SPELLING)
        for spelling, value in spelt.items():
            letters = spelling.encode()
            place = mixed(letters) & mask
            while self._words[places + w.SPELLING * place]:
                place = (place + 1) & mask
            begin = begins[spelling] = places + w.SPELLING * place
            is_text = isinstance(value, str)
            self._words[begin + w.LENGTH] = len(letters)
            self._words[begin + w.FIRST_WORD] = _word(letters[:8])
            self._words[begin + w.LETTERS] = self._letters(spelling) if len(letters) > 8 else 0
            self._words[begin + w.CODE] = bits_of(codes.get(value, 0.0) if is_text else 0.0)
            self._words[begin + w.KEY] = hash_of(value) if is_text else 0
            self._words[begin + w.MEANING] = meanings.get(value, 0)
        record = self.record(name)
        self._words[record + w.SPELLINGS], self._words[record + w.SPELLINGS_MASK] = places, mask
        return begins

    def _table(self, n: int, words: int) -> tuple[int, int]:
        size = 1 << (2 * n - 1).bit_length()
        self._words += [0] * (size * words)
        return len(self._words) - size * words, size - 1

    def _letters(self, text: str) -> int:
        letters = text.encode()
        self._words += [_word(letters[first : first + 8]) for first in range(0, len(letters), 8)]
        return len(self._words) - (len(letters) + 7) // 8


def mixed(letters: bytes) -> int:
    """Where the search for a spelling begins; the twin of `kernels.mixed`."""
    first, last = _word(letters[:8]), _word(letters[-8:])
    return (((first ^ len(letters)) * w.MIX + last) * w.MIX) % 2**64 >> 40


def bits_of(number: float) -> int:
    """A float64 as the integer of the same bits."""
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits


def _utc_of_zoneinfo() -> tzinfo:
    try:
        return ZoneInfo("UTC")
    except (ZoneInfoNotFoundError, OSError):  # a host without time zone data
        return UTC


def _word(letters: bytes) -> int:
    return int.from_bytes(letters.ljust(8, b"\0"), "little", signed=True)


def _parsed_or_none(parse: Parser, text: str) -> Any:
    try:
        return parse(text)
    except RefusedValue:
        return None
