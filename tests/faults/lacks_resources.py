"""
A host that keeps state while the system lets it have little.

Run        python lacks_resources.py (descriptors|snapshots|memory) STATE_DIR ARTEFACT N SEED [AMOUNT]
Says       one line of JSON at its end, unless it dies before
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator

from keeps_state import HASH_KEY, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.errors import FraudSDKError
from fraudsdk.scorer import kept_state

MIB = 1 << 20


@contextlib.contextmanager
def few_descriptors(n_free: int) -> Iterator[None]:
    """So many files can still be opened."""
    lowest = os.dup(0)
    os.close(lowest)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + n_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limit_memory(more_bytes: int) -> None:
    """So much more than it has now may the process have."""
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + more_bytes, in_use + more_bytes))


class Host:
    """Scores a plan, and sends again what was not remembered; in which order things were, it knows."""

    def __init__(self, scorer: Scorer, transactions: list[dict]) -> None:
        self.scorer = scorer
        self._transactions = transactions
        self.kept: list[int] = []
        self.because: set[str] = set()

    def score(self, numbers: range | list[int]) -> list[int]:
        """Those that were not remembered."""
        lost = []
        for n in numbers:
            before = self.scorer.counters()["events"]
            decision = self.scorer.score(self._transactions[n])
            if self.scorer.counters()["events"] > before:
                self.kept.append(n)
            else:
                assert decision.degraded
                self.because.add(str(decision.degraded_because))
                lost.append(n)
        return lost

    def report(self, **more: object) -> None:
        counters = self.scorer.counters()
        print(
            json.dumps({"kept": self.kept, "because": sorted(self.because), "counters": counters, **more}), flush=True
        )


def lack_descriptors(host: Host, n: int, amount: int, config: ScorerConfig) -> None:
    third = n // 3
    lost = host.score(range(third))
    assert not lost
    with few_descriptors(amount):
        lost = host.score(range(third, 2 * third))
        refused = ""
        try:
            Scorer.open(config).close()
        except FraudSDKError as error:
            refused = type(error).__name__
    n_lost = len(lost)
    while lost:  # the disk is tried again within a second
        lost = host.score(lost)
    lost = host.score(range(2 * third, n))
    host.report(n_lost=n_lost, n_lost_at_last=len(lost), refused=refused)


def lack_memory_for_snapshots(host: Host, n: int, amount: int) -> None:
    host.score(range(100))
    limit_memory(amount * MIB)
    host.score(range(100, n))
    host.report()


def run_out_of_memory(host: Host, n: int, amount: int) -> None:
    """Whatever else the process does takes all there is, and is not prepared for that."""
    host.score(range(100))
    limit_memory(amount * MIB)
    ballast = []
    for i in range(100, n):
        host.score([i])
        ballast.append(bytearray(MIB // 4))
    host.report()


def main(what: str, state_dir: str, artefact: str, n: str, seed: str, amount: str = "0") -> None:
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT, kept_state.BUFFER_WORDS = 20_000, 300, 3_000
    transactions = plan(int(n), int(seed))
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir)
    with Scorer.open(config) as scorer:
        host = Host(scorer, transactions)
        match what:
            case "descriptors":
                lack_descriptors(host, int(n), int(amount), config)
            case "snapshots":
                lack_memory_for_snapshots(host, int(n), int(amount))
            case "memory":
                run_out_of_memory(host, int(n), int(amount))


if __name__ == "__main__":
    main(*sys.argv[1:])
