"""`Scorer`: every transaction gets a decision, counted once, whatever breaks."""

from __future__ import annotations

import contextlib
import math
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from fraudsdk import InvalidTransactionError, Outcome, Scorer, ScorerConfig, Transaction
from fraudsdk.errors import ConfigurationError, ModelError, ModelNotFoundError, SchemaMismatchError, SinkDeliveryError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.sinks import BackgroundSink, MemorySink, WhenFull
from fraudsdk.telemetry.clock import Deadline
from fraudsdk.testing.clock import ManualClock
from fraudsdk.testing.contracts import RefusingSink

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PAN = "4111111111111111"


def purchase(number: int, **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": "u-1",
        "card_id": "c-1",
        "merchant_id": "m-1",
        "amount": "12.50",
        "currency": "EUR",
        "event_time": NOON + timedelta(minutes=number),
        **fields,
    }


@pytest.fixture
def scorer(artefact, hash_key):
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        yield scorer


def feature(scorer, transaction, name):
    return next(f.value for f in scorer.explain(transaction).features if f.name == name)


def state_of(scorer):
    memory = scorer._engine.memory
    return [a.tobytes() for a in (memory.pool[: memory.meta[0]], memory.table, memory.meta, memory.journal[:1000])]


def with_another(scorer, **parts):
    """Put something in the place of the model, its policy or its explainer; returns what was there."""
    before, scorer._judge = scorer._judge, replace(scorer._judge, **parts)
    return before


class BrokenModel:
    """A model whose native code fails."""

    version = "broken/1"
    native = None

    def margin(self, row):
        raise OSError("the library is gone; path and card 4111111111111111 are nobody's business")


def test_the_required_fields_alone_are_decided_on(scorer):
    decision = scorer.score(
        {"transaction_id": "t-1", "card_id": "c-9", "amount": "12.50", "event_time": "2026-03-02T12:00:00Z"}
    )

    assert isinstance(decision.outcome, Outcome)
    assert 0.0 <= decision.score <= 1.0
    assert "small/1" == decision.model_version
    assert not decision.degraded


def test_a_duplicate_gets_the_recorded_decision_and_counts_once(scorer):
    first = scorer.score(purchase(1))

    again = scorer.score(purchase(1, amount="9999.00"))

    assert again.duplicate and not first.duplicate
    assert (first.outcome, first.score, first.margin) == (again.outcome, again.score, again.margin)
    assert [r.code for r in first.reasons] == [r.code for r in again.reasons]
    assert (first.decided_by, first.model_version) == (again.decided_by, again.model_version)
    assert 1.0 + 1.0 == feature(scorer, purchase(2), "user_count_1h")
    assert 1 == scorer.counters()["duplicates"]


def test_what_if_leaves_the_memory_as_it_was(scorer):
    scorer.score(purchase(1))
    before = state_of(scorer)

    asked = scorer.score(purchase(2), record=False)

    assert before == state_of(scorer)
    assert asked == scorer.score(purchase(2))


def test_a_wrong_transaction_raises_and_nothing_is_remembered(scorer):
    before = state_of(scorer)

    with pytest.raises(InvalidTransactionError, match="amount"):
        scorer.score(purchase(1, amount="-1"))

    assert before == state_of(scorer)


def test_an_event_from_the_future_is_refused_before_it_can_move_a_window(artefact):
    clock = ManualClock(now_us=int(NOON.timestamp() * 1e6))
    with Scorer.open(artefact, clock=clock) as scorer:
        before = state_of(scorer)

        with pytest.raises(InvalidTransactionError, match=r"event_time .* future"):
            scorer.score(purchase(6))

        assert before == state_of(scorer)
        assert not scorer.score(purchase(4)).degraded


def test_a_jump_of_the_wall_clock_changes_no_window(artefact, hash_key):
    clock = ManualClock(now_us=int(NOON.timestamp() * 1e6) + 86_400_000_000)
    config = ScorerConfig(model=artefact, hash_key=hash_key)
    with Scorer.open(config, clock=clock) as jumped, Scorer.open(config) as steady:
        for number in range(5):
            clock.jump_wall_us(3_600_000_000 if number % 2 else -3_600_000_000)

            assert steady.score(purchase(number)) == jumped.score(purchase(number))


