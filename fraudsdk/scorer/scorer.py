"""
`Scorer`: a transaction in, a decision out, on the caller's own thread.

    encode -> entity state -> features -> model -> policy -> sink

`Scorer._decide` is the whole path.  What the caller got wrong raises `InvalidTransactionError` before anything is
remembered; whatever else goes wrong gives a decision that is `degraded` and says why.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from fraudsdk._jit import warm_up
from fraudsdk.config import ScorerConfig
from fraudsdk.domain.decision import Decision, Outcome, approval
from fraudsdk.domain.decisions import Decisions
from fraudsdk.domain.explanation import Explanation
from fraudsdk.domain.fields import CHARGEBACK, EVENT_TIME_US, FLAGS, REVERSAL, TRANSACTION_KEY
from fraudsdk.domain.masking import masked
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import Transaction
from fraudsdk.domain.values import parse_flag, parse_identifier
from fraudsdk.encoding.encoder import EncodedTransactions, Encoder
from fraudsdk.encoding.tables import OfSchema, rows_of
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.layout import CHANGED_BLIND, CHANGED_ELSEWHERE
from fraudsdk.entity_state.store import SharedStore
from fraudsdk.errors import (
    ConfigurationError,
    DeadlineExceededError,
    FraudSDKError,
    InvalidTransactionError,
    ReadOnlyStateError,
    SchemaMismatchError,
    StateError,
    StateUnavailableError,
)
from fraudsdk.features.context import ERASED_UNTIL_US
from fraudsdk.features.engine import FeatureEngine, Recorded, answer_bits, label_bits
from fraudsdk.features.kernels import DUPLICATE, LIFECYCLE, NEEDS_ROOM, SCORED
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel, load_artefact
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.explainer import Explainer
from fraudsdk.policy.policy import Policy
from fraudsdk.policy.recorded import DecisionRecorder
from fraudsdk.policy.spec import PolicySpec
from fraudsdk.scorer import kernels
from fraudsdk.scorer.asked import Asked
from fraudsdk.scorer.elsewhere import Elsewhere
from fraudsdk.scorer.erasure import Erased, Tombstones, erase_live
from fraudsdk.scorer.explanations import contributions, explanation
from fraudsdk.scorer.judge import Judge
from fraudsdk.scorer.latency import StageLatency
from fraudsdk.scorer.parts import elsewhere_of, feature_set_of, kept_state_of, policy_of, vocabulary_of
from fraudsdk.scorer.recovery import Recovered
from fraudsdk.scorer.sent import RowsSent, Sent, SentRows, id_of, is_readable_by_column
from fraudsdk.scorer.streamed_state import StreamedState
from fraudsdk.sinks.port import DecisionSink
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock, Deadline
from fraudsdk.telemetry.histogram import LatencySummary, MicrosecondHistogram

# How long a duplicate waits for the decision it duplicates, where its caller sets no deadline.
_TWIN_WAIT_S: Final = 0.25
_OUT_OF_TIME: Final = "deadline: passed before it was looked at; it is not remembered"
_WAS_ERASED: Final = "it names somebody who was erased since, and is not remembered"
_UNSEEN: Final = -1  # no status of a kernel
_NOT_YET: Final = (NEEDS_ROOM, kernels.FULL, kernels.NOT_AT_HAND)
_CLOSE_FLUSH_US: Final = 5_000_000
_TOLD_AT_ONCE: Final = 64
# One transaction in so many has its features timed one by one.
_TIMED_EVERY: Final = 1024
# Where nobody waits for a decision, what others know is waited for as long as this many of them would wait.
_PATIENCE: Final = 250
# Rows of a batch that are decided under one lock: less than a millisecond, in which no other thread is served.
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a transaction once it has been read, remembered and, mostly, scored."""

    judge: Judge
    key: int
    journal_row: int = -1  # -1: it is not remembered, and neither will be what is decided
    row: npt.NDArray[np.float32] | None = None
    margin: float = math.nan
    score: float = math.nan
    failed: str | None = None  # which stage, and why
    because: str = ""  # why it is not remembered, though it should be


