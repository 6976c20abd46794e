"""What comes out of a batch: `Decisions`, in columns until one of them is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from operator import index as as_index
from typing import overload

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.decision import Decision, Outcome, approval


class Decisions(Sequence[Decision]):
    """
    The verdicts on a batch, in its order.

    Nearly all of them are approvals by their score, which four columns say in full: they become a `Decision` when they
    are asked for, one by one, as a slice or in a loop.

    Parameters
    ----------
    transaction_ids : object[n]
    scores, margins : float64[n]
    model_version : str
    singled_out : Mapping of int to Decision
        By row, whatever is more than an approval by the score of this model.

    Attributes
    ----------
    transaction_ids : object[n]
        As the caller sent them.
    scores : float64[n]
        `Decision.score` of each row.
    margins : float64[n]
        `Decision.margin` of each row.

    Examples
    --------
    >>> decisions = scorer.score_batch(table)                         # doctest: +SKIP
    >>> [alert.transaction_id for alert in decisions.flagged()]       # doctest: +SKIP
    ['t-17', 't-404']
    """

    __slots__ = ("_model_version", "_singled_out", "margins", "scores", "transaction_ids")

    def __init__(
        self,
        transaction_ids: npt.NDArray[np.object_],
        scores: npt.NDArray[np.float64],
        margins: npt.NDArray[np.float64],
        model_version: str,
        singled_out: Mapping[int, Decision],
    ) -> None:
        self.transaction_ids = transaction_ids
        self.scores = scores
        self.margins = margins
        self._model_version = model_version
        self._singled_out = singled_out

    @property
    def singled_out(self) -> Mapping[int, Decision]:
        """By row, in no order, whatever is more than an approval by the score; for those who pass all of them on."""
        return self._singled_out

    def with_singled_out(self, others: Mapping[int, Decision]) -> Decisions:
        """The same but for some rows, each of which is the decision given."""
        singled_out = {**self._singled_out, **others}
        return Decisions(self.transaction_ids, self.scores, self.margins, self._model_version, singled_out)

    def flagged(self) -> list[Decision]:
        """Those whose outcome is not `APPROVE`, in order; the others are not even made."""
        return [each for _, each in self.flagged_rows()]

    def flagged_rows(self) -> list[tuple[int, Decision]]:
        """`flagged`, each with its row."""
        return [each for each in sorted(self._singled_out.items()) if each[1].outcome is not Outcome.APPROVE]

    def __len__(self) -> int:
        return len(self.transaction_ids)

    @overload
    def __getitem__(self, row: int) -> Decision: ...
    @overload
    def __getitem__(self, row: slice) -> list[Decision]: ...
    def __getitem__(self, row: int | slice) -> Decision | list[Decision]:
        if isinstance(row, slice):
            return self._between(row)
        at = range(len(self))[as_index(row)]
        if at in self._singled_out:
            return self._singled_out[at]
        return approval(self.transaction_ids[at], float(self.scores[at]), float(self.margins[at]), self._model_version)

    def __iter__(self) -> Iterator[Decision]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        times = Counter(each.outcome for each in self._singled_out.values())
        times[Outcome.APPROVE] += len(self) - len(self._singled_out)
        said = ", ".join(f"{times[outcome]:,} {outcome.value}" for outcome in Outcome if times[outcome])
        return f"<Decisions: {said or 'none'}>"

    def _between(self, rows: slice) -> list[Decision]:
        columns = (column[rows].tolist() for column in (self.transaction_ids, self.scores, self.margins))
        decisions = list(map(approval, *columns, repeat(self._model_version)))  # all as if approved
        places = range(len(self))[rows]
        for row, decision in self._singled_out.items():
            if row in places:
                decisions[places.index(row)] = decision
        return decisions
