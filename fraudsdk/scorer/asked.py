"""
What a scorer decided of late, where others remember the transactions: a host that asks again gets the same answer.

Until they do, nothing else would tell that a transaction comes for the second time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Final

from fraudsdk.domain.decision import Decision
from fraudsdk.domain.decisions import Decisions

# A host repeats within seconds what was not answered; 100,000 are ten seconds at 10,000 a second, and some 50 MB.
MAX_ASKED: Final = 100_000

_Entry = Decision | tuple[Decisions, int]


class Asked:
    """
    First decisions by transaction; any number of threads may call it.

    Parameters
    ----------
    capacity : int
        Decisions that are kept; beyond it the oldest is forgotten, and its transaction decided on anew.
    """

    def __init__(self, capacity: int = MAX_ASKED) -> None:
        self._capacity = capacity
        self._first: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, transaction_id: str) -> Decision | None:
        """The decision that was made first; None where it is not known."""
        with self._lock:
            first = self._first.get(transaction_id)
        return None if first is None else _decision_of(first)

    def answer(self, decision: Decision) -> Decision:
        """A decision that was just made, or the one that was made before, marked as a duplicate."""
        with self._lock:
            return self._known(decision.transaction_id, decision) or decision

    def answers(self, decisions: Decisions) -> Decisions:
        """As `answer`, of a batch."""
        with self._lock:
            ids = decisions.transaction_ids.tolist()
            known = {row: self._known(named, (decisions, row)) for row, named in enumerate(ids)}
        again = {row: decision for row, decision in known.items() if decision is not None}
        return decisions if not again else decisions.with_singled_out(again)

    def _known(self, transaction_id: str, entry: _Entry) -> Decision | None:
        first = self._first.setdefault(transaction_id, entry)
        if first is entry:
            if len(self._first) > self._capacity:
                self._first.popitem(last=False)
            return None
        return replace(_decision_of(first), duplicate=True)


def _decision_of(entry: _Entry) -> Decision:
    # A row of a batch is made a decision when it is asked for again, which few are.
    return entry if isinstance(entry, Decision) else entry[0][entry[1]]
