"""
Question   What does it cost to share state over Redis, and what does a decision notice of a Redis that forks or is down?
Workload   The transactions and model of bench_score.py, and a real Redis with an append-only file and 300,000 other keys.
Timed      Scorer.score(mapping) of a scorer that shares its state, warm: at rest, while Redis writes snapshots one after another,
           and while it is killed.  A commit of 100 parts.  Events a second until the last is in Redis, of five entities each
           and of the whole catalogue, in batches.
Not timed  Opening and warming up; the first 12,000 transactions.
Compare    The same in memory only, by turns.  For the commit, one HINCRBY a counter, as a feature store writes its counters.
Check      All give the same scores; nothing waits or was lost in the end, and what is in Redis is what was remembered.
Gate       gates.toml: in memory against shared, at rest; counters against parts.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import hold, report
from _turns import take_turns
from servers import RedisServer, require_redis

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.entity_state.parts import PartCodec
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.spec import Feature, FeatureSet
from fraudsdk.scorer.shared_state import SharedState

require_redis()
from fraudsdk.adapters.redis import RedisStore, SharedRedis, connect  # noqa: E402  # only where Redis is

DEBUG = ("--enable-debug-command", "yes")  # it fills itself fastest
N_HISTORY = 12_000
N_TIMED = 6_000
PER_ROUND = 100
N_OTHER_KEYS = 300_000
MAX_WAITING = 2_000
FIVE_ENTITIES = FeatureSet(
    "five entities",
    tuple(
        Feature(f"{entity}_{aggregate}", aggregate, entity=entity, window="24h")
        for entity in ("user", "card", "merchant", "device", "ip")
        for aggregate in ("count", "sum")
    ),
)


@pytest.fixture
def server(tmp_path: Path) -> Any:
    server = RedisServer(
        tmp_path / "redis", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", *DEBUG
    ).start()
    yield server
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def client(server: RedisServer) -> Any:
    return connect(f"redis://127.0.0.1:{server.port}")


@pytest.fixture(scope="module")
def transactions(traffic: Any, traffic_replayed: Any) -> list[dict[str, Any]]:
    return list(traffic.transactions(*traffic_replayed.order[: N_HISTORY + 4 * N_TIMED]))


def wait_until_written(counters: Any) -> None:
    deadline = time.monotonic() + 120
    while counters()["shared_entities_waiting"]:
        assert time.monotonic() < deadline, counters()
        time.sleep(0.002)


class Snapshots:
    """Has Redis write one snapshot after another, each by a fork."""

    def __init__(self, server: RedisServer) -> None:
        self._client = server.client(socket_timeout=10.0)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.n = 0

    def __enter__(self) -> Snapshots:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stopping.set()
        self._thread.join()
        assert self.n > 0

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            if not self._client.info("persistence")["rdb_bgsave_in_progress"]:
                self._client.bgsave()
                self.n += 1


def test_sharing_state_costs_little_and_an_outage_less(
    benchmark: Any, transactions: list[dict[str, Any]], catalogue_model: Path, hash_key: bytes, server: RedisServer
) -> None:
    filling = server.client()
    filling.execute_command("DEBUG", "POPULATE", N_OTHER_KEYS, "other", 250)
    config = ScorerConfig(model=catalogue_model, hash_key=hash_key)
    store = SharedRedis(connect(f"redis://127.0.0.1:{server.port}"))
    decided: dict[str, list[Any]] = {"shared": [], "memory": []}
    with Scorer.open(config) as plain:
        shared = Scorer.open(config, shared=store)
        try:
            contestants = {
                "shared": lambda mapping: decided["shared"].append(shared.score(mapping)),
                "in memory": lambda mapping: decided["memory"].append(plain.score(mapping)),
            }
            for scorer in (shared, plain):
                scorer.score_batch(transactions[:N_HISTORY])
            wait_until_written(shared.counters)

            def turns_from(first: int) -> Any:
                timed = transactions[first : first + N_TIMED]
                work = [timed[i : i + PER_ROUND] for i in range(0, N_TIMED, PER_ROUND)]
                return take_turns(benchmark if first == N_HISTORY else _Silent(), contestants, work, warm=False)

            at_rest = turns_from(N_HISTORY)
            assert not any(decision.degraded for decision in decided["shared"])
            with Snapshots(server):
                forking = turns_from(N_HISTORY + N_TIMED)
            wait_until_written(shared.counters)
            server.kill()
            down = turns_from(N_HISTORY + 2 * N_TIMED)
            scores = {name: [decision.score for decision in each] for name, each in decided.items()}
            assert scores["shared"] == scores["memory"]
            server.start()
            wait_until_written(shared.counters)
            assert 0 == shared.counters()["shared_entities_lost"]
        finally:
            if server.process.poll() is not None:
                server.start()
            shared.close()
    question = "a decision whose state is shared"
    figures = {}
    for when, turns in {"at rest": at_rest, "while Redis forks": forking, "while Redis is down": down}.items():
        figures |= {f"{name}, {when}": values for name, values in turns.figures().items()}
    report(question, figures)
    hold(question, at_rest.ratios())


class _Silent:
    """A benchmark fixture takes one measurement a test; the others are reported alone."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, function: Any, setup: Any = None, rounds: int = 1, **_: Any) -> None:
        for _round in range(rounds):
            arguments = setup() if setup is not None else None
            args, kwargs = arguments if arguments is not None else ((), {})
            function(*args, **kwargs)


