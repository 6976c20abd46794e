"""A clock that moves when a test says so."""

from __future__ import annotations

from fraudsdk.telemetry.clock import NS_PER_US


class ManualClock:
    """
    Time as a test input.

    Parameters
    ----------
    now_us : int
        Wall-clock time at the start, microseconds since the Unix epoch, UTC.

    Examples
    --------
    >>> clock = ManualClock()
    >>> clock.advance_us(250)
    >>> clock.monotonic_ns()
    250000
    """

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic_ns = 0

    def now_us(self) -> int:
        """Wall-clock time, microseconds since the Unix epoch, UTC."""
        return self._now_us

    def monotonic_ns(self) -> int:
        """Nanoseconds since the clock was made."""
        return self._monotonic_ns

    def advance_us(self, duration_us: int) -> None:
        """Let time pass on both clocks."""
        if duration_us < 0:
            raise ValueError(f"duration_us must be >= 0, was {duration_us}; jump_wall_us moves the wall clock back")
        self._now_us += duration_us
        self._monotonic_ns += duration_us * NS_PER_US

    def jump_wall_us(self, offset_us: int) -> None:
        """Set the wall clock forward or back, as NTP or an operator would; the monotonic clock does not notice."""
        self._now_us += offset_us
