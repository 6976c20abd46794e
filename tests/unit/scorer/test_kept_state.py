"""State that outlives the scorer: the same bytes and answers after it is opened again, whatever was in between."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import threading
import weakref
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import pytest

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.layout import META_BUMP, META_DUPLICATES, META_JOURNAL_NEXT, META_MAX_ENTITIES
from fraudsdk.entity_state.log_format import EVENT, HEADER_WORDS, RECORD_KIND
from fraudsdk.errors import ConfigurationError, CorruptStateError, StateError, StateUnavailableError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.scorer import kept_state

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = b"a key that outlives the scorer"


def purchase(number: int, **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": f"u-{number % 7}",
        "card_id": f"c-{number % 5}",
        "merchant_id": f"m-{number % 11}",
        "amount": f"{10 + number % 90}.50",
        "event_time": NOON + timedelta(minutes=number),
        **fields,
    }


def remembered(scorer) -> dict[str, bytes]:
    """Everything, byte by byte."""
    memory = scorer._engine.memory
    meta = memory.meta.copy()
    meta[[META_DUPLICATES, META_MAX_ENTITIES]] = 0
    return {
        "meta": meta.tobytes(),
        "pool": memory.pool[: meta[META_BUMP]].tobytes(),
        "journal": memory.journal[: meta[META_JOURNAL_NEXT]].tobytes(),
    }


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def opened(artefact, state_dir):
    """Opens scorers on one directory, and closes what a test leaves open."""
    scorers = []

    def open_one(**options):
        config = {"model": artefact, "hash_key": KEY, "state_dir": state_dir} | options
        scorers.append(Scorer.open(ScorerConfig(**config)))
        return scorers[-1]

    yield open_one
    for scorer in scorers:
        if scorer._state is not None and scorer._state.log._writer.is_alive():
            scorer.close()


@pytest.fixture
def always_snapshot(monkeypatch):
    monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)


def records(path) -> list[tuple[int, int]]:
    """(kind, byte at which it ends) of each record of a segment."""
    words = np.fromfile(path, "<i8")
    found, at = [], HEADER_WORDS
    while at < len(words):
        end = at + int(words[at] & 0xFFFFFFFF)
        found.append((int(words[at + RECORD_KIND]), 8 * end))
        at = end
    return found


def the_segment(state_dir):
    (path,) = state_dir.glob("*.fslog")
    return path


# --- closed and opened -----------------------------------------------------------------------------------------------


def test_what_was_remembered_is_remembered(opened, simulated):
    before = opened()
    decided = [before.score(t) for t in simulated.transactions(*range(2_000))]
    assert any(decision.reasons for decision in decided)
    before.feedback(decided[3].transaction_id, is_fraud=True)
    before.feedback(decided[5].transaction_id, declined=True)
    kept = remembered(before)
    before.close()

    after = opened()

    assert kept == remembered(after)
    assert after.recovered.n_replayed > 2_000 and after.recovered.snapshot is None
    for transaction, decision in zip(simulated.transactions(*range(2_000)), decided, strict=True):
        again = after.score(transaction)
        assert again.duplicate and not again.degraded
        assert (decision.outcome, decision.decided_by) == (again.outcome, again.decided_by)
        assert [reason.code for reason in decision.reasons] == [reason.code for reason in again.reasons]
        assert np.array_equal([decision.margin, decision.score], [again.margin, again.score], equal_nan=True)
    assert kept == remembered(after)


def test_a_snapshot_gives_the_same_state_as_the_log(opened, always_snapshot, simulated):
    before = opened()
    before.score_batch(simulated.transactions(*range(2_000)))
    kept = remembered(before)
    before.close()

    after = opened()

    assert kept == remembered(after)
    assert 0 == after.recovered.n_replayed and after.recovered.snapshot is not None
    after.score(purchase(1))
    kept = remembered(after)
    after.close()
    last = opened()
    assert kept == remembered(last)


def test_a_batch_is_kept_like_single_ones(opened, state_dir, simulated, tmp_path):
    batch, single = opened(), opened(state_dir=tmp_path / "single")
    transactions = simulated.transactions(*range(1_000))
    batch.score_batch([*transactions, transactions[7]])
    for transaction in transactions:
        single.score(transaction)
    kept = remembered(single)
    batch.close()
    single.close()

    assert kept == remembered(opened()) == remembered(opened(state_dir=tmp_path / "single"))


def test_a_what_if_is_not_kept(opened):
    before = opened()
    before.score(purchase(1))
    before.score(purchase(2), record=False)
    before.score_batch([purchase(3)], record=False)
    kept = remembered(before)
    before.close()

    after = opened()

    assert 1 == after.counters()["events"]
    assert kept == remembered(after)


def test_snapshots_are_taken_beside_the_scoring_and_old_files_go(opened, monkeypatch, state_dir, simulated):
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 500)
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 20_000)
    scorer = opened(durability="sync")
    transactions = simulated.transactions(*range(3_000))
    for first in range(0, 3_000, 60):
        scorer.score_batch(transactions[first : first + 60])
        if scorer._state._compaction is not None:
            scorer._state._compaction.join()
    kept = remembered(scorer)
    scorer.close()

    snapshots = sorted(state_dir.glob("*.fssnap"))
    segments = sorted(state_dir.glob("*.fslog"))
    assert 2 == len(snapshots)
    assert segments[0].stem[4:] != f"{1:020d}"  # the first ones are gone
    after = opened()
    assert after.recovered.snapshot == snapshots[-1]
    assert 0 < after.recovered.n_replayed < 1_500
    assert kept == remembered(after)


def test_bounds_may_change_between_scorers(opened, always_snapshot):
    before = opened(journal_capacity=60, max_entities=2_000)
    for number in range(100):
        before.score(purchase(number))
    before.close()

    for capacity in (80, 30):  # kept by the one before, each time
        after = opened(journal_capacity=capacity, max_entities=3_000)
        assert after.score(purchase(99)).duplicate
        assert after.feedback("t-99", is_fraud=True)
        assert after.feedback(f"t-{100 - min(capacity, 60)}", is_fraud=False)
        assert not after.feedback(f"t-{99 - min(capacity, 60)}", is_fraud=False)
        after.close()


def test_fewer_entities_than_are_kept_is_refused(opened, always_snapshot):
    before = opened(max_entities=5_000)
    for number in range(200):
        before.score(purchase(number, user_id=f"u-{number}"))
    before.close()

    with pytest.raises(StateError, match=r"entities were kept and max_entities is 300; raise it"):
        opened(max_entities=300)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_state_that_is_kept_needs_a_key(artefact, state_dir):
    with pytest.raises(ConfigurationError, match="needs a hash_key"):
        ScorerConfig(model=artefact, state_dir=state_dir)


def test_a_durability_is_one_of_three(artefact):
    with pytest.raises(ConfigurationError, match="one of none, interval, sync, was 'eventually'"):
        ScorerConfig(model=artefact, durability="eventually")


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_another_key_is_refused(opened, monkeypatch, with_snapshot):
    monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0 if with_snapshot else 10**9)
    before = opened()
    before.score(purchase(1))
    before.close()

    with pytest.raises(StateError, match="was kept with another hash_key"):
        opened(hash_key=b"some other key of many bytes")
    assert opened().score(purchase(1)).duplicate  # nothing was harmed


def test_one_scorer_at_a_time(opened):
    opened()

    with pytest.raises(StateError, match="in use by another process"):
        opened()


def without_a_model(tmp_path, features):
    path = tmp_path / f"{features.fingerprint[:8]}.toml"
    path.write_text(features.to_toml())
    return {"model": None, "features": path}


def test_another_feature_set_of_the_same_fields_is_built_from_the_log(opened, always_snapshot, tmp_path):
    whole = reference_feature_set("EUR")
    fewer = whole.without("user_decayed_count_1h")
    before = opened(**without_a_model(tmp_path, fewer))
    for number in range(50):
        before.score(purchase(number))
    before.close()

    with pytest.warns(RuntimeWarning, match="was kept with another feature set"):
        after = opened(**without_a_model(tmp_path, whole))

    fresh = Scorer.open(ScorerConfig(**without_a_model(tmp_path, whole), hash_key=KEY))
    for number in range(50):
        fresh.score(purchase(number))
    assert remembered(fresh)["pool"] == remembered(after)["pool"]


def test_another_feature_set_of_other_fields_is_refused(opened, tmp_path):
    whole = reference_feature_set("EUR")
    before = opened(**without_a_model(tmp_path, whole))
    before.score(purchase(1))
    before.close()

    with pytest.raises(StateError, match="was kept with other fields or another vocabulary"):
        opened(**without_a_model(tmp_path, whole.without("balance", "amount_to_balance")))


# --- what a crash or a disk does -------------------------------------------------------------------------------------


def test_wherever_the_tail_is_cut_a_prefix_is_found(opened, state_dir, artefact):
    before = opened()
    for number in range(6):
        before.score(purchase(number))
    before.close()
    segment = the_segment(state_dir)
    whole = segment.read_bytes()
    ends = [end for kind, end in records(segment) if kind == EVENT]
    for length in {*range(8 * HEADER_WORDS, len(whole), 397), *ends, *(end - 1 for end in ends)}:
        segment.write_bytes(whole[:length])
        n = sum(end <= length for end in ends)

        config = ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir)
        if length in {8 * HEADER_WORDS, *(end for _, end in records_of(whole))}:
            after = Scorer.open(config)
        else:
            with pytest.warns(RuntimeWarning, match="were no whole record"):
                after = Scorer.open(config)
        assert n == after.counters()["events"]
        fresh = Scorer.open(ScorerConfig(model=artefact, hash_key=KEY))
        for number in range(n):
            fresh.score(purchase(number))
        assert remembered(fresh)["pool"] == remembered(after)["pool"]
        after.close()
        for path in state_dir.iterdir():
            path.unlink()


def records_of(octets: bytes) -> list[tuple[int, int]]:
    words = np.frombuffer(octets, "<i8")
    found, at = [], HEADER_WORDS
    while at < len(words):
        end = at + int(words[at] & 0xFFFFFFFF)
        found.append((int(words[at + RECORD_KIND]), 8 * end))
        at = end
    return found


def test_what_was_torn_off_is_put_aside(opened, state_dir):
    before = opened()
    for number in range(6):
        before.score(purchase(number))
    before.close()
    segment = the_segment(state_dir)
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])

    with pytest.warns(RuntimeWarning):
        after = opened()

    (torn,) = state_dir.glob("*.torn")
    assert whole[:-20] == segment.read_bytes() + torn.read_bytes()
    assert after.recovered.n_torn_bytes == len(torn.read_bytes())


def test_a_changed_snapshot_is_passed_over(opened, always_snapshot, state_dir):
    for first in (0, 50):
        scorer = opened()
        for number in range(first, first + 50):
            scorer.score(purchase(number))
        kept = remembered(scorer)
        scorer.close()
    older, newer = sorted(state_dir.glob("*.fssnap"))
    octets = bytearray(newer.read_bytes())
    octets[len(octets) // 2] ^= 1
    newer.write_bytes(octets)

    with pytest.warns(RuntimeWarning, match="was changed or cut off"):
        after = opened()

    assert after.recovered.snapshot == older
    assert kept == remembered(after)


def test_a_gap_in_the_log_is_an_error(opened, state_dir, monkeypatch):
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 2_000)
    scorer = opened(durability="sync")
    for number in range(60):
        scorer.score(purchase(number))
    scorer.close()
    segments = sorted(state_dir.glob("*.fslog"))
    assert len(segments) > 3
    shutil.move(segments[1], state_dir.parent / "elsewhere")

    with pytest.raises(CorruptStateError, match=r"is not as it was written|lacks the changes"):
        opened()

    shutil.move(state_dir.parent / "elsewhere", segments[1])
    assert 60 == opened().counters()["events"]


def test_a_decision_under_way_when_it_died_is_made_from_the_same_row(opened, state_dir, simulated):
    before = opened()
    decided = [before.score(t) for t in simulated.transactions(*range(3_000))]
    before.close()
    segment = the_segment(state_dir)
    ends = [end for kind, end in records(segment) if kind == EVENT]
    last = max(i for i, decision in enumerate(decided) if decision.reasons)
    segment.write_bytes(segment.read_bytes()[: ends[last]])

    after = opened()

    again = after.score(simulated.transactions(last)[0])
    assert again.duplicate and not again.degraded
    assert decided[last].outcome == again.outcome
    assert [reason.code for reason in decided[last].reasons] == [reason.code for reason in again.reasons]
    assert 1 == len(after.recovered.undecided)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that refuses writes while it is ``full``."""

    class Disk:
        full = True

    write = os.write

    def refuse(descriptor, octets):
        if Disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(kept_state, "BUFFER_WORDS", 600)  # some ten transactions
    yield Disk
    Disk.full = False


