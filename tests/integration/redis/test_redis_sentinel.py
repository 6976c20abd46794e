"""`RedisStore` over Sentinel: the master is killed, silent or replaced, and the writer goes on with the promoted one."""

from __future__ import annotations

import contextlib
import traceback

import pytest
from rights import SENTINEL_USER, USER
from servers import IN_MEMORY, RedisServer, Sentinel, require_redis, wait_for

from fraudsdk.errors import StateUnavailableError
from fraudsdk.testing.contracts import StateStoreContract

require_redis()
redis = pytest.importorskip("redis")
from writing import Writing, problems_of  # noqa: E402  # only where Redis is

from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402


class Watched:
    """A master, a replica and a sentinel, which ask for the logins that docs/redis.md names."""

    def __init__(self, directory):
        users = ("--" + USER[0], *USER[1:])
        self.master = RedisServer(directory / "master", *IN_MEMORY, *users, "--repl-diskless-sync-delay", "0")
        of = ("--replicaof", "127.0.0.1", str(self.master.port))
        self.replica = RedisServer(directory / "replica", *IN_MEMORY, *users, *of)
        self.sentinel = Sentinel(directory / "sentinel", "cards", self.master.port, lines=[" ".join(SENTINEL_USER)])
        self.url = f"redis+sentinel://fraud:secret@127.0.0.1:{self.sentinel.port}/cards?sentinel_user=watch"

    def start(self):
        self.master.start()
        self.replica.start()
        self.sentinel.start()
        wait_for("the sentinel to know the replica", self._is_known)
        return self

    def _is_known(self):
        with self.sentinel.client() as client:
            known = client.sentinel_slaves("cards")
        return [self.replica.port] == [each["port"] for each in known if each["master-link-status"] == "ok"]

    def stop(self):
        self.sentinel.stop()
        for server in (self.replica, self.master):
            server.kill()  # a master that is to stop waits for its replicas first


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    watched = Watched(tmp_path_factory.mktemp("sentinel"))
    try:
        yield watched.start()
    finally:
        watched.stop()


@pytest.fixture
def client(watched):
    with watched.master.client() as own:
        own.flushall()
    with connect(f"{watched.url}&sentinel_password=secret", timeout_s=5) as client:
        yield client


class TestRedisStoreOverSentinel(StateStoreContract):
    @pytest.fixture
    def store(self, client):
        return RedisStore(client, "tx.3")

    @pytest.fixture
    def another(self, client):
        return RedisStore(client, "tx.4")


def test_a_wrong_password_at_the_sentinel_is_unavailable_and_not_shown(watched):
    with (
        connect(f"{watched.url}&sentinel_password=wrong-one") as client,
        pytest.raises(StateUnavailableError) as refused,
    ):
        RedisStore(client, "tx.1").claim(b"me")

    assert "wrong-one" not in "".join(traceback.format_exception(refused.value))


def test_the_right_at_the_sentinel_is_needed(watched):
    url = f"{watched.url}&sentinel_password=secret"
    with watched.sentinel.client() as own, connect(url) as client:
        own.execute_command("ACL", "SETUSER", "watch", "-sentinel|masters")
        try:
            with pytest.raises(StateUnavailableError, match="NoPermissionError"):
                RedisStore(client, "tx.1").claim(b"me")
        finally:
            own.execute_command("ACL", "SETUSER", "watch", "+sentinel|masters")


def test_a_service_that_the_sentinel_does_not_know_is_unavailable(watched):
    with (
        connect(watched.url.replace("cards", "crads") + "&sentinel_password=secret") as client,
        pytest.raises(StateUnavailableError, match="MasterNotFoundError"),
    ):
        RedisStore(client, "tx.1").claim(b"me")


def test_sentinels_that_are_down_are_passed_over(watched):
    nowhere = RedisServer(watched.sentinel.directory / "nowhere")
    url = watched.url.replace("@", f"@127.0.0.1:{nowhere.port},") + "&sentinel_password=secret"
    with connect(url) as client:
        assert 0 == RedisStore(client, "tx.untouched").claim(b"me")


@pytest.mark.parametrize("fault", ["killed", "silent, and back as a replica"])
def test_the_master_is_gone_and_the_writer_goes_on_with_the_promoted_one(tmp_path, fault):
    watched = Watched(tmp_path).start()
    try:
        with connect(f"{watched.url}&sentinel_password=secret") as client:
            store = RedisStore(client, "tx.0")
            writing = Writing(store)
            writing.go_on_to(500)
            watched.master.kill() if fault == "killed" else watched.master.pause()
            writing.go_on_to(1_000)
            if fault != "killed":
                watched.master.resume()
                wait_for("the old master to be a replica", lambda: role_of(watched.master) == "slave")
            writing.go_on_to(1_100)

            assert writing.told.n_unanswered > 0
            assert [] == problems_of(store, 1_100)
            assert "master" == role_of(watched.replica)
    finally:
        watched.stop()


def test_a_master_that_was_told_to_be_a_replica_is_left(tmp_path):
    watched = Watched(tmp_path).start()
    try:
        with connect(f"{watched.url}&sentinel_password=secret") as client:
            writing = Writing(store := RedisStore(client, "tx.0"))
            writing.go_on_to(300)
            with watched.sentinel.client() as sentinel:
                sentinel.execute_command("SENTINEL", "FAILOVER", "cards")
            wait_for("the switch", lambda: role_of(watched.master) == "slave")
            writing.go_on_to(600)

            assert [] == problems_of(store, 600)
            assert "master" == role_of(watched.replica)
    finally:
        watched.stop()


def role_of(server):
    with server.client() as client, contextlib.suppress(redis.exceptions.ConnectionError):
        return client.info("replication")["role"]  # whose role changes is cut off by the sentinel
