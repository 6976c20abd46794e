"""Deadlines live on the monotonic clock; the wall clock may jump."""

from __future__ import annotations

import time

import pytest

from fraudsdk.telemetry import SYSTEM_CLOCK, Deadline
from fraudsdk.testing.clock import ManualClock

HOUR_US = 3_600_000_000


def test_a_deadline_passes_at_its_own_moment_and_not_before():
    clock = ManualClock()
    deadline = Deadline.after_us(500, clock=clock)

    clock.advance_us(499)
    assert not deadline.passed()
    clock.advance_us(1)
    assert deadline.passed()


def test_remaining_time_counts_down_to_zero_and_stays_there():
    clock = ManualClock()
    deadline = Deadline.after_us(2_000_000, clock=clock)

    clock.advance_us(500_000)
    assert (1_500_000, 1.5) == (deadline.remaining_us(), deadline.remaining_s())
    clock.advance_us(HOUR_US)
    assert (0, 0.0) == (deadline.remaining_us(), deadline.remaining_s())


@pytest.mark.parametrize("duration_us", [0, -1])
def test_a_deadline_of_zero_or_less_has_passed_already(duration_us):
    assert Deadline.after_us(duration_us, clock=ManualClock()).passed()


@pytest.mark.parametrize("jump_us", [HOUR_US, -HOUR_US])
def test_a_wall_clock_that_jumps_an_hour_changes_no_deadline(jump_us):
    clock = ManualClock()
    deadline = Deadline.after_us(1_000, clock=clock)

    clock.jump_wall_us(jump_us)

    assert 1_000 == deadline.remaining_us()


def test_the_manual_clock_refuses_to_run_backwards():
    with pytest.raises(ValueError, match="jump_wall_us"):
        ManualClock().advance_us(-1)


def test_the_system_clock_reads_microseconds_since_the_epoch():
    assert abs(time.time() * 1e6 - SYSTEM_CLOCK.now_us()) < 60_000_000
