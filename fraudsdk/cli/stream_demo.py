"""
What ``fraudsdk kafka --demo`` shows: a stream consumed on brokers within this process, by a worker that dies halfway.

The one that goes on counts nothing twice and loses nothing, which is checked against a scorer that nothing happened to.
"""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import orjson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from fraudsdk.adapters.kafka.connection import LOGGER, KafkaConnection
from fraudsdk.adapters.kafka.dead_letters import DeadLetters
from fraudsdk.adapters.kafka.local_state import LocalState
from fraudsdk.adapters.kafka.messages import message_format
from fraudsdk.adapters.kafka.producer import MessageProducer
from fraudsdk.adapters.kafka.worker import KafkaWorker, Topics
from fraudsdk.cli.data import map_columns
from fraudsdk.cli.options import say
from fraudsdk.cli.progress import counting
from fraudsdk.cli.to_kafka import send_table
from fraudsdk.config import ScorerConfig
from fraudsdk.encoding.mapping import ColumnMapping
from fraudsdk.errors import FraudSDKError, ModelNotFoundError, StreamUnavailableError
from fraudsdk.simulation import SimulationSpec, simulate

if TYPE_CHECKING:
    from confluent_kafka import Message

TRANSACTIONS: Final = 30_000
USERS: Final = 600
_POISON: Final = (
    b'{"transaction_id": "t-x", "amount": "much"}',
    b"{ no JSON, with a card 4111 1111 1111 1111",
    b"\xff\xfe",
)
_KEY: Final = b"a key for the demo alone"
_DUE_S: Final = 120.0
_SHOWN: Final = 5


class _Brokers:
    """Brokers of librdkafka's own, for as long as this is kept."""

    def __init__(self) -> None:
        self._owner = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "logger": LOGGER})
        (broker,) = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{broker.host}:{broker.port}"


