"""Scorers that read what others keep in a real Redis, a stream above all, and write nothing."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from rights import CLUSTER_ONLY_RIGHTS, READING_RIGHTS, grant, granted
from servers import IN_MEMORY, Cluster, RedisServer, require_redis, wait_for

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.errors import InvalidTransactionError, ReadOnlyStateError, StateError, StateUnavailableError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.scorer import shared_state
from fraudsdk.scorer.streamed_parts import Batch, Said, StreamedParts

require_redis()
pytest.importorskip("redis")
from fraudsdk.adapters.redis import SharedRedis, connect  # noqa: E402  # only where Redis is
from fraudsdk.adapters.redis.erasure import erase_shared  # noqa: E402
from fraudsdk.adapters.redis.stream import StreamRedis  # noqa: E402

MODEL = Path(__file__).parents[3] / "compiled_models" / "reference"
CONFIG = ScorerConfig(model=MODEL, hash_key=b"the key of all who share")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY_US = 86_400_000_000


def purchase(number: int, user: str = "u", **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": user,
        "card_id": f"card of {user}",
        "merchant_id": f"m-{number % 3}",
        "amount": f"{10 + number % 90}.50",
        "event_time": NOON + timedelta(seconds=number),
        **fields,
    }


class Stream:
    """A stream of some partitions, each with a writer, as a consumer of it would write."""

    def __init__(self, client, group="tx", n_partitions=2) -> None:
        self.parts = [
            StreamedParts(CONFIG, StreamRedis(client, each, group), b"transactions") for each in range(n_partitions)
        ]
        for part in self.parts:
            part.claim()
        self.taken: list[dict] = []

    def take(self, *transactions) -> None:
        """Score them, each user in one partition, and commit."""
        for number, part in enumerate(self.parts):
            mine = [each for each in transactions if sum(each["user_id"].encode()) % len(self.parts) == number]
            times = np.full(len(mine), time.time_ns() // 1_000, np.int64)
            part.score(part.place, part.place + len(mine), Batch(mine, times, lambda decisions: []))
            part.commit()
        self.taken += transactions

    def close(self) -> None:
        for part in self.parts:
            part.leave()
            part.close()


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    yield server
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGCONT)
    server.stop()


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Two milliseconds, and a second, are little on a machine that does something else as well."""
    monkeypatch.setattr(shared_state, "READ_BUDGET_S", 5.0)
    monkeypatch.setattr(shared_state, "STALE_S", 5.0)


@pytest.fixture
def stream(server):
    with server.client() as client:
        stream = Stream(client)
        yield stream
        for each in stream.parts:
            each.close()


@pytest.fixture
def reader(server, stream):
    with Scorer.open(CONFIG, shared=SharedRedis(server.client(), "tx", reads_only=True)) as scorer:
        yield scorer


def is_at_rest(scorer) -> bool:
    """Wait until all that was written before is read, and it is known what there is besides."""
    started_ns, shared = time.monotonic_ns(), scorer._shared
    return wait_for("a refresh", lambda: shared._fresh_ns > started_ns and not shared._stale and shared._survey is None)


def assert_knows_all(scorer, transactions, asked) -> None:
    """Features as of one scorer that saw everything: counts and sums to the last unit, decayed totals to 1e-5 of them."""
    with Scorer.open(CONFIG) as whole:
        whole.score_batch(transactions)
        rows = [{each.name: each.value for each in one.explain(asked).features} for one in (whole, scorer)]
    for feature in reference_feature_set().features:
        exact = feature.aggregate in ("count", "sum", "max", "distinct", "count_ever", "is_new", "seconds_since_last")
        tolerance = 0 if exact else 1e-5
        wanted, found = (row[feature.name] for row in rows)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=feature.name)


