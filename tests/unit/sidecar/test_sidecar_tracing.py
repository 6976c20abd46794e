"""A span for a call, child of its caller's."""

from __future__ import annotations

import sys

import pytest
from fraudsdk_sidecar.tracing import Tracer

from fraudsdk.errors import MissingExtraError

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_call_is_a_span_of_its_callers_trace_whatever_our_share_is():
    export = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    tracer = Tracer("", 0.0, exporter=export)
    tracer.begin("/a.B/C", [("traceparent", PARENT), ("authorization", "Bearer secret")]).end("INTERNAL")
    tracer.begin("/a.B/C", []).end("OK")
    tracer.close()
    [span] = export.get_finished_spans()

    assert PARENT.split("-")[1] == f"{span.context.trace_id:032x}"
    assert ("a.B/C", "INTERNAL", False) == (
        span.name,
        span.attributes["rpc.response.status_code"],
        span.status.is_ok,
    )
    assert "secret" not in span.to_json()


def test_without_opentelemetry_the_command_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(MissingExtraError, match=r"pip install 'fraudsdk\[otel\]'"):
        Tracer("http://127.0.0.1:4317", 1.0)
