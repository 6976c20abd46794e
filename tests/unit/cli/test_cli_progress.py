"""
Progress is for people who watch.
"""

from __future__ import annotations

import io
import sys

import pytest

from fraudsdk.cli.progress import counting


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(params=[Terminal, io.StringIO])
def stderr(request, monkeypatch):
    stream = request.param()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def test_a_bar_is_drawn_on_a_terminal_and_nothing_in_a_pipe(stderr):
    with counting("replay", 100) as progress:
        progress(40)
        progress(100)

    assert stderr.isatty() == ("replay" in stderr.getvalue())
    assert stderr.isatty() or "" == stderr.getvalue()
