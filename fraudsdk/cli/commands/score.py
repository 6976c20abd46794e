"""``fraudsdk score``: a decision for every transaction of a file."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.options import (
    add_data,
    add_hash_key,
    add_label_delay,
    hash_key_of,
    label_delay_us_of,
    new_parser,
    note_forgotten,
    say,
    writable_file,
)
from fraudsdk.cli.progress import counting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fraudsdk.cli.data import Table
    from fraudsdk.config import ScorerConfig
    from fraudsdk.domain.decision import Decision
    from fraudsdk.errors import InvalidTransactionError
    from fraudsdk.features.spec import FeatureSet


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "score",
        run,
        summary="decide on every transaction of a file",
        example="fraudsdk score transactions.parquet --model models/cards --out decisions.parquet",
        more="They are heard in event-time order, with their labels, if the file has any, when they are known.",
    )
    add_data(parser)
    parser.add_argument("--model", metavar="DIR", type=Path, required=True, help="the model's folder")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="Parquet, CSV or NDJSON, by its ending")
    parser.add_argument("--features", metavar="FILE", type=Path, help="refuse the model unless it was trained on these")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy in place of the model's own")
    parser.add_argument(
        "--skip-bad",
        metavar="FILE",
        type=Path,
        help="put rows that are no transactions there, with the reason, and go on",
    )
    add_label_delay(parser)
    add_hash_key(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Score and write, in the order of the file."""
    import numpy as np

    from fraudsdk.cli.data import read_table, timeline_of
    from fraudsdk.cli.pipeline import feature_set_of, load_model
    from fraudsdk.cli.stream import Stream
    from fraudsdk.config import ScorerConfig
    from fraudsdk.scorer import Scorer
    from fraudsdk.training.tables import ENDINGS, write_columns

    out = writable_file(args.out, *ENDINGS)
    parked = None if args.skip_bad is None else writable_file(args.skip_bad, ".ndjson", ".jsonl")
    delay_us, hash_key = label_delay_us_of(args.label_delay), hash_key_of(args.hash_key_file)
    config = ScorerConfig(model=args.model, policy=args.policy, hash_key=hash_key)
    feature_set = feature_set_of(load_model(args.model), args.features)
    table = read_table(args.data, args.map, feature_set=feature_set)
    if parked is not None:
        table = _without_bad_rows(table, feature_set, config, parked)
    timeline = timeline_of(table, feature_set, hash_key, delay_us)
    with Scorer.open(config) as scorer:
        started = time.perf_counter()
        with counting("score", len(table)) as progress:
            heard = list(Stream(scorer, table, timeline).score(0, len(table), progress))
        elapsed_s = time.perf_counter() - started
        counters = scorer.counters()
    decisions = [heard[place] for place in np.argsort(timeline.order, kind="stable").tolist()]
    write_columns(columns_of(decisions), out)
    say(f"{out}: {len(decisions):,} decisions in {elapsed_s:.1f} s, {len(decisions) / max(elapsed_s, 1e-9):,.0f}/s")
    for line in outcome_lines(decisions):
        say(line)
    note_forgotten(counters)


def _without_bad_rows(table: Table, feature_set: FeatureSet, config: ScorerConfig, parked: Path) -> Table:
    import numpy as np

    from fraudsdk.cli.data import bad_rows_of
    from fraudsdk.errors import ConfigurationError
    from fraudsdk.telemetry.clock import SYSTEM_CLOCK

    latest_us = SYSTEM_CLOCK.now_us() + config.future_skew_us
    assert config.hash_key is not None  # `run` saw to it
    bad = bad_rows_of(table, feature_set, config.hash_key, latest_us=latest_us)
    _park(bad, parked)
    say(f"{parked}: {len(bad):,} of {len(table):,} rows are no transactions and were left out")
    if len(bad) == len(table):
        raise ConfigurationError(f"no row of {table.source} is a transaction; see {parked}")
    kept = np.ones(len(table), np.bool_)
    kept[list(bad)] = False
    return table.where(kept)


def _park(bad: dict[int, InvalidTransactionError], path: Path) -> None:
    from fraudsdk.training.files import written_whole

    # The row's number, not its contents: what makes it bad may be a card number in the wrong column.
    with written_whole(path) as aside, aside.open("w", encoding="utf-8") as lines:
        for error in bad.values():
            line = {
                "row": error.row,
                "transaction_id": error.transaction_id,
                "field": error.field,
                "reason": str(error),
            }
            lines.write(json.dumps(line) + "\n")


def columns_of(decisions: list[Decision]) -> dict[str, NDArray[Any]]:
    """Decisions as a table; a score that no model gave is missing."""
    import numpy as np

    def text(values: list[str]) -> NDArray[Any]:
        return np.array(values, dtype=object)

    return {
        "transaction_id": text([decision.transaction_id for decision in decisions]),
        "outcome": text([decision.outcome.value for decision in decisions]),
        "score": np.array([decision.score for decision in decisions], np.float64),
        "margin": np.array([decision.margin for decision in decisions], np.float64),
        "reasons": text([";".join(reason.code for reason in decision.reasons) for decision in decisions]),
        "decided_by": text([decision.decided_by for decision in decisions]),
        "degraded": np.array([decision.degraded for decision in decisions], np.bool_),
    }


def outcome_lines(decisions: list[Decision]) -> list[str]:
    """How many of each outcome, mildest first, and what was less than a full answer."""
    from fraudsdk.domain.decision import Outcome

    n = len(decisions)
    counts = Counter(decision.outcome for decision in decisions)
    lines = [f"  {outcome.value:<8} {counts[outcome]:>9,}  {counts[outcome] / n:>7.2%}" for outcome in Outcome]
    because = Counter(decision.degraded_because for decision in decisions if decision.degraded)
    lines += [f"  degraded {times:>9,}  {reason}" for reason, times in because.most_common(3)]
    duplicates = sum(decision.duplicate for decision in decisions)
    if duplicates:
        lines.append(f"  repeated {duplicates:>9,}  decided once, counted once")
    return lines
