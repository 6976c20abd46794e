"""
Erasing a subject from state that processes share in Redis.

::

    writers leave ──> slots claimed ──> parts: learn, then erase ──> feeds and journals go ──> tombstone ──> scan ──> writers join

Processes that are running write what they have, forget all of it, and go on deciding without; when it is over they join again and
read what is left.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from fraudsdk.adapters.redis.connection import Client
from fraudsdk.adapters.redis.store import RedisStore, answer_of, key_of
from fraudsdk.config import ScorerConfig
from fraudsdk.encoding.encoder import Encoder
from fraudsdk.entity_state.erasure import (
    PartEraser,
    Scanned,
    Subject,
    Traces,
    n_found_in,
    patterns_of,
    unsearched_kinds,
)
from fraudsdk.entity_state.memory import EntityMemory
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.errors import StateError, StateUnavailableError
from fraudsdk.features.engine import FeatureEngine
from fraudsdk.model.artefact import load_artefact
from fraudsdk.scorer.erasure import Erased, Identifiers, partners_of, subject_of
from fraudsdk.scorer.parts import feature_set_of, shared_schema_of, vocabulary_of

_BEGIN: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local erasing = redis.call('HGET', KEYS[1], 'erasing')
if erasing and string.match(erasing, '^(%S+) ') ~= ARGV[1] and tonumber(string.match(erasing, ' (%d+)$')) >= now then return -1 end
redis.call('HSET', KEYS[1], 'erasing', ARGV[1] .. ' ' .. (now + ARGV[2]))
local held = 0
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local until_ms = string.match(redis.call('HGET', KEYS[1], field), ' (%d+)$')
  if string.match(field, '^%d+$') and until_ms and tonumber(until_ms) >= now then held = held + 1 end
end
return held
"""
_END: Final = """
local erasing = redis.call('HGET', KEYS[1], 'erasing') or ''
if string.match(erasing, '^(%S+) ') == ARGV[1] then redis.call('HDEL', KEYS[1], 'erasing') end
"""
_HOLD_MS: Final = 60_000
_PER_PIPELINE: Final = 500
_POLL_S: Final = 0.05

Progress = Callable[[int], None]


def erase_shared(
    client: Client,
    group: str,
    config: ScorerConfig,
    identifiers: Identifiers,
    now_us: int,
    *,
    wait_s: float = 120.0,
    progress: Progress | None = None,
) -> Erased:
    """
    Erase a subject from the parts of all writers of a group.

    Parameters
    ----------
    client : Client
        As `connect` makes it.
    group : str
        Of `SharedRedis`.
    config : ScorerConfig
        As the processes have it: model or features, and key.
    identifiers : Mapping of str to str, or several
        By the field of a transaction that holds them.
    now_us : int
        The time, microseconds since the Unix epoch.
    wait_s : float
        How long processes may take to leave; one that was killed holds its slot until its lease runs out.
    progress : callable, optional
        Called with how many parts were looked at.

    Raises
    ------
    ModelError, ConfigurationError, InvalidTransactionError
        Model, features or identifiers are not what they should be.
    StateError
        The group is not there, or is of other features or another key.
    StateUnavailableError
        Redis does not answer, somebody else erases, or a process does not leave.  The subject is erased in part or not at all:
        erase again.
    """
    assert config.hash_key is not None  # the caller saw to it
    model = None if config.model is None else load_artefact(Path(config.model))
    features, vocabulary = feature_set_of(config, model), vocabulary_of(model)
    engine = FeatureEngine(features, vocabulary, max_entities=_SCRATCH_ENTITIES, journal_capacity=1)
    encoder = Encoder(engine.record_layout, key=config.hash_key, vocabulary=vocabulary, currency=features.currency)
    subject = subject_of(encoder, identifiers)
    schema = shared_schema_of(engine, vocabulary, config.hash_key)
    eraser = PartEraser(engine.memory.layout, subject, partners_of(encoder, engine.memory, subject))
    with _Sweep(client, group, schema, engine.memory, wait_s, progress) as sweep:
        sweep.learn(eraser)
        traces, n_mentions = sweep.erase(eraser)
        sweep.bury(subject, now_us)
        scanned = sweep.scan(subject, traces)
    unsearched = unsearched_kinds(engine.memory.layout, subject)
    problems = (f"{sweep.n_damaged} damaged parts were removed",) if sweep.n_damaged else ()
    return Erased(len(traces.entities), 0, n_mentions, now_us, (scanned,), unsearched, problems)


_SCRATCH_ENTITIES: Final = 4_096


