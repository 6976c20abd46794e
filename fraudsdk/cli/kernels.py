"""Every kernel of the core, whether or not a scorer has asked for it yet."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fraudsdk._jit import Kernel

# Leaves bring vendors; the compiler of kernels and what it inlines of LLVM bring Numba.
_WITHOUT_KERNELS: Final = ("adapters", "cli", "compiler", "simulation", "testing", "training", "_codegen", "_vectors")


def all_kernels() -> list[Kernel]:
    """Import the modules of the core, and list the kernels they hold."""
    import fraudsdk
    from fraudsdk import _jit

    for module in pkgutil.iter_modules(fraudsdk.__path__):
        if module.name in _WITHOUT_KERNELS or module.name.endswith("_llvm"):
            continue
        imported = importlib.import_module(f"fraudsdk.{module.name}")
        if module.ispkg:
            for part in pkgutil.iter_modules(imported.__path__):
                importlib.import_module(f"fraudsdk.{module.name}.{part.name}")
    importlib.import_module("fraudsdk.adapters.protobuf.wire_kernels")  # the one leaf that has some
    return _jit.kernels()
