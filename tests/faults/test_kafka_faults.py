"""
What a broker, a topic or Redis may do to a worker that consumes: it waits, or says what is missing, and skips and counts twice
nothing.
"""

from __future__ import annotations

import logging
import re
import threading
import time

import pytest
from kafka_servers import KafkaBroker, MockCluster, require_kafka
from poison_messages import poison_messages
from servers import EVERY_WRITE, RedisServer, require_redis, wait_for

require_redis()
pytest.importorskip("confluent_kafka")
from confluent_kafka import KafkaError  # noqa: E402  # only where Kafka is
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource  # noqa: E402
from consumes_kafka import (  # noqa: E402
    CONFIG,
    GROUP,
    POISON,
    TOPICS,
    Oracle,
    Sent,
    message,
    names_of_user,
    oracle_of,
    origin_of,
    payment,
    problems_of,
    worker_of,
)

from fraudsdk.adapters.redis import connect  # noqa: E402
from fraudsdk.adapters.redis.erasure import erase_shared  # noqa: E402
from fraudsdk.errors import SinkDeliveryError, StateError  # noqa: E402

PAN = "4539148803436467"
TOPICS_OF_WORKER = {TOPICS.transactions: 2, TOPICS.alerts: 1, TOPICS.dead_letters: 1, TOPICS.decisions: 1}
# Keys of Kafka's protocol.
PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH = 0, 1, 2, 3, 8, 9
FIND_COORDINATOR, JOIN_GROUP, HEARTBEAT, SYNC_GROUP, INIT_PRODUCER_ID = 10, 11, 12, 14, 22
NOT_LEADER, TIMED_OUT = KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT
NOT_COORDINATOR, NO_COORDINATOR = KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE
LOADING, REBALANCE = KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.REBALANCE_IN_PROGRESS
UNKNOWN_MEMBER = KafkaError.UNKNOWN_MEMBER_ID


@pytest.fixture
def redis_server(tmp_path):
    server = RedisServer(tmp_path / "redis", *EVERY_WRITE).start()
    yield server
    server.stop()


@pytest.fixture
def cluster():
    servers = MockCluster(TOPICS_OF_WORKER, n_brokers=3)
    yield servers
    servers.stop()


@pytest.fixture(scope="module")
def own_broker(tmp_path_factory):
    require_kafka()
    patient = {"broker.session.timeout.ms": "18000", "broker.heartbeat.interval.ms": "1000"}
    server = KafkaBroker(tmp_path_factory.mktemp("broker"), settings=patient).start()
    yield server
    server.stop()


@pytest.fixture
def broker(own_broker):
    """A real one, with topics that nobody has used."""
    for name, n_partitions in TOPICS_OF_WORKER.items():
        own_broker.create_topic(name, n_partitions, max_message_bytes="12000000")
    yield own_broker
    for name in TOPICS_OF_WORKER:
        own_broker.delete_topic(name)


class Running(threading.Thread):
    """A worker at work, until the block ends; then it has stopped by itself, and raised what it had to."""

    def __init__(self, cluster, redis_server, **options) -> None:
        super().__init__(daemon=True)
        self.worker = worker_of(cluster.bootstrap, redis_server.port, **options)
        self._failure: Exception | None = None

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
        assert not self.is_alive(), "it does not stop"
        self.require_well()

    def require_well(self) -> None:
        if self._failure is not None:
            raise self._failure

    def wait_for(self, what, is_so, timeout_s=60.0) -> None:
        wait_for(what, lambda: self.require_well() or is_so(), timeout_s)

    def wait_for_failure(self) -> None:
        """Leave the block with what it raises."""
        self.join(timeout=30)


def send(cluster, messages) -> None:
    """Have messages in the topic, after those that are there."""
    producer = cluster.producer(enable_idempotence=True, message_max_bytes=12_000_000)
    for n, sent in messages:
        producer.produce(TOPICS.transactions, sent.value, sent.key, headers=[("n", b"%d" % n)])
        producer.poll(0)
    assert 0 == producer.flush(60)


def some(first: int, until: int):
    return [(n, message(n)) for n in range(first, until)]


def places(redis_server) -> dict[int, int]:
    with redis_server.client() as client:
        found = {each: client.hget(f"fs1:{{tx.{each}}}:meta", "o") for each in range(TOPICS_OF_WORKER["transactions"])}
    return {partition: int(place or 0) for partition, place in found.items()}


def is_through(redis_server, n: int) -> bool:
    """Whether so many messages are in the state, and every alert was acknowledged."""
    with redis_server.client() as client:
        n_untold = sum(client.xlen(f"fs1:{{tx.{each}}}:out") for each in range(TOPICS_OF_WORKER["transactions"]))
    return not n_untold and sum(places(redis_server).values()) == n


