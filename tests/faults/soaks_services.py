"""
Both services under a steady load, for as long as one likes, and what becomes of their memory, descriptors, threads and latency.

::

    python tests/faults/soaks_services.py FOLDER --minutes 30

A real sidecar is first asked for as much as it gives while all else runs, and then gets a share of that (`--load`), on a
schedule: calls of one transaction, messages of twenty on streams.  Some streams are cancelled, some connections are broken, and
some clients come for a few calls alone.  A real ``fraudsdk kafka`` consumes what a paced producer sends to a real broker.
Whatever is remembered is soon full, so that what comes later can only take the place of what came before.

It prints a row for each tenth of the time, then a verdict as JSON, and exits with 1 where something grew or failed.  With
`--leak`, the sidecar is run by this script in a process that loses memory and descriptors beside it, which must be found out.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import socket
import statistics
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path[:0] = [str(_TESTS / "faults")] + [
        str(_TESTS / "integration" / each) for each in ("interop", "kafka", "redis")
    ]

PER_MESSAGE = 20
MESSAGES_OF_A_STREAM = 50
STEP_US = 1_000_000  # between two transactions, in their own time: a day of 10,000/s ends now and begins in 1999
MOST_PER_S = 10_000
WARM_UP = 0.4  # of the time
N_ROWS = 10
N_PARTITIONS = 6
REST_S = 30.0
TRIED_S = 4.0
N_CLIENTS = 4
FAILURES_KEPT = 5
# What the allocator gives and takes; over half an hour a hundredth of it is far less than any leak of a call or a message.
RESIDENT_MORE_MAX, RESIDENT_MIB_MORE_MAX = 0.01, 1.0
# Connections and files come and go; what leaks goes on.
DESCRIPTORS_MORE_MAX = 3
THREADS_MORE_MAX = 3


# --- what is sent ---------------------------------------------------------------------------------------------------


class Transactions:
    """Transactions without end, each round of them by other users; in the order of their own time.  For several threads."""

    def __init__(self, prefix: str, seed: int, n_in_all: int) -> None:
        from keeps_state import plan

        self._plan = plan(10_000, seed)
        self._prefix = prefix
        self._numbers = itertools.count()  # its next() is one step of the interpreter
        self._begin_us = time.time_ns() // 1000 - n_in_all * STEP_US

    def __next__(self) -> dict:
        number = next(self._numbers)
        round_, place = divmod(number, len(self._plan))
        sent = dict(self._plan[place])
        for name in ("user_id", "card_id", "device_id"):
            if name in sent:
                sent[name] = f"{round_ % 97}-{sent[name]}"
        for name in ("transaction_id", "original_transaction_id"):
            if name in sent:
                sent[name] = f"{self._prefix}{round_}-{sent[name]}"
        sent["event_time_us"] = self._begin_us + number * STEP_US
        return sent


@dataclass
class Seen:
    """What clients saw of one kind of call."""

    latencies_ms: list[float] = field(default_factory=list)
    n_failures: int = 0
    failures: list[str] = field(default_factory=list)
    """The first of them."""

    def fail(self, error: Exception) -> None:
        self.n_failures += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append(f"{type(error).__name__}: {error}"[:300])

    def taken(self) -> list[float]:
        """What came since this was asked last."""
        taken, self.latencies_ms = self.latencies_ms, []
        return taken


class Pace:
    """When each of many things is due; what is late stays due when it was."""

    def __init__(self, per_s: float) -> None:
        self._interval_s = 1.0 / per_s
        self._due_s = time.monotonic()

    def wait(self) -> float:
        """Wait for the next, and say when it was due."""
        self._due_s += self._interval_s
        if (left_s := self._due_s - time.monotonic()) > 0:
            time.sleep(left_s)
        return self._due_s


# --- the sidecar's clients ------------------------------------------------------------------------------------------


class SidecarLoad:
    """Clients of a sidecar, each a thread."""

    def __init__(self, target: str, transactions: Transactions) -> None:
        self._target, self._transactions = target, transactions
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.unary, self.stream, self.passing = Seen(), Seen(), Seen()
        self.n_cancelled = self.n_broken = 0

    def most_calls_per_s(self) -> float:
        """Calls that are answered where each client calls again at once."""
        until_s, done = time.monotonic() + TRIED_S, [0] * N_CLIENTS

        def call(client: int) -> None:
            with self._client() as scoring:
                while time.monotonic() < until_s:
                    scoring.score(next(self._transactions))
                    done[client] += 1

        threads = [threading.Thread(target=call, args=(client,)) for client in range(N_CLIENTS)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        return sum(done) / TRIED_S

    def start(self, calls_per_s: float) -> None:
        """Four of five calls have one transaction, the fifth is a message of a stream."""
        unary = [(self._call, 0.4 * calls_per_s)] * 2
        for run, per_s in (*unary, (self._stream, 0.2 * calls_per_s), (self._misbehave, 10.0), (self._pass_by, 2.0)):
            self._threads.append(threading.Thread(target=run, args=(Pace(per_s),)))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _client(self):
        from fraudsdk.adapters.grpc import ScoringClient

        own = [("grpc.use_local_subchannel_pool", 1)]
        return ScoringClient(self._target, timeout_s=10.0, max_attempts=1, options=own)

    def _call(self, pace: Pace) -> None:
        with self._client() as scoring:
            while not self._stop.is_set():
                due_s = pace.wait()
                with _noted(self.unary):
                    scoring.score(next(self._transactions))
                    self.unary.latencies_ms.append((time.monotonic() - due_s) * 1e3)

    def _stream(self, pace: Pace) -> None:
        with self._client() as scoring:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                with _noted(self.stream):
                    self._one_stream(scoring, pace, is_cancelled=number % 5 == 4)

    def _one_stream(self, scoring, pace: Pace, is_cancelled: bool) -> None:
        due_s: list[float] = []

        def messages():
            for _ in range(MESSAGES_OF_A_STREAM):
                due_s.append(pace.wait())
                yield [next(self._transactions) for _ in range(PER_MESSAGE)]

        answers = scoring.score_stream(messages())
        for number, answer in enumerate(answers):
            assert PER_MESSAGE == len(answer), answer
            self.stream.latencies_ms.append((time.monotonic() - due_s[number]) * 1e3)
            if is_cancelled and number == MESSAGES_OF_A_STREAM // 2:
                answers.close()
                self.n_cancelled += 1
                return

    def _pass_by(self, pace: Pace) -> None:
        """A connection for three calls."""
        while not self._stop.is_set():
            pace.wait()
            with _noted(self.passing), self._client() as scoring:
                for _ in range(3):
                    scoring.score(next(self._transactions))

    def _misbehave(self, pace: Pace) -> None:
        """Connections that say nothing, or half of something, and end by a word or by a reset."""
        host, _, port = self._target.partition(":")
        for number in itertools.count():
            if self._stop.is_set():
                return
            pace.wait()
            with _noted(self.passing), socket.create_connection((host, int(port)), timeout=10) as raw:
                raw.sendall((b"", b"PRI * HT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")[number % 3])
                if number % 2:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.n_broken += 1


@contextlib.contextmanager
def _noted(seen: Seen):
    try:
        yield
    except Exception as error:
        seen.fail(error)


# --- the stream -----------------------------------------------------------------------------------------------------


class StreamLoad:
    """A paced producer, and whoever reads the alerts and sees how old the transactions are that they are about."""

    def __init__(self, broker, transactions: Transactions) -> None:
        self._broker, self._transactions = broker, transactions
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.alerts = Seen()
        self.n_sent = self.n_poison = self.n_alerts = 0

    def start(self, per_s: float) -> None:
        for run, args in ((self._produce, (Pace(per_s),)), (self._read_alerts, ())):
            self._threads.append(threading.Thread(target=run, args=args))
            self._threads[-1].start()

    def stop(self) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _produce(self, pace: Pace) -> None:
        from fraudsdk.adapters.kafka.connection import KafkaConnection
        from fraudsdk.adapters.kafka.producer import MessageProducer

        with _noted(self.alerts):
            producer = MessageProducer(KafkaConnection(self._broker.bootstrap))
            while not self._stop.is_set():
                pace.wait()
                sent = next(self._transactions)
                sent["transaction_id"] += f"@{time.time_ns()}"
                producer.send("transactions", sent["user_id"].encode(), json.dumps(sent).encode())
                self.n_sent += 1
                if self.n_sent % 1_000 == 0:
                    producer.send("transactions", b"nobody", b'{"amount": NaN}')
                    self.n_poison += 1
            producer.finish()

    def _read_alerts(self) -> None:
        from confluent_kafka import Consumer
        from kafka_servers import client_options

        consumer = Consumer(client_options(self._broker.bootstrap, group_id="soak", auto_offset_reset="earliest"))
        consumer.subscribe(["fraud-alerts"])
        with _noted(self.alerts), contextlib.closing(consumer):
            while not self._stop.is_set():
                if (each := consumer.poll(0.1)) is not None:
                    assert each.error() is None, each.error()
                    sent_ns = int(json.loads(each.value())["transaction_id"].rpartition("@")[2])
                    self.alerts.latencies_ms.append((time.time_ns() - sent_ns) / 1e6)
                    self.n_alerts += 1


# --- what is looked at ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Of one process at one time."""

    resident_mib: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Sample:
        # Of its own: pages of files that it has mapped are the kernel's to drop.
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        resident_kib, threads = (int(status[name].split()[0]) for name in ("RssAnon", "Threads"))
        return cls(resident_kib / 1024, len(os.listdir(f"/proc/{pid}/fd")), threads)