def test_without_a_model_the_fallback_decides_and_says_so(tmp_path):
    features = tmp_path / "features.toml"
    features.write_text(reference_feature_set("EUR").to_toml())
    with Scorer.open(ScorerConfig(model=None, features=features)) as scorer:
        decision = scorer.score(purchase(1))

    assert decision.degraded
    assert "fallback" == decision.decided_by
    assert "model: none is loaded" == decision.degraded_because
    assert np.isnan(decision.score)


def test_a_failing_model_gives_a_degraded_decision_without_foreign_words(scorer):
    with_another(scorer, model=BrokenModel())

    decision = scorer.score(purchase(1, pan=PAN, card_id=None))

    assert decision.degraded
    assert "fallback" == decision.decided_by
    assert "model: OSError" == decision.degraded_because
    assert 1 == scorer.counters()["degraded"]


def test_a_failing_memory_gives_a_degraded_decision(scorer):
    scorer._context = None

    decision = scorer.score(purchase(1))

    assert decision.degraded
    assert decision.degraded_because.startswith("features: ")


def test_a_passed_deadline_gives_the_fallback_and_the_event_still_counts(scorer):
    clock = ManualClock()

    decision = scorer.score(purchase(1), deadline=Deadline.after_us(0, clock=clock))

    assert decision.degraded
    assert decision.degraded_because.startswith("deadline")
    assert 2.0 == feature(scorer, purchase(2), "user_count_1h")


def test_a_deadline_in_time_changes_nothing(scorer):
    assert not scorer.score(purchase(1), deadline=Deadline.after_us(60_000_000)).degraded


def test_the_rest_of_a_batch_that_nobody_waits_for_is_not_looked_at_and_says_so(artefact, hash_key):
    """
    What was decided until then is what it would have been, and the rest counts when it is sent again.
    """
    sink, batch = MemorySink(), [purchase(number) for number in range(1_000)]
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key), sink=sink) as scorer:
        cut = scorer.score_batch(batch, goes_on=iter([True, True, False]).__next__)
        remembered, degraded, told = scorer.counters()["events"], scorer.counters()["degraded"], list(sink.decisions)
        again = scorer.score_batch(batch)
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as twin:
        whole = twin.score_batch(batch)

    assert 0 < remembered < len(batch) == len(cut)
    assert told == list(cut)
    assert list(whole[:remembered]) == list(cut[:remembered])
    left = cut[remembered:]
    assert len(left) == degraded
    assert {(Outcome.REVIEW, "fallback", True)} == {(each.outcome, each.decided_by, each.degraded) for each in left}
    assert all("not remembered" in each.degraded_because and math.isnan(each.score) for each in left)
    assert [purchase(number)["transaction_id"] for number in range(1_000)] == [each.transaction_id for each in cut]
    assert list(whole[remembered:]) == list(again[remembered:])
    assert all(each.duplicate for each in again[:remembered])


def test_a_wrong_transaction_refuses_a_batch_that_nobody_waits_for(scorer):
    with pytest.raises(InvalidTransactionError, match="in row 1"):
        scorer.score_batch([purchase(1), purchase(2, mcc="12")], goes_on=lambda: False)


def test_a_reversal_takes_its_original_out_of_the_velocity(scorer):
    scorer.score(purchase(1))
    scorer.score(purchase(2))

    decision = scorer.score(purchase(3, type="reversal", original_transaction_id="t-2"))

    assert ("lifecycle", Outcome.APPROVE, False) == (decision.decided_by, decision.outcome, decision.degraded)
    assert 2.0 == feature(scorer, purchase(4), "user_count_1h")


def test_a_partial_reversal_takes_its_amount_out(scorer):
    scorer.score(purchase(1))

    scorer.score(purchase(2, type="reversal", original_transaction_id="t-1", amount="2.50"))

    assert 10.0 + 12.5 == feature(scorer, purchase(3), "user_amount_1h")


def test_a_label_counts_in_the_fraud_rate_from_when_it_is_told(scorer):
    scorer.score(purchase(1))
    later = purchase(2, event_time=NOON + timedelta(days=8))
    assert 0.0 == feature(scorer, later, "merchant_fraud_rate_7d")

    assert scorer.feedback("t-1", is_fraud=True)

    assert 1.0 == feature(scorer, later, "merchant_fraud_rate_7d")
    assert scorer.feedback("t-1", is_fraud=False)
    assert 0.0 == feature(scorer, later, "merchant_fraud_rate_7d")


