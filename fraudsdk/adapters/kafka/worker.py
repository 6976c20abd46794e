"""
The consumer of a stream of transactions: each is decided on once, and remembered once, whatever dies.

::

    messages ── decode ──> rows ── score ──> decisions ── produce ──> topics
        │                   │                  │             │
        └── no transaction ─┴── dead letter ───┘        acknowledged ── commit: state, place and alerts ──> store
                                                                                        │
                                                              fraud-alerts <── outbox ──┘

One thread scores; talking to the store happens beside it, partition by partition.  Where the stream goes on is what the store
says, never what Kafka says: the group's own offsets are for tools that show lag.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, Final, cast

import numpy as np
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fraudsdk.adapters.kafka.alerts import key_of, told_of
from fraudsdk.adapters.kafka.dead_letters import DeadLetters, Origin
from fraudsdk.adapters.kafka.labels import LabelReader, poison_of_label, said_in
from fraudsdk.adapters.kafka.messages import Decoded, MessageFormat, poison_of
from fraudsdk.adapters.kafka.partition import MAX_QUEUED, OpenState, Partition, Stored, offset_of
from fraudsdk.domain.decisions import Decisions
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import (
    ConfigurationError,
    InvalidTransactionError,
    PoisonMessageError,
    SchemaUnavailableError,
    SinkDeliveryError,
    StateError,
    StateUnavailableError,
)
from fraudsdk.scorer.streamed_parts import Batch
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock

_ROWS_AT_ONCE: Final = 2_000
_LABELS_AT_ONCE: Final = 1_000
_MESSAGES_AT_ONCE: Final = 5_000
_POLL_S: Final = 0.005
_IDLE_POLL_S: Final = 0.05
_ASK_S: Final = 5.0
_ASK_SOON_S: Final = 0.5
# A process that was paused learns within a few heartbeats that its partitions are another's.
_LOST_WAIT_S: Final = 5.0
_POLLED_EVERY_S: Final = 0.5
_HINT_EVERY_S: Final = 1.0
_NOTED_EVERY_S: Final = 0.1
_STOP_S: Final = 10.0
_STORE_THREADS: Final = 8
# Of a topic whose brokers give none.
_MOCK_CLUSTER: Final = "mockCluster"
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True)
class Topics:
    """
    Where messages come from and go to.

    Attributes
    ----------
    transactions : str
        Keyed by user, so that whatever a user does is in one partition.
    alerts : str
        Decisions that are no approvals.
    dead_letters : str
        What is no transaction.
    decisions : str or None
        All decisions; None: nobody wants them.
    labels : str or None
        What became of transactions, keyed as these and in as many partitions; None: nobody says.
    """

    transactions: str = "transactions"
    alerts: str = "fraud-alerts"
    dead_letters: str = "transactions.dlq"
    decisions: str | None = None
    labels: str | None = None


@dataclass
class Seen:
    """
    What a worker has done so far.

    Attributes
    ----------
    counts : Counter
        By what happened.
    stage_ns : Counter
        Time of a processor by stage, nanoseconds.
    refused : Counter
        Dead letters by reason.
    """

    counts: Counter[str] = field(default_factory=Counter)
    stage_ns: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class KafkaWorker:
    """
    Consumes the partitions that its group gives it, until it is told to stop.

    Parameters
    ----------
    connection : Mapping
        Options of librdkafka that say how brokers are reached.
    topics : Topics
    open_state : callable
        Gives the state of a partition, from its number and the bytes that say which stream it is.
    message_format : MessageFormat
    dead_letters : DeadLetters
    group : str
    starts_at_end : bool
        Where a partition that was never read begins: with what comes now rather than with what is kept of it.
    may_skip : bool
        Whether offsets may be missing, as in topics that are compacted or written in transactions.
    consumer_options : Mapping
        Further options of the consumer.

    Raises
    ------
    ConfigurationError
        Options that librdkafka does not take.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        topics: Topics,
        open_state: OpenState,
        message_format: MessageFormat,
        dead_letters: DeadLetters,
        *,
        group: str = "fraud-detector",
        starts_at_end: bool = False,
        may_skip: bool = False,
        consumer_options: Mapping[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._connection = dict(connection)
        self._topics = topics
        self._open_state = open_state
        self._format = message_format
        self._dead_letters = dead_letters
        self._starts_at_end = starts_at_end
        self._may_skip = may_skip
        self._clock = clock
        self._partitions: dict[int, Partition] = {}
        self._origin = b""
        self._stopping = Event()
        self._failure: Exception | None = None
        self._hinted_at_s = self._noted_at_s = 0.0
        self._places: dict[int, tuple[int, int]] = {}
        self._polled_at_s = time.monotonic()
        self.seen = Seen()
        own = {
            "group.id": group,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # what is missing is said, and never skipped
            "fetch.wait.max.ms": 50,
        }
        telling = {"enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 0, "compression.type": "lz4"}
        try:
            self._consumer = Consumer({**connection, **own, **(consumer_options or {})})
            self._producer = Producer({**connection, **telling})
            self._labels = (
                None
                if topics.labels is None
                else LabelReader(connection, topics.labels, f"{group}-labels", self.seen.counts)
            )
        except KafkaException as error:
            raise ConfigurationError(f"Kafka's client does not take its options: {error.args[0].str()}") from error
        self._pool = ThreadPoolExecutor(_STORE_THREADS, "fraudsdk-store")

    # --- what others ask -----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End soon; from any thread, or a signal handler."""
        self._stopping.set()

    @property
    def is_ready(self) -> bool:
        """Whether it polls, and has claimed whatever the group gave it."""
        is_polling = time.monotonic() - self._polled_at_s < 10 * _ASK_S
        return is_polling and all(each.is_claimed for each in list(self._partitions.values()))

    def places(self) -> dict[int, tuple[int, int]]:
        """By partition: how many messages state is of, and how many come after them; as of a tenth of a second ago."""
        return self._places

    def lag(self) -> dict[int, int]:
        """Messages after the last one that was committed, by partition."""
        return {number: lag for number, (_, lag) in self.places().items()}

    def state_counters(self) -> Counter[str]:
        """What happened to the state of all partitions here, by name."""
        counts: Counter[str] = Counter()
        for partition in list(self._partitions.values()):
            if partition.is_claimed:
                counts.update(partition.state.counters())
        return counts

    def run(self) -> None:
        """
        Consume until `stop` is called; then what was scored is committed, and the group told.

        Raises
        ------
        StateError
            Messages are missing, the topic was made anew, or state is of something else: nothing is skipped silently.
        SinkDeliveryError
            A topic does not take what must be told.
        """
        self._consumer.subscribe(
            [self._topics.transactions], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._stopping.is_set():
                self._step()
            self._finish(list(self._partitions.values()))
            self._require_told()
        finally:
            for partition in list(self._partitions.values()):
                self._drop(partition)
            self._pool.shutdown()
            self._consumer.close()
            if self._labels is not None:
                self._labels.close()
            self._producer.flush(_STOP_S)

    # --- one round -----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._receive()
        if self._labels is not None:
            self._labels.receive()
        for partition in list(self._partitions.values()):
            if partition.may_claim:
                self._claim(partition)
            may_be_told = self._labels is not None and partition.is_free
            if partition.is_ready:
                self._score(partition)
            if may_be_told and partition.is_claimed:  # one commit for both
                self._take_labels(partition)
        self._producer.poll(0)
        self._require_told()
        self._settle(list(self._partitions.values()))
        self._hold_back()
        self._note_places()
        self._hint()

    def _require_told(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _receive(self) -> None:
        if self._has_plenty and time.monotonic() - self._polled_at_s < _POLLED_EVERY_S:
            return
        started_ns = time.thread_time_ns()
        partitions = self._partitions.values()
        is_busy = any(each.is_ready for each in partitions)
        is_waiting = any(each.is_storing or each.untold.n for each in partitions)
        timeout_s = 0.0 if is_busy else _POLL_S if is_waiting else _IDLE_POLL_S
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(_MESSAGES_AT_ONCE, 0.0)
        self._polled_at_s = time.monotonic()
        for message in messages:
            error = message.error()
            partition = self._partitions.get(cast(int, message.partition()))
            if error is not None:
                self._hear(error, message)
            elif partition is None or not self._take(partition, message):
                self.seen.counts["stale_messages"] += 1
        for partition in list(self._partitions.values()):
            if partition.must_ask_again:
                partition.must_ask_again = False
                self._read_from(partition, partition.next_offset)
        self.seen.counts["messages"] += len(messages)
        self.seen.stage_ns["consume"] += time.thread_time_ns() - started_ns

    @property
    def _has_plenty(self) -> bool:
        """Whether every partition has messages for its next batch: the client holds back what it fetches for later."""
        partitions = self._partitions.values()
        return bool(partitions) and all(len(each.waiting) >= _ROWS_AT_ONCE for each in partitions)

    def _take(self, partition: Partition, message: Message) -> bool:
        was_taken = False if partition.must_ask_again else partition.take(message)
        if was_taken is not None:
            return was_taken
        if partition.may_see_stale():  # of before it began, perhaps: what was read again says so
            partition.must_ask_again = True
            return False
        if not self._may_skip:
            raise StateError(
                f"messages {partition.next_offset} to {offset_of(message) - 1} of {self._named(partition)} are missing; where a "
                "topic is compacted or written in transactions allow it with may_skip, else put them back"
            )
        partition.next_offset = offset_of(message)
        return bool(partition.take(message))

    def _hear(self, error: KafkaError, message: Message) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise StateError(
                f"message {message.offset()} of {message.topic()} [{message.partition()}] is gone before it was read: "
                "keep the topic for longer; to go on, empty the group's state and read the topic from its beginning"
            )
        if error.fatal():
            raise StateError(f"Kafka's client gave up: {error.str()}; start again")
        self.seen.counts["consumer_errors"] += 1

    def _score(self, partition: Partition) -> None:
        waiting = partition.waiting
        n = min(len(waiting), _ROWS_AT_ONCE, partition.state.n_rows_at_once)
        messages = [waiting.popleft() for _ in range(n)]
        try:
            decoded = self._decoded(messages)
        except SchemaUnavailableError:
            waiting.extendleft(reversed(messages))
            self.seen.counts["schemas_unavailable"] += 1
            return partition.put_off()
        try:
            self._score_decoded(partition, messages, decoded)
            partition.succeed()
        except StateUnavailableError:  # memory may hold part of a batch: only the store knows what is whole
            self.seen.counts["state_unavailable"] += 1
            self._let_go(partition, 0.0)
            partition.put_off()
        except Lost:
            self._was_lost(partition)

    def _decoded(self, messages: Sequence[Message]) -> list[Decoded]:
        started_ns = time.thread_time_ns()
        decoded = self._format.decode_all([message.value() for message in messages])
        self.seen.stage_ns["decode"] += time.thread_time_ns() - started_ns
        return decoded

    def _score_decoded(self, partition: Partition, messages: Sequence[Message], decoded: list[Decoded]) -> None:
        started_ns = time.thread_time_ns()
        first, until = offset_of(messages[0]), offset_of(messages[-1]) + 1
        poison = [
            (message, each) for message, each in zip(messages, decoded, strict=True) if not isinstance(each, dict)
        ]
        sent = [(message, each) for message, each in zip(messages, decoded, strict=True) if isinstance(each, dict)]
        while True:
            batch = self._batch(partition, sent)
            try:
                decisions = partition.state.score(first, until, batch)
                break
            except InvalidTransactionError as error:
                message, _ = sent.pop(cast(int, error.row))
                poison.append((message, poison_of(error)))
        self.seen.stage_ns["score"] += time.thread_time_ns() - started_ns
        if decisions is None:
            self._has_lost(partition)
            return
        partition.scored = until
        started_ns = time.thread_time_ns()
        self._tell(partition, poison, sent, decisions)
        self.seen.counts["scored"] += len(sent)
        partition.newest_ms = max(partition.newest_ms, *(message.timestamp()[1] for message in messages))
        self.seen.stage_ns["produce"] += time.thread_time_ns() - started_ns

    def _take_labels(self, partition: Partition) -> None:
        """Say what became of transactions that were scored."""
        assert self._labels is not None
        started_ns = time.thread_time_ns()
        end = partial(self._end_of, partition)
        try:
            # What they change stays in memory until it is committed, beside what a batch changed.
            for _ in range(max(1, min(_LABELS_AT_ONCE, partition.state.n_rows_at_once // 2))):
                place = partition.state.place
                message = self._labels.due(partition.number, partition.newest_ms, place, end, may_skip=self._may_skip)
                if message is None:
                    break
                was_said = self._say(partition, message, end)
                if partition.state.place != place:  # the store had lost changes
                    self.seen.counts["regressions"] += 1
                    self._go_on_from(partition, partition.state.place)
                    break
                if not was_said:
                    break
                self._labels.pass_on(partition.number)
        except StateUnavailableError:
            self.seen.counts["state_unavailable"] += 1
            self._let_go(partition, 0.0)
            partition.put_off()
        except Lost:
            self._was_lost(partition)
        self.seen.stage_ns["labels"] += time.thread_time_ns() - started_ns

    def _say(self, partition: Partition, message: Message, end: Callable[[], int | None]) -> bool:
        """Say a label; False where its transaction is not known, and may come yet."""
        assert self._labels is not None
        try:
            try:
                is_known = partition.state.feedback(said_in(message.value()))
            except InvalidTransactionError as error:
                raise poison_of_label(error) from None
        except PoisonMessageError as error:
            self._bury(partition, self._labels.topic, message, error)
            return True
        if not is_known and not self._labels.is_certain(partition.number):
            self._labels.ask(partition.number, end)
            return False
        self.seen.counts["labels" if is_known else "labels_of_unknown_transactions"] += 1
        return True

    def _end_of(self, partition: Partition) -> int | None:
        """Where a partition ends now; None where brokers do not say."""
        try:
            return self._consumer.get_watermark_offsets(self._at(partition.number), timeout=_ASK_SOON_S)[1]
        except KafkaException:
            self.seen.counts["consumer_errors"] += 1
            return None

    def _batch(self, partition: Partition, sent: Sequence[tuple[Message, dict[str, Any]]]) -> Batch:
        times_us = np.fromiter((self._sent_us(message) for message, _ in sent), np.int64, len(sent))
        return Batch([row for _, row in sent], times_us, lambda decisions: self._alerts(partition, sent, decisions))

    def _sent_us(self, message: Message) -> int:
        kind, time_ms = message.timestamp()
        return self._clock.now_us() if kind == TIMESTAMP_NOT_AVAILABLE else 1_000 * time_ms

    def _alerts(
        self, partition: Partition, sent: Sequence[tuple[Message, dict[str, Any]]], decisions: Decisions
    ) -> list[bytes]:
        alerts = [
            told_of(decision, sent[row][1], self._topics.transactions, partition.number, offset_of(sent[row][0]))
            for row, decision in decisions.flagged_rows()
            if not decision.duplicate
        ]
        self.seen.counts["alerts"] += len(alerts)
        if not partition.state.keeps_alerts:
            for alert in alerts:
                self._produce(partition, self._topics.alerts, key_of(alert), alert)
            return []
        if alerts:
            partition.expect_alerts()
        return alerts

    # --- what is told --------------------------------------------------------------------------------------------------

    def _tell(
        self,
        partition: Partition,
        poison: Sequence[tuple[Message, PoisonMessageError]],
        sent: Sequence[tuple[Message, dict[str, Any]]],
        decisions: Decisions,
    ) -> None:
        for message, error in poison:
            self._bury(partition, self._topics.transactions, message, error)
        if self._topics.decisions is not None:
            for (message, row), decision in zip(sent, decisions, strict=True):
                told = told_of(decision, row, self._topics.transactions, partition.number, offset_of(message))
                # Not by the key of the message: nobody has looked at what is in it.
                key = str(row.get("user_id") or decision.transaction_id).encode()
                self._produce(partition, self._topics.decisions, key, told)

    def _bury(self, partition: Partition, topic: str, message: Message, error: PoisonMessageError) -> None:
        origin = Origin(topic, partition.number, offset_of(message), message.timestamp()[1])
        letter = self._dead_letters.letter(
            error, origin, message.key(), message.value(), failed_at_us=self._clock.now_us()
        )
        self.seen.refused[error.reason] += 1
        self._produce(partition, self._topics.dead_letters, letter.key, letter.value, letter.headers)

    def _produce(
        self,
        partition: Partition,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Any = None,
        acknowledged: Callable[[], None] | None = None,
    ) -> None:
        """Have something told; nothing is committed of a partition before all of its own has been."""

        untold = partition.untold if acknowledged is None else partition.alerts
        untold.n += 1

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failure = SinkDeliveryError(f"{topic} does not take what must be told: {error.str()}", ())
                return
            untold.n -= 1
            if acknowledged is not None:
                acknowledged()

        while True:
            try:
                return self._producer.produce(topic, value, key, on_delivery=delivered, headers=headers)
            except BufferError:  # bounded: what was not told is not committed, and nothing more is scored meanwhile
                self._producer.poll(0.1)
                if self._failure is not None:
                    raise self._failure from None

    def _tell_alerts(self, partition: Partition, alerts: Sequence[tuple[str, bytes]]) -> None:
        for name, alert in alerts:
            self._produce(
                partition, self._topics.alerts, key_of(alert), alert, acknowledged=partial(partition.was_told, name)
            )

    # --- the store -----------------------------------------------------------------------------------------------------

    def _settle(self, partitions: Sequence[Partition], wait: bool = False) -> None:
        """Have what is due stored, and take note of what was."""
        for partition in partitions:
            try:
                stored = partition.stored(wait)
                if stored is not None:
                    self._was_stored(partition, stored)
            except StateUnavailableError:
                self.seen.counts["state_unavailable"] += 1
                partition.put_off()
            except Lost:
                self._was_lost(partition)
            partition.store_if_due(self._pool)

    def _was_stored(self, partition: Partition, stored: Stored) -> None:
        partition.succeed()
        self.seen.stage_ns["store"] += stored.took_ns
        if stored.has_lost:
            self._has_lost(partition)
            return
        self.seen.counts["commits"] += stored.place > partition.committed
        partition.committed = stored.place
        if self._labels is not None:
            self._labels.stored(partition.number)
        self._tell_alerts(partition, stored.alerts)
        if partition.is_leaving and not partition.state.is_due:
            partition.state.leave()
            self._let_go(partition, _HINT_EVERY_S)
        partition.is_leaving |= stored.must_leave and partition.is_claimed

    def _has_lost(self, partition: Partition) -> None:
        """The store had lost changes; what else it lost, such as whose state it is, only a claim finds out."""
        self.seen.counts["regressions"] += 1
        self._let_go(partition, 0.0)

    def _was_lost(self, partition: Partition) -> None:
        """Another process has claimed it; unless the group takes it from us as well, it is claimed back."""
        self.seen.counts["partitions_lost"] += 1
        self._let_go(partition, _LOST_WAIT_S)

    def _let_go(self, partition: Partition, wait_s: float) -> None:
        self._consumer.pause([self._at(partition.number)])
        partition.is_paused = True
        partition.lose(wait_s)
        if self._labels is not None:
            self._labels.drop(partition.number)

    # --- partitions come and go ----------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        # Where they go on is not known before they are claimed: until then nothing is read.
        consumer.incremental_assign([TopicPartition(each.topic, each.partition, OFFSET_BEGINNING) for each in assigned])
        consumer.pause(assigned)
        for each in assigned:
            self._partitions[each.partition] = Partition(each.partition)
            self._partitions[each.partition].is_paused = True
        self.seen.counts["partitions_assigned"] += len(assigned)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        mine = [self._partitions[each.partition] for each in revoked if each.partition in self._partitions]
        self._finish(mine)
        for partition in mine:
            self._drop(partition)
        consumer.incremental_unassign(revoked)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        for each in lost:
            if each.partition in self._partitions:
                self._drop(self._partitions[each.partition])
        consumer.incremental_unassign(lost)

    def _drop(self, partition: Partition) -> None:
        del self._partitions[partition.number]
        if self._labels is not None:
            self._labels.drop(partition.number)
        try:
            partition.stored(wait=True)
        except (StateUnavailableError, StateError, Lost):
            self.seen.counts["partitions_dropped_unwritten"] += 1
        partition.close()

    def _finish(self, partitions: Sequence[Partition]) -> None:
        """Commit what was scored, as far as that can be done soon; the rest comes again to whoever goes on."""
        until_s = time.monotonic() + _STOP_S
        for partition in partitions:
            partition.waiting.clear()
        while any(each.has_work for each in partitions):
            if time.monotonic() > until_s:
                self.seen.counts["partitions_dropped_unwritten"] += 1
                return
            self._producer.poll(0.01)
            self._settle(partitions)
            if self._failure is not None:  # `run` raises it
                return
        for partition in partitions:
            if partition.is_claimed:
                self._leave(partition)

    def _leave(self, partition: Partition) -> None:
        try:
            partition.state.leave()
        except StateUnavailableError:  # whoever erases somebody waits for the lease to end, then
            self.seen.counts["state_unavailable"] += 1

    def _claim(self, partition: Partition) -> None:
        try:
            self._origin = self._origin or self._ask_origin()
            partition.open(lambda: self._open_state(partition.number, self._origin))
            place = partition.state.claim()
            self._go_on_from(partition, self._checked(partition, place))
            self.seen.counts["claims"] += 1
        except (StateUnavailableError, KafkaException):
            self.seen.counts["state_unavailable"] += 1
            partition.put_off()

    def _checked(self, partition: Partition, place: int) -> int:
        """
        Where a partition goes on, once it is sure that nothing is missing.

        Raises
        ------
        StateError
            Messages that state lacks are gone, or state is of messages that were never there.
        """
        low, high = self._consumer.get_watermark_offsets(self._at(partition.number), timeout=_ASK_S)
        if place == 0:
            return self._begun(partition, low, high)
        if place < low:
            raise StateError(
                f"messages {place} to {low - 1} of {self._named(partition)} are gone before they were read: keep the topic for "
                "longer; to go on, empty the group's state and read the topic from its beginning"
            )
        if place > high:
            raise StateError(
                f"state of {self._named(partition)} is of {place} messages, and the topic has {high}: it was made anew or lost its "
                "end; empty the group's state, or name another group"
            )
        return place

    def _begun(self, partition: Partition, low: int, high: int) -> int:
        """Where a partition without state begins."""
        (hint,) = self._consumer.committed([self._at(partition.number)], timeout=_ASK_S)
        if hint.offset > 0:
            self.seen.counts["state_lost"] += 1
            if low > 0:
                raise StateError(
                    f"state of {self._named(partition)} is gone, though {hint.offset} messages were read, and so are the first "
                    f"{low}: restore the state, or name another group"
                )
            return 0
        place = high if self._starts_at_end else low
        if place:
            partition.state.begin_at(place)
        return place

    def _go_on_from(self, partition: Partition, place: int) -> None:
        """Read a partition from there on, and nothing that was fetched before."""
        self._read_from(partition, place)
        partition.begin(place)
        if self._labels is not None:
            self._labels.begin(partition.number)

    def _read_from(self, partition: Partition, offset: int) -> None:
        at = TopicPartition(self._topics.transactions, partition.number, offset)
        self._consumer.incremental_unassign([at])
        self._consumer.incremental_assign([at])
        self._consumer.resume([at])
        partition.is_paused = False

    def _hold_back(self) -> None:
        """Ask for no more of a partition than may wait."""
        for partition in self._partitions.values():
            if not partition.is_claimed:
                continue
            is_full = len(partition.waiting) >= (MAX_QUEUED // 2 if partition.is_paused else MAX_QUEUED)
            if is_full and not partition.is_paused:
                self._consumer.pause([self._at(partition.number)])
            elif partition.is_paused and not is_full:
                self._consumer.resume([self._at(partition.number)])
            partition.is_paused = is_full

    def _note_places(self) -> None:
        """For others: asked from another thread the client may be busy waiting for messages."""
        if time.monotonic() - self._noted_at_s < _NOTED_EVERY_S:
            return
        self._noted_at_s = time.monotonic()
        places = {}
        for partition in self._partitions.values():
            if partition.is_claimed:
                _, high = self._consumer.get_watermark_offsets(self._at(partition.number), cached=True)
                places[partition.number] = (partition.committed, max(0, high - partition.committed))
        self._places = places

    def _hint(self) -> None:
        """Tell the group how far its partitions are, for those who watch its lag."""
        if time.monotonic() - self._hinted_at_s < _HINT_EVERY_S:
            return
        self._hinted_at_s = time.monotonic()
        if self._labels is not None:
            self._labels.hint()
        places = [
            TopicPartition(self._topics.transactions, each.number, each.committed)
            for each in self._partitions.values()
            if each.is_claimed and each.committed
        ]
        if places:
            self._consumer.commit(offsets=places, asynchronous=True)

    def _at(self, number: int) -> TopicPartition:
        return TopicPartition(self._topics.transactions, number)

    def _named(self, partition: Partition) -> str:
        return f"{self._topics.transactions} [{partition.number}]"

    def _ask_origin(self) -> bytes:
        """Which stream this is: the topic, its partitions, and its id where brokers say one."""
        name = self._topics.transactions
        cluster = self._consumer.list_topics(name, timeout=_ASK_S)
        topic = cluster.topics[name]
        if topic.error is not None:
            raise StateUnavailableError(f"Kafka does not say what {name} is: {topic.error.str()}")
        if self._labels is not None:
            self._labels.require_partitions(len(topic.partitions), name)
        # librdkafka's own brokers, within the process, have no ids of topics: an administrator would wait in vain.
        is_mock = str(cluster.cluster_id).startswith(_MOCK_CLUSTER)
        which = "" if is_mock else self._topic_id()
        return f"{name} of {len(topic.partitions)} partitions{which}".encode()

    def _topic_id(self) -> str:
        named = TopicCollection([self._topics.transactions])
        admin = AdminClient(self._connection)  # kept until the answer is there
        (asked,) = admin.describe_topics(named, request_timeout=_ASK_S).values()
        topic_id = str(asked.result().topic_id)
        return "" if topic_id == _NO_ID else f", id {topic_id}"
