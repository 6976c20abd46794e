"""
Question   How many transactions a second does a replay of the reference features do, and one observation at a time?
Workload   150,000 simulated transactions (seed 11, 36 columns), the reference features, state growing from empty; and, where the
           table is, the Handbook's 1,504,628 transactions.
Timed      The whole replay of a table in memory (encode, sort, deliver labels, compute); its kernel alone; and
           FeatureEngine.observe one by one.
Not timed  Reading the file, warming up.
Compare    pandas computing three of the features (count, sum and mean of a user over a day) the usual way, same run.
Check      Rows one by one are the bytes of the replay; pandas gives the same three columns.
Gate       A feature of a row takes less time in the kernel than in pandas, which only ever sees whole columns.
"""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from _report import percentiles, report
from handbook_table import DATA

from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.simulation import SimulationSpec, simulate
from fraudsdk.training.replay import replay
from fraudsdk.training.tables import read_columns

SPEC = SimulationSpec(transactions=150_000, users=3_000, days=120, fraud_rate=0.01, seed=11)


def test_a_feature_in_the_kernel_costs_less_than_in_pandas(hash_key):
    columns, feature_set = simulate(SPEC), reference_feature_set("EUR")
    vocabulary = Vocabulary.fit(columns)
    many, single = (FeatureEngine(feature_set, vocabulary) for _ in range(2))
    many.warm_up()
    replay({name: column[:20_000] for name, column in columns.items()}, feature_set, vocabulary, hash_key=hash_key)
    started = time.perf_counter()
    replayed = replay(columns, feature_set, vocabulary, hash_key=hash_key)
    whole_s = time.perf_counter() - started
    encoded, n = replayed.encoded, len(replayed.encoded)
    started = time.perf_counter()
    rows, _ = many.replay(encoded.ints, encoded.numbers)
    replay_s = time.perf_counter() - started

    row, observe_ns = np.zeros(single.n_features, np.float32), np.zeros(n)
    ints, numbers = encoded.ints[:1].copy(), encoded.numbers[:1].copy()  # one workspace, as a scorer's thread has
    for i in range(n):
        ints[0], numbers[0] = encoded.ints[i], encoded.numbers[i]
        started_ns = time.perf_counter_ns()
        status, _ = single.observe(ints, numbers, row, record=True)
        observe_ns[i] = time.perf_counter_ns() - started_ns
        assert status != 0 or row.tobytes() == rows[i].tobytes()

    frame = _purchases(encoded, replayed.order, columns)
    started = time.perf_counter()
    rolled = frame.groupby("user", sort=False)["amount"].rolling("1D").agg(["count", "sum", "mean"])
    pandas_s = time.perf_counter() - started
    _check_equal(rolled, frame, rows, feature_set)

    report(
        "replay",
        {
            "observe, one by one": percentiles(observe_ns),
            f"replay of a table, {len(feature_set.names)} features": _rate(n, whole_s),
            "its kernel alone": _rate(n, replay_s),
            "pandas, three features": _rate(len(frame), pandas_s),
            **_handbook(feature_set, hash_key),
        },
    )
    assert replay_s / n / len(feature_set.names) < pandas_s / len(frame) / 3


def _handbook(feature_set, hash_key):
    """The same of the Handbook's table, labels and all; nothing where the table is absent."""
    if not DATA.exists():
        return {}
    columns = ColumnMapping.load("handbook").apply(read_columns(DATA), currency=feature_set.currency)
    started = time.perf_counter()
    replayed = replay(columns, feature_set, Vocabulary(), hash_key=hash_key)
    whole_s = time.perf_counter() - started
    engine, encoded = FeatureEngine(feature_set, Vocabulary()), replayed.encoded
    started = time.perf_counter()
    n_scored = sum(
        int((statuses == 0).sum()) for _, _, statuses in engine.replay_batches(encoded.ints, encoded.numbers)
    )
    kernel_s = time.perf_counter() - started
    assert n_scored == len(encoded)
    n = len(encoded)
    return {
        "the Handbook's table": _rate(n, whole_s),
        "its kernel alone, batch by batch, without labels": _rate(n, kernel_s),
    }


def _rate(n, elapsed_s):
    return {"rows_per_s": n / elapsed_s, "us_per_row": elapsed_s / n * 1e6}


def _purchases(encoded, order, columns):
    """The rows that count as purchases and are never reversed, as pandas wants them."""
    undone = set(columns["original_transaction_id"][columns["original_transaction_id"] != None])  # noqa: E711
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
