"""No figure of the documentation was typed by hand, and every gate belongs to a question."""

from __future__ import annotations

import json
import re

import pytest
import tables


@pytest.fixture(scope="module")
def tracked():
    """The one file of results that is kept, besides that of before."""
    (path,) = tables.RESULTS.glob("2*.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def before():
    return json.loads(tables.BEFORE.read_text(encoding="utf-8"))


def between(path, name):
    return re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", path.read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_tables_are_those_of_the_tracked_results(tracked, before):
    assert tables.targets_table(tracked, before) == between(tables.PERFORMANCE, "targets")
    assert tables.question_tables(tracked) == between(tables.PERFORMANCE, "figures")
    assert tables.environment_line(tracked) == between(tables.PERFORMANCE, "environment")
    assert tables.readme_table(tracked) == between(tables.README, "figures")


def test_the_tracked_results_hold_today_s_gates(tracked):
    """
    A question that is newer than the results waits for the next `make bench`; one that is gone must leave them.  An engine
    without AVX-512 is judged by what is due of the portable one.
    """
    gates = tables.gates()
    judged = {
        question.replace("avx2 engine", "portable engine"): found["ratios"]
        for question, found in tracked["results"].items()
        if "ratios" in found
    }

    assert judged.keys() <= gates.keys()
    for question, ratios in judged.items():
        assert all(ratios[peer] >= least for peer, least in gates[question].items()), question


def test_pictures_are_there_and_shown():
    text = tables.README.read_text(encoding="utf-8")

    for name in ("peers.svg", "stages.svg"):
        assert f"docs/images/{name}" in text
        assert (tables.PICTURES / name).read_text(encoding="utf-8").startswith("<?xml")


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no markers\n")

    with pytest.raises(ValueError, match="has no markers figures"):
        tables.fill(page, {"figures": "1"})


def test_only_what_stands_between_the_markers_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- figures -->\nold\n<!-- /figures -->\nbelow\n")

    tables.fill(page, {"figures": r"new \1"})

    assert "above\n<!-- figures -->\nnew \\1\n<!-- /figures -->\nbelow\n" == page.read_text()
