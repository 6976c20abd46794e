"""
``fraudsdk simulate --to-kafka``: the whole stream, in order, once.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict

import pytest
from kafka_servers import KafkaBroker, MockCluster, require_kafka
from servers import free_port, wait_for

from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.adapters.kafka.messages import message_format
from fraudsdk.adapters.kafka.producer import MessageProducer
from fraudsdk.cli import main
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError, StreamUnavailableError
from fraudsdk.simulation import SimulationSpec, simulate

SMALL = ["--transactions", "2000", "--users", "60", "--days", "60", "--fraud-rate", "0.05", "--seed", "5"]


@pytest.fixture
def mock():
    cluster = MockCluster({"transactions": 6, "fraud-labels": 6})
    yield cluster
    cluster.stop()


def simulate_to(bootstrap: str, *more: str) -> int:
    return main(["simulate", "--to-kafka", bootstrap, *SMALL, *more])


def test_every_transaction_is_sent_once_and_is_one_that_a_scorer_takes(mock):
    assert 0 == simulate_to(mock.bootstrap)

    decoded = message_format("json").decode_all([each.value() for each in mock.read_all("transactions")])
    sent = [Transaction.from_mapping(each) for each in decoded]
    table = simulate(SimulationSpec(transactions=2_000, users=60, days=60, fraud_rate=0.05, seed=5))

    assert dict(zip(table["transaction_id"], table["amount_minor"], strict=True)) == {
        each.transaction_id: each.amount_minor for each in sent
    }
    assert len(sent) == 2_000


def test_each_user_has_one_partition_and_is_in_event_time_order_there(mock):
    simulate_to(mock.bootstrap)

    partitions, times = defaultdict(set), defaultdict(list)
    for each in mock.read_all("transactions"):
        transaction = json.loads(each.value())
        assert transaction["user_id"].encode() == each.key()
        partitions[each.key()].add(each.partition())
        times[each.partition()].append(transaction["event_time_us"])

    assert {1} == set(map(len, partitions.values()))
    assert 6 == len(times)
    assert all(each == sorted(each) for each in times.values())


def test_a_user_is_in_the_partition_where_java_s_client_puts_him(mock):
    """
    Partitions of some keys, of six, by Kafka's own DefaultPartitioner: murmur2, its sign taken off.
    """
    simulate_to(mock.bootstrap)

    for each in mock.read_all("transactions"):
        assert (murmur2(each.key()) & 0x7FFFFFFF) % 6 == each.partition()


def test_labels_are_sent_once_they_are_known_and_not_before(mock):
    assert 0 == simulate_to(mock.bootstrap, "--labels-topic", "fraud-labels")

    labels = [(each.key(), json.loads(each.value())) for each in mock.read_all("fraud-labels")]
    table = simulate(SimulationSpec(transactions=2_000, users=60, days=60, fraud_rate=0.05, seed=5))
    known = table["label_time"] <= table["event_time"].max()

    assert set(table["transaction_id"][known]) == {label["transaction_id"] for _, label in labels}
    assert len(labels) == known.sum()
    truth = dict(zip(table["transaction_id"], table["is_fraud"], strict=True))
    users = dict(zip(table["transaction_id"], table["user_id"], strict=True))
    assert all(truth[each["transaction_id"]] == each["is_fraud"] for _, each in labels)
    assert all(users[each["transaction_id"]].encode() == key for key, each in labels)


def test_a_rate_is_kept_over_the_whole(mock, capsys):
    began_s = time.perf_counter()

    assert 0 == simulate_to(mock.bootstrap, "--rate", "4000")

    # No faster than asked for; how much slower is this machine's affair.
    assert time.perf_counter() - began_s >= 1_999 / 4_000
    assert "brokers have all of them" in capsys.readouterr().out


def test_a_broker_that_is_killed_and_comes_back_gets_everything_once(tmp_path):
    require_kafka()
    broker = KafkaBroker(tmp_path / "broker").start()
    try:
        broker.create_topic("transactions")
        outcome = []
        sending = threading.Thread(target=lambda: outcome.append(simulate_to(broker.bootstrap, "--rate", "1000")))
        sending.start()
        wait_for("messages", lambda: len(broker.read_all("transactions")) > 100, timeout_s=30)
        broker.kill()
        broker.start()
        sending.join(60)

        sent = [json.loads(each.value()) for each in broker.read_all("transactions")]
        assert [0] == outcome
        assert 2_000 == len(sent) == len({each["transaction_id"] for each in sent})
    finally:
        broker.stop()


def test_a_topic_that_is_not_there_is_the_users_to_make(tmp_path, capsys):
    require_kafka()
    broker = KafkaBroker(tmp_path / "broker").start()
    try:
        assert 2 == simulate_to(broker.bootstrap)
    finally:
        broker.stop()

    assert "has no topic transactions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rate", "0"], "--rate must be over 0"),
        (["--rate", "nan"], "--rate must be over 0"),
        (["--topic", "a topic"], "a topic is named by"),
        (["--topic", ".."], "a topic is named by"),
        (["--kafka-user", "fraud"], "FRAUDSDK_KAFKA_PASSWORD"),
        (["--kafka-ca-file", "ca.pem"], "TLS is off"),
    ],
)
def test_a_mistake_is_told_before_anything_is_simulated(options, said, capsys, monkeypatch):
    monkeypatch.delenv("FRAUDSDK_KAFKA_PASSWORD", raising=False)

    assert 2 == simulate_to("127.0.0.1:9092", *options)
    printed = capsys.readouterr()

    assert said in printed.err and "simulated" not in printed.out


def test_a_queue_that_is_full_for_too_long_is_an_error_and_not_more_memory(mock):
    producer = MessageProducer(KafkaConnection(mock.bootstrap), max_queued=10, timeout_s=1.0)
    mock.set_down()

    def send_more_than_fit():
        for _ in range(1_000):
            producer.send("transactions", b"u-1", b"{}")

    with pytest.raises(StreamUnavailableError, match=r"not delivered|took no message"):
        send_more_than_fit()

    assert producer.n_queued <= 10


def test_what_was_not_delivered_is_an_error_at_the_end(mock):
    producer = MessageProducer(KafkaConnection(mock.bootstrap), timeout_s=1.0)
    mock.set_down()
    producer.send("transactions", b"u-1", b"{}")

    with pytest.raises(StreamUnavailableError, match="up to 1 of 1 messages were not delivered"):
        producer.finish()


def test_a_message_that_no_broker_takes_is_refused_at_once(mock):
    producer = MessageProducer(KafkaConnection(mock.bootstrap))

    with pytest.raises(ConfigurationError, match="topic transactions does not take a message"):
        producer.send("transactions", None, b"x" * 2_000_000)


def test_a_producer_is_told_that_nobody_is_there():
    producer = MessageProducer(KafkaConnection(f"127.0.0.1:{free_port()}"))

    with pytest.raises(StreamUnavailableError, match="is it running"):
        producer.check("transactions", timeout_s=0.3)


def murmur2(key: bytes) -> int:
    """As Kafka's Utils.murmur2, after Austin Appleby's."""
    mask, m, n = 0xFFFFFFFF, 0x5BD1E995, len(key)
    h = (0x9747B28C ^ n) & mask
    for i in range(n // 4):
        k = int.from_bytes(key[4 * i : 4 * i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if n % 4:
        h = (h ^ int.from_bytes(key[n - n % 4 :], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15
