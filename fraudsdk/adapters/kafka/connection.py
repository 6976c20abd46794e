"""
How brokers are reached, by consumers and producers alike.

    in the clear     on this machine, or in a network that is trusted with transactions
    TLS              with the system's authorities or one of its own, and a certificate of the client where brokers ask for one
    SASL over TLS    SCRAM-SHA-512; in the clear only to brokers on this machine
"""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from fraudsdk.errors import ConfigurationError, StreamUnavailableError

LOGGER: Final = logging.getLogger("fraudsdk.kafka")
# Silent unless the program says otherwise: what matters of what the library says becomes an error or a figure.
LOGGER.addHandler(logging.NullHandler())

_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9._-]{1,253})):(?P<port>[0-9]{1,5})")
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
# Waiting gets longer with each failure, from the first to the second of these.
_RECONNECT_MS: Final = (50, 2_000)
_ATTEMPT_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """
    Where brokers are, and how a client shows who it is.

    Attributes
    ----------
    bootstrap : str
        ``HOST:PORT``, several parted by commas.
    client_id : str
        What brokers log and account this client under.
    user, password : str
        Of SASL/SCRAM-SHA-512; both or none.
    tls : bool
        Whether the connection is encrypted, and the broker's certificate checked against its name.
    ca_file : str or None
        PEM of the authorities to trust; None: the system's.
    certificate_file, key_file : str or None
        PEM of the client's certificate and its key; both or none.
    key_password : str
        Of an encrypted key.

    Raises
    ------
    ConfigurationError
        One of these will not do, or a file cannot be used.  Never shows a password.

    Examples
    --------
    >>> connection = KafkaConnection("localhost:9092", user="fraud", password="secret")
    >>> "secret" in repr(connection)
    False
    """

    bootstrap: str
    client_id: str = "fraudsdk"
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    key_password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        hosts = _hosts(self.bootstrap)
        if not _CLIENT_ID.fullmatch(self.client_id):
            raise ConfigurationError(
                f"client_id must be 1 to 200 of A-Z a-z 0-9 . _ -, was {self.client_id!r}; give it a plain name"
            )
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("a login at Kafka needs user and password; give both, or neither")
        if self.user and not self.tls and not all(map(_is_loopback, hosts)):
            raise ConfigurationError("a login at Kafka would cross the network without TLS; add tls=True")
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise ConfigurationError("a file for TLS is named, and TLS is off; add tls=True")
        if self.tls:
            _try_files(self.ca_file, self.certificate_file, self.key_file, self.key_password)

    def settings(self) -> dict[str, Any]:
        """
        What librdkafka is told of it; a client adds its own.

        Secrets are among these: they are not for a log.
        """
        first_ms, last_ms = _RECONNECT_MS
        return {
            "bootstrap.servers": self.bootstrap,
            "client.id": self.client_id,
            "security.protocol": f"{'SASL_' if self.user else ''}{'SSL' if self.tls else 'PLAINTEXT'}",
            "reconnect.backoff.ms": first_ms,
            "reconnect.backoff.max.ms": last_ms,
            "socket.keepalive.enable": True,
            # A broker that is cut off behind a firewall is noticed by this and not by the system's two hours.
            "socket.timeout.ms": 10_000,
            "logger": LOGGER,
            **self._login(),
            **self._tls(),
        }

    def reach(self, *, timeout_s: float = 10.0, topic: str | None = None) -> dict[str, int]:
        """
        Ask the brokers which topics they have, and of how many partitions each.

        Parameters
        ----------
        timeout_s : float
            As long as brokers are waited for; a refusal is told at once.
        topic : str or None
            Ask for this one, which a broker may be set to make then; None: for all.

        Returns
        -------
        dict of str to int
            Topics that are not there are left out.

        Raises
        ------
        ConfigurationError
            A broker refuses the login, or either side the certificate of the other.
        StreamUnavailableError
            None answers.
        """
        errors: list[KafkaError] = []
        client = AdminClient(self.settings() | {"error_cb": errors.append})
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                found = client.list_topics(*(() if topic is None else (topic,)), timeout=_ATTEMPT_S).topics
                return {name: len(each.partitions) for name, each in found.items() if each.error is None}
            except KafkaException as error:
                client.poll(0)
                self._refuse(errors)
                if time.monotonic() >= deadline:
                    last = errors[-1] if errors else error.args[0]
                    raise StreamUnavailableError(
                        f"no broker of {self.bootstrap} answered in {timeout_s:g} s ({last.str()}); is it running?"
                    ) from error

    def _refuse(self, errors: list[KafkaError]) -> None:
        for error in errors:
            if error.code() == KafkaError._AUTHENTICATION:
                raise ConfigurationError(
                    f"{self.bootstrap} refuses the login of {self.user!r}; check user and password"
                )
            if error.code() == KafkaError._SSL:
                raise ConfigurationError(
                    f"no TLS with {self.bootstrap}: {error.str()}; check ca_file, the broker's name, and whether it asks for a "
                    "certificate"
                )

    def _login(self) -> dict[str, str]:
        if not self.user:
            return {}
        return {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": self.user, "sasl.password": self.password}

    def _tls(self) -> dict[str, str]:
        if not self.tls:
            return {}
        named = {
            "ssl.ca.location": self.ca_file,
            "ssl.certificate.location": self.certificate_file,
            "ssl.key.location": self.key_file,
            "ssl.key.password": self.key_password,
        }
        return {"ssl.endpoint.identification.algorithm": "https"} | {name: each for name, each in named.items() if each}


def _hosts(bootstrap: str) -> list[str]:
    hosts = [_HOST.fullmatch(each.strip()) for each in bootstrap.split(",")]
    if not all(each and 0 < int(each["port"]) < 1 << 16 for each in hosts):
        # Not shown: somebody may have put a login in front of the host.
        raise ConfigurationError("bootstrap is not HOST:PORT[,HOST:PORT]; write it so, an IPv6 address in []")
    return [each["v6"] or each["name"] for each in hosts if each]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _try_files(ca: str | None, certificate: str | None, key: str | None, password: str) -> None:
    """Read the files once: librdkafka would tell nobody before the first connection."""
    if (certificate is None) != (key is None):
        raise ConfigurationError("certificate_file or key_file is named without the other; name both or none")
    context = ssl.create_default_context()
    what = "ca_file"
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        what = "certificate_file or key_file"
        if certificate is not None:
            # Without a password OpenSSL would ask on the terminal, and wait.
            context.load_cert_chain(certificate, key, password=password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(
            f"{what} cannot be used ({reason}); name PEM files that this process may read, and the password of the key"
        ) from error
