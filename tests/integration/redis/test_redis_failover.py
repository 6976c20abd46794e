"""Redis that loses the end of what it answered: a replica that lags and is promoted, kills, a power cut."""

from __future__ import annotations

import os
import random
import shutil
import subprocess

import pytest
from servers import IN_MEMORY, Link, RedisServer, require_redis, wait_for

from fraudsdk.entity_state.store import Committed

require_redis()
pytest.importorskip("redis")
from writing import Writing, problems_of  # noqa: E402  # only where Redis is

from fraudsdk.adapters.redis import RedisStore, connect  # noqa: E402

CHECK_AOF = shutil.which("redis-check-aof")
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
            some = next(key for key in client.scan_iter("fs1:{tx.0}:*") if key[-4:] not in (b"meta", b":out", b"feed"))
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


def start_checked(server):
    """As ``aof-load-truncated no`` wants it: Redis does not start from a torn file until it is repaired."""
    with pytest.raises(AssertionError, match="redis-server ended"):
        server.start()
    manifest = server.directory / "appendonlydir" / "appendonly.aof.manifest"
    subprocess.run([CHECK_AOF, "--fix", manifest], input=b"y", check=True, capture_output=True)
    server.start()


def start_rewritten(server):
    """It starts, and forgets the torn file before anything is added to it."""
    server.start()
    with server.client() as client:
        client.bgrewriteaof()
        wait_for("the rewrite", lambda: not client.info("persistence")["aof_rewrite_in_progress"])


@pytest.mark.skipif(CHECK_AOF is None and os.environ.get("CI") != "true", reason="redis-check-aof is not installed")
@pytest.mark.parametrize("cut_bytes", [3, 20, 5_000, 12_000, 50_001])
@pytest.mark.parametrize("start_again", [start_checked, start_rewritten])
def test_a_power_cut_takes_the_end_of_that_file(tmp_path, cut_bytes, start_again):
    """
    A torn transaction is not there, and does not come back.

    Redis 7.0 leaves its beginning in the file, and with the next restart executes that too: parts would be ahead of their
    place.  Without one of the two remedies each of these cuts fails.
    """
    options = ("--aof-load-truncated", "no" if start_again is start_checked else "yes")
    server = RedisServer(tmp_path, *EVERY_SECOND, *options).start()
    try:
        writing = Writing(store_of(server))
        writing.go_on_to(400)
        writing.feed(1)
        server.kill()
        (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
        os.truncate(file, file.stat().st_size - cut_bytes)
        start_again(server)

        at = place_of(server)
        assert at == writing.writer.commit() < 400
        assert Committed.REGRESSED is writing.told.commits[-1]
        writing.go_on_to(at + 1)  # less than what was torn
        server.kill()
        server.start()
        another = Writing(store := store_of(server))
        assert another.writer.next in (at, at + 1)  # a kill loses what waited for a sync that was under way
        another.go_on_to(600)
        assert [] == problems_of(store, 600)
    finally:
        server.stop()
