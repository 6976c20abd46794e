"""
How good a model is on transactions it was not fitted on, as one frozen result for a terminal, a file and a report.

Ranking figures are taken on the margin, since calibration may tie scores; probability figures and bands on the score.
Rows without a label are counted and otherwise left out.  To evaluate as of a moment in the past, when not every label
had arrived, put `fraudsdk.training.split.labels_as_of` into the matrix first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraudsdk.errors import ConfigurationError
from fraudsdk.model.calibration import Calibration
from fraudsdk.training import metrics
from fraudsdk.training.matrix import DAY_US, UNKNOWN, TrainingMatrix
from fraudsdk.training.metrics import CardPrecision, Interval, OperatingPoint, ReliabilityBin, SegmentRow

FALSE_POSITIVE_RATES = (0.001, 0.005, 0.01)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """
    Figures of one model on one set of labelled transactions.

    Attributes
    ----------
    n, n_frauds, n_unlabelled, n_days : int
        Labelled transactions, frauds among them, rows left out for want of a label, UTC days they fall on.
    first_event_us, last_event_us : int
        Span of the labelled transactions, microseconds since the Unix epoch, UTC.
    auc, average_precision : float
        Of the margin.
    intervals : mapping of str to Interval
        95 % intervals of those two, from resampling cards; empty when not asked for.
    card_precision : CardPrecision or None
        None when no transaction names a card.
    at_false_positive_rate : mapping of float to OperatingPoint
        Thresholds are margins.
    at_band : mapping of str to OperatingPoint
        Thresholds are scores.
    calibration_kind : str
        What turned margins into scores.
    expected_calibration_error, expected_calibration_error_uncalibrated : float
        With that calibration, and with the plain sigmoid of the margin.
    brier, brier_of_base_rate : float
        Of the score, and of always answering the fraud rate.
    reliability : tuple of ReliabilityBin
        Promised against observed.
    segments : tuple of SegmentRow
        Every value of every segment, at the review band.
    """

    n: int
    n_frauds: int
    n_unlabelled: int
    n_days: int
    first_event_us: int
    last_event_us: int
    auc: float
    average_precision: float
    intervals: Mapping[str, Interval]
    card_precision: CardPrecision | None
    at_false_positive_rate: Mapping[float, OperatingPoint]
    at_band: Mapping[str, OperatingPoint]
    calibration_kind: str
    expected_calibration_error: float
    expected_calibration_error_uncalibrated: float
    brier: float
    brier_of_base_rate: float
    reliability: tuple[ReliabilityBin, ...]
    segments: tuple[SegmentRow, ...]

    @property
    def fraud_rate(self) -> float:
        """Frauds among the labelled transactions."""
        return self.n_frauds / self.n

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON can hold them: a figure that could not be had is None."""
        plain: dict[str, Any] = _jsonable(asdict(self))
        return {"fraud_rate": self.fraud_rate, **plain}

    def to_text(self) -> str:
        """The figures as a table for a terminal."""
        return "\n".join([*_headline(self), "", *_point_lines(self), *_segment_lines(self)])


def evaluate(
    matrix: TrainingMatrix,
    scores: NDArray[np.float64],
    margins: NDArray[Any],
    *,
    calibration: Mapping[str, Any] | None = None,
    k: int = 100,
    bands: Mapping[str, Any] | None = None,
    n_resamples: int = 200,
    seed: int = 7,
) -> Evaluation:
    """
    Measure scores against labels.

    Parameters
    ----------
    matrix : TrainingMatrix
        The scored rows.  `matrix.rows` is not read.
    scores : float64[n]
        Calibrated probabilities.
    margins : float[n]
        Log-odds.
    calibration : mapping or None
        What made scores of margins, to be named; None = the plain sigmoid.
    k : int
        Cards that can be called in a day.
    bands : mapping or None
        Scores by name, such as ``{"review": 0.2, "decline": 0.93}``; entries that are None are skipped and so are the
        figures `suggest_bands` puts beside its proposal.  None = review at 0.2.
    n_resamples : int
        Bootstrap resamples for the intervals; 0 = no intervals.
    seed : int
        Of the bootstrap.

    Raises
    ------
    ConfigurationError
        Lengths differ, nothing is labelled, or a score is no probability.
    """
    if scores.shape != (len(matrix),) or margins.shape != (len(matrix),):
        raise ConfigurationError(
            f"scores and margins must have one value for each of the {len(matrix)} rows, had {scores.shape} and "
            f"{margins.shape}; score this matrix"
        )
    labelled = matrix.label != UNKNOWN
    if not labelled.any():
        raise ConfigurationError(f"none of the {len(matrix)} rows is labelled; map the label column")
    label, amount, card = matrix.label[labelled], matrix.amount_major[labelled], matrix.card_key[labelled]
    score, margin = scores[labelled], margins[labelled].astype(np.float64)
    event_time_us = matrix.event_time_us[labelled]
    day = event_time_us // DAY_US
    n_days = len(np.unique(day))
    thresholds = _thresholds(bands)
    ranked, scored = (metrics.RankingCurve.of(label, by, amount) for by in (margin, score))
    bins = metrics.reliability(label, score)
    uncalibrated = metrics.reliability(label, Calibration.identity().probabilities_of(margin))
    fraud_rate = float(label.mean())
    return Evaluation(
        n=len(label),
        n_frauds=int(label.sum()),
        n_unlabelled=int((~labelled).sum()),
        n_days=n_days,
        first_event_us=int(event_time_us[0]),
        last_event_us=int(event_time_us[-1]),
        auc=ranked.auc(),
        average_precision=ranked.average_precision(),
        intervals=metrics.bootstrap_by_card(label, margin, card, n_resamples=n_resamples, seed=seed)
        if n_resamples
        else {},
        card_precision=metrics.card_precision_at_k(label, margin, card, day, k) if card.any() else None,
        at_false_positive_rate={
            rate: metrics.at_false_positive_rate(ranked, rate, n_days) for rate in FALSE_POSITIVE_RATES
        },
        at_band={name: metrics.at_threshold(scored, threshold, n_days) for name, threshold in thresholds.items()},
        calibration_kind="identity" if calibration is None else str(calibration["kind"]),
        expected_calibration_error=metrics.expected_calibration_error(bins),
        expected_calibration_error_uncalibrated=metrics.expected_calibration_error(uncalibrated),
        brier=metrics.brier_score(label, score),
        brier_of_base_rate=fraud_rate * (1 - fraud_rate),
        reliability=bins,
        segments=tuple(
            row
            for name, values in matrix.segments.items()
            for row in metrics.segment_table(
                name, values[labelled], label, score, amount, threshold=min(thresholds.values()), n_days=n_days
            )
        ),
    )


