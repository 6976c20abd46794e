"""
Question   How many transactions a second does one core decide on, a table at a time?
Workload   The transactions and model of bench_score.py as Arrow tables of 1,000 rows, in order.
Timed      Processor time of Scorer.score_batch(table), and of Scorer.score on the same rows as mappings, each scorer with a
           memory of its own.
Not timed  Opening; making tables and mappings; the first 8,000 transactions.
Check      Both give the same decisions.
Gate       gates.toml: a row of a table against a row by itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import hold, report
from _turns import take_turns

from fraudsdk import Scorer, ScorerConfig

NOT_SENT = ("is_fraud", "label_time", "fraud_pattern")
PER_TABLE = 1_000
N_TABLES = 24
N_HISTORY_TABLES = 8


@pytest.mark.quick
def test_a_row_of_a_table_costs_less_than_a_row_by_itself(
    benchmark: Any, traffic: Any, traffic_replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    order = traffic_replayed.order[: PER_TABLE * N_TABLES]
    columns = {name: values[order] for name, values in traffic.columns.items() if name not in NOT_SENT}
    table = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
    mappings = traffic.transactions(*order)
    work = [
        (table.slice(first, PER_TABLE), mappings[first : first + PER_TABLE])
        for first in range(0, len(order), PER_TABLE)
    ]
    config = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    of_tables: list[Any] = []
    one_by_one: list[Any] = []
    with Scorer.open(config) as batch, Scorer.open(config) as single:
        contestants = {
            "score_batch, Arrow table": lambda item: of_tables.extend(batch.score_batch(item[0])),
            "score, one by one": lambda item: one_by_one.extend([single.score(mapping) for mapping in item[1]]),
        }
        for item in work[:N_HISTORY_TABLES]:
            for contestant in contestants.values():
                contestant(item)
        turns = take_turns(
            benchmark, contestants, [[item] for item in work[N_HISTORY_TABLES:]], warm=False, clock=time.process_time_ns
        )

    assert of_tables == one_by_one
    assert not any(decision.degraded for decision in of_tables)
    question = "score_batch, per transaction"
    per_second = {name: 1e9 * PER_TABLE / np.median(ns) for name, ns in turns.elapsed_ns.items()}
    figures = turns.figures(PER_TABLE)
    report(question, {name: values | {"rows_per_s": per_second[name]} for name, values in figures.items()})
    hold(question, turns.ratios())
