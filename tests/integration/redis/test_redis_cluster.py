"""`RedisStore` over a real Redis Cluster of three nodes: one of them down, scripts gone, a slot that moves."""

from __future__ import annotations

import time

import pytest
from rights import CLUSTER_RIGHTS, grant
from servers import CLUSTER_NODE, Cluster, RedisServer, free_port, require_redis, wait_for

from fraudsdk.entity_state.store import Committed
from fraudsdk.errors import StateUnavailableError
from fraudsdk.testing.contracts import StateStoreContract

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402  # only where Redis is


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def client(cluster):
    with connect(url_of(cluster), timeout_s=5) as client:
        client.flushall(target_nodes=client.PRIMARIES)
        yield client


def url_of(cluster, *nodes):
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes or cluster.nodes)


def writer_of(cluster, node):
    """The name of a writer whose keys are on that node."""
    return next(name for name in map("tx.{}".format, range(100)) if cluster.owner_of(f"{{{name}}}") is node)


@pytest.fixture
def fraud(cluster, client):
    """A client of the user that docs/redis.md describes."""
    grant(client, CLUSTER_RIGHTS, target_nodes=client.PRIMARIES)
    client.acl_log_reset(target_nodes=client.PRIMARIES)
    client.script_flush()
    with connect(url_of(cluster).replace("//", "//fraud:secret@"), timeout_s=5) as fraud:
        yield fraud


class TestRedisStoreOverAClusterWithTheLeastRights(StateStoreContract):
    @pytest.fixture
    def store(self, cluster, fraud):
        return RedisStore(fraud, writer_of(cluster, cluster.nodes[0]))

    @pytest.fixture
    def another(self, cluster, fraud):
        return RedisStore(fraud, writer_of(cluster, cluster.nodes[1]))

    @pytest.fixture(autouse=True)
    def _nothing_is_refused(self, cluster, fraud):
        yield
        assert [[], [], []] == [ask(node, "ACL", "LOG") for node in cluster.nodes]


@pytest.mark.parametrize("right", ["+eval", "+command", "+cluster|slots"])
def test_each_right_in_a_cluster_is_needed(cluster, client, fraud, right):
    grant(client, [word for word in CLUSTER_RIGHTS if word != right], target_nodes=client.PRIMARIES)

    with pytest.raises(StateUnavailableError, match="NoPermissionError"):
        RedisStore(connect(url_of(cluster).replace("//", "//fraud:secret@")), "tx.1").claim(b"me")


class TestRedisStoreOverACluster(StateStoreContract):
    @pytest.fixture
    def store(self, cluster, client):
        return RedisStore(client, writer_of(cluster, cluster.nodes[0]))

    @pytest.fixture
    def another(self, cluster, client):
        return RedisStore(client, writer_of(cluster, cluster.nodes[1]))


def test_any_node_tells_where_the_others_are(cluster):
    for node in cluster.nodes:
        with connect(url_of(cluster, node)) as client:
            for other in cluster.nodes:
                assert 0 == RedisStore(client, f"{writer_of(cluster, other)}-untouched").claim(b"me")


def test_a_cluster_tries_each_call_once(client):
    assert 0 == client.retry.get_retries()


def test_scripts_that_were_flushed_are_sent_again(cluster, client):
    store = RedisStore(client, writer_of(cluster, cluster.nodes[2]))
    store.claim(b"me")
    client.script_flush()

    assert Committed.WRITTEN is store.commit(b"me", 0, 1, {1: b"one"}, [])


def test_one_node_of_three_is_down_and_the_writers_of_the_others_go_on(cluster, client):
    stores = [RedisStore(client, writer_of(cluster, node)) for node in cluster.nodes]
    for store in stores:
        store.claim(b"me")
        store.commit(b"me", 0, 1, {1: b"one"}, [b"a"])
    cluster.nodes[0].kill()
    try:
        with pytest.raises(StateUnavailableError, match="safe to repeat"):
            stores[0].commit(b"me", 1, 2, {1: b"two"}, [])
        # Also where the nodes that are up have forgotten the scripts, and for one who comes new.
        for node in cluster.nodes[1:]:
            with node.client() as alone:
                alone.script_flush()
        assert Committed.WRITTEN is stores[1].commit(b"me", 1, 2, {1: b"two"}, [])
        assert 1 == len(stores[2].outbox(10))
        for _ in range(5):  # which node a new client asks first is drawn
            with connect(url_of(cluster)) as new:
                store = RedisStore(new, writer_of(cluster, cluster.nodes[2]))
                assert 1 == store.claim(b"me")
                assert [b"one"] == store.read(b"me", 1, [1])
    finally:
        cluster.nodes[0].start()
        cluster.wait_until_agreed()

    assert Committed.WRITTEN is stores[0].commit(b"me", 1, 2, {1: b"two"}, [])
    assert [b"two"] == stores[0].read(b"me", 2, [1])


