"""What a scorer asks where its memory is only part of what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt


class Elsewhere(Protocol):
    """
    State that is kept outside of this process, behind the memory of one scorer.

    Every method is called under the scorer's lock, and may let it go meanwhile, but for `close`.
    """

    @property
    def reads_only(self) -> bool:
        """Whether others remember, and nothing is remembered here."""
        ...

    @property
    def age_us(self) -> int:
        """How long ago what is known was up to date, microseconds."""
        ...

    def have_at_hand(self, ints: npt.NDArray[np.int64], n_decisions: int, at_most_s: float) -> bool:
        """Have the entities that transactions need in memory; False where they are not there in time."""
        ...

    def have_entities(self, keys: Collection[int], n_decisions: int) -> bool:
        """Have some entities in memory."""
        ...

    def go_blind(self, ints: npt.NDArray[np.int64]) -> None:
        """Transactions are about to be remembered without what is kept of their entities."""
        ...

    def amends(self, key: int) -> None:
        """What is remembered of a transaction is about to change."""
        ...

    def pass_on(self, key: int, set_bits: int, clear_bits: int) -> bool:
        """Tell others what was said of a transaction that is not remembered here; False where nobody is told."""
        ...

    def room(self) -> str:
        """Empty, or why nothing more can be remembered."""
        ...

    def doubt(self, keys: Callable[[], Iterable[int]] | None = None) -> str:
        """Empty, or why what is known of these entities, or any, is less than it should be."""
        ...

    def unread_because(self) -> str:
        """Why less is known than is kept."""
        ...

    def counters(self) -> dict[str, int]:
        """What happened so far, by name."""
        ...

    def close(self) -> None:
        """Nothing is asked any more."""
        ...
