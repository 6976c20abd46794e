"""
State that several processes share in Redis, each writing parts of its own.

::

    fs1:{GROUP}:writers     HASH    schema = what parts mean; N = "TOKEN LEASED-UNTIL" of the writer of slot N, "" once it has left;
                                    erasing = the same of whoever erases somebody: writers leave, and none joins
    fs1:{GROUP}:told        STREAM  labels and answers for transactions that another process decided on
    fs1:{GROUP}:tombstones  HASH    mark of who was erased = when, microseconds since the Unix epoch

and, of the writer of slot N, what `RedisStore` keeps for ``GROUP.N``.  Whoever only reads has no slot and leaves no trace; the
group may be one that a stream writes (`fraudsdk.adapters.redis.stream`).
"""

from __future__ import annotations

import secrets
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

import redis

from fraudsdk.adapters.redis.connection import Client
from fraudsdk.adapters.redis.store import RedisStore, answer_of, entities_named
from fraudsdk.entity_state.store import Changes, Committed, Parts
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import ConfigurationError, StateError, StateUnavailableError

# A slot that nobody holds, lowest first; else one whose lease has run out.  Redis' own clock counts.
_LEASE: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local erasing = redis.call('HGET', KEYS[1], 'erasing')
if erasing and tonumber(string.match(erasing, ' (%d+)$')) >= now then return 'ERASING' end
if erasing then redis.call('HDEL', KEYS[1], 'erasing') end
local schema = redis.call('HGET', KEYS[1], 'schema')
if schema and schema ~= ARGV[1] then return 'FOREIGN' end
if redis.call('HGET', KEYS[1], 'stream') then return 'STREAM' end
local slot
for i = 0, ARGV[3] - 1 do
  local held = redis.call('HGET', KEYS[1], i)
  if not held or held == '' then slot = i break end
end
for i = 0, ARGV[3] - 1 do
  if slot then break end
  local held = redis.call('HGET', KEYS[1], i)
  if tonumber(string.match(held, ' (%d+)$')) < now then slot = i end
end
if not slot then return 'FULL' end
redis.call('HSET', KEYS[1], 'schema', ARGV[1], slot, ARGV[2] .. ' ' .. (now + ARGV[4]))
return slot
"""
# A Redis that lost everything knows of no lease; whoever still has the token has it again.
_KEEP: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= '' and string.match(held, '^(%S+) ') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'schema', ARGV[4], ARGV[1], ARGV[3] == '0' and '' or ARGV[2] .. ' ' .. (now + ARGV[3]))
return 1
"""
_FEED_ENTRIES: Final = 1_000
# Of what was told; each holds up to some hundred labels.  Processes read it twenty times a second.
_TOLD_KEPT: Final = 10_000
_TOLD_AT_ONCE: Final = 100
_AMENDMENT: Final = struct.Struct("<3q")
_QUARANTINE_S: Final = 7 * 86_400
DEFAULT_TTL_S: Final = 180 * 86_400


