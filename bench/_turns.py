"""
Contestants in turns: each round gives every one of them the same work, so that a busy minute hits all alike.

A ratio is taken within each round, between medians of that round, and the median over rounds is what a gate judges: one
stolen time slice spoils one round of one contestant, never the answer.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _report import percentiles

Contestant = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Turns:
    """
    What was measured.

    Attributes
    ----------
    elapsed_ns : dict of str to float64[rounds, calls]
        Per contestant, ours first.
    fastest : bool
        Whether a round is told by its fastest call rather than by its median.  Where a peer takes a hundred times longer, it
        hardly ever runs undisturbed on a shared machine and we nearly always do: medians would flatter us.
    """

    elapsed_ns: dict[str, np.ndarray]
    fastest: bool = False

    @property
    def ours(self) -> str:
        return next(iter(self.elapsed_ns))

    def ratios(self) -> dict[str, float]:
        """How many times our time each peer takes."""
        typical = np.min if self.fastest else np.median
        own = typical(self.elapsed_ns[self.ours], axis=1)
        return {
            name: float(np.median(typical(elapsed, axis=1) / own))
            for name, elapsed in self.elapsed_ns.items()
            if name != self.ours
        }

    def figures(self, items_per_call: int = 1) -> dict[str, dict[str, float]]:
        """Quantiles per contestant, of one item of a call."""
        ratios = self.ratios()
        return {
            name: percentiles(elapsed.ravel() / items_per_call)
            | ({"times ours": ratios[name]} if name in ratios else {})
            for name, elapsed in self.elapsed_ns.items()
        }


def take_turns(
    benchmark: Any,
    contestants: Mapping[str, Contestant],
    work: Sequence[Sequence[Any]],
    *,
    warm: bool = True,
    clock: Callable[[], int] = time.perf_counter_ns,
    fastest: bool = False,
) -> Turns:
    """
    Time every contestant on every item of work, round by round.

    Parameters
    ----------
    benchmark : BenchmarkFixture
        Of pytest-benchmark: its rounds are ours, and it times our own turn in each.
    contestants : mapping of str to callable
        Ours first.
    work : sequence of rounds, each a sequence of arguments
        All rounds of one length.
    warm : bool
        Whether a turn begins with a call that is not timed; not worth it where a call takes long.
    clock : callable
        Nanoseconds.  ``time.process_time_ns`` for a call of milliseconds that only computes: no neighbour on the core
        lengthens it.
    fastest : bool
        Of `Turns`.
    """
    (ours, own), *others = contestants.items()
    elapsed: dict[str, list[list[int]]] = {name: [] for name in contestants}
    rounds = iter(work)

    def turn(name: str, contestant: Contestant, items: Sequence[Any]) -> None:
        if warm:
            contestant(items[0])  # the caches were the previous contestant's
        taken = []
        for item in items:
            started = clock()
            contestant(item)
            taken.append(clock() - started)
        elapsed[name].append(taken)

    def turns_of_the_others() -> tuple[tuple[Any, ...], dict[str, Any]]:
        items = next(rounds)
        for name, contestant in others:
            turn(name, contestant, items)
        return (ours, own, items), {}

    gc.collect()
    gc.disable()
    try:
        benchmark.pedantic(turn, setup=turns_of_the_others, rounds=len(work))
    finally:
        gc.enable()
    turns = Turns({name: np.array(taken, np.float64) for name, taken in elapsed.items()}, fastest)
    benchmark.extra_info.update(ratios=turns.ratios())
    return turns