def require_exact(cluster, redis_server) -> Oracle:
    """State and topics are what one process makes of the log."""
    oracle = oracle_of(cluster.read_all(TOPICS.transactions))
    with redis_server.client() as client:
        assert [] == problems_of(oracle, client, cluster.read_all)
    return oracle


# --- the broker -----------------------------------------------------------------------------------------------------------


def test_a_broker_that_is_down_is_waited_for(cluster, redis_server):
    send(cluster, some(0, 600))
    for each in (1, 2, 3):
        cluster.set_down(each)
    with Running(cluster, redis_server) as running:
        time.sleep(1.0)  # at the start
        for each in (1, 2, 3):
            cluster.set_up(each)
        running.wait_for("the first messages", lambda: is_through(redis_server, 600))
        for each in (1, 2, 3):
            cluster.set_down(each)
        time.sleep(2.0)
        for each in (1, 2, 3):
            cluster.set_up(each)
        send(cluster, some(600, 1_200))
        running.wait_for("the others", lambda: is_through(redis_server, 1_200))
    require_exact(cluster, redis_server)


@pytest.mark.parametrize(
    ("api", "errors"),
    [
        (PRODUCE, (NOT_LEADER, TIMED_OUT)),
        (FETCH, (NOT_LEADER, TIMED_OUT, KafkaError.UNKNOWN_TOPIC_OR_PART)),
        (LIST_OFFSETS, (NOT_LEADER, TIMED_OUT, KafkaError.LEADER_NOT_AVAILABLE)),
        (METADATA, (TIMED_OUT, KafkaError.BROKER_NOT_AVAILABLE)),
        (OFFSET_COMMIT, (NOT_COORDINATOR, LOADING, TIMED_OUT, UNKNOWN_MEMBER)),
        (OFFSET_FETCH, (NOT_COORDINATOR, LOADING, TIMED_OUT)),
        (FIND_COORDINATOR, (NO_COORDINATOR, LOADING)),
        (JOIN_GROUP, (NOT_COORDINATOR, NO_COORDINATOR, LOADING, UNKNOWN_MEMBER)),
        (HEARTBEAT, (NOT_COORDINATOR, REBALANCE, UNKNOWN_MEMBER)),
        (SYNC_GROUP, (NOT_COORDINATOR, REBALANCE)),
        (INIT_PRODUCER_ID, (NOT_COORDINATOR, LOADING)),
    ],
)
def test_errors_of_the_broker_are_passed_over(cluster, redis_server, api, errors):
    send(cluster, some(0, 300))
    cluster.fail_next(api, *errors)
    with Running(cluster, redis_server) as running:
        running.wait_for("the first messages", lambda: is_through(redis_server, 300))
        cluster.fail_next(api, *errors)
        send(cluster, some(300, 600))
        running.wait_for("the others", lambda: is_through(redis_server, 600))
    require_exact(cluster, redis_server)


def test_a_coordinator_that_moves_is_followed(cluster, redis_server):
    send(cluster, some(0, 300))
    with Running(cluster, redis_server) as running:
        for broker, until in ((1, 600), (2, 900), (3, 1_200), (1, 1_500)):
            cluster.set_coordinator(GROUP, broker)
            send(cluster, some(until - 300, until))
            running.wait_for("what was sent", lambda until=until: is_through(redis_server, until))
    require_exact(cluster, redis_server)


# --- the topic ------------------------------------------------------------------------------------------------------------


def read(cluster, redis_server, n: int) -> None:
    """Let a worker read what there is."""
    with Running(cluster, redis_server) as running:
        running.wait_for("what was sent", lambda: is_through(redis_server, n))


def test_messages_that_are_gone_before_they_were_read_are_an_error(broker, redis_server):
    send(broker, some(0, 400))
    read(broker, redis_server, 400)
    before = places(redis_server)
    send(broker, some(400, 800))
    broker.delete_records(TOPICS.transactions, 0, before[0] + 10)

    with (
        pytest.raises(StateError, match=rf"messages {before[0]} to {before[0] + 9} of transactions \[0\] are gone"),
        Running(broker, redis_server) as running,
    ):
        running.wait_for_failure()
    assert before[0] == places(redis_server)[0]


def test_messages_that_are_gone_after_they_were_read_are_not_missed(broker, redis_server):
    send(broker, some(0, 400))
    read(broker, redis_server, 400)
    log = broker.read_all(TOPICS.transactions)
    for partition, place in places(redis_server).items():
        broker.delete_records(TOPICS.transactions, partition, place)
    send(broker, some(400, 800))
    with Running(broker, redis_server) as running:
        running.wait_for("the others", lambda: sum(places(redis_server).values()) == 800)

    oracle = oracle_of([*log, *broker.read_all(TOPICS.transactions)])
    with redis_server.client() as client:
        assert [] == problems_of(oracle, client, broker.read_all)


