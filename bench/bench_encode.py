"""
Question   What does the border cost: a mapping of 15 and of 25 fields, and a row of an Arrow table of 15 columns?
Workload   20,000 transactions (seed 11), every transaction id its own, users and merchants of some thousands.
Timed      Encoder.read_native one by one; Encoder.encode_table, encode_columns of the same columns as objects, and
           encode_mappings, per row.
Not timed  Making the mappings and the table; warming up.
Compare    The road in Python, same values, same run: prepare and encode one by one, and encode_columns with the native road
           closed.
Check      The bits of both roads are equal.
Gate       A mapping takes a quarter of the time in Python, a row of a table a fifth: a third to a half of what is measured.
"""

from __future__ import annotations

import time
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from _report import percentiles, report

from fraudsdk.domain.fields import RecordLayout
from fraudsdk.encoding import Encoder, Vocabulary
from fraudsdk.encoding.tables import columns_of

N = 20_000
LAYOUT = RecordLayout(
    identifiers=("merchant_id", "mcc", "user_id", "card_id", "device_id", "ip", "merchant_country", "card_country"),
    numbers=("latitude", "longitude", "channel", "mcc", "merchant_country", "card_present", "balance", "entry_mode"),
)
VOCABULARY = Vocabulary(
    {
        "channel": ("pos", "ecommerce"),
        "mcc": ("5411", "5812", "4899"),
        "merchant_country": ("GB", "DE", "FR"),
        "entry_mode": ("chip", "contactless"),
    }
)


def encoder(hash_key):
    return Encoder(LAYOUT, key=hash_key, vocabulary=VOCABULARY, currency="EUR")


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(11)

    def names(prefix, n):
        return [f"{prefix}-{number:07d}" for number in rng.integers(0, n, N)]

    event_time_us = np.sort(rng.integers(1_760_000_000_000_000, 1_790_000_000_000_000, N))
    return pa.table(
        {
            "transaction_id": [f"tx-{row:09d}" for row in range(N)],
            "event_time": [f"{time}Z" for time in event_time_us.astype("datetime64[us]")],
            "amount": [f"{minor / 100:.2f}" for minor in rng.integers(1, 100_000, N)],
            "currency": ["EUR"] * N,
            "user_id": names("u", 5_000),
            "card_id": names("c", 6_000),
            "merchant_id": names("m", 2_000),
            "device_id": names("d", 9_000),
            "ip": [".".join(map(str, octets)) for octets in rng.integers(1, 255, (N, 4))],
            "channel": rng.choice(["pos", "ecommerce"], N).tolist(),
            "mcc": rng.choice(["5411", "5812", "4899", "6011"], N).tolist(),
            "merchant_country": rng.choice(["GB", "DE", "FR", "US"], N).tolist(),
            "latitude": rng.uniform(-90, 90, N),
            "longitude": rng.uniform(-180, 180, N),
            "card_present": rng.random(N) < 0.5,
        }
    )


def ten_more(mapping):
    return {
        **mapping,
        "type": "authorisation",
        "direction": "debit",
        "declined": False,
        "card_country": "GB",
        "entry_mode": "chip",
        "three_ds": None,
        "home_latitude": 48.1,
        "home_longitude": 11.5,
        "account_age_days": 500.0,
        "balance": 1234.5,
    }


@pytest.mark.parametrize("n_fields", [15, 25])
def test_a_mapping_is_read_in_a_fraction_of_the_time_that_python_takes(table, hash_key, n_fields):
    one, mappings = encoder(hash_key), table.to_pylist()
    if n_fields == 25:
        mappings = [ten_more(mapping) for mapping in mappings]
    ints, numbers = one.empty(1)
    expected_ints, expected_numbers = one.empty(1)
    native_ns, python_ns = np.zeros(N), np.zeros(N)
    for row, mapping in enumerate(mappings):
        started = time.perf_counter_ns()
        is_read = one.read_native(mapping, ints, numbers)
        native_ns[row] = time.perf_counter_ns() - started
        started = time.perf_counter_ns()
        one.encode(one.prepare(mapping), expected_ints, expected_numbers)
        python_ns[row] = time.perf_counter_ns() - started

        assert is_read and (ints.tobytes(), numbers.tobytes()) == (expected_ints.tobytes(), expected_numbers.tobytes())

    native, python = percentiles(native_ns), percentiles(python_ns)
    report(f"encode a mapping of {n_fields} fields", {"read_native": native, "prepare and encode": python})
    assert 4 * native["p50_us"] < python["p50_us"]


def test_a_row_of_a_table_is_read_in_a_fraction_of_the_time_that_python_takes(table, hash_key):
    native, columns, mappings = encoder(hash_key), columns_of(table), table.to_pylist()
    with mock.patch("fraudsdk.encoding.encoder.LAYOUT_IS_KNOWN", False):
        python = encoder(hash_key)
    ways = {
        "encode_table, Arrow": lambda: native.encode_table(table),
        "encode_columns, objects": lambda: native.encode_columns(columns),
        "encode_mappings, dicts": lambda: native.encode_mappings(mappings),
        "encode_columns in Python": lambda: python.encode_columns(columns),
    }
    seconds = {name: [] for name in ways}
    for _ in range(5):
        bits = set()
        for name, encode in ways.items():
            started = time.perf_counter()
            encoded = encode()
            seconds[name].append(time.perf_counter() - started)
            bits.add((encoded.ints.tobytes(), encoded.numbers.tobytes()))

        assert 1 == len(bits)

    per_row = {name: {"n": N, "p50_us_per_row": 1e6 * float(np.median(times)) / N} for name, times in seconds.items()}
    report("encode a table of 15 columns", per_row)
    slowest = per_row["encode_columns in Python"]["p50_us_per_row"]
    assert 5 * per_row["encode_table, Arrow"]["p50_us_per_row"] < slowest
    assert 5 * per_row["encode_columns, objects"]["p50_us_per_row"] < slowest
