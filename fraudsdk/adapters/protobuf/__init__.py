"""
The messages of ``proto/fraudsdk/v1``, and what they are in the product's own types.

A leaf that both services read: it knows no transport.  Needs ``protobuf``, which ``fraudsdk[grpc]`` and ``fraudsdk[kafka]`` bring.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fraudsdk.adapters.protobuf.decisions import Rung, decision_message, decision_of, rung_of
    from fraudsdk.adapters.protobuf.transactions import field_on_the_wire, mapping_of, message_of

_HOME: Final = {
    "Rung": "decisions",
    "decision_message": "decisions",
    "decision_of": "decisions",
    "field_on_the_wire": "transactions",
    "mapping_of": "transactions",
    "message_of": "transactions",
    "rung_of": "decisions",
}

__all__ = [
    "Rung",
    "decision_message",
    "decision_of",
    "field_on_the_wire",
    "mapping_of",
    "message_of",
    "rung_of",
]


def __getattr__(name: str) -> Any:
    # PEP 562: the kernels beside are compiled into images where nobody has installed protobuf.
    if name not in _HOME:
        raise AttributeError(f"module 'fraudsdk.adapters.protobuf' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fraudsdk.adapters.protobuf.{_HOME[name]}"), name)
    globals()[name] = value
    return value
