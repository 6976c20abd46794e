"""Where the service listens: ``HOST:PORT``, ``[IPV6]:PORT`` or ``unix:/PATH``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

# The size of sun_path, less the zero at its end.
_UNIX_PATH_BYTES_MAX: Final = 107
_TCP: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """
    One address to listen on.

    Attributes
    ----------
    host : str
        Of TCP; empty for a socket of this machine.
    port : int
        Of TCP; 0 has the system choose one.
    path : str
        Of a socket of this machine; empty for TCP.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """
        Read one.

        Raises
        ------
        ValueError
            Says what it must be.

        Examples
        --------
        >>> str(Address.parse("[::1]:50051")), Address.parse("unix:/run/fraud.sock").path
        ('[::1]:50051', '/run/fraud.sock')
        """
        if text.startswith("unix:"):
            return cls(path=_socket_path(text.removeprefix("unix:")))
        parts = _TCP.fullmatch(text)
        if parts is None or int(parts["port"]) > 65_535:
            raise ValueError("HOST:PORT with a port from 0 to 65535, [IPV6]:PORT or unix:/PATH")
        return cls(host=parts["v6"] or parts["host"], port=int(parts["port"]))

    @property
    def is_private(self) -> bool:
        """Whether no other machine reaches it."""
        if self.path or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False  # a name: whatever it resolves to when somebody binds it

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _socket_path(path: str) -> str:
    if not path.startswith("/") or len(path.encode()) > _UNIX_PATH_BYTES_MAX:
        raise ValueError(f"unix:/PATH, an absolute path of at most {_UNIX_PATH_BYTES_MAX} bytes")
    return path
