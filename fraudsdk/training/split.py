"""
Splits in time order, with the delay of labels, and the Fraud Detection Handbook's prequential folds.

Nothing here looks at a label before it was known.  A model is fitted at one moment and released at a later one:

    train          gap            validation      gap            test
    |--------------|..............|---------------|..............|-------------->  event time
                                  ^ fitted                       ^ released
                                  labels of train                labels of validation
                                  known by here                  known by here

The gap is the time labels take to arrive.  A chargeback that arrives after the model was fitted is, for that model, a
genuine transaction: a back-test that uses it anyway promises what production will not keep.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from fraudsdk.errors import ConfigurationError
from fraudsdk.training.matrix import DAY_US, NEVER_US, UNKNOWN, TrainingMatrix

_FOLDS_MAX = 1_000


class Unlabelled(Enum):
    """What becomes of a transaction whose label is not known at the moment of fitting."""

    GENUINE_AFTER_HORIZON = "genuine_after_horizon"
    """Genuine once its horizon has passed without a report, left out before.  Most fraud feeds report frauds only."""

    EXCLUDED = "excluded"
    """
    Left out where no label is ever stated; one that is only slow to come counts as genuine once its horizon has passed.
    For feeds that state both verdicts.  Without the second half, the youngest stretch of training would hold nothing but the
    frauds that were reported early, and the model would learn the date.
    """

    @classmethod
    def of(cls, label: NDArray[np.int8]) -> Unlabelled:
        """What silence means beside these labels: nothing where genuine transactions are stated, else "genuine"."""
        return cls.EXCLUDED if (label == 0).any() else cls.GENUINE_AFTER_HORIZON


@dataclass(frozen=True, slots=True)
class SplitTimes:
    """
    Borders of a split, microseconds since the Unix epoch, UTC; every interval is half-open, ``[start, end)``.

    Attributes
    ----------
    train_start_us, train_end_us : int
        What trees are fitted on.
    validation_start_us, validation_end_us : int
        What stops the fit, calibrates the score and proposes bands.  Training labels are those known at its start.
    test_start_us, test_end_us : int
        What nothing was fitted on.  Validation labels are those known at its start.

    Raises
    ------
    ConfigurationError
        When an interval is empty or begins before the one in front of it ends.
    """

    train_start_us: int
    train_end_us: int
    validation_start_us: int
    validation_end_us: int
    test_start_us: int
    test_end_us: int

    def __post_init__(self) -> None:
        for name in ("train", "validation", "test"):
            start_us, end_us = getattr(self, f"{name}_start_us"), getattr(self, f"{name}_end_us")
            if start_us >= end_us:
                raise ConfigurationError(
                    f"the {name} interval must not be empty, was [{start_us}, {end_us}) us; give it a later end"
                )
        for before, after in (("train", "validation"), ("validation", "test")):
            end_us, start_us = getattr(self, f"{before}_end_us"), getattr(self, f"{after}_start_us")
            if start_us < end_us:
                raise ConfigurationError(
                    f"{after} must not start before {before} ends, started {end_us - start_us} us earlier; "
                    "order the intervals in time"
                )

    @classmethod
    def by_fractions(
        cls,
        matrix: TrainingMatrix,
        *,
        train: float = 0.6,
        validation: float = 0.2,
        gap_us: int = 7 * DAY_US,
        test_gap_us: int | None = None,
    ) -> SplitTimes:
        """
        Divide the time that `matrix` spans, after taking the gaps out of it.

        Parameters
        ----------
        matrix : TrainingMatrix
            Not empty.
        train, validation : float
            Shares of the span without its gaps; test gets the rest.
        gap_us : int
            Between train and validation: how long a label takes.
        test_gap_us : int or None
            Between validation and test; None = `gap_us`.

        Warning
        -------
        A `test_gap_us` shorter than labels take leaves, at the end of validation, the frauds that were reported early
        without the genuine transactions beside them: the calibrated score then promises too much.
        """
        test_gap_us = gap_us if test_gap_us is None else test_gap_us
        _check_fractions(train, validation)
        if min(gap_us, test_gap_us) < 0:
            raise ConfigurationError(f"gaps must be >= 0 us, were {gap_us} and {test_gap_us}; give the delay of labels")
        if len(matrix) == 0:
            raise ConfigurationError("there are no transactions to split (0 rows); check the input and its mapping")
        first_us, end_us = int(matrix.event_time_us[0]), int(matrix.event_time_us[-1]) + 1
        usable_us = end_us - first_us - gap_us - test_gap_us
        if usable_us < 3:
            raise ConfigurationError(
                f"the data span {(end_us - first_us) / DAY_US:.1f} days, of which the label delay takes "
                f"{(gap_us + test_gap_us) / DAY_US:.1f}; give more data or a shorter delay"
            )
        train_end_us = first_us + max(1, int(usable_us * train))
        validation_end_us = train_end_us + gap_us + max(1, int(usable_us * validation))
        return cls(
            train_start_us=first_us,
            train_end_us=train_end_us,
            validation_start_us=train_end_us + gap_us,
            validation_end_us=validation_end_us,
            test_start_us=validation_end_us + test_gap_us,
            test_end_us=end_us,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """
    Which rows are fitted, which validate, which test, and the labels the fit may see.

    Attributes
    ----------
    times : SplitTimes
        The borders.
    train, validation, test : int64[...], ascending
        Positions in the matrix.  Rows whose label could not be used are not among `train` and `validation`.
    train_label, validation_label : int8[...]
        0 or 1 for each of those rows, as it was known when the model was fitted, respectively released.
    n_train_excluded, n_validation_excluded : int
        Rows of those intervals that were left out because their label was unknown.
    n_late_frauds : int
        Frauds that the fit counts as genuine because the report came too late, or leaves out.
    horizon_us : int
        Age at which a transaction nobody reported counts as genuine.
    unlabelled : Unlabelled
        The declared choice.
    """

    times: SplitTimes
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    train_label: NDArray[np.int8]
    validation_label: NDArray[np.int8]
    n_train_excluded: int
    n_validation_excluded: int
    n_late_frauds: int
    horizon_us: int
    unlabelled: Unlabelled


def labels_as_of(
    matrix: TrainingMatrix,
    as_of_us: int,
    *,
    horizon_us: int,
    unlabelled: Unlabelled = Unlabelled.GENUINE_AFTER_HORIZON,
) -> NDArray[np.int8]:
    """
    The labels as someone at `as_of_us` knew them.

    Parameters
    ----------
    matrix : TrainingMatrix
        Labels with the time each was known.
    as_of_us : int
        The moment, microseconds since the Unix epoch, UTC.  A label known exactly then is known.
    horizon_us : int
        Age at which a transaction nobody has reported yet counts as genuine.
    unlabelled : Unlabelled
        What a transaction counts as that nobody ever reports.

    Returns
    -------
    int8[n]
        1, 0, or -1 where nothing may be assumed yet; always -1 for events after `as_of_us`.
    """
    happened = matrix.event_time_us <= as_of_us
    known = happened & (matrix.label != UNKNOWN) & (matrix.label_time_us <= as_of_us)
    label = np.where(known, matrix.label, np.int8(UNKNOWN))
    silent = ~known & happened & (matrix.event_time_us <= as_of_us - horizon_us)
    if unlabelled is Unlabelled.EXCLUDED:
        silent &= matrix.label != UNKNOWN
    label[silent] = 0
    return label.astype(np.int8, copy=False)


def labels_with_hindsight(matrix: TrainingMatrix, *, horizon_us: int, unlabelled: Unlabelled) -> NDArray[np.int8]:
    """
    The labels to measure against: everything that was ever stated, and silence read as training reads it.

    Parameters
    ----------
    matrix : TrainingMatrix
        All of it: the latest moment that it knows of is the one it is judged from.
    horizon_us : int
        Age at which a transaction nobody reported counts as genuine, under `Unlabelled.GENUINE_AFTER_HORIZON`.
    unlabelled : Unlabelled
        What an unreported transaction counts as.

    Returns
    -------
    int8[n]
        1, 0, or -1 where nothing may be said.
    """
    if unlabelled is Unlabelled.EXCLUDED or len(matrix) == 0:
        return matrix.label
    stated_us = matrix.label_time_us[(matrix.label != UNKNOWN) & (matrix.label_time_us != NEVER_US)]
    now_us = max(int(matrix.event_time_us[-1]), int(stated_us.max(initial=0)))
    label = labels_as_of(matrix, now_us, horizon_us=horizon_us, unlabelled=unlabelled)
    # Of the youngest the quick reports are here and the silence is not yet consent: frauds would be all there is.
    label[matrix.event_time_us > now_us - horizon_us] = UNKNOWN
    return label


def split_by_time(
    matrix: TrainingMatrix,
    times: SplitTimes | None = None,
    *,
    horizon_us: int | None = None,
    unlabelled: Unlabelled = Unlabelled.GENUINE_AFTER_HORIZON,
) -> Split:
    """
    Cut `matrix` at `times`, with the labels known at each cut.

    Parameters
    ----------
    matrix : TrainingMatrix
        In event-time order.
    times : SplitTimes or None
        None = `SplitTimes.by_fractions` with its defaults.
    horizon_us : int or None
        Age at which an unreported transaction counts as genuine; None = the gap after train.
    unlabelled : Unlabelled
        What an unreported transaction counts as.

    Examples
    --------
    >>> split = split_by_time(matrix, SplitTimes.by_fractions(matrix, gap_us=7 * DAY_US))  # doctest: +SKIP
    """
    times = SplitTimes.by_fractions(matrix) if times is None else times
    horizon_us = times.validation_start_us - times.train_end_us if horizon_us is None else horizon_us
    if horizon_us < 0:
        raise ConfigurationError(f"horizon_us must be >= 0, was {horizon_us}; give the age at which silence is consent")
    at_fit = labels_as_of(matrix, times.validation_start_us, horizon_us=horizon_us, unlabelled=unlabelled)
    at_release = labels_as_of(matrix, times.test_start_us, horizon_us=horizon_us, unlabelled=unlabelled)
    in_train = _between(matrix, times.train_start_us, times.train_end_us)
    in_validation = _between(matrix, times.validation_start_us, times.validation_end_us)
    train = in_train[at_fit[in_train] != UNKNOWN]
    validation = in_validation[at_release[in_validation] != UNKNOWN]
    return Split(
        times=times,
        train=train,
        validation=validation,
        test=_between(matrix, times.test_start_us, times.test_end_us),
        train_label=at_fit[train],
        validation_label=at_release[validation],
        n_train_excluded=len(in_train) - len(train),
        n_validation_excluded=len(in_validation) - len(validation),
        n_late_frauds=int(np.count_nonzero((matrix.label[in_train] == 1) & (at_fit[in_train] != 1))),
        horizon_us=horizon_us,
        unlabelled=unlabelled,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """
    One prequential fold: a train week, a week for labels to arrive, a test week.

    Attributes
    ----------
    start_us : int
        First instant of the train week.
    train, test : int64[...], ascending
        Positions in the matrix; `test` without the cards already known to be compromised.
    """

    start_us: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]


def prequential_folds(
    matrix: TrainingMatrix,
    start_us: int,
    *,
    n_folds: int = 4,
    train_days: int = 7,
    delay_days: int = 7,
    test_days: int = 7,
    shift_days: int = 7,
) -> tuple[Fold, ...]:
    """
    The Handbook's protocol, so that figures can be laid beside the published ones.

    Cards with a fraud in train are known, and so is, on each test day, a card whose fraud the delay has let through
    since: their transactions are dropped from test, since a known card is blocked, not scored.  Labels are taken as
    known after `delay_days`, as the protocol does; `label_time_us` is not consulted.

    Parameters
    ----------
    matrix : TrainingMatrix
        Must cover every fold.  Rows without a label belong to no fold.  Absent cards (key 0) are never known.
    start_us : int
        First instant of the train week of the latest fold; each further fold starts `shift_days` earlier.
    n_folds, train_days, delay_days, test_days, shift_days : int
        Shape of the protocol.

    Returns
    -------
    tuple of Fold
        Latest first, as in the book.

    Source
    ------
    Le Borgne, Siblini, Lebichot, Bontempi, "Reproducible Machine Learning for Credit Card Fraud Detection - Practical
    Handbook", ``get_train_test_set`` and ``prequentialSplit`` in ``shared_functions.py``.
    """
    shape = {"n_folds": n_folds, "train_days": train_days, "delay_days": delay_days, "test_days": test_days}
    for name, value in {**shape, "shift_days": shift_days}.items():
        if not 1 <= value <= _FOLDS_MAX:
            raise ConfigurationError(f"{name} must be 1 to {_FOLDS_MAX}, was {value}; the book has 4 folds of 7 days")
    starts_us = [start_us - i * shift_days * DAY_US for i in range(n_folds)]
    return tuple(_fold(matrix, start, train_days, delay_days, test_days) for start in starts_us)


def _fold(matrix: TrainingMatrix, start_us: int, train_days: int, delay_days: int, test_days: int) -> Fold:
    labelled = matrix.label != UNKNOWN
    fraud = matrix.label == 1

    def days(first: int, end: int) -> NDArray[np.int64]:
        return _between(matrix, start_us + first * DAY_US, start_us + end * DAY_US)

    train = days(0, train_days)
    train = train[labelled[train]]
    known = set(matrix.card_key[train[fraud[train]]].tolist())
    kept = []
    for day in range(train_days + delay_days, train_days + delay_days + test_days):
        # Labels arrive `delay_days` after the event; the day before that one is the last whose labels are all here.
        reported = days(day - delay_days - 1, day - delay_days)
        known |= set(matrix.card_key[reported[fraud[reported]]].tolist())
        known.discard(0)
        today = days(day, day + 1)
        kept.append(today[labelled[today] & ~np.isin(matrix.card_key[today], np.fromiter(known, np.int64, len(known)))])
    test = np.concatenate(kept)
    if len(train) == 0 or len(test) == 0:
        raise ConfigurationError(
            f"the fold from {np.datetime64(start_us, 'us')} has {len(train)} train and {len(test)} test rows; "
            "give data that cover the whole fold, or fewer folds"
        )
    return Fold(start_us, train, test)


def _between(matrix: TrainingMatrix, start_us: int, end_us: int) -> NDArray[np.int64]:
    first, end = np.searchsorted(matrix.event_time_us, (start_us, end_us), side="left")
    return np.arange(first, end, dtype=np.int64)


def _check_fractions(train: float, validation: float) -> None:
    if not (train > 0.0 and validation > 0.0 and train + validation < 1.0):
        raise ConfigurationError(
            f"train and validation must be > 0 and leave a share for test, were {train} and {validation}; "
            "use 0.6 and 0.2"
        )
