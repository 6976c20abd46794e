"""``fraudsdk explain``: why one transaction was decided as it was."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.options import (
    add_data,
    add_hash_key,
    add_label_delay,
    hash_key_of,
    label_delay_us_of,
    new_parser,
    say,
    writable_file,
)
from fraudsdk.cli.progress import counting
from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from fraudsdk.cli.data import Table, Timeline


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "explain",
        run,
        summary="say why a transaction of a file was decided as it was",
        example="fraudsdk explain transactions.parquet --model models/cards --transaction t-000012345 --out why.html",
        more="What came before it in the file is scored first, so that what was known is known.",
    )
    add_data(parser)
    parser.add_argument("--model", metavar="DIR", type=Path, required=True, help="the model's folder")
    parser.add_argument("--transaction", metavar="ID", required=True, help="the transaction's id")
    parser.add_argument("--features", metavar="FILE", type=Path, help="refuse the model unless it was trained on these")
    parser.add_argument("--policy", metavar="FILE", type=Path, help="policy in place of the model's own")
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="waterfall, .png or .html; may be repeated",
    )
    add_label_delay(parser)
    add_hash_key(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Score the history, then explain."""
    from fraudsdk.cli.data import read_table, timeline_of
    from fraudsdk.cli.pipeline import feature_set_of, load_model
    from fraudsdk.cli.stream import Stream
    from fraudsdk.cli.words import PICTURE_ENDINGS, explanation_lines, write_waterfall
    from fraudsdk.config import ScorerConfig
    from fraudsdk.domain.masking import shown
    from fraudsdk.scorer import Scorer

    pictures = [writable_file(path, *PICTURE_ENDINGS) for path in args.out]
    delay_us, hash_key = label_delay_us_of(args.label_delay), hash_key_of(args.hash_key_file)
    feature_set = feature_set_of(load_model(args.model), args.features)
    table = read_table(args.data, args.map, feature_set=feature_set)
    timeline = timeline_of(table, feature_set, hash_key, delay_us)
    position = _position_of(args.transaction, table, timeline)
    with Scorer.open(ScorerConfig(model=args.model, policy=args.policy, hash_key=hash_key)) as scorer:
        stream = Stream(scorer, table, timeline)
        with counting("history", position) as progress:
            for _ in stream.score(0, position, progress):
                pass
        for _, transaction in stream.one_by_one(position, position + 1):
            decision, explanation = scorer.score(transaction, record=False), scorer.explain(transaction)
    for line in explanation_lines(decision, explanation):
        say(line)
    for path in pictures:
        write_waterfall(explanation, path, title=f"Transaction {shown(args.transaction)}: {decision.outcome.value}")
        say(f"waterfall {path}")


def _position_of(transaction_id: str, table: Table, timeline: Timeline) -> int:
    """Where the transaction first comes in event-time order."""
    import numpy as np

    from fraudsdk.domain.masking import shown

    found = np.flatnonzero(timeline.transaction_id == transaction_id)
    if len(found) == 0:
        raise ConfigurationError(f"{table.source} has no transaction {shown(transaction_id)}; give one of its ids")
    return int(found[0])
