"""
Question   Below what can no engine in Python go on this machine?
Workload   What a decision cannot do without: reading the fields of a dict, making the decision object, calling compiled code,
           adding 300 leaves in a fixed order, reading memory that no cache holds.
Timed      Each alone, median of rounds.
Compare    The forest and a whole decision are told in times their floors.
Check      Nothing is faster than its floor: a figure below it would be a wrong figure.
Gate       gates.toml: a forest of 300 leaves in times its floor is at least 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _models import MADE, Shelf, make_rows, train_xgboost
from _report import hold, report

from fraudsdk.domain.decision import Decision, Outcome

ROUNDS = 300
# 64 MB: more than a core's share of the last cache.
MEMORY_WORDS = 1 << 23
N_READS = 200_000


def test_nothing_is_faster_than_its_floor(benchmark: Any, simulated: Any, shelf: Shelf, tmp_path: Path) -> None:
    import numba

    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.model.artefact import load_artefact

    @numba.njit("float32(float32[::1])", nogil=True)
    def nothing(row):  # type: ignore[no-untyped-def]
        return row[0]

    @numba.njit("float32(float32[::1])", nogil=True)
    def add_in_order(leaves):  # type: ignore[no-untyped-def]
        total = leaves[0]
        for i in range(1, len(leaves)):
            total += leaves[i]
        return total

    @numba.njit("int64(int64[::1], int64)", nogil=True)
    def chase(following, n):  # type: ignore[no-untyped-def]
        place = 0
        for _ in range(n):
            place = following[place]
        return place

    compile_model(train_xgboost(shelf, "300x6"), tmp_path / "model", name="bench", **MADE)
    model = load_artefact(tmp_path / "model")
    model.warm_up()
    row, leaves = make_rows(1, 30)[0], np.ones(300, np.float32)
    (transaction,) = simulated.transactions(0)
    names = tuple(transaction)
    following = _one_cycle(MEMORY_WORDS)

    def of(call: Callable[[], Any], times: int = 50) -> float:
        return float(np.median([_each_ns(call, times) for _ in range(ROUNDS)]))

    floors_ns = benchmark.pedantic(
        lambda: {
            "calling compiled code with a row": of(lambda: nothing(row)),
            "calling it to add 300 leaves in order": of(lambda: add_in_order(leaves)),
            f"reading {len(names)} fields of a dict": of(lambda: [transaction[name] for name in names]),
            "making a Decision": of(lambda: Decision("t", Outcome.APPROVE, 0.1, -2.0, (), "m/1", "band")),
            "a read that no cache holds": _read_ns(lambda: chase(following, N_READS)),
        },
        rounds=1,
    )
    forest_ns = of(lambda: model.margin(row))

    question = "floors"
    report(question, {name: {"p50_us": ns / 1e3} for name, ns in floors_ns.items()})
    hold(question, {"a forest of 300 leaves": forest_ns / floors_ns["calling it to add 300 leaves in order"]})


def _each_ns(call: Callable[[], Any], times: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - started) / times


def _read_ns(chase: Callable[[], Any]) -> float:
    started = time.process_time_ns()
    chase()
    return (time.process_time_ns() - started) / N_READS


def _one_cycle(n: int) -> np.ndarray:
    """Where to read next, so that every word is read once, in no order, and each read waits for the one before."""
    order = np.random.default_rng(1).permutation(n)
    following = np.empty(n, np.int64)
    following[order] = np.roll(order, -1)
    return following
