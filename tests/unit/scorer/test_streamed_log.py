"""A stream's state and its place in the stream belong together, wherever a crash comes in between."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state import log_kernels, snapshot
from fraudsdk.entity_state.layout import META_BUMP, META_DUPLICATES, META_JOURNAL_NEXT
from fraudsdk.entity_state.log_format import EVENT, HEADER_WORDS, PLACE, RECORD_KIND, RECORD_SEQUENCE
from fraudsdk.entity_state.marks import last_mark
from fraudsdk.entity_state.place import Mark, Place
from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles
from fraudsdk.entity_state.transfer import export_state, import_state
from fraudsdk.errors import ConfigurationError, CorruptStateError, StateError, StateUnavailableError
from fraudsdk.scorer import compaction, kept_state, recovery
from fraudsdk.scorer.compaction import compact
from fraudsdk.scorer.erasure import erase_kept
from fraudsdk.scorer.streamed_log import StreamedLog

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = b"a key that outlives the scorer"
ORIGIN = b"transactions Xx0Uq7 3"


def message(offset: int) -> dict:
    return {
        "transaction_id": f"t-{offset}",
        "user_id": f"u-{offset % 7}",
        "card_id": f"c-{offset % 5}",
        "merchant_id": f"m-{offset % 11}",
        "amount": f"{10 + offset * offset % 9000}.50",
        "event_time": NOON + timedelta(minutes=offset),
    }


def feed(log: StreamedLog, n: int, commit: bool = True):
    """Score the next messages as a batch."""
    first = log.place
    decisions = log.scorer.score_batch([message(offset) for offset in range(first, first + n)])
    if commit:
        log.commit(first + n)
    return decisions


def remembered(scorer: Scorer) -> dict[str, bytes]:
    """Everything, byte by byte."""
    memory = scorer._engine.memory
    meta = memory.meta.copy()
    meta[META_DUPLICATES] = 0  # what came again changes nothing, and is not logged
    return {
        "meta": meta.tobytes(),
        "pool": memory.pool[: meta[META_BUMP]].tobytes(),
        "journal": memory.journal[: meta[META_JOURNAL_NEXT]].tobytes(),
        "tombstones": memory.tombstones.tobytes(),
        "words": repr([tuple(each) for each in scorer._recorder.words]).encode(),
    }


def kept_together(log: StreamedLog) -> tuple[int, bool, dict[str, bytes]]:
    return log.place, log.is_new, remembered(log.scorer)


@pytest.fixture(scope="module")
def oracle(artefact):
    """What a process that was never killed remembers of the messages before an offset."""

    @cache
    def after(place: int) -> dict[str, bytes]:
        with Scorer.open(ScorerConfig(model=artefact, hash_key=KEY)) as scorer:
            if place:
                scorer.score_batch([message(offset) for offset in range(place)])
            return remembered(scorer)

    return after


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def config(artefact, state_dir):
    return ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir)


@pytest.fixture
def opened(artefact, state_dir):
    """Opens the state of a stream, and closes what a test leaves open."""
    logs = []

    def open_one(origin=ORIGIN, **options):
        config = {"model": artefact, "hash_key": KEY, "state_dir": state_dir} | options
        logs.append(StreamedLog.open(ScorerConfig(**config), origin))
        return logs[-1]

    yield open_one
    for log in logs:
        if not log.scorer._state.log.has_ended:
            log.close()


@pytest.fixture
def always_snapshot(monkeypatch):
    monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)


def copied(state_dir: Path, to: Path) -> Path:
    """As a process that is killed now leaves it."""
    shutil.copytree(state_dir, to)
    return to


def records_in(octets: bytes) -> list[tuple[int, int, int]]:
    """Number, kind and last byte of each whole record of a segment."""
    words = np.frombuffer(octets[: len(octets) // 8 * 8], "<i8")
    found, at = [], HEADER_WORDS
    while at < len(words) and (end := at + int(words[at] & 0xFFFFFFFF)) <= len(words):
        found.append((int(words[at + RECORD_SEQUENCE]), int(words[at + RECORD_KIND]), 8 * end))
        at = end
    return found


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_stream_that_was_never_fed_is_new(opened, oracle):
    log = opened()
    assert (0, True, oracle(0)) == kept_together(log)
    log.close()
    assert (0, True, oracle(0)) == kept_together(opened())


def test_a_place_of_zero_is_a_place(opened):
    log = opened()
    log.commit(0)
    log.close()
    assert (0, False) == kept_together(opened())[:2]


def test_it_goes_on_from_the_place_that_was_committed(opened, oracle):
    log = opened()
    feed(log, 40)
    feed(log, 25)
    log.close()

    after = opened()

    assert (65, False, oracle(65)) == kept_together(after)
    feed(after, 5)
    assert oracle(70) == remembered(after.scorer)


def test_what_was_not_committed_is_forgotten_put_aside_and_said(opened, oracle, state_dir):
    log = opened()
    feed(log, 40)
    feed(log, 25, commit=False)
    log.close()
    (segment,) = state_dir.glob("*.fslog")
    whole = segment.read_bytes()

    with pytest.warns(RuntimeWarning, match="came after place 40 of 'transactions Xx0Uq7 3', the last that was"):
        after = opened()

    assert (40, False, oracle(40)) == kept_together(after)
    (aside,) = state_dir.glob("*.torn")
    assert whole == segment.read_bytes() + aside.read_bytes()
    assert after.scorer.recovered.n_torn_bytes == len(aside.read_bytes())


def test_what_comes_again_is_decided_on_alike(opened):
    log = opened()
    feed(log, 60)
    first = feed(log, 60, commit=False)
    log.close()

    with pytest.warns(RuntimeWarning):
        after = opened()
    again = feed(after, 60)

    assert list(first) == list(again)
    assert not any(decision.duplicate for decision in again)


def test_in_the_same_process_a_batch_that_comes_again_counts_once(opened, oracle):
    log = opened()
    feed(log, 20, commit=False)
    assert all(decision.duplicate for decision in feed(log, 20))
    assert oracle(20) == remembered(log.scorer)


def test_several_lives_that_end_before_a_commit_keep_few_files(opened, oracle, state_dir):
    log = opened()
    feed(log, 10)
    for n in range(1, 9):
        feed(log, n, commit=False)
        log.close()
        with pytest.warns(RuntimeWarning):
            log = opened()
        assert (10, False, oracle(10)) == kept_together(log)
    assert 1 <= len(list(state_dir.glob("*.torn"))) <= 4


def test_a_batch_over_several_segments_is_cut_off_whole(opened, oracle, state_dir, monkeypatch):
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 3_000)
    log = opened(durability="sync")
    feed(log, 10)
    for offset in range(10, 60, 5):
        log.scorer.score_batch([message(each) for each in range(offset, offset + 5)])
        with log.scorer._lock:
            log.scorer._state.log.wait_until_durable(log.scorer._state.log.sequence, 1.0)
    log.close()
    assert len(list(state_dir.glob("*.fslog"))) > 3

    with pytest.warns(RuntimeWarning):
        after = opened()

    assert (10, False, oracle(10)) == kept_together(after)
    feed(after, 50)
    after.close()
    assert (60, False, oracle(60)) == kept_together(opened())


@pytest.mark.parametrize("n_done", range(6))
def test_killed_while_it_cuts_the_next_one_cuts_the_rest(opened, oracle, state_dir, monkeypatch, n_done):
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 3_000)
    log = opened(durability="sync")
    feed(log, 10)
    for offset in range(10, 60, 5):
        log.scorer.score_batch([message(each) for each in range(offset, offset + 5)])
        with log.scorer._lock:
            log.scorer._state.log.wait_until_durable(log.scorer._state.log.sequence, 1.0)
    log.close()
    done, put_aside = [], recovery._put_aside

    def put_aside_until_killed(path, *how):
        if len(done) == n_done:
            raise KeyboardInterrupt
        done.append(path)
        put_aside(path, *how)

    with monkeypatch.context() as killing, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        killing.setattr(recovery, "_put_aside", put_aside_until_killed)
        with contextlib.suppress(KeyboardInterrupt):
            opened().close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        after = opened()

    assert (10, False, oracle(10)) == kept_together(after)


# --- wherever it is cut ----------------------------------------------------------------------------------------------


def test_cut_at_every_byte_the_last_whole_place_counts(opened, oracle, state_dir, tmp_path):
    log = opened()
    feed(log, 6)
    log.close()
    log = opened()
    for n in (3, 1, 2):
        feed(log, n)
    log.close()
    segment = max(state_dir.glob("*.fslog"))
    whole = segment.read_bytes()
    records = records_in(whole)
    ends = [end for _, _, end in records]
    marks = [(end, place) for (_, kind, end), place in zip(records, _places(records, 6), strict=True) if kind == PLACE]
    assert [9, 10, 12] == [place for _, place in marks]
    near_ends = {end + beside for end in ends for beside in (-1, 0, 1)}

    for length in range(len(whole) + 1):
        segment.write_bytes(whole[:length])
        expected = max([place for end, place in marks if end <= length], default=6)
        assert expected == last_mark(StateFiles(state_dir)).place.next, length
        if length in near_ends:
            copy = copied(state_dir, tmp_path / str(length))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                after = opened(state_dir=copy)
            assert (expected, False, oracle(expected)) == kept_together(after), length
            after.close()


def _places(records, first: int) -> list[int]:
    """How many messages came by each record, of batches in which each was logged once."""
    return (first + np.cumsum([kind == EVENT for _, kind, _ in records])).tolist()


LIVES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6
        ),  # batches: how many, and committed
        st.integers(0, 3_000),  # bytes that a crash cuts off the last segment
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives=LIVES)
def test_whatever_is_fed_committed_and_cut_state_and_place_belong_together(artefact, oracle, tmp_path_factory, lives):
    state_dir = tmp_path_factory.mktemp("lives") / "state"
    config = ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir)
    marks = [(1, 0)]  # number of each place that was kept, and the place
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        patch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 15)
        patch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 20)
        patch.setattr(kept_state, "SEGMENT_BYTES", 2_000)
        for batches, n_cut in lives:
            with StreamedLog.open(config, ORIGIN) as log:
                place = marks[-1][1]
                assert (place, oracle(place)) == (log.place, remembered(log.scorer))
                for n, is_committed in batches:
                    log.scorer.score_batch([message(offset) for offset in range(place, place + n)])
                    place += n
                    if is_committed:
                        log.commit(place)
                        marks.append((log.scorer._state.log.sequence - 1, place))
                    with log.scorer._lock:  # so that segments end, and snapshots are taken
                        log.scorer._state.log.wait_until_durable(log.scorer._state.log.sequence, 1.0)
            end = cut(state_dir, n_cut)
            marks = [(number, place) for number, place in marks if number < end] or marks[:1]
        with StreamedLog.open(config, ORIGIN) as log:
            assert (marks[-1][1], oracle(marks[-1][1])) == (log.place, remembered(log.scorer))


def cut(state_dir: Path, n_bytes: int) -> int:
    """Cut bytes off the last segment; the number after the last record that is kept."""
    kept = max((int(path.stem[9:]) for path in state_dir.glob("*.fssnap")), default=1)
    segment = max(state_dir.glob("*.fslog"))
    octets = segment.read_bytes()[: -n_bytes or None]
    segment.write_bytes(octets)
    return max(kept, records_in(octets)[-1][0] + 1 if records_in(octets) else int(segment.stem[4:]))


@pytest.mark.parametrize("hole", ["the end of the log counts", "the place before the events"])
def test_a_protocol_with_a_hole_is_found_out(opened, oracle, monkeypatch, hole):
    log = opened()
    feed(log, 30)
    if hole == "the place before the events":
        log.commit(40)
        log.scorer.score_batch([message(offset) for offset in range(30, 40)])
    else:
        feed(log, 10, commit=False)
        end = log.scorer._state.log.sequence
        monkeypatch.setattr(kept_state, "last_mark", lambda directory: Mark(Place(30, ORIGIN), end))
    log.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        after = opened()

    assert oracle(after.place) != remembered(after.scorer)


# --- durability ------------------------------------------------------------------------------------------------------


def test_with_sync_what_was_committed_is_on_disk(opened, oracle, state_dir, tmp_path):
    log = opened(durability="sync")
    for n in range(1, 6):
        feed(log, n)
        place = log.place
        killed = opened(state_dir=copied(state_dir, tmp_path / str(n)), durability="sync")
        assert (place, False, oracle(place)) == kept_together(killed)


def test_a_batch_waits_for_no_disk_of_its_own(opened, monkeypatch):
    log = opened(durability="sync")
    feed(log, 5)
    waits = []
    wait = log.scorer._state.log.wait_until_durable
    monkeypatch.setattr(
        log.scorer._state.log, "wait_until_durable", lambda *args: waits.append(args) or wait(*args), raising=True
    )
    log.scorer.score_batch([message(offset) for offset in range(5, 10)])
    assert not waits
    log.commit(10)
    assert 1 == len(waits)


# --- snapshots -------------------------------------------------------------------------------------------------------


def test_a_snapshot_keeps_the_place(opened, oracle, always_snapshot):
    log = opened()
    feed(log, 50)
    log.close()

    after = opened()

    assert (50, False, oracle(50)) == kept_together(after)
    assert after.scorer.recovered.snapshot is not None and 0 == after.scorer.recovered.n_replayed
    after.close()
    assert (50, False, oracle(50)) == kept_together(opened())


def test_no_snapshot_is_taken_beyond_the_last_place(opened, oracle, always_snapshot, state_dir):
    log = opened()
    feed(log, 50)
    feed(log, 20, commit=False)
    log.close()

    assert not list(state_dir.glob("*.fssnap"))
    with pytest.warns(RuntimeWarning):
        assert (50, False, oracle(50)) == kept_together(opened())


def test_snapshots_beside_the_scoring_end_at_a_place(opened, oracle, monkeypatch, state_dir, tmp_path):
    monkeypatch.setattr(kept_state, "RECORDS_PER_SNAPSHOT", 200)
    monkeypatch.setattr(kept_state, "SEGMENT_BYTES", 15_000)
    log = opened(durability="sync")
    for number in range(20):
        feed(log, 50)
        if log.scorer._state._compaction is not None:
            log.scorer._state._compaction.join()
        if number % 5 == 4:
            killed = opened(state_dir=copied(state_dir, tmp_path / str(number)), durability="sync")
            assert (log.place, False, oracle(log.place)) == kept_together(killed)

    assert 2 == len(list(state_dir.glob("*.fssnap")))
    assert 0 == log.scorer.counters()["snapshots_that_failed"]
    for path in state_dir.glob("*.fssnap"):
        kept, _ = snapshot.read_head(path)
        assert kept.place.next % 50 == 0
        assert kept.place.origin == ORIGIN


def test_a_damaged_snapshot_is_passed_over(opened, oracle, monkeypatch, always_snapshot, state_dir):
    log = opened()
    feed(log, 30)
    log.close()
    log = opened()
    feed(log, 30)
    log.close()
    newest = max(state_dir.glob("*.fssnap"))
    octets = bytearray(newest.read_bytes())
    octets[-200] ^= 1
    newest.write_bytes(octets)

    with pytest.warns(RuntimeWarning, match="section"):
        after = opened()

    assert (60, False, oracle(60)) == kept_together(after)


@pytest.mark.parametrize(
    ("lose", "says"),
    [
        (lambda path: path.unlink(), "lacks the changes .* up to place 60 of 'transactions Xx0Uq7 3'"),
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), "is not as it was written from byte"),
    ],
)
def test_a_place_whose_state_is_lost_is_an_error(opened, always_snapshot, state_dir, lose, says):
    log = opened()
    feed(log, 30)
    log.close()
    log = opened()
    feed(log, 30)
    log.close()
    newest, segment = max(state_dir.glob("*.fssnap")), max(state_dir.glob("*.fslog"))
    octets = bytearray(newest.read_bytes())
    octets[8 * snapshot.HEADER_WORDS + 8 * 2_000] ^= 1  # its place can still be read
    newest.write_bytes(octets)
    lose(segment)
    before = files_of(state_dir)

    for _ in range(2):  # who tries again is not given an older state instead
        with pytest.raises(CorruptStateError, match=says):
            opened()
        assert before == files_of(state_dir)


def test_a_snapshot_of_the_format_before_is_read(artefact, state_dir, always_snapshot, oracle):
    config = ScorerConfig(model=artefact, hash_key=KEY, state_dir=state_dir)
    with Scorer.open(config) as scorer:
        scorer.score_batch([message(offset) for offset in range(30)])
    (path,) = state_dir.glob("*.fssnap")
    words = np.fromfile(path, "<i8").astype(np.int64)
    header, rest = words[: snapshot.HEADER_WORDS], words[snapshot.HEADER_WORDS :]
    header = header[:-2]  # without the place, which has no words
    header[1], header[-1] = 2, 0
    header[-1] = log_kernels.checksum(np.ascontiguousarray(header[:-1]))
    np.concatenate((header, rest)).astype("<i8").tofile(path)

    with Scorer.open(config) as after:
        assert after.recovered.snapshot == path
        assert oracle(30) == remembered(after)


# --- whose directory it is -------------------------------------------------------------------------------------------


def files_of(state_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in state_dir.iterdir()}


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_host_does_not_open_the_state_of_a_stream(opened, config, state_dir, monkeypatch, with_snapshot):
    if with_snapshot:
        monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)
    log = opened()
    feed(log, 10)
    if not with_snapshot:
        feed(log, 3, commit=False)
    log.close()
    before = files_of(state_dir)

    with pytest.raises(
        StateError, match="of the stream 'transactions Xx0Uq7 3', with its place there; open it as that"
    ):
        Scorer.open(config)
    assert before == files_of(state_dir)


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_stream_does_not_open_the_state_of_a_host(opened, config, state_dir, monkeypatch, with_snapshot):
    if with_snapshot:
        monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)
    with Scorer.open(config) as scorer:
        scorer.score(message(0))
    before = files_of(state_dir)

    with pytest.raises(StateError, match="holds the state of a host, and the stream 'transactions Xx0Uq7 3' begins"):
        opened()
    assert before == files_of(state_dir)


@pytest.mark.parametrize("with_snapshot", [False, True])
def test_a_recovery_that_was_told_of_no_place_finds_it_and_refuses(
    opened, config, state_dir, monkeypatch, with_snapshot
):
    if with_snapshot:
        monkeypatch.setattr(kept_state, "RECORDS_PER_CLOSING_SNAPSHOT", 0)
    log = opened()
    feed(log, 10)
    log.close()
    monkeypatch.setattr(compaction, "last_mark", lambda directory: None)
    directory = StateDirectory(state_dir)

    with pytest.raises(StateError, match=r"holds the state of the stream .*, and what is recovered is that of a host"):
        compact(directory, config)
    directory.close()


def test_another_stream_is_refused_and_both_are_named(opened, state_dir):
    log = opened()
    feed(log, 10)
    feed(log, 3, commit=False)
    log.close()
    before = files_of(state_dir)

    with pytest.raises(
        StateError, match="'transactions Xx0Uq7 3', and was asked for 'transactions Yy1 3'; if that one was"
    ):
        opened(b"transactions Yy1 3")
    assert before == files_of(state_dir)


def test_a_directory_in_which_nothing_was_begun_is_anybodys(opened, state_dir):
    opened().close()
    (segment,) = state_dir.glob("*.fslog")
    segment.write_bytes(segment.read_bytes()[: 8 * HEADER_WORDS + 20])

    with pytest.warns(RuntimeWarning, match="no whole record"):
        assert opened(b"another").is_new


@pytest.mark.parametrize(("origin", "was"), [(b"", "0 bytes"), (b"x" * 1_025, "1025 bytes"), ("text", "str")])
def test_an_origin_that_names_no_stream_is_refused(opened, origin, was):
    with pytest.raises(ConfigurationError, match=f"must be 1 to 1024 bytes, was {was}"):
        opened(origin)


def test_a_stream_needs_a_directory(artefact):
    with pytest.raises(ConfigurationError, match="there is no state_dir"):
        StreamedLog.open(ScorerConfig(model=artefact, hash_key=KEY), ORIGIN)
    with pytest.raises(ConfigurationError, match="there is no state_dir"):
        Scorer.open(ScorerConfig(model=artefact), origin=ORIGIN)


def test_a_host_has_no_place_to_mark(artefact, config):
    with Scorer.open(config) as scorer, pytest.raises(StateError, match="which has no place in a stream"):
        scorer.mark(1)
    with Scorer.open(ScorerConfig(model=artefact)) as scorer, pytest.raises(StateError, match="no state is kept"):
        scorer.mark(1)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [29, -1, 2**63, "31"])
def test_a_place_goes_forward(opened, oracle, place):
    log = opened()
    feed(log, 30)
    with pytest.raises(StateError, match="must be an offset from 30 on"):
        log.commit(place)
    assert (30, False, oracle(30)) == kept_together(log)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that refuses writes while it is ``full``; the log holds some thirty transactions."""

    class Disk:
        full = False

    write = os.write

    def refuse(descriptor, octets):
        if Disk.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", refuse)
    monkeypatch.setattr(kept_state, "BUFFER_WORDS", 3_400)
    yield Disk
    Disk.full = False


