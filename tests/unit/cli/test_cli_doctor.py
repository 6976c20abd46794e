"""
The doctor sees what is there, and says what is wrong.
"""

from __future__ import annotations

import pytest

from fraudsdk.cli import main
from fraudsdk.cli.commands import doctor


@pytest.fixture(autouse=True)
def _few_probes(monkeypatch):
    monkeypatch.setattr(doctor, "N_PROBES", 50)


def test_a_healthy_machine_gets_exit_code_0_and_every_heading(capsys):
    code, said = main(["doctor"]), capsys.readouterr().out
    headings = ("python", "core", "cpu", "extra train", "C compiler", "kernels", "kernel cache", "speed")

    assert 0 == code
    assert [] == [heading for heading in headings if f" {heading} " not in said]


def test_a_model_that_is_not_there_is_a_problem(capsys, tmp_path):
    assert 1 == main(["doctor", "--model", str(tmp_path / "nothing")])
    assert "PROBLEM  model" in capsys.readouterr().out


def test_disabled_compilation_is_a_problem(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")

    assert [doctor.PROBLEM] == [finding.level for finding in doctor._environment()]


def test_a_clock_of_the_last_century_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.time, "time", lambda: 800_000_000.0)

    assert ["clock"] == [finding.about for finding in doctor._environment()]


def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "treelite" else version(package))

    [finding] = [finding for finding in doctor._extras() if finding.about == "extra train"]
    assert (doctor.NOTE, "lacks treelite: pip install 'fraudsdk[train]'") == (finding.level, finding.found)
