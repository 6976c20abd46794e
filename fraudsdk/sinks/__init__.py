"""
A `Decision` goes to whoever must know: the port, a memory, a file, and a queue in front of any of them.

Nothing here runs on the scoring thread except `BackgroundSink.write`, which appends to a bounded queue and returns.
"""

from __future__ import annotations

from fraudsdk.sinks.background import BackgroundSink, WhenFull
from fraudsdk.sinks.memory import MemorySink
from fraudsdk.sinks.ndjson import NdjsonSink, decision_json
from fraudsdk.sinks.port import DecisionSink

__all__ = ["BackgroundSink", "DecisionSink", "MemorySink", "NdjsonSink", "WhenFull", "decision_json"]
