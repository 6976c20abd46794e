"""
Who calls, and what they may do.

A client is known by a bearer token (JWT), by its certificate, or by a socket of this machine that it may open.  A key verifies
tokens of one algorithm and no other, so that a public key is never taken for a shared secret, whatever a token's header asks for.

Whoever is refused is told so in one sentence that is always the same.  Why, the log says, and never shows the token.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import unquote

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fraudsdk.errors import ConfigurationError
from fraudsdk_sidecar.settings import SCOPES, Settings, read_secret

ALGORITHMS: Final = ("HS256", "RS256", "ES256")
# Parsing costs in proportion; a token of ours has some 600 bytes.
TOKEN_BYTES_MAX: Final = 8192
_CLIENT_NAME_MAX: Final = 256
_SECRET_BYTES_MIN: Final = 32
_RSA_BITS_MIN: Final = 2048
# Verified tokens that are remembered until they expire; beyond it the least recent is verified again.
_VERIFIED_MAX: Final = 4096
# Whose address is remembered; beyond it, it is read again.
_CONNECTIONS_MAX: Final = 1024
_CLAIMS: Final = ("exp", "iat", "iss", "aud", "sub")
_OF_THIS_MACHINE: Final = "unix"


@dataclass(frozen=True, slots=True)
class Client:
    """
    Who calls.

    Attributes
    ----------
    name : str
        Subject of a token, name in a certificate, or address.
    scopes : frozenset of str
        What it may do.
    is_anonymous : bool
        Known by its address alone.
    """

    name: str
    scopes: frozenset[str]
    is_anonymous: bool = False


class Refused(Exception):
    """Somebody did not say who they are, or not so that it can be believed.  The message is for the log."""


@dataclass(frozen=True)
class SigningKey:
    """
    What verifies tokens.

    Attributes
    ----------
    algorithm : str
        The one algorithm of `ALGORITHMS` that it is for.
    key_id : str
        The ``kid`` of its tokens; empty for tokens that name none.
    material : bytes or public key
        A shared secret for HS256, a public key else.
    """

    algorithm: str
    key_id: str
    material: Any = field(repr=False)

    @classmethod
    def parse(cls, said: str) -> SigningKey:
        """
        Read a key as ``auth.keys`` names it: ``ALGORITHM=FILE`` or ``ALGORITHM/KEY_ID=FILE``.

        Raises
        ------
        ConfigurationError
            Another algorithm, a file that cannot be read, or a key that is not of that algorithm or too weak.
        """
        named, _, file = said.partition("=")
        algorithm, _, key_id = named.partition("/")
        if algorithm not in ALGORITHMS or not file:
            raise ConfigurationError(
                f"auth.keys must be ALGORITHM=FILE or ALGORITHM/KEY_ID=FILE with one of {', '.join(ALGORITHMS)}, was {said!r}; "
                "correct it"
            )
        octets = read_secret("auth.keys", Path(file))
        return cls(
            algorithm, key_id, _secret(file, octets) if algorithm == "HS256" else _public(algorithm, file, octets)
        )


class TokenVerifier:
    """
    Says whose a token is, or refuses it.

    Parameters
    ----------
    keys : sequence of SigningKey
    audience, issuer : str
        What a token must be meant for, and who must have issued it.
    max_lifetime_s, leeway_s : float
        Longest time from issue to expiry; by how much clocks may differ.
    """

    def __init__(
        self, keys: Sequence[SigningKey], *, audience: str, issuer: str, max_lifetime_s: float, leeway_s: float
    ) -> None:
        self._keys = tuple(keys)
        self._audience = audience
        self._issuer = issuer
        self._max_lifetime_s = max_lifetime_s
        self._leeway_s = leeway_s
        self._verified: OrderedDict[bytes, tuple[Client, float]] = OrderedDict()
        self._lock = threading.Lock()

    def verify(self, token: str) -> Client:
        """
        The client of a token.

        Raises
        ------
        Refused
            It is not one of ours, not valid now, or not meant for us.
        """
        if len(token) > TOKEN_BYTES_MAX:
            raise Refused(f"the token has {len(token)} characters, more than {TOKEN_BYTES_MAX}")
        mark = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        with self._lock:
            client, until_s = self._verified.get(mark, (None, 0.0))
            if client is not None and time.time() < until_s:
                self._verified.move_to_end(mark)
                return client
        client, until_s = self._verify(token)
        with self._lock:
            self._verified[mark] = client, until_s
            if len(self._verified) > _VERIFIED_MAX:
                self._verified.popitem(last=False)
        return client

    def _verify(self, token: str) -> tuple[Client, float]:
        try:
            claims = self._claims(token, jwt.get_unverified_header(token))
            return self._client(claims)
        except Refused:
            raise
        # Whatever a hostile token makes a parser do, its sender is refused.
        except Exception as error:
            raise Refused(f"the token was refused: {type(error).__name__}") from error

    def _claims(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        said = header.get("alg"), header.get("kid")
        keys = [
            each for each in self._keys if each.algorithm == said[0] and (not each.key_id or each.key_id == said[1])
        ]
        failure: Exception = Refused("the token names an algorithm or a key that is not ours")
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key.material,
                    algorithms=[key.algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway_s,
                    options={"require": list(_CLAIMS)},
                )
                return claims
            except jwt.InvalidSignatureError as error:  # another of our keys may have signed it
                failure = error
        raise failure

    def _client(self, claims: Mapping[str, Any]) -> tuple[Client, float]:
        issued_s, expires_s = int(claims["iat"]), int(claims["exp"])
        if expires_s - issued_s > self._max_lifetime_s:
            raise Refused(f"the token was issued for {expires_s - issued_s} s, more than {self._max_lifetime_s:g}")
        name = claims["sub"]
        if not isinstance(name, str) or not 0 < len(name) <= _CLIENT_NAME_MAX:
            raise Refused("the token's subject is no name")
        return Client(name, _scopes(claims)), expires_s + self._leeway_s


class Authenticator:
    """
    Who calls, from the metadata of a call and from its connection.

    Parameters
    ----------
    verifier : TokenVerifier or None
        None: tokens are not looked at.
    certificate_scopes : iterable of str
        What a client may do by its certificate, or by a socket of this machine.
    asks_who : bool
        Whether somebody who does not say who they are is refused.
    """

    def __init__(self, verifier: TokenVerifier | None, certificate_scopes: Iterable[str], *, asks_who: bool) -> None:
        self._verifier = verifier
        self._certificate_scopes = frozenset(certificate_scopes)
        self._asks_who = asks_who
        self._needs_token = False

    @classmethod
    def of(cls, settings: Settings) -> Authenticator:
        """
        As the configuration says.

        Raises
        ------
        ConfigurationError
            A key that cannot be used.
        """
        auth = settings.auth
        verifier = None
        if auth.keys:
            verifier = TokenVerifier(
                _distinct([SigningKey.parse(each) for each in auth.keys]),
                audience=auth.audience,
                issuer=auth.issuer,
                max_lifetime_s=auth.max_lifetime_s,
                leeway_s=auth.leeway_s,
            )
        made = cls(verifier, auth.certificate_scopes, asks_who=settings.asks_who)
        # A certificate will do in place of a token, where one was asked for.
        made._needs_token = verifier is not None and settings.tls.client_ca is None
        return made

    def by_token(self, metadata: Iterable[tuple[str, str | bytes]]) -> Client | None:
        """
        The client that a token names; None where the connection must say it.

        Raises
        ------
        Refused
            There is no token where one is needed, or it is refused.
        """
        if self._verifier is None:
            return None
        said = [value for name, value in metadata if name == "authorization"]
        if not said and not self._needs_token:
            return None
        if len(said) != 1 or not isinstance(said[0], str):
            raise Refused("the call has no token" if not said else "the call has several tokens")
        kind, _, token = said[0].partition(" ")
        if kind.lower() != "bearer":
            raise Refused("the authorization is no bearer token")
        return self._verifier.verify(token)

    def by_connection(self, peer: str, connection: Callable[[], Mapping[str, Iterable[bytes]]]) -> Client:
        """
        The client at the other end.

        Parameters
        ----------
        peer : str
            As ``context.peer()`` names it.
        connection : callable
            ``context.auth_context``; asked where clients must say who they are.

        Raises
        ------
        Refused
            It showed no certificate where clients must say who they are.
        """
        if peer.startswith("unix:"):  # whose file says who may open it
            return Client(_OF_THIS_MACHINE, self._certificate_scopes if self._asks_who else frozenset(SCOPES))
        if not self._asks_who:
            return _anonymous(peer)
        name = _name_in_certificate(connection())
        if not name:
            raise Refused("the client has neither token nor certificate")
        return Client(name, self._certificate_scopes)


def address_of(peer: str) -> str:
    """
    The address in a peer's name, without its port; of IPv6 the network, since a host has all of one.

    Examples
    --------
    >>> address_of("ipv4:10.0.0.7:41234"), address_of("ipv6:%5B2001:db8::1%5D:41234")
    ('10.0.0.7', '2001:db8::/64')
    """
    host = unquote(peer.partition(":")[2]).rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return "unknown"
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)


SCOPE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {
        f"/fraudsdk.v1.ScoringService/{method}": scope
        for method, scope in {
            "Score": "score",
            "ScoreBatch": "score",
            "ScoreStream": "score",
            "GetModelInfo": "score",
            "ListFeatures": "score",
            "Explain": "explain",
            "Feedback": "feedback",
        }.items()
    }
)
"""The scope that a method needs; one that is not here needs ``admin``."""


def scope_of(method: str) -> str:
    """The scope that a method needs."""
    return SCOPE_OF.get(method, "admin")


@functools.lru_cache(maxsize=_CONNECTIONS_MAX)
def _anonymous(peer: str) -> Client:
    return Client(address_of(peer), frozenset(SCOPES), is_anonymous=True)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    said = claims.get("scope", "")
    words = said.split() if isinstance(said, str) else said if isinstance(said, list) else ()
    return frozenset(words).intersection(SCOPES)


def _name_in_certificate(connection: Mapping[str, Iterable[bytes]]) -> str:
    for where in ("x509_common_name", "x509_subject_alternative_name"):
        for name in connection.get(where, ()):
            return name.decode("utf-8", "replace")[:_CLIENT_NAME_MAX]
    return ""


def _distinct(keys: Sequence[SigningKey]) -> Sequence[SigningKey]:
    named = [(each.algorithm, each.key_id) for each in keys if each.key_id]
    if len(named) != len(set(named)):
        raise ConfigurationError("auth.keys names a key id twice for one algorithm; give each key another")
    return keys


def _secret(file: str, octets: bytes) -> bytes:
    if b"-----BEGIN" in octets or octets.startswith((b"ssh-", b"{")):
        raise ConfigurationError(
            f"auth.keys: {file} looks like a public key, which is no secret for HS256; name its algorithm"
        )
    if len(octets) < _SECRET_BYTES_MIN:
        raise ConfigurationError(
            f"auth.keys: {file} holds {len(octets)} bytes, HS256 needs at least {_SECRET_BYTES_MIN}; draw a longer secret"
        )
    return octets


def _public(algorithm: str, file: str, octets: bytes) -> RSAPublicKey | EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(octets)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            f"auth.keys: {file} is no PEM public key; export one with openssl pkey -pubout"
        ) from None
    fits: Callable[[Any], bool] = _is_strong_rsa if algorithm == "RS256" else _is_p256
    if not fits(key):
        wanted = f"RSA of at least {_RSA_BITS_MIN} bits" if algorithm == "RS256" else "elliptic, on P-256"
        raise ConfigurationError(f"auth.keys: {file} is not the key {algorithm} needs, {wanted}; name another")
    return key  # type: ignore[return-value]


def _is_strong_rsa(key: object) -> bool:
    return isinstance(key, RSAPublicKey) and key.key_size >= _RSA_BITS_MIN


def _is_p256(key: object) -> bool:
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
