"""
The certificates of the service: read together, checked, and read again when their files change.

A new set is taken up by the next connection; those that are there stay as they are.  A set that does not fit together is not
taken up at all.
"""

from __future__ import annotations

import datetime
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fraudsdk.errors import ConfigurationError
from fraudsdk_sidecar.logs import event
from fraudsdk_sidecar.settings import TlsSettings

_FILE_BYTES_MAX: Final = 1 << 20


@dataclass(frozen=True)
class _Files:
    """What the files held at one time."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None = None


class Certificates:
    """
    What ``grpc`` is given for a port, and asked for again with each new connection.

    Parameters
    ----------
    settings : TlsSettings
        Names a certificate and a key.

    Raises
    ------
    ConfigurationError
        A file cannot be read, or they do not fit together.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._files = _read(settings)
        self._served = self._files

    def credentials(self) -> grpc.ServerCredentials:
        """Of a port.  Clients must show a certificate where there are authorities for them."""
        fetch: Any = self._fetch  # its stub does not know that None stands for "as before"
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._files), fetch, self._files.client_ca is not None
        )

    def prepare(self, settings: TlsSettings) -> _Files:
        """
        Read other files, or the same anew, without taking them up.

        Raises
        ------
        ConfigurationError
            They will not do.
        """
        files = _read(settings)
        if (files.client_ca is None) != (self._files.client_ca is None):
            raise ConfigurationError("tls.client_ca cannot be set or left out while the service runs; start it anew")
        return files

    def take_up(self, settings: TlsSettings, files: _Files) -> bool:
        """Use what was prepared from the next connection on; whether it is anything new."""
        with self._lock:
            is_new, self._settings, self._files = files != self._files, settings, files
        return is_new

    def poll(self) -> None:
        """Take up the files if they changed and fit together; log where they do not."""
        try:
            if self.take_up(self._settings, self.prepare(self._settings)):
                event(logging.INFO, "tls-reloaded", "new certificates are used from the next connection on")
        except ConfigurationError as error:
            event(logging.ERROR, "tls-reload-failed", f"the certificates stay as they were: {error}")

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """None where nothing changed since this was last asked; grpc asks for each connection, one at a time."""
        with self._lock:
            if self._served is self._files:
                return None
            self._served = self._files
            return _configuration(self._files)


def _configuration(files: _Files) -> grpc.ServerCertificateConfiguration:
    pairs = [(files.key, files.certificate)]
    made: grpc.ServerCertificateConfiguration = grpc.ssl_server_certificate_configuration(pairs, files.client_ca)
    return made


def _read(settings: TlsSettings) -> _Files:
    assert settings.certificate is not None and settings.key is not None
    files = _Files(
        _octets("tls.certificate", settings.certificate),
        _octets("tls.key", settings.key),
        None if settings.client_ca is None else _octets("tls.client_ca", settings.client_ca),
    )
    _try(settings, files)
    return files


def _octets(name: str, file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            octets = opened.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(f"{name} {file} cannot be read: {error.strerror}; check the path") from error
    if not octets.strip():
        raise ConfigurationError(f"{name} {file} is empty; name a PEM file")
    return octets


def _try(settings: TlsSettings, files: _Files) -> None:
    """Whether the bytes that were read fit together: grpc would only say so to each client, by hanging up."""
    chain = _chain(f"tls.certificate {settings.certificate}", files.certificate)
    try:
        key = load_pem_private_key(files.key, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"tls.key {settings.key} is no PEM key without a password; name one") from None
    try:
        is_its_key = key.public_key() == chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"tls.certificate {settings.certificate} has a public key of a kind that is not known here; name another"
        ) from None
    if not is_its_key:
        raise ConfigurationError(
            f"tls.key {settings.key} is not the key of tls.certificate {settings.certificate}; name two that belong together"
        )
    if chain[0].not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise ConfigurationError(
            f"tls.certificate {settings.certificate} expired on {chain[0].not_valid_after_utc:%Y-%m-%d}; name another"
        )
    if files.client_ca is not None:
        _chain(f"tls.client_ca {settings.client_ca}", files.client_ca)


def _chain(what: str, octets: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(octets)
    except ValueError:
        raise ConfigurationError(f"{what} holds no PEM certificate; name one that does") from None
