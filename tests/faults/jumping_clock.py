"""
A host whose wall clock jumps by an hour and back, under libfaketime.

Run        LD_PRELOAD=libfaketimeMT.so.1 FAKETIME_TIMESTAMP_FILE=OFFSET ... python jumping_clock.py STATE_DIR ARTEFACT N SEED OFFSET
Says       one line of JSON: by how much the clock jumped, and how many decisions were degraded
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from keeps_state import HASH_KEY, plan

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.scorer import kept_state

JUMP_EVERY = 50


def main(state_dir: str, artefact: str, n: str, seed: str, offset: str) -> None:
    kept_state.SEGMENT_BYTES, kept_state.RECORDS_PER_SNAPSHOT = 20_000, 300
    transactions, jumps, degraded = plan(int(n), int(seed)), [], 0
    config = ScorerConfig(model=artefact, hash_key=HASH_KEY, state_dir=state_dir, durability="sync")
    with Scorer.open(config) as scorer:
        for number, transaction in enumerate(transactions):
            if number % JUMP_EVERY == 0:
                before = time.time()
                Path(offset).write_text("-3600" if number // JUMP_EVERY % 2 else "+3600")
                jumps.append(time.time() - before)
            degraded += scorer.score(transaction).degraded
    print(json.dumps({"jumps": jumps, "degraded": degraded}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
