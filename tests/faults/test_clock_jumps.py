"""A wall clock that jumps by an hour: windows are of event time, waits are of the monotonic clock, and neither notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from keeps_state import HASH_KEY, plan
from test_killed_host import remembered

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.errors import InvalidTransactionError
from fraudsdk.testing.clock import ManualClock

N = 1_000
SEED = 3
HOUR_US = 3_600 * 10**6
HOST = Path(__file__).with_name("jumping_clock.py")


@pytest.fixture(scope="module")
def transactions():
    return plan(N, SEED)


@pytest.fixture(scope="module")
def undisturbed(artefact, transactions):
    """Scores, and all that is remembered, where the clock stands still."""
    clock = ManualClock(transactions[-1]["event_time_us"])
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY), clock=clock) as scorer:
        return [scorer.score(transaction).margin for transaction in transactions], remembered(scorer)


@pytest.mark.parametrize("durability", [None, "none", "interval", "sync"])
def test_the_scorers_clock_jumps_and_nothing_changes(tmp_path, artefact, transactions, undisturbed, durability):
    clock = ManualClock(transactions[-1]["event_time_us"] + HOUR_US)
    kept = {} if durability is None else {"state_dir": tmp_path / "state", "durability": durability}
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, **kept)
    margins, scores = undisturbed[0], []
    with Scorer.open(config, clock=clock) as scorer:
        for number, transaction in enumerate(transactions):
            if number % 10 == 0:
                clock.jump_wall_us(-HOUR_US if number // 10 % 2 else HOUR_US)
            clock.advance_us(1)
            decision = scorer.score(transaction)
            assert not decision.degraded
            scores.append(decision.margin)
        assert undisturbed[1] == remembered(scorer)

    assert margins == scores
    if durability is not None:
        with Scorer.open(config) as again:
            assert undisturbed[1] == remembered(again)


def test_what_a_jump_back_puts_in_the_future_is_refused_and_changes_nothing(artefact, transactions):
    """The one thing that the wall clock is asked; it is the only error, and forgotten with the jump."""
    clock = ManualClock(transactions[-1]["event_time_us"])
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY), clock=clock) as scorer:
        for transaction in transactions[:-1]:
            scorer.score(transaction)
        before = remembered(scorer)
        clock.jump_wall_us(-HOUR_US)
        with pytest.raises(InvalidTransactionError, match="clock"):
            scorer.score(transactions[-1])
        assert before == remembered(scorer)
        clock.jump_wall_us(HOUR_US)

        assert not scorer.score(transactions[-1]).duplicate


def libfaketime() -> Path:
    found = [path for folder in Path("/usr/lib").glob("*/faketime") for path in folder.glob("libfaketimeMT.so.1")]
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("libfaketime is not installed, and the gate needs it: Debian package faketime")
        pytest.skip("libfaketime is not installed: Debian package faketime")
    return found[0]


def test_the_systems_clock_jumps_and_nothing_changes(tmp_path, artefact, transactions, undisturbed):
    offset = tmp_path / "offset"
    offset.write_text("+0")
    jumping = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(HOST.parents[2]),
    }
    ran = subprocess.run(
        [sys.executable, str(HOST), str(tmp_path / "state"), str(artefact), str(N), str(SEED), str(offset)],
        env={**os.environ, **jumping},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr[-3_000:]
    said = json.loads(ran.stdout)

    assert min(said["jumps"]) < -7_000 and max(said["jumps"]) > 7_000  # it did jump
    assert 0 == said["degraded"]  # no wait for the disk took a jump for its time
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=tmp_path / "state")) as scorer:
        assert undisturbed[1] == remembered(scorer)
