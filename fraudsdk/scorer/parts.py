"""What a scorer is made of: found in its configuration, or else in the artefact of its model."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from pathlib import Path
from typing import Final

import numpy as np

from fraudsdk.config import Durability, ScorerConfig
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.parts import PartCodec
from fraudsdk.entity_state.place import require_origin
from fraudsdk.entity_state.state_directory import StateIdentity
from fraudsdk.entity_state.store import SharedStore
from fraudsdk.errors import ConfigurationError, ModelError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel
from fraudsdk.model.documents import parse
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.scorer.kept_state import KeptState
from fraudsdk.scorer.shared_state import SharedState
from fraudsdk.scorer.streamed_state import StreamedState
from fraudsdk.telemetry.clock import Clock

FEATURES_FILE: Final = "features.toml"
VOCABULARY_FILE: Final = "vocabulary.json"
POLICY_FILE: Final = "policy.toml"

# Changes when encoding or features come to mean another thing by the same declaration.
_MEANING: Final = "fraudsdk-1"


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


def kept_state_of(
    config: ScorerConfig,
    encoder: Encoder,
    engine: FeatureEngine,
    recorder: DecisionRecorder,
    lock: threading.Lock,
    origin: bytes | None,
) -> KeptState | None:
    """The state in the directory of a configuration, given to engine and recorder; None without a directory."""
    if config.state_dir is None:
        if origin is not None:
            raise ConfigurationError(
                "the place in a stream is kept with the state, and there is no state_dir; name one"
            )
        return None
    assert config.hash_key is not None  # ScorerConfig saw to it
    return KeptState(
        Path(config.state_dir),
        identity_of(engine, encoder.vocabulary, config.hash_key),
        engine,
        recorder,
        lambda: another(engine, encoder),
        lock=lock,
        durability=Durability(config.durability),
        origin=None if origin is None else require_origin(origin),
    )


def elsewhere_of(
    config: ScorerConfig,
    kept: SharedStore | StreamedState | None,
    encoder: Encoder,
    engine: FeatureEngine,
    lock: threading.Lock,
    clock: Clock,
) -> SharedState | StreamedState | None:
    """State that is kept outside of this process: shared through a store, or following a stream; None without either."""
    if kept is None:
        return None
    if config.hash_key is None:
        raise ConfigurationError("state that is shared needs a hash_key, the same for all who share it; pass one")
    if config.state_dir is not None:
        raise ConfigurationError("state is either kept in a state_dir or shared; leave one of them out")
    schema = shared_schema_of(engine, encoder.vocabulary, config.hash_key)
    if isinstance(kept, StreamedState):
        kept.begin(PartCodec(schema), schema, engine, lock)
        return kept
    return SharedState(kept, PartCodec(schema), schema, engine, lock, clock)


def shared_schema_of(engine: FeatureEngine, vocabulary: Vocabulary, hash_key: bytes) -> bytes:
    """What shared parts mean, in 16 bytes."""
    identity = identity_of(engine, vocabulary, hash_key)
    return hashlib.blake2b(identity.record + identity.state + identity.key, digest_size=16).digest()


def another(engine: FeatureEngine, encoder: Encoder) -> FeatureEngine:
    """An empty engine of the same features and bounds, with arrays of its own to work in."""
    memory = engine.memory
    empty = FeatureEngine(
        engine.feature_set,
        encoder.vocabulary,
        max_entities=memory.max_entities,
        journal_capacity=len(memory.journal),
    )
    return attached(empty, encoder)


def attached(engine: FeatureEngine, encoder: Encoder) -> FeatureEngine:
    """An engine, given arrays of its own to work in."""
    engine.attach(*encoder.empty(1), np.empty(engine.n_features, np.float32))
    return engine


def identity_of(engine: FeatureEngine, vocabulary: Vocabulary, hash_key: bytes) -> StateIdentity:
    """What the state of an engine means."""
    plan = engine.plan
    record = [_MEANING, dataclasses.asdict(plan.record), vocabulary.fingerprint, engine.feature_set.currency]
    state = plan.state
    tables = (
        *(state.kinds, state.columns, state.measures, state.distincts, state.decayeds),
        *(plan.filters, plan.filter_ranges, plan.places),
    )
    remembered = json.dumps(state.names).encode() + b"".join(table.tobytes() for table in tables)
    return StateIdentity.of(json.dumps(record, sort_keys=True).encode(), remembered, hash_key)
