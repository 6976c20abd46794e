"""A card number is one whatever stands between its digits, and wherever it was put."""

from __future__ import annotations

import numpy as np
import pytest

from fraudsdk.domain import values
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.domain.masking import shown
from fraudsdk.domain.transaction import Transaction
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

PAN = "4111111111111111"
SEPARATORS = [" ", "-", ".", "/", "_", ",", ":", "|", "'", "*", "·", "−", "    ", "​"]


def grouped(separator):
    return separator.join((PAN[:4], PAN[4:8], PAN[8:12], PAN[12:]))


def digits_of(text):
    return "".join(character for character in text if character.isdigit())


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_grouped_card_number_is_masked_in_messages(separator):
    assert PAN not in digits_of(shown(grouped(separator)))
    with pytest.raises(InvalidTransactionError) as raised:
        Transaction.from_mapping(
            {"transaction_id": "t", "user_id": "u", "amount": grouped(separator), "event_time": "2026-01-01T00:00:00Z"}
        )
    assert PAN not in digits_of(str(raised.value))


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("field", ["user_id", "transaction_id", "merchant_id"])
def test_a_grouped_card_number_is_no_id(separator, field):
    sent = {"transaction_id": "t", "user_id": "u", "amount": 1, "event_time": "2026-01-01T00:00:00Z"}

    with pytest.raises(InvalidTransactionError, match=field):
        Transaction.from_mapping({**sent, field: grouped(separator)})


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_grouped_card_number_as_card_id_is_the_token_of_the_card(separator):
    encoder = Encoder(
        RecordLayout(identifiers=("card_id",), numbers=()), key=b"k" * 16, vocabulary=Vocabulary(), currency="EUR"
    )
    sent = {"transaction_id": "t", "amount": 1, "event_time": "2026-01-01T00:00:00Z"}

    token = encoder.prepare({**sent, "pan": PAN}).card_id

    assert token == encoder.prepare({**sent, "card_id": grouped(separator)}).card_id
    assert PAN not in digits_of(token)[:16]


def test_a_card_number_sent_as_an_address_is_not_remembered():
    sent = {"transaction_id": "t", "user_id": "u", "amount": 1, "event_time": "2026-01-01T00:00:00Z"}
    cached = values._canonical_address.cache_info().currsize

    with pytest.raises(InvalidTransactionError):
        Transaction.from_mapping({**sent, "ip": PAN})

    assert cached == values._canonical_address.cache_info().currsize


def test_a_card_number_is_not_hashed_without_a_key():
    with pytest.raises(ConfigurationError, match="without a key"):
        ColumnMapping.from_toml('card_id = { column = "PAN", hash = true }')


@pytest.mark.parametrize("name", ["cvv", "CVV2", "pin_block", "track2"])
def test_a_table_with_what_nobody_may_keep_is_refused(name):
    columns = {"transaction_id": np.array(["t"], object), name: np.array(["123"], object)}

    with pytest.raises(ConfigurationError, match=f"column '{name}'"):
        ColumnMapping().apply(columns)


def test_an_empty_cell_is_not_present():
    """
    A CSV has no nulls: an empty error column must not read as "there was an error".
    """
    mapping = ColumnMapping.from_toml('declined = { column = "Errors?", present = true }')
    columns = {"Errors?": np.array(["", " ", None, "Bad PIN"], object)}

    assert [False, False, False, True] == mapping.apply(columns)["declined"].tolist()


def test_a_mapping_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "mapping.toml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match="cannot be read"):
        ColumnMapping.load(path)


def test_nanosecond_times_survive_a_mapping_that_names_missing_values():
    mapping = ColumnMapping.from_toml('event_time = { column = "T", missing = ["none"], zone = "UTC" }')
    times = np.array(["2026-01-01T00:00:00", "NaT"], "datetime64[ns]")

    assert [2026, None] == [t and t.year for t in mapping.apply({"T": times})["event_time"].tolist()]
