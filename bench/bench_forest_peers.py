"""
Question   How long does the forest take, for one row and per row of a batch, beside everything else that could run it?
Workload   Forests of 100 x depth 6, 300 x 6 and 600 x 8 trained on 80 features, 5 % of the values missing; no row twice.
Timed      One call per row (Python's call included), and the processor time of one call per batch; one thread, in turns.
Not timed  Training, compiling, warming up, conversion to another library's container where it can be reused.
Compare    XGBoost, tl2cgen (its Predictor, and its code called from a Numba kernel), Treelite's GTIL, ONNX Runtime; and
           LightGBM and lleaves on a LightGBM model of the same shape and rows.
Check      Ours is Booster.predict bit for bit; the others agree with their own library, before anything is timed.
           The portable and the AVX2 engine, forced, against the same peers.
Gate       gates.toml: median over rounds of how many times our time a peer takes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _models import MADE, SHAPES, Shelf, compile_c_library, make_rows, train_lightgbm, train_xgboost
from _report import hold, report
from _turns import take_turns
from peers import forests

ROUNDS = 15
ROWS_PER_ROUND = 100
BATCHES = 7
BATCH_ROWS = {"100x6": 15_000, "300x6": 8_000, "600x8": 3_000}
# tl2cgen and lleaves take minutes to compile the largest.
COMPILED = ("100x6", "300x6")


@dataclass(frozen=True)
class Forest:
    shape: str
    model: Path
    engine: str
    ours: forests.ForestPeer
    peers: dict[str, forests.ForestPeer]


@pytest.fixture(
    scope="module", params=["100x6", pytest.param("300x6", marks=pytest.mark.quick), "600x8"], ids=SHAPES.get
)
def forest(request: pytest.FixtureRequest, shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Forest:
    return _forest(request.param, shelf, tmp_path_factory.mktemp("forest"))


def _forest(shape: str, shelf: Shelf, directory: Path) -> Forest:
    import lightgbm
    import xgboost

    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.model.artefact import load_artefact

    model = train_xgboost(shelf, shape)
    booster = xgboost.Booster(model_file=bytearray(model))
    booster.set_param({"nthread": 1})
    compile_model(model, directory / "table", name="bench", **MADE)
    ours = load_artefact(directory / "table")
    ours.warm_up()
    light = train_lightgbm(shelf, shape)
    light_booster = lightgbm.Booster(model_file=str(light))

    theirs = {
        "ONNX Runtime": forests.onnx_runtime(booster),
        "Treelite GTIL": forests.treelite_gtil(directory / "table" / "model.ubj"),
        "XGBoost inplace_predict": forests.xgboost_inplace(booster),
    }
    of_lightgbm = {"LightGBM predict": forests.lightgbm_predict(light_booster)}
    if shape in COMPILED:
        library = compile_c_library(shelf, model, directory)
        theirs["tl2cgen, called from a kernel"] = forests.tl2cgen_direct(library)
        theirs["tl2cgen Predictor"] = forests.tl2cgen_predictor(library, np.float32(ours.manifest.base_margin))
        of_lightgbm["LightGBM + lleaves"] = forests.lleaves_predict(shelf, light)

    rows = make_rows(2_000, 9)
    expected = booster.predict(xgboost.DMatrix(rows), output_margin=True)
    assert expected.tobytes() == ours.margins(rows).tobytes()
    assert expected[:50].tobytes() == np.array([ours.margin(row) for row in rows[:50]], np.float32).tobytes()
    for peer in theirs.values():
        peer.check(rows, expected)
    of_light = light_booster.predict(rows, raw_score=True, num_threads=1)
    for peer in of_lightgbm.values():
        peer.check(rows, of_light)
    own = forests.ForestPeer(lambda row: ours.margin(row[0]), ours.margins)
    return Forest(shape, directory / "table", ours.engine, own, theirs | of_lightgbm)


def test_one_row_is_faster_than_every_other_way_to_run_the_forest(benchmark: Any, forest: Forest) -> None:
    rows = make_rows(ROUNDS * ROWS_PER_ROUND, 10)
    work = [[rows[k : k + 1] for k in range(r, len(rows), ROUNDS)] for r in range(ROUNDS)]

    turns = take_turns(benchmark, {"fraudsdk": forest.ours.one, **_each(forest, "one")}, work)

    question = f"forest, one row, {forest.shape}"
    report(question, turns.figures())
    hold(question, turns.ratios(), gates_of=_gates_of(question, forest))


@pytest.mark.parametrize("engine", ["portable", "avx2"])
def test_one_row_by_the_engines_of_other_cpus(benchmark: Any, forest: Forest, engine: str) -> None:
    from fraudsdk.model.artefact import load_artefact
    from fraudsdk.model.engine import available_engines

    if engine not in available_engines():
        pytest.skip(f"this CPU has no {engine}")
    forced = load_artefact(forest.model, engine=engine)
    rows = make_rows(ROUNDS * ROWS_PER_ROUND, 11)
    assert forced.margins(rows).tobytes() == np.asarray(forest.ours.many(rows)).tobytes()
    work = [[rows[k : k + 1] for k in range(r, len(rows), ROUNDS)] for r in range(ROUNDS)]

    contestants = {f"fraudsdk, {engine}": lambda row: forced.margin(row[0]), **_each(forest, "one")}
    turns = take_turns(benchmark, contestants, work)

    question = f"forest, one row, {forest.shape}, {engine} engine"
    report(question, turns.figures())
    hold(question, turns.ratios(), gates_of=f"forest, one row, {forest.shape}, portable engine")


def test_a_batch_is_faster_than_every_other_way_to_run_the_forest(benchmark: Any, forest: Forest) -> None:
    n_rows = BATCH_ROWS[forest.shape]
    work = [[make_rows(n_rows, 20 + k)] for k in range(BATCHES)]

    contestants = {"fraudsdk": forest.ours.many, **_each(forest, "many")}
    turns = take_turns(benchmark, contestants, work, warm=False, clock=time.process_time_ns)

    question = f"forest, per row of a batch, {forest.shape}"
    report(question, turns.figures(n_rows))
    hold(question, turns.ratios(), gates_of=_gates_of(question, forest))


def _gates_of(question: str, forest: Forest) -> str:
    """Where the CPU has no AVX-512, what the portable engine must hold."""
    return question if forest.engine == "avx512" else f"{question}, portable engine"


def _each(forest: Forest, how: str) -> dict[str, Any]:
    return {name: getattr(peer, how) for name, peer in forest.peers.items()}
