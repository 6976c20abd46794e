"""
The scoring service: a thin conversion around one `Scorer`.

    message -> mapping -> Scorer -> Decision -> message

It decides nothing itself, keeps nothing between calls, and says no to what it is not built for: messages of more transactions
than it was told to take, and work for callers who are gone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from grpc_status import rpc_status

import fraudsdk
from fraudsdk.adapters.grpc._generated import scoring_service_pb2_grpc as service
from fraudsdk.adapters.grpc.errors import refusal_of, status_of
from fraudsdk.adapters.protobuf import decision_message, mapping_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf.explanations import explanation_message
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import DeadlineExceededError, FraudSDKError, InvalidTransactionError, ModelError
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel
from fraudsdk.scorer import Scorer
from fraudsdk.telemetry.clock import US_PER_S, Deadline

SERVICE_NAME: Final = pb.DESCRIPTOR.services_by_name["ScoringService"].full_name
DEFAULT_MAX_TRANSACTIONS: Final = 10_000
# Of a caller's deadline, what the answer needs on its way back: half of what is left, at most this.
_WAY_BACK_US: Final = 500
# Transactions that are read, or answers that are written, before it is seen whether anybody waits for them.
_AT_ONCE: Final = 1_000
_FEATURES_FILE: Final = "features.toml"

_log = logging.getLogger(__name__)


class _CallerGone(Exception):
    """Nobody waits for the answer."""


def _answered(where: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turns what a method raises into a status; `where` as in `status_of`."""

    def answered(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def answer(self: ScoringService, request: Any, context: grpc.ServicerContext) -> Any:
            try:
                return method(self, request, context)
            except _CallerGone:
                status = status_of(DeadlineExceededError("nobody waits for this answer any more"))
            except FraudSDKError as error:
                status = status_of(error, where)
            except Exception as error:
                # Neither the caller nor the log may learn what a library put into its message: it may quote what was sent.
                _log.error("%s failed: %s", method.__name__, type(error).__name__)
                status = status_of(error)
            return context.abort_with_status(rpc_status.to_status(status))

        return answer

    return answered


class ScoringService(service.ScoringServiceServicer):
    """
    The service of ``proto/fraudsdk/v1/scoring_service.proto`` around one scorer.

    Parameters
    ----------
    scorer : Scorer
        Open and warm.  It stays the caller's, who closes it after the server has stopped.
    max_transactions : int
        Transactions of one message; more are refused.

    Examples
    --------
    >>> server = grpc.server(ThreadPoolExecutor(8))                                # doctest: +SKIP
    >>> ScoringService(scorer).add_to(server)                                      # doctest: +SKIP
    """

    def __init__(self, scorer: Scorer, *, max_transactions: int = DEFAULT_MAX_TRANSACTIONS) -> None:
        self._scorer = scorer
        self._max_transactions = max_transactions

    def add_to(self, server: grpc.Server) -> None:
        """Have a server answer by this service."""
        service.add_ScoringServiceServicer_to_server(self, server)

    @_answered("transaction")
    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        """Decide on one transaction; the caller's deadline picks the rung."""
        decision = self._scorer.score(
            mapping_of(request.transaction), record=_records(request), deadline=_deadline_of(context)
        )
        return pb.ScoreResponse(decision=decision_message(decision))

    @_answered("transactions")
    def ScoreBatch(self, request: pb.ScoreBatchRequest, context: grpc.ServicerContext) -> pb.ScoreBatchResponse:
        """Decide on many transactions, or on none of them."""
        response = pb.ScoreBatchResponse()
        self._decide(request, response, context)
        return response

    def ScoreStream(
        self, request_iterator: Iterator[pb.ScoreStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ScoreStreamResponse]:
        """Answer message for message; the next is read once the answer to the one before was taken."""
        for request in request_iterator:
            yield self._answer(request, context)

    @_answered("transaction")
    def Explain(self, request: pb.ExplainRequest, context: grpc.ServicerContext) -> pb.ExplainResponse:
        """Take the margin of a transaction apart."""
        explanation = self._scorer.explain(mapping_of(request.transaction))
        return pb.ExplainResponse(explanation=explanation_message(explanation))

    @_answered("")
    def Feedback(self, request: pb.FeedbackRequest, context: grpc.ServicerContext) -> pb.FeedbackResponse:
        """Tell what became of a transaction."""
        remembered = self._scorer.feedback(
            request.transaction_id,
            is_fraud=request.is_fraud if request.HasField("is_fraud") else None,
            declined=request.declined if request.HasField("declined") else None,
        )
        return pb.FeedbackResponse(remembered=remembered)

    @_answered("")
    def GetModelInfo(self, request: pb.GetModelInfoRequest, context: grpc.ServicerContext) -> pb.GetModelInfoResponse:
        """Say which model decides now."""
        model = self._scorer.model
        return pb.GetModelInfoResponse(
            model_version="none" if model is None else model.version,
            model=None if model is None else _model_info(model),
            fraudsdk_version=fraudsdk.__version__,
        )

    @_answered("")
    def ListFeatures(self, request: pb.ListFeaturesRequest, context: grpc.ServicerContext) -> pb.ListFeaturesResponse:
        """List what the model reads."""
        model = self._scorer.model
        if model is None:
            raise ModelError("there is no model, and so nothing that reads features; open the scorer with one")
        schema = _schema_of(model)
        features = [
            pb.Feature(
                name=each.name,
                family=each.family,
                reason=each.reason,
                description=each.description,
                categorical=each.categorical,
            )
            for each in schema.features
        ]
        return pb.ListFeaturesResponse(features=features, schema_fingerprint=schema.fingerprint)

    @_answered("transactions")
    def _answer(self, request: pb.ScoreStreamRequest, context: grpc.ServicerContext) -> pb.ScoreStreamResponse:
        """Answer one message of a stream, which what is wrong with it does not end."""
        response = pb.ScoreStreamResponse()
        try:
            self._decide(request, response, context)
        except InvalidTransactionError as error:
            response.refusal.CopyFrom(refusal_of(error))
        return response

    def _decide(
        self,
        request: pb.ScoreBatchRequest | pb.ScoreStreamRequest,
        response: pb.ScoreBatchResponse | pb.ScoreStreamResponse,
        context: grpc.ServicerContext,
    ) -> None:
        transactions = request.transactions
        if len(transactions) > self._max_transactions:
            raise InvalidTransactionError(
                "transactions",
                f"must be at most {self._max_transactions}, were {len(transactions)}",
                "send them in several messages",
            )
        mappings = []
        for row, transaction in enumerate(transactions):
            if row % _AT_ONCE == 0:
                _require_caller(context)
            mappings.append(mapping_of(transaction))
        decisions = self._scorer.score_batch(mappings, record=_records(request))
        for row, decision in enumerate(decisions):
            if row % _AT_ONCE == 0:
                _require_caller(context)
            response.decisions.append(decision_message(decision))


def _records(request: pb.ScoreRequest | pb.ScoreBatchRequest | pb.ScoreStreamRequest) -> bool:
    return request.record if request.HasField("record") else True


def _deadline_of(context: Any) -> Deadline | None:
    """When the scorer must have decided, so that the answer arrives in time."""
    remaining_s = context.time_remaining()
    if remaining_s is None:
        return None
    remaining_us = int(remaining_s * US_PER_S)
    if remaining_us <= 0:
        raise _CallerGone
    return Deadline.after_us(remaining_us - min(remaining_us // 2, _WAY_BACK_US))


def _require_caller(context: grpc.ServicerContext) -> None:
    if not context.is_active():
        raise _CallerGone


@functools.lru_cache(maxsize=4)
def _schema_of(model: CompiledModel) -> FeatureSchema:
    return FeatureSet.from_toml(model.read(_FEATURES_FILE).decode()).schema


def _model_info(model: CompiledModel) -> pb.ModelInfo:
    manifest = model.manifest
    return pb.ModelInfo(
        name=manifest.name,
        version=manifest.version,
        created_at=manifest.created_at,
        engine=model.engine,
        n_trees=manifest.n_trees,
        depth=manifest.depth,
        n_features=len(manifest.feature_names),
        schema_fingerprint=manifest.schema_fingerprint,
        source_sha256=manifest.source_sha256,
        calibrated=manifest.calibration is not None,
        explains=model.explainer is not None,
    )
