"""
The figures that tell one fraud model from another.

Ranking figures (AUC, average precision, card precision, recall at a false-positive rate) take any score that orders
transactions: give them the margin, which has no ties that calibration made.  Probability figures (expected calibration
error, Brier) take the calibrated score.  A figure that the data cannot give, such as the AUC of one class, is NaN.

Accuracy is absent on purpose: with one fraud in two hundred, approving everything is 99.5 % accurate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraudsdk.errors import ConfigurationError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RELIABILITY_EDGES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
"""
Bins of the reliability table.  Equal widths would put 99 % of the transactions into one bin, equal counts would put
nearly all frauds into one; these are even in log-odds, where fraud scores live.
"""

_WILSON_Z = 1.959964
_OTHER = "(other)"


@dataclass(frozen=True, slots=True, eq=False)
class RankingCurve:
    """
    What lies at or above every distinct score, highest first.

    Attributes
    ----------
    threshold : float64[m], descending
        The distinct scores.
    frauds, genuine : float64[m]
        Frauds and genuine transactions scored at or above each.
    fraud_value : float64[m]
        Amount of those frauds, major units.
    """

    threshold: Floats
    frauds: Floats
    genuine: Floats
    fraud_value: Floats

    @classmethod
    def of(cls, label: NDArray[np.int8], score: Floats, amount_major: Floats | None = None) -> RankingCurve:
        """Count `label` (0 or 1) by `score`; without amounts every fraud is worth 1."""
        label, score = _checked(label, score)
        order = np.argsort(-score, kind="stable")
        is_fraud = label[order] == 1
        value = np.ones(len(score)) if amount_major is None else amount_major[order]
        last_of_tie = _last_of_tie(score[order])
        return cls(
            threshold=score[order][last_of_tie],
            frauds=np.cumsum(is_fraud)[last_of_tie].astype(np.float64),
            genuine=np.cumsum(~is_fraud)[last_of_tie].astype(np.float64),
            fraud_value=np.cumsum(np.where(is_fraud, value, 0.0))[last_of_tie],
        )

    @property
    def n_frauds(self) -> float:
        """Frauds in all."""
        return float(self.frauds[-1])

    @property
    def n_genuine(self) -> float:
        """Genuine transactions in all."""
        return float(self.genuine[-1])

    def auc(self) -> float:
        """Chance that a fraud scores above a genuine transaction, a tie counting half."""
        return _auc(self.frauds, self.genuine)

    def average_precision(self) -> float:
        """Mean, over frauds, of the precision at the fraud's own score; no interpolation."""
        return _average_precision(self.frauds, self.genuine)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """
    What happens when every transaction scored at or above a threshold is stopped.

    Attributes
    ----------
    threshold : float
        In the unit of the score that was ranked; inf when nothing can be stopped under the asked rate.
    alerts, alerts_per_day : float
        Transactions stopped.
    recall, precision, false_positive_rate : float
        Shares 0 to 1; NaN where there is nothing to share.
    value_detection : float
        Share of the frauds' amount that is stopped.
    """

    threshold: float
    alerts: float
    alerts_per_day: float
    recall: float
    precision: float
    false_positive_rate: float
    value_detection: float


@dataclass(frozen=True, slots=True)
class CardPrecision:
    """
    Precision of the k cards that analysts can call each day.

    Attributes
    ----------
    k : int
        Cards a day.
    mean : float
        Mean of `per_day`.
    mean_max : float
        What a perfect ranking would reach: on days with fewer than `k` compromised cards it is below 1.
    per_day : tuple of float
        Compromised cards among the day's `k` highest, divided by `k`.
    compromised_per_day : tuple of int
        Compromised cards left to find on each day.
    """

    k: int
    mean: float
    mean_max: float
    per_day: tuple[float, ...]
    compromised_per_day: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """
    Transactions of nearly one score: what was promised and what came.

    Attributes
    ----------
    lower, upper : float
        Scores in ``[lower, upper)``; the last bin includes 1.
    n : int
        Transactions.
    score_mean, fraud_rate : float
        Promised and observed.
    fraud_rate_low, fraud_rate_high : float
        Wilson's 95 % interval of `fraud_rate`.
    """

    lower: float
    upper: float
    n: int
    score_mean: float
    fraud_rate: float
    fraud_rate_low: float
    fraud_rate_high: float


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One value of a segment, such as ``channel = ecom``; `point` is the operating point of the whole, in this part."""

    segment: str
    value: str
    n: int
    n_frauds: int
    auc: float
    average_precision: float
    point: OperatingPoint


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval."""

    low: float
    high: float


