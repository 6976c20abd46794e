"""
What the service is told: by a TOML file, by the environment, by flags; what comes later wins.

::

    file          [tls] client_ca = "ca.pem"
    environment   FRAUDSDK_SIDECAR_TLS_CLIENT_CA=ca.pem
    flag          --tls-client-ca ca.pem

Everything is checked before anything is started.  A service that other machines reach has TLS and asks who they are, or says
``insecure = true``.
"""

# What is called for the defaults here makes `dataclasses.field`s.
# ruff: noqa: RUF009

from __future__ import annotations

import argparse
import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fraudsdk.config import MAX_REMEMBERED, Durability, ScorerConfig
from fraudsdk.errors import ConfigurationError
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.keys import (
    ENVIRONMENT_PREFIX,
    Key,
    choice,
    flag,
    flag_of,
    masked_toml_of,
    path,
    rates,
    ratio,
    refused,
    seconds,
    text,
    texts,
    variable_of,
    whole,
)

SCOPES: Final = ("score", "explain", "feedback", "admin")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
_CONFIG_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}CONFIG"
_CONFIG_BYTES_MAX: Final = 1 << 20
_SECRET_BYTES_MAX: Final = 4096
_HASH_KEY_BYTES_MIN: Final = 16
# Kubernetes tells a pod of every service, and one called fraudsdk-sidecar would be told of in our own prefix.
_OF_KUBERNETES: Final = re.compile(r"(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT(_[0-9]+_(TCP|UDP).*)?)")


@dataclass(frozen=True)
class RedisSettings:
    """State that several processes share."""

    url: str = text("", "Redis that processes share their state in; see docs/redis.md", is_secret=True)
    group: str = text("s", "processes of one group share their state")
    reads_only: bool = flag(
        False, "read what others of the group remember, such as the consumers of a stream; write nothing"
    )


@dataclass(frozen=True)
class RecordSettings:
    """Where requests are recorded that others are to remember."""

    brokers: str = text(
        "", "Kafka brokers, HOST:PORT,HOST:PORT, that requests are sent to for their consumer to remember"
    )
    topic: str = text("transactions", "topic of those requests")
    user: str = text("", "SASL/SCRAM-SHA-512; needs tls")
    password: str = text("", "password of that user", is_secret=True)
    tls: bool = flag(False, "encrypt, and check the certificate of brokers")
    ca: Path | None = path("PEM authorities of brokers, in place of the system's")
    certificate: Path | None = path("PEM certificate of ours, where brokers ask for one")
    key: Path | None = path("PEM key of that certificate")
    queue: int = whole(100_000, 100, 1_000_000, "requests that wait for brokers; beyond it they are not recorded")


@dataclass(frozen=True)
class TlsSettings:
    """Certificates of the service and of its clients."""

    certificate: Path | None = path("PEM chain of the service", may_change=True)
    key: Path | None = path("PEM key of that certificate, without a password", may_change=True)
    client_ca: Path | None = path(
        "PEM authorities of clients, each of which must then show a certificate", may_change=True
    )
    poll_s: float = seconds(10.0, 0.0, 86_400.0, "how often to look whether these files changed; 0: at a reload alone")


@dataclass(frozen=True)
class AuthSettings:
    """Bearer tokens."""

    keys: tuple[str, ...] = texts(
        (), "keys that tokens are signed with: ALGORITHM=FILE or ALGORITHM/KEY_ID=FILE", may_change=True
    )
    audience: str = text("", "what a token must be meant for", may_change=True)
    issuer: str = text("", "who must have issued it", may_change=True)
    max_lifetime_s: float = seconds(
        3600.0, 1.0, 86_400.0, "longest time for which a token may be issued", may_change=True
    )
    leeway_s: float = seconds(30.0, 0.0, 300.0, "by how much clocks may differ", may_change=True)
    certificate_scopes: tuple[str, ...] = texts(
        ("score", "explain", "feedback"), "what a client may do by its certificate alone", may_change=True
    )
    health_without_token: bool = flag(True, "whether anybody may ask for health")