def show(model: Path) -> None:
    """
    Show it, and say what came of it.

    Raises
    ------
    ModelNotFoundError
        There is no model.
    FraudSDKError
        What was decided is not what it should be.
    """
    if not model.is_dir():
        raise ModelNotFoundError(f"there is no model in {model}; name one with --model")
    brokers = _Brokers()
    connection = KafkaConnection(brokers.bootstrap)
    with tempfile.TemporaryDirectory(prefix="fraudsdk-demo-") as folder:
        say(f"brokers at {brokers.bootstrap}, within this process")
        n_sent = _produce(connection)
        first = _worker(connection, ScorerConfig(model, hash_key=_KEY), Path(folder) / "state")
        _run(first, "first worker", lambda: _done(first) >= n_sent // 2)
        say(f"the first worker is stopped after {_done(first):,} messages; another goes on from where its state is")
        second = _worker(connection, ScorerConfig(model, hash_key=_KEY), Path(folder) / "state")
        _run(second, "second worker", lambda: _lag(second) == 0)
        _compare(connection, second, ScorerConfig(model, hash_key=_KEY), n_sent)


def _produce(connection: KafkaConnection) -> int:
    spec = SimulationSpec(transactions=TRANSACTIONS, users=USERS, days=30, fraud_rate=0.01, seed=7)
    table = map_columns(simulate(spec), ColumnMapping(), "simulation")
    producer = MessageProducer(connection)
    with counting("send", TRANSACTIONS) as count:
        sent = send_table(table, producer, Topics().transactions, progress=count)
    for message in _POISON:
        producer.send(Topics().transactions, b"somebody", message)
    producer.finish()
    n_sent = sent.n_transactions + len(_POISON)
    say(f"sent {n_sent:,} messages, keyed by user; {len(_POISON)} of them are no transactions")
    return n_sent


def _worker(connection: KafkaConnection, config: ScorerConfig, folder: Path) -> KafkaWorker:
    def open_state(partition: int, origin: bytes) -> LocalState:
        return LocalState(replace(config, state_dir=folder / str(partition)), b"demo %d, %s" % (partition, origin))

    topics = Topics(decisions="fraud-decisions")
    # These brokers keep the place of one that left for as long as its session may last.
    soon = {"session.timeout.ms": 6_000, "heartbeat.interval.ms": 500}
    return KafkaWorker(
        connection.settings(), topics, open_state, message_format("json"), DeadLetters(), consumer_options=soon
    )


def _run(worker: KafkaWorker, name: str, is_over: Callable[[], bool]) -> None:
    """Run a worker until it is enough, and stop it."""
    broke: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # raised again below
            broke.append(error)

    thread = threading.Thread(target=run, name="fraudsdk-demo")
    started_s = time.monotonic()
    thread.start()
    with counting(name, TRANSACTIONS) as count:
        while thread.is_alive() and not is_over():
            if time.monotonic() - started_s > _DUE_S:
                broke.append(StreamUnavailableError(f"the {name} is not done after {_DUE_S:.0f} s; try again"))
                break
            count(min(TRANSACTIONS, _done(worker)))
            time.sleep(0.02)
    worker.stop()
    thread.join()
    if broke:
        raise broke[0]


def _done(worker: KafkaWorker) -> int:
    return worker.seen.counts["scored"] + worker.seen.refused.total()


def _lag(worker: KafkaWorker) -> int:
    lag = worker.lag()
    return sum(lag.values()) if lag and worker.is_ready and _done(worker) else 1


def _compare(connection: KafkaConnection, worker: KafkaWorker, config: ScorerConfig, n_sent: int) -> None:
    """Say what was told, and compare it with what one scorer says of each partition."""
    messages = _all_of(connection, Topics().transactions)
    told = {each["transaction_id"]: each for each in map(_value_of, _all_of(connection, "fraud-decisions"))}
    alerts = {each["alert_id"]: each for each in map(_value_of, _all_of(connection, Topics().alerts))}
    letters = _all_of(connection, Topics().dead_letters)
    expected = _expected(messages, config)
    outcomes = Counter(each["outcome"] for each in told.values())
    say(f"decided on {len(told):,}: " + ", ".join(f"{n:,} {outcome}" for outcome, n in outcomes.most_common()))
    for alert in list(alerts.values())[:_SHOWN]:
        why = "; ".join(reason["text"] for reason in alert["reasons"][:2]) or alert["decided_by"]
        say(f"  alert  {alert['transaction_id']}  {alert['outcome']:<8} {alert['score']:.3f}  {why}")
    for letter in letters:
        said: dict[str, Any] = dict(cast(Any, letter.headers()))
        say(f"  dead letter  {said['fraudsdk.reason'].decode():<30} {letter.value()!r:.60}")
    wrong = [each for each, score in expected.items() if told.get(each, {}).get("score") != score]
    if wrong or len(told) != n_sent - len(_POISON):
        raise FraudSDKError(f"{len(wrong)} decisions are not those of one scorer, {len(told)} were made; report it")
    say(
        f"all {len(expected):,} scores are, bit for bit, those of a scorer that nothing happened to; {len(alerts)} alerts"
    )


def _expected(messages: list[Message], config: ScorerConfig) -> dict[str, float | None]:
    from fraudsdk.scorer.scorer import Scorer

    scores: dict[str, float | None] = {}
    for partition in sorted({each.partition() or 0 for each in messages}):
        rows = [row for row in message_format("json").decode_all([
            each.value() for each in messages if each.partition() == partition
        ]) if isinstance(row, dict) and row["amount" if "amount" in row else "amount_minor"] != "much"]  # fmt: skip
        with Scorer.open(config) as scorer:
            decisions = scorer.score_batch(rows)
            scores |= {each.transaction_id: None if math.isnan(each.score) else each.score for each in decisions}
    return scores


def _all_of(connection: KafkaConnection, topic: str) -> list[Message]:
    """Everything in a topic."""
    consumer = Consumer(connection.settings() | {"group.id": "demo", "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, each, OFFSET_BEGINNING) for each in partitions])
        messages: list[Message] = []
        n_ended = 0
        while n_ended < len(partitions):
            for each in consumer.consume(10_000, 0.1):
                error = each.error()
                n_ended += error is not None and error.code() == KafkaError._PARTITION_EOF
                messages += [each] if error is None else []
        return messages
    finally:
        consumer.close()


def _value_of(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(message.value() or b"{}")
    return value
