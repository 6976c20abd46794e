"""
Clocks, deadlines and histograms that are cheap enough to leave on.

No vendor and no export format: adapters read these objects and speak to the outside.
"""

from __future__ import annotations

from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock, Deadline, SystemClock
from fraudsdk.telemetry.histogram import LatencySummary, MicrosecondHistogram

__all__ = ["SYSTEM_CLOCK", "Clock", "Deadline", "LatencySummary", "MicrosecondHistogram", "SystemClock"]