def test_a_reader_knows_what_the_stream_remembers_before_and_after_it_opened(server, stream):
    stream.take(*(purchase(i, f"u{i % 5}") for i in range(100)))
    with Scorer.open(CONFIG, shared=SharedRedis(server.client(), "tx", reads_only=True)) as reader:
        is_at_rest(reader)
        for user in range(5):
            assert_knows_all(reader, stream.taken, purchase(500, f"u{user}"))
        stream.take(*(purchase(i, f"u{i % 7}") for i in range(100, 200)))
        is_at_rest(reader)
        for user in range(7):
            assert_knows_all(reader, stream.taken, purchase(500, f"u{user}"))


def test_what_is_asked_is_not_remembered_and_is_no_worse_for_it(stream, reader):
    stream.take(*(purchase(i) for i in range(10)))
    is_at_rest(reader)

    one = reader.score(purchase(50))
    (in_batch,) = reader.score_batch([purchase(51)])

    assert [False] * 4 == [one.degraded, one.duplicate, in_batch.degraded, in_batch.duplicate]
    assert_knows_all(reader, stream.taken, purchase(52))
    assert 0 == reader.counters()["events"]


def test_who_is_known_is_decided_on_without_a_call(server, stream, reader):
    stream.take(purchase(0))
    is_at_rest(reader)
    reader.score(purchase(51))
    n_reads = reader.counters()["shared_reads"]

    for number in range(52, 60):  # two of its merchants are known to nobody
        reader.score(purchase(number))

    assert n_reads == reader.counters()["shared_reads"]


def test_asking_again_gives_the_first_answer_whether_the_stream_has_it_or_not(stream, reader):
    first, batch = reader.score(purchase(0)), reader.score_batch([purchase(1), purchase(2), purchase(1)])
    before = [reader.score(purchase(0)), *reader.score_batch([purchase(1), purchase(2)])]

    stream.take(purchase(0), purchase(1), purchase(2))
    is_at_rest(reader)
    after = [*reader.score_batch([purchase(0), purchase(1)]), reader.score(purchase(2))]

    expected = [first, batch[0], batch[1]]
    assert [False, False, False, True] == [first.duplicate, *(each.duplicate for each in batch)]
    for again in (before, after):
        assert [each.score for each in expected] == [each.score for each in again]
        assert all(each.duplicate and not each.degraded for each in again)


def test_what_the_stream_remembers_does_not_count_itself(stream, reader):
    """
    Whoever asked first was another process, or this one before a restart.
    """
    stream.take(*(purchase(i) for i in range(5)))
    is_at_rest(reader)

    one, what_if = reader.score(purchase(3)), reader.score(purchase(1), record=False)
    batch = reader.score_batch([purchase(4), purchase(9)])
    (what_if_in_batch,) = reader.score_batch([purchase(1)], record=False)

    assert [True, True, False] == [each.duplicate for each in (one, *batch)]
    assert "duplicate: its first decision is not known" == one.degraded_because
    assert not what_if.duplicate and not what_if_in_batch.duplicate
    with pytest.raises(InvalidTransactionError, match="recorded already"):
        reader.explain(purchase(2))


def test_a_label_is_refused_with_the_way_it_should_go_and_one_told_to_the_stream_is_known(stream, reader):
    stream.take(*(purchase(i, event_time=NOON - timedelta(days=30 - i)) for i in range(5)))

    with pytest.raises(ReadOnlyStateError, match="topic of labels"):
        reader.feedback("t-1", is_fraud=True)
    part = stream.parts[sum(b"u") % 2]
    assert part.feedback(Said("t-1", is_fraud=True))
    part.commit()

    is_at_rest(reader)
    rows = [each.explain(purchase(50)).features for each in (part.scorer, reader)]
    assert [each.value for each in rows[0]] == pytest.approx([each.value for each in rows[1]], nan_ok=True)


