"""
Question   How many transactions a second does one core decide on, a table at a time?
Workload   96,000 simulated transactions of 4,000 users, 0.5 % of them fraud (seed 12), the reference features, 300 trees of
           depth 6, as Arrow tables in order of time.  The first 32,000 are history.
Timed      Processor time of Scorer.score_batch(table): encode, state, features, forest, policy, reasons.  Alone with garbage
           collection; then also with each row made a `Decision`.
Not timed  Opening; making tables and mappings; history.
Compare    Scorer.score on the same rows as mappings, with a memory of its own.  XGBoost predicting the rows, whose features
           it is given.
Check      score and score_batch give the same decisions, and their margins are XGBoost's bits.
Gate       gates.toml: a row of a table against a row by itself, and against a mere prediction.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import booster_of
from _report import hold, report
from _turns import take_turns

from fraudsdk import Decisions, Scorer, ScorerConfig

SENT_LATER = ("is_fraud", "label_time", "fraud_pattern")
N_HISTORY = 32_000
N_TIMED = 64_000
PER_TABLE = 4_000
PER_HISTORY = 1_000
TABLE_SIZES = (1_000, 4_000, 16_000)
N_PASSES = 7


@pytest.fixture(scope="module")
def sent(simulated: Any) -> Any:
    """What a host sends, in order of time."""
    from fraudsdk.simulation import SimulationSpec, simulate

    columns = simulate(SimulationSpec(transactions=N_HISTORY + N_TIMED, users=4_000, days=45, seed=12))
    order = np.argsort(columns["event_time"], kind="stable")
    return type(simulated)({name: values[order] for name, values in columns.items() if name not in SENT_LATER})


@pytest.fixture(scope="module")
def table(sent: Any) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in sent.columns.items()})


@pytest.mark.quick
def test_a_row_of_a_table_costs_less_than_a_row_by_itself_and_than_a_mere_prediction(
    benchmark: Any, sent: Any, table: Any, simulated: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    from fraudsdk.features.catalogue import reference_feature_set
    from fraudsdk.training.replay import replay

    booster = booster_of(catalogue_model)
    replayed = replay(sent.columns, reference_feature_set("EUR"), simulated.vocabulary, hash_key=hash_key)
    work = [
        (
            table.slice(first, PER_TABLE),
            sent.transactions(*range(first, first + PER_TABLE)),
            replayed.rows[first:][:PER_TABLE],
        )
        for first in range(N_HISTORY, N_HISTORY + N_TIMED, PER_TABLE)
    ]
    config = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    of_tables: list[Decisions] = []
    one_by_one: list[Any] = []
    predicted: list[Any] = []
    with Scorer.open(config) as batch, Scorer.open(config) as single:
        contestants = {
            "score_batch, Arrow table": lambda item: of_tables.append(batch.score_batch(item[0])),
            "score, one by one": lambda item: one_by_one.append([single.score(mapping) for mapping in item[1]]),
            "XGBoost inplace_predict": lambda item: predicted.append(
                booster.inplace_predict(item[2], predict_type="margin")
            ),
        }
        for first in range(0, N_HISTORY, PER_HISTORY):
            for scorer in (batch, single):
                scorer.score_batch(table.slice(first, PER_HISTORY))
        turns = take_turns(benchmark, contestants, [[item] for item in work], warm=False, clock=time.process_time_ns)

    assert of_tables == one_by_one
    assert not any(decision.degraded for decisions in one_by_one for decision in decisions)
    for first, decisions, margins in zip(
        range(N_HISTORY, N_HISTORY + N_TIMED, PER_TABLE), of_tables, predicted, strict=True
    ):
        judged = replayed.scored[first:][:PER_TABLE]
        assert decisions.margins[judged].astype(np.float32).tobytes() == margins[judged].astype(np.float32).tobytes()
    question = "score_batch, per transaction"
    per_second = {name: 1e9 * PER_TABLE / float(ns.mean()) for name, ns in turns.elapsed_ns.items()}
    figures = turns.figures(PER_TABLE)
    report(question, {name: values | {"rows_per_s": per_second[name]} for name, values in figures.items()})
    hold(question, turns.ratios())


def test_how_many_transactions_a_second_one_core_decides_on(table: Any, catalogue_model: Path, hash_key: bytes) -> None:
    config = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    contestants: dict[str, tuple[int, Callable[[Decisions], Any]]] = {
        f"tables of {size:,}{looked_at}": (size, take)
        for looked_at, take in {"": len, ", each made a Decision": list}.items()
        for size in TABLE_SIZES
    }
    # A pass is all time of all its rows.  By turns, and several: a neighbour on the machine takes the caches for seconds at a time.
    passes: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(N_PASSES):
        for name, (size, take) in contestants.items():
            passes[name].append(_pass_ns(table, size, take, config) / N_TIMED / 1e3)
    figures = {
        name: {
            "n": float(N_PASSES),
            "min_us": min(per_row_us),
            "p50_us": float(np.median(per_row_us)),
            "max_us": max(per_row_us),
            "rows_per_s": 1e6 / min(per_row_us),
            "p50_rows_per_s": 1e6 / float(np.median(per_row_us)),
        }
        for name, per_row_us in passes.items()
    }
    report("score_batch, alone", figures)


def _pass_ns(table: Any, size: int, take: Callable[[Decisions], Any], config: ScorerConfig) -> int:
    """Processor time of all tables, one after another, in a memory that knows the history."""
    with Scorer.open(config) as scorer:
        for first in range(0, N_HISTORY, PER_HISTORY):
            scorer.score_batch(table.slice(first, PER_HISTORY))
        started = time.process_time_ns()
        for first in range(N_HISTORY, N_HISTORY + N_TIMED, size):
            take(scorer.score_batch(table.slice(first, size)))
        return time.process_time_ns() - started
