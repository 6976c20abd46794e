"""``fraudsdk doctor``: what this machine has, what is slow, what is misconfigured."""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.cli.options import new_parser, say
from fraudsdk.errors import FraudSDKError

if TYPE_CHECKING:
    from fraudsdk._jit import Warmed

OK: Final = "ok"
NOTE: Final = "note"
PROBLEM: Final = "PROBLEM"

OLDEST_PYTHON: Final = (3, 11)
NEWEST_PYTHON: Final = (3, 13)
# A decision without a model takes about 20 us on the machines we measured; several times that is worth a word.
SLOW_SCORE_US: Final = 100.0
N_PROBES: Final = 3_000
_EARLIEST_PLAUSIBLE_S: Final = 1_700_000_000  # 2023-11-14: this library is younger
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+).*?;\s*extra\s*==\s*['\"]([^'\"]+)['\"]")
_CPU_FEATURES: Final = ("avx2", "fma", "avx512f", "avx512vl", "asimd", "sve")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: how bad, about what, and what was found."""

    level: str
    about: str
    found: str


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "doctor",
        run,
        summary="say what this machine has, what is slow and what is misconfigured",
        example="fraudsdk doctor --model models/cards",
        more="Exits with 1 when something is a problem.",
    )
    parser.add_argument("--model", metavar="DIR", type=Path, help="check a model's folder as well")
    return parser


def run(args: argparse.Namespace) -> int:
    """Look, and print what was found."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _machine,
        _environment,
        _extras,
        _compiler,
        _kernels,
        _speed,
    ]
    if args.model is not None:
        checks.append(lambda: _model(args.model))
    problems = 0
    for check in checks:
        for finding in check():
            say(f"{finding.level:<8} {finding.about:<14} {finding.found}")
            problems += finding.level == PROBLEM
    say()
    say("no problems" if problems == 0 else f"{problems} problem{'s' if problems > 1 else ''}")
    return 1 if problems else 0


