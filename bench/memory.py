"""
Question   How much memory do a million users with 20 transactions each take, with every reference feature?
Workload   Simulated: 20 transactions a user over 60 days, of fewer users; the figures are per user, and a million times that.
Counted    Words of the pool that are handed out, by entity kind and part, rounded up as the allocator does; the table that
           finds entities and the journal by their sizes.
Bound      `max_entities` of all kinds together: beyond it the least recently used are forgotten.

Run        python bench/memory.py [--users 20000]
"""

from __future__ import annotations

import argparse

import numpy as np

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state import layout
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.simulation import SimulationSpec, simulate
from fraudsdk.training.replay import replay

EVENTS_PER_USER = 20
MILLION = 1_000_000


def main() -> None:
    """Replay, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    users = parser.parse_args().users
    table = simulate(SimulationSpec(transactions=EVENTS_PER_USER * users, users=users, days=60, seed=1))
    engine = replay(table, reference_feature_set("EUR"), Vocabulary.fit(table), max_entities=60 * users).engine
    state, memory = engine.plan.state, engine.memory
    heads = memory.table[memory.table[:, 1] != 0, 1]
    kinds = memory.pool[heads + layout.HEAD_KIND]
    print("kind                    per user   bytes each   bytes per user: head, events, tiles, distinct keys")
    total = 0
    for k, name in enumerate(state.names):
        parts = bytes_of_parts(memory.pool, heads[kinds == k], state.kinds[k])
        n, total = int((kinds == k).sum()), total + sum(parts)
        each = " ".join(f"{part / users:9.1f}" for part in parts)
        print(f"{name:22} {n / users:9.2f} {sum(parts) / max(n, 1):12.0f}   {each}")
    used = 8 * int(memory.meta[layout.META_BUMP])
    slots = 2 ** int(np.ceil(np.log2(2 * len(heads) / users * MILLION)))
    print(
        f"pool, a million users: {used / users * MILLION / 1e9:.2f} GB (parts above: {total / users * MILLION / 1e9:.2f} GB)"
    )
    print(f"table for their {len(heads) / users:.1f} M entities: {16 * slots / 1e9:.2f} GB")
    print(f"journal of a million transactions: {(8 * state.journal_words + 16) * MILLION / 1e9:.2f} GB")


def bytes_of_parts(pool: np.ndarray, heads: np.ndarray, kind: np.ndarray) -> list[int]:
    """Bytes of heads, rings, tiles and distinct keys of the entities of a kind."""
    words = [chunk_words(int(kind[layout.KIND_HEAD_WORDS])) * len(heads), 0, 0, 0]
    if kind[layout.KIND_RING]:
        part = heads + kind[layout.KIND_RING]
        capacities = pool[part + layout.RING_CAPACITY]
        words[1] = sum(chunk_words(int(c * kind[layout.KIND_RING_COLUMNS])) for c in capacities if c)
        words[2] = chunk_words(int(kind[layout.KIND_TILE_WORDS])) * int((pool[part + layout.RING_TILES] != 0).sum())
    for d in range(kind[layout.KIND_DISTINCTS]):
        capacities = pool[heads + kind[layout.KIND_DISTINCT] + d * layout.DISTINCT_WORDS + layout.DISTINCT_CAPACITY]
        sketched = layout.SKETCH_REGISTERS * layout.SKETCH_RANKS
        words[3] += sum(chunk_words(int(2 * c) if c > 0 else sketched) for c in capacities if c)
    return [8 * each for each in words]


def chunk_words(words: int) -> int:
    """What the allocator hands out for a request."""
    return 1 << max(3, (words - 1).bit_length())


if __name__ == "__main__":
    main()
