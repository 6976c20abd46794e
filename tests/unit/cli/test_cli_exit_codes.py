"""
What a command's failure looks like from outside.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from fraudsdk.cli import app, main
from fraudsdk.errors import ConfigurationError


@pytest.fixture
def failing(monkeypatch):
    """Make ``fraudsdk simulate`` raise what it is given."""

    def fail_with(error: BaseException) -> None:
        def run(args):
            raise error

        monkeypatch.setattr(app.simulate, "run", run)

    return fail_with


SIMULATE = ["simulate", "--out", "unused.parquet"]


def test_a_users_mistake_is_one_sentence_and_exit_code_2(failing, capsys):
    failing(ConfigurationError("the moon is full,\n was full; wait"))

    assert 2 == main(SIMULATE)
    assert "fraudsdk simulate: the moon is full, was full; wait\n" == capsys.readouterr().err


def test_a_file_that_cannot_be_opened_is_a_users_mistake(failing, capsys):
    failing(PermissionError(13, "Permission denied", "/etc/shadow"))

    assert 2 == main(SIMULATE)
    assert "/etc/shadow: Permission denied" in capsys.readouterr().err


def test_our_own_mistake_is_one_line_and_exit_code_70(failing, capsys):
    failing(KeyError("4111111111111111"))
    code, complaint = main(SIMULATE), capsys.readouterr().err

    assert 70 == code
    assert 1 == len(complaint.splitlines())
    assert "internal error, KeyError; run again with --debug" in complaint
    # What a library puts into its message is anybody's guess.
    assert "4111" not in complaint


@pytest.mark.parametrize("argv", [["--debug", *SIMULATE], [*SIMULATE, "--debug"]], ids=["in front", "behind"])
def test_debug_prints_the_traceback(argv, failing, capsys):
    failing(KeyError("x"))

    assert 70 == main(argv)
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_ends_quietly_with_130(failing, capsys):
    failing(KeyboardInterrupt())

    assert 130 == main(SIMULATE)
    assert "" == capsys.readouterr().err


def test_a_reader_who_goes_away_is_no_error():
    """
    As in ``fraudsdk evaluate ... | head -1``.
    """
    program = (
        "import sys\n"
        "from fraudsdk.cli import app\n"
        "def run(args):\n"
        "    for _ in range(100_000): print('x' * 100)\n"
        "app.simulate.run = run\n"
        "sys.exit(app.main(['simulate', '--out', 'unused.parquet']))"
    )
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    complaint = writer.stderr.read()
    writer.stderr.close()

    assert (141, b"") == (writer.wait(timeout=60), complaint)