def feed_until_refused(log: StreamedLog) -> None:
    while log.place < 1_000:
        feed(log, 12)


def test_without_room_a_batch_is_refused_whole_and_scored_later(opened, oracle, full_disk):
    log = opened()
    feed(log, 10)
    full_disk.full = True
    with pytest.raises(StateUnavailableError, match="nothing of the batch was scored: the log is full"):
        feed_until_refused(log)
    assert (log.place, False, oracle(log.place)) == kept_together(log)

    full_disk.full = False
    while True:
        try:
            feed(log, 12)
            break
        except StateUnavailableError:
            continue
    place = log.place
    log.close()
    assert (place, False, oracle(place)) == kept_together(opened())


def test_a_batch_that_never_fits_is_refused(opened, full_disk):
    log = opened()
    with pytest.raises(StateError, match=r"must have at most \d+ transactions, had 100; score fewer"):
        feed(log, 100)
    feed(log, 20)


def test_a_commit_that_the_disk_does_not_take_is_repeated(opened, oracle, full_disk, monkeypatch):
    monkeypatch.setattr(kept_state, "_SYNC_S", 0.1)
    log = opened(durability="sync")
    feed(log, 5)
    full_disk.full = True
    log.scorer.score_batch([message(offset) for offset in range(5, 10)])
    for _ in range(3):
        with pytest.raises(
            StateUnavailableError, match=r"place 10 may be lost: not on disk after 0\.1 s: No space left.*again"
        ):
            log.commit(10)
    assert 5 == log.place

    full_disk.full = False
    monkeypatch.setattr(kept_state, "_SYNC_S", 5.0)
    while log.place == 5:
        try:
            log.commit(10)
        except StateUnavailableError:
            continue
    log.close()
    assert (10, False, oracle(10)) == kept_together(opened())


