"""The feature engine: the plan of one feature set, the memory it needs, and the calls into the kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fraudsdk._jit import warm_up
from fraudsdk.domain.fields import DECLINED, EVENT_TIME_US, FRAUD, GENUINE, TRANSACTION_KEY, RecordLayout
from fraudsdk.domain.schema import FeatureSchema
from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.entity_state.erasure import erased_until_us
from fraudsdk.entity_state.kernels import OWN_WORDS
from fraudsdk.entity_state.layout import (
    JOURNAL_FIRST_ENTITY,
    JOURNAL_KEY,
    JOURNAL_MARGIN,
    JOURNAL_SCORE,
    JOURNAL_VERDICT,
    META_JOURNAL_NEXT,
)
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.features import context, kernels
from fraudsdk.features.plan import OP_CODE, OP_COLUMN, OP_KIND, OP_OTHER, OP_SLOT, FeaturePlan, build_plan
from fraudsdk.features.spec import FeatureSet
from fraudsdk.features.timing import FeatureTimes
from fraudsdk.telemetry.histogram import LatencySummary
from fraudsdk.telemetry.ticks import tick_clock

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Labels = tuple[Ints, npt.NDArray[np.int8], Ints]

DEFAULT_MAX_ENTITIES = 1_000_000
DEFAULT_JOURNAL_CAPACITY = 1_000_000
# Rows per kernel call of a replay, so that progress can be shown and a signal is heard.
REPLAY_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class Provenance:
    """
    Where a feature's value came from.

    Attributes
    ----------
    entity : str
        Entity kind, or empty for what the transaction says itself.
    known : bool
        The entity had been seen before.
    age_us : int or None
        Event time since the entity was last seen.
    exact : bool
        False when tiles or a sketch answered: bounded, not exact.
    """

    entity: str
    known: bool
    age_us: int | None
    exact: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """The verdict that the journal keeps with a transaction."""

    margin: float
    score: float
    verdict: int


def label_bits(is_fraud: bool) -> tuple[int, int]:
    """Flags that a label sets, and clears."""
    return (FRAUD, GENUINE) if is_fraud else (GENUINE, FRAUD)


def answer_bits(declined: bool) -> tuple[int, int]:
    """Flags that the host's final answer sets, and clears."""
    return (DECLINED, 0) if declined else (0, DECLINED)


