"""
Messages into one topic or several: a bounded queue, every delivery report read, and a loss is an error.

    send -> queue (bounded) -> batches of librdkafka -> brokers -> reports -> sent, or the error that `send` and `finish` raise

Messages with the same key stay in the order they were sent in, through retries too, and are in the topic once: the producer is
idempotent.  A key goes to the partition that Kafka's own Java client puts it in.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.errors import ConfigurationError, StreamUnavailableError

# Two seconds at 50,000/s: enough to keep brokers busy, little enough to lose when the process is killed.
MAX_QUEUED: Final = 100_000
_TIMEOUT_S: Final = 30.0
_WAIT_S: Final = 0.05
_TOPIC_MADE_S: Final = 2.0


class MessageProducer:
    """
    Sends messages; used by one thread.

    Parameters
    ----------
    connection : KafkaConnection
    max_queued : int
        Messages that wait to be taken by a broker; `send` waits for room.
    timeout_s : float
        A message that no broker took in this time is lost, and so is every later one.
    linger_ms : float
        As long as a batch waits for more messages.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        *,
        max_queued: int = MAX_QUEUED,
        timeout_s: float = _TIMEOUT_S,
        linger_ms: float = 5.0,
    ) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._lost: KafkaError | None = None
        self.n_queued = 0
        """Messages that `send` took."""
        self.n_delivered = 0
        """Those of them that a broker has."""
        self._producer = Producer(
            connection.settings()
            | {
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": max_queued,
                "queue.buffering.max.kbytes": 1 << 18,
                "message.timeout.ms": int(timeout_s * 1_000),
            }
        )

    def check(self, *topics: str, timeout_s: float = 10.0) -> dict[str, int]:
        """
        See that the topics are there, and of how many partitions each; a broker that is set to make topics makes them now.

        Raises
        ------
        ConfigurationError
            One is not there, or the broker refuses us.
        StreamUnavailableError
            No broker answers.
        """
        return {topic: self._partitions_of(topic, timeout_s) for topic in topics}

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """
        Queue a message, and wait for room where there is none.

        Parameters
        ----------
        topic : str
        key, value : bytes or None
        headers : sequence of (str, bytes)

        Raises
        ------
        ConfigurationError
            A broker will never take it.
        StreamUnavailableError
            An earlier message was lost, or there was no room for as long as a message may wait.
        """
        deadline = None
        while True:
            if self._lost is not None:
                raise self._loss()
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered, headers=[*headers] or None)
            except BufferError:
                deadline = deadline or time.monotonic() + self._timeout_s
                if time.monotonic() > deadline:
                    raise self._too_late() from None
                self._producer.poll(_WAIT_S)
            except KafkaException as error:
                raise ConfigurationError(f"topic {topic} does not take a message: {error.args[0].str()}") from error
            else:
                break
        self.n_queued += 1
        self._producer.poll(0)

    def wait(self, seconds: float) -> None:
        """Let time pass, reading delivery reports."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not self._producer.poll(min(left, _WAIT_S)):
                time.sleep(min(max(deadline - time.monotonic(), 0.0), 0.001))

    def finish(self) -> None:
        """
        Return once all that was queued is delivered.

        Raises
        ------
        StreamUnavailableError
            Some of it is lost.
        """
        n_left = self._producer.flush(self._timeout_s + 1.0)
        if self._lost is not None:
            raise self._loss()
        if n_left:
            raise self._too_late()

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.n_delivered += 1
        elif self._lost is None:
            self._lost = error

    def _partitions_of(self, topic: str, timeout_s: float) -> int:
        deadline = time.monotonic() + _TOPIC_MADE_S
        while not (n_partitions := self._connection.reach(timeout_s=timeout_s, topic=topic).get(topic, 0)):
            if time.monotonic() > deadline:
                raise ConfigurationError(
                    f"{self._connection.bootstrap} has no topic {topic}, or hides it; create it, or allow this client to see it"
                )
            time.sleep(_WAIT_S)
        return n_partitions

    def _loss(self) -> StreamUnavailableError:
        assert self._lost is not None
        n_lost = self.n_queued - self.n_delivered
        return StreamUnavailableError(
            f"up to {n_lost:,} of {self.n_queued:,} messages were not delivered ({self._lost.str()}); send them again once "
            f"{self._connection.bootstrap} takes messages"
        )

    def _too_late(self) -> StreamUnavailableError:
        return StreamUnavailableError(
            f"{self._connection.bootstrap} took no message for {self._timeout_s:g} s, {self.n_queued - self.n_delivered:,} wait; "
            "is it running, and fast enough?"
        )