@dataclass(frozen=True)
class LimitSettings:
    """Bounds of what clients may ask for at a time."""

    message_bytes: int = whole(4 << 20, 1 << 10, 64 << 20, "longest message, either way")
    transactions_per_message: int = whole(10_000, 1, 1_000_000, "most transactions of one message")
    threads: int = whole(16, 1, 256, "calls that are worked on at a time")
    concurrent_rpcs: int = whole(64, 1, 100_000, "calls that are worked on or wait; beyond it they are refused")
    streams: int = whole(8, 1, 255, "open streams, each of which holds a thread; fewer than threads")
    streams_per_client: int = whole(4, 1, 255, "open streams of one client, so that it leaves some to others")
    concurrent_streams_per_connection: int = whole(100, 1, 10_000, "calls on one connection at a time")
    clients: int = whole(10_000, 1, 1_000_000, "clients whose rate is known; beyond it the least recent starts anew")
    anonymous_per_minute: int = whole(
        100, 0, 100_000_000, "messages a minute of an address that does not say who it is; 0: any", may_change=True
    )
    client_per_minute: int = whole(
        0, 0, 100_000_000, "messages a minute of a client that does; 0: any", may_change=True
    )
    per_minute_of: Mapping[str, int] = rates("messages a minute of single clients", may_change=True)
    ping_interval_s: float = seconds(10.0, 0.1, 3600.0, "clients that ping more often are sent away")
    keepalive_s: float = seconds(
        60.0, 1.0, 7200.0, "how long a connection is silent before it is asked whether it lives"
    )
    connection_age_s: float = seconds(
        0.0, 0.0, 86_400.0, "how long a connection lasts, so that clients spread anew; 0: for ever"
    )
    handshake_s: float = seconds(10.0, 0.5, 120.0, "how long a connection may take to begin")


@dataclass(frozen=True)
class DrainSettings:
    """How the service stops."""

    announce_s: float = seconds(0.2, 0.0, 60.0, "how long it says that it stops before it takes no more calls")
    timeout_s: float = seconds(30.0, 0.0, 600.0, "how long calls under way may take to finish")


@dataclass(frozen=True)
class HealthSettings:
    """A port for probes alone."""

    listen: str = text("", "serve health, and nothing else, here as well: without TLS, for probes that have none")


@dataclass(frozen=True)
class MetricsSettings:
    """Figures for Prometheus."""

    listen: str = text("127.0.0.1:9464", "serve /metrics, /healthz and /readyz here; empty: nowhere")


@dataclass(frozen=True)
class LogSettings:
    """JSON lines on standard error."""

    level: str = choice("info", LOG_LEVELS, "what is logged", may_change=True)


@dataclass(frozen=True)
class TracingSettings:
    """OpenTelemetry."""

    endpoint: str = text("", "OTLP collector, such as http://127.0.0.1:4317; empty: no traces")
    sample_ratio: float = ratio(0.01, "share of calls that begin a trace where the caller began none")


