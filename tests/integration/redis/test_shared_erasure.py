"""A subject is erased from what processes share: from their memory, from Redis, and from the file that Redis writes."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from servers import IN_MEMORY, RedisServer, require_redis, wait_for

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.cli import main
from fraudsdk.entity_state.erasure import PartEraser, find_traces, patterns_of
from fraudsdk.errors import ConfigurationError, StateError, StateUnavailableError
from fraudsdk.scorer import shared_state
from fraudsdk.scorer.erasure import subject_of

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import SharedRedis, connect  # noqa: E402  # only where Redis is
from fraudsdk.adapters.redis.erasure import erase_shared  # noqa: E402

MODEL = Path(__file__).parents[3] / "compiled_models" / "reference"
KEY = b"the key of all who share"
CONFIG = ScorerConfig(model=MODEL, hash_key=KEY)
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
AFTER_US = int((NOON + timedelta(days=1)).timestamp() * 1e6)


def purchase(number: int, user: str, **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": user,
        "card_id": f"card of {user}",
        "merchant_id": f"m-{number % 3}",
        "device_id": f"d-{number % 2}",
        "amount": "12.50",
        "event_time": NOON + timedelta(seconds=number),
        **fields,
    }


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Two milliseconds are little on a machine that does something else as well."""
    monkeypatch.setattr(shared_state, "READ_BUDGET_S", 2.0)


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY, "--rdbcompression", "no").start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with connect(f"redis://127.0.0.1:{server.port}", timeout_s=5) as client:
        yield client


@pytest.fixture
def opened(client):
    scorers = []

    def open_one():
        scorers.append(Scorer.open(CONFIG, shared=SharedRedis(client)))
        return scorers[-1]

    yield open_one
    for scorer in scorers:
        scorer.close()


def settled(*scorers):
    for scorer in scorers:
        wait_for("all to be written", lambda scorer=scorer: not scorer.counters()["shared_entities_waiting"])
        wait_for("a slot", lambda scorer=scorer: scorer._shared._has_joined)


def row_of(scorer, transaction):
    return {each.name: each.value for each in scorer.explain(transaction).features}


def erase(client, user="u-1", **options):
    identifiers = {"user_id": user, "card_id": f"card of {user}"}
    return erase_shared(client, "s", CONFIG, identifiers, AFTER_US, **options)


def traces_in(octets: bytes, scorer, user="u-1") -> int:
    """How often a file says something of a user, with the keys that a scorer has that saw the same."""
    subject = subject_of(scorer._encoder, {"user_id": user, "card_id": f"card of {user}"})
    traces = find_traces(scorer._engine.memory, subject)
    patterns = patterns_of(subject, traces)
    assert len(traces.entities) > 3
    keys = {int(key) for key in patterns if key != 0}
    return sum(octets.count(int(key).to_bytes(8, "little", signed=True)) for key in keys) + sum(
        octets.count(b"%016x" % (int(key) & 0xFFFF_FFFF_FFFF_FFFF)) for key in traces.entities.tolist()
    )


def snapshot_of(server) -> bytes:
    with server.client(socket_timeout=30.0) as admin:
        admin.save()
    return (server.directory / "dump.rdb").read_bytes()


def test_nothing_of_a_subject_is_left_and_everybody_else_stays(opened, client, server):
    one, other, alone = opened(), opened(), Scorer.open(CONFIG)
    for i in range(60):
        sent = purchase(i, f"u-{i % 3}")
        (one, other)[i % 2].score(sent)
        alone.score(sent)
    settled(one, other)
    before = row_of(alone, purchase(100, "u-2"))
    assert traces_in(snapshot_of(server), alone) > 0

    erased = erase(client)
    settled(one, other)

    assert erased.n_entities > 3 and erased.n_mentions > 0 and erased.n_found == 0
    assert erased.scanned[0].n_bytes > 0
    assert 0 == traces_in(snapshot_of(server), alone)
    for scorer in (one, other):
        assert 0 == row_of(scorer, purchase(101, "u-1"))["user_count_24h"] - 1
        others = row_of(scorer, purchase(102, "u-2", event_time=NOON + timedelta(seconds=100)))
        same = {name for name in before if name.startswith(("user_", "merchant_count", "merchant_amount", "card_"))}
        for name in same:
            np.testing.assert_allclose(others[name], before[name], rtol=1e-5, atol=1e-5, err_msg=name)
    alone.close()


def test_a_part_that_is_left_out_is_found_by_the_scan(opened, client, monkeypatch):
    scorer = opened()
    for i in range(20):
        scorer.score(purchase(i, f"u-{i % 3}"))
    settled(scorer)
    monkeypatch.setattr(PartEraser, "erased", _but_for_mentions(PartEraser.erased))

    assert erase(client).n_found > 0


