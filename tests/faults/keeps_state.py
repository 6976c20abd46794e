"""
A host that keeps state and is killed: scores what is left of a plan, and says on its output what was answered.

Run        python keeps_state.py STATE_DIR ARTEFACT DURABILITY N SEED
Says       one line per answer, ``n`` = so many transactions of the plan have been answered
"""

from __future__ import annotations

import os
import sys
import time

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer import kept_state
from fraudsdk.simulation import SimulationSpec, simulate

HASH_KEY = b"a key that outlives the process"
LABEL_EVERY = 7  # after so many transactions comes the label of an earlier one
LABELLED_BEFORE = 5


def plan(n: int, seed: int) -> list[dict]:
    """Transactions in the order of their arrival."""
    import numpy as np

    columns = simulate(SimulationSpec(transactions=n, users=40, days=20, fraud_rate=0.05, seed=seed))
    sent = [name for name in columns if name not in ("is_fraud", "label_time", "fraud_pattern", "event_time")]
    times_us = columns["event_time"].astype("datetime64[us]").astype(np.int64)
    transactions = []
    for row in np.argsort(columns["event_time"], kind="stable"):
        transaction = {name: columns[name][row] for name in sent}
        transaction = {name: value.item() if hasattr(value, "item") else value for name, value in transaction.items()}
        transaction = {name: value for name, value in transaction.items() if value is not None and value == value}
        transactions.append(transaction | {"event_time_us": int(times_us[row])})
    return transactions


def go_on(scorer: Scorer, transactions: list[dict], answered=lambda n: None) -> None:
    """Do what is left of the plan: each transaction, and after some of them a label, exactly once."""
    counters = scorer.counters()
    for n, transaction in enumerate(transactions, 1):
        if n > counters["events"]:
            scorer.score(transaction)
        if n % LABEL_EVERY == 0 and n // LABEL_EVERY > counters["labels"]:
            scorer.feedback(transactions[n - LABELLED_BEFORE]["transaction_id"], is_fraud=n % 2 == 0)
        if n > counters["events"]:
            answered(n)


def main(state_dir: str, artefact: str, durability: str, n: str, seed: str) -> None:
    # So that it is killed while segments end, snapshots are taken and old files are removed, too.
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT = 40_000, 400
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability=durability)
    with Scorer.open(config) as scorer:
        os.write(1, b"0\n")  # open

        def answered(n: int) -> None:
            os.write(1, b"%d\n" % n)
            time.sleep(0.001)  # as long as a snapshot needs, in all

        go_on(scorer, plan(int(n), int(seed)), answered)


if __name__ == "__main__":
    main(*sys.argv[1:])
