"""
One process that serves: a scorer, the servicer around it, and what stands in front of both.

    start     configuration -> certificates, keys -> scorer, warm -> ports -> "serving"
    SIGHUP    configuration again: certificates, keys, rates, log level, model; all of it or nothing
    SIGTERM   "not serving" -> no new calls -> calls under way finish -> state is written -> exit
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE_NAME
from grpc_reflection.v1alpha import reflection

from fraudsdk.adapters.grpc import SERVICE_NAME, ScoringService
from fraudsdk.entity_state.store import SharedStore
from fraudsdk.errors import ConfigurationError, FraudSDKError, MissingExtraError, StreamUnavailableError
from fraudsdk.model.artefact import CompiledModel, load_artefact
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.auth import Authenticator
from fraudsdk_sidecar.certificates import Certificates
from fraudsdk_sidecar.figures import CallFigures, DecisionFigures, ObservedScorer
from fraudsdk_sidecar.gate import Gate
from fraudsdk_sidecar.health import Health
from fraudsdk_sidecar.limits import RateLimiter, Rates, StreamPlaces
from fraudsdk_sidecar.logs import Namer, event, set_level
from fraudsdk_sidecar.manager import notify
from fraudsdk_sidecar.metrics import MetricsServer, ServiceCollector, registry_of
from fraudsdk_sidecar.settings import Settings, changed
from fraudsdk_sidecar.signals import hold, next_of
from fraudsdk_sidecar.tracing import Tracer

if TYPE_CHECKING:
    from fraudsdk.adapters.kafka.recorder import TransactionRecorder

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# A token of the longest that is read, and as much again.
_METADATA_BYTES_MAX: Final = 16_384
_PING_STRIKES_MAX: Final = 2
_KEEPALIVE_TIMEOUT_MS: Final = 20_000
_IDLE_MS: Final = 1_800_000
_AGE_GRACE_MS: Final = 30_000
_PROBES_MAX: Final = 64
_PROBE_THREADS: Final = 2
# Others on this machine open a socket of ours as members of its group.
_UMASK_OF_SOCKETS: Final = 0o117
# Longer than what is on its way takes to arrive, and far less than a caller's deadline.
_SETTLE_S: Final = 0.01
_FOR_EVER_S: Final = 3600.0


class Service:
    """
    Everything of one process, open until `close`.

    Parameters
    ----------
    settings : Settings
    reread : callable
        Reads the configuration again.
    worker : int
        Which of several processes this is: its metrics are on the port after those of the one before.

    Raises
    ------
    FraudSDKError
        Something of the configuration, the model or the state will not do.  Nothing is left open.
    """

    def __init__(self, settings: Settings, reread: Callable[[], Settings], worker: int = 0) -> None:
        self._started_with = self._settings = settings
        self._reread = reread
        self._resources = ExitStack()
        with _closed_on_failure(self._resources):
            self._certificates = Certificates(settings.tls) if settings.has_tls else None
            authenticator = Authenticator.of(settings)
            config = settings.scorer_config()
            tracer = _tracer(settings)
            if tracer is not None:
                self._resources.callback(tracer.close)
            recorder = _recorder(settings)
            if recorder is not None:
                self._resources.callback(recorder.close)  # once the scorer has
            self._scorer = ObservedScorer.open(config, shared=_shared(settings))
            self._scorer.figures, self._scorer.recorder = DecisionFigures(), recorder
            self._resources.callback(self._scorer.close)
            calls, self._limiter = CallFigures(), RateLimiter(Rates.of_settings(settings), settings.limits.clients)
            self._gate = Gate(
                authenticator,
                self._limiter,
                calls,
                Namer(config.hash_key),
                tracer,
                streams=StreamPlaces(settings.limits.streams, settings.limits.streams_per_client),
                health_is_open=settings.auth.health_without_token,
            )
            self._health = Health(SERVICE_NAME)
            self._open_metrics(calls, worker)
            self._server, self._pool, self.ports = self._serving()
            self._probes = self._probed()

    def start(self) -> None:
        """Take calls, and say so."""
        self._server.start()
        if self._probes is not None:
            self._probes.start()
        self._health.serve()
        for port in self.ports:
            event(logging.INFO, "listening", f"serving on {port}")
        model = self._scorer.model
        event(logging.INFO, "ready", f"ready, deciding by {'no model' if model is None else model.version}")

    def poll(self) -> None:
        """See whether certificates changed."""
        if self._certificates is not None:
            self._certificates.poll()

    @property
    def poll_s(self) -> float:
        """How often to `poll`."""
        wanted_s = self._settings.tls.poll_s
        return wanted_s if wanted_s and self._certificates is not None else _FOR_EVER_S

    def reload(self) -> bool:
        """
        Take up the configuration as it is now: all that may change, or nothing where any of it will not do.

        Returns
        -------
        bool
            Whether it was taken up.  Why not, the log says.
        """
        try:
            self._take_up(self._reread())
        except FraudSDKError as error:
            event(logging.ERROR, "reload-failed", f"everything stays as it was: {error}")
            return False
        except Exception as error:  # a file that nobody thought of must not end a service that works
            event(logging.ERROR, "reload-failed", "everything stays as it was: our own mistake", error=error)
            return False
        return True

    def close(self) -> None:
        """
        Say that the service ends, take no more calls, let those under way finish, write the state.

        Raises
        ------
        StateUnavailableError
            Some of the state could not be written.
        """
        drain, started_s = self._settings.drain, time.monotonic()
        self._health.announce_end()
        event(logging.INFO, "draining", f"no more calls; those under way have {drain.timeout_s:g} s")
        time.sleep(drain.announce_s)
        with self._gate.held(_SETTLE_S):
            stopped = self._server.stop(drain.timeout_s)
        self._health.end_watches()
        self._gate.drain()
        stopped.wait(drain.timeout_s + 1.0)
        # What was cancelled may not have noticed yet, and must have before the scorer goes.
        self._pool.shutdown(cancel_futures=True)
        self._resources.close()
        if self._probes is not None:
            self._probes.stop(None)
        event(logging.INFO, "stopped", f"stopped after {time.monotonic() - started_s:.1f} s")

    def _take_up(self, settings: Settings) -> None:
        authenticator, files = Authenticator.of(settings), None
        if self._certificates is not None and settings.has_tls:
            files = self._certificates.prepare(settings.tls)
        elif settings.has_tls != (self._certificates is not None):
            raise ConfigurationError("tls.certificate cannot be set or left out while the service runs; start it anew")
        model = self._other_model(settings)
        if model is not None:
            self._scorer.swap_model(model)
        # From here on nothing fails.
        self._gate.authenticator = authenticator
        self._limiter.rates = Rates.of_settings(settings)
        set_level(settings.log.level)
        if self._certificates is not None and files is not None:
            self._certificates.take_up(settings.tls, files)
        names, _ = changed(self._settings, settings)
        _, late = changed(self._started_with, settings)
        self._settings = settings
        what = ", ".join((*names, *([f"model {model.version}"] if model is not None else ()))) or "nothing"
        event(logging.INFO, "reloaded", f"taken up: {what}")
        if late:
            event(logging.WARNING, "restart-needed", f"not taken up before a restart: {', '.join(late)}")

    def _other_model(self, settings: Settings) -> CompiledModel | None:
        """The model that is named now, where it is not the one that decides."""
        assert settings.model is not None
        model, present = load_artefact(settings.model), self._scorer.model
        is_same = present is not None and model.manifest == present.manifest
        return None if is_same else model

    def _serving(self) -> tuple[grpc.Server, ThreadPoolExecutor, tuple[str, ...]]:
        settings = self._settings
        pool = ThreadPoolExecutor(settings.limits.threads, thread_name_prefix="fraudsdk-rpc")
        server = grpc.server(
            pool,
            interceptors=[self._gate],
            options=_options(settings),
            maximum_concurrent_rpcs=settings.limits.concurrent_rpcs,
        )
        ScoringService(self._scorer, max_transactions=settings.limits.transactions_per_message).add_to(server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            names = (SERVICE_NAME, HEALTH_SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        ports = tuple(self._bound(server, each) for each in settings.addresses)
        return server, pool, ports

    def _bound(self, server: grpc.Server, address: Address) -> str:
        before = os.umask(_UMASK_OF_SOCKETS)
        try:
            if self._certificates is None or address.path:
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), self._certificates.credentials())
        except RuntimeError as error:
            raise ConfigurationError(
                f"listen {address} cannot be listened on; name another address, or stop who has it"
            ) from error
        finally:
            os.umask(before)
        return str(address) if address.path else str(Address(address.host, port))

    def _probed(self) -> grpc.Server | None:
        """A server of health alone, with threads of its own: it answers while all others work."""
        settings = self._settings
        if not settings.health.listen:
            return None
        server = grpc.server(
            ThreadPoolExecutor(_PROBE_THREADS, thread_name_prefix="fraudsdk-probe"),
            options=_options(settings),
            maximum_concurrent_rpcs=_PROBES_MAX,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            server.add_insecure_port(settings.health.listen)
        except RuntimeError as error:
            raise ConfigurationError(
                f"health.listen {settings.health.listen} cannot be listened on; name another address, or stop who has it"
            ) from error
        return server

    def _open_metrics(self, calls: CallFigures, worker: int) -> None:
        if not self._settings.metrics.listen:
            return
        address = Address.parse(self._settings.metrics.listen)
        address = Address(address.host, address.port + worker if address.port else 0)
        more: Callable[[], dict[str, float]] = lambda: {"clients_with_a_rate": len(self._limiter)}  # noqa: E731
        registry = registry_of(ServiceCollector(self._scorer, calls, self._scorer.figures, more))
        metrics = MetricsServer(address, registry, lambda: self._health.is_serving)
        self._resources.callback(metrics.close)
        event(logging.INFO, "listening", f"metrics on {Address(address.host, metrics.port)}")


def serve(settings: Settings, reread: Callable[[], Settings], *, worker: int = 0, lifeline: int = -1) -> None:
    """
    Serve until a signal says otherwise.

    Parameters
    ----------
    settings, reread, worker
        As of `Service`.
    lifeline : int
        Descriptor to which a byte is written once the service is ready; -1: none.

    Raises
    ------
    FraudSDKError
        The service could not begin, or could not write its state at the end.
    """
    hold(SIGNALS)
    service = Service(settings, reread, worker)
    # What is there now stays; a full collection would look through it again and again.
    gc.collect()
    gc.freeze()
    service.start()
    notify("READY=1")
    if lifeline >= 0:
        os.write(lifeline, b"r")
    while True:
        number = next_of(SIGNALS, service.poll_s)
        if number is None:
            service.poll()
            continue
        if number != signal.SIGHUP:
            break
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        service.reload()
        notify("READY=1")
    notify("STOPPING=1")
    service.close()


@contextmanager
def _closed_on_failure(resources: ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        resources.close()
        raise


def _tracer(settings: Settings) -> Tracer | None:
    tracing = settings.tracing
    return Tracer(tracing.endpoint, tracing.sample_ratio) if tracing.endpoint else None


def _shared(settings: Settings) -> SharedStore | None:
    if not settings.redis.url:
        return None
    try:
        from fraudsdk.adapters.redis import SharedRedis, connect
    except ModuleNotFoundError as error:
        raise MissingExtraError("redis", "redis") from error

    return SharedRedis(connect(settings.redis.url), settings.redis.group, reads_only=settings.redis.reads_only)


def _recorder(settings: Settings) -> TransactionRecorder | None:
    to = settings.record_to
    if not to.brokers:
        return None
    try:
        from fraudsdk.adapters.kafka.connection import KafkaConnection
        from fraudsdk.adapters.kafka.recorder import TransactionRecorder
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "confluent_kafka", "kafka") from error

    files = {"ca_file": to.ca, "certificate_file": to.certificate, "key_file": to.key}
    connection = KafkaConnection(
        to.brokers,
        client_id="fraudsdk-sidecar",
        user=to.user,
        password=to.password,
        tls=to.tls,
        **{name: str(file) for name, file in files.items() if file is not None},
    )
    recorder = TransactionRecorder(connection, to.topic, max_queued=to.queue)
    try:
        recorder.check()
    except StreamUnavailableError as error:  # it may come; until then requests wait, and decisions say so
        event(logging.WARNING, "recorder-waits", str(error))
    except FraudSDKError:
        recorder.close()
        raise
    return recorder


def _options(settings: Settings) -> list[tuple[str, Any]]:
    limits = settings.limits
    options = {
        "grpc.so_reuseport": int(settings.reuse_port or settings.workers > 1),
        "grpc.max_receive_message_length": limits.message_bytes,
        "grpc.max_send_message_length": limits.message_bytes,
        "grpc.max_metadata_size": _METADATA_BYTES_MAX,
        "grpc.absolute_max_metadata_size": _METADATA_BYTES_MAX,
        "grpc.max_concurrent_streams": limits.concurrent_streams_per_connection,
        "grpc.server_handshake_timeout_ms": _ms(limits.handshake_s),
        # Clients that ping more often than this are told to go away (GOAWAY, too_many_pings).
        "grpc.http2.min_ping_interval_without_data_ms": _ms(limits.ping_interval_s),
        "grpc.http2.max_ping_strikes": _PING_STRIKES_MAX,
        "grpc.keepalive_permit_without_calls": 1,
        # Peers that vanished without a word are found out, and connections that nobody uses closed.
        "grpc.keepalive_time_ms": _ms(limits.keepalive_s),
        "grpc.keepalive_timeout_ms": _KEEPALIVE_TIMEOUT_MS,
        "grpc.max_connection_idle_ms": _IDLE_MS,
    }
    if limits.connection_age_s:
        options["grpc.max_connection_age_ms"] = _ms(limits.connection_age_s)
        options["grpc.max_connection_age_grace_ms"] = _AGE_GRACE_MS
    return list(options.items())


def _ms(duration_s: float) -> int:
    return int(duration_s * 1000)
