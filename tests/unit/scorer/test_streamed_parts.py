"""A partition of a stream: what is remembered and how far the stream was read change together, whatever breaks in between."""

from __future__ import annotations

import contextlib
import copy
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
