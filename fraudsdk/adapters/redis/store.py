"""
A writer's state in Redis.

::

    fs1:{WRITER}:meta      HASH    tok = token of the claim, o = next change; of the journal: jf = first block, je = next row,
                                   jo = next change when it was last written
    fs1:{WRITER}:KEY       STRING  the part of an entity
    fs1:{WRITER}:out       STREAM  alerts that nobody has acknowledged yet
    fs1:{WRITER}:journal:N STRING  block N of the journal: 4,096 rows, written in place
    fs1:{WRITER}:feed      STREAM  keys of the entities that the last thousand commits changed, for other writers and readers

All keys of a writer share a hash tag: one slot, one node, one script.  A script runs alone, so that parts and offset change
together.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, Final

import redis

from fraudsdk.adapters.redis.connection import Client, retries_of
from fraudsdk.entity_state.store import UNCHANGED, Committed, JournalChange, JournalPage
from fraudsdk.errors import ConfigurationError, StateUnavailableError

_KEY_DIGITS: Final = 16
_PER_SCAN: Final = 1_000

_CLAIM: Final = """
redis.call('HSET', KEYS[1], 'tok', ARGV[1])
return redis.call('HGET', KEYS[1], 'o') or '0'
"""
# A store that is empty has no token: it lost everything, and nobody has fenced us.
# Rows are written before anything that could be noticed: an error there leaves what a repeated call writes over.  A block that is
# not needed any more expires: nobody but an erasure may delete.
_COMMIT: Final = """
local meta = redis.call('HMGET', KEYS[1], 'tok', 'o')
if meta[1] and meta[1] ~= ARGV[1] then return 'FENCED' end
local at = meta[2] or '0'
if at == ARGV[3] and ARGV[2] ~= ARGV[3] then return 'AGAIN' end
if at ~= ARGV[2] or not meta[1] then return 'REGRESSED' end
local n = tonumber(ARGV[6])
local runs = #KEYS - 3 - n
for i = 1, runs do
  local block, at = KEYS[3 + n + i], 7 + n + 2 * i
  redis.call('SETRANGE', block, ARGV[at], ARGV[at + 1])
  if ARGV[4] ~= '0' then redis.call('EXPIRE', block, ARGV[4]) end
end
if runs > 0 then
  local prefix = string.gsub(KEYS[1], 'meta$', 'journal:')
  for block = tonumber(redis.call('HGET', KEYS[1], 'jf') or ARGV[7]), ARGV[7] - 1 do
    redis.call('SET', prefix .. block, '', 'EX', 1)
  end
  redis.call('HSET', KEYS[1], 'jf', ARGV[7], 'je', ARGV[8], 'jo', ARGV[3])
end
for i = 1, n do
  if ARGV[4] == '0' then redis.call('SET', KEYS[3 + i], ARGV[8 + i])
  else redis.call('SET', KEYS[3 + i], ARGV[8 + i], 'EX', ARGV[4]) end
