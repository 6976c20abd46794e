"""The sink of tests and notebooks: the last decisions of this process, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from fraudsdk.domain.decision import Decision
from fraudsdk.errors import ConfigurationError, SinkBackpressureError, SinkError
from fraudsdk.telemetry import Deadline


class MemorySink:
    """
    Keeps decisions until somebody takes them.

    Parameters
    ----------
    capacity : int
        Decisions held at most.  A full sink refuses with `SinkBackpressureError` until `take` makes room: it never
        forgets what it accepted.

    Examples
    --------
    >>> sink = MemorySink(capacity=100)
    >>> sink.write([])
    >>> sink.take()
    ()
    """

    def __init__(self, *, capacity: int = 100_000) -> None:
        if capacity < 1:
            raise ConfigurationError(f"capacity must be >= 1, was {capacity}; give the number of decisions to hold")
        self._capacity = capacity
        self._decisions: dict[str, Decision] = {}
        self._closed = False

    def write(self, decisions: Sequence[Decision]) -> None:
        """Keep the decisions; one that is known by its transaction id is kept once, in its first place."""
        if self._closed:
            raise SinkError("the memory sink is closed; open another one")
        arriving = {decision.transaction_id: decision for decision in decisions}
        n_new = sum(transaction_id not in self._decisions for transaction_id in arriving)
        if len(self._decisions) + n_new > self._capacity:
            raise SinkBackpressureError(
                f"the memory sink holds {len(self._decisions)} of {self._capacity} decisions and {n_new} more arrived; "
                "take() makes room",
                retry_after_s=0.1,
            )
        for transaction_id, decision in arriving.items():
            self._decisions.setdefault(transaction_id, decision)

    def flush(self, deadline: Deadline) -> None:
        """Nothing to do: memory is as durable as this sink gets."""

    def close(self) -> None:
        """Refuse further writes; what is held can still be taken."""
        self._closed = True

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """What is held, oldest first."""
        return tuple(self._decisions.values())

    def take(self) -> tuple[Decision, ...]:
        """Hand over what is held, oldest first, and forget it."""
        taken, self._decisions = self._decisions, {}
        return tuple(taken.values())
