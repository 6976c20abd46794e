"""
Question   How long does the forest alone take, for one row and per row of a batch, against everything else that could run it?
Workload   100 and 300 trees of depth 6 on 80 features, 5 % of the values missing, seed 7; rows never repeat in a round.
Timed      One call per row (a Python call included), and one call per 10,000 rows; one thread.
Not timed  Training, compiling, warming up, conversion to another library's own container where it can be reused.
Compare    XGBoost inplace_predict, tl2cgen's Predictor, the C library called directly, ONNX Runtime, Treelite's GTIL; in
           turns, in the same process, so that a busy minute hits all alike.
Check      Ours equals Booster.predict bit for bit, the others agree to 1e-4 (ONNX, which gives probabilities only, to 1e-3 of
           the margin), before anything is timed.
Gate       One row: p50 below every peer's.  Batch: p50 below XGBoost's.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _report import percentiles, report

N_FEATURES = 80
ROUNDS = 5
ROWS_PER_ROUND = 600
BATCH_ROWS = 10_000
BATCHES = 7

Scores = Callable[[np.ndarray], Any]


def make_rows(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, N_FEATURES)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.05] = np.nan
    return rows


def train(n_trees: int) -> Any:
    import xgboost

    rows = make_rows(20_000, 7)
    known = np.nan_to_num(rows)
    signal = (
        known[:, 0] * known[:, 1]
        + known[:, 2]
        + np.sin(2 * known[:, 3])
        + known[:, 4:20].sum(axis=1) * known[:, 20] / 2
    )
    labels = (signal + np.random.default_rng(8).normal(size=len(rows)) > 2).astype(np.float32)
    settings = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "base_score": 0.1, "nthread": 1}
    return xgboost.train(settings, xgboost.DMatrix(rows, labels), n_trees)


def contestants(n_trees: int, directory: Path) -> tuple[dict[str, Scores], dict[str, Scores], np.ndarray]:
    """Scorers of one row (as a 1-row array) and of a batch, by name, ours first; and rows on which they agree."""
    import onnxruntime
    import tl2cgen
    import treelite
    import xgboost
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.model.artefact import load_artefact

    booster = train(n_trees)
    made = {"name": "bench", "version": "1", "created_at": "2026-11-24T00:00:00Z"}
    for backend in ("table", "c"):
        compile_model(bytes(booster.save_raw("ubj")), directory / backend, **made, backend=backend)  # type: ignore[arg-type]
    ours, c = load_artefact(directory / "table"), load_artefact(directory / "c")
    predictor = tl2cgen.Predictor(str(directory / "c" / "model.so"), nthread=1)
    gtil = treelite.frontend.load_xgboost_model(str(directory / "c" / "model.ubj"), format_choice="ubjson")
    onnx = convert_xgboost(booster, initial_types=[("rows", FloatTensorType([None, N_FEATURES]))])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [session.get_outputs()[1].name]

    def by_onnx(rows: np.ndarray) -> Any:
        return session.run(outputs, {"rows": rows})[0]

    def by_tl2cgen(rows: np.ndarray) -> Any:
        return predictor.predict(tl2cgen.DMatrix(rows), pred_margin=True)

    def by_gtil(rows: np.ndarray) -> Any:
        return treelite.gtil.predict(gtil, rows, nthread=1, pred_margin=True)

    def by_xgboost(rows: np.ndarray) -> Any:
        return booster.inplace_predict(rows, predict_type="margin")

    one = {
        "fraudsdk": lambda rows: ours.margin(rows[0]),
        "C library, direct": lambda rows: c.margin(rows[0]),
        "tl2cgen Predictor": by_tl2cgen,
        "ONNX Runtime": by_onnx,
        "Treelite GTIL": by_gtil,
        "XGBoost inplace_predict": by_xgboost,
    }
    batch = {
        "fraudsdk": ours.margins,
        "C library, direct": c.margins,
        "tl2cgen Predictor": by_tl2cgen,
        "ONNX Runtime": by_onnx,
        "Treelite GTIL": by_gtil,
        "XGBoost inplace_predict": by_xgboost,
    }
    rows = make_rows(2_000, 9)
    expected = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    base = np.float32(ours.manifest.base_margin)
    assert expected.tobytes() == ours.margins(rows).tobytes()
    for name in batch:
        got = np.asarray(batch[name](rows))
        if name == "ONNX Runtime":
            probability = got[:, 1].astype(np.float64)
            got = np.log(probability / (1 - probability))
        elif name == "tl2cgen Predictor":
            got = got.ravel() + base  # the library starts from the base margin of its wrapper, which Predictor bypasses
        np.testing.assert_allclose(got.ravel(), expected, atol=1e-3 if name == "ONNX Runtime" else 1e-4, err_msg=name)
    return one, batch, rows


@pytest.fixture(scope="module", params=[100, 300])
def forest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    for package in ("onnxruntime", "onnxmltools", "tl2cgen", "treelite", "xgboost"):
        pytest.importorskip(package)
    return request.param, *contestants(request.param, tmp_path_factory.mktemp("forest"))


def in_turns(scorers: dict[str, Scores], work: list[list[np.ndarray]]) -> dict[str, np.ndarray]:
    """Nanoseconds per call; in each round every scorer gets the same arrays, one after another."""
    elapsed: dict[str, list[int]] = {name: [] for name in scorers}
    gc.collect()
    gc.disable()
    try:
        for arrays in work:
            for name, score in scorers.items():
                score(arrays[0])
                for rows in arrays:
                    started = time.perf_counter_ns()
                    score(rows)
                    elapsed[name].append(time.perf_counter_ns() - started)
    finally:
        gc.enable()
    return {name: np.array(values, np.float64) for name, values in elapsed.items()}


def with_ratios(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    ours = figures["fraudsdk"]["p50_us"]
    return {name: {**values, "times ours": values["p50_us"] / ours} for name, values in figures.items()}


def test_one_row_is_faster_than_every_other_way_to_run_the_forest(forest: Any) -> None:
    n_trees, one, _, _ = forest
    rows = make_rows(ROUNDS * ROWS_PER_ROUND, 10)
    work = [[rows[k : k + 1] for k in range(r, len(rows), ROUNDS)] for r in range(ROUNDS)]

    figures = with_ratios({name: percentiles(ns) for name, ns in in_turns(one, work).items()})

    report(f"forest, one row, {n_trees} trees of depth 6", figures)
    assert all(
        figures["fraudsdk"]["p50_us"] < values["p50_us"] for name, values in figures.items() if name != "fraudsdk"
    )


def test_a_batch_is_faster_than_xgboost(forest: Any) -> None:
    n_trees, _, batch, _ = forest
    work = [[make_rows(BATCH_ROWS, 20 + k)] for k in range(BATCHES)]

    per_row = {name: percentiles(ns / BATCH_ROWS) for name, ns in in_turns(batch, work).items()}
    figures = with_ratios(per_row)

    report(f"forest, per row of a batch, {n_trees} trees of depth 6", figures)
    assert figures["fraudsdk"]["p50_us"] < figures["XGBoost inplace_predict"]["p50_us"]
