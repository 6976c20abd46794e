"""
What the service counts while it works: numbers in arrays, one set for each thread, added up when somebody looks.

Prometheus' own counters take a lock for each increment.  These take none: a thread writes its own, and a reader may miss an
increment that is just being made.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np

from fraudsdk.domain.decision import Decision, Outcome
from fraudsdk.domain.decisions import Decisions
from fraudsdk.scorer import Scorer
from fraudsdk.scorer.scorer import unkept

if TYPE_CHECKING:
    from fraudsdk.adapters.kafka.recorder import TransactionRecorder

S = TypeVar("S")

N_SCORE_BUCKETS: Final = 20
# From 1 us to 10 s, three to the decade: most answers take some 100 us.
EDGES_NS: Final = (*(step * 10**decade for decade in range(3, 10) for step in (1, 2, 5)), 10**10)
# What `Decision.degraded_because` begins with; anything else counts as "other", so that labels stay few.
STAGES: Final = ("encoding", "features", "model", "policy", "deadline", "state", "duplicate")
OTHER: Final = "other"


class Took:
    """Durations, counted between `EDGES_NS`; the last bucket is of those that took longer."""

    def __init__(self) -> None:
        self.buckets = array("q", bytes(8 * (len(EDGES_NS) + 1)))
        self.total_ns = 0

    def add(self, other: Took) -> None:
        """Add another's."""
        for bucket, n in enumerate(other.buckets):
            self.buckets[bucket] += n
        self.total_ns += other.total_ns


class CallFigures:
    """Calls by method and status code, what they took, and how many are under way."""

    def __init__(self) -> None:
        self._shards = _Shards(_CallShard)

    def begin(self) -> None:
        """A call came."""
        self._shards.mine.under_way += 1

    def end(self, method: str, code: str, elapsed_ns: int) -> None:
        """It was answered; by the thread that began it."""
        shard = self._shards.mine
        shard.under_way -= 1
        shard.codes[method, code] += 1
        took = shard.took.get(method)
        if took is None:
            took = shard.took[method] = Took()
        took.buckets[bisect_left(EDGES_NS, elapsed_ns)] += 1
        took.total_ns += elapsed_ns

    def refused(self, method: str, code: str) -> None:
        """A call was refused before it began."""
        self._shards.mine.codes[method, code] += 1

    @property
    def under_way(self) -> int:
        """Calls that were begun and not yet answered."""
        return sum(shard.under_way for shard in self._shards.all)

    def codes(self) -> Counter[tuple[str, str]]:
        """Number of calls by method and status code."""
        total: Counter[tuple[str, str]] = Counter()
        for shard in self._shards.all:
            total.update(dict(shard.codes))
        return total

    def latencies(self) -> dict[str, Took]:
        """What calls took, by method."""
        merged: dict[str, Took] = {}
        for shard in self._shards.all:
            for method, took in list(shard.took.items()):
                merged.setdefault(method, Took()).add(took)
        return merged


