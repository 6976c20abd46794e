"""What commands that talk to Kafka ask for in the same words."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk.adapters.kafka.connection import KafkaConnection

PASSWORD_VARIABLE: Final = "FRAUDSDK_KAFKA_PASSWORD"


def add_login(parser: Any) -> None:
    """How brokers are reached, but for where they are."""
    parser.add_argument(
        "--kafka-user", metavar="NAME", default="", help=f"SASL/SCRAM-SHA-512; the password is in {PASSWORD_VARIABLE}"
    )
    parser.add_argument("--kafka-tls", action="store_true", help="encrypt, and check the broker's certificate")
    parser.add_argument(
        "--kafka-ca-file", metavar="FILE", help="PEM of the authorities to trust (default: the system's)"
    )
    parser.add_argument(
        "--kafka-certificate-file", metavar="FILE", help="PEM of our certificate, where brokers ask for one"
    )
    parser.add_argument("--kafka-key-file", metavar="FILE", help="PEM of its key")


def connection_of(args: argparse.Namespace, bootstrap: str, client_id: str) -> KafkaConnection:
    """
    How brokers are reached.

    Raises
    ------
    ConfigurationError
        Something of it will not do.
    """
    from fraudsdk.adapters.kafka.connection import KafkaConnection

    password = os.environ.get(PASSWORD_VARIABLE, "") if args.kafka_user else ""
    if args.kafka_user and not password:
        raise ConfigurationError(f"--kafka-user needs a password; put it into the environment as {PASSWORD_VARIABLE}")
    return KafkaConnection(
        bootstrap,
        client_id=client_id,
        user=args.kafka_user,
        password=password,
        tls=args.kafka_tls,
        ca_file=args.kafka_ca_file,
        certificate_file=args.kafka_certificate_file,
        key_file=args.kafka_key_file,
    )