def test_what_cannot_be_logged_is_not_remembered_and_said(opened, full_disk):
    scorer = opened()
    decided = [scorer.score(purchase(number)) for number in range(40)]

    kept = [decision for decision in decided if not decision.degraded]
    lost = decided[len(kept) :]
    assert 5 < len(kept) < 40
    assert all(d.degraded and "state: log is full: No space left" in d.degraded_because for d in lost)
    assert len(kept) == scorer.counters()["events"]
    assert decided[0].transaction_id == scorer.score(purchase(0)).transaction_id
    assert scorer.score(purchase(0)).duplicate  # what is known needs no room
    batch = scorer.score_batch([purchase(number) for number in range(100, 110)])
    assert all(d.degraded and "state: log is full" in d.degraded_because for d in batch)
    assert len(kept) == scorer.counters()["events"]
    assert len(lost) + len(batch) == scorer.counters()["degraded"]

    full_disk.full = False
    while scorer.score(purchase(200)).degraded:
        pass
    state = remembered(scorer)
    scorer.close()
    assert state == remembered(opened())


def test_sync_says_when_the_disk_did_not_answer(opened, full_disk, monkeypatch):
    monkeypatch.setattr(kept_state, "_SYNC_S", 0.05)
    scorer = opened(durability="sync")

    decision = scorer.score(purchase(1))
    assert decision.degraded and "state: not on disk after 0.05 s: No space left" in decision.degraded_because
    (of_batch,) = scorer.score_batch([purchase(2)])
    assert of_batch.degraded
    with pytest.raises(StateUnavailableError, match="say it again"):
        scorer.feedback("t-1", is_fraud=True)

    full_disk.full = False
    scorer.close()
    assert 2 == opened().counters()["events"]


