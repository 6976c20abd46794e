"""
The scoring service: a thin conversion around one `Scorer`.

    message -> mapping -> Scorer -> Decision -> message       one transaction
    bytes   -> rows    -> Scorer -> Decisions -> bytes        many

It decides nothing itself, keeps nothing between calls, and says no to what it is not built for: messages of more transactions
than it was told to take, and work for callers who are gone.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf import message_factory
from google.protobuf.message import Message
from grpc_status import rpc_status

import fraudsdk
from fraudsdk.adapters.grpc.errors import refusal_of, status_of
from fraudsdk.adapters.protobuf import decision_message, mapping_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf.explanations import explanation_message
from fraudsdk.adapters.protobuf.wire import WireTransactions, warm_up_wire
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.errors import DeadlineExceededError, FraudSDKError, InvalidTransactionError, ModelError
from fraudsdk.features.spec import FeatureSet
from fraudsdk.model.artefact import CompiledModel
from fraudsdk.scorer import Scorer
from fraudsdk.telemetry.clock import US_PER_S, Deadline

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["ScoringService"]
SERVICE_NAME: Final = _SERVICE.full_name
DEFAULT_MAX_TRANSACTIONS: Final = 10_000
# Of a caller's deadline, what the answer needs on its way back: half of what is left, at most this.
_WAY_BACK_US: Final = 500
# Of each transaction of a message besides, for those that nobody decided on are written one by one.
_ROW_BACK_US: Final = 5
# What is left of a call without a deadline: gRPC says some three hundred years.
_NO_DEADLINE_S: Final = 365 * 86_400
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


class ScoringService:
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
        warm_up_wire()

    def add_to(self, server: grpc.Server) -> None:
        """Have a server answer by this service."""
        handlers = {method.name: self._handler_of(method) for method in _SERVICE.methods}
        # Both, as generated code does: calls of a method that is registered wait in a queue of their own, by its name.
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    @_answered("transaction")
    def Score(self, request: pb.ScoreRequest, context: grpc.ServicerContext) -> pb.ScoreResponse:
        """Decide on one transaction; the caller's deadline picks the rung."""
        decision = self._scorer.score(
            mapping_of(request.transaction),
            record=not request.HasField("record") or request.record,
            deadline=_deadline_of(context),
        )
        return pb.ScoreResponse(decision=decision_message(decision))

    @_answered("transactions")
    def ScoreBatch(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Decide on many transactions, or on none of them."""
        return self._decide(request, context)

    def ScoreStream(self, request_iterator: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
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
    def _answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """Answer one message of a stream, which what is wrong with it does not end."""
        try:
            return self._decide(request, context)
        except InvalidTransactionError as error:
            return pb.ScoreStreamResponse(refusal=refusal_of(error)).SerializeToString()

    def _decide(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        """From a message of many transactions to one of their decisions, which both calls spell alike."""
        if not context.is_active():
            raise _CallerGone
        sent = WireTransactions(request, self._max_transactions)
        deadline = _deadline_of(context, _ROW_BACK_US * len(sent))
        decisions = self._scorer.score_batch(sent, record=sent.record, goes_on=partial(_is_awaited, context, deadline))
        if not context.is_active():
            raise _CallerGone
        return sent.answer(decisions)

    def _handler_of(self, method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        behaviour = getattr(self, method.name)
        if method.client_streaming:
            return grpc.stream_stream_rpc_method_handler(behaviour)
        if (
            method.name == "ScoreBatch"
        ):  # reads and writes bytes, as the stream does: 2 us a transaction, where messages take 9
            return grpc.unary_unary_rpc_method_handler(behaviour)
        request = message_factory.GetMessageClass(method.input_type)
        return grpc.unary_unary_rpc_method_handler(
            behaviour, request_deserializer=request.FromString, response_serializer=_serialised
        )


def _serialised(message: Message) -> bytes:
    return message.SerializeToString()


def _is_awaited(context: Any, deadline: Deadline | None) -> bool:
    return bool(context.is_active()) and (deadline is None or not deadline.passed())


def _deadline_of(context: Any, more_us: int = 0) -> Deadline | None:
    """When the scorer must have decided, so that the answer arrives in time; one of many rows takes `more_us` to write."""
    remaining_s = context.time_remaining()
    if remaining_s is None or remaining_s > _NO_DEADLINE_S:
        return None
    remaining_us = int(remaining_s * US_PER_S)
    if remaining_us <= 0:
        raise _CallerGone
    return Deadline.after_us(remaining_us - min(remaining_us // 2, _WAY_BACK_US + more_us))


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
