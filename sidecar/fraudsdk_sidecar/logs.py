"""
Logs: a JSON object a line on standard error, with the field names of the Elastic Common Schema.

Who somebody is appears as a keyed hash (`named`), which tells two of them apart and no reader who they are.  Runs of twelve digits
and more, which may be card numbers, are masked in whatever text passes through.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import sys
import threading
import time
import traceback
from typing import Any, Final, TextIO

from fraudsdk import __version__

LOGGER: Final = logging.getLogger("fraudsdk_sidecar")

_ECS_VERSION: Final = "8.11.0"
_TEXT_MAX: Final = 8192
# Twelve digits make the shortest card number in use; people group them with blanks and dashes.
_CARD_LIKE: Final = re.compile(r"\d(?:[ \-._]?\d){11,}")
# One line a second of each kind after a first burst: whoever is refused must not be able to fill a disk.
_BURST: Final = 20
_PER_S: Final = 1.0


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send all logs of this process to a stream, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(EcsFormatter())
    handler.addFilter(Sparing())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.captureWarnings(True)
    set_level(level)


def set_level(level: str) -> None:
    """Change what is logged."""
    # What libraries say below a warning is about them, and some say it with the data they were given.
    logging.getLogger().setLevel(logging.WARNING)
    LOGGER.setLevel(level.upper())


def event(level: int, action: str, message: str, *, error: BaseException | None = None, **fields: object) -> None:
    """
    Log something that happened.

    Parameters
    ----------
    level : int
        Of `logging`.
    action : str
        A word for it that stays the same, to search by.
    message : str
        For people.
    error : BaseException, optional
        What went wrong, with its trace.
    **fields : object
        Further ECS fields; ``_`` stands for the dot, as in ``client_id`` for ``client.id``.
    """
    more = {"event.action": action, **{name.replace("_", ".", 1): value for name, value in fields.items()}}
    LOGGER.log(level, "%s", message, exc_info=error, extra={"ecs": more})


class Namer:
    """
    A keyed hash in place of a name.

    Parameters
    ----------
    key : bytes or None
        With the same key the same name looks the same everywhere; None draws one for this process.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = hashlib.sha256(b"fraudsdk log " + (key or secrets.token_bytes(32))).digest()

    def __call__(self, name: str) -> str:
        """Sixteen hexadecimal digits that stand for a name."""
        return hmac.new(self._key, name.encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:16]


class EcsFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Never raises: what cannot be said as JSON is said as text."""
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        document: dict[str, Any] = {
            "@timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "log.level": record.levelname.lower(),
            "message": clean(record.getMessage()),
            "ecs.version": _ECS_VERSION,
            "service.name": "fraudsdk-sidecar",
            "service.version": __version__,
            "process.pid": os.getpid(),
            "process.thread.name": record.threadName,
            "log.logger": record.name,
        }
        for name, value in getattr(record, "ecs", {}).items():
            document[name] = clean(value) if isinstance(value, str) else value
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            document["error.type"] = type(error).__name__
            document["error.message"] = clean(str(error))
            document["error.stack_trace"] = clean("".join(traceback.format_exception(error)))
        return json.dumps(document, ensure_ascii=False, default=lambda value: clean(str(value)))


class Sparing(logging.Filter):
    """
    Lets `_BURST` lines of a kind through and then `_PER_S` a second; the next one that passes says how many did not.

    A kind is a logger, a level and an action: there are few.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, int, str], list[float]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is written."""
        more = getattr(record, "ecs", {})
        now_s = time.monotonic()
        with self._lock:
            kind = self._kinds.setdefault(
                (record.name, record.levelno, more.get("event.action", "")), [_BURST, now_s, 0]
            )
            kind[0] = min(kind[0] + (now_s - kind[1]) * _PER_S, _BURST)
            kind[1] = now_s
            if kind[0] < 1.0:
                kind[2] += 1
                return False
            kind[0] -= 1.0
            withheld, kind[2] = int(kind[2]), 0
        if withheld:
            record.ecs = more | {"event.withheld": withheld}
        return True


def clean(text: str) -> str:
    """
    Text without what may be a card number, on one line, and not too long.

    Examples
    --------
    >>> clean("card 4111 1111 1111 1111 refused")
    'card …1111 refused'
    """
    masked = _CARD_LIKE.sub(lambda run: "…" + re.sub(r"\D", "", run[0])[-4:], text)
    return masked if len(masked) <= _TEXT_MAX else masked[: _TEXT_MAX - 1] + "…"
