"""A host that is killed with SIGKILL at any instant finds the state of a prefix of what it did, and goes on from there."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keeps_state import HASH_KEY, LABEL_EVERY, go_on, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.layout import META_BUMP, META_DUPLICATES, META_JOURNAL_NEXT

N = 4_000
SEED = 5
N_KILLS = 12
HOST = Path(__file__).with_name("keeps_state.py")


def remembered(scorer) -> dict[str, bytes]:
    """Everything that is remembered, byte by byte, decisions included."""
    memory = scorer._engine.memory
    meta = memory.meta.copy()
    meta[META_DUPLICATES] = 0  # what was asked again changes nothing, and is not logged
    return {
        "meta": meta.tobytes(),
        "pool": memory.pool[: meta[META_BUMP]].tobytes(),
        "journal": memory.journal[: int(meta[META_JOURNAL_NEXT])].tobytes(),
        "words": repr([tuple(each) for each in scorer._recorder.words]).encode(),
    }


@pytest.fixture(scope="module")
def transactions():
    return plan(N, SEED)


def oracle(artefact, transactions, n) -> dict[str, bytes]:
    """What a host that was never killed remembers after so many transactions."""
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY)) as scorer:
        go_on(scorer, transactions[:n])
        return remembered(scorer)


def run_until_killed(state_dir, artefact, durability, after_answers) -> int:
    """Start a host and kill it once it has given some answers; how many transactions it had answered in all."""
    host = subprocess.Popen(
        [sys.executable, str(HOST), str(state_dir), str(artefact), durability, str(N), str(SEED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOST.parents[2])},
    )
    answered = 0
    for count, line in enumerate(host.stdout, -1):
        answered = int(line)
        if count == after_answers:
            host.send_signal(signal.SIGKILL)
    problems = host.stderr.read()
    host.wait()
    assert host.returncode in (0, -signal.SIGKILL), problems
    return answered


@pytest.mark.parametrize("durability", ["none", "interval", "sync"])
def test_a_killed_host_goes_on_from_a_prefix(tmp_path, artefact, transactions, durability):
    draw = random.Random(f"{SEED} {durability}")
    state_dir, answered = tmp_path / "state", 0
    for kill in range(N_KILLS):
        answered = max(answered, run_until_killed(state_dir, artefact, durability, draw.randrange(1, N // N_KILLS)))
        config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability=durability)
        shutil.copytree(state_dir, tmp_path / "looked at", dirs_exist_ok=True)
        with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=tmp_path / "looked at")) as scorer:
            n, found = scorer.counters()["events"], remembered(scorer)
            n_labels = scorer.counters()["labels"]
        shutil.rmtree(tmp_path / "looked at")
        if durability == "sync":
            assert n >= answered, f"kill {kill}: {answered} were answered and {n} remembered"
        if n_labels == n // LABEL_EVERY:  # else it was killed between a transaction and the label after it
            expected = oracle(artefact, transactions, n)
            assert {name: found[name] == expected[name] for name in expected} == dict.fromkeys(expected, True)
            # The comparison can fail: one transaction less is another state.
            assert oracle(artefact, transactions, n - 1)["pool"] != found["pool"]

    assert list(state_dir.glob("*.fssnap")), "no snapshot was taken"
    with Scorer.open(config) as scorer:
        go_on(scorer, transactions)
        assert oracle(artefact, transactions, N) == remembered(scorer)
