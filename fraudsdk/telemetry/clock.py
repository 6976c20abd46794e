"""
Two clocks that must not be mixed, and the deadline that reads one of them.

The wall clock says whether an event time is plausible and nothing else: it may jump.  Durations and deadlines read the
monotonic clock.  Windows read neither: they live in event time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final, Protocol

NS_PER_US: Final = 1_000
US_PER_S: Final = 1_000_000


class Clock(Protocol):
    """Where the time comes from.  Called on the scoring path: must be cheap, thread-safe and must not raise."""

    def now_us(self) -> int:
        """Wall-clock time, microseconds since the Unix epoch, UTC.  May jump; only the skew check reads it."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary origin; never goes back."""


class SystemClock:
    """The clocks of this machine."""

    # The C function itself: a Python frame around it would double what a reading costs.
    monotonic_ns = staticmethod(time.monotonic_ns)

    def now_us(self) -> int:
        """Wall-clock time, microseconds since the Unix epoch, UTC."""
        return time.time_ns() // NS_PER_US


SYSTEM_CLOCK: Final = SystemClock()


@dataclass(frozen=True, slots=True)
class Deadline:
    """
    A moment on the monotonic clock after which an answer is no longer wanted.

    Attributes
    ----------
    at_ns : int
        The moment, on `clock`'s monotonic scale.
    clock : Clock
        The clock that decides whether it has passed.

    Examples
    --------
    >>> Deadline.after_us(50_000).passed()
    False
    """

    at_ns: int
    clock: Clock = SYSTEM_CLOCK

    @classmethod
    def after_us(cls, duration_us: int, *, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """A deadline `duration_us` from now; zero or less has passed already."""
        return cls(clock.monotonic_ns() + duration_us * NS_PER_US, clock)

    def passed(self) -> bool:
        """True from the moment itself on."""
        return self.clock.monotonic_ns() >= self.at_ns

    def remaining_us(self) -> int:
        """Whole microseconds left; 0 once it has passed, so that it can be handed to a wait as it is."""
        return max(self.at_ns - self.clock.monotonic_ns(), 0) // NS_PER_US

    def remaining_s(self) -> float:
        """Seconds left, for the standard library's waits; 0.0 once it has passed."""
        return max(self.at_ns - self.clock.monotonic_ns(), 0) / (NS_PER_US * US_PER_S)
