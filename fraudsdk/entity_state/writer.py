"""
The protocol of a writer, without a clock, a network or a log: what to do with each answer of its store.

::

    claimed ── feed ──> dirty ── commit ──> WRITTEN, AGAIN ──> claimed, further on
               │                   │
               └───────────────────┼─ FENCED ─────> lost: another has it
                (reads what is     ├─ REGRESSED ──> claimed again, further back; what is cached is forgotten
                 not cached)       └─ no answer ──> the same again, until there is one; nothing is fed meanwhile

A read is fenced like a commit.  Without that a store that loses a suffix twice could give a writer parts that are ahead of
it, and then take them from it: one of 3,000 simulated seeds found it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from fraudsdk.entity_state.store import Committed, JournalChange, JournalPage, StateStore
from fraudsdk.errors import CorruptStateError, StateUnavailableError

C = TypeVar("C", contravariant=True)
Load = Callable[[Sequence[int]], list[bytes]]


class State(Protocol[C]):
    """What changes are applied to: a cache of the parts of one writer."""

    def apply(self, sequence: int, change: C, load: Load) -> tuple[Iterable[int], list[bytes]]:
        """
        Apply a change; entities that are not cached are loaded first, and are new only where that gives nothing.

        Returns
        -------
        keys : iterable of int
            Entities that changed.
        alerts : list of bytes
        """
        ...

    def pack(self, keys: Sequence[int], place: int) -> list[bytes]:
        """The parts of entities that are cached, as they are before change `place`."""
        ...

    def journalled(self) -> JournalChange:
        """What changed of the journal since the last time, or since it was recalled."""
        ...

    def recall(self, page: JournalPage) -> None:
        """Take up a page of the journal, as it is kept."""
        ...

    def forget(self) -> None:
        """Forget everything: the store knows better."""
        ...


class Lost(Exception):
    """Another has claimed the writer."""


class _Regressed(Exception):
    """The store is not where this writer left it."""


class PartWriter(Generic[C]):
    """
    Applies one log to a store.

    Parameters
    ----------
    store : StateStore
    state : State
        Empty.
    token : bytes
        Nobody else's: drawn for this writer.

    Attributes
    ----------
    next : int
        The change to feed.
    """

    def __init__(self, store: StateStore, state: State[C], token: bytes) -> None:
        self._store = store
        self._state = state
        self._token = token
        self._committed = 0
        self._must_claim = False
        self._dirty: dict[int, None] = {}
        self._alerts: list[bytes] = []
        self._unanswered: tuple[int, dict[int, bytes], list[bytes], JournalChange] | None = None
        self.next = 0

    def claim(self) -> int:
        """
        Take the writer, and forget what is not in the store; the change to feed next.

        Raises
        ------
        CorruptStateError
            The store applied half of a commit.
        Lost
            Another has claimed it since.
        StateUnavailableError
            The store does not answer: claim again.
        """
        self._must_claim = True  # until all of this went well: what was fed and not committed is forgotten
        self._state.forget()
        self._dirty, self._alerts, self._unanswered = {}, [], None
        place = self._store.claim(self._token)
        self._recall(place)
        self.next = self._committed = place
        self._must_claim = False
        return place

    def _recall(self, place: int) -> None:
        row = 0
        while True:
            page = self._store.journal(self._token, place, row)
            if page is Committed.FENCED:
                raise Lost
            if isinstance(page, Committed):
                raise StateUnavailableError("the store lost changes while its journal was read; claim again")
            if page.place > place:
                raise CorruptStateError(
                    f"the store has a journal of change {page.place} and says that it is at {place}: it applied half of a commit; "
                    "restore it, or empty the group and read the stream from its beginning"
                )
            self._state.recall(page)
            row = page.next
            if row >= page.end:
                return

    @property
    def n_dirty(self) -> int:
        """Entities that changed since the last commit."""
        return len(self._dirty)

    @property
    def committed(self) -> int:
        """Changes before this one are in the store, and some after it may be."""
        return self._committed

    @property
    def is_due(self) -> bool:
        """Whether there is something to commit."""
        return self._must_claim or self._unanswered is not None or bool(self._dirty) or self.next != self._committed

    def begin_at(self, place: int) -> None:
        """
        Begin a log whose first changes are gone.

        Raises
        ------
        CorruptStateError
            Some of it was applied already.
        """
        if self.next:
            raise CorruptStateError(f"the state is of the changes before {self.next}; it cannot begin at {place}")
        self.next = place

    def feed(self, sequence: int, change: C, until: int | None = None) -> bool:
        """
        Apply a change.

        Parameters
        ----------
        sequence : int
            Its place in the log.
        change : C
        until : int, optional
            The place after it, where it takes none or more than one.

        Returns
        -------
        bool
            False where it was not applied: it is in the state already, or the store had lost changes and `next` says where
            to go on.

        Raises
        ------
        CorruptStateError
            Changes before it are missing.
        Lost
            Another has claimed the writer.
        StateUnavailableError
            The store does not give an entity that is not cached, or a commit is unanswered: feed it again later.
        """
        if self._unanswered is not None:
            raise StateUnavailableError("a commit is unanswered; call commit() until it is")
        if self._must_claim:
            self.claim()
            return False
        if sequence < self.next:
            return False
        if sequence > self.next:
            raise CorruptStateError(
                f"changes {self.next} to {sequence - 1} are missing from the log; read it from there"
            )
        try:
            keys, alerts = self._state.apply(sequence, change, self._load)
        except _Regressed:
            self.claim()
            return False
        self._dirty |= dict.fromkeys(keys)
        self._alerts += alerts
        self.next = sequence + 1 if until is None else until
        return True

    def _load(self, keys: Sequence[int]) -> list[bytes]:
        parts = self._store.read(self._token, self._committed, keys)
        if parts is Committed.FENCED:
            raise Lost
        if isinstance(parts, Committed):
            raise _Regressed
        return parts

    def commit(self) -> int:
        """
        Have everything so far written.

        Returns
        -------
        int
            The change to feed next: further back where the store had lost some.

        Raises
        ------
        Lost
            Another has claimed the writer.
        StateUnavailableError
            No answer: it may have been written or not.  Commit again.
        """
        if self._must_claim:
            return self.claim()
        if self._unanswered is None:
            if not self.is_due:
                return self.next
            keys = list(self._dirty)
            parts = dict(zip(keys, self._state.pack(keys, self.next), strict=True))
            self._unanswered = self.next, parts, self._alerts, self._state.journalled()
        upto, parts, alerts, journal = self._unanswered
        answer = self._store.commit(self._token, self._committed, upto, parts, alerts, journal)
        self._unanswered = None
        if answer is Committed.FENCED:
            raise Lost
        if answer is Committed.REGRESSED:
            return self.claim()
        self._committed, self._dirty, self._alerts = upto, {}, []
        return self.next
