"""`RedisStore` over TLS and over a Unix socket, and who is refused."""

from __future__ import annotations

import socket
import ssl
import subprocess

import pytest
from certificates import Authority, require_openssl, tls_options
from servers import IN_MEMORY, Cluster, RedisServer, Sentinel, require_redis

from fraudsdk.entity_state.store import Committed
from fraudsdk.errors import ConfigurationError, StateUnavailableError
from fraudsdk.testing.contracts import StateStoreContract

require_redis()
require_openssl()
pytest.importorskip("redis")
from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402  # only where Redis is


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def here(authority):
    return authority.issue("here", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def host(authority):
    return authority.issue("host", "DNS:host")


@pytest.fixture(scope="module")
def server(tmp_path_factory, authority, here):
    directory = tmp_path_factory.mktemp("redis")
    at = ("--unixsocket", str(directory / "redis.sock"))
    server = RedisServer(directory, *IN_MEMORY, *at, *tls_options(authority, here)).start()
    yield server
    server.stop()


@pytest.fixture
def empty(server):
    with server.client() as client:
        client.flushall()
    return server


def files(authority, host):
    return f"ca_file={authority.file}&certificate_file={host.certificate}&key_file={host.key}"


def claim(url):
    with connect(url, timeout_s=2) as client:
        return RedisStore(client, "tx.1").claim(b"me")


class TestRedisStoreOverTls(StateStoreContract):
    @pytest.fixture
    def client(self, empty, authority, host):
        with connect(f"rediss://127.0.0.1:{empty.tls_port}?{files(authority, host)}", timeout_s=5) as client:
            yield client

    @pytest.fixture
    def store(self, client):
        return RedisStore(client, "tx.3")

    @pytest.fixture
    def another(self, client):
        return RedisStore(client, "tx.4")


class TestRedisStoreOverAUnixSocket(StateStoreContract):
    @pytest.fixture
    def client(self, empty):
        with connect(f"unix://{empty.directory}/redis.sock?db=1", timeout_s=5) as client:
            yield client

    @pytest.fixture
    def store(self, client):
        return RedisStore(client, "tx.3")

    @pytest.fixture
    def another(self, client):
        return RedisStore(client, "tx.4")


def test_a_host_without_a_certificate_is_refused_by_redis(empty, authority):
    with pytest.raises(StateUnavailableError, match="ConnectionError"):
        claim(f"rediss://127.0.0.1:{empty.tls_port}?ca_file={authority.file}")


def test_a_redis_of_another_authority_is_refused(empty, authority, host, tmp_path):
    other = Authority(tmp_path)

    with pytest.raises(StateUnavailableError) as refused:
        claim(f"rediss://127.0.0.1:{empty.tls_port}?{files(other, host)}")
    assert "certificate verify failed" in str(refused.value.__cause__)


def test_a_redis_under_another_name_is_refused(empty, authority, host):
    with pytest.raises(StateUnavailableError) as refused:
        claim(f"rediss://localhost:{empty.tls_port}?{files(authority, host)}")
    assert "Hostname mismatch" in str(refused.value.__cause__)


def test_a_redis_that_speaks_an_old_tls_alone_is_refused(tmp_path, authority, here, host):
    old = ("--tls-protocols", "TLSv1.1", "--tls-ciphers", "DEFAULT:@SECLEVEL=0")
    server = RedisServer(tmp_path, *IN_MEMORY, *tls_options(authority, here), *old).start()
    try:
        with pytest.raises(StateUnavailableError, match="ConnectionError"):
            claim(f"rediss://127.0.0.1:{server.tls_port}?{files(authority, host)}")
        assert "TLSv1.1" == lax_version(server, authority, host)  # it would have been spoken
    finally:
        server.stop()


def lax_version(server, authority, host):
    context = ssl.create_default_context(cafile=authority.file)
    context.load_cert_chain(host.certificate, host.key)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    plain = socket.create_connection(("127.0.0.1", server.tls_port))
    with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
        return connection.version()


def test_a_key_that_does_not_belong_to_its_certificate_is_a_wrong_url(here, host):
    with pytest.raises(ConfigurationError, match=r"certificate_file or key_file .* cannot be used"):
        connect(f"rediss://redis.bank?certificate_file={here.certificate}&key_file={host.key}")


def test_a_key_with_a_password_is_a_wrong_url_and_nobody_is_asked_for_it(tmp_path, authority, host):
    locked = tmp_path / "locked.key"
    subprocess.run(["openssl", "ec", "-in", host.key, "-aes128", "-passout", "pass:x", "-out", locked], check=True)

    with pytest.raises(ConfigurationError, match="the key without a password"):
        connect(f"rediss://redis.bank?certificate_file={host.certificate}&key_file={locked}")


def test_a_cluster_over_tls(tmp_path, authority, here, host):
    cluster = Cluster(tmp_path, 3, *tls_options(authority, here), "--tls-cluster", "yes")
    try:
        cluster.start()
        with connect(f"rediss+cluster://127.0.0.1:{cluster.nodes[0].tls_port}?{files(authority, host)}") as client:
            for i in range(6):
                store = RedisStore(client, f"tx.{i}")
                store.claim(b"me")
                assert Committed.WRITTEN is store.commit(b"me", 0, 1, {1: b"one"}, [])
            assert cluster.nodes[0].tls_port in [node.port for node in client.get_primaries()]
        with pytest.raises(StateUnavailableError, match="certificate"):
            connect(f"rediss+cluster://127.0.0.1:{cluster.nodes[0].tls_port}")
    finally:
        cluster.stop()


def test_sentinels_over_tls_and_their_master(tmp_path, authority, here, host):
    options = (*tls_options(authority, here), "--tls-replication", "yes")
    master = RedisServer(tmp_path / "master", *IN_MEMORY, *options).start()
    sentinel = Sentinel(tmp_path / "sentinel", "cards", master.tls_port, *options)
    try:
        sentinel.start()
        assert 0 == claim(f"rediss+sentinel://127.0.0.1:{sentinel.tls_port}/cards?{files(authority, host)}")
    finally:
        sentinel.stop()
        master.stop()
