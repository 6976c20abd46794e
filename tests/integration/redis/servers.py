"""Redis servers of our own, on free ports, killed and started again as a test likes."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server")


def require_redis() -> None:
    """Skip on a laptop without Redis; fail in CI."""
    if BINARY is None:
        assert os.environ.get("CI") != "true", "redis-server is not installed"
        pytest.skip("redis-server is not installed: apt-get install redis-server", allow_module_level=True)


def free_port() -> int:
    """
    A port that nobody listens on.

    Below those that the system gives to outgoing connections: one of these may be taken between here and the start.
    """
    while True:
        port = random.SystemRandom().randrange(12_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """
    One server with a directory of its own; `options` as on its command line.

    It is always reached at `port` without TLS, by the tests themselves; with options of TLS also at `tls_port`.
    """

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.tls_port = free_port() if "--tls-cert-file" in options else None
        self.options = options + (() if self.tls_port is None else ("--tls-port", str(self.tls_port)))
        self.process: subprocess.Popen | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        return [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), *self.options]

    def start(self) -> RedisServer:
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while True:
            try:
                client = self.client()
                client.ping()
                client.close()
                return self
            except Exception:
                assert self.process.poll() is None, f"redis-server ended: {self._last_words()}"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)

    def _last_words(self) -> str:
        return (self.directory / "server.log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def client(self, **options):
        import redis

        return redis.Redis(port=self.port, **{"socket_timeout": 2.0, "retry": None} | options)

    def kill(self) -> None:
        """As a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.resume()  # one that is paused does not end
            self.process.terminate()
            self.process.wait(timeout=20)


def wait_for(what, is_so, timeout_s: float = 20.0):
    """Ask until the answer is true, and give it."""
    deadline = time.monotonic() + timeout_s
    while not (answer := is_so()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.02)
    return answer


class Cluster:
    """Nodes without replicas, the slots shared out between them; what one node has stays up when another is down."""

    N_SLOTS = 16_384

    def __init__(self, directory: Path, n_nodes: int = 3, *options: str) -> None:
        self.nodes = [
            RedisServer(directory / str(i), *CLUSTER_NODE, "--cluster-port", str(free_port()), *options)
            for i in range(n_nodes)
        ]

    def start(self) -> Cluster:
        for i, node in enumerate(self.nodes):
            node.start()
            first, after = (-(-self.N_SLOTS * nth // len(self.nodes)) for nth in (i, i + 1))
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", first, after - 1)
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", i + 1)
        with self.nodes[0].client() as client:
            for node in self.nodes[1:]:
                bus = node.options[node.options.index("--cluster-port") + 1]
                client.execute_command("CLUSTER MEET", "127.0.0.1", node.tls_port or node.port, bus)
        self.wait_until_agreed()
        return self

    def wait_until_agreed(self) -> None:
        wait_for("the nodes of a cluster to know each other", lambda: all(map(self._knows_all, self.nodes)))

    def _knows_all(self, node: RedisServer) -> bool:
        with node.client() as client:
            info = client.execute_command("CLUSTER INFO")
        return info["cluster_state"] == "ok" and int(info["cluster_slots_ok"]) == self.N_SLOTS

    def owner_of(self, key: str) -> RedisServer:
        """The node that a key is on."""
        from redis.crc import key_slot

        return self.nodes[key_slot(key.encode()) * len(self.nodes) // self.N_SLOTS]

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Sentinel(RedisServer):
    """Watches one master, and makes a replica of it the master when it is gone: it alone decides."""

    def __init__(
        self, directory: Path, service: str, master_port: int, *options: str, lines: Sequence[str] = ()
    ) -> None:
        super().__init__(directory, *options)
        self._configuration = directory / "sentinel.conf"  # which it rewrites
        watching = (
            f"sentinel monitor {service} 127.0.0.1 {master_port} 1",
            f"sentinel down-after-milliseconds {service} 300",
            f"sentinel failover-timeout {service} 3000",
            *lines,
        )
        self._configuration.write_text("\n".join(watching) + "\n", encoding="utf-8")

    def start(self) -> Sentinel:
        super().start()
        periods_ms = {"info-period": 300, "ping-period": 100, "ask-period": 100, "publish-period": 200}
        with self.client() as client:  # as long as a test has patience
            client.execute_command("SENTINEL", "DEBUG", *(str(each) for pair in periods_ms.items() for each in pair))
        return self

    def command(self) -> list[str]:
        program, *options = super().command()
        return [program, str(self._configuration), "--sentinel", *options]


class Link:
    """What passes from one end of a connection to the other, until it is held up."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._left: int | None = None
        self._sockets: list[socket.socket] = []

    def hold_after(self, n_bytes: int) -> None:
        """Let so many bytes more of the target's pass, and then none."""
        self._left = n_bytes

    def __enter__(self) -> Link:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [near, far]
                threading.Thread(target=self._pass, args=(near, far, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(far, near, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_counted: bool) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(1 << 16):
                if is_counted and self._left is not None:
                    octets = octets[: self._left]
                    self._left -= len(octets)
                target.sendall(octets)


IN_MEMORY = ("--save", "", "--appendonly", "no")
EVERY_WRITE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
SNAPSHOTS = ("--save", "1", "1", "--appendonly", "no")
CLUSTER_NODE = (
    *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "3000", "--cluster-require-full-coverage", "no"),
)
