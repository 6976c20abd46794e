"""
Transactions of many threads in few calls: whoever comes while a call is under way goes with the next one.

One call at a time, so that transactions are decided in the order in which they were handed over.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Final, Self

import grpc

from fraudsdk.adapters.grpc.errors import ServiceError, ServiceUnavailableError
from fraudsdk.domain.decision import Decision
from fraudsdk.domain.transaction import Transaction
from fraudsdk.errors import ConfigurationError, InvalidTransactionError

Sent = Transaction | Mapping[str, Any]
# A batch with a wrong transaction is refused whole, and sent again without it; one with more wrong ones goes one by one.
_RESENT_AT_MOST: Final = 4


class Batcher:
    """
    Scores transactions in batches, on a thread of its own.

    Parameters
    ----------
    score_batch : callable
        Decides on a sequence of transactions, or on none of them.
    max_batch : int
        Transactions of one call.
    linger_s : float
        How long the first of a batch waits for others.
    max_queued : int
        Transactions that wait; one more is refused.

    Examples
    --------
    >>> with client.batcher() as batcher:                                          # doctest: +SKIP
    ...     decisions = [batcher.submit(transaction) for transaction in transactions]
    ...     [decision.result() for decision in decisions]
    """

    def __init__(
        self,
        score_batch: Callable[[Sequence[Sent]], Sequence[Decision]],
        *,
        max_batch: int,
        linger_s: float,
        max_queued: int,
    ) -> None:
        if max_batch < 1 or linger_s < 0 or max_queued < 1:
            raise ConfigurationError(
                f"max_batch and max_queued must be >= 1 and linger_s >= 0, were {max_batch}, {max_queued} and {linger_s}; "
                "give others"
            )
        self._score_batch = score_batch
        self._max_batch = max_batch
        self._linger_s = linger_s
        self._max_queued = max_queued
        self._waiting: deque[tuple[Sent, Future[Decision]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="fraudsdk-batcher", daemon=True)
        self._thread.start()

    def submit(self, transaction: Sent) -> Future[Decision]:
        """
        Have a transaction decided on.

        Returns
        -------
        Future
            Of the decision, or of what `ScoringClient.score_batch` raises.  One that is cancelled in time is not sent.

        Raises
        ------
        ServiceUnavailableError
            Too many wait, or the batcher was closed.  The transaction was not taken.
        """
        decided: Future[Decision] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= self._max_queued:
                why = "was closed" if self._closed else f"holds {self._max_queued} transactions that wait"
                raise ServiceUnavailableError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"the batcher {why}; decide without the service, or later"
                )
            self._waiting.append((transaction, decided))
            self._changed.notify()
        return decided

    def close(self) -> None:
        """Send what waits, and return when it is answered; no more is taken."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._next_batch():
            sent = [(transaction, decided) for transaction, decided in batch if decided.set_running_or_notify_cancel()]
            self._settle(sent)

    def _next_batch(self) -> list[tuple[Sent, Future[Decision]]]:
        """The transactions of the next call; empty once there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            full_at = time.monotonic() + self._linger_s
            self._changed.wait_for(
                lambda: len(self._waiting) >= self._max_batch or self._closed, full_at - time.monotonic()
            )
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _settle(self, sent: list[tuple[Sent, Future[Decision]]]) -> None:
        """Give each transaction its decision, or its error."""
        for _ in range(_RESENT_AT_MOST):
            if not sent:
                return
            try:
                decisions = self._score_batch([transaction for transaction, _ in sent])
                _require_one_each(decisions, sent)
            except InvalidTransactionError as error:
                if error.row is None or not 0 <= error.row < len(sent):
                    _fail(sent, error)
                    return
                _fail([sent.pop(error.row)], error)  # nothing of the batch was decided: the others go again
            except Exception as error:
                _fail(sent, error)
                return
            else:
                for (_, decided), decision in zip(sent, decisions, strict=True):
                    decided.set_result(decision)
                return
        for one in sent:
            self._settle_alone(one)

    def _settle_alone(self, one: tuple[Sent, Future[Decision]]) -> None:
        transaction, decided = one
        try:
            decisions = self._score_batch([transaction])
            _require_one_each(decisions, [one])
            decided.set_result(decisions[0])
        except Exception as error:
            decided.set_exception(error)


def _require_one_each(decisions: Sequence[Decision], sent: Sequence[tuple[Sent, Future[Decision]]]) -> None:
    """An answer of another length must fail those who wait for it, rather than the thread that all others wait for too."""
    if len(decisions) != len(sent):
        raise ServiceError(
            grpc.StatusCode.INTERNAL, f"{len(sent)} transactions were answered by {len(decisions)} decisions"
        )


def _fail(sent: Sequence[tuple[Sent, Future[Decision]]], error: Exception) -> None:
    for _, decided in sent:
        decided.set_exception(error)
