"""
What train and evaluate make of labels: of those that are missing, of silence, and of a vocabulary to learn.
"""

from __future__ import annotations

import csv
import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from fraudsdk.cli import main
from fraudsdk.cli.data import read_table
from fraudsdk.cli.pipeline import Recipe, prepare
from fraudsdk.errors import ConfigurationError
from fraudsdk.features.spec import Feature, FeatureSet
from fraudsdk.training.replay import replay
from fraudsdk.training.split import Unlabelled
from fraudsdk.training.train import TrainParams

N_ROWS = 1_200
DAY_US = 86_400_000_000
HEADER = ("transaction_id", "user_id", "amount", "currency", "event_time", "channel", "is_fraud")
FEATURES = FeatureSet(
    "small", (Feature("amount", "value", field="amount"), Feature("channel", "code", field="channel")), currency="EUR"
)


def rows_of(genuine="0", fraud="1"):
    """Sixty days; every twentieth transaction is fraud and large; the last ten days have a channel of their own."""
    generator = np.random.default_rng(7)
    rows = []
    for i in range(N_ROWS):
        moment = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=72 * i)
        is_fraud = i % 20 == 3
        amount = generator.lognormal(6 if is_fraud else 3, 0.5)
        channel = "moto" if i >= 1_000 else "pos"
        label = fraud if is_fraud else genuine
        rows.append([f"t{i}", f"u{i % 50}", f"{amount:.2f}", "EUR", f"{moment:%Y-%m-%dT%H:%M:%SZ}", channel, label])
    return rows


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


@pytest.fixture
def features(tmp_path):
    path = tmp_path / "features.toml"
    path.write_text(FEATURES.to_toml())
    return path


@pytest.fixture
def run(tmp_path, features, capsys):
    """Run a command in `tmp_path`; gives back its exit code, what it printed, and its remarks."""

    def of(command, *argv):
        quick = ("--label-delay", "2d")
        if command == "train":
            quick += ("--features", features, "--trees", 5, "--max-bin", 64, "--out", tmp_path / "model")
        code = main([str(word) for word in (command, *argv, *quick)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return of


def figures_of(tmp_path):
    return json.loads((tmp_path / "model-report" / "evaluation.json").read_text())


def choice_of(tmp_path):
    return json.loads((tmp_path / "model" / "manifest.json").read_text())["training_metrics"]["unlabelled"]


def recipe_of(**options):
    return Recipe(
        name="m",
        version="1",
        created_at="2025-01-01T00:00:00+00:00",
        feature_set=FEATURES,
        policy=None,
        label_delay_us=2 * DAY_US,
        hash_key=b"sixteen byte key",
        params=TrainParams(),
        **options,
    )


def test_a_table_of_frauds_alone_trains_and_is_tested_against_its_silence(run, tmp_path):
    data = write_table(tmp_path / "data.csv", rows_of(genuine=""))
    code, _, remarks = run("train", data)
    figures = figures_of(tmp_path)

    assert 0 == code
    assert "1,140 transactions without a label count as genuine once they are older" in remarks
    assert "genuine_after_horizon" == choice_of(tmp_path)
    assert 0.04 < figures["fraud_rate"] < 0.06


def test_evaluate_reads_silence_as_training_did(run, tmp_path):
    data = write_table(tmp_path / "data.csv", rows_of(genuine=""))
    run("train", data)
    code, printed, _ = run("evaluate", data, "--model", tmp_path / "model", "--json")

    assert 0 == code
    assert figures_of(tmp_path) == json.loads(printed)


def test_beside_stated_genuine_ones_silence_is_left_out(run, tmp_path):
    rows = rows_of()
    for row in rows[::2]:
        row[-1] = ""
    code, _, remarks = run("train", write_table(tmp_path / "data.csv", rows))

    assert 0 == code
    assert "600 transactions without a label are left out" in remarks
    assert "excluded" == choice_of(tmp_path)
    assert figures_of(tmp_path)["n_unlabelled"] >= figures_of(tmp_path)["n"] - 1


def test_the_user_may_say_that_silence_means_genuine(run, tmp_path):
    rows = rows_of()
    for row in rows[::2]:
        row[-1] = ""
    code, _, _ = run("train", write_table(tmp_path / "data.csv", rows), "--unlabelled", "genuine")

    assert 0 == code
    assert "genuine_after_horizon" == choice_of(tmp_path)
    assert figures_of(tmp_path)["n"] > 3 * figures_of(tmp_path)["n_unlabelled"]


def test_a_test_period_of_frauds_alone_is_refused(tmp_path):
    """
    Any model is right about every one of them.
    """
    table = read_table(write_table(tmp_path / "data.csv", rows_of(genuine="")), [], feature_set=FEATURES)

    with pytest.raises(ConfigurationError, match="labelled transactions of the test period are frauds"):
        prepare(table, recipe_of(unlabelled=Unlabelled.EXCLUDED), {})


def test_a_period_of_frauds_alone_is_not_evaluated(run, tmp_path):
    data = write_table(tmp_path / "data.csv", rows_of())
    run("train", data)
    frauds = write_table(tmp_path / "frauds.csv", [row for row in rows_of() if row[-1] == "1"])
    code, printed, remarks = run("evaluate", frauds, "--model", tmp_path / "model", "--unlabelled", "excluded")

    assert (2, "") == (code, printed)
    assert "every model would look perfect" in remarks


def test_a_category_of_the_test_period_is_not_in_the_vocabulary(run, tmp_path):
    """
    A model must meet tomorrow's values as it will in production: unknown.
    """
    run("train", write_table(tmp_path / "data.csv", rows_of()))
    vocabulary = json.loads((tmp_path / "model" / "vocabulary.json").read_text())

    assert ["pos"] == vocabulary["channel"]


@pytest.mark.parametrize("command", ["replay", "train"])
def test_labels_that_found_no_transaction_are_no_secret(command, features, run, tmp_path, monkeypatch):
    # Given a memory that holds half a day of transactions, and labels that take two
    monkeypatch.setitem(replay.__kwdefaults__, "journal_capacity", 10)
    data = write_table(tmp_path / "data.csv", rows_of())
    more = ("--features", features, "--out", tmp_path / "rows.csv") if command == "replay" else ()
    code, _, remarks = run(command, data, *more)

    assert 0 == code
    assert re.search(r"[\d,]+ labels were about transactions that the memory no longer held", remarks)


def test_a_replay_that_fails_leaves_no_vocabulary(features, run, tmp_path):
    rows = rows_of()[:60]
    rows[30][2] = "a lot"
    code, _, _ = run(
        "replay", write_table(tmp_path / "data.csv", rows), "--features", features, "--out", tmp_path / "rows.csv"
    )

    assert 2 == code
    assert {"data.csv", "features.toml"} == {path.name for path in tmp_path.iterdir()}
