"""Who decides: a model with its calibration, its policy and what explains it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fraudsdk.model.artefact import CompiledModel
from fraudsdk.model.calibration import Calibration
from fraudsdk.model.explainer import Explainer
from fraudsdk.policy.policy import Policy
from fraudsdk.scorer import kernels


@dataclass(frozen=True, slots=True)
class Judge:
    """
    All that a swap of models replaces, behind one reference: a decision never mixes two of them.

    Attributes
    ----------
    model : CompiledModel or None
    calibration : Calibration
    policy : Policy
    explainer : Explainer or None
        The model's own, unless the host brings another.
    approval_word, aftermath_word : int
        How the journal records an approval by the band of this model's score, and a reversal or chargeback.
    version : str
        The model's, as decisions carry it; ``"none"`` without one.
    words : int64[JUDGE_WORDS]
        What the scoring kernel must know (`fraudsdk.scorer.kernels`): where the forest is, and these words.
    scale : float64[n]
        The highest score that needs nobody's opinion, then the calibration.
    """

    model: CompiledModel | None
    calibration: Calibration
    policy: Policy
    explainer: Explainer | None
    approval_word: int
    aftermath_word: int
    version: str = field(init=False)
    words: npt.NDArray[np.int64] = field(init=False, repr=False)
    scale: npt.NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        words = np.zeros(kernels.JUDGE_WORDS, np.int64)
        native = None if self.model is None else self.model.native
        if native is not None:
            words[kernels.FOREST], words[kernels.FOREST_TABLES] = native
        words[kernels.APPROVAL], words[kernels.AFTERMATH] = self.approval_word, self.aftermath_word
        object.__setattr__(self, "version", "none" if self.model is None else self.model.version)
        object.__setattr__(self, "words", words)
        scale = np.concatenate(([self.policy.approves_below], self.calibration.table()))
        object.__setattr__(self, "scale", scale)
