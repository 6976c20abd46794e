"""
A decision in one 64-bit word, so that the journal can keep a million of them and a duplicate gets the same answer.

::

    bit  63 | 62..27            | 26..16  | 15..5      | 4        | 3..2    | 1..0
         0  | four reasons, 9b  | version | decided by | degraded | outcome | 1 = decided

Words that repeat (reasons, versions, who decided) are kept once in bounded tables; what no longer fits is recorded as
unknown.  What a feature contributed is not kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

from fraudsdk.domain.decision import Decision, Outcome, Reason

W = TypeVar("W")

_OUTCOMES: Final = tuple(Outcome)
_DECIDED: Final = 1
_WORD_BITS: Final = 11
_REASON_BITS: Final = 9
_MAX_REASONS: Final = 4
_BECAUSE: Final = "as recorded"
_REASON: Final = "reason"
_VERSION: Final = "version"
_DECIDER: Final = "decider"


class _Words(Generic[W]):
    """Numbers for words, in order of appearance; 0 = one that came after the table was full."""

    def __init__(self, bits: int, unknown: W, told: Callable[[int, W], None]) -> None:
        self._limit = 1 << bits
        self._told = told
        self._words: list[W] = [unknown]
        self._numbers: dict[W, int] = {}
        self._lock = threading.Lock()

    def number(self, word: W) -> int:
        known = self._numbers.get(word)
        if known is not None:
            return known
        with self._lock:
            if word not in self._numbers and len(self._words) < self._limit:
                self._words.append(word)
                self._told(len(self._words) - 1, word)
                self._numbers[word] = len(self._words) - 1
            return self._numbers.get(word, 0)

    def learn(self, number: int, word: W) -> None:
        """Let a word have the number that it was recorded by; a ValueError where no table has such a number."""
        if type(number) is not int or not 0 < number < self._limit:
            raise ValueError(f"a word has number {number!r:.40}, and numbers go from 1 to {self._limit - 1}")
        with self._lock:
            self._words += [self._words[0]] * (number + 1 - len(self._words))
            self._words[number] = word
            self._numbers[word] = number
            self._told(number, word)

    def word(self, number: int) -> W:
        """What has a number; the unknown word where a crash came between a decision and its words."""
        return self._words[number if number < len(self._words) else 0]


class DecisionRecorder:
    """Packs decisions into words of the journal and back.  Safe to share between threads."""

    def __init__(self) -> None:
        self._told: list[tuple[str, int, Any]] = []
        # By their texts: the hash of three strings takes a tenth of that of a reason.
        self._reasons = _Words[tuple[str, str, str] | None](_REASON_BITS, None, partial(self._tell, _REASON))
        self._versions = _Words[str](_WORD_BITS, "unknown", partial(self._tell, _VERSION))
        self._deciders = _Words[str](_WORD_BITS, "unknown", partial(self._tell, _DECIDER))

    @property
    def words(self) -> Sequence[tuple[str, int, Any]]:
        """Table, number and word of everything that packed decisions refer to, in order of appearance; it only grows."""
        return self._told

    def learn(self, table: str, number: int, word: Any) -> None:
        """
        Take a word of `words` of another recorder.

        Raises
        ------
        ValueError
            No recorder has such a word.
        """
        is_reason = table == _REASON and isinstance(word, list | tuple) and len(word) == 3
        texts = word if is_reason else [word]
        if is_reason != (table == _REASON) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{word!r:.100} is no word of a table {table!r:.40}")
        if table == _REASON:
            self._reasons.learn(number, tuple(texts))
        elif table == _VERSION:
            self._versions.learn(number, word)
        elif table == _DECIDER:
            self._deciders.learn(number, word)
        else:
            raise ValueError(f"there is no table {table!r:.40}")

    def _tell(self, table: str, number: int, word: Any) -> None:
        self._told.append((table, number, word))

    def pack(self, decision: Decision) -> int:
        """One positive int64 that `unpack` reads."""
        word = 0
        for reason in decision.reasons[:_MAX_REASONS]:
            texts = (reason.code, reason.text, reason.customer_text)
            word = (word << _REASON_BITS) | self._reasons.number(texts)
        word <<= _REASON_BITS * (_MAX_REASONS - len(decision.reasons[:_MAX_REASONS]))
        word = (word << _WORD_BITS) | self._versions.number(decision.model_version)
        word = (word << _WORD_BITS) | self._deciders.number(decision.decided_by)
        word = (word << 1) | decision.degraded
        word = (word << 2) | _OUTCOMES.index(decision.outcome)
        return (word << 2) | _DECIDED

    def unpack(self, transaction_id: str, margin: float, score: float, word: int) -> Decision | None:
        """
        The decision that was packed, marked as a duplicate; None when there was none.
        """
        if not word & _DECIDED:
            return None
        word >>= 2
        outcome, word = _OUTCOMES[word & 3], word >> 2
        degraded, word = bool(word & 1), word >> 1
        mask = (1 << _WORD_BITS) - 1
        decided_by, word = self._deciders.word(word & mask), word >> _WORD_BITS
        version, word = self._versions.word(word & mask), word >> _WORD_BITS
        reasons = []
        for place in reversed(range(_MAX_REASONS)):
            texts = self._reasons.word((word >> (place * _REASON_BITS)) & ((1 << _REASON_BITS) - 1))
            if texts is not None:
                reasons.append(Reason(*texts))
        return Decision(
            transaction_id=transaction_id,
            outcome=outcome,
            score=score,
            margin=margin,
            reasons=tuple(reasons),
            model_version=version,
            decided_by=decided_by,
            degraded=degraded,
            degraded_because=_BECAUSE if degraded else None,
            duplicate=True,
        )
