"""Every kernel of the core, whether or not a scorer has asked for it yet."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk._jit import Kernel

# Leaves bring vendors and no kernels; the compiler of kernels brings Numba.
_WITHOUT_KERNELS: Final = ("adapters", "cli", "compiler", "simulation", "testing", "training", "_codegen", "_vectors")


def all_kernels() -> list[Kernel]:
    """Import the modules of the core, and list the kernels they hold."""
    import fraudsdk
    from fraudsdk import _jit

    for module in pkgutil.iter_modules(fraudsdk.__path__):
        if module.name in _WITHOUT_KERNELS:
            continue
        imported = importlib.import_module(f"fraudsdk.{module.name}")
        if module.ispkg:
            for part in pkgutil.iter_modules(imported.__path__):
                # Kernels of an instruction set that is absent may refuse to be imported.
                with suppress(ConfigurationError):
                    importlib.import_module(f"fraudsdk.{module.name}.{part.name}")
    return _jit.kernels()