def test_a_chargeback_is_a_label(scorer):
    scorer.score(purchase(1))

    scorer.score(purchase(2, type="chargeback", original_transaction_id="t-1", event_time=NOON + timedelta(days=3)))

    assert 1.0 == feature(scorer, purchase(3, event_time=NOON + timedelta(days=8)), "merchant_fraud_rate_7d")


def test_the_hosts_own_answer_counts_as_a_declined_attempt(scorer):
    scorer.score(purchase(1))
    assert 0.0 == feature(scorer, purchase(2), "user_declined_1h")

    assert scorer.feedback("t-1", declined=True)

    assert 1.0 == feature(scorer, purchase(2), "user_declined_1h")


def test_feedback_on_a_forgotten_transaction_says_so(scorer):
    assert not scorer.feedback("t-never", is_fraud=True)
    assert 1 == scorer.counters()["labels_for_forgotten_transactions"]


def test_a_batch_is_decided_as_one_by_one(simulated, artefact, hash_key):
    transactions = simulated.transactions(*range(1_500))
    config = ScorerConfig(model=artefact, hash_key=hash_key)
    with Scorer.open(config) as batch, Scorer.open(config) as single:
        expected = [single.score(transaction) for transaction in transactions]

        assert [repr(d) for d in expected] == [repr(d) for d in batch.score_batch(transactions)]


def test_an_arrow_table_is_a_batch(scorer):
    rows = [purchase(number) for number in range(3)]

    decisions = scorer.score_batch(pa.Table.from_pylist(rows))

    assert ["t-0", "t-1", "t-2"] == [d.transaction_id for d in decisions]
    assert scorer.score_batch(pa.RecordBatch.from_pylist(rows))[0].duplicate


def test_a_bad_row_of_a_batch_is_named_and_nothing_of_the_batch_is_remembered(scorer):
    before = state_of(scorer)

    with pytest.raises(InvalidTransactionError, match="row 1") as raised:
        scorer.score_batch([purchase(0), purchase(1, amount="12.505"), purchase(2)])

    assert 1 == raised.value.row
    assert before == state_of(scorer)


@pytest.mark.parametrize("table", ["a name", {"transaction_id": "t-1"}, 7])
def test_what_is_no_table_is_refused(scorer, table):
    with pytest.raises(InvalidTransactionError, match="Arrow table"):
        scorer.score_batch(table)


def test_an_explanation_adds_up_to_the_margin_and_names_ages(scorer):
    scorer.score(purchase(1))

    explanation = scorer.explain(purchase(31))

    total = explanation.base_margin + sum(f.contribution for f in explanation.features)
    assert explanation.margin == pytest.approx(total, rel=1e-5, abs=1e-5)
    count = next(f for f in explanation.features if f.name == "user_count_1h")
    assert ("user", True, 30 * 60_000_000, True) == (count.entity, count.known, count.age_us, count.exact)
    assert scorer.score(purchase(31)).margin == explanation.margin


def test_nothing_to_explain_with_is_said_plainly(tmp_path):
    features = tmp_path / "features.toml"
    features.write_text(reference_feature_set("EUR").to_toml())
    with Scorer.open(ScorerConfig(model=None, features=features)) as scorer, pytest.raises(ModelError, match="explain"):
        scorer.explain(purchase(1))


def test_decisions_that_are_no_approvals_carry_reasons(simulated, artefact, hash_key):
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        decisions = scorer.score_batch(simulated.transactions())
    refused = [d for d in decisions if d.outcome is not Outcome.APPROVE]

    assert len(refused) > 50
    assert all(1 <= len(d.reasons) <= 4 for d in refused)
    assert all(r.text and r.customer_text for d in refused for r in d.reasons)
    assert not any(d.degraded for d in refused)


def test_sixteen_threads_get_what_one_would(simulated, artefact, hash_key):
    """
    Each thread plays the life of its own users, so that every order of the threads must give the same answers.
    """
    lives: dict[int, list] = {}
    for transaction in simulated.transactions(*range(6_000)):
        transaction.pop("merchant_id", None), transaction.pop("mcc", None), transaction.pop("ip", None)
        transaction.pop("device_id", None), transaction.pop("counterparty_id", None)
        lives.setdefault(hash(transaction["user_id"]) % 16, []).append(transaction)
    config = ScorerConfig(model=artefact, hash_key=hash_key)
    with Scorer.open(config) as single:
        expected = {k: [repr(single.score(t)) for t in life] for k, life in lives.items()}
    answers: dict[int, list[str]] = {}
    with Scorer.open(config) as shared:

        def live(k: int) -> None:
            answers[k] = [repr(shared.score(t)) for t in lives[k]]

        threads = [threading.Thread(target=live, args=(k,)) for k in lives]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert expected == answers