def test_a_label_that_cannot_be_logged_is_refused(opened, full_disk):
    scorer = opened()
    scorer.score(purchase(1))

    def label_for_ever():
        while True:
            assert scorer.feedback("t-1", is_fraud=True)

    with pytest.raises(StateUnavailableError, match="label was not taken: the log is full"):
        label_for_ever()  # the room that transactions leave to labels is bounded too

    taken = scorer.counters()["labels"]
    assert taken > 1
    full_disk.full = False
    scorer.close()
    assert taken == opened().counters()["labels"]


def test_a_child_process_decides_and_promises_nothing(opened, always_snapshot, state_dir):
    scorer = opened(durability="sync")
    scorer.score(purchase(1))
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover
        decision = scorer.score(purchase(2))
        scorer.close()
        os.write(writer, (decision.degraded_because or "promised").encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert b"forked from the one that writes the log" in os.read(reader, 1_000)
    assert [] == list(state_dir.glob("*.fssnap"))  # what is the parent's is not the child's to write
    with pytest.raises(StateError, match="in use by another process"):
        opened()
    scorer.score(purchase(3))
    scorer.close()
    assert 2 == opened().counters()["events"]


# --- closing, opening, and what comes in between ---------------------------------------------------------------------


def test_a_larger_journal_than_one_that_had_wrapped_goes_on(opened, always_snapshot):
    before = opened(journal_capacity=60)
    for number in range(100):
        before.score(purchase(number))
    before.close()

    after = opened(journal_capacity=80)
    for number in range(100, 300):  # rows are written over that were empty when it was opened
        assert not after.score(purchase(number)).degraded


def test_a_log_that_ends_before_its_snapshot_takes_no_numbers_back(opened, state_dir, monkeypatch):
    """As a power cut leaves it: the snapshot was synced, the log was not."""
    monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)
    before = opened(durability="none")
    for number in range(50):
        before.score(purchase(number))
    before.close()
    segment = the_segment(state_dir)
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size * 3 // 5])
    monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 10**9)

    with pytest.warns(RuntimeWarning, match="no whole record"):
        between = opened()
    for number in range(50, 60):
        between.score(purchase(number))
    kept = remembered(between)
    between.close()

    assert kept == remembered(opened())