class SharedRedis:
    """
    A `SharedStore`.

    Parameters
    ----------
    client : redis.Redis or redis.RedisCluster
        As for `RedisStore`; `connect` makes one.
    group : str
        Processes of one group share their state.
    max_writers : int
        Slots of the group: how many processes may write at a time.  An entity has at most so many parts.
    lease_s : float
        A process that has not been heard of for so long may lose its slot to another, where no slot is free.
    ttl_s : int
        Entities that have not changed for so long expire; 0: never.  It should be more than the longest window.
    reads_only : bool
        Read what the writers of a group keep, also where that is a stream, and write nothing.  `group` is theirs, and the other
        options are theirs too.

    Attributes
    ----------
    reads_only : bool
    """

    def __init__(
        self,
        client: Client,
        group: str = "s",
        *,
        reads_only: bool = False,
        max_writers: int = 16,
        lease_s: float = 30.0,
        ttl_s: int = DEFAULT_TTL_S,
    ) -> None:
        if not 1 <= max_writers <= 256:
            raise ConfigurationError(f"max_writers must be from 1 to 256, was {max_writers!r}; correct it")
        if not 1.0 <= lease_s <= 3600.0:
            raise ConfigurationError(f"lease_s must be from 1 to 3600, was {lease_s!r}; correct it")
        if not 0 <= ttl_s <= 2**31:
            raise ConfigurationError(f"ttl_s must be 0 or a number of seconds, was {ttl_s!r}; correct it")
        self.reads_only = reads_only
        self._client = client
        self._group = group
        self._max_writers = max_writers
        self._lease_ms = int(1000 * lease_s)
        self._ttl_s = ttl_s
        self._is_cluster = isinstance(client, redis.RedisCluster)
        self._writers_key = f"fs1:{{{group}}}:writers"
        self._told_key = f"fs1:{{{group}}}:told"
        self._tombstones_key = f"fs1:{{{group}}}:tombstones"
        self._lease = client.register_script(_LEASE)
        self._keep = client.register_script(_KEEP)
        self._slot = -1
        self._token, self._schema = b"", ""
        self._place = 0
        self._store: RedisStore | None = None
        self._stores: dict[int, RedisStore] = {}
        self._feeds: dict[int, _Feed] = {}
        self._last_told = b"0-0"
        self._has_missed = False  # changes of others that nobody was told of yet
        self._claims: dict[int, Any] = {}  # by whom slots were held when we looked last; of a reader
        self._buried: dict[Any, Any] = {}
        self._store_of(0)  # refuses what will not do
        self._kept_at_s = 0.0

    def join(self, schema: bytes) -> None:
        """As `SharedStore`."""
        self._schema = schema.hex()
        if self.reads_only:
            self._join_as_reader()
        else:
            self._join_as_writer()
        self._has_missed = False  # there is nothing yet that could be out of date

    def _join_as_reader(self) -> None:
        slots, is_erasing = self._read_slots()
        if is_erasing:
            self._refuse_while_erasing()
        self._feeds, self._claims = {}, {}
        self._follow_new_writers(slots)
        self._claims = self._claimed_by()

    def _join_as_writer(self) -> None:
        token = secrets.token_hex(16).encode()
        args: list[Any] = [self._schema, token, self._max_writers, self._lease_ms]
        slot = answer_of(lambda: self._lease(keys=[self._writers_key], args=args))
        if slot == b"ERASING":
            self._refuse_while_erasing()
        if slot == b"FOREIGN":
            self._refuse_as_foreign()
        if slot == b"STREAM":
            raise StateError(
                f"group {self._group!r} in Redis follows a stream, which alone writes it; name another group to write to"
            )
        if slot == b"FULL":
            raise StateError(
                f"all {self._max_writers} writers of group {self._group!r} are taken; raise max_writers, for all of them"
            )
        self._kept_at_s = time.monotonic()
        self._token = token
        self._store = self._store_of(int(slot))
        self._place = self._store.claim(token)
        self._slot = int(slot)
        self._feeds = {}
        newest: list[Any] = answer_of(lambda: self._client.xrevrange(self._told_key, count=1))
        self._last_told = newest[0][0] if newest else b"0-0"
        self._follow_new_writers(self._written_slots()[0])

    def tombstones(self) -> list[tuple[int, int]]:
        """As `SharedStore`."""
        self._buried = answer_of(lambda: self._client.hgetall(self._tombstones_key))
        return [(int(mark), int(erased_us)) for mark, erased_us in self._buried.items()]

    def resume(self) -> None:
        """As `SharedStore`."""
        if not self._renew(self._lease_ms):  # what was lost may be the lease
            raise Lost
        self._place = self._own.claim(self._token)

    def commit(self, parts: Mapping[int, bytes]) -> Committed:
        """As `SharedStore`."""
        said = self._own.commit(self._token, self._place, self._place + 1, parts, ())
        self._place += said in (Committed.WRITTEN, Committed.AGAIN)
        return said

    def read(self, keys: Sequence[int]) -> Parts:
        """As `SharedStore`."""
        mine = self._slot
        slots = sorted({*self._feeds} if self.reads_only else {*self._feeds, mine})
        pipe = self._client.pipeline(transaction=False)
        for slot in slots:
            names = self._store_of(slot).names_of(keys)
            if self._is_cluster:  # its pipelines take no MGET
                for name in names:
                    pipe.get(name)
            else:
                pipe.mget(names)
        answers: list[Any] = answer_of(pipe.execute)
        rows = answers
        if self._is_cluster:
            rows = [answers[first : first + len(keys)] for first in range(0, len(answers), len(keys))]
        return Parts(
            {key: [row[i] or b"" for row in rows] for i, key in enumerate(keys)},
            -1 if self.reads_only else slots.index(mine),
        )

    def entity_keys(self) -> Iterator[list[int]]:
        """As `SharedStore`."""
        return entities_named(self._client, f"{self._group}.*")

    def poll(self) -> Changes:
        """As `SharedStore`."""
        return self._poll_as_reader() if self.reads_only else self._poll_as_writer()

    def _poll_as_writer(self) -> Changes:
        self._keep_lease()
        slots, must_leave = self._written_slots()
        self._follow_new_writers(slots)
        pipe = self._client.pipeline(transaction=False)
        pipe.hmget(self._own.meta, "tok", "o")
        pipe.xread({self._told_key: self._last_told}, count=_TOLD_AT_ONCE)
        (token, place), told, *answers = self._read_feeds(pipe)
        if token not in (None, self._token):
            raise Lost
        keys, is_everything = self._taken_from(answers)
        has_lost_ours = token is None or int(place or 0) != self._place
        return Changes(keys, is_everything, has_lost_ours, tuple(self._amendments_in(told)), must_leave)

    def _poll_as_reader(self) -> Changes:
        slots, must_leave = self._read_slots()
        self._follow_new_writers(slots)
        keys, is_everything = self._taken_from(self._read_feeds(self._client.pipeline(transaction=False)))
        return Changes(keys, is_everything, False, (), must_leave or self._was_somebody_erased())

    def _was_somebody_erased(self) -> bool:
        """
        Whether somebody was erased while we looked away.  Nobody waits for a reader to leave.

        Whoever erases claims all slots first and leaves the tombstones last: a claim that has changed is of one who erases,
        or did, or of a new writer.
        """
        claims = self._claimed_by()
        if claims == self._claims:
            return False
        if self._buried != answer_of(lambda: self._client.hgetall(self._tombstones_key)):
            return True
        self._claims = claims
        return False

    def _read_feeds(self, pipe: Any) -> list[Any]:
        """What `pipe` was to ask, and then what is new in each feed."""
        for feed in self._feeds.values():
            pipe.xread({feed.name: feed.last}, count=_FEED_ENTRIES)
        answers: list[Any] = answer_of(pipe.execute)
        return answers

    def _taken_from(self, answers: Sequence[Any]) -> tuple[frozenset[int], bool]:
        """What others changed, by the answers of their feeds; and whether some of it cannot be said."""
        keys: set[int] = set()
        is_everything, self._has_missed = self._has_missed, True
        for feed, answer in zip(self._feeds.values(), answers, strict=True):
            is_everything |= not feed.take(answer, keys)
        self._has_missed = False
        return frozenset(keys), is_everything

    def tell(self, amendments: Sequence[tuple[int, int, int]]) -> None:
        """As `SharedStore`."""
        entry: dict[Any, Any] = {"w": self._token, "a": b"".join(_AMENDMENT.pack(*each) for each in amendments)}
        answer_of(lambda: self._client.xadd(self._told_key, entry, maxlen=_TOLD_KEPT))

    def quarantine(self, key: int) -> None:
        """As `SharedStore`."""
        (name,), (aside,) = self._own.names_of([key]), self._own.names_of([key], aside=True)

        def move() -> None:
            if self._client.exists(name):
                self._client.rename(name, aside)
                self._client.expire(aside, _QUARANTINE_S)

        answer_of(move)

    def leave(self) -> None:
        """As `SharedStore`; a reader holds nothing."""
        if not self.reads_only:
            self._renew(0)

    @property
    def _own(self) -> RedisStore:
        assert self._store is not None, "join first"
        return self._store

    def _amendments_in(self, answer: Any) -> Iterator[tuple[int, int, int]]:
        for entry, fields in _entries(answer):
            self._last_told = entry
            if fields[b"w"] != self._token:
                yield from _AMENDMENT.iter_unpack(fields[b"a"])

    def _store_of(self, slot: int) -> RedisStore:
        if slot not in self._stores:
            self._stores[slot] = RedisStore(self._client, f"{self._group}.{slot}", ttl_s=self._ttl_s)
        return self._stores[slot]

    def _keep_lease(self) -> None:
        if time.monotonic() - self._kept_at_s > self._lease_ms / 3000:
            if not self._renew(self._lease_ms):
                raise Lost
            self._kept_at_s = time.monotonic()

    def _renew(self, lease_ms: int) -> bool:
        args: list[Any] = [self._slot, self._token, lease_ms, self._schema]
        return bool(answer_of(lambda: self._keep(keys=[self._writers_key], args=args)))

    def _written_slots(self) -> tuple[set[int], bool]:
        """Slots that others ever had, and whether somebody is being erased."""
        held = answer_of(lambda: self._client.hkeys(self._writers_key))
        return {int(slot) for slot in held if slot.isdigit()} - {self._slot}, b"erasing" in held

    def _read_slots(self) -> tuple[set[int], bool]:
        """Slots of a group that is only read, and whether somebody is being erased; refused where it is not what we can read."""
        held = answer_of(lambda: self._client.hgetall(self._writers_key))
        slots = {int(slot) for slot in held if slot.isdigit()}
        if not slots:
            raise StateUnavailableError(
                f"nobody has written to group {self._group!r} in Redis; start who writes it, or name another group"
            )
        if held.get(b"schema", self._schema.encode()) != self._schema.encode():
            self._refuse_as_foreign()
        erasing = held.get(b"erasing")
        # A lease that ran out is of one who died; whoever joins next takes it away, and that is nobody who only reads.
        return slots, erasing is not None and int(erasing.rpartition(b" ")[2]) >= self._now_ms()

    def _now_ms(self) -> int:
        """By Redis' own clock."""
        said: Any = answer_of(self._client.time)
        seconds, microseconds = next(iter(said.values())) if isinstance(said, dict) else said
        return int(seconds) * 1_000 + int(microseconds) // 1_000

    def _claimed_by(self) -> dict[int, Any]:
        """By slot, the token of whoever claimed it last."""
        pipe = self._client.pipeline(transaction=False)
        for slot in self._feeds:
            pipe.hget(self._store_of(slot).meta, "tok")
        return dict(zip(self._feeds, answer_of(pipe.execute), strict=True))

    def _refuse_while_erasing(self) -> NoReturn:
        raise StateUnavailableError(f"somebody is being erased from group {self._group!r}; join again later")

    def _refuse_as_foreign(self) -> NoReturn:
        raise StateError(
            f"state of group {self._group!r} in Redis is of other features, another vocabulary or another hash_key; "
            "open with those, or name another group"
        )

    def _follow_new_writers(self, slots: set[int]) -> None:
        """Follow writers that were not followed yet; what they had changed is not known."""
        for slot in sorted(slots - self._feeds.keys()):
            names = self._store_of(slot)
            pipe = self._client.pipeline(transaction=False)
            pipe.hget(names.meta, "o")
            pipe.xrevrange(names.feed, count=1)
            place, entries = answer_of(pipe.execute)
            self._feeds[slot] = _Feed(names.feed, int(place or 0), entries)
            self._has_missed = True


class _Feed:
    """How far the feed of another writer was read: each entry says from which place to which its commit went."""

    def __init__(self, name: str, place: int, newest: list[Any]) -> None:
        self.name = name
        self.last = newest[0][0] if newest else b"0-0"
        self._place = int(newest[0][1][b"n"]) if newest else place

    def take(self, answer: Any, keys: set[int]) -> bool:
        """Add what changed to `keys`; False where entries are missing."""
        is_whole = True
        for entry, fields in _entries(answer):
            is_whole &= int(fields[b"o"]) == self._place
            self._place, self.last = int(fields[b"n"]), entry
            keys.update(struct.unpack(f"<{len(fields[b'k']) // 8}q", fields[b"k"]))
        return is_whole


def _entries(answer: Any) -> list[Any]:
    """Entries of the one stream that was read, as both versions of the protocol put them."""
    if not answer:
        return []
    (entries,) = answer.values() if isinstance(answer, dict) else [read for _, read in answer]
    return entries[0] if entries and isinstance(entries[0], list) else entries
