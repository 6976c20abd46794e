"""
A worker that consumes a topic into parts in Redis and is killed, paused and cut off meanwhile; the log that it reads, and what
one process makes of that log.

Run        python consumes_kafka.py BOOTSTRAP REDIS_PORT together|place-first
Exit code  0: it was told to stop, and everything that it had scored is committed
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import redis
from confluent_kafka import Message
from poison_messages import KINDS

from fraudsdk import ScorerConfig
from fraudsdk.adapters.kafka.alerts import told_of
from fraudsdk.adapters.kafka.dead_letters import DeadLetters
from fraudsdk.adapters.kafka.messages import message_format
from fraudsdk.adapters.kafka.worker import KafkaWorker, Topics
from fraudsdk.adapters.redis import StreamRedis
from fraudsdk.adapters.redis.store import answer_of
from fraudsdk.entity_state import part_kernels
from fraudsdk.entity_state.layout import HEAD_COUNT, HEAD_LAST_US
from fraudsdk.entity_state.store import MemoryStore
from fraudsdk.scorer.streamed_parts import Batch, StreamedParts

TOPICS = Topics(decisions="fraud-decisions")
N_PARTITIONS = {"transactions": 6, "fraud-alerts": 3, "transactions.dlq": 1, "fraud-decisions": 3}
GROUP = "fraud-detector"
MODEL = Path(__file__).parents[2] / "compiled_models" / "reference"
# Few enough that a worker forgets entities, and reads them again.
CONFIG = ScorerConfig(model=MODEL, hash_key=b"the key of the stream", max_entities=6_000, journal_capacity=6_000)
WHOLE = ScorerConfig(model=MODEL, hash_key=b"the key of the stream", max_entities=100_000, journal_capacity=100_000)
# Messages with numbers from here on are poison that a test made.
POISON = 1_000_000
# As short as the broker of the tests takes them.
SESSION_S = 1.5
IMPATIENT = {"session.timeout.ms": round(1_000 * SESSION_S), "heartbeat.interval.ms": 300}
RECONNECTING = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0}

_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_POISON = sorted(KINDS.keys() - {"huge", "nested deeply"})
_DUPLICATE_OF_LAST = 50


# --- the log --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """
    A message of the log.

    Attributes
    ----------
    key, value : bytes or None
    row : dict or None
        The transaction in it; None for poison.
    """

    key: bytes
    value: bytes | None
    row: dict | None


def message(n: int) -> Sent:
    """The message at a place of the log: the same whoever asks.  Of a hundred four are poison, and two were sent before."""
    draw = random.Random(f"message {n}")
    kind = draw.random()
    if kind < 0.04:
        _, make = KINDS[draw.choice(_POISON)]
        return Sent(b"u%d" % draw.randrange(300), make(draw, "4539148803436467"), None)
    row = payment(n - draw.randrange(_DUPLICATE_OF_LAST) if kind < 0.06 else n)
    return Sent(row["user_id"].encode(), value_of(row), row)


def value_of(row: dict) -> bytes:
    return json.dumps(row).encode()


def payment(n: int) -> dict:
    """The transaction of a name."""
    draw = random.Random(f"payment {n}")
    return {
        "transaction_id": f"t-{n}",
        "user_id": f"u{draw.randrange(300)}",
        "card_id": f"c{draw.randrange(400)}",
        "merchant_id": f"m{draw.randrange(60)}",
        "device_id": f"d{draw.randrange(450)}",
        "ip": f"10.0.0.{draw.randrange(200)}",
        "amount": f"{draw.randrange(1, 9_000)}.25",
        "event_time": (_NOON + timedelta(seconds=3 * n)).isoformat(),
    }


# --- the worker -----------------------------------------------------------------------------------------------------------


class PlaceFirst(StreamRedis):
    """A negative control: the place in the stream, and then the parts."""

    def commit(self, token, previous, next, parts, alerts, *journal):
        committed = super().commit(token, previous, next, {}, alerts, *journal)
        time.sleep(0.03)
        if parts:
            answer_of(lambda: self._client.mset(dict(zip(self.names_of(parts), parts.values(), strict=True))))
        return committed


HOW = {"together": StreamRedis, "place-first": PlaceFirst}


def worker_of(bootstrap: str, redis_port: int, how: str = "together", **options) -> KafkaWorker:
    """A worker; further options are those of `KafkaWorker`."""

    def open_state(partition: int, origin: bytes) -> StreamedParts:
        client = redis.Redis(port=redis_port, socket_timeout=0.5, retry=None)
        return StreamedParts(CONFIG, HOW[how](client, partition), origin)

    named = {"group": GROUP, "consumer_options": IMPATIENT} | options
    return KafkaWorker(
        {"bootstrap.servers": bootstrap, **RECONNECTING},
        TOPICS,
        open_state,
        message_format("json"),
        DeadLetters(),
        **named,
    )


# --- what one process makes of the log ------------------------------------------------------------------------------------


class MemoryStream(MemoryStore):
    """A `StreamStore` in this process."""

    def enter(self, schema, origin):
        """As `StreamStore`."""

    def must_leave(self):
        return False

    def leave(self):
        """As `StreamStore`."""

    def tombstones(self):
        return []

    def entity_keys(self):
        yield list(self._parts)

    def parts(self) -> dict[int, bytes]:
        return dict(self._parts)


@dataclass
class Oracle:
    """
    What must have come of a log.

    Attributes
    ----------
    ends : dict of int to int
        Messages by partition.
    parts : dict of str to bytes
        Payloads by the name that Redis has them under.
    alerts : dict of str to bytes
        By their ids.
    decisions : dict of (int, int) to bytes
        By partition and offset, of transactions that came for the first time.
    poison : set of (int, int)
    n_transactions : int
        Counted once each.
    journals : dict of str to bytes
        By the name that its first block has in Redis: all rows in their order.
    """

    ends: dict[int, int]
    parts: dict[str, bytes]
    alerts: dict[str, bytes]
    decisions: dict[tuple[int, int], bytes]
    poison: set[tuple[int, int]]
    n_transactions: int
    journals: dict[str, bytes] = field(default_factory=dict)


def oracle_of(log: Sequence[Message]) -> Oracle:
    """Every partition in its order by one process that nothing happens to."""
    oracle = Oracle({}, {}, {}, {}, set(), len({row_of(each)["transaction_id"] for each in log if row_of(each)}))
    for partition in sorted({each.partition() for each in log}):
        _read_by_one(partition, [each for each in log if each.partition() == partition], oracle)
    return oracle


def row_of(message_: Message) -> dict | None:
    """The transaction in a message, by the number that it was sent with; from `POISON` on there is none."""
    ((_, n),) = message_.headers()
    return None if int(n) >= POISON else message(int(n)).row


def _read_by_one(partition: int, log: Sequence[Message], oracle: Oracle) -> None:
    store = MemoryStream()
    oracle.ends[partition] = len(log)
    oracle.poison |= {(partition, each.offset()) for each in log if row_of(each) is None}
    with StreamedParts(WHOLE, store, b"log") as stream:
        stream.claim()
        for at in range(0, len(log), 500):
            some = log[at : at + 500]
            good = [each for each in some if row_of(each) is not None]
            rows = [row_of(each) for each in good]
            sent_us = np.array([1_000 * each.timestamp()[1] for each in good], np.int64)
            decisions = stream.score(at, at + len(some), Batch(rows, sent_us, lambda decisions: []))
            for each, row, decision in zip(good, rows, decisions, strict=True):
                if decision.duplicate:
                    continue
                told = told_of(decision, row, TOPICS.transactions, partition, each.offset())
                oracle.decisions[partition, each.offset()] = told
                if decision.outcome.value != "APPROVE":
                    oracle.alerts[json.loads(told)["alert_id"]] = told
        stream.commit()
    names = StreamRedis(redis.Redis(socket_timeout=1, retry=None), partition).names_of(store.parts())
    oracle.parts |= dict(zip(names, map(payload, store.parts().values()), strict=True))
    oracle.journals[f"fs1:{{tx.{partition}}}:journal:"] = b"".join(store._rows[row] for row in sorted(store._rows))


def names_of_user(user: str) -> set[str]:
    """What Redis calls the part of a user, in whichever partition it is."""
    keys = []
    for place in (0, 1):  # the one entity that two payments have in common
        store = MemoryStream()
        row = payment(place) | {"user_id": user, "card_id": f"c {place}", "merchant_id": f"m {place}"}
        row |= {"device_id": f"d {place}", "ip": f"10.1.1.{place}"}
        with StreamedParts(WHOLE, store, b"log") as stream:
            stream.claim()
            stream.score(0, 1, Batch([row], np.array([time.time_ns() // 1_000], np.int64), lambda decisions: []))
            stream.commit()
        keys.append({*store.parts()})
    store_of = (StreamRedis(redis.Redis(socket_timeout=1, retry=None), each) for each in range(6))
    return {name for each in store_of for name in each.names_of(keys[0] & keys[1])}


def payload(part: bytes) -> bytes:
    """A part without checksum and place: those say how the stream was cut into commits."""
    words = np.frombuffer(part, "<i8").copy()
    words[[part_kernels.PART_CHECKSUM, part_kernels.PART_SEQUENCE]] = 0
    return words.tobytes()


# --- what is wrong --------------------------------------------------------------------------------------------------------


def problems_of(oracle: Oracle, client: redis.Redis, read_all) -> list[str]:
    """Everything that differs from what one process makes of the log; `read_all` gives the messages of a topic."""
    return [*_problems_of_state(oracle, client), *_problems_of_topics(oracle, read_all)]


def _problems_of_state(oracle: Oracle, client: redis.Redis) -> Iterator[str]:
    names = {name.decode() for name in client.scan_iter("*", count=10_000)}
    own = {f"fs1:{{tx.{partition}}}:{each}" for partition in oracle.ends for each in ("meta", "out", "feed")}
    blocks = {name for name in names if ":journal:" in name}
    yield from (f"key {name} is nobody's" for name in names - oracle.parts.keys() - own - blocks - {"fs1:{tx}:writers"})
    for prefix, rows in oracle.journals.items():
        n_blocks = sum(name.startswith(prefix) for name in blocks)
        if b"".join(client.mget([f"{prefix}{n}" for n in range(n_blocks)])) != rows:
            yield f"{prefix} differs"
    for partition, end in oracle.ends.items():
        place = int(client.hget(f"fs1:{{tx.{partition}}}:meta", "o") or 0)
        if place != end:
            yield f"partition {partition} is at {place}, its end is {end}"
        if n := client.xlen(f"fs1:{{tx.{partition}}}:out"):
            yield f"{n} alerts of partition {partition} are not acknowledged"
    kept = dict(zip(oracle.parts, client.mget(list(oracle.parts)), strict=True))
    yield from (f"part {name}" for name, part in oracle.parts.items() if payload(kept[name] or b"\0" * 64) != part)
    # Counted another way: each transaction is in one user, one card, and so on.
    counts = Counter()
    for part in kept.values():
        words = np.frombuffer(part or b"\0" * 8 * 64, "<i8")
        counts[int(words[part_kernels.PART_KIND])] += int(words[part_kernels.PART_WORDS + HEAD_COUNT - HEAD_LAST_US])
    yield from (f"kind {kind} counts {n} transactions" for kind, n in counts.items() if n != oracle.n_transactions)


def _problems_of_topics(oracle: Oracle, read_all) -> Iterator[str]:
    alerts = {}
    for each in read_all(TOPICS.alerts):
        alerts.setdefault(json.loads(each.value())["alert_id"], set()).add(each.value())
    yield from (f"alert {name} is nobody's" for name in alerts.keys() - oracle.alerts.keys())
    yield from (f"alert {name} was not told" for name in oracle.alerts.keys() - alerts.keys())
    yield from (
        f"alert {name} is another" for name, told in oracle.alerts.items() if alerts.get(name, {told}) != {told}
    )
    letters = {origin_of(each) for each in read_all(TOPICS.dead_letters)}
    yield from (f"dead letter {where} is of no poison" for where in letters - oracle.poison)
    yield from (f"poison {where} has no dead letter" for where in oracle.poison - letters)
    decisions = {}
    for each in read_all(TOPICS.decisions):
        told = json.loads(each.value())
        if not told["duplicate"]:
            decisions.setdefault((told["partition"], told["offset"]), set()).add(each.value())
    yield from (f"decision {where} is nobody's" for where in decisions.keys() - oracle.decisions.keys())
    yield from (
        f"decision {where} differs" for where, told in oracle.decisions.items() if decisions.get(where) != {told}
    )


def origin_of(letter: Message) -> tuple[int, int]:
    """Partition and offset of the message that a dead letter is of."""
    headers = dict(letter.headers())
    return int(headers["fraudsdk.partition"]), int(headers["fraudsdk.offset"])


def main(bootstrap: str, redis_port: str, how: str) -> int:
    worker = worker_of(bootstrap, int(redis_port), how)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
