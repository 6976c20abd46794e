"""The standard health service, whose watchers are let go when the service stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

OVERALL: Final = ""
# Watchers hold no thread; each holds a connection, of which there may be many.
_WATCHERS_MAX: Final = 1_000


class Health(health.HealthServicer):  # type: ignore[misc]
    """
    Health of the whole and of each service: not serving until `serve` is called.

    Parameters
    ----------
    *services : str
        Full names.
    """

    def __init__(self, *services: str) -> None:
        super().__init__(experimental_non_blocking=True)
        self._services = (OVERALL, *services)
        self._watchers: set[Callable[[Any], None]] = set()
        self._watchers_lock = threading.Lock()
        self._is_serving = False
        for service in self._services:
            self.set(service, HealthCheckResponse.NOT_SERVING)

    @property
    def is_serving(self) -> bool:
        """Whether it says that it serves."""
        return self._is_serving

    def serve(self) -> None:
        """Say so."""
        for service in self._services:
            self.set(service, HealthCheckResponse.SERVING)
        self._is_serving = True

    def announce_end(self) -> None:
        """Say that it serves no more; for good."""
        self._is_serving = False
        self.enter_graceful_shutdown()

    def end_watches(self) -> None:
        """Let watchers go: they would hold up the stop of the server until its patience ends."""
        with self._watchers_lock:
            watchers, self._watchers = self._watchers, set()
        for send in watchers:
            send(None)

    def Watch(self, request: Any, context: Any, send_response_callback: Callable[[Any], None] | None = None) -> Any:
        """As the service is defined; at most `_WATCHERS_MAX` at a time are kept up to date, the others are let go."""
        assert send_response_callback is not None, "watchers hold no thread"
        send = send_response_callback
        with self._watchers_lock:
            has_room = len(self._watchers) < _WATCHERS_MAX
            if has_room:
                self._watchers.add(send)
        context.add_callback(lambda: self._forget(send))
        answer = super().Watch(request, context, send)
        if not has_room:
            send(None)
        return answer

    def _forget(self, send: Callable[[Any], None]) -> None:
        with self._watchers_lock:
            self._watchers.discard(send)
