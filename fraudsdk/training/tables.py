"""Read and write tables: Parquet, CSV and NDJSON, by the ending of the name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk.encoding.tables import columns_of
from fraudsdk.errors import ConfigurationError, MissingExtraError

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz")
NDJSON = (".ndjson", ".jsonl")
ENDINGS = (*PARQUET, *CSV, *NDJSON)


def read_columns(path: Path | str) -> dict[str, npt.NDArray[Any]]:
    """
    A table as NumPy columns, in file order.

    Raises
    ------
    ConfigurationError
        No such file, an unknown ending, or contents that are not what the ending says.
    MissingExtraError
        pyarrow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"{path} does not exist; give the path of a Parquet, CSV or NDJSON file")
    _check_ending(path)
    arrow = _arrow()
    try:
        return columns_of(_read(path))
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as {path.suffix}: {_first_line(error)}; check the file"
        ) from error


def write_columns(columns: Mapping[str, npt.NDArray[Any]], path: Path | str) -> None:
    """
    Write columns as a table; aside first, then renamed, so that a reader never meets half a file.

    Raises
    ------
    ConfigurationError
        An unknown ending, or a place that cannot be written.
    """
    path = Path(path)
    _check_ending(path)
    arrow = _arrow()
    table = arrow.table({name: arrow.array(values, from_pandas=True) for name, values in columns.items()})
    aside = path.with_name(f".{path.name}.partial")
    try:
        _write(table, aside, path.name)
        aside.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {_first_line(error)}; choose another place") from error
    finally:
        aside.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    if path.name.endswith(PARQUET):
        from pyarrow import parquet

        return parquet.read_table(path)
    if path.name.endswith(CSV):
        from pyarrow import csv

        return csv.read_csv(path)
    from pyarrow import json

    return json.read_json(path)


def _write(table: Any, aside: Path, name: str) -> None:
    if name.endswith(PARQUET):
        from pyarrow import parquet

        parquet.write_table(table, aside, compression="zstd")
    elif name.endswith(CSV):
        import pyarrow as arrow
        from pyarrow import csv

        with arrow.output_stream(str(aside), compression="gzip" if name.endswith(".gz") else None) as stream:
            csv.write_csv(table, stream)
    else:
        import json

        with aside.open("w", encoding="utf-8") as lines:
            for row in table.to_pylist():
                lines.write(json.dumps(row, default=str, allow_nan=False) + "\n")


def _check_ending(path: Path) -> None:
    if not path.name.endswith(ENDINGS):
        raise ConfigurationError(f"{path} ends in none of {', '.join(ENDINGS)}; rename or convert it")


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtraError("pyarrow", "data") from error
    return pyarrow


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def length_of(columns: Mapping[str, npt.NDArray[Any]]) -> int:
    """Number of rows."""
    return len(next(iter(columns.values()), np.empty(0)))