@dataclass(frozen=True)
class Settings:
    """
    All of it.  Made by `load`, which checks it; see `describe` for how it is shown.

    Attributes
    ----------
    hash_key : str
        The secret itself; `scorer_config` reads `hash_key_file` instead where that is named.
    """

    model: Path | None = path("artefact directory of the model", may_change=True)
    policy: Path | None = path("policy file in place of the model's own")
    state_dir: Path | None = path("keep state here, by this process alone")
    durability: str = choice("interval", tuple(each.value for each in Durability), "what an answer promises")
    max_entities: int = whole(1_000_000, 1, MAX_REMEMBERED, "entities that are remembered")
    journal_capacity: int = whole(1_000_000, 1, MAX_REMEMBERED, "transactions that labels can still refer to")
    hash_key: str = text("", "secret for entity keys and card tokens, 16 bytes or more", is_secret=True)
    hash_key_file: Path | None = path("file with that secret")
    listen: tuple[str, ...] = texts(("127.0.0.1:50051",), "where to serve: HOST:PORT or unix:/PATH")
    workers: int = whole(1, 1, 64, "processes that share the port")
    reuse_port: bool = flag(False, "let another process, such as the next version, listen on the same port")
    insecure: bool = flag(False, "serve other machines without TLS or without asking who they are")
    reflection: bool = flag(True, "tell clients which methods there are")
    redis: RedisSettings = dataclasses.field(default_factory=RedisSettings)
    record_to: RecordSettings = dataclasses.field(default_factory=RecordSettings)
    tls: TlsSettings = dataclasses.field(default_factory=TlsSettings)
    auth: AuthSettings = dataclasses.field(default_factory=AuthSettings)
    limits: LimitSettings = dataclasses.field(default_factory=LimitSettings)
    drain: DrainSettings = dataclasses.field(default_factory=DrainSettings)
    health: HealthSettings = dataclasses.field(default_factory=HealthSettings)
    metrics: MetricsSettings = dataclasses.field(default_factory=MetricsSettings)
    log: LogSettings = dataclasses.field(default_factory=LogSettings)
    tracing: TracingSettings = dataclasses.field(default_factory=TracingSettings)

    @cached_property
    def addresses(self) -> tuple[Address, ...]:
        """Where to serve."""
        return tuple(_address("listen", each) for each in self.listen)

    @property
    def has_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls.certificate is not None

    @property
    def asks_who(self) -> bool:
        """Whether clients must say who they are, by a token or a certificate."""
        return bool(self.auth.keys) or self.tls.client_ca is not None

    def scorer_config(self) -> ScorerConfig:
        """
        What the scorer is opened with.

        Raises
        ------
        ConfigurationError
            The file of the key cannot be read, or holds too little.
        """
        return ScorerConfig(
            model=self.model,
            policy=self.policy,
            hash_key=self._secret(),
            state_dir=self.state_dir,
            durability=self.durability,
            max_entities=self.max_entities,
            journal_capacity=self.journal_capacity,
        )

    def _secret(self) -> bytes | None:
        if self.hash_key_file is None:
            return self.hash_key.encode() or None
        key = read_secret("hash_key_file", self.hash_key_file)
        if len(key) < _HASH_KEY_BYTES_MIN:
            raise ConfigurationError(
                f"hash_key_file {self.hash_key_file} holds {len(key)} bytes, at least {_HASH_KEY_BYTES_MIN} are needed; "
                "draw a longer key"
            )
        return key


def _declared(kind: type, prefix: str = "") -> Iterator[tuple[str, Key]]:
    for each in dataclasses.fields(kind):
        if "key" in each.metadata:
            yield prefix + each.name, each.metadata["key"]
        else:
            yield from _declared(each.default_factory, f"{each.name}.")  # type: ignore[arg-type]


KEYS: Final[Mapping[str, Key]] = MappingProxyType(dict(_declared(Settings)))
"""Every key by its dotted name, in the order of the file."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--config``, ``--print-config`` and a flag for every key that is no secret."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="TOML file with any of the keys below")
    parser.add_argument("--print-config", action="store_true", help="print what would be used, and stop")
    defaults = Settings()
    for name, key in KEYS.items():
        if key.is_secret:
            continue
        default = masked_toml_of(key, value_of(defaults, name)).replace("%", "%%")
        # A truth needs no word: --insecure says it.
        value: dict[str, Any] = {"metavar": key.metavar}
        if not key.metavar:
            value = {"metavar": "TRUE|FALSE", "nargs": "?", "const": "true"}
        parser.add_argument(flag_of(name), dest=name, help=f"{key.help} (default: {default})", **value)


def load(args: argparse.Namespace, environment: Mapping[str, str]) -> Settings:
    """
    Put together and check what file, environment and flags say.

    Raises
    ------
    ConfigurationError
        Names the key, where it came from, what it was and what to do.
    """
    config = args.config or (Path(environment[_CONFIG_VARIABLE]) if environment.get(_CONFIG_VARIABLE) else None)
    said = {} if config is None else _of_file(config)
    said |= _of_environment(environment)
    said |= {
        name: (f"flag {flag_of(name)}", getattr(args, name)) for name in KEYS if getattr(args, name, None) is not None
    }
    values = {name: _read(name, origin, value) for name, (origin, value) in said.items()}
    settings: Settings = _assembled(Settings, values)
    check(settings)
    return settings


def value_of(settings: Settings, name: str) -> Any:
    """The value of a key by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def describe(settings: Settings) -> str:
    """The settings as a file that would say the same, but for secrets."""
    lines, section = [], ""
    for name, key in KEYS.items():
        head, _, last = name.rpartition(".")
        if head != section:
            lines += ["", f"[{head}]"]
            section = head
        lines.append(f"{last} = {masked_toml_of(key, value_of(settings, name))}")
    return "\n".join(lines)


