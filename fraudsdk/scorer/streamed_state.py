"""
State that follows a stream: memory in front of parts that one writer alone changes, together with its place in the stream.

What is not in memory is read before it is needed, however long that takes: an entity is new only where the store has none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from fraudsdk.domain.fields import CHARGEBACK, FLAGS, ORIGINAL_KEY, REVERSAL
from fraudsdk.entity_state.index_kernels import index_journal
from fraudsdk.entity_state.layout import JOURNAL_FIRST_ENTITY, JOURNAL_KEY, JOURNAL_MARGIN, META_JOURNAL_NEXT
from fraudsdk.entity_state.memory import TOMBSTONE_WORDS, everything
from fraudsdk.entity_state.parts import PartCodec, Taken, sequence_of
from fraudsdk.entity_state.store import JournalChange, JournalPage
from fraudsdk.entity_state.writer import Load
from fraudsdk.errors import CorruptStateError, StateUnavailableError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.features.kernels import journal_row
from fraudsdk.scorer import kernels

# Between two commits; where more entities change all of them are written.
_CHANGES: Final = 1 << 17
# Which entities the store has: 8 MB, as for state that is shared.
_FILTER_WORDS: Final = 1 << 20
_SURVEYED_AT_ONCE: Final = 5
# Of which some part is left out.
_MAX_DAMAGED: Final = 100_000


class StreamedState:
    """
    What the writer of a stream remembers; see `Elsewhere` for what its scorer asks, and `State` for what its `PartWriter` does.

    It is made first, and given to the scorer, which begins it.
    """

    reads_only: Final = False

    def __init__(self) -> None:
        self._load: Load | None = None
        self._place = 0
        self._survey: Iterator[list[int]] | None = None
        self._damaged: set[int] = set()
        self._amended: dict[int, None] = {}  # keys of transactions whose rows may have changed
        self._n_journalled = 0  # rows that are kept, or were
        self._counts = dict.fromkeys(
            ("stream_reads", "stream_parts_read", "stream_parts_written", "stream_parts_damaged"), 0
        )
        self.schema = b""

    def begin(self, codec: PartCodec, schema: bytes, engine: FeatureEngine, lock: threading.Lock) -> None:
        """Work with the memory of a scorer, which is empty."""
        self._codec, self.schema, self._engine, self._memory, self._lock = codec, schema, engine, engine.memory, lock
        self._memory.tell_changes(_CHANGES)
        self._surveyed = np.zeros(_FILTER_WORDS, np.int64)
        self._keys = np.empty(0, np.int64)
        # What was decided is not kept: its word means something in one process only.
        self._kept_words = np.r_[JOURNAL_KEY:JOURNAL_MARGIN, JOURNAL_FIRST_ENTITY : self._memory.layout.journal_words]
        engine.adopt_memory()

    @property
    def n_rows_at_once(self) -> int:
        """Transactions that may change between two commits: all that they name stays in memory."""
        return min(_CHANGES, self._memory.max_entities // 2) // len(self._memory.layout.names)

    # --- as the stream goes on -----------------------------------------------------------------------------------------

    def reading(self, load: Load, place: int) -> None:
        """What is not in memory is read by this from now on; no part may be of a change at `place` or later."""
        self._load, self._place = load, place

    def take_changes(self) -> list[int]:
        """Keys of the entities that changed since the last time."""
        with self._lock:
            return np.unique(self._memory.take_changes()).tolist()  # type: ignore[no-any-return]

    def pack(self, keys: Sequence[int], place: int) -> list[bytes]:
        """As `State`."""
        self._counts["stream_parts_written"] += len(keys)
        with self._lock:
            asked = np.array(keys, np.int64)
            kernels.add_elsewhere(asked, self._surveyed)
            return self._codec.pack(self._memory, asked, place - 1)

    def journalled(self) -> JournalChange:
        """As `State`."""
        with self._lock:
            end, n = int(self._memory.meta[META_JOURNAL_NEXT]), len(self._memory.journal)
            new = max(self._n_journalled, end - n)
            amended = {self._number_of(key, end) for key in self._amended}
            runs = [(number, self._rows(number, number + 1)) for number in sorted(amended) if 0 <= number < new]
            runs += [(new, self._rows(new, end))] if new < end else []
            self._amended, self._n_journalled = {}, end
            return JournalChange(self._kept_words.nbytes, max(0, end - n), end, tuple(runs))

    def _number_of(self, key: int, end: int) -> int:
        """Which of all transactions that ever came this one is; -1 where it is not remembered."""
        row = int(journal_row(self._engine.context, key))
        return -1 if row < 0 else end - 1 - (end - 1 - row) % len(self._memory.journal)

    def _rows(self, first: int, end: int) -> bytes:
        journal = self._memory.journal
        return journal[np.arange(first, end) % len(journal)][:, self._kept_words].tobytes()

    def recall(self, page: JournalPage) -> None:
        """As `State`."""
        if len(page.octets) % self._kept_words.nbytes:
            raise CorruptStateError(
                f"the store has {len(page.octets)} bytes of a journal whose rows have {self._kept_words.nbytes}: restore it, or "
                "empty the group and read the stream from its beginning"
            )
        rows = np.frombuffer(page.octets, "<i8").reshape(-1, len(self._kept_words))
        numbers = np.arange(page.first, page.first + len(rows))
        with self._lock:
            journal = self._memory.journal
            is_wanted = (numbers >= page.end - len(journal)) & (numbers < page.end)
            places = numbers[is_wanted] % len(journal)
            self._memory.meta[META_JOURNAL_NEXT] = self._n_journalled = page.end
            journal[places[:, None], self._kept_words] = rows[is_wanted]
            index_journal(journal, places, self._memory.journal_index)

    def forget(self) -> None:
        """As `State`: transactions too, since they will come again."""
        with self._lock:
            self._memory.forget_everything()
            self._memory.elsewhere = everything()
            self._engine.adopt_memory()
            self._damaged.clear()
            self._amended, self._n_journalled = {}, 0
            self._survey = None
            self._surveyed[:] = 0

    def begin_survey(self, entity_keys: Iterator[list[int]]) -> None:
        """Find out, bit by bit, which entities the store has; until then any may be there."""
        self._survey = entity_keys

    def go_on_with_survey(self) -> None:
        """A few thousand more; once all are known, what is in neither memory nor store is new without being asked for."""
        if self._survey is None:
            return
        some = list(islice(self._survey, _SURVEYED_AT_ONCE))
        for keys in some:
            kernels.add_elsewhere(np.array(keys, np.int64), self._surveyed)
        if not some:
            self._survey = None
            with self._lock:
                self._memory.elsewhere = self._surveyed
                self._engine.adopt_memory()

    def learn_tombstones(self, tombstones: Iterable[tuple[int, int]]) -> None:
        """Whoever was erased is not remembered again by what happened before."""
        rows = [(mark, erased_us, 0) for mark, erased_us in tombstones]
        with self._lock:
            self._memory.tombstones = np.array(rows, np.int64).reshape(-1, TOMBSTONE_WORDS)
            self._engine.adopt_memory()

    # --- what the scorer asks ------------------------------------------------------------------------------------------

    @property
    def age_us(self) -> int:
        """As `Elsewhere`: nobody else changes what is known."""
        return 0

    def have_at_hand(self, ints: npt.NDArray[np.int64], n_decisions: int, at_most_s: float) -> bool:
        """As `Elsewhere`; it raises rather than being late."""
        kernels.keep_at_hand(ints, self._engine.context)
        takes_back = (ints[:, FLAGS] & (REVERSAL | CHARGEBACK)) != 0
        if takes_back.any():
            self._amended |= dict.fromkeys(ints[takes_back, ORIGINAL_KEY].tolist())
        most = len(ints) * len(self._memory.layout.names)
        if len(self._keys) < most:
            self._keys = np.empty(most, np.int64)
        n = kernels.entities_not_at_hand(ints, self._engine.context, self._keys)
        return self.have_entities(self._keys[:n].tolist(), n_decisions)

    def have_entities(self, keys: Collection[int], n_decisions: int) -> bool:
        """As `Elsewhere`; it raises rather than being late."""
        known = np.empty(len(keys), np.int64)
        n = kernels.entities_at_hand(np.fromiter(keys, np.int64, len(keys)), self._engine.context, known)
        missing = [*dict.fromkeys(keys).keys() - {*known[:n].tolist()}]
        if not missing:
            return True
        if self._load is None:
            raise StateUnavailableError("the stream has not been claimed; claim it first")
        self._counts["stream_reads"] += 1
        for key, part in zip(missing, self._load(missing), strict=True):
            if part:
                self._take_up(key, part)
        self._engine.adopt_memory()
        return True

    def _take_up(self, key: int, part: bytes) -> None:
        taken = self._codec.take(self._memory, part)
        self._counts["stream_parts_read"] += 1
        if taken is not Taken.TAKEN:
            self._counts["stream_parts_damaged"] += 1
            if len(self._damaged) < _MAX_DAMAGED:
                self._damaged.add(key)
        elif sequence_of(part) >= self._place:
            raise CorruptStateError(
                f"the store has a part of change {sequence_of(part)} and says that it is at {self._place}: it applied half of a "
                "commit; restore it, or empty the group and read the stream from its beginning"
            )

    def go_blind(self, ints: npt.NDArray[np.int64]) -> None:
        """As `Elsewhere`; never, since `have_at_hand` answers or raises."""
        raise StateUnavailableError("what is kept of an entity was not read; feed it again")

    def amends(self, key: int) -> None:
        """As `Elsewhere`: its row is written with the next commit."""
        self._amended[key] = None

    def pass_on(self, key: int, set_bits: int, clear_bits: int) -> bool:
        """As `Elsewhere`: nobody else would know."""
        return False

    def room(self) -> str:
        """As `Elsewhere`."""
        return ""

    def doubt(self, keys: Callable[[], Iterable[int]] | None = None) -> str:
        """As `Elsewhere`."""
        if not self._damaged or (keys is not None and not self._damaged & {*keys()}):
            return ""
        return "a part of what is known of an entity is damaged, and left out"

    def unread_because(self) -> str:
        """As `Elsewhere`."""
        return "what is kept of an entity was not read"

    def counters(self) -> dict[str, int]:
        """As `Elsewhere`."""
        return dict(self._counts)

    def close(self) -> None:
        """As `Elsewhere`: what was not committed comes again."""
