"""What a host sent, as it was sent: kept at hand for policies that read more of it than the kernels did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from fraudsdk.encoding.tables import rows_of

# Arrow types that a column holds and a Python value may not, or not as the same thing.
_ONLY_IN_COLUMNS: Final = ("date32", "date64", "time32", "time64", "timestamp[ns")
# Rows of an Arrow table that become mappings together, where one of them is asked for: next to nothing each.
_TOGETHER: Final = 64


@dataclass(frozen=True, slots=True)
class Sent:
    """
    One transaction.

    Attributes
    ----------
    transaction_id : str
    whole : callable
        Makes the mapping or `Transaction` that was sent.
    """

    transaction_id: str
    whole: Callable[[], Any]

    @classmethod
    def of(cls, sent: Any) -> Sent:
        """Of a mapping that was read, or a `Transaction`."""
        return cls(id_of(sent), lambda: sent)


def id_of(sent: Any) -> str:
    """The id of what was read: a kernel takes whole numbers too, as the text that Python writes for them."""
    return str(sent["transaction_id"]) if type(sent) is dict else sent.transaction_id


def is_readable_by_column(schema: Any) -> bool:
    """Whether each value of Arrow tables of a schema means as a Python object what it means in its column."""
    return not any(str(field.type).startswith(_ONLY_IN_COLUMNS) for field in schema)


class RowsSent(Protocol):
    """
    Rows as they were sent, one by one.

    A table that also has ``encoded_by(encoder) -> EncodedTransactions`` is encoded by that: the same bits as of its rows, or
    `InvalidTransactionError` that names the first wrong one.
    """

    def row(self, row: int) -> Any:
        """A mapping or `Transaction`; they are asked for in order, and few of them."""


class SentRows:
    """
    Rows of a table as mappings, made when they are asked for.

    Parameters
    ----------
    table : pyarrow.Table or RecordBatch, or a sequence of mappings or transactions
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._is_arrow = hasattr(table, "column_names")
        self._first = 0
        self._made: list[Any] = []

    def row(self, row: int) -> Any:
        """One row as it was sent; they are best asked for in order."""
        if not self._is_arrow:
            return self._table[row]
        if not self._first <= row < self._first + len(self._made):
            self._first, self._made = row, list(rows_of(self._table.slice(row, _TOGETHER)))
        return self._made[row - self._first]
