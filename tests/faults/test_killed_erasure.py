"""A host that is killed while it erases somebody has erased nobody, or has: no file and no recovery brings them back."""

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
from erases_state import go_on, plan_with_erasures
from keeps_state import HASH_KEY

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.erasure import find_traces
from fraudsdk.entity_state.layout import META_BUMP, META_DUPLICATES, META_JOURNAL_NEXT
from fraudsdk.scorer.erasure import subject_of
from fraudsdk.testing.clock import ManualClock

N = 1_500
SEED = 11
N_KILLS = 12
HOST = Path(__file__).with_name("erases_state.py")


def remembered(scorer) -> dict[str, bytes]:
    """Everything that is remembered, byte by byte."""
    memory = scorer._engine.memory
    meta = memory.meta.copy()
    meta[META_DUPLICATES] = 0
    return {
        "meta": meta.tobytes(),
        "pool": memory.pool[: meta[META_BUMP]].tobytes(),
        "journal": memory.journal[: int(meta[META_JOURNAL_NEXT])].tobytes(),
        "erased": memory.tombstones[:, :2].tobytes(),
    }


@pytest.fixture(scope="module")
def steps():
    return plan_with_erasures(N, SEED)


@pytest.fixture(scope="module")
def oracle(artefact, steps):
    """What a host that is never killed remembers after each step and erasure, and the keys of who is erased, just before."""
    after: dict[tuple[int, int], dict[str, bytes]] = {}
    keys: list[set[bytes]] = []
    clock = ManualClock()
    with Scorer.open(ScorerConfig(model=artefact, hash_key=HASH_KEY), clock=clock) as scorer:
        for n, step in enumerate(steps, 1):
            if step[1]:
                go_on(scorer, clock, [*steps[: n - 1], (step[0], "")])
                who = subject_of(scorer._encoder, {"user_id": step[1]})
                traces = find_traces(scorer._engine.memory, who)
                about = (*who.targets[:, 1].tolist(), *traces.entities.tolist(), *traces.transactions.tolist())
                keys.append({key.to_bytes(8, "little", signed=True) for key in about})
                after[n, len(keys) - 1] = remembered(scorer)
            go_on(scorer, clock, steps[:n])
            after[n, len(keys)] = remembered(scorer)
    return after, keys


def run_until_killed(state_dir, artefact, durability, draw) -> tuple[int, int]:
    """Start a host and kill it, mostly in the middle of an erasure; how much it had said was scored, and erased."""
    host = subprocess.Popen(
        [sys.executable, str(HOST), str(state_dir), str(artefact), durability, str(N), str(SEED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HOST.parents[2]), str(HOST.parent)))},
    )
    n_scored = n_erased = 0
    die_at = draw.choice(("erasing", "erasing", "erasing", "scored")), draw.randrange(1, 3)
    n_of_kind = 0
    for line in host.stdout:
        what, n = line.split()
        n_scored = int(n) if what == "scored" else n_scored
        n_erased += what == "erased"
        n_of_kind += what == die_at[0]
        if what == die_at[0] and n_of_kind == die_at[1]:
            time.sleep(draw.random() * 0.04)
            host.send_signal(signal.SIGKILL)
    problems = host.stderr.read()
    host.wait()
    assert host.returncode in (0, -signal.SIGKILL), problems
    return n_scored, n_erased


def files_with(directory, keys) -> list[str]:
    return [path.name for path in directory.iterdir() if any(key in path.read_bytes() for key in keys)]


@pytest.mark.parametrize("durability", ["interval", "sync"])
def test_a_killed_host_has_erased_somebody_or_has_not(tmp_path, artefact, steps, oracle, durability):
    after, keys = oracle
    draw, n_half_way = random.Random(f"{SEED} {durability}"), 0
    state_dir, looked_at, n_said = tmp_path / "state", tmp_path / "looked at", 0
    for kill in range(N_KILLS):
        n_scored, n_erased = run_until_killed(state_dir, artefact, durability, draw)
        n_said += n_erased
        # Whom the host said to have erased is in no file that it left
        assert [] == files_with(state_dir, set().union(*keys[:n_said])), f"kill {kill}"

        # Whoever opens the directory finds what a host remembers that was never killed, of a prefix
        shutil.copytree(state_dir, looked_at)
        config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=looked_at, durability=durability)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # what was torn, and what was left of an erasure
            with Scorer.open(config) as scorer:
                n, n_gone, found = (
                    scorer.counters()["events"],
                    len(scorer._engine.memory.tombstones),
                    remembered(scorer),
                )
        assert n >= n_scored or durability != "sync"
        assert n_gone >= n_said
        if n:
            expected = after[n, n_gone]
            assert {name: found[name] == expected[name] for name in expected} == dict.fromkeys(expected, True)
        # and who is erased by then is in no file any more
        assert [] == files_with(looked_at, set().union(*keys[:n_gone])), f"kill {kill}"
        n_half_way += n_gone > n_said and bool(files_with(state_dir, keys[n_said]))
        n_said = n_gone
        shutil.rmtree(looked_at)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            Scorer.open(
                ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability=durability)
            ).close()

    assert n_half_way, "no kill came between the log and the files; the test shows less than it says"
