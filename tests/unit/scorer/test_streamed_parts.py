"""A partition of a stream: what is remembered and how far the stream was read change together, whatever breaks in between."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fraudsdk import Outcome, Scorer, ScorerConfig
from fraudsdk.entity_state import part_kernels
from fraudsdk.entity_state.store import Committed, MemoryStore
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import CorruptStateError, InvalidTransactionError, StateError, StateUnavailableError
from fraudsdk.scorer.streamed_parts import Batch, Said, StreamedParts

CONFIG = ScorerConfig(
    model=Path(__file__).parents[3] / "compiled_models" / "reference",
    hash_key=b"the key of the stream",
    max_entities=20_000,
    journal_capacity=20_000,
)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


class MemoryStream(MemoryStore):
    """A `StreamStore` in this process."""

    is_silent = False

    def enter(self, schema, origin):
        self.entered = schema, origin

    def must_leave(self):
        return False

    def leave(self):
        self.entered = None

    def tombstones(self):
        return []

    def entity_keys(self):
        yield list(self._parts)

    def commit(self, *call):
        if self.is_silent:
            raise StateUnavailableError("no answer")
        return super().commit(*call)

    def read(self, *call):
        if self.is_silent:
            raise StateUnavailableError("no answer")
        return super().read(*call)


def payment(place: int) -> dict:
    """The message at a place of the stream: the same whoever asks."""
    draw = random.Random(place)
    return {
        "transaction_id": f"t-{place}",
        "user_id": f"u{draw.randrange(30)}",
        "card_id": f"c{draw.randrange(40)}",
        "merchant_id": f"m{draw.randrange(9)}",
        "device_id": f"d{draw.randrange(50)}",
        "amount": f"{draw.randrange(1, 9_000)}.25",
        "event_time": NOON + timedelta(seconds=place),
    }


def batch(first: int, until: int) -> Batch:
    rows = [payment(place) for place in range(first, until)]
    sent_us = np.array([int(row["event_time"].timestamp() * 1e6) for row in rows], np.int64)
    return Batch(rows, sent_us, lambda decisions: [each.transaction_id.encode() for each in decisions.flagged()])


def payloads(store: MemoryStream) -> dict[int, bytes]:
    """Parts without checksum and place: those say how the stream was cut into commits."""
    words = {key: np.frombuffer(part, "<i8").copy() for key, part in store._parts.items()}
    for each in words.values():
        each[[part_kernels.PART_CHECKSUM, part_kernels.PART_SEQUENCE]] = 0
    return {key: each.tobytes() for key, each in words.items()}


@pytest.fixture(scope="module")
def oracle():
    """Decisions and parts of one process that reads 600 messages in one go."""
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        decisions = list(stream.score(0, 600, batch(0, 600)))
        stream.commit()
    return decisions, payloads(store), [alert for _, alert in store.outbox(10**6)]


def test_decisions_are_those_of_a_scorer(oracle):
    with Scorer.open(CONFIG) as scorer:
        assert list(scorer.score_batch(batch(0, 600).rows)) == oracle[0]
    assert any(each.outcome is not Outcome.APPROVE for each in oracle[0])


def test_whoever_goes_on_decides_as_one_who_saw_everything(oracle):
    decisions, parts, alerts = oracle
    store, draw, decided, place = MemoryStream(), random.Random(1), {}, 0
    while place < 600:
        with StreamedParts(CONFIG, store, b"stream") as stream:  # each of them dies with something uncommitted
            place = stream.claim()
            for _ in range(draw.randrange(1, 4)):
                until = min(600, place + draw.randrange(1, 60))
                scored = stream.score(place, until, batch(place, until))
                decided |= dict(zip(range(place, until), scored, strict=True))
                place = until
                if draw.random() < 0.7:
                    stream.commit()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        place = stream.claim()
        if place < 600:
            decided |= dict(zip(range(place, 600), stream.score(place, 600, batch(place, 600)), strict=True))
        stream.commit()

    assert [decided[each] for each in range(600)] == decisions
    assert payloads(store) == parts
    assert [alert for _, alert in store.outbox(10**6)] == alerts


def test_a_batch_that_is_cut_short_is_claimed_again(oracle):
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 300, batch(0, 300))
        stream.commit()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        assert 300 == stream.claim()
        store.is_silent = True
        with pytest.raises(StateUnavailableError):
            stream.score(300, 600, batch(300, 600))
        with pytest.raises(StateError, match="claimed first"):
            stream.commit()

        store.is_silent = False
        assert 300 == stream.claim()
        stream.score(300, 600, batch(300, 600))
        assert 600 == stream.commit()
    assert payloads(store) == oracle[1]


def test_a_commit_that_was_not_answered_is_repeated(oracle):
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 600, batch(0, 600))
        store.is_silent = True
        with pytest.raises(StateUnavailableError):
            stream.commit()
        assert stream.is_due

        store.is_silent = False
        assert 600 == stream.commit()
    assert payloads(store) == oracle[1]


def test_what_the_store_lost_is_read_again(oracle):
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 200, batch(0, 200))
        stream.commit()
        earlier = copy.deepcopy(store.__dict__)
        stream.score(200, 400, batch(200, 400))
        stream.commit()
        store.__dict__.update(earlier)

        stream.score(400, 600, batch(400, 600))  # of entities that are all in memory
        assert 200 == stream.commit()
        stream.score(200, 600, batch(200, 600))
        assert 600 == stream.commit()
    assert payloads(store) == oracle[1]


class BreakingOff(MemoryStream):
    """The first time it names five of its entities, and then does not answer."""

    has_answered = False

    def entity_keys(self):
        for nth, key in enumerate(list(self._parts)):
            if nth == 5 and not self.has_answered:
                self.has_answered = True
                raise StateUnavailableError("no answer")
            yield [key]


def test_a_survey_that_breaks_off_is_not_taken_for_a_whole_one(oracle):
    store = BreakingOff()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 300, batch(0, 300))
        stream.commit()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(300, 310, batch(300, 310))
        while stream.is_due:  # here it breaks off
            with contextlib.suppress(StateUnavailableError):
                stream.commit()
        stream.commit()
        assert store.has_answered
        for place in range(310, 600, 10):  # entities that only the store has
            stream.score(place, place + 10, batch(place, place + 10))
        stream.commit()
    assert payloads(store) == oracle[1]


def test_another_who_claims_it_fences_us():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as one, StreamedParts(CONFIG, store, b"stream") as other:
        one.claim()
        other.claim()
        with pytest.raises(Lost):
            one.score(0, 10, batch(0, 10)), one.commit()
        other.score(0, 10, batch(0, 10))
        assert 10 == other.commit()


def test_a_gap_is_an_error():
    with StreamedParts(CONFIG, MemoryStream(), b"stream") as stream:
        stream.claim()
        with pytest.raises(CorruptStateError, match="changes 0 to 4 are missing"):
            stream.score(5, 10, batch(5, 10))


def test_a_stream_whose_beginning_is_gone_begins_where_it_is_told_to():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.begin_at(500)
        assert 500 == stream.commit()
        stream.score(500, 510, batch(500, 510))
        stream.commit()
        with pytest.raises(CorruptStateError, match="cannot begin"):
            stream.begin_at(700)
    assert Committed.WRITTEN is store.commit(store._token, 510, 511, {}, [])


def test_a_wrong_row_changes_nothing(oracle):
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        wrong = batch(0, 600)
        wrong.rows[400]["amount"] = "much"
        with pytest.raises(InvalidTransactionError, match="row 400"):
            stream.score(0, 600, wrong)
        stream.score(0, 600, batch(0, 600))
        stream.commit()
    assert payloads(store) == oracle[1]


def test_what_was_ahead_of_its_time_when_it_was_sent_is_refused_whenever_it_is_read():
    with StreamedParts(CONFIG, MemoryStream(), b"stream") as stream:
        stream.claim()
        early = batch(0, 3)
        early.sent_us[2] -= 3_600_000_000
        with pytest.raises(InvalidTransactionError, match="in the future in row 2"):
            stream.score(0, 3, early)


def test_labels_are_written_with_the_next_commit():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
        before = payloads(store)

        assert stream.feedback(Said("t-7", is_fraud=True))
        assert not stream.feedback(Said("t-7000", is_fraud=True))
        assert stream.is_due
        assert 100 == stream.commit()
    assert before != payloads(store)


def test_a_part_that_is_ahead_of_its_place_is_refused():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
    store._next = 50  # a store that applied half of a commit
    with StreamedParts(CONFIG, store, b"stream") as stream, pytest.raises(CorruptStateError, match="half of a commit"):
        stream.claim()
    store._journal_place = 50  # nor does the journal hide it
    store._rows.clear()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        with pytest.raises(CorruptStateError, match="half of a commit"):
            stream.score(50, 100, batch(50, 100))


def test_a_damaged_part_is_left_out_and_said():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
    for key, part in store._parts.items():
        store._parts[key] = part[:-1] + bytes([part[-1] ^ 1])
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        decisions = stream.score(100, 110, batch(100, 110))
        assert all("damaged" in each.degraded_because for each in decisions)
        assert stream.scorer.counters()["stream_parts_damaged"] > 5


def reversal(place: int, of: int, kind: str = "reversal", **fields) -> dict:
    """A message that takes an earlier one back."""
    original = payment(of)
    at = NOON + timedelta(seconds=place)
    return (
        original
        | {"transaction_id": f"r-{place}", "type": kind, "original_transaction_id": f"t-{of}", "event_time": at}
        | fields
    )


def rows_batch(rows: list[dict]) -> Batch:
    sent_us = np.array([int(row["event_time"].timestamp() * 1e6) for row in rows], np.int64)
    return Batch(rows, sent_us, lambda decisions: [])


def amendments(draw: random.Random, n: int) -> list[tuple[int, list[Said], list[dict]]]:
    """A stream of so many messages, in batches: what is said before some of them, and which messages take earlier ones back."""
    steps, place = [], 0
    while place < n:
        until = min(n, place + draw.randrange(1, 40))
        rows = [payment(each) for each in range(place, until)]
        said = [
            Said(f"t-{draw.randrange(place)}", is_fraud=draw.random() < 0.6, declined=draw.choice((None, True, False)))
            for _ in range(draw.randrange(3) if place else 0)
        ]
        for at in range(1, len(rows)):
            if draw.random() < 0.1:
                kind, amount = draw.choice((("reversal", {}), ("reversal", {"amount": "0.25"}), ("chargeback", {})))
                rows[at] = reversal(place + at, draw.randrange(place + at), kind, **amount)
        steps.append((until, said, rows))
        place = until
    return steps


def follow(config, store, steps, place: int, *, restarts: random.Random | None = None) -> None:
    """Read a stream to its end, by one process or by many that die one after another."""
    stream = StreamedParts(config, store, b"stream")
    stream.claim()
    for until, said, rows in steps:
        if restarts is not None and restarts.random() < 0.5:
            stream.close()  # all that was fed has been committed
            stream = StreamedParts(config, store, b"stream")
            assert place == stream.claim()
        for each in said:
            stream.feedback(each)
            stream.feedback(each)
            if restarts is not None and restarts.random() < 0.3:
                stream.commit()
                stream.close()
                stream = StreamedParts(config, store, b"stream")
                stream.claim()
                stream.feedback(each)  # its commit was not heard of: it is said once more
        assert stream.score(place, until, rows_batch(rows)) is not None
        assert until == stream.commit()
        place = until
    stream.close()


@pytest.mark.parametrize("seed", range(6))
def test_labels_and_reversals_reach_what_they_are_about_whoever_decided_on_it(seed):
    steps = amendments(random.Random(seed), 400)
    alone, many = MemoryStream(), MemoryStream()

    follow(CONFIG, alone, steps, 0)
    follow(CONFIG, many, steps, 0, restarts=random.Random(seed))

    assert payloads(alone) == payloads(many)
    assert alone._rows == many._rows


def test_a_label_after_a_restart_is_a_label_before_it():
    before, after = MemoryStream(), MemoryStream()
    for store, is_late in ((before, False), (after, True)):
        stream = StreamedParts(CONFIG, store, b"stream")
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
        unlabelled = payloads(store)
        if is_late:
            stream.close()
            stream = StreamedParts(CONFIG, store, b"stream")
            stream.claim()
        assert stream.feedback(Said("t-7", is_fraud=True))
        stream.commit()
        stream.close()

        assert unlabelled != payloads(store)
    assert payloads(before) == payloads(after)


def test_a_label_that_is_repeated_after_a_restart_counts_once():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.feedback(Said("t-7", is_fraud=True))
        stream.commit()
        once = payloads(store)
    for _ in range(2):
        with StreamedParts(CONFIG, store, b"stream") as stream:
            stream.claim()
            assert stream.feedback(Said("t-7", is_fraud=True))
            stream.commit()

    assert once == payloads(store)


def test_a_label_that_the_store_lost_counts_once_when_it_is_said_again():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
        earlier = copy.deepcopy(store.__dict__)
        stream.feedback(Said("t-7", is_fraud=True))
        stream.score(100, 200, batch(100, 200))
        stream.commit()
        once = payloads(store)
        store.__dict__.update(earlier)
        stream.score(200, 210, batch(200, 210))
        assert 100 == stream.commit()
        for _ in range(2):
            assert stream.feedback(Said("t-7", is_fraud=True))
        stream.score(100, 200, batch(100, 200))
        stream.commit()

    assert once == payloads(store)


def test_a_transaction_that_is_sent_again_after_a_restart_counts_once_and_is_a_duplicate():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        stream.score(0, 100, batch(0, 100))
        stream.commit()
        once = payloads(store)
    again = [payment(7), payment(8) | {"event_time": NOON + timedelta(minutes=5)}]  # the second: known by its id alone
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        decisions = list(stream.score(100, 102, rows_batch(again)))
        stream.commit()

    assert [True, True] == [each.duplicate for each in decisions]
    assert once == payloads(store)


def test_the_journal_is_bounded_and_what_it_forgot_is_unknown_after_a_restart_too():
    config = dataclasses.replace(CONFIG, journal_capacity=50)
    store = MemoryStream()
    with StreamedParts(config, store, b"stream") as stream:
        stream.claim()
        for first in (0, 30, 60, 200):
            until = {0: 30, 30: 60, 60: 200, 200: 210}[first]
            stream.score(first, until, batch(first, until))
            stream.commit()
        assert 50 == len(store._rows)
    with StreamedParts(config, store, b"stream") as stream:
        stream.claim()
        assert not stream.feedback(Said("t-159", is_fraud=True))
        assert stream.feedback(Said("t-160", is_fraud=True))
    with StreamedParts(dataclasses.replace(CONFIG, journal_capacity=20), store, b"stream") as stream:
        stream.claim()
        assert not stream.feedback(Said("t-189", is_fraud=True))
        assert stream.feedback(Said("t-190", is_fraud=True))
        stream.commit()
    assert 20 == len(store._rows)


def test_what_was_decided_is_not_kept_in_the_journal():
    store = MemoryStream()
    with StreamedParts(CONFIG, store, b"stream") as stream:
        stream.claim()
        margins = np.array([each.margin for each in stream.score(0, 100, batch(0, 100))])
        stream.commit()
    kept = b"".join(store._rows.values())

    assert not [margin for margin in margins if margin.tobytes() in kept]
