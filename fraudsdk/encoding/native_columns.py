"""
Columns through the kernels: what is stored how, and which kernel reads it.

Every method gives a status per row; the rows that are `FOR_PYTHON` are the caller's to parse, so that errors are those of a
single value.  Python objects are read a block of rows at a time: a kernel that holds the GIL for a whole table would stop
the scoring threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import c_int64
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fraudsdk._cpython import LIST_ITEMS
from fraudsdk.encoding import column_kernels as kernels
from fraudsdk.encoding.column_kernels import ABSENT, FOR_PYTHON, READ
from fraudsdk.encoding.columns import NO_TIME, UNIT_US, ColumnValues, as_list
from fraudsdk.encoding.program import Program
from fraudsdk.encoding.text_column import TextColumn

_BLOCK: Final = 1 << 14  # rows; about a millisecond
_WHOLE: Final = np.empty(0, np.int64)
_EVERY_FLAG: Final = "declined"  # its table lists how any flag is spelt
_NO_ROWS: Final = np.empty(0, np.intp)


def rows_for_python(statuses: NDArray[np.uint8]) -> NDArray[np.intp]:
    """The rows that kernels left for the parser of single values."""
    # There are mostly none, and the search of bytes sees that in a tenth of the time that comparing arrays takes.
    return np.flatnonzero(statuses == FOR_PYTHON) if FOR_PYTHON in statuses.tobytes() else _NO_ROWS


class Cells(NamedTuple):
    """
    What came of a column.

    Attributes
    ----------
    meanings : int64[n]
        Of listed text: see `words.MEANING`.  0 elsewhere.
    statuses : uint8[n]
        `READ`, `ABSENT` or `FOR_PYTHON`.
    """

    meanings: NDArray[np.int64]
    statuses: NDArray[np.uint8]

    @classmethod
    def unread(cls, n: int) -> Cells:
        """All of it is for Python."""
        return cls(np.zeros(n, np.int64), _unread(n))

    @classmethod
    def absent(cls, n: int) -> Cells:
        """There is no such column."""
        return cls(np.zeros(n, np.int64), np.full(n, ABSENT, np.uint8))

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether a row has a value."""
        return np.equal(self.statuses, READ)

    @property
    def has_gaps(self) -> bool:
        """Whether a row has none."""
        return ABSENT in self.statuses.tobytes()


