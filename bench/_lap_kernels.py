"""The clock and histogram of a stage as the scoring kernel has them, many times over."""

from __future__ import annotations

from fraudsdk._jit import borrowed, kernel
from fraudsdk._ticks import ticks
from fraudsdk.scorer.kernels import CLOCK, FEATURES, lap


@kernel("void(int64[::1], int64)")
def laps(latency, n):
    """Count `n` stages that take no time."""
    latency = borrowed(latency)
    started = ticks(latency[CLOCK])
    for _ in range(n):
        started = lap(latency, FEATURES, started)
