"""What importing loads, and what may import what."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "numba",
    "llvmlite",
    "xgboost",
    "treelite",
    "tl2cgen",
    "shap",
    "pandas",
    "pyarrow",
    "sklearn",
    "matplotlib",
    "scipy",
)


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after a statement."""
    program = f"{statement}\nimport sys; print(' '.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_importing_the_package_loads_numpy_and_nothing_heavy():
    loaded = loaded_after("import fraudsdk")

    assert not loaded.intersection(HEAVY)


def test_the_words_of_the_domain_load_nothing_heavy():
    loaded = loaded_after("from fraudsdk import Transaction, Decision, Outcome, FeatureSet, ScorerConfig")

    assert not loaded.intersection(HEAVY)


def test_the_scorer_loads_a_linker_and_neither_numba_nor_a_vendor():
    """
    Numba comes when something has to be compiled: its import takes longer than loading all that was.
    """
    loaded = loaded_after("from fraudsdk import Scorer")

    assert {"llvmlite"} == loaded.intersection(HEAVY)


def test_the_command_line_loads_nothing_heavy_for_its_help():
    loaded = loaded_after("import fraudsdk.cli")

    assert not loaded.intersection(HEAVY)


def test_every_public_name_exists_and_the_rest_do_not():
    import fraudsdk

    assert all(getattr(fraudsdk, name) is not None for name in fraudsdk.__all__)
    assert {"Scorer", "Transaction", "Decision", "Outcome"} <= set(fraudsdk.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        fraudsdk.Nothing  # noqa: B018


def test_the_import_contracts_hold(request):
    """
    The same contracts that CI checks; here so that a developer sees a broken one before pushing.
    """
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stdout + done.stderr


def test_a_planted_vendor_import_is_reported(request, tmp_path):
    """
    Negative control: a contract that cannot fail is none.
    """
    import shutil

    root = request.config.rootpath
    shutil.copytree(root / "fraudsdk", tmp_path / "fraudsdk", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    with (tmp_path / "fraudsdk" / "policy" / "bands.py").open("a") as planted:
        planted.write("\nimport xgboost\nfrom fraudsdk import scorer\n")

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 != done.returncode
    assert "fraudsdk.policy.bands -> xgboost" in done.stdout
    assert "fraudsdk.policy.bands -> fraudsdk.scorer" in done.stdout
