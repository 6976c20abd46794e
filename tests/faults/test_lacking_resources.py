"""A host that lacks descriptors or memory says so, goes on when it has them again, and keeps the state of what it remembered."""

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

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits and /proc are those of Linux")

N = 3_000
SEED = 26
HOST = Path(__file__).with_name("lacks_resources.py")


@pytest.fixture(scope="module")
def transactions():
    return plan(N, SEED)


def run(what, state_dir, artefact, amount) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HOST), what, str(state_dir), str(artefact), str(N), str(SEED), str(amount)],
        env={**os.environ, "PYTHONPATH": str(HOST.parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def state_in(state_dir, artefact) -> tuple[int, dict[str, bytes]]:
    """How many transactions are remembered there, and all that is."""
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir)) as scorer:
        return scorer.counters()["events"], remembered(scorer)


def oracle(artefact, transactions) -> dict[str, bytes]:
    """What a host that lacked nothing remembers of these."""
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY)) as scorer:
        for transaction in transactions:
            scorer.score(transaction)
        return remembered(scorer)


@pytest.mark.parametrize("n_free", [0, 4])
def test_without_descriptors_nothing_is_lost_that_was_not_said_to_be(tmp_path, artefact, transactions, n_free):
    """A segment takes one descriptor, the sync of its name another, and a snapshot some more."""
    ran = run("descriptors", tmp_path / "state", artefact, n_free)
    assert 0 == ran.returncode, ran.stderr[-3_000:]
    said = json.loads(ran.stdout)

    assert sorted(said["kept"]) == list(range(N))  # those that were refused came in later
    assert 0 == said["n_lost_at_last"]
    assert said["refused"]  # a second scorer: an error of ours, whatever it lacks
    if n_free == 0:  # the one of the segment before is free, and the sync of the name finds none
        assert said["n_lost"] > 0
        assert all("Too many open files" in because for because in said["because"])
    n, found = state_in(tmp_path / "state", artefact)
    assert N == n
    assert oracle(artefact, [transactions[i] for i in said["kept"]]) == found
    assert list((tmp_path / "state").glob("*.fssnap")), "no snapshot was taken once it could be"


def test_a_snapshot_for_which_there_is_no_memory_is_counted_and_costs_nothing_else(tmp_path, artefact, transactions):
    ran = run("snapshots", tmp_path / "state", artefact, 64)
    assert 0 == ran.returncode, ran.stderr[-3_000:]
    said = json.loads(ran.stdout)

    assert list(range(N)) == said["kept"]
    assert said["counters"]["snapshots_that_failed"] > 0
    assert (N, oracle(artefact, transactions)) == state_in(tmp_path / "state", artefact)


# Of 16 MiB nothing is left to start a thread with: snapshots are given up, and a close waits its ten seconds.
@pytest.mark.parametrize("amount_mib", [pytest.param(16, marks=pytest.mark.slow), 48, 160])
def test_a_host_that_runs_out_of_memory_leaves_a_prefix(tmp_path, artefact, transactions, amount_mib):
    ran = run("memory", tmp_path / "state", artefact, amount_mib)

    assert 0 != ran.returncode and "Error" in ran.stderr, "it had enough memory"
    n, found = state_in(tmp_path / "state", artefact)
    assert 100 <= n < N
    assert oracle(artefact, transactions[:n]) == found
    assert oracle(artefact, transactions[: n - 1])["pool"] != found["pool"]
