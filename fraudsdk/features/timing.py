"""
How long each feature takes: histograms that are filled by sampling.

A clock between the features of every transaction would cost more than most of the features.  Instead one transaction in
many is computed again, feature by feature, and only that is timed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fraudsdk.features import kernels, timing_kernels
from fraudsdk.features.plan import OP_CODE, OP_KIND, FeaturePlan
from fraudsdk.telemetry.histogram import N_WORDS, LatencySummary, MicrosecondHistogram
from fraudsdk.telemetry.ticks import tick_clock


class FeatureTimes:
    """
    A histogram per feature, and the scratch of the kernel that fills them.

    Parameters
    ----------
    plan : FeaturePlan

    Notes
    -----
    7,688 bytes per feature, allocated once: 1.0 MB for the 134 of the reference set.
    """

    def __init__(self, plan: FeaturePlan) -> None:
        n_features, n_slots, n_kinds = len(plan.ops), max(1, len(plan.slots)), max(1, len(plan.state.names))
        reading_ops = plan.ops[plan.ops[:, OP_CODE] < kernels.FIRST_ENTITY_OP]
        self._reading = np.zeros((n_kinds, timing_kernels.READING_FIELDS), dtype=np.int64)
        self._reading[:, timing_kernels.READERS] = np.bincount(reading_ops[:, OP_KIND], minlength=n_kinds)
        self._acc = np.zeros((n_slots, kernels.ACC_FIELDS), dtype=np.int64)
        self._squares = np.zeros(n_slots)
        self.row: npt.NDArray[np.float32] = np.zeros(n_features, dtype=np.float32)
        """float32[n_features]: what the last pass computed; that of the transaction itself while it is not remembered."""
        self._took_ticks = np.zeros(n_features, dtype=np.int64)
        self._words = np.zeros((n_features, N_WORDS), dtype=np.int64)

    def take(self, context: npt.NDArray[np.int64]) -> None:
        """Time the features of the transaction that a context holds."""
        clock = tick_clock()
        timing_kernels.time_features(
            context, clock.source, clock.multiplier,
            self._reading, self._acc, self._squares, self.row, self._took_ticks, self._words,
        )  # fmt: skip

    def summaries(self) -> list[LatencySummary]:
        """Of each column of the row."""
        histogram, summaries = MicrosecondHistogram(), []
        for words in self._words:
            histogram.words[:] = words
            summaries.append(histogram.summary())
        return summaries
