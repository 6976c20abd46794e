"""State over Redis (``pip install fraudsdk[redis]``)."""

from fraudsdk.adapters.redis.shared import SharedRedis
from fraudsdk.adapters.redis.store import RedisStore

__all__ = ["RedisStore", "SharedRedis"]
