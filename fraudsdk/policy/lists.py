"""
Block and allow lists: who is refused or let through whatever the model says, until when.

An entry is the text that a transaction carries in one field, in any spelling of it (``GBR`` finds ``GB``); for `ip` it
may be a network.  Looking up takes one probe of a hash table per listed field, whatever the length of the lists.  A card
is listed by its token: a card number is refused and never repeated in the message.
"""

from __future__ import annotations

import ipaddress
import math
import operator
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from typing import Any, Final

from fraudsdk.domain.fields import CATEGORIES, IDENTIFIERS
from fraudsdk.domain.masking import masked, shown
from fraudsdk.domain.refusal import RefusedValue
from fraudsdk.domain.transaction import FIELD_PARSERS, Transaction
from fraudsdk.errors import ConfigurationError
from fraudsdk.policy.reasons import BLOCKED

LISTED_FIELDS: Final = (*IDENTIFIERS, *CATEGORIES)
# About 250 bytes each; a list that outgrows this belongs in entity state.
MAX_ENTRIES: Final = 1_000_000
_LAST_US: Final = 253_402_300_799_999_999  # the last microsecond that a calendar, and so the policy file, can write


class ListKind(Enum):
    """What being listed means."""

    BLOCK = "block"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class ListEntry:
    """
    One listed id.

    Attributes
    ----------
    id : str
        As a transaction carries it, or a network such as ``"203.0.113.0/24"`` where the field is `ip`.
    expires_at_us : int or None
        Event time, microseconds since the Unix epoch, UTC, from which on the entry is no longer valid; None = never.
    """

    id: str
    expires_at_us: int | None = None

    def __post_init__(self) -> None:
        expires = self.expires_at_us
        if expires is not None and (type(expires) is not int or not 0 <= expires <= _LAST_US):
            raise ConfigurationError(
                f"a list entry's expires_at_us must be microseconds since 1970, up to the year 9999, was {expires!r}"
            )


@dataclass(frozen=True, slots=True)
class EntityList:
    """
    A list over one field.

    Attributes
    ----------
    name : str
        Unique in a policy; analysts see it in the reason.
    kind : ListKind
        Block or allow.
    field : str
        One of `LISTED_FIELDS`.
    entries : tuple of ListEntry
        In any order; of two entries of one id the one that expires later counts.
    reason : str
        Code of the reason catalogue that a blocked transaction is given.
    """

    name: str
    kind: ListKind
    field: str
    entries: tuple[ListEntry, ...]
    reason: str = BLOCKED

    def __post_init__(self) -> None:
        if self.field not in LISTED_FIELDS:
            closest = get_close_matches(self.field, LISTED_FIELDS, n=1)
            hint = f"did you mean {closest[0]!r}?" if closest else f"use one of {', '.join(LISTED_FIELDS)}"
            raise ConfigurationError(f"list {self.name!r} has the field {shown(self.field)}; {hint}")


@dataclass(frozen=True, slots=True)
class ListHit:
    """
    An entry that is valid for a transaction.

    Attributes
    ----------
    kind : ListKind
        Block wins over allow, whatever the fields.
    list_name : str
        The list that was hit.
    """

    kind: ListKind
    list_name: str


# A hit and when it ends: infinity stands for never, so that one comparison serves both.
_Valid = tuple[float, ListHit]
_Table = dict[str | None, _Valid]


class ListIndex:
    """
    All lists of a policy, ready to look up.

    Parameters
    ----------
    lists : sequence of EntityList
        At most `MAX_ENTRIES` entries in all.

    Raises
    ------
    ConfigurationError
        Too many entries, two lists of one name, or an entry that no transaction could carry in that field.
    """

    def __init__(self, lists: Sequence[EntityList]) -> None:
        n_entries = sum(len(entity_list.entries) for entity_list in lists)
        if n_entries > MAX_ENTRIES:
            raise ConfigurationError(f"lists hold at most {MAX_ENTRIES} entries in all, these hold {n_entries}")
        names = [entity_list.name for entity_list in lists]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"two lists are named {twice!r}; a reason could not say which one was hit")
        fields = sorted({entity_list.field for entity_list in lists}, key=LISTED_FIELDS.index)
        self._ids = _id_getter(fields)
        self._blocks = _tables(lists, fields, ListKind.BLOCK)
        self._allows = _tables(lists, fields, ListKind.ALLOW)
        self._block_networks = _Networks.of(lists, ListKind.BLOCK)
        self._allow_networks = _Networks.of(lists, ListKind.ALLOW)

    def find(self, transaction: Transaction) -> ListHit | None:
        """The entry that counts: a block before an allow, then in the order of `LISTED_FIELDS`; networks last."""
        ids = self._ids(transaction)
        return _find(ids, self._blocks, self._block_networks, transaction) or _find(
            ids, self._allows, self._allow_networks, transaction
        )


