"""A short soak: what a host has of memory, descriptors and threads after a warm-up is what it has at the end."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is that of Linux"),
]

N_ROUNDS = 40
N_WARM_UP = 15
# Resident memory at the end against that after the warm-up: pages of the allocator come and go.
MOST_GROWTH = 1.03
LEAK_BYTES = 1 << 20  # a round: 100 bytes a transaction
HOST = Path(__file__).with_name("soaks.py")


def soak(state_dir, artefact, leak_bytes=0) -> tuple[list[list[int]], dict[str, int]]:
    """Resident bytes, descriptors and threads after each round; and the counters at the end."""
    ran = subprocess.run(
        [sys.executable, str(HOST), str(state_dir), str(artefact), str(N_ROUNDS), str(leak_bytes)],
        env={**os.environ, "PYTHONPATH": str(HOST.parents[2])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr[-3_000:]
    said = json.loads(ran.stdout)
    return said["samples"], said["counters"]


def growth(samples) -> float:
    """Of the least of the last rounds over the least of the first after the warm-up."""
    resident = [sample[0] for sample in samples]
    return min(resident[-5:]) / min(resident[N_WARM_UP : N_WARM_UP + 5])


def test_memory_and_descriptors_stay_what_they_were(tmp_path, artefact):
    samples, counters = soak(tmp_path / "state", artefact)

    assert growth(samples) < MOST_GROWTH
    usual = [statistics.median(sample[what] for sample in samples[N_WARM_UP:]) for what in (1, 2)]
    assert usual == samples[-1][1:], "descriptors or threads came or went"
    assert 0 == counters["snapshots_that_failed"]
    assert counters["evicted_entities"] > 0  # it did run against its bounds
    assert 2 == len(list((tmp_path / "state").glob("*.fssnap")))
    assert len(list((tmp_path / "state").glob("*.fslog"))) < 20


def test_a_leak_is_found_out(tmp_path, artefact):
    samples, _ = soak(tmp_path / "state", artefact, LEAK_BYTES)

    assert growth(samples) > MOST_GROWTH
