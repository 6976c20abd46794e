"""`Scorer.swap_model`: another model decides from the next transaction on, and the way back is as quick."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

from fraudsdk import Scorer, ScorerConfig
from fraudsdk.compiler.compile import compile_model
from fraudsdk.errors import ModelNotFoundError, SchemaMismatchError
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.model.artefact import load_artefact
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.spec import PolicySpec

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def purchase(number: int, **fields):
    return {
        "transaction_id": f"t-{number}",
        "user_id": f"u-{number % 7}",
        "card_id": "c-1",
        "amount": "12.50",
        "event_time": NOON + timedelta(minutes=number),
        **fields,
    }


@pytest.fixture(scope="module")
def shorter(artefact, simulated, tmp_path_factory):
    """The first half of the trees of `artefact`, as version 2 with a policy that reviews everything."""
    return trunk_of(artefact, simulated.vocabulary, tmp_path_factory.mktemp("shorter") / "model")


def trunk_of(artefact, vocabulary, out, features=None):
    import xgboost

    features = features or reference_feature_set("EUR")
    booster = xgboost.Booster(model_file=str(artefact / "model.ubj"))
    compile_model(
        bytes(booster[: booster.num_boosted_rounds() // 2].save_raw("ubj")),
        out,
        name="small",
        version="2",
        created_at="2026-11-24T00:00:00Z",
        feature_names=features.names,
        schema_fingerprint=features.fingerprint,
        extra_files={
            "features.toml": features.to_toml().encode(),
            "vocabulary.json": json.dumps(vocabulary.to_dict()).encode(),
            "policy.toml": PolicySpec(bands=ScoreBands(review=0.0)).to_toml().encode(),
        },
    )
    return out


@pytest.fixture
def scorer(artefact, hash_key):
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        yield scorer


def test_the_next_decision_is_the_new_models_and_its_policys(scorer, shorter):
    before = scorer.score(purchase(1))

    scorer.swap_model(shorter)

    after = scorer.score(purchase(2))
    assert ("small/1", "small/2") == (before.model_version, after.model_version)
    assert "APPROVE" == before.outcome.value and "REVIEW" == after.outcome.value
    assert before.margin != after.margin
    assert after.reasons and not after.degraded


def test_a_batch_is_decided_by_the_model_that_it_began_with(artefact, shorter, hash_key):
    class Swapping:
        """Is asked about the first row of the batch, which `shorter` reviews, and swaps the model."""

        def __init__(self):
            self.explainer = load_artefact(shorter).explainer

        def contributions(self, rows):
            if scorer._judge.version == "small/2":
                scorer.swap_model(artefact)
            return self.explainer.contributions(rows)

    with Scorer.open(ScorerConfig(model=shorter, hash_key=hash_key), explainer=Swapping()) as scorer:
        decisions = scorer.score_batch([purchase(i) for i in range(600)])

        assert {"small/2"} == {decision.model_version for decision in decisions}
        assert "small/1" == scorer.score(purchase(601)).model_version


def test_swapping_back_gives_the_same_bits_as_never_having_swapped(artefact, hash_key, scorer, shorter):
    replaced = scorer.swap_model(shorter)
    scorer.swap_model(replaced)

    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as untouched:
        assert [untouched.score(purchase(i)) for i in range(50)] == [scorer.score(purchase(i)) for i in range(50)]


def test_what_is_remembered_outlives_the_model(scorer, shorter):
    first = scorer.score(purchase(1))

    scorer.swap_model(shorter)

    again = scorer.score(purchase(1))
    assert again.duplicate and again.margin == first.margin and again.model_version == "small/1"


def test_a_configured_policy_stays(artefact, hash_key, shorter, tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(PolicySpec(bands=ScoreBands(review=None, decline=None)).to_toml())
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key, policy=policy)) as scorer:
        scorer.swap_model(shorter)

        assert "APPROVE" == scorer.score(purchase(1)).outcome.value


def test_a_model_of_another_vocabulary_is_refused_and_nothing_changes(scorer, artefact, tmp_path):
    from fraudsdk.encoding.vocabulary import Vocabulary

    other = trunk_of(artefact, Vocabulary({"channel": ("moon",)}), tmp_path / "other")

    with pytest.raises(SchemaMismatchError, match="another vocabulary"):
        scorer.swap_model(other)
    assert "small/1" == scorer.score(purchase(1)).model_version


def test_a_model_of_other_features_is_refused(scorer, artefact, simulated, tmp_path):
    other = trunk_of(artefact, simulated.vocabulary, tmp_path / "other", reference_feature_set("GBP"))

    with pytest.raises(SchemaMismatchError):
        scorer.swap_model(other)
    assert "small/1" == scorer.score(purchase(1)).model_version


def test_no_model_at_a_path_is_said_and_nothing_changes(scorer, tmp_path):
    with pytest.raises(ModelNotFoundError):
        scorer.swap_model(tmp_path)
    assert "small/1" == scorer.score(purchase(1)).model_version


def test_decisions_during_swaps_are_each_of_one_model(scorer, shorter):
    """Threads score while the models change places: margin, version and policy of a decision belong together."""
    stop, wrong, decided = threading.Event(), [], [0] * 4

    def score(thread):
        number = 0
        while not stop.is_set():
            number += 1
            decision = scorer.score(purchase(number, transaction_id=f"{thread}-{number}"))
            decided[thread] += 1
            # Model 2 reviews everything; model 1 approves these.
            if (decision.model_version == "small/2") != (decision.outcome.value == "REVIEW"):
                wrong.append(decision)

    threads = [threading.Thread(target=score, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    other = scorer.swap_model(shorter)
    for _ in range(200):
        other = scorer.swap_model(other)
    stop.set()
    for thread in threads:
        thread.join()

    assert [] == wrong
    assert all(decided)
