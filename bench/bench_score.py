"""
Question   How long does one transaction wait for a decision, everything in process?
Workload   Simulated transactions (seed 11), the reference features, a small model; each transaction new.
Timed      Scorer.score(mapping): encode, state, features, forest, policy, and SHAP for what is not approved.
Not timed  Opening and warming up; making the mappings.
Compare    The same row by the obvious stack in the same run: the features are given, `xgboost` predicts one row.
Check      The margins of both are the same bits.
Gate       p50 of a whole decision below XGBoost's own one-row prediction: the ratio holds on any machine.
"""

from __future__ import annotations

import time

import numpy as np
from _report import percentiles, report

from fraudsdk import Scorer, ScorerConfig

N = 6_000


def test_a_whole_decision_costs_less_than_one_row_of_xgboost(simulated, replayed, artefact, hash_key):
    import xgboost

    transactions = simulated.transactions(*replayed.order[:N])
    booster = xgboost.Booster(model_file=str(artefact / "model.ubj"))
    booster.set_param({"nthread": 1})
    score_ns, booster_ns = np.zeros(N), np.zeros(N)
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        decisions = []
        for i, transaction in enumerate(transactions):
            started = time.perf_counter_ns()
            decisions.append(scorer.score(transaction))
            score_ns[i] = time.perf_counter_ns() - started
    for i in range(N):
        row = replayed.rows[i : i + 1]
        started = time.perf_counter_ns()
        margin = booster.inplace_predict(row, predict_type="margin")
        booster_ns[i] = time.perf_counter_ns() - started
        # Until the first label is due both have seen the same; from then on the replay knows more.
        if replayed.scored[i] and transactions[i]["event_time_us"] < replayed.label_time_us.min():
            assert np.float32(decisions[i].margin).tobytes() == margin.astype(np.float32).tobytes()

    ours, theirs = percentiles(score_ns), percentiles(booster_ns)
    report("score", {"Scorer.score": ours, "XGBoost inplace_predict, one row": theirs})
    assert ours["p50_us"] < theirs["p50_us"]