@pytest.mark.quick
def test_a_commit(
    benchmark: Any, transactions: list[dict[str, Any]], catalogue_model: Path, hash_key: bytes, client: Any
) -> None:
    codec = PartCodec(b"of the benchmark")
    with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
        scorer.score_batch(transactions[:N_HISTORY])
        memory = scorer._engine.memory
        keys = memory.entity_keys()[:20_000]
        parts = dict(zip(keys.tolist(), codec.pack(memory, keys, 0), strict=True))
    store = RedisStore(client, "tx.0")
    store.claim(b"me")
    listed, place = list(parts.items()), [0]

    def commit(first: int) -> None:
        store.commit(b"me", place[0], place[0] + 1, dict(listed[first : first + 100]), ())
        place[0] += 1

    def count(first: int) -> None:
        pipe = client.pipeline(transaction=False)
        for key, _ in listed[first : first + 100]:
            for field in range(24):
                pipe.hincrby(f"counters:{key}", field, 1)
        pipe.execute()

    contestants = {"100 parts, one script": commit, "24 counters of 100 entities, HINCRBY": count}
    work = [[100 * call for call in range(each * 20, each * 20 + 20)] for each in range(10)]
    turns = take_turns(benchmark, contestants, work, warm=False)
    assert list(parts.values()) == store.read(b"me", place[0], list(parts))
    question = "a commit to Redis"
    report(question, turns.figures())
    hold(question, turns.ratios())
    sample = listed[:: len(listed) // 500]
    in_redis = [client.memory_usage(name) for name in store.names_of([key for key, _ in sample])]
    report(
        "an entity in Redis",
        {
            "part, bytes": {"n": len(sample), "mean": float(np.mean([len(part) for _, part in sample]))},
            "with Redis' own, bytes": {"n": len(sample), "mean": float(np.mean(in_redis))},
        },
    )


def test_events_until_they_are_in_redis(
    traffic: Any, traffic_replayed: Any, simulated: Any, hash_key: bytes, server: RedisServer
) -> None:
    from fraudsdk.features.catalogue import reference_feature_set
    from fraudsdk.training.replay import replay

    figures = {}
    for name, features in {"five entities": FIVE_ENTITIES, "the catalogue": reference_feature_set("EUR")}.items():
        encoded = replay(traffic.columns, features, simulated.vocabulary, hash_key=hash_key).encoded
        figures[name] = _events(encoded, features, simulated.vocabulary, server, name.split()[-1])
    report("events until they are in Redis, one writer", figures)


def _events(encoded: Any, features: FeatureSet, vocabulary: Any, server: RedisServer, group: str) -> dict[str, float]:
    engine, lock = FeatureEngine(features, vocabulary), threading.Lock()
    store = SharedRedis(connect(f"redis://127.0.0.1:{server.port}"), group)
    schema = b"of the benchmark"
    shared = SharedState(store, PartCodec(schema), schema, engine, lock)
    n = len(encoded.ints)
    cpu_before = server.client().info("cpu")
    started, started_cpu = time.perf_counter(), time.process_time()
    for first in range(0, n, 256):
        # What changes again before it is written is written once: no more than so many may wait, or all would.
        while shared.counters()["shared_entities_waiting"] > MAX_WAITING:
            time.sleep(0.0005)
        with lock:
            engine.replay(encoded.ints[first : first + 256], encoded.numbers[first : first + 256])
    wait_until_written(lambda: shared.counters())
    taken_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    cpu = server.client().info("cpu")
    redis_s = sum(cpu[each] - cpu_before[each] for each in ("used_cpu_user", "used_cpu_sys"))
    counted = shared.counters()
    keys = engine.memory.entity_keys()[:1_000].tolist()
    parts = store.read(keys)
    assert PartCodec(schema).pack(engine.memory, np.array(keys, np.int64), 0) == [
        parts.of[key][parts.mine] for key in keys
    ]
    shared.close()
    return {
        "n": float(n),
        "rows_per_s": n / taken_s,
        "events a second of our processor": n / cpu_s,
        "events a second of Redis' processor": n / redis_s,
        "entities written per event": counted["shared_parts_written"] / n,
        "entities per commit": counted["shared_parts_written"] / max(1, counted["shared_commits"]),
    }
