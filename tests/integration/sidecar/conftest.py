"""Sidecars as a user starts them: processes of their own, on ports of their own, with a file of settings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import grpc
import jwt
import pytest
from servers import free_port, wait_for

from fraudsdk.adapters.grpc._generated import scoring_service_pb2_grpc
from fraudsdk.adapters.protobuf import message_of
from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

HASH_KEY = "a key for tests only"
SECRET = "a shared secret of thirty-two bytes, or more"


class Sidecar:
    """
    One process; `settings` as in the file, by dotted names.

    It listens on `port` of this machine; any client may call as often as it likes, where the settings do not say otherwise.
    """

    def __init__(self, directory: Path, model: Path, **settings) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.port, self.metrics_port = free_port(), free_port()
        self.target = f"127.0.0.1:{self.port}"
        self.settings = {
            "model": str(model),
            "listen": [self.target],
            "metrics.listen": f"127.0.0.1:{self.metrics_port}",
            "limits.anonymous_per_minute": 0,
            "drain.timeout_s": 10.0,
            "max_entities": 50_000,
            "journal_capacity": 50_000,
        } | {name.replace("__", "."): value for name, value in settings.items()}
        self.config = directory / "sidecar.toml"
        self._log = directory / "sidecar.log"
        self.process: subprocess.Popen | None = None

    def write(self, **settings) -> None:
        """The settings, with some of them changed, into the file."""
        self.settings |= {name.replace("__", "."): value for name, value in settings.items()}
        lines = [f"{name} = {json.dumps(value)}" for name, value in self.settings.items() if "." not in name]
        for section in sorted({name.partition(".")[0] for name in self.settings if "." in name}):
            lines.append(f"[{section}]")
            for name, value in self.settings.items():
                if name.startswith(f"{section}."):
                    lines.append(f"{name.partition('.')[2]} = {_toml(value)}")
        self.config.write_text("\n".join(lines), encoding="utf-8")

    def start(self, *, wait=True, environment=None) -> Sidecar:
        self.write()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fraudsdk_sidecar", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env={**os.environ, "FRAUDSDK_SIDECAR_HASH_KEY": HASH_KEY, **(environment or {})},
            )
        if wait:
            self.wait_for_event("ready", 60.0)
        return self

    def wait_for_event(self, action, timeout_s=20.0, times=1):
        """Wait until something was logged so often, and give the last of it."""

        def found():
            assert self.process.poll() is None or action == "stopped", self.said()
            events = [each for each in self.events() if each.get("event.action") == action]
            return events[times - 1 :] or None

        return wait_for(f"{action} of {self.said()}", found, timeout_s)[0]

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def events(self):
        """What was logged; a line that is no object fails."""
        return [json.loads(line) for line in self.said().splitlines(keepends=True) if line.endswith("\n")]

    def signal(self, number) -> None:
        self.process.send_signal(number)

    def reload(self, action="reloaded", **settings):
        """Change the settings, have them taken up, and wait until that is said."""
        before = sum(each.get("event.action") == action for each in self.events())
        self.write(**settings)
        self.signal(signal.SIGHUP)
        return self.wait_for_event(action, times=before + 1)

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def channel(self, *, credentials=None, target=None, **options):
        options = list({"grpc.enable_retries": 0, "grpc.use_local_subchannel_pool": 1, **options}.items())
        if credentials is None:
            return grpc.insecure_channel(target or self.target, options=options)
        return grpc.secure_channel(target or self.target, credentials, options=options)

    def metrics(self, path="/metrics"):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def resources(self):
        """Descriptors, and resident bytes."""
        proc = Path(f"/proc/{self.process.pid}")
        pages = int((proc / "statm").read_text().split()[1])
        return len(os.listdir(proc / "fd")), pages * os.sysconf("SC_PAGE_SIZE")


def _toml(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {each}" for name, each in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture(scope="session")
def model() -> Path:
    return Path(__file__).parents[3] / "compiled_models" / "reference"


@pytest.fixture
def new_sidecar(tmp_path, model):
    """Makes sidecars, and stops them at the end."""
    made = []

    def new(**settings):
        made.append(Sidecar(tmp_path / f"sidecar-{len(made)}", settings.pop("model", model), **settings))
        return made[-1]

    yield new
    for each in made:
        with contextlib.suppress(subprocess.TimeoutExpired):
            each.stop()


@pytest.fixture
def purchase():
    """The request of one transaction."""
    day_us, now_us = 86_400_000_000, time.time_ns() // 1000

    def request(number=0, **fields):
        sent = {
            "transaction_id": f"t-{number}",
            "user_id": f"u-{number % 50}",
            "card_id": f"c-{number % 50}",
            "merchant_id": "m-1",
            "amount": "12.50",
            "currency": "EUR",
            "event_time_us": now_us - day_us + 1_000 * number,
        }
        return pb.ScoreRequest(transaction=message_of(sent | fields))

    return request


@pytest.fixture
def stub_of():
    return scoring_service_pb2_grpc.ScoringServiceStub


@pytest.fixture
def token():
    """A token of a client, with claims changed or left out (None)."""

    def make(key=SECRET, algorithm="HS256", headers=None, **claims):
        now = int(time.time())
        said = {"sub": "till", "aud": "fraud", "iss": "bank", "iat": now, "exp": now + 600, "scope": "score"} | claims
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None},
            key,
            algorithm=algorithm,
            headers=headers,
        )

    return make


@pytest.fixture
def auth(tmp_path):
    """Settings that ask for tokens."""
    file = tmp_path / "secret"
    file.write_text(SECRET, encoding="utf-8")
    return {"auth__keys": [f"HS256={file}"], "auth__audience": "fraud", "auth__issuer": "bank"}


def bearer(token):
    return [("authorization", f"Bearer {token}")]


@pytest.fixture(scope="session")
def shorter(artefact, simulated, tmp_path_factory):
    """The first half of the trees of `artefact`, as its version 2."""
    import xgboost

    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.features.catalogue import reference_feature_set

    features, out = reference_feature_set("EUR"), tmp_path_factory.mktemp("shorter") / "model"
    booster = xgboost.Booster(model_file=str(artefact / "model.ubj"))
    compile_model(
        bytes(booster[: booster.num_boosted_rounds() // 2].save_raw("ubj")),
        out,
        name="small",
        version="2",
        created_at="2026-11-24T00:00:00Z",
        feature_names=features.names,
        schema_fingerprint=features.fingerprint,
        extra_files={
            "features.toml": features.to_toml().encode(),
            "vocabulary.json": json.dumps(simulated.vocabulary.to_dict()).encode(),
            "policy.toml": (artefact / "policy.toml").read_bytes(),
        },
    )
    return out
