"""Scorers that share what they remember in a real Redis, and what becomes of them when it is in trouble."""

from __future__ import annotations

import itertools
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from servers import EVERY_WRITE, IN_MEMORY, RedisServer, require_redis

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.layout import META_ENTITIES, META_NEWEST, META_OLDEST
from fraudsdk.errors import ConfigurationError, StateError, StateUnavailableError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.scorer import shared_state

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import SharedRedis  # noqa: E402  # only where Redis is

MODEL = Path(__file__).parents[3] / "compiled_models" / "reference"
KEY = b"the key of all who share"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def purchase(number: int, user: str = "u", **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": user,
        "card_id": f"card of {user}",
        "merchant_id": f"m-{number % 3}",
        "device_id": f"d-{number % 2}",
        "amount": f"{10 + number % 90}.50",
        "event_time": NOON + timedelta(seconds=number),
        **fields,
    }


_numbers = itertools.count(50_000)


def another(user: str = "u"):
    """A purchase that was not sent yet."""
    return purchase(next(_numbers), user)


def eventually(holds, within_s=20.0):
    """Wait until something holds; what it said last."""
    deadline = time.monotonic() + within_s
    while not (said := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return said


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture
def patient(monkeypatch):
    """Two milliseconds are little on a machine that does something else as well."""
    monkeypatch.setattr(shared_state, "READ_BUDGET_S", 2.0)


@pytest.fixture
def opened(server):
    """Opens scorers on one Redis, and closes what a test leaves open."""
    scorers = []

    def open_one(on=server, group="s", max_writers=16, lease_s=30.0, **options):
        store = SharedRedis(
            on.client(socket_timeout=0.5), group, max_writers=max_writers, lease_s=lease_s, **options.pop("store", {})
        )
        scorers.append(Scorer.open(ScorerConfig(**{"model": MODEL, "hash_key": KEY} | options), shared=store))
        return scorers[-1]

    yield open_one
    if server.process.poll() is not None:
        server.start()
    server.process.send_signal(signal.SIGCONT)
    for scorer in scorers:
        scorer.close()


def row_of(scorer, transaction) -> dict[str, float]:
    """Features, as they are now."""
    return {each.name: each.value for each in scorer.explain(transaction).features}


def settled(*scorers) -> None:
    """Wait until all is written, and read by the others."""
    for scorer in scorers:
        assert eventually(lambda scorer=scorer: not scorer.counters()["shared_entities_waiting"]), scorer.counters()
    started_ns = time.monotonic_ns()
    for scorer in scorers:
        assert eventually(lambda scorer=scorer: scorer._shared._fresh_ns > started_ns)
        assert eventually(lambda scorer=scorer: not scorer._shared._stale)


def alone(transactions) -> Scorer:
    """One scorer that saw everything."""
    scorer = Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY))
    for each in transactions:
        scorer.score(each)
    return scorer


def assert_same(wanted: dict[str, float], found: dict[str, float]) -> None:
    """Counts and sums to the last unit; what is decayed or a deviation to one in a hundred thousand."""
    for feature in reference_feature_set().features:
        exact = feature.aggregate in ("count", "sum", "max", "distinct", "count_ever", "is_new", "seconds_since_last")
        tolerance = 0 if exact else 1e-5
        np.testing.assert_allclose(
            found[feature.name], wanted[feature.name], rtol=tolerance, atol=tolerance, err_msg=feature.name
        )


@pytest.mark.usefixtures("patient")
def test_each_sees_the_events_of_the_other_and_at_rest_both_read_the_same_bits(opened):
    one, other = opened(), opened()
    transactions = [purchase(i, f"u{i % 4}") for i in range(200)]
    for i, each in enumerate(transactions):
        decision = (one, other)[i * 7 % 5 % 2].score(each)
        assert not decision.degraded, decision.degraded_because

    settled(one, other)

    for user in range(4):
        asked = purchase(1_000, f"u{user}")
        rows = [row_of(each, asked) for each in (one, other)]
        assert np.array(list(rows[0].values())).tobytes() == np.array(list(rows[1].values())).tobytes()
        assert_same(row_of(alone(transactions), asked), rows[0])