def test_sixteen_threads_asking_what_if_agree(scorer, simulated):
    scorer.score_batch(simulated.transactions(*range(2_000)))
    asked = simulated.transactions(*range(2_000, 2_050))
    expected = [repr(scorer.score(t, record=False)) for t in asked]
    answers: list[list[str]] = []

    def ask() -> None:
        answers.append([repr(scorer.score(t, record=False)) for t in asked])

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [expected] * 16 == answers


def test_the_sink_is_told_of_every_decision(artefact, hash_key):
    sink = MemorySink(capacity=10)
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key), sink=sink) as scorer:
        decision = scorer.score(purchase(1))
        scorer.score(purchase(2), record=False)

    assert [decision] == list(sink.decisions)


def test_a_sink_that_refuses_is_counted_and_the_decision_stands(artefact):
    with Scorer.open(artefact, sink=RefusingSink(MemorySink(capacity=1), 1)) as scorer:
        decision = scorer.score(purchase(1))

        assert not decision.degraded
        assert 1 == scorer.counters()["sink_refused"]


def test_after_opening_no_kernel_compiles_again(scorer):
    """
    A new signature would cost one customer hundreds of milliseconds; it is a `TypeError` instead.
    """
    from fraudsdk.features import kernels

    with pytest.raises(TypeError, match="int64"):
        kernels.score_one(np.zeros(1, np.int32), 1)


def test_other_features_than_the_models_are_refused(artefact, tmp_path):
    features = tmp_path / "features.toml"
    features.write_text(reference_feature_set("EUR").without("user_count_1m").to_toml())

    with pytest.raises(SchemaMismatchError, match=r"first difference at column .*user_count_1m"):
        Scorer.open(ScorerConfig(model=artefact, features=features))


def test_no_model_at_a_path_is_said(tmp_path):
    with pytest.raises(ModelNotFoundError):
        Scorer.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": None}, "features"),
        ({"model": "m", "hash_key": b"short"}, "16 bytes"),
        ({"model": "m", "future_skew_us": -1}, "future_skew_us"),
        ({"model": "m", "future_skew_us": "5"}, "whole number"),
        ({"model": "m", "max_entities": "5"}, "max_entities"),
        ({"model": "m", "journal_capacity": 10**12}, "journal_capacity"),
        ({"model": 5}, "model must be a path"),
    ],
)
def test_a_wrong_configuration_is_refused_when_it_is_made(values, words):
    with pytest.raises(ConfigurationError, match=words):
        ScorerConfig(**values)


def test_a_card_number_is_nowhere(artefact):
    """
    Neither in what is remembered, nor in a decision, nor in an error.
    """
    sink = MemorySink(capacity=10)
    with Scorer.open(artefact, sink=sink) as scorer:
        decision = scorer.score(purchase(1, pan=PAN, card_id=None))
        with pytest.raises(InvalidTransactionError) as raised:
            scorer.score(purchase(2, user_id=PAN))
        seen = [repr(decision), repr(raised.value), str(raised.value), repr(vars(scorer._encoder))]
        memory = scorer._engine.memory
        remembered = memory.pool[: memory.meta[0]].tobytes() + memory.journal[:10].tobytes()

    assert not any(PAN in text for text in seen)
    assert PAN.encode() not in remembered
    assert int(PAN) not in np.frombuffer(remembered, dtype=np.int64)


def test_an_amount_too_large_in_the_reference_currency_spoils_no_batch(artefact):
    with Scorer.open(ScorerConfig(model=artefact, rates={"USD": "1000000000000"})) as scorer:
        before = state_of(scorer)

        with pytest.raises(InvalidTransactionError, match=r"amount .* row 1"):
            scorer.score_batch([purchase(0), purchase(1, currency="USD", amount="99999")])

        assert before == state_of(scorer)


