"""
Starting: the first time, the next time, many at once, and where nothing can be kept.

A tiny kernel stands for all: every kernel goes the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KERNEL = """
from fraudsdk._jit import kernel

@kernel("float64(float64[::1])")
def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
"""

START = """
import json, sys
import numpy as np
import tiny_kernels
warmed = tiny_kernels.mean.warm_up()
print(json.dumps({
    "answer": tiny_kernels.mean(np.array([1.0, 2.0, 6.0])),
    "compiled": warmed.compiled,
    "not_kept_because": warmed.not_kept_because,
    "numba": "numba" in sys.modules,
}))
"""


@pytest.fixture
def host(tmp_path):
    """Where the tiny kernel lives, and what a process there starts with."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "tiny_kernels.py").write_text(KERNEL)
    return tmp_path


def launched(host: Path, program: str = START, **environment: str) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "FRAUDSDK_", "XDG_"))
    }
    paths = os.pathsep.join([str(host / "code"), str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**inherited, "PYTHONPATH": paths, "HOME": str(host), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=120)
    assert 0 == process.returncode, err
    return json.loads(out.splitlines()[-1])


def started(host: Path, **environment: str) -> dict:
    return outcome(launched(host, **environment))


def test_the_second_start_finds_what_the_first_compiled_and_does_not_import_numba(host):
    first, second = started(host), started(host)

    assert {"answer": 3.0, "compiled": True, "not_kept_because": "", "numba": True} == first
    assert {"answer": 3.0, "compiled": False, "not_kept_because": "", "numba": False} == second


def test_what_is_kept_still_runs_where_numba_is_told_not_to_compile(host):
    started(host)

    told = started(host, NUMBA_DISABLE_JIT="1")

    assert (3.0, False, False) == (told["answer"], told["compiled"], told["numba"])


def test_eight_processes_that_start_at_once_on_an_empty_cache_all_answer(host):
    cache = host / "kernels"
    outcomes = [outcome(each) for each in [launched(host, FRAUDSDK_CACHE_DIR=str(cache)) for _ in range(8)]]

    assert [3.0] * 8 == [each["answer"] for each in outcomes]
    assert [""] * 8 == [each["not_kept_because"] for each in outcomes]
    assert 1 == len(list(cache.iterdir()))  # the same bytes from each, and nothing half written
    assert not started(host, FRAUDSDK_CACHE_DIR=str(cache))["compiled"]


def test_a_process_killed_while_it_compiles_leaves_nothing_that_the_next_one_trips_over(host):
    """
    Killed in the middle of writing, between the bytes and their name.
    """
    killed = "import os, signal\nos.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)\n" + START
    process = launched(host, killed, FRAUDSDK_CACHE_DIR=str(host / "kernels"))
    process.communicate(timeout=120)

    after = started(host, FRAUDSDK_CACHE_DIR=str(host / "kernels"))

    assert 0 != process.returncode
    assert (3.0, True, "") == (after["answer"], after["compiled"], after["not_kept_because"])


def test_where_nothing_can_be_written_it_compiles_in_memory_and_says_why(host):
    """
    A file system that is read only, and a home that does not exist.
    """
    (host / "file").write_text("no folder can be made below a file")

    for environment in (
        {"FRAUDSDK_CACHE_DIR": str(host / "file" / "kernels")},
        {"HOME": "/proc/nobody" if sys.platform == "linux" else str(host / "file")},
    ):
        answered = started(host, **environment)

        assert (3.0, True) == (answered["answer"], answered["compiled"])
        assert answered["not_kept_because"]


def test_an_upgraded_kernel_is_not_served_from_yesterdays_cache(host):
    started(host)
    (host / "code" / "tiny_kernels.py").write_text(KERNEL.replace("total / len(values)", "total"))

    upgraded = started(host)

    assert (9.0, True) == (upgraded["answer"], upgraded["compiled"])


USE = """
import json, os, sys
from fraudsdk import Scorer, ScorerConfig

def sent(i, **more):
    return {"transaction_id": f"t-{i}", "card_id": f"c-{i % 7}", "user_id": f"u-{i % 5}", "merchant_id": "m-1",
            "amount": "12.50", "currency": "EUR", "event_time_us": 1_700_000_000_000_000 + i * 1_000_000, **more}

scorer = Scorer.open(ScorerConfig(model=MODEL, policy=POLICY, hash_key=b"of more than sixteen bytes",
                                  state_dir=f"{STATE}-{os.getpid()}", durability="sync"))
opened = set(sys.modules)
degraded = []
first = scorer.score(sent(0))
degraded.append(scorer.score(sent(1)).degraded)
degraded.append(scorer.score(sent(2), record=False).degraded)
degraded.append(scorer.score(sent(3, type="chargeback", original_transaction_id="t-1")).degraded)
degraded.append(scorer.score(sent(1)).degraded)
degraded += [each.degraded for each in scorer.score_batch([sent(i) for i in range(4, 40)])]
scorer.explain(sent(50))
scorer.feedback("t-1", is_fraud=True, declined=False)
scorer.close()
late = sorted(name for name in set(sys.modules) - opened)
print(json.dumps({"late": late, "numba": "numba" in sys.modules, "degraded": sum(degraded),
                  "reviewed": first.outcome.name == "REVIEW" and bool(first.reasons)}))
"""


EXPLAINS_EVERY_DECISION = """
version = 1

[bands]
review = 0.0
"""


def test_an_open_scorer_imports_and_compiles_nothing_more(artefact, host):
    """
    `Scorer.open` returns ready: whatever is asked first, no kernel and no module is still to come.
    """
    (host / "policy.toml").write_text(EXPLAINS_EVERY_DECISION)
    program = USE.replace("MODEL", repr(str(artefact))).replace("POLICY", repr(str(host / "policy.toml")))
    program = program.replace("{STATE}", str(host / "state"))
    kept = Path.home() / ".cache" if "XDG_CACHE_HOME" not in os.environ else Path(os.environ["XDG_CACHE_HOME"])
    named = {name: os.environ[name] for name in ("FRAUDSDK_CACHE_DIR", "NUMBA_CACHE_DIR") if name in os.environ}
    # The first leaves nothing to compile for the second.
    _, used = (outcome(launched(host, program, XDG_CACHE_HOME=str(kept), **named)) for _ in range(2))

    assert {"late": [], "numba": False, "degraded": 0, "reviewed": True} == used
