"""A client in JavaScript that shares nothing with the service but the contract: the same answers, to the last bit."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from certificates import Authority, require_openssl
from google.protobuf import descriptor_pb2
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from keeps_state import plan
from node_clients import require_node, run, started
from servers import wait_for
from service_processes import HASH_KEY, MODEL, SidecarProcess

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.adapters.protobuf import decision_message, message_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf.explanations import explanation_message

require_node()

PROTO = Path(__file__).parents[3] / "proto"
SERVICE = "fraudsdk.v1.ScoringService"
TRANSACTIONS = plan(200, seed=34)
SECRET = "a shared secret of thirty-two bytes, or more"
LIMIT_BYTES = 4 << 20
CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 1, 3, 4, 5
PERMISSION_DENIED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE, UNAUTHENTICATED = 7, 8, 12, 14, 16


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    process = SidecarProcess(tmp_path_factory.mktemp("sidecar"))
    process.start()
    yield process
    process.stop()


@pytest.fixture
def scorer():
    """What the sidecar has within it, in this process."""
    with Scorer.open(ScorerConfig(model=MODEL, hash_key=HASH_KEY)) as opened:
        yield opened


@pytest.fixture
def new_sidecar(tmp_path):
    made = []

    def new(*flags):
        made.append(SidecarProcess(tmp_path / f"sidecar-{len(made)}"))
        made[-1].start(*flags)
        return made[-1]

    yield new
    for each in made:
        each.stop()


def told(target, *cases) -> dict:
    """What a client is told: where the service is, and standard protocols as descriptors."""
    needed = [each.DESCRIPTOR for each in (health_pb2, reflection_pb2, status_pb2, error_details_pb2)]
    files = {file.name: file for each in needed for file in [*each.dependencies, each]}
    standard = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(standard.file.add())
    octets = base64.b64encode(standard.SerializeToString()).decode()
    return {"target": target, "proto": str(PROTO), "standard": octets, "cases": cases}


def answers_of(target, *cases) -> dict[str, dict]:
    return run("scoring.mjs", told(target, *cases))


def sent(transaction, **changes) -> dict:
    """A transaction as a client in JavaScript would write it down."""
    as_json = MessageToDict(message_of(transaction), preserving_proto_field_name=True)
    seconds, us = divmod(transaction["event_time_us"], 1_000_000)
    return as_json | {"event_time": {"seconds": seconds, "nanos": us * 1_000}} | changes


def said(decision) -> dict:
    """A decision as it is in the contract."""
    return as_dict(decision_message(decision))


def as_dict(message) -> dict:
    return MessageToDict(message, preserving_proto_field_name=True)


def decisions(answer) -> list[dict]:
    return answer["answer"]["decisions"]


def test_decisions_are_those_of_a_scorer_in_process_bit_for_bit(new_sidecar, scorer):
    """
    One by one, in a batch and on a stream, on one memory: what came by one call counts for the next.
    """
    single, batch, stream = TRANSACTIONS[:50], TRANSACTIONS[50:100], TRANSACTIONS[100:150]
    messages = [{"transactions": [sent(each) for each in stream[place : place + 10]]} for place in range(0, 50, 10)]
    answers = answers_of(
        new_sidecar().target,
        {"name": "single", "does": "score", "requests": [{"transaction": sent(each)} for each in single]},
        {
            "name": "batch",
            "does": "call",
            "method": "ScoreBatch",
            "request": {"transactions": [sent(each) for each in batch]},
        },
        {"name": "stream", "does": "stream", "requests": messages},
        {"name": "again", "does": "call", "method": "Score", "request": {"transaction": sent(single[0])}},
    )
    expected = [said(scorer.score(each)) for each in single]

    assert expected == [each["answer"]["decision"] for each in answers["single"]["answers"]]
    assert [said(each) for each in scorer.score_batch(batch)] == decisions(answers["batch"])
    streamed = [decision for message in answers["stream"]["answers"] for decision in message["decisions"]]
    assert [said(each) for each in scorer.score_batch(stream)] == streamed
    assert expected[0] | {"duplicate": True} == answers["again"]["answer"]["decision"]
    assert len({each["score"] for each in expected}) > 20  # they are not all the same


def test_what_else_can_be_asked_is_what_a_scorer_says(new_sidecar, scorer):
    first, second = TRANSACTIONS[:2]
    label = {"transaction_id": first["transaction_id"], "is_fraud": True}
    answers = answers_of(
        new_sidecar().target,
        {"name": "first", "does": "call", "method": "Score", "request": {"transaction": sent(first)}},
        {"name": "feedback", "does": "call", "method": "Feedback", "request": label},
        {"name": "too late", "does": "call", "method": "Feedback", "request": label | {"transaction_id": "t-0"}},
        {"name": "explain", "does": "call", "method": "Explain", "request": {"transaction": sent(second)}},
        {"name": "model", "does": "call", "method": "GetModelInfo", "request": {}},
        {"name": "features", "does": "call", "method": "ListFeatures", "request": {}},
    )
    scorer.score(first)
    scorer.feedback(first["transaction_id"], is_fraud=True)

    assert {"remembered": True} == answers["feedback"]["answer"]
    assert not answers["too late"]["answer"].get("remembered")
    assert as_dict(explanation_message(scorer.explain(second))) == answers["explain"]["answer"]["explanation"]
    assert "reference/1" == answers["model"]["answer"]["model_version"]
    assert list(scorer.model.feature_names) == [each["name"] for each in answers["features"]["answer"]["features"]]


def test_what_if_is_asked_without_a_trace(sidecar):
    request = {"transaction": sent(TRANSACTIONS[0], transaction_id="what-if"), "record": False}
    case = {"does": "call", "method": "Score", "request": request}
    answers = answers_of(sidecar.target, {"name": "once", **case}, {"name": "twice", **case})

    assert answers["once"]["answer"] == answers["twice"]["answer"]
    assert "duplicate" not in answers["twice"]["answer"]["decision"]


def test_what_is_wrong_is_said_by_field(sidecar):
    """
    As google.rpc.BadRequest for any client, and as a Refusal for one that knows the contract.
    """
    good, negative = sent(TRANSACTIONS[0]), sent(TRANSACTIONS[1], amount="-1")
    negative.pop("amount_minor", None)
    answers = answers_of(
        sidecar.target,
        {"name": "single", "does": "call", "method": "Score", "request": {"transaction": negative}},
        {
            "name": "batch",
            "does": "call",
            "method": "ScoreBatch",
            "request": {"transactions": [good, good | {"mcc": "12"}]},
        },
        {
            "name": "stream",
            "does": "stream",
            "requests": [{"transactions": [each], "record": False} for each in (good, negative, good)],
        },
    )
    for name, field in (("single", "transaction.amount"), ("batch", "transactions[1].mcc")):
        details = {each["type"]: each for each in answers[name]["details"]}
        [violation] = details["google.rpc.BadRequest"]["field_violations"]
        refusal = details["fraudsdk.v1.Refusal"]

        assert INVALID_ARGUMENT == answers[name]["code"]
        assert field == violation["field"]
        assert field.rpartition(".")[2] == refusal["field"]
        assert f"{refusal['problem']}; {refusal['remedy']}" == violation["description"]
    first, second, third = answers["stream"]["answers"]
    assert "amount" == second["refusal"]["field"] and not second.get("decisions")
    assert first == third and first["decisions"]


def test_a_deadline_and_a_cancellation_end_the_work(sidecar):
    many = {"transactions": [sent(each) for each in TRANSACTIONS * 20], "record": False}
    few = {"transactions": [sent(each) for each in TRANSACTIONS[:20]], "record": False}
    answers = answers_of(
        sidecar.target,
        {"name": "late", "does": "call", "method": "ScoreBatch", "request": many, "timeoutMs": 1},
        {"name": "given up", "does": "call", "method": "ScoreBatch", "request": many, "cancelled": 1},
        {"name": "stream", "does": "cancelledStream", "requests": [few] * 200, "after": 3},
        {"name": "after", "does": "call", "method": "ScoreBatch", "request": few},
    )

    assert DEADLINE_EXCEEDED == answers["late"]["code"]
    assert CANCELLED == answers["given up"]["code"] == answers["stream"]["code"]
    assert 20 == len(decisions(answers["after"]))
    wait_for("no call under way", lambda: 0 == sidecar.figures()["fraudsdk_rpcs_under_way"])


def test_a_message_may_be_as_large_as_the_service_says_and_no_larger(sidecar):
    """
    Of 4 MiB to within one transaction, which is more than some clients take without being told.
    """
    long = TRANSACTIONS[0] | dict.fromkeys(("session_id", "device_fingerprint", "email_hash", "phone_hash"), "s" * 128)
    batch = pb.ScoreBatchRequest(transactions=[message_of(long)])
    n = LIMIT_BYTES // batch.ByteSize()  # `record` has two bytes more
    case = {"does": "call", "method": "ScoreBatch"}
    answers = answers_of(
        sidecar.target,
        {"name": "under", **case, "request": {"transactions": [sent(long)] * (n - 1), "record": False}},
        {"name": "over", **case, "request": {"transactions": [sent(long)] * (n + 1), "record": False}},
    )

    assert n - 1 == len(decisions(answers["under"]))
    assert RESOURCE_EXHAUSTED == answers["over"]["code"]


def test_a_method_that_is_not_there_is_unimplemented(sidecar):
    assert UNIMPLEMENTED == answers_of(sidecar.target, {"name": "it", "does": "unimplemented"})["it"]["code"]


def test_health_is_the_standard_one(new_sidecar):
    """
    Asked for by name, and watched until the service stops.
    """
    process = new_sidecar()
    answers = answers_of(
        process.target,
        {"name": "all", "does": "health", "service": ""},
        {"name": "ours", "does": "health", "service": SERVICE},
        {"name": "other", "does": "health", "service": "other"},
    )
    assert "SERVING" == answers["all"]["answer"]["status"] == answers["ours"]["answer"]["status"]
    assert NOT_FOUND == answers["other"]["code"]

    watcher = started("scoring.mjs", told(process.target, {"name": "it", "does": "watch", "service": SERVICE}))
    try:
        assert "SERVING" == json.loads(watcher.stdout.readline())["status"]
        assert 0 == process.stop()
        assert "NOT_SERVING" == json.loads(watcher.stdout.readline())["status"]
        watcher.communicate(timeout=20)
    finally:
        watcher.kill()
        watcher.wait()


def test_reflection_is_enough_to_call_the_service(sidecar):
    """
    A client that was given no contract finds the service, its messages, and an answer.
    """
    request = {"transaction": sent(TRANSACTIONS[0]), "record": False}
    found = answers_of(
        sidecar.target,
        {"name": "it", "does": "reflection", "symbol": SERVICE, "method": "Score", "request": request},
        {"name": "plain", "does": "call", "method": "Score", "request": request},
    )

    assert {SERVICE, "grpc.health.v1.Health"} <= set(found["it"]["services"])
    assert found["plain"]["answer"] == found["it"]["answer"]


def test_tls_and_tokens(new_sidecar, tmp_path):
    """
    A client believes the authority that it was given and no other, and is let in by its token alone.
    """
    require_openssl()
    authority, other = Authority(tmp_path / "authority"), Authority(tmp_path / "other")
    served = authority.issue("sidecar", "IP:127.0.0.1")
    secret = tmp_path / "secret"
    secret.write_text(SECRET, encoding="utf-8")
    process = new_sidecar(
        *("--tls-certificate", served.certificate, "--tls-key", served.key),
        *("--auth-keys", f"HS256={secret}", "--auth-audience", "fraud", "--auth-issuer", "bank"),
    )
    believed = {"authority": authority.file.read_text()}
    call = {"does": "call", "method": "Score", "request": {"transaction": sent(TRANSACTIONS[0])}, **believed}
    answers = answers_of(
        process.target,
        {"name": "right", **call, "token": token()},
        {"name": "none", **call},
        {"name": "expired", **call, "token": token(lifetime_s=-600)},
        {"name": "another scope", **call, "token": token(scope="feedback")},
        {"name": "not believed", **call, "token": token(), "authority": other.file.read_text(), "timeoutMs": 5_000},
        {"name": "plain text", **call, "token": token(), "authority": None, "timeoutMs": 5_000},
    )

    assert answers["right"]["answer"]["decision"]["outcome"]
    assert UNAUTHENTICATED == answers["none"]["code"] == answers["expired"]["code"]
    assert answers["none"]["message"] == answers["expired"]["message"]
    assert PERMISSION_DENIED == answers["another scope"]["code"]
    assert UNAVAILABLE == answers["not believed"]["code"] == answers["plain text"]["code"]


def token(lifetime_s=600, scope="score") -> str:
    now = int(time.time())
    begun = now - 1_200 if lifetime_s < 0 else now
    claims = {"sub": "till", "aud": "fraud", "iss": "bank", "iat": begun, "exp": now + lifetime_s, "scope": scope}
    return jwt.encode(claims, SECRET, algorithm="HS256")
