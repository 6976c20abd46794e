"""
Question   What does it cost to pack an entity for another memory, and to take it up there?
Workload   The entities that the transactions of bench_score.py leave behind, with the reference features.
Timed      Processor time of PartCodec.pack of all keys at once, and of PartCodec.take of each part.
Check      What was taken up is packed to the same parts.
Gate       None: there is no peer for a layout of one's own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from _report import report

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.parts import PartCodec


def test_an_entity_is_packed_and_taken_up(
    traffic: Any, traffic_replayed: Any, catalogue_model: Path, hash_key: bytes
) -> None:
    config = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    codec = PartCodec(b"of the benchmark")
    with Scorer.open(config) as scorer, Scorer.open(config) as other:
        scorer.score_batch(list(traffic.transactions(*traffic_replayed.order)))
        memory, keys = scorer._engine.memory, scorer._engine.memory.entity_keys()
        codec.pack(memory, keys, 1)  # its buffer grows once
        started = time.process_time_ns()
        parts = codec.pack(memory, keys, 1)
        packed = time.process_time_ns()
        for part in parts:
            codec.take(other._engine.memory, part)
        taken = time.process_time_ns()
        assert parts == codec.pack(other._engine.memory, keys, 1)
    n_bytes = np.array([len(part) for part in parts])
    report(
        "parts of entities",
        {
            "pack": {"n": float(len(parts)), "mean_us": (packed - started) / len(parts) / 1e3},
            "take": {"n": float(len(parts)), "mean_us": (taken - packed) / len(parts) / 1e3},
            "bytes": {
                "n": float(len(parts)),
                "p50": float(np.median(n_bytes)),
                "mean": float(n_bytes.mean()),
                "max": float(n_bytes.max()),
            },
        },
    )
