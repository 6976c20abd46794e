"""
The command line from simulated transactions to an explained decline, with real everything.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as parquet
import pytest

from fraudsdk import Scorer
from fraudsdk.cli import main
from fraudsdk.features.spec import FeatureSet

HELD_BACK = 5_000
DEMO = ("--transactions", "40000", "--users", "900", "--held-back", str(HELD_BACK), "--trees", "40", "--max-bin", "128")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small demo: its folder and what it printed."""
    out = tmp_path_factory.mktemp("work") / "demo"
    printed = _printed_by("demo", "--out", out, *DEMO)
    return out, printed


def _printed_by(*argv):
    """What a command prints in a pipe; it must succeed."""
    import contextlib
    import io

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = main([str(word) for word in argv])

    assert 0 == code
    return output.getvalue()


def test_the_demo_prints_what_one_wants_to_know(demo):
    _, printed = demo
    wanted = (
        "certified: 0 of ",
        "transactions/s on one thread",
        r"p50 +[\d.]+ us +p99 +[\d.]+ us +p99.9 +[\d.]+ us +max +[\d.]+ us",
        r"APPROVE +[\d,]+ +\d",
        "simulated fraud",
        r"margin +[+-]\d",
        "to the customer: ",
    )

    assert [] == [pattern for pattern in wanted if not re.search(pattern, printed)]


def test_the_demo_counts_detection_by_the_patterns_that_were_simulated(demo):
    # The simulator writes in event-time order, so what was held back is the end of the file.
    out, printed = demo
    patterns = parquet.read_table(out / "transactions.parquet")["fraud_pattern"].to_pylist()[-HELD_BACK:]
    expected = Counter(pattern for pattern in patterns if pattern != "none")
    found = {name: int(n) for name, n in re.findall(r"  ([a-z_]+) +\d+ of +(\d+)", printed)}

    assert len(expected) > 1
    assert dict(expected) == {name: n for name, n in found.items() if name in expected}
    assert f"of {sum(expected.values()):>7,}" in next(line for line in printed.splitlines() if "all frauds" in line)


def test_the_demo_scores_the_same_bits_that_replay_wrote(demo):
    _, printed = demo
    same, compared = re.search(r"bit-identical for ([\d,]+) of ([\d,]+)", printed).groups()

    assert same == compared
    assert int(compared.replace(",", "")) > 0.9 * HELD_BACK


def test_the_demo_leaves_its_files_and_names_them(demo):
    out, printed = demo
    files = ("transactions.parquet", "decisions.parquet", "explanation.png", "explanation.html", "model/manifest.json")

    assert [] == [name for name in (*files, "model-report/report.html") if not (out / name).is_file()]
    assert [] == [name for name in (*files[:4], "model-report/report.html") if f"wrote {out / name}" not in printed]
    assert HELD_BACK == parquet.read_metadata(out / "decisions.parquet").num_rows


def test_the_demo_has_no_control_characters_in_a_pipe(demo):
    _, printed = demo

    assert printed.replace("\n", "").isprintable()


def test_a_report_says_that_its_data_are_simulated(demo):
    out, _ = demo

    assert "Simulated data." in (out / "model-report" / "report.html").read_text()


def test_a_demo_on_the_users_own_file_takes_the_same_road(demo, tmp_path):
    # Given the same transactions under other names
    out, _ = demo
    names = {"user_id": "CUSTOMER", "is_fraud": "LABEL", "fraud_pattern": "SECRET"}
    table = parquet.read_table(out / "transactions.parquet")
    data = tmp_path / "own.parquet"
    parquet.write_table(table.rename_columns([names.get(name, name) for name in table.column_names]), data)
    # When the demo runs on them
    printed = _printed_by(
        *("demo", "--data", data, "--map", "user_id=CUSTOMER", "is_fraud=LABEL", "--label-delay", "30d"),
        *("--held-back", HELD_BACK, "--trees", 20, "--max-bin", 64, "--out", tmp_path / "demo"),
    )
    # Then it simulates nothing and knows no patterns
    assert "read      40,000 transactions" in printed
    assert "simulate" not in printed and "account_takeover" not in printed
    assert re.search(r"all frauds +\d+ of +\d+", printed)


