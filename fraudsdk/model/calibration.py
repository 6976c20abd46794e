"""
Margin -> probability: what a score of 0.2 means.

A model trained on a resampled or weighted stream ranks well and lies about probability.  A `Calibration`, fitted by
`fraudsdk.training` on later data, maps the margin to a frequency.  It is monotone, so that it never changes a ranking.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk.errors import InvalidModelError

MAX_KNOTS = 10_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """
    A monotone map from margin to probability.

    Build one with `identity`, `platt`, `piecewise` or `from_dict`.

    Attributes
    ----------
    kind : str
        ``"identity"`` (the sigmoid of the margin), ``"platt"`` (the sigmoid of ``slope * margin + intercept``) or
        ``"piecewise"`` (straight lines between knots, level outside them; an isotonic fit is one).
    slope, intercept : float
        Of the Platt map.
    margins, probabilities : tuple of float
        Knots of the piecewise map; margins ascend, probabilities do not descend.

    Examples
    --------
    >>> Calibration.identity().probability(0.0)
    0.5
    >>> Calibration.piecewise([-2.0, 2.0], [0.1, 0.5]).probability(0.0)
    0.3
    """

    kind: str
    slope: float = 1.0
    intercept: float = 0.0
    margins: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("identity", "platt", "piecewise"):
            raise InvalidModelError(
                f"calibration kind must be identity, platt or piecewise, was {self.kind!r}; fit the calibration again"
            )
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept) and self.slope > 0):
            raise InvalidModelError(
                f"a Platt calibration needs a finite intercept and a slope > 0, had {self.intercept} and {self.slope}; "
                "a slope below zero means that the model ranks backwards"
            )
        if self.kind == "piecewise":
            self._check_knots()

    def _check_knots(self) -> None:
        margins, probabilities = np.array(self.margins), np.array(self.probabilities)
        if not 1 <= margins.size <= MAX_KNOTS or margins.size != probabilities.size:
            raise InvalidModelError(
                f"a piecewise calibration needs 1 to {MAX_KNOTS:,} knots and as many probabilities, had {margins.size} and "
                f"{probabilities.size}; fit the calibration again"
            )
        in_range = bool(np.isfinite(margins).all()) and bool(((probabilities >= 0) & (probabilities <= 1)).all())
        if not in_range or (np.diff(margins) <= 0).any() or (np.diff(probabilities) < 0).any():
            raise InvalidModelError(
                "a piecewise calibration needs finite, ascending margins and probabilities from 0 to 1 that do not descend; "
                "fit the calibration again"
            )

    @classmethod
    def identity(cls) -> Calibration:
        """The sigmoid alone: what the model itself claims."""
        return cls("identity")

    @classmethod
    def platt(cls, slope: float, intercept: float) -> Calibration:
        """The sigmoid of ``slope * margin + intercept``."""
        return cls("platt", slope=float(slope), intercept=float(intercept))

    @classmethod
    def piecewise(cls, margins: Sequence[float], probabilities: Sequence[float]) -> Calibration:
        """Straight lines between knots, level before the first and after the last."""
        return cls("piecewise", margins=tuple(map(float, margins)), probabilities=tuple(map(float, probabilities)))

    def probability(self, margin: float) -> float:
        """
        Probability of fraud, 0 to 1.

        A NaN margin gives NaN: where no model spoke there is no score.
        """
        if self.kind != "piecewise":
            return sigmoid(self.slope * margin + self.intercept)
        if margin != margin:
            return math.nan
        at = bisect_right(self.margins, margin)
        if at == 0:
            return self.probabilities[0]
        if at == len(self.margins):
            return self.probabilities[-1]
        low, high = self.margins[at - 1], self.margins[at]
        share = (margin - low) / (high - low)
        below, above = self.probabilities[at - 1], self.probabilities[at]
        # Rounding may overshoot the upper knot by an ulp and so break monotonicity.
        return min(below + share * (above - below), above)

    def probabilities_of(self, margins: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """
        `probability` of each margin.

        One by one on purpose: numpy's exp and libm's may differ in the last bit, and a batch must give the scores that
        single calls give.
        """
        return np.fromiter(map(self.probability, margins.tolist()), np.float64, count=len(margins))

    def table(self) -> npt.NDArray[np.float64]:
        """
        What a kernel needs to give the same probabilities.

        Returns
        -------
        float64[2 + 2 * n_knots]
            Slope and intercept; then all margins and all probabilities of a piecewise map, which has no use for the
            first two.
        """
        return np.array([self.slope, self.intercept, *self.margins, *self.probabilities])

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` reads: plain numbers, texts and lists."""
        if self.kind == "platt":
            return {"kind": "platt", "slope": self.slope, "intercept": self.intercept}
        if self.kind == "piecewise":
            return {"kind": "piecewise", "margins": list(self.margins), "probabilities": list(self.probabilities)}
        return {"kind": "identity"}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Calibration:
        """
        The calibration that `to_dict` wrote.

        Raises
        ------
        InvalidModelError
            A field is missing, unknown, or not a number.
        """
        fields = {"identity": (), "platt": ("slope", "intercept"), "piecewise": ("margins", "probabilities")}
        kind = value.get("kind")
        if not isinstance(kind, str) or kind not in fields or set(value) != {"kind", *fields[kind]}:
            raise InvalidModelError(
                f"a calibration has unknown or missing fields: {sorted(map(str, value))}; fit it again"
            )
        try:
            if kind == "platt":
                return cls.platt(value["slope"], value["intercept"])
            if kind == "piecewise":
                return cls.piecewise(value["margins"], value["probabilities"])
        except (TypeError, ValueError) as error:
            raise InvalidModelError(f"a {kind} calibration must hold numbers only: {error}; fit it again") from error
        return cls.identity()


def sigmoid(margin: float) -> float:
    """Log-odds -> probability, without overflow at either end."""
    if margin >= 0.0:
        return 1.0 / (1.0 + math.exp(-margin))
    odds = math.exp(margin)
    return odds / (1.0 + odds)
