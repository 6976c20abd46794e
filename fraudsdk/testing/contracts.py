"""
The suites that every implementation of a port must pass: subclass one in a test file, give it the fixtures it names.

    class TestMySink(SinkContract):
        @pytest.fixture
        def sink(self, tmp_path): ...

        def delivered(self, sink): ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fraudsdk.domain.decision import Decision, Outcome, Reason
from fraudsdk.entity_state.store import Committed, JournalChange, JournalPage, SharedStore, StateStore
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import FraudSDKError, SinkBackpressureError, SinkDeliveryError, SinkError, StateError
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


def _refusal(call: Callable[[], object]) -> Exception | None:
    """What a call raised; None where it went well."""
    try:
        call()
    except (FraudSDKError, Lost) as error:
        return error
    return None


def _rows_of(store: StateStore, token: bytes, place: int) -> dict[int, bytes]:
    """The journal of a store whose rows have the width of the first page's; rows by number."""
    rows: dict[int, bytes] = {}
    row, end = 0, 1
    while row < end:
        page = store.journal(token, place, row)
        assert isinstance(page, JournalPage)
        row, end = page.next, page.end
        width = len(page.octets) // max(1, min(page.next, page.end) - page.first)
        rows |= {page.first + at: page.octets[at * width :][:width] for at in range(len(page.octets) // max(1, width))}
    return rows


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

    def test_the_journal_changes_with_the_place_and_a_row_is_what_was_last_written_of_it(
        self, store: StateStore
    ) -> None:
        assert 0 == store.claim(b"me")
        assert b"" == b"".join(_rows_of(store, b"me", 0).values())
        assert Committed.WRITTEN is store.commit(b"me", 0, 2, {}, [], JournalChange(3, 0, 2, ((0, b"onetwo"),)))
        later = JournalChange(3, 0, 3, ((0, b"ONE"), (2, b"3rd")))
        assert Committed.WRITTEN is store.commit(b"me", 2, 3, {}, [], later)
        assert Committed.AGAIN is store.commit(b"me", 2, 3, {}, [], later)
        assert Committed.WRITTEN is store.commit(b"me", 3, 3, {}, [], JournalChange(3, 0, 3, ((1, b"TWO"),)))
        assert Committed.REGRESSED is store.commit(b"me", 1, 2, {}, [], JournalChange(3, 0, 3, ((1, b"no!"),)))

        assert {0: b"ONE", 1: b"TWO", 2: b"3rd"} == _rows_of(store, b"me", 3)
        assert Committed.REGRESSED is store.journal(b"me", 2, 0)
        store.claim(b"other")
        assert Committed.FENCED is store.journal(b"me", 3, 0)
        assert Committed.FENCED is store.commit(b"me", 3, 4, {}, [], JournalChange(3, 0, 4, ((3, b"no!"),)))
        assert {0: b"ONE", 1: b"TWO", 2: b"3rd"} == _rows_of(store, b"other", 3)

    def test_of_the_journal_the_newest_rows_are_kept(self, store: StateStore) -> None:
        store.claim(b"me")
        for place in range(10):
            rows = b"".join(b"%08d" % row for row in range(5_000 * place, 5_000 * (place + 1)))
            change = JournalChange(8, max(0, 5_000 * (place - 1)), 5_000 * (place + 1), ((5_000 * place, rows),))
            assert Committed.WRITTEN is store.commit(b"me", place, place + 1, {}, [], change)

        kept = _rows_of(store, b"me", 10)
        assert {row: b"%08d" % row for row in range(40_000, 50_000)} == {
            row: octets for row, octets in kept.items() if row >= 40_000
        }
        assert len(kept) < 20_000

    def test_many_parts_and_large_ones(self, store: StateStore) -> None:
        parts = {key: bytes([key % 256]) * (key % 2_000) for key in range(1, 3_000)} | {9_999: bytes(2_000_000)}
        store.claim(b"me")

        assert Committed.WRITTEN is store.commit(b"me", 0, 1, parts, [])
        assert list(parts.values()) == store.read(b"me", 1, list(parts))


class SharedStoreContract:
    """
    What every `SharedStore` promises.

    A subclass gives a ``writer`` fixture: a function that makes one more store over the same place, which is empty at first;
    ``max_writers`` is its one option.
    """

    def test_whoever_joins_reads_what_others_wrote_in_the_order_of_the_writers(
        self, writer: Callable[..., SharedStore]
    ) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        one.commit({1: b"one"})
        other.commit({1: b"other", 2: b""})

        for store, mine in ((one, 0), (other, 1)):
            store.poll()
            parts = store.read([1, 2, -3])
            assert mine == parts.mine
            assert {1: [b"one", b"other"], 2: [b"", b""], -3: [b"", b""]} == {
                key: list(of) for key, of in parts.of.items()
            }

    def test_a_poll_says_what_others_changed_and_says_it_once(self, writer: Callable[..., SharedStore]) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        one.poll()
        one.commit({1: b"mine"})
        other.commit({7: b"other", -(2**63): b"other"})
        other.commit({8: b"other"})

        first, second = one.poll(), one.poll()

        assert {7, 8, -(2**63)} == first.keys
        assert not (first.is_everything or first.has_lost_ours)
        assert frozenset() == second.keys and not (second.is_everything or second.has_lost_ours)

    def test_a_new_writer_may_have_changed_anything(self, writer: Callable[..., SharedStore]) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        other.commit({7: b"other"})

        assert one.poll().is_everything
        assert not one.poll().is_everything

    def test_changes_that_were_missed_are_noticed(self, writer: Callable[..., SharedStore]) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        one.poll()
        for i in range(3_000):  # more than any feed keeps
            other.commit({i + 1: b"other"})

        assert one.poll().is_everything
        other.commit({7: b"other"})
        assert frozenset({7}) == one.poll().keys

    def test_a_slot_that_was_left_is_taken_again_with_its_parts(self, writer: Callable[..., SharedStore]) -> None:
        one = writer(max_writers=1)
        one.join(b"schema")
        one.commit({1: b"one"})
        one.leave()
        other = writer(max_writers=1)
        other.join(b"schema")

        assert ([b"one"], 0) == (list(other.read([1]).of[1]), other.read([1]).mine)
        assert Committed.FENCED is one.commit({1: b"a zombie's"})
        assert Committed.WRITTEN is other.commit({1: b"other"})

    def test_a_slot_that_is_held_is_nobody_elses(self, writer: Callable[..., SharedStore]) -> None:
        writer(max_writers=1).join(b"schema")

        refused = _refusal(lambda: writer(max_writers=1).join(b"schema"))
        assert isinstance(refused, StateError) and "max_writers" in str(refused)

    def test_whoever_lost_the_slot_is_told_by_a_poll_as_well(self, writer: Callable[..., SharedStore]) -> None:
        one = writer(max_writers=1)
        one.join(b"schema")
        one.leave()
        writer(max_writers=1).join(b"schema")

        assert isinstance(_refusal(one.poll), Lost)

    def test_another_schema_is_refused(self, writer: Callable[..., SharedStore]) -> None:
        writer().join(b"schema")

        refused = _refusal(lambda: writer().join(b"another"))
        assert isinstance(refused, StateError) and "group" in str(refused)

    def test_what_one_was_told_the_others_hear_once(self, writer: Callable[..., SharedStore]) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        one.tell([(1, 2, 3), (-(2**63), 0, 2**40)])
        one.tell([(4, 5, 6)])

        assert ((1, 2, 3), (-(2**63), 0, 2**40), (4, 5, 6)) == other.poll().told
        assert () == other.poll().told == one.poll().told

    def test_entities_are_listed(self, writer: Callable[..., SharedStore]) -> None:
        one, other = writer(), writer()
        one.join(b"schema")
        other.join(b"schema")
        one.commit(dict.fromkeys(range(1, 2_500), b"one"))
        other.commit({-7: b"other"})

        assert {*range(1, 2_500), -7} == {key for some in one.entity_keys() for key in some}

    def test_what_is_put_aside_is_read_no_more(self, writer: Callable[..., SharedStore]) -> None:
        one = writer()
        one.join(b"schema")
        one.commit({1: b"damaged"})

        one.quarantine(1)
        one.quarantine(2)

        assert [b""] == list(one.read([1]).of[1])
        assert [] == [key for some in one.entity_keys() for key in some]
        one.commit({1: b"whole"})
        assert [b"whole"] == list(one.read([1]).of[1])