@pytest.mark.usefixtures("patient")
def test_a_transaction_that_is_sent_to_two_processes_counts_once(opened):
    one, other = opened(), opened()
    one.score(purchase(0))
    settled(one, other)

    again, batch = other.score(purchase(0)), other.score_batch([purchase(0), purchase(1)])
    settled(one, other)

    assert again.duplicate and again.degraded and "first decision is not known" in again.degraded_because
    assert [True, False] == [each.duplicate for each in batch]
    for scorer in (one, other):
        assert_same(row_of(alone([purchase(0), purchase(1)]), purchase(9)), row_of(scorer, purchase(9)))


def test_an_event_is_seen_elsewhere_within_a_flush_and_a_refresh(opened):
    one, other = opened(), opened()
    asked = purchase(1_000)
    one.score(purchase(0))
    other.score(purchase(1))

    delays_s = []
    for i in range(2, 22):
        before = row_of(other, asked)
        one.score(purchase(i))
        started = time.monotonic()
        assert eventually(lambda before=before: row_of(other, asked) != before)
        delays_s.append(time.monotonic() - started)

    # On a machine that does something else as well the slowest may be late; half of them are not.
    assert sorted(delays_s)[10] < 5 * (shared_state.FLUSH_S + shared_state.REFRESH_S)


def test_what_is_in_memory_is_decided_on_without_a_call(opened, server):
    scorer = opened()
    for i in range(20):
        scorer.score(purchase(i))
    settled(scorer)
    n_reads = scorer.counters()["shared_reads"]

    server.process.send_signal(signal.SIGSTOP)
    decisions = [scorer.score(purchase(20 + i)) for i in range(20)]

    assert [False] * 20 == [each.degraded for each in decisions]
    assert n_reads == scorer.counters()["shared_reads"]
    assert 0 == scorer.counters()["shared_reads_too_late"]


@pytest.mark.usefixtures("patient")
def test_what_is_new_is_not_asked_for(opened):
    other, scorer = opened(), opened()
    other.score(purchase(0))
    settled(other, scorer)

    decisions = [scorer.score(purchase(i, f"v{i}", merchant_id=f"n{i}", device_id=f"e{i}")) for i in range(20, 40)]

    assert not any(each.degraded for each in decisions)
    assert 0 == scorer.counters()["shared_reads"]
    scorer.score(purchase(50))
    assert 1 == scorer.counters()["shared_reads"]


def test_a_store_that_does_not_answer_is_said_and_nothing_is_lost(opened, server):
    one, other = opened(), opened()
    before, during = [purchase(i) for i in range(10)], [purchase(i) for i in range(10, 40)]
    for each in before:
        other.score(each)
    settled(one, other)

    server.process.send_signal(signal.SIGSTOP)
    degraded = [one.score(each) for each in during]
    server.process.send_signal(signal.SIGCONT)
    settled(one, other)

    assert all(each.degraded and "not read" in each.degraded_because for each in degraded)
    asked = purchase(1_000)
    for each in (one, other):
        assert_same(row_of(alone(before + during), asked), row_of(each, asked))
    assert not one.score(purchase(41)).degraded


def test_calls_that_fail_open_the_breaker_and_decisions_no_longer_wait(opened, server):
    other, scorer = opened(), opened()
    for i in range(40):
        other.score(purchase(i, f"u{i}"))
    settled(other, scorer)
    server.process.send_signal(signal.SIGSTOP)

    for i in range(20):
        scorer.score(purchase(100 + i, f"u{i}"))
    counted = scorer.counters()

    assert 1 == counted["shared_breaker_opened"]
    assert 5 <= counted["shared_reads_too_late"] <= 8  # and perhaps a trial, where this took over a second
    server.process.send_signal(signal.SIGCONT)
    settled(scorer)
    # Half open after a second: the next call closes it.
    not_at_hand = iter(range(20, 40))
    time.sleep(1.0)
    assert eventually(lambda: not scorer.score(another(f"u{next(not_at_hand)}")).degraded, within_s=5.0)
    assert scorer.counters()["shared_reads"] > 0


