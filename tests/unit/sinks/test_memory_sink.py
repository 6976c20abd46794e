"""The memory sink is bounded and never forgets what it accepted."""

from __future__ import annotations

import pytest

from fraudsdk.errors import ConfigurationError, SinkBackpressureError
from fraudsdk.sinks import MemorySink
from fraudsdk.testing.contracts import decisions


def test_a_full_sink_accepts_nothing_of_a_batch_that_does_not_fit():
    sink = MemorySink(capacity=3)
    sink.write(decisions(2))

    with pytest.raises(SinkBackpressureError, match=r"holds 2 of 3 .* take\(\)") as refusal:
        sink.write(decisions(2, first=2))

    assert refusal.value.retry_after_s > 0
    assert decisions(2) == list(sink.decisions)


def test_a_full_sink_still_accepts_what_it_has_already():
    sink = MemorySink(capacity=2)
    sink.write(decisions(2))
    sink.write(decisions(2))

    assert decisions(2) == list(sink.decisions)


def test_taking_makes_room():
    sink = MemorySink(capacity=2)
    sink.write(decisions(2))

    assert tuple(decisions(2)) == sink.take()
    sink.write(decisions(2, first=2))
    assert decisions(2, first=2) == list(sink.decisions)


def test_a_capacity_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="capacity must be >= 1, was 0"):
        MemorySink(capacity=0)