def test_while_redis_is_down_decisions_go_on_and_say_how_old_is_what_they_know(server, stream, reader):
    stream.take(*(purchase(i) for i in range(5)))
    is_at_rest(reader)
    reader.score(purchase(50))

    server.kill()
    wait_for("doubt", lambda: reader.score(purchase(53), record=False).degraded)
    known, stranger = reader.score(purchase(56)), reader.score(purchase(59, "somebody else"))

    assert "what others know is" in known.degraded_because
    assert stranger.degraded
    assert reader.state_age_us > 1_000_000
    server.start()
    restarted = Stream(server.client())
    wait_for("no doubt", lambda: not reader.score(purchase(62), record=False).degraded)
    for each in restarted.parts:
        each.close()


def test_an_empty_redis_is_told_from_one_where_nothing_happened(server, stream, reader):
    stream.take(purchase(0))
    is_at_rest(reader)

    server.client().flushall()

    told = wait_for("doubt", lambda: reader.score(purchase(50), record=False).degraded_because)
    assert "nobody has written to group 'tx'" in told


def test_a_partition_that_another_process_takes_over_is_read_on(server, stream, reader):
    stream.take(*(purchase(i, f"u{i % 4}") for i in range(20)))
    is_at_rest(reader)
    reader.score_batch([purchase(300 + i, f"u{i}") for i in range(4)])

    others = Stream(server.client())
    others.take(*(purchase(i, f"u{i % 4}") for i in range(20, 40)))

    is_at_rest(reader)
    for user in range(4):
        assert_knows_all(reader, stream.taken + others.taken, purchase(500, f"u{user}"))
    others.close()


