"""
Options that several commands share.
"""

from __future__ import annotations

import pytest

from fraudsdk.cli.options import hash_key_of, label_delay_us_of, mapping_of, new_folder, plain_name_of, writable_file
from fraudsdk.errors import ConfigurationError

DAY_US = 86_400_000_000


def test_pairs_are_laid_over_a_shipped_mapping():
    mapping = mapping_of(["handbook", "user_id=ACCOUNT"])

    assert "ACCOUNT" == mapping.sources["user_id"].column
    assert "TERMINAL_ID" == mapping.sources["merchant_id"].column


def test_two_mappings_to_start_from_are_refused():
    with pytest.raises(ConfigurationError, match="names 2 mappings, handbook and sparkov"):
        mapping_of(["handbook", "sparkov"])


def test_a_label_delay_is_a_duration():
    assert 7 * DAY_US == label_delay_us_of("7d")
    with pytest.raises(ConfigurationError, match="--label-delay is 'a week', not a duration"):
        label_delay_us_of("a week")


def test_a_hash_key_is_the_file_without_its_line_break(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\n")

    assert b"0123456789abcdef" == hash_key_of(path)


def test_without_a_key_file_the_same_command_gives_the_same_bits():
    assert hash_key_of(None) == hash_key_of(None)


def test_a_short_hash_key_is_refused_and_not_shown(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"hunter2")

    with pytest.raises(ConfigurationError, match="holds 7 bytes, at least 16") as refused:
        hash_key_of(path)
    assert "hunter2" not in str(refused.value)


def test_a_hash_key_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="no-key cannot be read: No such file"):
        hash_key_of(tmp_path / "no-key")


def test_an_output_is_refused_before_the_work_rather_than_after_it(tmp_path):
    with pytest.raises(ConfigurationError, match="missing does not exist"):
        writable_file(tmp_path / "missing" / "out.parquet")
    with pytest.raises(ConfigurationError, match=r"ends in none of \.parquet"):
        writable_file(tmp_path / "out.xlsx", ".parquet")
    with pytest.raises(ConfigurationError, match="is a folder"):
        writable_file(tmp_path)


def test_a_model_is_only_replaced_when_asked_to(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")

    with pytest.raises(ConfigurationError, match="add --replace"):
        new_folder(tmp_path, replace=False)
    assert tmp_path == new_folder(tmp_path, replace=True)


def test_a_folder_that_holds_no_model_is_never_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years")

    with pytest.raises(ConfigurationError, match="holds no model, so it is not replaced"):
        new_folder(tmp_path, replace=True)


def test_an_empty_folder_may_be_used(tmp_path):
    assert tmp_path == new_folder(tmp_path, replace=False)


@pytest.mark.parametrize(
    ("folder", "name"), [("cards", "cards"), ("my model (2)", "my-model-2"), (".hidden", "hidden"), ("…", "model")]
)
def test_a_folder_becomes_a_plain_model_name(folder, name):
    assert name == plain_name_of(folder)
