"""
Question   How many transactions a second does a replay of the reference features do, and one observation at a time?
Workload   Simulated transactions (seed 11), over 100 features.
Timed      FeatureEngine.replay over encoded rows (one kernel call for all), and FeatureEngine.observe one by one.
Not timed  Reading, encoding, warming up.
Compare    pandas computing three of the features (count, sum and mean of a user over a day) the usual way, same run.
Check      Rows one by one are the bytes of the replay; pandas gives the same three columns.
Gate       A feature of a row takes less time in the kernel than in pandas, which only ever sees whole columns.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from _report import percentiles, report

from fraudsdk.features.engine import FeatureEngine


def test_a_feature_in_the_kernel_costs_less_than_in_pandas(simulated, replayed):
    encoded, feature_set = replayed.encoded, replayed.engine.feature_set
    many, single = (FeatureEngine(feature_set, simulated.vocabulary) for _ in range(2))
    many.warm_up()
    n = len(encoded)
    started = time.perf_counter()
    rows, _ = many.replay(encoded.ints, encoded.numbers)
    replay_s = time.perf_counter() - started

    row, observe_ns = np.zeros(single.n_features, np.float32), np.zeros(n)
    for i in range(n):
        ints, numbers = encoded.ints[i : i + 1], encoded.numbers[i : i + 1]
        started_ns = time.perf_counter_ns()
        status, _ = single.observe(ints, numbers, row, record=True)
        observe_ns[i] = time.perf_counter_ns() - started_ns
        assert status != 0 or row.tobytes() == rows[i].tobytes()

    frame = _purchases(encoded, replayed, simulated)
    started = time.perf_counter()
    rolled = frame.groupby("user", sort=False)["amount"].rolling("1D").agg(["count", "sum", "mean"])
    pandas_s = time.perf_counter() - started
    _check_equal(rolled, frame, rows, feature_set)

    report(
        "replay",
        {
            "observe, one by one": percentiles(observe_ns),
            "replay": {
                "rows_per_s": n / replay_s,
                "us_per_row": replay_s / n * 1e6,
                "features": len(feature_set.names),
            },
            "pandas, three features": {"rows_per_s": len(frame) / pandas_s, "us_per_row": pandas_s / len(frame) * 1e6},
        },
    )
    assert replay_s / n / len(feature_set.names) < pandas_s / len(frame) / 3


def _purchases(encoded, replayed, simulated):
    """The rows that count as purchases and are never reversed, as pandas wants them."""
    columns = simulated.columns
    undone = set(columns["original_transaction_id"][columns["original_transaction_id"] != None])  # noqa: E711
    order = replayed.order
    keep = np.array([columns["type"][i] == "authorisation" and columns["direction"][i] != "credit" for i in order])
    users_undone = {columns["user_id"][i] for i in order if columns["transaction_id"][i] in undone}
    keep &= np.array([columns["user_id"][i] not in users_undone for i in order])
    frame = pd.DataFrame(
        {
            "row": np.flatnonzero(keep),
            "user": columns["user_id"][order][keep],
            "amount": encoded.amount_major[keep],
            "time": pd.to_datetime(encoded.ints[keep, 0], unit="us"),
        }
    )
    # pandas resolves ties of one microsecond in its own way: leave them out of the comparison.
    return frame[~frame.duplicated(["user", "time"], keep=False)].set_index("time")


def _check_equal(rolled, frame, rows, feature_set):
    order = frame.groupby("user", sort=False)["row"].apply(lambda rows: rows).to_numpy()
    count = rows[order, feature_set.position("user_count_24h")]
    total = rows[order, feature_set.position("user_amount_24h")]
    ties = rolled["count"].to_numpy() != count

    assert ties.mean() < 0.001
    np.testing.assert_allclose(rolled["sum"].to_numpy()[~ties], total[~ties], rtol=1e-6, atol=1e-2)
