"""
A text column of an Arrow table as kernels read it: its buffers.  By Arrow's methods alone: nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

_OFFSET_BYTES: Final = {"string": 4, "large_string": 8, "utf8": 4, "large_utf8": 8}
_NO_INDICES: Final = np.empty(0, np.int64)


# One Arrow array as the first arguments of a kernel: six words (see `column_kernels.VALIDITY` and what follows it); of a
# dictionary array, which of its texts each row has, -1 for none; the row that it begins at.
TextChunk: TypeAlias = tuple[int, int, int, int, int, int, NDArray[np.int64], int]


class TextColumn:
    """
    A column of text, plain or dictionary-encoded.

    Parameters
    ----------
    column : pyarrow.ChunkedArray or pyarrow.Array
    offset_bytes : {4, 8}
    is_dictionary : bool

    Attributes
    ----------
    chunks : list of TextChunk
        Its arrays, but those without a row.
    """

    def __init__(self, column: Any, offset_bytes: int, *, is_dictionary: bool) -> None:
        self._column = column  # and so all its buffers, which stay where they are
        self._is_dictionary = is_dictionary
        self.chunks: list[TextChunk] = []
        at = 0
        for chunk in getattr(column, "chunks", (column,)):
            n = len(chunk)
            if n:
                texts, indices = _parts_of(chunk) if self._is_dictionary else (chunk, _NO_INDICES)
                validity, offsets, data = texts.buffers()
                text = _address(validity), _address(offsets), offset_bytes, _address(data), texts.offset, len(texts)
                self.chunks.append((*text, indices, at))
            at += n

    @classmethod
    def way_of(cls, kind: Any) -> Callable[[Any], TextColumn] | None:
        """How a column of an Arrow type is taken; None where it holds no text that kernels read."""
        is_dictionary = str(kind).startswith("dictionary")
        offset_bytes = _OFFSET_BYTES.get(str(kind.value_type if is_dictionary else kind))
        return None if offset_bytes is None else partial(cls, offset_bytes=offset_bytes, is_dictionary=is_dictionary)

    def __len__(self) -> int:
        return len(self._column)

    def take(self, rows: NDArray[np.intp]) -> list[Any]:
        """The values of some rows."""
        values: list[Any] = self._column.take(rows.tolist()).to_pylist() if len(rows) else []
        return values

    def tolist(self) -> list[Any]:
        """All values."""
        values: list[Any] = self._column.to_pylist()
        return values

    def to_objects(self) -> NDArray[np.object_]:
        """All values as an array of objects."""
        column = self._column
        if self._is_dictionary:
            column = column.cast(column.type.value_type)
        array: NDArray[np.object_] = (
            column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(zero_copy_only=False)
        )
        return array.copy() if not array.flags.writeable else array


def _parts_of(chunk: Any) -> tuple[Any, NDArray[np.int64]]:
    """The texts of a dictionary array, and which of them each row has."""
    indices = chunk.indices.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)
    return chunk.dictionary, np.array(indices, np.int64)


def _address(buffer: Any) -> int:
    return 0 if buffer is None else int(buffer.address)
