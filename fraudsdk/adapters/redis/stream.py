"""
State of a stream in Redis: a writer for each of its partitions, in a group of its own.

::

    fs1:{GROUP}:writers     HASH    schema = what parts mean; stream = which stream it is; N = "TOKEN LEASED-UNTIL" of the process
                                    that has partition N, "" once it has left; erasing = the same of whoever erases somebody
    fs1:{GROUP}:tombstones  HASH    mark of who was erased = when, microseconds since the Unix epoch

and, of partition N, what `RedisStore` keeps for ``GROUP.N``.  The lease tells an erasure who is still at work, and nothing else:
what fences a process off its partition is the claim.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any, Final

from fraudsdk.adapters.redis.connection import Client
from fraudsdk.adapters.redis.store import RedisStore, answer_of, entities_named
from fraudsdk.entity_state.writer import Lost
from fraudsdk.errors import StateError, StateUnavailableError

_ENTER: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'erasing', 'schema', 'stream')
if held[1] and tonumber(string.match(held[1], ' (%d+)$')) >= now then return {'ERASING', ''} end
if held[1] then redis.call('HDEL', KEYS[1], 'erasing') end
if held[2] and not held[3] then return {'SHARED', ''} end
if held[3] and held[3] ~= ARGV[2] then return {'ANOTHER', held[3]} end
if held[2] and held[2] ~= ARGV[1] then return {'FOREIGN', ''} end
redis.call('HSET', KEYS[1], 'schema', ARGV[1], 'stream', ARGV[2], ARGV[3], ARGV[4] .. ' ' .. (now + ARGV[5]))
return {'ENTERED', ''}
"""
# Whoever erases somebody waits for this to end.
_KEEP: Final = """
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local held = redis.call('HMGET', KEYS[1], ARGV[1], 'erasing')
if held[1] and held[1] ~= '' and string.match(held[1], '^(%S+) ') ~= ARGV[2] then return 'LOST' end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] == '0' and '' or ARGV[2] .. ' ' .. (now + ARGV[3]))
if held[2] and tonumber(string.match(held[2], ' (%d+)$')) >= now then return 'ERASING' end
return 'KEPT'
"""
_LEASE_MS: Final = 30_000
_LOOKED_EVERY_S: Final = 1.0


class StreamRedis(RedisStore):
    """
    A `StreamStore`.

    Parameters
    ----------
    client : redis.Redis or redis.RedisCluster
        As for `RedisStore`; `connect` makes one.
    partition : int
    group : str
        Of one stream, and of nothing else.
    ttl_s : int
        Entities that have not changed for so long expire; 0: never.  It should be more than the longest window.
    """

    def __init__(self, client: Client, partition: int, group: str = "tx", *, ttl_s: int = 0) -> None:
        super().__init__(client, f"{group}.{partition}", ttl_s=ttl_s)
        self._group = group
        self._partition = partition
        self._writers_key = f"fs1:{{{group}}}:writers"
        self._lease_token = secrets.token_hex(16)
        self._enter = client.register_script(_ENTER)
        self._keep = client.register_script(_KEEP)
        self._looked_at_s = -_LOOKED_EVERY_S

    def enter(self, schema: bytes, origin: bytes) -> None:
        """As `StreamStore`."""
        args: list[Any] = [schema.hex(), origin, self._partition, self._lease_token, _LEASE_MS]
        said, other = answer_of(lambda: self._enter(keys=[self._writers_key], args=args))
        if said == b"ERASING":
            raise StateUnavailableError(f"somebody is being erased from group {self._group!r}; enter again later")
        if said == b"SHARED":
            raise StateError(f"group {self._group!r} in Redis is of processes that share it; name another for a stream")
        if said == b"ANOTHER":
            raise StateError(
                f"group {self._group!r} in Redis follows {other.decode(errors='replace')}, and this is "
                f"{origin.decode(errors='replace')}: the topic was made anew or changed; name another group, or empty this one"
            )
        if said == b"FOREIGN":
            raise StateError(
                f"state of group {self._group!r} in Redis is of other features, another vocabulary or another hash_key; "
                "open with those, or name another group"
            )

    def must_leave(self) -> bool:
        """As `StreamStore`; it asks once a second."""
        if time.monotonic() - self._looked_at_s < _LOOKED_EVERY_S:
            return False
        said = self._keep_lease(_LEASE_MS)
        self._looked_at_s = time.monotonic()
        if said == b"LOST":
            raise Lost
        return said == b"ERASING"

    def leave(self) -> None:
        """As `StreamStore`."""
        self._keep_lease(0)

    def tombstones(self) -> list[tuple[int, int]]:
        """As `StreamStore`."""
        found = answer_of(lambda: self._client.hgetall(f"fs1:{{{self._group}}}:tombstones"))
        return [(int(mark), int(erased_us)) for mark, erased_us in found.items()]

    def entity_keys(self) -> Iterator[list[int]]:
        """As `StreamStore`."""
        return entities_named(self._client, f"{self._group}.{self._partition}")

    def _keep_lease(self, lease_ms: int) -> bytes:
        args: list[Any] = [self._partition, self._lease_token, lease_ms]
        said: bytes = answer_of(lambda: self._keep(keys=[self._writers_key], args=args))
        return said