def test_what_was_scored_and_not_remembered_is_never_committed(opened, oracle, full_disk):
    log = opened()
    feed(log, 10)
    full_disk.full = True
    n = 10
    while not log.scorer.score(message(n)).degraded:  # one by one, without asking for room
        n += 1
    with pytest.raises(StateError, match=r"since place 10 of .* was scored and is not remembered.*open it"):
        log.commit(n + 1)
    with pytest.raises(StateError, match="open it again"):
        feed(log, 1)
    full_disk.full = False
    log.close()

    with pytest.warns(RuntimeWarning):
        assert (10, False, oracle(10)) == kept_together(opened())


# --- labels and erasures, which are no messages ----------------------------------------------------------------------


def test_a_label_between_batches_outlives_a_crash(opened, tmp_path, state_dir):
    log = opened(durability="sync")
    feed(log, 20)
    assert log.scorer.feedback("t-3", is_fraud=True)
    kept = kept_together(log)
    log.scorer.score_batch([message(20)])

    copy = copied(state_dir, tmp_path / "killed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert kept == kept_together(opened(state_dir=copy))


def test_a_label_within_a_batch_is_refused(opened):
    log = opened()
    feed(log, 20)
    feed(log, 5, commit=False)
    with pytest.raises(StateUnavailableError, match="the label was not taken: a batch of the stream is under way"):
        log.scorer.feedback("t-3", is_fraud=True)
    log.commit(25)
    assert log.scorer.feedback("t-3", is_fraud=True)


def test_a_label_before_the_first_batch_is_taken(opened):
    log = opened()
    feed(log, 20)
    log.close()
    after = opened()
    assert after.scorer.feedback("t-3", is_fraud=True)
    kept = kept_together(after)
    after.close()
    assert kept == kept_together(opened())


def test_an_erasure_between_batches_keeps_the_place(opened, state_dir):
    log = opened()
    feed(log, 60)
    erased = log.scorer.erase(user_id="u-3")
    assert erased.was_known and not erased.n_found
    kept = kept_together(log)
    feed(log, 10, commit=False)
    log.close()

    with pytest.warns(RuntimeWarning):
        after = opened()

    assert kept == kept_together(after)
    assert 60 == after.place


def test_an_erasure_within_a_batch_is_refused(opened):
    log = opened()
    feed(log, 20)
    feed(log, 20, commit=False)
    with pytest.raises(StateUnavailableError, match="nothing was erased: a batch of the stream is under way"):
        log.scorer.erase(user_id="u-3")
    log.commit(40)
    assert log.scorer.erase(user_id="u-3").was_known


@pytest.mark.parametrize("with_tail", [False, True])
def test_an_erasure_while_it_is_closed_keeps_the_place(opened, config, state_dir, with_tail):
    log = opened()
    feed(log, 60)
    if with_tail:
        feed(log, 20, commit=False)
    log.close()
    directory = StateDirectory(state_dir)

    erased = erase_kept(directory, config, {"user_id": "u-3"}, int(NOON.timestamp() * 1e6) + 10**12)
    directory.close()

    assert erased.was_known and not erased.n_found
    assert not list(state_dir.glob("*.torn"))
    after = opened()
    assert 60 == after.place and not after.is_new
    feed(after, 10)


def test_a_compaction_keeps_the_place(opened, oracle, config, state_dir):
    log = opened()
    feed(log, 60)
    feed(log, 20, commit=False)
    log.close()
    directory = StateDirectory(state_dir)
    assert compact(directory, config).snapshot.exists()
    directory.close()

    after = opened()

    assert (60, False, oracle(60)) == kept_together(after)
    assert after.scorer.recovered.snapshot is not None and 0 == after.scorer.recovered.n_replayed


def test_what_is_exported_and_imported_has_its_place(opened, oracle, state_dir, tmp_path):
    log = opened()
    feed(log, 60)
    feed(log, 20, commit=False)
    log.close()
    directory = StateDirectory(state_dir)
    export_state(directory, tmp_path / "state.tar")
    directory.close()
    import_state(tmp_path / "state.tar", tmp_path / "imported")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        after = opened(state_dir=tmp_path / "imported")

    assert (60, False, oracle(60)) == kept_together(after)