end
for i = 9 + n + 2 * runs, #ARGV do redis.call('XADD', KEYS[2], '*', 'alert', ARGV[i]) end
if n > 0 then redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'o', ARGV[2], 'n', ARGV[3], 'k', ARGV[5]) end
redis.call('HSET', KEYS[1], 'o', ARGV[3])
return 'WRITTEN'
"""
_READ: Final = """
local meta = redis.call('HMGET', KEYS[1], 'tok', 'o')
if meta[1] and meta[1] ~= ARGV[1] then return 'FENCED' end
if (meta[2] or '0') ~= ARGV[2] or not meta[1] then return 'REGRESSED' end
local parts = {}
for i = 2, #KEYS do parts[i - 1] = redis.call('GET', KEYS[i]) or '' end
return parts
"""
# Up to a block of the journal: the one that a row is in, or the first that is kept.
_JOURNAL: Final = """
local meta = redis.call('HMGET', KEYS[1], 'tok', 'o', 'jf', 'je', 'jo')
if meta[1] and meta[1] ~= ARGV[1] then return 'FENCED' end
if (meta[2] or '0') ~= ARGV[2] or not meta[1] then return 'REGRESSED' end
local block = math.max(ARGV[3], meta[3] or '0')
local rows = redis.call('GET', string.gsub(KEYS[1], 'meta$', 'journal:') .. block) or ''
return {block, tonumber(meta[4] or '0'), tonumber(meta[5] or '0'), rows}
"""
# One string would be copied whole, up to 100 MB, each time that it outgrows its place.
JOURNAL_BLOCK_ROWS: Final = 4_096


class RedisStore:
    """
    A `StateStore`.

    Parameters
    ----------
    client : redis.Redis or redis.RedisCluster
        As `connect` makes it: with ``decode_responses`` off, with a ``socket_timeout``, and without retries of its own, since
        a store that does not answer must not be waited for much longer than it was said.
    writer : str
        Whose state it is; letters, digits, dots and dashes.
    ttl_s : int
        Parts that have not changed for so long expire; 0: never.

    Raises
    ------
    ConfigurationError
        The client or the name will not do.
    """

    def __init__(self, client: Client, writer: str, *, ttl_s: int = 0) -> None:
        options = client.get_connection_kwargs()
        if options.get("decode_responses"):
            raise ConfigurationError("the Redis client decodes responses, and parts are bytes; make it without")
        if not options.get("socket_timeout"):
            raise ConfigurationError("the Redis client waits for ever; give it a socket_timeout, such as 0.5")
        if n_retries := retries_of(client):
            raise ConfigurationError(
                f"the Redis client repeats calls by itself (retries: {n_retries}); make it with connect(), or with "
                "retry=Retry(NoBackoff(), 0)"
            )
        if not writer or not all(each.isalnum() or each in ".-" for each in writer):
            raise ConfigurationError(f"a writer's name has letters, digits, dots and dashes, was {writer!r}; rename it")
        self._client = client
        self._prefix = f"fs1:{{{writer}}}:"
        self.meta = f"{self._prefix}meta"
        self._out = f"{self._prefix}out"
        self.feed = f"{self._prefix}feed"
        self.journal_prefix = f"{self._prefix}journal:"
        self._ttl_s = ttl_s
        self._claim = client.register_script(_CLAIM)
        self._commit = client.register_script(_COMMIT)
        self._read = client.register_script(_READ)
        self._read_journal = client.register_script(_JOURNAL)

    def claim(self, token: bytes) -> int:
        """As `StateStore`."""
        return int(answer_of(lambda: self._claim(keys=[self.meta], args=[token])))

    def commit(
        self,
        token: bytes,
        previous: int,
        next: int,
        parts: Mapping[int, bytes],
        alerts: Sequence[bytes],
        journal: JournalChange = UNCHANGED,
    ) -> Committed:
        """As `StateStore`."""
        changed = struct.pack(f"<{len(parts)}q", *parts)
        first_block = journal.first // JOURNAL_BLOCK_ROWS
        runs = list(_cut_at_blocks(journal))
        blocks = [f"{self.journal_prefix}{row // JOURNAL_BLOCK_ROWS}" for row, _ in runs]
        keys = [self.meta, self._out, self.feed, *self.names_of(parts), *blocks]
        args: list[Any] = [token, previous, next, self._ttl_s, changed, len(parts), first_block, journal.end]
        args += parts.values()
        for row, octets in runs:
            args += row % JOURNAL_BLOCK_ROWS * journal.width, octets
        args += alerts
        return Committed(answer_of(lambda: self._commit(keys=keys, args=args)).decode())

    def journal(self, token: bytes, place: int, row: int) -> JournalPage | Committed:
        """As `StateStore`; a page is a block."""
        args: list[Any] = [token, place, row // JOURNAL_BLOCK_ROWS]
        answer: Any = answer_of(lambda: self._read_journal(keys=[self.meta], args=args))
        if isinstance(answer, bytes):
            return Committed(answer.decode())
        block, end, written_at, octets = answer
        return JournalPage(block * JOURNAL_BLOCK_ROWS, octets, (block + 1) * JOURNAL_BLOCK_ROWS, end, written_at)

    def read(self, token: bytes, place: int, keys: Sequence[int]) -> list[bytes] | Committed:
        """As `StateStore`."""
        named = [self.meta, *self.names_of(keys)]
        answer: list[bytes] | bytes = answer_of(lambda: self._read(keys=named, args=[token, place]))
        return answer if isinstance(answer, list) else Committed(answer.decode())

    def outbox(self, limit: int, after: str = "") -> list[tuple[str, bytes]]:
        """As `StateStore`."""
        first = f"({after}" if after else "-"
        entries: list[Any] = answer_of(lambda: self._client.xrange(self._out, min=first, count=limit))
        return [(name.decode(), fields[b"alert"]) for name, fields in entries]

    def acknowledge(self, names: Iterable[str]) -> None:
        """As `StateStore`."""
        listed = list(names)
        if listed:
            answer_of(lambda: self._client.xdel(self._out, *listed))

    def names_of(self, keys: Collection[int], *, aside: bool = False) -> list[str]:
        """What the parts of entities are called; or, `aside`, damaged ones that were put out of the way."""
        # All digits at once: a format for each takes three times as long.
        digits = struct.pack(f">{len(keys)}q", *keys).hex()
        prefix, ending = self._prefix, ":bad" if aside else ""
        return [f"{prefix}{digits[at : at + _KEY_DIGITS]}{ending}" for at in range(0, len(digits), _KEY_DIGITS)]


def _cut_at_blocks(journal: JournalChange) -> Iterator[tuple[int, bytes]]:
    for row, octets in journal.runs:
        end = row + len(octets) // journal.width
        cuts = [row, *range((row // JOURNAL_BLOCK_ROWS + 1) * JOURNAL_BLOCK_ROWS, end, JOURNAL_BLOCK_ROWS), end]
        for first, until in pairwise(cuts):
            yield first, octets[(first - row) * journal.width : (until - row) * journal.width]


def entities_named(client: Client, writers: str) -> Iterator[list[int]]:
    """Entities that writers have parts of, bit by bit; `writers` is the name of one, or a pattern of several."""
    # By one connection: the cursors of a server that was restarted mean something else, and a pool would connect again without a
    # word.
    own = answer_of(client.client) if isinstance(client, redis.Redis) else client
    try:
        names = own.scan_iter(f"fs1:{{{writers}}}:{'[0-9a-f]' * _KEY_DIGITS}", count=_PER_SCAN)
        while some := answer_of(lambda: list(islice(names, _PER_SCAN))):
            yield [key_of(name) for name in some]
    finally:
        if own is not client:
            own.close()


def key_of(name: bytes) -> int:
    """The entity that a part is of, by what it is called."""
    return int.from_bytes(bytes.fromhex(name[-16:].decode()), "big", signed=True)


def answer_of(ask: Callable[[], Any]) -> Any:
    """What Redis says; whatever it says instead of an answer is not the caller's fault, and is `StateUnavailableError`."""
    try:
        return ask()
    except (
        redis.exceptions.RedisError,
        redis.exceptions.RedisClusterException,
    ) as error:
        raise StateUnavailableError(
            f"Redis does not answer ({type(error).__name__}); the same call is safe to repeat"
        ) from error