def _but_for_mentions(erased):
    def holed(self, part):
        return None if erased(self, part) is None else part

    return holed


def test_processes_decide_meanwhile_and_what_happens_then_counts(opened, client):
    one, other = opened(), opened()
    for i in range(40):
        one.score(purchase(i, f"u-{i % 3}"))
    settled(one, other)
    decisions, stopping, numbers = [], threading.Event(), itertools.count(100)

    def decide():
        while not stopping.wait(0.001):
            decisions.append(one.score(purchase(next(numbers), "u-9")))

    deciding = threading.Thread(target=decide)
    deciding.start()
    try:
        erase(client)
    finally:
        stopping.set()
        deciding.join()
    settled(one, other)

    remembered = [each for each in decisions if "send it again" not in (each.degraded_because or "")]
    asked = purchase(99_999, "u-9", event_time=NOON + timedelta(hours=3))
    assert len(remembered) > 0
    for scorer in (one, other):
        assert len(remembered) == row_of(scorer, asked)["user_count_24h"] - 1
    assert 0 == one.counters()["shared_entities_lost"]


def test_what_happened_before_and_comes_once_more_is_not_remembered(opened, client):
    scorer = opened()
    for i in range(20):
        scorer.score(purchase(i, "u-1"))
    settled(scorer)
    erase(client)
    settled(scorer)

    again = scorer.score(purchase(500, "u-1"))
    later = scorer.score(purchase(501, "u-1", event_time=NOON + timedelta(days=2)))
    settled(scorer)

    assert again.degraded and "erased" in again.degraded_because
    assert not later.degraded
    asked = purchase(502, "u-1", event_time=NOON + timedelta(days=2, seconds=1))
    assert 1 == row_of(scorer, asked)["user_count_24h"] - 1
    assert "erased" in opened().score(purchase(503, "u-1")).degraded_because  # whoever opens later knows too


def test_a_process_that_was_killed_is_waited_for_until_its_lease_runs_out(client):
    killed = SharedRedis(client, lease_s=1.0)
    with Scorer.open(CONFIG, shared=SharedRedis(client)) as scorer:
        schema = scorer._shared._schema
    killed.join(schema)

    with pytest.raises(StateUnavailableError, match="do not leave"):
        erase(client, wait_s=0.1)
    assert 0 == erase(client, wait_s=20.0).n_found
    scorer = Scorer.open(CONFIG, shared=SharedRedis(client))  # nothing is held up any more
    scorer.close()


def test_nobody_joins_meanwhile(client):
    client.hset("fs1:{s}:writers", "erasing", f"another {10**15}")

    with pytest.raises(StateUnavailableError, match="erased"):
        Scorer.open(CONFIG, shared=SharedRedis(client))
    client.hset("fs1:{s}:writers", "erasing", "another 1")  # it was killed long ago
    Scorer.open(CONFIG, shared=SharedRedis(client)).close()


def test_who_is_unknown_leaves_a_tombstone(opened, client):
    settled(opened())

    erased = erase(client, user="nobody")

    assert not erased.was_known
    assert 2 == client.hlen("fs1:{s}:tombstones")


@pytest.mark.parametrize("key", [b"another key of sixteen", KEY])
def test_another_group_or_key_is_refused(opened, client, key):
    settled(opened())
    group = "s" if key != KEY else "another"

    with pytest.raises(StateError, match="group"):
        erase_shared(client, group, ScorerConfig(model=MODEL, hash_key=key), {"user_id": "u-1"}, AFTER_US)


def test_a_scorer_that_shares_does_not_erase_by_itself(opened):
    with pytest.raises(ConfigurationError, match="fraudsdk state erase"):
        opened().erase(user_id="u-1")


def test_the_command(opened, client, server, tmp_path, capsys):
    scorer = opened()
    for i in range(20):
        scorer.score(purchase(i, f"u-{i % 3}"))
    settled(scorer)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "url").write_text(f"redis://127.0.0.1:{server.port}\n")
    named = ["--user", "u-1", "--card", "card of u-1", "--model", str(MODEL), "--hash-key-file", str(tmp_path / "key")]

    code = main(["state", "erase", f"@{tmp_path / 'url'}", *named])

    said = capsys.readouterr()
    assert 0 == code, said
    assert "erased" in said.out and "nothing found" in said.out and "BGSAVE" in said.err
    assert 0 != main(["state", "erase", f"redis://127.0.0.1:{server.port}", "--group", "no", *named])
    assert "no group" in capsys.readouterr().err
