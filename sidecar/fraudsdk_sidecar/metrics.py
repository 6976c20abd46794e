"""
Figures for Prometheus, collected when they are asked for, on an address of their own.

``/metrics`` has them, ``/healthz`` says that the process lives, ``/readyz`` that it serves.
"""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from fraudsdk import __version__
from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError
from fraudsdk.scorer import Scorer
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.figures import EDGES_NS, N_SCORE_BUCKETS, CallFigures, DecisionFigures, Took

# A scraper comes every few seconds; more at a time than this are none.
_SCRAPERS_MAX: Final = 4
_SCRAPER_TIMEOUT_S: Final = 5.0
_US_PER_S: Final = 1_000_000
_NS_PER_S: Final = 1_000_000_000
_EDGES_S: Final = tuple(f"{edge_ns / _NS_PER_S:g}" for edge_ns in EDGES_NS)
# Of `Scorer.counters`: what can go down is no counter.
_GAUGES: Final = ("entities", "state_bytes", "tile_ladders", "shared_entities_waiting", "requests_waiting")


class ServiceCollector(Collector):
    """
    What the service knows of itself.

    Parameters
    ----------
    scorer : Scorer
    calls : CallFigures
    decisions : DecisionFigures
    more : callable
        Further gauges by name, such as how many clients are remembered.
    """

    def __init__(
        self,
        scorer: Scorer,
        calls: CallFigures,
        decisions: DecisionFigures,
        more: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._scorer = scorer
        self._calls = calls
        self._decisions = decisions
        self._more = more

    def collect(self) -> Iterator[Metric]:
        """Every family, as it is now."""
        yield from self._of_calls()
        yield from self._of_decisions()
        yield from self._of_stages()
        yield from self._of_state()
        yield self._of_model()

    def _of_calls(self) -> Iterator[Metric]:
        calls = CounterMetricFamily("fraudsdk_rpcs", "Calls by method and status code", labels=("method", "code"))
        for (method, code), n in self._calls.codes().items():
            calls.add_metric((method, code), n)
        yield calls
        took = HistogramMetricFamily("fraudsdk_rpc_seconds", "What calls took inside the service", labels=("method",))
        for method, each in self._calls.latencies().items():
            took.add_metric((method,), _buckets(each), each.total_ns / _NS_PER_S)
        yield took
        yield _gauge("fraudsdk_rpcs_under_way", "Calls begun and not yet answered", self._calls.under_way)

    def _of_decisions(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily("fraudsdk_decisions", "Decisions by outcome", labels=("outcome",))
        counted = self._decisions.outcomes()
        for outcome in Outcome:
            outcomes.add_metric((outcome.value,), counted[outcome])
        yield outcomes
        degraded = CounterMetricFamily(
            "fraudsdk_degraded_decisions",
            "Degraded decisions by the stage that failed",
            labels=("stage",),
        )
        for stage, n in self._decisions.degraded().items():
            degraded.add_metric((stage,), n)
        yield degraded
        scores, total = self._decisions.scores()
        edges = [f"{(bucket + 1) / N_SCORE_BUCKETS:g}" for bucket in range(N_SCORE_BUCKETS)]
        cumulated = list(accumulate(scores))
        buckets = [*zip(edges, cumulated, strict=True), ("+Inf", cumulated[-1])]
        yield HistogramMetricFamily("fraudsdk_scores", "Scores of decisions", buckets=buckets, sum_value=total)

    def _of_stages(self) -> Iterator[Metric]:
        took = HistogramMetricFamily("fraudsdk_stage_seconds", "What the stages of a decision took", labels=("stage",))
        for stage, histogram in self._scorer.stage_histograms().items():
            *counts, n, total_ns = histogram.cumulated(EDGES_NS)
            buckets = [*zip(_EDGES_S, counts, strict=True), ("+Inf", n)]
            took.add_metric((stage,), buckets, total_ns / _NS_PER_S)
        yield took

    def _of_state(self) -> Iterator[Metric]:
        counters = self._scorer.counters()
        events = CounterMetricFamily("fraudsdk_events", "What happened, by name", labels=("event",))
        for name, n in counters.items():
            if name in _GAUGES:
                yield _gauge(f"fraudsdk_{name}", "Of what is remembered", n)
            else:
                events.add_metric((name,), n)
        yield events
        age_us = self._scorer.state_age_us
        if age_us is not None:
            yield _gauge("fraudsdk_state_age_seconds", "How old is what other processes know", age_us / _US_PER_S)
        for name, value in self._more().items():
            yield _gauge(f"fraudsdk_{name}", "Of the service", value)

    def _of_model(self) -> Metric:
        model = self._scorer.model
        said = {"service_version": __version__, "model": "none", "engine": "none"}
        if model is not None:
            said |= {"model": model.version, "engine": model.engine, "source_sha256": model.manifest.source_sha256}
        return InfoMetricFamily("fraudsdk_model", "What decides now", value=said)


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry of our own: what else this process imports adds nothing to it."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class MetricsServer:
    """
    Serves figures, and whether the process lives and serves.

    At most `_SCRAPERS_MAX` are answered at a time, each for `_SCRAPER_TIMEOUT_S`; more are hung up on.

    Parameters
    ----------
    address : Address
    registry : CollectorRegistry
    is_ready : callable
    """

    def __init__(self, address: Address, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        try:
            self._server = _Server(address, registry, is_ready)
        except OSError as error:
            raise ConfigurationError(
                f"metrics.listen {address} cannot be listened on: {error.strerror}; name another, or stop who has it"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="fraudsdk-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; closing twice is harmless."""
        self._server.shutdown()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: Address, registry: CollectorRegistry, is_ready: Callable[[], bool]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self.registry, self.is_ready = registry, is_ready
        self._free = threading.BoundedSemaphore(_SCRAPERS_MAX)
        super().__init__((address.host, address.port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer looks its own name up here, which may take seconds where there is no resolver.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The timeout of a socket is one of each read: whoever sends a letter now and then would stay for ever.
        patience = threading.Timer(_SCRAPER_TIMEOUT_S, _hang_up, (request,))
        patience.daemon = True
        patience.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            patience.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper hung up; there is nobody left to tell."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    timeout = _SCRAPER_TIMEOUT_S
    server_version = "fraudsdk"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, generate_latest(self.server.registry), CONTENT_TYPE_LATEST)
        elif path == "/healthz":
            self._answer(200, b"alive\n")
        elif path == "/readyz":
            ready = self.server.is_ready()
            self._answer(200 if ready else 503, b"ready\n" if ready else b"not ready\n")
        else:
            self._answer(404, b"/metrics, /healthz or /readyz\n")

    def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not logged."""


def _hang_up(request: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        request.shutdown(socket.SHUT_RDWR)


def _gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=value)


def _buckets(took: Took) -> list[tuple[str, float]]:
    """Cumulated counts up to each edge."""
    return list(zip((*_EDGES_S, "+Inf"), accumulate(took.buckets), strict=True))
