"""Who calls: tokens that are believed, and those that are not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fraudsdk_sidecar.auth import (
    TOKEN_BYTES_MAX,
    Authenticator,
    Refused,
    SigningKey,
    TokenVerifier,
    address_of,
    scope_of,
)
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError

SECRET = b"a shared secret of thirty-two bytes, or more"
RSA = rsa.generate_private_key(65_537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


KEYS = (
    SigningKey("HS256", "", SECRET),
    SigningKey("RS256", "r", RSA.public_key()),
    SigningKey("ES256", "", EC.public_key()),
)


def verifier(keys=KEYS, **other):
    told = {"audience": "fraud", "issuer": "bank", "max_lifetime_s": 3600.0, "leeway_s": 5.0}
    return TokenVerifier(keys, **(told | other))


def claims(**other):
    now = int(time.time())
    said = {"sub": "till", "aud": "fraud", "iss": "bank", "iat": now, "exp": now + 600, "scope": "score explain"}
    return {name: value for name, value in (said | other).items() if value is not None}


def token(key=SECRET, algorithm="HS256", headers=None, **other):
    return jwt.encode(claims(**other), key, algorithm=algorithm, headers=headers)


def forged(header, payload, sign=b""):
    """A token as nobody's library would make it."""
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, payload))
    mark = hmac.new(sign, head + b"." + body, hashlib.sha256).digest() if sign else b""
    return b".".join((head, body, base64.urlsafe_b64encode(mark).rstrip(b"="))).decode()


@pytest.mark.parametrize(
    ("key", "algorithm", "headers"),
    [(SECRET, "HS256", None), (private_pem(RSA), "RS256", {"kid": "r"}), (private_pem(EC), "ES256", None)],
    ids=lambda each: str(each)[:6],
)
def test_a_token_of_ours_names_its_client_and_what_it_may_do(key, algorithm, headers):
    client = verifier().verify(token(key, algorithm, headers))

    assert ("till", {"score", "explain"}, False) == (client.name, client.scopes, client.is_anonymous)


REFUSED = {
    "nothing": lambda: "",
    "garbage": lambda: "not.a.token",
    "not even text": lambda: "\udcff.\0.é",
    "oversized": lambda: token(more="x" * TOKEN_BYTES_MAX),
    "expired": lambda: token(iat=int(time.time()) - 700, exp=int(time.time()) - 100),
    "another audience": lambda: token(aud="other"),
    "another issuer": lambda: token(iss="mallory"),
    "not yet valid": lambda: token(nbf=int(time.time()) + 100),
    "issued in the future": lambda: token(iat=int(time.time()) + 100, exp=int(time.time()) + 200),
    "no expiry": lambda: token(exp=None),
    "no issue": lambda: token(iat=None),
    "no audience": lambda: token(aud=None),
    "no issuer": lambda: token(iss=None),
    "no subject": lambda: token(sub=None),
    "an empty subject": lambda: token(sub=""),
    "a subject without end": lambda: token(sub="x" * 300),
    "a long life": lambda: token(exp=int(time.time()) + 3700),
    "a life without end": lambda: token(exp=10**300),
    "an infinite expiry": lambda: forged({"alg": "HS256"}, claims(exp=float("inf")), SECRET),
    "another secret": lambda: token(b"another secret of thirty-two bytes, or more"),
    "no algorithm": lambda: forged({"alg": "none"}, claims()),
    "no algorithm, in other letters": lambda: forged({"alg": "nOnE"}, claims()),
    "an algorithm that is not in the list": lambda: token(SECRET * 2, "HS512"),
    "the public key as a secret": lambda: forged({"alg": "HS256"}, claims(), public_pem(RSA)),
    "the public key as a secret, by its name": lambda: forged({"alg": "HS256", "kid": "r"}, claims(), public_pem(RSA)),
    "another key id": lambda: token(private_pem(RSA), "RS256", {"kid": "s"}),
    "no key id": lambda: token(private_pem(RSA), "RS256"),
    "a key of its own": lambda: forged({"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}}, claims(), b"x"),
    "a signature cut off": lambda: token().rpartition(".")[0] + ".",
    "claims that are no object": lambda: forged({"alg": "HS256"}, ["till"], SECRET),
    "a list of subjects": lambda: forged({"alg": "HS256"}, claims(sub=["till"]), SECRET),
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED)
def test_a_token_that_is_not_ours_or_not_for_now_is_refused(made):
    with pytest.raises(Refused) as refused:
        verifier().verify(made())

    assert len(made()) < 20 or made()[:20] not in str(refused.value)


@given(st.text(max_size=200))
def test_whatever_is_sent_as_a_token_is_refused_and_nothing_else(sent):
    with pytest.raises(Refused):
        verifier().verify(sent)


def test_a_public_key_on_its_own_is_never_a_secret():
    """
    With an RS256 key alone, no token that was made from what everybody knows is believed.
    """
    alone = verifier(KEYS[1:2])

    with pytest.raises(Refused):
        alone.verify(forged({"alg": "HS256", "kid": "r"}, claims(), public_pem(RSA)))


def test_scopes_that_nobody_knows_give_nothing():
    assert frozenset({"score"}) == verifier().verify(token(scope="score root *")).scopes
    assert frozenset({"admin"}) == verifier().verify(token(scope=["admin", "all"])).scopes
    assert frozenset() == verifier().verify(token(scope=None)).scopes
    assert frozenset() == verifier().verify(token(scope={"score": True})).scopes


def test_a_token_that_was_believed_is_not_when_it_has_expired(monkeypatch):
    it, sent = verifier(), token()
    it.verify(sent)
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s + 700)
    monkeypatch.setattr(it, "_verify", lambda _: (_ for _ in ()).throw(Refused("looked at again")))

    with pytest.raises(Refused, match="looked at again"):
        it.verify(sent)


def authenticator(*, verifies=True, client_ca=False, asks_who=True):
    made = Authenticator(verifier() if verifies else None, ["score"], asks_who=asks_who)
    made._needs_token = verifies and not client_ca
    return made


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        [("authorization", "")],
        [("authorization", "Basic dTpw")],
        [("authorization", "Bearer")],
        [("authorization", f"Bearer {token()}"), ("authorization", f"Bearer {token()}")],
        [("authorization-bin", b"x")],
    ],
)
def test_a_call_without_one_bearer_token_is_refused(metadata):
    with pytest.raises(Refused):
        authenticator().by_token(metadata)


