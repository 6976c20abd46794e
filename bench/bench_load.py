"""
Question   How long does a caller wait under load, and what do feedback, garbage collection and a model swap add?
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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class World:
    """What a scorer is opened with, and what is sent to it."""

    config: ScorerConfig
    transactions: list[dict[str, Any]]


# What goes on beside the callers, again and again until they are done: what, and seconds between.
Disturbance = tuple[Callable[[Scorer, World, int], Any], float]


def _feedback(scorer: Scorer, world: World, k: int) -> None:
    scorer.feedback(world.transactions[k % N_HISTORY]["transaction_id"], is_fraud=k % 50 == 0)


def _collect(scorer: Scorer, world: World, k: int) -> None:
    gc.collect()


def _swap(scorer: Scorer, world: World, k: int) -> None:
    # By its path: the artefact is read, verified and warmed up each time, as it is for an operator.
    assert world.config.model is not None
    scorer.swap_model(world.config.model)


DISTURBANCES: Mapping[str, Disturbance | None] = {
    "nothing else": None,
    "1,000 labels a second": (_feedback, 0.001),
    "a full collection every 500 ms": (_collect, 0.5),
    "a model swap every 200 ms": (_swap, 0.2),
}


@pytest.fixture(scope="module")
def transactions(traffic: Any, traffic_replayed: Any) -> list[dict[str, Any]]:
    return list(traffic.transactions(*traffic_replayed.order[: N_HISTORY + N_TIMED]))


def test_callers_on_sixteen_threads_wait_less_than_for_one_row_of_xgboost(
    benchmark: Any, transactions: list[dict[str, Any]], traffic_replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    import xgboost

    booster = xgboost.Booster(model_file=str(catalogue_model / "model.ubj"))
    booster.set_param({"nthread": 1})
    world = World(ScorerConfig(model=catalogue_model, hash_key=hash_key), transactions)
    waited, called = {}, {}

    def by_xgboost(i: int) -> Any:
        return booster.inplace_predict(traffic_replayed.rows[i : i + 1], predict_type="margin")

    def all_of_it() -> None:
        for name, disturbance in DISTURBANCES.items():
            waited[name], called[name] = _scored(world, disturbance)
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


def _scored(world: World, disturbance: Disturbance | None) -> tuple[np.ndarray, np.ndarray]:
    decisions: dict[int, Any] = {}
    with Scorer.open(world.config) as scorer:
        for transaction in world.transactions[:N_HISTORY]:
            scorer.score(transaction)

        def score(i: int) -> None:
            decisions[i] = scorer.score(world.transactions[i])

        done = threading.Event()
        beside = threading.Thread(target=_disturb, args=(scorer, world, disturbance, done))
        beside.start()
        try:
            elapsed = _on_schedule(score)
        finally:
            done.set()
            beside.join()
    assert N_TIMED == len(decisions)
    assert all(decisions[i].transaction_id == world.transactions[i]["transaction_id"] for i in decisions)
    assert not any(decision.degraded or decision.duplicate for decision in decisions.values())
    return elapsed


def _disturb(scorer: Scorer, world: World, disturbance: Disturbance | None, done: threading.Event) -> None:
    if disturbance is None:
        return
    what, pause_s = disturbance
    k = 0
    while not done.wait(pause_s):
        what(scorer, world, k)
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
