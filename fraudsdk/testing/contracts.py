"""
The suites that every implementation of a port must pass: subclass one in a test file, give it the fixtures it names.

    class TestMySink(SinkContract):
        @pytest.fixture
        def sink(self, tmp_path): ...

        def delivered(self, sink): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fraudsdk.domain.decision import Decision, Outcome, Reason
from fraudsdk.entity_state.store import Committed, StateStore
from fraudsdk.errors import SinkBackpressureError, SinkDeliveryError, SinkError
from fraudsdk.sinks import DecisionSink
from fraudsdk.telemetry import Deadline
from fraudsdk.testing.clock import ManualClock


def a_decision(transaction_id: str = "t-1", **changes: Any) -> Decision:
    """
    Make a plausible decision for a test; `changes` are attributes of `Decision`.

    Examples
    --------
    >>> a_decision("t-7", score=0.95).transaction_id
    't-7'
    """
    reason = Reason(
        "VEL01", "Many payments by this user.", "There was more activity than usual.", "user_count_1h", 7.0, 1.5
    )
    attributes: dict[str, Any] = {
        "outcome": Outcome.REVIEW,
        "score": 0.25,
        "margin": -1.0986,
        "reasons": (reason,),
        "model_version": "reference/1",
        "decided_by": "band",
    }
    return Decision(transaction_id, **(attributes | changes))


def decisions(n: int, *, first: int = 0) -> list[Decision]:
    """Make `n` decisions with different transaction ids, in order."""
    return [a_decision(f"t-{i}") for i in range(first, first + n)]


def ample_deadline() -> Deadline:
    """A deadline that only a hung sink misses."""
    return Deadline.after_us(30_000_000)


class SinkContract:
    """
    What every `DecisionSink` promises.

    A subclass gives a ``sink`` fixture with room for 100 decisions and says what reached the far end.
    """

    def delivered(self, sink: DecisionSink) -> Sequence[str]:
        """Transaction ids that a reader at the far end sees after a flush, in order, without repetitions."""
        raise NotImplementedError

    def test_everything_accepted_has_arrived_when_flush_returns(self, sink: DecisionSink) -> None:
        sink.write(decisions(3))
        sink.write(decisions(2, first=3))
        sink.flush(ample_deadline())

        assert ["t-0", "t-1", "t-2", "t-3", "t-4"] == list(self.delivered(sink))

    def test_writing_a_decision_again_is_harmless(self, sink: DecisionSink) -> None:
        sink.write(decisions(2))
        sink.write(decisions(2))
        sink.flush(ample_deadline())

        assert ["t-0", "t-1"] == list(self.delivered(sink))

    def test_no_decisions_are_no_trouble(self, sink: DecisionSink) -> None:
        sink.write([])
        sink.flush(ample_deadline())

        assert [] == list(self.delivered(sink))

    def test_flushing_twice_delivers_once(self, sink: DecisionSink) -> None:
        sink.write(decisions(1))
        sink.flush(ample_deadline())
        sink.flush(ample_deadline())

        assert ["t-0"] == list(self.delivered(sink))

    def test_a_decision_without_a_model_can_be_written(self, sink: DecisionSink) -> None:
        nan = float("nan")
        sink.write([a_decision("t-0", score=nan, margin=nan, model_version="none", degraded=True)])
        sink.flush(ample_deadline())

        assert ["t-0"] == list(self.delivered(sink))

    def test_closing_twice_is_harmless(self, sink: DecisionSink) -> None:
        sink.write(decisions(1))
        sink.flush(ample_deadline())
        sink.close()
        sink.close()

    def test_a_closed_sink_refuses_decisions_instead_of_losing_them(self, sink: DecisionSink) -> None:
        sink.close()
        try:
            sink.write(decisions(1))
        except SinkBackpressureError as error:
            raise AssertionError("asking again later cannot help; raise SinkError itself") from error
        except SinkError:
            return
        raise AssertionError("a closed sink accepted a decision")


class RefusingSink:
    """Says "not now" the first `n_refusals` times, then passes everything on to `sink`."""

    def __init__(self, sink: DecisionSink, n_refusals: int) -> None:
        self._sink = sink
        self.n_refusals_left = n_refusals

    def write(self, decisions: Sequence[Decision]) -> None:
        """Refuse, or pass on."""
        if self.n_refusals_left > 0:
            self.n_refusals_left -= 1
            raise SinkBackpressureError("not now", retry_after_s=0.0)
        self._sink.write(decisions)

    def flush(self, deadline: Deadline) -> None:
        """Pass on."""
        self._sink.flush(deadline)

    def close(self) -> None:
        """Pass on."""
        self._sink.close()


class LosingSink:
    """Accepts everything and confesses at the next flush that it lost it."""

    def __init__(self) -> None:
        self._accepted: list[str] = []

    def write(self, decisions: Sequence[Decision]) -> None:
        """Accept."""
        self._accepted.extend(decision.transaction_id for decision in decisions)

    def flush(self, deadline: Deadline) -> None:
        """Confess."""
        lost, self._accepted = tuple(self._accepted), []
        if lost:
            raise SinkDeliveryError(f"{len(lost)} decisions were lost", lost)

    def close(self) -> None:
        """Nothing to release."""


def passed_deadline() -> Deadline:
    """A deadline that has passed already."""
    return Deadline.after_us(0, clock=ManualClock())


class StateStoreContract:
    """
    What every `StateStore` promises.

    A subclass gives a ``store`` fixture, empty, and a second one, ``another``, of another writer in the same place.
    """

    def test_a_new_writer_begins_at_the_beginning(self, store: StateStore) -> None:
        assert 0 == store.claim(b"me")
        assert [b"", b""] == store.read(b"me", 0, [1, -2])
        assert [] == store.read(b"me", 0, [])
        assert [] == store.outbox(10)

    def test_parts_alerts_and_place_change_together(self, store: StateStore) -> None:
        store.claim(b"me")

        assert Committed.WRITTEN is store.commit(b"me", 0, 5, {1: b"one", -(2**63): b"\0\xff\n"}, [b"a", b"b"])
        assert Committed.WRITTEN is store.commit(b"me", 5, 6, {1: b"one more"}, [])

        assert [b"one more", b"\0\xff\n", b""] == store.read(b"me", 6, [1, -(2**63), 3])
        assert [b"a", b"b"] == [alert for _, alert in store.outbox(10)]
        assert 6 == store.claim(b"me again")

    def test_a_commit_that_is_repeated_is_written_once(self, store: StateStore) -> None:
        store.claim(b"me")
        store.commit(b"me", 0, 5, {1: b"one"}, [b"a"])

        assert Committed.AGAIN is store.commit(b"me", 0, 5, {1: b"one"}, [b"a"])
        assert 1 == len(store.outbox(10))

    def test_whoever_lost_the_claim_writes_nothing(self, store: StateStore) -> None:
        store.claim(b"zombie")
        store.commit(b"zombie", 0, 5, {1: b"one"}, [])
        store.claim(b"me")

        assert Committed.FENCED is store.commit(b"zombie", 5, 6, {1: b"a zombie's"}, [b"a zombie's"])
        assert Committed.FENCED is store.commit(b"zombie", 0, 5, {1: b"one"}, [])  # not even what was written
        assert Committed.FENCED is store.read(b"zombie", 5, [1])
        assert [b"one"] == store.read(b"me", 5, [1])
        assert [] == store.outbox(10)

    def test_a_commit_from_elsewhere_is_refused(self, store: StateStore) -> None:
        store.claim(b"me")
        store.commit(b"me", 0, 5, {1: b"one"}, [])

        assert Committed.REGRESSED is store.commit(b"me", 7, 9, {1: b"later"}, [b"a"])
        assert Committed.REGRESSED is store.commit(b"me", 3, 4, {1: b"earlier"}, [b"a"])
        assert Committed.REGRESSED is store.read(b"me", 7, [1])
        assert [b"one"] == store.read(b"me", 5, [1])
        assert [] == store.outbox(10)

    def test_what_is_acknowledged_leaves_the_outbox(self, store: StateStore) -> None:
        store.claim(b"me")
        store.commit(b"me", 0, 1, {}, [b"a", b"b", b"c"])
        (first, _), _, (last, _) = store.outbox(10)

        store.acknowledge([last, first])
        store.acknowledge([])

        assert [b"b"] == [alert for _, alert in store.outbox(10)]
        assert 1 == len(store.outbox(1))

    def test_writers_do_not_meet(self, store: StateStore, another: StateStore) -> None:
        store.claim(b"me")
        store.commit(b"me", 0, 5, {1: b"mine"}, [b"mine"])

        assert 0 == another.claim(b"me")
        assert [b""] == another.read(b"me", 0, [1])
        assert [] == another.outbox(10)

    def test_many_parts_and_large_ones(self, store: StateStore) -> None:
        parts = {key: bytes([key % 256]) * (key % 2_000) for key in range(1, 3_000)} | {9_999: bytes(2_000_000)}
        store.claim(b"me")

        assert Committed.WRITTEN is store.commit(b"me", 0, 1, parts, [])
        assert list(parts.values()) == store.read(b"me", 1, list(parts))
