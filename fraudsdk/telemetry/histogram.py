"""
A latency histogram that starts where our latencies are.

Buckets are log-linear, as in HdrHistogram: exact below 64 ns, then 32 equal buckets per power of two, so a percentile
is never more than 1/32 (3.1 %) above the truth and never below it.

    value_ns   0 .. 63   64 .. 127      128 .. 255     ...   8.6 s .. 17.2 s
    width_ns   1         2              4                    2**28
    buckets    64        32             32                   32

Memory is fixed (about 8 KiB) whatever is recorded; nothing is allocated per recording.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from fraudsdk.telemetry.clock import NS_PER_US

_SUB_BUCKET_BITS: Final = 5
_EXACT_BELOW: Final = 1 << (_SUB_BUCKET_BITS + 1)
# The first power of two above ten seconds.  Longer waits share the last bucket and still show in `max_us`.
_HIGHEST_NS: Final = (1 << 34) - 1
_N_BUCKETS: Final = ((_HIGHEST_NS.bit_length() - _SUB_BUCKET_BITS - 1) << _SUB_BUCKET_BITS) + _EXACT_BELOW


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """
    What a histogram says in one line; NaN where nothing was recorded.

    Attributes
    ----------
    n : int
        Recordings.
    p50_us, p99_us, p999_us : float
        Percentiles, microseconds, at most 3.1 % too high.
    max_us : float
        Exact maximum, microseconds.
    """

    n: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float


class MicrosecondHistogram:
    """
    Durations from nanoseconds to ten seconds, recorded in about a tenth of a microsecond.

    Warning
    -------
    One writer each: two threads that record into one histogram may lose counts.  Keep one per thread and `merge` them
    when they are read.

    Examples
    --------
    >>> histogram = MicrosecondHistogram()
    >>> for elapsed_ns in (900, 1_100, 25_000):
    ...     histogram.record(elapsed_ns)
    >>> histogram.summary().max_us
    25.0
    """

    __slots__ = ("_counts", "_max_ns")

    def __init__(self) -> None:
        self._counts = [0] * _N_BUCKETS
        self._max_ns = 0

    def record(self, elapsed_ns: int) -> None:
        """
        Count one duration.

        Raises
        ------
        ValueError
            A negative duration: it was measured with a clock that can go back.
        """
        if elapsed_ns > self._max_ns:
            self._max_ns = elapsed_ns
        if elapsed_ns >= _EXACT_BELOW:
            shift = elapsed_ns.bit_length() - (_SUB_BUCKET_BITS + 1)
            bucket = (shift << _SUB_BUCKET_BITS) + (elapsed_ns >> shift)
            self._counts[bucket if bucket < _N_BUCKETS else -1] += 1
        elif elapsed_ns >= 0:
            self._counts[elapsed_ns] += 1
        else:
            raise ValueError(f"elapsed_ns must be >= 0, was {elapsed_ns}; measure durations with a monotonic clock")

    def merge(self, other: MicrosecondHistogram) -> None:
        """Add another histogram's recordings to this one.  Associative and commutative."""
        self._counts = [ours + theirs for ours, theirs in zip(self._counts, other._counts, strict=True)]
        self._max_ns = max(self._max_ns, other._max_ns)

    @property
    def n(self) -> int:
        """Number of recordings."""
        return sum(self._counts)

    @property
    def max_us(self) -> float:
        """The longest duration, exact; NaN where nothing was recorded."""
        return self._max_ns / NS_PER_US if self.n else float("nan")

    def percentile_us(self, percent: float) -> float:
        """
        The duration that `percent` of the recordings do not exceed.

        Parameters
        ----------
        percent : float
            0 to 100.

        Returns
        -------
        float
            Microseconds, the upper edge of the bucket (never flattering, at most 3.1 % too high), but never above the
            exact maximum.  NaN where nothing was recorded.
        """
        if not 0.0 <= percent <= 100.0:
            raise ValueError(f"percent must be from 0 to 100, was {percent}")
        n = self.n
        if n == 0:
            return float("nan")
        # Rounded first: 99.9 * 1000 / 100 is a hair above 999 and would ask for the maximum.
        rank = max(math.ceil(round(percent * n / 100.0, 6)), 1)
        below = 0
        for bucket, count in enumerate(self._counts):
            below += count
            if below >= rank:
                return min(_upper_edge_ns(bucket), self._max_ns) / NS_PER_US
        raise AssertionError("the counts add up to n")

    def summary(self) -> LatencySummary:
        """The figures that answer a question: n, p50, p99, p99.9 and max."""
        return LatencySummary(
            n=self.n,
            p50_us=self.percentile_us(50.0),
            p99_us=self.percentile_us(99.0),
            p999_us=self.percentile_us(99.9),
            max_us=self.max_us,
        )


def _upper_edge_ns(bucket: int) -> int:
    if bucket < _EXACT_BELOW:
        return bucket
    if bucket == _N_BUCKETS - 1:
        return 1 << 62  # shared by everything longer: only the maximum bounds it
    shift = (bucket >> _SUB_BUCKET_BITS) - 1
    return (((bucket - (shift << _SUB_BUCKET_BITS)) + 1) << shift) - 1
