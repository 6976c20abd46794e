"""
Columns of a table through the parsers of single values.

Whatever can be checked with whole arrays is; every value an array test doubts is put to the parser of single values, so
that a table and its rows one by one give the same bits and the same errors.  A distinct value is parsed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fraudsdk.domain.event_time import EPOCH_PARSERS, MAX_EVENT_TIME_US, MIN_EVENT_TIME_US, parse_event_time
from fraudsdk.domain.money import CURRENCY_EXPONENTS, MAX_AMOUNT_MINOR, parse_amount, parse_amount_minor
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.values import Parser
from fraudsdk.encoding.text_column import TextColumn
from fraudsdk.errors import InvalidTransactionError

ColumnValues: TypeAlias = "NDArray[Any] | Sequence[Any] | TextColumn"

# Where a time is absent; also what numpy makes of NaT.
NO_TIME: Final = -(2**63)

UNIT_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000}
# Equal values of these types parse alike; True == 1 == 1.0 would not, so a column may mix text with only one of them.
_KEYABLE: Final = frozenset((int, float, bool))


@dataclass(frozen=True, slots=True)
class Parsed:
    """
    A parsed column.

    Attributes
    ----------
    values : list
        Parsed distinct values, in order of first appearance.
    index : intp[n]
        Row -> position in `values`.
    """

    values: list[Any]
    index: NDArray[np.intp]

    def known(self) -> NDArray[np.bool_]:
        """Whether a row has a value."""
        return np.array([value is not None for value in self.values], np.bool_)[self.index]

    def spread(self, of: Callable[[Any], Any], dtype: Any) -> NDArray[Any]:
        """``of(value)`` of each row, computed once per distinct value."""
        return np.array([of(value) for value in self.values], dtype)[self.index]


def invalid(field: str, refused: RefusedValue, row: int | None) -> InvalidTransactionError:
    """The typed error of one value of a table."""
    return InvalidTransactionError(field, refused.problem, refused.remedy, row=row)


def as_list(column: ColumnValues) -> list[Any]:
    """Values as Python objects."""
    return column.tolist() if isinstance(column, (np.ndarray, TextColumn)) else list(column)


def values_at(column: ColumnValues, rows: NDArray[np.intp]) -> ColumnValues:
    """The values of some rows."""
    if len(rows) == len(column):
        return column
    if isinstance(column, np.ndarray):
        values: NDArray[Any] = column[rows]
        return values
    return column.take(rows) if isinstance(column, TextColumn) else [column[row] for row in rows.tolist()]


def parse_distinct(field: str, column: ColumnValues, parse: Parser, rows: NDArray[np.intp] | None = None) -> Parsed:
    """
    Parse each distinct value of a column once.

    Parameters
    ----------
    field : str
    column : array or sequence
    parse : Parser
    rows : intp[n] or None
        Rows of the table that the values are from; None where they are all of it.

    Raises
    ------
    InvalidTransactionError
        Names the first row with a wrong value.
    """
    values = as_list(column)
    position: dict[Any, int] = {}
    index = np.arange(len(values))
    if len(set(map(type, values)) - {str, type(None)} - _KEYABLE) == 0 and len(set(map(type, values)) & _KEYABLE) <= 1:
        position = dict.fromkeys(values, 0)
        for place, value in enumerate(position):
            position[value] = place
        index = np.fromiter(map(position.__getitem__, values), np.intp, len(values))
    return Parsed(_parse_each(field, position or values, parse, index, rows), index)


def parse_each(field: str, column: ColumnValues, parse: Parser, rows: NDArray[np.intp] | None = None) -> list[Any]:
    """Parse every row of a column whose values hardly repeat; parameters and errors as for `parse_distinct`."""
    return _parse_each(field, as_list(column), parse, rows=rows)


def parse_numbers(
    field: str, column: ColumnValues, parse: Parser, rows: NDArray[np.intp] | None = None
) -> NDArray[np.float64]:
    """A number field as float64, NaN where absent; `rows` and errors as for `parse_distinct`."""
    if not isinstance(column, np.ndarray) or column.dtype.kind not in "iuf":
        return np.array(
            [np.nan if number is None else number for number in parse_each(field, column, parse, rows)], np.float64
        )
    numbers = column.astype(np.float64)
    absent = np.isnan(numbers)
    numbers[absent] = np.nan  # one NaN for all: the payload of another would be other bits
    finite = numbers[~absent]
    # The bounds of a field are an interval and no card number is below 1e12: if the extremes pass, all between do.
    if len(finite) and (np.abs(finite).max() >= 1e12 or not _passes(parse, finite.min(), finite.max())):
        return np.array(_parse_each(field, numbers.tolist(), parse, rows=rows), np.float64)
    return numbers


def parse_times(
    field: str, column: ColumnValues, unit: str | None, rows: NDArray[np.intp] | None = None
) -> NDArray[np.int64]:
    """
    A time field as microseconds, `NO_TIME` where absent.

    Parameters
    ----------
    field : str
        Name of the column.
    column : array or sequence
        RFC 3339 text, aware datetimes, or datetime64 (UTC) where `unit` is None; otherwise numbers.
    unit : {"us", "ms", "s"} or None
        Unit of the numbers.
    rows : intp[n] or None
        As for `parse_distinct`; only where `column` is a list.

    Raises
    ------
    InvalidTransactionError
        Names the first row with a wrong value.
    """
    kind = column.dtype.kind if isinstance(column, np.ndarray) else ""
    if unit is None:
        if kind == "M":
            return _times_of_datetimes(field, np.asarray(column))
        return parse_distinct(field, column, parse_event_time, rows).spread(_time_or_none, np.int64)
    if kind == "f" and unit == "s" and _is_integral(np.asarray(column)):
        return _times_of_whole_seconds(field, np.asarray(column, np.float64))
    if kind in ("i", "u"):
        return _times_of_integers(field, np.asarray(column), unit)
    return parse_distinct(field, column, EPOCH_PARSERS[unit], rows).spread(_time_or_none, np.int64)


def parse_amounts(column: ColumnValues, currencies: Parsed) -> NDArray[np.int64]:
    """
    Amounts in major units as minor units of each row's own currency.

    Parameters
    ----------
    column : array or sequence
        Major units.
    currencies : Parsed
        The currency of each row; none may be absent.

    Raises
    ------
    InvalidTransactionError
        Names the first row with a wrong amount.
    """
    kind = column.dtype.kind if isinstance(column, np.ndarray) else ""
    # A float of another width has a shorter decimal form of its own.
    if kind not in ("f", "i", "u") or (kind == "f" and np.asarray(column).dtype != np.float64):
        names = currencies.spread(lambda currency: currency, object).tolist()
        return np.array(parse_pairs(column, names), np.int64)
    amounts = np.asarray(column)
    scale = currencies.spread(lambda currency: 10 ** CURRENCY_EXPONENTS[currency], np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        if kind == "f":
            # With at most 15 digits, a float has a decimal form of that many decimals if and only if dividing the
            # integer gives the float back (IEEE 754 division is correctly rounded); tests compare with repr.
            nearest = np.rint(amounts * scale)
            sure = (nearest / scale == amounts) & ~np.signbit(amounts) & (nearest <= MAX_AMOUNT_MINOR)
            minor: NDArray[np.int64] = np.where(sure, nearest, 0.0).astype(np.int64)
        else:
            sure = (amounts >= 0) & (amounts <= MAX_AMOUNT_MINOR // scale)
            minor = np.where(sure, amounts, 0).astype(np.int64) * scale
    rows = np.flatnonzero(~sure)
    names = [currencies.values[place] for place in currencies.index[rows].tolist()]
    minor[rows] = parse_pairs(amounts[rows], names, rows)
    return minor


def parse_minor_amounts(column: ColumnValues, rows: NDArray[np.intp] | None = None) -> NDArray[np.int64]:
    """Amounts that already are integers of minor units; `rows` as for `parse_distinct`, errors as for `parse_amounts`."""
    is_integer = isinstance(column, np.ndarray) and column.dtype.kind in "iu"
    if is_integer and np.all((np.asarray(column) >= 0) & (np.asarray(column) <= MAX_AMOUNT_MINOR)):
        return np.asarray(column, np.int64)
    minor = parse_each("amount_minor", column, parse_amount_minor, rows)
    if None in minor:
        place = minor.index(None)
        refused = RefusedValue("is missing", "send amount in major units, or amount_minor")
        raise invalid("amount_minor", refused, place if rows is None else int(rows[place]))
    return np.array(minor, np.int64)


def _parse_each(
    field: str,
    values: Any,
    parse: Parser,
    index: NDArray[np.intp] | None = None,
    rows: NDArray[np.intp] | None = None,
) -> list[Any]:
    parsed: list[Any] = []
    try:
        for value in values:
            parsed.append(None if value is None else parse(value))  # noqa: PERF401, the length names the row
        return parsed
    except RefusedValue as error:
        refused = error
    place = len(parsed) if index is None else int(np.argmax(index == len(parsed)))
    raise invalid(field, refused, place if rows is None else int(rows[place]))


def parse_pairs(column: ColumnValues, currencies: list[str], rows: NDArray[np.intp] | None = None) -> list[int]:
    """
    Amounts in major units one by one; `rows` and errors as for `parse_distinct`.

    Parameters
    ----------
    column : array or sequence
    currencies : list of str
        That of each amount.
    """
    minor: list[int] = []
    try:
        for amount, currency in zip(as_list(column), currencies, strict=True):
            if amount is None:
                raise RefusedValue("is missing", "send amount in major units, or amount_minor")
            minor.append(parse_amount(amount, currency))
        return minor
    except RefusedValue as error:
        refused = error
    raise invalid("amount", refused, len(minor) if rows is None else int(rows[len(minor)]))


def _passes(parse: Parser, *values: float) -> bool:
    try:
        for value in values:
            parse(float(value))
    except RefusedValue:
        return False
    return True


def _time_or_none(time_us: int | None) -> int:
    return NO_TIME if time_us is None else time_us


def _is_integral(column: NDArray[Any]) -> bool:
    known = column[~np.isnan(column)]
    return bool(np.all((known == np.floor(known)) & (np.abs(known) < 2.0**53)))


def _times_of_datetimes(field: str, column: NDArray[Any]) -> NDArray[np.int64]:
    # Compared in the column's own unit: converting a hostile value to microseconds first would overflow.
    low = np.datetime64(MIN_EVENT_TIME_US, "us").astype(column.dtype)
    high = np.datetime64(MAX_EVENT_TIME_US, "us").astype(column.dtype)
    is_time = (column >= low) & (column < high)
    if not is_time.all() and (wrong := ~(is_time | np.isnat(column))).any():
        row = int(np.argmax(wrong))
        problem = f"must be between 1990 and 2200, was {str(column[row])[:40]}"
        raise invalid(field, RefusedValue(problem, "check the unit the column was made with"), row)
    return column.astype("datetime64[us]").view(np.int64)


def _times_of_whole_seconds(field: str, column: NDArray[np.float64]) -> NDArray[np.int64]:
    missing = np.isnan(column)
    seconds = np.where(missing, MIN_EVENT_TIME_US // 1_000_000, column).astype(np.int64)
    return np.where(missing, NO_TIME, _times_of_integers(field, seconds, "s"))


def _times_of_integers(field: str, column: NDArray[Any], unit: str) -> NDArray[np.int64]:
    unit_us = UNIT_US[unit]
    wrong = ~((column >= MIN_EVENT_TIME_US // unit_us) & (column < MAX_EVENT_TIME_US // unit_us))
    if wrong.any():
        row = int(np.argmax(wrong))
        _parse_each(field, [column[row].item()], EPOCH_PARSERS[unit], rows=np.array([row]))
    return column.astype(np.int64) * unit_us
