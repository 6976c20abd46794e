from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from fraudsdk.errors import ConfigurationError
from fraudsdk.training import metrics
from fraudsdk.training.matrix import TrainingMatrix
from fraudsdk.training.split import split_by_time
from fraudsdk.training.train import TrainedModel, TrainParams, fit_trees, margins, progress_bar, suggest_bands, train

xgboost = pytest.importorskip("xgboost")
pytest.importorskip("sklearn")

QUICK = TrainParams(num_boost_round=60, early_stopping_rounds=8, learning_rate=0.3, max_depth=3, nthread=1)


@pytest.fixture(scope="module")
def model(matrix: TrainingMatrix) -> TrainedModel:
    return train(matrix, split_by_time(matrix), QUICK)


def test_it_learns_what_there_is_to_learn(matrix: TrainingMatrix, model: TrainedModel):
    test = matrix.take(split_by_time(matrix).test)

    assert metrics.roc_auc(test.label, model.margins(test.rows).astype(np.float64)) > 0.8


def test_training_stops_on_exact_average_precision_and_keeps_no_tree_after_the_best(
    matrix: TrainingMatrix, model: TrainedModel
):
    split = split_by_time(matrix)
    margin = model.margins(matrix.rows[split.validation]).astype(np.float64)
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.booster))

    assert model.n_trees == booster.num_boosted_rounds() == 1 + int(np.argmax(model.validation_history))
    assert len(model.validation_history) > model.n_trees
    assert max(model.validation_history) == pytest.approx(
        metrics.average_precision(split.validation_label, margin), abs=1e-5
    )


def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads(matrix: TrainingMatrix, model: TrainedModel):
    again = train(matrix, split_by_time(matrix), replace(QUICK, nthread=2))

    assert model.booster == again.booster
    assert model.calibration == again.calibration


def test_another_seed_samples_other_rows(matrix: TrainingMatrix, model: TrainedModel):
    assert model.booster != train(matrix, split_by_time(matrix), replace(QUICK, seed=8)).booster


def test_the_stated_base_score_reaches_the_booster(model: TrainedModel):
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.booster))
    stated = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]

    assert 0.5 == float(stated.strip("[]"))


def test_categories_split_as_sets_not_as_quantities(matrix: TrainingMatrix, model: TrainedModel):
    trees = json.loads(bytes(_booster(model).save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]

    assert any(1 in tree["split_type"] for tree in trees)
    assert ["float", "float", "c", "float"] == _booster(model).feature_types


def test_contributions_and_base_add_up_to_the_margin(matrix: TrainingMatrix, model: TrainedModel):
    rows = matrix.rows[:200]

    assert model.margins(rows) == pytest.approx(model.contributions(rows).sum(axis=1), abs=1e-4)


def test_nothing_of_test_is_looked_at(matrix: TrainingMatrix, model: TrainedModel):
    split = split_by_time(matrix)
    rows, label = matrix.rows.copy(), matrix.label.copy()
    rows[split.test], label[split.test] = 0.0, 1
    other = train(replace(matrix, rows=rows, label=label), split, QUICK)

    assert model.booster == other.booster
    assert (model.bands, model.metrics) == (other.bands, other.metrics)


def test_labels_that_were_not_known_are_not_learned(matrix: TrainingMatrix):
    # Given a history whose every fraud is reported only after the release
    late = replace(matrix, label_time_us=np.full(len(matrix), int(matrix.event_time_us[-1]) + 1))

    with pytest.raises(ConfigurationError, match="validation holds 0 frauds"):
        train(late, split_by_time(late), QUICK)


def test_figures_are_json(model: TrainedModel):
    json.dumps([model.metrics, model.bands, model.calibration, model.versions], allow_nan=False)

    assert model.metrics["train"]["n_frauds"] > 0
    assert xgboost.__version__ == model.versions["xgboost"]


def test_scores_are_probabilities_in_the_order_of_margins(matrix: TrainingMatrix, model: TrainedModel):
    margin = np.sort(model.margins(matrix.rows))
    score = model.scores(margin)

    assert 0.0 <= score.min() <= score.max() <= 1.0
    assert (np.diff(score) >= 0).all()


def test_progress_is_told_after_each_tree(matrix: TrainingMatrix):
    told = []
    train(matrix, split_by_time(matrix), QUICK, progress=lambda *report: told.append(report))

    assert [(i + 1, 60) for i in range(len(told))] == [(done, most) for done, most, _ in told]
    assert all(0.0 < validation < 1.0 for _, _, validation in told)


def test_a_progress_bar_is_silent_in_a_pipe(capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("tqdm")
    with progress_bar("train") as progress:
        progress(1, 10, math.nan)

    assert ("", "") == tuple(capsys.readouterr())


def test_without_validation_every_tree_is_grown(matrix: TrainingMatrix):
    trees = fit_trees(matrix.rows, matrix.label, matrix.schema, QUICK)

    assert (60, ()) == (trees.n_trees, trees.validation_history)
    assert np.isfinite(margins(trees.booster, matrix.rows[:10], matrix.schema)).all()


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (np.zeros(6_000, np.int8), "train holds 0 frauds and 6000 genuine"),
        (np.ones(6_000, np.int8), "train holds 6000 frauds and 0 genuine"),
        (np.array([1] * 9 + [0] * 5_991, np.int8), "train holds 9 frauds"),
    ],
)
def test_too_few_of_a_class_is_refused_with_the_counts(matrix: TrainingMatrix, label, says):
    with pytest.raises(ConfigurationError, match=says):
        fit_trees(matrix.rows, label, matrix.schema, QUICK)