class SlowModel:
    """A model that answers when it is told to."""

    version = "slow/1"
    native = None

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def margin(self, row):
        self.asked.set()
        assert self.go.wait(10)
        return 20.0


class CrashingSink(MemorySink):
    """A sink whose client library fails in its own words."""

    def write(self, decisions):
        raise ConnectionError("broken pipe")


class FlushedSink(MemorySink):
    """A sink that says in which order it was flushed and closed."""

    def __init__(self) -> None:
        super().__init__(capacity=10)
        self.calls: list[str] = []

    def flush(self, deadline):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


def test_a_what_if_about_a_decided_transaction_leaves_its_record_alone(scorer):
    first = scorer.score(purchase(1))

    scorer.score(purchase(1, amount="9999.00"), record=False)
    scorer.score(purchase(1), record=False, deadline=Deadline.after_us(0))

    assert (first.outcome, first.score) == (scorer.score(purchase(1)).outcome, scorer.score(purchase(1)).score)


def test_a_retry_after_a_failed_stage_gets_the_same_answer(scorer):
    sound = with_another(scorer, model=BrokenModel())
    first = scorer.score(purchase(1))
    scorer._judge = sound

    again = scorer.score(purchase(1))

    assert again.duplicate and again.degraded
    assert (first.outcome, first.decided_by) == (again.outcome, again.decided_by)


def test_a_duplicate_waits_for_the_decision_under_way(scorer):
    slow = SlowModel()
    with_another(scorer, model=slow)
    answers = []
    first = threading.Thread(target=lambda: answers.append(scorer.score(purchase(1))))
    first.start()
    assert slow.asked.wait(10)
    second = threading.Thread(
        target=lambda: answers.append(scorer.score(purchase(1), deadline=Deadline.after_us(20_000_000)))
    )
    second.start()
    slow.go.set()
    first.join()
    second.join()

    assert {False, True} == {decision.duplicate for decision in answers}
    assert {20.0} == {decision.margin for decision in answers}
    assert 1 == len({decision.outcome for decision in answers})


def test_a_verdict_is_not_written_over_another_transactions(artefact, hash_key):
    """
    With a journal of two, the row of a slow decision is another's by the time it is made.
    """
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key, journal_capacity=2)) as scorer:
        sound, slow = scorer._judge, SlowModel()
        with_another(scorer, model=slow)
        first = threading.Thread(target=lambda: scorer.score(purchase(1)))
        first.start()
        assert slow.asked.wait(10)
        scorer._judge = sound
        scorer.score(purchase(2))
        third = scorer.score(purchase(3))
        slow.go.set()
        first.join()

        assert (third.outcome, third.score) == (scorer.score(purchase(3)).outcome, scorer.score(purchase(3)).score)


def test_a_retried_reversal_is_a_duplicate_of_itself(scorer):
    scorer.score(purchase(1))
    reversal = purchase(2, type="reversal", original_transaction_id="t-1")
    scorer.score(reversal)

    again = scorer.score(reversal)

    assert ("lifecycle", Outcome.APPROVE, False, True) == (
        again.decided_by,
        again.outcome,
        again.degraded,
        again.duplicate,
    )


def test_a_reversal_of_an_amount_nobody_can_convert_undoes_nothing(scorer):
    scorer.score(purchase(1))

    scorer.score(purchase(2, type="reversal", original_transaction_id="t-1", currency="USD", amount="1.00"))

    assert 2.0 == feature(scorer, purchase(3), "user_count_1h")
    assert 1 == scorer.counters()["reversals_that_undid_nothing"]


def test_a_reversal_under_its_originals_id_is_refused(scorer):
    scorer.score(purchase(1))

    with pytest.raises(InvalidTransactionError, match="own id"):
        scorer.score(purchase(1, type="reversal", original_transaction_id="t-1"))


def test_a_sink_that_fails_in_its_own_words_is_counted_and_the_decision_stands(artefact):
    with Scorer.open(artefact, sink=CrashingSink(capacity=1)) as scorer:
        assert not scorer.score(purchase(1)).degraded
        assert 2 == len(scorer.score_batch([purchase(2), purchase(3)]))
        assert 3 == scorer.counters()["sink_refused"]


def test_closing_flushes_first(artefact):
    sink = FlushedSink()
    with Scorer.open(artefact, sink=sink):
        pass

    assert ["flush", "close"] == sink.calls