def test_what_others_know_gets_old_and_that_is_said(opened, server):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)

    server.process.send_signal(signal.SIGSTOP)
    assert eventually(lambda: scorer.state_age_us > 1_000_000 * shared_state.STALE_S)
    decision = scorer.score(purchase(6))  # of the same entities

    assert decision.degraded and "s old" in decision.degraded_because
    assert scorer.explain(purchase(12)).state_age_us >= 1_000_000


def test_a_store_that_was_emptied_is_filled_again_from_memory(opened, server):
    one = opened()
    transactions = [purchase(i) for i in range(30)]
    for each in transactions:
        one.score(each)
    settled(one)

    server.kill()
    server.start()  # without a file: everything is gone
    later = purchase(31)
    one.score(later)
    settled(one)
    newcomer = opened()

    assert one.counters()["shared_regressions"] >= 1
    assert_same(row_of(alone([*transactions, later]), purchase(99)), row_of(newcomer, purchase(99)))


def test_a_full_store_is_waited_for(opened, server):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    admin = server.client()
    admin.config_set("maxmemory", 1)

    decision = scorer.score(purchase(1))
    assert eventually(lambda: scorer._shared._trouble)
    waiting = scorer.counters()["shared_entities_waiting"]
    admin.config_set("maxmemory", 0)
    settled(scorer)

    assert not decision.degraded
    assert waiting > 0
    assert_same(row_of(alone([purchase(0), purchase(1)]), purchase(9)), row_of(opened(), purchase(9)))


def test_what_waits_is_bounded_and_then_nothing_more_is_remembered(opened, server, monkeypatch):
    monkeypatch.setattr(shared_state, "MAX_WAITING", 60)
    scorer = opened()
    server.process.send_signal(signal.SIGSTOP)
    refused = []

    def is_refused() -> bool:
        sent = another(f"u{next(_numbers)}")
        refused.append((sent, scorer.score(sent)))
        return "wait for the store" in (refused[-1][1].degraded_because or "")

    assert eventually(is_refused)
    n_events = scorer.counters()["events"]
    assert "wait for the store" in scorer.score(another()).degraded_because
    assert n_events == scorer.counters()["events"] == len(refused) - 1
    server.process.send_signal(signal.SIGCONT)
    settled(scorer)
    # What was refused may be sent again, and counts once.
    assert not scorer.score(refused[-1][0]).duplicate
    assert scorer.score(refused[-1][0]).duplicate


@pytest.mark.usefixtures("patient")
def test_a_restarted_process_knows_what_it_had_written(opened):
    first = opened()
    transactions = [purchase(i) for i in range(25)]
    for each in transactions:
        first.score(each)
    first.close()

    second = opened(max_writers=1)  # the same slot, or there would be none

    assert_same(row_of(alone(transactions), purchase(99)), row_of(second, purchase(99)))
    assert second.score(purchase(24)).duplicate  # sent once more
    second.score(purchase(26))
    settled(second)
    assert_same(row_of(alone([*transactions, purchase(26)]), purchase(99)), row_of(second, purchase(99)))


def test_more_writers_than_slots_are_refused(opened):
    opened(max_writers=1)

    with pytest.raises(StateError, match="raise max_writers"):
        opened(max_writers=1)