def _python() -> Iterator[Finding]:
    supported = OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON
    wanted = (
        "" if supported else f"; use {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} to {NEWEST_PYTHON[0]}.{NEWEST_PYTHON[1]}"
    )
    name = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding(OK if supported else PROBLEM, "python", f"{name}{wanted}")
    versions = [f"{package} {_version(package) or 'unknown'}" for package in ("fraudsdk", "numpy", "numba", "llvmlite")]
    yield Finding(OK, "core", ", ".join(versions))


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    model, flags = _cpu()
    features = ", ".join(name for name in _CPU_FEATURES if name in flags) or "not known"
    yield Finding(OK, "cpu", f"{model}, {cores} cores for this process, {features}")
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > cores:
        yield Finding(NOTE, "load", f"{os.getloadavg()[0]:.1f} on {cores} cores: latencies measured now are too long")
    governor = _first_line(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
    if governor == "powersave":
        yield Finding(NOTE, "governor", "powersave: the clock rises too late for single transactions; use performance")
    memory_bytes = _memory_bytes()
    if memory_bytes is not None:
        level = OK if memory_bytes >= 2 << 30 else NOTE
        yield Finding(
            level, "memory", f"{memory_bytes / (1 << 30):.1f} GiB in all; a million entities want about 1 to 2"
        )


def _environment() -> Iterator[Finding]:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        yield Finding(
            PROBLEM, "NUMBA_DISABLE_JIT", "is set: a kernel that is not in the cache cannot be compiled; unset it"
        )
    if time.time() < _EARLIEST_PLAUSIBLE_S:
        now = time.strftime("%Y-%m-%d", time.gmtime())
        yield Finding(PROBLEM, "clock", f"says {now}: transactions would be refused as lying in the future; set it")


def _extras() -> Iterator[Finding]:
    extras = _packages_of_extras()
    if not extras:
        yield Finding(NOTE, "extras", "fraudsdk runs from a source tree that is not installed, so they are not known")
    for extra, packages in extras.items():
        missing = [package for package in packages if _version(package) is None]
        present = ", ".join(f"{package} {_version(package)}" for package in packages if package not in missing)
        if missing:
            remedy = f"pip install 'fraudsdk[{extra}]'"
            yield Finding(NOTE, f"extra {extra}", f"lacks {', '.join(missing)}: {remedy}")
        else:
            yield Finding(OK, f"extra {extra}", present)


def _compiler() -> Iterator[Finding]:
    found = next((shutil.which(name) for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found is None:
        yield Finding(NOTE, "C compiler", "none: only compile --backend c needs one, and production never does")
    else:
        yield Finding(OK, "C compiler", found)


def _kernels() -> Iterator[Finding]:
    from fraudsdk._kernel_cache import KernelCache
    from fraudsdk._loader import host_has, host_target
    from fraudsdk.cli import kernels

    cache = KernelCache.of_environment()
    left_out = sum(not host_has(each.needs) for each in kernels.all_kernels())
    warmed = _warmed()
    elapsed_s = sum(each.elapsed_s for each in warmed)
    compiled = [each for each in warmed if each.compiled]
    how = f"{len(compiled)} compiled, {len(warmed) - len(compiled)} loaded" if compiled else f"{len(warmed)} loaded"
    others = f", {left_out} are for other CPUs" if left_out else ""
    yield Finding(OK, "kernels", f"{how} in {elapsed_s:.2f} s for {host_target().cpu}{others}")
    not_kept = next((each.not_kept_because for each in compiled if each.not_kept_because), "")
    problem = cache.problem()
    if not_kept or (compiled and problem):
        yield Finding(PROBLEM, "kernel cache", f"every process compiles anew: {problem or not_kept}")
    elif problem:
        yield Finding(OK, "kernel cache", f"{cache.folder}, complete and read only")
    else:
        yield Finding(OK, "kernel cache", str(cache.folder))


def _warmed() -> list[Warmed]:
    from fraudsdk import _jit

    return _jit.warm_up()


def _speed() -> Iterator[Finding]:
    from fraudsdk.config import ScorerConfig
    from fraudsdk.features.catalogue import reference_feature_set
    from fraudsdk.scorer import Scorer
    from fraudsdk.telemetry.histogram import MicrosecondHistogram

    histogram = MicrosecondHistogram()
    with tempfile.TemporaryDirectory() as folder:
        features = Path(folder) / "features.toml"
        features.write_text(reference_feature_set("EUR").to_toml(), encoding="utf-8")
        config = ScorerConfig(model=None, features=features, max_entities=10_000, journal_capacity=10_000)
        with Scorer.open(config) as scorer:
            for i in range(N_PROBES):
                transaction = _probe(i)
                started_ns = time.perf_counter_ns()
                scorer.score(transaction)
                histogram.record(time.perf_counter_ns() - started_ns)
    summary = histogram.summary()
    level = OK if summary.p50_us <= SLOW_SCORE_US else NOTE
    slow = "" if level == OK else f"; above {SLOW_SCORE_US:.0f} us is slow, see load and governor"
    yield Finding(
        level,
        "speed",
        f"encoding, state, features and rules: p50 {summary.p50_us:.0f} us, p99 {summary.p99_us:.0f} us of {N_PROBES:,}{slow}",
    )


def _probe(i: int) -> dict[str, Any]:
    return {
        "transaction_id": f"doctor-{i}",
        "event_time_us": 1_700_000_000_000_000 + i * 1_000_000,
        "amount_minor": 100 + i % 5_000,
        "user_id": f"u-{i % 500}",
        "card_id": f"c-{i % 500}",
        "merchant_id": f"m-{i % 200}",
        "device_id": f"d-{i % 700}",
        "channel": "ecommerce",
    }


def _model(directory: Path) -> Iterator[Finding]:
    from fraudsdk.config import ScorerConfig
    from fraudsdk.scorer import Scorer

    try:
        started = time.perf_counter()
        Scorer.open(ScorerConfig(model=directory)).close()
        elapsed_s = time.perf_counter() - started
    except FraudSDKError as error:
        yield Finding(PROBLEM, "model", " ".join(str(error).split()))
        return
    yield Finding(
        OK, "model", f"{directory}: hashes, certificate, features and policy agree; opened in {elapsed_s:.2f} s"
    )


def _packages_of_extras() -> dict[str, list[str]]:
    """Extra -> packages it brings, as this installation declares them."""
    extras: dict[str, list[str]] = {}
    try:
        requirements = metadata.requires("fraudsdk") or []
    except metadata.PackageNotFoundError:
        return {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match and match[1] != "fraudsdk":
            extras.setdefault(match[2], []).append(match[1])
    return {extra: packages for extra, packages in extras.items() if extra != "all"}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> tuple[str, frozenset[str]]:
    """Name and features, from Linux; elsewhere what Python knows."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    named = dict(re.findall(r"^(model name|flags|Features)\s*:\s*(.*)$", text, re.MULTILINE))
    flags = named.get("flags") or named.get("Features") or ""
    return named.get("model name", platform.machine()), frozenset(flags.split())


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
