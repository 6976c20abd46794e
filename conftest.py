"""`pytest --benchmark`, and what tests and benchmarks share: a simulated table and a small certified artefact."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HASH_KEY = b"a key for tests only"
NOT_FIELDS = ("is_fraud", "label_time", "fraud_pattern")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--benchmark", action="store_true", help="run the latency and throughput gates in bench/")
    parser.addoption(
        "--benchmark-results",
        metavar="FOLDER",
        type=Path,
        # With "=": pytest reads the command line once before it has read this, and would take FOLDER for a test.
        help="write all figures of the run there, as <date>-<commit>.json; write --benchmark-results=FOLDER",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark") and config.args_source != pytest.Config.ArgsSource.ARGS:
        config.args[:] = [str(config.rootpath / "bench")]
        # A round of theirs is many calls of ours: their table is for the spread over rounds, `_report` prints the calls.
        config.option.benchmark_columns = ["median", "iqr", "rounds"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    folder = config.getoption("--benchmark-results")
    if folder is not None:
        from _report import write_results

        terminalreporter.write_line(f"figures written to {write_results(folder)}")


@dataclass(frozen=True)
class Simulated:
    """Columns of a simulated table, and its rows as a host would send them."""

    columns: dict[str, np.ndarray]

    @property
    def vocabulary(self) -> Any:
        from fraudsdk.encoding.vocabulary import Vocabulary

        return Vocabulary.fit(self.columns)

    def transactions(self, *rows: int) -> list[dict[str, Any]]:
        return [self._transaction(row) for row in (rows or range(len(self.columns["transaction_id"])))]

    def _transaction(self, row: int) -> dict[str, Any]:
        sent: dict[str, Any] = {}
        for name, column in self.columns.items():
            value = column[row]
            if name in NOT_FIELDS or value is None or value != value:
                continue
            if isinstance(value, np.datetime64):
                sent["event_time_us"] = int(value.astype("datetime64[us]").astype(np.int64))
            else:
                sent[name] = value.item() if isinstance(value, np.generic) else value
        return sent


@pytest.fixture(scope="session")
def hash_key() -> bytes:
    """The key that `replayed` was encoded with."""
    return HASH_KEY


@pytest.fixture(scope="session")
def simulated() -> Simulated:
    from fraudsdk.simulation import SimulationSpec, simulate

    return Simulated(simulate(SimulationSpec(transactions=15_000, users=400, days=45, fraud_rate=0.02, seed=11)))


@pytest.fixture(scope="session")
def replayed(simulated: Simulated) -> Any:
    """The simulated table, replayed with the reference features."""
    from fraudsdk.features.catalogue import reference_feature_set
    from fraudsdk.training.replay import replay

    return replay(simulated.columns, reference_feature_set("EUR"), simulated.vocabulary, hash_key=HASH_KEY)


@pytest.fixture(scope="session")
def artefact(simulated: Simulated, replayed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the simulated table, compiled and certified."""
    from fraudsdk.compiler.compile import compile_model
    from fraudsdk.model.calibration import Calibration
    from fraudsdk.policy.spec import PolicySpec
    from fraudsdk.training.split import split_by_time
    from fraudsdk.training.train import TrainParams, train

    matrix = replayed.matrix()
    model = train(matrix, split_by_time(matrix), TrainParams(num_boost_round=40, max_depth=4, max_bin=256))
    features = replayed.engine.feature_set
    out = tmp_path_factory.mktemp("models") / "small"
    compile_model(
        model.booster,
        out,
        name="small",
        version="1",
        created_at="2026-11-24T00:00:00Z",
        feature_names=features.names,
        schema_fingerprint=features.fingerprint,
        calibration=Calibration.from_dict(model.calibration),
        extra_files={
            "features.toml": features.to_toml().encode(),
            "vocabulary.json": json.dumps(simulated.vocabulary.to_dict()).encode(),
            "policy.toml": PolicySpec().to_toml().encode(),
        },
    )
    return out


@pytest.fixture(scope="session")
def plain_cpu() -> str:
    """What a program begins with that is to take this CPU for one of 2009: no AVX of any kind."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("features are named for x86-64")
    return """
import llvmlite.binding as llvm

kept = {"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "x87"}
kept |= {"cx16", "sahf", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"}
here = llvm.get_host_cpu_features()
plain = type(here)((name, has and name in kept) for name, has in here.items())
llvm.get_host_cpu_name, llvm.get_host_cpu_features = lambda: "x86-64-v2", lambda: plain
"""
