"""
What every benchmark hands in: figures on the terminal, and in one file of the session where ``--benchmark-results`` says.

Gates are numbers of `gates.toml`: the least that a peer must take, in times ours.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

GATES = Path(__file__).with_name("gates.toml")
LIBRARIES = (
    "numpy",
    "numba",
    "llvmlite",
    "xgboost",
    "treelite",
    "tl2cgen",
    "onnxruntime",
    "lightgbm",
    "lleaves",
    "shap",
    "duckdb",
    "polars",
    "pandas",
    "pyarrow",
    "redis",
)

# Of this session, by question.
RESULTS: dict[str, dict[str, Any]] = {}


def percentiles(elapsed_ns: np.ndarray) -> dict[str, float]:
    """n, p50, p99, p99.9 and max in microseconds: the minimum and the mean answer nobody's question."""
    p50, p99, p999 = np.percentile(elapsed_ns, [50, 99, 99.9]) / 1e3
    return {"n": len(elapsed_ns), "p50_us": p50, "p99_us": p99, "p99.9_us": p999, "max_us": elapsed_ns.max() / 1e3}


def report(question: str, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Print, and keep for the file of the session."""
    print(f"\n{question}")
    for name, values in figures.items():
        print(f"  {name:<40}" + "  ".join(f"{key} {value:,.1f}" for key, value in values.items()))
    RESULTS[question] = {
        "figures": {name: {key: float(value) for key, value in values.items()} for name, values in figures.items()}
    }


def hold(question: str, ratios: Mapping[str, float], *, gates_of: str | None = None) -> None:
    """
    Fail where a ratio fell below its gate, or a gate has nothing to judge.

    Parameters
    ----------
    question : str
        What was reported before, and a table of `gates.toml`.
    ratios : mapping of str to float
        How many times our time each peer takes.
    gates_of : str, optional
        The table, where it is another's: of a CPU that lacks something.
    """
    gates = _gates()[gates_of or question]
    RESULTS.setdefault(question, {}).update(ratios=dict(ratios), gates=dict(gates))
    lost = [
        f"{peer}: {ratios[peer]:.2f} times ours, at least {least:g} is due" if peer in ratios else f"{peer}: not timed"
        for peer, least in gates.items()
        if not ratios.get(peer, 0.0) >= least
    ]
    assert not lost, f"{question}: " + "; ".join(lost)


@cache
def _gates() -> dict[str, dict[str, float]]:
    return tomllib.loads(GATES.read_text(encoding="utf-8"))


def write_results(folder: Path) -> Path:
    """All that was reported, as ``<date>-<commit>.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = environment()
    path = folder / f"{datetime.now(UTC):%Y-%m-%d}-{machine['commit']}.json"
    path.write_text(json.dumps({"environment": machine, "results": RESULTS}, indent=1) + "\n", encoding="utf-8")
    return path


def environment() -> dict[str, Any]:
    """What a figure depends on besides the code."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "commit": _git("rev-parse", "--short", "HEAD") or "unknown",
        "changed": bool(_git("status", "--porcelain", "--", "fraudsdk", "bench")),
        "cpu": _cpu("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "vector_units": [flag for flag in ("avx2", "avx512bw", "avx512vbmi") if flag in (_cpu("flags") or "").split()],
        "governor": _governor(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {package: known for package in LIBRARIES if (known := _version(package))},
    }


def _git(*arguments: str) -> str:
    here = Path(__file__).parents[1]
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu(word: str) -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(word)), None)


def _governor() -> str:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not visible"
