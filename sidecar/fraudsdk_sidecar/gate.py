"""
What stands between a connection and the servicer, for every call, in this order:

    token -> is there such a method -> who -> may they -> how many streams -> how often -> the servicer -> counted, traced

The first two are looked at before any of the message is read, on the one thread that hands out calls; a token that was verified
once is found by its hash.  The others are looked at on the thread that answers.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.code_pb2 import RESOURCE_EXHAUSTED
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from fraudsdk_sidecar.auth import Authenticator, Client, Refused, scope_of
from fraudsdk_sidecar.figures import CallFigures
from fraudsdk_sidecar.limits import RateLimiter, StreamPlaces
from fraudsdk_sidecar.logs import Namer, event
from fraudsdk_sidecar.tracing import Tracer

UNAUTHENTICATED_TEXT: Final = "authentication failed: send a valid bearer token or certificate"
_HEALTH: Final = "/grpc.health.v1.Health/"
_REFLECTION: Final = "/grpc.reflection."
# Nobody is held for longer, whatever happens to who holds them.
_HELD_S_MAX: Final = 1.0
# Names whose kind is remembered; clients may call methods by any name.
_METHODS_MAX: Final = 64
_STREAMS_BUSY_S: Final = 1.0
_INTERNAL_TEXT: Final = "internal error; the log of the service has more"
_NS_PER_S: Final = 1_000_000_000


class Gate(grpc.ServerInterceptor):
    """
    The interceptor of the service.

    Parameters
    ----------
    authenticator : Authenticator
        May be replaced while the service runs, as may the rates of the limiter.
    limiter : RateLimiter
    calls : CallFigures
    namer : Namer
        What the log calls clients.
    tracer : Tracer or None
    streams : StreamPlaces
    health_is_open : bool
        Whether anybody may ask for health.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        limiter: RateLimiter,
        calls: CallFigures,
        namer: Namer,
        tracer: Tracer | None,
        *,
        streams: StreamPlaces,
        health_is_open: bool,
    ) -> None:
        self.authenticator = authenticator
        self.limiter = limiter
        self._calls = calls
        self._namer = namer
        self._tracer = tracer
        self._health_is_open = health_is_open
        self._streams = streams
        self._waiting: dict[int, Any] = {}
        self.draining = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """As `grpc.ServerInterceptor`."""
        method: str = details.method
        is_health = method.startswith(_HEALTH)
        if is_health and self._health_is_open:
            return continuation(details)
        try:
            client = self.authenticator.by_token(details.invocation_metadata or ())
        except Refused as refused:
            return self._refusal(method, refused)
        handler = continuation(details)
        if handler is None or is_health:
            return handler
        return _Call(self, handler, method, client, scope_of(method)).handler()

    @contextmanager
    def held(self, settle_s: float) -> Iterator[None]:
        """
        Have calls wait that come now, until the block has run.

        A server that stops drops what has arrived and was not yet handed out, as CANCELLED.  While nobody is answered nobody
        calls again, and after `settle_s` nothing is on its way: whoever waits is answered on a connection that has been told to
        go away, and calls next on another.
        """
        self._open.clear()
        try:
            time.sleep(settle_s)
            yield
        finally:
            self._open.set()

    def drain(self) -> None:
        """End streams where they stand: after the answers under way, and at once where a stream waits for its next message."""
        self.draining.set()
        for context in list(self._waiting.values()):
            context.cancel()

    def _refusal(self, method: str, refused: Refused) -> Any:
        """A handler that reads no message."""
        self._tell_refused(method, refused)
        self._calls.refused(_counted(method), "UNAUTHENTICATED")

        def refuse(_messages: Any, context: Any) -> NoReturn:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED_TEXT)
            raise AssertionError("abort raises")

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _tell_refused(self, method: str, refused: Refused) -> None:
        event(logging.WARNING, "unauthenticated", str(refused), rpc_method=_counted(method))


