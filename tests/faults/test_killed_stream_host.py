"""A worker killed with SIGKILL at any instant finds state and place that belong together, and ends as one that never was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from keeps_state import HASH_KEY, plan
from keeps_streamed_state import ORIGIN, go_on
from test_killed_host import remembered

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer.streamed_log import StreamedLog

N = 6_000
SEED = 9
N_KILLS = 12
# A batch takes a millisecond, and its publication thirty of them now and then: so long after a commit it is anywhere in the next.
UP_TO_S = 0.03
WORKER = Path(__file__).with_name("keeps_streamed_state.py")


@pytest.fixture(scope="module")
def messages():
    return plan(N, SEED)


@pytest.fixture(scope="module")
def unharmed(artefact, messages, tmp_path_factory):
    """What a worker that was never killed publishes, line by line, and remembers at the end."""
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=tmp_path_factory.mktemp("unharmed") / "state")
    lines: list[str] = []
    with StreamedLog.open(config, ORIGIN) as log:
        go_on(log, messages, random.Random(1), lines.extend, lambda place: None)
        return lines, remembered(log.scorer)


def oracle(artefact, messages, n) -> dict[str, bytes]:
    """What a process that was never killed remembers of so many messages."""
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY)) as scorer:
        if n:
            scorer.score_batch(messages[:n])
        return remembered(scorer)


def run_until_killed(state_dir, artefact, published, durability, draw, after_commits, order="after") -> int:
    """Start a worker and kill it some time after so many commits; the last place that it said was committed."""
    worker = subprocess.Popen(
        [
            *(sys.executable, str(WORKER), str(state_dir), str(artefact), str(published), durability),
            *(str(N), str(SEED), str(draw.random()), order),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[2])},
    )
    place = 0
    for count, line in enumerate(worker.stdout):
        place = int(line)
        if count == after_commits:
            time.sleep(draw.uniform(0, UP_TO_S))
            worker.send_signal(signal.SIGKILL)
    problems = worker.stderr.read()
    worker.wait()
    assert worker.returncode in (0, -signal.SIGKILL), problems
    return place


def opened_copy(state_dir, artefact, copy):
    shutil.copytree(state_dir, copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return StreamedLog.open(ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=copy), ORIGIN)


@pytest.mark.parametrize("durability", ["interval", "sync"])
def test_a_killed_worker_goes_on_from_a_place_that_its_state_belongs_to(
    tmp_path, artefact, messages, unharmed, durability
):
    draw = random.Random(f"{SEED} {durability}")
    state_dir, published, places, n_cut = tmp_path / "state", tmp_path / "published", [0], 0
    for kill in range(N_KILLS):
        committed = run_until_killed(state_dir, artefact, published, durability, draw, draw.randrange(0, 25))
        with opened_copy(state_dir, artefact, tmp_path / "looked at") as log:
            place, found = log.place, remembered(log.scorer)
            n_cut += log.scorer.recovered.n_torn_bytes > 0
        shutil.rmtree(tmp_path / "looked at")
        assert place >= places[-1], f"kill {kill}: it went back from {places[-1]} to {place}"
        if durability == "sync":
            assert place >= committed, f"kill {kill}: {committed} was committed, and {place} is kept"
        expected = oracle(artefact, messages, place)
        assert {name: found[name] == expected[name] for name in expected} == dict.fromkeys(expected, True), (
            f"kill {kill}"
        )
        places.append(place)
    assert places[-1] < N, "it was done before it was killed for the last time"
    assert n_cut, "no kill came between an event and its place"

    run_until_killed(state_dir, artefact, published, durability, draw, -1)
    lines, at_end = unharmed
    with opened_copy(state_dir, artefact, tmp_path / "at end") as log:
        assert N == log.place == log.scorer.counters()["events"]
        assert at_end == remembered(log.scorer)
    assert list(state_dir.glob("*.fssnap")), "no snapshot was taken"
    # A decision may be published twice, and both are the same to the bit.
    told = published.read_text().splitlines()
    assert len(told) > N, "nothing was published twice"
    assert sorted(lines) == sorted(set(told))


def test_a_worker_that_commits_before_it_scores_is_found_out(tmp_path, artefact, messages):
    draw = random.Random(SEED)
    state_dir, wrong = tmp_path / "state", 0
    for kill in range(N_KILLS):
        run_until_killed(
            state_dir, artefact, tmp_path / "published", "sync", draw, draw.randrange(0, 25), order="before"
        )
        with opened_copy(state_dir, artefact, tmp_path / str(kill)) as log:
            wrong += oracle(artefact, messages, log.place) != remembered(log.scorer)
        if wrong:
            return
    raise AssertionError(f"{N_KILLS} kills did not find it out")
