"""
The event log of one process: kernels append to a buffer, a thread of its own writes it to disk.

::

    scoring thread ── a few dozen words ──> buffer ══ swapped, at most every interval ══> checksums ──> segment ──> disk

Nothing of the writing holds the scorer's lock.  There are two buffers: when one is being written and the other is full, whoever
wants to record waits for as long as it likes to, and then must do without.  A group that could not be written is kept and
tried again in a new segment, for ever or until the log is closed; nothing that came after it is written before it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final

import numpy as np

from fraudsdk._pages import populate
from fraudsdk.config import Durability
from fraudsdk.domain.fields import RecordLayout
from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.log_format import (
    FORMAT_VERSION,
    HEADER_CHECKSUM,
    HEADER_IDENTITY,
    HEADER_INTS,
    HEADER_MAGIC,
    HEADER_NUMBERS,
    HEADER_SEQUENCE,
    HEADER_VERSION,
    HEADER_WORDS,
    MAGIC,
    MAX_RECORD_WORDS,
    Words,
    bytes_of,
    event_words,
)
from fraudsdk.entity_state.log_kernels import (
    LOG_BUFFER,
    LOG_CAPACITY,
    LOG_INTS,
    LOG_NUMBERS,
    LOG_SEQUENCE,
    LOG_USED,
    LOG_WORDS,
)
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import StateError, StateUnavailableError

BUFFER_WORDS: Final = 1 << 20  # 8 MiB, some 25,000 transactions
# What events leave free in a buffer: verdicts, labels and words of a while in which no event found room.
SPARE_WORDS: Final = 1 << 16
SEGMENT_BYTES: Final = 64 << 20
FLUSH_INTERVAL_S: Final = 0.01
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 1.0


class EventLog:
    """
    Appends to the log of a state directory.

    Parameters
    ----------
    directory : StateDirectory
    identity : StateIdentity
    layout : RecordLayout
        Of the transactions that are logged.
    sequence : int
        Number of the first record.
    lock : Lock
        The scorer's: held by whoever calls a kernel with `words`, and whenever a method here says so.
    durability : Durability
    on_segment : callable
        Told of the first record of each segment that is begun, by the writing thread.
    buffer_words, segment_bytes : int
        Where a buffer is full, and a segment long enough.

    Attributes
    ----------
    words : int64[LOG_WORDS]
        The log, for kernels.
    is_abandoned : bool
        Whether this is a forked child's copy, which is nobody's to write or close.
    """

    def __init__(
        self,
        directory: StateDirectory,
        identity: StateIdentity,
        layout: RecordLayout,
        *,
        sequence: int,
        lock: threading.Lock,
        durability: Durability = Durability.INTERVAL,
        on_segment: Callable[[int], None] = lambda first: None,
        buffer_words: int = BUFFER_WORDS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        if event_words(layout) > MAX_RECORD_WORDS:
            raise StateError(
                f"a transaction of this feature set takes {event_words(layout)} words and a record has {MAX_RECORD_WORDS}; "
                "read fewer fields"
            )
        self.durability = durability
        self._directory = directory
        self._identity = identity
        self._on_segment = on_segment
        self._segment_bytes = segment_bytes
        self._buffers = [np.zeros(buffer_words + SPARE_WORDS, np.int64) for _ in range(2)]
        self.words: Words = np.zeros(LOG_WORDS, np.int64)
        self.words[LOG_CAPACITY] = buffer_words
        self.words[LOG_SEQUENCE] = sequence
        self.words[LOG_INTS] = layout.n_ints
        self.words[LOG_NUMBERS] = len(layout.numbers)
        self._point_at(0)
        self._lock = lock
        self._wanted = threading.Condition(lock)  # the writer waits here
        self._written = threading.Condition(lock)  # and here whoever waits for the writer
        self._durable = sequence  # every record before this one is where `durability` wants it
        self._segment: _Segment | None = None
        self._trouble = ""
        self._began = 0  # first record of the segment that was begun last
        self._is_urgent = self._is_closing = self._is_segment_ending = False
        self._given_up = threading.Event()
        self.is_abandoned = False
        for buffer in self._buffers:
            populate(buffer.ctypes.data, buffer.nbytes)
        self._writer = threading.Thread(target=self._run, name="fraudsdk-event-log", daemon=True)
        self._writer.start()
        _open_logs.add(self)

    @property
    def sequence(self) -> int:
        """Number of the next record; under the lock."""
        return int(self.words[LOG_SEQUENCE])

    @property
    def trouble(self) -> str:
        """Why the last attempt to write failed; empty when it did not."""
        return self._trouble

    def wait_for_room(self, n_events: int, timeout_s: float, *, n_words_each: int = 0, n_words: int = 0) -> bool:
        """
        Wait, under the lock, until so many more transactions fit; False when they do not in time.

        Parameters
        ----------
        n_words_each, n_words : int
            What each may bring with it, its verdict say, and all together: it takes no room away from those that come last.
        """
        of_one = int(log_kernels.EVENT_INTS + self.words[LOG_INTS] + self.words[LOG_NUMBERS])
        needed = n_events * (of_one + n_words_each) + n_words
        return self._wait(lambda: bool(self.words[LOG_USED] + needed <= self.words[LOG_CAPACITY]), timeout_s)

    def wait_for_spare_room(self, n_words: int, timeout_s: float) -> bool:
        """The same for a record that is no transaction, which may use what those leave free."""
        room = len(self._buffers[0])
        return self._wait(lambda: bool(self.words[LOG_USED] + n_words <= room), timeout_s)

    def wait_until_durable(self, sequence: int, timeout_s: float) -> bool:
        """Wait, under the lock, until every record before `sequence` is on disk; False when it is not in time."""
        return self._durable >= sequence or self._wait(lambda: self._durable >= sequence, timeout_s)

    def end_segment(self, timeout_s: float) -> int:
        """
        Have what comes next begin a segment, and forget what was written; under the lock.

        Returns
        -------
        int
            Number of the record that the next segment begins with: no segment that is there is written to any more.

        Raises
        ------
        StateUnavailableError
            It was not ended in time.
        """
        self._is_segment_ending, self._ended_at = True, 0
        self._wait(lambda: not self._is_segment_ending, timeout_s)
        self._is_segment_ending = False
        if not self._ended_at:
            raise StateUnavailableError(
                f"the log of {self._directory.path} could not be ended: {self._trouble or 'the disk is slow'}; try again later"
            )
        return self._ended_at

    def close(self, timeout_s: float = 10.0) -> None:
        """
        Write what there is, and end; nothing is taken any more.

        Raises
        ------
        StateUnavailableError
            It could not be written in time: says how many records are lost.  Or whoever calls interrupts a call that holds the
            lock, as a signal handler may: close from elsewhere.
        """
        if not self._lock.acquire(timeout=timeout_s):
            raise StateUnavailableError(
                "a call is under way and does not end; close the scorer outside of signal handlers"
            )
        try:
            self.words[LOG_CAPACITY] = 0
            self._is_closing = self._is_urgent = True
            end = self.sequence
            self._wanted.notify_all()
            self._written.wait_for(lambda: self._durable >= end or not self._writer.is_alive(), timeout_s)
            lost, trouble = end - self._durable, self._trouble
            self._given_up.set()
            self._trouble = "it was closed"
        finally:
            self._lock.release()
        # The directory is another's from now on: nothing may be written to it later.
        self._writer.join(timeout_s)
        if lost or self._writer.is_alive():
            raise StateUnavailableError(
                f"{lost} changes of state could not be written: {trouble or 'the disk is slow'}; free the disk of "
                f"{self._directory.path}"
            )

    @property
    def has_ended(self) -> bool:
        """Whether nothing is written any more."""
        return not self._writer.is_alive()

    def _point_at(self, buffer: int) -> None:
        self._active = buffer
        self.words[LOG_BUFFER] = self._buffers[buffer].ctypes.data
        self.words[LOG_USED] = 0

    def abandon(self) -> None:
        """In a forked child, where the writer does not run: promise nothing any more."""
        # The lock may be held by a thread that the child does not have: touch nothing else.
        self.words[LOG_CAPACITY] = 0
        self._is_closing = self.is_abandoned = True
        self._trouble = "this process was forked from the one that writes the log"
        self._directory.close()  # the child's descriptor, which would hold the lock after its parent

    def _wait(self, is_so: Callable[[], bool], timeout_s: float) -> bool:
        if self._is_closing or not self._writer.is_alive():
            return False
        if is_so():
            return True
        self._is_urgent = True
        self._wanted.notify()
        # While the disk refuses, nobody waits: it will not be otherwise in milliseconds.
        answered = self._written.wait_for(lambda: is_so() or bool(self._trouble), timeout_s)
        return bool(answered and is_so() and not self._is_closing)

    # --- the writer's thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._write_until_closed()
        finally:  # it was closed; or there was a defect, and whoever waits must hear of it
            with self._lock:
                self._trouble = self._trouble or "its writer stopped"
                self._written.notify_all()
            if self._segment is not None:
                with contextlib.suppress(OSError):  # what was promised is there, or was said not to be
                    self._segment.close()

    def _write_until_closed(self) -> None:
        while not self._given_up.is_set():
            with self._lock:
                self._wanted.wait_for(lambda: self._is_urgent, FLUSH_INTERVAL_S)
                self._is_urgent = False
                is_ending, is_empty = self._is_segment_ending, not self.words[LOG_USED]
                if is_empty and not is_ending:
                    if self._is_closing:
                        return
                    continue
                if not is_ending:
                    group = self._buffers[self._active][: self.words[LOG_USED]]
                    first, end = self._durable, self.sequence
                    self._point_at(1 - self._active)
                    self._written.notify_all()  # there is room again
            if is_ending:  # what is in the buffer goes into the next one
                self._end_segment()
                continue
            log_kernels.seal(group)
            began = self._began
            if not self._write_somehow(group, first):
                return
            with self._lock:
                self._durable = end
                self._written.notify_all()
            if self._began != began:
                self._on_segment(self._began)

    def _end_segment(self) -> None:
        """Close the segment, and zero what is in the buffers and was written."""
        segment, self._segment = self._segment, None
        trouble = ""
        try:
            if segment is not None:
                segment.close()
        except OSError as error:
            trouble = f"{error.strerror} ({self._directory.path})"
        self._buffers[1 - self._active].fill(0)
        with self._lock:
            self._buffers[self._active][self.words[LOG_USED] :] = 0
            self._trouble = trouble or self._trouble
            self._ended_at = 0 if trouble else self._durable
            self._is_segment_ending = False
            self._written.notify_all()

    def _write_somehow(self, group: Words, first: int) -> bool:
        """Try until it is written; False when it was given up."""
        retry_s = _FIRST_RETRY_S
        while not self._given_up.is_set():
            try:
                self._write(group, first)
                self._trouble = ""
                return True
            except Exception as error:  # the disk's, or a defect: either way it is not written, and said
                why = error.strerror if isinstance(error, OSError) else type(error).__name__
                with self._lock:
                    self._trouble = f"{why} ({self._directory.path})"
                    self._written.notify_all()
                segment, self._segment = self._segment, None
                if segment is not None:
                    segment.give_up()
            self._given_up.wait(retry_s)
            retry_s = min(2 * retry_s, _LAST_RETRY_S)
        return False

    def _write(self, group: Words, first: int) -> None:
        sync = self.durability is not Durability.NONE
        if self._segment is not None and self._segment.n_bytes >= self._segment_bytes:
            segment, self._segment = self._segment, None
            segment.close()
        if self._segment is None:
            # One of this name is there only where we could not take back what we began.
            try:
                self._segment = _Segment(self._directory, self._header(first), first, is_ours=self._began == first)
            except FileExistsError:
                raise
            except BaseException:
                self._began = first
                raise
            self._began = first
        self._segment.append(group, sync=sync)

    def _header(self, first: int) -> Words:
        header = np.zeros(HEADER_WORDS, np.int64)
        header[HEADER_MAGIC] = MAGIC
        header[HEADER_VERSION] = FORMAT_VERSION
        header[HEADER_SEQUENCE] = first
        header[HEADER_INTS] = self.words[LOG_INTS]
        header[HEADER_NUMBERS] = self.words[LOG_NUMBERS]
        header[HEADER_IDENTITY:HEADER_CHECKSUM] = np.frombuffer(self._identity.record + self._identity.key, "<i8")
        header[HEADER_CHECKSUM] = log_kernels.checksum(header[:HEADER_CHECKSUM])
        return header


def _sync(descriptor: int) -> None:
    getattr(os, "fdatasync", os.fsync)(descriptor)  # macOS has no fdatasync


_open_logs: weakref.WeakSet[EventLog] = weakref.WeakSet()


def _abandon_all() -> None:
    for log in _open_logs:
        log.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class _Segment:
    """A segment that is being written."""

    def __init__(self, directory: StateDirectory, header: Words, first: int, *, is_ours: bool) -> None:
        self._path = directory.segment(first)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if is_ours else os.O_EXCL)
        self._descriptor = os.open(self._path, flags, 0o600)
        self.n_bytes = 0
        self._is_empty = True
        try:
            self._write(header)
            directory.sync()
        except BaseException:
            self.give_up()
            raise

    def append(self, group: Words, *, sync: bool) -> None:
        self._write(group)
        if sync:
            _sync(self._descriptor)
        self.n_bytes += group.nbytes
        self._is_empty = False

    def close(self) -> None:
        """The next segment may outlast a power cut, so this one must."""
        descriptor, self._descriptor = self._descriptor, -1
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)

    def give_up(self) -> None:
        """Take back what was not written whole; where even that fails, the next segment says where this one ends."""
        with contextlib.suppress(OSError):
            if self._is_empty:
                self._path.unlink()
            else:
                os.ftruncate(self._descriptor, 8 * HEADER_WORDS + self.n_bytes)
        descriptor, self._descriptor = self._descriptor, -1
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def _write(self, words: Words) -> None:
        left = bytes_of(words)
        while left:
            left = left[os.write(self._descriptor, left) :]
