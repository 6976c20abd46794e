"""Who is let in: tokens, certificates, and what changes while the service runs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import subprocess
import threading
import time

import grpc
import pytest
from certificates import Authority, require_openssl
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from servers import wait_for

from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

require_openssl()

GENERIC = "authentication failed: send a valid bearer token or certificate"


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def failure_of(call, *args, **options):
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, timeout=10, **options)
    return raised.value.code(), raised.value.details()


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def rsa_public(tmp_path_factory):
    """A public key, and the file of its private one."""
    private, public = (tmp_path_factory.mktemp("rsa") / name for name in ("private.pem", "public.pem"))
    subprocess.run(["openssl", "genrsa", "-out", private, "2048"], check=True, capture_output=True)
    subprocess.run(["openssl", "rsa", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return public, private


def forged(header, claims, secret=b""):
    head, body = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims))
    mark = hmac.new(secret, head + b"." + body, hashlib.sha256).digest() if secret else b""
    return b".".join((head, body, base64.urlsafe_b64encode(mark).rstrip(b"="))).decode()


def test_every_failure_of_authentication_looks_the_same_and_tells_nothing(
    new_sidecar, auth, rsa_public, token, purchase, stub_of
):
    """
    None, garbage, expired, for others, by others, unsigned, signed with what is public, too early, too long, too long-lived.
    """
    public, private = rsa_public
    sidecar = new_sidecar(**{**auth, "auth__keys": [*auth["auth__keys"], f"RS256={public}"]}).start()
    now = int(time.time())
    claims = {"sub": "till", "aud": "fraud", "iss": "bank", "iat": now, "exp": now + 60, "scope": "score"}
    wrong = {
        "none": [],
        "another kind": [("authorization", "Basic dTpw")],
        "empty": bearer(""),
        "garbage": bearer("garbage"),
        "twice": bearer(token()) * 2,
        "expired": bearer(token(iat=now - 700, exp=now - 100)),
        "another audience": bearer(token(aud="other")),
        "another issuer": bearer(token(iss="mallory")),
        "unsigned": bearer(forged({"alg": "none", "typ": "JWT"}, claims)),
        "key confusion": bearer(forged({"alg": "HS256"}, claims, public.read_bytes())),
        "another key": bearer(token(key="another secret of thirty-two bytes, or more")),
        "too early": bearer(token(nbf=now + 300)),
        "oversized": bearer(token(more="x" * 9_000)),
        "no expiry": bearer(token(exp=None)),
        "too long-lived": bearer(token(exp=now + 7_200)),
    }
    with sidecar.channel() as channel:
        stub = stub_of(channel)
        for name, metadata in wrong.items():
            assert (grpc.StatusCode.UNAUTHENTICATED, GENERIC) == failure_of(
                stub.Score, purchase(), metadata=metadata
            ), name
        stream = stub.ScoreStream(iter([pb.ScoreStreamRequest()]), timeout=10)
        assert grpc.StatusCode.UNAUTHENTICATED == failure_of(lambda timeout: next(stream))[0]
        asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
        )
        assert grpc.StatusCode.UNAUTHENTICATED == failure_of(lambda timeout: next(asked))[0]
        assert stub.Score(purchase(1), metadata=bearer(token()), timeout=10).decision.outcome
        signed = token(key=private.read_text(), algorithm="RS256")
        assert stub.Score(purchase(2), metadata=bearer(signed), timeout=10).decision.outcome
        # A probe needs none.
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
    said = sidecar.said()

    assert '"event.action": "unauthenticated"' in said
    assert all(metadata[0][1][7:40] not in said for metadata in wrong.values() if metadata and len(metadata[0][1]) > 40)
    assert (
        f'fraudsdk_rpcs_total{{code="UNAUTHENTICATED",method="/fraudsdk.v1.ScoringService/Score"}} {len(wrong)}.0'
        in (sidecar.metrics())
    )


def test_a_client_may_do_what_its_scopes_say(new_sidecar, auth, token, purchase, stub_of):
    sidecar = new_sidecar(**auth).start()
    explain = pb.ExplainRequest(transaction=purchase(1).transaction)
    feedback = pb.FeedbackRequest(transaction_id="t-1", is_fraud=True)
    with sidecar.channel() as channel:
        stub = stub_of(channel)
        calls = {
            "score": (stub.Score, purchase()),
            "explain": (stub.Explain, explain),
            "feedback": (stub.Feedback, feedback),
        }
        for held in calls:
            for needed, (call, request) in calls.items():
                metadata = bearer(token(scope=held))
                if held == needed:
                    call(request, metadata=metadata, timeout=10)
                else:
                    assert (grpc.StatusCode.PERMISSION_DENIED, f"the scope {needed} is needed") == failure_of(
                        call, request, metadata=metadata
                    )
        reflected = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        denied = reflected(iter(asked), metadata=bearer(token(scope="score explain feedback")), timeout=10)
        assert grpc.StatusCode.PERMISSION_DENIED == failure_of(lambda timeout: next(denied))[0]
        assert next(reflected(iter(asked), metadata=bearer(token(scope="admin")), timeout=10))


def tls_settings(authority, tmp_path, **more):
    """Files of the service's own that a test may replace."""
    put(tmp_path, authority.issue("first", "IP:127.0.0.1"))
    return {"tls__certificate": str(tmp_path / "tls.pem"), "tls__key": str(tmp_path / "tls.key"), **more}


def put(tmp_path, issued):
    for name, file in (("tls.pem", issued.certificate), ("tls.key", issued.key)):
        aside = tmp_path / f"{name}.new"
        aside.write_bytes(file.read_bytes())
        os.replace(aside, tmp_path / name)