def roc_auc(label: NDArray[np.int8], score: Floats) -> float:
    """Area under the ROC curve; see `RankingCurve.auc`."""
    return RankingCurve.of(label, score).auc()


def average_precision(label: NDArray[np.int8], score: Floats) -> float:
    """Average precision, exactly as scikit-learn defines it; see `RankingCurve.average_precision`."""
    return RankingCurve.of(label, score).average_precision()


def at_threshold(curve: RankingCurve, threshold: float, n_days: int) -> OperatingPoint:
    """Stop what scores at or above `threshold`, over `n_days` days."""
    n_above = int(np.searchsorted(-curve.threshold, -threshold, side="right"))
    return _point(curve, n_above - 1, threshold, n_days)


def at_false_positive_rate(curve: RankingCurve, rate_max: float, n_days: int) -> OperatingPoint:
    """
    Stop as much as possible while at most `rate_max` of the genuine transactions are stopped.

    Only thresholds that exist are used: a tie is stopped whole or not at all, and nothing is interpolated.
    """
    n_within = int(np.searchsorted(curve.genuine, rate_max * curve.n_genuine, side="right"))
    threshold = float(curve.threshold[n_within - 1]) if n_within else np.inf
    return _point(curve, n_within - 1, threshold, n_days)


def card_precision_at_k(
    label: NDArray[np.int8], score: Floats, card_key: Ints, day: Ints, k: int = 100, *, drop_detected: bool = True
) -> CardPrecision:
    """
    Card precision at `k`, exactly as the Handbook's protocol has it.

    On each day a card counts with its highest score and is compromised if any of its transactions is a fraud.  The
    compromised cards among the day's `k` highest are detected, and are gone from the days that follow.

    Parameters
    ----------
    label, score : int8[n], float64[n]
        0 or 1, and what orders the cards.
    card_key : int64[n]
        Transactions without a card (0) are not anybody's card and are left out.
    day : int64[n]
        Day number of each transaction.
    k : int
        Cards a day.  The divisor is `k` even on a day with fewer cards.
    drop_detected : bool
        False keeps detected cards in the days that follow.

    Notes
    -----
    Cards of equal score are taken in order of their key.  The book leaves that to an unstable sort.

    Source
    ------
    ``card_precision_top_k`` in the Handbook's ``shared_functions.py``.
    """
    label, score = _checked(label, score)
    if k < 1:
        raise ConfigurationError(f"k must be >= 1, was {k}; say how many cards can be called in a day")
    has_card = card_key != 0
    columns = (label[has_card], score[has_card], card_key[has_card], day[has_card])
    per_day, compromised = _card_precision_by_day(*columns, k, drop_detected)
    best, _ = _card_precision_by_day(columns[0], columns[0].astype(np.float64), *columns[2:], k, drop_detected)
    return CardPrecision(k, _mean(per_day), _mean(best), tuple(per_day), tuple(compromised))


def reliability(
    label: NDArray[np.int8], score: Floats, edges: tuple[float, ...] = RELIABILITY_EDGES
) -> tuple[ReliabilityBin, ...]:
    """Promised against observed fraud, for the bins that hold anything."""
    label, score = _checked(label, score)
    _check_probabilities(score)
    bin_of = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    bins = []
    for i in np.unique(bin_of):
        inside = bin_of == i
        n, fraud_rate = int(inside.sum()), float(label[inside].mean())
        low, high = wilson_interval(fraud_rate, n)
        bins.append(ReliabilityBin(edges[i], edges[i + 1], n, float(score[inside].mean()), fraud_rate, low, high))
    return tuple(bins)


