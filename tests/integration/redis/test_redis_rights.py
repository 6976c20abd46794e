"""The user of docs/redis.md can do all that a `RedisStore` needs, and nothing else."""

from __future__ import annotations

import pytest
from rights import RIGHTS, grant, granted
from servers import IN_MEMORY, RedisServer, require_redis

from fraudsdk.entity_state.store import Committed, JournalChange
from fraudsdk.errors import StateUnavailableError
from fraudsdk.testing.contracts import StateStoreContract

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402  # only where Redis is


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"), *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture
def owner(server):
    """May do everything."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        client.acl_log_reset()
        grant(client, RIGHTS)
        yield client


@pytest.fixture
def client(server, owner):
    with connect(f"redis://fraud:secret@127.0.0.1:{server.port}", timeout_s=5) as client:
        yield client


class TestRedisStoreWithTheLeastRights(StateStoreContract):
    @pytest.fixture
    def store(self, client):
        return RedisStore(client, "tx.3")

    @pytest.fixture
    def another(self, client):
        return RedisStore(client, "tx.4")

    @pytest.fixture(autouse=True)
    def _nothing_is_refused(self, owner, client):
        owner.config_resetstat()
        yield
        assert [] == owner.acl_log()
        assert owner.info("errorstats").keys() <= {"errorstat_NOSCRIPT"}


def everything(store):
    store.claim(b"me")
    store.commit(b"me", 0, 1, {1: b"one"}, [b"a"], JournalChange(8, 0, 1, ((0, bytes(8)),)))
    store.read(b"me", 1, [1])
    store.journal(b"me", 1, 0)
    ((name, _),) = store.outbox(10)
    store.acknowledge([name])


@pytest.mark.parametrize("right", granted(RIGHTS))
def test_each_right_is_needed(owner, client, right):
    grant(owner, [word for word in RIGHTS if word != right])

    with pytest.raises(StateUnavailableError, match=r"NoPermissionError|ResponseError"):
        everything(RedisStore(client, "tx.3"))
    assert owner.acl_log()


@pytest.mark.parametrize(
    "command", ["FLUSHALL", "CONFIG GET *", "KEYS *", "DEL fs1:{tx.3}:meta", "SET other 1", "ACL LIST"]
)
def test_nothing_else_is_allowed(owner, client, command):
    everything(RedisStore(client, "tx.3"))
    before = owner.keys("*")

    with pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())
    assert before == owner.keys("*")


def test_a_user_of_other_keys_is_refused_and_writes_nothing(owner, client):
    grant(owner, ["~fs1:{tx.3}:*" if word == "~fs1:*" else word for word in RIGHTS])
    everything(RedisStore(client, "tx.3"))
    before = owner.keys("*")
    other = RedisStore(client, "tx.4")

    for ask in (
        lambda: other.claim(b"me"),
        lambda: other.commit(b"me", 0, 1, {1: b"one"}, [b"a"]),
        lambda: other.read(b"me", 0, [1]),
        lambda: other.outbox(1),
        lambda: other.acknowledge(["1-1"]),
    ):
        with pytest.raises(StateUnavailableError, match="NoPermissionError"):
            ask()
    assert before == owner.keys("*")
    assert Committed.WRITTEN is RedisStore(client, "tx.3").commit(b"me", 1, 2, {}, [])


@pytest.mark.parametrize("login", ["fraud:wrong", "nobody:secret"])
def test_a_wrong_login_is_unavailable(server, owner, login):
    with (
        connect(f"redis://{login}@127.0.0.1:{server.port}") as client,
        pytest.raises(StateUnavailableError, match="AuthenticationError"),
    ):
        RedisStore(client, "tx.3").claim(b"me")
