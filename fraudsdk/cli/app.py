"""
From ``argv`` to an exit code.

    0    done
    2    the user's mistake: one sentence on stderr, never a traceback
    70   our mistake: one line, and the traceback with ``--debug``
    130  interrupted
    141  the reader of our output went away
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from fraudsdk import __version__
from fraudsdk.cli.commands import compile as compile_command
from fraudsdk.cli.commands import (
    demo,
    doctor,
    evaluate,
    explain,
    kafka,
    replay,
    score,
    sidecar,
    simulate,
    state,
    train,
    warmup,
)
from fraudsdk.errors import FraudSDKError

USERS_MISTAKE: Final = 2
OUR_MISTAKE: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 128 + 2
BROKEN_PIPE: Final = 128 + 13

_COMMANDS: Final = (
    demo,
    simulate,
    replay,
    train,
    compile_command,
    evaluate,
    score,
    explain,
    sidecar,
    kafka,
    state,
    warmup,
    doctor,
)


class _Parser(argparse.ArgumentParser):
    """Says what was wrong in one line; argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(USERS_MISTAKE, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; by default those of the process.

    Returns
    -------
    int
        Exit code; see the head of this module.

    Examples
    --------
    >>> main(["simulate", "--out", "transactions.parquet"])  # doctest: +SKIP
    0
    """
    args = _parser().parse_args(argv)
    try:
        code: int | None = args.run(args)
        sys.stdout.flush()
        return code or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more on its way out and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        return _explain_failure(error, args.command, debug=args.debug)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fraudsdk",
        description="Embedded, low-latency fraud scoring: a transaction in, a decision out.",
        epilog="Example:\n  fraudsdk demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fraudsdk {__version__}")
    parser.add_argument("--debug", action="store_true", help="print a traceback when something fails")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for command in _COMMANDS:
        each = command.register(commands)
        # SUPPRESS: the default of a command must not undo what stood in front of it.
        each.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def _explain_failure(error: Exception, command: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if isinstance(error, FraudSDKError):
        return _fail(command, str(error), USERS_MISTAKE)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else error.filename
        return _fail(command, f"{place}: {error.strerror}; check the path and its permissions", USERS_MISTAKE)
    what = f"internal error, {type(error).__name__}; run again with --debug and report what it prints"
    return _fail(command, what, OUR_MISTAKE)


def _fail(command: str, message: str, code: int) -> int:
    print(f"fraudsdk {command}: {' '.join(message.split())}", file=sys.stderr)
    return code
