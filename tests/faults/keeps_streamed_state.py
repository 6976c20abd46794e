"""
A worker that scores a stream and is killed: goes on from the place that is kept, publishes what it decides, and commits.

Run        python keeps_streamed_state.py STATE_DIR ARTEFACT PUBLISHED DURABILITY N SEED DRAW ORDER
           ORDER is ``after``, or ``before`` to commit a batch before it is scored, which is wrong
Writes     to the file PUBLISHED one line per decision: offset, outcome, margin and score, bit by bit
Says       one line per commit, the place
"""

from __future__ import annotations

import os
import random
import sys
import time
import warnings
from pathlib import Path

from keeps_state import HASH_KEY, plan

from fraudsdk import ScorerConfig
from fraudsdk.scorer import kept_state
from fraudsdk.scorer.streamed_log import StreamedLog

ORIGIN = b"transactions 7Hn2 0"


def line_of(offset: int, decision) -> str:
    return f"{offset} {decision.outcome.value} {decision.decided_by} {decision.margin.hex()} {decision.score.hex()}"


def go_on(
    log: StreamedLog, messages: list[dict], draw: random.Random, publish, committed, order: str = "after"
) -> None:
    """Feed what is left of the stream, in batches of any size."""
    while log.place < len(messages):
        first = log.place
        batch = messages[first : first + draw.randrange(1, 40)]
        if order == "before":
            log.commit(first + len(batch))
        decisions = log.scorer.score_batch(batch)
        publish([line_of(offset, decision) for offset, decision in enumerate(decisions, first)])
        log.commit(first + len(batch))
        committed(log.place)


def main(
    state_dir: str, artefact: str, published: str, durability: str, n: str, seed: str, draw: str, order: str
) -> None:
    # So that it is killed while segments end, snapshots are taken and old files are removed, too.
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT = 40_000, 400
    warnings.simplefilter("ignore", RuntimeWarning)
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability=durability)
    messages, draws = plan(int(n), int(seed)), random.Random(draw)
    with StreamedLog.open(config, ORIGIN) as log, Path(published).open("ab", buffering=0) as out:
        os.write(1, b"%d\n" % log.place)  # open

        def publish(lines: list[str]) -> None:
            out.write("".join(f"{line}\n" for line in lines).encode())
            # Long enough, now and then, for what was scored to be on disk before its place is.
            time.sleep(draws.choice((0.0, 0.03)))

        go_on(log, messages, draws, publish, lambda place: os.write(1, b"%d\n" % place), order)


if __name__ == "__main__":
    main(*sys.argv[1:])