def expected_calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance between promised and observed, each bin weighted by its transactions."""
    n = sum(b.n for b in bins)
    return sum(b.n * abs(b.score_mean - b.fraud_rate) for b in bins) / n


def brier_score(label: NDArray[np.int8], score: Floats) -> float:
    """Mean squared distance of the score from what happened."""
    label, score = _checked(label, score)
    _check_probabilities(score)
    return float(np.mean((score - label) ** 2))


def wilson_interval(share: float, n: int) -> tuple[float, float]:
    """
    95 % interval of a share of `n`, sound near 0 and 1, where fraud rates are.

    Source
    ------
    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.
    """
    z2 = _WILSON_Z**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _WILSON_Z * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def segment_table(
    segment: str,
    values: NDArray[np.object_],
    label: NDArray[np.int8],
    score: Floats,
    amount_major: Floats,
    *,
    threshold: float,
    n_days: int,
    n_values_max: int = 30,
) -> tuple[SegmentRow, ...]:
    """
    The figures of each value of a segment, most transactions first.

    Beyond `n_values_max` values the rarest are pooled under ``(other)``: a free-text column must not flood a report.
    """
    label, score = _checked(label, score)
    text, code = np.unique(np.array([_segment_text(value) for value in values]), return_inverse=True)
    by_count = np.argsort(-np.bincount(code, minlength=len(text)), kind="stable")
    shown = by_count if len(by_count) <= n_values_max else by_count[: n_values_max - 1]
    parts = [(str(text[i]), code == i) for i in shown]
    if len(shown) < len(by_count):
        parts.append((_OTHER, ~np.isin(code, shown)))
    rows = []
    for value, inside in parts:
        curve = RankingCurve.of(label[inside], score[inside], amount_major[inside])
        figures = (curve.auc(), curve.average_precision(), at_threshold(curve, threshold, n_days))
        rows.append(SegmentRow(segment, value, int(inside.sum()), int(curve.n_frauds), *figures))
    return tuple(rows)


def bootstrap_by_card(
    label: NDArray[np.int8],
    score: Floats,
    card_key: Ints,
    *,
    n_resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 7,
) -> dict[str, Interval]:
    """
    Percentile intervals of ``auc`` and ``average_precision`` from resampling cards.

    Transactions of one card stand or fall together, so drawing transactions one by one would promise too narrow an
    interval.  A transaction without a card is a card of its own.

    Returns
    -------
    dict of str to Interval
        NaN limits where a figure cannot be had.
    """
    label, score = _checked(label, score)
    order = np.argsort(-score, kind="stable")
    last_of_tie = _last_of_tie(score[order])
    is_fraud = label[order] == 1
    n_cards, card = _cards(card_key[order])
    generator = np.random.default_rng(seed)
    figures = np.empty((n_resamples, 2))
    for i in range(n_resamples):
        times_drawn = np.bincount(generator.integers(n_cards, size=n_cards), minlength=n_cards)[card]
        frauds = np.cumsum(times_drawn * is_fraud)[last_of_tie].astype(np.float64)
        genuine = np.cumsum(times_drawn * ~is_fraud)[last_of_tie].astype(np.float64)
        figures[i] = _auc(frauds, genuine), _average_precision(frauds, genuine)
    tails = (50 * (1 - confidence), 50 * (1 + confidence))
    # A resample without a single fraud has no figure; it must not turn the interval into NaN.
    finite = np.isfinite(figures).all(axis=1)
    limits = np.percentile(figures[finite], tails, axis=0) if finite.any() else np.full((2, 2), np.nan)
    names = ("auc", "average_precision")
    return {name: Interval(float(limits[0, j]), float(limits[1, j])) for j, name in enumerate(names)}


def _auc(frauds: Floats, genuine: Floats) -> float:
    if frauds[-1] == 0 or genuine[-1] == 0:
        return float("nan")
    area = np.sum(np.diff(genuine, prepend=0.0) * (frauds + np.concatenate(([0.0], frauds[:-1])))) / 2
    return float(area / (frauds[-1] * genuine[-1]))


def _average_precision(frauds: Floats, genuine: Floats) -> float:
    if frauds[-1] == 0:
        return float("nan")
    # In a resample a tie may hold no transaction at all: it adds no recall, whatever its precision.
    precision = frauds / np.maximum(frauds + genuine, 1.0)
    return float(np.sum(np.diff(frauds, prepend=0.0) * precision) / frauds[-1])


def _point(curve: RankingCurve, index: int, threshold: float, n_days: int) -> OperatingPoint:
    none = index < 0
    frauds = 0.0 if none else float(curve.frauds[index])
    genuine = 0.0 if none else float(curve.genuine[index])
    value = 0.0 if none else float(curve.fraud_value[index])
    alerts = frauds + genuine
    return OperatingPoint(
        threshold=threshold,
        alerts=alerts,
        alerts_per_day=alerts / n_days,
        recall=_share(frauds, curve.n_frauds),
        precision=_share(frauds, alerts),
        false_positive_rate=_share(genuine, curve.n_genuine),
        value_detection=_share(value, float(curve.fraud_value[-1])),
    )


def _card_precision_by_day(
    label: NDArray[np.int8], score: Floats, card_key: Ints, day: Ints, k: int, drop_detected: bool
) -> tuple[list[float], list[int]]:
    per_day: list[float] = []
    compromised_per_day: list[int] = []
    detected = np.empty(0, np.int64)
    for today in np.unique(day):
        inside = (day == today) & ~np.isin(card_key, detected)
        cards, card = np.unique(card_key[inside], return_inverse=True)
        card_score = np.full(len(cards), -np.inf)
        np.maximum.at(card_score, card, score[inside])
        compromised = np.bincount(card, weights=label[inside], minlength=len(cards)) > 0
        called = np.argsort(-card_score, kind="stable")[:k]
        found = cards[called][compromised[called]]
        per_day.append(len(found) / k)
        compromised_per_day.append(int(compromised.sum()))
        if drop_detected:
            detected = np.concatenate((detected, found))
    return per_day, compromised_per_day


def _cards(card_key: Ints) -> tuple[int, Ints]:
    """Number the cards from 0, every absent one apart."""
    keys, card = np.unique(card_key, return_inverse=True)
    absent = card_key == 0
    card = card.astype(np.int64)
    card[absent] = len(keys) + np.arange(int(absent.sum()))
    return len(keys) + int(absent.sum()), card


def _last_of_tie(descending: Floats) -> Ints:
    return np.append(np.flatnonzero(np.diff(descending)), len(descending) - 1)


def _checked(label: NDArray[np.int8], score: Floats) -> tuple[NDArray[np.int8], Floats]:
    if label.shape != score.shape or label.ndim != 1 or len(label) == 0:
        raise ConfigurationError(
            f"label and score must be of one length, at least 1, were {label.shape} and {score.shape}; "
            "score the rows that are labelled"
        )
    if not np.isin(label, (0, 1)).all():
        raise ConfigurationError("label must be 0 or 1 in every row to be measured; leave unknown labels out")
    score = score.astype(np.float64, copy=False)
    if not np.isfinite(score).all():
        raise ConfigurationError(f"score must be finite, {int((~np.isfinite(score)).sum())} are not; check the model")
    return label, score


def _check_probabilities(score: Floats) -> None:
    if score.min() < 0.0 or score.max() > 1.0:
        raise ConfigurationError(
            f"score must be a probability, 0 to 1, was {score.min():.3g} to {score.max():.3g}; "
            "pass the calibrated score, not the margin"
        )


def _segment_text(value: object) -> str:
    return "(none)" if value is None or value == "" else str(value)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
