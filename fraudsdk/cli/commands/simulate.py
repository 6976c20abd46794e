"""``fraudsdk simulate``: labelled transactions with known fraud patterns."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, Final

from fraudsdk.cli.options import new_parser, say, writable_file

ENDINGS: Final = (".parquet", ".csv", ".ndjson", ".jsonl")


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "simulate",
        run,
        summary="write labelled transactions with known fraud patterns",
        example="fraudsdk simulate --out transactions.parquet --transactions 200000 --seed 7",
        more="The same request gives the same rows.",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help=f"ends in {', '.join(ENDINGS)}")
    parser.add_argument("--transactions", metavar="N", type=int, default=200_000, help="rows (default: %(default)s)")
    parser.add_argument("--users", metavar="N", type=int, default=4_000, help="account holders (default: %(default)s)")
    parser.add_argument("--days", metavar="N", type=int, default=90, help="length of the period (default: %(default)s)")
    parser.add_argument(
        "--fraud-rate",
        metavar="SHARE",
        type=float,
        default=0.005,
        help="fraudulent share of rows (default: %(default)s)",
    )
    parser.add_argument("--currency", metavar="CODE", default="EUR", help="ISO 4217 (default: %(default)s)")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of the draws (default: %(default)s)")
    return parser


def run(args: argparse.Namespace) -> None:
    """Simulate and write."""
    from fraudsdk.simulation import SimulationSpec, simulate, write
    from fraudsdk.training.files import written_whole

    spec = SimulationSpec(
        transactions=args.transactions,
        users=args.users,
        days=args.days,
        fraud_rate=args.fraud_rate,
        currency=args.currency,
        seed=args.seed,
    )
    out = writable_file(args.out, *ENDINGS)
    started = time.perf_counter()
    columns = simulate(spec)
    elapsed_s = time.perf_counter() - started
    with written_whole(out) as aside:
        write(columns, aside)
    n, n_frauds = len(columns["is_fraud"]), int(columns["is_fraud"].sum())
    say(
        f"{out}: {n:,} transactions of {spec.users:,} users over {spec.days} days from {spec.start}, {n_frauds:,} frauds"
    )
    say(f"simulated in {elapsed_s:.1f} s, {n / elapsed_s:,.0f} transactions/s; column fraud_pattern is the answer")
