"""
Question   How long does a caller wait for a whole decision, here and at the service that most teams write?
Workload   Transactions of 250 customers of the Fraud Detection Handbook, a month of history remembered; 32 window features,
           300 trees of depth 6, and one in twenty is not approved and therefore explained.
Timed      From the mapping to the decision: `Scorer.score`, and a service of pandas, Redis on the loopback interface, XGBoost
           and `shap` in the caller's own process, which spares it the hop to a server.
Not timed  Training, opening, loading history.
Check      Margins are the same bits and outcomes the same, for every transaction; contributions agree.
Gate       gates.toml: between the fastest calls of a round.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import compile_with_features
from _report import hold, report
from _turns import take_turns
from peers import windows
from peers.service import PlainService, redis_server

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.training.replay import replay

N_USERS = 250
CHECKED = 100
ROUNDS = 20
PER_ROUND = 20


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    with redis_server() as port:
        if port is None and os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed")
        if port is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        yield port


def _train(rows: np.ndarray) -> Any:
    import xgboost

    random = np.random.default_rng(3)
    suspicion = rows[:, windows.NAMES.index("user_sum_1d")] / rows[:, windows.NAMES.index("user_mean_30d")]
    labels = random.random(len(rows)) < 1 / (1 + np.exp(2 - suspicion / 2))
    settings = {
        "objective": "binary:logistic",
        "max_depth": 6,
        "eta": 0.02,
        "lambda": 0.0,
        "base_score": 0.1,
        "nthread": 1,
    }
    return xgboost.train(settings, xgboost.DMatrix(rows, labels.astype(np.float32)), 300)


def _transactions(events: windows.Events) -> list[dict[str, Any]]:
    return [
        {
            "transaction_id": f"t-{i}",
            "user_id": f"u-{events.user[i]}",
            "merchant_id": f"m-{events.merchant[i]}",
            "amount": f"{events.amount[i]:.2f}",
            "currency": "EUR",
            "event_time_us": int(events.time_us[i]),
        }
        for i in range(len(events))
    ]


def test_a_whole_decision_costs_a_fraction_of_the_usual_service_s(
    benchmark: Any, events: windows.Events, redis_port: int, tmp_path: Path
) -> None:
    events = events.take(events.user < N_USERS)
    n_timed = ROUNDS * PER_ROUND
    n_history = len(events) - CHECKED - n_timed
    transactions = _transactions(events)
    rows = replay(events.take(slice(n_history)).columns(), windows.feature_set(), Vocabulary()).rows
    booster = _train(rows)
    scores = booster.inplace_predict(rows)
    bands = ScoreBands(review=float(np.quantile(scores, 0.95)), decline=float(np.quantile(scores, 0.99)))

    model = compile_with_features(
        bytes(booster.save_raw("ubj")),
        tmp_path / "windows",
        windows.feature_set(),
        Vocabulary(),
        PolicySpec(bands=bands),
    )
    service = PlainService(redis_port, booster, review=bands.review or 1.0, decline=bands.decline or 1.0)
    service.remember(transactions[:n_history])
    with Scorer.open(ScorerConfig(model=model)) as scorer:
        for transaction in transactions[:n_history]:
            scorer.score(transaction)
        decided: list[Any] = []
        answered: list[Any] = []
        for transaction in transactions[n_history : n_history + CHECKED]:
            _check_contributions(scorer, service, transaction, decided, answered)
        work = [
            transactions[first : first + PER_ROUND]
            for first in range(n_history + CHECKED, len(transactions), PER_ROUND)
        ]

        turns = take_turns(
            benchmark,
            {
                "fraudsdk": lambda transaction: decided.append(scorer.score(transaction)),
                "pandas + Redis + XGBoost + SHAP": lambda transaction: answered.append(service.score(transaction)),
            },
            work,
            warm=False,
            fastest=True,
        )

    for decision, answer in zip(decided, answered, strict=True):
        assert (decision.outcome.name, np.float32(decision.margin)) == (answer.outcome, np.float32(answer.margin))
        assert not decision.degraded
    assert {"APPROVE", "REVIEW"} <= {answer.outcome for answer in answered}
    question = "a whole decision, 32 window features, 300x6"
    report(question, turns.figures())
    hold(question, turns.ratios())


def _check_contributions(
    scorer: Scorer, service: PlainService, transaction: dict[str, Any], decided: list[Any], answered: list[Any]
) -> None:
    explained = {feature.name: feature.contribution for feature in scorer.explain(transaction).features}
    decided.append(scorer.score(transaction))
    answered.append(service.score(transaction))
    contributions = answered[-1].contributions
    if contributions is not None:
        np.testing.assert_allclose([explained[name] for name in windows.NAMES], contributions, atol=1e-4)
