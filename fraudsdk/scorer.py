"""
`Scorer`: a transaction in, a decision out, on the caller's own thread.

    encode -> entity state -> features -> model -> policy -> sink

`Scorer._decide` is the whole path.  What the caller got wrong raises `InvalidTransactionError` before anything is
remembered; whatever else goes wrong gives a decision that is `degraded` and says why.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fraudsdk.config import ScorerConfig
from fraudsdk.domain.decision import Decision, Outcome
from fraudsdk.domain.explanation import Counterfactual, Explanation, FeatureContribution
from fraudsdk.domain.fields import TRANSACTION_KEY
from fraudsdk.domain.masking import masked
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import Transaction
from fraudsdk.domain.values import parse_flag, parse_identifier
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.encoding.tables import rows_of
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.errors import DeadlineExceededError, FraudSDKError, InvalidTransactionError, ModelError
from fraudsdk.features import kernels
from fraudsdk.features.engine import FeatureEngine, Recorded
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel, load_artefact
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.documents import parse
from fraudsdk.model.explainer import Explainer
from fraudsdk.policy.policy import Policy
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.sinks.port import DecisionSink
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock, Deadline

FEATURES_FILE: Final = "features.toml"
VOCABULARY_FILE: Final = "vocabulary.json"
POLICY_FILE: Final = "policy.toml"
# Time cannot be lived again, and its sines and cosines only change together: no counterfactual speaks of them.
_UNCHANGEABLE: Final = "calendar"
# How long a duplicate waits for the decision it duplicates, where its caller sets no deadline.
_TWIN_WAIT_S: Final = 0.25
_NO_EXPLAINER: Final = "nothing to explain with: open the scorer with a model that the present compiler made"
_CLOSE_FLUSH_US: Final = 5_000_000
_TOLD_AT_ONCE: Final = 64


class _Workspace(threading.local):
    """One thread's arrays: encoded transaction and row, written anew by every call."""

    def __init__(self, encoder: Encoder, n_features: int) -> None:
        self.ints, self.numbers = encoder.empty(1)
        self.row = np.full(n_features, np.nan, dtype=np.float32)


