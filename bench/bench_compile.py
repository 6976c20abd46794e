"""
Question   How long does it take to compile and certify a large model?
Workload   600 trees of depth 8 on 80 features.
Timed      Processor time of compile_model whole: validate, read, lay out, certify, write; that of a C compiler included.
Compare    tl2cgen and the system's C compiler on 100 trees of depth 6, less than a twentieth of the nodes, in the same run.
Check      The artefact's margins are the booster's, bit for bit.
Gate       gates.toml.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import MADE, Shelf, make_rows, train_xgboost
from _report import hold, report

from fraudsdk.compiler.compile import compile_model
from fraudsdk.model.artefact import load_artefact

TIMES = 3


def processor_s() -> float:
    """Of this process and of the children it waited for."""
    return sum(os.times()[:4])


def test_the_largest_forest_compiles_sooner_than_a_small_one_to_c(benchmark: Any, shelf: Shelf, tmp_path: Path) -> None:
    import shutil

    import xgboost

    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to compare with")
    large, small = train_xgboost(shelf, "600x8"), train_xgboost(shelf, "100x6")
    names = iter(range(100))

    def taken_s(model: bytes, backend: str) -> float:
        out = tmp_path / str(next(names))
        started_s = processor_s()
        compile_model(model, out, name="bench", backend=backend, **MADE)
        return processor_s() - started_s

    ours_s = benchmark.pedantic(lambda: [taken_s(large, "table") for _ in range(TIMES)], rounds=1)
    theirs_s = taken_s(small, "c")

    rows = make_rows(500, 12)
    booster = xgboost.Booster(model_file=bytearray(large))
    expected = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    assert expected.tobytes() == load_artefact(tmp_path / "0").margins(rows).tobytes()
    question = "compile and certify, 600x8"
    report(question, {"fraudsdk": {"p50_s": float(np.median(ours_s))}, "tl2cgen and cc, 100x6": {"p50_s": theirs_s}})
    hold(question, {"tl2cgen and cc, 100x6": theirs_s / float(np.median(ours_s))})
