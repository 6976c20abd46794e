"""
Requests as messages of a stream, so that its consumer remembers what was asked of a scorer that remembers nothing itself.

::

    transaction, decided on ── JSON ──> queue (bounded) ──> brokers ──> consumer ──> store ──> read by the scorer
                                          └── full: not recorded, and the caller is told

The message is what a host would have sent, checked and spelt one way, a card number as its token.  Nobody waits for a broker:
what is queued is lost with the process.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import Any, Final

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from fraudsdk.adapters.kafka.connection import LOGGER, KafkaConnection
from fraudsdk.domain.transaction import Transaction, TransactionType
from fraudsdk.errors import ConfigurationError, StreamUnavailableError

# Ten seconds at 10,000 requests a second, and some 60 MB.
MAX_QUEUED: Final = 100_000
_MAX_QUEUED_KB: Final = 1 << 17
_CLOSE_S: Final = 10.0
_REPORTS_S: Final = 0.1
# A broker that took nothing for so long is behind, and so is what its consumer knows.
_BEHIND_S: Final = 1.0
_NAMES: Final = tuple(
    each.name
    for each in dataclasses.fields(Transaction)
    if each.name not in ("amount_minor", "event_time_us", "type", "credit", "custom")
)


def message_of(transaction: Transaction) -> bytes:
    """
    A transaction as one JSON object that `JsonMessages` and then a scorer read as the same transaction.

    Examples
    --------
    >>> message_of(Transaction("t-1", event_time_us=1_795_428_000_000_000, amount_minor=1250, user_id="u-1"))
    b'{"amount_minor":1250,"event_time_us":1795428000000000,"transaction_id":"t-1","user_id":"u-1"}'
    """
    sent: dict[str, Any] = {"amount_minor": transaction.amount_minor, "event_time_us": transaction.event_time_us}
    for name in _NAMES:
        value = getattr(transaction, name)
        if value is not None and value == value:  # NaN is how a number is absent
            sent[name] = value
    if transaction.type is not TransactionType.AUTHORISATION:
        sent["type"] = transaction.type.value
    if transaction.credit:
        sent["direction"] = "credit"
    if transaction.custom:
        sent["custom"] = dict(transaction.custom)
    return orjson.dumps(sent)


class TransactionRecorder:
    """
    Sends transactions to a topic, once each; any number of threads may call it.

    Parameters
    ----------
    connection : KafkaConnection
    topic : str
        Keyed by user, as the consumer has it; who names no user has no key.
    max_queued : int
        Messages that wait for a broker.  Beyond it nothing is recorded, and `record` says so.
    """

    def __init__(
        self, connection: KafkaConnection, topic: str = "transactions", *, max_queued: int = MAX_QUEUED
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._max_queued = max_queued
        self._counting = threading.Lock()
        self._n_queued = self._n_delivered = self._n_refused = self._n_lost = 0
        self._moved_s = time.monotonic()  # when a broker took something last, or nothing waited
        settings = connection.settings() | {
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": max_queued,
            "queue.buffering.max.kbytes": _MAX_QUEUED_KB,
            "message.timeout.ms": 0,  # it waits as long as there is room
        }
        try:
            self._producer = Producer(settings)
        except KafkaException as error:
            raise ConfigurationError(f"Kafka's client does not take its options: {error.args[0].str()}") from error
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="fraudsdk-recorder", daemon=True)
        self._thread.start()

    def check(self, timeout_s: float = 5.0) -> None:
        """
        See that the topic is there.

        Raises
        ------
        ConfigurationError
            It is not, or the broker refuses us.
        StreamUnavailableError
            No broker answers.
        """
        if not self._connection.reach(timeout_s=timeout_s, topic=self._topic).get(self._topic):
            raise ConfigurationError(
                f"{self._connection.bootstrap} has no topic {self._topic}, or hides it; create it, or allow this client to see it"
            )

    def record(self, transaction: Transaction) -> str:
        """
        Queue a transaction.

        Returns
        -------
        str
            Empty, or why it is not recorded: send it again later, it counts once.
        """
        key = None if transaction.user_id is None else transaction.user_id.encode()
        because = ""
        with self._counting:
            self._n_queued += 1
            if self._n_waiting == 1:
                self._moved_s = time.monotonic()
        try:
            self._producer.produce(self._topic, message_of(transaction), key, on_delivery=self._delivered)
        except BufferError:
            because = f"{self._max_queued:,} requests wait for Kafka; send it again later"
        except KafkaException as error:
            because = f"Kafka's client does not take it: {error.args[0].str()}"
        if because:
            with self._counting:
                self._n_queued -= 1
                self._n_refused += 1
        return because

    def doubt(self) -> str:
        """Empty, or why the consumer cannot know what was asked of late."""
        behind_s = time.monotonic() - self._moved_s
        if self._n_waiting and behind_s > _BEHIND_S:
            return f"requests have not reached Kafka for {int(behind_s)} s"
        return ""

    def counters(self) -> dict[str, int]:
        """What became of requests: taken by a broker, waiting, not taken up, and lost."""
        with self._counting:
            return {
                "requests_recorded": self._n_delivered,
                "requests_waiting": self._n_waiting,
                "requests_not_recorded": self._n_refused,
                "requests_lost": self._n_lost,
            }

    def close(self) -> None:
        """
        Have what waits delivered; nothing is to be recorded any more.

        Raises
        ------
        StreamUnavailableError
            Some of it was not, and is lost.
        """
        n_left = self._producer.flush(_CLOSE_S)
        self._stopping.set()
        self._thread.join()
        if n_left:
            raise StreamUnavailableError(
                f"{n_left:,} requests were not recorded: {self._connection.bootstrap} took none of them for {_CLOSE_S:g} s; "
                "those who sent them may send them again"
            )

    @property
    def _n_waiting(self) -> int:
        return self._n_queued - self._n_delivered - self._n_lost

    def _hear(self) -> None:
        """Delivery reports come while somebody asks for them."""
        while not self._stopping.is_set():
            self._producer.poll(_REPORTS_S)

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        with self._counting:
            self._moved_s = time.monotonic()
            if error is None:
                self._n_delivered += 1
                return
            self._n_lost += 1
        LOGGER.error("a request was not recorded: %s", error.str())