def test_nothing_is_taken_once_it_is_closed(opened):
    scorer = opened()
    scorer.score(purchase(1))
    scorer.close()
    scorer.close()

    with pytest.raises(StateUnavailableError, match=r"label was not taken.*it was closed"):
        scorer.feedback("t-1", is_fraud=True)
    assert "state: log is full: it was closed" in scorer.score(purchase(2)).degraded_because
    assert 1 == opened().counters()["events"]


def test_a_closing_that_came_at_a_bad_moment_can_be_repeated(opened, monkeypatch):
    scorer = opened()
    scorer.score(purchase(1))
    close = scorer._state.log.close
    monkeypatch.setattr(scorer._state.log, "close", partial(close, 0.05))
    with scorer._lock, pytest.raises(StateUnavailableError, match="outside of signal handlers"):
        scorer.close()
    assert not scorer.score(purchase(2)).degraded
    monkeypatch.setattr(scorer._state.log, "close", close)

    scorer.close()

    assert 2 == opened().counters()["events"]


def test_closing_twice_closes_nobody_elses_files(opened):
    scorer = opened()
    scorer.score(purchase(1))
    scorer.close()
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(32)]

    scorer.close()

    for descriptor in others:
        os.fstat(descriptor)
        os.close(descriptor)


def test_a_writer_that_gave_up_leaves_the_next_owner_alone(opened, full_disk, monkeypatch):
    monkeypatch.setattr(kept_state, "BUFFER_WORDS", 1 << 16)
    first = opened()
    for number in range(20):
        first.score(purchase(number))
    monkeypatch.setattr(first._state.log, "close", partial(first._state.log.close, 0.2))
    with pytest.raises(StateUnavailableError, match="could not be written: No space left"):
        first.close()
    full_disk.full = False

    second = opened(durability="sync")
    for number in range(100, 140):
        second.score(purchase(number))
    second.close()

    third = opened()
    assert 40 == third.counters()["events"]
    assert third.feedback("t-120", is_fraud=True)


