"""``fraudsdk warmup``: compile every kernel ahead of the first start, into an image for example."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.cli.options import new_parser, say
from fraudsdk.cli.progress import counting
from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk._jit import Kernel, Warmed
    from fraudsdk._kernel_cache import KernelCache

CPUS: Final = ("host", "x86-64-v2", "x86-64-v3", "x86-64-v4")


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "warmup",
        run,
        summary="compile every kernel now, so that no start has to",
        example="fraudsdk warmup --cache-dir /opt/fraudsdk-kernels --cpu x86-64-v3",
        more="What is there already is left alone.",
    )
    parser.add_argument(
        "--cache-dir",
        metavar="DIR",
        type=Path,
        help="keep them here, and start with FRAUDSDK_CACHE_DIR=DIR (default: where a start looks anyway)",
    )
    parser.add_argument(
        "--cpu",
        choices=CPUS,
        default="host",
        help="the CPU to compile for: this one, or a level that all machines of a fleet reach (default: %(default)s)",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Compile, keep, and say so."""
    from fraudsdk._kernel_cache import KernelCache
    from fraudsdk._loader import host_has, host_target
    from fraudsdk.cli import kernels as core

    cache = KernelCache.of_environment() if args.cache_dir is None else KernelCache(args.cache_dir)
    kernels = [each for each in core.all_kernels() if args.cpu != "host" or host_has(each.needs)]
    started = time.perf_counter()
    prepared: dict[str, list[Warmed]] = {}
    with counting("kernels", len(kernels), unit="kernel") as count:
        for done, kernel in enumerate(kernels, 1):
            prepared.setdefault(kernel.function.__module__, []).append(_prepared(kernel, cache, args.cpu))
            count(done)
    for module, those in prepared.items():
        say(f"{module:<28} {_summary(those)}")
    cpu = host_target().cpu if args.cpu == "host" else args.cpu
    say(f"{len(kernels)} kernels for {cpu} in {cache.folder}, {time.perf_counter() - started:.1f} s")


def _prepared(kernel: Kernel, cache: KernelCache, cpu: str) -> Warmed:
    from fraudsdk._loader import named_target

    prepared = kernel.prepare(cache, named_target(cpu, kernel.needs))
    if prepared.not_kept_because:
        raise ConfigurationError(f"{kernel.name} was compiled and could not be kept: {prepared.not_kept_because}")
    return prepared


def _summary(prepared: list[Warmed]) -> str:
    compiled = [each for each in prepared if each.compiled]
    there = len(prepared) - len(compiled)
    parts = [f"{len(compiled)} compiled in {sum(each.elapsed_s for each in compiled):.1f} s"] if compiled else []
    parts += [f"{there} already there"] if there else []
    return ", ".join(parts)