class NativeColumns:
    """
    The columns of one encoder.

    Parameters
    ----------
    program : Program
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._words = program.words

    def read_texts(
        self, field: str, column: ColumnValues, ints: NDArray[np.int64], numbers: NDArray[np.float64]
    ) -> Cells:
        """Write keys and codes of a text field where the layout has a place for them."""
        cells = Cells.unread(len(column))
        into = (self._words, self._program.record(field), ints, numbers, cells.meanings, cells.statuses)
        if isinstance(column, TextColumn):
            for chunk in column.chunks:
                kernels.read_texts(*chunk, *into)
        elif (kind := _kind_of(column)) in ("O", "U"):
            objects = _Objects(column, len(cells.statuses))
            for first, end in objects.blocks():
                kernels.read_objects(objects.address, first, end, *into)
        elif kind == "f":
            cells.statuses[np.isnan(column)] = ABSENT
        elif (values := _as_int64(column)) is not None:
            for first, end in _blocks(len(values)):
                kernels.read_integers(values, first, end, *into)
        return cells

    def read_flags(self, column: ColumnValues) -> Cells:
        """True and false as 1 and 0 in `Cells.meanings`."""
        cells = Cells.unread(len(column))
        record, kind = self._program.record(_EVERY_FLAG), _kind_of(column)
        if isinstance(column, TextColumn):
            unwritten = (np.empty((0, 0), np.int64), np.empty((0, 0)))
            into = (self._words, record, *unwritten, cells.meanings, cells.statuses)
            for chunk in column.chunks:
                kernels.read_texts(*chunk, *into)
        elif kind in ("O", "U"):
            objects = _Objects(column, len(cells.statuses))
            for first, end in objects.blocks():
                kernels.read_flags(objects.address, first, end, self._words, record, cells.meanings, cells.statuses)
        elif isinstance(column, np.ndarray) and kind in "biuf" and column.dtype.itemsize <= 8:
            kernels.read_flag_numbers(column.astype(np.float64, order="C"), cells.meanings, cells.statuses)
        return cells

    def read_times(self, column: ColumnValues, unit: str | None) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
        """Microseconds and statuses; None for a column that holds no text or objects."""
        times_us, statuses = np.full(len(column), NO_TIME), _unread(len(column))
        if isinstance(column, TextColumn) and unit is None:
            for chunk in column.chunks:
                kernels.read_times(*chunk, times_us, statuses)
        elif _kind_of(column) in ("O", "U"):
            objects = _Objects(column, len(statuses))
            unit_us = 0 if unit is None else UNIT_US[unit]
            for first, end in objects.blocks():
                kernels.read_time_objects(objects.address, first, end, self._words, unit_us, times_us, statuses)
        else:
            return None
        return times_us, statuses

    def read_amounts(
        self, column: ColumnValues, currencies: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8]] | None:
        """
        Minor units and statuses; None for a column that holds no text or objects.

        `currencies` is which one each row has, None for a column that already is in minor units.
        """
        minor, statuses = np.zeros(len(column), np.int64), _unread(len(column))
        if isinstance(column, TextColumn):
            for chunk in column.chunks if currencies is not None else ():
                kernels.read_amounts(*chunk, self._words, currencies, minor, statuses)
        elif _kind_of(column) in ("O", "U"):
            objects = _Objects(column, len(statuses))
            in_major = _WHOLE if currencies is None else currencies
            for first, end in objects.blocks():
                kernels.read_amount_objects(objects.address, first, end, self._words, in_major, minor, statuses)
        else:
            return None
        return minor, statuses

    def convert(self, minor: NDArray[np.int64], currencies: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Turn amounts into the reference currency in place; statuses."""
        statuses = _unread(len(minor))
        kernels.convert_amounts(self._words, currencies, minor, statuses)
        return statuses

    def read_numbers(self, field: str, column: ColumnValues, numbers: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Write a number field where the layout has a place for it; statuses."""
        statuses = _unread(len(column))
        into = (self._words, self._program.record(field), numbers, statuses)
        if _kind_of(column) == "O":
            objects = _Objects(column, len(statuses))
            for first, end in objects.blocks():
                kernels.read_number_objects(objects.address, first, end, *into)
        elif isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
            kernels.read_numbers(column.astype(np.float64, order="C"), *into)
        return statuses


def _unread(n: int) -> NDArray[np.uint8]:
    return np.zeros(n, np.uint8)  # which is `FOR_PYTHON`: an array of anything else takes six times as long to make


class _Objects:
    """Where the addresses of a column's `n` objects are, and what keeps them there."""

    def __init__(self, column: ColumnValues, n: int) -> None:
        if isinstance(column, np.ndarray):
            array = np.ascontiguousarray(column.astype(object, copy=False))
            self._holder: Any = array
            self.address: int = array.ctypes.data
        else:
            # A list of our own: another thread may shorten the caller's.
            self._holder = as_list(column)
            self.address = c_int64.from_address(id(self._holder) + LIST_ITEMS).value
        # Kernels write as many answers as there are objects.
        if len(self._holder) != n:
            raise ValueError(
                f"a column of {n} values gave {len(self._holder)}; pass a list that nobody changes meanwhile"
            )
        self._n = n

    def blocks(self) -> Iterator[tuple[int, int]]:
        return _blocks(self._n)


def _blocks(n: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + _BLOCK, n)) for first in range(0, n, _BLOCK))


def _kind_of(column: ColumnValues) -> str:
    if isinstance(column, np.ndarray):
        return column.dtype.kind
    return "" if isinstance(column, TextColumn) or not isinstance(column, Sequence) else "O"


def _as_int64(column: ColumnValues) -> NDArray[np.int64] | None:
    if not isinstance(column, np.ndarray) or column.dtype.kind not in "iu":
        return None
    if column.dtype == np.uint64 and len(column) and column.max() >= 2**63:
        return None
    return np.require(column, np.int64, ("C", "W"))  # kernels take no read-only arrays
