"""Requests in a topic: once each, by their user; and what is said where Kafka does not take them."""

from __future__ import annotations

import threading
import time

import orjson
import pytest
from servers import wait_for

pytest.importorskip("confluent_kafka")
from kafka_servers import MockCluster  # only where Kafka's client is

from fraudsdk.adapters.kafka import recorder as recorder_module
from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.adapters.kafka.recorder import TransactionRecorder
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError, StreamUnavailableError

NOON_US = 1_772_452_800_000_000


def asked(number: int, user: str | None = "u") -> Transaction:
    return Transaction(f"t-{number}", event_time_us=NOON_US + number, amount_minor=1250, user_id=user, card_id="c")


@pytest.fixture
def cluster():
    cluster = MockCluster({"transactions": 3})
    yield cluster
    cluster.set_up()
    cluster.stop()


@pytest.fixture
def new_recorder(cluster):
    made = []

    def new(**options):
        made.append(TransactionRecorder(KafkaConnection(cluster.bootstrap), **options))
        return made[-1]

    yield new
    cluster.set_up()
    for each in made:
        each.close()


def test_requests_of_many_threads_are_in_the_topic_once_each_those_of_a_user_together(cluster, new_recorder):
    recorder = new_recorder()

    def send(first):
        for number in range(first, first + 100):
            assert "" == recorder.record(asked(number, f"u{number % 10}"))

    threads = [threading.Thread(target=send, args=(100 * each,)) for each in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    recorder.close()

    messages = cluster.read_all("transactions")
    assert {f"t-{number}" for number in range(400)} == {
        orjson.loads(each.value())["transaction_id"] for each in messages
    }
    assert 400 == len(messages) == recorder.counters()["requests_recorded"]
    assert 10 == len({(each.key(), each.partition()) for each in messages})


def test_who_names_no_user_is_recorded_without_a_key(cluster, new_recorder):
    recorder = new_recorder()
    recorder.record(asked(1, None))
    recorder.close()

    assert [None] == [each.key() for each in cluster.read_all("transactions")]


def test_a_check_tells_brokers_that_answer_from_those_that_do_not(cluster, new_recorder):
    recorder = new_recorder()
    recorder.check()

    cluster.set_down()
    with pytest.raises(StreamUnavailableError):
        recorder.check(timeout_s=0.3)


def test_while_brokers_are_down_requests_wait_it_is_said_and_none_is_lost(cluster, new_recorder):
    recorder = new_recorder()
    recorder.record(asked(0))
    wait_for("the first to arrive", lambda: recorder.counters()["requests_recorded"] == 1)
    assert "" == recorder.doubt()

    cluster.set_down()
    assert ["", ""] == [recorder.record(asked(number)) for number in (1, 2)]

    wait_for("doubt", recorder.doubt)
    assert "have not reached Kafka" in recorder.doubt()
    cluster.set_up()
    wait_for("the rest to arrive", lambda: recorder.counters()["requests_recorded"] == 3)
    assert "" == recorder.doubt()
    assert ["t-0", "t-1", "t-2"] == [
        orjson.loads(each.value())["transaction_id"] for each in cluster.read_all("transactions")
    ]


def test_what_has_no_room_is_refused_counted_and_taken_later(cluster, new_recorder):
    recorder = new_recorder(max_queued=100)
    cluster.set_down()

    said = [recorder.record(asked(number)) for number in range(101)]

    assert [""] * 100 == said[:100]
    assert "100 requests wait for Kafka; send it again later" == said[100]
    assert (100, 1) == tuple(recorder.counters()[f"requests_{each}"] for each in ("waiting", "not_recorded"))
    cluster.set_up()
    wait_for("room", lambda: recorder.counters()["requests_recorded"] == 100)
    assert "" == recorder.record(asked(100))


def test_closing_says_how_many_are_lost(cluster, new_recorder, monkeypatch):
    monkeypatch.setattr(recorder_module, "_CLOSE_S", 0.3)
    recorder = TransactionRecorder(KafkaConnection(cluster.bootstrap))
    cluster.set_down()
    recorder.record(asked(1))
    recorder.record(asked(2))

    started_s = time.monotonic()
    with pytest.raises(StreamUnavailableError, match="2 requests were not recorded"):
        recorder.close()
    assert time.monotonic() - started_s < 10


def test_a_connection_that_will_not_do_is_refused():
    with pytest.raises(ConfigurationError):
        TransactionRecorder(KafkaConnection("localhost"))
