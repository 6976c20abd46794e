"""
Windows over (t - width, t] of a user's and a merchant's amounts, by engines that see whole columns; one thread each.

Both get integer keys and times, in their own columns, before anything is timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fraudsdk.features.spec import Feature, FeatureSet

HANDBOOK: Final = Path(__file__).resolve().parents[3] / "shared" / "data" / "fdh_raw_2018-04-01_2018-09-04.parquet"
HOUR_US: Final = 3_600_000_000
WINDOWS_US: Final = {"1h": HOUR_US, "1d": 24 * HOUR_US, "7d": 168 * HOUR_US, "30d": 720 * HOUR_US}
ENTITIES: Final = ("user", "merchant")
AGGREGATES: Final = ("count", "sum", "mean", "max")
NAMES: Final = tuple(
    f"{entity}_{aggregate}_{window}" for entity in ENTITIES for window in WINDOWS_US for aggregate in AGGREGATES
)


@dataclass(frozen=True, slots=True)
class Events:
    """
    Attributes
    ----------
    time_us : int64[n]
        Increasing, no two alike: engines differ in what rows of one instant see of each other.
    user, merchant : int64[n]
    amount : float64[n]
        Major units, two decimals.
    """

    time_us: np.ndarray
    user: np.ndarray
    merchant: np.ndarray
    amount: np.ndarray

    def __len__(self) -> int:
        return len(self.time_us)

    def take(self, rows: np.ndarray | slice) -> Events:
        return Events(*(getattr(self, name)[rows] for name in Events.__slots__))

    def columns(self) -> dict[str, np.ndarray]:
        """As `fraudsdk` names them."""
        n = len(self)
        return {
            "transaction_id": np.arange(n),
            "user_id": self.user,
            "merchant_id": self.merchant,
            "amount": self.amount,
            "currency": np.full(n, "EUR", dtype=object),
            "event_time": self.time_us.astype("datetime64[us]"),
        }


def handbook_events(n: int) -> Events:
    """The first transactions of the Fraud Detection Handbook; made up in its manner where the file is absent."""
    return _of_the_handbook(n) if HANDBOOK.exists() else _made_up(n)


def _of_the_handbook(n: int) -> Events:
    from fraudsdk.training.tables import read_columns

    table = {name: values[:n] for name, values in read_columns(HANDBOOK).items()}
    time_us = _apart(table["TX_DATETIME"].astype("datetime64[us]").astype(np.int64))
    amount = np.round(table["TX_AMOUNT"].astype(np.float64), 2)
    return Events(time_us, table["CUSTOMER_ID"], table["TERMINAL_ID"], amount)


def _made_up(n: int) -> Events:
    """As many customers, terminals and transactions a day as the Handbook's."""
    random = np.random.default_rng(11)
    seconds = np.sort(random.integers(0, 86_400 * n // 9_700, n))
    rate = random.gamma(2.0, size=5_000)
    return Events(
        _apart(1_522_540_800_000_000 + 1_000_000 * seconds),
        random.choice(5_000, n, p=rate / rate.sum()),
        random.integers(0, 10_000, n),
        np.round(random.gamma(2.0, 27.0, n) + 0.01, 2),
    )


def _apart(time_us: np.ndarray) -> np.ndarray:
    """Rows of one second, a microsecond apart."""
    return time_us + np.arange(len(time_us)) - np.searchsorted(time_us, time_us)


def feature_set() -> FeatureSet:
    """The windows as a declaration."""
    return FeatureSet(
        "windows",
        tuple(
            Feature(name, aggregate, entity=entity, window=window, current=True)
            for name in NAMES
            for entity, aggregate, window in [name.split("_")]
        ),
        currency="EUR",
    )


class DuckDBWindows:
    """One query, one pass per window."""

    def __init__(self, events: Events) -> None:
        import duckdb
        import pyarrow

        # Named by the query that reads it.
        columns = pyarrow.table({name: getattr(events, name) for name in Events.__slots__})
        self._database = duckdb.connect()
        self._database.execute("SET threads = 1")
        self._database.register("columns", columns)
        self._database.execute("CREATE TABLE events AS SELECT * FROM columns")
        windows = ", ".join(
            f"{entity}_{window} AS (PARTITION BY {entity} ORDER BY time_us "
            f"RANGE BETWEEN {width_us - 1} PRECEDING AND CURRENT ROW)"
            for entity in ENTITIES
            for window, width_us in WINDOWS_US.items()
        )
        functions = {"count": "count(*)", "sum": "sum(amount)", "mean": "avg(amount)", "max": "max(amount)"}
        selected = ", ".join(
            f"{functions[aggregate]} OVER {entity}_{window} AS {name}"
            for name in NAMES
            for entity, aggregate, window in [name.split("_")]
        )
        self._query = f"SELECT {selected} FROM events WINDOW {windows} ORDER BY time_us"

    def compute(self, _: Any = None) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = self._database.execute(self._query).fetchnumpy()
        return found


class PolarsWindows:
    """Rolling expressions over each entity; a mean is its sum by its count, which is quicker than to ask for it."""

    def __init__(self, events: Events) -> None:
        import polars

        assert polars.thread_pool_size() == 1, "POLARS_MAX_THREADS must be 1 before Polars is imported"
        self._frame = polars.DataFrame({name: getattr(events, name) for name in Events.__slots__})
        self._frame = self._frame.with_columns(one=polars.lit(1.0))
        self._rolled, self._means = {}, {}
        for entity in ENTITIES:
            for window, width_us in WINDOWS_US.items():
                options = {"by": "time_us", "window_size": f"{width_us}i", "closed": "right"}
                count, total, mean, top = (f"{entity}_{aggregate}_{window}" for aggregate in AGGREGATES)
                self._rolled[count] = polars.col("one").rolling_sum_by(**options).over(entity)
                self._rolled[total] = polars.col("amount").rolling_sum_by(**options).over(entity)
                self._rolled[top] = polars.col("amount").rolling_max_by(**options).over(entity)
                self._means[mean] = polars.col(total) / polars.col(count)

    def compute(self, _: Any = None) -> dict[str, np.ndarray]:
        found = self._frame.lazy().select(**self._rolled).with_columns(**self._means).collect()
        return {name: found[name].to_numpy() for name in NAMES}
