"""A table reads back as it was written, in each format, or is not written at all."""

import csv
import json
import sys

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError, MissingExtraError
from fraudsdk.simulation import SimulationSpec, simulate, write

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def table():
    return simulate(SimulationSpec(transactions=1_000, users=60, days=30, fraud_rate=0.05, seed=2))


def test_parquet_gives_back_every_value(table, tmp_path):
    write(table, tmp_path / "t.parquet")
    read = pq.read_table(tmp_path / "t.parquet")

    assert list(table) == read.column_names
    for name, values in table.items():
        column = read[name]
        if values.dtype == object:
            assert values.tolist() == column.to_pylist()
        elif name in {"event_time", "label_time"}:
            assert "timestamp[us, tz=UTC]" == str(column.type)
            assert np.array_equal(np.isnat(values), column.is_null().to_numpy())
        else:
            assert np.array_equal(values, column.to_numpy(), equal_nan=values.dtype == np.float64)


def test_text_that_repeats_is_stored_once(table, tmp_path):
    write(table, tmp_path / "t.parquet")
    schema = pq.read_table(tmp_path / "t.parquet").schema

    assert "dictionary" in str(schema.field("merchant_id").type)
    assert "string" == str(schema.field("transaction_id").type)


def test_csv_leaves_absent_cells_empty_and_writes_times_as_rfc_3339(table, tmp_path):
    write(table, tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert 1_000 == len(rows)
    assert [value or "" for value in table["device_id"]] == [row["device_id"] for row in rows]
    assert f"{table['event_time'][0]}Z" == rows[0]["event_time"]
    assert table["amount_minor"].tolist() == [int(row["amount_minor"]) for row in rows]


@pytest.mark.parametrize("suffix", ["ndjson", "jsonl"])
def test_ndjson_holds_one_object_per_line_with_null_for_absent(table, tmp_path, suffix):
    write(table, tmp_path / f"t.{suffix}")
    rows = [json.loads(line) for line in (tmp_path / f"t.{suffix}").read_text().splitlines()]

    assert 1_000 == len(rows)
    assert table["ip"].tolist() == [row["ip"] for row in rows]
    assert [None if np.isnan(value) else value for value in table["latitude"]] == [row["latitude"] for row in rows]
    assert f"{table['event_time'][-1]}Z" == rows[-1]["event_time"]


def test_the_same_table_gives_the_same_file(table, tmp_path):
    for name in ("a.parquet", "b.parquet"):
        write(table, tmp_path / name)

    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_an_unknown_suffix_and_an_absent_folder_are_refused(table, tmp_path):
    with pytest.raises(ConfigurationError, match=r"'t.xlsx' says no known format; end it in .csv"):
        write(table, tmp_path / "t.xlsx")
    with pytest.raises(ConfigurationError, match="does not exist"):
        write(table, tmp_path / "nowhere" / "t.csv")


def test_a_write_that_fails_leaves_nothing_behind_and_the_old_file_whole(table, tmp_path):
    target = tmp_path / "t.parquet"
    target.write_text("old")

    with pytest.raises(ValueError):
        write({**table, "ip": table["ip"][:-1]}, target)

    assert "old" == target.read_text()
    assert [target] == list(tmp_path.iterdir())


def test_without_pyarrow_the_extra_is_named(table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingExtraError, match=r"fraudsdk\[data\]"):
        write(table, tmp_path / "t.parquet")
