"""
The border: whatever a host or a table sends becomes rows of two fixed-width arrays (`fraudsdk.domain.fields`).

One transaction and a table take different roads to the same bits::

    mapping ── prepare ──> Transaction ── encode ──┐
                                                   ├──> ints int64[n, n_ints], numbers float64[n, n_numbers]
    table ─────────── encode_columns ──────────────┘

Card numbers become tokens and identifiers become keyed hashes here; neither is kept as text in an encoded row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from operator import attrgetter
from struct import Struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk._cpython import LAYOUT_IS_KNOWN
from fraudsdk._jit import warm_up
from fraudsdk.domain import fields
from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.fields import CATEGORIES, FIRST_IDENTIFIER, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS, MAX_AMOUNT_MINOR, convert_minor, parse_rate
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import (
    ENTITY_FIELDS,
    FIELD_PARSERS,
    Transaction,
    TransactionReader,
    TransactionType,
    check_custom_names,
    checked_currency,
    parse_direction,
    parse_type,
)
from fraudsdk.domain.values import (
    NAN,
    Parser,
    parse_card_id,
    parse_custom_category,
    parse_flag,
    parse_pan,
    parse_quantity,
)
from fraudsdk.encoding import mapping_kernels
from fraudsdk.encoding.columns import (
    NO_TIME,
    ColumnValues,
    Parsed,
    invalid,
    parse_amounts,
    parse_distinct,
    parse_each,
    parse_minor_amounts,
    parse_numbers,
    parse_optional,
    parse_times,
)
from fraudsdk.encoding.hashing import Hasher, checked_key, keyed_hasher, pan_token
from fraudsdk.encoding.program import Program
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

LABEL_UNKNOWN: Final = -1
LABEL_NEVER: Final = 2**63 - 1  # when an unknown label will be known

TIME_UNITS: Final = {"": None, "_us": "us", "_ms": "ms", "_s": "s"}
TYPE_FLAGS: Final = {
    TransactionType.AUTHORISATION.value: fields.AUTHORISATION,
    TransactionType.REVERSAL.value: fields.REVERSAL,
    TransactionType.REFUND.value: fields.REFUND,
    TransactionType.CHARGEBACK.value: fields.CHARGEBACK,
}


@dataclass(frozen=True, slots=True)
class EncodedTransactions:
    """
    A table, encoded, in its own row order.

    Attributes
    ----------
    transaction_ids : object[n]
        Text, as the table had it.
    ints : int64[n, n_ints], C-contiguous
        See `fraudsdk.domain.fields`.
    numbers : float64[n, n_numbers], C-contiguous
        See `fraudsdk.domain.fields`.
    amount_major : float64[n]
        Amount in major units of the reference currency; NaN where no rate was declared.
    labels : int8[n] or None
        1 fraud, 0 not, -1 unknown; None where the table has no ``is_fraud``.
    label_time_us : int64[n] or None
        When the label is known; `LABEL_NEVER` where the row has no time; None where the table has no ``label_time``.
    """

    transaction_ids: NDArray[np.object_]
    ints: NDArray[np.int64]
    numbers: NDArray[np.float64]
    amount_major: NDArray[np.float64]
    labels: NDArray[np.int8] | None = None
    label_time_us: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ints)

    def take(self, order: NDArray[np.intp] | NDArray[np.bool_] | slice) -> EncodedTransactions:
        """The rows at `order` (positions, a mask or a slice), in that order."""
        return EncodedTransactions(
            self.transaction_ids[order],
            np.ascontiguousarray(self.ints[order]),
            np.ascontiguousarray(self.numbers[order]),
            self.amount_major[order],
            None if self.labels is None else self.labels[order],
            None if self.label_time_us is None else self.label_time_us[order],
        )


class Encoder:
    """
    Turns transactions and tables into encoded rows of one layout.

    Safe to share between threads.  Keeps nothing of what it encodes.

    Parameters
    ----------
    layout : RecordLayout
        Which fields a row carries.
    key : bytes
        Secret of at least 16 bytes for hashes and tokens.  State and models do not need it; comparing identifiers with
        other systems does.
    vocabulary : Vocabulary
        Codes of the categories among ``layout.numbers``.
    currency : str
        Reference currency: that of amounts that name none, and of every encoded amount.
    rates : Mapping of str to Decimal or str
        Currency -> major units of the reference currency that one major unit of it is worth.  An amount in a currency
        without a rate is encoded as unknown.

    Raises
    ------
    ConfigurationError
        The layout names unknown fields, the key is short, or a currency or rate is none.

    Examples
    --------
    >>> layout = RecordLayout(identifiers=("user_id",), numbers=("amount",))
    >>> encoder = Encoder(layout, key=b"sixteen byte key", vocabulary=Vocabulary(), currency="GBP")
    >>> ints, numbers = encoder.empty(1)
    >>> encoder.encode(encoder.prepare({"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50",
    ...     "event_time": "2026-11-23T10:00:00Z"}), ints, numbers)
    >>> numbers.tolist()
    [[12.5]]
    """

    def __init__(
        self,
        layout: RecordLayout,
        *,
        key: bytes,
        vocabulary: Vocabulary,
        currency: str,
        rates: Mapping[str, Decimal | str] | None = None,
    ) -> None:
        warm_up("fraudsdk.encoding.")  # an encoder that exists compiles nothing any more
        _check_layout(layout)
        self.layout = layout
        self.vocabulary = vocabulary
        self.currency = checked_currency(currency) or _refuse_no_currency()
        self._factors = _factors(self.currency, rates or {})
        self._minor_per_major = float(10 ** CURRENCY_EXPONENTS[self.currency])
        self._tokenise = partial(pan_token, key=checked_key(key))
        self._reader = TransactionReader(
            layout.custom_numbers, layout.custom_categories, self.currency, tokenise=self._tokenise
        )
        self._hash_transaction = keyed_hasher("transaction_id", key)
        self._hashers = {name: keyed_hasher(name, key) for name in layout.identifiers}
        self._codes: dict[str, dict[str | None, float]] = {
            name: {None: NAN} | vocabulary.codes(name) for name in (*CATEGORIES, *layout.custom_categories)
        }
        self._custom: dict[str, Parser] = {
            **dict.fromkeys(layout.custom_numbers, parse_quantity),
            **dict.fromkeys(layout.custom_categories, parse_custom_category),
        }
        self._prepare_packing()
        self._native = self._native_program(key)
        self._program = None if self._native is None else self._native.words

    def prepare(self, transaction: Transaction | Mapping[str, Any]) -> Transaction:
        """
        Check what a host sent; a `Transaction` was checked when it was made and is returned as it is.

        Raises
        ------
        InvalidTransactionError
            A field is wrong, missing or unknown, or the amount too large in the reference currency.
        """
        if isinstance(transaction, Transaction):
            prepared = self._completed(transaction)
        else:
            prepared = self._reader.read(transaction)
        if prepared.currency is not None and prepared.currency != self.currency:
            self._in_reference(prepared.amount_minor, prepared.currency)
        return prepared

    def _completed(self, transaction: Transaction) -> Transaction:
        """What a `Transaction` made directly cannot know: the reference currency, and which custom fields there are."""
        for name, value in transaction.custom.items():
            if name not in self._custom:
                raise InvalidTransactionError(
                    name, "is no custom field of the feature set", "declare it, or leave it out"
                )
            try:
                self._custom[name](value)
            except RefusedValue as refused:
                raise InvalidTransactionError(name, refused.problem, refused.remedy) from None
        return transaction if transaction.currency is not None else replace(transaction, currency=self.currency)

    def transaction_key(self, transaction_id: str) -> int:
        """Key under which the memory knows a transaction."""
        return self._hash_transaction(transaction_id)

    def amount_major(self, transaction: Transaction) -> float:
        """Amount in major units of the reference currency; NaN where no rate was declared."""
        currency, amount_minor = transaction.currency, transaction.amount_minor
        if currency is not None and currency != self.currency:
            amount_minor = self._in_reference(amount_minor, currency)
        return amount_minor / self._minor_per_major if amount_minor >= 0 else NAN

    def empty(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Arrays for `n` encoded rows: ``ints`` of zeros and ``numbers`` of NaN."""
        return np.zeros((n, self.layout.n_ints), np.int64), np.full((n, len(self.layout.numbers)), np.nan)

    def encode(
        self, transaction: Transaction, ints: NDArray[np.int64], numbers: NDArray[np.float64], row: int = 0
    ) -> None:
        """
        Write one transaction into one row of arrays that the caller owns.

        Parameters
        ----------
        transaction : Transaction
            From `prepare`.
        ints : int64[n, layout.n_ints], C-contiguous
        numbers : float64[n, len(layout.numbers)], C-contiguous
            Written as raw bytes: an array of another dtype would be filled with nonsense.
        row : int
            Which row to write.

        Raises
        ------
        InvalidTransactionError
            The amount is too large in the reference currency.
        """
        amount_minor = transaction.amount_minor
        currency = transaction.currency
        if currency is not None and currency != self.currency:
            amount_minor = self._in_reference(amount_minor, currency)
        original_id = transaction.original_transaction_id
        hash_transaction = self._hash_transaction
        self._pack_ints(
            ints,
            row * self._ints_bytes,
            transaction.event_time_us,
            amount_minor,
            _flags_of(transaction),
            hash_transaction(transaction.transaction_id),
            0 if original_id is None else hash_transaction(original_id),
            *[hasher(text) for hasher, text in zip(self._row_hashers, self._identifiers_of(transaction), strict=True)],
        )
        values = list(self._numbers_of(transaction))
        for position, lookup in self._lookups:
            values[position] = lookup(values[position], 0.0)
        for position in self._amount_positions:
            values[position] = amount_minor / self._minor_per_major if amount_minor >= 0 else NAN
        self._pack_numbers(numbers, row * self._numbers_bytes, *values)

    @property
    def program(self) -> NDArray[np.int64] | None:
        """
        What `fraudsdk.encoding.mapping_kernels.read_mapping` reads by, for kernels that call it.

        None where the native road is closed: the interpreter keeps its objects in another way, or the layout names a field
        twice.  It is good for as long as the encoder lives, and one call at a time: hold the GIL.
        """
        return self._program

    def read_native(
        self, mapping: Mapping[str, Any], ints: NDArray[np.int64], numbers: NDArray[np.float64], row: int = 0
    ) -> bool:
        """
        `prepare` and `encode` in one native call, if every value is spelt in an everyday way.

        Parameters
        ----------
        mapping : Mapping of str to Any
            Only a plain `dict` is read natively.
        ints, numbers : array
            As for `encode`.
        row : int
            Which row to write.

        Returns
        -------
        bool
            True: the row holds the very bits that `prepare` and `encode` would have written.  False: something is not
            everyday, which may be a mistake; ask `prepare`.  The row then holds anything.

        Raises
        ------
        ValueError
            The arrays are of another layout, or have no such row.

        Examples
        --------
        >>> encoder = Encoder(RecordLayout((), ("amount",)), key=b"sixteen byte key", vocabulary=Vocabulary(), currency="GBP")
        >>> ints, numbers = encoder.empty(1)
        >>> encoder.read_native({"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50",
        ...     "event_time": "2026-11-23T10:00:00Z"}, ints, numbers), numbers.tolist()
        (True, [[12.5]])
        """
        if self._program is None:
            return False
        status = mapping_kernels.encode_mapping(id(mapping), self._program, ints, numbers, row)
        if status == mapping_kernels.NO_SUCH_ROW:
            raise ValueError(f"row {row} of these arrays cannot be written; make them with Encoder.empty")
        return bool(status == mapping_kernels.WRITTEN)

    def encode_columns(self, columns: Mapping[str, ColumnValues]) -> EncodedTransactions:
        """
        Encode a table; the same bits as `prepare` and `encode` row by row.

        Parameters
        ----------
        columns : Mapping of str to array or sequence
            Canonical columns, as a mapping for `prepare` names them, and optionally ``is_fraud`` and ``label_time`` (or
            ``label_time_us``, ``_ms``, ``_s``).  Missing is None, NaN or NaT; ``datetime64`` is UTC.  Other columns are
            not read.

        Raises
        ------
        InvalidTransactionError
            Names the column and the row.
        """
        _check_columns(columns)
        n = len(columns["transaction_id"])
        ints, numbers = self.empty(n)
        ids = parse_each("transaction_id", columns["transaction_id"], FIELD_PARSERS["transaction_id"])
        if None in ids:
            raise invalid("transaction_id", RefusedValue("is missing", "send the host's own id"), ids.index(None))
        amount_minor, currencies = self._amount_columns(columns, n)
        ints[:, fields.EVENT_TIME_US] = _event_times(columns)
        ints[:, fields.AMOUNT_MINOR] = amount_minor
        ints[:, fields.FLAGS], needs_original = _flag_columns(columns, n)
        ints[:, fields.TRANSACTION_KEY] = [self._hash_transaction(text) for text in ids]
        ints[:, fields.ORIGINAL_KEY] = self._original_column(columns, needs_original, ints[:, fields.TRANSACTION_KEY])
        amount_major = np.where(amount_minor >= 0, amount_minor / self._minor_per_major, np.nan)
        self._write_texts(columns, currencies, ints, numbers)
        self._write_numbers(columns, amount_major, numbers)
        transaction_ids = np.empty(n, object)
        transaction_ids[:] = ids
        return EncodedTransactions(
            transaction_ids, ints, numbers, amount_major, _labels(columns), _label_times(columns)
        )

    def _native_program(self, key: bytes) -> Program | None:
        is_written_once = all(len(set(names)) == len(names) for names in (self.layout.identifiers, self.layout.numbers))
        if not (LAYOUT_IS_KNOWN and is_written_once):
            return None
        return Program(self.layout, key=key, vocabulary=self.vocabulary, currency=self.currency, factors=self._factors)

    def _prepare_packing(self) -> None:
        # Packing 15 columns at once takes 0.35 us; through a memoryview element by element or by assigning the row 0.7 us,
        # through numpy element by element 1.5 us.
        layout = self.layout
        custom = (*layout.custom_numbers, *layout.custom_categories)
        self._identifiers_of = _getter(tuple("custom" if name in custom else name for name in layout.identifiers))
        self._row_hashers: tuple[Callable[[Any], int], ...] = tuple(
            _hasher_of_bag(name, self._hashers[name]) if name in custom else self._hashers[name]
            for name in layout.identifiers
        )
        attributes = {"amount": "amount_minor", **dict.fromkeys(custom, "custom")}
        self._numbers_of = _getter(tuple(attributes.get(name, name) for name in layout.numbers))
        self._amount_positions = tuple(i for i, name in enumerate(layout.numbers) if name == "amount")
        self._lookups = tuple(
            (position, lookup)
            for position, name in enumerate(layout.numbers)
            if (lookup := self._lookup_of(name)) is not None
        )
        ints_struct, numbers_struct = Struct(f"={layout.n_ints}q"), Struct(f"={len(layout.numbers)}d")
        self._pack_ints: Callable[..., None] = ints_struct.pack_into
        self._pack_numbers: Callable[..., None] = numbers_struct.pack_into
        self._ints_bytes, self._numbers_bytes = ints_struct.size, numbers_struct.size

    def _lookup_of(self, name: str) -> Callable[[Any, float], float] | None:
        """How the attribute behind a number column becomes a float; None where it is one."""
        if name in self.layout.custom_numbers:
            return lambda bag, _: bag.get(name, NAN)
        if name in self.layout.custom_categories:
            codes = self._codes[name]
            return lambda bag, unknown: codes.get(bag.get(name), unknown)
        if name in CATEGORIES:
            return self._codes[name].get
        if name == "card_present":
            return {None: NAN, False: 0.0, True: 1.0}.get
        return None

    def _in_reference(self, amount_minor: int, currency: str) -> int:
        factor = self._factors.get(currency)
        if factor is None:
            return fields.AMOUNT_UNKNOWN
        converted = convert_minor(amount_minor, *factor)
        if converted > MAX_AMOUNT_MINOR:
            raise InvalidTransactionError(
                "amount",
                f"must be at most {MAX_AMOUNT_MINOR} minor units of {self.currency}",
                "check the unit and the rate",
            )
        return converted

    def _amount_columns(self, columns: Mapping[str, ColumnValues], n: int) -> tuple[NDArray[np.int64], Parsed]:
        currencies = parse_optional("currency", columns, FIELD_PARSERS["currency"], n)
        currencies = Parsed([currency or self.currency for currency in currencies.values], currencies.index)
        if "amount" in columns:
            minor = parse_amounts(columns["amount"], currencies)
        else:
            minor = parse_minor_amounts(columns["amount_minor"])
        for place, currency in enumerate(currencies.values):
            if currency != self.currency:
                rows = np.flatnonzero(currencies.index == place)
                minor[rows] = self._convert_rows(minor[rows].tolist(), currency, rows)
        return minor, currencies

    def _convert_rows(self, minor: list[int], currency: str, rows: NDArray[np.intp]) -> list[int]:
        converted: list[int] = []
        try:
            for amount_minor in minor:
                converted.append(self._in_reference(amount_minor, currency))  # noqa: PERF401, the length names the row
            return converted
        except InvalidTransactionError as error:
            refused = RefusedValue(error.problem, error.remedy)
        raise invalid("amount", refused, int(rows[len(converted)]))

    def _original_column(
        self, columns: Mapping[str, ColumnValues], needed: NDArray[np.bool_], transaction_keys: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        name = "original_transaction_id"
        originals = parse_optional(name, columns, FIELD_PARSERS[name], len(needed))
        lacking = needed & ~originals.known()
        if lacking.any():
            refused = RefusedValue("is missing from a reversal or chargeback", "send the id of what it undoes")
            raise invalid(name, refused, int(np.argmax(lacking)))
        keys = originals.spread(lambda text: 0 if text is None else self._hash_transaction(text), np.int64)
        itself = keys == transaction_keys
        if itself.any():
            refused = RefusedValue("is the transaction's own id", "send what undoes it under an id of its own")
            raise invalid(name, refused, int(np.argmax(itself)))
        return keys

    def _write_texts(
        self,
        columns: Mapping[str, ColumnValues],
        currencies: Parsed,
        ints: NDArray[np.int64],
        numbers: NDArray[np.float64],
    ) -> None:
        any_entity = np.zeros(len(ints), np.bool_)
        for name in (*IDENTIFIERS, *CATEGORIES, *self.layout.custom_categories):
            parsed = currencies if name == "currency" else self._text_column(name, columns)
            if parsed is None:
                continue
            if name in ENTITY_FIELDS:
                any_entity |= parsed.known()
            for position, identifier in enumerate(self.layout.identifiers):
                if identifier == name:
                    ints[:, FIRST_IDENTIFIER + position] = parsed.spread(self._hashers[name], np.int64)
            for position, number in enumerate(self.layout.numbers):
                if number == name:
                    numbers[:, position] = parsed.spread(_coder(self._codes[name]), np.float64)
        if not any_entity.all():
            refused = RefusedValue("is missing", f"send at least one of {', '.join(ENTITY_FIELDS)}")
            raise invalid("user_id", refused, int(np.argmin(any_entity)))

    def _text_column(self, name: str, columns: Mapping[str, ColumnValues]) -> Parsed | None:
        if name == "card_id":
            return self._card_column(columns)
        if name not in columns:
            return None
        return parse_distinct(name, columns[name], self._custom.get(name) or FIELD_PARSERS[name])

    def _card_column(self, columns: Mapping[str, ColumnValues]) -> Parsed | None:
        tokens = None
        if "pan" in columns:
            tokens = parse_distinct("pan", columns["pan"], partial(parse_pan, tokenise=self._tokenise))
        if "card_id" not in columns:
            return tokens
        cards = parse_distinct("card_id", columns["card_id"], partial(parse_card_id, tokenise=self._tokenise))
        if tokens is None:
            return cards
        both = cards.known() & tokens.known()
        if both.any():
            refused = RefusedValue(
                "is given together with card_id", "send one of them: the token of pan becomes card_id"
            )
            raise invalid("pan", refused, int(np.argmax(both)))
        index = np.where(tokens.known(), tokens.index, len(tokens.values) + cards.index)
        return Parsed([*tokens.values, *cards.values], index)

    def _write_numbers(
        self, columns: Mapping[str, ColumnValues], amount_major: NDArray[np.float64], numbers: NDArray[np.float64]
    ) -> None:
        for name in (*NUMBERS, *self.layout.custom_numbers):
            if name == "amount":
                column = amount_major
            elif name not in columns:
                continue
            elif name == "card_present":
                flags = parse_distinct(name, columns[name], parse_flag)
                column = flags.spread(lambda flag: NAN if flag is None else float(flag), np.float64)
            else:
                column = parse_numbers(name, columns[name], self._custom.get(name) or FIELD_PARSERS[name])
            for position, number in enumerate(self.layout.numbers):
                if number == name:
                    numbers[:, position] = column


def _check_layout(layout: RecordLayout) -> None:
    check_custom_names(layout.custom_numbers, layout.custom_categories)
    texts = {*IDENTIFIERS, *CATEGORIES, *layout.custom_categories}
    values = {*NUMBERS, *CATEGORIES, *layout.custom_numbers, *layout.custom_categories}
    for kind, names, known in (("identifiers", layout.identifiers, texts), ("numbers", layout.numbers, values)):
        for name in names:
            if name not in known:
                raise ConfigurationError(f"layout.{kind} names {name!r}, which is no such field; use {sorted(known)}")


def _refuse_no_currency() -> str:
    raise ConfigurationError('currency is missing; name the reference currency, such as "EUR"')


def _factors(reference: str, rates: Mapping[str, Decimal | str]) -> dict[str, tuple[int, int]]:
    """Currency -> (numerator, denominator) from its minor units to those of the reference currency."""
    factors = {}
    for name, rate in rates.items():
        currency = checked_currency(name)
        if currency is None or currency == reference:
            raise ConfigurationError(f"rates name {name!r}; name other currencies than the reference, {reference}")
        try:
            factor = parse_rate(rate) * 10 ** CURRENCY_EXPONENTS[reference] / 10 ** CURRENCY_EXPONENTS[currency]
        except RefusedValue as refused:
            raise ConfigurationError(f"rate of {currency} {refused.problem}; {refused.remedy}") from None
        factors[currency] = (factor.numerator, factor.denominator)
    return factors


def _getter(names: tuple[str, ...]) -> Callable[[Transaction], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda transaction: tuple(getattr(transaction, name) for name in names)


def _hasher_of_bag(name: str, hasher: Hasher) -> Callable[[Mapping[str, Any]], int]:
    return lambda bag: hasher(bag.get(name))


def _coder(codes: Mapping[str | None, float]) -> Callable[[str | None], float]:
    return lambda text: codes.get(text, 0.0)


def _flags_of(transaction: Transaction) -> int:
    kind = transaction.type
    flags = fields.AUTHORISATION if kind is TransactionType.AUTHORISATION else TYPE_FLAGS[kind.value]
    if transaction.credit:
        flags |= fields.CREDIT
    if transaction.declined:
        flags |= fields.DECLINED
    if transaction.card_present is not None:
        flags |= fields.CARD_PRESENT if transaction.card_present else fields.CARD_NOT_PRESENT
    return flags


def _flag_columns(columns: Mapping[str, ColumnValues], n: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """FLAGS of each row, and whether its type needs an original transaction."""
    presence = {None: 0, True: fields.CARD_PRESENT, False: fields.CARD_NOT_PRESENT}
    kinds = parse_optional("type", columns, parse_type, n)
    flags = kinds.spread(lambda kind: TYPE_FLAGS[kind.value] if kind else fields.AUTHORISATION, np.int64)
    credit = parse_optional("direction", columns, parse_direction, n)
    flags |= credit.spread(lambda is_credit: fields.CREDIT if is_credit else 0, np.int64)
    declined = parse_optional("declined", columns, parse_flag, n)
    flags |= declined.spread(lambda is_declined: fields.DECLINED if is_declined else 0, np.int64)
    present = parse_optional("card_present", columns, parse_flag, n)
    flags |= present.spread(presence.__getitem__, np.int64)
    return flags, (flags & (fields.REVERSAL | fields.CHARGEBACK)) != 0


def _check_columns(columns: Mapping[str, ColumnValues]) -> None:
    if "transaction_id" not in columns:
        raise invalid("transaction_id", RefusedValue("is missing", "map a column to it, or have it generated"), None)
    if ("amount" in columns) == ("amount_minor" in columns):
        problem = "is given twice" if "amount" in columns else "is missing"
        raise invalid("amount", RefusedValue(problem, "send one of the columns amount and amount_minor"), None)
    n = len(columns["transaction_id"])
    for name, column in columns.items():
        if is_sensitive_name(name):
            raise invalid(
                name, RefusedValue("must never be sent: it is card verification, PIN or track data", "drop it"), None
            )
        if len(column) != n or getattr(column, "ndim", 1) != 1:
            raise invalid(
                name, RefusedValue(f"has {len(column)} rows where transaction_id has {n}", "send one value a row"), None
            )


def _times(columns: Mapping[str, ColumnValues], field: str) -> NDArray[np.int64] | None:
    given = [(field + suffix, unit) for suffix, unit in TIME_UNITS.items() if field + suffix in columns]
    if not given:
        return None
    if len(given) > 1:
        names = " and ".join(name for name, _ in given)
        raise invalid(field, RefusedValue(f"is given twice, as {names}", "send one of them"), None)
    return parse_times(given[0][0], columns[given[0][0]], given[0][1])


def _event_times(columns: Mapping[str, ColumnValues]) -> NDArray[np.int64]:
    times = _times(columns, "event_time")
    missing = RefusedValue("is missing", "send event_time, event_time_s, event_time_ms or event_time_us")
    if times is None:
        raise invalid("event_time", missing, None)
    if (times == NO_TIME).any():
        raise invalid("event_time", missing, int(np.argmax(times == NO_TIME)))
    return times


def _labels(columns: Mapping[str, ColumnValues]) -> NDArray[np.int8] | None:
    if "is_fraud" not in columns:
        return None
    flags = parse_distinct("is_fraud", columns["is_fraud"], parse_flag)
    return flags.spread(lambda flag: LABEL_UNKNOWN if flag is None else int(flag), np.int8)


def _label_times(columns: Mapping[str, ColumnValues]) -> NDArray[np.int64] | None:
    times = _times(columns, "label_time")
    return None if times is None else np.where(times == NO_TIME, LABEL_NEVER, times)
