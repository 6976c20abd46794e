"""
A bounded queue and one thread in front of a slow sink, so that the scoring thread never waits.

    scoring threads --write--> [ queue, <= capacity ] --worker--> [ batch, <= batch_max ] --write--> the wrapped sink
                                     | full
                                     +--> drop the oldest and count it, or refuse the newest

Every accepted decision is settled exactly once: delivered, dropped (the queue was full) or lost (the wrapped sink said
so).  Dropped and lost ones are counted, and named by the next `flush` or by `close`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from fraudsdk.domain.decision import Decision
from fraudsdk.errors import (
    ConfigurationError,
    DeadlineExceededError,
    FraudSDKError,
    SinkBackpressureError,
    SinkDeliveryError,
    SinkError,
)
from fraudsdk.sinks.port import DecisionSink
from fraudsdk.telemetry import Deadline

# A sink that asks for 0 must not make the worker spin; one that asks for an hour must not be forgotten for an hour.
_RETRY_AFTER_S_MIN: Final = 0.001
_RETRY_AFTER_S_MAX: Final = 1.0
_STOP_WITHIN_S: Final = 0.2
_NAMED_IN_MESSAGE: Final = 3


class WhenFull(Enum):
    """What a full queue does.  A written choice: there is no default."""

    DROP_OLDEST = "drop_oldest"
    """Accept the newest, forget the oldest and count it.  Only a batch larger than the whole queue is refused."""
    BACKPRESSURE = "backpressure"
    """Refuse the newest with `SinkBackpressureError`; the caller decides."""


@dataclass(slots=True, eq=False)
class _FlushRequest:
    """The worker flushes on behalf of the caller: the wrapped sink is called from one thread only."""

    after_n_settled: int
    deadline: Deadline
    done: bool = False
    error: FraudSDKError | None = None


class BackgroundSink:
    """
    A `DecisionSink` whose `write` may be called on scoring threads, any number of them.

    Parameters
    ----------
    sink : DecisionSink
        Where decisions go.  From now on only this object's thread calls it.
    when_full : WhenFull
        What happens to a decision that finds the queue full.
    capacity : int
        Decisions queued at most; `batch_max` more may be in the worker's hands.
    batch_max : int
        Decisions handed to `sink` at once at most.
    close_within_us : int
        How long `close` lets the worker drain the queue, microseconds.

    Warning
    -------
    A process that exits without `close` loses what is queued; one that forks has no worker in the child.
    """

    def __init__(
        self,
        sink: DecisionSink,
        *,
        when_full: WhenFull,
        capacity: int = 10_000,
        batch_max: int = 256,
        close_within_us: int = 5_000_000,
    ) -> None:
        if capacity < 1 or batch_max < 1:
            raise ConfigurationError(f"capacity and batch_max must be >= 1, were {capacity} and {batch_max}")
        self._sink = sink
        self._when_full = when_full
        self._capacity = capacity
        self._batch_max = batch_max
        self._close_within_us = close_within_us
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # only the worker waits here
        self._flushed = threading.Condition(self._lock)  # only callers of `flush` wait here
        self._abandoned = threading.Event()
        # All below are read and written under the lock.
        self._queue: deque[Decision] = deque()
        self._in_hand: list[Decision] = []
        self._flushes: list[_FlushRequest] = []
        self._unreported: deque[str] = deque(maxlen=capacity)
        self._n_unreported = 0
        self._n_accepted = self._n_settled = self._n_dropped = self._n_lost = 0
        self._last_error: Exception | None = None
        self._closing = False
        self._worker = threading.Thread(target=self._run, name="fraudsdk-sink", daemon=True)
        self._worker.start()

    # The caller's side.

    def write(self, decisions: Sequence[Decision]) -> None:
        """
        Queue decisions and return; never waits for the wrapped sink.

        Raises
        ------
        SinkBackpressureError
            The queue is full and `when_full` is ``BACKPRESSURE``.  Nothing was accepted.
        SinkError
            The sink is closed, or more decisions came at once than the queue can ever hold.  Nothing was accepted.
        """
        with self._lock:
            if self._closing:
                raise SinkError("the background sink is closed; open another one")
            excess = len(self._queue) + len(decisions) - self._capacity
            if excess > 0:
                self._make_room(excess, len(decisions))
            self._queue.extend(decisions)
            self._n_accepted += len(decisions)
            self._work.notify()

    def flush(self, deadline: Deadline) -> None:
        """
        Wait until everything accepted so far is durable in the wrapped sink.

        Raises
        ------
        DeadlineExceededError
            The deadline passed first; nothing is lost by that.
        SinkDeliveryError
            Names what was dropped or lost since it was last said.
        """
        with self._lock:
            if self._closing:
                raise SinkError("the background sink is closed; open another one")
            request = _FlushRequest(self._n_accepted, deadline)
            self._flushes.append(request)
            self._work.notify()
            if not self._flushed.wait_for(lambda: request.done, timeout=deadline.remaining_s()):
                self._flushes.remove(request)
                n_waiting = self._n_accepted - self._n_settled
                raise DeadlineExceededError(
                    f"{n_waiting} decisions had not reached the sink when the deadline passed; flush again"
                )
            self._report_losses()
        if request.error is not None:
            raise request.error

    def close(self) -> None:
        """
        Stop accepting, drain the queue for at most `close_within_us`, then close the wrapped sink.

        Raises
        ------
        SinkDeliveryError
            Names what was dropped or lost and not yet said, and what could not be drained in time.
        """
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._work.notify()
        self._worker.join(self._close_within_us / 1e6)
        self._abandoned.set()
        # A worker that waits to retry stops now; one inside the sink cannot be stopped, and nobody else may touch it.
        self._worker.join(_STOP_WITHIN_S)
        if not self._worker.is_alive():
            self._sink.close()
        with self._lock:
            self._settle_lost([*self._in_hand, *self._queue])
            self._queue.clear()
            self._report_losses()

    @property
    def n_queued(self) -> int:
        """Decisions waiting in the queue."""
        with self._lock:
            return len(self._queue)

    @property
    def n_dropped(self) -> int:
        """Decisions dropped because the queue was full, since the start."""
        with self._lock:
            return self._n_dropped

    @property
    def n_lost(self) -> int:
        """Decisions that the wrapped sink lost or would not take, since the start."""
        with self._lock:
            return self._n_lost

    @property
    def last_error(self) -> Exception | None:
        """What the wrapped sink raised last, backpressure included."""
        with self._lock:
            return self._last_error

    # Under the lock.

    def _make_room(self, excess: int, n_arriving: int) -> None:
        if n_arriving > self._capacity:
            raise SinkError(f"{n_arriving} decisions came at once and the queue holds {self._capacity}; split them")
        if self._when_full is WhenFull.BACKPRESSURE:
            raise SinkBackpressureError(
                f"the queue holds {len(self._queue)} of {self._capacity} decisions and {n_arriving} more arrived",
                retry_after_s=0.01,
            )
        self._n_dropped += excess
        self._n_settled += excess
        self._remember_loss([self._queue.popleft().transaction_id for _ in range(excess)])

    def _settle_lost(self, decisions: Sequence[Decision]) -> None:
        self._n_lost += len(decisions)
        self._n_settled += len(decisions)
        self._remember_loss([decision.transaction_id for decision in decisions])

    def _remember_loss(self, transaction_ids: Sequence[str]) -> None:
        self._unreported.extend(transaction_ids)
        self._n_unreported += len(transaction_ids)

    def _report_losses(self) -> None:
        if not self._n_unreported:
            return
        names, n = tuple(self._unreported), self._n_unreported
        self._unreported.clear()
        self._n_unreported = 0
        raise SinkDeliveryError(
            f"{n} decisions were dropped or lost, the last of them {', '.join(names[-_NAMED_IN_MESSAGE:])}; "
            "score or send them again, and raise the capacity if the queue was full",
            names,
        ) from self._last_error

    # The worker's side.

    def _run(self) -> None:
        while self._wait_for_work():
            self._deliver_batch()
            self._serve_flushes()

    def _wait_for_work(self) -> bool:
        with self._lock:
            self._work.wait_for(lambda: self._queue or self._flushes or self._closing)
            if self._abandoned.is_set():
                return False
            self._in_hand = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_max))]
            return bool(self._in_hand or self._flushes)

    def _deliver_batch(self) -> None:
        if not self._in_hand:
            return
        lost = self._write_until_settled(self._in_hand)
        with self._lock:
            self._n_settled += len(self._in_hand)
            self._in_hand = []
            self._n_lost += len(lost)
            self._remember_loss(lost)

    def _write_until_settled(self, batch: list[Decision]) -> Sequence[str]:
        """Return the transactions that were lost."""
        # Retries are unbounded in number: the queue behind them is bounded, and `close` ends them.
        while True:
            try:
                self._sink.write(batch)
                return ()
            except SinkBackpressureError as error:
                self._note(error)
                if self._abandoned.wait(_bounded_s(error.retry_after_s)):
                    return [decision.transaction_id for decision in batch]
            except SinkDeliveryError as error:
                self._note(error)
                return error.transaction_ids
            except Exception as error:  # whatever a client library throws must not kill the only worker
                self._note(error)
                return [decision.transaction_id for decision in batch]

    def _note(self, error: Exception) -> None:
        with self._lock:
            self._last_error = error

    def _serve_flushes(self) -> None:
        with self._lock:
            due = [request for request in self._flushes if request.after_n_settled <= self._n_settled]
        for request in due:
            error = self._flush_sink(request.deadline)
            with self._lock:
                request.error = error
                request.done = True
                if request in self._flushes:  # else the caller's deadline passed meanwhile
                    self._flushes.remove(request)
                self._flushed.notify_all()

    def _flush_sink(self, deadline: Deadline) -> FraudSDKError | None:
        try:
            self._sink.flush(deadline)
        except SinkDeliveryError as error:
            with self._lock:
                self._last_error = error
                self._n_lost += len(error.transaction_ids)
                self._remember_loss(error.transaction_ids)
        except FraudSDKError as error:
            self._note(error)
            return error
        except Exception as error:  # as in `_write_until_settled`
            self._note(error)
            wrapped = SinkError(f"the wrapped sink failed to flush: {type(error).__name__}; see the cause")
            wrapped.__cause__ = error
            return wrapped
        return None


def _bounded_s(asked_s: float) -> float:
    return min(max(_RETRY_AFTER_S_MIN, asked_s), _RETRY_AFTER_S_MAX)
