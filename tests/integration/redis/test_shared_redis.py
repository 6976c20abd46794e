"""`SharedRedis`: its contract over one server, a cluster, and with the least rights."""

from __future__ import annotations

import pytest
from rights import CLUSTER_RIGHTS, RIGHTS, SHARED_RIGHTS, grant
from servers import IN_MEMORY, Cluster, RedisServer, require_redis

from fraudsdk.entity_state.store import Committed
from fraudsdk.errors import ConfigurationError, StateUnavailableError
from fraudsdk.testing.contracts import SharedStoreContract

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import SharedRedis, connect  # noqa: E402  # only where Redis is


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"), *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def owner(server):
    """May do everything."""
    with server.client() as client:
        client.flushall()
        client.script_flush()
        client.acl_log_reset()
        grant(client, RIGHTS + SHARED_RIGHTS)
        yield client


@pytest.fixture
def client(server, owner):
    with connect(f"redis://fraud:secret@127.0.0.1:{server.port}", timeout_s=5) as client:
        yield client


def _writer_of(client):
    return lambda max_writers=16: SharedRedis(client, "cards", max_writers=max_writers)


class TestSharedRedisWithTheLeastRights(SharedStoreContract):
    @pytest.fixture
    def writer(self, client):
        return _writer_of(client)

    @pytest.fixture(autouse=True)
    def _nothing_is_refused(self, owner, client):
        yield
        assert [] == owner.acl_log()


class TestSharedRedisOverACluster(SharedStoreContract):
    @pytest.fixture
    def writer(self, cluster):
        nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        with connect(f"redis+cluster://{nodes}", timeout_s=5) as owner:
            owner.flushall(target_nodes=owner.PRIMARIES)
            grant(owner, CLUSTER_RIGHTS + SHARED_RIGHTS, target_nodes=owner.PRIMARIES)
        with connect(f"redis+cluster://fraud:secret@{nodes}", timeout_s=5) as client:
            yield _writer_of(client)


def everything(store):
    store.join(b"schema")
    store.tombstones()
    store.commit({1: b"one"})
    store.read([1])
    store.poll()
    assert [[1]] == list(store.entity_keys())
    store.quarantine(1)
    store.leave()


@pytest.mark.parametrize("right", [right for right in SHARED_RIGHTS if right != "+xread"])
def test_each_right_is_needed(owner, client, right):
    SharedRedis(client, "cards").join(b"schema")  # whoever comes next follows this one
    owner.hset("fs1:{cards}:writers", "erasing", "killed 1")  # in the middle of it, long ago
    grant(owner, [word for word in RIGHTS + SHARED_RIGHTS if word != right])

    with pytest.raises(StateUnavailableError, match=r"NoPermissionError|ResponseError"):
        everything(SharedRedis(client, "cards"))
    assert owner.acl_log()


def test_a_store_that_lost_everything_is_found_out_by_a_poll_and_gives_the_slot_again(server, owner, client):
    store = SharedRedis(client, "cards")
    store.join(b"schema")
    store.commit({1: b"one"})
    owner.flushall()

    assert store.poll().has_lost_ours
    store.resume()
    assert not store.poll().has_lost_ours
    assert Committed.WRITTEN is store.commit({1: b"one"})
    newcomer = SharedRedis(client, "cards")
    newcomer.join(b"schema")
    assert {1: [b"one", b""]} == {key: list(of) for key, of in newcomer.read([1]).of.items()}


def test_groups_do_not_meet(client):
    cards, loans = SharedRedis(client, "cards"), SharedRedis(client, "loans")
    cards.join(b"of cards")
    loans.join(b"of loans")
    cards.commit({1: b"card"})

    assert [b""] == list(loans.read([1]).of[1])
    assert [] == list(loans.entity_keys())


@pytest.mark.parametrize(
    "options", [{"max_writers": 0}, {"max_writers": 1_000}, {"lease_s": 0.1}, {"ttl_s": -1}, {"group": "a:b"}]
)
def test_options_that_will_not_do_are_refused(client, options):
    with pytest.raises(ConfigurationError):
        SharedRedis(client, **options)