def test_a_topic_whose_beginning_is_gone_is_begun_where_it_begins(broker, redis_server):
    send(broker, some(0, 400))
    broker.delete_records(TOPICS.transactions, 0, 50)
    left = len(broker.read_all(TOPICS.transactions))
    with Running(broker, redis_server) as running:
        running.wait_for("what is left", lambda: sum(places(redis_server).values()) == left + 50)
    assert left == sum(running.worker.seen.refused.values()) + running.worker.seen.counts["scored"]


@pytest.mark.parametrize("n_again", [100, 1_000])
def test_a_topic_that_was_made_anew_is_another(broker, redis_server, n_again):
    send(broker, some(0, 400))
    read(broker, redis_server, 400)
    before = places(redis_server)
    broker.delete_topic(TOPICS.transactions)
    broker.create_topic(TOPICS.transactions, TOPICS_OF_WORKER[TOPICS.transactions])
    send(broker, some(0, n_again))

    with pytest.raises(StateError, match="made anew"), Running(broker, redis_server) as running:
        running.wait_for_failure()
    assert before == places(redis_server)


# --- poison ---------------------------------------------------------------------------------------------------------------


def test_a_thousand_messages_of_poison_are_letters_and_nothing_else(broker, redis_server, caplog):
    caplog.set_level(logging.DEBUG)
    poison = poison_messages(1_000, seed=23)
    # Who sends a card number as the key of a transaction sends no transaction with one.
    good = [(n, Sent(PAN.encode(), each.value, None) if n % 7 == 0 else each) for n, each in some(0, 540) if each.row][
        :500
    ]
    bad = [(POISON + n, each) for n, each in enumerate(poison)]
    huge = b'{"note":"' + PAN.encode() * 600_000 + b'"}'
    bad.append((2_000_000, Sent(b"u-1", huge, None)))
    send(broker, [each for pair in zip(good, bad[::2][:500], bad[1::2], strict=False) for each in pair] + bad[-1:])
    with Running(broker, redis_server) as running:
        running.wait_for("what was sent", lambda: is_through(redis_server, 1_501))

    reasons = {n: each.reason for n, each in enumerate(poison, POISON)} | {2_000_000: "too_large"}
    log = broker.read_all(TOPICS.transactions)
    numbers = {(each.partition(), each.offset()): int(each.headers()[0][1]) for each in log}
    letters = broker.read_all(TOPICS.dead_letters)
    told = {numbers[origin_of(each)]: dict(each.headers())["fraudsdk.reason"].decode() for each in letters}
    assert reasons == told
    oracle = oracle_of(log)
    with redis_server.client() as client:
        assert [] == problems_of(oracle, client, broker.read_all)

    pans = {each.pan for each in poison} | {PAN}
    others = broker.read_all(TOPICS.alerts) + broker.read_all(TOPICS.decisions)
    assert len(others) > 500
    for each in letters:
        require_no_digits([each.key(), each.value(), dict(each.headers())["fraudsdk.error"]], pans)
    for each in others:
        require_no_digits([each.key(), each.value()], pans)
    assert not pans & {*re.findall(r"\d{16}", caplog.text)}
    with redis_server.client() as client:
        kept = [part for name in client.scan_iter("*") for part in (name, client.dump(name))]
    assert not any(pan.encode() in each for pan in pans for each in kept)


def require_no_digits(texts, pans) -> None:
    for each in texts:
        digits = re.sub(rb"[^0-9]", b"", each or b"")
        assert not any(pan.encode() in digits for pan in pans)


# --- Redis ----------------------------------------------------------------------------------------------------------------


def test_state_that_is_emptied_while_it_is_used_is_made_again(cluster, redis_server):
    send(cluster, some(0, 1_000))
    with Running(cluster, redis_server) as running:
        running.wait_for("the first messages", lambda: is_through(redis_server, 1_000))
        with redis_server.client() as client:
            client.flushall()
        send(cluster, some(1_000, 1_500))
        running.wait_for("all of them", lambda: is_through(redis_server, 1_500))
    require_exact(cluster, redis_server)
    with redis_server.client() as client:
        assert {b"schema", b"stream"} <= {*client.hkeys("fs1:{tx}:writers")}


def test_state_that_is_emptied_before_a_start_is_made_again_and_that_is_said(cluster, redis_server):
    send(cluster, some(0, 1_000))
    with Running(cluster, redis_server) as running:
        running.wait_for("the messages", lambda: is_through(redis_server, 1_000))
        time.sleep(1.5)  # the group is told every second
    with redis_server.client() as client:
        client.flushall()
    with Running(cluster, redis_server) as running:
        running.wait_for("all of them", lambda: is_through(redis_server, 1_000))
    assert TOPICS_OF_WORKER[TOPICS.transactions] == running.worker.seen.counts["state_lost"]
    require_exact(cluster, redis_server)


