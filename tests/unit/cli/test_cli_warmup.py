"""
`warmup` leaves nothing for a start to compile, says what it did, and does it once.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from fraudsdk._jit import kernel
from fraudsdk._kernel_cache import KernelCache
from fraudsdk.cli import kernels, main
from fraudsdk.cli.commands import doctor


def twice(value):
    return value * 2


@pytest.fixture
def only(monkeypatch):
    """One kernel in place of all: the real ones take a minute."""
    tiny = kernel("int64(int64)")(twice)
    monkeypatch.setattr(kernels, "all_kernels", lambda: [tiny])
    return tiny


def test_what_warmup_kept_is_loaded_by_a_start_and_compiled_once(only, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "image" / "kernels"

    assert 0 == main(["warmup", "--cache-dir", str(folder)])
    first = capsys.readouterr().out
    assert 0 == main(["warmup", "--cache-dir", str(folder)])
    second = capsys.readouterr().out

    assert f"{__name__}" in first and "1 compiled in" in first
    assert "1 already there" in second and "compiled" not in second
    assert "1 kernels for" in first and str(folder) in first
    monkeypatch.setenv("FRAUDSDK_CACHE_DIR", str(folder))
    assert not only.warm_up().compiled
    assert 4 == only(2)


@pytest.mark.parametrize("level", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_every_level_of_a_fleet_can_be_compiled_for_on_any_machine(only, tmp_path, level, capsys):
    assert 0 == main(["warmup", "--cache-dir", str(tmp_path / "kernels"), "--cpu", level])
    assert f"1 kernels for {level} in" in capsys.readouterr().out


COMPILE_FOR_ALL = """
from fraudsdk._loader import PORTABLE_LEVELS, named_target
from fraudsdk.cli.kernels import all_kernels

of_models = [each for each in all_kernels() if each.name.startswith("fraudsdk.model.")]
for level in PORTABLE_LEVELS:
    for kernel in of_models:
        if not kernel.name.endswith(".margins"):  # what they do is done by `margin` as well, and takes four times as long
            kernel.compile(named_target(level, kernel.needs))
            print(level, kernel.name)
"""


@pytest.mark.parametrize("builder", ["this", "without vectors"])
def test_forests_and_explanations_are_compiled_for_every_level_whatever_the_builder_is(builder, plain_cpu):
    """
    LLVM ends the process when it is asked for an instruction that the target lacks.
    """
    program = (plain_cpu if builder == "without vectors" else "") + COMPILE_FOR_ALL
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    compiled = done.stdout.splitlines()

    assert 0 == done.returncode, done.stderr
    for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        for module in ("avx512", "avx2", "kernels"):
            assert f"{level} fraudsdk.model.{module}.margin" in compiled
        for module in ("shap_avx512", "shap_portable"):
            assert f"{level} fraudsdk.model.{module}.contributions" in compiled


def test_a_folder_that_cannot_be_written_is_said_in_one_sentence(only, tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert 2 == main(["warmup", "--cache-dir", str(tmp_path / "file" / "kernels")])
    assert "could not be kept" in capsys.readouterr().err


def test_a_folder_that_others_may_write_is_refused(only, tmp_path, capsys):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)

    assert 2 == main(["warmup", "--cache-dir", str(tmp_path / "shared")])
    assert "may be written by others" in capsys.readouterr().err


def test_all_kernels_are_those_that_a_scorer_needs_and_more():
    names = {each.name for each in kernels.all_kernels()}

    assert {
        "fraudsdk.features.kernels.score_one",
        "fraudsdk.model.kernels.margin",
        "fraudsdk._ticks.read_ticks",
    } <= names


def test_the_doctor_says_that_every_process_compiles_anew_and_why(only, tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    monkeypatch.setenv("FRAUDSDK_CACHE_DIR", str(tmp_path / "shared"))
    monkeypatch.setattr(doctor, "_warmed", lambda: [only.warm_up()])

    [problem] = [each for each in doctor._kernels() if each.about == "kernel cache"]

    assert doctor.PROBLEM == problem.level
    assert "may be written by others" in problem.found


def test_the_doctor_takes_a_complete_cache_that_is_read_only_for_what_it_is(only, tmp_path, monkeypatch):
    folder = tmp_path / "kernels"
    main(["warmup", "--cache-dir", str(folder)])
    monkeypatch.setenv("FRAUDSDK_CACHE_DIR", str(folder))
    monkeypatch.setattr(KernelCache, "problem", lambda self: "not writable")
    monkeypatch.setattr(doctor, "_warmed", lambda: [only.warm_up()])

    [finding] = [each for each in doctor._kernels() if each.about == "kernel cache"]

    assert (doctor.OK, f"{folder}, complete and read only") == (finding.level, finding.found)
