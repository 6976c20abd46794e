"""Redis servers of our own, on free ports, killed and started again as a test likes."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

BINARY = shutil.which("redis-server")


def require_redis() -> None:
    """Skip on a laptop without Redis; fail in CI."""
    if BINARY is None:
        assert os.environ.get("CI") != "true", "redis-server is not installed"
        pytest.skip("redis-server is not installed: apt-get install redis-server", allow_module_level=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """One server with a directory of its own; `options` as on its command line."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self) -> RedisServer:
        command = [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                client = self.client()
                client.ping()
                client.close()
                return self
            except Exception:
                assert self.process.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)

    def client(self, **options):
        import redis

        return redis.Redis(port=self.port, **{"socket_timeout": 2.0, "retry": None} | options)

    def kill(self) -> None:
        """As a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=20)


IN_MEMORY = ("--save", "", "--appendonly", "no")
EVERY_WRITE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
SNAPSHOTS = ("--save", "1", "1", "--appendonly", "no")
