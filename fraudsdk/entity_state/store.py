"""
Where parts are kept outside the process, and what a store promises: state and its place in the log change together.

A *writer* is whoever applies one log in order: a partition of a stream, say.  Its state before change ``o`` is a function of the
changes before ``o`` alone, so a store that replaces (parts, ``o``) at once can be asked where to go on, whatever died in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol


class Committed(Enum):
    """What became of a commit, or of a read."""

    WRITTEN = "WRITTEN"
    AGAIN = "AGAIN"  # it had been written: a repeated call whose first answer was lost
    FENCED = "FENCED"  # another has claimed the writer; nothing was written
    REGRESSED = "REGRESSED"  # the store is not where we left it: it lost changes; nothing was written


@dataclass(frozen=True, slots=True)
class JournalChange:
    """
    What changed of a journal: rows of one width, numbered from the first that ever was, of which the newest are kept.

    Attributes
    ----------
    width : int
        Bytes of a row.
    first : int
        Rows before this one are not needed any more.
    end : int
        The number of the row that comes next.
    runs : tuple of (int, bytes)
        Rows that are new or were changed, none before `first`: the number of the first of a run, and rows that follow each other.
    """

    width: int
    first: int
    end: int
    runs: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class JournalPage:
    """
    Some rows of a journal, as it is kept.

    Attributes
    ----------
    first : int
        The number of the first of them.
    octets : bytes
        Rows that follow each other; zeros where one was never written.
    next : int
        Where the next page begins.
    end : int
        As in `JournalChange`.
    place : int
        The journal was last changed by a commit up to here.
    """

    first: int
    octets: bytes
    next: int
    end: int
    place: int


UNCHANGED: Final = JournalChange(0, 0, 0, ())


class StateStore(Protocol):
    """
    State of one writer.

    Every method raises `StateUnavailableError` where the store does not answer; the call may have had its effect then, and is
    repeated as it was.
    """

    def claim(self, token: bytes) -> int:
        """
        Take the writer: whoever had it is fenced from now on.

        Returns
        -------
        int
            The change to go on with; 0 for a writer that has never written.
        """
        ...

    def commit(
        self,
        token: bytes,
        previous: int,
        next: int,
        parts: Mapping[int, bytes],
        alerts: Sequence[bytes],
        journal: JournalChange = UNCHANGED,
    ) -> Committed:
        """
        Replace parts and rows of the journal, append alerts to the outbox and move on, all or nothing.

        Parameters
        ----------
        token : bytes
            Of the claim.
        previous, next : int
            Changes before `previous` are in the store; with this commit those before `next` are.
        parts : Mapping of int to bytes
            By entity key.
        alerts : sequence of bytes
            What must be told of these changes.
        journal : JournalChange
        """
        ...

    def journal(self, token: bytes, place: int, row: int) -> JournalPage | Committed:
        """
        A page of the journal as it is before change `place`: from `row` on, or from the first that is kept.

        `FENCED` and `REGRESSED` as for `read`.
        """
        ...

    def read(self, token: bytes, place: int, keys: Sequence[int]) -> list[bytes] | Committed:
        """
        The writer's parts of entities as they are before change `place`, empty for those that it has none of.

        A part that another wrote, or of another place, must not be mixed with what is cached: `FENCED` and `REGRESSED` say so.
        """
        ...

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Alerts that were committed and not acknowledged, oldest first, with the names that `acknowledge` takes."""
        ...

    def acknowledge(self, names: Iterable[str]) -> None:
        """Alerts have been told."""
        ...


class StreamStore(StateStore, Protocol):
    """A `StateStore` of a partition of a stream, whose partitions and readers know of each other."""

    def enter(self, schema: bytes, origin: bytes) -> None:
        """
        Before the claim: make sure that this is the partition's place.

        Raises
        ------
        StateError
            State there means something else than `schema` says, is of another stream, or is written by processes that share it.
        StateUnavailableError
            Somebody is being erased, too.
        """
        ...

    def must_leave(self) -> bool:
        """Whether somebody is being erased: commit, forget, leave, and enter again when it is over."""
        ...

    def leave(self) -> None:
        """Nothing is written any more until it is entered again."""
        ...

    def tombstones(self) -> list[tuple[int, int]]:
        """Marks of who was erased, and when, microseconds since the Unix epoch."""
        ...

    def entity_keys(self) -> Iterator[list[int]]:
        """Entities that there are parts of, bit by bit."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What all writers know of some entities.

    Attributes
    ----------
    of : Mapping of int to sequence of bytes
        By key: the parts in the order of the writers, empty where one has none.
    mine : int
        Which of the writers we are; -1: none.
    """

    of: Mapping[int, Sequence[bytes]]
    mine: int


@dataclass(frozen=True, slots=True)
class Changes:
    """
    What other writers changed.

    Attributes
    ----------
    keys : frozenset of int
    is_everything : bool
        Which entities cannot be said: some changes were missed.
    has_lost_ours : bool
        The store is not where our last commit left it: it lost changes of ours.
    told : tuple of (int, int, int)
        What others were told of transactions that they do not know: key, flags to set, flags to clear.
    must_leave : bool
        Somebody is being erased: write what there is, leave, forget, and join again when it is over.
    """

    keys: frozenset[int]
    is_everything: bool
    has_lost_ours: bool
    told: tuple[tuple[int, int, int], ...]
    must_leave: bool


