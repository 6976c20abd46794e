"""A subject is erased from what a scorer remembers and keeps: nothing of it in any file, and no recovery brings it back."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.domain.fields import FIRST_IDENTIFIER
from fraudsdk.entity_state import erasure
from fraudsdk.entity_state.erasure import NO_TRACES, Subject, scan_files
from fraudsdk.entity_state.kernels import mix64
from fraudsdk.entity_state.layout import (
    KIND_COMPONENT_0,
    KIND_COMPONENTS,
    KIND_SALT,
    META_BUMP,
    META_DUPLICATES,
    META_JOURNAL_NEXT,
)
from fraudsdk.entity_state.state_directory import StateDirectory
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, StateError, StateUnavailableError
from fraudsdk.scorer import compaction, kept_state
from fraudsdk.scorer import erasure as scorer_erasure
from fraudsdk.scorer.compaction import compact
from fraudsdk.scorer.erasure import erase_as_in, erase_kept
from fraudsdk.testing.clock import ManualClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = b"a key that outlives the scorer"
N = 140
HOUR_US = 3_600_000_000


def purchase(number, **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": f"u-{number % 7}",
        "card_id": f"c-{number % 7}",
        "merchant_id": f"m-{number % 5}",
        "device_id": f"d-{number % 6}",
        "ip": f"10.0.0.{number % 9}",
        "merchant_country": ("FR", "GB", "XK")[number % 3],
        "counterparty_id": f"u-{(number + 3) % 7}",
        "amount": f"{10 + number % 90}.50",
        "event_time": NOON + timedelta(minutes=number),
        **fields,
    }


def remembered(scorer) -> dict[str, bytes]:
    """Everything, byte by byte."""
    memory = scorer._engine.memory
    meta = memory.meta.copy()
    meta[META_DUPLICATES] = 0
    return {
        "meta": meta.tobytes(),
        "pool": memory.pool[: meta[META_BUMP]].tobytes(),
        "journal": memory.journal[: meta[META_JOURNAL_NEXT]].tobytes(),
        "tombstones": memory.tombstones.tobytes(),
    }


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def clock():
    return ManualClock(now_us=int((NOON + timedelta(minutes=N)).timestamp() * 1e6))


@pytest.fixture
def config(artefact, state_dir):
    return ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir)


@pytest.fixture
def opened(config, clock):
    """Opens scorers on one directory, and closes what a test leaves open."""
    scorers = []

    def open_one(config=config):
        scorers.append(Scorer.open(config, clock=clock))
        return scorers[-1]

    yield open_one
    for scorer in scorers:
        if scorer._state is not None and scorer._state.log._writer.is_alive():
            scorer.close()


@pytest.fixture
def scorer(opened):
    """One that has seen `N` purchases."""
    scorer = opened()
    for number in range(N):
        scorer.score(purchase(number))
    return scorer


@pytest.fixture
def kept(scorer, state_dir, clock):
    """Its directory, once it was closed; and the keys of u-1."""
    keys = keys_of(scorer, "u-1")
    scorer.close()
    return state_dir, keys


def keys_of(scorer, user, numbers=range(N)) -> set[int]:
    """The eight bytes that would betray a user, worked out from what was sent."""
    encoder, kinds = scorer._encoder, scorer._engine.memory.layout.kinds
    keys = set()
    for number in numbers:
        ints, numbers_ = encoder.empty(1)
        sent = purchase(number)
        encoder.encode(encoder.prepare(sent), ints, numbers_)
        hashes = dict(zip(encoder.layout.identifiers, ints[0, FIRST_IDENTIFIER:].tolist(), strict=True))
        names = [name for name in ("user_id", "counterparty_id") if sent[name] == user]
        keys |= {hashes[name] for name in names}
        if "user_id" in names:
            keys.add(encoder.transaction_key(sent["transaction_id"]))
        columns = {FIRST_IDENTIFIER + encoder.layout.identifiers.index(name) for name in names}
        for kind in kinds:
            components = kind[KIND_COMPONENT_0 : KIND_COMPONENT_0 + kind[KIND_COMPONENTS]].tolist()
            if columns & set(components):
                key = int(kind[KIND_SALT])
                for column in components:
                    key = int(mix64(np.int64(key ^ ints[0, column])))
                keys.add(key)
    return keys


def betraying(directory, keys) -> list[str]:
    """Files that have one of the keys, at any byte and in either order."""
    return [
        path.name
        for path in sorted(directory.iterdir())
        if any(key.to_bytes(8, order, signed=True) in path.read_bytes() for key in keys for order in ("little", "big"))
    ]


def betrayed(scorer, keys) -> bool:
    """Whether one of the keys is anywhere in the memory of a scorer, its buffers and what it works with."""
    engine, memory = scorer._engine, scorer._engine.memory
    arrays = [memory.pool[: memory.meta[META_BUMP]], memory.journal, memory.table, scorer._ints]
    arrays += [engine._keys, engine._ahead, engine._ahead_labels]
    arrays += [] if scorer._state is None else scorer._state.log._buffers
    octets = b"".join(array.tobytes() for array in arrays)
    return any(key.to_bytes(8, "little", signed=True) in octets for key in keys)


# --- while a scorer runs ---------------------------------------------------------------------------------------------


def test_nothing_of_the_subject_is_left_in_any_file_or_in_memory(scorer, state_dir):
    scorer.score(purchase(N + 1))  # of u-1, so that it is what the scorer has worked on last
    keys = keys_of(scorer, "u-1", [*range(N), N + 1])
    with scorer._lock:
        scorer._state.log.wait_until_durable(scorer._state.log.sequence, 10)
    assert betraying(state_dir, keys) and betrayed(scorer, keys)

    erased = scorer.erase(user_id="u-1")

    assert [] == betraying(state_dir, keys) and not betrayed(scorer, keys)
    assert erased.was_known and N // 7 + 1 == erased.n_transactions
    assert 0 == erased.n_found and [path.name for path in state_dir.glob("*.fssnap")] == [
        each.name for each in erased.scanned
    ]
    scorer.close()
    assert [] == betraying(state_dir, keys)


def test_what_is_left_is_found_again_to_the_byte(scorer, opened, clock):
    scorer.erase(user_id="u-1")
    clock.advance_us(HOUR_US)
    for number in range(N, N + 60):
        scorer.score(purchase(number))
    scorer.feedback(f"t-{N + 5}", is_fraud=True)
    kept = remembered(scorer)
    scorer.close()

    after = opened()

    assert kept == remembered(after)
    assert after.score(purchase(N + 3)).duplicate
    assert [] == after.recovered.problems


def test_an_erasure_that_lies_in_the_log_is_replayed_to_the_byte(scorer, opened, clock, monkeypatch):
    # Given an erasure whose snapshot could not be taken, and what happened after it
    monkeypatch.setattr(kept_state, "keep_erased", refused)
    with pytest.raises(
        StateUnavailableError, match=r"files of .* from before are still there: .*No space.*; erase again"
    ):
        scorer.erase(user_id="u-1")
    monkeypatch.undo()
    clock.advance_us(HOUR_US)
    for number in range(N, N + 40):
        scorer.score(purchase(number))
    kept = remembered(scorer)
    scorer.close()

    # Then whoever opens the directory has the same, and does what was left
    with pytest.warns(RuntimeWarning, match="from before an erasure, and are removed"):
        after = opened()

    assert kept == remembered(after)
    assert [] == betraying(
        scorer._state._directory.path, keys_of(after, "u-1") - keys_of(after, "u-1", range(N, N + 40))
    )
    assert 0 == after.recovered.n_replayed or after.recovered.sequence_of_snapshot == after.recovered.sequence
    after.close()
    assert kept == remembered(opened())


def refused(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_erasing_again_does_what_could_not_be_done(scorer, monkeypatch, state_dir):
    keys = keys_of(scorer, "u-1")
    monkeypatch.setattr(kept_state, "keep_erased", refused)
    with pytest.raises(StateUnavailableError):
        scorer.erase(user_id="u-1")
    assert betraying(state_dir, keys)
    monkeypatch.undo()

    again = scorer.erase(user_id="u-1")

    assert not again.was_known and 0 == again.n_found
    assert [] == betraying(state_dir, keys) and not betrayed(scorer, keys)


def test_an_old_transaction_that_comes_once_more_is_not_remembered_and_says_so(scorer):
    scorer.erase(user_id="u-1")
    kept = remembered(scorer)

    again = scorer.score(purchase(8))
    together = scorer.score_batch([purchase(15), purchase(22)])

    for decision in (again, *together):
        assert decision.degraded and "erased" in decision.degraded_because and not decision.duplicate
    assert kept == remembered(scorer)


def test_what_happens_from_then_on_counts_from_zero(scorer, clock):
    def purchases_of_u_1(number):
        features = scorer.explain(purchase(N + number, transaction_id="probe", user_id="u-1")).features
        return next(each.value for each in features if each.name == "user_count_24h")

    clock.advance_us(HOUR_US)
    before = purchases_of_u_1(1)
    scorer.erase(user_id="u-1")
    after = []
    for number in range(61, 64):
        after.append(purchases_of_u_1(number))
        scorer.score(purchase(N + number, user_id="u-1"))

    assert N // 7 + 1 == before
    assert [1, 2, 3] == after  # the one that is asked about among them


def test_who_paid_the_subject_keeps_the_transaction_without_the_name(scorer):
    # Given u-5, who paid u-1
    assert "u-1" == purchase(5)["counterparty_id"]
    scorer.erase(user_id="u-1")

    # Then what u-5 did is known, and is no way to know u-1 again
    assert scorer.score(purchase(5)).duplicate
    assert scorer.feedback("t-5", is_fraud=True)
    late = scorer.score(purchase(5, transaction_id="t-late", event_time=NOON + timedelta(minutes=3)))
    assert not late.degraded
    assert not betrayed(scorer, keys_of(scorer, "u-1"))


def test_several_identifiers_are_erased_together(scorer, state_dir):
    erased = scorer.erase(user_id="u-1", device_id=["d-0", "d-1"], card_id="c-1")

    assert erased.was_known and 4 == len(scorer._engine.memory.tombstones)
    assert not scorer.score(purchase(6)).duplicate  # of d-0


def test_somebody_unknown_leaves_a_tombstone(scorer, opened):
    erased = scorer.erase(user_id="somebody else")
    scorer.close()

    assert not erased.was_known
    after = opened()
    assert 1 == len(after._engine.memory.tombstones)
    assert "erased" in after.score(purchase(3, transaction_id="new", user_id="somebody else")).degraded_because


@pytest.mark.parametrize(
    ("identifiers", "error", "says"),
    [
        ({}, ConfigurationError, "nobody is named; say whom to erase"),
        ({"user": "u-1"}, ConfigurationError, "no feature reads 'user'"),
        ({"email_hash": "x"}, ConfigurationError, "no feature reads 'email_hash'"),
        ({"merchant_country": "FR"}, ConfigurationError, "no feature reads 'merchant_country'"),
        ({"user_id": "4111111111111111"}, InvalidTransactionError, "card number"),
    ],
)
def test_who_cannot_be_erased_is_said(scorer, identifiers, error, says):
    kept = remembered(scorer)
    with pytest.raises(error, match=says) as refusal:
        scorer.erase(**identifiers)

    assert "4111111111111111" not in str(refusal.value)
    assert kept == remembered(scorer)


def test_a_card_number_is_erased_by_its_token(opened, artefact):
    scorer = opened()
    sent = purchase(1)
    del sent["card_id"]
    scorer.score(sent | {"pan": "4111 1111 1111 1111"})

    assert 1 == scorer.erase(card_id="4111111111111111").n_transactions


def test_without_a_directory_the_memory_is_erased(artefact, clock, opened):
    scorer = opened(ScorerConfig(model=artefact, hash_key=KEY))
    for number in range(N):
        scorer.score(purchase(number))

    erased = scorer.erase(user_id="u-1")

    assert erased.was_known and () == erased.scanned
    assert not betrayed(scorer, keys_of(scorer, "u-1"))
    assert "erased" in scorer.score(purchase(8)).degraded_because


def test_a_decision_that_was_under_way_is_not_kept_after_it(scorer, state_dir, monkeypatch):
    # Given a transaction of u-1 that is being decided when u-1 is erased
    judged = scorer._judged

    def erased_meanwhile(*arguments):
        scorer.erase(user_id="u-1")
        return judged(*arguments)

    monkeypatch.setattr(scorer, "_judged", erased_meanwhile)
    decision = scorer.score(purchase(N + 1, amount="4999.00", user_id="u-1", event_time=NOON + timedelta(minutes=N)))
    assert decision.decided_by != "none"
    scorer.close()

    key = scorer._encoder.transaction_key(f"t-{N + 1}")
    assert [] == betraying(state_dir, {key})


def test_a_log_without_room_erases_nothing(scorer, monkeypatch):
    kept = remembered(scorer)
    monkeypatch.setattr(scorer._state.log, "wait_for_spare_room", lambda n_words, timeout_s: False)
    with pytest.raises(StateUnavailableError, match="nothing was erased"):
        scorer.erase(user_id="u-1")

    assert kept == remembered(scorer)


def test_scorers_decide_and_take_snapshots_while_somebody_is_erased(config, clock, monkeypatch, opened, state_dir):
    # Given segments and snapshots at every turn, and a thread that never stops
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 20_000)
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 100)
    scorer = opened()
    done, n = threading.Event(), [0]

    def score():
        while not done.is_set():
            if n[0] % 7 != 1:
                scorer.score(purchase(n[0], counterparty_id=f"p-{n[0] % 4}", event_time=NOON + timedelta(seconds=n[0])))
            n[0] += 1
            time.sleep(0.0002)

    for number in range(N):
        scorer.score(purchase(number, transaction_id=f"before {number}"))
    thread = threading.Thread(target=score)
    thread.start()
    # When u-1 and then others are erased
    try:
        for user in ("u-1", "u-2", "u-9", "u-1"):
            erased = scorer.erase(user_id=user)
            assert user == "u-2" or 0 == erased.n_found
    finally:
        done.set()
        thread.join()
    kept = remembered(scorer)
    scorer.close()

    # Then nothing of u-1 is there, and everything else is
    ours = scorer._encoder.transaction_key("before 1")
    assert [] == betraying(state_dir, {ours, *keys_of(scorer, "u-1", [1])} - keys_of(scorer, "u-1", [5]))
    assert 0 == scorer.counters()["snapshots_that_failed"]
    assert kept == remembered(opened())


# --- without a scorer ------------------------------------------------------------------------------------------------


def erase_in(state_dir, config, clock, **identifiers):
    directory = StateDirectory(state_dir)
    try:
        return erase_kept(directory, config, identifiers, clock.now_us())
    finally:
        directory.close()


def test_a_directory_is_erased_and_opens_as_what_is_left(kept, config, clock, opened):
    state_dir, keys = kept
    assert betraying(state_dir, keys)

    erased = erase_in(state_dir, config, clock, user_id="u-1")

    assert erased.was_known and N // 7 == erased.n_transactions and 0 == erased.n_found
    assert [] == betraying(state_dir, keys)
    assert [f"{erased.scanned[0].name}"] == [path.name for path in state_dir.iterdir() if path.name != "lock"]
    after = opened()
    assert [] == after.recovered.problems and not betrayed(after, keys)
    assert after.score(purchase(2)).duplicate and not after.score(purchase(8)).duplicate


def test_by_command_and_by_scorer_the_same_is_left(scorer, kept, config, clock, opened, tmp_path, artefact):
    state_dir, _ = kept
    erase_in(state_dir, config, clock, user_id="u-1")
    by_command = remembered(opened())

    running = opened(ScorerConfig(model=artefact, hash_key=KEY, state_dir=tmp_path / "other"))
    for number in range(N):
        running.score(purchase(number))
    running.erase(user_id="u-1")

    for name in ("meta", "pool", "journal"):
        assert by_command[name] == remembered(running)[name]


def test_what_an_earlier_crash_put_aside_goes_too(kept, config, clock):
    state_dir, keys = kept
    betraying_octets = b"x" + next(iter(keys)).to_bytes(8, "little", signed=True)
    for name in ("snapshot-%020d.tmp", "snapshot-%020d.damaged", "log-%020d-80.torn"):
        (state_dir / (name % 7)).write_bytes(betraying_octets)

    assert 0 == erase_in(state_dir, config, clock, user_id="u-1").n_found
    assert [] == betraying(state_dir, keys)


def test_the_scan_finds_what_was_not_removed(kept, config, clock, monkeypatch):
    state_dir, keys = kept
    monkeypatch.setattr(erasure, "remove_before", lambda directory, sequence: [])

    erased = erase_in(state_dir, config, clock, user_id="u-1")

    assert betraying(state_dir, keys) == [each.name for each in erased.scanned if each.n_found]
    assert erased.n_found > N // 7


def test_the_scan_finds_words_that_were_not_zeroed(opened, config, clock, monkeypatch, state_dir):
    scorer = opened()
    for number in range(60):  # merchants whose lists of users move to larger chunks
        scorer.score(
            purchase(number, user_id=f"u-{number}", merchant_id=f"m-{number % 2}", transaction_id=f"u-{number}")
        )
    scorer.close()
    monkeypatch.setattr(erasure.kernels, "scrub", lambda *arguments: None)

    assert erase_in(state_dir, config, clock, user_id=[f"u-{number}" for number in range(1, 9)]).n_found > 0


def test_a_file_of_somebody_else_is_scanned_and_left(kept, config, clock):
    state_dir, keys = kept
    (state_dir / "notes").write_bytes(b"abc" + min(keys).to_bytes(8, "big", signed=True))

    erased = erase_in(state_dir, config, clock, user_id="u-1")

    assert [("notes", 1, 3)] == [(each.name, each.n_found, each.first) for each in erased.scanned if each.n_found]
    assert (state_dir / "notes").exists()


@pytest.mark.parametrize("then", ["open", "compact", "erase"])
def test_killed_before_older_files_are_removed_whoever_comes_next_removes_them(
    kept, config, clock, opened, monkeypatch, then
):
    state_dir, keys = kept
    monkeypatch.setattr(erasure, "remove_before", refused)
    with pytest.raises(OSError, match="No space"):
        erase_in(state_dir, config, clock, user_id="u-1")
    monkeypatch.undo()
    assert betraying(state_dir, keys)

    if then == "open":
        with pytest.warns(RuntimeWarning, match="from before an erasure, and are removed"):
            opened()
    elif then == "compact":
        directory = StateDirectory(state_dir)
        compact(directory, config)
        directory.close()
    else:
        assert not erase_in(state_dir, config, clock, user_id="u-1").was_known

    assert [] == betraying(state_dir, keys)


class Killed(BaseException):
    """The process is gone, from here on."""


def killed_at(monkeypatch, step, *, before) -> list[str]:
    """Have the process die at the so-manyth change of the directory, before or after it; what it had come to."""
    done = []

    def dying(name, change):
        def changed(*arguments, **options):
            if len(done) == step and before:
                raise Killed
            result = change(*arguments, **options)
            done.append(name)
            if len(done) == step + 1:
                raise Killed
            return result

        return changed

    monkeypatch.setattr(os, "fsync", dying("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", dying("rename", Path.replace))
    monkeypatch.setattr(Path, "unlink", dying("remove", Path.unlink))
    return done


def test_killed_at_any_change_of_the_directory_it_is_erased_or_it_is_not(
    scorer, kept, config, clock, tmp_path, artefact, monkeypatch
):
    state_dir, keys = kept
    (state_dir / f"log-{7:020d}-80.torn").write_bytes(min(keys).to_bytes(8, "little", signed=True))
    everything, outcomes, step = remembered(scorer), [], 0
    while True:
        for before in (True, False):
            there = shutil.copytree(state_dir, tmp_path / f"{step} {before}")
            with monkeypatch.context() as patch:
                done = killed_at(patch, step, before=before)
                try:
                    erase_in(there, config, clock, user_id="u-1")
                except Killed:
                    pass
                else:
                    assert {"sync", "rename", "remove"} == set(done)
                    assert outcomes == sorted(outcomes) and {False, True} == set(
                        outcomes
                    )  # not erased, and from then on erased
                    return
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                after = Scorer.open(ScorerConfig(model=artefact, hash_key=KEY, state_dir=there), clock=clock)
            is_erased = bool(len(after._engine.memory.tombstones))
            found = remembered(after)
            after.close()
            outcomes.append(is_erased)
            assert is_erased or everything == found
            assert not is_erased or [] == betraying(there, keys), done
        step += 1


def test_a_snapshot_that_cannot_be_written_leaves_everything(kept, config, clock, monkeypatch):
    state_dir, _ = kept
    before = {path.name: path.read_bytes() for path in state_dir.iterdir()}
    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(OSError, match="No space"):
        erase_in(state_dir, config, clock, user_id="u-1")

    assert before == {path.name: path.read_bytes() for path in state_dir.iterdir()}


def test_a_snapshot_that_was_not_written_as_it_is_removes_nothing(kept, config, clock, monkeypatch):
    state_dir, _ = kept
    segments = {path.name for path in state_dir.glob("*.fslog")}

    def written_wrong(*arguments):
        path = write(*arguments)
        path.write_bytes(path.read_bytes()[:-9] + b"\1" * 9)
        return path

    write = erasure.write_snapshot
    monkeypatch.setattr(erasure, "write_snapshot", written_wrong)
    with pytest.raises(StateError, match="changed"):
        erase_in(state_dir, config, clock, user_id="u-1")

    assert segments == {path.name for path in state_dir.glob("*.fslog")}


def test_an_erasure_waits_for_decisions_that_are_due(kept, config, clock, monkeypatch):
    state_dir, _ = kept
    monkeypatch.setattr(
        scorer_erasure, "require_decided", lambda directory, n: compaction.require_decided(directory, n + 2)
    )
    before = {path.name for path in state_dir.iterdir()}
    with pytest.raises(StateError, match=r"2 transactions .* not decided .*; open a scorer on the directory first"):
        erase_in(state_dir, config, clock, user_id="u-1")

    assert before == {path.name for path in state_dir.iterdir()}


def test_tombstones_outlive_compactions(kept, config, clock, opened):
    state_dir, _ = kept
    erase_in(state_dir, config, clock, user_id="u-1")
    clock.advance_us(HOUR_US)
    after = opened()
    for number in range(N, N + 20):
        after.score(purchase(number))
    after.close()
    directory = StateDirectory(state_dir)
    compact(directory, config)
    directory.close()

    last = opened()

    assert 1 == len(last._engine.memory.tombstones)
    assert "erased" in last.score(purchase(8)).degraded_because


def test_a_restored_backup_loses_who_was_erased_since(kept, config, clock, opened, tmp_path, artefact):
    # Given a backup, and u-1, d-2 and somebody unknown erased after it
    state_dir, keys = kept
    shutil.copytree(state_dir, tmp_path / "backup")
    first = erase_in(state_dir, config, clock, user_id="u-1")
    clock.advance_us(60_000_000)
    erase_in(state_dir, config, clock, device_id="d-2", ip="10.9.9.9")
    # When the backup is to lose whom the directory has lost
    backup = StateDirectory(tmp_path / "backup")
    erased = erase_as_in(backup, config, state_dir)
    again = erase_as_in(backup, config, state_dir)
    backup.close()

    # Then it has, with the same tombstones, and a second time there is nobody
    assert erased.was_known and not again.was_known and 0 == erased.n_found
    assert [] == betraying(tmp_path / "backup", keys)
    restored = opened(ScorerConfig(model=artefact, hash_key=KEY, state_dir=tmp_path / "backup"))
    left = opened()
    assert {tuple(row) for row in left._engine.memory.tombstones[:, :2].tolist()} == {
        tuple(row) for row in restored._engine.memory.tombstones[:, :2].tolist()
    }
    assert first.erased_us in left._engine.memory.tombstones[:, 1]
    assert left.counters()["entities"] == restored.counters()["entities"]
    assert "erased" in restored.score(purchase(8)).degraded_because
    assert restored.score(purchase(3)).duplicate


def test_a_directory_of_another_key_says_nothing_of_who_was_erased(kept, config, clock, tmp_path, artefact):
    directory, other = StateDirectory(kept[0]), StateDirectory(tmp_path / "other")
    other_config = ScorerConfig(model=artefact, hash_key=KEY * 2)
    with pytest.raises(StateError, match="holds no state"):
        erase_as_in(directory, config, other.path)
    erase_kept(other, other_config, {"user_id": "u-1"}, clock.now_us())
    with pytest.raises(StateError, match="was kept with another hash_key"):
        erase_as_in(directory, config, other.path)
    for each in (directory, other):
        each.close()


def test_the_scan_of_the_library_agrees_with_that_of_the_test(kept):
    state_dir, keys = kept
    who = Subject(np.array([[5, key, 1] for key in keys], np.int64), np.zeros(0, np.int64))
    files = sorted(path for path in state_dir.iterdir())

    scanned = scan_files(files, who, NO_TRACES)

    assert betraying(state_dir, keys) == [each.name for each in scanned if each.n_found]