def test_a_node_that_is_silent_is_given_up_in_time(cluster, client):
    with connect(url_of(cluster), timeout_s=0.3) as impatient:
        silent, other = (RedisStore(impatient, writer_of(cluster, node)) for node in cluster.nodes[:2])
        silent.claim(b"me")
        other.claim(b"me")
        cluster.nodes[0].pause()
        try:
            started = time.monotonic()
            with pytest.raises(StateUnavailableError, match="TimeoutError"):
                silent.read(b"me", 0, [1])
            assert time.monotonic() - started < 5
            assert [b""] == other.read(b"me", 0, [1])
        finally:
            cluster.nodes[0].resume()
            cluster.wait_until_agreed()
        assert [b""] == silent.read(b"me", 0, [1])


def test_a_slot_that_no_node_has_stops_its_writers_alone(tmp_path):
    node = RedisServer(tmp_path, *CLUSTER_NODE, "--cluster-port", str(free_port())).start()
    try:
        ask(node, "CLUSTER ADDSLOTSRANGE", 0, Cluster.N_SLOTS // 2)
        wait_for("the node to know its slots", lambda: ask(node, "CLUSTER INFO")["cluster_state"] == "ok")
        with connect(f"redis+cluster://127.0.0.1:{node.port}") as client:
            names = {ask(node, "CLUSTER KEYSLOT", f"{{tx.{i}}}") * 2 // Cluster.N_SLOTS: f"tx.{i}" for i in range(20)}

            assert 0 == RedisStore(client, names[0]).claim(b"me")
            with pytest.raises(StateUnavailableError, match="ClusterError"):
                RedisStore(client, names[1]).claim(b"me")
    finally:
        node.stop()


def test_no_node_at_all_is_unavailable_too(tmp_path):
    cluster = Cluster(tmp_path)
    try:
        with connect(url_of(cluster.start())) as client:
            store = RedisStore(client, "tx.1")
            store.claim(b"me")
            for node in cluster.nodes:
                node.kill()

            for _ in range(2):
                with pytest.raises(StateUnavailableError, match="safe to repeat"):
                    store.commit(b"me", 0, 1, {1: b"one"}, [])
            with pytest.raises(StateUnavailableError, match="no node of the Redis cluster"):
                connect(url_of(cluster))
    finally:
        cluster.stop()


def test_a_slot_that_moves_takes_its_writer_along(cluster, fraud):
    source, target = cluster.nodes[0], cluster.nodes[2]
    name = writer_of(cluster, source)
    store = RedisStore(fraud, name)
    store.claim(b"me")
    store.commit(b"me", 0, 1, dict.fromkeys(range(1, 20), b"one"), [b"a"])
    moving = Moving(f"{{{name}}}", source, target)
    try:
        moving.begin()
        # Half here and half there: Redis refuses a script over both, and says to try again.
        moving.take_keys(10)
        with pytest.raises(StateUnavailableError, match="safe to repeat"):
            store.commit(b"me", 1, 2, dict.fromkeys(range(1, 20), b"two"), [])
        moving.take_keys(100)
        assert [b"one"] * 19 == store.read(b"me", 1, list(range(1, 20)))  # by ASK
        moving.end()

        assert Committed.WRITTEN is store.commit(b"me", 1, 2, dict.fromkeys(range(1, 20), b"two"), [])  # by MOVED
        assert [b"two"] * 19 == store.read(b"me", 2, list(range(1, 20)))
        assert [b"a"] == [alert for _, alert in store.outbox(10)]
        assert 0 == moving.n_left()
    finally:
        moving.back()


class Moving:
    """The slot of a key, on its way from one node to another."""

    def __init__(self, key, source, target):
        self.source, self.target = source, target
        self.slot = ask(source, "CLUSTER KEYSLOT", key)
        self.ids = {node: ask(node, "CLUSTER MYID").decode() for node in (source, target)}

    def begin(self):
        ask(self.target, "CLUSTER SETSLOT", self.slot, "IMPORTING", self.ids[self.source])
        ask(self.source, "CLUSTER SETSLOT", self.slot, "MIGRATING", self.ids[self.target])

    def take_keys(self, n):
        if keys := ask(self.source, "CLUSTER GETKEYSINSLOT", self.slot, n):
            ask(self.source, "MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *keys)

    def end(self):
        for node in (self.target, self.source):
            ask(node, "CLUSTER SETSLOT", self.slot, "NODE", self.ids[self.target])

    def n_left(self):
        return ask(self.source, "CLUSTER COUNTKEYSINSLOT", self.slot)

    def back(self):
        """As it was, for the next test; without its keys."""
        for node in (self.target, self.source):
            ask(node, "FLUSHALL")
        for node in (self.source, self.target):
            ask(node, "CLUSTER SETSLOT", self.slot, "NODE", self.ids[self.source])


def ask(node, *command):
    with node.client() as client:
        return client.execute_command(*command)
