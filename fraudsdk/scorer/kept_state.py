"""State that outlives the process: what a scorer asks of the log, and snapshots that keep recovery short."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from fraudsdk.config import Durability
from fraudsdk.entity_state import log_kernels
from fraudsdk.entity_state.event_log import BUFFER_WORDS, SEGMENT_BYTES, EventLog
from fraudsdk.entity_state.log_format import AMENDMENT_WORDS, RECORD_WORDS, VERDICT_WORDS, WORD, Words, word_of
from fraudsdk.entity_state.snapshot import write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import StateUnavailableError
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
        try:
            self.recovered: Recovered = recover(self._directory, identity, engine, recorder)
            for problem in self.recovered.problems:
                warnings.warn(problem, RuntimeWarning, stacklevel=4)
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
        self._lock = lock
        self._n_words_logged = len(recorder.words)
        self._compaction: threading.Thread | None = None
        self.n_verdicts_not_kept = 0
        self.n_failed_snapshots = 0

    @property
    def words(self) -> Words:
        """The log, for kernels."""
        return self.log.words

    def wait_for_room(self, n_events: int) -> str:
        """Wait until transactions can be recorded; empty, or why they cannot."""
        self.log_new_words()
        return (
            ""
            if self.log.wait_for_room(n_events, _ROOM_S)
            else f"log is full: {self.log.trouble or 'the disk is slow'}"
        )

    def keep_verdict(self, key: int, recorded: Recorded) -> None:
        """Log the decision on a transaction; where there is no room its duplicates will not know it after a crash."""
        self.log_new_words()
        if self.log.wait_for_spare_room(VERDICT_WORDS, _ROOM_S):
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

    def log_new_words(self) -> None:
        """Words that verdicts refer to come before the verdicts."""
        words = self._recorder.words
        while self._n_words_logged < len(words):
            payload = word_of(json.dumps(words[self._n_words_logged]).encode())
            if not self.log.wait_for_spare_room(RECORD_WORDS + len(payload), _ROOM_S):
                return
            log_kernels.log_words(self.words, WORD, payload)
            self._n_words_logged += 1

    def close(self) -> None:
        """
        Write what there is, and a snapshot of it where recovery would take long without; not under the lock.

        Raises
        ------
        StateUnavailableError
            Some of the log could not be written.
        """
        try:
            self.log.close()
            if self._compaction is not None:
                self._compaction.join()
            with self._lock:
                if self.log.sequence - self._last_snapshot() > RECORDS_PER_CLOSING_SNAPSHOT:
                    self._write_snapshot(self._engine, self._recorder, self.log.sequence)
        finally:
            self._directory.close()

    def _last_snapshot(self) -> int:
        return max((sequence for sequence, _ in self._directory.snapshots()), default=1)

    def _compact_when_due(self, segment: int) -> None:
        """A segment was begun; the writer of the log says so."""
        is_running = self._compaction is not None and self._compaction.is_alive()
        if is_running or segment - self._last_snapshot() < RECORDS_PER_SNAPSHOT:
            return
        self._compaction = threading.Thread(
            target=self._compact, args=(segment,), name="fraudsdk-snapshot", daemon=True
        )
        self._compaction.start()

    def _compact(self, until: int) -> None:
        """
        Take a snapshot of everything before a segment, from the files alone: no decision waits for it.

        For that time the state is in memory twice.
        """
        engine, recorder = self._make_engine(), DecisionRecorder()
        found = recover(self._directory, self._identity, engine, recorder, until=until)
        self._write_snapshot(engine, recorder, found.sequence)

    def _write_snapshot(self, engine: FeatureEngine, recorder: DecisionRecorder, sequence: int) -> None:
        try:
            write_snapshot(self._directory, self._identity, engine.memory, recorder.words, sequence)
        except OSError:  # the log still has everything: the next one may succeed
            self.n_failed_snapshots += 1
            return
        prune(self._directory)


def prune(directory: StateDirectory) -> None:
    """Remove snapshots but the newest two, and segments that lie wholly before the older of these."""
    snapshots = directory.snapshots()
    for _, path in snapshots[:-_SNAPSHOTS_KEPT]:
        path.unlink()
    if len(snapshots) < _SNAPSHOTS_KEPT:
        return
    needed_from = snapshots[-_SNAPSHOTS_KEPT][0]
    segments = directory.segments()
    for (_, path), (next_first, _) in pairwise(segments):
        if next_first <= needed_from:
            path.unlink()