class _Batch:
    """A batch on its way: what was sent, who judges it, and what has been decided so far."""

    def __init__(
        self,
        judge: Judge,
        encoded: EncodedTransactions,
        sent: RowsSent,
        record: bool,
        n_features: int,
        *,
        is_kept_elsewhere: bool,
    ) -> None:
        self.judge = judge
        self.encoded = encoded
        self.sent = sent
        self.record = record and not is_kept_elsewhere
        self.is_kept_elsewhere = record and is_kept_elsewhere
        self.out = np.full((len(encoded), 2), np.nan)
        # What is under way only, so that it stays in the cache.
        self.rows = np.empty((min(len(encoded), _ROWS_AT_ONCE), n_features), np.float32)
        self.seen = np.empty((len(self.rows), 2), np.int64)
        self.because = ""  # why some of it is not, or not surely, what it should be
        self._singled_out: dict[int, Decision] = {}

    def single_out(self, row: int, decision: Decision) -> None:
        """Keep a decision that is more than an approval by its score."""
        self._singled_out[row] = decision
        self.out[row] = decision.margin, decision.score

    def decisions(self) -> Decisions:
        margins, scores = self.out.T
        return Decisions(self.encoded.transaction_ids, scores, margins, self.judge.version, self._singled_out)


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
    shared : SharedStore, StreamedState or None
        Where what is remembered is shared with other processes, or kept as a stream goes on.
    origin : bytes or None
        The stream whose messages are scored, and whose place is kept with the state: see `StreamedLog`, which says it.
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
        shared: SharedStore | StreamedState | None = None,
        origin: bytes | None = None,
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
        self._is_read_by_column = OfSchema(
            lambda schema: is_readable_by_column(schema) and self._encoder.knows_columns(schema.names)
        )
        self._feature_set = feature_set
        self._schema = feature_set.schema
        self._config = config
        self._policy = policy
        self._has_own_policy = model is None or config.policy is not None or policy != policy_of(config, model)
        self._sink = sink
        self._clock = clock
        self._future_skew_us = config.future_skew_us
        self._ints, self._numbers = self._encoder.empty(1)
        self._row = np.full(self._engine.n_features, np.nan, dtype=np.float32)
        self._out = np.empty(2)
        self._latency = StageLatency()
        self._engine.attach(self._ints, self._numbers, self._row)
        self._context = self._engine.context
        self._program = self._encoder.program
        self._recorder = DecisionRecorder()
        self._tombstones = Tombstones(self._encoder, self._engine.memory)
        self._lock = threading.Lock()
        self._state = kept_state_of(config, self._encoder, self._engine, self._recorder, self._lock, origin)
        self._log = kernels.NO_LOG if self._state is None else self._state.words
        self._shared: Elsewhere | None = elsewhere_of(config, shared, self._encoder, self._engine, self._lock, clock)
        self._changed = self._engine.memory.changed
        # Where others remember, nothing does here: a transaction that is asked for again is told by this.
        self._asked = Asked() if self._shared is not None and self._shared.reads_only else None
        try:
            self._judge = self._judge_of(model, policy, explainer)
        except BaseException:
            self._close_state()
            raise
        self._twin_settled = threading.Condition(self._lock)  # only duplicates of what is under way wait here
        self._rows_at_once = _rows_at_once(config.max_entities, len(self._engine.memory.layout.names), shared)
        self._sink_lock = threading.Lock()  # a sink is called from one thread at a time
        self._under_way: set[int] = set()
        self._n_seen = 0
        self._n_waiting = 0
        self._supplier: threading.Thread | None = None
        self._failures = {"degraded": 0, "sink_refused": 0}

    @classmethod
    def open(
        cls,
        source: ScorerConfig | Path | str,
        *,
        sink: DecisionSink | None = None,
        explainer: Explainer | None = None,
        shared: SharedStore | StreamedState | None = None,
        origin: bytes | None = None,
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
            feature_set_of(config, model),
            vocabulary_of(model),
            policy_of(config, model),
            model,
            config,
            explainer=explainer,
            sink=sink,
            shared=shared,
            origin=origin,
            clock=clock,
        )
        try:
            scorer.warm_up()
            scorer._decide_undecided()
        except BaseException:
            scorer._close_state()
            raise
        return scorer

    def warm_up(self) -> None:
        """Compile or load every kernel and touch every table, so that no customer pays for it."""
        self._supply_pages()  # beside the rest
        self._engine.warm_up()
        warm_up("fraudsdk.encoding.")
        warm_up("fraudsdk.entity_state.")
        warm_up("fraudsdk.scorer.")
        if self._judge.model is not None:
            self._judge.model.warm_up()
        if self._supplier is not None:
            self._supplier.join()

    def swap_model(self, source: CompiledModel | Path | str) -> CompiledModel | None:
        """
        Decide by another model from now on; decisions under way finish by the old one.

        The new model is loaded, verified and warmed up first, so that no decision waits for it.  It brings its own
        calibration and explanations, and its own policy unless the scorer was given another; what is remembered stays.

        Parameters
        ----------
        source : CompiledModel or path
            Made for the same features and vocabulary.

        Returns
        -------
        CompiledModel or None
            The model that was replaced: hand it to `swap_model` to roll back at once.

        Raises
        ------
        ModelError
            No artefact there, or its bytes, certificate, features or vocabulary do not match.  Nothing was changed.
        ConfigurationError
            Its policy is wrong.  Nothing was changed.
        """
        model = source if isinstance(source, CompiledModel) else load_artefact(source)
        if vocabulary_of(model) != self._encoder.vocabulary:
            raise SchemaMismatchError(
                f"model {model.version} was trained with another vocabulary, so its category codes mean other things; open a "
                "new scorer with it"
            )
        policy = self._policy if self._has_own_policy else policy_of(self._config, model)
        judge = self._judge_of(model, policy, None)
        model.warm_up()
        with self._lock:
            replaced, self._judge = self._judge, judge
        return replaced.model

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
            before is then among what is remembered.  Where state is only read nothing is remembered here either way; what
            others remember already is a duplicate all the same.
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
        decision = self._decide(transaction, record, deadline)
        if record and self._asked is not None:
            decision = self._asked.answer(decision)
        if record and self._sink is not None:
            self._tell(decision)
        return decision

    def score_batch(
        self,
        table: Any,
        *,
        record: bool = True,
        sent_us: npt.NDArray[np.int64] | None = None,
        goes_on: Callable[[], bool] | None = None,
    ) -> Decisions:
        """
        Decide on many transactions, in the order given, which should be that of event time, by one model.

        Parameters
        ----------
        table : pyarrow.Table or RecordBatch, or a sequence of mappings or Transactions
            Columns are named as the fields of a transaction.
        record : bool
            As for `score`.
        sent_us : int64[n], optional
            When each was sent, microseconds since the Unix epoch, where that is not now: what lay in the future then is refused,
            whenever it is looked at.
        goes_on : callable, optional
            Asked before every few hundred rows whether somebody still waits for them.  What is left once it says no is not looked
            at: it is not remembered, and its decision is a degraded REVIEW that says so.  To be sent again, it counts then.

        Returns
        -------
        Decisions
            A sequence of what `score` would give one by one.

        Raises
        ------
        InvalidTransactionError
            Names the row.  Nothing of the batch was remembered.
        StateUnavailableError
            Of a stream, the log has no room for all of it.  Nothing of the batch was remembered: score it again later.
        """
        encoded, sent = self._encoded(table, sent_us)
        if record and self._state is not None:
            with self._lock:
                self._state.require_room_for_batch(len(encoded))
        is_kept_elsewhere = self._asked is not None
        batch = _Batch(self._judge, encoded, sent, record, self._engine.n_features, is_kept_elsewhere=is_kept_elsewhere)
        done = 0
        while done < len(encoded) and (goes_on is None or goes_on()):
            done += self._decide_some(batch, done)
        self._leave_undecided(batch, done)
        decisions = batch.decisions()
        if record and self._state is not None:
            with self._lock:
                batch.because = self._state.settle()
        decisions = self._all_unkept(decisions, batch.because) if batch.because else decisions
        if record and self._asked is not None:
            decisions = self._asked.answers(decisions)
        if record and self._sink is not None:
            told = decisions[:]
            for first in range(0, len(told), _TOLD_AT_ONCE):  # a bounded queue refuses more at once than it holds
                self._tell(*told[first : first + _TOLD_AT_ONCE])
        return decisions

    def prepared(self, transaction: Transaction | Mapping[str, Any]) -> Transaction:
        """
        What was sent, checked, and a card number in it made a token: fit to be written down or passed on.

        Raises
        ------
        InvalidTransactionError
            It is wrong.
        """
        return self._encoder.prepare(transaction)

    def explain(self, transaction: Transaction | Mapping[str, Any]) -> Explanation:
        """
        Take the margin of a transaction apart, against what is remembered now; remembers nothing.

        Raises
        ------
        InvalidTransactionError
            The transaction is wrong, is no authorisation or refund, or was recorded already.
        ModelError
            There is no model, or it carries no explanations.
        StateUnavailableError
            State is shared, and what others know cannot be read.
        """
        judge = self._judge
        prepared = self._prepare(transaction)
        with self._lock:
            self._encoder.encode(prepared, self._ints, self._numbers)
            if self._shared is not None:
                if not self._shared.have_at_hand(self._ints.copy(), _PATIENCE, math.inf):
                    raise StateUnavailableError("what is known elsewhere cannot be read now; ask again later")
                self._encoder.encode(prepared, self._ints, self._numbers)
            self._changed[CHANGED_ELSEWHERE] = self._asked is not None
            status, known_row = self._engine.observe(self._ints, self._numbers, self._row, record=False)
            provenance = self._engine.provenance(self._ints)
            row = self._row.copy()
        if known_row >= 0 or status == DUPLICATE:
            raise InvalidTransactionError(
                "transaction_id",
                "was recorded already, and would count itself",
                "explain a transaction before scoring it",
            )
        if status == LIFECYCLE:
            raise InvalidTransactionError(
                "type", f"is {prepared.type.value}", "only authorisations and refunds are scored"
            )
        return explanation(judge, self._schema, prepared.transaction_id, row, provenance, self.state_age_us)

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
            False when the transaction is no longer remembered, which is counted.  Where state is shared and another process
            decided, it is passed on.

        Raises
        ------
        InvalidTransactionError
            An argument is wrong.
        StateUnavailableError
            It cannot be kept now.  To say it again is safe: it counts once.
        ReadOnlyStateError
            State is only read here: say it to whoever writes it.
        """
        known_as = _parsed("transaction_id", transaction_id, parse_identifier)
        if known_as is None:
            raise InvalidTransactionError("transaction_id", "is missing", "send the id that was scored")
        key = self._encoder.transaction_key(known_as)
        is_fraud = _parsed("is_fraud", is_fraud, parse_flag)
        declined = _parsed("declined", declined, parse_flag)
        if is_fraud is None and declined is None:
            raise InvalidTransactionError("is_fraud", "and declined are both missing", "say at least one of them")
        said = [] if is_fraud is None else [label_bits(is_fraud)]
        said += [] if declined is None else [answer_bits(declined)]
        if self._asked is not None:
            raise ReadOnlyStateError(
                "state is only read here, and labels change it; tell whoever writes it: of a stream, by its topic of labels"
            )
        with self._lock:
            if self._shared is not None and not self._engine.remembers(key):
                return all([self._shared.pass_on(key, *bits) for bits in said])  # noqa: C419  # each is said
            self._require_at_hand(key)
            remembered = all([self._amend(key, *bits) for bits in said])  # noqa: C419  # each is said, whatever the first came to
            if because := self._settled():
                raise StateUnavailableError(f"what was said may be lost: {because}; say it again, it counts once")
        return remembered

    def mark(self, place: int) -> None:
        """
        Keep the place of the stream up to which everything is remembered; see `StreamedLog.commit`.

        Raises
        ------
        StateUnavailableError
            It cannot be kept now: mark it again.
        StateError
            No place is kept here, the last one lies beyond it, or some of what was scored is not remembered.
        """
        if self._state is None:
            raise StateError("no state is kept, and so no place in a stream either; open a StreamedLog")
        with self._lock:
            self._state.mark(place)

    def erase(self, **identifiers: str | Sequence[str]) -> Erased:
        """
        Forget a subject: everything that is remembered and kept of it, in memory and in the state directory.

        What happened to others goes on counting: a merchant's sums say nothing of who paid.  A transaction of the subject that
        happened until now and comes once more is decided on and not remembered; what happens from now on counts from zero.

        Parameters
        ----------
        **identifiers : str, or a sequence of them
            By the field of a transaction: ``user_id``, ``card_id``, ``device_id``, ...

        Returns
        -------
        Erased
            Of somebody unknown too: whoever was erased stays so.

        Raises
        ------
        ConfigurationError
            Nobody is named, or no feature reads such a field; or state is shared.
        InvalidTransactionError
            One is no identifier.
        StateUnavailableError
            The log has no room, and nothing was erased; or files from before could not be removed.  Erase again.

        Warning
        -------
        Decisions wait while the memory is searched: some 0.7 s for a million entities.
        """
        if self._shared is not None:
            raise ConfigurationError(
                "state is shared, and others remember the subject too; run fraudsdk state erase with the URL of Redis"
            )
        return erase_live(self._encoder, self._engine, self._state, self._lock, identifiers, self._clock)

    def counters(self) -> dict[str, int]:
        """What has happened so far, by name: events, evictions, late events, duplicates, degraded decisions, ..."""
        with self._lock:
            kept = {} if self._state is None else self._state.counters()
            shared = {} if self._shared is None else self._shared.counters()
            return self._engine.memory.counters() | self._failures | kept | shared

    def latencies(self) -> dict[str, LatencySummary]:
        """
        What the stages of decisions took so far, those inside the kernel for single ones.

        Returns
        -------
        dict of str to LatencySummary
            ``encode`` where the kernel itself reads what was sent; ``features`` and ``model``; and ``policy``, with its
            reasons, for what the score alone did not settle, in batches too.
        """
        with self._lock:
            return self._latency.summaries()

    def stage_histograms(self) -> dict[str, MicrosecondHistogram]:
        """`latencies` as the histograms that they are read from, copied; for whoever adds up those of several processes."""
        with self._lock:
            return self._latency.histograms()

    def feature_latencies(self) -> dict[str, LatencySummary]:
        """What each feature took, alone, of one single transaction in 1,024; in the order of the row."""
        with self._lock:
            return self._engine.feature_latencies()

    @property
    def model(self) -> CompiledModel | None:
        """The model that decides now."""
        return self._judge.model

    @property
    def recovered(self) -> Recovered | None:
        """What was found in the state directory; None without one."""
        return None if self._state is None else self._state.recovered

    @property
    def state_age_us(self) -> int | None:
        """How long ago what other processes know was up to date, microseconds; None where nothing is shared."""
        return None if self._shared is None else self._shared.age_us

    def close(self) -> None:
        """
        Write what is kept, then flush and close the sink; of what there is of them.

        Raises
        ------
        StateUnavailableError
            Some of the state could not be written.
        """
        try:
            self._close_state()
        finally:
            self._close_sink()

    def _close_state(self) -> None:
        if self._state is not None:
            self._state.close()
        if self._shared is not None:
            self._shared.close()

    def _close_sink(self) -> None:
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

    def _judge_of(self, model: CompiledModel | None, policy: PolicySpec, explainer: Explainer | None) -> Judge:
        if model is not None:
            self._schema.require(model.feature_names, model.schema_fingerprint, whose=f"model {model.version}")
        compiled = Policy(
            policy,
            self._schema,
            custom_numbers=self._feature_set.custom_numbers,
            custom_categories=self._feature_set.custom_categories,
            amount_of=self._encoder.amount_major,
        )
        version = "none" if model is None else model.version
        approved, aftermath = (
            self._recorder.pack(each) for each in (approval("", 0.0, 0.0, version), _aftermath("", version))
        )
        if self._state is not None:
            with self._lock:
                if not self._state.log_new_words():  # before the first approval that refers to them
                    raise StateUnavailableError(
                        "the log is full, and what this model is called must be in it; try again"
                    )
        return Judge(
            model,
            Calibration.identity() if model is None else model.calibration,
            compiled,
            explainer if explainer is not None or model is None else model.explainer,
            approved,
            aftermath,
        )

    # --- the path of a transaction -----------------------------------------------------------------------------------

    def _decide(self, sent: Transaction | Mapping[str, Any], record: bool, deadline: Deadline | None) -> Decision:
        transaction = None if type(sent) is dict and self._program is not None else self._prepare(sent)
        seen = self._see(sent, transaction, record, deadline)
        if seen is None:  # not spelt in an everyday way: Python reads it, and says what is wrong with it
            transaction = self._prepare(sent)
            seen = self._see(sent, transaction, record, deadline)
        if isinstance(seen, Decision):
            return seen
        assert seen is not None
        decision = self._settled_by_policy(seen, Sent.of(sent if transaction is None else transaction), deadline)
        if self._state is None and not seen.because:
            return decision
        with self._lock:
            return self._promised(decision, seen.because, seen.journal_row >= 0)

    def _settled_by_policy(self, seen: _Seen, sent: Sent, deadline: Deadline | None) -> Decision:
        started_ns = self._clock.monotonic_ns()
        try:
            decision = self._judged(seen, sent, deadline)
            return self._keep(decision, seen, self._clock.monotonic_ns() - started_ns)
        except BaseException:  # an interrupt, say: nobody will keep a decision for those who wait for it
            self._abandon(seen.key)
            raise

    def _abandon(self, *keys: int) -> None:
        with self._lock:
            self._under_way.difference_update(keys)
            self._twin_settled.notify_all()

    def _see(
        self, sent: Any, transaction: Transaction | None, record: bool, deadline: Deadline | None
    ) -> Decision | _Seen | None:
        """
        Read, remember and score, all in one kernel call.

        Returns
        -------
        Decision
            The score alone settles it, or it was made before.
        _Seen
            More must be asked.
        None
            Nothing was done: the kernel cannot read it.
        """
        stage, judge = "encoding", self._judge
        try:
            with self._lock:
                judge = self._judge
                ask = deadline is None or not deadline.passed()
                mapping, latest_us = id(sent), self._clock.now_us() + self._future_skew_us
                status, because = NEEDS_ROOM, ""
                self._changed[CHANGED_BLIND] = 0
                self._changed[CHANGED_ELSEWHERE] = record and self._asked is not None
                record = record and self._asked is None
                while status in _NOT_YET:
                    if transaction is not None:
                        mapping, latest_us = 0, kernels.LATEST_US
                        self._encoder.encode(transaction, self._ints, self._numbers)
                        if record and self._tombstones.cover(self._ints[0]):
                            record, because = False, _WAS_ERASED
                    stage = "features"
                    # fmt: off
                    status, journal_row = kernels.score_one(
                        mapping, latest_us, record, ask, self._program, self._context,
                        judge.words, judge.scale, self._out, self._latency.words, self._log,
                    )
                    # fmt: on
                    if status == NEEDS_ROOM:
                        self._engine.grow()
                    elif status == kernels.FULL:
                        because = self._room_for(1, deadline)
                        record = not because
                    elif status == kernels.NOT_AT_HAND:
                        unread = self._look_up(self._ints.copy(), record, deadline)
                        because = because or unread
                        record &= not because
                        self._changed[CHANGED_BLIND] = 1
                if self._shared is not None and status not in (DUPLICATE, kernels.UNREAD):
                    because = because or self._shared.doubt(self._engine.named_keys)
                self._n_seen += 1
                if self._n_seen % _TIMED_EVERY == 0:
                    self._engine.time_features()
                    self._supply_pages()
                if status == kernels.APPROVED and (deadline is None or not deadline.passed()):
                    margin, score = self._out.tolist()
                    named = id_of(sent if transaction is None else transaction)
                    return self._promised(approval(named, score, margin, judge.version), because, record)
                if status == LIFECYCLE:
                    named = id_of(sent if transaction is None else transaction)
                    return self._promised(_aftermath(named, judge.version), because, record)
                if status == kernels.UNREAD:
                    return None
                key = int(self._ints[0, TRANSACTION_KEY])
                if status == DUPLICATE:
                    known = Sent.of(sent if transaction is None else transaction)
                    return self._promised(self._recorded(known, key, journal_row, deadline), "", True)
                if (
                    not record
                ):  # a what-if may find its transaction in the journal, and must leave the verdict there alone
                    journal_row = -1
                else:
                    self._under_way.add(key)
                margin, score = self._out.tolist()
                return _Seen(judge, key, journal_row, self._row.copy(), margin, score, because=because)
        except InvalidTransactionError:
            raise
        except Exception as error:  # not the caller's fault: a decision is due whatever broke
            return _Seen(judge, 0, failed=f"{stage}: {_described(error)}")

    def _judged(self, seen: _Seen, sent: Sent, deadline: Deadline | None) -> Decision:
        judge, row, margin, score, stage = seen.judge, seen.row, seen.margin, seen.score, "model"
        try:
            if seen.failed is not None:
                return self._fallback(judge, sent, row, seen.failed)
            assert row is not None
            if judge.model is None:
                return self._fallback(judge, sent, row, "model: none is loaded")
            if math.isnan(margin):  # the kernel did not ask
                if deadline is not None and deadline.passed():
                    return self._fallback(judge, sent, row, "deadline: passed before the model was asked")
                margin = judge.model.margin(row)
                score = judge.calibration.probability(margin)
            stage = "policy"
            # To make a Transaction of what was sent takes as long as everything before; most policies need its id alone.
            transaction: Any = self._encoder.prepare(sent.whole()) if judge.policy.reads_transaction else sent
            decision = judge.policy.decide(
                transaction, row, margin, score, judge.version, lambda: _in_time(judge, row, deadline)
            )
            if deadline is not None and deadline.passed() and not decision.degraded:
                decision = replace(decision, degraded=True, degraded_because="deadline: passed while deciding")
            return decision
        except Exception as error:  # not the caller's fault: a decision is due whatever broke
            return self._fallback(judge, sent, row, f"{stage}: {_described(error)}")

    def _encoded(
        self, table: Any, sent_us: npt.NDArray[np.int64] | None = None
    ) -> tuple[EncodedTransactions, RowsSent]:
        """A table as rows of the border, and as it was sent."""
        encoded: EncodedTransactions
        sent: RowsSent
        if hasattr(table, "encoded_by"):  # it has a form of its own, and reads that faster than its mappings
            encoded, sent = table.encoded_by(self._encoder), table
        elif hasattr(table, "column_names") and self._is_read_by_column(table):
            encoded, sent = self._encoder.encode_table(table), SentRows(table)
        else:
            rows = list(rows_of(table))
            encoded, sent = self._encoder.encode_mappings(rows), SentRows(rows)
        now_us = self._clock.now_us() if sent_us is None else sent_us
        late = encoded.ints[:, EVENT_TIME_US] > now_us + self._future_skew_us
        if late.any():
            row = int(np.argmax(late))
            raise self._from_the_future(encoded.transaction_ids[row]).in_row(row)
        return encoded, sent

    def _decide_some(self, batch: _Batch, first: int) -> int:
        """
        Decide on the next rows of a batch, up to `_rows_at_once`: features, margins and approvals by a kernel call each.

        Returns
        -------
        int
            How many.  Fewer where a duplicate is among them, which is then the last.
        """
        at = slice(first, first + self._rows_at_once)
        ints, numbers, out = batch.encoded.ints[at], batch.encoded.numbers[at], batch.out[at]
        with self._lock:
            singly = batch.record and bool(self._room_for(len(ints)) or self._may_be_erased(ints))
            if self._shared is not None and not singly:
                because = self._look_up(ints, batch.record, None)
                singly = batch.record and bool(because)  # some can be remembered, one by one
                batch.because = batch.because or ("" if batch.record else because)
            if not singly:
                seen, failed = self._see_some(batch, ints, numbers, out)
                if self._shared is not None:
                    batch.because = batch.because or self._shared.doubt()
                open_rows = np.flatnonzero(seen[:, 0] != kernels.APPROVED)
                waited_for = open_rows[seen[open_rows, 0] == SCORED] if batch.record else []
                under_way = ints[waited_for, TRANSACTION_KEY].tolist()
                self._under_way.update(under_way)
                self._supply_pages()
        if singly:  # one by one each finds out for itself, and what is known needs no room
            for row in range(first, first + len(ints)):
                batch.single_out(row, self._decide(batch.sent.row(row), True, None))
            return len(ints)
        try:
            for i in open_rows.tolist():
                status, journal_row = seen[i].tolist()
                one = self._decided_in_batch(batch, first + i, status, journal_row, batch.rows[i], failed)
                batch.single_out(first + i, one)
        except BaseException:
            self._abandon(*under_way)
            raise
        return len(seen)

    def _leave_undecided(self, batch: _Batch, first: int) -> None:
        """Nobody waits for the rows from `first` on: somebody must look at them."""
        for row in range(first, len(batch.encoded)):
            batch.single_out(row, _default(batch.encoded.transaction_ids[row], _OUT_OF_TIME))
        if first < len(batch.encoded):
            with self._lock:
                self._failures["degraded"] += len(batch.encoded) - first

    def _see_some(
        self, batch: _Batch, ints: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64], out: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int64], str | None]:
        """What `_see` does, of many rows; status and journal row of each, and why the model said nothing.  Under the lock."""
        judge, rows, seen, failed = batch.judge, batch.rows, batch.seen[: len(ints)], None
        seen[:, 0] = _UNSEEN
        n: int = 0
        self._changed[CHANGED_ELSEWHERE] = batch.is_kept_elsewhere
        try:
            while True:
                n = kernels.observe_many(ints, numbers, n, batch.record, rows, self._context, seen)
                if n == len(ints) or seen[n, 0] != NEEDS_ROOM:
                    break
                self._engine.grow()
            margins = np.full(n, np.nan, np.float32)
            try:
                if judge.model is not None:
                    margins = judge.model.margins(rows[:n])
            except Exception as error:  # not the caller's fault: a decision is due whatever broke
                failed = f"model: {_described(error)}"
            kernels.settle_many(margins, batch.record, self._context, judge.words, judge.scale, seen, out)
        finally:  # whatever interrupts this: what is remembered must be in the log
            if batch.record:
                kernels.log_many(ints, numbers, seen, out, judge.words, self._log)
        return seen[:n], failed

    def _decided_in_batch(
        self,
        batch: _Batch,
        row: int,
        status: int,
        journal_row: int,
        features: npt.NDArray[np.float32],
        failed: str | None,
    ) -> Decision:
        """One row of a batch that its score alone did not settle."""
        transaction_id, key = batch.encoded.transaction_ids[row], int(batch.encoded.ints[row, TRANSACTION_KEY])
        if status == LIFECYCLE:
            return _aftermath(transaction_id, batch.judge.version)
        sent = Sent(transaction_id, partial(batch.sent.row, row))
        if status == DUPLICATE:
            with self._lock:
                return self._recorded(sent, key, journal_row, None)
        margin, score = batch.out[row].tolist()
        one = _Seen(batch.judge, key, journal_row if batch.record else -1, features, margin, score, failed)
        return self._settled_by_policy(one, sent, None)

    def _supply_pages(self) -> None:
        """Have the memory that is used next supplied, on another thread; called under the lock."""
        memory = self._engine.memory
        if memory.is_short_of_pages and (self._supplier is None or not self._supplier.is_alive()):
            supplier = threading.Thread(target=memory.supply_pages, name="fraudsdk-pages", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads: pages come one by one, as they are touched
                supplier.start()
                self._supplier = supplier

    def _from_the_future(self, transaction_id: str) -> InvalidTransactionError:
        return InvalidTransactionError(
            "event_time",
            f"lies more than {self._future_skew_us // 1_000_000} s in the future",
            "check the unit and the sender's clock",
            transaction_id=masked(transaction_id),
        )

    def _prepare(self, transaction: Transaction | Mapping[str, Any]) -> Transaction:
        prepared = self._encoder.prepare(transaction)
        if prepared.event_time_us > self._clock.now_us() + self._future_skew_us:
            raise self._from_the_future(prepared.transaction_id)
        return prepared

    def _fallback(self, judge: Judge, sent: Sent, row: npt.NDArray[np.float32] | None, because: str) -> Decision:
        try:
            return judge.policy.fallback(self._encoder.prepare(sent.whole()), row, because)
        except Exception as error:  # the last rung: nothing is computed any more
            return _default(sent.transaction_id, f"{because}; fallback: {_described(error)}")

    def _decide_undecided(self) -> None:
        """
        Decide on what was remembered, but not decided, when the last process died: from the rows as they were then.

        A policy that reads the transaction cannot be asked: its text is not kept.  Duplicates of those are told so.
        """
        if self._state is None or self._judge.policy.reads_transaction:
            return
        for each in self._state.recovered.undecided:
            seen = _Seen(self._judge, each.key, each.journal_row, each.row)
            self._settled_by_policy(seen, Sent("", dict), None)

    def _look_up(self, ints: npt.NDArray[np.int64], record: bool, deadline: Deadline | None) -> str:
        """
        Read what others know of entities that are not in memory.  Called under the lock, which is let go meanwhile.

        Returns
        -------
        str
            Empty, or why the transactions cannot be remembered, or a what-if knows less than it should.  Where the store did not
            answer they can be, mostly: what it knows is added once it does.
        """
        assert self._shared is not None
        at_most_s = math.inf if deadline is None else deadline.remaining_s()
        if self._shared.have_at_hand(ints, len(ints), at_most_s):
            return ""
        if not record:
            return self._shared.unread_because()
        if (ints[:, FLAGS] & (REVERSAL | CHARGEBACK)).any():  # of entities that are not there nothing can be undone
            return "what it changes cannot be read now; send it again later"
        self._shared.go_blind(ints)
        return ""

    def _room_for(self, n_events: int, deadline: Deadline | None = None) -> str:
        """Wait for room to log transactions; empty, or why there is none.  Called under the lock, which it may let go."""
        if self._shared is not None:
            return self._shared.room()
        if self._state is None:
            return ""
        return self._state.wait_for_room(n_events, math.inf if deadline is None else deadline.remaining_s())

    def _require_at_hand(self, transaction_key: int) -> None:
        """Have the entities that a transaction is remembered of in memory.  Called under the lock, which may be let go."""
        if self._shared is None:
            return
        if because := self._shared.room():
            raise StateUnavailableError(f"what was said was not taken: {because}; say it again later")
        if not self._shared.have_entities(self._engine.keys_of(transaction_key), _PATIENCE):
            raise StateUnavailableError(
                "what was said was not taken: the entities that it changes cannot be read now; say it again later"
            )

    def _may_be_erased(self, ints: npt.NDArray[np.int64]) -> bool:
        """Whether some of these are of somebody who was erased since."""
        old = np.flatnonzero(ints[:, EVENT_TIME_US] <= self._context[ERASED_UNTIL_US])
        return any(self._tombstones.columns_of(ints[row]) for row in old.tolist())

    def _amend(self, key: int, set_bits: int, clear_bits: int) -> bool:
        """Change the flags of a remembered transaction, here and in the log.  Called under the lock."""
        if self._state is not None:
            self._state.require_room_for_amendment()
            self._state.keep_amendment(key, set_bits, clear_bits)
        if self._shared is not None:
            self._shared.amends(key)
        return self._engine.amend(key, set_bits, clear_bits)

    def _settled(self) -> str:
        """Wait until what was recorded is kept as was asked for; empty, or why it is not.  Called under the lock."""
        return "" if self._state is None else self._state.settle()

    def _promised(self, decision: Decision, because: str, record: bool) -> Decision:
        """A decision once its transaction is kept, or with why it is not.  Called under the lock."""
        because = because or (self._settled() if record else "")
        if not because:
            return decision
        self._failures["degraded"] += not decision.degraded
        return unkept(decision, because)

    def _all_unkept(self, decisions: Decisions, because: str) -> Decisions:
        """Decisions of a batch that is not, or not surely, kept."""
        told = {row: unkept(decision, because) for row, decision in enumerate(decisions)}
        with self._lock:
            self._failures["degraded"] += sum(not decision.degraded for decision in decisions)
        return Decisions(decisions.transaction_ids, decisions.scores, decisions.margins, "", told)

    def _keep(self, decision: Decision, seen: _Seen, policy_ns: int) -> Decision:
        """Record a decision for its duplicates, and count it where it is less than a full one."""
        recorded = Recorded(decision.margin, decision.score, self._recorder.pack(decision))
        with self._lock:
            self._failures["degraded"] += decision.degraded
            self._latency.policy.record(policy_ns)
            if seen.journal_row >= 0:
                is_kept = self._engine.keep_verdict(seen.journal_row, seen.key, recorded)
                if self._state is not None and is_kept:
                    self._state.keep_verdict(seen.key, recorded)
                self._under_way.discard(seen.key)
                if self._n_waiting:
                    self._twin_settled.notify_all()
        return decision

    def _recorded(self, sent: Sent, key: int, journal_row: int, deadline: Deadline | None) -> Decision:
        """
        The decision kept for a duplicate; one that came in without being decided (a replay) has none.

        Called under the lock.  A first decision that is still being made is waited for: two answers to one transaction
        would be worse than a late one.
        """
        if key in self._under_way:
            self._n_waiting += 1
            self._twin_settled.wait_for(
                lambda: key not in self._under_way, _TWIN_WAIT_S if deadline is None else deadline.remaining_s()
            )
            self._n_waiting -= 1
        kept = self._engine.verdict_of(journal_row, key)
        decision = self._recorder.unpack(sent.transaction_id, kept.margin, kept.score, kept.verdict)
        if decision is None and self._asked is not None:
            decision = self._asked.first(sent.transaction_id)
        if decision is None:
            self._failures["degraded"] += 1
            decision = self._fallback(self._judge, sent, None, "duplicate: its first decision is not known")
        return replace(decision, duplicate=True)

    def _tell(self, *decisions: Decision) -> None:
        if self._sink is None or not decisions:
            return
        with self._sink_lock:
            try:
                self._sink.write(decisions)
            except Exception:  # the decision is made; that it was not passed on is counted, not the caller's to handle
                self._failures["sink_refused"] += len(decisions)


def _rows_at_once(max_entities: int, n_kinds: int, shared: SharedStore | StreamedState | None) -> int:
    """Rows of a batch that are decided under one lock; shared memory must hold what they name, and as much again."""
    return _ROWS_AT_ONCE if shared is None else min(_ROWS_AT_ONCE, max_entities // (2 * n_kinds))


def unkept(decision: Decision, because: str) -> Decision:
    """A decision, marked with why its transaction is not, or not surely, remembered as it should be."""
    why = f"state: {because}"
    if decision.degraded_because:
        why = f"{decision.degraded_because}; {why}"
    return replace(decision, degraded=True, degraded_because=why)


def _default(transaction_id: str, because: str) -> Decision:
    """Where nobody and nothing decided: a person must."""
    return Decision(
        transaction_id=transaction_id,
        outcome=Outcome.REVIEW,
        score=math.nan,
        margin=math.nan,
        reasons=(),
        model_version="none",
        decided_by="fallback",
        degraded=True,
        degraded_because=because,
    )


def _aftermath(transaction_id: str, model_version: str) -> Decision:
    """Of a reversal or chargeback, which is not itself judged."""
    return Decision(
        transaction_id=transaction_id,
        outcome=Outcome.APPROVE,
        score=math.nan,
        margin=math.nan,
        reasons=(),
        model_version=model_version,
        decided_by="lifecycle",
    )


def _in_time(judge: Judge, row: npt.NDArray[np.float32], deadline: Deadline | None) -> npt.NDArray[np.float64]:
    if deadline is not None and deadline.passed():
        raise DeadlineExceededError("the deadline passed before the explainer was asked")
    return contributions(judge, row)


def _parsed(field: str, value: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except RefusedValue as refused:
        raise InvalidTransactionError(field, refused.problem, refused.remedy) from None


def _described(error: Exception) -> str:
    # Our own messages are masked; what a library puts into its message is anybody's guess.
    return f"{type(error).__name__}: {error}" if isinstance(error, FraudSDKError) else type(error).__name__
