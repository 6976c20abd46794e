"""From a score to an outcome."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fraudsdk.domain.decision import Outcome
from fraudsdk.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ScoreBands:
    """
    The lowest score of each outcome; below all of them a transaction is approved.

    Attributes
    ----------
    review, step_up, decline : float or None
        Calibrated probabilities, 0 to 1, rising in this order; None leaves an outcome out.  A band begins *at* its
        threshold.

    Examples
    --------
    >>> ScoreBands().outcome(0.2)
    <Outcome.REVIEW: 'REVIEW'>
    """

    review: float | None = 0.2
    step_up: float | None = None
    decline: float | None = 0.9

    def __post_init__(self) -> None:
        previous_name, previous = "", -math.inf
        for name in ("review", "step_up", "decline"):
            threshold = getattr(self, name)
            if threshold is None:
                continue
            if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0.0 <= threshold <= 1.0:
                raise ConfigurationError(f"bands.{name} must be a number from 0 to 1, was {threshold!r}")
            if threshold <= previous:
                raise ConfigurationError(
                    f"bands.{name} must be above bands.{previous_name} ({previous}), was {threshold}; leave one of them out"
                )
            previous_name, previous = name, threshold

    def outcome(self, score: float) -> Outcome:
        """The outcome of a score from 0 to 1."""
        if self.decline is not None and score >= self.decline:
            return Outcome.DECLINE
        if self.step_up is not None and score >= self.step_up:
            return Outcome.STEP_UP
        if self.review is not None and score >= self.review:
            return Outcome.REVIEW
        return Outcome.APPROVE
