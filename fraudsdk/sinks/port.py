"""The contract that every sink keeps; `fraudsdk.testing.contracts.SinkContract` tests it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fraudsdk.domain.decision import Decision
from fraudsdk.telemetry import Deadline


class DecisionSink(Protocol):
    """
    Somewhere decisions go.  At-least-once: the same decision may arrive twice.

    Identify a decision by ``decision.transaction_id``; writing it again must be harmless.
    """

    def write(self, decisions: Sequence[Decision]) -> None:
        """
        Hand over decisions, oldest first.  Called by one thread at a time.

        The scorer calls it on the scoring thread, under a lock: a sink that waits for anything goes behind `BackgroundSink`.

        Returning means *accepted*, not *durable*; `flush` makes it durable.

        Raises
        ------
        SinkBackpressureError
            Not now; ask again after ``retry_after_s``.  Nothing was accepted.
        SinkError
            Never; the sink is closed or broken.  Nothing was accepted.
        """

    def flush(self, deadline: Deadline) -> None:
        """
        Return only when everything accepted is durable, as durable as this sink can make it.

        Raises
        ------
        DeadlineExceededError
            Not all of it yet; nothing is lost, flush again.
        SinkDeliveryError
            Names the transactions that were lost.  A client library whose delivery report is ignored passes every test
            and loses data: wire the report here.  Each loss is reported once.
        """

    def close(self) -> None:
        """
        Release what is held.  Does not flush: whoever needs durability calls `flush` first.  Closing twice is harmless.
        """
