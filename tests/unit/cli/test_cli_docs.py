"""
What documentation and help tell people to type can be typed.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import pytest

from fraudsdk.cli import app

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


def commands_of(parser):
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return commands.choices


def documented():
    return [line.removeprefix("$ ") for line in DOCS.read_text().splitlines() if line.startswith("$ fraudsdk ")]


def exemplified():
    epilogs = [parser.epilog for parser in commands_of(app._parser()).values()]
    return [line.strip() for epilog in epilogs for line in epilog.splitlines() if line.startswith("  fraudsdk")]


def test_there_is_something_to_check():
    assert len(documented()) > 8
    assert len(exemplified()) > 8


@pytest.mark.parametrize("line", [*documented(), *exemplified()])
def test_an_example_is_understood(line):
    argv = shlex.split(line)[1:]
    if argv == ["--help"]:
        return

    assert argv[0] == app._parser().parse_args(argv).command


def test_every_command_is_documented():
    text = DOCS.read_text()

    assert [] == [name for name in commands_of(app._parser()) if f"| `{name}` |" not in text]
