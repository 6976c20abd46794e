"""A partition of a stream whose state is in Redis: what was said of a transaction finds it after a restart too."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from servers import IN_MEMORY, RedisServer, require_redis

from fraudsdk import ScorerConfig
from fraudsdk.entity_state import part_kernels
from fraudsdk.scorer.streamed_parts import Batch, Said, StreamedParts

require_redis()
redis = pytest.importorskip("redis")
from fraudsdk.adapters.redis import StreamRedis, connect  # noqa: E402  # only where Redis is
from fraudsdk.adapters.redis.erasure import erase_shared  # noqa: E402
from fraudsdk.adapters.redis.store import JOURNAL_BLOCK_ROWS  # noqa: E402

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
CONFIG = ScorerConfig(
    model=Path(__file__).parents[3] / "compiled_models" / "reference",
    hash_key=b"the key of the stream",
    max_entities=50_000,
    journal_capacity=6_000,
)


@pytest.fixture
def server(tmp_path):
    server = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with connect(f"redis://127.0.0.1:{server.port}", timeout_s=5) as client:
        yield client


def batch(first: int, until: int) -> Batch:
    rows = []
    for place in range(first, until):
        draw = random.Random(place)
        rows.append(
            {
                "transaction_id": f"t-{place}",
                "user_id": f"u{draw.randrange(30)}",
                "merchant_id": f"m{draw.randrange(9)}",
                "amount": f"{draw.randrange(1, 9_000)}.25",
                "event_time": NOON + timedelta(seconds=place),
            }
        )
    sent_us = np.array([int(row["event_time"].timestamp() * 1e6) for row in rows], np.int64)
    return Batch(rows, sent_us, lambda decisions: [])


def payloads(client, group: str) -> dict[bytes, bytes]:
    """Parts without checksum and place, by entity."""
    found = {}
    for name in client.keys(f"fs1:{{{group}.0}}:{'[0-9a-f]' * 16}"):
        words = np.frombuffer(client.get(name), "<i8").copy()
        words[[part_kernels.PART_CHECKSUM, part_kernels.PART_SEQUENCE]] = 0
        found[name[-16:]] = words.tobytes()
    return found


def opened(client, group: str, **options) -> StreamedParts:
    stream = StreamedParts(CONFIG, StreamRedis(client, 0, group, **options), b"stream")
    stream.claim()
    return stream


@pytest.mark.parametrize("ttl_s", [0, 3_600])
def test_labels_find_their_transactions_after_a_restart(client, ttl_s):
    for group, restarts in (("alone", False), ("many", True)):
        stream = opened(client, group, ttl_s=ttl_s)
        for first in range(0, 10_000, 2_000):
            stream.score(first, first + 2_000, batch(first, first + 2_000))
            stream.commit()
            if restarts:
                stream.close()
                stream = opened(client, group, ttl_s=ttl_s)
            assert stream.feedback(Said(f"t-{first + 7}", is_fraud=True))
            assert stream.feedback(Said(f"t-{max(first - 3_990, 0)}", is_fraud=True))
            assert stream.feedback(Said(f"t-{max(first - 4_100, 7)}", is_fraud=True)) == (first < 6_000)
        stream.commit()
        stream.close()

    assert payloads(client, "alone") == payloads(client, "many")


def test_the_journal_in_redis_is_bounded(client):
    stream = opened(client, "s")
    for first in range(0, 30_000, 3_000):
        stream.score(first, first + 3_000, batch(first, first + 3_000))
        stream.commit()
    stream.close()

    sizes = [client.strlen(name) for name in client.keys("fs1:{s.0}:journal:*")]
    width = len(stream._state._kept_words) * 8
    assert 6_000 * width <= sum(sizes) < (6_000 + 2 * JOURNAL_BLOCK_ROWS) * width


def test_an_erasure_leaves_no_journal_and_the_stream_goes_on(client):
    stream = opened(client, "s")
    stream.score(0, 100, batch(0, 100))
    stream.commit()
    stream.leave()
    assert client.keys("fs1:{s.0}:journal:*")

    erased = erase_shared(client, "s", CONFIG, {"user_id": "u3"}, int(NOON.timestamp() * 1e6) + 10**9)

    assert [] == client.keys("fs1:{s.0}:journal:*")
    assert 0 == erased.scanned[0].n_found
    stream.claim()
    assert not stream.feedback(Said("t-7", is_fraud=True))
    stream.score(100, 200, batch(100, 200))
    stream.commit()
    stream.close()
    again = opened(client, "s")
    assert again.feedback(Said("t-107", is_fraud=True))
    assert not again.feedback(Said("t-7", is_fraud=True))
    again.close()
