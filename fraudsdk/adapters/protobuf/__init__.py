"""
The messages of ``proto/fraudsdk/v1``, and what they are in the product's own types.

A leaf that both services read: it knows no transport.  Needs ``protobuf``, which ``fraudsdk[grpc]`` and ``fraudsdk[kafka]`` bring.
"""

from fraudsdk.adapters.protobuf.decisions import Rung, decision_message, decision_of, rung_of
from fraudsdk.adapters.protobuf.transactions import field_on_the_wire, mapping_of, message_of

__all__ = [
    "Rung",
    "decision_message",
    "decision_of",
    "field_on_the_wire",
    "mapping_of",
    "message_of",
    "rung_of",
]
