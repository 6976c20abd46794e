"""
The Handbook's table: its own figures from its own features, and more than its figures from ours.

The figures come from the command that prints them for the docs, `bench/handbook_table.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fraudsdk.encoding.vocabulary import Vocabulary
from fraudsdk.features.catalogue import reference_feature_set
from fraudsdk.features.spec import FeatureSet
from fraudsdk.training.replay import Replayed, replay

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    pytest.importorskip("xgboost", reason="fitting needs fraudsdk[train]")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield import_module("handbook_table")


@pytest.fixture(scope="module")
def book_figures(table: ModuleType, handbook_replayed: Replayed) -> list[Any]:
    return list(table.fold_figures(handbook_replayed.matrix(), table.BOOK_PARAMS, "test"))


def test_the_folds_hold_what_the_book_s_folds_hold(book_figures: list[Any]):
    earliest = book_figures[-1]

    assert ["2018-08-15", "2018-08-08", "2018-08-01", "2018-07-25"] == [fold.train_week for fold in book_figures]
    assert (67_240, 58_264, 385) == (earliest.n_train, earliest.n_test, earliest.n_test_frauds)


def test_xgboost_with_the_book_s_features_and_parameters_reaches_the_book_s_figures(table, book_figures):
    """100 trees, learning rate 0.1, depth 3.  The margin is less than 256 bins or an estimated base score would cost."""
    mean, spread = table.summary(book_figures)

    assert (0.870792, 0.694030, 0.303929) == pytest.approx(tuple(mean), abs=0.002)
    assert (0.012, 0.008, 0.012) == pytest.approx(tuple(spread), abs=0.002)


@pytest.mark.parametrize("whose", ["the catalogue", "the extended file"])
def test_our_features_detect_more_than_any_model_of_the_book(table, handbook_columns, whose):
    """Same data, same folds, parameters and features chosen on the validation folds."""
    feature_set = reference_feature_set("EUR") if whose == "the catalogue" else FeatureSet.load(table.EXTENDED)
    matrix = table.varying(replay(handbook_columns, feature_set, Vocabulary()).matrix())
    auc, average_precision, card_precision = table.summary(
        list(table.fold_figures(matrix, table.CHOSEN_PARAMS, "test"))
    )[0]
    best_of_book = np.max([figures for _, figures, _ in table.BOOK_FIGURES], axis=0)

    assert max(0.73, best_of_book[1]) <= average_precision
    assert max(0.308, best_of_book[2]) <= card_precision
    assert 0.873 <= auc


def test_the_command_names_the_data_it_cannot_find(table, tmp_path, capsys):
    status = table.main(["--data", str(tmp_path / "absent.parquet")])

    assert 1 == status
    assert "absent.parquet" in capsys.readouterr().err