def _find(
    ids: tuple[str | None, ...],
    tables: list[tuple[int, _Table]],
    networks: _Networks | None,
    transaction: Transaction,
) -> ListHit | None:
    for position, table in tables:
        if ids[position] in table:
            expires_at_us, hit = table[ids[position]]
            if transaction.event_time_us < expires_at_us:
                return hit
    return None if networks is None or transaction.ip is None else networks.find(transaction.ip, transaction)


def _id_getter(fields: list[str]) -> Any:
    if not fields:
        return lambda transaction: ()
    if len(fields) == 1:
        get_one = operator.attrgetter(fields[0])
        return lambda transaction: (get_one(transaction),)
    return operator.attrgetter(*fields)


def _tables(lists: Sequence[EntityList], fields: list[str], kind: ListKind) -> list[tuple[int, _Table]]:
    """The tables that are not empty, each with the position of its field."""
    tables = enumerate(_table(lists, field, kind) for field in fields)
    return [(position, table) for position, table in tables if table]


def _table(lists: Sequence[EntityList], field: str, kind: ListKind) -> _Table:
    table: _Table = {}
    for entity_list, entry in _entries(lists, field, kind):
        if not _is_network(field, entry):
            _keep_longest(table, _canonical(entity_list, entry), entity_list, entry)
    return table


def _entries(lists: Sequence[EntityList], field: str, kind: ListKind) -> Iterable[tuple[EntityList, ListEntry]]:
    for entity_list in lists:
        if entity_list.field == field and entity_list.kind is kind:
            for entry in entity_list.entries:
                yield entity_list, entry


def _is_network(field: str, entry: ListEntry) -> bool:
    return field == "ip" and isinstance(entry.id, str) and "/" in entry.id


def _canonical(entity_list: EntityList, entry: ListEntry) -> str:
    try:
        if not isinstance(entry.id, str):
            raise RefusedValue(f"must be text, was {type(entry.id).__name__}", "put it in quotes")
        identifier = FIELD_PARSERS[entity_list.field](entry.id)
    except RefusedValue as refusal:
        raise ConfigurationError(
            f"list {entity_list.name!r}: an entry of {entity_list.field} {refusal.problem}; {refusal.remedy}"
        ) from refusal
    if identifier is None:
        raise ConfigurationError(f"list {entity_list.name!r}: an entry of {entity_list.field} is empty; remove it")
    return str(identifier)


def _keep_longest(table: dict[Any, _Valid], key: object, entity_list: EntityList, entry: ListEntry) -> None:
    expires_at_us = math.inf if entry.expires_at_us is None else entry.expires_at_us
    if key not in table or expires_at_us > table[key][0]:
        table[key] = (expires_at_us, ListHit(entity_list.kind, entity_list.name))


class _Networks:
    """Networks by prefix length, longest first: at most 33 probes for IPv4, 129 for IPv6."""

    def __init__(self, entries: Iterable[tuple[EntityList, ListEntry]]) -> None:
        by_shift: dict[int, dict[int, dict[int, _Valid]]] = {socket.AF_INET: {}, socket.AF_INET6: {}}
        for entity_list, entry in entries:
            network = _network(entity_list, entry)
            family = socket.AF_INET if network.version == 4 else socket.AF_INET6
            shift = network.max_prefixlen - network.prefixlen
            table = by_shift[family].setdefault(shift, {})
            _keep_longest(table, int(network.network_address) >> shift, entity_list, entry)
        self._by_shift = {family: sorted(tables.items()) for family, tables in by_shift.items()}

    @classmethod
    def of(cls, lists: Sequence[EntityList], kind: ListKind) -> _Networks | None:
        """The networks of these lists; None where there are none, so that nobody pays for looking."""
        entries = [pair for pair in _entries(lists, "ip", kind) if _is_network("ip", pair[1])]
        return cls(entries) if entries else None

    def find(self, ip: str, transaction: Transaction) -> ListHit | None:
        """The longest network that holds the address and is still valid."""
        # Ten times as fast as ipaddress, and the transaction has checked the text.
        if ":" in ip:
            # An IPv6 zone means nothing outside its host.
            family, packed = socket.AF_INET6, socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
        else:
            family, packed = socket.AF_INET, socket.inet_aton(ip)
        number = int.from_bytes(packed, "big")
        for shift, table in self._by_shift[family]:
            valid = table.get(number >> shift)
            if valid is not None and transaction.event_time_us < valid[0]:
                return valid[1]
        return None


def _network(entity_list: EntityList, entry: ListEntry) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(entry.id.strip())
    except ValueError:
        raise ConfigurationError(
            f"list {entity_list.name!r}: a network must be like 203.0.113.0/24 with no bits after the prefix, "
            f"was {masked(entry.id)}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ConfigurationError(
            f"list {entity_list.name!r}: a network of IPv4 addresses mapped into IPv6 never matches; write it as IPv4"
        )
    return network
