"""State over Redis (``pip install fraudsdk[redis]``)."""

from fraudsdk.adapters.redis.connection import Client, connect
from fraudsdk.adapters.redis.shared import SharedRedis
from fraudsdk.adapters.redis.store import RedisStore
from fraudsdk.adapters.redis.stream import StreamRedis

__all__ = ["Client", "RedisStore", "SharedRedis", "StreamRedis", "connect"]