def test_a_batch_larger_than_the_queue_of_a_sink_arrives(artefact):
    delivered = MemorySink(capacity=1_000)
    sink = BackgroundSink(delivered, when_full=WhenFull.DROP_OLDEST, capacity=100)
    with Scorer.open(artefact, sink=sink) as scorer:
        scorer.score_batch([purchase(i) for i in range(300)])
        with contextlib.suppress(SinkDeliveryError):  # names what the full queue dropped
            sink.flush(Deadline.after_us(10_000_000))

        assert 0 == scorer.counters()["sink_refused"]
        assert 300 == len(delivered.decisions) + sink.n_dropped


def test_when_even_the_fallback_fails_there_is_a_decision(scorer):
    with_another(scorer, model=None, policy=SimpleNamespace(approves_below=-math.inf))  # it can do nothing

    decision = scorer.score(purchase(1))

    assert (Outcome.REVIEW, True, "fallback") == (decision.outcome, decision.degraded, decision.decided_by)
    assert "AttributeError" in decision.degraded_because


def test_a_decision_that_came_too_late_says_so(scorer):
    clock = ManualClock()
    slow = SlowModel()
    slow.go.set()
    slow.margin = lambda row: clock.advance_us(200) or -20.0
    with_another(scorer, model=slow)

    decision = scorer.score(purchase(1), deadline=Deadline.after_us(100, clock=clock))

    assert decision.degraded
    assert "deadline: passed while deciding" == decision.degraded_because


@pytest.mark.parametrize(
    ("transaction_id", "said", "words"),
    [
        ("t-1", {"is_fraud": "perhaps"}, "is_fraud"),
        ("t-1", {"is_fraud": [1]}, "is_fraud"),
        ("t-1", {}, "both missing"),
        ("", {"is_fraud": True}, "transaction_id"),
        (["t-1"], {"is_fraud": True}, "transaction_id"),
    ],
)
def test_feedback_is_checked_like_a_transaction(scorer, transaction_id, said, words):
    scorer.score(purchase(1))

    with pytest.raises(InvalidTransactionError, match=words):
        scorer.feedback(transaction_id, **said)

    assert 0 == scorer.counters()["labels"]


def test_feedback_reads_its_arguments_as_a_transaction_does(scorer):
    scorer.score(purchase(1))
    later = purchase(2, event_time=NOON + timedelta(days=8))

    assert scorer.feedback(" t-1 ", is_fraud="false")
    assert 0.0 == feature(scorer, later, "merchant_fraud_rate_7d")


def test_degraded_decisions_are_counted_whatever_degraded_them(artefact, hash_key, simulated):
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        with_another(scorer, explainer=None)
        decisions = scorer.score_batch(simulated.transactions(*range(3_000)))

        assert 0 < sum(d.degraded for d in decisions) == scorer.counters()["degraded"]


def test_a_recorded_transaction_is_not_explained_against_itself(scorer):
    scorer.score(purchase(1))

    with pytest.raises(InvalidTransactionError, match="recorded already"):
        scorer.explain(purchase(1))


def test_an_arrow_timestamp_without_a_zone_is_utc(scorer):
    zoned = [purchase(i) for i in range(3)]
    naive = [{**row, "event_time": row["event_time"].replace(tzinfo=None)} for row in zoned]

    scorer.score_batch(pa.Table.from_pylist(naive))

    assert 3.0 + 1.0 == feature(scorer, purchase(3), "user_count_1h")


def test_a_ready_made_transaction_is_checked_against_the_declared_custom_fields(scorer):
    made = Transaction("t-1", 1_772_452_800_000_000, 1250, user_id="u-1", custom={"points": "many"})

    with pytest.raises(InvalidTransactionError, match="points is no custom field"):
        scorer.score(made)


def test_a_ready_made_transaction_without_a_currency_is_in_the_reference_currency(scorer):
    made = Transaction("t-1", 1_772_452_800_000_000, 1250, user_id="u-1")
    mapped = {"transaction_id": "t-1", "user_id": "u-1", "amount": "12.50", "event_time_us": 1_772_452_800_000_000}

    assert scorer.score(mapped, record=False) == scorer.score(made, record=False)


