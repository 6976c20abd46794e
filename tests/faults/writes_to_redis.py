"""
A worker that applies a log of transactions to parts in Redis, and is killed, paused and cut off meanwhile.

Run        python writes_to_redis.py PORT TOKEN N together|apart
Exit code  0: everything is committed; 3: another has taken over
"""

from __future__ import annotations

import random
import sys
import time

import numpy as np
import redis
from twin.comparison import Driver
from twin.events import Event

from fraudsdk.adapters.redis import RedisStore
from fraudsdk.entity_state.parts import PartCodec, Taken
from fraudsdk.entity_state.store import UNCHANGED
from fraudsdk.entity_state.writer import Lost, PartWriter
from fraudsdk.errors import StateUnavailableError
from fraudsdk.features import kernels
from fraudsdk.features.spec import Feature, FeatureSet

SCHEMA = b"what the crash test keeps"
PER_COMMIT = 100
FEATURES = FeatureSet(
    "crash test",
    (
        Feature("users_events", "count", entity="user", window="24h"),
        Feature("spent", "sum", entity="user", window="7d"),
        Feature("merchants", "distinct", entity="user", field="merchant", window="24h"),
        Feature("merchants_events", "count", entity="merchant", window="1h"),
        Feature("merchants_decayed", "decayed_sum", entity="merchant", field="amount", half_life="1h"),
        Feature("devices_events", "count", entity="device", window="24h"),
        Feature("pairs_events", "count", entity="user+merchant", window="30d"),
        Feature("ips_events", "count", entity="ip", window="1h"),
    ),
    ring_cap=8,
)


def event(sequence: int) -> Event:
    """The transaction at a place of the log: the same whoever asks."""
    draw = random.Random(sequence)
    return Event(
        f"t{sequence}",
        10**15 + sequence * 7 * 10**6,
        texts={
            "user_id": f"u{draw.randrange(200)}",
            "merchant_id": f"m{draw.randrange(60)}",
            "device_id": f"d{draw.randrange(250)}",
            "ip": f"10.0.0.{draw.randrange(90)}",
        },
        numbers={"amount": draw.randrange(1, 9_000) / 4},
    )


class EngineState:
    """A `State` of real entities: what is not in memory is taken up from its part first."""

    def __init__(self) -> None:
        self._codec = PartCodec(SCHEMA)
        self.forget()

    def forget(self) -> None:
        self.driver = Driver(FEATURES, max_entities=50_000)
        self.touched: dict[int, int] = {}

    def apply(self, sequence, change, load):
        self.driver.observe(change, record=False)  # says which entities it names
        keys = {int(key) for key in self.driver.engine._keys[:, kernels.KEY] if key != 0}
        missing = sorted(keys - self.touched.keys())
        for part in load(missing) if missing else ():
            if part:
                assert Taken.TAKEN == self._codec.take(self.driver.engine.memory, part)
        self.driver.observe(change)
        self.touched |= dict.fromkeys(keys, sequence)
        return sorted(keys), [b"alert %d" % sequence] if sequence % 97 == 0 else []

    def pack(self, keys, place):
        packed = [
            self._codec.pack(self.driver.engine.memory, np.array([key], np.int64), self.touched[key]) for key in keys
        ]
        return [part for (part,) in packed]

    def journalled(self):
        return UNCHANGED

    def recall(self, page) -> None:
        assert not page.octets

    def parts(self) -> dict[int, bytes]:
        """Every part that is in memory."""
        keys = self.driver.engine.memory.entity_keys().tolist()
        return dict(zip(keys, self.pack(keys, 0), strict=True))


class WritingApart(RedisStore):
    """The negative control: parts first, and then their place in the log."""

    def commit(self, token, previous, next, parts, alerts, journal=UNCHANGED):
        try:
            if parts:
                self._client.mset(dict(zip(self.names_of(parts), parts.values(), strict=True)))
        except redis.exceptions.RedisError as error:
            raise StateUnavailableError("no answer") from error
        time.sleep(0.01)
        return super().commit(token, previous, next, {}, alerts, journal)


def main(port: str, token: str, n: str, how: str) -> int:
    kind = WritingApart if how == "apart" else RedisStore
    store = kind(redis.Redis(port=int(port), socket_timeout=0.5, retry=None), "tx.0")
    writer: PartWriter = PartWriter(store, EngineState(), token.encode())
    claimed = False
    while True:
        try:
            if not claimed:
                writer.claim()
                claimed = True
            while writer.next < int(n) and writer.n_dirty < 4 * PER_COMMIT:
                writer.feed(writer.next, event(writer.next))
            writer.commit()
            if writer.next >= int(n) and not writer.n_dirty:
                return 0
        except StateUnavailableError:
            time.sleep(0.02)
            try:
                if claimed:
                    writer.commit()
            except StateUnavailableError:
                continue
            except Lost:
                return 3
        except Lost:
            return 3


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
