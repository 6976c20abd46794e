"""
How a host reaches Redis: one URL and one timeout.

::

    redis://[USER:PASSWORD@]HOST[:PORT][/DB]                            one server
    unix://[USER:PASSWORD@]/PATH[?db=DB]                                one on this machine
    redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]             a cluster, by any of its nodes
    redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/SERVICE    the master that these sentinels name
        [?db=DB&sentinel_user=USER&sentinel_password=PASSWORD]

``rediss`` in place of ``redis`` is the same over TLS, with ``?ca_file=PATH&certificate_file=PATH&key_file=PATH``.

Nothing of a URL is ever put into a message but the names of options: a password with an unescaped ``@`` or ``/`` looks like
a host or a path.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Final
from urllib.parse import unquote

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.commands.core import Script
from redis.retry import Retry
from redis.sentinel import Sentinel
from redis.typing import ScriptTextT

from fraudsdk.errors import ConfigurationError, StateUnavailableError

Client = redis.Redis | redis.RedisCluster

_TIMEOUT_S_MAX: Final = 60.0
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_TLS_OPTIONS: Final = ("ca_file", "certificate_file", "key_file")
# A connection that is kept for the next call is dropped by firewalls that saw nothing on it for minutes.
_KEEPALIVE_S: Final = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

# Neither "@" nor "#" may be left over: then a password was not escaped, and parts of it would be taken for something else.
_URL: Final = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<login>[^@/?#]*)@)?(?P<hosts>[^@/?#]*)(?P<path>/[^@?#]*)?(?:\?(?P<options>[^@#]*))?"
)
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")

# Without the name of the client library: to say it takes a right and two more waits with each connection.
_UNNAMED: Final[dict[str, Any]] = (
    {"driver_info": None}
    if "driver_info" in signature(redis.Redis).parameters
    else {"lib_name": None, "lib_version": None}
)
# redis-py leaves these untyped.
_Sentinel: Any = Sentinel
_ClusterNode: Any = ClusterNode


@dataclass(frozen=True)
class _Form:
    """One kind of URL."""

    shape: str
    options: tuple[str, ...] = ()


_FORMS: Final = {
    "redis": _Form("redis://[USER:PASSWORD@]HOST[:PORT][/DB]"),
    "unix": _Form("unix://[USER:PASSWORD@]/PATH[?db=DB]", ("db",)),
    "redis+cluster": _Form("redis+cluster://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]"),
    "redis+sentinel": _Form(
        "redis+sentinel://[USER:PASSWORD@]HOST[:PORT],HOST[:PORT]/SERVICE",
        ("db", "sentinel_user", "sentinel_password"),
    ),
}


@dataclass(frozen=True)
class _Address:
    """A URL, understood."""

    form: str
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    path: str
    login: Mapping[str, str] = field(repr=False)
    options: Mapping[str, str] = field(repr=False)

    @property
    def database(self) -> int:
        """The number of the database; 0 where none is named."""
        named = self.path if self.form == "redis" else self.options.get("db", "")
        if not re.fullmatch(r"[0-9]{0,9}", named):
            raise ConfigurationError(f"the database in the Redis URL is no number; write it as {self.shape}")
        return int(named or 0)

    @property
    def shape(self) -> str:
        """How such a URL is written."""
        return _FORMS[self.form].shape.replace("redis", "rediss", 1 if self.tls else 0)


def connect(url: str, *, timeout_s: float = 0.5) -> Client:
    """
    Make the client that a `RedisStore` needs.

    It answers with bytes, waits `timeout_s` for a connection and as long for an answer, and repeats nothing by itself: the
    protocol of a writer repeats the same call, and must be told that there was no answer.  A call that has to connect, log
    in or ask another sentinel or node first waits for each of these in turn.

    Only a cluster is asked anything here, for its nodes; the others are reached with the first call.

    Parameters
    ----------
    url : str
        As this module's docstring and docs/redis.md say.  Special characters of names, passwords and paths are
        percent-encoded.
    timeout_s : float
        Over 0 and at most 60.

    Returns
    -------
    redis.Redis or redis.RedisCluster
        Close it when its last store is done with.

    Raises
    ------
    ConfigurationError
        The URL, a file that it names or the timeout will not do.  No part of the URL is in the message.
    StateUnavailableError
        No node of a cluster answers: connect again.

    Examples
    --------
    >>> client = connect("redis://fraud:secret@localhost:6379/0")
    >>> "secret" in repr(client)
    False
    """
    if not isinstance(timeout_s, int | float) or not 0 < timeout_s <= _TIMEOUT_S_MAX:
        raise ConfigurationError(f"timeout_s must be over 0 and at most {_TIMEOUT_S_MAX:g}, was {timeout_s!r}")
    address = _parse(url)
    options = _waits(timeout_s) | dict(address.login)
    if address.form == "unix":
        return _on_this_machine(address, options)
    options |= _tcp() | _tls(address)
    if address.form == "redis+cluster":
        return _cluster(address, options)
    options |= {"retry": _once(), "db": address.database}
    if address.form == "redis+sentinel":
        return _by_sentinel(address, options)
    ((host, port),) = address.hosts
    return redis.Redis(host, port, **options)


def retries_of(client: Client) -> int:
    """How often a client tries a call again by itself."""
    retry = client.retry if isinstance(client, redis.RedisCluster) else client.get_retry()
    return 0 if retry is None else retry.get_retries()


def _parse(url: str) -> _Address:
    if not isinstance(url, str):
        raise ConfigurationError(f"the Redis URL is no text, it is of type {type(url).__name__}; give it as str")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ConfigurationError("the Redis URL has a blank or a control character in it; write it as %20 or remove it")
    parts = _URL.fullmatch(url)
    scheme = parts["scheme"] if parts else ""
    form = scheme.replace("rediss", "redis", 1)
    if parts is None or form not in _FORMS:
        shapes = ", ".join(each.shape for each in _FORMS.values())
        raise ConfigurationError(
            f"the Redis URL is none that can be read; write one of {shapes}, each redis or rediss (TLS), with / ? # @ : % of "
            "names and passwords percent-encoded"
        )
    address = _Address(
        form,
        scheme.startswith("rediss"),
        _hosts(parts["hosts"], _SENTINEL_PORT if form == "redis+sentinel" else _PORT),
        _decoded((parts["path"] or "").removeprefix("" if form == "unix" else "/")),
        _login(parts["login"]),
        _options(parts["options"]),
    )
    _check(address)
    return address


def _check(address: _Address) -> None:
    """Refuse what the form of the URL has no use for, and what it lacks."""
    allowed = _FORMS[address.form].options + (_TLS_OPTIONS if address.tls else ())
    for name in address.options.keys() - set(allowed):
        raise ConfigurationError(
            f"the Redis URL has an option {name}, which {address.shape} does not take; it takes {', '.join(allowed) or 'none'}"
        )
    wanted = {"redis": len(address.hosts) == 1, "unix": not address.hosts}
    if not wanted.get(address.form, bool(address.hosts)):
        raise ConfigurationError(f"the Redis URL names too few or too many hosts; write it as {address.shape}")
    if address.form == "unix" and not address.path.strip("/"):
        raise ConfigurationError(f"the Redis URL names no path; write it as {address.shape}")
    if address.form == "redis+sentinel" and not re.fullmatch("[^/]+", address.path):
        raise ConfigurationError(f"the Redis URL names no service, or more; write it as {address.shape} with ?db=DB")
    if address.form == "redis+cluster" and address.path:
        raise ConfigurationError("the Redis URL names a database, and a cluster has one alone; leave it out")


def _hosts(text: str, default_port: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for each in text.split(",") if text else ():
        parts = _HOST.fullmatch(each)
        if parts is None or not 0 < int(parts["port"] or default_port) < 1 << 16:
            raise ConfigurationError(
                "a host of the Redis URL is not HOST or HOST:PORT with a port from 1 to 65535; write it so, an IPv6 address in []"
            )
        hosts.append((_decoded(parts["v6"] or parts["name"]), int(parts["port"] or default_port)))
    return tuple(hosts)


def _login(text: str | None) -> dict[str, str]:
    user, _, password = (text or "").partition(":")
    named = {"username": _decoded(user), "password": _decoded(password)}
    return {name: value for name, value in named.items() if value}


def _options(text: str | None) -> dict[str, str]:
    options: dict[str, str] = {}
    for each in text.split("&") if text else ():
        name, _, value = each.partition("=")
        if not re.fullmatch("[a-z_]{1,20}", name) or not value or name in options:
            raise ConfigurationError("an option of the Redis URL is not NAME=VALUE, or is there twice; write each once")
        options[name] = _decoded(value)
    return options


def _decoded(text: str) -> str:
    if not re.search("%(?![0-9A-Fa-f]{2})", text):
        try:
            return unquote(text, errors="strict")
        except UnicodeDecodeError:
            pass
    raise ConfigurationError("the Redis URL has a % that is no UTF-8 in percent-encoding; write a % itself as %25")


def _once() -> Retry:
    return Retry(NoBackoff(), 0)


def _waits(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        # With RESP 3 the client asks the server for notices of maintenance, and during that waits longer than it was told.
        "protocol": 2,
    } | _UNNAMED


def _tcp() -> dict[str, Any]:
    known = {getattr(socket, name): value for name, value in _KEEPALIVE_S.items() if hasattr(socket, name)}
    return {"socket_keepalive": True, "socket_keepalive_options": known}


def _tls(address: _Address) -> dict[str, Any]:
    if not address.tls:
        return {}
    ca, certificate, key = (address.options.get(name) for name in _TLS_OPTIONS)
    _try_files(ca, certificate, key)
    return {
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        # A cluster's client drops this; Python's own default is the same.
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        "ssl_ca_certs": ca,
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
    }


def _try_files(ca: str | None, certificate: str | None, key: str | None) -> None:
    """Read the files once: with the first call it would be too late to tell the operator."""
    if (certificate is None) != (key is None):
        raise ConfigurationError(
            "the Redis URL names certificate_file or key_file without the other; name both or none"
        )
    context = ssl.create_default_context()
    what = "ca_file"
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        what = "certificate_file or key_file"
        if certificate is not None:
            # The empty password: for a key that has one OpenSSL would ask on the terminal, and wait.
            context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(
            f"{what} of the Redis URL cannot be used ({reason}); name PEM files that this process may read, the key without "
            "a password"
        ) from error


def _on_this_machine(address: _Address, options: dict[str, Any]) -> redis.Redis:
    # `Redis` itself would wait 5 s for a socket whose server does not take connections.
    pool = redis.ConnectionPool(
        connection_class=redis.UnixDomainSocketConnection,
        path=address.path,
        db=address.database,
        retry=_once(),
        **options,
    )
    return redis.Redis.from_pool(pool)


def _by_sentinel(address: _Address, options: dict[str, Any]) -> redis.Redis:
    login = {"username": address.options.get("sentinel_user"), "password": address.options.get("sentinel_password")}
    sentinel: Any = _Sentinel(address.hosts, sentinel_kwargs=options | login | {"db": 0})
    client: redis.Redis = sentinel.master_for(address.path, **options)
    return client


def _cluster(address: _Address, options: dict[str, Any]) -> redis.RedisCluster:
    nodes = [_ClusterNode(host, port) for host, port in address.hosts]
    try:
        return _Cluster(nodes, options)
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        # redis-py says of whatever happened that no node can be reached, or that one is in no cluster.
        reason = _first(error)
        raise StateUnavailableError(
            f"no node of the Redis cluster answers as it should ({type(reason).__name__}: {reason}); connect again"
        ) from error


def _first(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


class _Cluster(redis.RedisCluster):
    """A cluster's client whose every error is a `RedisError`, and that needs no node but the one asked."""

    def __init__(self, nodes: list[ClusterNode], options: Mapping[str, Any]) -> None:
        # A random node is asked for its commands, and asked again where that one is down: so often that one of those that
        # are up is among them.  Each answer of redis-py that none is up ends it at once.
        super().__init__(
            startup_nodes=nodes,
            retry=Retry(NoBackoff(), 20),
            # Writers whose node is up go on while another's is down.
            require_full_coverage=False,
            **options,
        )
        self.set_retry(_once())

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """As `redis.RedisCluster`, but where no node is up, or none has the slot, that is a `ClusterError`."""
        try:
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]
        except redis.exceptions.RedisClusterException as error:
            raise redis.exceptions.ClusterError(str(error)) from error

    def register_script(self, script: ScriptTextT) -> Script:
        """As `redis.RedisCluster`, but a node that does not know the script gets it with the call."""
        return _ScriptOfNode(self, script)


class _ScriptOfNode(Script):
    """`Script` would load itself on every node, and fail where one of the others is down."""

    def __call__(self, keys: Sequence[Any] | None = None, args: Any = None, client: Any = None) -> Any:
        client = client or self.registered_client
        named = list(keys or ())
        given = [*named, *(args or ())]
        try:
            return client.evalsha(self.sha, len(named), *given)
        except redis.exceptions.NoScriptError:
            return client.eval(self.script, len(named), *given)
