"""
The portable backend: tl2cgen writes C, the system's compiler builds it, with caps on time, memory and output.

Code generation and compilation both run in a child process (`c_build`), because a large forest has been seen to need
hundreds of gigabytes: the child dies of its limits, the caller gets an error.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from fraudsdk.compiler import c_build
from fraudsdk.compiler.vendors import vendor
from fraudsdk.errors import ConfigurationError, ModelError
from fraudsdk.model.library import ABI
from fraudsdk.model.manifest import BOOSTER, LIBRARY, LIBRARY_HEADER

MAX_SECONDS: Final = 600
MAX_MEMORY_BYTES: Final = 4 * 1024**3
# Trees per C file: gcc's time grows faster than the length of a function.
TREES_PER_UNIT: Final = 25

_HEADER: Final = """\
/* A fraud model as a C library.  Thread-safe: rows are copied to the stack, nothing else is written but `out`. */
#ifndef FRAUDSDK_MODEL_H
#define FRAUDSDK_MODEL_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
/* Version of these three functions. */
int fraudsdk_model_abi(void);
/* Floats in a row. */
int fraudsdk_model_n_features(void);
/* Log-odds of n rows, row after row; NaN = missing. */
void fraudsdk_model_margins(const float *rows, size_t n, float *out);
#ifdef __cplusplus
}
#endif
#endif
"""

# tl2cgen marks a missing value by the bits of -1, one NaN among many, and adds leaves to whatever `result` holds: starting
# at the base margin adds in XGBoost's own order.
_SOURCE: Final = """\
#include "header.h"
#include "fraudsdk_model.h"

int fraudsdk_model_abi(void) {{ return {abi}; }}
int fraudsdk_model_n_features(void) {{ return {n_features}; }}

void fraudsdk_model_margins(const float *rows, size_t n, float *out) {{
  for (size_t r = 0; r < n; ++r, rows += {n_features}) {{
    union Entry row[{n_features}];
    for (int f = 0; f < {n_features}; ++f) {{
      if (isnan(rows[f])) row[f].missing = -1;
      else row[f].fvalue = rows[f];
    }}
    float margin = {base_margin}f;
    predict(row, 1, &margin);
    out[r] = margin;
  }}
}}
"""


def build_library(
    directory: Path,
    *,
    n_features: int,
    n_trees: int,
    base_margin: np.float32,
    compiler: str = "cc",
    max_seconds: int = MAX_SECONDS,
    max_memory_bytes: int = MAX_MEMORY_BYTES,
) -> None:
    """
    Compile ``directory/model.ubj`` into ``directory/model.so``, and put its header beside it.

    Raises
    ------
    ConfigurationError
        There is no C compiler.
    ModelError
        It ran out of time or memory, or failed; the message ends with what it said last.
    """
    vendor("tl2cgen")
    path = shutil.which(compiler)
    if path is None:
        raise ConfigurationError(
            f"no C compiler: {compiler!r} is not on PATH; install gcc or clang, or use the table backend"
        )
    (directory / LIBRARY_HEADER).write_text(_HEADER)
    work = directory / "c"
    work.mkdir()
    (work / LIBRARY_HEADER).write_text(_HEADER)
    source = _SOURCE.format(abi=ABI, n_features=n_features, base_margin=float(base_margin).hex())
    (work / "fraudsdk_model.c").write_text(source)
    job = {
        "model": str(directory / BOOSTER),
        "work": str(work),
        "library": str(directory / LIBRARY),
        "compiler": path,
        "n_units": -(-n_trees // TREES_PER_UNIT),
        "max_seconds": max_seconds,
        "max_memory_bytes": max_memory_bytes,
    }
    _run(job, max_seconds, max_memory_bytes)
    (directory / LIBRARY).chmod(0o644)
    shutil.rmtree(work)


def _run(job: dict[str, object], max_seconds: int, max_memory_bytes: int) -> None:
    # By path and not with -m: the child needs tl2cgen and the standard library, and nothing of this package.
    command = [sys.executable, "-P", c_build.__file__, json.dumps(job)]
    # A session of its own, so that a time-out reaches the compiler's children too.
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = child.communicate(timeout=max_seconds)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"compiling to C took over {max_seconds} s and was stopped; train fewer trees, or use the table backend"
        ) from error
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode != 0:
        said = output.decode(errors="replace").strip()[-500:]
        raise ModelError(
            f"compiling to C failed with status {child.returncode} (memory cap {max_memory_bytes:,} bytes); use the table "
            f"backend; the compiler's last words were: {said}"
        )
