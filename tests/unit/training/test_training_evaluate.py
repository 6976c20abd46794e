from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.training import metrics
from fraudsdk.training.evaluate import Evaluation, evaluate
from fraudsdk.training.matrix import TrainingMatrix


def scored(matrix: TrainingMatrix, **options: object) -> Evaluation:
    margin = 0.9 * matrix.rows[:, 1] - 5.0
    return evaluate(matrix, 1 / (1 + np.exp(-margin.astype(np.float64))), margin, **options)


def test_the_figures_are_those_of_the_metrics(matrix: TrainingMatrix):
    result = scored(matrix)

    assert metrics.roc_auc(matrix.label, matrix.rows[:, 1].astype(np.float64)) == pytest.approx(result.auc)
    assert result.intervals["auc"].low < result.auc < result.intervals["auc"].high
    assert (6_000, 60) == (result.n, result.n_days)
    assert int(matrix.label.sum()) == result.n_frauds == sum(row.n_frauds for row in result.segments)


def test_rows_without_a_label_are_counted_and_left_out(matrix: TrainingMatrix):
    label = matrix.label.copy()
    label[:1_000] = -1
    result = scored(replace(matrix, label=label))

    assert (5_000, 1_000) == (result.n, result.n_unlabelled)
    assert scored(matrix.take(np.arange(1_000, 6_000))).auc == result.auc


def test_ranking_ignores_ties_that_calibration_made(matrix: TrainingMatrix):
    margin = matrix.rows[:, 1]
    flat = evaluate(matrix, np.full(len(matrix), 0.01), margin)

    assert scored(matrix).average_precision == pytest.approx(flat.average_precision)


def test_it_survives_json_when_figures_cannot_be_had(matrix: TrainingMatrix):
    no_fraud = replace(matrix, label=np.zeros(len(matrix), np.int8), card_key=np.zeros(len(matrix), np.int64))
    result = scored(no_fraud)
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))

    assert figures["auc"] is None
    assert figures["card_precision"] is None
    assert "AUC                        -" in result.to_text()


def test_the_text_names_every_band_and_segment_value(matrix: TrainingMatrix):
    text = scored(matrix, bands={"review": 0.2, "decline": 0.75, "decline_precision": 0.9}).to_text()

    for part in (
        "review, score >= 0.200",
        "decline, score >= 0.750",
        "ecom",
        "pos",
        "card precision@100",
        "2023-11-15",
    ):
        assert part in text


def test_a_band_without_a_threshold_is_skipped(matrix: TrainingMatrix):
    assert ["review"] == list(scored(matrix, bands={"review": 0.3, "decline": None}).at_band)


@pytest.mark.parametrize(
    ("change", "options", "says"),
    [
        ({"label": np.full(6_000, -1, np.int8)}, {}, "none of the 6000 rows is labelled"),
        ({}, {"bands": {"decline_precision": 0.9}}, "bands must name one of"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(matrix: TrainingMatrix, change, options, says):
    with pytest.raises(ConfigurationError, match=says):
        scored(replace(matrix, **change), **options)


def test_scores_of_other_rows_are_refused(matrix: TrainingMatrix):
    with pytest.raises(ConfigurationError, match="score this matrix"):
        evaluate(matrix, np.zeros(5), np.zeros(5))
