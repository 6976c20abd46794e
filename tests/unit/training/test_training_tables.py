"""
Tables as files: what a CSV keeps of its spelling, and what no message repeats.
"""

from __future__ import annotations

import gzip
import traceback

import numpy as np
import pyarrow
import pytest

from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.simulation import SimulationSpec, simulate, write
from fraudsdk.training import tables
from fraudsdk.training.replay import replay
from fraudsdk.training.tables import read_columns, write_columns

CARD = "5555555555554444"
KEY = b"sixteen byte key"


def read_text(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return read_columns(path)


def refusal_of(tmp_path, text, name="table.csv"):
    """The message, and everything a traceback would print."""
    with pytest.raises(ConfigurationError) as refused:
        read_text(tmp_path, text, name)
    return str(refused.value), "".join(traceback.format_exception(refused.value))


def test_leading_zeros_tell_two_users_apart(tmp_path):
    columns = read_text(tmp_path, "user_id\n007\n7\n")

    assert ["007", "7"] == columns["user_id"].tolist()


def test_a_column_of_numbers_is_numbers(tmp_path):
    columns = read_text(tmp_path, "count,latitude,flag\n1,51.5,true\n,NaN,\n3, -0.25,FALSE\n")

    assert [1, None, 3] == columns["count"].tolist()
    assert np.array_equal([51.5, np.nan, -0.25], columns["latitude"], equal_nan=True)
    assert [True, None, False] == columns["flag"].tolist()


def test_an_id_with_more_digits_than_a_float_keeps_stays_text(tmp_path):
    columns = read_text(tmp_path, "user_id\n12345678901234567890\n12345678901234567891\n")

    assert ["12345678901234567890", "12345678901234567891"] == columns["user_id"].tolist()


def test_a_column_that_turns_into_text_late_is_text(tmp_path):
    """
    Arrow alone would settle on integers in its first block and fail in a later one.
    """
    n = 300_000
    columns = read_text(tmp_path, "user_id\n" + "\n".join(map(str, range(n))) + "\nanna\n")

    assert ["0", "anna"] == [columns["user_id"][0], columns["user_id"][n]]


def test_namibia_is_a_country_and_not_missing(tmp_path):
    columns = read_text(tmp_path, "ip_country,amount\nNA,NA\nGB,1.5\n")

    assert "NA" == columns["ip_country"][0]
    assert np.isnan(columns["amount"][0])


@pytest.mark.parametrize("moment", ["2025-01-01 10:00:00", "2025-01-01T10:00:00Z", "2025-01-01T11:00:00+01:00"])
def test_times_are_times(moment, tmp_path):
    columns = read_text(tmp_path, f"event_time\n{moment}\n")

    assert np.datetime64("2025-01-01T10:00:00") == columns["event_time"][0]


def test_a_compressed_table_is_read(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"user_id\n007\n"))

    assert ["007"] == read_columns(path)["user_id"].tolist()


def test_a_row_of_the_wrong_width_is_named_and_not_shown(tmp_path):
    said, traced = refusal_of(tmp_path, f"a,b\n1,2\n3,4\n5,{CARD},6\n")

    assert "row 2 has 3 columns, 2 expected" in said
    assert CARD not in traced


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("table.ndjson", f'{{"pan": "{CARD}"}}\n{{"pan": {CARD}}}\n'),
        ("table.ndjson", f'{{"pan": "{CARD}"'),
        ("table.parquet", CARD),
        ("table.csv.gz", CARD),
    ],
)
def test_a_broken_file_is_refused_without_its_contents(name, text, tmp_path):
    _, traced = refusal_of(tmp_path, text, name)

    assert CARD not in traced


def test_a_table_without_a_header_does_not_show_its_first_row(tmp_path):
    said, traced = refusal_of(tmp_path, f"anna,{CARD}\nbert,4111111111111111\n")

    assert "add a header" in said
    assert CARD not in traced


def test_a_repeated_column_is_refused(tmp_path):
    said, _ = refusal_of(tmp_path, "amount,user_id,amount\n1,u,2\n")

    assert "column 'amount' is there more than once" in said


def test_a_table_that_cannot_be_written_whole_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_columns({"score": np.array([1.0, np.inf])}, tmp_path / "scores.ndjson")

    assert [] == list(tmp_path.iterdir())


def test_one_simulation_in_three_formats_gives_the_same_rows(tmp_path):
    columns = simulate(SimulationSpec(transactions=3_000, users=60, days=40, seed=7))
    feature_set = reference_feature_set("EUR")
    replayed = {}
    for ending in ("parquet", "csv", "ndjson"):
        write(columns, tmp_path / f"table.{ending}")
        mapped = ColumnMapping().apply(read_columns(tmp_path / f"table.{ending}"), currency="EUR")
        replayed[ending] = replay(mapped, feature_set, Vocabulary.fit(mapped), hash_key=KEY)

    for ending in ("csv", "ndjson"):
        assert replayed["parquet"].rows.tobytes() == replayed[ending].rows.tobytes()
        assert np.array_equal(replayed["parquet"].label_time_us, replayed[ending].label_time_us)


@pytest.mark.parametrize("message", [f"CSV conversion error: invalid value '{CARD}'", f"what is {CARD} doing here"])
def test_what_a_library_says_of_a_value_is_not_repeated(message, tmp_path, monkeypatch):
    def fail(path):
        raise pyarrow.ArrowInvalid(message)

    monkeypatch.setattr(tables, "_read", fail)
    said, traced = refusal_of(tmp_path, "a\n1\n")

    assert "table.csv cannot be read" in said
    assert CARD not in traced


def test_a_table_in_another_encoding_says_so(tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes("user_id\nzoë\n".encode("latin-1"))

    with pytest.raises(ConfigurationError, match="is not in UTF-8; convert it"):
        read_columns(path)
