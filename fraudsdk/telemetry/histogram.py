"""
A latency histogram that starts where our latencies are.

Buckets are log-linear, as in HdrHistogram: exact below 64 ns, then 32 equal buckets per power of two, so a percentile
is never more than 1/32 (3.1 %) above the truth and never below it.

    value_ns   0 .. 63   64 .. 127      128 .. 255     ...   8.6 s .. 17.2 s
    width_ns   1         2              4                    2**28
    buckets    64        32             32                   32

Memory is fixed (about 8 KiB) whatever is recorded; nothing is allocated per recording.  The counts lie in one array of
words that kernels write as well (`fraudsdk.telemetry.kernels.bump`), so Python and native code record into the same
histogram.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.telemetry.clock import NS_PER_US

SUB_BUCKET_BITS: Final = 5
EXACT_BELOW: Final = 1 << (SUB_BUCKET_BITS + 1)
# The first power of two above ten seconds.  Longer waits share the last bucket and still show in `max_us`.
_HIGHEST_NS: Final = (1 << 34) - 1
N_BUCKETS: Final = ((_HIGHEST_NS.bit_length() - SUB_BUCKET_BITS - 1) << SUB_BUCKET_BITS) + EXACT_BELOW
# Behind the buckets: the exact maximum.
MAX_NS_AT: Final = N_BUCKETS
N_WORDS: Final = N_BUCKETS + 1


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
    Durations from nanoseconds to ten seconds; recording one takes 130 to 150 ns from Python, and 0.7 ns in a kernel.

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

    __slots__ = ("_counts", "words")

    def __init__(self) -> None:
        # An array of the standard library: from Python its items cost a third of those of a NumPy array.
        self._counts = array("q", bytes(8 * N_WORDS))
        self.words: npt.NDArray[np.int64] = np.frombuffer(self._counts, dtype=np.int64)
        """int64[N_WORDS]: counts per bucket, then the maximum in nanoseconds.  The same memory, for kernels."""

    def record(self, elapsed_ns: int) -> None:
        """
        Count one duration.

        Raises
        ------
        ValueError
            A negative duration: it was measured with a clock that can go back.
        """
        counts = self._counts
        if elapsed_ns >= EXACT_BELOW:
            shift = elapsed_ns.bit_length() - (SUB_BUCKET_BITS + 1)
            bucket = (shift << SUB_BUCKET_BITS) + (elapsed_ns >> shift)
            counts[bucket if bucket < N_BUCKETS else N_BUCKETS - 1] += 1
        elif elapsed_ns >= 0:
            counts[elapsed_ns] += 1
        else:
            raise ValueError(f"elapsed_ns must be >= 0, was {elapsed_ns}; measure durations with a monotonic clock")
        if elapsed_ns > counts[MAX_NS_AT]:
            counts[MAX_NS_AT] = elapsed_ns

    def merge(self, other: MicrosecondHistogram) -> None:
        """Add another histogram's recordings to this one.  Associative and commutative."""
        max_ns = max(self._max_ns, other._max_ns)
        self.words += other.words
        self._counts[MAX_NS_AT] = max_ns

    @property
    def n(self) -> int:
        """Number of recordings."""
        return int(self.words[:N_BUCKETS].sum())

    @property
    def _max_ns(self) -> int:
        return self._counts[MAX_NS_AT]

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
        bucket = int(np.searchsorted(np.cumsum(self.words[:N_BUCKETS]), rank))
        return min(_upper_edge_ns(bucket), self._max_ns) / NS_PER_US

    def cumulated(self, edges_ns: Sequence[int]) -> tuple[int, ...]:
        """
        How many recordings no edge was surely exceeded by, for those who draw wider buckets of their own.

        Parameters
        ----------
        edges_ns : sequence of int
            Nanoseconds, ascending.

        Returns
        -------
        tuple of int
            A count for each edge, of the buckets that end at or below it (never flattering); then all recordings; then their sum
            in nanoseconds, at most 3.1 % too high.
        """
        counts = self.words[:N_BUCKETS]
        upper_ns = np.minimum(_UPPER_EDGES_NS, self._max_ns)
        up_to = np.concatenate(([0], np.cumsum(counts)))
        found = up_to[np.searchsorted(_UPPER_EDGES_NS, edges_ns, side="right")]
        return (*found.tolist(), self.n, int((counts * upper_ns).sum()))

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
    if bucket < EXACT_BELOW:
        return bucket
    if bucket == N_BUCKETS - 1:
        return 1 << 62  # shared by everything longer: only the maximum bounds it
    shift = (bucket >> SUB_BUCKET_BITS) - 1
    return (((bucket - (shift << SUB_BUCKET_BITS)) + 1) << shift) - 1


_UPPER_EDGES_NS: Final = np.array([_upper_edge_ns(bucket) for bucket in range(N_BUCKETS)], np.int64)