class _Sweep:
    """A group while somebody is erased from it: no process writes."""

    def __init__(
        self, client: Client, group: str, schema: bytes, scratch: EntityMemory, wait_s: float, progress: Progress | None
    ) -> None:
        self._client = client
        self._group = group
        self._writers = f"fs1:{{{group}}}:writers"
        self._token = secrets.token_hex(16).encode()
        self._begin = client.register_script(_BEGIN)
        self._end = client.register_script(_END)
        self._codec, self._scratch = PartCodec(schema), scratch
        self._progress = progress
        self._n_seen = 0
        self.n_damaged = 0
        found = answer_of(lambda: client.hget(self._writers, "schema"))
        if found is None:
            raise StateError(f"there is no group {group!r} in Redis; name one that processes share")
        if found != schema.hex().encode():
            raise StateError(
                f"group {group!r} is of other features, another vocabulary or another hash_key; name those that it is kept with"
            )
        self._wait_s = wait_s

    def __enter__(self) -> _Sweep:
        until_s = time.monotonic() + self._wait_s
        try:
            while n_held := self._hold():
                if time.monotonic() > until_s:
                    raise StateUnavailableError(
                        f"{n_held} processes of group {self._group!r} do not leave; stop them, and erase again"
                    )
                time.sleep(_POLL_S)
        except BaseException:
            self.__exit__()
            raise
        for slot in self._slots():  # whoever was suspended is fenced
            RedisStore(self._client, f"{self._group}.{slot}").claim(self._token)
        return self

    def __exit__(self, *_: Any) -> None:
        answer_of(lambda: self._end(keys=[self._writers], args=[self._token]))

    def learn(self, eraser: PartEraser) -> None:
        """The first round: which identifiers there are."""
        for _, part in self._parts():
            if self._is_sound(part):
                eraser.learn(part)

    def erase(self, eraser: PartEraser) -> tuple[Traces, int]:
        """The second: keys of the entities that went, and how many others had counted the subject."""
        gone: set[int] = set()
        n_mentions, pipe, n = 0, self._client.pipeline(transaction=False), 0
        for name, part in self._parts():
            is_sound = self._is_sound(part)
            left = eraser.erased(part) if is_sound else None  # what cannot be read is of no use to anybody
            if left is None:
                gone |= {key_of(name)} if is_sound else set()
                self.n_damaged += not is_sound
                pipe.delete(name)
            elif left != part:
                n_mentions += 1
                pipe.set(name, left, keepttl=True)
            else:
                continue
            n += 1
            if n % _PER_PIPELINE == 0:
                answer_of(pipe.execute)
        for slot in self._slots():  # which entities changed of late, by their keys
            pipe.delete(f"fs1:{{{self._group}.{slot}}}:feed")
        for name in (*self._named("[0-9a-f]" * 16 + ":bad"), *self._named("journal:*")):
            pipe.delete(name)
        answer_of(pipe.execute)
        return Traces(np.array(sorted(gone), np.int64), np.zeros(0, np.int64)), n_mentions

    def bury(self, subject: Subject, erased_us: int) -> None:
        """Leave tombstones, which processes read when they join."""
        marks: dict[Any, Any] = dict.fromkeys(subject.marks.tolist(), erased_us)
        answer_of(lambda: self._client.hset(f"fs1:{{{self._group}}}:tombstones", mapping=marks))

    def scan(self, subject: Subject, traces: Traces) -> Scanned:
        """Look through all names and parts that are left."""
        patterns, n_bytes, n_found = patterns_of(subject, traces), 0, 0
        for name, part in self._parts():
            octets = key_of(name).to_bytes(8, "little", signed=True) + part
            n_bytes, n_found = n_bytes + len(octets), n_found + n_found_in(octets, patterns)
        for name in self._named("journal:*"):
            octets = answer_of(partial(self._client.get, name)) or b""
            n_bytes, n_found = n_bytes + len(octets), n_found + n_found_in(octets, patterns)
        return Scanned(f"parts of group {self._group}", n_bytes, n_found, -1)

    def _hold(self) -> int:
        """Say that somebody is being erased, for a minute more; how many processes hold a slot."""
        n_held = answer_of(lambda: self._begin(keys=[self._writers], args=[self._token, _HOLD_MS]))
        if n_held < 0:
            raise StateUnavailableError(f"somebody else is being erased from group {self._group!r}; erase again later")
        return int(n_held)

    def _slots(self) -> list[int]:
        held = answer_of(lambda: self._client.hkeys(self._writers))
        return sorted(int(field) for field in held if field.isdigit())

    def _named(self, pattern: str) -> Iterator[bytes]:
        names = self._client.scan_iter(f"fs1:{{{self._group}.*}}:{pattern}", count=1_000)
        while some := answer_of(lambda: list(islice(names, _PER_PIPELINE))):
            yield from dict.fromkeys(some)

    def _parts(self) -> Iterator[tuple[bytes, bytes]]:
        """Every part and what it is called."""
        names = self._named("[0-9a-f]" * 16)
        while some := list(islice(names, _PER_PIPELINE)):
            self._hold()
            pipe = self._client.pipeline(transaction=False)
            for name in some:
                pipe.get(name)
            yield from (
                (name, part) for name, part in zip(some, answer_of(pipe.execute), strict=True) if part is not None
            )
            self._n_seen += len(some)
            if self._progress is not None:
                self._progress(self._n_seen)

    def _is_sound(self, part: bytes) -> bool:
        return self._codec.take(self._scratch, part) in (Taken.TAKEN, Taken.KNOWN)