def test_an_empty_train_interval_is_refused(matrix: TrainingMatrix):
    nothing = matrix.take(np.empty(0, np.int64))
    with pytest.raises(ConfigurationError, match="train holds 0 frauds and 0 genuine"):
        fit_trees(nothing.rows, nothing.label, nothing.schema, QUICK)


@pytest.mark.parametrize("code", [-1.0, 2.5])
def test_a_categorical_column_without_codes_is_named(matrix: TrainingMatrix, code: float):
    rows = matrix.rows.copy()
    rows[17, 2] = code
    with pytest.raises(ConfigurationError, match=f"'category' must hold whole codes >= 0, held {code}"):
        fit_trees(rows, matrix.label, matrix.schema, QUICK)


def test_a_feature_name_that_xgboost_refuses_is_refused_in_our_words(matrix: TrainingMatrix):
    schema = replace(
        matrix.schema, features=(replace(matrix.schema.features[0], name="a[0]"), *matrix.schema.features[1:])
    )
    with pytest.raises(ConfigurationError, match="rename the feature"):
        fit_trees(matrix.rows, matrix.label, schema, QUICK)


def test_a_split_of_another_matrix_is_refused(matrix: TrainingMatrix):
    with pytest.raises(ConfigurationError, match="longer matrix"):
        train(matrix.take(np.arange(100)), split_by_time(matrix), QUICK)


@pytest.mark.parametrize(
    "wrong",
    [{"max_depth": 0}, {"learning_rate": 0.0}, {"subsample": 1.5}, {"num_boost_round": 10**6}, {"base_score": 1.0}],
)
def test_a_parameter_out_of_range_is_named(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        TrainParams(**wrong)


def test_decline_is_proposed_at_the_lowest_score_that_is_precise_enough():
    # 40 alerts at 0.9 are all fraud; the 60 at or above 0.6 are fraud but for one in six.
    label = np.array([1] * 40 + [1] * 10 + [0] * 10 + [0] * 100, np.int8)
    score = np.array([0.9] * 40 + [0.6] * 20 + [0.01] * 100)

    assert 0.9 == suggest_bands(label, score, n_days=2)["decline"]
    assert 0.6 == suggest_bands(label, score, n_days=2, decline_precision=0.8)["decline"]
    assert 30.0 == suggest_bands(label, score, n_days=2)["review_alerts_per_day"]


def test_decline_is_never_proposed_below_review():
    label, score = np.array([1] * 60 + [0] * 100, np.int8), np.array([0.9] * 40 + [0.1] * 20 + [0.01] * 100)

    assert 0.9 == suggest_bands(label, score, n_days=1)["decline"]


def test_no_decline_is_proposed_on_a_handful_of_alerts():
    label, score = np.array([1] * 5 + [0] * 100, np.int8), np.array([0.95] * 5 + [0.01] * 100)

    assert suggest_bands(label, score, n_days=1)["decline"] is None


def _booster(model: TrainedModel):
    booster = xgboost.Booster()
    booster.load_model(bytearray(model.booster))
    return booster