class Scorer:
    """
    Scores transactions against what this process remembers.

    Open one per process with `Scorer.open`; any number of threads may call it.

    Parameters
    ----------
    feature_set, vocabulary, policy : FeatureSet, Vocabulary, PolicySpec
    model : CompiledModel or None
        None: every decision is the fallback's.
    config : ScorerConfig
    explainer : Explainer or None
        Gives reasons in place of the model's own; with neither, a decision that needs them is marked degraded.
    sink : DecisionSink or None
        Told of every decision.  Its `write` is called on the scoring thread: wrap a slow one in `BackgroundSink`.
    clock : Clock
        Wall clock for the skew check, monotonic for deadlines.

    Examples
    --------
    >>> with Scorer.open("compiled_models/reference") as scorer:      # doctest: +SKIP
    ...     decision = scorer.score({"transaction_id": "t-1", "card_id": "c-1", "amount": "12.50",
    ...                              "currency": "GBP", "event_time": "2026-11-23T10:00:00Z"})
    ...     decision.outcome
    <Outcome.APPROVE: 'APPROVE'>
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        vocabulary: Vocabulary,
        policy: PolicySpec,
        model: CompiledModel | None,
        config: ScorerConfig,
        *,
        explainer: Explainer | None = None,
        sink: DecisionSink | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._engine = FeatureEngine(
            feature_set, vocabulary, max_entities=config.max_entities, journal_capacity=config.journal_capacity
        )
        self._encoder = Encoder(
            self._engine.record_layout,
            key=config.hash_key or secrets.token_bytes(32),
            vocabulary=vocabulary,
            currency=feature_set.currency,
            rates=config.rates,
        )
        schema = feature_set.schema
        if model is not None:
            schema.require(model.feature_names, model.schema_fingerprint, whose=f"model {model.version}")
        calibration = None if model is None else model.manifest.calibration
        self._calibration = Calibration.identity() if calibration is None else Calibration.from_dict(calibration)
        self._policy = Policy(
            policy,
            schema,
            custom_numbers=feature_set.custom_numbers,
            custom_categories=feature_set.custom_categories,
            amount_of=self._encoder.amount_major,
        )
        self._schema = schema
        self._model = model
        self._explainer = explainer if explainer is not None or model is None else model.explainer
        self._band_of = policy.bands.outcome
        self._unchangeable = frozenset(
            column
            for column, feature in enumerate(schema.features)
            if feature.categorical or feature.family == _UNCHANGEABLE
        )
        self._sink = sink
        self._clock = clock
        self._future_skew_us = config.future_skew_us
        self._recorder = DecisionRecorder()
        self._workspace = _Workspace(self._encoder, self._engine.n_features)
        self._lock = threading.Lock()
        self._settled = threading.Condition(self._lock)  # only duplicates of what is under way wait here
        self._sink_lock = threading.Lock()  # a sink is called from one thread at a time
        self._under_way: set[int] = set()
        self._n_waiting = 0
        self._failures = {"degraded": 0, "sink_refused": 0}

    @classmethod
    def open(
        cls,
        source: ScorerConfig | Path | str,
        *,
        sink: DecisionSink | None = None,
        explainer: Explainer | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """
        Load, verify and warm up; returns when the first transaction would be as fast as the next.

        Parameters
        ----------
        source : ScorerConfig or path
            A path is the artefact directory, with everything else at its default.

        Raises
        ------
        ModelError
            No artefact there, or its bytes, certificate or features do not match.
        ConfigurationError
            A file or value of the configuration is wrong.
        """
        config = source if isinstance(source, ScorerConfig) else ScorerConfig(model=source)
        model = None if config.model is None else load_artefact(Path(config.model))
        scorer = cls(
            _feature_set(config, model),
            _vocabulary(model),
            _policy(config, model),
            model,
            config,
            explainer=explainer,
            sink=sink,
            clock=clock,
        )
        scorer.warm_up()
        return scorer

    def warm_up(self) -> None:
        """Compile or load every kernel and touch every table, so that no customer pays for it."""
        self._engine.warm_up()
        if self._model is not None:
            self._model.warm_up()

    def score(
        self, transaction: Transaction | Mapping[str, Any], *, record: bool = True, deadline: Deadline | None = None
    ) -> Decision:
        """
        Decide on one transaction.

        Parameters
        ----------
        transaction : Transaction or mapping
            ``transaction_id``, one entity id, ``amount`` and ``event_time`` are required; anything else may be missing.
        record : bool
            False asks "what if": reads what is remembered and leaves it as it was.  A transaction that was recorded
            before is then among what is remembered.
        deadline : Deadline, optional
            When it passes, the fallback decides.

        Returns
        -------
        Decision
            Of a transaction id that was decided before: the recorded decision, marked as a duplicate.

        Raises
        ------
        InvalidTransactionError
            The transaction is wrong.  Nothing was remembered.
        """
        prepared = self._prepare(transaction)
        decision = self._decide(prepared, record, deadline)
        if record:
            self._tell(decision)
        return decision

    def score_batch(self, table: Any, *, record: bool = True) -> list[Decision]:
        """
        Decide on many transactions, in the order given, which should be that of event time.

        Parameters
        ----------
        table : pyarrow.Table or RecordBatch, or a sequence of mappings or Transactions
            Columns are named as the fields of a transaction.

        Returns
        -------
        list of Decision
            As `score` would give one by one.

        Raises
        ------
        InvalidTransactionError
            Names the row.  Nothing of the batch was remembered.
        """
        prepared = []
        for row, transaction in enumerate(rows_of(table)):
            try:
                prepared.append(self._prepare(transaction))
            except InvalidTransactionError as error:
                raise error.in_row(row) from None
        decisions = [self._decide(transaction, record, None) for transaction in prepared]
        if record:
            for first in range(0, len(decisions), _TOLD_AT_ONCE):  # a bounded queue refuses more at once than it holds
                self._tell(*decisions[first : first + _TOLD_AT_ONCE])
        return decisions

    def explain(self, transaction: Transaction | Mapping[str, Any]) -> Explanation:
        """
        Take the margin of a transaction apart, against what is remembered now; remembers nothing.

        Raises
        ------
        InvalidTransactionError
            The transaction is wrong, is no authorisation or refund, or was recorded already.
        ModelError
            There is no model, or it carries no explanations.
        """
        if self._model is None or self._explainer is None:
            raise ModelError(_NO_EXPLAINER)
        prepared = self._prepare(transaction)
        work = self._workspace
        self._encoder.encode(prepared, work.ints, work.numbers)
        with self._lock:
            status, known_row = self._engine.observe(work.ints, work.numbers, work.row, record=False)
            provenance = self._engine.provenance(work.ints)
        if known_row >= 0:
            raise InvalidTransactionError(
                "transaction_id",
                "was recorded already, and would count itself",
                "explain a transaction before scoring it",
            )
        if status == kernels.LIFECYCLE:
            raise InvalidTransactionError(
                "type", f"is {prepared.type.value}", "only authorisations and refunds are scored"
            )
        margin = self._model.margin(work.row)
        contributions = self._explainer.contributions(work.row[np.newaxis, :])[0]
        features = [
            FeatureContribution(
                info.name, info.description, float(value), float(weight), p.entity, p.known, p.age_us, p.exact
            )
            for info, value, weight, p in zip(
                self._schema.features, work.row, contributions[:-1], provenance, strict=True
            )
        ]
        features.sort(key=lambda feature: -abs(feature.contribution))
        return Explanation(
            transaction_id=prepared.transaction_id,
            model_version=self._model.version,
            margin=margin,
            base_margin=float(contributions[-1]),
            score=self._calibration.probability(margin),
            features=tuple(features),
            counterfactual=self._counterfactual(work.row, margin),
        )

    def feedback(self, transaction_id: str, *, is_fraud: bool | None = None, declined: bool | None = None) -> bool:
        """
        Tell what became of a transaction: its label, or the host's final answer.

        Parameters
        ----------
        is_fraud : bool, optional
            The label; it counts in fraud rates from now on.
        declined : bool, optional
            Whether the host declined it; it counts in declined attempts from now on.  The scorer does not take its own
            DECLINE for the host's.

        Returns
        -------
        bool
            False when the transaction is no longer remembered, which is counted.
        """
        known_as = _parsed("transaction_id", transaction_id, parse_identifier)
        if known_as is None:
            raise InvalidTransactionError("transaction_id", "is missing", "send the id that was scored")
        key = self._encoder.transaction_key(known_as)
        is_fraud = _parsed("is_fraud", is_fraud, parse_flag)
        declined = _parsed("declined", declined, parse_flag)
        if is_fraud is None and declined is None:
            raise InvalidTransactionError("is_fraud", "and declined are both missing", "say at least one of them")
        remembered = True
        with self._lock:
            if is_fraud is not None:
                remembered = self._engine.label(key, is_fraud=is_fraud)
            if declined is not None:
                remembered = self._engine.answered(key, declined=declined) and remembered
        return remembered

    def counters(self) -> dict[str, int]:
        """What has happened so far, by name: events, evictions, late events, duplicates, degraded decisions, ..."""
        with self._lock:
            return self._engine.memory.counters() | self._failures

    def close(self) -> None:
        """Flush and close the sink, if there is one."""
        if self._sink is not None:
            try:
                self._sink.flush(Deadline.after_us(_CLOSE_FLUSH_US))
            finally:
                self._sink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- the path of a transaction -----------------------------------------------------------------------------------

    def _decide(self, transaction: Transaction, record: bool, deadline: Deadline | None) -> Decision:
        work, stage, row, key, journal_row = self._workspace, "encoding", None, 0, -1
        try:
            self._encoder.encode(transaction, work.ints, work.numbers)
            key = int(work.ints[0, TRANSACTION_KEY])
            stage = "features"
            with self._lock:
                status, found = self._engine.observe(work.ints, work.numbers, work.row, record=record)
                if status == kernels.DUPLICATE:
                    return self._recorded(transaction, key, found, deadline)
                if record:  # a what-if may find its transaction in the journal, and must leave the verdict there alone
                    journal_row = found
                    self._under_way.add(key)
            if status == kernels.LIFECYCLE:
                return self._keep(self._lifecycle(transaction), key, journal_row)
            row = work.row
            stage = "model"
            if deadline is not None and deadline.passed():
                return self._degrade(transaction, row, "deadline: passed before the model was asked", key, journal_row)
            if self._model is None:
                return self._degrade(transaction, row, "model: none is loaded", key, journal_row)
            margin = self._model.margin(row)
            score = self._calibration.probability(margin)
            stage = "policy"
            decision = self._policy.decide(
                transaction, row, margin, score, self._model.version, lambda: self._contributions(row, deadline)
            )
            if deadline is not None and deadline.passed() and not decision.degraded:
                decision = replace(decision, degraded=True, degraded_because="deadline: passed while deciding")
        except InvalidTransactionError:
            raise
        except Exception as error:  # not the caller's fault: a decision is due whatever broke
            return self._degrade(transaction, row, f"{stage}: {_described(error)}", key, journal_row)
        return self._keep(decision, key, journal_row)

    def _prepare(self, transaction: Transaction | Mapping[str, Any]) -> Transaction:
        prepared = self._encoder.prepare(transaction)
        if prepared.event_time_us > self._clock.now_us() + self._future_skew_us:
            raise InvalidTransactionError(
                "event_time",
                f"lies more than {self._future_skew_us // 1_000_000} s in the future",
                "check the unit and the sender's clock",
                transaction_id=masked(prepared.transaction_id),
            )
        return prepared

    def _contributions(self, row: npt.NDArray[np.float32], deadline: Deadline | None) -> npt.NDArray[np.float64]:
        if deadline is not None and deadline.passed():
            raise DeadlineExceededError("the deadline passed before the explainer was asked")
        if self._explainer is None:
            raise ModelError(_NO_EXPLAINER)
        contributions: npt.NDArray[np.float64] = self._explainer.contributions(row[np.newaxis, :])[0]
        return contributions

    def _counterfactual(self, row: npt.NDArray[np.float32], margin: float) -> Counterfactual | None:
        if self._model is None or self._model.changes is None:
            return None
        was = self._band_at(margin)
        approved = was is Outcome.APPROVE
        change = self._model.changes.smallest(
            row,
            # Bands rise with the margin: what is milder than a refusal has a smaller one, what an approval fears a larger.
            lambda other: (other > margin) is approved and self._band_at(other) is not was,
            leave=self._unchangeable,
        )
        if change is None:
            return None
        feature = self._schema.features[change.feature]
        return Counterfactual(
            feature=feature.name,
            description=feature.description,
            value=float(row[change.feature]),
            changed_to=change.value,
            low=change.low,
            high=change.high,
            n_cuts=change.n_cuts,
            was=was,
            becomes=self._band_at(change.margin),
            margin=change.margin,
            score=self._calibration.probability(change.margin),
        )

    def _band_at(self, margin: float) -> Outcome:
        return self._band_of(self._calibration.probability(margin))

    def _degrade(
        self, transaction: Transaction, row: npt.NDArray[np.float32] | None, because: str, key: int, journal_row: int
    ) -> Decision:
        return self._keep(self._fallback(transaction, row, because), key, journal_row)

    def _fallback(self, transaction: Transaction, row: npt.NDArray[np.float32] | None, because: str) -> Decision:
        try:
            return self._policy.fallback(transaction, row, because)
        except Exception as error:  # the last rung: nothing is computed any more
            return Decision(
                transaction_id=transaction.transaction_id,
                outcome=Outcome.REVIEW,
                score=math.nan,
                margin=math.nan,
                reasons=(),
                model_version="none",
                decided_by="fallback",
                degraded=True,
                degraded_because=f"{because}; fallback: {_described(error)}",
            )

    def _lifecycle(self, transaction: Transaction) -> Decision:
        return Decision(
            transaction_id=transaction.transaction_id,
            outcome=Outcome.APPROVE,
            score=math.nan,
            margin=math.nan,
            reasons=(),
            model_version="none" if self._model is None else self._model.version,
            decided_by="lifecycle",
        )

    def _keep(self, decision: Decision, key: int, journal_row: int) -> Decision:
        """Record a decision for its duplicates, and count it where it is less than a full one."""
        recorded = Recorded(decision.margin, decision.score, self._recorder.pack(decision))
        with self._lock:
            self._failures["degraded"] += decision.degraded
            if journal_row >= 0:
                self._engine.keep_verdict(journal_row, key, recorded)
                self._under_way.discard(key)
                if self._n_waiting:
                    self._settled.notify_all()
        return decision

    def _recorded(self, transaction: Transaction, key: int, journal_row: int, deadline: Deadline | None) -> Decision:
        """
        The decision kept for a duplicate; one that came in without being decided (a replay) has none.

        Called under the lock.  A first decision that is still being made is waited for: two answers to one transaction
        would be worse than a late one.
        """
        if key in self._under_way:
            self._n_waiting += 1
            self._settled.wait_for(
                lambda: key not in self._under_way, _TWIN_WAIT_S if deadline is None else deadline.remaining_s()
            )
            self._n_waiting -= 1
        kept = self._engine.verdict_of(journal_row, key)
        decision = self._recorder.unpack(transaction.transaction_id, kept.margin, kept.score, kept.verdict)
        if decision is None:
            self._failures["degraded"] += 1
            decision = self._fallback(transaction, None, "duplicate: its first decision is not known")
        return replace(decision, duplicate=True)

    def _tell(self, *decisions: Decision) -> None:
        if self._sink is None or not decisions:
            return
        with self._sink_lock:
            try:
                self._sink.write(decisions)
            except Exception:  # the decision is made; that it was not passed on is counted, not the caller's to handle
                self._failures["sink_refused"] += len(decisions)


def _parsed(field: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except RefusedValue as refused:
        raise InvalidTransactionError(field, refused.problem, refused.remedy) from None


def _feature_set(config: ScorerConfig, model: CompiledModel | None) -> FeatureSet:
    if config.features is not None:
        return FeatureSet.load(config.features)
    assert model is not None  # ScorerConfig saw to it
    return FeatureSet.from_toml(model.read(FEATURES_FILE).decode())


def _vocabulary(model: CompiledModel | None) -> Vocabulary:
    if model is None:
        return Vocabulary()
    return Vocabulary.from_dict(parse(model.read(VOCABULARY_FILE), "vocabulary", ModelError))


def _policy(config: ScorerConfig, model: CompiledModel | None) -> PolicySpec:
    if config.policy is not None:
        return PolicySpec.load(config.policy)
    if model is not None and POLICY_FILE in model.manifest.files:
        return PolicySpec.from_toml(model.read(POLICY_FILE).decode())
    return PolicySpec()


def _described(error: Exception) -> str:
    # Our own messages are masked; what a library puts into its message is anybody's guess.
    return f"{type(error).__name__}: {error}" if isinstance(error, FraudSDKError) else type(error).__name__