def test_every_stage_is_timed(scorer, simulated):
    transactions = simulated.transactions(*range(2_000))

    decisions = [scorer.score(transaction) for transaction in transactions]

    stages = scorer.latencies()
    assert ["encode", "features", "model", "policy"] == list(stages)
    assert stages["encode"].n == stages["features"].n == len(transactions)
    # A duplicate or a reversal is read and remembered, and asks no model.
    assert stages["model"].n == sum(d.decided_by != "lifecycle" and not d.duplicate for d in decisions)
    assert 0 < stages["policy"].n < len(transactions)
    assert all(0.0 < stage.p50_us <= stage.p99_us <= stage.max_us for stage in stages.values())


def arrow(transactions):
    names = list(dict.fromkeys(name for transaction in transactions for name in transaction))
    return pa.table({name: [transaction.get(name) for transaction in transactions] for name in names})


def test_a_table_of_days_is_refused_as_its_rows_are_before_anything_is_remembered(scorer):
    days = pa.array([NOON.date()], pa.date32())
    table = arrow([purchase(1)]).drop_columns("event_time").append_column("event_time", days)

    with pytest.raises(InvalidTransactionError, match="event_time"):
        scorer.score_batch(table)

    assert 0 == scorer.counters()["events"] and not scorer._under_way


def test_a_table_is_judged_by_its_own_columns_whatever_the_table_before_it_had(scorer):
    known, unknown = purchase(1), {**purchase(2), "colour": "red"}
    for _ in range(2):
        scorer.score_batch(arrow([known]))
        with pytest.raises(InvalidTransactionError, match="colour"):
            scorer.score_batch(arrow([unknown]))


@pytest.mark.parametrize("journal_capacity", [50, 300, 1_000])
def test_a_batch_answers_duplicates_as_single_calls_do_however_small_the_journal(
    artefact, hash_key, simulated, journal_capacity
):
    # Given retries 1 to 200 transactions after their originals
    order = np.argsort(simulated.columns["event_time"], kind="stable")[:1_200]
    transactions = simulated.transactions(*order)
    retried = [t for i, t in enumerate(transactions) for t in ([t, transactions[i - i % 200]] if i % 40 == 39 else [t])]
    config = ScorerConfig(model=artefact, hash_key=hash_key, journal_capacity=journal_capacity)

    with Scorer.open(config) as one_by_one, Scorer.open(config) as batched:
        assert [one_by_one.score(t) for t in retried] == batched.score_batch(arrow(retried))
        assert not batched._under_way


def test_an_interrupt_leaves_nobody_waiting(artefact, hash_key, tmp_path):
    class Interrupted:
        def contributions(self, rows):
            raise KeyboardInterrupt

    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n[bands]\nreview = 0.0\n")
    scorer = Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key, policy=policy), explainer=Interrupted())
    with pytest.raises(KeyboardInterrupt):
        scorer.score(purchase(1))
    with pytest.raises(KeyboardInterrupt):
        scorer.score_batch([purchase(i) for i in range(2, 9)])

    assert not scorer._under_way


def test_a_deadline_that_passes_while_waiting_for_the_lock_is_noticed(artefact, hash_key):
    clock = ManualClock(int(NOON.timestamp() * 1e6) + 3_600_000_000)

    class SlowLock:
        def __enter__(self):
            clock.advance_us(10_000)

        def __exit__(self, *_):
            pass

    scorer = Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key), clock=clock)
    scorer._lock = SlowLock()

    decision = scorer.score(purchase(1), deadline=Deadline.after_us(5_000, clock=clock))

    assert decision.degraded and "deadline" in decision.degraded_because


def test_features_are_timed_of_one_transaction_in_a_thousand(scorer, simulated):
    order = np.argsort(simulated.columns["event_time"], kind="stable")[:2_100]
    for transaction in simulated.transactions(*order):
        scorer.score(transaction)

    timed = scorer.feature_latencies()

    assert list(reference_feature_set("EUR").names) == list(timed)
    assert {2} == {latency.n for latency in timed.values()}


def test_where_no_thread_can_be_started_pages_are_not_supplied_and_decisions_are_made(scorer, monkeypatch):
    def no_more(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_more)
    monkeypatch.setattr(type(scorer._engine.memory), "is_short_of_pages", True)

    decisions = scorer.score_batch([purchase(number) for number in range(3)])

    assert not any(decision.degraded for decision in decisions)
    assert [True] * 3 == [scorer.score(purchase(number)).duplicate for number in range(3)]
