"""The rights that docs/redis.md says are needed: what it says is what is tried."""

from __future__ import annotations

import re
from pathlib import Path

_TEXT = (Path(__file__).parents[3] / "docs" / "redis.md").read_text(encoding="utf-8")


def block(language: str) -> list[str]:
    """The words of the one block of that language."""
    ((words),) = re.findall(rf"```{language}\n(.*?)```", _TEXT, re.DOTALL)
    return words.split()


USER = block("acl")
assert USER[:4] == ["user", "fraud", "on", ">secret"]
RIGHTS = USER[2:]
CLUSTER_ONLY_RIGHTS = block("acl-cluster")
CLUSTER_RIGHTS = [word for word in RIGHTS if word != "+script|load"] + CLUSTER_ONLY_RIGHTS
SHARED_RIGHTS = block("acl-shared")
READING_USER = block("acl-reading")
assert READING_USER[:4] == ["user", "fraud", "on", ">secret"]
READING_RIGHTS = READING_USER[2:]
SENTINEL_USER = block("acl-sentinel")


def granted(words: list[str]) -> list[str]:
    return [word for word in words if word.startswith("+")]


def grant(client, words: list[str], **options) -> None:
    """Make `fraud` a user with these rights and no other."""
    client.execute_command("ACL", "SETUSER", "fraud", "reset", *words, **options)
