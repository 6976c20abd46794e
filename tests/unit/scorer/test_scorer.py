"""`Scorer`: every transaction gets a decision, counted once, whatever breaks."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraudsdk import InvalidTransactionError, Outcome, Scorer, ScorerConfig
from fraudsdk.errors import ConfigurationError, ModelError, ModelNotFoundError, SchemaMismatchError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.sinks import MemorySink
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


class BrokenModel:
    """A model whose native code fails."""

    version = "broken/1"

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
    scorer._model = BrokenModel()

    decision = scorer.score(purchase(1, pan=PAN, card_id=None))

    assert decision.degraded
    assert "fallback" == decision.decided_by
    assert "model: OSError" == decision.degraded_because
    assert 1 == scorer.counters()["degraded"]


def test_a_failing_memory_gives_a_degraded_decision(scorer):
    scorer._engine._arguments = ()

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

    assert 1 == len(kernels.score_one.signatures)
    with pytest.raises(TypeError):
        kernels.score_one(np.zeros((1, 1), np.int32))


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