def changed(before: Settings, after: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of keys that differ: those that may change while the service runs, and those that may not."""
    differing = [name for name in KEYS if value_of(before, name) != value_of(after, name)]
    return (
        tuple(name for name in differing if KEYS[name].may_change),
        tuple(name for name in differing if not KEYS[name].may_change),
    )


def read_secret(name: str, file: Path) -> bytes:
    """
    What a file holds, less line breaks at its end.  Shows none of it.

    Raises
    ------
    ConfigurationError
        It cannot be read.
    """
    try:
        with file.open("rb") as opened:
            return opened.read(_SECRET_BYTES_MAX).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(f"{name} {file} cannot be read: {error.strerror}; check the path") from error


def check(settings: Settings) -> None:
    """
    Refuse what does not fit together.

    Raises
    ------
    ConfigurationError
        Names the keys.
    """
    if settings.model is None:
        raise ConfigurationError("model is not set; name the model's folder with --model DIR")
    _check_state(settings)
    _check_tls(settings)
    _check_auth(settings)
    _check_addresses(settings)
    if settings.limits.streams >= settings.limits.threads:
        raise ConfigurationError(
            f"limits.streams must be below limits.threads ({settings.limits.threads}), was {settings.limits.streams}: each "
            "stream holds a thread; lower it"
        )


def _check_state(settings: Settings) -> None:
    if settings.hash_key and settings.hash_key_file:
        raise ConfigurationError("hash_key and hash_key_file are both set; leave one of them out")
    has_key = bool(settings.hash_key or settings.hash_key_file)
    if settings.hash_key and len(settings.hash_key.encode()) < _HASH_KEY_BYTES_MIN:
        raise ConfigurationError(f"hash_key must have at least {_HASH_KEY_BYTES_MIN} bytes; draw a longer one")
    if settings.state_dir and settings.redis.url:
        raise ConfigurationError("state_dir and redis.url are both set; state is either kept or shared: leave one out")
    if (settings.state_dir or settings.redis.url) and not has_key:
        raise ConfigurationError(
            "state that is kept or shared needs hash_key or hash_key_file; set one, always the same"
        )
    if settings.redis.reads_only and not settings.redis.url:
        raise ConfigurationError("redis.reads_only is set without redis.url; say where to read")
    if settings.record_to.brokers and not settings.redis.reads_only:
        raise ConfigurationError(
            "record_to.brokers is set without redis.reads_only: what is remembered here and by a consumer as well counts twice; "
            "set redis.reads_only, or leave record_to out"
        )
    if settings.workers > 1 and not settings.redis.url:
        raise ConfigurationError(
            f"workers is {settings.workers}, each of which would remember something else; set redis.url, which they share, "
            "or workers = 1"
        )


def _check_tls(settings: Settings) -> None:
    tls = settings.tls
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigurationError("tls.certificate and tls.key belong together; set both or none")
    if tls.client_ca is not None and tls.certificate is None:
        raise ConfigurationError("tls.client_ca is set without tls.certificate and tls.key; set them too")


def _check_auth(settings: Settings) -> None:
    auth = settings.auth
    if auth.keys and not (auth.audience and auth.issuer):
        raise ConfigurationError("auth.keys need auth.audience and auth.issuer; say what tokens are for, and whose")
    strangers = [each for each in auth.certificate_scopes if each not in SCOPES]
    if strangers:
        raise ConfigurationError(
            f"auth.certificate_scopes must be among {', '.join(SCOPES)}, was {', '.join(strangers)}; correct it"
        )


def _check_addresses(settings: Settings) -> None:
    if not settings.listen:
        raise ConfigurationError("listen is empty; name at least one address such as 127.0.0.1:50051")
    for each in settings.addresses:
        if not (each.is_private or settings.insecure or (settings.has_tls and settings.asks_who)):
            raise ConfigurationError(
                f"listen names {each}, which other machines reach, without TLS and authentication; set tls.certificate and "
                "tls.key, and auth.keys or tls.client_ca, or write insecure = true"
            )
        if settings.workers > 1 and (each.path or each.port == 0):
            raise ConfigurationError(
                f"listen names {each}, which {settings.workers} workers cannot share; name HOST:PORT"
            )
    for name, listen in (("health.listen", settings.health.listen), ("metrics.listen", settings.metrics.listen)):
        if listen and _address(name, listen).path:
            raise ConfigurationError(f"{name} must be HOST:PORT, was {listen}; correct it")


def _address(name: str, said: str) -> Address:
    try:
        return Address.parse(said)
    except ValueError as error:
        raise ConfigurationError(f"{name} must be {error}, was {said!r}; correct it") from None


def _of_file(file: Path) -> dict[str, tuple[str, object]]:
    try:
        with file.open("rb") as opened:
            octets = opened.read(_CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(f"--config {file} cannot be read: {error.strerror}; check the path") from error
    if len(octets) > _CONFIG_BYTES_MAX:
        raise ConfigurationError(f"--config {file} is longer than {_CONFIG_BYTES_MAX} bytes; name another file")
    try:
        document = tomllib.loads(octets.decode())
    except (ValueError, RecursionError) as error:  # the message of either may quote a secret
        where = re.search(r"\(at .*\)$", str(error))
        raise ConfigurationError(f"--config {file} is no TOML {where[0] if where else ''}; correct it") from None
    return {name: (f"file {file}", value) for name, value in _flattened(document, f"--config {file}").items()}


def _flattened(document: Mapping[str, Any], where: str) -> dict[str, object]:
    flat: dict[str, object] = {}
    sections = {name.partition(".")[0] for name in KEYS if "." in name}
    for name, value in document.items():
        if name in sections and isinstance(value, dict):
            flat |= {f"{name}.{each}": inner for each, inner in value.items()}
        else:
            flat[name] = value
    for name in flat:
        _require_known(name, name, KEYS, where)
    return flat


def _of_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, object]]:
    variables = {variable_of(name): name for name in KEYS}
    said: dict[str, tuple[str, object]] = {}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == _CONFIG_VARIABLE:
            continue
        if variable not in variables and _OF_KUBERNETES.fullmatch(variable.removeprefix(ENVIRONMENT_PREFIX)):
            continue
        _require_known(variable, variable, variables, "the environment")
        said[variables[variable]] = (f"environment {variable}", value)
    return said


def _require_known(name: str, shown: str, known: Mapping[str, Any], where: str) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "remove it"
    raise ConfigurationError(f"{where} has {shown[:80]!r}, which nothing reads; {hint}")


def _read(name: str, origin: str, value: object) -> Any:
    key = KEYS[name]
    try:
        return key.read(value)
    except ValueError as error:
        raise refused(name, origin, value, key, str(error)) from None


def _assembled(kind: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    given: dict[str, Any] = {}
    for each in dataclasses.fields(kind):
        if "key" not in each.metadata:
            given[each.name] = _assembled(each.default_factory, values, f"{each.name}.")
        elif prefix + each.name in values:
            given[each.name] = values[prefix + each.name]
    return kind(**given)
