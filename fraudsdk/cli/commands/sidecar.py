"""``fraudsdk sidecar``: decisions over gRPC, for hosts in other languages."""

from __future__ import annotations

import argparse
from typing import Any

from fraudsdk_sidecar.app import add_arguments
from fraudsdk_sidecar.app import run as serve

from fraudsdk.cli.options import new_parser


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "sidecar",
        run,
        summary="serve decisions over gRPC, for hosts in other languages",
        example="fraudsdk sidecar --model compiled_models/reference --listen 127.0.0.1:50051",
        more="Every flag is a key of the file as well, and a variable FRAUDSDK_SIDECAR_...; secrets have no flags.",
    )
    add_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Serve until a signal says otherwise."""
    serve(args)