def _thresholds(bands: Mapping[str, Any] | None) -> dict[str, float]:
    bands = {"review": 0.2} if bands is None else bands
    known = ("review", "step_up", "decline")
    thresholds = {name: float(bands[name]) for name in known if bands.get(name) is not None}
    if not thresholds:
        raise ConfigurationError(
            f"bands must name one of {', '.join(known)}, were {sorted(bands)}; give a review score"
        )
    return thresholds


def _headline(result: Evaluation) -> list[str]:
    span = f"{_date(result.first_event_us)} to {_date(result.last_event_us)}"
    unlabelled = f", {result.n_unlabelled:,} without a label left out" if result.n_unlabelled else ""
    lines = [
        f"{result.n:,} transactions, {result.n_frauds:,} frauds ({result.fraud_rate:.3%}), {span}{unlabelled}",
        "",
        f"AUC                        {_figure(result.auc)}{_interval(result, 'auc')}",
        f"average precision          {_figure(result.average_precision)}{_interval(result, 'average_precision')}",
    ]
    cards = result.card_precision
    if cards is not None:
        name = f"card precision@{cards.k}"
        lines.append(f"{name:<26} {_figure(cards.mean)}  (a perfect ranking: {_figure(cards.mean_max)})")
    return [
        *lines,
        f"calibration error          {result.expected_calibration_error:.5f}  "
        f"(plain sigmoid: {result.expected_calibration_error_uncalibrated:.5f})",
        f"Brier                      {result.brier:.5f}  (always the fraud rate: {result.brier_of_base_rate:.5f})",
    ]


def _point_lines(result: Evaluation) -> list[str]:
    lines = [f"{'stop at':<26} {'recall':>8} {'precision':>10} {'value':>8} {'FPR':>9} {'alerts/day':>11}"]
    named = [
        *((f"{rate:.1%} false positives", point) for rate, point in result.at_false_positive_rate.items()),
        *((f"{name}, score >= {point.threshold:.3f}", point) for name, point in result.at_band.items()),
    ]
    for name, point in named:
        lines.append(
            f"{name:<26} {_percent(point.recall):>8} {_percent(point.precision):>10} "
            f"{_percent(point.value_detection):>8} {_percent(point.false_positive_rate, 3):>9} "
            f"{point.alerts_per_day:>11,.1f}"
        )
    return lines


def _segment_lines(result: Evaluation) -> list[str]:
    lines: list[str] = []
    segment = None
    for row in result.segments:
        if row.segment != segment:
            segment = row.segment
            header = f"{'n':>10} {'frauds':>8} {'AUC':>7} {'AP':>7} {'recall':>8} {'precision':>10} {'value':>8}"
            lines += ["", f"{segment[:26]:<26} {header}"]
        lines.append(
            f"{row.value[:26]:<26} {row.n:>10,} {row.n_frauds:>8,} {_figure(row.auc):>7} "
            f"{_figure(row.average_precision):>7} {_percent(row.point.recall):>8} {_percent(row.point.precision):>10} "
            f"{_percent(row.point.value_detection):>8}"
        )
    return lines


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _percent(value: float, decimals: int = 1) -> str:
    return "-" if math.isnan(value) else f"{value:.{decimals}%}"


def _interval(result: Evaluation, name: str) -> str:
    interval = result.intervals.get(name)
    return "" if interval is None else f"  [{_figure(interval.low)}, {_figure(interval.high)}]"


def _date(event_time_us: int) -> str:
    return str(np.datetime64(event_time_us, "us").astype("datetime64[D]"))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
