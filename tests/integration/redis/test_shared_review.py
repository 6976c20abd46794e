"""What scorers that share their memory must not do when several things go wrong at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from datetime import timedelta

import pytest
from rights import RIGHTS, SHARED_RIGHTS, grant
from servers import EVERY_WRITE, RedisServer, require_redis

require_redis()
redis = pytest.importorskip("redis")
from test_shared_scorers import (  # noqa: E402  # only where Redis is
    KEY,
    MODEL,
    NOON,
    alone,
    assert_same,
    eventually,
    opened,
    purchase,
    row_of,
    server,
    settled,
)

from fraudsdk import Scorer, ScorerConfig  # noqa: E402
from fraudsdk.adapters.redis import SharedRedis, connect, store  # noqa: E402
from fraudsdk.entity_state.layout import META_ENTITIES, META_NEWEST, META_OLDEST  # noqa: E402
from fraudsdk.errors import StateError, StateUnavailableError  # noqa: E402
from fraudsdk.scorer import shared_state  # noqa: E402

__all__ = ["opened", "server"]  # fixtures

_FEW = 200  # entities that a small memory holds


@contextmanager
def paused(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


def forget(scorer) -> None:
    """As if everything had gone out of memory, the least recently used first."""
    with scorer._lock:
        memory = scorer._engine.memory
        memory.table[:] = 0
        memory.meta[[META_NEWEST, META_OLDEST, META_ENTITIES]] = 0


def surveyed(scorer) -> bool:
    return eventually(lambda: scorer._shared._survey is None)


# --- what is forgotten while others are read -------------------------------------------------------------------------


def scorer_whose_oldest_entity_is_the_merchant(opened) -> tuple[Scorer, list[dict]]:
    """A full memory; the users of the first two transactions are forgotten, their merchant is next."""
    scorer = opened(max_entities=_FEW)
    sent = [purchase(0, "a", merchant_id="shop"), purchase(1, "b", merchant_id="shop")]
    named = []
    for each in sent:
        scorer.score(each)
        named.append({*scorer._engine.named_keys()})
    settled_alone(scorer)
    memory = scorer._engine.memory
    (shop,) = (named[0] & named[1]) - {*_keys_of(scorer, purchase(2, "c", merchant_id="none"))}
    while memory.pool[memory.meta[META_OLDEST]] != shop:
        assert shop in memory.entity_keys()
        number = 10 + len(sent)
        sent.append(
            {
                "transaction_id": f"t-{number}",
                "user_id": f"v{number}",
                "amount": "1.00",
                "event_time": NOON + timedelta(seconds=number),
            }
        )
        scorer.score(sent[-1])
        if number % 20 == 0:
            settled_alone(scorer)  # or it would go out of memory before it was written
    settled(scorer)
    assert surveyed(scorer)
    return scorer, sent


def _keys_of(scorer, transaction) -> list[int]:
    scorer.score(transaction, record=False)
    return scorer._engine.named_keys()


def test_what_goes_out_of_memory_while_other_entities_are_read_is_not_taken_for_new(opened):
    scorer, sent = scorer_whose_oldest_entity_is_the_merchant(opened)

    sent.append(purchase(1_000, "a", merchant_id="shop"))
    scorer.score(sent[-1])
    settled(scorer)

    asked = purchase(2_000, "a", merchant_id="shop")
    assert_same(row_of(alone(sent), asked), row_of(scorer, asked))


@pytest.mark.parametrize(("n_before", "user"), [(40, "a"), (2, "a"), (2, "somebody new")])
def test_what_goes_out_of_memory_within_a_batch_is_not_taken_for_new(opened, n_before, user):
    scorer, sent = scorer_whose_oldest_entity_is_the_merchant(opened)

    batch = [purchase(1_000 + i, f"w{i}", merchant_id=f"m{i}", device_id=f"d{i}") for i in range(n_before)]
    batch.append(purchase(1_100, user, merchant_id="shop", device_id="new"))
    scorer.score_batch(batch)
    settled(scorer)

    asked = purchase(2_000, "a", merchant_id="shop")
    assert_same(row_of(alone([*sent, *batch]), asked), row_of(scorer, asked))


# --- a slot that is lost ---------------------------------------------------------------------------------------------


def successor_of(zombie, opened, **options):
    """Another process, in the slot of one that was held up until its lease had run out."""

    def open_or_none():
        try:
            return opened(lease_s=1.0, **options)
        except StateError:
            return None

    with zombie._lock:
        successor = eventually(open_or_none)
    assert successor is not None
    return successor


def test_what_is_in_a_slot_that_was_lost_is_not_taken_into_the_next_one(opened):
    zombie, other = opened(max_writers=2, lease_s=1.0), opened(max_writers=2, lease_s=1.0)
    sent = [purchase(0)]
    zombie.score(sent[0])
    settled(zombie)
    successor = successor_of(zombie, opened, max_writers=2)
    assert eventually(lambda: zombie.counters()["shared_slots_lost"] == 1)

    sent.append(purchase(1))  # no slot is free
    zombie.score(sent[-1])
    other.close()
    assert eventually(lambda: zombie._shared._has_joined)
    settled(zombie, successor)

    for each in (zombie, successor):
        assert_same(row_of(alone(sent), purchase(9)), row_of(each, purchase(9)))


def test_what_a_successor_wrote_is_not_overwritten_once_the_slot_is_ours_again(opened):
    zombie = opened(max_writers=1, lease_s=1.0)
    zombie.score(purchase(0, "somebody else", merchant_id="n", device_id="e"))
    settled(zombie)
    assert surveyed(zombie)
    successor = successor_of(zombie, opened, max_writers=1)
    assert eventually(lambda: zombie.counters()["shared_slots_lost"] == 1)
    successor.score(purchase(1))
    settled(successor)

    zombie.score(purchase(2))
    successor.close()
    assert eventually(lambda: zombie._shared._has_joined)
    settled(zombie)

    assert_same(row_of(alone([purchase(1), purchase(2)]), purchase(9)), row_of(zombie, purchase(9)))


# --- changes of others that must not be missed -----------------------------------------------------------------------


@pytest.fixture
def limited(server):
    """A scorer with the least rights, and how to change them."""
    with server.client() as admin:

        def may(*without):
            grant(admin, [right for right in RIGHTS + SHARED_RIGHTS if right not in without])

        may()
        client = connect(f"redis://fraud:secret@127.0.0.1:{server.port}", timeout_s=0.5)
        scorer = Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY), shared=SharedRedis(client))
        yield scorer, may, admin
        may()
        scorer.close()
        client.close()


def test_a_newcomer_whose_first_poll_fails_is_read_after_all(opened, limited):
    scorer, may, _ = limited
    scorer.score(purchase(0))
    settled(scorer)

    may("+hkeys")  # who there is
    other = opened()
    other.score(purchase(1))
    settled_alone(other)
    may("+xread")
    assert eventually(lambda: len(scorer._shared._store._feeds) == 1)
    time.sleep(0.5)  # and once more, with nobody new
    may()
    settled(scorer)

    assert_same(row_of(alone([purchase(0), purchase(1)]), purchase(9)), row_of(scorer, purchase(9)))


def settled_alone(scorer) -> None:
    assert eventually(lambda: not scorer.counters()["shared_entities_waiting"])


def test_changes_are_not_forgotten_where_what_comes_after_their_poll_fails(opened, limited):
    scorer, may, admin = limited
    other = opened()
    scorer.score(purchase(0))
    scorer.score(purchase(0, "damaged", merchant_id="n", device_id="e", transaction_id="t-damaged"))
    settled(scorer, other)
    for name in admin.scan_iter("fs1:{s.0}:????????????????"):
        part = bytearray(admin.get(name))
        part[60] ^= 4
        admin.set(name, bytes(part))
    may("+rename")
    forget(scorer)
    scorer.score(purchase(2))  # reads what is damaged
    other.score(purchase(1))
    settled_alone(other)
    assert eventually(lambda: "NoPermission" in scorer._shared._trouble)
    time.sleep(0.5)
    may()
    settled(scorer, other)

    # What was damaged is lost, and what came after is not.
    assert_same(row_of(alone([purchase(1), purchase(2)]), purchase(9)), row_of(scorer, purchase(9)))


class HeldRedis(SharedRedis):
    """Has answers of reads held back until they are let go, where that was asked for."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.is_held, self.has_read, self.go = False, threading.Event(), threading.Event()
        self.may_poll = threading.Event()
        self.may_poll.set()

    def read(self, keys):
        parts = super().read(keys)
        if self.is_held and threading.current_thread().name.startswith("fraudsdk-read"):
            self.has_read.set()
            assert self.go.wait(20)
        return parts

    def poll(self):
        self.may_poll.wait(20)
        return super().poll()


