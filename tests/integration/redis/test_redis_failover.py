"""Redis that loses the end of what it answered: a replica that lags and is promoted, kills, a power cut."""

from __future__ import annotations

import random

import pytest
from servers import IN_MEMORY, Link, RedisServer, require_redis, wait_for

from fraudsdk.entity_state.store import Committed

require_redis()
pytest.importorskip("redis")
from writing import Writing, problems_of  # noqa: E402  # only where Redis is

from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402

EVERY_SECOND = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


def store_of(server, name="tx.0"):
    return RedisStore(connect(f"redis://127.0.0.1:{server.port}"), name)


def place_of(server):
    with server.client() as client:
        return int(client.hget("fs1:{tx.0}:meta", "o") or 0)


class Moved:
    """A store whose place another server takes, as the address of a master does."""

    def __init__(self, store):
        self.now = store

    def __getattr__(self, name):
        return getattr(self.now, name)


@pytest.mark.parametrize("n_bytes_more", [0, 20_000, 100_000, 150_001])
def test_a_replica_that_lags_is_promoted_and_the_writer_feeds_again_what_it_lacks(tmp_path, n_bytes_more):
    """Replication is held up between or amid commits of some 35 KB; of half a commit nothing is there."""
    master = RedisServer(tmp_path / "master", *IN_MEMORY, "--repl-diskless-sync-delay", "0").start()
    with Link(master.port) as link:
        replica = RedisServer(tmp_path / "replica", *IN_MEMORY, "--replicaof", "127.0.0.1", str(link.port)).start()
        try:
            wait_for("replication", lambda: is_linked(replica))
            writing = Writing(store := Moved(store_of(master)))
            writing.go_on_to(600)
            wait_for("the replica", lambda: place_of(replica) == 600)
            link.hold_after(n_bytes_more)
            writing.go_on_to(1_000)
            writing.feed(10)
            master.kill()
            store.now = promoted(replica)
            promoted_at = place_of(replica)

            assert promoted_at == writing.writer.commit()
            assert Committed.REGRESSED is writing.told.commits[-1]
            assert (600 if n_bytes_more < 30_000 else 601) <= promoted_at < 900
            writing.go_on_to(1_200)
            assert [] == problems_of(store, 1_200)
        finally:
            replica.stop()
            master.stop()


def promoted(replica):
    with replica.client() as client:
        client.execute_command("REPLICAOF", "NO", "ONE")
    return store_of(replica)


def test_the_comparison_with_one_process_can_fail(tmp_path):
    server = RedisServer(tmp_path, *IN_MEMORY).start()
    try:
        Writing(store := store_of(server)).go_on_to(100)
        assert [] == problems_of(store, 100)
        with server.client() as client:
            some = next(key for key in client.scan_iter("fs1:{tx.0}:*") if key[-4:] not in (b"meta", b":out"))
            client.setrange(some, 40, b"\xff")
        assert 1 == len(problems_of(store, 100))
        assert [] != problems_of(store, 99)
    finally:
        server.stop()


def is_linked(replica):
    with replica.client() as client:
        return client.info("replication")["master_link_status"] == "up"


def test_redis_killed_again_and_again_with_a_file_that_is_synced_every_second(tmp_path):
    draw = random.Random("everysec")
    server = RedisServer(tmp_path, *EVERY_SECOND).start()
    try:
        writing = Writing(store := store_of(server))
        for nth in range(1, 6):
            writing.go_on_to(200 * nth - draw.randrange(100))
            server.kill()
            server.start()
        writing.go_on_to(1_200)

        assert [] == problems_of(store, 1_200)
    finally:
        server.stop()


def test_a_power_cut_takes_the_end_of_that_file(tmp_path):
    draw = random.Random("power")
    server = RedisServer(tmp_path, *EVERY_SECOND).start()
    try:
        writing = Writing(store := store_of(server))
        for nth in range(1, 6):
            writing.go_on_to(200 * nth)
            writing.feed(10)
            server.kill()
            (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
            with file.open("r+b") as written:
                written.truncate(file.stat().st_size - draw.randrange(1, 50_000))
            server.start()

            assert place_of(server) == writing.writer.commit() < 200 * nth
            assert Committed.REGRESSED is writing.told.commits[-1]
        writing.go_on_to(1_200)

        assert [] == problems_of(store, 1_200)
    finally:
        server.stop()
