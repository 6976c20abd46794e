"""A sidecar that decides by what the consumers of a stream remember, and sends them what it is asked."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from servers import IN_MEMORY, RedisServer, require_redis, wait_for

pytest.importorskip("confluent_kafka")
from kafka_servers import MockCluster, client_options  # only where Kafka's client is

require_redis()
from fraudsdk import Scorer, ScorerConfig  # noqa: E402
from fraudsdk.adapters.grpc import ScoringClient  # noqa: E402
from fraudsdk.adapters.grpc.errors import ServiceError  # noqa: E402
from fraudsdk.adapters.kafka.dead_letters import DeadLetters  # noqa: E402
from fraudsdk.adapters.kafka.messages import JsonMessages  # noqa: E402
from fraudsdk.adapters.kafka.worker import KafkaWorker, Topics  # noqa: E402
from fraudsdk.adapters.redis.stream import StreamRedis  # noqa: E402
from fraudsdk.features.catalogue import reference_feature_set  # noqa: E402
from fraudsdk.scorer.streamed_parts import StreamedParts  # noqa: E402

PAN = "4111111111111111"
HASH_KEY = b"a key for tests only"  # of every sidecar of the tests


class Consumer:
    """A worker on a thread of this process."""

    def __init__(self, cluster, redis, config) -> None:
        def open_state(partition, origin):
            return StreamedParts(config, StreamRedis(redis.client(), partition), origin)

        options = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 200}
        self.worker = KafkaWorker(
            client_options(cluster.bootstrap),
            Topics(),
            open_state,
            JsonMessages(1 << 16),
            DeadLetters(),
            consumer_options=options,
        )
        self.failures: list[Exception] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.worker.run()
        except Exception as error:
            self.failures.append(error)

    def wait_for(self, n: int) -> None:
        """Until so many messages are scored and committed."""

        def is_done() -> bool:
            assert not self.failures, self.failures
            committed = sum(each.committed for each in list(self.worker._partitions.values()))
            return self.worker.is_ready and committed >= n

        wait_for(f"{n} messages to be committed", is_done, 60.0)

    def stop(self) -> None:
        self.worker.stop()
        self._thread.join(60)
        assert not self._thread.is_alive() and not self.failures, self.failures


@pytest.fixture
def cluster():
    cluster = MockCluster({"transactions": 2, "transactions.dlq": 1, "fraud-alerts": 1})
    yield cluster
    cluster.set_up()
    cluster.stop()


@pytest.fixture
def redis(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture
def config(model):
    return ScorerConfig(model=model, hash_key=HASH_KEY, max_entities=50_000)


@pytest.fixture
def new_consumer(cluster, redis, config):
    made = []

    def new():
        made.append(Consumer(cluster, redis, config))
        return made[-1]

    yield new
    for each in made:
        each.stop()


@pytest.fixture
def consumer(new_consumer):
    """One that has all partitions."""
    consumer = new_consumer()
    wait_for("the group to be there", lambda: len(consumer.worker._partitions) == 2 and consumer.worker.is_ready, 60.0)
    return consumer


@pytest.fixture
def sidecar(new_sidecar, cluster, redis, consumer):
    return new_sidecar(
        redis__url=f"redis://127.0.0.1:{redis.port}",
        redis__group="tx",
        redis__reads_only=True,
        record_to__brokers=cluster.bootstrap,
    ).start()


@pytest.fixture
def client(sidecar):
    with ScoringClient(sidecar.target, timeout_s=20.0, max_attempts=4) as client:
        yield client


def purchase(number: int, user: str = "u", **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": user,
        "card_id": f"card of {user}",
        "merchant_id": f"m-{number % 3}",
        "amount": f"{10 + number % 90}.50",
        "currency": "EUR",
        "event_time_us": 1_772_452_800_000_000 + 1_000_000 * number,
        **fields,
    }


def by_number(sent):
    """The same of a card that is known by its number."""
    return {name: value for name, value in sent.items() if name != "card_id"} | {"pan": PAN}


def values_of(explained) -> dict[str, float]:
    return {each.name: each.value for each in explained.features}


def test_what_is_asked_is_remembered_once_by_the_consumer_and_read_back(client, sidecar, consumer, config):
    """
    One by one, in batches, with a card number, and again: at rest the features are those of one scorer that saw all of it once.
    """
    sent = [purchase(i, f"u{i % 3}") for i in range(30)] + [by_number(purchase(i, "u0")) for i in range(30, 35)]
    first = [client.score(each) for each in sent[:20]]
    batch = client.score_batch(sent[20:])
    again = [client.score(each) for each in (sent[0], sent[25], sent[34])]
    consumer.wait_for(38)

    assert [False] * 35 + [True] * 3 == [each.duplicate for each in (*first, *batch, *again)]
    with Scorer.open(config) as whole:
        whole.score_batch(sent)
        for user in ("u0", "u1", "u2"):
            question = purchase(100, user)
            wanted = values_of(whole.explain(question))

            def is_read(question=question, wanted=wanted):
                found = values_of(client.explain(question))
                return found["user_count_30d"] == wanted["user_count_30d"] and found

            assert_same(wanted, wait_for("the sidecar to read it", is_read))


def assert_same(wanted, found) -> None:
    for feature in reference_feature_set("EUR").features:
        exact = feature.aggregate in ("count", "sum", "max", "distinct", "count_ever", "is_new", "seconds_since_last")
        tolerance = 0 if exact else 1e-5
        np.testing.assert_allclose(
            found[feature.name], wanted[feature.name], rtol=tolerance, atol=tolerance, err_msg=feature.name
        )


def test_no_digit_of_a_card_number_is_in_the_topic(client, cluster, consumer):
    client.score({**purchase(1), "card_id": PAN})
    client.score_batch([by_number(purchase(2))])
    consumer.wait_for(2)

    assert not any(PAN[:8].encode() in each.value() for each in cluster.read_all("transactions"))
    assert 2 == consumer.worker.seen.counts["scored"]


def test_a_what_if_and_what_is_refused_are_not_sent(client, cluster, consumer):
    client.score(purchase(1), record=False)
    client.score_batch([purchase(2)], record=False)
    with pytest.raises(Exception, match="amount"):
        client.score({**purchase(3), "amount": "-1"})
    client.score(purchase(4))
    consumer.wait_for(1)

    assert 1 == len(cluster.read_all("transactions"))


def test_labels_are_refused_with_the_way_they_should_go(client):
    with pytest.raises(ServiceError, match=r"UNIMPLEMENTED.*topic of labels"):
        client.feedback("t-1", is_fraud=True)


def test_while_kafka_is_down_decisions_go_on_and_say_so_and_all_is_remembered_later(client, sidecar, cluster, consumer):
    client.score(purchase(0))
    consumer.wait_for(1)
    cluster.set_down()

    n_asked = 1

    def decision():
        nonlocal n_asked
        n_asked += 1
        return client.score(purchase(n_asked))

    word = "state: requests have not reached Kafka"
    wait_for("a word of it", lambda: word in (decision().degraded_because or ""))
    assert "requests_waiting" in sidecar.metrics()

    cluster.set_up()
    consumer.wait_for(n_asked)
    wait_for("no more of it", lambda: not decision().degraded, 60.0)


def test_while_redis_is_down_decisions_go_on_and_say_so(client, redis, consumer):
    client.score(purchase(0))
    consumer.wait_for(1)
    redis.kill()

    wait_for("a word of it", lambda: "state:" in (client.score(purchase(1), record=False).degraded_because or ""))
    redis.start()  # empty: the consumer begins the topic anew
    wait_for("no more of it", lambda: not client.score(purchase(2), record=False).degraded, 60.0)


def test_another_consumer_goes_on_where_one_stopped(client, consumer, new_consumer):
    client.score_batch([purchase(i) for i in range(5)])
    consumer.wait_for(5)
    consumer.stop()
    client.score_batch([purchase(i) for i in range(5, 10)])

    new_consumer().wait_for(10)

    wait_for("all ten", lambda: values_of(client.explain(purchase(50)))["user_count_30d"] == 11)  # and itself


def test_a_stop_sends_what_waits(client, sidecar, cluster, consumer):
    client.score_batch([purchase(i) for i in range(1_000)])
    assert 0 == sidecar.stop()

    assert 1_000 == len(cluster.read_all("transactions"))


def test_a_stop_says_what_kafka_did_not_take(client, sidecar, cluster, consumer):
    cluster.set_down()
    client.score(purchase(1))

    assert 2 == sidecar.stop()
    assert "1 requests were not recorded" in sidecar.said()


def test_a_group_that_nobody_writes_is_refused_at_the_start(new_sidecar, redis):
    sidecar = new_sidecar(redis__url=f"redis://127.0.0.1:{redis.port}", redis__group="typo", redis__reads_only=True)
    sidecar.start(wait=False)

    assert 2 == sidecar.process.wait(60)
    assert "nobody has written to group 'typo'" in sidecar.said()
