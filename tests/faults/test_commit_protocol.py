"""
The protocol of a writer, simulated: one seed draws crashes, lost and repeated replies, zombies and stores that lose a suffix.

Whatever was drawn, the store ends with what one process makes of the log, and every alert is there that it has, none twice
by id.  A protocol that writes parts and place apart fails in the same simulation.
"""

from __future__ import annotations

import copy
import json
import random

import pytest

from fraudsdk.entity_state.store import Committed, JournalChange, MemoryStore
from fraudsdk.entity_state.writer import Lost, PartWriter
from fraudsdk.errors import CorruptStateError, StateUnavailableError

N_CHANGES = 60
N_SEEDS = 3_000


class Tally:
    """
    State to simulate with: per entity the changes it saw, in order.  Every seventh change is an alert.

    Its journal has a row for each change, and each change adds one to the row of the change that was half as far.
    """

    def __init__(self):
        self.forget()

    def apply(self, sequence, change, load):
        missing = [key for key in change if key not in self.seen]
        for key, part in zip(missing, load(missing), strict=True):
            self.seen[key] = json.loads(part) if part else []
        for key in change:
            self.seen[key].append(sequence)
        self.rows += [0] * (sequence + 1 - len(self.rows))  # more than one where a store with a hole lost some
        self.rows[sequence // 2] += 1
        self.amended.add(sequence // 2)
        return sorted(set(change)), [b"alert %d" % sequence] if sequence % 7 == 0 else []

    def pack(self, keys, place):
        return [json.dumps(self.seen[key]).encode() for key in keys]

    def journalled(self):
        rows = sorted({*self.amended, *range(self.n_kept, len(self.rows))})
        self.amended, self.n_kept = set(), len(self.rows)
        return JournalChange(1, 0, len(self.rows), tuple((row, bytes([self.rows[row]])) for row in rows))

    def recall(self, page):
        self.rows += page.octets
        self.n_kept = len(self.rows)

    def forget(self):
        self.seen: dict[int, list[int]] = {}
        self.rows: list[int] = []
        self.amended: set[int] = set()
        self.n_kept = 0


def log_of(draw) -> list[tuple[int, ...]]:
    return [tuple(draw.sample(range(1, 9), draw.randrange(1, 4))) for _ in range(N_CHANGES)]


def oracle(log) -> tuple[dict[int, bytes], list[bytes], bytes]:
    """What one process that nothing happens to makes of a log."""
    tally, alerts = Tally(), []
    for sequence, change in enumerate(log):
        alerts += tally.apply(sequence, change, lambda keys: [b""] * len(keys))[1]
    return dict(zip(tally.seen, tally.pack(tally.seen, len(log)), strict=True)), alerts, bytes(tally.rows)


class Troubled:
    """A store whose calls are lost, or whose answers are, and that may lose a suffix of what it wrote."""

    def __init__(self, store, draw, trouble):
        self.store = store
        self.draw = draw
        self.trouble = trouble
        self.earlier = [copy.deepcopy(store)]
        self.times = {"lost call": 0, "lost reply": 0, "regressed": 0, "fenced": 0, "again": 0}

    def _through(self, call):
        chance = self.draw.random()
        if chance < self.trouble:
            self.times["lost call"] += 1
            raise StateUnavailableError("the call was lost")
        answer = call()
        if chance > 1 - self.trouble:
            self.times["lost reply"] += 1
            raise StateUnavailableError("the reply was lost")
        return answer

    def claim(self, token):
        return self._through(lambda: self.store.claim(token))

    def commit(self, *call):
        self.earlier.append(copy.deepcopy(self.store))
        answer = self._through(lambda: self.store.commit(*call))
        self.times["fenced"] += answer is Committed.FENCED
        self.times["again"] += answer is Committed.AGAIN
        self.times["regressed"] += answer is Committed.REGRESSED
        return answer

    def read(self, *call):
        return self._through(lambda: self.store.read(*call))

    def journal(self, *call):
        return self._through(lambda: self.store.journal(*call))

    def lose_a_suffix(self):
        """As a restart from an older snapshot does; who owns the writer now is lost as well."""
        self.store.__dict__.update(copy.deepcopy(self.draw.choice(self.earlier[-4:])).__dict__)


class Worker:
    """A process that owns the writer, or believes so."""

    def __init__(self, store, name):
        self.writer = PartWriter(store, Tally(), b"%d" % name)
        self.claimed = False

    def step(self, log, draw) -> bool:
        """Do one thing; False when another has taken over."""
        try:
            if not self.claimed:
                self.writer.claim()
                self.claimed = True
            elif self.writer.next < len(log) and draw.random() < 0.8:
                self.writer.feed(self.writer.next, log[self.writer.next])
            else:
                self.writer.commit()
        except StateUnavailableError:
            pass  # whatever it does next, an unanswered commit comes first: the writer sees to it
        except Lost:
            return False
        return True


def simulate(seed, make_store=MemoryStore):
    """Run one seed to its end; the store, the log, and what happened."""
    draw = random.Random(seed)
    log = log_of(draw)
    store = Troubled(make_store(), draw, draw.choice((0.0, 0.02, 0.1)))
    names = iter(range(10**6))
    workers = [Worker(store, next(names))]
    happened = {"crash": 0, "zombie": 0, "suffix lost": 0}
    for _ in range(400):
        chance = draw.random()
        if chance < 0.02:  # killed, and started again
            happened["crash"] += 1
            workers[-1] = Worker(store, next(names))
        elif chance < 0.04:  # paused long enough that another takes over, and then it wakes up
            happened["zombie"] += 1
            workers.append(Worker(store, next(names)))
        elif chance < 0.05:
            happened["suffix lost"] += 1
            store.lose_a_suffix()
        worker = draw.choice(workers)
        if not worker.step(log, draw):
            if worker is workers[-1]:
                worker.claimed = False  # fenced by a claim that the store remembers and the group does not
            else:
                workers.remove(worker)
    store.trouble = 0.0
    last = Worker(store, next(names))
    while not last.claimed or last.writer.next < len(log) or last.writer.n_dirty:
        assert last.step(log, draw)
    return store, log, happened


def problems_of(store, log) -> list[str]:
    parts, alerts, rows = oracle(log)
    place = store.claim(b"?")
    found = [f"place is {place}"] if place != len(log) else []
    found += [f"part {key}" for key, part in parts.items() if store.read(b"?", place, [key]) != [part]]
    found += ["journal"] if store.journal(b"?", place, 0).octets != rows else []
    told = [alert for _, alert in store.store.outbox(10**6)]
    found += ["alerts"] if sorted(told) != sorted(alerts) else []
    return found


def test_whatever_happens_the_store_ends_as_one_process_would_have_left_it():
    times: dict[str, int] = {}
    for seed in range(N_SEEDS):
        store, log, happened = simulate(seed)

        assert [] == problems_of(store, log), f"seed {seed}"
        for what, n in (happened | store.times).items():
            times[what] = times.get(what, 0) + n
    assert all(n > 100 for n in times.values()), times  # each sort of trouble did happen


class Apart(MemoryStore):
    """The negative control: parts and place are written one after the other, and a call may end between them."""

    def commit(self, token, previous, next, parts, alerts, journal):
        if token == self._token and self._next == previous and previous % 3 == 0:
            self._parts.update(parts)
            if not hasattr(self, "_half") or self._half != previous:
                self._half = previous
                raise StateUnavailableError("died between parts and place")
        return super().commit(token, previous, next, parts, alerts, journal)


class Anywhere(MemoryStore):
    """Another: a commit is taken wherever the store is."""

    def commit(self, token, previous, next, parts, alerts, journal):
        if token == self._token:
            self._next = previous
        return super().commit(token, previous, next, parts, alerts, journal)


class Unfenced(MemoryStore):
    """Another: whoever asks for a part gets it, whosesoever and wherever it is."""

    def read(self, token, place, keys):
        return super().read(self._token, self._next, keys)


@pytest.mark.parametrize(("make_store", "least"), [(Apart, 1_000), (Anywhere, 100), (Unfenced, 1)])
def test_a_protocol_with_a_hole_is_found_out(make_store, least):
    failed = sum(bool(problems_of(*simulate(seed, make_store)[:2])) for seed in range(N_SEEDS))

    assert failed >= least


def test_a_gap_in_the_log_is_an_error_and_what_is_known_is_not_applied_again():
    writer = PartWriter(MemoryStore(), Tally(), b"me")
    writer.claim()

    assert writer.feed(0, (1,))
    assert not writer.feed(0, (1,))
    with pytest.raises(CorruptStateError, match="changes 1 to 2 are missing"):
        writer.feed(3, (1,))
    assert 1 == writer.commit()


def test_nothing_is_fed_while_a_commit_is_unanswered():
    class Silent(MemoryStore):
        silent = True

        def commit(self, *call):
            if self.silent:
                raise StateUnavailableError("no answer")
            return super().commit(*call)

    store = Silent()
    writer = PartWriter(store, Tally(), b"me")
    writer.claim()
    writer.feed(0, (1,))
    with pytest.raises(StateUnavailableError):
        writer.commit()
    with pytest.raises(StateUnavailableError, match="commit is unanswered"):
        writer.feed(1, (1,))

    store.silent = False
    assert 1 == writer.commit()
    assert writer.feed(1, (1,))
