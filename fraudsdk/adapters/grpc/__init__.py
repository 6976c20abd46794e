"""Scoring over gRPC: the service around one scorer, and a client of it (``pip install fraudsdk[grpc]``)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fraudsdk.adapters.grpc.batching import Batcher
    from fraudsdk.adapters.grpc.client import ClientTls, ModelDescription, ScoringClient
    from fraudsdk.adapters.grpc.errors import NotAllowedError, ServiceError, ServiceUnavailableError
    from fraudsdk.adapters.grpc.service import SERVICE_NAME, ScoringService

_HOME: Final = {
    "Batcher": "batching",
    "ClientTls": "client",
    "ModelDescription": "client",
    "NotAllowedError": "errors",
    "SERVICE_NAME": "service",
    "ScoringClient": "client",
    "ScoringService": "service",
    "ServiceError": "errors",
    "ServiceUnavailableError": "errors",
}

__all__ = [
    "SERVICE_NAME",
    "Batcher",
    "ClientTls",
    "ModelDescription",
    "NotAllowedError",
    "ScoringClient",
    "ScoringService",
    "ServiceError",
    "ServiceUnavailableError",
]


def __getattr__(name: str) -> Any:
    # PEP 562: a client loads no scorer, and a service no client.
    if name not in _HOME:
        raise AttributeError(f"module 'fraudsdk.adapters.grpc' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fraudsdk.adapters.grpc.{_HOME[name]}"), name)
    globals()[name] = value
    return value
