"""
Workers, broker and Redis killed, workers paused until others have taken over, partitions that change hands every second: state,
alerts, decisions and dead letters end as one process makes them that nothing happens to.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kafka_servers import KafkaBroker, client_options, require_kafka
from servers import EVERY_WRITE, SNAPSHOTS, RedisServer, require_redis, wait_for

require_redis()
require_kafka()
from confluent_kafka import Consumer, KafkaError, KafkaException  # noqa: E402  # only where Kafka is
from consumes_kafka import (  # noqa: E402
    GROUP,
    IMPATIENT,
    N_PARTITIONS,
    SESSION_S,
    TOPICS,
    Oracle,
    message,
    oracle_of,
    problems_of,
)

N = 30_000
N_WORKERS = 3
PER_SECOND = 400
WORKER = Path(__file__).with_name("consumes_kafka.py")
ROOT = WORKER.parents[2]
PATHS = (ROOT, ROOT / "tests/faults", ROOT / "tests/integration/kafka", ROOT / "tests/integration/redis")
FAULTS = ("worker killed",) * 10 + ("zombie",) * 3 + ("broker killed",) * 2 + ("Redis killed",) * 3 + ("rebalances",)
STORM_S = 5.0
# What the group must have caught up in after the last fault is 30 s; the rest is for a machine with other work to do.
CATCH_UP_S = 60.0


class Workers:
    """Processes of one group: so many of them run, but for those that are paused."""

    def __init__(self, broker: KafkaBroker, redis: RedisServer, how: str, draw: random.Random) -> None:
        self._command = [sys.executable, str(WORKER), broker.bootstrap, str(redis.port), how]
        self._errors = redis.directory / "workers.log"
        self._draw = draw
        self.running: list[subprocess.Popen] = []
        self.paused: list[tuple[float, subprocess.Popen]] = []

    def fill_up(self) -> None:
        while len(self.running) < N_WORKERS:
            paths = os.pathsep.join(map(str, PATHS))
            with self._errors.open("ab") as errors:
                started = subprocess.Popen(self._command, env={**os.environ, "PYTHONPATH": paths}, stderr=errors)
            self.running.append(started)

    def take_one(self) -> subprocess.Popen:
        return self.running.pop(self._draw.randrange(len(self.running)))

    def kill_one(self) -> None:
        killed = self.take_one()
        killed.kill()
        killed.wait()
        self.fill_up()

    def pause_one(self) -> None:
        paused = self.take_one()
        paused.send_signal(signal.SIGSTOP)
        self.paused.append((time.monotonic() + 2 * SESSION_S, paused))
        self.fill_up()

    def resume(self, *, wait: bool = False) -> None:
        """Go on with those that were paused for long enough."""
        for until_s, paused in self.paused[:]:
            if wait:
                time.sleep(max(0.0, until_s - time.monotonic()))
            if time.monotonic() >= until_s:
                self.paused.remove((until_s, paused))
                self.running.append(paused)
                paused.send_signal(signal.SIGCONT)

    def require_alive(self) -> None:
        """None of them gives up: whatever happens passes."""
        dead = [each for each in self.running if each.poll() is not None]
        assert not dead, self._errors.read_text(encoding="utf-8")[-4_000:]

    def stop(self) -> None:
        """Let them end by themselves."""
        for each in self.running:
            each.terminate()
        assert [0] * len(self.running) == [each.wait(timeout=30) for each in self.running], self._errors.read_text()

    def end(self) -> None:
        for each in (*self.running, *(paused for _, paused in self.paused)):
            if each.poll() is None:
                each.kill()
            each.wait()


class Feed(threading.Thread):
    """Sends the log at a pace, whatever the broker is up to."""

    def __init__(self, broker: KafkaBroker) -> None:
        super().__init__(daemon=True)
        self._producer = broker.producer(enable_idempotence=True, linger_ms=5, message_timeout_ms=0)
        self._is_over = threading.Event()

    def run(self) -> None:
        for n in range(N):
            sent = message(n)
            self._producer.produce(TOPICS.transactions, sent.value, sent.key, headers=[("n", b"%d" % n)])
            if n % 50 == 0:
                self._producer.poll(0)
                self._is_over.wait(50 / PER_SECOND)

    def finish(self) -> None:
        """Send what is left of it at once."""
        self._is_over.set()
        self.join()
        assert 0 == self._producer.flush(60)


class Trial:
    """One broker, one Redis, a group of workers, and what is done to them."""

    def __init__(self, directory: Path, redis_options: tuple[str, ...], how: str = "together") -> None:
        self.draw = random.Random(f"{how} {' '.join(redis_options)}")
        # A second is too short for a machine with other work; after a crash it is waited out.
        patient = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "300"}
        self.broker = KafkaBroker(directory / "broker", settings=patient).start()
        self.redis = RedisServer(directory / "redis", *redis_options).start()
        for name in N_PARTITIONS:
            wait_for("a topic", lambda name=name: self.has_created(name), CATCH_UP_S)
        self.feed = Feed(self.broker)
        self.workers = Workers(self.broker, self.redis, how, self.draw)

    def close(self) -> None:
        self.workers.end()
        self.redis.stop()
        self.broker.stop()

    def has_created(self, name: str) -> bool:
        """Make a topic, once the broker has told its controller that it is there."""
        try:
            self.broker.create_topic(name, N_PARTITIONS[name])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.INVALID_REPLICATION_FACTOR:
                raise
            return False
        return True

    def run(self, faults: tuple[str, ...]) -> None:
        """Every fault once, in an order that is drawn, while the log is being sent."""
        faults = self.draw.sample(faults, len(faults))
        self.workers.fill_up()
        self.feed.start()
        for fault in faults:
            self.wait_for_progress()
            time.sleep(self.draw.uniform(0.0, 0.5))
            self.workers.resume()
            self.inject(fault)
        self.workers.resume(wait=True)
        self.feed.finish()

    def finish(self) -> Oracle:
        """Wait for the end of the stream, and say what must have come of it."""
        oracle = oracle_of(self.broker.read_all(TOPICS.transactions))
        wait_for("the end", lambda: self.workers.require_alive() or self.is_told(oracle.ends), CATCH_UP_S)
        self.workers.stop()
        return oracle

    def wait_for_progress(self) -> None:
        """Wait for commits, of some partition or of every one: a fault is to meet something that is under way."""
        before, how_many = self.places(), self.draw.choice((any, all))

        def is_further() -> bool:
            self.workers.require_alive()
            now = self.places()
            if not self.feed.is_alive():  # a busy machine has sent all of the log before every fault has come
                return True
            return how_many(now.get(each, 0) > before.get(each, 0) for each in range(N_PARTITIONS[TOPICS.transactions]))

        wait_for("commits", is_further, CATCH_UP_S)

    def inject(self, fault: str) -> None:
        if fault == "worker killed":
            self.workers.kill_one()
        elif fault == "zombie":
            self.workers.pause_one()
        elif fault == "broker killed":
            self.broker.kill()
            time.sleep(self.draw.uniform(0.0, 1.0))
            self.broker.start()
        elif fault == "Redis killed":
            self.redis.kill()
            time.sleep(self.draw.uniform(0.0, 0.5))
            self.redis.start()
        else:
            self.rebalance()

    def rebalance(self) -> None:
        """A process that joins, takes partitions, reads nothing and leaves, every second."""
        before = sum(self.places().values())
        until_s = time.monotonic() + STORM_S
        while time.monotonic() < until_s:
            options = {"group_id": GROUP, "partition_assignment_strategy": "cooperative-sticky"}
            guest = Consumer(client_options(self.broker.bootstrap, enable_auto_commit=False, **options) | IMPATIENT)
            guest.subscribe([TOPICS.transactions])
            next_s = time.monotonic() + 1.0
            while time.monotonic() < next_s:
                guest.poll(0.1)
            guest.close()
        assert sum(self.places().values()) > before, "rebalances stop the stream"

    def places(self) -> dict[int, int]:
        """Messages that are in the state, by partition."""
        with self.redis.client() as client:
            kept = {
                each: client.hget(f"fs1:{{tx.{each}}}:meta", "o") for each in range(N_PARTITIONS[TOPICS.transactions])
            }
        return {partition: int(place) for partition, place in kept.items() if place}

    def is_told(self, ends: dict[int, int]) -> bool:
        """Whether everything is in the state, and every alert was acknowledged."""
        with self.redis.client() as client:
            return self.places() == ends and not any(client.xlen(f"fs1:{{tx.{each}}}:out") for each in ends)


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["append-only file", "snapshots"])
def test_the_stream_ends_as_one_process_makes_it(tmp_path, kept):
    trial = Trial(tmp_path, EVERY_WRITE if kept == "append-only file" else SNAPSHOTS)
    try:
        trial.run(FAULTS)
        oracle = trial.finish()

        assert N == sum(oracle.ends.values())
        assert len(oracle.alerts) > 100 and len(oracle.poison) > 1_000
        with trial.redis.client() as client:
            assert [] == problems_of(oracle, client, trial.broker.read_all)
            # What was done twice does not show; and the comparison can fail.
            assert len(trial.broker.read_all(TOPICS.decisions)) >= N - len(oracle.poison)
            client.setrange(next(iter(oracle.parts)), 80, b"\xff")
            assert 1 <= len(problems_of(oracle, client, trial.broker.read_all))
    finally:
        trial.close()


@pytest.mark.slow
def test_state_and_place_written_apart_are_found_out(tmp_path):
    trial = Trial(tmp_path, EVERY_WRITE, "place-first")
    try:
        trial.run(FAULTS[:8])
        oracle = trial.finish()
        with trial.redis.client() as client:
            problems = problems_of(oracle, client, trial.broker.read_all)
        assert sum(each.startswith("part ") for each in problems) > 10
        assert any("counts" in each for each in problems)
    finally:
        trial.close()
