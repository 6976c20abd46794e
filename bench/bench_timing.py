"""
Question   What do the histograms cost that are always on?
Workload   The transactions and model of bench_score.py.
Timed      Scorer.score(mapping); the clock reading and count of a stage, a million in a row; computing a transaction's features
           one by one, which is done for one transaction in 1,024.
Not timed  Opening and warming up; the first 4,000 transactions.
Check      As many stages were counted as there were.
Gate       gates.toml: a decision against what timing it costs, four readings and a 1,024th of the features; 33 times is
           3 %.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _lap_kernels import laps
from _report import hold, report

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer.latency import StageLatency
from fraudsdk.scorer.scorer import _TIMED_EVERY

N_HISTORY = 4_000
N_TIMED = 4_000
N_LAPS = 1_000_000
STAGES = 4  # three, and the reading that the first one starts with


@pytest.mark.quick
def test_timing_costs_less_than_three_in_a_hundred(
    traffic: Any, traffic_replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    transactions = traffic.transactions(*traffic_replayed.order[: N_HISTORY + N_TIMED])
    latency = StageLatency()
    laps(latency.words, 1_000)
    started = time.perf_counter_ns()
    laps(latency.words, N_LAPS)
    lap_ns = (time.perf_counter_ns() - started) / N_LAPS
    assert N_LAPS + 1_000 == latency.summaries()["features"].n

    decision_ns, features_ns = np.zeros(N_TIMED), np.zeros(N_TIMED // 16)
    with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
        for transaction in transactions[:N_HISTORY]:
            scorer.score(transaction)
        for i, transaction in enumerate(transactions[N_HISTORY:]):
            started = time.perf_counter_ns()
            scorer.score(transaction)
            decision_ns[i] = time.perf_counter_ns() - started
            if i % 16 == 0:
                started = time.perf_counter_ns()
                scorer._engine.time_features()
                features_ns[i // 16] = time.perf_counter_ns() - started
    cost_ns = STAGES * lap_ns + float(np.median(features_ns)) / _TIMED_EVERY
    whole_ns = float(np.median(decision_ns))
    question = "what timing costs"
    report(
        question,
        {
            "a decision": {"p50_us": whole_ns / 1e3},
            "a stage": {"mean_us": lap_ns / 1e3},
            "features one by one": {"p50_us": float(np.median(features_ns)) / 1e3},
            "timing, of a decision": {"mean_us": cost_ns / 1e3},
        },
    )
    hold(question, {"a decision": whole_ns / cost_ns})
