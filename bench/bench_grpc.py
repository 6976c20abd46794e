"""
Question   What does the scoring service cost beside a service that does nothing, on the same grpcio?
Workload   Simulated transactions, 15 fields and 140 bytes each; reference features, 300 trees of depth 6; every transaction new.
Timed      At the client, from request to answer: `Score`, and `ScoreStream` with 100 transactions a message.  Client and server
           are two processes on a Unix socket.  The echo reads the same requests and writes answers of the same size.
Not timed  Starting, opening, making requests.
Check      Answers equal those of a scorer in this process, for every transaction of the first round.
Gate       gates.toml.  Aimed at: Score takes at most 1.25 times the echo, and the stream moves at least 0.4 times its transactions.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import hold, percentiles, report
from _turns import take_turns

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")

from peers.grpc_server import PER_MESSAGE, READY  # noqa: E402

from fraudsdk import Scorer, ScorerConfig  # noqa: E402
from fraudsdk.adapters.grpc._generated.scoring_service_pb2_grpc import ScoringServiceStub  # noqa: E402
from fraudsdk.adapters.protobuf import decision_message, message_of  # noqa: E402
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb  # noqa: E402

SERVER = Path(__file__).parent / "peers" / "grpc_server.py"
CHECKED = 500
UNARY_ROUNDS, UNARY_CALLS = 20, 150
STREAM_ROUNDS, MESSAGES = 11, 24
N_CALLERS = 8
OPEN_LOOP_S = 4.0


@contextmanager
def served(address: str, *model_and_key: str) -> Iterator[Any]:
    """A stub of a server of our own."""
    command = [sys.executable, str(SERVER), address, *model_and_key]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert READY == server.stdout.readline().strip(), "the server did not start; its message is above"
            with grpc.insecure_channel(address) as channel:
                yield ScoringServiceStub(channel)
        finally:
            server.terminate()


@pytest.fixture
def stubs(catalogue_model: Path, hash_key: bytes, tmp_path: Path) -> Iterator[dict[str, Any]]:
    with (
        served(f"unix:{tmp_path / 'own'}", str(catalogue_model), hash_key.hex()) as own,
        served(f"unix:{tmp_path / 'echo'}") as echo,
    ):
        yield {"fraudsdk": own, "echo": echo}


@pytest.fixture
def twin(catalogue_model: Path, hash_key: bytes) -> Iterator[Scorer]:
    with Scorer.open(ScorerConfig(model=catalogue_model, hash_key=hash_key)) as scorer:
        yield scorer


@pytest.mark.quick
def test_one_decision_costs_little_more_than_the_call(
    benchmark: Any, traffic: Any, stubs: dict[str, Any], twin: Scorer
) -> None:
    sent = traffic.transactions(*range(CHECKED + UNARY_ROUNDS * UNARY_CALLS))
    requests = [pb.ScoreRequest(transaction=message_of(each)) for each in sent]
    own, echo = stubs["fraudsdk"].Score, stubs["echo"].Score
    for transaction, request in zip(sent[:CHECKED], requests, strict=False):
        assert decision_message(twin.score(transaction)) == own(request).decision
        echo(request)

    rounds = [requests[first : first + UNARY_CALLS] for first in range(CHECKED, len(requests), UNARY_CALLS)]
    turns = take_turns(benchmark, {"fraudsdk": own, "echo": echo}, rounds, warm=False)

    question = "gRPC, one transaction a call"
    report(question, turns.figures())
    hold(question, turns.ratios())


@pytest.mark.quick
def test_a_stream_moves_transactions_nearly_as_fast_as_the_wire(
    benchmark: Any, traffic: Any, stubs: dict[str, Any], twin: Scorer
) -> None:
    n_messages = (1 + STREAM_ROUNDS) * MESSAGES
    sent = traffic.transactions(*range(n_messages * PER_MESSAGE))
    messages = [sent[first : first + PER_MESSAGE] for first in range(0, len(sent), PER_MESSAGE)]
    requests = [pb.ScoreStreamRequest(transactions=[message_of(each) for each in message]) for message in messages]

    def streamed(stub: Any) -> Any:
        def stream(batch: list[pb.ScoreStreamRequest]) -> list[pb.ScoreStreamResponse]:
            answers = list(stub.ScoreStream(iter(batch)))
            assert len(batch) * PER_MESSAGE == sum(len(answer.decisions) for answer in answers)
            return answers

        return stream

    contestants = {name: streamed(stub) for name, stub in stubs.items()}
    for message, answer in zip(messages[:MESSAGES], contestants["fraudsdk"](requests[:MESSAGES]), strict=True):
        assert [decision_message(each) for each in twin.score_batch(message)] == list(answer.decisions)
    contestants["echo"](requests[:MESSAGES])
    work = [[requests[first : first + MESSAGES]] for first in range(MESSAGES, n_messages, MESSAGES)]
    turns = take_turns(benchmark, contestants, work, warm=False)

    question = f"gRPC, {PER_MESSAGE} transactions a message of a stream"
    figures = turns.figures(items_per_call=MESSAGES * PER_MESSAGE)
    for name, values in figures.items():
        values["transactions/s"] = 1e9 / float(np.median(turns.elapsed_ns[name])) * MESSAGES * PER_MESSAGE
    report(question, figures)
    hold(question, turns.ratios())


def test_half_of_what_it_can_is_answered_without_a_queue(benchmark: Any, traffic: Any, stubs: dict[str, Any]) -> None:
    """
    On a schedule, and waiting counts: a call that could not be sent in time was late from then on.
    """
    requests = iter([pb.ScoreRequest(transaction=message_of(each)) for each in traffic.transactions()])
    call = stubs["fraudsdk"].Score
    at_most = benchmark.pedantic(_calls_per_s, args=(call, requests), rounds=1)
    due = np.arange(0.0, OPEN_LOOP_S, 2.0 / at_most)
    taken: list[int] = []

    def finished(due_ns: int) -> Any:
        return lambda _: taken.append(time.perf_counter_ns() - due_ns)

    gc.collect()
    gc.disable()  # the client's own: a collection of all these requests takes a tenth of a second
    started_ns, under_way = time.perf_counter_ns(), []
    for after_s in due.tolist():
        due_ns = started_ns + int(after_s * 1e9)
        while (early_ns := due_ns - time.perf_counter_ns()) > 0:
            time.sleep(early_ns / 1e9)
        under_way.append(call.future(next(requests)))
        under_way[-1].add_done_callback(finished(due_ns))
    for future in under_way:
        future.result(20)
    gc.enable()

    report(
        "gRPC, one transaction a call, on a schedule at half of the maximum",
        {
            "fraudsdk": percentiles(np.array(taken, np.float64))
            | {"calls/s": len(due) / OPEN_LOOP_S, "maximum/s": at_most}
        },
    )


def _calls_per_s(call: Any, requests: Iterator[Any], n_calls: int = 4_000) -> float:
    """Of callers that wait for each answer, and all together keep the service busy."""
    with ThreadPoolExecutor(N_CALLERS) as callers:
        batch = [next(requests) for _ in range(n_calls)]
        started = time.perf_counter()
        list(callers.map(call, batch))
        return n_calls / (time.perf_counter() - started)
