"""
How often a client may call: a token bucket each, on the monotonic clock.

A bucket is kept as one number, the moment at which it would be full again (GCRA): with a token every `interval_ns` and room for
`burst` of them, a bucket that is full again at ``full_at`` holds ``burst - (full_at - now) / interval`` tokens.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from fraudsdk_sidecar.auth import Client
from fraudsdk_sidecar.settings import Settings

_NS_PER_MINUTE: Final = 60_000_000_000
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True)
class Rates:
    """
    Messages a minute; 0 means any number.

    Attributes
    ----------
    anonymous, client : int
        Of an address that does not say who it is, and of a client that does.
    of : Mapping of str to int
        Of single clients, by name.
    """

    anonymous: int = 100
    client: int = 0
    of: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_settings(cls, settings: Settings) -> Rates:
        """As the configuration says."""
        limits = settings.limits
        return cls(limits.anonymous_per_minute, limits.client_per_minute, limits.per_minute_of)

    def per_minute(self, client: Client) -> int:
        """What a client may send.  An address cannot take the name of somebody who is known."""
        return self.anonymous if client.is_anonymous else self.of.get(client.name, self.client)


class StreamPlaces:
    """
    Places for open streams, of which no client holds more than its share.

    Parameters
    ----------
    places_max, places_max_of_one : int
        Of all clients together, and of each.
    """

    def __init__(self, places_max: int, places_max_of_one: int) -> None:
        self._places_max = places_max
        self._places_max_of_one = places_max_of_one
        self._held: Counter[tuple[bool, str]] = Counter()
        self._lock = threading.Lock()

    def take(self, client: Client) -> str:
        """Take a place: empty, or why there is none."""
        key = client.is_anonymous, client.name
        with self._lock:
            if self._held[key] >= self._places_max_of_one:
                return "too many open streams of this client"
            if self._held.total() >= self._places_max:
                return "too many open streams"
            self._held[key] += 1
        return ""

    def leave(self, client: Client) -> None:
        """Give a place back."""
        key = client.is_anonymous, client.name
        with self._lock:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]


class RateLimiter:
    """
    Lets messages through or says when to try again.

    A client may send a minute's worth at once, and then as much as the rate gives.  Of more than `clients_max` clients, the
    one that was silent for longest is forgotten and starts anew with a full bucket: a crowd of addresses gains nothing over
    what each of them may send anyway, and takes no more memory.

    Parameters
    ----------
    rates : Rates
    clients_max : int
    monotonic_ns : callable
        The clock.
    """

    def __init__(self, rates: Rates, clients_max: int, *, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.rates = rates
        self._clients_max = clients_max
        self._monotonic_ns = monotonic_ns
        self._full_at_ns: OrderedDict[tuple[bool, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, client: Client) -> float:
        """Take a token for one message: 0.0, or the seconds after which there is one."""
        burst = self.rates.per_minute(client)
        if not burst:
            return 0.0
        interval_ns = _NS_PER_MINUTE // burst
        key = client.is_anonymous, client.name
        with self._lock:
            now_ns = self._monotonic_ns()
            # No fuller than full, and no emptier than empty: the rate may have been another when it was last looked at.
            full_at_ns = min(max(self._full_at_ns.get(key, 0), now_ns), now_ns + burst * interval_ns)
            lacking_ns = full_at_ns - now_ns - (burst - 1) * interval_ns
            self._full_at_ns[key] = full_at_ns if lacking_ns > 0 else full_at_ns + interval_ns
            self._full_at_ns.move_to_end(key)
            if len(self._full_at_ns) > self._clients_max:
                self._full_at_ns.popitem(last=False)
        return max(lacking_ns, 0) / _NS_PER_S

    def __len__(self) -> int:
        """Clients whose bucket is remembered."""
        return len(self._full_at_ns)
