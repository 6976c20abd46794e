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


@pytest.mark.parametrize(("stream", "is_drawn"), [(Terminal(), True), (io.StringIO(), False)], ids=["terminal", "pipe"])
def test_a_bar_is_drawn_on_a_terminal_and_nothing_in_a_pipe(stream, is_drawn, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with counting("replay", 100) as progress:
        progress(40)
        progress(100)

    assert is_drawn == ("replay" in stream.getvalue())
    assert is_drawn or "" == stream.getvalue()
