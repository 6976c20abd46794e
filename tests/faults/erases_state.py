"""
A host that keeps state, erases somebody every now and then, and is killed.

Run        python erases_state.py STATE_DIR ARTEFACT DURABILITY N SEED
Says       ``scored N`` and ``erased N`` once that is done, ``erasing N`` before it: N = place in the plan
"""

from __future__ import annotations

import os
import sys
import time

from keeps_state import HASH_KEY, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer import kept_state
from fraudsdk.testing.clock import ManualClock

ERASE_EVERY = 60


def plan_with_erasures(n: int, seed: int) -> list[tuple[dict, str]]:
    """Transactions in the order of their arrival, each with whom to erase after it, if anybody: who is not seen again."""
    steps: list[tuple[dict, str]] = []
    gone: set[str] = set()
    seen: dict[str, int] = {}
    for transaction in plan(n, seed):
        if transaction["user_id"] in gone or transaction.get("counterparty_id") in gone:
            continue
        seen[transaction["user_id"]] = seen.get(transaction["user_id"], 0) + 1
        whom = ""
        if (len(steps) + 1) % ERASE_EVERY == 0:
            whom = max((user for user in seen if user not in gone), key=lambda user: (seen[user], user))
            gone.add(whom)
        steps.append((transaction, whom))
    return steps


def go_on(scorer: Scorer, clock: ManualClock, steps: list[tuple[dict, str]], say=lambda what, n: None) -> None:
    """Do what is left of the plan: each transaction and each erasure, once."""
    n_scored, n_erased, n_to_erase = scorer.counters()["events"], len(scorer._engine.memory.tombstones), 0
    for n, (transaction, whom) in enumerate(steps, 1):
        clock.jump_wall_us(transaction["event_time_us"] - clock.now_us())
        if n > n_scored:
            scorer.score(transaction)
            say("scored", n)
        n_to_erase += bool(whom)
        if whom and n_to_erase > n_erased:
            say("erasing", n)
            scorer.erase(user_id=whom)
            say("erased", n)


def main(state_dir: str, artefact: str, durability: str, n: str, seed: str) -> None:
    # So that it is killed while segments end and snapshots are taken, too.
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT = 30_000, 150
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability=durability)
    clock = ManualClock()

    def say(what: str, n: int) -> None:
        os.write(1, f"{what} {n}\n".encode())
        time.sleep(0.0005)

    with Scorer.open(config, clock=clock) as scorer:
        go_on(scorer, clock, plan_with_erasures(int(n), int(seed)), say)


if __name__ == "__main__":
    main(*sys.argv[1:])
