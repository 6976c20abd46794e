"""The event log: records as they were written, in a directory of one process, whatever the disk does."""

from __future__ import annotations

import errno
import os
import threading
import time

import numpy as np
import pytest

from fraudsdk.config import Durability
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.entity_state import event_log, log_kernels
from fraudsdk.entity_state.event_log import EventLog
from fraudsdk.entity_state.log_format import (
    AMENDMENT,
    AMENDMENT_WORDS,
    FORMAT_VERSION,
    HEADER_VERSION,
    HEADER_WORDS,
    RECORD_KIND,
    RECORD_SEQUENCE,
    WORD,
    bytes_of,
    text_of,
    word_of,
)
from fraudsdk.entity_state.log_reader import identity_of, read_segment
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import CorruptStateError, StateError, StateUnavailableError

LAYOUT = RecordLayout(identifiers=("user_id",), numbers=("amount",))
IDENTITY = StateIdentity.of(b"record", b"state", b"a key of sixteen bytes")
N = 50


def crc32c(octets: bytes) -> int:
    """Bit by bit, as RFC 3720 defines it."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Log:
    """A log and the lock around it."""

    def __init__(self, directory, **options):
        self.lock = threading.Lock()
        self.log = EventLog(directory, IDENTITY, LAYOUT, sequence=1, lock=self.lock, **options)

    def amend(self, *keys):
        with self.lock:
            for key in keys:
                assert self.log.wait_for_spare_room(AMENDMENT_WORDS, 5.0)
                log_kernels.log_amendment(self.log.words, key, 1, 2)

    def settle(self, timeout_s=5.0):
        """Ask until it is so: nobody waits while the disk refuses."""
        return self._until(lambda: self.log.wait_until_durable(self.log.sequence, timeout_s), timeout_s)

    def has_room(self, timeout_s=5.0):
        return self._until(lambda: self.log.wait_for_room(1, timeout_s), timeout_s)

    def _until(self, is_so, timeout_s):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self.lock:
                if is_so():
                    return True
            time.sleep(0.005)
        return False


@pytest.fixture
def directory(tmp_path):
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.close()


def keys_in(directory) -> list[int]:
    """Transaction keys of all amendments, read back segment by segment."""
    keys, segments = [], directory.segments()
    for place, (first, path) in enumerate(segments):
        until = segments[place + 1][0] if place + 1 < len(segments) else None
        segment = read_segment(path, first, until)
        at = HEADER_WORDS
        while at < len(segment.words):
            n = int(segment.words[at]) & 0xFFFFFFFF
            assert AMENDMENT == segment.words[at + RECORD_KIND]
            assert len(keys) + 1 == segment.words[at + RECORD_SEQUENCE]
            keys.append(int(segment.words[at + RECORD_KIND + 1]))
            at += n
    return keys


def test_the_checksum_is_crc_32c():
    words = np.random.default_rng(1).integers(-(2**63), 2**63, 100)

    assert 0xE3069283 == crc32c(b"123456789")  # the check value of the standard
    assert crc32c(words.astype("<i8").tobytes()) == log_kernels.checksum(words)
    assert 0 == log_kernels.checksum(words[:0])


@pytest.mark.parametrize("durability", list(Durability))
def test_what_is_logged_is_read_back(directory, durability):
    log = Log(directory, durability=durability)
    log.amend(*range(N))
    log.log.close()

    assert list(range(N)) == keys_in(directory)
    (segment,) = [read_segment(path, first, None) for first, path in directory.segments()]
    assert (IDENTITY.record, IDENTITY.key) == (identity_of(segment).record, identity_of(segment).key)
    assert 0o600 == segment.path.stat().st_mode & 0o777


@pytest.mark.parametrize("text", [b"", b"7 bytes", b"8 bytes.", "für wen".encode()])
def test_words_of_decisions_are_read_back(directory, text):
    log = Log(directory)
    with log.lock:
        log_kernels.log_words(log.log.words, WORD, word_of(text))
    log.log.close()

    ((first, path),) = directory.segments()
    assert text == text_of(read_segment(path, first, None).words[HEADER_WORDS:])


def test_a_long_log_goes_on_in_another_segment(directory):
    log = Log(directory, segment_bytes=1_000)
    for key in range(N):
        log.amend(key)
        assert log.settle()
    log.log.close()

    assert len(directory.segments()) > 2
    assert list(range(N)) == keys_in(directory)


def test_sync_is_on_disk_when_it_says_so(directory, monkeypatch):
    synced = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(1) or sync(descriptor))
    log = Log(directory, durability=Durability.SYNC)
    log.amend(1)

    assert log.settle()
    assert synced and [1] == keys_in(directory)
    log.log.close()


def test_none_waits_for_the_disk_only_where_a_segment_ends(directory, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    log = Log(directory, durability=Durability.NONE)
    log.amend(1)
    assert log.settle()
    assert [] == synced
    log.log.close()

    assert 1 == len(synced)
    assert [1] == keys_in(directory)


class FullDisk:
    """Refuses writes, some after half of what they were given, until there is room."""

    def __init__(self, monkeypatch, n_refusals):
        self.left = n_refusals
        self.write = os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, descriptor, octets):
        if self.left > 0:
            self.left -= 1
            if self.left % 2 and len(octets) > 16:
                return self.write(descriptor, octets[: len(octets) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.write(descriptor, octets)


@pytest.mark.parametrize("n_refusals", [1, 2, 3, 6, 7])
def test_a_full_disk_loses_nothing_once_it_has_room(directory, monkeypatch, n_refusals):
    log = Log(directory)
    log.amend(*range(10))
    assert log.settle()
    FullDisk(monkeypatch, n_refusals)
    log.amend(*range(10, N))

    assert log.settle()
    log.log.close()
    assert list(range(N)) == keys_in(directory)


def test_a_sync_that_fails_is_not_believed(directory, monkeypatch):
    failures = [OSError(errno.EIO, "Input/output error")] * 2
    sync = os.fdatasync

    def failing(descriptor):
        if failures:
            raise failures.pop()
        return sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", failing)
    log = Log(directory)
    log.amend(*range(N))

    assert log.settle()
    log.log.close()
    assert not failures
    assert list(range(N)) == keys_in(directory)


def test_a_full_buffer_refuses_and_says_why(directory, monkeypatch):
    full = FullDisk(monkeypatch, 10**9)
    log = Log(directory, buffer_words=AMENDMENT_WORDS * 8)
    monkeypatch.setattr(event_log, "_LAST_RETRY_S", 0.01)
    with log.lock:
        while log.log.wait_for_room(1, 0.1):
            log_kernels.log_amendment(log.log.words, 7, 1, 2)
        assert "No space left" in log.log.trouble
        logged = log.log.sequence - 1
    full.left = 0

    assert log.has_room()
    log.log.close()
    assert [7] * logged == keys_in(directory)


def test_closing_says_what_could_not_be_written(directory, monkeypatch):
    full = FullDisk(monkeypatch, 10**9)
    log = Log(directory)
    log.amend(*range(N))

    with pytest.raises(StateUnavailableError, match=f"{N} changes of state could not be written.*No space left"):
        log.log.close(timeout_s=0.2)
    full.left = 0
    log.log._writer.join()  # it does not try again: the directory may be another's by now
    assert [] == keys_in(directory)


def test_one_process_at_a_time(directory):
    with pytest.raises(StateError, match="in use by another process"):
        StateDirectory(directory.path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(StateError, match="cannot be used: Not a directory"):
        StateDirectory(tmp_path / "file" / "state")


def test_a_child_promises_nothing(directory):
    log = Log(directory)
    log.amend(1)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover
        os.write(writer, b"1" if log_kernels_say_full(log) else b"0")
        os._exit(0)
    os.waitpid(child, 0)

    assert b"1" == os.read(reader, 1)
    log.log.close()
    assert [1] == keys_in(directory)


def log_kernels_say_full(log) -> bool:
    with log.lock:
        takes_any = log.log.wait_for_room(1, 0.01) or log.log.wait_for_spare_room(1, 0.01)
    return not takes_any and "forked" in log.log.trouble


def test_nothing_is_taken_once_it_is_closed(directory):
    log = Log(directory)
    log.amend(1)
    log.log.close()

    with log.lock:
        assert not log.log.wait_for_room(1, 0.1)
        assert not log.log.wait_for_spare_room(1, 0.1)
    log.log.close()
    assert [1] == keys_in(directory)


def test_a_defect_of_the_writer_is_said_and_tried_again(directory, monkeypatch):
    failures = [RuntimeError("can't start new thread")] * 2

    def failing(group):
        if failures:
            raise failures.pop()
        return bytes_of(group)

    monkeypatch.setattr(event_log, "bytes_of", failing)
    log = Log(directory)
    log.amend(*range(N))

    assert log.settle()
    log.log.close()
    assert list(range(N)) == keys_in(directory)


def test_a_lock_that_is_held_by_whoever_closes_is_no_deadlock(directory):
    log = Log(directory)
    with log.lock, pytest.raises(StateUnavailableError, match="outside of signal handlers"):
        log.log.close(timeout_s=0.05)
    log.log.close()


def test_a_segment_of_another_is_never_written_over(directory):
    directory.segment(1).write_bytes(b"another's")
    log = Log(directory)
    log.amend(1)
    assert not log.settle(timeout_s=0.2)
    with pytest.raises(StateUnavailableError, match="File exists"):
        log.log.close(timeout_s=0.2)
    assert b"another's" == directory.segment(1).read_bytes()


def written(directory, n=N):
    log = Log(directory)
    log.amend(*range(n))
    log.log.close()
    ((first, path),) = directory.segments()
    return path, first


def test_cut_off_anywhere_a_prefix_is_left(directory):
    path, first = written(directory, 5)
    whole = path.read_bytes()
    for length in range(8 * HEADER_WORDS, len(whole) + 1):
        path.write_bytes(whole[:length])
        segment = read_segment(path, first, None)

        n = (length - 8 * HEADER_WORDS) // (8 * AMENDMENT_WORDS)
        assert (1 + n, length - 8 * (HEADER_WORDS + n * AMENDMENT_WORDS)) == (segment.stop, segment.n_torn_bytes)


def test_any_changed_bit_ends_the_prefix_before_it(directory):
    path, first = written(directory, 4)
    whole = bytearray(path.read_bytes())
    for octet in range(8 * HEADER_WORDS, len(whole)):
        for bit in (0, 5):
            changed = bytearray(whole)
            changed[octet] ^= 1 << bit
            path.write_bytes(changed)

            assert 1 + (octet - 8 * HEADER_WORDS) // (8 * AMENDMENT_WORDS) == read_segment(path, first, None).stop


def test_any_changed_bit_of_the_header_is_refused(directory):
    path, first = written(directory, 1)
    whole = path.read_bytes()
    for octet in range(8 * HEADER_WORDS):
        changed = bytearray(whole)
        changed[octet] ^= 1
        path.write_bytes(changed)
        with pytest.raises(StateError, match=r"header that was changed|no segment|upgrade"):
            read_segment(path, first, None)


def test_what_is_missing_before_the_next_segment_is_an_error(directory):
    path, first = written(directory, 4)
    path.write_bytes(path.read_bytes()[:-8])

    with pytest.raises(CorruptStateError, match="1 changes of state are lost"):
        read_segment(path, first, 5)
    assert 4 == read_segment(path, first, 4).stop


def test_a_later_version_is_refused(directory):
    path, first = written(directory, 1)
    words = np.fromfile(path, "<i8")
    words[HEADER_VERSION] = FORMAT_VERSION + 1
    words.tofile(path)

    with pytest.raises(StateError, match="upgrade fraudsdk"):
        read_segment(path, first, None)