class Watched:
    """Samples of a process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.samples: list[Sample] = []
        self.at_s: list[float] = []

    def look(self) -> None:
        self.at_s.append(time.monotonic())
        self.samples.append(Sample.of(self._pid))

    def verdict(self) -> dict[str, float | bool]:
        """The least at the end against the least after the warm-up: what only comes and goes is at its least in both."""
        begin = int(len(self.samples) * WARM_UP)
        kept, n = self.samples[begin:], max(3, (len(self.samples) - begin) // 4)
        first, last = kept[:n], kept[-n:]

        def least(samples: list[Sample], name: str) -> float:
            return min(getattr(each, name) for each in samples)

        growth = {name: least(last, name) - least(first, name) for name in ("resident_mib", "descriptors", "threads")}
        slope = statistics.linear_regression(self.at_s[begin:], [each.resident_mib for each in kept]).slope
        resident_mib = least(first, "resident_mib")
        is_flat = (
            growth["resident_mib"] <= RESIDENT_MIB_MORE_MAX + RESIDENT_MORE_MAX * resident_mib
            and growth["descriptors"] <= DESCRIPTORS_MORE_MAX
            and growth["threads"] <= THREADS_MORE_MAX
        )
        return {
            "resident_mib": resident_mib,
            "resident_mib_more": growth["resident_mib"],
            "resident_mib_per_minute": slope * 60,
            "descriptors": least(first, "descriptors"),
            "descriptors_more": growth["descriptors"],
            "threads": least(first, "threads"),
            "threads_more": growth["threads"],
            "is_flat": is_flat,
        }


def _row(*cells: object) -> None:
    print("".join(f"{each:>13}" if number else f"{each:<9}" for number, each in enumerate(cells)), flush=True)


def _quantiles(values: list[float]) -> str:
    if len(values) < 2:
        return "-"
    cuts = statistics.quantiles(values, n=1000)
    return f"{cuts[499]:.1f}/{cuts[989]:.0f}"


# --- the soak -------------------------------------------------------------------------------------------------------


def soak(folder: Path, minutes: float, load: float, stream_per_s: float, leak_mib_per_s: float) -> dict:
    """Run both services, and say how they were."""
    from kafka_servers import KafkaBroker
    from service_processes import SidecarProcess, StreamProcess

    n_in_all = int(minutes * 60 + 60) * MOST_PER_S
    leaking = [sys.executable, __file__, "--as-sidecar", str(leak_mib_per_s)]
    broker = KafkaBroker(folder / "broker")
    sidecar = SidecarProcess(folder / "sidecar", leaking if leak_mib_per_s else None)
    stream = StreamProcess(folder / "stream")
    with contextlib.ExitStack() as at_end:
        for each in (broker, stream, sidecar):
            at_end.callback(each.stop)
        broker.start()
        for topic, n_partitions in (("transactions", N_PARTITIONS), ("fraud-alerts", 3), ("transactions.dlq", 1)):
            broker.create_topic(topic, n_partitions, retention_ms="300000", segment_ms="60000")
        stream.start(broker.bootstrap, "--max-entities", 1_000)
        bounds = ("--max-entities", 5_000, "--journal-capacity", 20_000)
        sidecar.start(*bounds, "--state-dir", folder / "sidecar" / "state", "--limits-handshake-s", 2)
        watched = {"sidecar": Watched(sidecar.process.pid), "stream": Watched(stream.process.pid)}
        called = SidecarLoad(sidecar.target, Transactions("g", 49, n_in_all))
        consumed = StreamLoad(broker, Transactions("k", 50, n_in_all))
        consumed.start(stream_per_s)
        most = called.most_calls_per_s()
        print(f"at most {most:.0f} calls/s; now {load * most:.0f}, and {stream_per_s:.0f} messages/s on the stream")
        called.start(load * most)
        try:
            _watch(watched, called, consumed, broker.bootstrap, minutes)
        finally:
            called.stop()
            consumed.stop()
        found = {
            "messages": [consumed.n_sent + consumed.n_poison, _consumed(broker.bootstrap)[1]],
            "not_consumed": _wait_for_rest(broker.bootstrap),
            "dead_letters": [consumed.n_poison, len(broker.read_all("transactions.dlq"))],
            "calls_under_way": sidecar.figures()["fraudsdk_rpcs_under_way"],
            "exits": [sidecar.stop(), stream.stop()],
        }
    return _verdict(watched, called, consumed, found)


def _watch(
    watched: dict[str, Watched], called: SidecarLoad, consumed: StreamLoad, bootstrap: str, minutes: float
) -> None:
    kinds = {"call": called.unary, "message": called.stream, "alert": consumed.alerts}
    _row(
        "minute",
        *(f"{each} MiB" for each in watched),
        "files",
        "threads",
        "calls",
        *(f"{k} ms" for k in kinds),
        "behind",
    )
    began_s, row_s = time.monotonic(), minutes * 60 / N_ROWS
    for row in range(1, N_ROWS + 1):
        while time.monotonic() < began_s + row * row_s:
            for each in watched.values():
                each.look()
            time.sleep(0.5)
        taken = [each.taken() for each in kinds.values()]
        now = [each.samples[-1] for each in watched.values()]
        place, n = _consumed(bootstrap)
        _row(
            f"{row * row_s / 60:.1f}",
            *(f"{each.resident_mib:.1f}" for each in now),
            "/".join(str(each.descriptors) for each in now),
            "/".join(str(each.threads) for each in now),
            len(taken[0]),
            *map(_quantiles, taken),
            n - place,
        )


def _consumed(bootstrap: str) -> tuple[int, int]:
    """Messages that the group is past, as it was told, and those that there are."""
    from confluent_kafka import Consumer, TopicPartition
    from kafka_servers import client_options

    with contextlib.closing(Consumer(client_options(bootstrap, group_id="fraud-detector"))) as consumer:
        places = consumer.committed([TopicPartition("transactions", each) for each in range(N_PARTITIONS)], timeout=20)
        ends = [consumer.get_watermark_offsets(each, timeout=20)[1] for each in places]
    return sum(max(each.offset, 0) for each in places), sum(ends)


def _wait_for_rest(bootstrap: str) -> int:
    """Messages that are not consumed a while after the last one came."""
    until_s = time.monotonic() + REST_S
    while True:
        consumed, n = _consumed(bootstrap)
        if consumed == n or time.monotonic() > until_s:
            return n - consumed
        time.sleep(0.5)


def _verdict(watched: dict[str, Watched], called: SidecarLoad, consumed: StreamLoad, found: dict) -> dict:
    kinds = {"calls": called.unary, "streams": called.stream, "passers-by": called.passing, "stream": consumed.alerts}
    processes = {name: each.verdict() for name, each in watched.items()}
    failures = {name: [each.n_failures, *each.failures] for name, each in kinds.items() if each.n_failures}
    is_complete = all(sent == there for sent, there in (found["messages"], found["dead_letters"]))
    return {
        "processes": processes,
        "streams_cancelled": called.n_cancelled,
        "connections_broken": called.n_broken,
        "alerts_seen": consumed.n_alerts,
        **found,
        "failures": failures,
        "is_sound": is_complete
        and not failures
        and 0 == found["not_consumed"] == found["calls_under_way"]
        and [0, 0] == found["exits"]
        and min(called.n_cancelled, called.n_broken, consumed.n_alerts) > 0,
        "is_flat": all(each["is_flat"] for each in processes.values()),
    }


def leak_and_serve(mib_per_s: float, flags: list[str]) -> int:
    """The sidecar, in a process that loses memory and descriptors beside it."""
    from fraudsdk_sidecar.app import main as serve

    lost = []

    def lose() -> None:
        while True:
            lost.append((os.urandom(int(mib_per_s * (1 << 20))), os.open(os.devnull, os.O_RDONLY)))
            time.sleep(1.0)

    threading.Thread(target=lose, daemon=True).start()
    return serve(flags)


def main(argv: list[str]) -> int:
    if argv[:1] == ["--as-sidecar"]:
        return leak_and_serve(float(argv[1]), argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the broker, the state and the logs")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.5, help="share of what the sidecar gives at most")
    parser.add_argument("--stream-rate", type=float, default=500.0, help="messages a second")
    parser.add_argument("--leak", type=float, default=0.0, metavar="MIB_PER_S", help="must be found out")
    args = parser.parse_args(argv)
    said = soak(args.folder, args.minutes, args.load, args.stream_rate, args.leak)
    print(json.dumps(said, indent=1))
    return 0 if said["is_flat"] and said["is_sound"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
