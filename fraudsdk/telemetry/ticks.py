"""Which clock native code reads in this process, and how long its tick is."""

from __future__ import annotations

import functools
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fraudsdk import _ticks

_X86: Final = ("x86_64", "amd64", "i686")
_CPU_INFO: Final = Path("/proc/cpuinfo")
# What the kernel of the operating system says of a counter that runs at one rate and through sleep.
_STEADY_FLAGS: Final = frozenset({"constant_tsc", "nonstop_tsc"})
# Long enough for 50 ppm with readings that take 50 ns; opening a scorer waits for it.
_CALIBRATION_NS: Final = 2_000_000
_BRACKETS: Final = 5


@dataclass(frozen=True, slots=True)
class TickClock:
    """
    What kernels are told about their clock.

    Attributes
    ----------
    source : int
        `_ticks.CYCLE_COUNTER` or `_ticks.SYSTEM_CLOCK`.
    multiplier : int
        Nanoseconds per tick, times ``2 ** _ticks.TICK_SHIFT``.
    """

    source: int
    multiplier: int

    @property
    def ns_per_tick(self) -> float:
        """Length of a tick, nanoseconds."""
        return self.multiplier / (1 << _ticks.TICK_SHIFT)


@functools.cache
def tick_clock() -> TickClock:
    """The clock of this process; calibrated on the first call, which takes two milliseconds."""
    if not _counter_is_steady():
        return TickClock(_ticks.SYSTEM_CLOCK, 1 << _ticks.TICK_SHIFT)
    return TickClock(_ticks.CYCLE_COUNTER, round(_measured_ns_per_tick() * (1 << _ticks.TICK_SHIFT)))


def _counter_is_steady() -> bool:
    machine = platform.machine().lower()
    if machine not in _X86:
        return machine in ("aarch64", "arm64")  # the architecture promises it
    try:
        cpu = _CPU_INFO.read_text(encoding="ascii", errors="replace")
    except OSError:
        return False  # nobody says so
    flags = next((line for line in cpu.splitlines() if line.startswith("flags")), "")
    return _STEADY_FLAGS <= set(flags.split())


def _measured_ns_per_tick() -> float:
    first_ns, first_ticks = _both()
    while time.perf_counter_ns() - first_ns < _CALIBRATION_NS:
        pass
    last_ns, last_ticks = _both()
    return (last_ns - first_ns) / (last_ticks - first_ticks)


def _both() -> tuple[int, int]:
    """One moment on both clocks: of several attempts the one that was interrupted least."""
    attempts = []
    for _ in range(_BRACKETS):
        before_ns = time.perf_counter_ns()
        ticks = _ticks.read_ticks(_ticks.CYCLE_COUNTER)
        after_ns = time.perf_counter_ns()
        attempts.append((after_ns - before_ns, (before_ns + after_ns) // 2, ticks))
    _, moment_ns, ticks = min(attempts)
    return moment_ns, ticks
