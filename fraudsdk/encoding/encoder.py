"""
The border: whatever a host or a table sends becomes rows of two fixed-width arrays (`fraudsdk.domain.fields`).

Each takes its own road to the same bits::

    mapping ── read_native, or prepare ──> Transaction ── encode ──┐
                                                                   ├──> ints int64[n, n_ints],
    table ──── encode_table, encode_columns ───────────────────────┘    numbers float64[n, n_numbers]

Card numbers become tokens and identifiers become keyed hashes here; neither is kept as text in an encoded row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS, MAX_AMOUNT_MINOR, convert_minor, parse_rate
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import (
    FIELD_PARSERS,
    MAPPING_FIELDS,
    Transaction,
    TransactionReader,
    TransactionType,
    check_custom_names,
    checked_currency,
    parse_direction,
)
from fraudsdk.domain.values import (
    NAN,
    Parser,
    parse_card_id,
    parse_custom_category,
    parse_quantity,
)
from fraudsdk.encoding import mapping_kernels
from fraudsdk.encoding.columns import (
    ColumnValues,
)
from fraudsdk.encoding.hashing import Hasher, checked_key, keyed_hasher, pan_token
from fraudsdk.encoding.program import TYPE_FLAGS, Program
from fraudsdk.encoding.table_encoder import (
    LABEL_NEVER,
    LABEL_UNKNOWN,
    TIME_UNITS,
    EncodedTransactions,
    TableEncoder,
)
from fraudsdk.encoding.tables import OfSchema, native_columns_of, ways_of
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

__all__ = ["LABEL_NEVER", "LABEL_UNKNOWN", "TIME_UNITS", "EncodedTransactions", "Encoder"]

_IDS: Final = ("transaction_id", "original_transaction_id")
_MAPPINGS_AT_ONCE: Final = 2048  # about a millisecond with the GIL held


class Encoder:
    """
    Turns transactions and tables into encoded rows of one layout.

    Safe to share between threads.  Keeps nothing of what it encodes but the schema of the last table.

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
        self._fields = (MAPPING_FIELDS - {"custom"}) | self._custom.keys()
        self._prepare_packing()
        self._native = self._native_program(key)
        self._program = None if self._native is None else self._native.words
        self._ways_of = OfSchema(ways_of)
        self._tables = TableEncoder(
            layout,
            hashers={**self._hashers, **dict.fromkeys(_IDS, self._hash_transaction)},
            codes=self._codes,
            parsers={
                **FIELD_PARSERS,
                **self._custom,
                "direction": parse_direction,
                "card_id": partial(parse_card_id, tokenise=self._tokenise),
            },
            tokenise=self._tokenise,
            currency=self.currency,
            in_reference=self._in_reference,
            program=self._native,
        )

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
        return self._tables.encode(columns)

    def encode_table(self, table: Any) -> EncodedTransactions:
        """
        Encode an Arrow table or record batch without a Python object per value; the same bits as `encode_columns`.

        Parameters
        ----------
        table : pyarrow.Table or RecordBatch
            Columns as for `encode_columns`; a timestamp without a zone is UTC.

        Raises
        ------
        InvalidTransactionError
            Names the column and the row.
        ConfigurationError
            Two columns have one name.
        """
        return self._tables.encode(native_columns_of(table, self._ways_of(table)))

    def knows_columns(self, names: Iterable[str]) -> bool:
        """
        Whether a table of these columns means, as a table, what its rows mean one by one.

        `encode_table` does not read a column that is no field, where `prepare` refuses such a field; and it takes one column
        of amounts and one of times, where rows may use several, each one of them.
        """
        given = set(names)
        alternatives = ({"amount", "amount_minor"}, {f"event_time{suffix}" for suffix in TIME_UNITS})
        return given <= self._fields and all(len(given & ways) == 1 for ways in alternatives)

    def encode_mappings(self, mappings: Sequence[Transaction | Mapping[str, Any]]) -> EncodedTransactions:
        """
        Encode transactions as hosts send them; the same bits as `prepare` and `encode` one by one.

        Raises
        ------
        InvalidTransactionError
            Names the first row that is wrong.
        """
        own: list[Any] = list(mappings)  # another thread may shorten the caller's
        ints, numbers = self.empty(len(own))
        statuses = np.full(len(own), mapping_kernels.FOR_PYTHON, np.uint8)
        if self._program is not None:
            for first in range(0, len(own), _MAPPINGS_AT_ONCE):
                end = min(first + _MAPPINGS_AT_ONCE, len(own))
                mapping_kernels.encode_mappings(id(own), first, end, self._program, ints, numbers, statuses)
        transaction_ids = np.empty(len(own), object)
        for row, status in enumerate(statuses.tolist()):
            if status == mapping_kernels.WRITTEN:
                transaction_ids[row] = str(own[row]["transaction_id"])
            else:
                try:
                    prepared = self.prepare(own[row])
                    self.encode(prepared, ints, numbers, row)
                except InvalidTransactionError as error:
                    raise error.in_row(row) from None
                transaction_ids[row] = prepared.transaction_id
        amount_minor = ints[:, fields.AMOUNT_MINOR]
        amount_major = np.where(amount_minor >= 0, amount_minor / self._minor_per_major, np.nan)
        return EncodedTransactions(transaction_ids, ints, numbers, amount_major)

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


def _flags_of(transaction: Transaction) -> int:
    kind = transaction.type
    flags = fields.AUTHORISATION if kind is TransactionType.AUTHORISATION else TYPE_FLAGS[kind]
    if transaction.credit:
        flags |= fields.CREDIT
    if transaction.declined:
        flags |= fields.DECLINED
    if transaction.card_present is not None:
        flags |= fields.CARD_PRESENT if transaction.card_present else fields.CARD_NOT_PRESENT
    return flags