@pytest.mark.usefixtures("patient")
def test_the_slot_of_a_process_that_vanished_goes_to_another_and_it_writes_nothing_more(opened, server):
    zombie = opened(max_writers=1, lease_s=1.0)
    zombie.score(purchase(0))
    settled(zombie)
    # Hold its thread up, as a machine that is suspended would.
    with zombie._lock:
        successor = eventually(lambda: _opened_or_none(opened))
        successor.score(purchase(1))
    settled(successor)

    assert eventually(lambda: zombie.counters()["shared_slots_lost"] >= 1)
    assert_same(row_of(alone([purchase(0), purchase(1)]), purchase(9)), row_of(successor, purchase(9)))
    successor.close()
    assert eventually(lambda: zombie._shared._has_joined)  # it has the slot again, and what was written there
    assert_same(row_of(alone([purchase(0), purchase(1)]), purchase(9)), row_of(zombie, purchase(9)))
    assert not zombie.score(purchase(2)).degraded


def _opened_or_none(opened):
    try:
        return opened(max_writers=1, lease_s=1.0)
    except StateError:
        return None


@pytest.mark.usefixtures("patient")
def test_a_damaged_part_of_another_is_left_out_and_said(opened, server):
    one, other = opened(), opened()
    one.score(purchase(0))
    settled(one, other)
    admin = server.client()
    for name in admin.scan_iter("fs1:{s.0}:????????????????"):
        part = bytearray(admin.get(name))
        part[60] ^= 4
        admin.set(name, bytes(part))

    decision = other.score(purchase(1))

    assert decision.degraded and "damaged" in decision.degraded_because
    assert other.counters()["shared_parts_damaged"] > 0
    # Whoever has it in memory writes it again when it next changes.
    one.score(purchase(2))
    settled(one, other)
    assert not other.score(purchase(3)).degraded or eventually(lambda: not other.score(another()).degraded)


@pytest.mark.usefixtures("patient")
def test_a_damaged_part_of_our_own_is_put_aside_and_said(opened, server):
    first = opened()
    first.score(purchase(0))
    first.close()
    admin = server.client()
    names = list(admin.scan_iter("fs1:{s.0}:????????????????"))
    for name in names:
        part = bytearray(admin.get(name))
        part[60] ^= 4
        admin.set(name, bytes(part))

    second = opened()
    decision = second.score(purchase(1))
    settled(second)

    assert decision.degraded and "damaged" in decision.degraded_because
    assert eventually(lambda: list(admin.scan_iter("fs1:{s.0}:*:bad")))
    settled(second)
    assert eventually(lambda: not second.score(another()).degraded)


def test_feedback_finds_what_went_out_of_memory_and_is_refused_where_it_cannot(opened, server):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    with scorer._lock:
        scorer._engine.memory.table[:] = 0  # nothing is at hand
        scorer._engine.memory.meta[[META_NEWEST, META_OLDEST, META_ENTITIES]] = 0

    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StateUnavailableError, match="say it again later"):
        scorer.feedback("t-0", is_fraud=True)
    server.process.send_signal(signal.SIGCONT)

    assert eventually(lambda: _told(scorer))
    settled(scorer)
    labelled = alone([purchase(0)])
    labelled.feedback("t-0", is_fraud=True)
    asked = purchase(9, event_time=NOON + timedelta(days=9))
    assert_same(row_of(labelled, asked), row_of(scorer, asked))


def test_a_label_may_be_told_to_any_process(opened):
    one, other = opened(), opened()
    for i in range(6):
        one.score(purchase(i))
    settled(one, other)

    assert other.feedback("t-3", is_fraud=True, declined=True)
    assert eventually(lambda: one.counters()["labels"] == 1)
    settled(one, other)

    labelled = alone([purchase(i) for i in range(6)])
    labelled.feedback("t-3", is_fraud=True, declined=True)
    asked = purchase(9, event_time=NOON + timedelta(days=9))
    for scorer in (one, other):
        assert_same(row_of(labelled, asked), row_of(scorer, asked))


def test_labels_that_cannot_be_passed_on_are_refused_once_too_many_wait(opened, server, monkeypatch):
    monkeypatch.setattr(shared_state, "MAX_TO_TELL", 5)
    scorer = opened()
    server.process.send_signal(signal.SIGSTOP)

    taken = [scorer.feedback(f"of another process {i}", is_fraud=True) for i in range(5)]

    assert [True] * 5 == taken
    with pytest.raises(StateUnavailableError, match="say it again later"):
        scorer.feedback("of another process 5", is_fraud=True)


