"""``fraudsdk evaluate``: how good a model is on a table."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.options import (
    add_data,
    add_hash_key,
    add_label_delay,
    add_unlabelled,
    hash_key_of,
    label_delay_us_of,
    new_parser,
    note,
    note_forgotten,
    say,
    unlabelled_of,
    writable_file,
)
from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fraudsdk.training.matrix import TrainingMatrix


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "evaluate",
        run,
        summary="measure a model on labelled transactions",
        example="fraudsdk evaluate transactions.parquet --model models/cards --report report.html",
        more="The whole table is replayed; only what the model was not fitted on is measured, unless --from says more.",
    )
    add_data(parser)
    parser.add_argument("--model", metavar="DIR", type=Path, required=True, help="the model's folder")
    parser.add_argument("--features", metavar="FILE", type=Path, help="refuse the model unless it was trained on these")
    parser.add_argument("--from", dest="since", metavar="TIME", help="measure from this time on (RFC 3339, or a date)")
    parser.add_argument("--until", metavar="TIME", help="measure up to this time, exclusive")
    parser.add_argument(
        "--segment", metavar="COLUMN", action="append", default=[], help="cut the figures by it as well"
    )
    parser.add_argument("--report", metavar="FILE", type=Path, help="write an HTML report")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_label_delay(parser)
    add_unlabelled(parser)
    add_hash_key(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Replay, measure and print."""
    from fraudsdk.cli.data import read_table
    from fraudsdk.cli.pipeline import (
        check_testable,
        evaluate_compiled,
        feature_set_of,
        load_model,
        replay_table,
        trained_model_of,
        unlabelled_line,
        vocabulary_of,
    )
    from fraudsdk.training.files import written_whole
    from fraudsdk.training.report import write_report
    from fraudsdk.training.split import Unlabelled, labels_with_hindsight

    report = None if args.report is None else writable_file(args.report, ".html")
    delay_us, hash_key = label_delay_us_of(args.label_delay), hash_key_of(args.hash_key_file)
    compiled = load_model(args.model)
    feature_set = feature_set_of(compiled, args.features)
    trained = None if report is None else trained_model_of(compiled, feature_set.schema)
    table = read_table(args.data, args.map, feature_set=feature_set)
    if "is_fraud" not in table.columns:
        raise ConfigurationError(f"{table.source} has no column for is_fraud; map one, as in --map is_fraud=LABEL")
    segments = table.segments(args.segment)
    replayed = replay_table(table, feature_set, vocabulary_of(compiled), hash_key, delay_us)
    note_forgotten(replayed.engine.memory.counters())
    stated = replayed.matrix(segments)
    unlabelled = unlabelled_of(args.unlabelled) or Unlabelled.of(stated.label)
    label = labels_with_hindsight(stated, horizon_us=delay_us, unlabelled=unlabelled)
    silence = unlabelled_line(stated, unlabelled)
    if silence:
        note(silence)
    matrix = _within(args, replace(stated, label=label), compiled.manifest.training_metrics)
    check_testable(matrix.label, "period to measure")
    evaluation = evaluate_compiled(compiled, matrix)
    say(json.dumps(evaluation.to_dict(), indent=2) if args.json else evaluation.to_text())
    if report is not None and trained is not None:
        title = f"Model {compiled.version}"
        with written_whole(report) as aside:
            write_report(aside, matrix, trained, evaluation, title=title, simulated=table.simulated)
        note(f"report    {report}")


def _within(args: argparse.Namespace, matrix: TrainingMatrix, training: Mapping[str, Any]) -> TrainingMatrix:
    """The rows to measure: what was asked for, or else what the model was not fitted on."""
    import numpy as np

    since_us = None if args.since is None else time_us_of(args.since, "--from")
    until_us = None if args.until is None else time_us_of(args.until, "--until")
    fitted_until_us = training.get("split_us", {}).get("test_start_us")
    if since_us is None and fitted_until_us is not None:
        since_us = fitted_until_us
        note(f"measured from {_date(since_us)} on: the model was fitted on what happened before; --from changes that")
    elif since_us is not None and fitted_until_us is not None and since_us < fitted_until_us:
        note(
            f"beware: the model was fitted on what happened before {_date(fitted_until_us)}, and the figures flatter it"
        )
    low = 0 if since_us is None else since_us
    high = np.iinfo(np.int64).max if until_us is None else until_us
    kept = np.flatnonzero((matrix.event_time_us >= low) & (matrix.event_time_us < high))
    if len(kept) == 0:
        first, last = _date(int(matrix.event_time_us[0])), _date(int(matrix.event_time_us[-1]))
        raise ConfigurationError(
            f"no transaction lies in the period to measure, all are from {first} to {last}; set --from"
        )
    return matrix.take(kept)


def time_us_of(text: str, option: str) -> int:
    """
    Microseconds of RFC 3339 text, or of a date, which means its first instant in UTC.

    Raises
    ------
    ConfigurationError
        It is neither.
    """
    from fraudsdk.domain.event_time import parse_event_time
    from fraudsdk.domain.refusal import RefusedValue

    try:
        time_us = parse_event_time(f"{text}T00:00:00Z" if len(text) == len("2026-11-23") else text)
    except RefusedValue:
        time_us = None
    if time_us is None:
        raise ConfigurationError(f"{option} is {text[:40]!r}, no time; write 2026-11-23 or 2026-11-23T10:00:00Z")
    return time_us


def _date(time_us: int) -> str:
    import numpy as np

    return str(np.datetime64(time_us, "us").astype("datetime64[D]"))
