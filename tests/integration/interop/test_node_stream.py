"""Transactions from a producer in JavaScript, through ``fraudsdk kafka``, to a consumer of alerts in JavaScript."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict

import pytest
from kafka_servers import KafkaBroker, require_kafka
from keeps_state import plan
from node_clients import require_node, run
from service_processes import HASH_KEY, MODEL, StreamProcess

from fraudsdk import Outcome, Scorer, ScorerConfig
from fraudsdk.adapters.kafka.alerts import told_of
from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.adapters.kafka.producer import MessageProducer

require_node()
require_kafka()

N_PARTITIONS, N_ALERT_PARTITIONS = 6, 3
TRANSACTIONS = plan(2_000, seed=36)
# Some users whose names are not all alike, and not all ASCII.
MESSAGES = [{"key": f"{each['user_id']}-é", "value": json.dumps(each)} for each in TRANSACTIONS]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    server = KafkaBroker(tmp_path_factory.mktemp("broker")).start()
    for topic, n in (("transactions", 6), ("ours", 6), ("fraud-alerts", N_ALERT_PARTITIONS), ("transactions.dlq", 1)):
        server.create_topic(topic, n)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def produced(broker):
    """What a producer in JavaScript has put into the topic."""
    case = {"name": "it", "does": "produce", "topic": "transactions", "messages": MESSAGES}
    run("transactions.mjs", {"bootstrap": broker.bootstrap, "cases": [case]})
    return broker.read_all("transactions")


def partitions(messages) -> dict[bytes, set[int]]:
    """Where the messages of each key are."""
    found = defaultdict(set)
    for each in messages:
        found[each.key()].add(each.partition())
    return dict(found)


def expected_alerts(messages) -> dict[str, dict]:
    """By their ids: what a scorer for each partition says of its messages, in their order."""
    alerts = {}
    for partition in range(N_PARTITIONS):
        mine = [each for each in messages if each.partition() == partition]
        rows = [json.loads(each.value()) for each in mine]
        with Scorer.open(ScorerConfig(model=MODEL, hash_key=HASH_KEY)) as scorer:
            decisions = list(scorer.score_batch(rows))
        for message, row, decision in zip(mine, rows, decisions, strict=True):
            if decision.outcome is not Outcome.APPROVE:
                place = f"transactions|{partition}|{message.offset()}|{decision.model_version}"
                told = told_of(decision, row, "transactions", partition, message.offset())
                alerts[hashlib.sha256(place.encode()).hexdigest()] = json.loads(told)
    return alerts


def test_a_key_goes_to_the_partition_that_our_producer_puts_it_in(broker, produced):
    ours = MessageProducer(KafkaConnection(broker.bootstrap))
    for each in MESSAGES:
        ours.send("ours", each["key"].encode(), each["value"].encode())
    ours.finish()

    assert len(MESSAGES) == len(produced)
    assert partitions(broker.read_all("ours")) == partitions(produced)
    assert set(range(N_PARTITIONS)) == set().union(*partitions(produced).values())


def test_alerts_are_those_of_scorers_in_process_to_the_last_bit(broker, produced, tmp_path):
    """
    Each once, by its id, in the partition of its user.
    """
    expected = expected_alerts(produced)
    assert len(expected) > 20
    stream = StreamProcess(tmp_path / "stream")
    try:
        stream.start(broker.bootstrap)
        case = {"name": "it", "does": "consume", "topic": "fraud-alerts", "n": len(expected)}
        found = run("transactions.mjs", {"bootstrap": broker.bootstrap, "cases": [case]})["it"]["found"]
    finally:
        assert 0 == stream.stop(), stream.said()[-2_000:]
    alerts = [json.loads(each["value"]) for each in found]

    assert expected == {each["alert_id"]: each for each in alerts}
    assert len(expected) == len(alerts) == len(broker.read_all("fraud-alerts"))
    assert [] == broker.read_all("transactions.dlq")
    assert {each["key"] for each in found} == {each["user_id"] or each["transaction_id"] for each in alerts}
