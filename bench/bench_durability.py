"""
Question   What does it cost to keep state on disk, and how long does it take to have it back?
Workload   The transactions and model of bench_score.py.
Timed      Scorer.score(mapping) with a state directory and durability="interval": on disk within some 10 ms.  Each durability
           by itself.  Opening again, from the log and from a snapshot.
Not timed  Opening and warming up; the first 12,000 transactions.
Compare    The same in memory only; and in memory with each encoded transaction inserted into SQLite (WAL, synchronous=NORMAL),
           as a host would that had no log.
Check      All give the same decisions, and what is recovered is what was remembered, byte for byte.
Gate       gates.toml: in memory against kept, and SQLite against kept.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import hold, percentiles, report
from _turns import take_turns

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.layout import META_BUMP
from fraudsdk.scorer import kept_state

N_HISTORY = 12_000
N_TIMED = 8_000
N_SYNC = 400
PER_ROUND = 100


class WithSQLite:
    """A scorer in memory, and a table that every transaction is inserted into."""

    def __init__(self, scorer: Scorer, path: Path) -> None:
        self._scorer = scorer
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute("CREATE TABLE events (ints BLOB, numbers BLOB, score REAL, outcome TEXT)")

    def score(self, mapping: dict[str, Any]) -> Any:
        decision = self._scorer.score(mapping)
        encoded = (self._scorer._ints.tobytes(), self._scorer._numbers.tobytes())
        self._database.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?)", (*encoded, decision.score, decision.outcome.value)
        )
        return decision


@pytest.fixture(scope="module")
def transactions(traffic: Any, traffic_replayed: Any) -> list[dict[str, Any]]:
    return list(traffic.transactions(*traffic_replayed.order[: N_HISTORY + N_TIMED + N_SYNC]))


def remembered(scorer: Scorer) -> bytes:
    memory = scorer._engine.memory
    return memory.pool[: memory.meta[META_BUMP]].tobytes()


@pytest.mark.quick
def test_keeping_state_costs_little(
    benchmark: Any, transactions: list[dict[str, Any]], catalogue_model: Path, hash_key: bytes, tmp_path: Path
) -> None:
    in_memory = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    kept = ScorerConfig(model=catalogue_model, hash_key=hash_key, state_dir=tmp_path / "state")
    with Scorer.open(kept) as ours, Scorer.open(in_memory) as plain, Scorer.open(in_memory) as beside:
        with_sqlite = WithSQLite(beside, tmp_path / "events.sqlite")
        decided: dict[str, list[Any]] = {"kept": [], "memory": [], "sqlite": []}
        contestants = {
            "kept, interval": lambda mapping: decided["kept"].append(ours.score(mapping)),
            "in memory": lambda mapping: decided["memory"].append(plain.score(mapping)),
            "in memory, and SQLite": lambda mapping: decided["sqlite"].append(with_sqlite.score(mapping)),
        }
        for scorer in (ours, plain, beside):
            scorer.score_batch(transactions[:N_HISTORY])
        timed = transactions[N_HISTORY : N_HISTORY + N_TIMED]
        work = [timed[first : first + PER_ROUND] for first in range(0, N_TIMED, PER_ROUND)]
        turns = take_turns(benchmark, contestants, work, warm=False)
        assert decided["kept"] == decided["memory"] == decided["sqlite"]
        assert not any(decision.degraded for decision in decided["kept"])
        state = remembered(plain)

    with Scorer.open(kept) as again:
        assert state == remembered(again)
    question = "a decision whose state is kept"
    report(question, turns.figures())
    hold(question, turns.ratios())


def test_on_disk_before_the_answer(
    transactions: list[dict[str, Any]], catalogue_model: Path, hash_key: bytes, tmp_path: Path
) -> None:
    figures = {}
    for durability in ("none", "interval", "sync"):
        config = ScorerConfig(
            model=catalogue_model, hash_key=hash_key, state_dir=tmp_path / durability, durability=durability
        )
        with Scorer.open(config) as scorer:
            scorer.score_batch(transactions[:N_HISTORY])
            elapsed_ns = []
            for mapping in transactions[N_HISTORY : N_HISTORY + N_SYNC]:
                started = time.perf_counter_ns()
                decision = scorer.score(mapping)
                elapsed_ns.append(time.perf_counter_ns() - started)
                assert not decision.degraded
        figures[durability] = percentiles(np.array(elapsed_ns, np.float64))
    report("a decision, by durability", figures)


def test_having_it_back(
    transactions: list[dict[str, Any]],
    catalogue_model: Path,
    hash_key: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figures = {}
    for what, least in {"from the log": 10**9, "from a snapshot": 0}.items():
        monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", least)
        config = ScorerConfig(model=catalogue_model, hash_key=hash_key, state_dir=tmp_path / what)
        with Scorer.open(config) as scorer:
            scorer.score_batch(transactions)
            state = remembered(scorer)
            n_records = scorer.counters()["logged_changes"]
        started = time.perf_counter_ns()
        with Scorer.open(config) as scorer:
            elapsed_ns = time.perf_counter_ns() - started
            assert state == remembered(scorer)
        started = time.perf_counter_ns()
        with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)):
            empty_ns = time.perf_counter_ns() - started
        taken_s = max(elapsed_ns - empty_ns, 1) / 1e9
        n_bytes = sum(
            path.stat().st_size
            for path in (tmp_path / what).iterdir()
            if path.suffix == (".fslog" if least else ".fssnap")
        )
        figures[what] = {
            "n": float(n_records),
            "opening_ms": elapsed_ns / 1e6,
            "more than empty_ms": taken_s * 1e3,
            "rows_per_s": n_records / taken_s,
            "bytes per change": n_bytes / n_records,
        }
    report("state of 20,400 transactions, opened again", figures)
