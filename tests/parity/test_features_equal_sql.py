"""Counts and sums against the window queries of SQLite: an oracle that nobody here wrote."""

from __future__ import annotations

import sqlite3
from random import Random

import numpy as np
import pytest
from twin.comparison import Driver
from twin.events import Event
from twin.streams import HOUR_US, MINUTE_US, START_US

from fraudsdk.features.spec import Feature, FeatureSet

WINDOWS_US = {"1m": MINUTE_US, "10m": 10 * MINUTE_US, "1h": HOUR_US, "24h": 24 * HOUR_US}


def random_table(seed: int, n: int) -> list[tuple[int, str, int]]:
    """(time, user, amount) in order of time, no two at the same microsecond; gaps of exactly a minute are common."""
    random = Random(seed)
    time_us, rows = START_US, []
    for _ in range(n):
        time_us += random.choice((1, 10**6, MINUTE_US, MINUTE_US, random.randrange(1, 20 * MINUTE_US)))
        rows.append((time_us, random.choice(("u1", "u2", "u3")), random.randrange(100_000)))
    return rows


def answers_of_sqlite(table: list[tuple[int, str, int]]) -> np.ndarray:
    """Count and sum over (t - window, t], the current event included, of each window in turn."""
    columns = ", ".join(
        f"{what} OVER (PARTITION BY user ORDER BY time_us RANGE BETWEEN {width - 1} PRECEDING AND CURRENT ROW)"
        for width in WINDOWS_US.values()
        for what in ("count(*)", "sum(amount_minor)")
    )
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE events (time_us INTEGER, user TEXT, amount_minor INTEGER)")
        database.executemany("INSERT INTO events VALUES (?, ?, ?)", table)
        return np.array(database.execute(f"SELECT {columns} FROM events ORDER BY time_us").fetchall())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_counts_and_sums_equal_window_queries_of_sqlite(seed):
    features = FeatureSet(
        "sql",
        tuple(
            Feature(f"{what}_{window}", what, entity="user", window=window, current=True)
            for window in WINDOWS_US
            for what in ("count", "sum")
        ),
        ring_cap=1_024,
    )
    table = random_table(seed, 600)
    driver = Driver(features)
    rows = np.array(
        [
            driver.observe(Event(f"t{i}", t, amount_minor=a, texts={"user_id": u}))[1]
            for i, (t, u, a) in enumerate(table)
        ]
    )

    expected = answers_of_sqlite(table).astype(np.float64)
    expected[:, 1::2] /= 100.0

    assert np.array_equal(expected.astype(np.float32), rows)
