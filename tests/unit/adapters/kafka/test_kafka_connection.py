"""What a connection is told before anything is connected."""

from __future__ import annotations

import pytest

from fraudsdk.adapters.kafka.connection import KafkaConnection
from fraudsdk.errors import ConfigurationError


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"bootstrap": ""}, "is not HOST:PORT"),
        ({"bootstrap": "broker"}, "is not HOST:PORT"),
        ({"bootstrap": "broker:0"}, "is not HOST:PORT"),
        ({"bootstrap": "broker:65536"}, "is not HOST:PORT"),
        ({"bootstrap": "a:1,,b:2"}, "is not HOST:PORT"),
        ({"bootstrap": "fraud:secret@broker:9092"}, "is not HOST:PORT"),
        ({"bootstrap": "broker:9092", "client_id": "a b"}, "client_id must be"),
        ({"bootstrap": "broker:9092", "client_id": ""}, "client_id must be"),
        ({"bootstrap": "broker:9092", "user": "fraud"}, "needs user and password"),
        ({"bootstrap": "broker:9092", "tls": True, "password": "secret"}, "needs user and password"),
        ({"bootstrap": "localhost:1,broker:1", "user": "fraud", "password": "secret"}, "without TLS"),
        ({"bootstrap": "broker:9092", "ca_file": "ca.pem"}, "TLS is off"),
        ({"bootstrap": "broker:9092", "tls": True, "ca_file": "/nowhere/ca.pem"}, "ca_file cannot be used"),
        ({"bootstrap": "broker:9092", "tls": True, "key_file": "key.pem"}, "without the other"),
        (
            {"bootstrap": "broker:9092", "tls": True, "certificate_file": __file__, "key_file": __file__},
            "certificate_file or key_file cannot be used",
        ),
    ],
)
def test_what_will_not_do_is_refused_and_no_secret_is_shown(arguments, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        KafkaConnection(**arguments)

    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("bootstrap", ["localhost:9092", "127.0.0.1:9092", "[::1]:9092", "127.0.0.1:1,localhost:2"])
def test_a_login_in_the_clear_stays_on_this_machine(bootstrap):
    settings = KafkaConnection(bootstrap, user="fraud", password="secret").settings()

    assert ("SASL_PLAINTEXT", "SCRAM-SHA-512") == (settings["security.protocol"], settings["sasl.mechanism"])


def test_passwords_are_in_no_representation():
    connection = KafkaConnection("localhost:9092", user="fraud", password="secret", key_password="secret")

    assert "secret" not in repr(connection)
    assert "fraud" in repr(connection)


def test_the_name_of_a_broker_is_checked_wherever_its_certificate_is():
    settings = KafkaConnection("broker:9092", tls=True).settings()

    assert ("SSL", "https") == (settings["security.protocol"], settings["ssl.endpoint.identification.algorithm"])