def test_state_that_cannot_be_made_again_is_an_error(broker, redis_server):
    send(broker, some(0, 400))
    with Running(broker, redis_server) as running:
        running.wait_for("the messages", lambda: is_through(redis_server, 400))
        time.sleep(1.5)
    broker.delete_records(TOPICS.transactions, 0, 10)
    with redis_server.client() as client:
        client.flushall()
    with (
        pytest.raises(StateError, match=r"is gone, though \d+ messages were read"),
        Running(broker, redis_server) as running,
    ):
        running.wait_for_failure()
    assert 0 == places(redis_server)[0]


def test_a_redis_that_is_full_is_waited_for(cluster, redis_server):
    send(cluster, some(0, 500))
    read(cluster, redis_server, 500)
    with redis_server.client() as client:
        client.config_set("maxmemory", 1)
        send(cluster, some(500, 1_000))
        with Running(cluster, redis_server) as running:
            running.wait_for("refusals", lambda: running.worker.seen.counts["state_unavailable"] > 3)
            assert 500 == sum(places(redis_server).values())
            client.config_set("maxmemory", 0)
            running.wait_for("all of them", lambda: is_through(redis_server, 1_000))
    require_exact(cluster, redis_server)


def test_somebody_is_erased_while_the_stream_goes_on(cluster, redis_server):
    whose, until = "u7", 1_000
    send(cluster, some(0, until))
    with Running(cluster, redis_server) as running:
        running.wait_for("the first messages", lambda: is_through(redis_server, until))
        client = connect(f"redis://127.0.0.1:{redis_server.port}")
        erased = erase_shared(client, "tx", CONFIG, {"user_id": whose}, time.time_ns() // 1_000, wait_s=20)
        assert erased.n_entities > 0
        assert 0 == erased.n_found

        # What is said of before the erasure, and comes after it, is not remembered.
        send(cluster, some(until, 2 * until))
        running.wait_for("the others", lambda: is_through(redis_server, 2 * until))
        assert 2 * TOPICS_OF_WORKER[TOPICS.transactions] <= running.worker.seen.counts["claims"]
    assert any(payment(n)["user_id"] == whose for n in range(until, 2 * until))
    with redis_server.client() as client:
        kept = {name.decode() for name in client.scan_iter("*")}
    assert names_of_user("u7").isdisjoint(kept)
    assert not names_of_user("u8").isdisjoint(kept)


# --- who has a partition --------------------------------------------------------------------------------------------------


def test_two_that_are_given_the_same_partition_take_turns(cluster, redis_server):
    send(cluster, some(0, 500))
    with Running(cluster, redis_server, group="one") as one:
        one.wait_for("the first messages", lambda: is_through(redis_server, 500))
        with Running(cluster, redis_server, group="other") as other:
            other.wait_for("its claims", lambda: other.worker.seen.counts["claims"] >= 2)
            send(cluster, some(500, 1_500))
            one.wait_for("its loss", lambda: one.worker.seen.counts["partitions_lost"])
            other.wait_for("the others", lambda: is_through(redis_server, 1_500))
    require_exact(cluster, redis_server)


def test_who_is_told_to_stop_commits_what_it_scored(cluster, redis_server):
    send(cluster, some(0, 4_000))
    with Running(cluster, redis_server) as first:
        first.wait_for("some messages", lambda: first.worker.seen.counts["scored"])
    assert 0 < sum(places(redis_server).values())
    assert sum(places(redis_server).values()) == n_decided(first)
    with Running(cluster, redis_server) as second:
        second.wait_for("the others", lambda: is_through(redis_server, 4_000))
    assert 4_000 == n_decided(first) + n_decided(second)
    require_exact(cluster, redis_server)


def n_decided(running: Running) -> int:
    seen = running.worker.seen
    return seen.counts["scored"] + sum(seen.refused.values())


def test_a_letter_that_nobody_takes_stops_the_worker_and_nothing_of_it_is_committed(broker, redis_server):
    admin = broker.admin()
    small = ConfigEntry("max.message.bytes", "200", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource("topic", TOPICS.dead_letters, incremental_configs=[small])
    for each in admin.incremental_alter_configs([resource]).values():
        each.result()
    send(broker, [(POISON, Sent(b"u-1", b"no JSON" * 1_000, None))])

    with pytest.raises(SinkDeliveryError, match=r"transactions\.dlq"), Running(broker, redis_server) as running:
        running.wait_for_failure()
    assert 0 == sum(places(redis_server).values())
