"""
Users' mistakes: exit code 2, one sentence that names what was wrong, and no traceback.
"""

from __future__ import annotations

import csv

import pytest

from fraudsdk.cli import main
from fraudsdk.features.spec import Feature, FeatureSet

N_ROWS = 60
HEADER = ("transaction_id", "user_id", "amount", "currency", "event_time", "is_fraud")


def a_row(i):
    return [f"t-{i}", f"u-{i % 5}", f"{i}.50", "EUR", f"2025-{1 + i // 28:02}-{1 + i % 28:02}T10:00:00Z", "0"]


@pytest.fixture
def data(tmp_path):
    """A sound table without a single fraud."""
    return write_csv(tmp_path / "data.csv", [a_row(i) for i in range(N_ROWS)])


@pytest.fixture
def features(tmp_path):
    """A feature set that replays in no time."""
    path = tmp_path / "features.toml"
    path.write_text(FeatureSet("small", (Feature("amount", "value", field="amount"),), currency="EUR").to_toml())
    return path


def write_csv(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def complaint(capsys):
    """Run a command that must fail as the user's mistake; gives back its one sentence."""

    def of(*argv):
        code = main([str(word) for word in argv])
        said = capsys.readouterr().err

        assert (2, 1) == (code, len(said.splitlines()))
        assert "Traceback" not in said and said.startswith(f"fraudsdk {argv[0]}: ")
        return said

    return of


@pytest.mark.parametrize("command", ["train", "replay"])
def test_a_file_that_does_not_exist(command, complaint, tmp_path):
    assert "nothing.csv does not exist" in complaint(command, tmp_path / "nothing.csv", "--out", tmp_path / "out.csv")


def test_a_file_of_an_unknown_kind(complaint, tmp_path):
    (tmp_path / "data.xlsx").write_bytes(b"PK")

    assert "data.xlsx ends in none of .parquet" in complaint("train", tmp_path / "data.xlsx", "--out", tmp_path / "m")


def test_a_file_that_is_not_what_its_ending_says(complaint, tmp_path):
    (tmp_path / "data.parquet").write_text("not parquet at all")

    assert "cannot be read as .parquet" in complaint("train", tmp_path / "data.parquet", "--out", tmp_path / "m")


def test_a_mapping_to_a_column_that_the_table_lacks(complaint, data, tmp_path):
    said = complaint("train", data, "--map", "merchant_id=SHOP", "--out", tmp_path / "m")

    assert "mapping of merchant_id reads column 'SHOP', which the table lacks" in said


def test_a_mapping_of_a_field_that_does_not_exist(complaint, data, tmp_path):
    said = complaint("train", data, "--map", "usr_id=user_id", "--out", tmp_path / "m")

    assert "'usr_id' is not a known field; did you mean user_id?" in said


def test_a_mapping_that_is_not_shipped(complaint, data, tmp_path):
    assert "is neither shipped nor a .toml file" in complaint(
        "train", data, "--map", "handbok", "--out", tmp_path / "m"
    )


def test_a_bad_amount_is_named_by_its_row(complaint, features, tmp_path):
    rows = [a_row(i) for i in range(N_ROWS)]
    rows[41][2] = "a lot"
    data = write_csv(tmp_path / "data.csv", rows)
    said = complaint("replay", data, "--features", features, "--out", tmp_path / "rows.csv")

    assert "'a lot' in row 41" in said


def test_a_table_without_an_event_time(complaint, tmp_path):
    data = write_csv(tmp_path / "data.csv", [a_row(i)[:4] + ["0"] for i in range(9)], HEADER[:4] + HEADER[5:])

    assert "event_time is missing" in complaint("train", data, "--out", tmp_path / "m")


def test_a_table_without_labels_cannot_train(complaint, tmp_path):
    data = write_csv(tmp_path / "data.csv", [a_row(i)[:5] for i in range(9)], HEADER[:5])

    assert "has no column for is_fraud; map one" in complaint("train", data, "--out", tmp_path / "m")


def test_a_table_without_frauds_cannot_train(complaint, data, features, tmp_path):
    said = complaint(
        "train", data, "--features", features, "--label-delay", "1d", "--trees", 2, "--out", tmp_path / "model"
    )

    assert "0 frauds" in said
    assert not (tmp_path / "model").exists()


def test_a_table_shorter_than_its_label_delay(complaint, data, features, tmp_path):
    said = complaint("train", data, "--features", features, "--label-delay", "300d", "--out", tmp_path / "m")

    assert "of which the label delay takes" in said


def test_a_table_without_a_currency(complaint, tmp_path):
    rows = [[*a_row(i)[:3], *a_row(i)[4:]] for i in range(9)]
    data = write_csv(tmp_path / "data.csv", rows, HEADER[:3] + HEADER[4:])

    assert "names no currency; add --currency" in complaint("train", data, "--out", tmp_path / "m")


def test_a_currency_that_does_not_exist(complaint, data, tmp_path):
    assert "XXY" in complaint("train", data, "--currency", "XXY", "--out", tmp_path / "m")


def test_a_feature_file_with_an_unknown_key(complaint, data, tmp_path):
    features = tmp_path / "features.toml"
    features.write_text('name = "x"\n[features]\nspend = { agregate = "sum", entity = "user", window = "1h" }\n')

    assert "agregate" in complaint("replay", data, "--features", features, "--out", tmp_path / "rows.csv")


def test_a_policy_that_the_features_cannot_serve_is_found_before_training(complaint, data, features, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text('version = 1\n[[rules]]\nname = "r"\nwhen = "user_count_1h > 3"\nthen = "REVIEW"\n')
    said = complaint("train", data, "--features", features, "--policy", policy, "--out", tmp_path / "m")

    assert "user_count_1h" in said


def test_a_parameter_out_of_range(complaint, data, features, tmp_path):
    said = complaint("train", data, "--features", features, "--max-depth", 99, "--out", tmp_path / "m")

    assert "max_depth" in said and "99" in said


@pytest.mark.parametrize("command", ["evaluate", "explain", "score"])
def test_a_model_that_is_not_there(command, complaint, data, tmp_path):
    more = {"evaluate": (), "explain": ("--transaction", "t-1"), "score": ("--out", tmp_path / "decisions.csv")}
    said = complaint(command, data, "--model", tmp_path / "no-model", *more[command])

    assert "no manifest.json in" in said and "no-model" in said


def test_a_model_file_that_is_not_there(complaint, tmp_path):
    assert "no model file at" in complaint("compile", tmp_path / "none.ubj", "--out", tmp_path / "m")


def test_a_model_file_that_is_no_model(complaint, tmp_path):
    (tmp_path / "evil.json").write_text('{"learner": [[[[')
    complaint("compile", tmp_path / "evil.json", "--out", tmp_path / "m")

    assert not (tmp_path / "m").exists()


def test_companions_without_the_features_they_speak_of(complaint, tmp_path):
    said = complaint("compile", tmp_path / "m.ubj", "--out", tmp_path / "m", "--vocabulary", tmp_path / "v.json")

    assert "add --features" in said


def test_an_output_that_cannot_be_written(complaint, data, tmp_path):
    """
    Below a file there is no place for another; permissions would not stop root.
    """
    assert "does not exist" in complaint("replay", data, "--out", data / "rows.csv")
    assert complaint("train", data, "--out", data / "model")
    assert "does not exist" in complaint("simulate", "--out", data / "x.csv")
    assert complaint("demo", "--out", data / "demo")


def test_an_output_that_exists_and_is_no_model(complaint, data, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("It was a dark and stormy night")
    said = complaint("train", data, "--out", tmp_path / "thesis", "--replace")

    assert "holds no model, so it is not replaced" in said
    assert (tmp_path / "thesis" / "chapter-1.txt").exists()


def test_a_simulation_that_cannot_be(complaint, tmp_path):
    said = complaint("simulate", "--out", tmp_path / "x.parquet", "--fraud-rate", "2")

    assert "fraud_rate must be between 0 and 0.2, was 2.0" in said


def test_a_mapping_without_data_in_the_demo(complaint, tmp_path):
    assert "add --data" in complaint("demo", "--map", "user_id=U", "--out", tmp_path / "demo")


def test_amounts_that_count_as_unknown_are_no_secret(features, tmp_path, capsys):
    """
    Not an error: a few foreign payments are normal.  All of them would be a mistake, and silence would hide it.
    """
    rows = [a_row(i) for i in range(9)]
    rows[2][3] = rows[5][3] = "USD"
    data = write_csv(tmp_path / "data.csv", rows)

    assert 0 == main(["replay", str(data), "--features", str(features), "--out", str(tmp_path / "rows.csv")])
    assert "2 of 9 amounts are in other currencies than EUR and count as unknown" in capsys.readouterr().err


def test_a_card_number_in_a_row_of_the_wrong_width_is_not_printed(features, tmp_path, capsys):
    rows = [a_row(i) for i in range(9)]
    rows[4].append("5555555555554444")
    data = write_csv(tmp_path / "data.csv", rows)
    code = main(["--debug", "replay", str(data), "--features", str(features), "--out", str(tmp_path / "rows.csv")])
    said = capsys.readouterr().err

    assert 2 == code
    assert "Traceback" in said and "row 4 has 7 columns, 6 expected" in said
    assert "5555555555554444" not in said


def test_a_column_that_is_there_twice(complaint, features, tmp_path):
    data = write_csv(tmp_path / "data.csv", [[*a_row(i), "9"] for i in range(9)], (*HEADER, "amount"))

    assert "column 'amount' is there more than once" in complaint(
        "replay", data, "--features", features, "--out", tmp_path / "rows.csv"
    )


@pytest.mark.parametrize("text", ["[" * 200_000, '{"channel": ["pos"'])
def test_a_vocabulary_that_is_none(text, complaint, data, features, tmp_path):
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(text)
    said = complaint("replay", data, "--features", features, "--vocabulary", vocabulary, "--out", tmp_path / "rows.csv")

    assert "vocabulary" in said and "cannot be read" in said


def test_a_vocabulary_of_a_size_that_no_vocabulary_has(complaint, data, features, tmp_path):
    vocabulary = tmp_path / "vocabulary.json"
    with vocabulary.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    said = complaint("replay", data, "--features", features, "--vocabulary", vocabulary, "--out", tmp_path / "rows.csv")

    assert "has more than 16,777,216 bytes" in said
