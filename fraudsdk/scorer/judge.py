"""Who decides: a model with its calibration, its policy and what explains it."""

from __future__ import annotations

from dataclasses import dataclass

from fraudsdk.model.artefact import CompiledModel
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.explainer import Explainer
from fraudsdk.policy.policy import Policy


@dataclass(frozen=True, slots=True)
class Judge:
    """All that a swap of models replaces, behind one reference: a decision never mixes two of them."""

    model: CompiledModel | None
    calibration: Calibration
    policy: Policy
    explainer: Explainer | None
