"""
Files that appear whole or not at all.
"""

from __future__ import annotations

import pytest

from fraudsdk.training.files import written_whole


def test_a_file_appears_when_it_is_finished(tmp_path):
    path = tmp_path / "figures.json"
    with written_whole(path) as aside:
        aside.write_text("{}")

        assert not path.exists()

    assert ["figures.json"] == [each.name for each in tmp_path.iterdir()]


def _half_write(path):
    with written_whole(path) as aside:
        aside.write_text("half")
        raise OSError("the disk is full")


def test_what_fails_leaves_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "figures.json"
    path.write_text("earlier")
    with pytest.raises(OSError, match="full"):
        _half_write(path)

    assert "earlier" == path.read_text()
    assert ["figures.json"] == [each.name for each in tmp_path.iterdir()]


def test_the_place_aside_has_the_ending_of_the_file(tmp_path):
    with written_whole(tmp_path / "why.html") as aside:
        aside.write_text("")

        assert ".html" == aside.suffix