def test_evaluate_agrees_with_the_figures_of_training(demo):
    out, _ = demo
    printed = _printed_by(
        "evaluate", out / "transactions.parquet", "--model", out / "model", "--label-delay", "30d", "--json"
    )
    measured, at_training = json.loads(printed), json.loads((out / "model-report" / "evaluation.json").read_text())

    assert at_training["average_precision"] == measured["average_precision"]
    assert at_training["n"] == measured["n"]


def test_evaluate_measures_the_period_that_it_is_asked_for(demo, tmp_path, capsys):
    out, _ = demo
    report = tmp_path / "report.html"
    printed = _printed_by(
        *("evaluate", out / "transactions.parquet", "--model", out / "model"),
        *("--from", "2025-01-01", "--until", "2025-02-01", "--report", report),
    )

    assert "2025-01-01 to 2025-01-31" in printed
    assert "beware: the model was fitted on what happened before" in capsys.readouterr().err
    assert report.is_file()


def test_replay_writes_the_declared_columns(demo, tmp_path):
    out, _ = demo
    rows = tmp_path / "rows.parquet"
    _printed_by("replay", out / "transactions.parquet", "--features", out / "model" / "features.toml", "--out", rows)
    written = parquet.read_table(rows)
    names = FeatureSet.load(out / "model" / "features.toml").names

    assert ["transaction_id", "event_time_us", *names, "is_fraud"] == written.column_names
    assert np.all(np.diff(written["event_time_us"].to_numpy()) >= 0)
    assert {0, 1} == set(written["is_fraud"].to_pylist())
    assert (tmp_path / "rows.parquet.vocabulary.json").is_file()


@pytest.fixture(scope="module")
def newest(demo, tmp_path_factory):
    """The newest 300 transactions as CSV, latest first, with their header."""
    out, _ = demo
    table = parquet.read_table(out / "transactions.parquet")
    answers = ("is_fraud", "label_time", "fraud_pattern")
    rows = []
    for row in table.slice(len(table) - 300).to_pylist()[::-1]:
        row["event_time"] = row["event_time"].isoformat()
        row["amount"] = f"{row.pop('amount_minor') / 100:.2f}"
        # What a reversal undoes lies further back, and these rows are to be scored alone.
        if row["type"] == "authorisation":
            rows.append({name: value for name, value in row.items() if name not in answers})
    return write_csv(tmp_path_factory.mktemp("newest") / "newest.csv", rows), rows


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_score_decides_on_every_row_in_the_order_of_the_file(demo, newest, tmp_path):
    (out, _), (data, rows) = demo, newest
    printed = _printed_by("score", data, "--model", out / "model", "--out", tmp_path / "decisions.csv")
    decisions = read_csv(tmp_path / "decisions.csv")

    assert [row["transaction_id"] for row in rows] == [decision["transaction_id"] for decision in decisions]
    assert {"outcome", "score", "margin", "reasons", "decided_by", "degraded"} < set(decisions[0])
    assert f"{len(rows):,} decisions" in printed


def test_score_gives_the_decisions_of_a_scorer(demo, newest, tmp_path):
    (out, _), (data, rows) = demo, newest
    _printed_by("score", data, "--model", out / "model", "--out", tmp_path / "decisions.csv")
    by_id = {row["transaction_id"]: row for row in read_csv(tmp_path / "decisions.csv")}
    with Scorer.open(out / "model") as scorer:
        oldest_first = [{k: v for k, v in row.items() if v is not None} for row in rows[::-1]]
        decisions = scorer.score_batch(oldest_first)

    assert {d.transaction_id: d.outcome.value for d in decisions} == {k: row["outcome"] for k, row in by_id.items()}
    assert [d.margin for d in decisions] == [float(by_id[d.transaction_id]["margin"]) for d in decisions]


@pytest.fixture
def with_bad_rows(newest, tmp_path):
    _, rows = newest
    rows = [dict(row) for row in rows]
    rows[3]["amount"] = "a lot"
    rows[7]["event_time"] = "2100-01-01T00:00:00Z"
    return write_csv(tmp_path / "bad.csv", rows), len(rows)


def test_score_stops_at_a_bad_row_and_names_it(demo, with_bad_rows, tmp_path, capsys):
    (out, _), (data, _) = demo, with_bad_rows
    code = main(["score", str(data), "--model", str(out / "model"), "--out", str(tmp_path / "decisions.csv")])

    assert 2 == code
    assert "'a lot' in row 3" in capsys.readouterr().err
    assert not (tmp_path / "decisions.csv").exists()


