"""
Where the schema of a message is found: a schema registry over HTTP, or a folder.

Schemas are the operator's, and yet bounded; ids come with messages, so that asking for one that does not exist costs a request
only now and then.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from fraudsdk.errors import ConfigurationError, PoisonMessageError, SchemaUnavailableError

MAX_SCHEMA_BYTES: Final = 1 << 20
MAX_SCHEMAS: Final = 1_000
_UNKNOWN_FOR_S: Final = 60.0
_NOT_FOUND: Final = 404


class SchemaSource(Protocol):
    """Finds schemas by their ids."""

    def schema(self, schema_id: int) -> str:
        """
        The text of a schema.

        Raises
        ------
        PoisonMessageError
            There is none of that id.
        SchemaUnavailableError
            It cannot be had now.
        """


class FolderOfSchemas:
    """
    Schemas of a folder, read once: ``7.avsc`` has the id 7.

    Raises
    ------
    ConfigurationError
        No such folder, nothing in it, or a file that is no schema.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*.avsc")) if folder.is_dir() else []
        if not files or len(files) > MAX_SCHEMAS:
            raise ConfigurationError(
                f"folder {folder} holds {len(files)} schemas; put 1 to {MAX_SCHEMAS:,} files such as 7.avsc there"
            )
        self._schemas = {_id_of(each): _text_of(each) for each in files}

    def schema(self, schema_id: int) -> str:
        """See `SchemaSource.schema`."""
        text = self._schemas.get(schema_id)
        if text is None:
            raise _unknown(schema_id)
        return text


@dataclass(frozen=True)
class RegistryOptions:
    """
    How a schema registry is reached.

    Attributes
    ----------
    url : str
        ``http`` or ``https``; a password needs ``https``, but on this machine.
    user, password : str
        Both or none.
    ca_file : str or None
        PEM of the authorities to trust; None: the system's.
    timeout_s : float
        Over 0 and at most 60.

    Raises
    ------
    ConfigurationError
        One of these will not do.  Never shows the password.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str | None = None
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigurationError(
                "the URL of the schema registry must be http(s)://HOST[:PORT][/PATH], without a login"
            )
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("the schema registry needs a user and a password, or neither; give both")
        if self.user and parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ConfigurationError(
                "a password would cross the network in the clear; use https for the schema registry"
            )
        if not 0 < self.timeout_s <= 60:
            raise ConfigurationError(f"timeout_s must be over 0 and at most 60, was {self.timeout_s!r}")


class RegistryOfSchemas:
    """
    Schemas of a registry with the REST interface of Confluent's, kept for good once they are known: ids never change meaning.

    Up to `MAX_SCHEMAS` are kept, and as many ids that do not exist, these for a minute; the oldest make room.
    """

    def __init__(self, options: RegistryOptions) -> None:
        self._options = options
        self._known: dict[int, str] = {}
        self._unknown_until_s: dict[int, float] = {}
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if options.url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=_tls(options.ca_file)))
        self._opener = urllib.request.build_opener(*handlers)

    def schema(self, schema_id: int) -> str:
        """See `SchemaSource.schema`."""
        text = self._known.get(schema_id)
        if text is not None:
            return text
        if time.monotonic() < self._unknown_until_s.get(schema_id, 0.0):
            raise _unknown(schema_id)
        text = self._fetch(schema_id)
        if text is None:
            _keep(self._unknown_until_s, schema_id, time.monotonic() + _UNKNOWN_FOR_S)
            raise _unknown(schema_id)
        _keep(self._known, schema_id, text)
        return text

    def _fetch(self, schema_id: int) -> str | None:
        request = urllib.request.Request(f"{self._options.url.rstrip('/')}/schemas/ids/{schema_id}")
        request.add_header("Accept", "application/vnd.schemaregistry.v1+json, application/json")
        if self._options.user:
            login = f"{self._options.user}:{self._options.password}".encode()
            request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
        try:
            with self._opener.open(request, timeout=self._options.timeout_s) as answer:
                body = _read(answer, time.monotonic() + self._options.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == _NOT_FOUND:
                    return None
            raise SchemaUnavailableError(
                f"the schema registry answered {error.code} for schema {schema_id}; check its address and login"
            ) from error
        except (OSError, ValueError) as error:  # no connection, no answer in time, or none in HTTP
            why = getattr(error, "reason", None) or error
            raise SchemaUnavailableError(
                f"the schema registry does not answer for schema {schema_id} ({type(why).__name__}); it is asked again"
            ) from error
        return _schema_in(body, schema_id)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A registry that sends us elsewhere would send our password there too."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _read(answer: Any, deadline: float) -> bytes:
    """At most a byte more than a schema may have, and no longer than until `deadline` however slowly they come."""
    body = b""
    while len(body) <= MAX_SCHEMA_BYTES and (some := answer.read1(1 << 16)):
        body += some
        if time.monotonic() > deadline:
            raise TimeoutError
    return body


def _schema_in(body: bytes, schema_id: int) -> str:
    try:
        text = json.loads(body)["schema"] if len(body) <= MAX_SCHEMA_BYTES else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SchemaUnavailableError(
            f"the schema registry answered for schema {schema_id} what is no schema; check its address"
        ) from error
    if not isinstance(text, str):
        raise SchemaUnavailableError(
            f"schema {schema_id} is no text of up to {MAX_SCHEMA_BYTES:,} bytes; check the schema registry"
        )
    return text


def _keep(cache: dict[int, Any], schema_id: int, value: Any) -> None:
    if len(cache) >= MAX_SCHEMAS and schema_id not in cache:
        del cache[next(iter(cache))]
    cache[schema_id] = value


def _unknown(schema_id: int) -> PoisonMessageError:
    return PoisonMessageError(
        "unknown_schema", f"names schema {schema_id}, which does not exist", "register the schema before sending"
    )


def _id_of(file: Path) -> int:
    if not (file.stem.isascii() and file.stem.isdigit() and int(file.stem) < 1 << 32):
        raise ConfigurationError(f"schema file {file} is not named after its id; call it 7.avsc, say")
    return int(file.stem)


def _text_of(file: Path) -> str:
    if file.stat().st_size > MAX_SCHEMA_BYTES:
        raise ConfigurationError(f"schema file {file} has more than {MAX_SCHEMA_BYTES:,} bytes; is it one schema?")
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"schema file {file} cannot be read: {error}; is it JSON in UTF-8?") from error


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            "ca_file of the schema registry cannot be used; name a PEM file that this process may read"
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
