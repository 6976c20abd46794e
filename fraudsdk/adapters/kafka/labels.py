"""
Labels of transactions, from a topic of their own: its partition N is of the transactions in partition N of theirs.

::

    fetched ──> held until its transaction must have been scored ──> said ──> commit of the state ── 10 s ──> offset, to Kafka

A message is one JSON object: ``transaction_id``, ``is_fraud`` or ``declined`` or both, and ``label_time_us`` or ``label_time``,
which say when it became known and change nothing: it counts from when it comes.  A label may be read twice, and counts once.

Offsets are told to Kafka some time after the commit that holds their labels: a store that lost its last changes is told those
labels again.  What it loses of before that stays lost.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from fraudsdk.adapters.kafka.messages import JsonMessages
from fraudsdk.errors import ConfigurationError, InvalidTransactionError, PoisonMessageError, StateError
from fraudsdk.scorer.streamed_parts import Said

# Of a partition.  When as many wait no more are fetched.
MAX_HELD: Final = 10_000
_MAX_BYTES: Final = 4_096
_AT_ONCE: Final = 2_000
_FIELDS: Final = frozenset(("transaction_id", "is_fraud", "declined", "label_time", "label_time_us"))
_ASK_S: Final = 0.5
_ASK_EVERY_S: Final = 0.2
_STALE_S: Final = 1.0
# How much of its last changes a store may lose without losing labels.
_SETTLED_S: Final = 10.0
_NOTED_EVERY_S: Final = 1.0
# Transactions that are waited for and do not come are none, where offsets may be missing.
_IDLE_S: Final = 5.0


def said_in(value: bytes | None) -> Said:
    """
    The label in a message.

    Raises
    ------
    PoisonMessageError
        It holds none.
    """
    mapping = _MESSAGES.decode(value)
    if unknown := mapping.keys() - _FIELDS:  # not named: a sender may have put anything there
        raise PoisonMessageError(
            "invalid_label:unknown_field",
            f"has {len(unknown)} unknown fields",
            f"send only {', '.join(sorted(_FIELDS))}",
        )
    known_us, known = mapping.get("label_time_us"), mapping.get("label_time")
    if not isinstance(known_us, int | None) or not isinstance(known, str | int | None):
        raise PoisonMessageError("invalid_label:label_time", "has a label_time that is no time", "send one, or none")
    return Said(mapping.get("transaction_id"), mapping.get("is_fraud"), mapping.get("declined"))  # type: ignore[arg-type]  # feedback looks


def poison_of_label(error: InvalidTransactionError) -> PoisonMessageError:
    """What a scorer refused of a label, as the reason of a dead letter."""
    return PoisonMessageError(
        f"invalid_label:{error.field}", f"holds a {error.field} that {error.problem}", error.remedy
    )


class LabelReader:
    """
    Follows the labels of partitions that somebody else says; one thread uses it.

    Parameters
    ----------
    connection : Mapping
        Options of librdkafka that say how brokers are reached.
    topic : str
    group : str
        Keeps the offsets, and has no members.
    counts : Counter
        Of what happened.
    """

    def __init__(self, connection: Mapping[str, Any], topic: str, group: str, counts: Counter[str]) -> None:
        self.topic = topic
        self._counts = counts
        self._followed: dict[int, _Followed] = {}
        own = {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        }
        self._consumer = Consumer({**connection, **own})

    def require_partitions(self, n_partitions: int, transactions: str) -> None:
        """
        See to it that labels lie as their transactions do.

        Raises
        ------
        ConfigurationError
            There are more or fewer partitions of them.
        """
        found = self._consumer.list_topics(self.topic, timeout=10 * _ASK_S).topics[self.topic]
        if found.error is not None or len(found.partitions) != n_partitions:
            n_found = "none" if found.error is not None else len(found.partitions)
            raise ConfigurationError(
                f"{self.topic} must have as many partitions as {transactions}, {n_partitions}, and has {n_found}; make it anew "
                "with as many, and key labels by the user of their transactions"
            )

    def begin(self, number: int) -> None:
        """Follow a partition, from the labels on that may not be in the state."""
        self.drop(number)
        self._followed[number] = _Followed()

    def drop(self, number: int) -> None:
        """Follow a partition no more."""
        followed = self._followed.pop(number, None)
        if followed is not None and followed.expected >= 0:
            self._consumer.incremental_unassign([TopicPartition(self.topic, number)])

    def receive(self) -> None:
        """Take what brokers have sent."""
        for number, followed in self._followed.items():
            if followed.expected < 0 and time.monotonic() - followed.asked_at_s >= _ASK_EVERY_S:
                self._read(number, followed)
        for message in self._consumer.consume(_AT_ONCE, 0.0):
            error = message.error()
            if error is not None:
                self._hear(error)
            elif (sender := self._followed.get(message.partition() or 0)) is not None:
                self._take(sender, message)
        for number, followed in self._followed.items():
            if followed.must_ask_again:
                followed.must_ask_again = False
                self._consumer.seek(TopicPartition(self.topic, number, followed.expected))
            self._hold_back(number, followed)

    def due(
        self, number: int, newest_ms: int, place: int, end: Callable[[], int | None], *, may_skip: bool
    ) -> Message | None:
        """
        The label that comes next, where its transaction may have been scored.

        Parameters
        ----------
        number : int
        newest_ms : int
            When the newest transaction that was scored had been sent.
        place : int
            Transactions before this one were scored.
        end : callable
            Asks the broker where transactions end; None where it does not answer.
        may_skip : bool
            Whether there may be no message just before that end.
        """
        followed = self._followed.get(number)
        if followed is None or not followed.waiting:
            return None
        message = followed.waiting[0]
        followed.look(place, may_skip=may_skip)
        kind, sent_ms = message.timestamp()
        if self.is_certain(number) or (kind != TIMESTAMP_NOT_AVAILABLE and sent_ms <= newest_ms):
            return message
        self.ask(number, end)
        return None

    def ask(self, number: int, end: Callable[[], int | None]) -> None:
        """Find out how far transactions go now: those of all labels that are here were sent before."""
        followed, now_s = self._followed[number], time.monotonic()
        if followed.ends_at is None and now_s - followed.asked_at_s >= _ASK_EVERY_S:
            followed.asked_at_s = now_s
            followed.ends_at, followed.is_of = end(), followed.expected

    def is_certain(self, number: int) -> bool:
        """Whether every transaction that was sent before the next label has been scored."""
        followed = self._followed[number]
        return _offset_of(followed.waiting[0]) < followed.covered

    def pass_on(self, number: int) -> None:
        """The next label was said, or is none."""
        followed = self._followed[number]
        followed.said = _offset_of(followed.waiting.popleft()) + 1

    def stored(self, number: int) -> None:
        """What was said until now is in the state that is stored."""
        followed = self._followed.get(number)
        if followed is not None:
            followed.note()

    def hint(self) -> None:
        """Tell Kafka from where on labels must be read again."""
        places = []
        for number, followed in self._followed.items():
            offset = followed.settled()
            if offset is not None:
                places.append(TopicPartition(self.topic, number, offset))
        if places:
            self._consumer.commit(offsets=places, asynchronous=True)

    def n_held(self) -> int:
        """Labels that wait."""
        return sum(len(each.waiting) for each in list(self._followed.values()))

    def close(self) -> None:
        """Read no more."""
        self._consumer.close()

    def _read(self, number: int, followed: _Followed) -> None:
        at = TopicPartition(self.topic, number)
        followed.asked_at_s = time.monotonic()
        try:
            (kept,) = self._consumer.committed([at], timeout=_ASK_S)
            low, _ = self._consumer.get_watermark_offsets(at, timeout=_ASK_S)
        except KafkaException:
            self._counts["labels_unavailable"] += 1
            return
        if 0 <= kept.offset < low:
            self._counts["labels_missing"] += low - kept.offset
        followed.begin(max(kept.offset, low))
        self._consumer.incremental_assign([TopicPartition(self.topic, number, followed.expected)])

    def _take(self, followed: _Followed, message: Message) -> None:
        offset = _offset_of(message)
        if offset < followed.expected or followed.expected < 0 or followed.must_ask_again:
            return
        if offset > followed.expected:
            if followed.may_see_stale:  # of before it began, perhaps: what is read again says so
                followed.must_ask_again = True
                return
            self._counts["labels_missing"] += offset - followed.expected
        followed.waiting.append(message)
        followed.expected = offset + 1

    def _hear(self, error: KafkaError) -> None:
        if error.fatal():
            raise StateError(f"Kafka's client gave up reading labels: {error.str()}; start again")
        self._counts["consumer_errors"] += 1

    def _hold_back(self, number: int, followed: _Followed) -> None:
        is_full = len(followed.waiting) >= (MAX_HELD // 2 if followed.is_paused else MAX_HELD)
        if is_full != followed.is_paused and followed.expected >= 0:
            change = self._consumer.pause if is_full else self._consumer.resume
            change([TopicPartition(self.topic, number)])
            followed.is_paused = is_full


class _Followed:
    """
    Labels of one partition.

    Attributes
    ----------
    waiting : deque of Message
    expected : int
        Offset of the label that is fetched next; -1: not known yet.
    said : int
        Labels before this one were said.
    covered : int
        Of labels before this one every transaction that was sent earlier has been scored.
    ends_at : int or None
        Once transactions before this one are scored, labels before `is_of` are covered.
    """

    def __init__(self) -> None:
        self.waiting: deque[Message] = deque()
        self.expected = self.said = self.covered = self.is_of = -1
        self.ends_at: int | None = None
        self.asked_at_s = self._began_s = 0.0
        self.is_paused = self.must_ask_again = False
        self._noted: deque[tuple[float, int]] = deque()  # said by then, and in the state; one a second, so some ten
        self._hinted = -1

    def begin(self, offset: int) -> None:
        self.expected = self.said = self._hinted = offset
        self._began_s = time.monotonic()

    @property
    def may_see_stale(self) -> bool:
        return time.monotonic() - self._began_s < _STALE_S

    def look(self, place: int, *, may_skip: bool) -> None:
        is_idle = may_skip and time.monotonic() - self.asked_at_s > _IDLE_S
        if self.ends_at is not None and (place >= self.ends_at or is_idle):
            self.covered, self.ends_at = self.is_of, None

    def note(self) -> None:
        now_s = time.monotonic()
        last_s, last = self._noted[-1] if self._noted else (-_NOTED_EVERY_S, self._hinted)
        if self.said > last and now_s - last_s >= _NOTED_EVERY_S:
            self._noted.append((now_s, self.said))

    def settled(self) -> int | None:
        """How far labels have been in the state for long enough, where that is further than Kafka was told."""
        offset = None
        while self._noted and time.monotonic() - self._noted[0][0] >= _SETTLED_S:
            _, offset = self._noted.popleft()
            self._hinted = offset
        return offset


def _offset_of(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


_MESSAGES: Final = JsonMessages(_MAX_BYTES)
