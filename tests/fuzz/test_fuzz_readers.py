"""
Readers of kept state and of messages under a fuzzer that follows coverage: a bounded run of each, and readers with a hole,
which it finds.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SEED = 20261124
RUNS = {"parts": 40_000, "log": 30_000, "snapshot": 3_000, "wire": 6_000}
HANGS_AFTER_S = 20


@pytest.fixture(autouse=True)
def _there_is_a_fuzzer():
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("atheris is not installed, and the gate needs it: uv sync")
        pytest.skip("atheris is not installed: it has wheels for Linux on x86-64 alone")


def fuzz(tmp_path, *arguments, runs) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a reader of native code may end it."""
    paths = [str(ROOT), str(ROOT / "tests/parity"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [
            *(sys.executable, str(HERE / "fuzz_readers.py"), *arguments, str(tmp_path / "corpus")),
            # A child's peak of memory is at first that of its parent, whose tests may have had more than is allowed here.
            "-rss_limit_mb=0",
            *(f"-runs={runs}", f"-seed={SEED}", f"-timeout={HANGS_AFTER_S}", f"-artifact_prefix={tmp_path}/"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("reader", list(RUNS))
def test_no_input_breaks_a_promise_of_a_reader(tmp_path, reader):
    ran = fuzz(tmp_path, reader, runs=RUNS[reader])

    assert 0 == ran.returncode, ran.stderr[-4_000:]
    assert f"Done {RUNS[reader]} runs" in ran.stderr


@pytest.mark.parametrize(
    ("reader", "check"),
    [
        ("parts", "soundness of parts"),
        ("log", "layout of transactions"),
        ("snapshot", "soundness of snapshots"),
        ("wire", "lengths of messages"),
    ],
)
def test_a_reader_without_a_check_is_found_out(tmp_path, reader, check):
    ran = fuzz(tmp_path, reader, "--without", check, runs=40_000)

    assert 0 != ran.returncode, f"it was not found out: {ran.stderr[-1_000:]}"
    assert list(tmp_path.glob("crash-*")), ran.stderr[-4_000:]