def test_a_snapshot_that_no_thread_can_take_is_counted(opened, monkeypatch):
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 10)
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 2_000)
    start = threading.Thread.start

    def no_more(thread):
        if thread.name == "fraudsdk-snapshot":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_more)
    scorer = opened(durability="sync")
    for number in range(60):
        assert not scorer.score(purchase(number)).degraded

    assert scorer.counters()["snapshots_that_failed"] > 0


def test_a_snapshot_that_cannot_be_taken_is_counted(opened, monkeypatch):
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 10)
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 2_000)
    scorer = opened(durability="sync")

    def refuse(*arguments, **options):
        raise CorruptStateError("it is not as it was written")

    monkeypatch.setattr(kept_state, "recover", refuse)
    for number in range(60):
        assert not scorer.score(purchase(number)).degraded
    scorer._state._compaction.join()

    assert scorer.counters()["snapshots_that_failed"] > 0


def test_an_opening_that_fails_lets_the_directory_go(opened, tmp_path):
    (tmp_path / "bad.toml").write_text(
        'version = 1\n[[rules]]\nname = "x"\nwhen = "no_such_feature > 1"\nthen = "REVIEW"\n'
    )
    with pytest.raises(ConfigurationError):
        opened(policy=tmp_path / "bad.toml")

    opened().score(purchase(1))


