"""Explanations come with the model: verified when it is loaded, checked on every call, and exact about what would have helped."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from fraudsdk import Outcome, Scorer, ScorerConfig
from fraudsdk.errors import CertificateError, ExplanationError, ModelError
from fraudsdk.model.artefact import load_artefact
from fraudsdk.policy.bands import ScoreBands
from fraudsdk.policy.spec import PolicySpec

pytest.importorskip("xgboost")


@pytest.fixture
def copy(artefact, tmp_path):
    return shutil.copytree(artefact, tmp_path / "copy")


def without_explanations(directory):
    """The same model, from a compiler that knew no explanations: nothing lists or vouches for the file."""
    manifest = json.loads((directory / "manifest.json").read_bytes())
    del manifest["files"]["shap.bin"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    stated = load_manifest(directory)
    certificate = json.loads((directory / "certificate.json").read_bytes())
    certificate["manifest_sha256"] = stated.statement_sha256()
    data = json.dumps(certificate).encode()
    (directory / "certificate.json").write_bytes(data)
    entry = replace(stated.files["certificate.json"], sha256=sha256(data), n_bytes=len(data))
    (directory / "manifest.json").write_bytes(
        replace(stated, files={**stated.files, "certificate.json": entry}).to_json()
    )
    return directory


def load_manifest(directory):
    from fraudsdk.model.manifest import Manifest

    return Manifest.from_json((directory / "manifest.json").read_bytes())


def sha256(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


def declining(artefact, hash_key, **bands):
    """A scorer whose bands lie where the small model's scores are."""
    model = load_artefact(artefact)
    policy = PolicySpec(bands=ScoreBands(**bands))
    from fraudsdk.encoding.vocabulary import Vocabulary
    from fraudsdk.features.spec import FeatureSet

    return Scorer(
        FeatureSet.from_toml(model.read("features.toml").decode()),
        Vocabulary.from_dict(json.loads(model.read("vocabulary.json"))),
        policy,
        model,
        ScorerConfig(model=artefact, hash_key=hash_key),
    )


@pytest.fixture(scope="module")
def declining_some(artefact, hash_key, simulated):
    """A scorer with memories that declines the riskier of some new transactions, and these."""
    known, new = simulated.transactions(*range(4_000)), simulated.transactions(*range(4_000, 4_400))
    with Scorer.open(ScorerConfig(model=artefact, hash_key=hash_key)) as scorer:
        decisions = scorer.score_batch([*known, *new])
    scores = np.unique([decision.score for decision in decisions if not math.isnan(decision.score)])
    scorer = declining(artefact, hash_key, review=None, step_up=None, decline=float(np.median(scores)))
    scorer.score_batch(known)
    asked = scorer.score_batch(new, record=False)
    scored = [k for k, decision in enumerate(asked) if not math.isnan(decision.score)]
    riskiest = sorted(scored, key=lambda k: -asked[k].margin)
    return scorer, [new[k] for k in (*riskiest[:40], *riskiest[-10:])]


def test_explanations_that_were_exchanged_on_disk_are_not_loaded(copy):
    data = bytearray((copy / "shap.bin").read_bytes())
    data[-1] ^= 1
    (copy / "shap.bin").write_bytes(data)

    with pytest.raises(CertificateError, match=r"shap\.bin has SHA-256"):
        load_artefact(copy)


def test_a_loaded_model_explains_with_what_was_verified(copy, replayed):
    model = load_artefact(copy)
    rows = replayed.rows[:50]
    expected = model.contributions(rows)

    (copy / "shap.bin").write_bytes(b"another one")

    assert expected.tobytes() == model.contributions(rows).tobytes()


def test_a_model_without_explanations_scores_and_says_what_it_lacks(copy, hash_key, simulated):
    model = load_artefact(without_explanations(copy))
    with Scorer.open(ScorerConfig(model=copy, hash_key=hash_key)) as scorer:
        decisions = scorer.score_batch(simulated.transactions(*range(3_000)))
        refused = [d for d in decisions if d.outcome is not Outcome.APPROVE]

        assert refused and all("nothing to explain with" in d.degraded_because for d in refused)
        with pytest.raises(ModelError, match="nothing to explain with"):
            scorer.explain(simulated.transactions(4_000)[0])
    with pytest.raises(ModelError, match=r"carries no shap\.bin"):
        model.contributions(np.zeros((1, len(model.feature_names)), np.float32))


def test_contributions_that_do_not_add_up_degrade_the_decision(artefact, hash_key, simulated):
    scorer = declining(artefact, hash_key, review=0.0, step_up=None, decline=None)
    # Given an engine that disagrees with the tables by a thousandth
    scorer.model.explainer._margins = lambda rows: scorer.model.margins(rows) + np.float32(0.001)

    decision = scorer.score(simulated.transactions(5)[0])

    assert decision.outcome is Outcome.REVIEW and decision.degraded
    assert decision.degraded_because.startswith("explanation: ExplanationError: contributions of row 0 add up to")


def test_contributions_that_do_not_add_up_are_an_error_to_who_asked_for_them(artefact, replayed):
    model = load_artefact(artefact)
    model.explainer._margins = lambda rows: model.margins(rows) + np.float32(0.001)

    with pytest.raises(ExplanationError, match="compile the model again"):
        model.contributions(replayed.rows[:3])


def test_an_explanation_says_what_would_have_moved_the_verdict(declining_some):
    scorer, some = declining_some
    found = [scorer.explain(sent) for sent in some]

    declined = [e for e in found if e.counterfactual is not None and e.counterfactual.was is Outcome.DECLINE]
    approved = [e for e in found if e.counterfactual is not None and e.counterfactual.was is Outcome.APPROVE]
    assert declined and approved
    for explanation in declined:
        change = explanation.counterfactual
        assert Outcome.APPROVE is change.becomes and change.margin < explanation.margin
    for explanation in approved:
        change = explanation.counterfactual
        assert Outcome.DECLINE is change.becomes and change.margin > explanation.margin


def test_the_changed_row_has_the_margin_that_is_promised(declining_some):
    scorer, some = declining_some
    model = scorer.model
    promised = 0
    for sent in some:
        explanation = scorer.explain(sent)
        change = explanation.counterfactual
        if change is None:
            continue
        values = {feature.name: feature.value for feature in explanation.features}
        assert values[change.feature] == change.value and change.low <= change.changed_to < change.high
        row = np.array([values[name] for name in model.feature_names], np.float32)
        row[model.feature_names.index(change.feature)] = change.changed_to
        assert model.margin(row) == change.margin
        promised += 1

    assert promised > 3


def test_no_counterfactual_wishes_for_another_hour_a_category_or_what_is_missing(declining_some):
    scorer, some = declining_some
    kinds = {feature.name: (feature.family, feature.categorical) for feature in scorer._schema.features}

    changes = [scorer.explain(sent).counterfactual for sent in some]

    named = [change for change in changes if change is not None]
    assert named and not any(math.isnan(change.value) or math.isnan(change.changed_to) for change in named)
    assert not any(family == "calendar" or categorical for family, categorical in (kinds[c.feature] for c in named))
