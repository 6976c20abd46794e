"""What happens to calls when the service stops, dies, is replaced, or has clients that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import grpc
import pytest
from servers import IN_MEMORY, RedisServer, require_redis, wait_for

from fraudsdk.adapters.grpc import ScoringClient
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
PING, GOAWAY, ENHANCE_YOUR_CALM = 6, 7, 11


class Load:
    """Clients of ours that call without a pause, and repeat a call so often where the service cannot be reached."""

    def __init__(self, target, n_clients=4, max_attempts=2):
        self._stop = threading.Event()
        self.answered, self.failures, self.latest_s = [0] * n_clients, [], 0.0
        self._threads = [
            threading.Thread(target=self._call, args=(each, target, max_attempts)) for each in range(n_clients)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        wait_for("all clients to be answered", lambda: all(self.answered))
        return self

    def __exit__(self, *failure):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, client_number, target, max_attempts):
        own = [("grpc.use_local_subchannel_pool", 1)]  # a connection each
        with ScoringClient(target, timeout_s=10.0, max_attempts=max_attempts, options=own) as client:
            while not self._stop.is_set():
                number = client_number * 1_000_000 + self.answered[client_number]
                sent = {"transaction_id": f"t-{number}", "user_id": f"u-{number % 50}", "amount": "12.50"}
                started_s = time.monotonic()
                try:
                    client.score(sent | {"currency": "EUR", "event_time": "2026-11-23T10:00:00Z"})
                except Exception as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                self.answered[client_number] += 1
                self.latest_s = max(self.latest_s, time.monotonic() - started_s)


def test_a_stop_under_load_loses_no_call_that_is_repeated_once(new_sidecar):
    """
    Another process is on the port, as behind a balancer; the one that is told to stop ends what it began.
    """
    first = new_sidecar(reuse_port=True).start()
    second = new_sidecar(reuse_port=True, listen=first.settings["listen"]).start()
    with Load(first.target, n_clients=6) as load:
        before = sum(load.answered)
        assert 0 == first.stop()
        stopped = sum(load.answered)
        wait_for("calls to go on", lambda: sum(load.answered) > stopped + 200)

    assert [] == load.failures
    assert stopped > before
    assert 0 == second.stop()


def test_a_hot_restart_loses_none(new_sidecar):
    """
    The next one listens on the same port before the old one is told to stop, three times over.
    """
    current = new_sidecar(reuse_port=True).start()
    with Load(current.target) as load:
        for _ in range(3):
            following = new_sidecar(reuse_port=True, listen=current.settings["listen"]).start()
            assert 0 == current.stop()
            current = following
        done = sum(load.answered)
        wait_for("calls to go on", lambda: sum(load.answered) > done + 100)

    assert [] == load.failures


def test_clients_of_a_killed_process_connect_to_the_next_and_none_hangs(new_sidecar):
    """
    No call waits beyond its deadline, and from the moment a process listens again all are answered.
    """
    first = new_sidecar(reuse_port=True).start()
    second = new_sidecar(reuse_port=True, listen=first.settings["listen"]).start()
    with Load(first.target, n_clients=6, max_attempts=3) as load:
        first.process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        before = list(load.answered)
        wait_for(
            "every client to be answered", lambda: all(n > m + 2 for n, m in zip(load.answered, before, strict=True))
        )
        again_s = time.monotonic() - killed_s

    assert load.latest_s < 10.0
    assert again_s < 5.0  # some 0.1 s on a machine that does nothing else
    assert [] == load.failures
    assert 0 == second.stop()


def test_a_stop_lets_a_call_finish_and_ends_idle_streams(new_sidecar, purchase, stub_of):
    sidecar = new_sidecar().start()
    message, more = pb.ScoreStreamRequest(transactions=[purchase(1).transaction]), threading.Event()

    def messages():
        yield message
        more.wait(30)

    with sidecar.channel() as channel:
        stream = stub_of(channel).ScoreStream(messages(), timeout=60)
        assert next(stream).decisions
        began_s = time.monotonic()
        sidecar.process.terminate()
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert 0 == sidecar.process.wait(timeout=10)
        more.set()

    assert raised.value.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
    assert time.monotonic() - began_s < 8.0  # calls under way have ten


def test_what_was_answered_before_a_stop_is_known_after_it(new_sidecar, purchase, stub_of, tmp_path):
    settings = {"state_dir": str(tmp_path / "state")}
    first = new_sidecar(**settings).start()
    with first.channel() as channel:
        decision = stub_of(channel).Score(purchase(1), timeout=10).decision
    assert 0 == first.stop()
    second = new_sidecar(**settings).start()
    with second.channel() as channel:
        again = stub_of(channel).Score(purchase(1), timeout=10).decision

    assert again.duplicate and not decision.duplicate
    assert decision.score == again.score


def test_who_pings_too_often_is_sent_away_and_may_come_again(new_sidecar, purchase, stub_of):
    sidecar = new_sidecar(limits__ping_interval_s=60.0).start()
    with socket.create_connection(("127.0.0.1", sidecar.port), timeout=10) as raw:
        raw.sendall(PREFACE + EMPTY_SETTINGS)
        for number in range(10):
            raw.sendall(struct.pack(">I", 8)[1:] + bytes((PING, 0)) + bytes(4) + struct.pack(">q", number))
        frames = dict(frames_of(raw))

    assert GOAWAY in frames
    assert ENHANCE_YOUR_CALM == struct.unpack(">I", frames[GOAWAY][4:8])[0]
    assert b"too_many_pings" in frames[GOAWAY]
    with sidecar.channel() as channel:
        assert stub_of(channel).Score(purchase(), timeout=10).decision.outcome


def frames_of(raw):
    """Type and payload of each frame, until the other end hangs up."""
    octets = b""
    while part := raw.recv(1 << 16):
        octets += part
        while len(octets) >= 9 and len(octets) >= 9 + (length := int.from_bytes(octets[:3], "big")):
            yield octets[3], octets[9 : 9 + length]
            octets = octets[9 + length :]


def test_a_thousand_clients_that_break_off_leave_nothing_behind(new_sidecar, purchase, stub_of):
    """
    They say nothing, half of something, close one way, reset, or cancel what they asked for.
    """
    sidecar = new_sidecar(limits__handshake_s=1.0).start()
    with sidecar.channel() as channel:
        stub = stub_of(channel)
        misbehave(sidecar, stub, purchase, 200)
        wait_for("connections to go", lambda: sidecar.resources()[0] < 40)
        descriptors, resident = sidecar.resources()
        misbehave(sidecar, stub, purchase, 1_000)
        wait_for("descriptors to be what they were", lambda: sidecar.resources()[0] <= descriptors + 2, 30.0)

        assert stub.Score(purchase(99), timeout=10).decision.outcome
        assert sidecar.resources()[1] < resident + (24 << 20)
        wait_for("no call under way", lambda: "fraudsdk_rpcs_under_way 0.0" in sidecar.metrics())


def misbehave(sidecar, stub, purchase, n_clients):
    batch = pb.ScoreBatchRequest(transactions=[purchase(each).transaction for each in range(200)])
    for number in range(n_clients):
        if number % 5 == 4:
            stub.ScoreBatch.future(batch, timeout=10).cancel()
            continue
        raw = socket.create_connection(("127.0.0.1", sidecar.port), timeout=10)
        if number % 5 == 1:
            raw.sendall(PREFACE[:11])
        elif number % 5 >= 2:
            raw.sendall(PREFACE + EMPTY_SETTINGS)
        if number % 5 == 2:
            raw.shutdown(socket.SHUT_WR)
        elif number % 5 == 3:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


def test_nobody_and_no_card_is_in_the_log_or_the_figures(new_sidecar, auth, token, purchase, stub_of):
    sidecar = new_sidecar(**auth, log__level="debug").start()
    secret = {
        "pan": "4111111111111111",
        "transaction_id": "t-4111111111111111",
        "user_id": "user-who-is-nobody",
        "card_id": "card-of-nobody",
    }
    metadata = [("authorization", f"Bearer {token(sub='client-of-nobody', scope='feedback')}")]
    with sidecar.channel() as channel:
        stub = stub_of(channel)
        for fields in (secret, secret | {"amount": "-1"}, secret | {"currency": "4111111111111111"}):
            with pytest.raises(grpc.RpcError):
                stub.Score(purchase(1, **fields), metadata=metadata, timeout=10)
            allowed = [("authorization", f"Bearer {token(sub='client-of-nobody')}")]
            with contextlib.suppress(grpc.RpcError):  # some of them are wrong in other ways too
                stub.Score(purchase(1, **fields), metadata=allowed, timeout=10)
    told = sidecar.said() + sidecar.metrics()

    assert "denied" in {each.get("event.action") for each in sidecar.events()}
    assert not re.search("4111|nobody", told)


def test_workers_share_a_port_and_what_they_know_and_are_replaced_when_one_dies(new_sidecar, tmp_path):
    require_redis()
    redis = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    try:
        sidecar = new_sidecar(workers=2, redis__url=f"redis://127.0.0.1:{redis.port}/0")
        sidecar.start(wait=False)
        wait_for("two workers", lambda: sidecar.said().count('"event.action": "ready"') == 2, 60.0)
        workers = {each["process.pid"] for each in sidecar.events() if each["event.action"] == "ready"}
        assert sidecar.process.pid not in workers
        with Load(sidecar.target, n_clients=6, max_attempts=3) as load:
            os.kill(min(workers), signal.SIGKILL)
            sidecar.wait_for_event("worker-died")
            wait_for("a third worker", lambda: sidecar.said().count('"event.action": "ready"') == 3, 60.0)
        assert [] == load.failures
        assert 0 == sidecar.stop()
        assert 2 == sidecar.said().count('"event.action": "stopped"')
    finally:
        redis.stop()


def test_workers_end_with_who_started_them(new_sidecar, tmp_path):
    require_redis()
    redis = RedisServer(tmp_path / "redis", *IN_MEMORY).start()
    try:
        sidecar = new_sidecar(workers=2, redis__url=f"redis://127.0.0.1:{redis.port}/0")
        sidecar.start(wait=False)
        wait_for("two workers", lambda: sidecar.said().count('"event.action": "ready"') == 2, 60.0)
        workers = {each["process.pid"] for each in sidecar.events() if each["event.action"] == "ready"}
        sidecar.process.kill()
        sidecar.process.wait()

        wait_for("no worker", lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 30.0)
    finally:
        redis.stop()


def test_the_service_manager_is_told(new_sidecar, tmp_path):
    """
    As systemd listens: ready after the warm-up, reloading and ready again, stopping.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        sidecar = new_sidecar().start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        told = [manager.recv(256)]
        sidecar.reload()
        told += [manager.recv(256), manager.recv(256)]
        sidecar.stop()
        told.append(manager.recv(256))

    assert [b"READY=1", b"RELOADING=1", b"READY=1", b"STOPPING=1"] == [each.split(b"\n")[0] for each in told]


def test_every_line_of_the_log_is_an_object(new_sidecar):
    sidecar = new_sidecar().start()
    with sidecar.channel() as channel:
        broken = channel.unary_unary("/fraudsdk.v1.ScoringService/Score", lambda each: each, lambda each: each)
        for octets in (b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x7f"):
            with pytest.raises(grpc.RpcError):
                broken(octets, timeout=10)
    sidecar.stop()

    assert all(isinstance(json.loads(line), dict) for line in sidecar.said().splitlines())
