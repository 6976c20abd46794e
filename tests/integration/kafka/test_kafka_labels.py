"""Labels from a topic of their own reach the partition that decided, once, however it goes: by real brokers and a real Redis."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest
from servers import IN_MEMORY, RedisServer, require_redis, wait_for

require_redis()
pytest.importorskip("redis")
pytest.importorskip("confluent_kafka")
from confluent_kafka import Consumer, TopicPartition  # noqa: E402  # only where Kafka's client is
from kafka_servers import KafkaBroker, MockCluster, client_options, require_kafka  # noqa: E402

from fraudsdk import Scorer, ScorerConfig  # noqa: E402
from fraudsdk.adapters.kafka import labels  # noqa: E402
from fraudsdk.adapters.kafka.dead_letters import DeadLetters  # noqa: E402
from fraudsdk.adapters.kafka.local_state import LocalState  # noqa: E402
from fraudsdk.adapters.kafka.messages import message_format  # noqa: E402
from fraudsdk.adapters.kafka.worker import KafkaWorker, Topics  # noqa: E402
from fraudsdk.adapters.redis import StreamRedis, connect  # noqa: E402
from fraudsdk.errors import ConfigurationError  # noqa: E402
from fraudsdk.scorer.streamed_parts import Batch, StreamedParts  # noqa: E402

CONFIG = ScorerConfig(
    model=Path(__file__).parents[3] / "compiled_models" / "reference",
    hash_key=b"the key of the stream",
    max_entities=20_000,
    journal_capacity=20_000,
)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TOPICS = Topics(decisions="fraud-decisions", labels="fraud-labels")
N_PARTITIONS = 2
PARTITIONS = {
    TOPICS.transactions: N_PARTITIONS,
    TOPICS.labels: N_PARTITIONS,
    TOPICS.alerts: 3,
    TOPICS.dead_letters: 1,
    TOPICS.decisions: 1,
}
MARCH_12 = 10 * 1_000  # the first payment of the tenth day after: labels of the first day count by then


def payment(n: int) -> dict:
    """One every second, a thousand a day; a third of the merchants are paid by thieves."""
    draw = random.Random(n)
    return {
        "transaction_id": f"t-{n}",
        "user_id": f"u{draw.randrange(20)}",
        "card_id": f"c{draw.randrange(30)}",
        "merchant_id": f"m{n % 6}",
        "amount": f"{draw.randrange(1, 9_000)}.25",
        "event_time_us": _time_us(n),
    }


def _time_us(n: int) -> int:
    return int((NOON + timedelta(days=n // 1_000, seconds=n % 1_000)).timestamp() * 1e6)


def label(n: int, **fields) -> dict:
    return {"transaction_id": f"t-{n}", "is_fraud": n % 3 == 0, "label_time_us": _time_us(n) + 1} | fields


@pytest.fixture
def redis_server(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory):
    require_kafka()
    server = KafkaBroker(tmp_path_factory.mktemp("broker")).start()
    yield server
    server.stop()


@pytest.fixture
def cluster():
    servers = MockCluster(PARTITIONS)
    yield servers
    servers.stop()


@pytest.fixture(params=["mock", "kafka"])
def brokers(request):
    """Those within the process, and a real one with topics that nobody has used."""
    if request.param == "mock":
        yield request.getfixturevalue("cluster")
        return
    broker = request.getfixturevalue("own_broker")
    for name, n_partitions in PARTITIONS.items():
        broker.create_topic(name, n_partitions, retention_ms="-1")  # messages are of the past
    yield broker
    for name in PARTITIONS:
        broker.delete_topic(name)


class Running(threading.Thread):
    """A worker at work, until the block ends; then it has stopped by itself, and raised what it had to."""

    def __init__(self, brokers, redis_server, *, group: str = "fraud", open_state=None) -> None:
        super().__init__(daemon=True)
        self._client = connect(f"redis://127.0.0.1:{redis_server.port}", timeout_s=5)
        self.worker = KafkaWorker(
            client_options(brokers.bootstrap),
            TOPICS,
            open_state or self._open,
            message_format("json"),
            DeadLetters(),
            group=group,
            consumer_options={"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500},
        )
        self._failure: Exception | None = None

    def _open(self, partition: int, origin: bytes) -> StreamedParts:
        return StreamedParts(CONFIG, StreamRedis(self._client, partition), origin)

    def run(self) -> None:
        try:
            self.worker.run()
        except Exception as error:
            self._failure = error

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.worker.stop()
        self.join(timeout=60)
        self._client.close()
        assert not self.is_alive(), "it does not stop"
        if self._failure is not None:
            raise self._failure

    def wait_for(self, **counts: int) -> None:
        """Until it has counted so many, and all of it is in the state."""

        def is_so() -> bool:
            assert self.is_alive(), self._failure
            seen = self.worker.seen.counts
            return all(seen[name] >= n for name, n in counts.items())

        wait_for(f"{counts}", is_so, 30.0)
        time.sleep(0.2)

    def known(self) -> dict[str, int]:
        seen = self.worker.seen.counts
        return {name: seen[name] for name in ("labels", "labels_of_unknown_transactions")}


def send(brokers, topic: str, messages: list[dict | bytes], at_us=None) -> None:
    """Have messages in a topic, keyed by their user, sent at the time of the event or the one given."""
    producer = brokers.producer(enable_idempotence=True, partitioner="murmur2_random")
    for each in messages:
        value = each if isinstance(each, bytes) else orjson.dumps(each)
        n = 0 if isinstance(each, bytes) else int(each["transaction_id"][2:])
        sent_ms = (at_us if at_us is not None else _time_us(n)) // 1_000
        producer.produce(topic, value, payment(n)["user_id"].encode(), timestamp=sent_ms)
        producer.poll(0)
    assert 0 == producer.flush(30)


def features_of(scorer: Scorer) -> list[dict[str, float]]:
    """What is known of each merchant in the end, as the features of a payment to it."""
    asked = [payment(2 * MARCH_12 + n) for n in range(6)]
    return [{each.name: each.value for each in scorer.explain(row).features} for row in asked]


def kept(redis_server) -> list[list[dict[str, float]]]:
    """Features by what is in Redis, by partition."""
    found = []
    with connect(f"redis://127.0.0.1:{redis_server.port}", timeout_s=5) as client:
        for partition in range(N_PARTITIONS):
            origin = client.hget("fs1:{tx}:writers", "stream")
            with StreamedParts(CONFIG, StreamRedis(client, partition), origin) as stream:
                place = stream.claim()
                stream.score(place, place, Batch([], np.zeros(0, np.int64), lambda decisions: []))
                found.append(features_of(stream.scorer))
    return found


def margins_of(brokers) -> dict[str, float]:
    told = [orjson.loads(each.value()) for each in brokers.read_all(TOPICS.decisions)]
    return {each["transaction_id"]: each["margin"] for each in told}


def expected(brokers, said: list[tuple[int, dict]]) -> tuple[dict[str, float], list[list[dict[str, float]]]]:
    """
    Margins and, in the end, features of scorers in this process, one a partition.

    Each label is told in front of the payment that it is given with.
    """
    margins, features = {}, []
    log = brokers.read_all(TOPICS.transactions)
    for partition in range(N_PARTITIONS):
        rows = [orjson.loads(each.value()) for each in log if each.partition() == partition]
        mine, left = {row["transaction_id"] for row in rows}, list(said)
        with Scorer.open(CONFIG) as scorer:
            for row in rows:
                while left and left[0][0] <= int(row["transaction_id"][2:]):
                    _, told = left.pop(0)
                    if told["transaction_id"] in mine:
                        scorer.feedback(told["transaction_id"], is_fraud=told["is_fraud"])
                margins[row["transaction_id"]] = scorer.score(row).margin
            features.append(features_of(scorer))
    return margins, features


FIRST = [payment(n) for n in range(300)]
LATER = [payment(n) for n in range(MARCH_12, MARCH_12 + 200)]
TOLD = [label(n) for n in range(0, 300, 2)]


def test_labels_count_in_later_decisions_as_those_told_to_a_scorer(brokers, redis_server):
    with Running(brokers, redis_server) as running:
        send(brokers, TOPICS.transactions, FIRST)
        running.wait_for(scored=300)
        send(brokers, TOPICS.labels, TOLD)
        running.wait_for(labels=150)
        send(brokers, TOPICS.transactions, LATER)
        running.wait_for(scored=500)
        assert {"labels": 150, "labels_of_unknown_transactions": 0} == running.known()

    margins, features = expected(brokers, [(MARCH_12, each) for each in TOLD])
    assert margins == margins_of(brokers)
    np.testing.assert_equal(kept(redis_server), features)
    assert max(each["merchant_fraud_rate_30d"] for each in features[0]) > 0.3
    assert max(each["merchant_fraud_rate_30d"] for each in expected(brokers, [])[1][0]) == 0


def test_labels_find_their_transactions_after_a_restart_and_count_once_however_often_they_are_sent(
    brokers, redis_server
):
    send(brokers, TOPICS.transactions, FIRST)
    with Running(brokers, redis_server) as running:
        running.wait_for(scored=300)
    for times in range(1, 4):
        send(brokers, TOPICS.labels, TOLD)
        with Running(brokers, redis_server) as running:  # it reads those before again: they had just been told
            running.wait_for(labels=150 * times)
            assert 0 == running.known()["labels_of_unknown_transactions"]
    send(brokers, TOPICS.transactions, LATER)
    with Running(brokers, redis_server) as running:
        running.wait_for(scored=200)

    margins, features = expected(brokers, [(MARCH_12, each) for each in TOLD])
    assert margins == margins_of(brokers)
    np.testing.assert_equal(kept(redis_server), features)


@pytest.mark.parametrize("sent_us", [None, 1_000_000])  # 1970: a clock that is wrong
def test_a_label_waits_for_its_transaction(brokers, redis_server, sent_us):
    send(brokers, TOPICS.labels, TOLD, sent_us)
    with Running(brokers, redis_server) as running:
        time.sleep(0.05)
        send(brokers, TOPICS.transactions, FIRST)
        running.wait_for(scored=300)
    n_early = running.known()["labels_of_unknown_transactions"]
    send(brokers, TOPICS.labels, TOLD, sent_us)
    with Running(
        brokers, redis_server, group="another"
    ) as running:  # all of them once more, with all transactions there
        running.wait_for(labels=2 * len(TOLD))
    assert {"labels": 2 * len(TOLD), "labels_of_unknown_transactions": 0} == running.known()
    assert n_early <= len(TOLD)  # whoever sends a label before its transaction is not waited for


@pytest.mark.parametrize("sent_us", [None, 1_000_000])
def test_a_label_that_is_read_before_its_transaction_is_held(brokers, redis_server, sent_us):
    send(brokers, TOPICS.transactions, [payment(n) for n in range(3_000)])
    send(brokers, TOPICS.labels, [label(n) for n in range(0, 3_000, 10)], sent_us)
    with Running(brokers, redis_server) as running:
        running.wait_for(labels=300, scored=3_000)
    assert {"labels": 300, "labels_of_unknown_transactions": 0} == running.known()


def test_a_label_of_no_transaction_is_counted_and_holds_up_nobody(brokers, redis_server):
    send(brokers, TOPICS.transactions, FIRST)
    send(brokers, TOPICS.labels, [label(5_000), *TOLD, label(5_001)])
    with Running(brokers, redis_server) as running:
        running.wait_for(labels=150, labels_of_unknown_transactions=2)
    assert {"labels": 150, "labels_of_unknown_transactions": 2} == running.known()


POISON = {
    b"{": "bad_json",
    b"": "empty",
    b"[1]": "not_an_object",
    b'{"transaction_id":"t-1"}': "invalid_label:is_fraud",
    b'{"is_fraud":true}': "invalid_label:transaction_id",
    b'{"transaction_id":"t-1","is_fraud":"perhaps"}': "invalid_label:is_fraud",
    b'{"transaction_id":"t-1","is_fraud":true,"is_fraud":false}': "duplicate_name",
    b'{"transaction_id":"t-1","is_fraud":true,"pan":"4111111111111111"}': "invalid_label:unknown_field",
    b'{"transaction_id":"4111111111111111","is_fraud":true}': "invalid_label:transaction_id",
    b'{"transaction_id":"t-1","is_fraud":true,"label_time":[]}': "invalid_label:label_time",
    b'{"transaction_id":"t-1","is_fraud":true,"x":"' + b"x" * 5_000 + b'"}': "too_large",
}


def test_what_is_no_label_goes_to_the_dead_letters(brokers, redis_server):
    send(brokers, TOPICS.transactions, FIRST)
    send(brokers, TOPICS.labels, [*POISON, label(7)])
    with Running(brokers, redis_server) as running:
        running.wait_for(labels=1)
    letters = brokers.read_all(TOPICS.dead_letters)
    headers = [dict(each.headers()) for each in letters]

    assert sorted(POISON.values()) == sorted(each["fraudsdk.reason"].decode() for each in headers)
    assert {TOPICS.labels} == {each["fraudsdk.topic"].decode() for each in headers}
    assert not any(b"4111111111111111" in (each.value() or b"") for each in letters)


def offsets(brokers) -> list[int]:
    """How far labels are, by what Kafka was told."""
    consumer = Consumer(client_options(brokers.bootstrap, group_id="fraud-labels"))
    try:
        places = [TopicPartition(TOPICS.labels, each) for each in range(N_PARTITIONS)]
        return [max(0, each.offset) for each in consumer.committed(places, timeout=10)]
    finally:
        consumer.close()


def test_kafka_is_told_of_labels_once_the_state_has_had_them_for_a_while(brokers, redis_server, monkeypatch):
    send(brokers, TOPICS.transactions, FIRST)
    send(brokers, TOPICS.labels, TOLD)
    with Running(brokers, redis_server) as running:
        running.wait_for(labels=150)
        time.sleep(1.5)
    assert [0, 0] == offsets(brokers)

    monkeypatch.setattr(labels, "_SETTLED_S", 0.5)
    with Running(brokers, redis_server) as running:
        running.wait_for(labels=150)
        wait_for("Kafka to be told", lambda: sum(offsets(brokers)) == 150, 15.0)
    with Running(brokers, redis_server) as running:
        send(brokers, TOPICS.labels, [label(1)])
        running.wait_for(labels=1)
        assert 1 == running.known()["labels"]


def test_labels_that_redis_lost_are_said_again(cluster, redis_server):
    send(cluster, TOPICS.transactions, FIRST)
    with Running(cluster, redis_server) as running:
        running.wait_for(scored=300)
        send(cluster, TOPICS.labels, TOLD)
        running.wait_for(labels=150)
        with redis_server.client() as client:
            client.flushall()
        send(cluster, TOPICS.transactions, LATER)
        running.wait_for(scored=700, labels=300)
        last = [payment(n) for n in range(MARCH_12 + 5_000, MARCH_12 + 5_100)]
        send(cluster, TOPICS.transactions, last)
        running.wait_for(scored=800)
    # The labels come again before or after the later payments, and in the end all is as it should be.
    np.testing.assert_equal(kept(redis_server), expected(cluster, [(MARCH_12 + 5_000, each) for each in TOLD])[1])


def test_labels_are_kept_by_a_state_on_this_machine_too(cluster, redis_server, tmp_path):
    def open_state(partition: int, origin: bytes) -> LocalState:
        config = ScorerConfig(
            CONFIG.model, hash_key=CONFIG.hash_key, journal_capacity=20_000, state_dir=tmp_path / f"{partition}"
        )
        return LocalState(config, origin)

    send(cluster, TOPICS.transactions, FIRST)
    send(cluster, TOPICS.labels, TOLD)
    with Running(cluster, redis_server, open_state=open_state) as running:
        running.wait_for(labels=150)
    send(cluster, TOPICS.transactions, LATER)
    with Running(cluster, redis_server, open_state=open_state) as running:
        running.wait_for(scored=200)

    assert expected(cluster, [(MARCH_12, each) for each in TOLD])[0] == margins_of(cluster)


def test_labels_in_another_number_of_partitions_are_refused(redis_server):
    cluster = MockCluster(PARTITIONS | {TOPICS.labels: 3})
    try:
        with pytest.raises(ConfigurationError, match="as many partitions"), Running(cluster, redis_server) as running:
            running.join(timeout=20)
    finally:
        cluster.stop()


def test_no_more_labels_wait_than_may(cluster, redis_server, monkeypatch):
    monkeypatch.setattr(labels, "MAX_HELD", 50)
    monkeypatch.setattr(labels, "_AT_ONCE", 20)
    send(cluster, TOPICS.transactions, FIRST)
    send(cluster, TOPICS.labels, [label(n % 300) for n in range(2_000)])
    most = []
    with Running(cluster, redis_server) as running:
        reader = running.worker._labels
        held = reader.n_held
        receive = reader.receive
        reader.receive = lambda: (receive(), most.append(held()))[0]
        running.wait_for(labels=2_000)
    assert max(most) <= N_PARTITIONS * (50 + 20)
