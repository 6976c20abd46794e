"""Imports of the ``train`` extra, made when a command needs them, so that ``fraudsdk --help`` needs none of them."""

from __future__ import annotations

import importlib
from typing import Any

from fraudsdk.errors import MissingExtraError


def need(module: str) -> Any:
    """
    Import `module` now.

    Raises
    ------
    MissingExtraError
        Says which pip command brings the package.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A broken installation of the package itself must not read as "not installed".
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtraError(package, "train") from error
