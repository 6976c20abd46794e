"""Traces of calls for OpenTelemetry, where a collector is named: one span a call, child of the caller's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from fraudsdk import __version__
from fraudsdk.errors import MissingExtraError

# The exporter's own queue: beyond it spans are dropped, and calls go on.
_QUEUE_MAX: Final = 2048
_FAILURES: Final = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class Span:
    """One call."""

    __slots__ = ("_span",)

    def __init__(self, span: Any) -> None:
        self._span = span

    def end(self, code: str) -> None:
        """It was answered with a status code."""
        self._span.set_attribute("rpc.response.status_code", code)
        if code in _FAILURES:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracer:
    """
    Sends a span for each sampled call to a collector.

    Parameters
    ----------
    endpoint : str
        Of OTLP over gRPC; ``http://`` is without TLS.
    sample_ratio : float
        Share of calls that begin a trace; a caller that began one decides itself.
    exporter : SpanExporter, optional
        In place of OTLP.

    Raises
    ------
    MissingExtraError
        OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, sample_ratio: float, *, exporter: Any = None) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise MissingExtraError("opentelemetry", "otel") from error
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample_ratio)),
            resource=Resource.create({"service.name": "fraudsdk-sidecar", "service.version": __version__}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint) if exporter is None else exporter
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE_MAX))
        self._tracer = self._provider.get_tracer("fraudsdk_sidecar", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._kind = SpanKind.SERVER

    def begin(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> Span:
        """A call of this method came, with what its caller says of the trace it belongs to."""
        carrier = {name: value for name, value in metadata if name in ("traceparent", "tracestate")}
        attributes = {"rpc.system": "grpc", "rpc.method": method.lstrip("/")}
        context = self._propagator.extract(carrier)
        return Span(self._tracer.start_span(method.lstrip("/"), context, self._kind, attributes))

    def close(self) -> None:
        """Send what there is."""
        self._provider.shutdown()
