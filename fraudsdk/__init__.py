"""
fraudsdk: an embedded, low-latency fraud-scoring SDK.  A transaction goes in, a decision comes out.

Importing the package loads NumPy and nothing heavy; Numba and the kernels come with the first `Scorer`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fraudsdk.config import ScorerConfig
    from fraudsdk.domain.decision import Decision, Outcome, Reason
    from fraudsdk.domain.decisions import Decisions
    from fraudsdk.domain.explanation import Explanation
    from fraudsdk.domain.transaction import Transaction
    from fraudsdk.errors import FraudSDKError, InvalidTransactionError
    from fraudsdk.features.spec import Feature, FeatureSet
    from fraudsdk.scorer import Scorer
    from fraudsdk.telemetry.clock import Deadline

__version__ = "0.1.0"

_HOME = {
    "Deadline": "fraudsdk.telemetry.clock",
    "Decision": "fraudsdk.domain.decision",
    "Decisions": "fraudsdk.domain.decisions",
    "Explanation": "fraudsdk.domain.explanation",
    "Feature": "fraudsdk.features.spec",
    "FeatureSet": "fraudsdk.features.spec",
    "FraudSDKError": "fraudsdk.errors",
    "InvalidTransactionError": "fraudsdk.errors",
    "Outcome": "fraudsdk.domain.decision",
    "Reason": "fraudsdk.domain.decision",
    "Scorer": "fraudsdk.scorer",
    "ScorerConfig": "fraudsdk.config",
    "Transaction": "fraudsdk.domain.transaction",
}

__all__ = [
    "Deadline",
    "Decision",
    "Decisions",
    "Explanation",
    "Feature",
    "FeatureSet",
    "FraudSDKError",
    "InvalidTransactionError",
    "Outcome",
    "Reason",
    "Scorer",
    "ScorerConfig",
    "Transaction",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # PEP 562: a name is imported when it is first asked for, so that `import fraudsdk` stays quick.
    if name not in _HOME:
        raise AttributeError(f"module 'fraudsdk' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
