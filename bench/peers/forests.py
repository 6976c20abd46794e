"""
Other ways to run a forest on one thread.

Each takes ``float32[n, 80]`` rows and gives margins; `as_margins` says how to read what it gives.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _models import N_FEATURES, Shelf

Scores = Callable[[np.ndarray], Any]


@dataclass(frozen=True, slots=True)
class ForestPeer:
    """
    Attributes
    ----------
    one, many : callable
        Score a 1-row array, and a batch.
    as_margins : callable
        What `many` gave -> margins.
    tolerance : float
        Largest difference to the margins of the model's own library.
    """

    one: Scores
    many: Scores
    as_margins: Callable[[Any], np.ndarray] = np.ravel
    tolerance: float = 1e-4

    def check(self, rows: np.ndarray, expected: np.ndarray) -> None:
        """Equal answers, one by one and as a batch."""
        np.testing.assert_allclose(self.as_margins(self.many(rows)), expected, atol=self.tolerance, rtol=0)
        for k in range(20):
            given = self.as_margins(self.one(rows[k : k + 1]))
            np.testing.assert_allclose(given, expected[k : k + 1], atol=self.tolerance, rtol=0)


def xgboost_inplace(booster: Any) -> ForestPeer:
    def predict(rows: np.ndarray) -> Any:
        return booster.inplace_predict(rows, predict_type="margin")

    return ForestPeer(predict, predict)


def treelite_gtil(model_file: Path) -> ForestPeer:
    import treelite

    model = treelite.frontend.load_xgboost_model(str(model_file), format_choice="ubjson")

    def predict(rows: np.ndarray) -> Any:
        return treelite.gtil.predict(model, rows, nthread=1, pred_margin=True)

    return ForestPeer(predict, predict)


def tl2cgen_predictor(library: Path, base_margin: np.float32) -> ForestPeer:
    import tl2cgen

    predictor = tl2cgen.Predictor(str(library), nthread=1)

    def predict(rows: np.ndarray) -> Any:
        return predictor.predict(tl2cgen.DMatrix(rows), pred_margin=True)

    # The library adds to the base margin that its wrapper starts from, and Predictor goes past the wrapper.
    return ForestPeer(predict, predict, as_margins=lambda given: given.ravel() + base_margin)


def tl2cgen_direct(library: Path) -> ForestPeer:
    """The same library called from a Numba kernel: no Python between the call and the trees."""
    import numba

    margins = ctypes.CDLL(str(library)).fraudsdk_model_margins
    margins.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    margins.restype = None

    @numba.njit("void(float32[:, ::1], float32[::1])", nogil=True)
    def call(rows, out):
        margins(rows.ctypes, rows.shape[0], out.ctypes)

    answer = np.zeros(1, np.float32)

    def one(row: np.ndarray) -> np.ndarray:
        call(row, answer)
        return answer

    def many(rows: np.ndarray) -> np.ndarray:
        answers = np.empty(len(rows), np.float32)
        call(rows, answers)
        return answers

    return ForestPeer(one, many)


def onnx_runtime(booster: Any) -> ForestPeer:
    import onnxruntime
    from onnxmltools import convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType

    graph = convert_xgboost(booster, initial_types=[("rows", FloatTensorType([None, N_FEATURES]))])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [session.get_outputs()[1].name]

    def predict(rows: np.ndarray) -> Any:
        return session.run(outputs, {"rows": rows})[0]

    def as_margins(given: Any) -> np.ndarray:
        probability = given[:, 1].astype(np.float64)
        return np.log(probability / (1 - probability))

    # It gives probabilities only, in float32: what is left of a margin after the way there and back.
    return ForestPeer(predict, predict, as_margins, tolerance=1e-3)


def lightgbm_predict(booster: Any) -> ForestPeer:
    def predict(rows: np.ndarray) -> Any:
        return booster.predict(rows, raw_score=True, num_threads=1)

    return ForestPeer(predict, predict)


def lleaves_predict(shelf: Shelf, model_file: Path) -> ForestPeer:
    """LightGBM's model compiled by lleaves; the machine code is kept, as making it takes 5 to 20 s."""
    import lleaves

    def compile_to(path: Path | None, cached: Path | None = None) -> Any:
        model = lleaves.Model(model_file=str(model_file))
        with (
            mock.patch("lleaves.compiler.compile_to_module", _lleaves_module),
            # LLVM needs no initialising since llvmlite 0.45, which refuses the call.
            mock.patch("lleaves.llvm_binding.llvm.initialize"),
        ):
            model.compile(cache=str(cached or path), raw_score=True)
        return model

    recipe = {
        "model": hashlib.sha256(model_file.read_bytes()).hexdigest(),
        "lleaves": version("lleaves"),
        "llvmlite": version("llvmlite"),
        "machine": _host(),
    }
    library = shelf.file("lleaves.o", recipe, compile_to)
    model = compile_to(None, cached=library)

    def one(row: np.ndarray) -> Any:
        return model.predict(row.astype(np.float64), n_jobs=1)

    return ForestPeer(one, one)


def _host() -> str:
    import llvmlite.binding as llvm

    return f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"


def _lleaves_module(
    file_path: str,
    fblocksize: int = 34,
    finline: bool = True,
    raw_score: bool = False,
    froot_func_name: str = "forest_root",
    use_fp64: bool = True,
) -> Any:
    """
    `lleaves.compiler.compile_to_module` for the pass manager of today's LLVM.

    Lleaves 1.3 still asks for the one that llvmlite 0.45 took out (siboehm/lleaves#95).  The code it generates, the
    optimisation level and the inlining threshold are its own.
    """
    import llvmlite.binding as llvm
    import llvmlite.ir
    from lleaves.compiler.ast import parse_to_ast
    from lleaves.compiler.codegen import gen_forest
    from lleaves.llvm_binding import _get_target_machine

    forest = parse_to_ast(file_path)
    forest.raw_score = raw_score
    code = llvmlite.ir.Module(name="forest")
    gen_forest(forest, code, fblocksize, froot_func_name, use_fp64)
    code.triple = llvm.get_process_triple()
    module = llvm.parse_assembly(str(code))
    module.verify()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    if finline:
        tuning.inlining_threshold = 1
    builder = llvm.create_pass_builder(_get_target_machine(), tuning)
    builder.getModulePassManager().run(module, builder)
    return module
