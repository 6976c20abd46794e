"""
A client of the scoring service in the product's own types: what a host writes around it is what it writes around a `Scorer`.

It retries what a moment may cure, and nothing else, within the caller's deadline; to repeat a call is safe, for a transaction
counts once, by its id.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from fraudsdk.adapters.grpc._generated import scoring_service_pb2_grpc as service
from fraudsdk.adapters.grpc.batching import Batcher
from fraudsdk.adapters.grpc.errors import code_of, error_of, invalid_of, retry_after_s
from fraudsdk.adapters.protobuf import decision_of, message_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb
from fraudsdk.adapters.protobuf.explanations import explanation_of
from fraudsdk.domain.decision import Decision
from fraudsdk.domain.explanation import Explanation
from fraudsdk.domain.schema import FeatureInfo, FeatureSchema
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError, InvalidTransactionError
from fraudsdk.telemetry.clock import US_PER_S, Deadline

DEFAULT_TIMEOUT_S: Final = 1.0
# The second attempt comes 10 to 20 ms after the first, the third 20 to 40 ms later, unless the service names a time.
DEFAULT_MAX_ATTEMPTS: Final = 3
# A server that stops drops what has just arrived as CANCELLED, which nobody asked for: only `close` cancels a call.
_CURABLE: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.5
# A batch of 10,000 transactions has some 3 MB, and gRPC takes 4 unless it is told otherwise.
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
# gRPC waits a second before it tries a lost connection again, and longer each time; a service that restarts is back before that.
_RECONNECT: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
_LOCAL: Final = ("unix:", "unix-abstract:", "localhost:", "127.", "[::1]:", "ipv4:127.", "ipv6:[::1]")

Sent = Transaction | Mapping[str, Any]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ClientTls:
    """
    What a client shows and believes.

    Attributes
    ----------
    authority : Path or None
        Certificates, PEM, that the service's must be signed by; None means those of the system.
    certificate, key : Path or None
        The client's own, PEM, where the service asks for one; both or none.
    server_name : str or None
        Name in the service's certificate, where the target has another.
    """

    authority: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """
        Read the files.

        Raises
        ------
        ConfigurationError
            One cannot be read, or a certificate is without its key.
        """
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("certificate and key come together; name both, or none")
        return grpc.ssl_channel_credentials(_read(self.authority), _read(self.key), _read(self.certificate))


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """
    The model that decides now, as the service tells it.

    Attributes
    ----------
    version : str
        As decisions carry it, or ``"none"``.
    fraudsdk_version : str
        Of the service.
    details : mapping of str to value
        What `ModelInfo` of the contract holds, by its names; empty where there is no model.
    """

    version: str
    fraudsdk_version: str
    details: Mapping[str, Any]


class ScoringClient:
    """
    Asks a scoring service.  Any number of threads may share one; make it once, for a channel takes long to open.

    Parameters
    ----------
    target : str
        ``"host:port"``, or ``"unix:/path"``.
    timeout_s : float
        How long a call may take where it does not say, retries included.
    tls : ClientTls or None
        None speaks in plain text.
    token : str, callable, or None
        Bearer token, or what gives one for each call.  It is not sent in plain text, but to this machine.
    max_attempts : int
        Of one call, the first included.
    options : sequence of (str, value)
        Further options of the channel.

    Raises
    ------
    ConfigurationError
        A token would leave the machine in plain text, or a file cannot be read.

    Examples
    --------
    >>> with ScoringClient("unix:/run/fraudsdk.sock") as client:                   # doctest: +SKIP
    ...     client.score({"transaction_id": "t-1", "card_id": "c-1", "amount": "12.50",
    ...                   "currency": "GBP", "event_time": "2026-11-23T10:00:00Z"}).outcome
    <Outcome.APPROVE: 'APPROVE'>
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        tls: ClientTls | None = None,
        token: str | Callable[[], str] | None = None,
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        if tls is None and token is not None and not target.startswith(_LOCAL):
            raise ConfigurationError(f"the token would go to {target} in plain text, for anybody to read; give tls")
        if max_attempts < 1 or timeout_s <= 0:
            raise ConfigurationError(
                f"max_attempts must be >= 1 and timeout_s > 0, were {max_attempts} and {timeout_s}; give others"
            )
        self._timeout_s = timeout_s
        self._token = token
        self._max_attempts = max_attempts
        self._is_closed = False
        self._channel = _channel_to(target, tls, options)
        self._stub = service.ScoringServiceStub(self._channel)

    def score(self, transaction: Sent, *, record: bool = True, timeout_s: float | None = None) -> Decision:
        """
        Decide on one transaction; as `Scorer.score`.

        Raises
        ------
        InvalidTransactionError
            The transaction is wrong.  Of several wrong fields any may be named.
        DeadlineExceededError
            The service did not answer in time.
        ServiceUnavailableError
            It cannot be reached.
        ServiceError
            It failed.
        """
        request = pb.ScoreRequest(transaction=message_of(transaction))
        if not record:
            request.record = False
        response = self._call(self._stub.Score, request, timeout_s)
        return decision_of(response.decision)

    def score_batch(
        self, transactions: Sequence[Sent], *, record: bool = True, timeout_s: float | None = None
    ) -> list[Decision]:
        """Decide on many transactions, in the order given, or on none; as `Scorer.score_batch`.  Raises what `score` does."""
        request = pb.ScoreBatchRequest(transactions=_messages_of(transactions))
        if not record:
            request.record = False
        response = self._call(self._stub.ScoreBatch, request, timeout_s)
        return [decision_of(decision) for decision in response.decisions]

    def score_stream(
        self, messages: Iterable[Sequence[Sent]], *, record: bool = True, timeout_s: float | None = None
    ) -> Iterator[list[Decision] | InvalidTransactionError]:
        """
        Decide on transactions message by message, for as long as there are any.

        Parameters
        ----------
        messages : iterable of sequences of transactions
            Read as fast as the service answers, by another thread.
        timeout_s : float, optional
            For the whole stream; by default it has all the time there is.

        Yields
        ------
        list of Decision, or InvalidTransactionError
            For each message, in order: its decisions, or why it was refused as a whole.

        Raises
        ------
        DeadlineExceededError, ServiceUnavailableError, ServiceError
            As `score`.  A stream is not begun again: only the caller knows what it had sent.
        """
        refused_here: deque[InvalidTransactionError | None] = deque()

        def requests() -> Iterator[pb.ScoreStreamRequest]:
            for transactions in messages:
                try:
                    request = pb.ScoreStreamRequest(transactions=_messages_of(transactions))
                except InvalidTransactionError as error:
                    refused_here.append(error)
                    continue
                if not record:
                    request.record = False
                refused_here.append(None)
                yield request

        call = self._stub.ScoreStream(requests(), timeout=timeout_s, metadata=self._metadata())
        try:
            for response in call:
                while (error := refused_here.popleft()) is not None:
                    yield error
                if response.HasField("refusal"):
                    yield invalid_of(response.refusal)
                else:
                    yield [decision_of(decision) for decision in response.decisions]
            yield from (error for error in refused_here if error is not None)
        except grpc.RpcError as error:
            raise error_of(error) from error
        finally:
            call.cancel()

    def explain(self, transaction: Sent, *, timeout_s: float | None = None) -> Explanation:
        """
        Take the margin of a transaction apart; as `Scorer.explain`.

        Raises
        ------
        ModelError
            There is no model, or it carries no explanations.
        InvalidTransactionError, DeadlineExceededError, ServiceUnavailableError, ServiceError
            As `score`.
        """
        request = pb.ExplainRequest(transaction=message_of(transaction))
        response = self._call(self._stub.Explain, request, timeout_s)
        return explanation_of(response.explanation)

    def feedback(
        self,
        transaction_id: str,
        *,
        is_fraud: bool | None = None,
        declined: bool | None = None,
        timeout_s: float | None = None,
    ) -> bool:
        """Tell what became of a transaction; as `Scorer.feedback`, False where it is no longer remembered."""
        request = pb.FeedbackRequest(transaction_id=transaction_id, is_fraud=is_fraud, declined=declined)
        return self._call(self._stub.Feedback, request, timeout_s).remembered

    def model_info(self, *, timeout_s: float | None = None) -> ModelDescription:
        """Ask which model decides now."""
        response = self._call(self._stub.GetModelInfo, pb.GetModelInfoRequest(), timeout_s)
        details = {field.name: getattr(response.model, field.name) for field in pb.ModelInfo.DESCRIPTOR.fields}
        return ModelDescription(
            response.model_version, response.fraudsdk_version, details if response.HasField("model") else {}
        )

    def features(self, *, timeout_s: float | None = None) -> FeatureSchema:
        """List the features that the model reads."""
        response = self._call(self._stub.ListFeatures, pb.ListFeaturesRequest(), timeout_s)
        features = tuple(
            FeatureInfo(each.name, each.family, each.reason, each.description, each.categorical)
            for each in response.features
        )
        return FeatureSchema(features, response.schema_fingerprint)

    def batcher(self, *, max_batch: int = 100, linger_s: float = 0.001, max_queued: int = 10_000) -> Batcher:
        """
        Score many transactions of many threads in few calls; close it, or use it with ``with``.

        Parameters
        ----------
        max_batch : int
            Transactions of one call.
        linger_s : float
            How long the first of a batch waits for others.
        max_queued : int
            Transactions that wait; one more is refused.
        """
        return Batcher(self.score_batch, max_batch=max_batch, linger_s=linger_s, max_queued=max_queued)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self._is_closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        token = self._token() if callable(self._token) else self._token
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def _call(self, method: Callable[..., _Answer], request: Any, timeout_s: float | None) -> _Answer:
        deadline = Deadline.after_us(round((self._timeout_s if timeout_s is None else timeout_s) * US_PER_S))
        for attempt in range(1, self._max_attempts + 1):
            try:
                return method(request, timeout=deadline.remaining_s(), metadata=self._metadata())
            except grpc.RpcError as error:
                pause_s = _pause_before(attempt + 1, error)
                is_last = attempt == self._max_attempts or pause_s >= deadline.remaining_s()
                if is_last or self._is_closed or code_of(error) not in _CURABLE:
                    raise error_of(error) from error
                time.sleep(pause_s)
                if self._is_closed:
                    raise error_of(error) from error
        raise AssertionError("the last attempt returns or raises")


def _pause_before(attempt: int, error: grpc.RpcError) -> float:
    """Seconds before an attempt: doubled each time, and anything up to that, so that clients do not come back together."""
    longest_s = min(_FIRST_PAUSE_S * 2.0 ** (attempt - 2), _LONGEST_PAUSE_S)
    return max(retry_after_s(error) or 0.0, random.uniform(longest_s / 2, longest_s))


def _channel_to(target: str, tls: ClientTls | None, options: Sequence[tuple[str, Any]]) -> grpc.Channel:
    sizes = [(f"grpc.max_{way}_message_length", _MAX_MESSAGE_BYTES) for way in ("send", "receive")]
    settings = [*sizes, *_RECONNECT, *options]
    if tls is None:
        return grpc.insecure_channel(target, settings)
    named = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(target, tls.credentials(), [*named, *settings])


def _read(path: Path | str | None) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror}); name a PEM file") from error


def _messages_of(transactions: Sequence[Sent]) -> list[Any]:
    messages = []
    for row, transaction in enumerate(transactions):
        try:
            messages.append(message_of(transaction))
        except InvalidTransactionError as error:
            raise error.in_row(row) from None
    return messages