def _told(scorer) -> bool:
    try:
        return scorer.feedback("t-0", is_fraud=True)
    except StateUnavailableError:
        return False


@pytest.mark.usefixtures("patient")
def test_a_batch_is_decided_as_its_rows_would_be(opened):
    one, other = opened(), opened()
    transactions = [purchase(i, f"u{i % 9}") for i in range(300)]

    halves = one.score_batch(transactions[:150]), other.score_batch(transactions[150:])
    settled(one, other)

    assert not any(each.degraded for half in halves for each in half)
    for user in range(9):
        asked = purchase(1_000, f"u{user}")
        assert_same(row_of(alone(transactions), asked), row_of(one, asked))


def test_a_batch_during_an_outage_is_said_and_counted_later(opened, server):
    other, scorer = opened(), opened()
    transactions = [purchase(i, f"u{i % 9}") for i in range(300)]
    other.score_batch(transactions[:100])
    settled(other, scorer)
    server.process.send_signal(signal.SIGSTOP)

    decisions = scorer.score_batch(transactions[100:])
    server.process.send_signal(signal.SIGCONT)
    settled(other, scorer)

    assert all(each.degraded for each in decisions)
    assert_same(row_of(alone(transactions), purchase(999, "u1")), row_of(scorer, purchase(999, "u1")))


def test_a_child_process_decides_and_writes_nothing(opened):
    scorer = opened()
    scorer.score(purchase(0))
    settled(scorer)
    n_commits = scorer.counters()["shared_commits"]

    child = os.fork()
    if child == 0:
        decision = scorer.score(purchase(1))
        scorer.close()
        os._exit(0 if decision.degraded and "forked" in decision.degraded_because else 1)

    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    settled(scorer)
    assert n_commits == scorer.counters()["shared_commits"]


def test_scripts_that_were_flushed_are_loaded_again(opened, server):
    scorer = opened()
    server.client().script_flush()
    scorer.score(purchase(0))

    settled(scorer)

    assert scorer.counters()["shared_commits"] >= 1


def test_other_features_or_another_key_are_refused(opened):
    opened()

    with pytest.raises(StateError, match="another group"):
        opened(hash_key=b"another key of sixteen")
    assert opened(hash_key=b"another key of sixteen", group="t") is not None


def test_what_cannot_be_shared_is_refused_before_anything_is_opened(server, tmp_path):
    store = SharedRedis(server.client())

    with pytest.raises(ConfigurationError, match="hash_key"):
        Scorer.open(ScorerConfig(model=MODEL), shared=store)
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY, state_dir=tmp_path / "state"), shared=store)
    assert 0 == server.client().dbsize()


def test_entities_expire_when_they_have_not_changed_for_long(opened, server):
    scorer = opened(store={"ttl_s": 1_000})
    scorer.score(purchase(0))
    settled(scorer)
    admin = server.client()

    lives_s = {admin.ttl(name) for name in admin.scan_iter("fs1:{s.0}:????????????????")}

    assert lives_s and 0 < min(lives_s) <= max(lives_s) <= 1_000


def test_a_killed_redis_with_an_append_only_file_goes_on(tmp_path, opened):
    server = RedisServer(tmp_path / "kept", *EVERY_WRITE).start()
    try:
        scorer = opened(on=server)
        scorer.score(purchase(0))
        settled(scorer)
        server.kill()
        scorer.score(purchase(1))
        server.start()
        scorer.score(purchase(2))
        settled(scorer)
        scorer.close()
        newcomer = opened(on=server)
        assert_same(row_of(alone([purchase(i) for i in range(3)]), purchase(9)), row_of(newcomer, purchase(9)))
        newcomer.close()
    finally:
        server.stop()
