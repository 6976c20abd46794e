"""
Signals one at a time, where they are waited for.

A handler would run late or never: one that arrives just before the main thread begins to wait sets a flag that nobody looks at
until the wait ends.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable


def hold(numbers: Iterable[signal.Signals]) -> None:
    """
    Have signals wait for `next_of`.

    To be called before there are other threads, which take this over from the one that starts them.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def next_of(numbers: Iterable[signal.Signals], timeout_s: float) -> int | None:
    """The next signal; None where none came in time."""
    received = signal.sigtimedwait(numbers, timeout_s)
    return None if received is None else received.si_signo
