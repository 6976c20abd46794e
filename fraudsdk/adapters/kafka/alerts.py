"""What is told of decisions: alerts of those that are not approvals, and the decisions themselves where somebody wants them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import orjson

from fraudsdk.domain.decision import Decision


def alert_id(topic: str, partition: int, offset: int, model_version: str) -> str:
    """The name of an alert: of the message that it is about, and the model that said so; the same however often it is told."""
    return hashlib.sha256(f"{topic}|{partition}|{offset}|{model_version}".encode()).hexdigest()


def told_of(decision: Decision, transaction: Mapping[str, Any], topic: str, partition: int, offset: int) -> bytes:
    """
    A decision as JSON: what was decided and why, and which message it is about.

    Of the transaction it has the identifiers of transaction and user alone, as they passed the border.
    """
    said = {
        "alert_id": alert_id(topic, partition, offset, decision.model_version),
        "transaction_id": decision.transaction_id,
        "user_id": transaction.get("user_id"),
        "outcome": decision.outcome.value,
        "score": _number(decision.score),
        "margin": _number(decision.margin),
        "reasons": [
            {
                "code": reason.code,
                "text": reason.text,
                "customer_text": reason.customer_text,
                "feature": reason.feature,
                "value": _number(reason.value),
                "contribution": _number(reason.contribution),
            }
            for reason in decision.reasons
        ],
        "model_version": decision.model_version,
        "decided_by": decision.decided_by,
        "degraded": decision.degraded,
        "degraded_because": decision.degraded_because,
        "duplicate": decision.duplicate,
        "topic": topic,
        "partition": partition,
        "offset": offset,
    }
    return orjson.dumps(said)


def key_of(told: bytes) -> bytes:
    """What an alert is partitioned by: its user, or its transaction."""
    said = orjson.loads(told)
    return str(said["user_id"] or said["transaction_id"]).encode()


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
