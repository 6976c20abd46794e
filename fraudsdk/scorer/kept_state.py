"""State that outlives the process: what a scorer asks of the log, and snapshots that keep recovery short."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from fraudsdk.config import Durability
from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.erasure import Subject, Traces, finish_erasures, keep_erased, traces_in_log
from fraudsdk.entity_state.event_log import BUFFER_WORDS, SEGMENT_BYTES, EventLog
from fraudsdk.entity_state.layout import META_EVENTS
from fraudsdk.entity_state.log_format import (
    AMENDMENT_WORDS,
    ERASURE,
    PLACE,
    RECORD_WORDS,
    VERDICT_WORDS,
    WORD,
    Words,
    event_words,
    word_of,
)
from fraudsdk.entity_state.marks import holds_changes, last_mark
from fraudsdk.entity_state.place import UNMARKED, Mark, Place, shown
from fraudsdk.entity_state.snapshot import write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import StateError, StateUnavailableError
from fraudsdk.features.engine import FeatureEngine, Recorded
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.scorer.recovery import Recovered, recover

# How long a decision, a verdict or a label waits for room in the log before it does without, is counted, or is refused.
_ROOM_S: Final = 0.05
# How long an answer waits for the disk, with ``durability="sync"``, before it says that it did.
_SYNC_S: Final = 1.0
# Records after which a snapshot is worth its time: recovery replays at most twice as many.
RECORDS_PER_SNAPSHOT: Final = 1_000_000
# At a close even a few are: the next start is quicker.
RECORDS_PER_CLOSING_SNAPSHOT: Final = 20_000
_SNAPSHOTS_KEPT: Final = 2
# How long an erasure waits for the disk before it says that it must be repeated.
_ERASURE_S: Final = 30.0
# Of a text that a decision refers to: three of them, of four bytes a character, fit a record.
_MAX_CHARACTERS: Final = 2_000
# Of words that decisions of one batch may be the first to refer to: a hundred of the usual length.
_NEW_WORDS: Final = 2_000


class KeptState:
    """
    The state of one scorer in its directory.

    Every method is called under the scorer's lock unless it says otherwise.

    Parameters
    ----------
    path : Path
    identity : StateIdentity
    engine, recorder : FeatureEngine, DecisionRecorder
        Empty; they receive what is there.
    make_engine : callable
        Makes another empty engine of the same bounds, with arrays attached: snapshots are taken of that.
    lock : Lock
    durability : Durability
    origin : bytes, optional
        The stream that this is the state of: it goes on from the last place that was marked.  None for a host's.

    Attributes
    ----------
    recovered : Recovered
    log : EventLog
    """

    def __init__(
        self,
        path: Path,
        identity: StateIdentity,
        engine: FeatureEngine,
        recorder: DecisionRecorder,
        make_engine: Callable[[], FeatureEngine],
        *,
        lock: threading.Lock,
        durability: Durability,
        origin: bytes | None = None,
    ) -> None:
        self._directory = StateDirectory(path)
        self._identity = identity
        self._engine = engine
        self._recorder = recorder
        self._make_engine = make_engine
        self._lock = lock
        self._closing = threading.Lock()
        self._snapshots = threading.Lock()  # one is taken at a time: none of before an erasure may appear after it
        self._compaction: threading.Thread | None = None
        self._tried_at = 0  # the last snapshot, or attempt at one
        self._is_closed = False
        self._origin = origin
        self._marked = self._n_events_marked = 0  # change and event after the last place
        self._is_incomplete = False  # something of the batch under way is not remembered
        self.n_verdicts_not_kept = 0
        self.n_failed_snapshots = 0
        try:
            self.recovered: Recovered = self._recover()
            self._finish_erasures()
            self._n_words_logged = len(recorder.words)
            self.log = EventLog(
                self._directory,
                identity,
                engine.record_layout,
                sequence=self.recovered.sequence,
                lock=lock,
                durability=durability,
                on_segment=self._compact_when_due,
                buffer_words=BUFFER_WORDS,
                segment_bytes=SEGMENT_BYTES,
            )
            self._note_mark()
            if origin is not None and self.recovered.place is None:
                self._keep_place(Place(UNMARKED, origin))
        except BaseException:
            self._directory.close()
            raise
        for problem in self.recovered.problems:
            warnings.warn(problem, RuntimeWarning, stacklevel=4)

    @property
    def words(self) -> Words:
        """The log, for kernels."""
        return self.log.words

    def wait_for_room(self, n_events: int, at_most_s: float = _ROOM_S) -> str:
        """Wait until transactions can be recorded; empty, or why they cannot."""
        if self.log.wait_for_room(n_events, min(_ROOM_S, at_most_s)):
            return ""
        self._is_incomplete = True
        return f"log is full: {self.log.trouble or 'the disk is slow'}"

    def keep_verdict(self, key: int, recorded: Recorded) -> None:
        """Log the decision on a transaction; where there is no room its duplicates will not know it after a crash."""
        if self.log_new_words() and self.log.wait_for_spare_room(VERDICT_WORDS, _ROOM_S):
            log_kernels.log_verdict(self.words, key, recorded.margin, recorded.score, recorded.verdict)
        else:
            self.n_verdicts_not_kept += 1
            self._is_incomplete = True

    def require_room_for_batch(self, n_events: int) -> None:
        """
        Of a stream: wait until a batch can be recorded whole, with the decisions on it.  A host's is, as far as there is room.

        Raises
        ------
        StateUnavailableError
            There is no room now.
        StateError
            There never is room for so many at once; or some of what was scored before is not remembered.
        """
        if self._origin is None:
            return
        self._require_complete()
        most = (BUFFER_WORDS - _NEW_WORDS) // (event_words(self._engine.record_layout) + VERDICT_WORDS)
        if n_events > most:
            raise StateError(
                f"a batch of a stream must have at most {most} transactions, had {n_events}; score fewer at once"
            )
        if not self.log.wait_for_room(n_events, _SYNC_S, n_words_each=VERDICT_WORDS, n_words=_NEW_WORDS):
            raise StateUnavailableError(
                f"nothing of the batch was scored: the log is full ({self.log.trouble or 'the disk is slow'}); score it again later"
            )

    def mark(self, next_offset: int) -> None:
        """
        Of a stream: keep the place up to which all messages are remembered, and wait for the disk as the durability asks.

        Raises
        ------
        StateUnavailableError
            The log cannot take it now, or the disk does not answer: mark it again.
        StateError
            This is no stream's state; the last place lies beyond this one; or some of the messages are not remembered.
        """
        place = self._next_place(next_offset)
        self._require_complete()
        if self.log.sequence != self._marked or place.next != self._place().next:
            if not self.log.wait_for_spare_room(RECORD_WORDS + len(place.words), _ROOM_S):
                raise StateUnavailableError(
                    f"place {place.next} was not marked: the log is full ({self.log.trouble or 'the disk is slow'}); mark it again"
                )
            self._keep_place(place)
        if because := self.settle():
            raise StateUnavailableError(f"place {place.next} may be lost: {because}; mark it again")

    def require_room_for_amendment(self) -> None:
        """
        Raises
        ------
        StateUnavailableError
            A label cannot be logged now.
        """
        self._require_between_batches("the label was not taken", "send it again")
        if not self.log.wait_for_spare_room(AMENDMENT_WORDS + self._n_place_words(), _ROOM_S):
            raise StateUnavailableError(
                f"the label was not taken: the log is full ({self.log.trouble or 'the disk is slow'}); send it again later"
            )

    def keep_amendment(self, key: int, set_bits: int, clear_bits: int) -> None:
        """Log a label or the host's answer, for which there is room."""
        log_kernels.log_amendment(self.words, key, set_bits, clear_bits)
        self._keep_place_again()

    def wait_for_room_for_erasure(self, records: Sequence[Words]) -> bool:
        """
        Wait until an erasure can be logged; True where it could at once, and what was found still is all there is.

        Raises
        ------
        StateUnavailableError
            It cannot be logged.
        """
        self._require_between_batches("nothing was erased", "erase again")
        n_words = sum(RECORD_WORDS + len(record) + self._n_place_words() for record in records)
        if self.log.wait_for_spare_room(n_words, 0.0):
            return True
        if not self.log.wait_for_spare_room(n_words, _ROOM_S):
            raise StateUnavailableError(
                f"nothing was erased: {n_words} words do not fit the log ({self.log.trouble or 'the disk is slow'}); erase again "
                "later, or stop the scorer and run fraudsdk state erase"
            )
        return False

    def keep_erasure(self, record: Words) -> int:
        """Log a record of an erasure, for which there is room; the number of the next one."""
        log_kernels.log_words(self.words, ERASURE, record)
        after = self.log.sequence
        self._keep_place_again()
        return after

    def logged_traces(self, subject: Subject) -> Traces:
        """What the log says about a subject, as far as it is with the system; not under the lock."""
        with self._lock:
            self.log.wait_until_durable(self.log.sequence, _ERASURE_S)
        with self._snapshots:  # which remove files
            return traces_in_log(self._directory, self._engine.memory.layout, subject)

    def finish_erasure(self, subject: Subject) -> tuple[list[Path], Traces]:
        """
        Take a snapshot of everything until now, and remove every file from before; not under the lock.

        Decisions go on meanwhile.  The state is in memory twice for that time.

        Returns
        -------
        files : list of Path
            All but the segments that are written from now on: the snapshot alone.
        logged : Traces
            What the log had said about the subject.

        Raises
        ------
        StateUnavailableError
            Files from before are still there: erase again.  A scorer that is opened later removes them too.
        """
        try:
            with self._snapshots:
                with self._lock:
                    self.log.wait_until_durable(self.log.sequence, _ERASURE_S)
                    end = self.log.end_segment(_ERASURE_S)
                    if self._origin is not None and end != self._marked:
                        raise StateUnavailableError("a batch of the stream came in between")
                logged = traces_in_log(self._directory, self._engine.memory.layout, subject, end)
                engine, recorder = self._make_engine(), DecisionRecorder()
                recover(self._directory, self._identity, engine, recorder, mark=self._last_mark(end), until=end)
                keep_erased(self._directory, self._identity, engine.memory, recorder.words, end)
                later = {path for first, path in self._directory.segments() if first >= end}
                return [path for path in self._directory.files() if path not in later], logged
        except (OSError, StateError, StateUnavailableError) as error:
            raise StateUnavailableError(
                f"what is remembered was erased, and files of {self._directory.path} from before are still there: {error}; "
                "erase again"
            ) from error

    def settle(self) -> str:
        """
        With ``durability="sync"`` wait until all so far is on disk; empty, or why it is not.

        What a stream has not marked is promised to nobody, and not waited for.
        """
        if self._origin is not None and self.log.sequence != self._marked:
            return ""
        if self.log.durability is not Durability.SYNC or self.log.wait_until_durable(self.log.sequence, _SYNC_S):
            return ""
        return f"not on disk after {_SYNC_S:g} s: {self.log.trouble or 'the disk is slow'}"

    def counters(self) -> dict[str, int]:
        """What was logged, and what could not be."""
        return {
            "logged_changes": self.log.sequence - 1,
            "verdicts_not_logged": self.n_verdicts_not_kept,
            "snapshots_that_failed": self.n_failed_snapshots,
        }

    def log_new_words(self) -> bool:
        """Log the words that verdicts refer to, before the verdicts; False where there is no room for them."""
        words = self._recorder.words
        while self._n_words_logged < len(words):
            table, number, word = words[self._n_words_logged]
            payload = word_of(json.dumps((table, number, _shortened(word)), ensure_ascii=False).encode())
            if not self.log.wait_for_spare_room(RECORD_WORDS + len(payload), _ROOM_S):
                return False
            log_kernels.log_words(self.words, WORD, payload)
            self._n_words_logged += 1
        return True

    def close(self) -> None:
        """
        Write what there is, and a snapshot of it where recovery would take long without; not under the lock.

        Raises
        ------
        StateUnavailableError
            Some of the log could not be written.
        """
        if self.log.is_abandoned or not self._closing.acquire(blocking=False):  # it is another's, or under way
            return
        try:
            if not self._is_closed:
                self._close()
        finally:
            self._closing.release()

    def _close(self) -> None:
        try:
            self._leave_nothing_unmarked()
            self.log.close()
            with self._snapshots, self._lock:
                is_at_place = self._origin is None or self.log.sequence == self._marked
                if is_at_place and self.log.sequence - self._last_snapshot() > RECORDS_PER_CLOSING_SNAPSHOT:
                    self._write_snapshot(self._engine, self._recorder, self.log.sequence)
        finally:
            # As long as anything may still be written the directory is nobody else's, and closing again may succeed.
            self._is_closed = self.log.has_ended
            if self._is_closed:
                if self._compaction is not None:
                    self._compaction.join()
                with self._snapshots:
                    self._directory.close()

    def _recover(self) -> Recovered:
        try:
            mark = last_mark(self._directory)
            self._require_same_owner(mark)
            for left_over in self._directory.path.glob("*.tmp"):  # of a snapshot that a crash cut short
                left_over.unlink()
            return recover(self._directory, self._identity, self._engine, self._recorder, mark=mark)
        except OSError as error:
            raise StateError(
                f"state directory {self._directory.path} cannot be read: {error}; see to it, or name another"
            ) from error

    def _require_same_owner(self, mark: Mark | None) -> None:
        """
        Raises
        ------
        StateError
            The directory is a host's and this is a stream, or the other way round; or it is another stream's.
        """
        path, asked = self._directory.path, self._origin
        if mark is None:
            if asked is not None and holds_changes(self._directory):
                raise StateError(
                    f"{path} holds the state of a host, and the stream {shown(asked)} begins in a directory of its own; name a new "
                    "one"
                )
        elif asked is None:
            raise StateError(
                f"{path} holds the state of the stream {mark.place.stream}, with its place there; open it as that, or name another "
                "directory"
            )
        elif asked != mark.place.origin:
            raise StateError(
                f"{path} holds the state of the stream {mark.place.stream}, and was asked for {shown(asked)}; if that one was "
                "created anew, begin in a new directory"
            )

    def _next_place(self, next_offset: int) -> Place:
        last = self._place()
        if not isinstance(next_offset, int) or not max(0, last.next) <= next_offset < 2**63:
            raise StateError(
                f"a place of {last.stream} must be an offset from {max(0, last.next)} on, was {next_offset!r}; mark what comes "
                "after the last message that was scored"
            )
        return Place(next_offset, last.origin)

    def _place(self) -> Place:
        place = Place.of(self._engine.memory.place)
        if place is None:
            raise StateError(
                f"{self._directory.path} holds the state of a host, which has no place in a stream; open it as one"
            )
        return place

    def _keep_place(self, place: Place) -> None:
        """Log a place, for which there is room."""
        self._engine.memory.place = place.words
        log_kernels.log_words(self.words, PLACE, self._engine.memory.place)
        self._note_mark()

    def _keep_place_again(self) -> None:
        """Log the last place after what is no message of the stream, so that it stays."""
        if self._origin is not None:
            self._keep_place(self._place())

    def _leave_nothing_unmarked(self) -> None:
        """Mark what was logged since the last place and is of no message, words of decisions mostly; not under the lock."""
        # Whoever closes may have interrupted a call that holds the lock: the log says so, in its own time.
        if self._origin is None or not self._lock.acquire(timeout=_ROOM_S):
            return
        try:
            is_due = self._is_between_batches() and self.log.sequence != self._marked
            if is_due and self.log.wait_for_spare_room(self._n_place_words(), 0.0):
                self._keep_place_again()
        finally:
            self._lock.release()

    def _is_between_batches(self) -> bool:
        return self._n_events_marked == int(self._engine.memory.meta[META_EVENTS])

    def _note_mark(self) -> None:
        self._marked, self._n_events_marked = self.log.sequence, int(self._engine.memory.meta[META_EVENTS])

    def _n_place_words(self) -> int:
        return RECORD_WORDS + len(self._engine.memory.place)

    def _require_between_batches(self, what: str, remedy: str) -> None:
        if self._origin is not None and not self._is_between_batches():
            raise StateUnavailableError(
                f"{what}: a batch of the stream is under way, and what comes before its place is marked may come again; {remedy} "
                "after that"
            )

    def _require_complete(self) -> None:
        if self._is_incomplete:
            raise StateError(
                f"something since {self._place().said} was scored and is not remembered, as the log had no room; close this, "
                "and open it again: it goes on from there"
            )

    def _last_mark(self, until: int) -> Mark | None:
        return None if self._origin is None else last_mark(self._directory, until)

    def _finish_erasures(self) -> None:
        """What a crash left of an erasure is done now, or said."""
        found, directory = self.recovered, self._directory
        try:
            n = finish_erasures(
                directory,
                self._identity,
                self._engine.memory,
                self._recorder.words,
                found.sequence,
                found.sequence_of_snapshot,
            )
        except (OSError, StateError) as error:
            found.problems.append(
                f"files of {directory.path} from before an erasure are still there: {error}; see to the disk, and erase again"
            )
            return
        if n:
            found.problems.append(f"{n} files of {directory.path} were from before an erasure, and are removed")
            found.sequence_of_snapshot = max((sequence for sequence, _ in directory.snapshots()), default=1)

    def _last_snapshot(self) -> int:
        return max((sequence for sequence, _ in self._directory.snapshots()), default=1)

    def _compact_when_due(self, segment: int) -> None:
        """A segment was begun; the writer of the log says so, and must not hear of what goes wrong here."""
        is_running = self._compaction is not None and self._compaction.is_alive()
        if is_running or segment - max(self._tried_at, self.recovered.sequence_of_snapshot) < RECORDS_PER_SNAPSHOT:
            return
        self._tried_at = segment
        compaction = threading.Thread(target=self._compact, args=(segment,), name="fraudsdk-snapshot", daemon=True)
        try:
            compaction.start()
        except RuntimeError:  # no more threads
            self.n_failed_snapshots += 1
            return
        self._compaction = compaction

    def _compact(self, until: int) -> None:
        """
        Take a snapshot of everything before a segment, from the files alone: no decision waits for it.

        For that time the state is in memory twice.
        """
        try:
            with self._snapshots:
                engine, recorder = self._make_engine(), DecisionRecorder()
                mark = self._last_mark(until)
                found = recover(self._directory, self._identity, engine, recorder, mark=mark, until=until)
                if found.sequence > self._last_snapshot():  # a stream may have marked nothing since
                    self._write_snapshot(engine, recorder, found.sequence)
        except Exception:  # the log has everything: it grows, and the next snapshot may succeed
            self.n_failed_snapshots += 1

    def _write_snapshot(self, engine: FeatureEngine, recorder: DecisionRecorder, sequence: int) -> None:
        try:
            write_snapshot(self._directory, self._identity, engine.memory, recorder.words, sequence)
            prune(self._directory)
        except OSError:  # as above
            self.n_failed_snapshots += 1


def _shortened(word: Any) -> Any:
    """A word that surely fits a record: its texts are cut where nobody reads on."""
    return word[:_MAX_CHARACTERS] if isinstance(word, str) else [each[:_MAX_CHARACTERS] for each in word]


def prune(directory: StateDirectory) -> None:
    """Remove snapshots but the newest two, and segments that lie wholly before the older of these."""
    snapshots = directory.snapshots()
    for _, path in snapshots[:-_SNAPSHOTS_KEPT]:
        path.unlink(missing_ok=True)
    if len(snapshots) < _SNAPSHOTS_KEPT:
        return
    needed_from = snapshots[-_SNAPSHOTS_KEPT][0]
    segments = directory.segments()
    for (_, path), (next_first, _) in pairwise(segments):
        if next_first <= needed_from:
            path.unlink(missing_ok=True)
