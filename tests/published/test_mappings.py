"""
The shipped mappings read the tables that others published, every row of them.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from fraudsdk.domain import fields
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.encoding import LABEL_NEVER, ColumnMapping, EncodedTransactions, Encoder, Vocabulary

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
KEY = b"a key for tests only"
LAYOUT = RecordLayout(
    identifiers=("user_id", "card_id", "merchant_id", "ip", "email_hash", "card_country"),
    numbers=("amount", "latitude", "home_latitude", "card_present", "channel", "mcc", "entry_mode"),
)
PUBLISHED = {
    "handbook": "fdh_raw_2018-04-01_2018-09-04.parquet",
    "sparkov": "sparkov_gen_A_transactions.parquet",
    "tabformer": "tabformer_user0_transactions.parquet",
    "aws_fraud_detector": "aws_afd_transaction_coldstart_1611.parquet",
}


def read_published(file: str) -> dict[str, np.ndarray]:
    path = DATA / file
    if not path.exists():
        message = f"{path} is absent: the published tables are not part of the repository"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    parquet = pytest.importorskip("pyarrow.parquet", reason="reading Parquet needs fraudsdk[data]")
    table = parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


@cache  # one and a half million rows take seconds
def encode_published(name: str) -> tuple[EncodedTransactions, tuple[str, ...]]:
    columns = read_published(PUBLISHED[name])
    mapping = ColumnMapping.load(name)
    canonical = mapping.apply(columns)
    encoder = Encoder(LAYOUT, key=KEY, vocabulary=Vocabulary.fit(canonical), currency="USD", rates={"EUR": "1"})
    return encoder.encode_columns(canonical), mapping.unused(columns)


def test_the_handbook_table_is_read_to_the_last_row():
    encoded, unused = encode_published("handbook")

    assert 1_504_628 == len(encoded)
    assert ("TX_TIME_SECONDS", "TX_TIME_DAYS", "TX_FRAUD_SCENARIO") == unused
    assert 4_989 == len(np.unique(encoded.ints[:, fields.FIRST_IDENTIFIER]))
    assert 10_000 == len(np.unique(encoded.ints[:, fields.FIRST_IDENTIFIER + 2]))
    # 2018-04-01T00:00:31 without a zone, read as UTC; the first amount is 57.16.
    assert [1522540831_000_000, 5716] == encoded.ints[0, :2].tolist()
    assert {0, 1} == set(encoded.labels.tolist())
    assert 0.008 < encoded.labels.mean() < 0.009


def test_binary_dust_of_the_handbook_is_rounded_to_cents():
    encoded, _ = encode_published("handbook")
    amounts = read_published(PUBLISHED["handbook"])["TX_AMOUNT"]

    assert 1e-9 > np.abs(encoded.amount_major - amounts).max()
    assert 1_046 == (encoded.amount_major != amounts).sum()


def test_the_sparkov_table_is_read_with_its_card_numbers_as_tokens():
    encoded, unused = encode_published("sparkov")

    assert 572_204 == len(encoded)
    assert ("trans_date", "trans_time") == unused
    assert 449 == len(np.unique(encoded.ints[:, fields.FIRST_IDENTIFIER + 1]))
    assert 4_235 == encoded.labels.sum()
    assert 14 == len(np.unique(encoded.numbers[:, 4]))
    assert not np.isnan(encoded.numbers[:, 1]).any()


def test_the_tabformer_table_is_read_with_refunds_and_declines():
    encoded, unused = encode_published("tabformer")
    flags = encoded.ints[:, fields.FLAGS]

    assert 19_963 == len(encoded)
    assert ("Merchant City", "Merchant State", "Zip") == unused
    assert 650 == ((flags & fields.REFUND) != 0).sum()
    assert 574 == ((flags & fields.DECLINED) != 0).sum()
    assert 27 == encoded.labels.sum()
    assert 5 == len(np.unique(encoded.ints[:, fields.FIRST_IDENTIFIER + 1]))
    assert 1_315 == ((flags & fields.CARD_NOT_PRESENT) != 0).sum()
    # 2002-09-01 06:21, $134.09
    assert [1030861260_000_000, 13409] == encoded.ints[0, :2].tolist()


def test_the_fraud_detector_sample_is_read_with_half_of_its_labels_unknown():
    encoded, unused = encode_published("aws_fraud_detector")

    assert 1_611 == len(encoded)
    assert "payment_currency" in unused and "card_bin" in unused
    assert {-1: 801, 0: 715, 1: 95} == {label: int((encoded.labels == label).sum()) for label in (-1, 0, 1)}
    assert 801 == (encoded.label_time_us == LABEL_NEVER).sum()
    assert 248 == len(np.unique(encoded.ints[:, fields.FIRST_IDENTIFIER]))
    assert (encoded.ints[:, fields.FIRST_IDENTIFIER + 4] != 0).all()


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_rows_one_by_one_are_the_same_bits(name):
    columns = read_published(PUBLISHED[name])
    canonical = ColumnMapping.load(name).apply({column: values[:500] for column, values in columns.items()})
    encoder = Encoder(LAYOUT, key=KEY, vocabulary=Vocabulary.fit(canonical), currency="USD", rates={"EUR": "1.1"})
    encoded = encoder.encode_columns(canonical)
    ints, numbers = encoder.empty(500)
    for i in range(500):
        row = {field: values[i] for field, values in canonical.items() if not field.startswith(("is_fraud", "label_"))}
        encoder.encode(encoder.prepare(row), ints, numbers, i)

    assert ints.tobytes() == encoded.ints.tobytes()
    assert numbers.tobytes() == encoded.numbers.tobytes()
