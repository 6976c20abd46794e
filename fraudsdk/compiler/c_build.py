"""
Child process of `c_backend`: limits itself, generates C with tl2cgen, and compiles it.

Run by path, with one JSON argument.  Imports nothing of this package, so that a limit set here covers all there is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MAX_OUTPUT_BYTES = 1024**3


def main(job: dict[str, Any]) -> None:
    """Build ``job["library"]`` of ``job["model"]`` in ``job["work"]``."""
    _limit(job["max_seconds"], job["max_memory_bytes"])
    work = Path(job["work"])
    _generate(job["model"], work, job["n_units"])
    objects = [_compile(job["compiler"], source) for source in sorted(work.glob("*.c"))]
    _call([job["compiler"], "-shared", "-o", job["library"], *map(str, objects), "-lm"])


def _limit(max_seconds: int, max_memory_bytes: int) -> None:
    import resource  # not on Windows, where the time-out of the parent is the only cap

    for kind, limit in (
        (resource.RLIMIT_AS, max_memory_bytes),
        (resource.RLIMIT_CPU, max_seconds),
        (resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _generate(model_path: str, work: Path, n_units: int) -> None:
    import numpy as np
    import tl2cgen
    import treelite

    model = treelite.frontend.load_xgboost_model(model_path, format_choice="ubjson")
    # The wrapper starts from the base margin, where XGBoost does; left here, it would be added last and round otherwise.
    header = model.get_header_accessor()
    header.set_field("base_scores", np.zeros_like(header.get_field("base_scores")))
    tl2cgen.generate_c_code(model, dirpath=str(work), params={"parallel_comp": n_units})


def _compile(compiler: str, source: Path) -> Path:
    target = source.with_suffix(".o")
    command = [
        compiler,
        "-std=c99",
        "-O2",
        "-fPIC",
        "-fvisibility=default",
        "-ffp-contract=off",
        "-c",
        "-o",
        str(target),
    ]
    # tl2cgen writes leaves as double literals; as floats they are added in float32, as XGBoost adds them.  Not every
    # compiler can: the certificate then records what rounding did.
    exact = subprocess.run([*command, "-fsingle-precision-constant", str(source)], capture_output=True, check=False)
    if exact.returncode != 0:
        _call([*command, str(source)])
    return target


def _call(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stdout.decode(errors="replace")[-2000:] or f"{command[0]} died of {done.returncode}")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