def test_a_newcomer_that_comes_while_an_entity_is_read_is_not_missed(opened, server, monkeypatch):
    monkeypatch.setattr(shared_state, "READ_BUDGET_S", 20.0)
    first = opened()
    first.score(purchase(0))
    first.close()
    store = HeldRedis(server.client(socket_timeout=0.5), max_writers=16)
    with Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY), shared=store) as scorer:
        store.is_held = True
        store.may_poll.clear()
        decided = threading.Thread(target=scorer.score, args=(purchase(1),))
        decided.start()
        assert store.has_read.wait(20)
        newcomer = opened()
        newcomer.score(purchase(2))
        settled_alone(newcomer)
        store.may_poll.set()
        started_ns = time.monotonic_ns()
        assert eventually(lambda: scorer._shared._fresh_ns > started_ns)
        store.is_held = False
        store.go.set()
        decided.join()
        settled(scorer, newcomer)

        sent = [purchase(0), purchase(1), purchase(2)]
        assert_same(row_of(alone(sent), purchase(9)), row_of(scorer, purchase(9)))


# --- which entities the store has ------------------------------------------------------------------------------------


def test_a_store_that_is_restarted_during_a_survey_is_surveyed_again(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(store, "_PER_SCAN", 10)
    monkeypatch.setattr(shared_state, "_SURVEYED_AT_ONCE", 1)
    server = RedisServer(tmp_path / "kept", *EVERY_WRITE).start()
    try:
        first = opened(on=server)
        sent = [purchase(i, f"u{i}") for i in range(600)]
        first.score_batch(sent)
        settled(first)
        first.close()
        second = opened(on=server)
        time.sleep(0.5)
        assert second._shared._survey is not None
        server.kill()
        server.start()  # and hashes names by another secret: what was scanned so far means nothing
        assert surveyed(second)

        missed = []
        for each in sent:
            encoded, _ = second._encoded([{**each, "transaction_id": f"again-{each['transaction_id']}"}])
            with second._lock:
                if len(second._shared._not_at_hand(encoded.ints)) < 3:
                    missed.append(each["user_id"])
        assert [] == missed
        second.close()
    finally:
        server.stop()


# --- what must be said, and go on ------------------------------------------------------------------------------------


def test_an_answer_that_nobody_understands_is_said_and_the_store_is_asked_again(opened, server):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    admin = server.client()

    place = admin.hget("fs1:{s.0}:meta", "o")
    admin.hset("fs1:{s.0}:meta", "o", "what")
    assert eventually(lambda: "ValueError" in scorer._shared._trouble)
    assert eventually(
        lambda: (
            "ValueError"
            in (
                scorer.score(purchase(0)).degraded_because
                or scorer.score(purchase(6), record=False).degraded_because
                or ""
            )
        )
    )
    admin.hset("fs1:{s.0}:meta", "o", place)

    scorer.score(purchase(1))
    settled(scorer)


def test_a_what_if_says_that_what_others_know_was_not_read(opened, server):
    other, scorer = opened(), opened()
    other.score(purchase(0))
    settled(other, scorer)

    with paused(server):
        one = scorer.score(purchase(1), record=False)
        batch = scorer.score_batch([purchase(1), purchase(2)], record=False)

    assert one.degraded and "not read" in one.degraded_because
    assert all(each.degraded for each in batch)
    assert 0 == scorer.counters()["events"]


def test_a_scorer_that_was_closed_remembers_nothing_and_says_so(opened):
    scorer = opened()
    scorer.score(purchase(0))
    scorer.close()
    n_events = scorer.counters()["events"]

    decision = scorer.score(purchase(1))
    batch = scorer.score_batch([purchase(2)])
    with pytest.raises(StateUnavailableError):
        scorer.feedback("t-0", is_fraud=True)

    assert "closed" in decision.degraded_because
    assert "closed" in batch[0].degraded_because
    assert n_events == scorer.counters()["events"]
    scorer.close()


def test_a_child_that_is_forked_while_another_thread_decides_is_not_held_up(opened):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    is_held = threading.Event()

    def hold():
        with scorer._lock:
            is_held.set()
            time.sleep(0.3)

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        os._exit(0 if scorer.score(purchase(1)).degraded else 1)
    holder.join()

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not scorer.score(purchase(1)).degraded


# --- labels and reversals of what was not read -----------------------------------------------------------------------


def blind_scorer(opened, server):
    """A scorer that has forgotten a transaction's entities, and remembers another of theirs without having read them."""
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    forget(scorer)
    server.process.send_signal(signal.SIGSTOP)
    assert scorer.score(purchase(6)).degraded
    return scorer


def test_a_label_of_what_was_not_read_is_not_lost(opened, server):
    scorer = blind_scorer(opened, server)
    with pytest.raises(StateUnavailableError, match="say it again later"):
        scorer.feedback("t-0", is_fraud=True)
    server.process.send_signal(signal.SIGCONT)
    settled(scorer)
    assert scorer.feedback("t-0", is_fraud=True)
    settled(scorer)

    wanted = alone([purchase(0), purchase(6)])
    wanted.feedback("t-0", is_fraud=True)
    asked = purchase(9, event_time=NOON + timedelta(days=9))
    assert_same(row_of(wanted, asked), row_of(scorer, asked))


def reversal(of: int, number: int) -> dict[str, object]:
    return {
        **purchase(number),
        "type": "REVERSAL",
        "original_transaction_id": f"t-{of}",
        "amount": purchase(of)["amount"],
    }


def test_a_reversal_of_what_was_not_read_is_not_lost(opened, server, monkeypatch):
    scorer = blind_scorer(opened, server)
    refused = scorer.score(reversal(0, 7))
    server.process.send_signal(signal.SIGCONT)
    monkeypatch.setattr(shared_state, "READ_BUDGET_S", 2.0)
    settled(scorer)

    assert "send it again" in refused.degraded_because
    again = scorer.score(reversal(0, 7))
    settled(scorer)
    assert not again.degraded and not again.duplicate
    assert_same(row_of(alone([purchase(0), purchase(6), reversal(0, 7)]), purchase(9)), row_of(scorer, purchase(9)))


# --- much to do at once ----------------------------------------------------------------------------------------------


def test_a_store_that_was_emptied_does_not_keep_what_is_new_from_being_remembered(opened, server, monkeypatch):
    scorer = opened()
    sent = [purchase(i, f"u{i}") for i in range(100)]
    scorer.score_batch(sent)
    settled(scorer)
    monkeypatch.setattr(shared_state, "MAX_WAITING", 100)
    monkeypatch.setattr(shared_state, "_PER_COMMIT", 10)

    with server.client() as admin:
        admin.flushall()
    decisions = []
    while scorer.counters()["shared_regressions"] == 0 or scorer.counters()["shared_entities_waiting"]:
        sent.append(purchase(len(sent), "u0"))
        decisions.append(scorer.score(sent[-1]))
        time.sleep(0.001)
        if len(decisions) > 5_000:
            break

    assert [] == [each.degraded_because for each in decisions if each.degraded]
    settled(scorer)
    newcomer = opened()
    for user in ("u0", "u50"):
        assert_same(row_of(alone(sent), purchase(9_000, user)), row_of(newcomer, purchase(9_000, user)))


class ToldRedis(SharedRedis):
    """Keeps what it was asked."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.asked = []

    def commit(self, parts):
        self.asked.append("commit")
        return super().commit(parts)

    def poll(self):
        self.asked.append("poll")
        return super().poll()

    def read(self, keys):
        if threading.current_thread().name == "fraudsdk-shared":
            self.asked.append("read")
        return super().read(keys)


def longest_run(asked: list[str], of: str) -> int:
    """How often one was asked without another in between."""
    longest = run = 0
    for each in asked:
        run = run + 1 if each == of else 0
        longest = max(longest, run)
    return longest


def test_much_to_write_does_not_keep_the_lease_and_changes_of_others_waiting(opened, server, monkeypatch):
    monkeypatch.setattr(shared_state, "_PER_COMMIT", 1)
    store = ToldRedis(server.client(socket_timeout=0.5))
    with Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY), shared=store) as scorer:
        scorer.score_batch([purchase(i, f"u{i}") for i in range(1_000)])
        settled(scorer)

        assert longest_run(store.asked, "commit") <= 500


def test_much_to_read_again_does_not_keep_our_own_changes_waiting(opened, server, monkeypatch):
    monkeypatch.setattr(shared_state, "_PER_READ", 1)
    store = ToldRedis(server.client(socket_timeout=0.5))
    with Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY), shared=store) as scorer:
        scorer.score_batch([purchase(i, f"u{i}") for i in range(300)])
        settled(scorer)
        opened().score(purchase(1_000))  # somebody new: everything is read again
        time.sleep(0.5)
        settled(scorer)

        assert store.asked.count("read") > 300
        assert longest_run(store.asked, "read") <= 100