class DecisionFigures:
    """Decisions by outcome, by score, and by what made them less than full ones."""

    def __init__(self) -> None:
        self._shards = _Shards(_DecisionShard)

    def count(self, decision: Decision) -> None:
        """One decision was made."""
        shard = self._shards.mine
        shard.outcomes[decision.outcome] += 1
        self._count_score(shard, decision.score)
        if decision.degraded:
            shard.degraded[_stage_of(decision)] += 1

    def count_all(self, decisions: Decisions) -> None:
        """A batch of them; what is no more than an approval by its score is counted in its column."""
        shard = self._shards.mine
        singled_out = decisions.singled_out.values()
        shard.outcomes.update(each.outcome for each in singled_out)
        shard.outcomes[Outcome.APPROVE] += len(decisions) - len(singled_out)
        shard.degraded.update(_stage_of(each) for each in singled_out if each.degraded)
        scores = decisions.scores[~np.isnan(decisions.scores)]
        at = np.minimum(scores * N_SCORE_BUCKETS, N_SCORE_BUCKETS - 1).astype(np.int64)
        for bucket, n in enumerate(np.bincount(at, minlength=N_SCORE_BUCKETS).tolist()):
            shard.scores[bucket] += n
        shard.score_sum += float(scores.sum())

    def outcomes(self) -> Counter[Outcome]:
        """Number of decisions by outcome."""
        return self._sum("outcomes")

    def degraded(self) -> Counter[str]:
        """Number of degraded decisions by the stage that failed."""
        return self._sum("degraded")

    def scores(self) -> tuple[list[int], float]:
        """Decisions by score, in `N_SCORE_BUCKETS` equal parts from 0 to 1, and the sum of their scores."""
        shards = self._shards.all
        columns = zip(*(shard.scores for shard in shards), strict=True) if shards else [(0,)] * N_SCORE_BUCKETS
        return [sum(each) for each in columns], sum(shard.score_sum for shard in shards)

    @staticmethod
    def _count_score(shard: _DecisionShard, score: float) -> None:
        if score == score:
            shard.scores[min(int(score * N_SCORE_BUCKETS), N_SCORE_BUCKETS - 1)] += 1
            shard.score_sum += score

    def _sum(self, name: str) -> Counter[Any]:
        total: Counter[Any] = Counter()
        for shard in self._shards.all:
            total.update(dict(getattr(shard, name)))
        return total


class ObservedScorer(Scorer):
    """A scorer that counts what it decides, where the transaction is remembered; here, or by whoever is told by a recorder."""

    figures: DecisionFigures
    recorder: TransactionRecorder | None = None

    def score(self, transaction: Any, *, record: bool = True, **more: Any) -> Decision:
        """As `Scorer`."""
        decision = super().score(transaction, record=record, **more)
        if record:
            if self.recorder is not None and (because := self._record(self.recorder, transaction)):
                decision = unkept(decision, because)
            self.figures.count(decision)
        return decision

    def score_batch(self, table: Any, *, record: bool = True, **more: Any) -> Decisions:
        """As `Scorer`, of a table that also gives its rows one by one."""
        decisions = super().score_batch(table, record=record, **more)
        if record:
            if self.recorder is not None:
                told = {row: self._record(self.recorder, table.row(row)) for row in range(len(decisions))}
                worse = {row: unkept(decisions[row], because) for row, because in told.items() if because}
                decisions = decisions.with_singled_out(worse) if worse else decisions
            self.figures.count_all(decisions)
        return decisions

    def counters(self) -> dict[str, int]:
        """As `Scorer`, and what became of requests that were recorded."""
        return super().counters() | ({} if self.recorder is None else self.recorder.counters())

    def _record(self, recorder: TransactionRecorder, transaction: Any) -> str:
        """
        Have a request remembered by others; empty, or why that is not sure.

        One that was sent before is sent again: whoever consumes it counts it once, and it may have been refused then.
        """
        return recorder.record(self.prepared(transaction)) or recorder.doubt()


class _CallShard:
    """What one thread counted of calls."""

    def __init__(self) -> None:
        self.under_way = 0
        self.codes: Counter[tuple[str, str]] = Counter()
        self.took: dict[str, Took] = {}


class _DecisionShard:
    """What one thread counted of decisions."""

    def __init__(self) -> None:
        self.outcomes: Counter[Outcome] = Counter()
        self.degraded: Counter[str] = Counter()
        self.scores = array("q", bytes(8 * N_SCORE_BUCKETS))
        self.score_sum = 0.0


class _Shards(Generic[S]):
    """
    A set of numbers for each thread, kept when the thread ends.

    The threads that count are those of the server's pool and the one that hands calls to them, so that there are few sets.
    """

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._local = threading.local()
        self._all: list[S] = []

    @property
    def mine(self) -> S:
        """The set of this thread."""
        try:
            shard: S = self._local.shard
        except AttributeError:
            shard = self._local.shard = self._make()
            self._all.append(shard)
        return shard

    @property
    def all(self) -> list[S]:
        """Every thread's set."""
        return list(self._all)


def _stage_of(decision: Decision) -> str:
    stage = (decision.degraded_because or "").partition(":")[0]
    return stage if stage in STAGES else OTHER
