"""A table as it was sent: what of it the policy must read, once its rows have been encoded and scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraudsdk.encoding.tables import rows_of

# Arrow types that a column holds and a Python value may not, or not as the same thing.
_ONLY_IN_COLUMNS: Final = ("date32", "date64", "time32", "time64", "timestamp[ns")
# From this share of rows on, one conversion of them all is quicker than one for each.
_MANY: Final = 8


def is_readable_by_column(table: Any) -> bool:
    """Whether a table is Arrow's, and each of its values means as a Python object what it means in its column."""
    if not hasattr(table, "column_names"):
        return False
    return not any(str(field.type).startswith(_ONLY_IN_COLUMNS) for field in table.schema)


class SentRows:
    """
    Rows of a table as mappings, made when they are asked for.

    Parameters
    ----------
    table : pyarrow.Table or RecordBatch, or a sequence of mappings or transactions
    """

    def __init__(self, table: Any) -> None:
        self._rows: Sequence[Any] | None = None if hasattr(table, "column_names") else table
        self._table = table

    def rows(self, first: int, wanted: npt.NDArray[np.intp], ids: Sequence[str]) -> list[Any]:
        """
        Some rows as they were sent.

        Parameters
        ----------
        first : int
            Where the stretch begins.
        wanted : int[m]
            Rows of it.
        ids : sequence of str
            Transaction ids of the whole stretch.
        """
        if self._rows is not None:
            return [self._rows[first + row] for row in wanted.tolist()]
        if len(wanted) * _MANY >= len(ids):
            every = list(rows_of(self._table.slice(first, len(ids))))
            return [every[row] for row in wanted.tolist()]
        return [next(iter(rows_of(self._table.slice(first + row, 1)))) for row in wanted.tolist()]