class FeatureEngine:
    """
    Features of one transaction, or of many in order, over one memory.

    Parameters
    ----------
    feature_set : FeatureSet
    vocabulary : Vocabulary
        Frozen at training time; only declared category filters look at it here.
    max_entities, journal_capacity : int
        Bounds of the memory, see `EntityMemory`.

    Notes
    -----
    Not thread-safe: `fraudsdk.scorer.Scorer` holds a lock around each call.
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        vocabulary: Vocabulary,
        *,
        max_entities: int = DEFAULT_MAX_ENTITIES,
        journal_capacity: int = DEFAULT_JOURNAL_CAPACITY,
    ) -> None:
        self.feature_set = feature_set
        self.plan: FeaturePlan = build_plan(feature_set, vocabulary)
        self.schema: FeatureSchema = feature_set.schema
        self.memory = EntityMemory(self.plan.state, max_entities=max_entities, journal_capacity=journal_capacity)
        state, plan = self.plan.state, self.plan
        n_slots, longest = max(1, len(plan.slots)), max(feature_set.ring_cap, plan.most_tiles)
        self._keys = np.zeros((max(1, len(state.names)), kernels.KEY_FIELDS), dtype=np.int64)
        self._acc = np.zeros((n_slots, kernels.ACC_FIELDS), dtype=np.int64)
        self._squares = np.zeros(n_slots)
        # Edges are read eight at a time, past the last one.
        self._edges_us = np.append(plan.edges_us, np.zeros(7, dtype=np.int64))
        self._positions = np.zeros(len(self._edges_us), dtype=np.int64)
        # Two rows per set, marks and their ranks, and one for tiles; one word more than there are events, to be read past
        # the end.
        self._bits = np.zeros((2 * len(plan.sets) + 1, longest // 64 + 2), dtype=np.int64)
        self._own = np.zeros(OWN_WORDS)
        self._ahead = np.zeros((kernels.AHEAD_ROWS, 2 * len(state.names)), dtype=np.int64)
        self._ahead_labels = np.zeros((kernels.AHEAD_ROWS, len(state.names)), dtype=np.int64)
        self._times = FeatureTimes(plan)
        self._context = context.empty_context()
        self._arguments = (self._context,)
        self._attached: tuple[Ints, Numbers, Rows] | None = None
        self._point_at_tables()
        self._point_at_memory()

    @property
    def record_layout(self) -> RecordLayout:
        """Fields that the encoder must write."""
        return self.plan.record

    @property
    def context(self) -> Ints:
        """Where everything is, for kernels that call `kernels.observe_at`; see `fraudsdk.features.context`."""
        return self._context

    @property
    def n_features(self) -> int:
        """Columns of a row."""
        return len(self.schema.features)

    def warm_up(self) -> None:
        """Compile or load the kernels, and calibrate their clock; call it before the first transaction."""
        warm_up("fraudsdk.features.")
        tick_clock()

    def observe(self, ints: Ints, numbers: Numbers, row: Rows, *, record: bool) -> tuple[int, int]:
        """
        Read, and when `record` remember, one encoded transaction.

        Parameters
        ----------
        ints, numbers : int64[1, n_ints], float64[1, n_numbers]
        row : float32[n_features]
            Written when the status is `kernels.SCORED`.

        Returns
        -------
        (status, journal_row)
        """
        self.attach(ints, numbers, row)
        remember = int(record)  # the kernel has one signature, of an integer
        status, journal_row = kernels.score_one(*self._arguments, remember)
        if status == kernels.NEEDS_ROOM:
            self.grow()
            status, journal_row = kernels.score_one(*self._arguments, remember)
        return status, journal_row

    def replay(
        self,
        ints: Ints,
        numbers: Numbers,
        *,
        label_rows: Ints | None = None,
        label_values: npt.NDArray[np.int8] | None = None,
        label_times_us: Ints | None = None,
        progress: Any = None,
    ) -> tuple[Rows, npt.NDArray[np.int8]]:
        """
        Point-in-time rows of many transactions in arrival order, each label delivered when it would have been known.

        Parameters
        ----------
        ints, numbers : int64[n, n_ints], float64[n, n_numbers]
        label_rows, label_values, label_times_us : int64[m], int8[m], int64[m]
            Row a label is about, 1 = fraud or 0 = genuine, and when it is known; sorted by time.
        progress : callable, optional
            Called with the number of rows done so far.

        Returns
        -------
        rows : float32[n, n_features]
            NaN where there is none (a duplicate, a reversal, a chargeback).
        statuses : int8[n]

        Raises
        ------
        TypeError
            An array is of another type, shape or layout than the kernel reads.
        ValueError
            The labels are not one row, value and time each, or are about a row that is not there.
        """
        rows = np.empty((len(ints), self.n_features), dtype=np.float32)
        statuses = np.zeros(len(ints), dtype=np.int8)
        labels = _labels(label_rows, label_values, label_times_us)
        for first, batch, _ in self._batches(ints, numbers, labels, rows, statuses):
            if progress is not None:
                progress(first + len(batch))
        return rows, statuses

    def replay_batches(
        self,
        ints: Ints,
        numbers: Numbers,
        *,
        label_rows: Ints | None = None,
        label_values: npt.NDArray[np.int8] | None = None,
        label_times_us: Ints | None = None,
    ) -> Iterator[tuple[int, Rows, npt.NDArray[np.int8]]]:
        """
        `replay`, `REPLAY_CHUNK` transactions at a time, in the memory of one batch.

        Parameters
        ----------
        ints, numbers, label_rows, label_values, label_times_us
            As for `replay`.

        Yields
        ------
        first : int
            Transaction that the batch begins with.
        rows : float32[m, n_features]
            Written over by the next batch: copy what is to be kept.
        statuses : int8[m]
        """
        n_batch = min(len(ints), REPLAY_CHUNK)
        rows = np.empty((n_batch, self.n_features), dtype=np.float32)
        statuses = np.zeros(n_batch, dtype=np.int8)
        labels = _labels(label_rows, label_values, label_times_us)
        yield from self._batches(ints, numbers, labels, rows, statuses)

    def _batches(
        self, ints: Ints, numbers: Numbers, labels: Labels, rows: Rows, statuses: npt.NDArray[np.int8]
    ) -> Iterator[tuple[int, Rows, npt.NDArray[np.int8]]]:
        """Batches into `rows`, which holds all of them, or one of them after another."""
        n, layout = len(ints), self.record_layout
        _require_layout("ints of a replay", ints, np.int64, (n, layout.n_ints))
        _require_layout("numbers of a replay", numbers, np.float64, (n, len(layout.numbers)))
        _require_labels(*labels, n)
        next_label = 0
        for first in range(0, n, REPLAY_CHUNK):
            done, stop = first, min(n, first + REPLAY_CHUNK)
            place = slice(first, stop) if len(rows) == n else slice(0, stop - first)
            batch, batch_statuses = rows[place], statuses[place]
            while done < stop:
                done, next_label = kernels.replay(
                    self._context, ints[:stop], numbers[:stop], *labels, batch_statuses, first, done, next_label, batch
                )
                if done < stop:
                    self.grow()
            batch[batch_statuses != kernels.SCORED] = np.nan
            yield first, batch, batch_statuses

    def label(self, transaction_key: int, *, is_fraud: bool) -> bool:
        """A label arrived.  False when the transaction is no longer remembered."""
        return self.amend(transaction_key, *label_bits(is_fraud))

    def answered(self, transaction_key: int, *, declined: bool) -> bool:
        """The host's final answer arrived.  False when the transaction is no longer remembered."""
        return self.amend(transaction_key, *answer_bits(declined))

    def amend(self, transaction_key: int, set_bits: int, clear_bits: int) -> bool:
        """Change the flags of a transaction.  False when it is no longer remembered."""
        return bool(kernels.amend_transaction(self._context, transaction_key, set_bits, clear_bits))

    def keep_verdict(self, journal_row: int, transaction_key: int, recorded: Recorded) -> bool:
        """Keep a verdict with its transaction; False where that is forgotten by now.  Call it under the lock."""
        words = self.memory.journal[journal_row]
        if words[JOURNAL_KEY] != transaction_key:
            return False
        words[JOURNAL_MARGIN : JOURNAL_SCORE + 1] = np.array([recorded.margin, recorded.score]).view(np.int64)
        words[JOURNAL_VERDICT] = recorded.verdict
        return True

    def named_keys(self) -> list[int]:
        """Keys of the entities that the transaction that was just observed names."""
        return [key for key in self._keys[:, kernels.KEY].tolist() if key]

    def remembers(self, transaction_key: int) -> bool:
        """Whether a transaction is in the journal."""
        return int(kernels.journal_row(self._context, transaction_key)) >= 0

    def keys_of(self, transaction_key: int) -> list[int]:
        """Keys of the entities whose windows a remembered transaction is in; none of one that is not remembered."""
        row = kernels.journal_row(self._context, transaction_key)
        return [] if row < 0 else [key for key in self.memory.journal[row, JOURNAL_FIRST_ENTITY:].tolist() if key]

    def newest(self) -> tuple[int, int, Rows]:
        """Key, journal row and a copy of the row of the transaction that was remembered last, into attached arrays."""
        assert self._attached is not None
        ints, _, row = self._attached
        journal_row = (int(self.memory.meta[META_JOURNAL_NEXT]) - 1) % len(self.memory.journal)
        return int(ints[0, TRANSACTION_KEY]), journal_row, row.copy()

    def lacks_verdict(self, journal_row: int, transaction_key: int) -> bool:
        """Whether a transaction is remembered without a verdict."""
        words = self.memory.journal[journal_row]
        return bool(words[JOURNAL_KEY] == transaction_key and not words[JOURNAL_VERDICT])

    def verdict_of(self, journal_row: int, transaction_key: int) -> Recorded:
        """The verdict that was kept with a transaction; verdict 0 = none was, or it is forgotten."""
        words = self.memory.journal[journal_row]
        if words[JOURNAL_KEY] != transaction_key:
            return Recorded(float("nan"), float("nan"), 0)
        margin, score = words[JOURNAL_MARGIN : JOURNAL_SCORE + 1].view(np.float64)
        return Recorded(float(margin), float(score), int(words[JOURNAL_VERDICT]))

    def provenance(self, ints: Ints) -> list[Provenance]:
        """Of each feature of the row just computed by `observe` from these `ints`."""
        t_us = int(ints[0, EVENT_TIME_US])
        known: list[Provenance] = []
        in_order = self.plan.ops[np.argsort(self.plan.ops[:, OP_COLUMN])]
        for op, feature in zip(in_order, self.feature_set.features, strict=True):
            if feature.of:
                known.append(_joined(known[op[OP_SLOT]], known[op[OP_OTHER]]))
            else:
                known.append(self._provenance_of(op, t_us))
        return known

    def time_features(self) -> None:
        """
        Count how long each feature of the transaction that was just observed takes, by computing it once more.

        For one transaction in many: it takes as long as observing five.  Nothing remembered changes, nor the caller's row, nor
        what `provenance` says.  Before the first transaction there is nothing to time, and nothing is counted.

        Notes
        -----
        Each feature is computed alone, from one clock reading to the next; a reading is not subtracted.  The windows of an
        entity are read together: that is timed once per entity, and each feature with a window of it is charged an even
        share.  Code and entities are in the cache by then: what the first reading waited for memory is not seen here.
        """
        if self._attached is not None:
            self._times.take(self._context)

    def feature_latencies(self) -> dict[str, LatencySummary]:
        """What `time_features` counted of each feature, in the order of the row."""
        return dict(zip(self.schema.names, self._times.summaries(), strict=True))

    def _provenance_of(self, op: Ints, t_us: int) -> Provenance:
        if op[OP_KIND] < 0:
            return Provenance("", True, None, True)
        head = int(self._keys[op[OP_KIND], kernels.KEY_HEAD])
        exact = True
        if op[OP_CODE] < 100:
            exact = not (self._acc[op[OP_SLOT], kernels.ACC_BOUNDED] or self._acc[op[OP_OTHER], kernels.ACC_BOUNDED])
        elif head and op[OP_CODE] == kernels.OPCODES["distinct"]:
            exact = not self._is_sketched(head, op)
        age_us = max(0, t_us - int(self._keys[op[OP_KIND], kernels.KEY_LAST_US])) if head else None
        return Provenance(self.plan.state.names[op[OP_KIND]], head != 0, age_us, exact)

    def _is_sketched(self, head: int, op: Ints) -> bool:
        kind = self.plan.state.kinds[op[OP_KIND]]
        part = head + int(kind[kernels.KIND_DISTINCT]) + int(op[OP_SLOT]) * kernels.DISTINCT_WORDS
        return bool(self.memory.pool[part + kernels.DISTINCT_CAPACITY] == kernels.SKETCHED)

    def grow(self) -> None:
        """More room, after a kernel said `kernels.NEEDS_ROOM`."""
        self.memory.grow()
        self._point_at_memory()

    def adopt_memory(self) -> None:
        """Work with what was restored into `memory`."""
        self._point_at_memory()

    def forget_scratch(self) -> None:
        """Zero what the last transactions left in arrays to work in, the attached ones too."""
        for array in (self._keys, self._acc, self._squares, self._own, self._ahead, self._ahead_labels):
            array.fill(0)
        if self._attached is not None:
            for attached in self._attached:
                attached.fill(0)

    def attach(self, ints: Ints, numbers: Numbers, row: Rows) -> None:
        """Point the context at the caller's arrays, unless it does already; a kernel cannot check them any more."""
        attached = self._attached
        if attached is not None and attached[0] is ints and attached[1] is numbers and attached[2] is row:
            return
        layout = self.record_layout
        for array, dtype, shape in (
            (ints, np.int64, (1, layout.n_ints)),
            (numbers, np.float64, (1, len(layout.numbers))),
            (row, np.float32, (self.n_features,)),
        ):
            _require_layout("an encoded transaction of this feature set", array, dtype, shape)
        # Kernels write where they are pointed, also into memory that Python takes for immutable.
        if not row.flags.writeable:
            raise TypeError("the row is read-only and features are written into it; give an array of your own")
        self._attached = ints, numbers, row
        for field, array in ((context.INTS, ints), (context.NUMBERS, numbers), (context.ROW, row)):
            context.point(self._context, field, array)

    def _point_at_memory(self) -> None:
        memory = self.memory
        for field, array in (
            (context.POOL, memory.pool),
            (context.TABLE, memory.table),
            (context.META, memory.meta),
            (context.JOURNAL, memory.journal),
            (context.JOURNAL_INDEX, memory.journal_index),
            (context.CHANGED, memory.changed),
            (context.ELSEWHERE, memory.elsewhere),
        ):
            context.point(self._context, field, array)
        self._context[context.BUMP_MAX] = memory.bump_max
        self._context[context.ERASED_UNTIL_US] = erased_until_us(memory.tombstones)

    def _point_at_tables(self) -> None:
        state, plan = self.plan.state, self.plan
        for field, array in (
            (context.KEYS, self._keys),
            (context.ACC, self._acc),
            (context.SQUARES, self._squares),
            (context.POSITIONS, self._positions),
            (context.BITS, self._bits),
            (context.OWN, self._own),
            (context.AHEAD, self._ahead),
            (context.AHEAD_LABELS, self._ahead_labels),
            (context.KINDS, state.kinds),
            (context.COLUMNS, state.columns),
            (context.MEASURES, state.measures),
            (context.DISTINCTS, state.distincts),
            (context.DECAYEDS, state.decayeds),
            (context.WINDOWED, plan.windowed),
            (context.SETS, plan.sets),
            (context.EDGES, self._edges_us),
            (context.SLOTS, plan.slots),
            (context.OPS, plan.ops),
            (context.PARAMS, plan.params),
            (context.RUNS, plan.runs),
            (context.FILTERS, plan.filters),
            (context.FILTER_RANGES, plan.filter_ranges),
            (context.LIMITS, plan.limits),
            (context.PLACES, plan.places),
        ):
            context.point(self._context, field, array)


