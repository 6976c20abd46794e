"""A writer of real entities that goes on whatever becomes of its store, and what one process makes of the same log."""

from __future__ import annotations

import time
from functools import cache

from writes_to_redis import EngineState, event

from fraudsdk.entity_state.store import Committed
from fraudsdk.entity_state.writer import PartWriter
from fraudsdk.errors import StateUnavailableError

PER_COMMIT = 20


class Told:
    """A store, and what it answered to commits."""

    def __init__(self, store) -> None:
        self._store = store
        self.commits: list[Committed] = []
        self.n_unanswered = 0

    def __getattr__(self, name):
        return getattr(self._store, name)

    def commit(self, *call):
        self.commits.append(self._store.commit(*call))
        return self.commits[-1]


class Writing:
    """The log of the crash tests, applied to a store as far as a test likes."""

    def __init__(self, store) -> None:
        self.told = Told(store)
        self.writer: PartWriter = PartWriter(self.told, EngineState(), b"me")
        self.writer.claim()

    def go_on_to(self, place: int, timeout_s: float = 60.0) -> None:
        """Apply and commit every change before `place`; whatever is not answered is tried again."""
        deadline = time.monotonic() + timeout_s
        while True:
            assert time.monotonic() < deadline, f"no further than {self.writer.next} in {timeout_s} s"
            try:
                self.writer.commit()
                if self.writer.next == place:
                    return
                self.feed(min(PER_COMMIT, place - self.writer.next))
            except StateUnavailableError:
                self.told.n_unanswered += 1
                time.sleep(0.02)

    def feed(self, n: int) -> None:
        """Apply so many changes more, and commit none."""
        for _ in range(n):
            self.writer.feed(self.writer.next, event(self.writer.next))


@cache
def oracle(place: int) -> tuple[dict[int, bytes], list[bytes]]:
    """Parts and alerts of one process that nothing happens to."""
    state, alerts = EngineState(), []
    for sequence in range(place):
        alerts += state.apply(sequence, event(sequence), lambda keys: [b""] * len(keys))[1]
    return state.parts(), alerts


def problems_of(store, place: int) -> list[str]:
    """How what is kept differs from the oracle's."""
    parts, alerts = oracle(place)
    kept = store.read(b"me", place, list(parts))
    if isinstance(kept, Committed):
        return [f"the store is not at {place}, or another's"]
    found = [f"part {key}" for key, one, other in zip(parts, parts.values(), kept, strict=True) if one != other]
    return found + (["alerts"] if sorted(alerts) != sorted(alert for _, alert in store.outbox(10**6)) else [])
