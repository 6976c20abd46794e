"""
Question   How fast are window features, beside engines that see whole columns?  And how fast is a replay of the catalogue?
Workload   The first 300,000 transactions of the Fraud Detection Handbook (made up in its manner where the file is absent);
           count, sum, mean and largest amount of a user and of a merchant over 1 h, 1 d, 7 d and 30 d: 32 features.
Timed      Processor time of all rows, from columns in each one's own form to feature columns; one thread, in turns.  Ours gives
           the rows that a scorer would have seen online, in order; theirs cannot.
Not timed  Loading; hashing identifiers, which the table's own engines are spared by integer keys.  `replay` whole, with
           encoding, is timed on a line of its own.
Compare    DuckDB's window functions, Polars' rolling expressions.
Check      All three give the same 32 columns: counts and maxima exactly, sums and means to float32.
Gate       gates.toml.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from _report import hold, report
from _turns import take_turns
from peers import windows

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.training.replay import Replayed, replay

ROUNDS = 5
MAX_ENTITIES = 20_000


def test_windows_cost_less_than_in_engines_that_see_whole_columns(benchmark: Any, events: windows.Events) -> None:
    replayed = replay(events.columns(), windows.feature_set(), Vocabulary())
    duckdb, polars = windows.DuckDBWindows(events), windows.PolarsWindows(events)
    for peer in (duckdb, polars):
        _check_equal(replayed, peer.compute())

    def ours(_: Any) -> Any:
        # From an empty memory each time, as they start; of the table's size, as theirs is.
        engine = FeatureEngine(
            windows.feature_set(), Vocabulary(), max_entities=MAX_ENTITIES, journal_capacity=len(events)
        )
        return engine.replay(replayed.encoded.ints, replayed.encoded.numbers)

    contestants = {"fraudsdk, encoded columns": ours, "DuckDB": duckdb.compute, "Polars": polars.compute}
    turns = take_turns(benchmark, contestants, [[None]] * ROUNDS, warm=False, clock=time.process_time_ns)

    question = "window features, per row"
    report(question, turns.figures(len(events)))
    hold(question, turns.ratios())


def _check_equal(replayed: Replayed, theirs: dict[str, np.ndarray]) -> None:
    assert replayed.scored.all()
    for place, name in enumerate(windows.NAMES):
        own, other = replayed.rows[:, place], np.asarray(theirs[name], np.float64)
        if "_count_" in name or "_max_" in name:
            assert np.array_equal(own, other.astype(np.float32)), name
        else:
            np.testing.assert_allclose(own, other, rtol=3e-7, err_msg=name)


def test_a_replay_of_the_catalogue_costs_less_per_feature_than_a_window_of_duckdb(
    benchmark: Any, events: windows.Events
) -> None:
    columns, catalogue = events.columns(), reference_feature_set("EUR")
    duckdb = windows.DuckDBWindows(events)
    replayed = replay(columns, catalogue, Vocabulary())
    encoded = replayed.encoded
    n, n_features = len(events), len(catalogue.names)

    def whole() -> float:
        started = time.process_time()
        replay(columns, catalogue, Vocabulary())
        return time.process_time() - started

    def kernel() -> float:
        engine = FeatureEngine(catalogue, Vocabulary())
        started = time.process_time()
        engine.replay(encoded.ints, encoded.numbers)
        return time.process_time() - started

    def peer() -> float:
        started = time.process_time()
        duckdb.compute()
        return time.process_time() - started

    taken_s = benchmark.pedantic(lambda: [(whole(), kernel(), peer()) for _ in range(3)], rounds=1)
    whole_s, kernel_s, peer_s = np.median(taken_s, axis=0)
    ratios = [(p / len(windows.NAMES)) / (k / n_features) for _, k, p in taken_s]

    question = "replay of the catalogue, Handbook data"
    report(
        question,
        {
            f"replay, {n_features} features": _rate(n, whole_s),
            "its kernel": _rate(n, kernel_s),
            f"DuckDB, {len(windows.NAMES)} windows": _rate(n, peer_s),
        },
    )
    hold(question, {"DuckDB, per feature": float(np.median(ratios))})


def _rate(n: int, elapsed_s: float) -> dict[str, float]:
    return {"rows_per_s": n / elapsed_s, "us_per_row": elapsed_s / n * 1e6}
