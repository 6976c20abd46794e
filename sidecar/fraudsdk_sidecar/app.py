"""From flags to an exit code: 0 done, 2 the user's mistake in one sentence, 70 ours."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NoReturn

from fraudsdk import __version__
from fraudsdk.errors import FraudSDKError, MissingExtraError
from fraudsdk_sidecar import logs
from fraudsdk_sidecar.keys import flag_of
from fraudsdk_sidecar.settings import KEYS, Settings, add_flags, describe, load

USERS_MISTAKE: Final = 2
OUR_MISTAKE: Final = 70
# What `fraudsdk[grpc]` brings, by the name of its module.
_NEEDED: Final = {
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "google": "protobuf",
    "jwt": "pyjwt",
    "cryptography": "cryptography",
    "prometheus_client": "prometheus-client",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USERS_MISTAKE, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag of the service."""
    add_flags(parser)
    parser.add_argument("--worker", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--lifeline", type=int, default=-1, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    """
    Serve as `args` of `add_arguments` say, until a signal.

    Raises
    ------
    FraudSDKError
        Something of the configuration, the model or the state will not do.
    """
    settings = load(args, os.environ)
    if args.print_config:
        print(describe(settings))
        return
    logs.configure(settings.log.level)
    if settings.workers > 1 and args.worker is None:
        from fraudsdk_sidecar.workers import Workers

        Workers(settings, flags_of(args)).run()
        return
    _serve(settings, args)


def flags_of(args: argparse.Namespace) -> list[str]:
    """The flags that would give these arguments."""
    flags = [] if args.config is None else [f"--config={args.config}"]
    return flags + [f"{flag_of(name)}={getattr(args, name)}" for name in KEYS if getattr(args, name, None) is not None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run as ``python -m fraudsdk_sidecar``."""
    parser = _Parser(
        prog="fraudsdk-sidecar",
        description="Serves decisions over gRPC.",
        epilog="Example:\n  python -m fraudsdk_sidecar --model compiled_models/reference",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"fraudsdk-sidecar {__version__}")
    parser.add_argument("--debug", action="store_true", help="print a traceback when something fails")
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        run(args)
    except FraudSDKError as error:
        return _fail(str(error), USERS_MISTAKE, debug=args.debug)
    except Exception as error:
        what = f"internal error, {type(error).__name__}; run again with --debug and report what it prints"
        return _fail(what, OUR_MISTAKE, debug=args.debug)
    return 0


def _serve(settings: Settings, args: argparse.Namespace) -> None:
    # The core of gRPC writes lines of its own among ours, which are not JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from fraudsdk_sidecar.service import serve
    except ModuleNotFoundError as error:
        needed = _NEEDED.get((error.name or "").partition(".")[0])
        if needed is None:
            raise
        raise MissingExtraError(needed, "grpc") from error
    if args.worker is not None:
        from fraudsdk_sidecar.workers import end_with_parent

        end_with_parent()
    serve(settings, lambda: load(args, os.environ), worker=args.worker or 0, lifeline=args.lifeline)


def _fail(message: str, code: int, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"fraudsdk-sidecar: {' '.join(message.split())}", file=sys.stderr)
    return code
