"""
Question   How many transactions a second does one core consume, score and make durable in Redis, and how late are alerts?
Workload   300,000 simulated transactions of some 560 bytes of JSON, of 20,000 users, in 6 partitions of a real Apache Kafka; 72
           features over five entities, 300 trees of depth 6; a real Redis with an append-only file.
Timed      Throughput: from the first message that is scored until the last is committed, by `fraudsdk kafka` as a process on one
           core; brokers and Redis have the other.  By stage: time of a processor.  Latency: from `produce` until the alert of that
           transaction is received, at 1,000 and 10,000 transactions a second.
Not timed  Starting, claiming, producing what is drained.
Compare    The same messages consumed and parsed by the client alone; the same rows by `Scorer.score_batch` alone.
Check      Alerts are those of one scorer a partition, by transaction and score; the place in Redis is the end of each partition.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from _report import percentiles, report
from _streams import KEY, messages_of, stream_columns, stream_model
from kafka_servers import KafkaBroker, client_options, require_kafka
from servers import RedisServer, free_port, require_redis

require_redis()
require_kafka()
from confluent_kafka import Consumer  # noqa: E402  # only where Kafka is

from fraudsdk import Scorer, ScorerConfig  # noqa: E402

N = 300_000
N_PARTITIONS = 6
RATES = (1_000, 10_000)
RATE_S = 15.0
WARM_S = 3.0
DUE_S = 240.0
OURS, THEIRS = {0}, {1}
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model(simulated: Any, shelf: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stream_model(shelf, simulated, tmp_path_factory.mktemp("models") / "stream")


@pytest.fixture(scope="module")
def messages(simulated: Any) -> list[tuple[bytes, bytes]]:
    return messages_of(type(simulated)(stream_columns(N)).transactions())


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[KafkaBroker, RedisServer]]:
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, THEIRS & everywhere or everywhere)  # children begin there
    redis = RedisServer(tmp_path / "redis", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec").start()
    broker = KafkaBroker(tmp_path / "kafka", n_partitions=N_PARTITIONS).start()
    for topic, n_partitions in (("transactions", N_PARTITIONS), ("fraud-alerts", 3), ("transactions.dlq", 1)):
        broker.create_topic(topic, n_partitions)
    try:
        yield broker, redis
    finally:
        os.sched_setaffinity(0, everywhere)
        broker.stop()
        redis.stop()


class Worker:
    """`fraudsdk kafka` as a process on a core of its own."""

    def __init__(self, broker: KafkaBroker, redis: RedisServer, model: Path, folder: Path) -> None:
        key = folder / "key"
        key.write_bytes(KEY)
        self.port = free_port()
        command = [sys.executable, "-m", "fraudsdk.cli", "kafka", "--brokers", broker.bootstrap, "--model", str(model)]
        command += ["--redis", f"redis://127.0.0.1:{redis.port}", "--hash-key-file", str(key)]
        command += ["--metrics", f"127.0.0.1:{self.port}", "--max-entities", "300000"]
        self.process = subprocess.Popen(command, preexec_fn=lambda: os.sched_setaffinity(0, OURS), cwd=ROOT)

    def figure(self, name: str) -> float:
        """The sum of a figure over its labels; 0 before there is one."""
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", self._figures(), re.MULTILINE)
        return sum(map(float, found))

    def stages(self) -> dict[str, float]:
        found = re.findall(r'^fraudsdk_stream_stage_seconds_total{stage="(\w+)"} (\S+)$', self._figures(), re.MULTILINE)
        return {stage: float(value) for stage, value in found}

    def _figures(self) -> str:
        """What it serves; nothing before it does."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    @property
    def cpu_s(self) -> float:
        """Of all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait(self, name: str, least: float) -> None:
        deadline = time.monotonic() + DUE_S
        while self.figure(name) < least:
            assert self.process.poll() is None, "the worker ended"
            assert time.monotonic() < deadline, f"{name} is {self.figure(name)} and not {least}"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        assert 0 == self.process.wait(timeout=60)


@contextmanager
def working(broker: KafkaBroker, redis: RedisServer, model: Path, folder: Path) -> Iterator[Worker]:
    worker = Worker(broker, redis, model, folder)
    try:
        yield worker
    finally:
        worker.stop()


def produce(broker: KafkaBroker, messages: list[tuple[bytes, bytes]]) -> None:
    producer = broker.producer(linger_ms=20, compression_type="lz4")
    for key, value in messages:
        while True:
            try:
                producer.produce("transactions", value, key=key)
                break
            except BufferError:
                producer.poll(0.1)
    assert 0 == producer.flush(60)


def test_transactions_a_second(
    benchmark: Any, servers: Any, model: Path, messages: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    broker, redis = servers
    produce(broker, messages)
    figures: dict[str, dict[str, float]] = {"the client alone, and orjson": _client_alone(broker)}
    began: dict[str, float] = {}

    def drain() -> None:
        began["elapsed_s"] = -time.perf_counter()
        began["cpu_s"] = -worker.cpu_s
        worker.wait("fraudsdk_stream_scored_total", N)
        while worker.figure("fraudsdk_stream_lag"):
            time.sleep(0.02)
        began["elapsed_s"] += time.perf_counter()
        began["cpu_s"] += worker.cpu_s

    with working(broker, redis, model, tmp_path) as worker:
        worker.wait("fraudsdk_stream_scored_total", 1)
        benchmark.pedantic(drain, rounds=1)
        stages = worker.stages()
    figures["fraudsdk kafka, durable in Redis"] = {
        "per_s": N / began["elapsed_s"],
        "per_cpu_s": N / began["cpu_s"],
        "us_each": 1e6 * began["cpu_s"] / N,
    }
    figures |= {f"  of which {stage}": {"us_each": 1e6 * took / N} for stage, took in stages.items()}
    figures["  of which the client's threads"] = {"us_each": 1e6 * (began["cpu_s"] - sum(stages.values())) / N}
    alone, expected = _scored_alone(broker, model)
    figures["Scorer.score_batch alone"] = {"us_each": alone}
    with redis.client() as client:
        places = [int(client.hget(f"fs1:{{tx.{each}}}:meta", "o")) for each in range(N_PARTITIONS)]
    assert N == sum(places)
    alerts = {said["transaction_id"]: said["score"] for said in map(_said, broker.read_all("fraud-alerts"))}
    assert expected == alerts
    report("a stream, consumed and kept", figures)


def _said(message: Any) -> dict[str, Any]:
    said: dict[str, Any] = orjson.loads(message.value())
    return said


def _client_alone(broker: KafkaBroker) -> dict[str, float]:
    consumer = Consumer(client_options(broker.bootstrap, group_id="alone", auto_offset_reset="earliest"))
    consumer.subscribe(["transactions"])
    n, started_s, cpu_s = 0, 0.0, 0.0
    while n < N:
        batch = consumer.consume(5_000, 1.0)
        if not started_s and batch:
            started_s, cpu_s = time.perf_counter(), time.process_time()
        for message in batch:
            orjson.loads(message.value())
        n += len(batch)
    figures = {"per_s": N / (time.perf_counter() - started_s), "us_each": 1e6 * (time.process_time() - cpu_s) / N}
    consumer.close()
    return figures


def _scored_alone(broker: KafkaBroker, model: Path) -> tuple[float, dict[str, float]]:
    """Microseconds a row of a scorer a partition, and its scores of what it does not approve."""
    expected: dict[str, float] = {}
    took_s, messages = 0.0, broker.read_all("transactions")
    for partition in range(N_PARTITIONS):
        rows = [orjson.loads(each.value()) for each in messages if each.partition() == partition]
        with Scorer.open(ScorerConfig(model, hash_key=KEY, max_entities=300_000)) as scorer:
            for first in range(0, len(rows), 2_000):
                started_s = time.thread_time()
                decisions = scorer.score_batch(rows[first : first + 2_000])
                took_s += time.thread_time() - started_s
                expected |= {each.transaction_id: each.score for each in decisions.flagged()}
    return 1e6 * took_s / len(messages), expected


def test_how_late_alerts_are(
    benchmark: Any, servers: Any, model: Path, messages: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    broker, redis = servers
    figures: dict[str, dict[str, float]] = {}

    def both() -> None:
        first = 0
        for rate in RATES:
            some = messages[first : first + int(rate * (WARM_S + RATE_S))]
            first += len(some)
            figures[f"produced to alert received, {rate:,}/s"] = percentiles(_alerted(broker, some, rate))

    with working(broker, redis, model, tmp_path) as worker:
        produce(broker, messages[-1_000:])  # it is warm when it has seen these
        worker.wait("fraudsdk_stream_scored_total", 1_000)
        benchmark.pedantic(both, rounds=1)
    report("how late alerts are", figures)


def _alerted(broker: KafkaBroker, messages: list[tuple[bytes, bytes]], rate: int) -> np.ndarray:
    """Nanoseconds from `produce` to the alert, of those that became one."""
    sent_ns: dict[str, int] = {}
    received_ns: dict[str, int] = {}
    consumer = Consumer(
        client_options(broker.bootstrap, group_id=f"alerts {rate}", auto_offset_reset="latest", fetch_wait_max_ms=20)
    )
    ready, ending = threading.Event(), threading.Event()
    consumer.subscribe(["fraud-alerts"], on_assign=lambda *_: ready.set())

    def receive() -> None:
        while not ending.is_set():
            for message in consumer.consume(100, 0.005):
                received_ns[orjson.loads(message.value())["transaction_id"]] = time.perf_counter_ns()

    receiver = threading.Thread(target=receive)
    receiver.start()
    assert ready.wait(30)
    time.sleep(1.0)
    producer = broker.producer(linger_ms=1)
    named = [(key, value, orjson.loads(value)["transaction_id"]) for key, value in messages]
    began_ns = time.perf_counter_ns()
    for i, (key, value, name) in enumerate(named):
        due_ns = began_ns + int(1e9 * i / rate)
        while (left_ns := due_ns - time.perf_counter_ns()) > 0:
            time.sleep(min(left_ns / 1e9, 0.001))
        sent_ns[name] = due_ns  # open loop: what waits behind a stall counts
        producer.produce("transactions", value, key=key)
        if i % 16 == 0:
            producer.poll(0)
    assert 0 == producer.flush(30)
    time.sleep(2.0)
    ending.set()
    receiver.join()
    consumer.close()
    warm_ns = began_ns + int(1e9 * WARM_S)
    late = [at - sent_ns[name] for name, at in received_ns.items() if sent_ns.get(name, 0) > warm_ns]
    assert len(late) >= 20, "too few became alerts to say how late they are"
    return np.array(late)