def erase(client, user: str) -> None:
    erase_shared(client, "tx", CONFIG, {"user_id": user}, time.time_ns() // 1_000, wait_s=10)


def test_who_is_erased_is_known_no_more(server, stream, reader):
    stream.take(*(purchase(i, user) for i, user in enumerate(["u", "v"] * 5)))
    is_at_rest(reader)
    reader.score_batch([purchase(50, "u"), purchase(51, "v")])
    stream.close()

    erase(server.client(), "u")

    wait_for("erased", lambda: row_of(reader, purchase(60, "u"))["user_count_24h"] == 1)  # itself
    assert 6 == row_of(reader, purchase(60, "v"))["user_count_24h"]


def test_an_erasure_that_is_over_before_the_reader_looks_again_is_noticed(server, stream, reader, monkeypatch):
    stream.take(*(purchase(i) for i in range(5)))
    is_at_rest(reader)
    reader.score(purchase(50))
    stream.close()
    may_look, poll = threading.Event(), SharedRedis.poll

    def polled_late(store):
        may_look.wait()
        return poll(store)

    monkeypatch.setattr(SharedRedis, "poll", polled_late)
    is_looking_away = time.monotonic() + 0.2
    wait_for("the reader to wait", lambda: time.monotonic() > is_looking_away)
    erase(server.client(), "u")
    may_look.set()

    wait_for("erased", lambda: row_of(reader, purchase(60))["user_count_24h"] == 1)  # itself


def row_of(scorer, transaction) -> dict[str, float]:
    try:
        return {each.name: each.value for each in scorer.explain(transaction).features}
    except StateUnavailableError:  # it has left, and not joined again yet
        return {"user_count_24h": float("nan")}


def test_a_group_that_nobody_writes_is_refused_with_what_to_do(server):
    with pytest.raises(StateUnavailableError, match=r"nobody has written to group 'typo'.* start who writes it"):
        Scorer.open(CONFIG, shared=SharedRedis(server.client(), "typo", reads_only=True))


def test_a_group_of_another_key_is_refused(server, stream):
    other = ScorerConfig(model=MODEL, hash_key=b"another key altogether")

    with pytest.raises(StateError, match="of other features"):
        Scorer.open(other, shared=SharedRedis(server.client(), "tx", reads_only=True))


def test_processes_that_share_are_read_as_well(server):
    with Scorer.open(CONFIG, shared=SharedRedis(server.client(), "s")) as writer:
        reading = SharedRedis(server.client(), "s", reads_only=True)
        with Scorer.open(CONFIG, shared=reading) as reader:
            taken = [purchase(i) for i in range(20)]
            for each in taken:
                writer.score(each)
            wait_for("all to be written", lambda: not writer.counters()["shared_entities_waiting"])
            is_at_rest(reader)
            assert_knows_all(reader, taken, purchase(50))
            assert writer.feedback("t-3", is_fraud=True)


@pytest.fixture
def fraud(server):
    """A client of a user who may do what docs/redis.md says that a reader needs."""
    with server.client() as owner:
        grant(owner, READING_RIGHTS)
    with connect(f"redis://fraud:secret@127.0.0.1:{server.port}", timeout_s=5) as client:
        yield client


def test_a_user_who_may_only_read_is_enough_and_every_right_is_needed(server, stream, fraud):
    everything(server, stream, fraud)
    with server.client() as owner:
        assert [] == owner.acl_log()
        for right in granted(READING_RIGHTS):
            grant(owner, [word for word in READING_RIGHTS if word != right])
            owner.acl_log_reset()
            with contextlib.suppress(StateUnavailableError):
                everything(server, stream, fraud)
            assert owner.acl_log(), right


def everything(server, stream, client) -> None:
    """All that a store which only reads is asked for."""
    stream.take(*(purchase(i + len(stream.taken)) for i in range(5)))
    schema = stream.parts[0]._state.schema
    store = SharedRedis(client, "tx", reads_only=True)
    store.join(schema)
    store.tombstones()
    keys = [key for some in store.entity_keys() for key in some]
    store.read(keys)
    with server.client() as owner:  # a sweep that never ended
        owner.hset("fs1:{tx}:writers", "erasing", "somebody 1")
        store.poll()
        owner.hdel("fs1:{tx}:writers", "erasing")
    store.leave()


def test_a_reader_writes_nothing(server, stream, fraud):
    """
    What Redis itself says was asked: names of commands, and what they change.
    """
    stream.take(*(purchase(i) for i in range(20)))
    with server.client() as owner:
        owner.config_resetstat()
        before = owner.info("persistence")["rdb_changes_since_last_save"]
        with Scorer.open(CONFIG, shared=SharedRedis(fraud, "tx", reads_only=True)) as reader:
            is_at_rest(reader)
            reader.score_batch([purchase(50 + i, f"u{i}") for i in range(20)])
            reader.score(purchase(80))
            is_at_rest(reader)
        after = owner.info("persistence")["rdb_changes_since_last_save"]
        asked = {name.removeprefix("cmdstat_") for name in owner.info("commandstats")}

    assert before == after
    assert {"hgetall", "xread", "mget"} <= asked
    assert asked <= {word[1:].replace("|", "_") for word in granted(READING_RIGHTS)} | {
        *("info", "config|resetstat", "hello", "auth", "client|setinfo", "select", "ping")
    }


def test_a_cluster_is_read_as_one_server_is(tmp_path):
    cluster = Cluster(tmp_path).start()
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    try:
        with connect(f"redis+cluster://{nodes}", timeout_s=5) as owner:
            stream = Stream(owner)
            stream.take(*(purchase(i) for i in range(10)))
            grant(owner, [*READING_RIGHTS, "+get", *CLUSTER_ONLY_RIGHTS], target_nodes=owner.PRIMARIES)
            with connect(f"redis+cluster://fraud:secret@{nodes}", timeout_s=5) as client:
                owner.hset("fs1:{tx}:writers", "erasing", "killed 1")  # in the middle of it, long ago
                with Scorer.open(CONFIG, shared=SharedRedis(client, "tx", reads_only=True)) as reader:
                    stream.take(*(purchase(i) for i in range(10, 20)))
                    is_at_rest(reader)
                    assert_knows_all(reader, stream.taken, purchase(50))
            stream.close()
    finally:
        cluster.stop()
