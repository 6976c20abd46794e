"""
State that several processes share: memory in front of a store that holds a part of each entity for each of them.

::

    decision ── remembers ──> memory ── changed ──> parts ── commit ──> store ── feed ──> the others
        │                       ▲                                        │
        └── not at hand? ── read, at most 2 ms ──────────────────────────┤
                                └── joined again ── changed by others ───┘

What is in memory is decided on without a call.  Own events count at once; those of others within a flush and a refresh.  Where the
store does not answer decisions go on from what is known and say so, and what happens meanwhile is written once it does.

Of a store that is only read the left half is missing: nothing is remembered here, and so nothing is written.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.entity_state.layout import CHANGED_FULL, CHANGED_N
from fraudsdk.entity_state.memory import TOMBSTONE_WORDS, everything
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.store import Committed, Parts, SharedStore
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import FraudSDKError, StateUnavailableError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.scorer import kernels
from fraudsdk.scorer.breaker import Breaker
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock

# How often changes are written, and those of others read.
FLUSH_S: Final = 0.01
REFRESH_S: Final = 0.05
# How long a decision waits for entities that are not in memory, and reads that may be under way at a time.
READ_BUDGET_S: Final = 0.002
_READERS: Final = 4
# From this age on what others know is too old to say nothing of it.
STALE_S: Final = 1.0
# Entities that wait to be written, or to be read after all; beyond it nothing more is remembered.
MAX_WAITING: Final = 100_000
# Labels and answers for transactions that another process decided on.
MAX_TO_TELL: Final = 10_000
# Between two looks; some ten thousand transactions.  Where more come everything counts as changed.
_CHANGES: Final = 1 << 17
_PER_COMMIT: Final = 500
# Before something else has its turn.
_COMMITS_AT_ONCE: Final = 20
_READS_AT_ONCE: Final = 20
# Under one lock: some 20 us in which no other thread is served.
_PER_LOCK: Final = 32
_PER_READ: Final = 100
_SLOWEST_RETRY_S: Final = 1.0
# Which entities the store has: 8 MB.  Of those that it has not, one in 1,400 is asked for in vain at 3 million, one in 25 at 10.
_FILTER_WORDS: Final = 1 << 20
_SURVEYED_AT_ONCE: Final = 5
_CLOSE_S: Final = 10.0
_NOTHING: Final = np.empty(0, np.int64)


class SharedState:
    """
    What one scorer and the others know.

    Every method is called under the scorer's lock unless it says otherwise.

    Parameters
    ----------
    store : SharedStore
        Of one that `reads_only` nothing is to be remembered.
    codec : PartCodec
    schema : bytes
        What parts mean: the same for all who share them.
    engine : FeatureEngine
        Empty.
    lock : Lock
        Of the scorer.

    Raises
    ------
    StateError
        The store is of other features, or has no room for one more writer.
    StateUnavailableError
        It does not answer, or is only to be read and nobody writes it.
    """

    def __init__(
        self,
        store: SharedStore,
        codec: PartCodec,
        schema: bytes,
        engine: FeatureEngine,
        lock: threading.Lock,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = store
        self.reads_only = store.reads_only
        self._codec = codec
        self._schema = schema
        self._engine = engine
        self._memory = engine.memory
        self._lock = lock
        self._clock = clock
        self._breaker = Breaker(clock)
        self._is_ours = True  # False in a forked child
        self._has_joined = True  # False once another has our slot, or somebody is being erased
        self._is_leaving = False  # for as long as it takes to write what there is
        self._n_times_forgotten = 0
        self._taken = _NOTHING  # of what changed, and on its way to what waits
        self._waiting: dict[int, None] = {}  # to be written
        self._unanswered: dict[int, bytes] = {}  # a commit that may have been written or not
        self._unread: set[int] = set()  # in memory without what the store has of them
        self._damaged: set[int] = set()  # of which some part is left out
        self._damaged_here: set[int] = set()  # our own part, which is to be put aside
        self._reading: dict[int, int] = {}  # by how many threads
        self._rewriting: dict[int, None] = {}  # to be written again, after what waits: the store had it once
        self._stale: set[int] = set()  # others changed them
        self._to_tell: list[tuple[int, int, int]] = []  # of transactions that others decided on
        self._told: list[tuple[int, int, int]] = []  # by others, of transactions that may be ours
        self._survey: Iterator[list[int]] | None = None  # under way: which entities the store has
        self._surveyed = everything()
        self._trouble = ""
        self._counts = dict.fromkeys(
            (
                *(
                    "shared_commits",
                    "shared_parts_written",
                    "shared_reads",
                    "shared_reads_too_late",
                    "shared_regressions",
                ),
                *("shared_slots_lost", "shared_entities_lost", "shared_parts_damaged"),
            ),
            0,
        )
        store.join(schema)
        self._asked_ns = self._fresh_ns = clock.monotonic_ns()
        self._memory.tell_changes(_CHANGES)
        engine.adopt_memory()
        self._keys = _NOTHING
        self._readers = concurrent.futures.ThreadPoolExecutor(_READERS, "fraudsdk-read")
        self._free_readers = threading.BoundedSemaphore(2 * _READERS)
        self._stopping = threading.Event()
        self._learn_tombstones()
        self._closing = threading.Lock()
        self._has_left = False
        self._begin_survey()
        self._thread = threading.Thread(target=self._run, name="fraudsdk-shared", daemon=True)
        _shared_states.add(self)
        self._thread.start()

    # --- what a decision asks ----------------------------------------------------------------------------------------

    def have_at_hand(self, ints: npt.NDArray[np.int64], n_decisions: int, at_most_s: float) -> bool:
        """
        Have the entities that transactions need in memory, and keep them there until those have been remembered.

        As `look_up`, which it repeats where others used the memory meanwhile.
        """

        def needed() -> list[int]:
            kernels.keep_at_hand(ints, self._engine.context)
            return self._not_at_hand(ints)

        return self._look_up_all(needed, n_decisions, at_most_s)

    def have_entities(self, keys: Collection[int], n_decisions: int) -> bool:
        """`look_up` those of some entities that are not in memory, or not as the store has them."""

        def needed() -> set[int]:
            return {*keys} - {*self._known(keys)} | {*keys} & self._unread

        return self._look_up_all(needed, n_decisions, math.inf)

    def _look_up_all(self, needed: Callable[[], Collection[int]], n_decisions: int, at_most_s: float) -> bool:
        read: set[int] = set()
        while keys := {*needed()} - read:  # what was read and is not in memory is new
            if not self.look_up([*keys], n_decisions, at_most_s):
                return False
            read |= keys
        return True

    def _not_at_hand(self, ints: npt.NDArray[np.int64]) -> list[int]:
        """Entities that transactions need, and that the store may have but memory has not."""
        most = len(ints) * len(self._memory.layout.names)
        if len(self._keys) < most:
            self._keys = np.empty(most, np.int64)
        n = kernels.entities_not_at_hand(ints, self._engine.context, self._keys)
        return list(dict.fromkeys(self._keys[:n].tolist()))

    def look_up(self, keys: Sequence[int], n_decisions: int, at_most_s: float) -> bool:
        """
        Read entities, and remember them; the lock is let go meanwhile.

        Parameters
        ----------
        n_decisions : int
            How many decisions wait for it: 2 ms each.
        at_most_s : float

        Returns
        -------
        bool
            False where the store did not answer in time.
        """
        if not self._is_ours or not self._has_joined:
            return False
        if not self._breaker.allows() or not self._free_readers.acquire(blocking=False):
            return False
        n_times_forgotten = self._n_times_forgotten
        unanswered = {key: self._unanswered[key] for key in keys if key in self._unanswered}
        self._note_reading(keys, 1)
        self._lock.release()
        try:
            parts = self._parts_in_time(keys, min(n_decisions * READ_BUDGET_S, at_most_s))
        finally:
            self._lock.acquire()
            self._note_reading(keys, -1)
        self._counts["shared_reads" if parts is not None else "shared_reads_too_late"] += 1
        if parts is None or n_times_forgotten != self._n_times_forgotten:  # what was ours may be another's, or erased
            return False
        for key in {*keys} - {*self._known(keys)} | {*keys} & self._unread:
            self._take_up(key, parts, unanswered.get(key))
        return True

    def go_blind(self, ints: npt.NDArray[np.int64]) -> None:
        """Transactions are about to be remembered without what the store has of their entities; that is added later."""
        kernels.keep_at_hand(ints, self._engine.context)
        keys = self._not_at_hand(ints)
        self._unread.update(keys)
        for key in keys:
            self._waiting.pop(key, None)
            self._rewriting.pop(key, None)
        self.room()

    def amends(self, key: int) -> None:
        """As `Elsewhere`: its entities say so themselves."""

    def pass_on(self, key: int, set_bits: int, clear_bits: int) -> bool:
        """
        Tell the others what was said of a transaction that is not remembered here.

        Raises
        ------
        StateUnavailableError
            Too much waits to be told.
        """
        if not self._is_ours or len(self._to_tell) >= MAX_TO_TELL:
            raise StateUnavailableError("what was said was not taken: the store is slow or down; say it again later")
        self._to_tell.append((key, set_bits, clear_bits))
        return True

    def room(self) -> str:
        """Empty, or why nothing more can be remembered."""
        is_closed = not self._is_ours or self._stopping.is_set()
        is_full = is_closed or self._is_leaving or len(self._waiting) + len(self._unread) >= MAX_WAITING
        self._memory.changed[CHANGED_FULL] = is_full
        if not is_full:
            return ""
        if self._is_leaving:
            return "somebody is being erased; send it again"
        if not self._is_ours:
            return "it is shared by the process that this one was forked from; open a scorer of its own"
        if is_closed:
            return "the scorer was closed"
        return f"{MAX_WAITING} entities wait for the store: {self._trouble or 'it is too slow'}"

    def doubt(self, keys: Callable[[], Iterable[int]] | None = None) -> str:
        """Empty, or why what is known of these entities, or any, is less than what all know together."""
        if self._unread or self._damaged:
            named = self._unread | self._damaged if keys is None else set(keys())
            if named & self._unread:
                return self.unread_because()
            if named & self._damaged:
                return "a part of what is known of an entity is damaged, and left out"
        if self.age_us > 1_000_000 * STALE_S:
            return f"what others know is {self.age_us // 1_000_000} s old: {self._trouble or 'the store is slow'}"
        return ""

    def unread_because(self) -> str:
        """Why less is known than the store has."""
        return f"what is known of an entity elsewhere was not read: {self._trouble or 'the store is slow'}"

    @property
    def age_us(self) -> int:
        """How long ago what others know was up to date, in microseconds."""
        return max(0, self._clock.monotonic_ns() - self._fresh_ns) // 1_000

    def counters(self) -> dict[str, int]:
        """What was shared, and what could not be."""
        return self._counts | {
            "shared_entities_waiting": self._n_waiting(),
            "shared_breaker_opened": self._breaker.n_opened,
        }

    def _n_waiting(self) -> int:
        """Entities that are not in the store as they are in memory; some may be counted twice."""
        n_changed = int(self._memory.changed[CHANGED_N]) + len(self._taken)
        n_to_write = len(self._waiting) + len(self._rewriting) + len(self._unanswered)
        return n_changed + n_to_write + len(self._unread)

    def close(self) -> None:
        """
        Write what there is, and leave; not under the lock.  Nothing is remembered from then on.

        Raises
        ------
        StateUnavailableError
            Some changes could not be written, and are lost unless it is called again.
        """
        if not self._is_ours:
            return
        with self._closing:
            if self._has_left:
                return
            self._stopping.set()
            with self._lock:
                self.room()
            self._thread.join()
            self._readers.shutdown(wait=False, cancel_futures=True)
            if not self.reads_only:
                self._finish()
            self._has_left = True

    def abandon(self) -> None:
        """In a forked child: nothing of this is its own."""
        self._is_ours = False
        self._memory.changed[CHANGED_FULL] = 1

    def _parts_in_time(self, keys: Sequence[int], budget_s: float) -> Parts | None:
        """Parts of entities; None where they are not there in time.  Not under the lock."""
        try:
            asked = self._readers.submit(self._read, keys)
        except RuntimeError:  # closed, or no more threads
            self._free_readers.release()
            return None
        try:
            parts = asked.result(timeout=max(0.0, budget_s))
        except concurrent.futures.TimeoutError:
            if asked.cancel():
                self._free_readers.release()
            parts = None
        except concurrent.futures.CancelledError:  # closed meanwhile
            parts = None
        self._breaker.note(succeeded=parts is not None)
        return parts

    def _read(self, keys: Sequence[int]) -> Parts | None:
        try:
            return self._store.read(keys)
        except Exception as error:  # a decision is due whatever broke, and says it
            self._trouble = _described(error)
            return None
        finally:
            self._free_readers.release()

    def _note_reading(self, keys: Sequence[int], by: int) -> None:
        for key in keys:
            n = self._reading.pop(key, 0) + by
            if n:
                self._reading[key] = n

    def _known(self, keys: Collection[int]) -> list[int]:
        """Those of some entities that are in memory."""
        known = np.empty(len(keys), np.int64)
        n = kernels.entities_at_hand(np.fromiter(keys, np.int64, len(keys)), self._engine.context, known)
        return list(known[:n].tolist())

    def _take_up(self, key: int, parts: Parts, unanswered: bytes | None = None) -> None:
        """Remember an entity as all know it; of a commit that was not answered when it was read, as we would have it."""
        of = [*parts.of[key]]
        if unanswered:
            of[parts.mine] = unanswered
        said = self._codec.take_up(self._memory, key, of, parts.mine, lacks_stored=key in self._unread)
        self._engine.adopt_memory()
        if key in self._unread:
            self._unread.discard(key)
            self._waiting[key] = None
        damaged = [each for each in said if each is not Taken.TAKEN]
        self._counts["shared_parts_damaged"] += len(damaged)
        if damaged and len(self._damaged) < MAX_WAITING:
            self._damaged.add(key)
        elif not damaged:
            self._damaged.discard(key)
        if not self.reads_only and said[parts.mine] is not Taken.TAKEN:
            self._damaged_here.add(key)

    # --- what the thread does ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s, next_refresh_ns = FLUSH_S, 0
        while not self._stopping.wait(pause_s):
            try:
                self._collect()
                self._join_if_needed()
                self._write()
                self._tell()
                if self._clock.monotonic_ns() >= next_refresh_ns:
                    self._refresh()
                    next_refresh_ns = self._clock.monotonic_ns() + int(1e9 * REFRESH_S)
                self._join_if_needed()
                self._join_stale()
                self._amend_what_is_ours()
                self._read_after_all()
                self._go_on_with_survey()
                self._put_damaged_aside()
                self._trouble, pause_s = "", FLUSH_S
            except Lost:
                self._start_over()
            except Exception as error:  # whatever it is, decisions say so; without this thread nothing would ever heal
                self._trouble = _described(error)
                pause_s = min(2 * pause_s, _SLOWEST_RETRY_S)
                if self._survey is not None:  # a store that was restarted has its entities in another order
                    self._begin_survey()

    def _collect(self) -> None:
        """What changed waits to be written."""
        with self._lock:
            self._taken = self._memory.take_changes()
        keys = np.unique(self._taken).tolist()
        with self._lock:  # what was not read waits for that first
            self._waiting |= dict.fromkeys(key for key in keys if key not in self._unread)
            self._taken = _NOTHING
            self.room()

    def _write(self) -> None:
        """Write what waits, or some of it: the lease and what others changed do not wait for long."""
        for _ in range(_COMMITS_AT_ONCE):
            if not self._unanswered:
                self._pack_some()
            if not self._unanswered:
                return
            said = self._store.commit(self._unanswered)
            if said is Committed.FENCED:
                raise Lost
            if said is Committed.REGRESSED:
                self._write_everything_again()
                continue
            self._counts["shared_commits"] += 1
            self._counts["shared_parts_written"] += len(self._unanswered)
            self._unanswered = {}
            if self._stopping.is_set() or self._n_to_pack() < _PER_COMMIT:
                self._collect()
                if self._n_to_pack() < _PER_COMMIT:
                    return

    def _n_to_pack(self) -> int:
        return len(self._waiting) + len(self._rewriting)

    def _pack_some(self) -> None:
        """Have parts of some entities that wait, as they are now, to be written."""
        with self._lock:
            # What is damaged in the store is put aside first, or its successor would be.
            waiting = (key for key in chain(self._waiting, self._rewriting) if key not in self._damaged_here)
            chosen = list(islice(waiting, _PER_COMMIT))
        for first in range(0, len(chosen), _PER_LOCK):
            with self._lock:
                some = dict.fromkeys(chosen[first : first + _PER_LOCK])
                keys = [key for key in some if key in self._waiting or key in self._rewriting]
                packed = self._codec.pack(self._memory, np.array(keys, np.int64), 0)
                for key in keys:
                    self._waiting.pop(key, None)
                    self._rewriting.pop(key, None)
                self._note_elsewhere(keys)
                self._unanswered |= {key: part for key, part in zip(keys, packed, strict=True) if part}
                self._counts["shared_entities_lost"] += len(keys) - len(self._known(keys))

    def _write_everything_again(self) -> None:
        """The store lost changes of ours; what is in memory is what it should be."""
        self._store.resume()
        self._counts["shared_regressions"] += 1
        with self._lock:
            self._unanswered = {}
            self._rewriting = dict.fromkeys({*self._memory.entity_keys().tolist()} - self._unread)

    def _refresh(self) -> None:
        """Ask what others changed, which is told once: it is noted before anything else may fail."""
        asked_ns = self._clock.monotonic_ns()
        changes = self._store.poll()
        self._told += changes.told
        self._note_elsewhere(changes.keys)
        with self._lock:
            if changes.is_everything:
                self._stale.update(self._memory.entity_keys().tolist(), self._reading)
            else:
                self._stale.update(self._known(changes.keys), changes.keys & self._reading.keys())
        self._asked_ns = asked_ns
        if changes.is_everything:
            self._begin_survey()
        if changes.has_lost_ours:
            self._write_everything_again()
        if changes.must_leave:
            self._leave_for_now()

    def _join_stale(self) -> None:
        """Join again what others changed, or some of it: our own changes do not wait for long."""
        with self._lock:
            settled = (key for key in self._stale if key not in self._reading)
            stale = list(islice(settled, _READS_AT_ONCE * _PER_READ))
        for first in range(0, len(stale), _PER_READ):
            self._join_again(stale[first : first + _PER_READ])
        if len(stale) < _READS_AT_ONCE * _PER_READ:
            self._fresh_ns = self._asked_ns

    def _begin_survey(self) -> None:
        """Until it is known which entities the store has, any that is not in memory may be there."""
        with self._lock:
            self._memory.elsewhere = everything()
            self._engine.adopt_memory()
        self._surveyed = np.zeros(_FILTER_WORDS, np.int64)
        self._note_elsewhere(self._unanswered)  # may come while the survey is under way
        self._survey = self._store.entity_keys()

    def _go_on_with_survey(self) -> None:
        """A few thousand more; then what is neither in memory nor in the store is new, and need not be asked for."""
        if self._survey is None:
            return
        some = list(islice(self._survey, _SURVEYED_AT_ONCE))
        for keys in some:
            self._note_elsewhere(keys)
        if not some:
            self._survey = None
            with self._lock:
                self._memory.elsewhere = self._surveyed
                self._engine.adopt_memory()

    def _leave_for_now(self) -> None:
        """Write what there is, and forget everything until whoever is being erased has been; decisions go on without."""
        with self._lock:
            self._is_leaving = True
            self.room()
        try:
            while self._n_waiting():
                self._collect()
                self._read_after_all()
                self._put_damaged_aside()
                self._write()
            self._store.leave()
            with self._lock:
                self._forget_everything()
        finally:
            self._is_leaving = False
            with self._lock:
                self.room()

    def _forget_everything(self) -> None:
        sets = (self._unread, self._stale, self._damaged, self._damaged_here)
        for each in (self._waiting, self._rewriting, self._unanswered, *sets):
            each.clear()
        self._n_times_forgotten += 1
        self._memory.forget_entities()
        self._memory.elsewhere = everything()
        self._engine.adopt_memory()
        self._survey, self._has_joined = None, False

    def _note_elsewhere(self, keys: Collection[int]) -> None:
        """The store has these entities."""
        kernels.add_elsewhere(np.fromiter(keys, np.int64, len(keys)), self._surveyed)

    def _tell(self) -> None:
        with self._lock:
            some = self._to_tell[:_PER_COMMIT]
        if some:
            self._store.tell(some)  # one that was not answered is told twice, and counts once
            with self._lock:
                del self._to_tell[: len(some)]

    def _amend_what_is_ours(self) -> None:
        """What others were told of transactions that were decided here."""
        with self._lock:
            self._told = [each for each in self._told if self._engine.remembers(each[0])]
            keys = {key for amendment in self._told for key in self._engine.keys_of(amendment[0])}
            missing = [*keys - {*self._known(keys)} | keys & self._unread]
        for first in range(0, len(missing), _PER_READ):
            some = missing[first : first + _PER_READ]
            parts = self._store.read(some)
            with self._lock:
                for key in {*some} - {*self._known(some)} | {*some} & self._unread:
                    self._take_up(key, parts)
        while self._told:
            with self._lock:
                self._engine.amend(*self._told.pop())

    def _put_damaged_aside(self) -> None:
        """Our own part of an entity is written anew from what is in memory, if anything is."""
        for key in list(self._damaged_here):
            self._store.quarantine(key)
            with self._lock:
                self._damaged_here.discard(key)
                self._stale.add(key)
                self._waiting[key] = None

    def _join_again(self, keys: Sequence[int]) -> None:
        parts = self._store.read(keys)
        for first in range(0, len(keys), _PER_LOCK):
            with self._lock:
                some = keys[first : first + _PER_LOCK]
                known = {*self._known(some)}
                self._stale -= {*some}
                self._unread -= {*some} - known  # forgotten before it was read
                for key in known:
                    self._take_up(key, parts)

    def _read_after_all(self) -> None:
        """What was not there in time."""
        while self._unread:
            with self._lock:
                keys = list(islice(self._unread, _PER_READ))
            self._join_again(keys)

    def _start_over(self) -> None:
        """Another process holds our slot: what was written is its own now, and what was not is lost, which is counted."""
        with self._lock:
            self._counts["shared_slots_lost"] += 1
            self._counts["shared_entities_lost"] += self._n_waiting()
            self._forget_everything()

    def _join_if_needed(self) -> None:
        if not self._has_joined:
            self._store.join(self._schema)
            self._learn_tombstones()
            self._begin_survey()
            self._has_joined = True

    def _learn_tombstones(self) -> None:
        """Whoever was erased is not remembered again by what happened before."""
        rows = [(mark, erased_us, 0) for mark, erased_us in self._store.tombstones()]
        with self._lock:
            self._memory.tombstones = np.array(rows, np.int64).reshape(-1, TOMBSTONE_WORDS)
            self._engine.adopt_memory()

    def _finish(self) -> None:
        """The last changes."""
        until_ns = self._clock.monotonic_ns() + int(1e9 * _CLOSE_S)
        while True:
            try:
                self._collect()
                self._join_if_needed()
                self._read_after_all()
                self._put_damaged_aside()
                self._write()
                self._tell()
                if not self._n_to_pack() and not self._unanswered:
                    break
            except Lost:
                self._start_over()
            except Exception as error:  # told below, unless it passes
                self._trouble = _described(error)
            if self._clock.monotonic_ns() > until_ns:
                raise StateUnavailableError(
                    f"changes of {self._n_waiting()} entities are lost: {self._trouble}; see to the store"
                )
            time.sleep(FLUSH_S)
        with contextlib.suppress(StateUnavailableError):  # the lease runs out
            self._store.leave()


def _described(error: Exception) -> str:
    return str(error) if isinstance(error, FraudSDKError) else type(error).__name__


_shared_states: weakref.WeakSet[SharedState] = weakref.WeakSet()
# A child that is forked while a thread has the lock of a scorer would wait for it for ever.
_forking = threading.Lock()
_held_to_fork: list[threading.Lock] = []
_FORK_WAIT_S: Final = 1.0  # whoever forks under such a lock would wait for itself


def _hold_all() -> None:
    _forking.acquire()
    locks = [each._lock for each in _shared_states]
    _held_to_fork.extend(lock for lock in locks if lock.acquire(timeout=_FORK_WAIT_S))


def _let_go_of_all() -> None:
    while _held_to_fork:
        _held_to_fork.pop().release()
    _forking.release()


def _abandon_all() -> None:
    for each in _shared_states:
        each.abandon()
    _let_go_of_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_let_go_of_all, after_in_child=_abandon_all)
