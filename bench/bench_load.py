"""
Question   How long does a caller wait under load, and what do feedback, garbage collection and other work add?
Workload   The transactions and model of bench_score.py, from 16 threads of one process on a schedule of 2,000 a second.
Timed      From the scheduled moment to the decision, so that waiting counts (no coordinated omission); and the call alone.
           Garbage collection is on.
Not timed  Opening; the first 2,000 transactions.
Compare    The same threads and schedule with XGBoost predicting one row whose features it is given.
Check      Every transaction gets a decision of its own, none of them degraded.
Gate       gates.toml: the call alone, against XGBoost's.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import hold, percentiles, report

from fraudsdk import Scorer, ScorerConfig

THREADS = 16
PER_SECOND = 2_000
N_HISTORY = 2_000
N_TIMED = 6_000

Score = Callable[[int], Any]
# What goes on beside the callers, called again and again until they are done: name -> (what, seconds between).
Disturbance = tuple[Callable[[Scorer, list[dict[str, Any]], int], Any], float]


def _feedback(scorer: Scorer, transactions: list[dict[str, Any]], k: int) -> None:
    scorer.feedback(transactions[k % N_HISTORY]["transaction_id"], is_fraud=k % 50 == 0)


def _collect(scorer: Scorer, transactions: list[dict[str, Any]], k: int) -> None:
    gc.collect()


DISTURBANCES: Mapping[str, Disturbance | None] = {
    "nothing else": None,
    "1,000 labels a second": (_feedback, 0.001),
    "a full collection every 500 ms": (_collect, 0.5),
}


@pytest.fixture(scope="module")
def transactions(simulated: Any, replayed: Any) -> list[dict[str, Any]]:
    return list(simulated.transactions(*replayed.order[: N_HISTORY + N_TIMED]))


def test_callers_on_sixteen_threads_wait_less_than_for_one_row_of_xgboost(
    benchmark: Any, transactions: list[dict[str, Any]], replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=str(catalogue_model / "model.ubj"))
    booster.set_param({"nthread": 1})
    waited, called = {}, {}

    def by_xgboost(i: int) -> Any:
        return booster.inplace_predict(replayed.rows[i : i + 1], predict_type="margin")

    def all_of_it() -> None:
        for name, disturbance in DISTURBANCES.items():
            waited[name], called[name] = _scored(catalogue_model, hash_key, transactions, disturbance)
        name = "XGBoost inplace_predict, one row"
        waited[name], called[name] = _on_schedule(by_xgboost)

    benchmark.pedantic(all_of_it, rounds=1)

    question = "16 threads, 2,000 transactions a second"
    report(
        question,
        {f"{name}: waiting included": percentiles(elapsed) for name, elapsed in waited.items()}
        | {f"{name}: the call alone": percentiles(elapsed) for name, elapsed in called.items()},
    )
    own = np.median(called["nothing else"])
    hold(
        question, {name: float(np.median(elapsed) / own) for name, elapsed in called.items() if name != "nothing else"}
    )


def _scored(
    model: Path, hash_key: bytes, transactions: list[dict[str, Any]], disturbance: Disturbance | None
) -> tuple[np.ndarray, np.ndarray]:
    decisions: dict[int, Any] = {}
    with Scorer.open(ScorerConfig(model=model, hash_key=hash_key)) as scorer:
        for transaction in transactions[:N_HISTORY]:
            scorer.score(transaction)

        def score(i: int) -> None:
            decisions[i] = scorer.score(transactions[i])

        done = threading.Event()
        beside = threading.Thread(target=_disturb, args=(scorer, transactions, disturbance, done))
        beside.start()
        try:
            elapsed = _on_schedule(score)
        finally:
            done.set()
            beside.join()
    assert N_TIMED == len(decisions)
    assert all(decisions[i].transaction_id == transactions[i]["transaction_id"] for i in decisions)
    assert not any(decision.degraded or decision.duplicate for decision in decisions.values())
    return elapsed


def _disturb(
    scorer: Scorer, transactions: list[dict[str, Any]], disturbance: Disturbance | None, done: threading.Event
) -> None:
    if disturbance is None:
        return
    what, pause_s = disturbance
    k = 0
    while not done.wait(pause_s):
        what(scorer, transactions, k)
        k += 1


def _on_schedule(score: Score) -> tuple[np.ndarray, np.ndarray]:
    """Nanoseconds from the scheduled moment, and from the call, of every timed transaction."""
    waited, called = np.zeros(N_TIMED), np.zeros(N_TIMED)
    start_ns = time.perf_counter_ns() + 50_000_000
    failures: list[BaseException] = []

    def caller(first: int) -> None:
        try:
            for k in range(first, N_TIMED, THREADS):
                due_ns = start_ns + k * 1_000_000_000 // PER_SECOND
                time.sleep(max(0, due_ns - time.perf_counter_ns()) / 1e9)
                called_ns = time.perf_counter_ns()
                score(N_HISTORY + k)
                done_ns = time.perf_counter_ns()
                waited[k], called[k] = done_ns - due_ns, done_ns - called_ns
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=caller, args=(first,)) for first in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    return waited, called
