"""Recording from inside a kernel, into the words of a `MicrosecondHistogram`: same buckets, same array."""

from __future__ import annotations

from fraudsdk._jit import bit_length, device
from fraudsdk.telemetry.histogram import EXACT_BELOW, MAX_NS_AT, N_BUCKETS, SUB_BUCKET_BITS


@device
def bump(words, elapsed_ns):
    """
    Count one duration.

    Parameters
    ----------
    words : int64[N_WORDS]
        `MicrosecondHistogram.words`, or a row of several such.  One writer at a time.
    elapsed_ns : int64
        At least 0; `fraudsdk._ticks.elapsed_ns` sees to it.
    """
    if elapsed_ns > words[MAX_NS_AT]:
        words[MAX_NS_AT] = elapsed_ns
    bucket = elapsed_ns
    if elapsed_ns >= EXACT_BELOW:
        shift = bit_length(elapsed_ns) - (SUB_BUCKET_BITS + 1)
        bucket = min((shift << SUB_BUCKET_BITS) + (elapsed_ns >> shift), N_BUCKETS - 1)
    words[bucket] += 1
