"""Where schemas come from, and what is done when they do not come."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fraudsdk.adapters.kafka import schemas
from fraudsdk.adapters.kafka.schemas import FolderOfSchemas, RegistryOfSchemas, RegistryOptions
from fraudsdk.errors import ConfigurationError, PoisonMessageError, SchemaUnavailableError

TEXT = '{"type": "record"}'


class Registry(ThreadingHTTPServer):
    """A schema registry that knows one schema, and answers the rest as it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers: dict[str, tuple[int, bytes]] = {"/schemas/ids/7": (200, json.dumps({"schema": TEXT}).encode())}
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.logins: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.logins.append(self.headers["Authorization"])
        status, body = self.server.answers.get(self.path, (404, b'{"error_code": 40403}'))
        self.send_response(status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments): ...


@pytest.fixture
def registry():
    server = Registry()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_schema_is_fetched_once(registry):
    source = RegistryOfSchemas(RegistryOptions(registry.url))

    assert [TEXT, TEXT] == [source.schema(7), source.schema(7)]
    assert ["/schemas/ids/7"] == registry.asked


def test_a_registry_may_be_below_a_path_and_ask_for_a_login(registry):
    registry.answers = {"/registry/schemas/ids/7": registry.answers["/schemas/ids/7"]}
    source = RegistryOfSchemas(RegistryOptions(f"{registry.url}/registry/", user="fraud", password="secret"))

    assert TEXT == source.schema(7)
    assert [f"Basic {base64.b64encode(b'fraud:secret').decode()}"] == registry.logins


def test_an_unknown_schema_is_poison_and_is_not_asked_for_with_every_message(registry):
    source = RegistryOfSchemas(RegistryOptions(registry.url))

    for _ in range(3):
        with pytest.raises(PoisonMessageError, match="names schema 8") as caught:
            source.schema(8)

        assert "unknown_schema" == caught.value.reason
    assert ["/schemas/ids/8"] == registry.asked


def test_an_unknown_schema_is_asked_for_again_in_a_while(registry, monkeypatch):
    monkeypatch.setattr(schemas, "_UNKNOWN_FOR_S", 0.0)
    source = RegistryOfSchemas(RegistryOptions(registry.url))
    with pytest.raises(PoisonMessageError):
        source.schema(8)

    registry.answers["/schemas/ids/8"] = registry.answers["/schemas/ids/7"]

    assert TEXT == source.schema(8)


def test_ids_that_do_not_exist_do_not_fill_the_memory(registry, monkeypatch):
    monkeypatch.setattr(schemas, "MAX_SCHEMAS", 3)
    source = RegistryOfSchemas(RegistryOptions(registry.url))
    for schema_id in (100, 101, 102, 103, 103, 100):
        with pytest.raises(PoisonMessageError):
            source.schema(schema_id)

    # The oldest had made room, the youngest was kept.
    assert [100, 101, 102, 103, 100] == [int(path.rsplit("/", 1)[1]) for path in registry.asked]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (401, b'{"message": "secret"}'),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b"[]"),
        (200, b'{"schema": 7}'),
        (200, b'{"schema": "' + b"x" * (1 << 20) + b'"}'),
        (200, b"[" * 100_000),
    ],
)
def test_what_a_registry_says_that_is_no_schema_is_no_poison(registry, status, body):
    registry.answers["/schemas/ids/7"] = status, body
    source = RegistryOfSchemas(RegistryOptions(registry.url))

    with pytest.raises(SchemaUnavailableError) as caught:
        source.schema(7)

    assert "secret" not in str(caught.value)


def test_a_registry_that_sends_us_elsewhere_is_not_followed(registry):
    registry.answers["/schemas/ids/9"] = 302, b""
    registry.headers["Location"] = f"{registry.url}/schemas/ids/7"

    with pytest.raises(SchemaUnavailableError, match="answered 302"):
        RegistryOfSchemas(RegistryOptions(registry.url)).schema(9)

    assert ["/schemas/ids/9"] == registry.asked


def test_a_registry_that_is_down_is_asked_again(registry):
    source = RegistryOfSchemas(RegistryOptions(registry.url, timeout_s=1.0))
    registry.shutdown()
    registry.server_close()

    with pytest.raises(SchemaUnavailableError, match="does not answer"):
        source.schema(7)


def test_a_registry_that_answers_a_byte_at_a_time_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        options = RegistryOptions(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=0.3)

        with pytest.raises(SchemaUnavailableError, match="does not answer"):
            RegistryOfSchemas(options).schema(7)


def drip(listener: socket.socket) -> None:
    """Never silent for as long as the timeout, and never done."""
    connection, _ = listener.accept()
    with connection, contextlib.suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"url": "file:///etc/passwd"}, "must be http"),
        ({"url": "https://fraud:secret@registry"}, "must be http"),
        ({"url": "registry:8081"}, "must be http"),
        ({"url": "https://registry", "user": "fraud"}, "a user and a password"),
        ({"url": "http://registry", "user": "fraud", "password": "secret"}, "in the clear"),
        ({"url": "https://registry", "timeout_s": 0}, "timeout_s"),
    ],
)
def test_a_registry_that_will_not_do_is_refused(arguments, problem):
    with pytest.raises(ConfigurationError, match=problem) as caught:
        RegistryOptions(**arguments)

    assert "secret" not in str(caught.value)


def test_a_password_is_in_no_representation():
    assert "secret" not in repr(RegistryOptions("https://registry", user="fraud", password="secret"))


def test_a_folder_has_its_schemas_by_the_names_of_files(tmp_path):
    (tmp_path / "7.avsc").write_text(TEXT, encoding="utf-8")

    source = FolderOfSchemas(tmp_path)

    assert TEXT == source.schema(7)
    with pytest.raises(PoisonMessageError, match="names schema 8"):
        source.schema(8)


@pytest.mark.parametrize("name", ["seven.avsc", "-7.avsc", "4294967296.avsc", "٧.avsc", "7.json"])
def test_a_folder_with_another_file_or_none_is_refused(tmp_path, name):
    (tmp_path / name).write_text(TEXT, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=r"named after its id|holds 0 schemas"):
        FolderOfSchemas(tmp_path)


def test_a_folder_with_a_huge_file_is_refused(tmp_path):
    (tmp_path / "7.avsc").write_bytes(b" " * ((1 << 20) + 1))

    with pytest.raises(ConfigurationError, match="is it one schema"):
        FolderOfSchemas(tmp_path)
