"""
Workers and Redis killed again and again, workers paused until others have taken over: the parts end as one process makes them.

With an append-only file Redis loses nothing that it answered; with snapshots alone it loses seconds, and is found out.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import EVERY_WRITE, SNAPSHOTS, RedisServer, require_redis
from writes_to_redis import EngineState, event

from fraudsdk.entity_state import part_kernels
from fraudsdk.entity_state.layout import HEAD_COUNT, HEAD_LAST_US

require_redis()
pytest.importorskip("redis")
N = 50_000
WORKER = Path(__file__).with_name("writes_to_redis.py")
ROOT = WORKER.parents[2]
FAULTS = ("worker killed",) * 20 + ("zombie",) * 5 + ("redis killed",) * 5


@pytest.fixture(scope="module")
def oracle():
    state = EngineState()
    alerts = []
    for sequence in range(N):
        alerts += state.apply(sequence, event(sequence), lambda keys: [b""] * len(keys))[1]
    return state, alerts


class Workers:
    """Starts workers, each with a token of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._n_started = 0
        self.all: list[subprocess.Popen] = []

    def start(self) -> subprocess.Popen:
        self._n_started += 1
        command = [sys.executable, str(WORKER), str(self._port), f"token {self._n_started}", str(N)]
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "parity", ROOT / "tests" / "faults")))
        self.all.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.PIPE))
        return self.all[-1]

    def stop(self) -> None:
        for worker in self.all:
            if worker.poll() is None:
                worker.kill()
            worker.wait()


def place_of(server) -> int:
    with server.client() as client:
        return int(client.hget("fs1:{tx.0}:meta", "o") or 0)


def wait_until(is_so, worker, timeout_s=60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so() and worker.poll() is None:
        assert time.monotonic() < deadline, "nothing moves on"
        time.sleep(0.02)


@pytest.mark.parametrize("kept", ["append-only file", "snapshots"])
def test_parts_and_alerts_end_as_one_process_makes_them(tmp_path, oracle, kept):
    draw = random.Random(f"redis {kept}")
    server = RedisServer(tmp_path, *(EVERY_WRITE if kept == "append-only file" else SNAPSHOTS)).start()
    workers = Workers(server.port)
    try:
        faults = Counter(inject(server, workers, draw))
        finish(server, workers)
        assert Counter(FAULTS) == faults
        assert [] == problems_of(server, *oracle)
        # The comparison can fail: one transaction less is another state.
        with server.client() as client:
            some = next(key for key in client.scan_iter("fs1:{tx.0}:*") if key[-4:] not in (b"meta", b":out"))
            client.setrange(some, 40, b"\xff")
        assert [] != problems_of(server, *oracle)
    finally:
        workers.stop()
        server.stop()


def inject(server, workers, draw):
    """Every fault once, in an order that is drawn, each when something has been done since the one before."""
    faults, current = list(FAULTS), workers.start()
    draw.shuffle(faults)
    for nth, fault in enumerate(faults):
        least = (nth + 1) * N // (len(faults) + 5) // 4
        wait_until(lambda least=least: place_of(server) >= least, current)
        time.sleep(draw.uniform(0.0, 0.1))
        if fault == "worker killed":
            current.kill()
            current = workers.start()
        elif fault == "zombie":
            current.send_signal(signal.SIGSTOP)
            zombie, current = current, workers.start()
            before = place_of(server)
            wait_until(lambda before=before: place_of(server) > before, current)
            zombie.send_signal(signal.SIGCONT)
            assert zombie.wait(timeout=30) == 3, zombie.stderr.read()
        else:
            server.kill()
            server.start()
        if (
            current.poll() is not None
        ):  # Redis had forgotten who owned the writer, and told the owner that it was another
            assert current.returncode == 3, current.stderr.read()
            current = workers.start()
        yield fault


def finish(server, workers) -> None:
    current = workers.all[-1]
    while current.wait(timeout=300) != 0:
        assert current.returncode == 3, current.stderr.read()
        current = workers.start()
    assert N == place_of(server)


def problems_of(server, state, alerts) -> list[str]:
    expected = state.parts()
    with server.client() as client:
        names = {name.decode() for name in client.scan_iter("*", count=10_000)}
        known = {f"fs1:{{tx.0}}:{key & 0xFFFFFFFFFFFFFFFF:016x}": part for key, part in expected.items()}
        found = [f"key {name} is nobody's" for name in names - known.keys() - {"fs1:{tx.0}:meta", "fs1:{tx.0}:out"}]
        kept = dict(zip(known, client.mget(list(known)), strict=True))
        told = [fields[b"alert"] for _, fields in client.xrange("fs1:{tx.0}:out")]
    found += [f"part {name}" for name, part in known.items() if kept[name] != part]
    found += ["alerts"] if sorted(told) != sorted(alerts) else []
    # Counted another way: each event is in one user, and users are the entities of one kind.
    counts = Counter()
    for part in kept.values():
        words = memoryview(part or b"").cast("q")
        counts[words[part_kernels.PART_KIND]] += words[part_kernels.PART_WORDS + HEAD_COUNT - HEAD_LAST_US]
    return found + [f"kind {kind} counts {n} events" for kind, n in counts.items() if n != N]