def test_score_parks_bad_rows_with_their_reason_and_counts_them(demo, with_bad_rows, tmp_path):
    (out, _), (data, n) = demo, with_bad_rows
    parked = tmp_path / "parked.ndjson"
    printed = _printed_by(
        "score", data, "--model", out / "model", "--out", tmp_path / "decisions.csv", "--skip-bad", parked
    )
    lines = [json.loads(line) for line in parked.read_text().splitlines()]

    assert [(3, "amount"), (7, "event_time")] == [(line["row"], line["field"]) for line in lines]
    assert "a lot" in lines[0]["reason"] and "future" in lines[1]["reason"]
    assert f"2 of {n} rows are no transactions" in printed
    assert n - 2 == len(read_csv(tmp_path / "decisions.csv"))


def test_explain_gives_reasons_and_pictures(demo, tmp_path):
    # Given the fraud that the demo explained
    out, printed = demo
    transaction_id = re.search(r"Transaction '(\S+)' was", printed)[1]
    # When it is explained again, from the file
    pictures = (tmp_path / "why.png", tmp_path / "why.html")
    again = _printed_by(
        *("explain", out / "transactions.parquet", "--model", out / "model", "--transaction", transaction_id),
        *("--label-delay", "30d", "--out", pictures[0], "--out", pictures[1]),
    )
    # Then the words are the same, and the pictures are there
    words = printed[printed.index("Transaction '") : printed.index("\nwrote ")].strip()
    assert words == again[: again.index("waterfall ")].strip()
    assert all(picture.stat().st_size > 1_000 for picture in pictures)


def test_explain_of_an_unknown_transaction_says_so(demo, capsys):
    out, _ = demo
    argv = ["explain", str(out / "transactions.parquet"), "--model", str(out / "model"), "--transaction", "t-nobody"]

    assert 2 == main(argv)
    assert "has no transaction 't-nobody'" in capsys.readouterr().err


def test_compile_certifies_the_booster_again(demo, tmp_path):
    out, _ = demo
    model = out / "model"
    printed = _printed_by(
        *("compile", model / "model.ubj", "--out", tmp_path / "again", "--features", model / "features.toml"),
        *("--vocabulary", model / "vocabulary.json", "--policy", model / "policy.toml", "--version", "2"),
    )

    assert re.search(r"certified [\d,]+ rows against xgboost [\d.]+: 0 differ", printed)
    with Scorer.open(tmp_path / "again") as scorer:
        decision = scorer.score(
            {"transaction_id": "x", "user_id": "u", "amount": "1", "event_time": "2025-01-01T00:00:00Z"}
        )
    assert "again/2" == decision.model_version


@pytest.mark.parametrize("command", ["evaluate", "score"])
def test_a_tampered_artefact_is_refused(command, demo, newest, tmp_path, capsys):
    (out, _), (data, _) = demo, newest
    model = shutil.copytree(out / "model", tmp_path / "model")
    forest = bytearray((model / "forest.bin").read_bytes())
    forest[-5] ^= 1
    (model / "forest.bin").write_bytes(bytes(forest))
    more = ["--out", str(tmp_path / "decisions.csv")] if command == "score" else []
    code, said = main([command, str(data), "--model", str(model), *more]), capsys.readouterr().err

    assert (2, 1) == (code, len(said.splitlines()))
    assert "it was changed after it was certified" in said


def test_a_model_of_other_features_is_refused_with_both_fingerprints(demo, newest, tmp_path, capsys):
    (out, _), (data, _) = demo, newest
    ours = FeatureSet.load(out / "model" / "features.toml")
    fewer = ours.without("user_count_1m")
    (tmp_path / "fewer.toml").write_text(fewer.to_toml())
    argv = ["evaluate", str(data), "--model", str(out / "model"), "--features", str(tmp_path / "fewer.toml")]
    code, said = main(argv), capsys.readouterr().err

    assert (2, 1) == (code, len(said.splitlines()))
    assert ours.fingerprint[:16] in said and fewer.fingerprint[:16] in said and "user_count_1m" in said


def test_the_doctor_finds_the_model_sound(demo, capsys):
    out, _ = demo

    assert 0 == main(["doctor", "--model", str(out / "model")])
    assert "hashes, certificate, features and policy agree" in capsys.readouterr().out
