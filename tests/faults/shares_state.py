"""
A process that scores transactions and shares what it remembers; killed in the middle by the test.

Run        python shares_state.py PORT WORKER FIRST N
Prints     one line a transaction that was remembered, `done` once all is written; then waits to be told to end
"""

from __future__ import annotations

import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.adapters.redis import SharedRedis

MODEL = Path(__file__).parents[2] / "compiled_models" / "reference"
KEY = b"the key of all who share"
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
N_USERS = 20


def purchase(worker: int, number: int) -> dict[str, object]:
    """The transaction of a worker: the same whoever asks."""
    draw = random.Random(1_000_003 * worker + number)
    return {
        "transaction_id": f"t-{worker}-{number}",
        "user_id": f"u{draw.randrange(N_USERS)}",
        "merchant_id": f"m{draw.randrange(9)}",
        "amount": f"{draw.randrange(1, 900)}.25",
        "event_time": NOON + timedelta(seconds=number, milliseconds=worker),
    }


def open_shared(port: int) -> Scorer:
    store = SharedRedis(redis.Redis(port=port, socket_timeout=0.5, retry=None), lease_s=5.0)
    return Scorer.open(ScorerConfig(model=MODEL, hash_key=KEY), shared=store)


def main(port: str, worker: str, first: str, n: str) -> None:
    with open_shared(int(port)) as scorer:
        for number in range(int(first), int(first) + int(n)):
            time.sleep(0.001)
            transaction = purchase(int(worker), number)
            decision = scorer.score(transaction)
            if "remembered" not in (decision.degraded_because or ""):
                print(transaction["transaction_id"], flush=True)
        while scorer.counters()["shared_entities_waiting"]:
            time.sleep(0.01)
        print("done", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
