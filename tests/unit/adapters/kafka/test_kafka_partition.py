"""A partition between its consumer and its store: what was told stays told, and what was lost is not overlooked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("confluent_kafka")
from fraudsdk.adapters.kafka.partition import Partition  # only where Kafka's client is
from fraudsdk.errors import StateUnavailableError


class ScriptedState:
    """A `StreamState` whose commits go where they are told, and which waits or does not answer as it is told."""

    def __init__(self, place: int, commits_to: int) -> None:
        self.place, self._commits_to = place, commits_to
        self.is_due, self.is_silent = True, False
        self.acknowledged: list[str] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def commit(self) -> int:
        self.place, self.is_due = self._commits_to, False
        return self.place

    def acknowledge(self, names) -> None:
        self.acknowledged += names

    def outbox(self, limit, after=""):
        self.may_go_on.wait(10)
        if self.is_silent:
            raise StateUnavailableError("no answer")
        return []

    def must_leave(self) -> bool:
        return False


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as threads:
        yield threads


def partition_of(state: ScriptedState, scored: int) -> Partition:
    partition = Partition(0)
    partition.open(lambda: state)
    partition.begin(scored)
    return partition


def test_alerts_that_arrive_while_the_store_is_talked_to_are_acknowledged_the_next_time(pool):
    state = ScriptedState(10, 10)
    partition = partition_of(state, 10)
    names = [f"alert {n}" for n in range(3)]
    tell = partition.was_told  # as producers keep it
    tell(names[0])
    state.may_go_on.clear()
    partition.store_if_due(pool)
    tell(names[1])
    state.may_go_on.set()
    assert partition.stored(wait=True) is not None
    tell(names[2])
    partition.store_if_due(pool)
    partition.stored(wait=True)

    assert names == state.acknowledged


def test_changes_that_were_lost_are_noticed_though_the_store_did_not_answer_after_that(pool):
    state = ScriptedState(10, 4)
    partition = partition_of(state, 10)
    state.is_silent = True
    partition.store_if_due(pool)
    with pytest.raises(StateUnavailableError):
        partition.stored(wait=True)

    state.is_silent = False
    partition.store_if_due(pool)
    stored = partition.stored(wait=True)
    assert (4, True) == (stored.place, stored.has_lost)


def test_a_gap_is_believed_when_it_stays(monkeypatch):
    now_s = [100.0]
    monkeypatch.setattr("fraudsdk.adapters.kafka.partition.time.monotonic", lambda: now_s[0])
    partition = partition_of(ScriptedState(10, 10), 10)
    now_s[0] += 60.0  # a broker was waited for before the first message was looked at
    assert partition.may_see_stale()
    now_s[0] += 0.5
    assert partition.may_see_stale()
    now_s[0] += 1.0
    assert not partition.may_see_stale()