def test_a_certificate_will_do_for_a_token_but_a_wrong_token_is_still_wrong():
    both = authenticator(client_ca=True)

    assert both.by_token([]) is None
    assert "till" == both.by_token([("authorization", f"bearer {token()}")]).name
    with pytest.raises(Refused):
        both.by_token([("authorization", "Bearer x")])


def test_a_client_is_known_by_its_certificate_its_socket_or_its_address():
    asked = authenticator(verifies=False)
    open_to_all = authenticator(verifies=False, asks_who=False)

    assert "till-7" == asked.by_connection("ipv4:10.0.0.7:5", lambda: {"x509_common_name": [b"till-7"]}).name
    assert ("unix", {"score"}) == (asked.by_connection("unix:", dict).name, asked.by_connection("unix:", dict).scopes)
    with pytest.raises(Refused):
        asked.by_connection("ipv4:10.0.0.7:5", dict)
    stranger = open_to_all.by_connection("ipv4:10.0.0.7:5", dict)
    assert ("10.0.0.7", True) == (stranger.name, stranger.is_anonymous)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:41234", "10.0.0.7"),
        ("ipv6:%5B2001:db8::1%5D:41234", "2001:db8::/64"),
        ("ipv6:%5B2001:db8:0:0:ffff::9%5D:1", "2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
        ("strange", "unknown"),
    ],
)
def test_an_address_is_without_its_port_and_of_ipv6_its_network(peer, address):
    assert address == address_of(peer)


def test_a_method_that_nobody_thought_of_needs_the_most():
    assert "score" == scope_of("/fraudsdk.v1.ScoringService/Score")
    assert "admin" == scope_of("/fraudsdk.v1.ScoringService/Forgotten")
    assert "admin" == scope_of("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")


def test_every_method_of_the_service_has_a_scope_of_its_own_choice():
    from fraudsdk_sidecar.auth import SCOPE_OF

    from fraudsdk.adapters.protobuf._generated import scoring_service_pb2

    service = scoring_service_pb2.DESCRIPTOR.services_by_name["ScoringService"]

    assert {f"/{service.full_name}/{method.name}" for method in service.methods} == set(SCOPE_OF)


@pytest.mark.parametrize(
    ("said", "content", "complaint"),
    [
        ("HS512={}", SECRET, "one of HS256, RS256, ES256"),
        ("none={}", SECRET, "one of HS256"),
        ("HS256", SECRET, "must be ALGORITHM=FILE"),
        ("HS256={}", b"short", "at least 32"),
        ("HS256={}", public_pem(RSA), "looks like a public key"),
        ("RS256={}", SECRET, "is no PEM public key"),
        ("RS256={}", public_pem(EC), "RSA of at least 2048 bits"),
        ("RS256={}", public_pem(rsa.generate_private_key(65_537, 1024)), "RSA of at least 2048 bits"),
        ("ES256={}", public_pem(RSA), "elliptic, on P-256"),
        ("ES256={}", public_pem(ec.generate_private_key(ec.SECP384R1())), "elliptic, on P-256"),
        ("RS256={}", private_pem(RSA), "is no PEM public key"),
    ],
)
def test_a_key_is_of_its_algorithm_and_strong_or_refused(tmp_path, said, content, complaint):
    file = tmp_path / "key"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match=complaint):
        SigningKey.parse(said.format(file))


def test_a_key_file_is_read_as_its_algorithm_needs(tmp_path):
    file = tmp_path / "key"
    file.write_bytes(public_pem(RSA))
    read = SigningKey.parse(f"RS256/2026-11={file}")

    assert ("RS256", "2026-11") == (read.algorithm, read.key_id)
    assert "till" == verifier([read]).verify(token(private_pem(RSA), "RS256", {"kid": "2026-11"})).name
    assert "BEGIN" not in repr(read) and "material" not in repr(read)
