"""`RedisStore` against a real Redis: its contract, and what becomes of it when Redis is in trouble."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from servers import EVERY_WRITE, IN_MEMORY, RedisServer, require_redis

from fraudsdk.entity_state.store import Committed
from fraudsdk.errors import ConfigurationError, StateUnavailableError
from fraudsdk.testing.contracts import StateStoreContract

require_redis()
redis = pytest.importorskip("redis")
from redis.backoff import NoBackoff  # noqa: E402  # only where Redis is
from redis.retry import Retry  # noqa: E402

from fraudsdk.adapters.redis import RedisStore  # noqa: E402


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"), *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    client = server.client()
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(client):
    return RedisStore(client, "tx.3")


class TestRedisStore(StateStoreContract):
    @pytest.fixture
    def store(self, client):
        return RedisStore(client, "tx.3")

    @pytest.fixture
    def another(self, client):
        return RedisStore(client, "tx.4")


def test_all_keys_of_a_writer_are_in_one_slot(client, store):
    store.claim(b"me")
    store.commit(b"me", 0, 1, {1: b"one", -1: b"other"}, [b"a"])

    names = {name.decode() for name in client.keys("*")}
    assert {
        "fs1:{tx.3}:meta",
        "fs1:{tx.3}:out",
        "fs1:{tx.3}:feed",
        "fs1:{tx.3}:0000000000000001",
        "fs1:{tx.3}:ffffffffffffffff",
    } == names


def test_scripts_that_were_flushed_are_loaded_again(client, store):
    store.claim(b"me")
    client.script_flush()

    assert Committed.WRITTEN is store.commit(b"me", 0, 1, {1: b"one"}, [])


def test_a_redis_that_lost_everything_is_told_from_another_owner(client, store):
    store.claim(b"me")
    store.commit(b"me", 0, 5, {1: b"one"}, [])
    client.flushall()

    assert Committed.REGRESSED is store.commit(b"me", 5, 6, {1: b"two"}, [b"a"])
    assert 0 == client.dbsize()
    assert 0 == store.claim(b"me")


def test_a_full_redis_writes_nothing_of_a_commit(server, client, store):
    store.claim(b"me")
    store.commit(b"me", 0, 1, {1: b"one"}, [])
    client.config_set("maxmemory", client.info("memory")["used_memory"])
    try:
        with pytest.raises(StateUnavailableError, match="Redis does not answer"):
            store.commit(b"me", 1, 2, {1: b"two", 2: bytes(1 << 20)}, [b"a"])
        assert [b"one", b""] == store.read(b"me", 1, [1, 2])
        assert [] == store.outbox(10)
    finally:
        client.config_set("maxmemory", 0)

    assert Committed.WRITTEN is store.commit(b"me", 1, 2, {1: b"two"}, [b"a"])


def test_a_redis_that_is_down_is_unavailable_and_then_there_again(tmp_path):
    server = RedisServer(tmp_path, *EVERY_WRITE).start()
    store = RedisStore(server.client(), "tx.1")
    store.claim(b"me")
    store.commit(b"me", 0, 5, {1: b"one"}, [b"a"])
    server.kill()
    for ask in (
        lambda: store.claim(b"me"),
        lambda: store.commit(b"me", 5, 6, {1: b"two"}, []),
        lambda: store.read(b"me", 5, [1]),
        lambda: store.outbox(1),
        lambda: store.acknowledge(["1-1"]),
    ):
        with pytest.raises(StateUnavailableError, match="safe to repeat"):
            ask()

    server.start()

    assert Committed.WRITTEN is store.commit(b"me", 5, 6, {1: b"two"}, [])
    assert [b"two"] == store.read(b"me", 6, [1])
    server.stop()


def test_a_connection_into_nowhere_is_given_up_in_time():
    with socket.socket() as nowhere:
        nowhere.bind(("127.0.0.1", 0))
        nowhere.listen()
        store = RedisStore(redis.Redis(port=nowhere.getsockname()[1], socket_timeout=0.1, retry=None), "tx.1")
        started = time.monotonic()

        with pytest.raises(StateUnavailableError, match="TimeoutError"):
            store.read(b"me", 0, [1])
        assert time.monotonic() - started < 5


def test_a_reply_that_was_lost_is_found_out_by_the_same_call(server, store):
    store.claim(b"me")
    store.commit(b"me", 0, 1, {}, [])
    with Cut(server.port) as cut:
        through = RedisStore(redis.Redis(port=cut.port, socket_timeout=1.0, retry=None), "tx.3")
        through.commit(b"me", 0, 1, {}, [])  # so that the script is known
        cut.next_reply = True
        with pytest.raises(StateUnavailableError):
            through.commit(b"me", 1, 2, {1: b"one"}, [b"a"])

    assert Committed.AGAIN is store.commit(b"me", 1, 2, {1: b"one"}, [b"a"])
    assert 1 == len(store.outbox(10))


class Cut:
    """A proxy that passes requests on, and cuts the connection in place of one reply."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.next_reply = False

    def __enter__(self):
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._target))
            threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source, target, is_reply):
        while octets := source.recv(1 << 16):
            if is_reply and self.next_reply:
                break
            target.sendall(octets)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("options", "writer", "problem"),
    [
        ({"decode_responses": True, "socket_timeout": 1}, "tx.1", "decodes responses"),
        ({"socket_timeout": None}, "tx.1", "waits for ever"),
        ({"socket_timeout": 1, "retry": Retry(NoBackoff(), 3)}, "tx.1", "by itself .retries: 3"),
        ({"socket_timeout": 1, "retry": None}, "", "letters, digits"),
        ({"socket_timeout": 1, "retry": None}, "tx}3", "letters, digits"),
    ],
)
def test_a_client_or_name_that_will_not_do_is_refused(options, writer, problem):
    with pytest.raises(ConfigurationError, match=problem):
        RedisStore(redis.Redis(**options), writer)
