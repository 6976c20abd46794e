"""Tools that others ask a gRPC service with: grpcurl finds its way by reflection alone, ghz calls on a schedule."""

from __future__ import annotations

import json

import pytest
from go_clients import require_go, run
from google.protobuf import descriptor_pb2, timestamp_pb2
from service_processes import SidecarProcess

from fraudsdk.adapters.protobuf._generated import decision_pb2, explanation_pb2, scoring_service_pb2, transaction_pb2

require_go()

SERVICE = "fraudsdk.v1.ScoringService"
TRANSACTION = {
    "transaction_id": "t-1",
    "user_id": "u-1",
    "event_time": "2026-11-23T10:00:00.000001Z",
    "amount": "12.50",
    "currency": "EUR",
}
PER_S, LASTS_S = 50, 3


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory):
    process = SidecarProcess(tmp_path_factory.mktemp("sidecar"))
    process.start()
    yield process
    process.stop()


def grpcurl(sidecar, *arguments, sent=None):
    data = () if sent is None else ("-d", json.dumps(sent))
    return run("grpcurl", "-plaintext", *data, sidecar.target, *arguments)


def test_grpcurl_lists_and_describes_what_there_is(sidecar):
    listed = grpcurl(sidecar, "list").stdout.split()
    # The service and not its method: by the name of a method the reflection of grpcio finds nothing.
    described = grpcurl(sidecar, "describe", SERVICE).stdout

    assert {SERVICE, "grpc.health.v1.Health"} <= set(listed)
    assert "rpc Score ( .fraudsdk.v1.ScoreRequest ) returns ( .fraudsdk.v1.ScoreResponse );" in described


def test_grpcurl_scores_and_is_told_what_was_wrong(sidecar):
    answer = grpcurl(sidecar, f"{SERVICE}/Score", sent={"transaction": TRANSACTION})
    refused = grpcurl(sidecar, f"{SERVICE}/Score", sent={"transaction": TRANSACTION | {"amount": "-1"}})

    assert "t-1" == json.loads(answer.stdout)["decision"]["transaction_id"], answer.stderr
    assert 0 != refused.returncode
    assert "InvalidArgument" in refused.stderr and "transaction.amount" in refused.stderr


@pytest.fixture
def protoset(tmp_path):
    """The contract as a set of descriptors: this ghz asks reflection for methods, and its own parser knows no `optional`."""
    files = descriptor_pb2.FileDescriptorSet()
    for module in (timestamp_pb2, transaction_pb2, decision_pb2, explanation_pb2, scoring_service_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    path = tmp_path / "contract.protoset"
    path.write_bytes(files.SerializeToString())
    return path


def test_ghz_gets_an_answer_to_whatever_it_sends_on_a_schedule(sidecar, protoset):
    """
    It sends on without waiting for answers, so that waiting counts.
    """
    sent = {"transaction": TRANSACTION | {"transaction_id": "ghz-{{.RequestNumber}}"}}
    how = ("--async", "--rps", str(PER_S), "--total", str(PER_S * LASTS_S), "--format", "json")
    what = ("--protoset", str(protoset), "--call", f"{SERVICE}.Score", "--data", json.dumps(sent))
    ran = run("ghz", "--insecure", *what, *how, sidecar.target)
    assert 0 == ran.returncode, ran.stderr
    report = json.loads(ran.stdout)
    latencies_ms = {each["percentage"]: each["latency"] / 1e6 for each in report["latencyDistribution"]}
    print(f"ghz at {PER_S}/s: p50 {latencies_ms[50]:.2f} ms, p99 {latencies_ms[99]:.2f} ms")

    assert {"OK": PER_S * LASTS_S} == report["statusCodeDistribution"]
    assert 0 < latencies_ms[50] <= latencies_ms[99]
