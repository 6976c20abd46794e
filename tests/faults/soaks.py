"""
A host under a steady load, which reports its memory and descriptors.

Run        python soaks.py STATE_DIR ARTEFACT N_ROUNDS LEAK_BYTES
Says       one line of JSON: resident bytes, descriptors and threads after each round
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import threading
import time

from keeps_state import HASH_KEY, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer import kept_state

PER_ROUND = 10_000
SEED = 49


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def usual_of_a_while() -> list[int]:
    """Resident bytes, descriptors and threads: as they mostly are, for a snapshot or a segment that begins takes some of them."""
    seen = []
    for _ in range(30):
        seen.append((resident_bytes(), len(os.listdir("/proc/self/fd")), threading.active_count()))
        time.sleep(0.005)
    return [int(statistics.median(each)) for each in zip(*seen, strict=True)]


def main(state_dir: str, artefact: str, n_rounds: str, leak_bytes: str) -> None:
    # Bounds that a warm-up fills, and everything that comes again and again comes in each round.
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT = 500_000, 5_000
    samples, leaked, transactions = [], [], plan(PER_ROUND, SEED)
    span_us = transactions[-1]["event_time_us"] - transactions[0]["event_time_us"] + 1
    begin_us = transactions[0]["event_time_us"] - int(n_rounds) * span_us
    config = ScorerConfig(
        model=artefact, hash_key=HASH_KEY, state_dir=state_dir, max_entities=2_000, journal_capacity=5_000
    )
    with Scorer.open(config) as scorer:
        for round_ in range(int(n_rounds)):
            shift_us = begin_us + round_ * span_us - transactions[0]["event_time_us"]
            for number, transaction in enumerate(transactions):
                name = f"{round_}-{transaction['transaction_id']}"
                scorer.score(
                    transaction | {"transaction_id": name, "event_time_us": transaction["event_time_us"] + shift_us}
                )
                if number % 5 == 0:
                    scorer.feedback(name, is_fraud=number % 2 == 0)
            leaked.append(os.urandom(int(leak_bytes)))
            samples.append(usual_of_a_while())
        counters = scorer.counters()
    print(json.dumps({"samples": samples, "counters": counters}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
