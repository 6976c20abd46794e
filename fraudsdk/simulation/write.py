"""Write a table of columns to Parquet, CSV or NDJSON, by the suffix of the path."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fraudsdk.errors import ConfigurationError, MissingExtraError

# Nearly every value of these is another: a dictionary would be as long as the column.
_ALL_DIFFERENT: Final = frozenset({"transaction_id", "original_transaction_id", "session_id"})
_ROWS_PER_BATCH: Final = 50_000  # bounds what NDJSON holds as Python objects


def write(columns: Mapping[str, NDArray[Any]], path: str | os.PathLike[str]) -> None:
    """
    Write columns to a file, whole or not at all.

    Parameters
    ----------
    columns : mapping of str to ndarray
        As returned by `simulate`.
    path : path-like
        Ends in ``.parquet``, ``.csv``, ``.ndjson`` or ``.jsonl``.  An existing file is replaced.

    Raises
    ------
    ConfigurationError
        Another suffix, or a folder that does not exist.
    MissingExtraError
        pyarrow is not installed.
    """
    target = Path(path)
    writer = _WRITERS.get(target.suffix.lower())
    if writer is None:
        raise ConfigurationError(
            f"the suffix of {target.name!r} says no known format; end it in {', '.join(sorted(_WRITERS))}"
        )
    if not target.parent.is_dir():
        raise ConfigurationError(f"folder {str(target.parent)!r} does not exist; create it first")
    # A reader must never find half a table under the final name.
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        writer(_to_arrow(columns), aside)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _to_arrow(columns: Mapping[str, NDArray[Any]]) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error

    def arrow(name: str, values: NDArray[Any]) -> Any:
        if values.dtype == object:
            text = pa.array(values, pa.string())
            return text if name in _ALL_DIFFERENT else text.dictionary_encode()
        if np.issubdtype(values.dtype, np.datetime64):
            return pa.array(values, pa.timestamp("us", tz="UTC"))
        # In a file, absent is null; NaN is only what NumPy has for it.
        return pa.array(values, from_pandas=True)

    return pa.table({name: arrow(name, values) for name, values in columns.items()})


def _write_parquet(table: Any, path: Path) -> None:
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _write_csv(table: Any, path: Path) -> None:
    import pyarrow.csv as csv

    csv.write_csv(_as_plain_text(table), path)


def _write_ndjson(table: Any, path: Path) -> None:
    with path.open("w", encoding="utf-8") as lines:
        for batch in _as_plain_text(table).to_batches(max_chunksize=_ROWS_PER_BATCH):
            lines.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in batch.to_pylist())


def _as_plain_text(table: Any) -> Any:
    """Spell dictionaries out, and times as RFC 3339."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for index, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(index, column.name, table[column.name].cast(pa.string()))
        elif pa.types.is_timestamp(column.type):
            text = pc.strftime(table[column.name], format="%Y-%m-%dT%H:%M:%SZ")
            table = table.set_column(index, column.name, text)
    return table


_WRITERS: Final[dict[str, Callable[[Any, Path], None]]] = {
    ".parquet": _write_parquet,
    ".csv": _write_csv,
    ".ndjson": _write_ndjson,
    ".jsonl": _write_ndjson,
}
