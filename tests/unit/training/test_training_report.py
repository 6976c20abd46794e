from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.training.evaluate import evaluate
from fraudsdk.training.matrix import TrainingMatrix
from fraudsdk.training.report import report_html, write_report
from fraudsdk.training.split import split_by_time
from fraudsdk.training.train import TrainedModel, TrainParams, train

pytest.importorskip("xgboost")
pytest.importorskip("matplotlib")

PICTURES = {"pr", "roc", "calibration", "gain", "histogram", "history", "shap"}


@pytest.fixture(scope="module")
def test_rows(matrix: TrainingMatrix) -> TrainingMatrix:
    return matrix.take(split_by_time(matrix).test)


@pytest.fixture(scope="module")
def model(matrix: TrainingMatrix) -> TrainedModel:
    return train(matrix, split_by_time(matrix), TrainParams(num_boost_round=20, max_depth=3, nthread=1))


def page_of(model: TrainedModel, rows: TrainingMatrix, *, title: str = "A model", simulated: bool = True) -> str:
    margin = model.margins(rows.rows)
    evaluation = evaluate(rows, model.scores(margin), margin, calibration=model.calibration, bands=model.bands)
    return report_html(rows, model, evaluation, title=title, simulated=simulated, n_explained=200)


@pytest.fixture(scope="module")
def page(model: TrainedModel, test_rows: TrainingMatrix) -> str:
    return page_of(model, test_rows)


class Elements(HTMLParser):
    """Every element with its attributes; remembers what was left open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "link", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert tag == self.open.pop()


def test_every_picture_is_there_and_is_described(page: str):
    figures = re.findall(r'<figure id="(\w+)">.*?aria-label="([^"]+)".*?(<svg.*?</svg>)', page, flags=re.DOTALL)

    assert {name for name, _, _ in figures} == PICTURES
    for _, alt, svg in figures:
        assert len(alt) > 20
        ET.fromstring(svg)


def test_the_page_is_whole_and_fetches_nothing(page: str):
    elements = Elements(page)

    assert [] == elements.open
    assert not {"script", "link", "iframe"} & {tag for tag, _ in elements.found}
    for _, attributes in elements.found:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png"))
    assert "http:" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert "https:" not in page


def test_no_id_is_used_twice(page: str):
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]

    assert len(ids) == len(set(ids))


def test_pictures_follow_the_page_s_colours(page: str):
    assert "var(--fraud)" in page
    assert "prefers-color-scheme: dark" in page


def test_simulated_data_are_called_so_and_only_they(page: str, model: TrainedModel, test_rows: TrainingMatrix):
    assert "Simulated data." in page
    assert "Simulated data." not in page_of(model, test_rows, simulated=False)


def test_the_same_model_gives_the_same_page(page: str, model: TrainedModel, test_rows: TrainingMatrix):
    assert page == page_of(model, test_rows)


def test_text_from_outside_is_text(model: TrainedModel, test_rows: TrainingMatrix):
    hostile = "<script>alert(1)</script>"
    rows = replace(test_rows, segments={hostile: np.full(len(test_rows), hostile, dtype=np.object_)})
    page = page_of(model, rows, title=hostile)

    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_the_file_is_the_page(tmp_path: Path, page: str, model: TrainedModel, test_rows: TrainingMatrix):
    margin = model.margins(test_rows.rows)
    evaluation = evaluate(test_rows, model.scores(margin), margin, calibration=model.calibration, bands=model.bands)
    write_report(
        tmp_path / "report.html", test_rows, model, evaluation, title="A model", simulated=True, n_explained=200
    )

    assert page == (tmp_path / "report.html").read_text(encoding="utf-8")


def test_curves_of_one_class_are_refused(model: TrainedModel, test_rows: TrainingMatrix):
    with pytest.raises(ConfigurationError, match="curves need both kinds"):
        page_of(model, test_rows.take(np.flatnonzero(test_rows.label == 0)))


def test_an_evaluation_of_other_rows_is_refused(model: TrainedModel, test_rows: TrainingMatrix):
    margin = model.margins(test_rows.rows)
    evaluation = evaluate(test_rows, model.scores(margin), margin)
    with pytest.raises(ConfigurationError, match="pass the rows evaluated"):
        report_html(test_rows.take(np.arange(50)), model, evaluation, title="", simulated=True)
