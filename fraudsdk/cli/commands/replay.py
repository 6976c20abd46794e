"""``fraudsdk replay``: the rows that the scorer would have computed."""

from __future__ import annotations

import argparse
import json
import time
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fraudsdk.cli.data import Table
    from fraudsdk.encoding.vocabulary import Vocabulary
    from fraudsdk.features.spec import FeatureSet
    from fraudsdk.training.replay import Replayed


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "replay",
        run,
        summary="compute point-in-time features of a table, each label delivered when it was known",
        example="fraudsdk replay transactions.parquet --features features.toml --out rows.parquet",
        more="The kernels are the scorer's own.",
    )
    add_data(parser)
    parser.add_argument("--features", metavar="FILE", type=Path, help="feature set (default: the shipped catalogue)")
    parser.add_argument("--currency", metavar="CODE", help="reference currency of the shipped catalogue")
    parser.add_argument(
        "--vocabulary",
        metavar="FILE",
        type=Path,
        help="codes of categories (default: learnt here, written beside --out)",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="Parquet, CSV or NDJSON, by its ending")
    add_label_delay(parser)
    add_hash_key(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Replay and write the rows."""
    from fraudsdk.cli.data import read_with_features
    from fraudsdk.cli.pipeline import replay_table
    from fraudsdk.training.tables import ENDINGS, write_columns

    out = writable_file(args.out, *ENDINGS)
    delay_us, hash_key = label_delay_us_of(args.label_delay), hash_key_of(args.hash_key_file)
    table, feature_set = read_with_features(args.data, args.map, args.features, args.currency)
    vocabulary = _vocabulary(args.vocabulary, table, feature_set)
    started = time.perf_counter()
    replayed = replay_table(table, feature_set, vocabulary, hash_key, delay_us)
    elapsed_s = time.perf_counter() - started
    if args.vocabulary is None and vocabulary.values:
        _write_vocabulary(vocabulary, out.with_name(f"{out.name}.vocabulary.json"))
    write_columns(_columns_of(replayed), out)
    n, n_rows = len(table), int(replayed.scored.sum())
    say(f"{out}: {n_rows:,} rows of {len(feature_set.features)} features")
    if n > n_rows:
        say(f"{n - n_rows:,} reversals, chargebacks and repeated transactions have no row of their own")
    say(f"replayed in {elapsed_s:.1f} s, {n / elapsed_s:,.0f} transactions/s, encoding and loading of kernels included")
    note_forgotten(replayed.engine.memory.counters())


def _vocabulary(given: Path | None, table: Table, feature_set: FeatureSet) -> Vocabulary:
    """The vocabulary in a file; or that of the table, where a feature is a code of it."""
    from fraudsdk.cli.pipeline import fit_vocabulary, load_vocabulary
    from fraudsdk.encoding.vocabulary import Vocabulary

    if given is not None:
        return load_vocabulary(given)
    if not any(feature.categorical for feature in feature_set.schema.features):
        return Vocabulary()
    return fit_vocabulary(table, feature_set)


def _write_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    from fraudsdk.training.files import written_whole

    with written_whole(path) as aside:
        aside.write_text(json.dumps(vocabulary.to_dict(), indent=2) + "\n", encoding="utf-8")
    say(f"{path}: codes of the categories, learnt from this table; --vocabulary uses them again")


def _columns_of(replayed: Replayed) -> dict[str, NDArray[Any]]:
    import numpy as np

    matrix = replayed.matrix()
    assert matrix.transaction_id is not None  # replay always knows it
    labels = np.array([None, 0, 1], dtype=object)[matrix.label + 1]
    rows = {name: matrix.rows[:, position] for position, name in enumerate(matrix.schema.names)}
    return {
        "transaction_id": matrix.transaction_id,
        "event_time_us": matrix.event_time_us,
        **rows,
        "is_fraud": labels,
    }
