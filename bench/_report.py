"""Figures as a table on the terminal, and as JSON where FRAUDSDK_BENCH_OUT names a folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


def percentiles(elapsed_ns: np.ndarray) -> dict[str, float]:
    """n, p50, p99, p99.9 and max in microseconds: the minimum and the mean answer nobody's question."""
    p50, p99, p999 = np.percentile(elapsed_ns, [50, 99, 99.9]) / 1e3
    return {"n": len(elapsed_ns), "p50_us": p50, "p99_us": p99, "p99.9_us": p999, "max_us": elapsed_ns.max() / 1e3}


def report(question: str, figures: dict[str, dict[str, Any]]) -> None:
    """Print, and write where asked to."""
    print(f"\n{question}")
    for name, values in figures.items():
        print(f"  {name:<40}" + "  ".join(f"{key} {value:,.1f}" for key, value in values.items()))
    folder = os.environ.get("FRAUDSDK_BENCH_OUT")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        content = {"question": question, "figures": figures, "machine": _machine()}
        (Path(folder) / f"{question}.json").write_text(json.dumps(content, indent=1) + "\n")


def _machine() -> dict[str, str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return {
        "commit": commit.strip(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "numba", "xgboost")},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
