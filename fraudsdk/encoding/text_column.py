"""
A text column of an Arrow table as kernels read it: its buffers.  By Arrow's methods alone: nothing here imports it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

_OFFSET_BYTES: Final = {"string": 4, "large_string": 8, "utf8": 4, "large_utf8": 8}


_NO_INDICES: Final = np.empty(0, np.int64)


class TextChunk(NamedTuple):
    """
    One Arrow array.

    Attributes
    ----------
    at : int
        The row that it begins at.
    text : int64[6]
        See `column_kernels.VALIDITY` and what follows it.
    indices : int64[n] or int64[0]
        Of a dictionary array: which of its texts each row has, -1 for none.
    holder : pyarrow.Array
        Keeps the buffers where they are.
    """

    at: int
    text: NDArray[np.int64]
    indices: NDArray[np.int64]
    holder: Any


class TextColumn:
    """
    A column of text, plain or dictionary-encoded.

    Parameters
    ----------
    column : pyarrow.ChunkedArray or pyarrow.Array
        Of a type for which `is_text` is true.

    Attributes
    ----------
    chunks : list of TextChunk
        Its arrays, but those without a row.
    """

    def __init__(self, column: Any) -> None:
        self._column = column
        self.chunks: list[TextChunk] = []
        at = 0
        for chunk in getattr(column, "chunks", (column,)):
            n = len(chunk)
            if n:
                self.chunks.append(_chunk_of(chunk, at))
            at += n

    @staticmethod
    def is_text(kind: Any) -> bool:
        """Whether columns of an Arrow type hold text in a form that kernels read."""
        return str(getattr(kind, "value_type", kind) if str(kind).startswith("dictionary") else kind) in _OFFSET_BYTES

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
        if str(column.type).startswith("dictionary"):
            column = column.cast(column.type.value_type)
        array: NDArray[np.object_] = (
            column.to_numpy() if hasattr(column, "num_chunks") else column.to_numpy(zero_copy_only=False)
        )
        return array.copy() if not array.flags.writeable else array


def _chunk_of(chunk: Any, at: int) -> TextChunk:
    texts, indices = chunk, _NO_INDICES
    if hasattr(chunk, "dictionary"):
        texts = chunk.dictionary
        indices = np.array(chunk.indices.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
    validity, offsets, data = texts.buffers()
    text = [
        _address(validity),
        _address(offsets),
        _OFFSET_BYTES[str(texts.type)],
        _address(data),
        texts.offset,
        len(texts),
    ]
    return TextChunk(at, np.array(text, np.int64), indices, texts)


def _address(buffer: Any) -> int:
    return 0 if buffer is None else int(buffer.address)
