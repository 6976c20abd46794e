"""The consumer of a stream as a service: its figures for Prometheus, its signals, its log."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fraudsdk.adapters.kafka.worker import KafkaWorker
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.logs import event
from fraudsdk_sidecar.metrics import MetricsServer, registry_of
from fraudsdk_sidecar.signals import hold, next_of

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_LOOKED_EVERY_S: Final = 0.2
_NS_PER_S: Final = 1_000_000_000
# Of a scorer's counters: what can go down is no counter.
_GAUGES: Final = ("entities", "state_bytes", "tile_ladders")


class StreamCollector(Collector):
    """
    What a worker knows of itself.

    Parameters
    ----------
    worker : KafkaWorker
    """

    def __init__(self, worker: KafkaWorker) -> None:
        self._worker = worker

    def collect(self) -> Iterator[Metric]:
        """As `prometheus_client` asks."""
        seen = self._worker.seen
        for name, n in sorted(seen.counts.items()):
            yield CounterMetricFamily(f"fraudsdk_stream_{name}", f"How often: {name.replace('_', ' ')}", value=n)
        refused = CounterMetricFamily(
            "fraudsdk_stream_dead_letters", "Messages that are no transactions", labels=["reason"]
        )
        for reason, n in sorted(seen.refused.items()):
            refused.add_metric([reason], n)
        yield refused
        stages = CounterMetricFamily("fraudsdk_stream_stage_seconds", "Time of a processor by stage", labels=["stage"])
        for stage, took_ns in sorted(seen.stage_ns.items()):
            stages.add_metric([stage], took_ns / _NS_PER_S)
        yield stages
        yield from self._of_partitions()
        yield from self._of_state()

    def _of_partitions(self) -> Iterator[Metric]:
        lags = GaugeMetricFamily("fraudsdk_stream_lag", "Messages after the last committed one", labels=["partition"])
        places = GaugeMetricFamily("fraudsdk_stream_place", "Messages that state is of", labels=["partition"])
        for partition, (place, lag) in sorted(self._worker.places().items()):
            places.add_metric([str(partition)], place)
            lags.add_metric([str(partition)], lag)
        yield lags
        yield places

    def _of_state(self) -> Iterator[Metric]:
        for name, value in sorted(self._worker.state_counters().items()):
            family = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            yield family(f"fraudsdk_{name}", f"Of all partitions here: {name.replace('_', ' ')}", value=value)


def consume(worker: KafkaWorker, metrics: Address | None) -> None:
    """
    Run a worker until SIGTERM or an interrupt; then what was scored is committed.

    Parameters
    ----------
    worker : KafkaWorker
    metrics : Address or None
        Where ``/metrics``, ``/healthz`` and ``/readyz`` are served; None: nowhere.

    Raises
    ------
    FraudSDKError
        As `KafkaWorker.run`.
    """
    hold(_ENDS)
    server = (
        None
        if metrics is None
        else MetricsServer(metrics, registry_of(StreamCollector(worker)), lambda: worker.is_ready)
    )
    broke: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:  # told to whoever waits below
            broke.append(error)

    thread = threading.Thread(target=run, name="fraudsdk-stream")
    thread.start()
    event(logging.INFO, "stream-started", "the stream is consumed")
    while thread.is_alive() and next_of(_ENDS, _LOOKED_EVERY_S) is None:
        pass
    worker.stop()
    thread.join()
    if server is not None:
        server.close()
    if broke:
        raise broke[0]
    event(logging.INFO, "stream-ended", "what was scored is committed")
