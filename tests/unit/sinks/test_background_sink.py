"""Every accepted decision is delivered, dropped or lost, exactly one of them, and the last two are said."""

from __future__ import annotations

import threading

import pytest

from fraudsdk.errors import (
    ConfigurationError,
    DeadlineExceededError,
    SinkBackpressureError,
    SinkDeliveryError,
    SinkError,
)
from fraudsdk.sinks import BackgroundSink, MemorySink, WhenFull
from fraudsdk.testing.contracts import LosingSink, RefusingSink, ample_deadline, decisions, passed_deadline


class GatedSink(MemorySink):
    """Stands still inside `write` until the gate opens; says when somebody stands there."""

    def __init__(self):
        super().__init__(capacity=100_000)
        self.gate = threading.Event()
        self.entered = threading.Event()

    def write(self, decisions):
        self.entered.set()
        self.gate.wait(30)
        super().write(decisions)


class ExplodingSink(MemorySink):
    """Raises what no contract allows, as client libraries do."""

    def write(self, decisions):
        raise KeyError("broker")

    def flush(self, deadline):
        raise KeyError("broker")


@pytest.fixture
def gated():
    sink = GatedSink()
    yield sink
    sink.gate.set()


def with_one_in_hand(gated, **options):
    """A background sink whose worker is busy with decision t-0, so that the queue stays as it is put."""
    sink = BackgroundSink(gated, capacity=3, **options)
    sink.write(decisions(1))
    assert gated.entered.wait(30)
    return sink


def test_write_returns_while_the_wrapped_sink_stands_still(gated):
    sink = with_one_in_hand(gated, when_full=WhenFull.DROP_OLDEST)
    sink.write(decisions(3, first=1))

    assert 3 == sink.n_queued
    gated.gate.set()
    sink.flush(ample_deadline())
    assert decisions(4) == list(gated.decisions)
    sink.close()


def test_a_full_queue_drops_the_oldest_counts_and_names_it(gated):
    sink = with_one_in_hand(gated, when_full=WhenFull.DROP_OLDEST)
    sink.write(decisions(3, first=1))
    sink.write(decisions(2, first=4))

    assert 2 == sink.n_dropped
    gated.gate.set()
    with pytest.raises(SinkDeliveryError, match="2 decisions were dropped or lost") as loss:
        sink.flush(ample_deadline())
    assert ("t-1", "t-2") == loss.value.transaction_ids
    assert ["t-0", "t-3", "t-4", "t-5"] == [decision.transaction_id for decision in gated.decisions]
    sink.flush(ample_deadline())  # said once
    sink.close()


def test_a_full_queue_refuses_the_newest_when_that_was_chosen(gated):
    sink = with_one_in_hand(gated, when_full=WhenFull.BACKPRESSURE)
    sink.write(decisions(2, first=1))

    with pytest.raises(SinkBackpressureError, match="holds 2 of 3"):
        sink.write(decisions(2, first=3))

    gated.gate.set()
    sink.flush(ample_deadline())
    assert decisions(3) == list(gated.decisions)
    assert (0, 0) == (sink.n_dropped, sink.n_lost)
    sink.close()


@pytest.mark.parametrize("when_full", list(WhenFull))
def test_more_at_once_than_the_queue_can_ever_hold_is_not_backpressure(when_full):
    sink = BackgroundSink(MemorySink(), when_full=when_full, capacity=3)

    with pytest.raises(SinkError, match="split them") as refusal:
        sink.write(decisions(4))

    assert not isinstance(refusal.value, SinkBackpressureError)
    sink.close()


def test_a_sink_that_refuses_a_few_times_gets_the_batch_again_in_order():
    memory = MemorySink()
    sink = BackgroundSink(RefusingSink(memory, n_refusals=3), when_full=WhenFull.BACKPRESSURE)

    sink.write(decisions(5))
    sink.flush(ample_deadline())

    assert decisions(5) == list(memory.decisions)
    assert isinstance(sink.last_error, SinkBackpressureError)
    sink.close()


def test_what_the_wrapped_sink_lost_is_named_to_the_caller_of_flush():
    sink = BackgroundSink(LosingSink(), when_full=WhenFull.BACKPRESSURE)
    sink.write(decisions(2))

    with pytest.raises(SinkDeliveryError) as loss:
        sink.flush(ample_deadline())

    assert ("t-0", "t-1") == loss.value.transaction_ids
    assert 2 == sink.n_lost
    sink.close()


def test_an_error_that_no_contract_allows_does_not_kill_the_worker():
    sink = BackgroundSink(ExplodingSink(), when_full=WhenFull.BACKPRESSURE)
    sink.write(decisions(1))

    with pytest.raises(SinkDeliveryError, match="t-0"):
        sink.flush(ample_deadline())
    with pytest.raises(SinkError, match="failed to flush: KeyError"):
        sink.flush(ample_deadline())

    assert isinstance(sink.last_error, KeyError)
    sink.close()


def test_a_flush_whose_deadline_passes_loses_nothing(gated):
    sink = with_one_in_hand(gated, when_full=WhenFull.BACKPRESSURE)

    with pytest.raises(DeadlineExceededError, match="1 decisions had not reached the sink"):
        sink.flush(passed_deadline())

    gated.gate.set()
    sink.flush(ample_deadline())
    assert decisions(1) == list(gated.decisions)
    sink.close()


def test_close_drains_the_queue():
    memory = MemorySink()
    sink = BackgroundSink(memory, when_full=WhenFull.BACKPRESSURE, batch_max=7)
    sink.write(decisions(500))
    sink.close()

    assert decisions(500) == list(memory.decisions)


def test_close_names_what_a_sink_that_keeps_refusing_never_took():
    sink = BackgroundSink(
        RefusingSink(MemorySink(), n_refusals=10**9),
        when_full=WhenFull.BACKPRESSURE,
        batch_max=1,
        close_within_us=10_000,
    )
    sink.write(decisions(3))

    with pytest.raises(SinkDeliveryError) as loss:
        sink.close()

    assert {"t-0", "t-1", "t-2"} == set(loss.value.transaction_ids)
    assert 3 == sink.n_lost


def test_close_returns_and_names_what_hangs_in_a_sink_that_never_returns(gated):
    sink = BackgroundSink(gated, when_full=WhenFull.BACKPRESSURE, batch_max=1, close_within_us=10_000)
    sink.write(decisions(1))
    assert gated.entered.wait(30)
    sink.write(decisions(1, first=1))

    with pytest.raises(SinkDeliveryError) as loss:
        sink.close()

    assert ("t-0", "t-1") == loss.value.transaction_ids


def test_sixteen_threads_lose_and_repeat_nothing():
    memory = MemorySink()
    sink = BackgroundSink(memory, when_full=WhenFull.BACKPRESSURE, capacity=100_000)
    threads = [
        threading.Thread(target=lambda first=first: [sink.write([d]) for d in decisions(200, first=first)])
        for first in range(0, 3_200, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.flush(ample_deadline())

    assert {decision.transaction_id for decision in decisions(3_200)} == {d.transaction_id for d in memory.decisions}
    sink.close()


@pytest.mark.parametrize("option", ["capacity", "batch_max"])
def test_a_bound_of_nothing_is_refused(option):
    with pytest.raises(ConfigurationError, match="must be >= 1"):
        BackgroundSink(MemorySink(), when_full=WhenFull.BACKPRESSURE, **{option: 0})
