"""The public surface as a host's type checker sees it; checked by mypy strict, never run."""

from __future__ import annotations

from typing import assert_type

from fraudsdk import Decision, Decisions, Explanation, Feature, FeatureSet, Outcome, Scorer, ScorerConfig, Transaction

with Scorer.open(ScorerConfig(model="compiled_models/reference")) as scorer:
    assert_type(scorer, Scorer)
    decision = scorer.score({"transaction_id": "t-1"})
    assert_type(decision, Decision)
    assert_type(decision.outcome, Outcome)
    assert_type(decision.score, float)
    assert_type(scorer.score_batch([]), Decisions)
    assert_type(scorer.explain({"transaction_id": "t-1"}), Explanation)
    assert_type(scorer.feedback("t-1", is_fraud=True), bool)
    assert_type(scorer.counters(), dict[str, int])
    assert_type(scorer.erase(user_id="u-1").n_found, int)
    assert_type(scorer.state_age_us, int | None)

assert_type(Transaction.from_mapping({"transaction_id": "t-1"}), Transaction)
assert_type(FeatureSet("mine", (Feature("amount", "value", field="amount"),)).fingerprint, str)
