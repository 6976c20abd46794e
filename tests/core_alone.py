"""Run where only the core is installed: the reference model opens and decides, and no vendor can be imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fraudsdk import Outcome, Scorer

VENDORS = ("xgboost", "treelite", "tl2cgen", "shap", "pandas", "pyarrow", "sklearn", "matplotlib")


def main() -> None:
    present = [vendor for vendor in VENDORS if importlib.util.find_spec(vendor)]
    assert not present, f"this check must run without extras, found {present}"
    reference = Path(__file__).parent.parent / "compiled_models" / "reference"
    transaction = {
        "transaction_id": "t-1",
        "user_id": "u-1",
        "card_id": "c-1",
        "merchant_id": "m-1",
        "amount": "12.50",
        "currency": "EUR",
        "event_time": "2026-11-23T10:00:00Z",
    }
    with Scorer.open(reference) as scorer:
        decision = scorer.score(transaction)
    assert isinstance(decision.outcome, Outcome)
    assert 0.0 <= decision.score <= 1.0
    print(f"the core alone: {decision.outcome.value}, score {decision.score:.4f}, by {decision.model_version}")


if __name__ == "__main__":
    main()
