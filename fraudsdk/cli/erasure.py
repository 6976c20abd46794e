"""Whom ``fraudsdk state erase`` is to erase: an option for each field of a transaction that names somebody."""

from __future__ import annotations

import argparse
from pathlib import Path

from fraudsdk.errors import ConfigurationError

# An option for each field that may name somebody.
_FIELDS = {
    "user": "user_id",
    "card": "card_id",
    "device": "device_id",
    "ip": "ip",
    "session": "session_id",
    "counterparty": "counterparty_id",
    "fingerprint": "device_fingerprint",
    "user-agent": "user_agent_hash",
    "email": "email_hash",
    "phone": "phone_hash",
    "merchant": "merchant_id",
}


def add_identifiers(parser: argparse.ArgumentParser) -> None:
    """An option for every kind of identifier, each may be given more than once; and one for all that were erased elsewhere."""
    for option, field in _FIELDS.items():
        parser.add_argument(f"--{option}", dest=field, metavar="ID", action="append", help=f"as it is sent as {field}")

    parser.add_argument(
        "--as-in",
        metavar="DIR",
        type=Path,
        help="erase from a restored backup whoever was erased in this state directory",
    )


def identifiers_of(args: argparse.Namespace) -> dict[str, list[str]]:
    """
    What was given, by field.

    Raises
    ------
    ConfigurationError
        Nothing was, or more than can be meant together.
    """
    given = {field: getattr(args, field) for field in _FIELDS.values() if getattr(args, field)}
    if given and args.as_in:
        raise ConfigurationError("--as-in names whom to erase, and so does another option; run the command twice")
    if not given and not args.as_in:
        raise ConfigurationError("nobody is named; say whom to erase, as --user ID, --card ID, --device ID, ...")
    return given