def test_a_closed_scorer_is_freed(artefact, state_dir):
    scorer = Scorer.open(ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir))
    scorer.score(purchase(1))
    scorer.close()
    memory = weakref.ref(scorer._engine.memory)
    del scorer
    gc.collect()

    assert memory() is None


def test_with_sync_a_duplicate_waits_for_the_first_to_be_on_disk(opened, monkeypatch):
    scorer = opened(durability="sync")
    scorer.score(purchase(0))
    go, sync, asked = threading.Event(), os.fdatasync, threading.Event()

    def held(descriptor):
        asked.set()
        go.wait(5)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", held)
    answers: list = []
    first = threading.Thread(target=lambda: scorer.score(purchase(1)))
    second = threading.Thread(target=lambda: answers.append(scorer.score(purchase(1))))
    first.start()
    asked.wait(5)
    second.start()
    second.join(0.2)
    early = list(answers)
    go.set()
    first.join()
    second.join()

    assert [] == early
    assert answers[0].duplicate


def test_a_verdict_is_not_logged_without_the_words_it_needs(opened, simulated):
    scorer = opened()
    log = scorer._state.log
    wait = log.wait_for_spare_room
    log.wait_for_spare_room = lambda n_words, timeout_s: n_words <= 7 and wait(n_words, timeout_s)
    for transaction in simulated.transactions(*range(3_000)):
        scorer.score(transaction)

    assert len(scorer._recorder.words) > scorer._state._n_words_logged
    assert scorer.counters()["verdicts_not_logged"] > 0


def test_what_was_decided_and_then_forgotten_is_not_undecided(opened, simulated):
    before = opened(journal_capacity=50)
    before.score_batch(simulated.transactions(*range(3_000)))
    before.close()

    assert [] == opened(journal_capacity=50).recovered.undecided


def test_a_journal_that_was_enlarged_after_a_crash_is_refused_with_a_remedy(opened):
    before = opened(journal_capacity=50)
    for number in (*range(100), 3):  # the last one was forgotten, and counts again
        before.score(purchase(number, event_time=NOON + timedelta(minutes=number)))
    before.close()

    with pytest.raises(CorruptStateError, match="with a smaller journal_capacity: compact it"):
        opened(journal_capacity=200)


def test_an_interrupted_batch_is_logged_as_far_as_it_is_remembered(opened, monkeypatch):
    scorer = opened()

    def interrupted(model, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(type(scorer._judge.model), "margins", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scorer.score_batch([purchase(number) for number in range(50)])
    kept = remembered(scorer)
    assert 50 == scorer.counters()["events"]
    scorer.close()

    again = opened()
    assert kept["pool"] == remembered(again)["pool"]
    assert 50 == len(again.recovered.undecided)


def test_a_long_reason_is_cut_and_the_log_is_not(opened, tmp_path):
    (tmp_path / "long.toml").write_text(
        'version = 1\n[[rules]]\nname = "any"\nwhen = "amount >= 0"\nthen = "REVIEW"\nreason = "VEL01"\n'
        f'[reasons.VEL01]\ntext = "{"x" * 40_000}"\ncustomer_text = "activity"\n'
    )
    before = opened(policy=tmp_path / "long.toml")
    for number in range(20):
        assert "REVIEW" == before.score(purchase(number)).outcome.value
    before.close()

    after = opened(policy=tmp_path / "long.toml")
    assert 20 == after.counters()["events"]
    assert "x" * 2_000 == after.score(purchase(3)).reasons[0].text


def test_in_a_batch_what_is_known_needs_no_room(opened, full_disk):
    scorer = opened()
    first, *_ = [scorer.score(purchase(number)) for number in range(40)]

    (again,) = scorer.score_batch([purchase(0)])

    assert again.duplicate and not again.degraded
    assert first.margin == again.margin


def test_a_what_if_waits_for_no_disk(opened, full_disk):
    scorer = opened(durability="sync")
    scorer.score(purchase(1))

    (in_batch,) = scorer.score_batch([purchase(2)], record=False)

    assert not in_batch.degraded
    assert not scorer.score(purchase(3), record=False).degraded
    full_disk.full = False
