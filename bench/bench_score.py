"""
Question   How long does one transaction wait for a decision, everything in process, and where does the time go?
Workload   Simulated transactions with 0.5 % fraud (seed 12), the reference features, 300 trees of depth 6; 12,000
           transactions remembered, each one timed is new.  How many are not approved, and explained, the figures say.
Timed      Scorer.score(mapping): encode, state, features, forest, policy, and exact SHAP for what is not approved.  Garbage
           collection is off, and on in a second run.  Each stage apart, on the same transactions.
Not timed  Opening and warming up; making the mappings.
Compare    XGBoost predicting one row whose features it is given, in turns.
Check      The margins of both are the same bits.
Gate       gates.toml: a whole decision against a mere prediction.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import booster_of
from _report import hold, percentiles, report
from _turns import take_turns

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.domain.decision import Outcome
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.kernels import SCORED
from fraudsdk.model.artefact import load_artefact

N_HISTORY = 12_000
N_TIMED = 8_000
PER_ROUND = 100


@pytest.fixture(scope="module")
def transactions(traffic: Any, traffic_replayed: Any) -> list[dict[str, Any]]:
    return list(traffic.transactions(*traffic_replayed.order[: N_HISTORY + N_TIMED]))


@pytest.mark.quick
def test_a_whole_decision_costs_less_than_one_row_of_xgboost(
    benchmark: Any, transactions: list[dict[str, Any]], traffic_replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    booster = booster_of(catalogue_model)
    decisions = []
    with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
        for i in range(N_HISTORY):
            decision = scorer.score(transactions[i])
            # Until the first label is due both have seen the same; from then on the replay knows more.
            if traffic_replayed.scored[i] and transactions[i]["event_time_us"] < traffic_replayed.label_time_us.min():
                expected = booster.inplace_predict(traffic_replayed.rows[i : i + 1], predict_type="margin")
                assert np.float32(decision.margin).tobytes() == expected.astype(np.float32).tobytes()
        work = [
            [(transactions[i], traffic_replayed.rows[i : i + 1]) for i in range(first, first + PER_ROUND)]
            for first in range(N_HISTORY, N_HISTORY + N_TIMED, PER_ROUND)
        ]
        turns = take_turns(
            benchmark,
            {
                "Scorer.score": lambda item: decisions.append(scorer.score(item[0])),
                "XGBoost inplace_predict, one row": lambda item: booster.inplace_predict(
                    item[1], predict_type="margin"
                ),
            },
            work,
            warm=False,
        )

    assert not any(decision.degraded for decision in decisions)
    elapsed_ns = turns.elapsed_ns["Scorer.score"].ravel()
    approved = np.array([decision.outcome is Outcome.APPROVE for decision in decisions])
    # Else the two lines below would be about a handful of decisions, or about another workload.
    assert 0.0 < 1 - approved.mean() < 0.05
    question = "a whole decision, 300x6"
    report(
        question,
        turns.figures()
        | {
            "of which approved": percentiles(elapsed_ns[approved]) | {"share_percent": 100 * approved.mean()},
            "of which not, and explained": percentiles(elapsed_ns[~approved])
            | {"share_percent": 100 * (1 - approved.mean())},
        },
    )
    hold(question, turns.ratios())


def test_garbage_collection_is_stated(
    benchmark: Any, transactions: list[dict[str, Any]], catalogue_model: Path, hash_key: bytes
) -> None:
    elapsed_ns: dict[bool, np.ndarray] = {}
    for enabled in (False, True):
        with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
            for transaction in transactions[:N_HISTORY]:
                scorer.score(transaction)
            elapsed_ns[enabled] = _one_after_another(scorer, transactions[N_HISTORY:], collect=enabled)
            if enabled:
                benchmark.pedantic(scorer.score, args=(transactions[0],), kwargs={"record": False}, rounds=100)

    question = "a whole decision, garbage collection"
    report(question, {"off": percentiles(elapsed_ns[False]), "on": percentiles(elapsed_ns[True])})
    hold(question, {"off": float(np.median(elapsed_ns[False]) / np.median(elapsed_ns[True]))})


def _one_after_another(scorer: Scorer, transactions: list[dict[str, Any]], *, collect: bool) -> np.ndarray:
    elapsed_ns = np.zeros(len(transactions))
    kept = []
    gc.collect()
    if not collect:
        gc.disable()
    try:
        for i, transaction in enumerate(transactions):
            started = time.perf_counter_ns()
            decision = scorer.score(transaction)
            elapsed_ns[i] = time.perf_counter_ns() - started
            kept.append(decision)  # a host keeps what it is given for a while
    finally:
        gc.enable()
    return elapsed_ns


def test_the_stages_called_apart_take_little_more_than_the_decision(
    benchmark: Any,
    transactions: list[dict[str, Any]],
    simulated: Any,
    traffic_replayed: Any,
    catalogue_model: Path,
    hash_key: bytes,
) -> None:
    stages = _Stages(catalogue_model, traffic_replayed.engine.feature_set, simulated.vocabulary, hash_key)
    with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
        for transaction in transactions[:N_HISTORY]:
            scorer.score(transaction)
            stages.run(transaction)
        whole_ns = np.zeros(N_TIMED)
        taken_ns = np.zeros((N_TIMED, len(_Stages.NAMES)))

        def timed() -> None:
            for i, transaction in enumerate(transactions[N_HISTORY:]):
                started = time.perf_counter_ns()
                scorer.score(transaction)
                whole_ns[i] = time.perf_counter_ns() - started
                taken_ns[i] = stages.run(transaction)

        benchmark.pedantic(timed, rounds=1)

    scored = ~np.isnan(taken_ns).any(axis=1)
    typical_us = np.median(taken_ns[scored], axis=0) / 1e3
    whole_us = float(np.median(whole_ns[scored])) / 1e3
    question = "a whole decision, by stage"
    report(
        question,
        {name: {"p50_us": us} for name, us in zip(_Stages.NAMES, typical_us, strict=True)}
        | {"the rest": {"p50_us": max(0.0, whole_us - typical_us.sum())}, "whole": {"p50_us": whole_us}},
    )
    hold(question, {"whole, to the sum of its stages": float(whole_us / typical_us.sum())})


class _Stages:
    """What the scorer does in one kernel call, one stage and one call after another, over a memory of their own."""

    NAMES = ("read and encode", "state and features", "forest")

    def __init__(self, model: Path, feature_set: Any, vocabulary: Any, hash_key: bytes) -> None:
        self._engine = FeatureEngine(feature_set, vocabulary)
        self._engine.warm_up()
        self._encoder = Encoder(
            self._engine.record_layout, key=hash_key, vocabulary=vocabulary, currency=feature_set.currency
        )
        self._model = load_artefact(model)
        self._model.warm_up()
        self._ints, self._numbers = self._encoder.empty(1)
        self._row = np.full(self._engine.n_features, np.nan, dtype=np.float32)

    def run(self, transaction: dict[str, Any]) -> list[float]:
        """Nanoseconds of each stage, NaN where there is nothing to score."""
        clock = time.perf_counter_ns
        started = clock()
        if not self._encoder.read_native(transaction, self._ints, self._numbers):
            self._encoder.encode(self._encoder.prepare(transaction), self._ints, self._numbers)
        encoded = clock()
        status, _ = self._engine.observe(self._ints, self._numbers, self._row, record=True)
        observed = clock()
        if status != SCORED:
            return [np.nan] * len(self.NAMES)
        self._model.margin(self._row)
        return [encoded - started, observed - encoded, clock() - observed]
