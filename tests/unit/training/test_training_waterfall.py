from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudsdk.errors import ConfigurationError
from fraudsdk.training import waterfall

pytest.importorskip("matplotlib")

NAMES = [f"Feature {i}" for i in range(15)]
CONTRIBUTIONS = [(-1) ** i * 2.0 / (i + 1) for i in range(15)]
VALUES = [float(i) for i in range(14)] + [math.nan]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(-8, 8), st.integers(1, 12))
def test_what_is_shown_always_adds_up_to_the_margin(contributions, base, n_shown):
    names, values = ["x"] * len(contributions), [0.0] * len(contributions)
    steps = waterfall._steps(contributions, base, names, values, n_shown)

    assert base + math.fsum(contributions) == pytest.approx(steps[-1].end, abs=1e-9)
    assert len(steps) <= n_shown + 1


def test_the_heaviest_come_first_and_the_rest_are_counted():
    steps = waterfall._steps(CONTRIBUTIONS, -4.0, NAMES, VALUES, 10)

    assert NAMES[:10] == [step.label for step in steps[:-1]]
    assert "5 other features" == steps[-1].label


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "missing"), (3.0, "3"), (1234.5678, "1,234.57"), (0.25, "0.25"), ("ecom", "ecom"), (math.inf, "inf")],
)
def test_values_are_written_for_readers(value, text):
    assert text == waterfall._value_text(value)


def test_the_picture_is_a_png(tmp_path: Path):
    waterfall.waterfall_png(CONTRIBUTIONS, -4.0, NAMES, VALUES, tmp_path / "w.png", "Declined", score=0.93)

    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_the_page_lists_every_feature_and_fetches_nothing(tmp_path: Path):
    waterfall.waterfall_html(CONTRIBUTIONS, -4.0, NAMES, VALUES, tmp_path / "w.html", "Declined", score=0.93)
    page = (tmp_path / "w.html").read_text(encoding="utf-8")

    assert set(NAMES) <= set(re.findall(r'<th scope="row">([^<]+)</th>', page))
    assert "score of 93.0%" in page
    assert "<script" not in page and "http:" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)


def test_a_name_from_outside_is_text(tmp_path: Path):
    waterfall.waterfall_html([1.0], 0.0, ["<img src=x>"], [1.0], tmp_path / "w.html", "<b>")

    assert "<img" not in (tmp_path / "w.html").read_text(encoding="utf-8")


def test_contributions_that_still_hold_the_base_are_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="without the base"):
        waterfall.waterfall_png([1.0, -4.0], -4.0, ["x"], [1.0], tmp_path / "w.png", "")
