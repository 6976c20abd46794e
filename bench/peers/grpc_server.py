"""
A gRPC server in a process of its own: the scoring service, or one that answers the same messages without a thought.

    python grpc_server.py <address>                 the echo
    python grpc_server.py <address> <model> <key>   the service

The echo reads every request and writes an answer of the same size, made once: what is left is grpcio itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from fraudsdk.adapters.grpc._generated import scoring_service_pb2_grpc
from fraudsdk.adapters.protobuf import decision_message
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.domain.decision import approval

N_THREADS = 8
PER_MESSAGE = 100
READY = "ready"


class Echo(scoring_service_pb2_grpc.ScoringServiceServicer):
    """Answers with what it was made with."""

    def __init__(self) -> None:
        decision = decision_message(approval("t-000012345", 0.0123, -4.2, "bench/1"))
        self._one = pb.ScoreResponse(decision=decision)
        self._many = pb.ScoreStreamResponse(decisions=[decision] * PER_MESSAGE)

    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        return self._one

    def ScoreStream(
        self, request_iterator: Iterator[pb.ScoreStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ScoreStreamResponse]:
        for _ in request_iterator:
            yield self._many


def serve(address: str, *model_and_key: str) -> None:
    server: Any = grpc.server(ThreadPoolExecutor(N_THREADS))
    if model_and_key:
        from fraudsdk import Scorer, ScorerConfig
        from fraudsdk.adapters.grpc import ScoringService

        model, key = model_and_key
        ScoringService(Scorer.open(ScorerConfig(model=model, hash_key=bytes.fromhex(key)))).add_to(server)
    else:
        scoring_service_pb2_grpc.add_ScoringServiceServicer_to_server(Echo(), server)
    server.add_insecure_port(address)
    server.start()
    print(READY, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve(*sys.argv[1:])