class SharedStore(Protocol):
    """
    State of several writers that serve the same entities, as one of them sees it.

    A writer holds a slot by a lease.  `join` and `read` may be called from several threads at once, the rest from one.  Every
    method raises `StateUnavailableError` where the store does not answer.
    """

    @property
    def reads_only(self) -> bool:
        """Whether it holds no slot and writes nothing: `join`, `tombstones`, `read`, `entity_keys` and `poll` are all it is for."""
        ...

    def join(self, schema: bytes) -> None:
        """
        Take a slot that nobody holds, and its parts with it; also after a slot was lost.

        Raises
        ------
        StateError
            State there means something else than `schema` says, or every slot is held.
        StateUnavailableError
            Somebody is being erased, too; or nobody writes what is only to be read.
        """
        ...

    def tombstones(self) -> list[tuple[int, int]]:
        """Marks of who was erased, and when, microseconds since the Unix epoch."""
        ...

    def resume(self) -> None:
        """
        Go on from where the store is, after it lost changes of ours.

        Raises
        ------
        Lost
            It lost our lease as well, and another holds the slot.
        """
        ...

    def commit(self, parts: Mapping[int, bytes]) -> Committed:
        """Replace parts and tell the other writers; the same call again after one that was not answered."""
        ...

    def read(self, keys: Sequence[int]) -> Parts:
        """What all writers know of entities."""
        ...

    def entity_keys(self) -> Iterator[list[int]]:
        """Entities that there are parts of, bit by bit; one that comes or goes meanwhile may be left out."""
        ...

    def poll(self) -> Changes:
        """
        What others changed since the last time; keeps the lease as well.  Not while a commit is unanswered.

        Raises
        ------
        Lost
            Another holds the slot.
        """
        ...

    def tell(self, amendments: Sequence[tuple[int, int, int]]) -> None:
        """Pass on what was said of transactions that another writer decided on."""
        ...

    def quarantine(self, key: int) -> None:
        """Put our part of an entity, which is damaged, out of the way of the next one."""
        ...

    def leave(self) -> None:
        """Give the slot back; its parts stay."""
        ...


class MemoryStore:
    """A store in this process: what tests and simulations compare others with."""

    def __init__(self) -> None:
        self._token = b""
        self._next = 0
        self._parts: dict[int, bytes] = {}
        self._outbox: dict[str, bytes] = {}
        self._n_alerts = 0
        self._rows: dict[int, bytes] = {}
        self._end = self._journal_place = 0

    def claim(self, token: bytes) -> int:
        """As `StateStore`."""
        self._token = token
        return self._next

    def commit(
        self,
        token: bytes,
        previous: int,
        next: int,
        parts: Mapping[int, bytes],
        alerts: Sequence[bytes],
        journal: JournalChange = UNCHANGED,
    ) -> Committed:
        """As `StateStore`."""
        if token != self._token:
            return Committed.FENCED
        if self._next == next and previous != next:
            return Committed.AGAIN
        if self._next != previous:
            return Committed.REGRESSED
        self._parts.update(parts)
        for alert in alerts:
            self._n_alerts += 1
            self._outbox[f"{self._n_alerts}"] = alert
        if journal.runs:
            self._keep_rows(journal)
            self._journal_place = next
        self._next = next
        return Committed.WRITTEN

    def _keep_rows(self, journal: JournalChange) -> None:
        for number, octets in journal.runs:
            for at in range(0, len(octets), journal.width):
                self._rows[number + at // journal.width] = octets[at : at + journal.width]
        for number in [each for each in self._rows if each < journal.first]:
            del self._rows[number]
        self._end = journal.end

    def journal(self, token: bytes, place: int, row: int) -> JournalPage | Committed:
        """As `StateStore`: the whole is one page."""
        if token != self._token:
            return Committed.FENCED
        if place != self._next:
            return Committed.REGRESSED
        numbers = sorted(each for each in self._rows if each >= row)
        if not numbers:
            return JournalPage(row, b"", self._end, self._end, self._journal_place)
        blank = bytes(len(self._rows[numbers[0]]))
        octets = b"".join(self._rows.get(each, blank) for each in range(numbers[0], self._end))
        return JournalPage(numbers[0], octets, self._end, self._end, self._journal_place)

    def read(self, token: bytes, place: int, keys: Sequence[int]) -> list[bytes] | Committed:
        """As `StateStore`."""
        if token != self._token:
            return Committed.FENCED
        if place != self._next:
            return Committed.REGRESSED
        return [self._parts.get(key, b"") for key in keys]

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """As `StateStore`."""
        return [each for each in self._outbox.items() if int(each[0]) > int(after or 0)][:limit]

    def acknowledge(self, names: Iterable[str]) -> None:
        """As `StateStore`."""
        for name in names:
            self._outbox.pop(name, None)
