"""How long each stage takes: histograms that are always on, for native stages and for those in Python."""

from __future__ import annotations

from typing import Final

import numpy as np

from fraudsdk.features.context import point
from fraudsdk.scorer import kernels
from fraudsdk.telemetry.histogram import LatencySummary, MicrosecondHistogram
from fraudsdk.telemetry.ticks import tick_clock

# In the order of the path.  Policy includes the reasons; it is only timed where a transaction gets that far in Python.
NATIVE_STAGES: Final = {"encode": kernels.ENCODE, "features": kernels.FEATURES, "model": kernels.MODEL}
POLICY: Final = "policy"


class StageLatency:
    """
    One histogram per stage.  One writer at a time: the scorer records under its lock.

    Attributes
    ----------
    words : int64[LATENCY_WORDS]
        Where the kernel finds the histograms of its stages, and its clock.
    policy : MicrosecondHistogram
    """

    def __init__(self) -> None:
        self._native = {name: MicrosecondHistogram() for name in NATIVE_STAGES}
        self.policy = MicrosecondHistogram()
        self.words = np.zeros(kernels.LATENCY_WORDS, np.int64)
        for name, stage in NATIVE_STAGES.items():
            point(self.words, stage, self._native[name].words)
        clock = tick_clock()
        self.words[kernels.CLOCK], self.words[kernels.NS_PER_TICK] = clock.source, clock.multiplier

    def histograms(self) -> dict[str, MicrosecondHistogram]:
        """A copy of each, by name, in the order of the path."""
        copies = {}
        for name, histogram in {**self._native, POLICY: self.policy}.items():
            copies[name] = MicrosecondHistogram()
            copies[name].merge(histogram)
        return copies

    def summaries(self) -> dict[str, LatencySummary]:
        """What each stage took, by name, in the order of the path."""
        stages = {**self._native, POLICY: self.policy}
        return {name: histogram.summary() for name, histogram in stages.items()}
