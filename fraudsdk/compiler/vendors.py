"""The build-time libraries, imported when first needed so that the command line stays quick without them."""

from __future__ import annotations

import importlib
from types import ModuleType

from fraudsdk.errors import MissingExtraError


def vendor(package: str) -> ModuleType:
    """
    Import ``xgboost``, ``treelite`` or ``tl2cgen``.

    Raises
    ------
    MissingExtraError
        It is not installed; says which extra brings it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(package, "train") from error
