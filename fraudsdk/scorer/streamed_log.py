"""
State of one stream, a partition of a topic say, on one machine: with the place up to which its messages are in it.

::

    open ──> place ──> score_batch ──> publish ──> commit(next offset) ──┐
                            └──────────────────────────────────────────┘

Whatever kills the process, the next one finds a state and a place that belong together: what exactly the messages before the place
make, byte for byte.  What was scored after it was never committed; it is forgotten, and comes again from the stream.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from fraudsdk.config import ScorerConfig
from fraudsdk.scorer.scorer import Scorer
from fraudsdk.sinks.port import DecisionSink
from fraudsdk.telemetry.clock import SYSTEM_CLOCK, Clock


class StreamedLog:
    """
    A scorer, and its place in the stream that it is fed from.

    One thread at a time feeds it: scores a batch with ``scorer.score_batch``, hands on what was decided, and commits.  Decisions
    may be handed on twice, before a crash and after it.  They are the same: whoever receives them knows them by their id.

    Parameters
    ----------
    scorer : Scorer
        Opened for a stream: use `StreamedLog.open`.

    Examples
    --------
    >>> with StreamedLog.open(config, b"transactions/0") as log:      # doctest: +SKIP
    ...     for batch, next_offset in consumed_from(log.place):
    ...         publish(log.scorer.score_batch(batch))
    ...         log.commit(next_offset)

    Warning
    -------
    A label that is told between two commits is refused; tell it after a commit and before the next batch.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        recovered = scorer.recovered
        place = None if recovered is None else recovered.place
        self._place = None if place is None or not place.is_marked else place.next

    @classmethod
    def open(
        cls,
        config: ScorerConfig,
        origin: bytes,
        *,
        sink: DecisionSink | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> Self:
        """
        Recover what the messages before the last place made, or begin.

        Parameters
        ----------
        config : ScorerConfig
            With a ``state_dir`` of this stream alone.
        origin : bytes
            Which stream: topic, topic id and partition.  Another one is refused in the same directory.
        sink : DecisionSink, optional
            Told of every decision, before it is committed and perhaps again after a crash.
        clock : Clock

        Raises
        ------
        ConfigurationError
            There is no ``state_dir``, or the origin is none; or as `Scorer.open`.
        ModelError
            As `Scorer.open`.
        StateError
            The directory is another stream's, or that of a scorer without one; or what is there cannot be recovered.
        """
        return cls(Scorer.open(config, sink=sink, clock=clock, origin=origin))

    @property
    def scorer(self) -> Scorer:
        """What remembers and decides."""
        return self._scorer

    @property
    def place(self) -> int:
        """Offset of the message to score next."""
        return self._place or 0

    @property
    def is_new(self) -> bool:
        """Whether nothing was ever committed."""
        return self._place is None

    def commit(self, place: int) -> None:
        """
        Keep the place up to which every message has been scored, and handed on.

        With ``durability="sync"`` this waits until state and place are on the disk; else both follow within some 10 ms, and a
        process that is killed before goes back to the place before it.

        Parameters
        ----------
        place : int
            Offset of the next message; never less than the last one.

        Raises
        ------
        StateUnavailableError
            The log cannot take it now, or the disk does not answer: commit it again.
        StateError
            It lies before the last one; or some of what was scored since is not remembered: close this, and open it again.
        """
        self._scorer.mark(place)
        self._place = place

    def close(self) -> None:
        """
        Write what there is, then flush and close the sink.  What was not committed will come again.

        Raises
        ------
        StateUnavailableError
            Some of the state could not be written.
        """
        self._scorer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
