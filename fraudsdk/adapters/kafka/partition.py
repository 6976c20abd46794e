"""
One partition as its consumer sees it: messages that wait, and the state that follows them.

::

    unclaimed ── claim ──> at work ── score ──> scored ── told ──> commit ──> at work, further on
        ▲                     │                                       │
        └── no answer, lost ──┴──── the store had lost changes: read again from where it is
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from confluent_kafka import Message

from fraudsdk.domain.decisions import Decisions
from fraudsdk.scorer.streamed_parts import Batch, Said

MAX_QUEUED: Final = 20_000
_FIRST_RETRY_S: Final = 0.05
_SLOWEST_RETRY_S: Final = 2.0
_LOOKED_EVERY_S: Final = 1.0
_STALE_S: Final = 1.0
_ALERTS_AT_ONCE: Final = 1_000


class StreamState(Protocol):
    """What decides on the messages of a partition, and remembers how far it is; see `StreamedParts`."""

    @property
    def place(self) -> int:
        """The message to go on with."""
        ...

    @property
    def n_rows_at_once(self) -> int:
        """Transactions between two commits, at most."""
        ...

    @property
    def is_due(self) -> bool:
        """Whether there is something to commit."""
        ...

    @property
    def keeps_alerts(self) -> bool:
        """Whether a commit keeps alerts until they have been told; they must be told before it where it does not."""
        ...

    def claim(self) -> int:
        """Take the partition over; the message to go on with."""
        ...

    def begin_at(self, place: int) -> None:
        """Begin a stream whose first messages are gone, or are not wanted."""
        ...

    def score(self, first: int, until: int, batch: Batch) -> Decisions | None:
        """Decide on messages; None where the stream goes on from `place` instead."""
        ...

    def feedback(self, said: Said) -> bool:
        """Take a label; False where the transaction is not remembered."""
        ...

    def commit(self) -> int:
        """Have everything so far written; the message to go on with."""
        ...

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """Alerts that were committed and not acknowledged, with their names."""
        ...

    def acknowledge(self, names: Sequence[str]) -> None:
        """Alerts have been told."""
        ...

    def must_leave(self) -> bool:
        """Whether somebody is being erased: commit, leave, and claim again when it is over."""
        ...

    def leave(self) -> None:
        """Nothing is written any more until it is claimed again."""
        ...

    def counters(self) -> dict[str, int]:
        """What happened so far, by name."""
        ...

    def close(self) -> None:
        """What was not committed is forgotten."""
        ...


@dataclass
class Untold:
    """How much of what was produced has not been acknowledged."""

    n: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """
    What came of talking to the store.

    Attributes
    ----------
    place : int
        The message to go on with.
    has_lost : bool
        That is further back: the store had lost changes.
    alerts : list of (str, bytes)
        Committed, and not told yet.
    must_leave : bool
    took_ns : int
        Of a processor, nanoseconds.
    """

    place: int
    has_lost: bool
    alerts: list[tuple[str, bytes]]
    must_leave: bool
    took_ns: int


class Partition:
    """
    A partition that the group has given to this consumer.  One thread uses it; only `_store` runs elsewhere.

    Attributes
    ----------
    number : int
    is_claimed : bool
    next_offset : int
        Of the message that is taken next; any other one is not.
    scored, committed : int
        The messages before it were.
    waiting : deque of Message
    untold : Untold
        Of what concerns messages that were scored: nothing of them is committed before it has been told.
    alerts : Untold
        Of alerts that were committed.
    newest_ms : int
        When the newest message that was scored had been sent.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.is_claimed = self.is_leaving = self.is_paused = self.must_ask_again = False
        self.next_offset = -1
        self.waiting: deque[Message] = deque()
        self.untold, self.alerts = Untold(), Untold()
        self.scored = self.committed = 0
        self.newest_ms = -1
        self._told: list[str] = []  # names of alerts, to be acknowledged
        self._telling: list[str] = []  # those of them that are being acknowledged
        self._state: StreamState | None = None
        self._last_alert = ""
        self._has_alerts = True  # whether the outbox may hold some that were not seen yet
        self._storing: Future[Stored] | None = None
        self._gap_at, self._gap_since_s = -1, 0.0
        self._looked_at_s = self._retry_at_s = 0.0
        self._retry_s = _FIRST_RETRY_S

    def open(self, open_state: Callable[[], StreamState]) -> None:
        """Have the state that follows it."""
        if self._state is None:
            self._state = open_state()

    @property
    def state(self) -> StreamState:
        """What follows it, once it is open."""
        assert self._state is not None, "open it first"
        return self._state

    @property
    def has_work(self) -> bool:
        """Whether something was begun that should be brought to its end."""
        return self.is_claimed and (self.is_storing or self.state.is_due or bool(self._told) or self.alerts.n > 0)

    def close(self) -> None:
        """Nothing more comes of it."""
        if self._state is not None:
            self._state.close()

    def begin(self, place: int) -> None:
        """It was claimed, or the store had lost changes: go on from there."""
        self.is_claimed, self.is_leaving = True, False
        self.next_offset = self.scored = self.committed = place
        self.newest_ms = -1
        self.waiting.clear()
        self.untold, self.alerts = Untold(), Untold()
        self._told, self._last_alert, self._has_alerts = [], "", True
        self._retry_s, self._gap_at = _FIRST_RETRY_S, -1

    def may_see_stale(self) -> bool:
        """
        Whether a message after a gap may be one that was fetched before it began: one is read again in any case.

        However late it is taken: whoever had to wait for a broker meanwhile has not looked at what came.
        """
        now_s = time.monotonic()
        if self._gap_at != self.next_offset:
            self._gap_at, self._gap_since_s = self.next_offset, now_s
        return now_s - self._gap_since_s < _STALE_S

    def lose(self, wait_s: float) -> None:
        """It must be claimed again, after a while."""
        self.is_claimed = False
        self.next_offset = -1
        self.waiting.clear()
        self._retry_at_s = time.monotonic() + wait_s

    def put_off(self) -> None:
        """Something did not answer: try again later, and later still the next time."""
        self._retry_at_s = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _SLOWEST_RETRY_S)

    def take(self, message: Message) -> bool | None:
        """
        Have a message wait for its turn.

        Returns
        -------
        bool or None
            False for one that comes from before, as those of a partition that was taken away and given back do; None where
            messages before it are missing.
        """
        offset = offset_of(message)
        if not self.is_claimed or offset < self.next_offset:
            return False
        if offset > self.next_offset:
            return None
        self.waiting.append(message)
        self.next_offset = offset + 1
        return True

    @property
    def is_ready(self) -> bool:
        """Whether messages can be scored now."""
        return self.is_free and bool(self.waiting)

    @property
    def is_free(self) -> bool:
        """Whether the state may be changed now."""
        is_free = self.is_claimed and not self.is_leaving and self._storing is None
        return is_free and not self.state.is_due and self._retry_at_s <= time.monotonic()

    @property
    def is_storing(self) -> bool:
        """Whether the store is being talked to."""
        return self._storing is not None

    @property
    def may_claim(self) -> bool:
        """Whether it is time to claim it."""
        return not self.is_claimed and self._storing is None and self._retry_at_s <= time.monotonic()

    def succeed(self) -> None:
        """Something did answer."""
        self._retry_s = _FIRST_RETRY_S

    def was_told(self, name: str) -> None:
        """An alert is where it should be; the next talk with the store acknowledges it."""
        self._told.append(name)

    def expect_alerts(self) -> None:
        """The next commit has alerts."""
        self._has_alerts = True

    def store_if_due(self, pool: ThreadPoolExecutor) -> None:
        """Commit what was scored and told, acknowledge alerts, and look for those that must be told; on another thread."""
        now_s = time.monotonic()
        if self._storing is not None or not self.is_claimed or self.untold.n or self._retry_at_s > now_s:
            return
        is_time = now_s - self._looked_at_s >= _LOOKED_EVERY_S
        if self.state.is_due or self._told or self._has_alerts or is_time:
            self._telling, self._told = self._told, []
            self._looked_at_s = now_s
            self._storing = pool.submit(self._store, self._telling)

    def stored(self, wait: bool = False) -> Stored | None:
        """
        What came of it; None where nothing has yet.  Raises what broke.
        """
        if self._storing is None or not (wait or self._storing.done()):
            return None
        storing, self._storing = self._storing, None
        if storing.exception() is not None:
            self._told = self._telling + self._told
        return storing.result()

    def _store(self, told: list[str]) -> Stored:
        started_ns = time.thread_time_ns()
        # What was scored is our own word: a store that lost changes and then did not answer has gone back already.
        place = self.state.commit() if self.state.is_due else self.state.place
        self.state.acknowledge(told)
        alerts = self.state.outbox(_ALERTS_AT_ONCE, self._last_alert) if self._has_alerts else []
        if alerts:
            self._last_alert = alerts[-1][0]
        self._has_alerts = len(alerts) == _ALERTS_AT_ONCE
        return Stored(place, place != self.scored, alerts, self.state.must_leave(), time.thread_time_ns() - started_ns)


def offset_of(message: Message) -> int:
    """Where a message is that came without an error."""
    offset = message.offset()
    assert offset is not None
    return offset


OpenState = Callable[[int, bytes], StreamState]
