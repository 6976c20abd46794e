"""``fraudsdk simulate``: labelled transactions with known fraud patterns, into a file or a topic."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.cli.brokers import add_login, connection_of
from fraudsdk.cli.options import new_parser, say, writable_file
from fraudsdk.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from fraudsdk.simulation import SimulationSpec

MAX_RATE: Final = 1_000_000
_TOPIC: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,249}")
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
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", metavar="FILE", type=Path, help=f"ends in {', '.join(ENDINGS)}")
    where.add_argument(
        "--to-kafka", metavar="HOST:PORT", help="brokers to send them to, in event-time order, keyed by user"
    )
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
    _add_kafka(parser)
    return parser


def _add_kafka(parser: argparse.ArgumentParser) -> None:
    kafka = parser.add_argument_group("with --to-kafka")
    kafka.add_argument(
        "--topic", metavar="NAME", default="transactions", help="for transactions (default: %(default)s)"
    )
    kafka.add_argument(
        "--labels-topic", metavar="NAME", help="for labels, each once it is known; without it none are sent"
    )
    kafka.add_argument(
        "--rate", metavar="N", type=float, help="transactions per second (default: as many as brokers take)"
    )
    add_login(kafka)


def run(args: argparse.Namespace) -> None:
    """Simulate, and write or send."""
    from fraudsdk.simulation import SimulationSpec

    spec = SimulationSpec(
        transactions=args.transactions,
        users=args.users,
        days=args.days,
        fraud_rate=args.fraud_rate,
        currency=args.currency,
        seed=args.seed,
    )
    if args.to_kafka is not None:
        _send(args, spec)
    else:
        _write(writable_file(args.out, *ENDINGS), spec)


def _write(out: Path, spec: SimulationSpec) -> None:
    from fraudsdk.simulation import write
    from fraudsdk.training.files import written_whole

    columns, elapsed_s = _simulated(spec)
    with written_whole(out) as aside:
        write(columns, aside)
    _describe(out, spec, columns, elapsed_s)


def _send(args: argparse.Namespace, spec: SimulationSpec) -> None:
    _check_rate(args.rate)
    topics = [each for each in (args.topic, args.labels_topic) if each is not None]
    for each in topics:
        if not _TOPIC.fullmatch(each):
            raise ConfigurationError(
                "a topic is named by 1 to 249 of A-Z a-z 0-9 . _ -; correct --topic or --labels-topic"
            )
    try:
        from fraudsdk.adapters.kafka.producer import MessageProducer
        from fraudsdk.cli.to_kafka import send_table
    except ImportError as error:
        raise MissingExtraError(error.name or "confluent-kafka", "kafka") from error
    from fraudsdk.cli.data import map_columns
    from fraudsdk.cli.progress import counting
    from fraudsdk.encoding.mapping import ColumnMapping

    # Before the work of simulating: whoever mistyped a broker wants to know now.
    producer = MessageProducer(connection_of(args, args.to_kafka, "fraudsdk-simulate"))
    producer.check(*topics)
    columns, elapsed_s = _simulated(spec)
    _describe(args.to_kafka, spec, columns, elapsed_s)
    table = map_columns(columns, ColumnMapping(), "simulation")
    with counting("send", len(table)) as progress:
        sent = send_table(
            table, producer, args.topic, labels_topic=args.labels_topic, rate=args.rate, progress=progress
        )
    labels = f" and {sent.n_labels:,} labels" if args.labels_topic is not None else ""
    say(
        f"sent {sent.n_transactions:,} transactions{labels} in {sent.elapsed_s:.1f} s, "
        f"{sent.n_transactions / sent.elapsed_s:,.0f} transactions/s; brokers have all of them"
    )


def _simulated(spec: SimulationSpec) -> tuple[Any, float]:
    """The columns, and the seconds that they took."""
    from fraudsdk.simulation import simulate

    started_s = time.perf_counter()
    columns = simulate(spec)
    return columns, time.perf_counter() - started_s


def _describe(where: object, spec: SimulationSpec, columns: Any, elapsed_s: float) -> None:
    n, n_frauds = len(columns["is_fraud"]), int(columns["is_fraud"].sum())
    say(
        f"{where}: {n:,} transactions of {spec.users:,} users over {spec.days} days from {spec.start}, {n_frauds:,} frauds"
    )
    say(f"simulated in {elapsed_s:.1f} s, {n / elapsed_s:,.0f} transactions/s; column fraud_pattern is the answer")


def _check_rate(rate: float | None) -> None:
    if rate is not None and not 0 < rate <= MAX_RATE:
        raise ConfigurationError(
            f"--rate must be over 0 and at most {MAX_RATE:,}, was {rate:g}; leave it out for all at once"
        )
