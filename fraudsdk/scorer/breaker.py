"""Stop asking what does not answer in time."""

from __future__ import annotations

import threading
from typing import Final

from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock

_FAILURES: Final = 5
_PAUSE_NS: Final = 1_000_000_000


class Breaker:
    """
    Opens after five calls in a row that failed or took too long; after a second one call may try again.

    Callable from several threads.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._n_failures = 0
        self._open_until_ns = 0
        self.n_opened = 0

    def allows(self) -> bool:
        """Whether to call; whoever is let through while it is half open says what came of it with `note`."""
        if self._n_failures < _FAILURES:
            return True
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            if now_ns < self._open_until_ns:
                return False
            self._open_until_ns = now_ns + _PAUSE_NS  # one call tries; if it says nothing another does, later
            return True

    def note(self, *, succeeded: bool) -> None:
        """What became of a call."""
        with self._lock:
            if succeeded:
                self._n_failures = 0
                return
            self._n_failures += 1
            if self._n_failures == _FAILURES:
                self.n_opened += 1
            if self._n_failures >= _FAILURES:
                self._open_until_ns = self._clock.monotonic_ns() + _PAUSE_NS
