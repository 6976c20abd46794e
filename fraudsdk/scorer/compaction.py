"""A snapshot of kept state, taken while no scorer runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fraudsdk.config import ScorerConfig
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.entity_state.erasure import finish_erasures
from fraudsdk.entity_state.marks import last_mark
from fraudsdk.entity_state.snapshot import write_snapshot
from fraudsdk.entity_state.state_directory import StateDirectory, StateIdentity
from fraudsdk.errors import StateError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.model.artefact import load_artefact
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.scorer.kept_state import prune
from fraudsdk.scorer.parts import attached, feature_set_of, identity_of, vocabulary_of
from fraudsdk.scorer.recovery import Recovered, recover


@dataclass(frozen=True, slots=True)
class Compacted:
    """
    What was done.

    Attributes
    ----------
    recovered : Recovered
        What there was before.
    snapshot : Path
        The newest one.
    counters : dict of str to int
        Of the memory that it holds.
    """

    recovered: Recovered
    snapshot: Path
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a directory holds, recovered, and what its numbers mean."""

    engine: FeatureEngine
    encoder: Encoder
    recorder: DecisionRecorder
    identity: StateIdentity
    found: Recovered


def compact(directory: StateDirectory, config: ScorerConfig) -> Compacted:
    """
    Recover what a directory holds, keep that as a snapshot, and remove what is superfluous then.

    Parameters
    ----------
    directory : StateDirectory
    config : ScorerConfig
        As the scorer has it: what its bounds make it forget is not in the snapshot either.

    Raises
    ------
    ModelError, ConfigurationError
        Model or features cannot be read.
    StateError
        What is there cannot be recovered, or was kept for something else; or transactions are without their decision.
    OSError
        The snapshot cannot be written.  What was there before still is.
    """
    kept = recovered_from(directory, config)
    found, memory = kept.found, kept.engine.memory
    require_decided(directory, len(found.undecided))
    newest = directory.snapshot(found.sequence)
    if found.snapshot != newest:
        write_snapshot(directory, kept.identity, memory, kept.recorder.words, found.sequence)
    finish_erasures(directory, kept.identity, memory, kept.recorder.words, found.sequence, found.sequence)
    prune(directory)
    return Compacted(found, newest, memory.counters())


def recovered_from(directory: StateDirectory, config: ScorerConfig) -> Kept:
    """
    What a directory holds, and what reads it, without a scorer.

    Raises
    ------
    ModelError, ConfigurationError, StateError
        As `compact`.
    """
    assert config.hash_key is not None  # the caller saw to it
    model = None if config.model is None else load_artefact(Path(config.model))
    features, vocabulary = feature_set_of(config, model), vocabulary_of(model)
    recorder = DecisionRecorder()
    engine = FeatureEngine(
        features, vocabulary, max_entities=config.max_entities, journal_capacity=config.journal_capacity
    )
    encoder = Encoder(engine.record_layout, key=config.hash_key, vocabulary=vocabulary, currency=features.currency)
    identity = identity_of(engine, vocabulary, config.hash_key)
    found = recover(directory, identity, attached(engine, encoder), recorder, mark=last_mark(directory))
    return Kept(engine, encoder, recorder, identity, found)


def require_decided(directory: StateDirectory, n_undecided: int) -> None:
    """
    Raises
    ------
    StateError
        Transactions are without their decision, which only a scorer can give.
    """
    if n_undecided:
        raise StateError(
            f"{n_undecided} transactions in {directory.path} were remembered and not decided when their scorer died, "
            "and a snapshot would hide that; open a scorer on the directory first, which decides them"
        )
