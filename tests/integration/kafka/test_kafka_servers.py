"""The servers that the other tests rely on do what these take for granted."""

from __future__ import annotations

import kafka_jars
import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka_servers import KafkaBroker, MockCluster, require_kafka


@pytest.fixture
def mock():
    cluster = MockCluster({"transactions": 6})
    yield cluster
    cluster.stop()


def test_what_a_broker_acknowledged_is_there_after_a_crash(tmp_path):
    require_kafka()
    broker = KafkaBroker(tmp_path / "broker").start()
    try:
        broker.create_topic("transactions")
        producer = broker.producer()
        for i in range(12):
            producer.produce("transactions", b"%d" % i, partition=i % 6)
        assert 0 == producer.flush(20)

        broker.kill()
        broker.start()

        assert {b"%d" % i for i in range(12)} == {each.value() for each in broker.read_all("transactions")}
    finally:
        broker.stop()


def test_a_broker_that_is_paused_answers_once_it_goes_on(tmp_path):
    require_kafka()
    broker = KafkaBroker(tmp_path / "broker").start()
    try:
        broker.create_topic("transactions", 1, retention_ms="3600000")
        producer = broker.producer()
        broker.pause()
        producer.produce("transactions", b"patience")

        assert 1 == producer.flush(0.5)
        broker.resume()
        assert 0 == producer.flush(20)
    finally:
        broker.stop()


def test_a_mock_cluster_keeps_what_it_was_sent_in_the_partitions_that_were_asked_for(mock):
    producer = mock.producer()
    for i in range(12):
        producer.produce("transactions", b"%d" % i, partition=i % 6)

    assert 0 == producer.flush(20)
    assert [b"%d" % i for i in (0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11)] == [
        each.value() for each in mock.read_all("transactions")
    ]


def test_a_mock_cluster_is_down_until_it_is_up(mock):
    producer = mock.producer()
    mock.set_down()
    producer.produce("transactions", b"later")

    assert 1 == producer.flush(0.3)
    mock.set_up()
    assert 0 == producer.flush(20)


def test_a_mock_cluster_answers_with_the_errors_it_was_told_to(mock):
    producer, outcomes = mock.producer(), []
    mock.fail_next(0, KafkaError.MSG_SIZE_TOO_LARGE)
    for payload in (b"refused", b"taken"):
        producer.produce("transactions", payload, partition=0, on_delivery=lambda error, _: outcomes.append(error))
        producer.flush(20)

    assert [KafkaError.MSG_SIZE_TOO_LARGE, None] == [error and error.code() for error in outcomes]


def test_a_topic_loses_its_oldest_messages_and_then_all_of_them(tmp_path):
    require_kafka()
    broker = KafkaBroker(tmp_path / "broker").start()
    try:
        with pytest.raises(KafkaException):
            broker.delete_topic("transactions")  # nobody made it
        broker.create_topic("transactions", 1)
        producer = broker.producer()
        for i in range(5):
            producer.produce("transactions", b"%d" % i)
        assert 0 == producer.flush(20)

        broker.delete_records("transactions", 0, 3)
        assert [3, 4] == [each.offset() for each in broker.read_all("transactions")]
        broker.delete_topic("transactions")
        broker.create_topic("transactions", 1)
        assert [] == broker.read_all("transactions")
    finally:
        broker.stop()


def test_jars_that_are_not_those_that_were_pinned_are_not_kept(tmp_path, monkeypatch):
    def bring_another(folder):
        folder.mkdir()
        (folder / "kafka-clients.jar").write_bytes(b"another")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "_ask_maven", bring_another)

    with pytest.raises(SystemExit, match="other jars"):
        kafka_jars.fetch()

    assert [] == kafka_jars.jars()
