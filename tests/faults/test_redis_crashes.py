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

from fraudsdk.entity_state import part_kernels
from fraudsdk.entity_state.layout import HEAD_COUNT, HEAD_LAST_US

require_redis()
pytest.importorskip("redis")
from writes_to_redis import EngineState, event  # noqa: E402  # only where Redis is

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

    def __init__(self, port: int, how: str = "together") -> None:
        self._port = port
        self._how = how
        self._n_started = 0
        self.all: list[subprocess.Popen] = []

    def start(self) -> subprocess.Popen:
        self._n_started += 1
        command = [sys.executable, str(WORKER), str(self._port), f"token {self._n_started}", str(N), self._how]
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


def wait_until(is_so, workers, timeout_s=60.0) -> None:
    """Wait for a place in the log, and start another worker where the last one was told that it was fenced."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "nothing moves on"
        # Redis may have lost who owned the writer, and tell the owner that it is another.
        if workers.all[-1].poll() is not None:
            assert workers.all[-1].returncode == 3, workers.all[-1].stderr.read()
            workers.start()
        time.sleep(0.01)


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
            some = next(key for key in client.scan_iter("fs1:{tx.0}:*") if key[-4:] not in (b"meta", b":out", b"feed"))
            client.setrange(some, 40, b"\xff")
        assert [] != problems_of(server, *oracle)
    finally:
        workers.stop()
        server.stop()


def test_parts_and_place_written_apart_are_found_out(tmp_path, oracle):
    server = RedisServer(tmp_path, *EVERY_WRITE).start()
    workers = Workers(server.port, "apart")
    try:
        assert Counter(FAULTS) == Counter(inject(server, workers, random.Random("apart")))
        finish(server, workers)
        assert len(problems_of(server, *oracle)) > 10
    finally:
        workers.stop()
        server.stop()


def inject(server, workers, draw):
    """Every fault once, in an order that is drawn, spread over the log."""
    faults = list(FAULTS)
    draw.shuffle(faults)
    workers.start()
    for nth, fault in enumerate(faults, 1):
        due = nth * N // (len(faults) + 5)
        wait_until(lambda due=due: place_of(server) >= due, workers)
        time.sleep(draw.uniform(0.0, 0.05))
        current = workers.all[-1]
        if fault == "worker killed":
            current.kill()
            workers.start()
        elif fault == "zombie":
            current.send_signal(signal.SIGSTOP)
            workers.start()
            before = place_of(server)
            wait_until(lambda before=before: place_of(server) > before, workers)
            current.send_signal(signal.SIGCONT)
            assert current.wait(timeout=30) == 3, current.stderr.read()
        else:
            server.kill()
            server.start()
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
        found = [
            f"key {name} is nobody's"
            for name in names - known.keys() - {f"fs1:{{tx.0}}:{each}" for each in ("meta", "out", "feed")}
        ]
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
