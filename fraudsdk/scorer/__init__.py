"""A transaction in, a decision out: the stages in one call, and the `Scorer` that a host opens."""

from __future__ import annotations

from fraudsdk.scorer.scorer import Scorer

__all__ = ["Scorer"]
