"""
Read and write tables: Parquet, CSV and NDJSON, by the ending of the name.

Parquet and NDJSON have types of their own.  A column of a CSV becomes numbers or times only where that loses nothing of
its spelling, so that the users 007 and 7 stay two.  No message repeats a row: there may be a card number in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.card_number import looks_like_card_number
from fraudsdk.domain.masking import masked, shown
from fraudsdk.encoding.tables import columns_of
from fraudsdk.errors import ConfigurationError, MissingExtraError
from fraudsdk.training.files import written_whole

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz")
NDJSON = (".ndjson", ".jsonl")
ENDINGS = (*PARQUET, *CSV, *NDJSON)

# Missing among numbers.  Among text they are text: NA is Namibia.
_NO_NUMBER: Final = ("NA", "N/A", "n/a", "#N/A", "NULL", "null", "NaN", "nan", "-NaN", "-nan")
# More digits than a float keeps, and no point or exponent that would make them a measure rather than a name.
_LONG_NAME: Final = r"^-?\d{16,}$"


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
        table = _read(path)
        _check_names(table.column_names, path)
        return columns_of(table)
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        # Without the cause, which quotes the row that it stumbled over.
        raise ConfigurationError(
            f"{path} cannot be read as {path.suffix}: {_diagnosis(error)}; check the file"
        ) from None


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
    try:
        with written_whole(path) as aside:
            _write(table, aside, path.name)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror or _diagnosis(error)}; choose another place"
        ) from error


def _read(path: Path) -> Any:
    if path.name.endswith(PARQUET):
        from pyarrow import parquet

        return parquet.read_table(path)
    if path.name.endswith(CSV):
        return _read_csv(path)
    from pyarrow import json

    return json.read_json(path)


def _read_csv(path: Path) -> Any:
    """
    A CSV file as an Arrow table.

    All of it is read as text first: Arrow would choose types by the first megabyte, and read 007 as 7.
    """
    import pyarrow as arrow
    from pyarrow import csv

    odd: list[Any] = []

    def refuse(row: Any) -> str:
        odd.append(row)
        return "error"

    # On several threads Arrow does not know the number of a row.
    one_thread = csv.ReadOptions(use_threads=False)
    parse = csv.ParseOptions(invalid_row_handler=refuse)
    try:
        with csv.open_csv(path, read_options=one_thread, parse_options=parse) as head:
            names = head.schema.names
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names, arrow.string()), strings_can_be_null=True, null_values=[""]
        )
        table = csv.read_csv(path, read_options=one_thread, parse_options=parse, convert_options=convert)
    except arrow.ArrowInvalid as error:
        if odd:
            _refuse_row(path, odd[0])
        if "invalid UTF8" in str(error):
            raise ConfigurationError(f"{path} is not in UTF-8; convert it, as with iconv -t UTF-8") from None
        raise
    return arrow.table([_typed(column) for column in table.columns], names=table.column_names)


def _refuse_row(path: Path, row: Any) -> NoReturn:
    # Rows count from 0 and the header is none of them, as everywhere; Arrow counts it, and from 1.
    raise ConfigurationError(
        f"{path}: row {row.number - 2} has {row.actual_columns} columns, {row.expected_columns} expected; correct it, and "
        "quote values that hold a comma"
    ) from None


def _typed(column: Any) -> Any:
    """A column of text as integers, floats, booleans or times, where all of it is; else as it was."""
    import pyarrow as arrow
    from pyarrow import compute

    text = compute.utf8_trim_whitespace(column)
    text = compute.if_else(compute.is_in(text, arrow.array(_NO_NUMBER)), arrow.scalar(None, arrow.string()), text)
    integers = _cast(text, arrow.int64())
    if integers is not None:
        respelt = compute.any(compute.not_equal(integers.cast(arrow.string()), text)).as_py()
        return column if respelt else integers
    floats = _cast(text, arrow.float64())
    if floats is not None:
        return column if compute.any(compute.match_substring_regex(text, _LONG_NAME)).as_py() else floats
    for kind in (arrow.bool_(), arrow.timestamp("ns"), arrow.timestamp("ns", "UTC")):
        values = _cast(text, kind)
        if values is not None:
            return values
    return column


def _cast(text: Any, kind: Any) -> Any:
    import pyarrow as arrow

    try:
        return text.cast(kind)
    except arrow.ArrowInvalid:  # it is something else
        return None


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


def _check_names(names: list[str], path: Path) -> None:
    # A table without a header has its first row for one, and names of columns are printed.
    for name in names:
        if looks_like_card_number(name):
            raise ConfigurationError(
                f"{path} has a card number, {masked(name)}, for the name of a column; add a header"
            )


def _diagnosis(error: Exception) -> str:
    """What a library said was wrong, without the data that it quotes behind the first colon."""
    return shown(str(error).partition(": ")[0] or type(error).__name__)


def length_of(columns: Mapping[str, npt.NDArray[Any]]) -> int:
    """Number of rows."""
    return len(next(iter(columns.values()), np.empty(0)))