def credentials(authority, own=None):
    key, certificate = (None, None) if own is None else (own.key.read_bytes(), own.certificate.read_bytes())
    return grpc.ssl_channel_credentials(authority.file.read_bytes(), key, certificate)


def test_a_client_needs_a_certificate_of_the_authority_and_is_known_by_its_name(
    new_sidecar, authority, tmp_path, purchase, stub_of
):
    settings = tls_settings(authority, tmp_path, tls__client_ca=str(authority.file))
    sidecar = new_sidecar(**settings, limits__per_minute_of={"till-7": 2}, auth__certificate_scopes=["score"]).start()
    own, other = authority.issue("till-7", "DNS:till-7"), Authority(tmp_path / "other").issue("till-7", "DNS:till-7")
    with sidecar.channel(credentials=credentials(authority, own)) as channel:
        stub = stub_of(channel)
        for number in range(2):
            assert stub.Score(purchase(number), timeout=10).decision.outcome
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == failure_of(stub.Score, purchase(3))[0]
        assert grpc.StatusCode.PERMISSION_DENIED == failure_of(stub.Feedback, pb.FeedbackRequest(transaction_id="t"))[0]
    for each in (credentials(authority), credentials(authority, other), None):
        with sidecar.channel(credentials=each) as channel:
            assert grpc.StatusCode.UNAVAILABLE == failure_of(stub_of(channel).Score, purchase())[0]
    assert "till-7" not in sidecar.said()


def served_by(port, authority):
    """The name in the certificate that a new connection is shown."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(authority.file), "-alpn", "h2"]
    shown = subprocess.run(command, input=b"", capture_output=True, timeout=20).stdout.decode("latin-1")
    return next((line for line in shown.splitlines() if "subject=" in line), "").replace(" ", "")


@pytest.mark.parametrize("how", ["signal", "poll"])
def test_certificates_are_replaced_under_load_and_no_call_fails(
    new_sidecar, authority, tmp_path, purchase, stub_of, auth, token, how
):
    settings = tls_settings(authority, tmp_path, tls__poll_s=0.2 if how == "poll" else 0.0, **auth)
    sidecar = new_sidecar(**settings).start()
    stop, failures, answered = threading.Event(), [], []

    def load(first):
        number = first
        while not stop.is_set():  # a connection for each few calls, so that many begin while the files change
            with sidecar.channel(credentials=credentials(authority)) as channel:
                for _ in range(5):
                    number += 1
                    try:
                        stub_of(channel).Score(purchase(number), metadata=bearer(token()), timeout=10)
                        answered.append(number)
                    except grpc.RpcError as error:
                        failures.append(error)

    threads = [threading.Thread(target=load, args=(first,)) for first in (0, 1_000_000)]
    for thread in threads:
        thread.start()
    try:
        assert "CN=first" in served_by(sidecar.port, authority)
        put(tmp_path, authority.issue("second", "IP:127.0.0.1"))
        if how == "signal":
            sidecar.reload()
        wait_for("the new certificate", lambda: "CN=second" in served_by(sidecar.port, authority))
        # A wrong one changes nothing, and is said.
        (tmp_path / "tls.key").write_bytes(b"no key")
        if how == "signal":
            sidecar.reload("reload-failed")
        else:
            sidecar.wait_for_event("tls-reload-failed")
        assert "CN=second" in served_by(sidecar.port, authority)
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert [] == failures
    assert len(answered) > 20


def test_what_may_change_is_taken_up_and_what_will_not_do_changes_nothing(
    new_sidecar, auth, token, purchase, stub_of, tmp_path
):
    """
    A wrong key beside a new rate: the rate is not taken up either.
    """
    sidecar = new_sidecar(**auth).start()
    other = tmp_path / "other"
    other.write_text("yet another secret of thirty-two bytes or more", encoding="utf-8")
    with sidecar.channel() as channel:
        score = stub_of(channel).Score
        (tmp_path / "short").write_text("short", encoding="utf-8")
        failed = sidecar.reload(
            "reload-failed", auth__keys=[f"HS256={tmp_path / 'short'}"], limits__per_minute_of={"till": 1}
        )
        assert "everything stays as it was" in failed["message"] and "at least 32" in failed["message"]
        for number in range(3):
            assert score(purchase(number), metadata=bearer(token()), timeout=10).decision.outcome

        sidecar.reload(auth__keys=[f"HS256={other}"], limits__per_minute_of={"till": 2}, limits__threads=20)
        assert "limits.threads" in sidecar.wait_for_event("restart-needed")["message"]
        assert grpc.StatusCode.UNAUTHENTICATED == failure_of(score, purchase(), metadata=bearer(token()))[0]
        new = bearer(token(key=other.read_text()))
        assert [score(purchase(number), metadata=new, timeout=10).decision.outcome for number in (4, 5)]
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == failure_of(score, purchase(6), metadata=new)[0]

        sidecar.config.write_text("model = ", encoding="utf-8")
        before = sidecar.said().count("reload-failed")
        sidecar.signal(1)
        wait_for("a refusal", lambda: sidecar.said().count("reload-failed") > before)
        assert sidecar.process.poll() is None


def test_a_model_is_swapped_and_a_broken_one_is_not(new_sidecar, artefact, shorter, purchase, stub_of, tmp_path):
    sidecar = new_sidecar(model=artefact).start()
    (tmp_path / "empty").mkdir()
    with sidecar.channel() as channel:
        score = stub_of(channel).Score
        assert "small/1" == score(purchase(1), timeout=10).decision.model_version
        sidecar.reload("reload-failed", model=str(tmp_path / "empty"))
        assert "small/1" == score(purchase(2), timeout=10).decision.model_version
        sidecar.reload(model=str(shorter))
        assert "small/2" == score(purchase(3), timeout=10).decision.model_version

    assert 'model="small/2"' in sidecar.metrics()
