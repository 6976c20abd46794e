"""
Tables become encoded rows, column by column.

Each column goes through a kernel if it is stored as one knows; the rows that the kernel leaves, and the columns that none
knows, are parsed value by value, each distinct one once.  So a table and its rows one by one give the same bits and errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain import fields
from fraudsdk.domain.card_number import is_sensitive_name
from fraudsdk.domain.fields import CATEGORIES, FIRST_IDENTIFIER, IDENTIFIERS, NUMBERS, RecordLayout
from fraudsdk.domain.money import CURRENCY_EXPONENTS
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import ENTITY_FIELDS
from fraudsdk.domain.values import NAN, Parser, parse_flag, parse_pan
from fraudsdk.encoding.column_kernels import ABSENT, READ, write_flags
from fraudsdk.encoding.columns import (
    NO_TIME,
    ColumnValues,
    Parsed,
    as_list,
    invalid,
    parse_amounts,
    parse_distinct,
    parse_minor_amounts,
    parse_numbers,
    parse_pairs,
    parse_times,
    values_at,
)
from fraudsdk.encoding.hashing import Hasher
from fraudsdk.encoding.native_columns import Cells, NativeColumns, rows_for_python
from fraudsdk.encoding.program import CURRENCIES, TYPE_FLAGS, Program
from fraudsdk.encoding.text_column import TextColumn
from fraudsdk.errors import InvalidTransactionError

LABEL_UNKNOWN: Final = -1
LABEL_NEVER: Final = 2**63 - 1  # when an unknown label will be known

TIME_UNITS: Final = {"": None, "_us": "us", "_ms": "ms", "_s": "s"}

_NO_ROWS: Final = np.empty(0, np.intp)
_NOTHING: Final = Parsed([], _NO_ROWS)
_CURRENCY_INDEX: Final = {code: index for index, code in enumerate(CURRENCIES)}
_Columns = Mapping[str, ColumnValues]


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


class TableEncoder:
    """
    The tables of one `Encoder`, which says what the parameters are.

    Parameters
    ----------
    layout : RecordLayout
    hashers : Mapping of str to Hasher
        Of the identifiers of the layout and of both transaction ids.
    codes : Mapping of str to Mapping
        Code of each known value of each category.
    parsers : Mapping of str to Parser
    tokenise : callable
        Token of the digits of a card number.
    currency : str
    in_reference : callable
        Minor units of the reference currency out of minor units and their currency.
    program : Program or None
        None where the native road is closed.
    """

    def __init__(
        self,
        layout: RecordLayout,
        *,
        hashers: Mapping[str, Hasher],
        codes: Mapping[str, Mapping[str | None, float]],
        parsers: Mapping[str, Parser],
        tokenise: Callable[[str], str],
        currency: str,
        in_reference: Callable[[int, str], int],
        program: Program | None,
    ) -> None:
        self._layout = layout
        self._hashers = hashers
        self._codes = codes
        self._parsers = parsers
        self._tokenise = tokenise
        self._currency = currency
        self._minor_per_major = float(10 ** CURRENCY_EXPONENTS[currency])
        self._in_reference = in_reference
        self._native = None if program is None else NativeColumns(program)
        self._texts = (*IDENTIFIERS, *(name for name in CATEGORIES if name != "currency"), *layout.custom_categories)
        self._ints_of: dict[str, list[int]] = {
            "transaction_id": [fields.TRANSACTION_KEY],
            "original_transaction_id": [fields.ORIGINAL_KEY],
        }
        for position, name in enumerate(layout.identifiers):
            self._ints_of.setdefault(name, []).append(FIRST_IDENTIFIER + position)
        self._numbers_of: dict[str, list[int]] = {}
        for position, name in enumerate(layout.numbers):
            self._numbers_of.setdefault(name, []).append(position)

    def encode(self, columns: _Columns) -> EncodedTransactions:
        """See `Encoder.encode_columns`."""
        columns = _held(columns)
        _check_columns(columns, self._parsers)
        n = len(columns["transaction_id"])
        ints = np.zeros((n, self._layout.n_ints), np.int64)
        numbers = np.full((n, len(self._layout.numbers)), np.nan)
        table = _Table(columns, ints, numbers)
        transaction_ids = self._write_transaction_ids(table)
        currencies = self._write_currencies(table)
        amount_minor = self._amounts(table, currencies)
        ints[:, fields.EVENT_TIME_US] = self._event_times(columns)
        ints[:, fields.AMOUNT_MINOR] = amount_minor
        self._write_flags(table)
        self._write_originals(table)
        self._write_texts(table)
        amount_major = np.where(amount_minor >= 0, amount_minor / self._minor_per_major, np.nan)
        self._write_numbers(table, amount_major)
        return EncodedTransactions(
            transaction_ids, ints, numbers, amount_major, self._labels(columns), self._label_times(columns)
        )

    def _read(self, table: _Table, name: str, meaning_of: Callable[[Any], int] | None = None) -> _Read:
        """Read one text column into its places; what the kernel leaves, and `meaning_of` it, by its parser."""
        n = len(table.ints)
        if name not in table.columns:
            return _Read(Cells.absent(n))
        column = table.columns[name]
        if self._native is None:
            cells = Cells.unread(n)
        else:
            cells = self._native.read_texts(name, column, table.ints, table.numbers)
        rows = rows_for_python(cells.statuses)
        if not len(rows):
            return _Read(cells)
        parsed = parse_distinct(name, values_at(column, rows), self._parsers[name], rows)
        cells.statuses[rows] = np.where(parsed.known(), READ, ABSENT)
        if meaning_of is not None:
            cells.meanings[rows] = parsed.spread(lambda value: 0 if value is None else meaning_of(value), np.int64)
        self._write_parsed(table, name, rows, parsed)
        return _Read(cells, rows, parsed)

    def _write_parsed(self, table: _Table, name: str, rows: NDArray[np.intp], parsed: Parsed) -> None:
        for position in self._ints_of.get(name, ()):
            table.ints[rows, position] = parsed.spread(self._hashers[name], np.int64)
        for position in self._numbers_of.get(name, ()):
            table.numbers[rows, position] = parsed.spread(_coder(self._codes[name]), np.float64)

    def _write_transaction_ids(self, table: _Table) -> NDArray[np.object_]:
        read = self._read(table, "transaction_id")
        if read.cells.has_gaps:
            refused = RefusedValue("is missing", "send the host's own id")
            raise invalid("transaction_id", refused, int(np.argmin(read.cells.known)))
        texts = _texts_of(table.columns["transaction_id"])
        if len(read.rows):
            texts[read.rows] = read.parsed.spread(lambda text: text, object)
        return texts

    def _write_currencies(self, table: _Table) -> NDArray[np.int64]:
        """Which currency each row has, as its index; the reference currency where it names none."""
        cells = self._read(table, "currency", _CURRENCY_INDEX.__getitem__).cells
        if cells.has_gaps:
            unnamed = np.flatnonzero(~cells.known)
            cells.meanings[unnamed] = _CURRENCY_INDEX[self._currency]
            self._write_parsed(table, "currency", unnamed, Parsed([self._currency], np.zeros(len(unnamed), np.intp)))
        return cells.meanings

    def _write_originals(self, table: _Table) -> None:
        name = "original_transaction_id"
        known = self._read(table, name).cells.known
        needed = (table.ints[:, fields.FLAGS] & (fields.REVERSAL | fields.CHARGEBACK)) != 0
        lacking = needed & ~known
        if lacking.any():
            refused = RefusedValue("is missing from a reversal or chargeback", "send the id of what it undoes")
            raise invalid(name, refused, int(np.argmax(lacking)))
        itself = table.ints[:, fields.ORIGINAL_KEY] == table.ints[:, fields.TRANSACTION_KEY]
        if itself.any():
            refused = RefusedValue("is the transaction's own id", "send what undoes it under an id of its own")
            raise invalid(name, refused, int(np.argmax(itself)))

    def _write_texts(self, table: _Table) -> None:
        lacking = np.full(len(table.ints), ABSENT, np.uint8)  # any entity yet
        for name in self._texts:
            if name == "card_id":
                lacking &= self._write_cards(table)
            elif name in table.columns:
                cells = self._read(table, name).cells
                if name in ENTITY_FIELDS:
                    lacking &= cells.statuses
        if ABSENT in lacking.tobytes():
            refused = RefusedValue("is missing", f"send at least one of {', '.join(ENTITY_FIELDS)}")
            raise invalid("user_id", refused, int(np.argmax(lacking)))

    def _write_cards(self, table: _Table) -> NDArray[np.uint8]:
        """Card ids, and the tokens of card numbers in their place; `READ` where a row has either, `ABSENT` elsewhere."""
        if "pan" not in table.columns:
            return self._read(table, "card_id").cells.statuses
        tokens = parse_distinct("pan", table.columns["pan"], partial(parse_pan, tokenise=self._tokenise))
        known, has_token = self._read(table, "card_id").cells.known, tokens.known()
        both = known & has_token
        if both.any():
            refused = RefusedValue(
                "is given together with card_id", "send one of them: the token of pan becomes card_id"
            )
            raise invalid("pan", refused, int(np.argmax(both)))
        rows = np.flatnonzero(has_token)
        self._write_parsed(table, "card_id", rows, Parsed(tokens.values, tokens.index[rows]))
        return np.where(known | has_token, READ, ABSENT).astype(np.uint8)

    def _amounts(self, table: _Table, currencies: NDArray[np.int64]) -> NDArray[np.int64]:
        """Minor units of the reference currency."""
        if "amount" in table.columns:
            minor = self._major_amounts(table.columns["amount"], currencies)
        else:
            minor = self._minor_amounts(table.columns["amount_minor"])
        foreign = currencies != _CURRENCY_INDEX[self._currency]
        if foreign.any():
            minor = minor.copy()  # it may be the caller's own column
            rows = np.flatnonzero(foreign)
            if self._native is not None:
                rows = rows_for_python(self._native.convert(minor, currencies))
            minor[rows] = self._convert(minor[rows].tolist(), currencies[rows].tolist(), rows)
        return minor

    def _major_amounts(self, column: ColumnValues, currencies: NDArray[np.int64]) -> NDArray[np.int64]:
        read = None if self._native is None else self._native.read_amounts(column, currencies)
        if read is None:
            return parse_amounts(column, Parsed(list(CURRENCIES), currencies))
        minor, statuses = read
        rows = rows_for_python(statuses)
        if len(rows):
            minor[rows] = parse_pairs(values_at(column, rows), [CURRENCIES[index] for index in currencies[rows]], rows)
        return minor

    def _minor_amounts(self, column: ColumnValues) -> NDArray[np.int64]:
        read = None if self._native is None else self._native.read_amounts(column, None)
        if read is None:
            return parse_minor_amounts(column)
        minor, statuses = read
        rows = rows_for_python(statuses)
        if len(rows):
            minor[rows] = parse_minor_amounts(values_at(column, rows), rows)
        return minor

    def _convert(self, minor: list[int], currencies: list[int], rows: NDArray[np.intp]) -> list[int]:
        converted: list[int] = []
        try:
            for amount_minor, currency in zip(minor, currencies, strict=True):
                converted.append(self._in_reference(amount_minor, CURRENCIES[currency]))
            return converted
        except InvalidTransactionError as error:
            refused = RefusedValue(error.problem, error.remedy)
        raise invalid("amount", refused, int(rows[len(converted)]))

    def _flags(self, columns: _Columns, name: str) -> Cells:
        """A column of flags, which need not be there."""
        if name not in columns:
            return Cells.absent(len(columns["transaction_id"]))
        column = columns[name]
        cells = Cells.unread(len(column)) if self._native is None else self._native.read_flags(column)
        rows = rows_for_python(cells.statuses)
        if len(rows):
            parsed = parse_distinct(name, values_at(column, rows), parse_flag, rows)
            cells.statuses[rows] = np.where(parsed.known(), READ, ABSENT)
            cells.meanings[rows] = parsed.spread(bool, np.int64)
        return cells

    def _write_flags(self, table: _Table) -> None:
        types = self._read(table, "type", TYPE_FLAGS.__getitem__).cells
        directions = self._read(table, "direction", lambda is_credit: fields.CREDIT if is_credit else 0).cells
        declined = self._flags(table.columns, "declined")
        present = self._flags(table.columns, "card_present")
        write_flags(*types, directions.meanings, declined.meanings, *present, table.ints)
        for position in self._numbers_of.get("card_present", ()):
            table.numbers[:, position] = np.where(present.known, present.meanings, NAN)

    def _write_numbers(self, table: _Table, amount_major: NDArray[np.float64]) -> None:
        for position in self._numbers_of.get("amount", ()):
            table.numbers[:, position] = amount_major
        for name in (*NUMBERS, *self._layout.custom_numbers):
            if name in table.columns and name not in ("amount", "card_present"):
                self._write_number(table, name)

    def _write_number(self, table: _Table, name: str) -> None:
        column = table.columns[name]
        rows = np.arange(len(column))
        if self._native is not None:
            rows = rows_for_python(self._native.read_numbers(name, column, table.numbers))
        if len(rows):
            numbers = parse_numbers(name, values_at(column, rows), self._parsers[name], rows)
            for position in self._numbers_of.get(name, ()):
                table.numbers[rows, position] = numbers

    def _times(self, columns: _Columns, field: str) -> NDArray[np.int64] | None:
        given = [(field + suffix, unit) for suffix, unit in TIME_UNITS.items() if field + suffix in columns]
        if not given:
            return None
        if len(given) > 1:
            names = " and ".join(name for name, _ in given)
            raise invalid(field, RefusedValue(f"is given twice, as {names}", "send one of them"), None)
        name, unit = given[0]
        column = columns[name]
        read = None if self._native is None else self._native.read_times(column, unit)
        if read is None:
            return parse_times(name, column, unit)
        times_us, statuses = read
        rows = rows_for_python(statuses)
        if len(rows):
            times_us[rows] = parse_times(name, as_list(values_at(column, rows)), unit, rows)
        return times_us

    def _event_times(self, columns: _Columns) -> NDArray[np.int64]:
        times = self._times(columns, "event_time")
        missing = RefusedValue("is missing", "send event_time, event_time_s, event_time_ms or event_time_us")
        if times is None:
            raise invalid("event_time", missing, None)
        if (times == NO_TIME).any():
            raise invalid("event_time", missing, int(np.argmax(times == NO_TIME)))
        return times

    def _labels(self, columns: _Columns) -> NDArray[np.int8] | None:
        if "is_fraud" not in columns:
            return None
        flags = self._flags(columns, "is_fraud")
        return np.where(flags.known, flags.meanings, LABEL_UNKNOWN).astype(np.int8)

    def _label_times(self, columns: _Columns) -> NDArray[np.int64] | None:
        times = self._times(columns, "label_time")
        return None if times is None else np.where(times == NO_TIME, LABEL_NEVER, times)


@dataclass(frozen=True, slots=True)
class _Table:
    """A table on its way: what it has, and where that goes."""

    columns: _Columns
    ints: NDArray[np.int64]
    numbers: NDArray[np.float64]


class _Read(NamedTuple):
    """A text column that was read, and what Python had to parse of it: the rows and their values."""

    cells: Cells
    rows: NDArray[np.intp] = _NO_ROWS
    parsed: Parsed = _NOTHING


def _texts_of(column: ColumnValues) -> NDArray[np.object_]:
    """Identifiers as text; those that a parser had to read are for the caller to put right."""
    if isinstance(column, TextColumn):
        return column.to_objects()
    texts = np.empty(len(column), object)
    texts[:] = [str(value) if type(value) is int else value for value in as_list(column)]
    return texts


def _coder(codes: Mapping[str | None, float]) -> Callable[[str | None], float]:
    return lambda text: codes.get(text, 0.0)


def _held(columns: _Columns) -> _Columns:
    """
    The columns as they are now: kernels are told how many values there are and follow addresses that far.

    A caller's own sequence may grow in another thread meanwhile, or be one whose length is not the number of its values.
    """
    return {
        name: column if isinstance(column, (np.ndarray, TextColumn)) else list(column)
        for name, column in columns.items()
    }


def _check_columns(columns: _Columns, fields_by_name: Mapping[str, Parser]) -> None:
    if "transaction_id" not in columns:
        raise invalid("transaction_id", RefusedValue("is missing", "map a column to it, or have it generated"), None)
    if ("amount" in columns) == ("amount_minor" in columns):
        problem = "is given twice" if "amount" in columns else "is missing"
        raise invalid("amount", RefusedValue(problem, "send one of the columns amount and amount_minor"), None)
    n = len(columns["transaction_id"])
    for name, column in columns.items():
        if name not in fields_by_name and is_sensitive_name(name):
            raise invalid(
                name, RefusedValue("must never be sent: it is card verification, PIN or track data", "drop it"), None
            )
        if len(column) != n or getattr(column, "ndim", 1) != 1:
            raise invalid(
                name, RefusedValue(f"has {len(column)} rows where transaction_id has {n}", "send one value a row"), None
            )
