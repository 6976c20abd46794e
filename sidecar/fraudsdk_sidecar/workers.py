"""
Several processes on one port (SO_REUSEPORT): started, told what this process is told, and started again when one dies.

Each is a new interpreter.  Nothing is forked that has threads or has opened anything.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fraudsdk.errors import ConfigurationError
from fraudsdk_sidecar.logs import event
from fraudsdk_sidecar.manager import notify
from fraudsdk_sidecar.settings import Settings
from fraudsdk_sidecar.signals import hold, next_of

USERS_MISTAKE: Final = 2
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
# One that served for so long and died is not taken for one that cannot start.
_SOUND_AFTER_S: Final = 60.0
_OVERTIME_S: Final = 15.0
_TICK_S: Final = 0.5


@dataclass
class _Worker:
    """One process, or the place of one that died."""

    index: int
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    again_at_s: float = 0.0
    is_ready: threading.Event = field(default_factory=threading.Event)


class Workers:
    """
    Keeps `settings.workers` processes running.

    Parameters
    ----------
    settings : Settings
    argv : sequence of str
        Flags that each of them is started with.
    """

    def __init__(self, settings: Settings, argv: Sequence[str]) -> None:
        self._settings = settings
        self._argv = tuple(argv)
        self._workers = [_Worker(index) for index in range(settings.workers)]
        self._was_ready = False

    def run(self) -> None:
        """
        Run them until told to stop.

        Raises
        ------
        ConfigurationError
            One of them found something wrong, and said what, before any of them was ready.
        """
        hold(_SIGNALS)
        try:
            for worker in self._workers:
                self._start(worker)
            while self._goes_on():
                self._revive()
                self._tell_ready()
        finally:
            self._stop()

    def _goes_on(self) -> bool:
        number = next_of(_SIGNALS, _TICK_S)
        if number == signal.SIGHUP:
            self._tell(signal.SIGHUP)
        return number in (None, signal.SIGHUP, signal.SIGCHLD)

    def _start(self, worker: _Worker) -> None:
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "fraudsdk_sidecar", *self._argv]
        command += ["--worker", str(worker.index), "--lifeline", str(writer)]
        # By its standard input it notices that this process is gone, however that went.
        worker.process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writer,))
        os.close(writer)
        worker.started_s = time.monotonic()
        worker.is_ready = threading.Event()
        waiting = threading.Thread(target=_await_ready, args=(reader, worker.is_ready), daemon=True)
        waiting.start()

    def _revive(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.process is None and now_s >= worker.again_at_s:
                self._start(worker)
            elif worker.process is not None and (code := worker.process.poll()) is not None:
                self._mourn(worker, code, now_s)

    def _mourn(self, worker: _Worker, code: int, now_s: float) -> None:
        if code == USERS_MISTAKE and not self._was_ready:
            raise ConfigurationError("a worker could not start; what it said stands above")
        if now_s - worker.started_s > _SOUND_AFTER_S:
            worker.pause_s = _FIRST_PAUSE_S
        event(logging.ERROR, "worker-died", f"worker {worker.index} ended with {code}; another in {worker.pause_s:g} s")
        worker.process, worker.again_at_s = None, now_s + worker.pause_s
        worker.pause_s = min(2 * worker.pause_s, _LONGEST_PAUSE_S)

    def _tell_ready(self) -> None:
        if not self._was_ready and all(worker.is_ready.is_set() for worker in self._workers):
            self._was_ready = True
            notify("READY=1")

    def _tell(self, number: int) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.process.poll() is None:
                worker.process.send_signal(number)

    def _stop(self) -> None:
        notify("STOPPING=1")
        self._tell(signal.SIGTERM)
        drain = self._settings.drain
        until_s = time.monotonic() + drain.announce_s + drain.timeout_s + _OVERTIME_S
        for worker in self._workers:
            if worker.process is None:
                continue
            try:
                worker.process.wait(max(until_s - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                event(logging.ERROR, "worker-killed", f"worker {worker.index} did not end in time")
                worker.process.kill()
                worker.process.wait()


def end_with_parent() -> None:
    """Have this worker told to stop when its standard input ends: whoever started it is gone."""

    def wait() -> None:
        while os.read(0, 64):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="fraudsdk-parent", daemon=True).start()


def _await_ready(reader: int, is_ready: threading.Event) -> None:
    with os.fdopen(reader, "rb") as pipe:
        if pipe.read(1):
            is_ready.set()
