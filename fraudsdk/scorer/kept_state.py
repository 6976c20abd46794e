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
from fraudsdk.entity_state.log_format import AMENDMENT_WORDS, ERASURE, RECORD_WORDS, VERDICT_WORDS, WORD, Words, word_of
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
        return f"log is full: {self.log.trouble or 'the disk is slow'}"

    def keep_verdict(self, key: int, recorded: Recorded) -> None:
        """Log the decision on a transaction; where there is no room its duplicates will not know it after a crash."""
        if self.log_new_words() and self.log.wait_for_spare_room(VERDICT_WORDS, _ROOM_S):
            log_kernels.log_verdict(self.words, key, recorded.margin, recorded.score, recorded.verdict)
        else:
            self.n_verdicts_not_kept += 1

    def require_room_for_amendment(self) -> None:
        """
        Raises
        ------
        StateUnavailableError
            A label cannot be logged now.
        """
        if not self.log.wait_for_spare_room(AMENDMENT_WORDS, _ROOM_S):
            raise StateUnavailableError(
                f"the label was not taken: the log is full ({self.log.trouble or 'the disk is slow'}); send it again later"
            )

    def keep_amendment(self, key: int, set_bits: int, clear_bits: int) -> None:
        """Log a label or the host's answer, for which there is room."""
        log_kernels.log_amendment(self.words, key, set_bits, clear_bits)

    def wait_for_room_for_erasure(self, records: Sequence[Words]) -> bool:
        """
        Wait until an erasure can be logged; True where it could at once, and what was found still is all there is.

        Raises
        ------
        StateUnavailableError
            It cannot be logged.
        """
        n_words = sum(RECORD_WORDS + len(record) for record in records)
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
        return self.log.sequence

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
                logged = traces_in_log(self._directory, self._engine.memory.layout, subject, end)
                engine, recorder = self._make_engine(), DecisionRecorder()
                recover(self._directory, self._identity, engine, recorder, until=end)
                keep_erased(self._directory, self._identity, engine.memory, recorder.words, end)
                later = {path for first, path in self._directory.segments() if first >= end}
                return [path for path in self._directory.files() if path not in later], logged
        except (OSError, StateError, StateUnavailableError) as error:
            raise StateUnavailableError(
                f"what is remembered was erased, and files of {self._directory.path} from before are still there: {error}; "
                "erase again"
            ) from error

    def settle(self) -> str:
        """With ``durability="sync"`` wait until all so far is on disk; empty, or why it is not."""
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
            self.log.close()
            with self._snapshots, self._lock:
                if self.log.sequence - self._last_snapshot() > RECORDS_PER_CLOSING_SNAPSHOT:
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
            for left_over in self._directory.path.glob("*.tmp"):  # of a snapshot that a crash cut short
                left_over.unlink()
            return recover(self._directory, self._identity, self._engine, self._recorder)
        except OSError as error:
            raise StateError(
                f"state directory {self._directory.path} cannot be read: {error}; see to it, or name another"
            ) from error

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
                found = recover(self._directory, self._identity, engine, recorder, until=until)
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
