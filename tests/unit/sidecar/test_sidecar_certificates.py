"""Certificates are taken up together, or not at all."""

from __future__ import annotations

import subprocess
from datetime import datetime

import pytest
from certificates import OPENSSL, Authority, require_openssl
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fraudsdk_sidecar.certificates import Certificates
from fraudsdk_sidecar.settings import TlsSettings

from fraudsdk.errors import ConfigurationError

require_openssl()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority, tmp_path):
    """Settings of files of our own, with the first of two certificates in them."""
    first = authority.issue("first", "IP:127.0.0.1")
    tls = TlsSettings(tmp_path / "c.pem", tmp_path / "k.pem", authority.file)
    put(tls, first)
    return tls


def put(tls, issued):
    tls.certificate.write_bytes(issued.certificate.read_bytes())
    tls.key.write_bytes(issued.key.read_bytes())


def test_new_files_are_handed_out_once_and_old_ones_not_again(tls, authority):
    certificates = Certificates(tls)

    assert certificates._fetch() is None
    put(tls, authority.issue("second", "IP:127.0.0.1"))
    certificates.poll()
    assert certificates._fetch() is not None
    assert certificates._fetch() is None


def test_half_of_a_new_pair_changes_nothing_until_the_other_half_comes(tls, authority):
    certificates, second = Certificates(tls), authority.issue("second", "IP:127.0.0.1")
    tls.certificate.write_bytes(second.certificate.read_bytes())
    certificates.poll()

    assert certificates._fetch() is None
    tls.key.write_bytes(second.key.read_bytes())
    certificates.poll()
    assert certificates._fetch() is not None


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("certificate", b"nothing", "tls.certificate .* holds no PEM certificate"),
        ("certificate", b"", "is empty"),
        ("key", b"nothing", "tls.key .* is no PEM key without a password"),
        ("client_ca", b"nothing", "tls.client_ca .* holds no PEM certificate"),
    ],
)
def test_a_file_that_will_not_do_is_named(tls, tmp_path, name, content, complaint):
    file = tmp_path / "other"
    file.write_bytes(content)
    named = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca} | {name: file}

    with pytest.raises(ConfigurationError, match=complaint):
        Certificates(TlsSettings(**named))


def test_a_key_of_another_certificate_is_refused(tls, authority):
    tls.key.write_bytes(authority.issue("second", "IP:127.0.0.1").key.read_bytes())

    with pytest.raises(ConfigurationError, match="is not the key of"):
        Certificates(tls)


def test_a_certificate_that_has_expired_is_refused(tls):
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1)).not_valid_after(datetime(2021, 1, 1))
    tls.certificate.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    tls.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    with pytest.raises(ConfigurationError, match="expired on 2021-01-01"):
        Certificates(tls)


def test_whether_clients_show_certificates_does_not_change_while_it_runs(tls):
    certificates = Certificates(tls)

    with pytest.raises(ConfigurationError, match=r"tls\.client_ca cannot be set or left out"):
        certificates.prepare(TlsSettings(tls.certificate, tls.key))


def test_a_public_key_of_an_unknown_kind_is_refused_and_ends_nothing(tls, tmp_path):
    """
    A curve written out in place of its name: the certificate is one, and its key cannot be read.
    """
    strange = tmp_path / "strange.pem"
    command = [OPENSSL, "req", "-x509", "-subj", "/CN=a", "-newkey", "ec", "-nodes", "-days", "2"]
    command += [
        "-pkeyopt",
        "ec_paramgen_curve:secp112r1",
        "-out",
        str(strange),
        "-keyout",
        str(tmp_path / "strange.key"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    certificates = Certificates(tls)
    tls.certificate.write_bytes(strange.read_bytes())

    with pytest.raises(ConfigurationError, match=r"tls\.certificate .* public key of a kind"):
        certificates.prepare(tls)
    certificates.poll()
    assert certificates._fetch() is None
