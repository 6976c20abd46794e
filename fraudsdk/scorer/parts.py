"""What a scorer is made of: found in its configuration, or else in the artefact of its model."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from fraudsdk.config import ScorerConfig
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import MissingExtraError, ModelError
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel
from fraudsdk.model.documents import parse
from fraudsdk.model.explainer import Explainer
from fraudsdk.model.manifest import BOOSTER
from fraudsdk.policy.spec import PolicySpec

FEATURES_FILE: Final = "features.toml"
VOCABULARY_FILE: Final = "vocabulary.json"
POLICY_FILE: Final = "policy.toml"
_EXPLAINERS: Final = "fraudsdk.explainers"


def feature_set_of(config: ScorerConfig, model: CompiledModel | None) -> FeatureSet:
    if config.features is not None:
        return FeatureSet.load(config.features)
    assert model is not None  # ScorerConfig saw to it
    return FeatureSet.from_toml(model.read(FEATURES_FILE).decode())


def vocabulary_of(model: CompiledModel | None) -> Vocabulary:
    if model is None:
        return Vocabulary()
    return Vocabulary.from_dict(parse(model.read(VOCABULARY_FILE), "vocabulary", ModelError))


def policy_of(config: ScorerConfig, model: CompiledModel | None) -> PolicySpec:
    if config.policy is not None:
        return PolicySpec.load(config.policy)
    if model is not None and POLICY_FILE in model.manifest.files:
        return PolicySpec.from_toml(model.read(POLICY_FILE).decode())
    return PolicySpec()


def installed_explainer(model: CompiledModel | None) -> Explainer | None:
    """
    An explainer that some installed package offers for this artefact.

    The core has none of its own yet and must not know vendors, so packages announce theirs as an entry point.
    """
    if model is None:
        return None
    for entry_point in entry_points(group=_EXPLAINERS):
        try:
            explainer: Explainer = entry_point.load()(model.read(BOOSTER))
        except (ImportError, MissingExtraError):
            continue
        return explainer
    return None
