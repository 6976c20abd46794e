"""The two services as an operator starts them: a process each, told by flags, on ports of this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from servers import free_port, wait_for

MODEL = Path(__file__).parents[3] / "compiled_models" / "reference"
HASH_KEY = b"a key of thirty-two bytes, or so"
_UP_S = 90.0


class ServiceProcess:
    """One process, its log, and its figures at `metrics_port`."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.directory = directory
        self.metrics_port = free_port()
        self.process: subprocess.Popen | None = None
        self._command = command
        self._log = directory / "service.log"
        directory.mkdir(parents=True, exist_ok=True)
        self.hash_key_file = directory / "hash-key"
        self.hash_key_file.write_bytes(HASH_KEY)

    def start(self, *flags: object) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen([*self._command, *map(str, flags)], stdout=log, stderr=log)
        wait_for(f"{self.directory.name} to be ready", self._is_ready, _UP_S)

    def stop(self) -> int:
        """As an operator does; the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.said().splitlines()]

    def figures(self) -> dict[str, float]:
        """What is told to Prometheus, by name and labels as they are written."""
        lines = self._get("/metrics").splitlines()
        return {name: float(value) for name, _, value in (each.rpartition(" ") for each in lines if each[0] != "#")}

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.said()[-3_000:]
        try:
            return self._get("/readyz") == "ready\n"
        except OSError:  # it does not listen yet, or is not ready
            return False

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=10) as answer:
            return answer.read().decode()


class SidecarProcess(ServiceProcess):
    """
    ``fraudsdk sidecar``; whoever calls may call as often as he likes.

    Parameters
    ----------
    directory : Path
    command : list of str
        What runs it, where it is not the module itself.
    """

    def __init__(self, directory: Path, command: list[str] | None = None) -> None:
        super().__init__(directory, command or [sys.executable, "-m", "fraudsdk_sidecar"])
        self.target = f"127.0.0.1:{free_port()}"

    def start(self, *flags: object) -> None:
        super().start(
            *("--model", MODEL, "--hash-key-file", self.hash_key_file, "--listen", self.target),
            *("--metrics-listen", f"127.0.0.1:{self.metrics_port}", "--limits-anonymous-per-minute", 0),
            *flags,
        )


class StreamProcess(ServiceProcess):
    """``fraudsdk kafka`` with its state in a folder of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, [sys.executable, "-m", "fraudsdk.cli", "kafka"])

    def start(self, bootstrap: str, *flags: object) -> None:
        super().start(
            *("--brokers", bootstrap, "--model", MODEL, "--hash-key-file", self.hash_key_file),
            *("--state-dir", self.directory / "state", "--metrics", f"127.0.0.1:{self.metrics_port}"),
            *flags,
        )
