"""
Where a state belongs in the stream of messages that it was made of, kept in the same log as the state itself.

::

    PLACE "nothing yet" | events and verdicts of a batch | PLACE 120 | those of the next | PLACE 240 | some that were never marked

A directory is a stream's or a host's.  That of a stream begins with a `PLACE`, and what counts of it ends with one: what comes
after the last was never marked, and comes again from the stream.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from fraudsdk.entity_state.log_format import Words, text_in, word_of
from fraudsdk.errors import ConfigurationError

# Before a stream has marked anything.
UNMARKED: Final = -1
_MAX_ORIGIN_BYTES: Final = 1_024


@dataclass(frozen=True, slots=True)
class Place:
    """
    A place in a stream.

    Attributes
    ----------
    next : int
        Offset of the next message, or `UNMARKED`.
    origin : bytes
        Which stream, in whatever words its reader has for it.
    """

    next: int
    origin: bytes

    @property
    def words(self) -> Words:
        """As it is kept: what a `PLACE` says after `RECORD_WORDS`, and a section of a snapshot."""
        return np.concatenate(([self.next], word_of(self.origin))).astype(np.int64)

    @classmethod
    def of(cls, words: Words) -> Self | None:
        """
        The place that was kept; None where none was.

        Raises
        ------
        ValueError
            It is none.
        """
        if not len(words):
            return None
        place = cls(int(words[0]), text_in(words[1:]))
        if place.next < UNMARKED or not place.origin:
            raise ValueError(f"a place {place.next} of an origin of {len(place.origin)} bytes")
        return place

    @property
    def is_marked(self) -> bool:
        """Whether anything ever was."""
        return self.next != UNMARKED

    @property
    def said(self) -> str:
        """For a message."""
        return f"place {self.next} of {self.stream}" if self.is_marked else f"the beginning of {self.stream}"

    @property
    def stream(self) -> str:
        """The origin, for a message."""
        return shown(self.origin)


@dataclass(frozen=True, slots=True)
class Mark:
    """
    The place that counts.

    Attributes
    ----------
    place : Place
    sequence : int
        Number of the first record that came after it.
    """

    place: Place
    sequence: int


def shown(origin: bytes) -> str:
    """An origin, for a message: its text, with whatever cannot be printed escaped."""
    return repr(origin.decode("utf-8", "backslashreplace"))


def require_origin(origin: bytes) -> bytes:
    """
    Raises
    ------
    ConfigurationError
        It names no stream, or is too long for a record.
    """
    if not isinstance(origin, bytes) or not 0 < len(origin) <= _MAX_ORIGIN_BYTES:
        said = f"{len(origin)} bytes" if isinstance(origin, bytes) else type(origin).__name__
        raise ConfigurationError(
            f"the origin of a stream must be 1 to {_MAX_ORIGIN_BYTES} bytes, was {said}; name topic, topic id and partition"
        )
    return origin
