"""Who is let in by a broker, and whom a client takes for its broker."""

from __future__ import annotations

import time

import pytest
from certificates import Authority, require_openssl
from kafka_servers import KafkaBroker, require_kafka
from servers import free_port

from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.errors import ConfigurationError, StreamUnavailableError

require_kafka()
require_openssl()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def with_logins(tmp_path_factory, authority):
    broker = KafkaBroker(tmp_path_factory.mktemp("logins"), authority=authority, users={"fraud": "secret"}).start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def with_certificates(tmp_path_factory, authority):
    directory = tmp_path_factory.mktemp("certificates")
    broker = KafkaBroker(directory, authority=authority, asks_for_certificates=True).start()
    yield broker
    broker.stop()


def login(broker: KafkaBroker, authority: Authority, **changes: object) -> KafkaConnection:
    right = {"user": "fraud", "password": "secret", "tls": True, "ca_file": str(authority.file)}
    return KafkaConnection(broker.tls_bootstrap, **right | changes)


def test_the_right_password_over_tls_is_let_in_and_can_write_and_read(with_logins, authority):
    from confluent_kafka import Consumer, Producer

    with_logins.create_topic("secured", 1)
    settings = login(with_logins, authority).settings()
    producer = Producer(settings)
    producer.produce("secured", b"by SCRAM over TLS")
    assert 0 == producer.flush(20)

    consumer = Consumer(settings | {"group.id": "readers", "auto.offset.reset": "earliest"})
    consumer.subscribe(["secured"])
    message = consumer.poll(20)
    consumer.close()

    assert b"by SCRAM over TLS" == message.value()
    assert {"secured": 1} == login(with_logins, authority).reach(topic="secured")


@pytest.mark.parametrize("changes", [{"password": "wrong"}, {"user": "nobody"}])
def test_a_wrong_login_is_the_operator_s_to_correct_and_is_told_at_once(with_logins, authority, changes):
    began_s = time.monotonic()

    with pytest.raises(ConfigurationError, match="refuses the login") as caught:
        login(with_logins, authority, **changes).reach(timeout_s=60)

    assert time.monotonic() - began_s < 30
    assert "wrong" not in str(caught.value)


def test_a_broker_of_an_unknown_authority_is_told_no_password(with_logins, tmp_path):
    with pytest.raises(ConfigurationError, match="no TLS with"):
        login(with_logins, Authority(tmp_path / "another")).reach(timeout_s=60)


def test_a_broker_under_another_name_is_not_taken_for_ours(tmp_path, authority):
    broker = KafkaBroker(tmp_path / "broker", authority=authority, alternatives="DNS:kafka.example").start()
    try:
        with pytest.raises(ConfigurationError, match="no TLS with"):
            KafkaConnection(broker.tls_bootstrap, tls=True, ca_file=str(authority.file)).reach(timeout_s=60)
    finally:
        broker.stop()


def test_a_client_with_a_certificate_of_the_authority_is_let_in(with_certificates, authority):
    client = authority.issue("client", "DNS:client")
    connection = KafkaConnection(
        with_certificates.tls_bootstrap,
        tls=True,
        ca_file=str(authority.file),
        certificate_file=str(client.certificate),
        key_file=str(client.key),
    )

    assert {} == connection.reach(topic="nothing")


def test_a_client_without_a_certificate_is_not_let_in(with_certificates, authority):
    connection = KafkaConnection(with_certificates.tls_bootstrap, tls=True, ca_file=str(authority.file))

    with pytest.raises((ConfigurationError, StreamUnavailableError)):
        connection.reach(timeout_s=3)


def test_nobody_there_is_said_after_the_time_that_was_allowed():
    connection = KafkaConnection(f"127.0.0.1:{free_port()}")

    with pytest.raises(StreamUnavailableError, match=r"no broker of 127\.0\.0\.1:\d+ answered in 0\.5 s"):
        connection.reach(timeout_s=0.5)


def test_the_port_without_tls_is_no_way_in_for_a_client_that_wants_it(with_logins, authority):
    connection = KafkaConnection(with_logins.bootstrap, tls=True, ca_file=str(authority.file))

    with pytest.raises((ConfigurationError, StreamUnavailableError)):
        connection.reach(timeout_s=3)
