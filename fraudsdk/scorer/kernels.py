"""
One transaction from what the host sent to a score, in one call.

::

    mapping ── read ──> encoded row ── observe ──> features ── forest ──> margin ── calibrate ──> score
                                                                                      │
                              below every band, and nobody else has a say? ───────────┴──> approved, and recorded as such

The stages are the kernels of their own folders; what is here calls them one after another and takes the time between.
"""

from __future__ import annotations

import math

import numpy as np

from fraudsdk._jit import device


@device
def probability(margin, table):
    """`Calibration.probability` of a margin, from `Calibration.table`: the same bits."""
    n_knots = (table.shape[0] - 2) >> 1
    if n_knots == 0:
        log_odds = table[0] * margin + table[1]
        if log_odds >= 0.0:
            return 1.0 / (1.0 + math.exp(-log_odds))
        odds = math.exp(log_odds)
        return odds / (1.0 + odds)
    if np.isnan(margin):
        return np.nan
    low, high = 0, n_knots
    while low < high:  # knots at or below the margin
        middle = (low + high) >> 1
        if table[2 + middle] <= margin:
            low = middle + 1
        else:
            high = middle
    if low == 0:
        return table[2 + n_knots]
    if low == n_knots:
        return table[1 + 2 * n_knots]
    at = 1 + low
    share = (margin - table[at]) / (table[at + 1] - table[at])
    below, above = table[at + n_knots], table[at + n_knots + 1]
    risen = below + share * (above - below)
    return above if risen > above else risen