def _require_layout(what: str, array: npt.NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    """Refuse what a kernel would misread: it is told addresses, and checks neither types nor lengths."""
    flags = array.flags
    if array.dtype == dtype and array.shape == shape and flags.c_contiguous and flags.aligned:
        return
    raise TypeError(
        f"{what} must be {np.dtype(dtype)}{list(shape)}, C-contiguous and aligned; was {array.dtype}{list(array.shape)}"
        f"{'' if flags.c_contiguous else ', not contiguous'}{'' if flags.aligned else ', not aligned'}: "
        "take the arrays of the encoder, or copy with numpy.require"
    )


def _labels(rows: Ints | None, values: npt.NDArray[np.int8] | None, times_us: Ints | None) -> Labels:
    return (
        np.zeros(0, dtype=np.int64) if rows is None else rows,
        np.zeros(0, dtype=np.int8) if values is None else values,
        np.zeros(0, dtype=np.int64) if times_us is None else times_us,
    )


def _require_labels(rows: Ints, values: npt.NDArray[np.int8], times_us: Ints, n: int) -> None:
    """Refuse labels that the kernel would follow out of its arrays."""
    if not len(rows) == len(values) == len(times_us):
        raise ValueError(
            f"labels must have one row, value and time each, had {len(rows)}, {len(values)} and {len(times_us)}; "
            "give arrays of one length"
        )
    for what, array, dtype in (
        ("label_rows", rows, np.int64),
        ("label_values", values, np.int8),
        ("label_times_us", times_us, np.int64),
    ):
        _require_layout(what, array, dtype, (len(rows),))
    if len(rows) and not 0 <= rows.min() <= rows.max() < n:
        raise ValueError(
            f"label_rows must be from 0 to {n - 1}, were {rows.min()} to {rows.max()}; give positions in this replay"
        )


def _joined(one: Provenance, other: Provenance) -> Provenance:
    """Of a feature derived from two: as old as the older, and exact when both are."""
    entity = " and ".join(dict.fromkeys(name for name in (one.entity, other.entity) if name))
    ages = [p.age_us for p in (one, other) if p.age_us is not None]
    return Provenance(entity, one.known and other.known, max(ages, default=None), one.exact and other.exact)
