"""
The command line is quick to start, and every command says what it wants.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from fraudsdk.cli import main

COMMANDS = (
    "demo",
    "simulate",
    "replay",
    "train",
    "compile",
    "evaluate",
    "score",
    "explain",
    "sidecar",
    "state",
    "warmup",
    "doctor",
)
HEAVY = ("numba", "llvmlite", "pyarrow", "xgboost", "treelite", "sklearn", "matplotlib", "pandas", "tqdm")


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["score"]], ids=" ".join)
def test_help_and_usage_errors_load_nothing_heavy(argv):
    """
    Seconds of imports are for those who asked for work.
    """
    program = (
        "import sys\n"
        "from fraudsdk.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, check=True)

    assert "[]" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(command, capsys):
    with pytest.raises(SystemExit) as exited:
        main([command, "--help"])

    assert 0 == exited.value.code
    assert f"Example:\n  fraudsdk {command}" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out

    assert [] == [command for command in COMMANDS if f"    {command}" not in shown]


def test_the_module_runs_like_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "fraudsdk.cli", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout.startswith("fraudsdk ")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: COMMAND"),
        (["rob-a-bank"], "invalid choice: 'rob-a-bank'"),
        (["train", "data.csv"], "required: --out"),
        (["simulate", "--out", "x.csv", "--transactions", "many"], "invalid int value: 'many'"),
        (["compile", "model.ubj", "--out", "m", "--backend", "java"], "invalid choice: 'java'"),
        (["score", "data.csv", "--out", "x.csv"], "required: --model"),
    ],
)
def test_a_usage_error_is_one_line_that_points_to_the_help(argv, said, capsys):
    with pytest.raises(SystemExit) as exited:
        main(argv)
    complaint = capsys.readouterr().err

    assert 2 == exited.value.code
    assert 1 == len(complaint.splitlines())
    assert said in complaint
    assert complaint.rstrip().endswith("--help")
