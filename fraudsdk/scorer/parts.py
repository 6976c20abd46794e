"""What a scorer is made of: found in its configuration, or else in the artefact of its model."""

from __future__ import annotations

from typing import Final

from fraudsdk.config import ScorerConfig
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import ModelError
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel
from fraudsdk.model.documents import parse
from fraudsdk.policy.spec import PolicySpec

FEATURES_FILE: Final = "features.toml"
VOCABULARY_FILE: Final = "vocabulary.json"
POLICY_FILE: Final = "policy.toml"


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