class _Call:
    """One call on its way."""

    __slots__ = ("_client", "_gate", "_handler", "_method", "_scope")

    def __init__(self, gate: Gate, handler: Any, method: str, client: Client | None, scope: str) -> None:
        self._gate = gate
        self._handler = handler
        self._method = method
        self._client = client
        self._scope = scope

    def handler(self) -> Any:
        """The servicer's handler with this around it."""
        inner, codec = self._handler, (self._handler.request_deserializer, self._handler.response_serializer)
        if inner.request_streaming and inner.response_streaming:
            return grpc.stream_stream_rpc_method_handler(self._many_many, *codec)
        if inner.request_streaming:
            return grpc.stream_unary_rpc_method_handler(self._many_one, *codec)
        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._one_many, *codec)
        return grpc.unary_unary_rpc_method_handler(self._one_one, *codec)

    def _one_one(self, message: Any, context: Any) -> Any:
        with _Measured(self, context):
            self._admit(context)
            return self._handler.unary_unary(message, context)

    def _one_many(self, message: Any, context: Any) -> Iterator[Any]:
        with _Measured(self, context), _Stream(self, context):
            self._take(context)
            yield from self._handler.unary_stream(message, context)

    def _many_one(self, messages: Iterator[Any], context: Any) -> Any:
        with _Measured(self, context), _Stream(self, context):
            return self._handler.stream_unary(self._metered(messages, context), context)

    def _many_many(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        with _Measured(self, context), _Stream(self, context):
            yield from self._handler.stream_stream(self._metered(messages, context), context)

    def _metered(self, messages: Iterator[Any], context: Any) -> Iterator[Any]:
        """Messages of a stream, each of which takes a token, until the service stops."""
        gate, mark = self._gate, id(self)
        while not gate.draining.is_set():
            gate._waiting[mark] = context
            try:
                # The service may have begun to stop between the question above and the line before.
                if gate.draining.is_set():
                    return
                message = next(messages)
            except StopIteration:
                return
            finally:
                del gate._waiting[mark]
            self._take(context)
            yield message

    def _admit(self, context: Any) -> None:
        self._identify(context)
        self._take(context)

    def _identify(self, context: Any) -> Client:
        gate = self._gate
        if self._client is None:
            try:
                self._client = gate.authenticator.by_connection(context.peer(), context.auth_context)
            except Refused as refused:
                gate._tell_refused(self._method, refused)
                context.abort(grpc.StatusCode.UNAUTHENTICATED, UNAUTHENTICATED_TEXT)
        assert self._client is not None
        if self._scope not in self._client.scopes:
            who = gate._namer(self._client.name)
            event(
                logging.WARNING,
                "denied",
                f"the client lacks the scope {self._scope}",
                client_id=who,
                rpc_method=_counted(self._method),
            )
            context.abort(grpc.StatusCode.PERMISSION_DENIED, f"the scope {self._scope} is needed")
        return self._client

    def _take(self, context: Any) -> None:
        assert self._client is not None
        wait_s = self._gate.limiter.take(self._client)
        if wait_s > 0.0:
            _try_later(context, "too many messages from this client", wait_s)


class _Measured:
    """Counts and traces a call, and keeps to ourselves what broke in it."""

    __slots__ = ("_call", "_context", "_span", "_started_ns")

    def __init__(self, call: _Call, context: Any) -> None:
        self._call = call
        self._context = context

    def __enter__(self) -> None:
        self._call._gate._open.wait(_HELD_S_MAX)
        tracer = self._call._gate._tracer
        self._span = None if tracer is None else tracer.begin(self._call._method, self._context.invocation_metadata())
        self._call._gate._calls.begin()
        self._started_ns = time.monotonic_ns()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        elapsed_ns = time.monotonic_ns() - self._started_ns
        call, context = self._call, self._context
        code = _code_of(context, error)
        call._gate._calls.end(_counted(call._method), code, elapsed_ns)
        if self._span is not None:
            self._span.end(code)
        # Whoever aborts sets a code first.  Without one something broke, and its message may be about anybody.
        if isinstance(error, Exception) and context.code() is None and context.is_active():
            event(logging.ERROR, "call-failed", "a call failed", error=error, rpc_method=_counted(call._method))
            context.abort(grpc.StatusCode.INTERNAL, _INTERNAL_TEXT)


class _Stream:
    """Of somebody who may call: holds one of the places for streams."""

    __slots__ = ("_call", "_context")

    def __init__(self, call: _Call, context: Any) -> None:
        self._call = call
        self._context = context

    def __enter__(self) -> None:
        client = self._call._identify(self._context)
        why = self._call._gate._streams.take(client)
        if why:
            _try_later(self._context, why, _STREAMS_BUSY_S)

    def __exit__(self, *failure: object) -> None:
        assert self._call._client is not None
        self._call._gate._streams.leave(self._call._client)


def _try_later(context: Any, why: str, wait_s: float) -> NoReturn:
    """End a call with ``RESOURCE_EXHAUSTED``, and when to come again."""
    wait = Duration()
    wait.FromNanoseconds(int(wait_s * _NS_PER_S))
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=wait))
    message = f"{why}; try again in {wait_s:.3f} s"
    context.abort_with_status(rpc_status.to_status(Status(code=RESOURCE_EXHAUSTED, message=message, details=[detail])))
    raise AssertionError("abort raises")


def _code_of(context: Any, error: BaseException | None) -> str:
    code = context.code()
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    if not context.is_active():
        return "CANCELLED"
    return "OK" if error is None else "INTERNAL"


@functools.lru_cache(maxsize=_METHODS_MAX)
def _counted(method: str) -> str:
    """A method by a name of ours: what clients call methods that do not exist must not become labels."""
    if method.startswith((_HEALTH, _REFLECTION)) or scope_of(method) != "admin":
        return method
    return "other"
