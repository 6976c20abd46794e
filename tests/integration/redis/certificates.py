"""Certificates of an authority of our own, made by openssl."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

OPENSSL = shutil.which("openssl")


def require_openssl() -> None:
    """Skip on a laptop without openssl; fail in CI."""
    if OPENSSL is None:
        assert os.environ.get("CI") != "true", "openssl is not installed"
        pytest.skip("openssl is not installed: apt-get install openssl", allow_module_level=True)


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


class Authority:
    """Signs what it is asked to sign; its own certificate is `file`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        # One of our own, so that a distribution's defaults do not add to what is asked for.
        (directory / "openssl.cnf").write_text(
            "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=-\n", encoding="utf-8"
        )
        self._own = self._make("authority", "basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")
        self.file = self._own.certificate

    def issue(self, name: str, alternatives: str) -> Certificate:
        """A certificate for names such as ``IP:127.0.0.1,DNS:localhost``."""
        signed = "-CA", str(self._own.certificate), "-CAkey", str(self._own.key)
        return self._make(
            name,
            f"subjectAltName={alternatives}",
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "authorityKeyIdentifier=keyid",
            options=signed,
        )

    def _make(self, name: str, *extensions: str, options: tuple[str, ...] = ()) -> Certificate:
        made = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        command = [OPENSSL, "req", "-x509", "-config", str(self._directory / "openssl.cnf"), "-subj", f"/CN={name}"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", *options]
        command += ["-out", str(made.certificate), "-keyout", str(made.key)]
        for each in ("subjectKeyIdentifier=hash", *extensions):
            command += ["-addext", each]
        subprocess.run(command, check=True, capture_output=True)
        return made


def tls_options(authority: Authority, served: Certificate) -> tuple[str, ...]:
    """What makes a Redis serve TLS to those who have a certificate of the authority."""
    return (
        *("--tls-cert-file", str(served.certificate), "--tls-key-file", str(served.key)),
        *("--tls-ca-cert-file", str(authority.file)),
    )
