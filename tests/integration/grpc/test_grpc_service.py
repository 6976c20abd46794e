"""The service on a real server and a real client of it, against the scorer in this process."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import free_port

from fraudsdk import Outcome, Scorer, ScorerConfig
from fraudsdk.adapters.grpc import (
    ClientTls,
    NotAllowedError,
    ScoringClient,
    ScoringService,
    ServiceError,
    ServiceUnavailableError,
)
from fraudsdk.adapters.grpc import service as scoring
from fraudsdk.adapters.grpc._generated.scoring_service_pb2_grpc import ScoringServiceStub
from fraudsdk.adapters.protobuf import message_of
from fraudsdk.adapters.protobuf._generated import decision_pb2, transaction_pb2
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.errors import DeadlineExceededError, InvalidTransactionError, ModelError, StateUnavailableError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.rules import Rule
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.telemetry.clock import Deadline
from fraudsdk.testing.clock import ManualClock

PAN = "4111111111111111"


class Watched(Scorer):
    """A scorer that can be held up, made to fail, and asked what it was told."""

    def __init__(self, *parts, **more):
        super().__init__(*parts, **more)
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.deadlines = []
        self.failure = None

    def score(self, transaction, *, record=True, deadline=None):
        self.deadlines.append(deadline)
        self.entered.set()
        assert self.gate.wait(20)
        if self.failure is not None:
            raise self.failure
        return super().score(transaction, record=record, deadline=deadline)

    def _decide_some(self, batch, first):
        done = super()._decide_some(batch, first)
        self.entered.set()
        assert self.gate.wait(20)
        return done


class Served:
    """A scorer behind a server, its twin in this process, and a client."""

    def __init__(self, config, address="127.0.0.1:0", *, n_threads=4, interceptors=()):
        self.scorer, self.twin = Watched.open(config), Scorer.open(config)
        self.server = grpc.server(ThreadPoolExecutor(n_threads), interceptors=interceptors)
        ScoringService(self.scorer, max_transactions=500).add_to(self.server)
        port = self.server.add_insecure_port(address)
        self.target = f"127.0.0.1:{port}" if address.endswith(":0") else address
        self.server.start()
        self.channel = grpc.insecure_channel(self.target)
        self.stub = ScoringServiceStub(self.channel)
        self.client = ScoringClient(self.target, timeout_s=20)

    def close(self):
        self.client.close()
        self.channel.close()
        self.server.stop(None).wait()
        self.scorer.close()
        self.twin.close()


@pytest.fixture(scope="module")
def config(artefact, hash_key):
    return ScorerConfig(model=artefact, hash_key=hash_key, max_entities=50_000, journal_capacity=50_000)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def served(request, config, tmp_path_factory):
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path_factory.mktemp('run') / 'socket'}"
    served = Served(config, address)
    yield served
    served.close()


@pytest.fixture
def alone(config):
    """A service of one thread, for one test."""
    served = Served(config, n_threads=1)
    yield served
    served.scorer.gate.set()
    served.close()


@pytest.fixture(scope="module")
def transactions(simulated):
    return simulated.transactions(*range(5_000, 5_600))


def new(transaction, name):
    return transaction | {"transaction_id": name}


def status_of(call):
    """Code and details of a call that must fail."""
    with pytest.raises(grpc.RpcError) as failed:
        call()
    trailers = dict(failed.value.trailing_metadata() or ())
    return failed.value.code(), status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")), failed.value


def unpacked(status, message):
    return next(message for packed in status.details if packed.Unpack(message))


# --- every call answers as the scorer in this process ----------------------------------------------------------------------------


def test_decisions_and_explanations_are_those_of_the_scorer_in_this_process(served, transactions):
    """
    Same bits of score and margin, same reasons, same explanations.
    """
    client, twin = served.client, served.twin

    for transaction in transactions[:100]:
        if transaction["type"] == "authorisation":
            assert repr(twin.explain(transaction)) == repr(
                client.explain(transaction)
            )  # a missing value equals nothing
        assert twin.score(transaction) == client.score(transaction)
    assert list(twin.score_batch(transactions[100:300])) == client.score_batch(transactions[100:300])
    streamed = [transactions[300:301], transactions[301:310], [], transactions[310:400]]
    assert [list(twin.score_batch(each)) for each in streamed] == list(client.score_stream(streamed))


def test_what_became_of_a_transaction_is_told(served, transactions):
    transaction = new(transactions[0], "told")
    served.client.score(transaction)

    assert served.client.feedback("told", is_fraud=True) is True
    assert served.client.feedback("told", declined=False) is True
    assert served.client.feedback("nobody", is_fraud=True) is False


def test_the_model_and_its_features_are_named(served):
    told, features, model = served.client.model_info(), served.client.features(), served.twin.model

    assert model.version == told.version
    assert (model.manifest.name, model.engine) == (told.details["name"], told.details["engine"])
    assert model.feature_names == features.names
    assert reference_feature_set("EUR").schema == features


def test_a_what_if_leaves_no_trace(served, transactions):
    transaction = new(transactions[1], "what-if")
    before = served.scorer.counters()["events"]

    asked = served.client.score(transaction, record=False)
    batch = served.client.score_batch([transaction], record=False)
    (stream,) = served.client.score_stream([[transaction]], record=False)

    assert [asked] == batch == stream
    assert before == served.scorer.counters()["events"]
    assert not served.client.score(transaction, record=False).duplicate


def test_the_same_transaction_again_gets_the_first_decision(served, transactions):
    transaction = new(transactions[2], "again")

    first, second = served.client.score(transaction), served.client.score(transaction | {"amount_minor": 1})

    assert (False, True) == (first.duplicate, second.duplicate)
    assert (first.outcome, first.score) == (second.outcome, second.score)


NAMES = count()
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=70), st.binary(max_size=3), st.decimals(),
    st.sampled_from([
        "", " ", "nan", "1e400", "-1", "0", "5411", 5411, "GBR", 826, "AUTHORIZATION", "credit", "true", 1, 10**18, 10**40, PAN,
        int(PAN), "2026-11-23T10:00:00Z", "2026-11-23", "::1", "999.1.1.1", [], {}, Decimal("1.5"),
        datetime(2026, 1, 1, tzinfo=UTC), float("inf"), -0.0, "é" * 20, "a\nb", "\ud800", "JPY", "EURO",
        1_795_428_000, "1795428000.25",
    ]),
)  # fmt: skip
FIELDS = st.sampled_from([
    "transaction_id", "event_time", "event_time_us", "event_time_ms", "event_time_s", "amount", "amount_minor", "currency", "type",
    "direction", "declined", "original_transaction_id", "user_id", "card_id", "merchant_id", "device_id", "ip", "session_id",
    "counterparty_id", "email_hash", "channel", "entry_mode", "mcc", "merchant_country", "ip_country", "three_ds", "latitude",
    "home_longitude", "card_present", "account_age_days", "balance", "pan", "custom", "nonsense", "cvv", "is_fraud", "credit",
])  # fmt: skip


@given(field=FIELDS, value=ODD, keep=st.booleans())
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_a_mapping_says_is_decided_or_refused_alike(served, transactions, field, value, keep):
    """
    One field at a time, beside or in place of what says the same: the same decision, or the same field refused.
    """
    sent = new(transactions[3], f"odd-{next(NAMES)}")
    for alike in ("event_time", "amount"):
        if field.startswith(alike) and not keep:
            sent = {name: said for name, said in sent.items() if not name.startswith(alike)}
    sent[field] = value

    def outcome_of(score):
        try:
            return score(sent)
        except InvalidTransactionError as error:
            return error.field, PAN in str(error)

    assert outcome_of(served.twin.score) == outcome_of(served.client.score)


def test_missing_and_zero_are_two_things_to_the_model(served, transactions):
    """
    What is absent on the wire is missing to the features, and a zero is a zero.
    """
    bare = {name: value for name, value in transactions[4].items() if name != "account_age_days"}

    def age(sent):
        explained = served.client.explain(new(sent, "aged"))
        return next(each.value for each in explained.features if each.name == "account_age_days")

    assert age(bare) != age(bare)
    assert 0.0 == age(bare | {"account_age_days": 0.0})


# --- what is refused ------------------------------------------------------------------------------------------------------------


def test_a_wrong_field_is_named_in_the_details(served, transactions):
    wrong = message_of(new(transactions[5], "wrong"))
    wrong.latitude = 91.0

    code, status, error = status_of(lambda: served.stub.Score(pb.ScoreRequest(transaction=wrong)))

    assert grpc.StatusCode.INVALID_ARGUMENT is code
    (violation,) = unpacked(status, error_details_pb2.BadRequest()).field_violations
    assert ("transaction.latitude", True) == (violation.field, "degrees from -90 to 90" in violation.description)
    refusal = unpacked(status, pb.Refusal())
    assert ("latitude", "wr…ng", False) == (refusal.field, refusal.transaction_id, refusal.HasField("row"))
    assert error.details() == status.message


def test_a_wrong_row_refuses_its_batch_and_nothing_of_it_is_remembered(served, transactions):
    batch = [new(transaction, f"batch-{i}") for i, transaction in enumerate(transactions[:10])]
    batch[7] = batch[7] | {"mcc": "12"}
    before = served.scorer.counters()["events"]

    with pytest.raises(InvalidTransactionError, match="in row 7") as refused:
        served.client.score_batch(batch)

    assert ("mcc", 7) == (refused.value.field, refused.value.row)
    assert before == served.scorer.counters()["events"]
    request = pb.ScoreBatchRequest(transactions=[message_of(each) for each in batch])
    _, status, _ = status_of(lambda: served.stub.ScoreBatch(request))
    assert "transactions[7].mcc" == unpacked(status, error_details_pb2.BadRequest()).field_violations[0].field


def test_a_wrong_message_is_answered_in_its_turn_and_the_stream_goes_on(served, transactions):
    good = [new(transaction, f"turn-{i}") for i, transaction in enumerate(transactions[:6])]
    refused_there, refused_here = good[2] | {"mcc": "12"}, good[4] | {"type": "gift"}

    answers = list(
        served.client.score_stream([good[:2], [good[2], refused_there], [good[3]], [refused_here], [good[5]]])
    )

    assert [2, ("mcc", 1), 1, ("type", 0), 1] == [
        (each.field, each.row) if isinstance(each, InvalidTransactionError) else len(each) for each in answers
    ]


def test_a_message_of_too_many_transactions_is_refused(served, transactions):
    with pytest.raises(InvalidTransactionError, match="transactions must be at most 500, were 501"):
        served.client.score_batch(transactions[:501])
    (answer,) = served.client.score_stream([transactions[:501]])
    assert "transactions" == answer.field


def test_a_message_larger_than_the_server_takes_is_refused_by_the_transport(served, transactions):
    large = [new(transactions[0], "l" * 100 + str(i)) | {"session_id": "s" * 100} for i in range(20_000)]

    with pytest.raises(ServiceError, match="RESOURCE_EXHAUSTED"):
        served.client.score_batch(large)


def test_a_large_message_within_the_bounds_is_answered(served, transactions):
    large = [
        new(each, f"large-{'x' * 100}-{i}") | {"session_id": "s" * 128} for i, each in enumerate(transactions[:500])
    ]

    assert [each["transaction_id"] for each in large] == [
        each.transaction_id for each in served.client.score_batch(large)
    ]


def test_a_method_that_there_is_not_is_said_to_be_unimplemented(served):
    unknown = served.channel.unary_unary("/fraudsdk.v1.ScoringService/Nothing")

    assert grpc.StatusCode.UNIMPLEMENTED is status_of(lambda: unknown(b""))[0]


def test_bytes_that_are_no_message_are_refused(served):
    raw = served.channel.unary_unary("/fraudsdk.v1.ScoringService/Score")
    before = served.scorer.counters()["events"]

    code, _, error = status_of(lambda: raw(b"\xff" * 40))

    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
    assert "Traceback" not in error.details()
    assert before == served.scorer.counters()["events"]


def test_a_card_number_is_tokenised_and_in_no_answer(served, transactions):
    sent = {name: value for name, value in new(transactions[6], "pan").items() if name != "card_id"} | {"pan": PAN}

    decision = served.client.score(sent)
    code, status, error = status_of(
        lambda: served.stub.Score(pb.ScoreRequest(transaction=message_of(sent | {"user_id": PAN})))
    )

    assert served.twin.score(sent) == decision
    assert grpc.StatusCode.INVALID_ARGUMENT is code
    assert PAN not in f"{decision}{status}{error}" and PAN[:8] not in f"{decision}{status}{error}"


def test_what_cannot_be_explained_is_a_matter_of_its_state(served, transactions, hash_key, tmp_path):
    (tmp_path / "features.toml").write_text(reference_feature_set("EUR").to_toml(), encoding="utf-8")
    without_model = Served(ScorerConfig(model=None, features=tmp_path / "features.toml", hash_key=hash_key))
    try:
        with pytest.raises(ModelError):
            without_model.client.explain(transactions[0])
        with pytest.raises(ModelError, match="there is no model"):
            without_model.client.features()
        assert ("none", {}) == (without_model.client.model_info().version, without_model.client.model_info().details)
        answer = without_model.stub.Score(pb.ScoreRequest(transaction=message_of(transactions[0]))).decision
        assert (decision_pb2.RUNG_RULES_ONLY, False, False) == (
            answer.rung, answer.HasField("score"), answer.HasField("margin"),
        )  # fmt: skip
        without_model.twin.score(transactions[0])
        assert without_model.twin.score(transactions[1]) == without_model.client.score(transactions[1])
    finally:
        without_model.close()


# --- failures, deadlines, cancellation -------------------------------------------------------------------------------------------


def test_what_cannot_be_kept_now_may_be_said_again_later(alone, transactions):
    alone.scorer.failure = StateUnavailableError("the log is full; say it again later")

    code, status, _ = status_of(lambda: alone.stub.Score(pb.ScoreRequest(transaction=message_of(transactions[0]))))

    assert grpc.StatusCode.UNAVAILABLE is code
    assert unpacked(status, error_details_pb2.RetryInfo()).retry_delay.nanos > 0
    with pytest.raises(StateUnavailableError, match="the log is full"):
        alone.client.score(transactions[0])
    assert 1 + 3 == len(alone.scorer.deadlines)


def test_our_own_failure_says_nothing_of_its_cause(alone, transactions, caplog):
    alone.scorer.failure = RuntimeError(f"cannot parse {PAN}")

    code, status, error = status_of(lambda: alone.stub.Score(pb.ScoreRequest(transaction=message_of(transactions[0]))))

    assert grpc.StatusCode.INTERNAL is code
    assert PAN not in f"{status}{error}{caplog.text}"
    assert "Score failed: RuntimeError" in caplog.text


def test_the_deadline_of_the_call_is_the_scorer_s_with_something_left_for_the_way_back(alone, transactions):
    alone.client.score(transactions[0], timeout_s=60)
    alone.stub.Score(pb.ScoreRequest(transaction=message_of(transactions[1])))

    given_time, no_time = alone.scorer.deadlines
    assert 0 < given_time.remaining_s() < 61  # on its way it is rounded up to three digits
    assert no_time is None


def test_a_millisecond_gives_a_decision_or_a_deadline_and_counts_once(served, transactions):
    """
    Whatever comes of it, nothing hangs, and the same transaction again is one transaction.
    """
    sent = [new(transaction, f"hasty-{i}") for i, transaction in enumerate(transactions[:100])]
    before = served.scorer.counters()["events"]
    answered = []
    for transaction in sent:
        try:
            answered.append(served.client.score(transaction, timeout_s=0.001))
        except DeadlineExceededError:
            answered.append(None)
    again = [served.client.score(transaction) for transaction in sent]

    answered_twice = [(one, two) for one, two in zip(answered, again, strict=True) if one is not None]
    assert all(two.duplicate and one.outcome is two.outcome for one, two in answered_twice)
    assert before + 100 == served.scorer.counters()["events"]


def test_a_call_whose_caller_is_gone_is_not_begun(alone, transactions):
    """
    Cancelled, or past its deadline, while another call holds the only thread.
    """
    alone.scorer.gate.clear()
    held = alone.stub.Score.future(pb.ScoreRequest(transaction=message_of(new(transactions[0], "held"))))
    assert alone.scorer.entered.wait(20)
    cancelled = alone.stub.Score.future(pb.ScoreRequest(transaction=message_of(new(transactions[1], "cancelled"))))
    batch = alone.stub.ScoreBatch.future(pb.ScoreBatchRequest(transactions=[message_of(new(transactions[2], "batch"))]))
    late = alone.stub.Score.future(pb.ScoreRequest(transaction=message_of(new(transactions[3], "late"))), timeout=0.2)
    assert cancelled.cancel() and batch.cancel()
    assert grpc.StatusCode.DEADLINE_EXCEEDED is late.code()
    time.sleep(0.1)  # for the server to hear of it
    alone.scorer.gate.set()

    assert "held" == held.result(20).decision.transaction_id
    assert "next" == alone.client.score(new(transactions[4], "next")).transaction_id
    assert 2 == alone.scorer.counters()["events"]


def test_work_on_a_message_ends_when_its_caller_is_gone(alone, transactions):
    """
    Between parts of it: what was decided until then is remembered, and the rest is not looked at.
    """
    alone.scorer.gate.clear()
    batch = [message_of(new(each, f"part-{i}")) for i, each in enumerate(transactions[:500])]
    call = alone.stub.ScoreBatch.future(pb.ScoreBatchRequest(transactions=batch))
    assert alone.scorer.entered.wait(20)
    assert call.cancel()
    time.sleep(0.1)  # for the server to hear of it
    alone.scorer.gate.set()

    assert "next" == alone.client.score(new(transactions[500], "next")).transaction_id
    assert 0 < alone.scorer.counters()["events"] - 1 < 500


def test_a_deadline_within_a_message_leaves_the_rest_to_a_person(alone, transactions, monkeypatch):
    clock = ManualClock()
    monkeypatch.setattr(scoring, "_deadline_of", lambda context, more_us: Deadline.after_us(more_us, clock=clock))
    alone.scorer.gate.clear()
    batch = [message_of(new(each, f"part-{i}")) for i, each in enumerate(transactions[:500])]
    call = alone.stub.ScoreBatch.future(pb.ScoreBatchRequest(transactions=batch), timeout=20)
    assert alone.scorer.entered.wait(20)
    clock.advance_us(10_000)
    alone.scorer.gate.set()
    decisions = call.result(20).decisions

    rungs = [each.rung for each in decisions]
    n_full = rungs.index(decision_pb2.RUNG_DEFAULT)
    assert alone.scorer.counters()["events"] == n_full > 0
    assert [decision_pb2.RUNG_DEFAULT] * (500 - n_full) == rungs[n_full:]
    assert all(each.degraded_because.startswith("deadline: ") for each in decisions[n_full:])


def test_a_stream_that_is_cancelled_frees_its_thread(alone, transactions):
    def endless():
        for i in count():
            yield pb.ScoreStreamRequest(transactions=[message_of(new(transactions[0], f"endless-{i}"))])

    call = alone.stub.ScoreStream(endless())
    next(call)
    call.cancel()

    assert "free" == alone.client.score(new(transactions[1], "free")).transaction_id


def test_whoever_does_not_read_the_answers_is_made_to_wait(served, transactions):
    """
    The transport's flow control is the stream's: nothing piles up on either side.
    """
    messages, stop = count(), threading.Event()
    sent = 0

    def requests():
        nonlocal sent
        for i in messages:
            if stop.is_set():
                return
            sent += 1
            yield pb.ScoreStreamRequest(
                transactions=[message_of(new(each, f"flow-{i}-{j}")) for j, each in enumerate(transactions[:400])]
            )

    call = served.stub.ScoreStream(requests())
    next(call)
    seen = -1
    deadline = time.monotonic() + 20
    while seen != sent and time.monotonic() < deadline:
        seen = sent
        time.sleep(0.5)
    stop.set()
    call.cancel()

    assert seen == sent < 100


def test_the_transactions_of_a_user_are_decided_in_the_order_in_which_they_were_sent(served, transactions):
    """
    The n-th purchase of a card sees n - 1 others, message by message and within one.
    """
    first = new(transactions[7], "order") | {"user_id": "ordered", "card_id": "ordered", "type": "authorisation"}
    sent = [
        first | {"transaction_id": f"order-{i}", "event_time_us": first["event_time_us"] + i * 1_000_000}
        for i in range(60)
    ]

    decided = [
        each for answer in served.client.score_stream([sent[i : i + 7] for i in range(0, 60, 7)]) for each in answer
    ]

    assert [each["transaction_id"] for each in sent] == [each.transaction_id for each in decided]
    assert [served.twin.score(each).margin for each in sent] == [each.margin for each in decided]


def test_reasons_that_cannot_be_had_leave_a_rung_without_them(artefact, hash_key, transactions, tmp_path):
    class NoExplainer:
        def contributions(self, rows):
            raise DeadlineExceededError("no time for that")

    (tmp_path / "policy.toml").write_text(PolicySpec(bands=ScoreBands(review=0.0)).to_toml(), encoding="utf-8")
    config = ScorerConfig(model=artefact, hash_key=hash_key, policy=tmp_path / "policy.toml")
    with Scorer.open(config, explainer=NoExplainer()) as scorer:
        server = grpc.server(ThreadPoolExecutor(2))
        ScoringService(scorer).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            request = pb.ScoreRequest(transaction=message_of(transactions[0]))
            answer = ScoringServiceStub(channel).Score(request).decision
        server.stop(None).wait()

    assert (decision_pb2.RUNG_WITHOUT_REASONS, True) == (answer.rung, answer.HasField("score"))
    assert answer.degraded_because.startswith("explanation: ")


# --- the client -----------------------------------------------------------------------------------------------------------------


def test_a_service_that_comes_late_is_waited_for_within_the_deadline(config, transactions):
    port = free_port()
    with (
        ScoringClient(f"127.0.0.1:{port}", timeout_s=20, max_attempts=1_000) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        waiting = threads.submit(client.score, transactions[0])
        time.sleep(0.2)
        assert not waiting.done()
        late = Served(config, f"127.0.0.1:{port}")
        try:
            assert transactions[0]["transaction_id"] == waiting.result(20).transaction_id
            assert 1 == late.scorer.counters()["events"]
        finally:
            late.close()


class Cancels(grpc.ServerInterceptor):
    """Cancels so many calls that nobody asked to cancel, as a server does that stops."""

    def __init__(self, times):
        self.left = times

    def intercept_service(self, continuation, details):
        if self.left == 0:
            return continuation(details)
        self.left -= 1
        return grpc.unary_unary_rpc_method_handler(lambda _, context: context.abort(grpc.StatusCode.CANCELLED, "stops"))


def test_a_cancellation_that_nobody_asked_for_is_made_up_for(config, transactions):
    served = Served(config, interceptors=[Cancels(2)])
    try:
        assert "again" == served.client.score(new(transactions[0], "again")).transaction_id
        assert 1 == served.scorer.counters()["events"]
    finally:
        served.close()


def test_cancellations_without_end_are_a_service_that_is_not_there(config, transactions):
    served = Served(config, interceptors=[Cancels(-1)])
    try:
        with pytest.raises(ServiceUnavailableError, match="CANCELLED"):
            served.client.score(transactions[0])
    finally:
        served.close()


def test_a_call_under_a_client_that_is_closed_is_not_made_again(alone, transactions):
    alone.scorer.gate.clear()
    with ThreadPoolExecutor(1) as caller:
        call = caller.submit(alone.client.score, new(transactions[0], "closed"))
        assert alone.scorer.entered.wait(20)
        alone.client.close()
        with pytest.raises(ServiceUnavailableError, match="CANCELLED"):
            call.result(20)
    alone.scorer.gate.set()

    assert 1 == len(alone.scorer.deadlines)


def test_a_service_that_is_not_there_is_unavailable(transactions):
    with ScoringClient(f"127.0.0.1:{free_port()}", timeout_s=5) as client, pytest.raises(ServiceUnavailableError):
        client.score(transactions[0])


def test_a_service_that_does_not_answer_costs_the_deadline_and_no_more(alone, transactions):
    alone.scorer.gate.clear()

    with pytest.raises(DeadlineExceededError, match="did not answer in time"):
        alone.client.score(transactions[0], timeout_s=0.05)


def test_batches_of_many_threads_are_what_they_would_be_one_by_one(served, transactions):
    sent = [new(each, f"many-{i}") for i, each in enumerate(transactions[:300])]
    with served.client.batcher(max_batch=50) as batcher, ThreadPoolExecutor(8) as threads:
        decided = list(threads.map(lambda each: batcher.submit(each).result(20), sent))

    assert [each["transaction_id"] for each in sent] == [each.transaction_id for each in decided]
    assert not any(each.duplicate for each in decided)


class Guard(grpc.ServerInterceptor):
    """Lets nobody in without its token."""

    def intercept_service(self, continuation, details):
        if ("authorization", "Bearer let me in") in details.invocation_metadata:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "not allowed")
        )


def test_a_token_goes_with_every_call(config, transactions):
    guarded = Served(config, interceptors=[Guard()])
    try:
        with ScoringClient(guarded.target, token=lambda: "let me in") as client:
            assert transactions[0]["transaction_id"] == client.score(transactions[0]).transaction_id
            assert [1] == [len(each) for each in client.score_stream([transactions[1:2]])]
        with (
            ScoringClient(guarded.target, token="let me out") as client,
            pytest.raises(NotAllowedError, match="UNAUTH"),
        ):
            client.score(transactions[0])
    finally:
        guarded.close()


def test_unknown_fields_of_a_later_contract_are_passed_over(served, transactions):
    known = message_of(new(transactions[8], "later"))
    later = transaction_pb2.Transaction.FromString(known.SerializeToString() + b"\xfa\x3f\x03new")

    assert "later" == served.stub.Score(pb.ScoreRequest(transaction=later)).decision.transaction_id


def test_a_server_that_stops_ends_calls_with_something_to_retry(config, transactions):
    stopped = Served(config)
    stopped.server.stop(None).wait()

    with ScoringClient(stopped.target, max_attempts=1) as client, pytest.raises(ServiceUnavailableError):
        client.score(transactions[0])
    stopped.close()


def test_rules_that_read_the_transaction_read_it_of_bytes_too(artefact, hash_key, transactions, tmp_path):
    """
    Most policies need a transaction's id alone; one with rules asks for what was sent.
    """
    rules = (Rule("large", 'amount >= 50 and channel == "pos"', Outcome.STEP_UP, reason="RUL01"),)
    (tmp_path / "policy.toml").write_text(PolicySpec(rules=rules).to_toml(), encoding="utf-8")
    ruled = Served(ScorerConfig(model=artefact, hash_key=hash_key, policy=tmp_path / "policy.toml"))
    try:
        decided = ruled.client.score_batch(transactions[:400])

        assert list(ruled.twin.score_batch(transactions[:400])) == decided
        assert {"rule:large", "band"} <= {each.decided_by for each in decided}
    finally:
        ruled.close()


# --- certificates ---------------------------------------------------------------------------------------------------------------


def certificate(directory, name, issuer=None):
    """A key and a certificate for localhost, PEM, signed by an issuer or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key if issuer is None else issuer[1], hashes.SHA256())
    )
    paths = directory / f"{name}.pem", directory / f"{name}.key"
    paths[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return signed, key, *paths


@pytest.mark.parametrize("client_has_one", [True, False])
def test_both_sides_show_a_certificate_where_the_service_asks_for_it(config, transactions, tmp_path, client_has_one):
    authority = certificate(tmp_path, "authority")
    server, client = certificate(tmp_path, "server", authority), certificate(tmp_path, "client", authority)
    credentials = grpc.ssl_server_credentials(
        [(server[3].read_bytes(), server[2].read_bytes())], authority[2].read_bytes(), require_client_auth=True
    )
    with Scorer.open(config) as scorer:
        service = grpc.server(ThreadPoolExecutor(2))
        ScoringService(scorer).add_to(service)
        port = service.add_secure_port("localhost:0", credentials)
        service.start()
        own = {"certificate": client[2], "key": client[3]} if client_has_one else {}
        tls = ClientTls(authority[2], **own)
        with ScoringClient(f"localhost:{port}", tls=tls, token="shown", timeout_s=20, max_attempts=1) as asking:
            if client_has_one:
                assert transactions[0]["transaction_id"] == asking.score(transactions[0]).transaction_id
            else:
                with pytest.raises(ServiceUnavailableError):
                    asking.score(transactions[0])
        service.stop(None).wait()


def test_a_service_that_a_client_does_not_know_is_not_asked(config, transactions, tmp_path):
    server, another = certificate(tmp_path, "server"), certificate(tmp_path, "another")
    with Scorer.open(config) as scorer:
        service = grpc.server(ThreadPoolExecutor(2))
        ScoringService(scorer).add_to(service)
        keys = [(server[3].read_bytes(), server[2].read_bytes())]
        port = service.add_secure_port("localhost:0", grpc.ssl_server_credentials(keys))
        service.start()
        with (
            ScoringClient(f"localhost:{port}", tls=ClientTls(another[2]), max_attempts=1) as asking,
            pytest.raises(ServiceUnavailableError),
        ):
            asking.score(transactions[0])
        with ScoringClient(f"localhost:{port}", tls=ClientTls(server[2]), timeout_s=20) as asking:
            assert transactions[0]["transaction_id"] == asking.score(transactions[0]).transaction_id
        service.stop(None).wait()
        assert 1 == scorer.counters()["events"]
