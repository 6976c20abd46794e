"""
Tables in, columns or rows out.  Arrow tables are taken as they come, by their methods: this module imports no Arrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.masking import shown
from fraudsdk.encoding.text_column import TextColumn
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

T = TypeVar("T")
NativeColumn: TypeAlias = "npt.NDArray[Any] | TextColumn"
Way: TypeAlias = Callable[[Any], NativeColumn]


class OfSchema(Generic[T]):
    """
    What depends on the schema of an Arrow table alone.

    The tables of one host have one schema: to read 33 names and types anew takes longer than to encode a hundred rows.
    One schema is remembered; another takes its place.

    Parameters
    ----------
    find : callable
        Finds it out, of a schema.
    """

    def __init__(self, find: Callable[[Any], T]) -> None:
        self._find = find
        self._known: tuple[Any, T] | None = None

    def __call__(self, table: Any) -> T:
        """Of a table or record batch."""
        schema, known = table.schema, self._known  # read once: another thread may put another in its place
        if known is None or not known[0].equals(schema):
            known = self._known = schema, self._find(schema)
        return known[1]


def ways_of(schema: Any) -> list[tuple[str, Way]]:
    """
    Name of each column of an Arrow schema, and how `native_columns_of` takes it.

    Raises
    ------
    ConfigurationError
        Two columns have one name.
    """
    _check_names(schema.names)
    return [(field.name, _way_of(field.name, field.type)) for field in schema]


def native_columns_of(table: Any, ways: Iterable[tuple[str, Way]]) -> dict[str, NativeColumn]:
    """
    Columns of an Arrow table for `Encoder.encode_table`: text stays in Arrow's buffers, the rest is as of `columns_of`.

    Parameters
    ----------
    table : pyarrow.Table or RecordBatch
    ways : iterable of (str, callable)
        `ways_of` its schema.
    """
    return {name: take(column) for (name, take), column in zip(ways, table.columns, strict=True)}


def columns_of(table: Any) -> dict[str, npt.NDArray[Any]]:
    """
    Columns of an Arrow table, or of anything with ``column_names`` and ``column``, as NumPy arrays.

    Integers with gaps become objects rather than floats: an id above 2**53 must not lose digits.

    Raises
    ------
    ConfigurationError
        Two columns have one name.
    """
    return {name: _to_numpy(column) for name, column in _named(table)}


def rows_of(table: Any) -> Iterable[Any]:
    """
    Rows of an Arrow table or record batch as mappings; a sequence of mappings or transactions is passed through.

    Raises
    ------
    InvalidTransactionError
        Neither of these.
    """
    if hasattr(table, "to_pylist"):
        return _arrow_rows(table)
    if isinstance(table, str | bytes | Mapping) or not isinstance(table, Iterable):
        raise InvalidTransactionError(
            "table", f"is a {type(table).__name__}", "pass an Arrow table, or a list of mappings or transactions"
        )
    return table


def _named(table: Any) -> list[tuple[str, Any]]:
    _check_names(table.column_names)
    return [(name, table.column(name)) for name in table.column_names]


def _check_names(names: list[str]) -> None:
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise ConfigurationError(f"column {shown(repeated[0])} is there more than once; rename all but one of them")


def _arrow_rows(table: Any) -> list[dict[str, Any]]:
    """Rows of an Arrow table; its timestamps without a zone are UTC, as they are for `columns_of`."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (ValueError, TypeError, KeyError) as error:  # Arrow's own errors are among these
        raise InvalidTransactionError(
            "table", f"has a value that Python cannot hold ({type(error).__name__})", "check its time zones and types"
        ) from error
    kinds = {field.name: str(field.type) for field in table.schema}
    without_zone = [name for name, kind in kinds.items() if kind.startswith("timestamp") and "tz=" not in kind]
    for row in rows:
        for name in without_zone:
            if row[name] is not None:
                row[name] = row[name].replace(tzinfo=UTC)
    return rows


def _way_of(name: str, kind: Any) -> Way:
    if name == "amount" and str(kind).startswith("decimal"):
        return _decimals
    return TextColumn.way_of(kind) or _to_numpy


def _decimals(column: Any) -> TextColumn:
    # What a `Decimal` is read by as well, without one per row.
    return TextColumn(column.cast("string"), offset_bytes=4, is_dictionary=False)


def _to_numpy(column: Any) -> npt.NDArray[Any]:
    kind = str(column.type)
    if kind.startswith("dictionary"):
        column = column.cast(column.type.value_type)
    if column.null_count and ("int" in kind or "bool" in kind):
        return np.array(column.to_pylist(), dtype=object)
    array: npt.NDArray[Any] = (
        column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(zero_copy_only=False)
    )
    return array
