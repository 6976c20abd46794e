"""``fraudsdk kafka``: consume a stream of transactions, and tell what is wrong with them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.cli.brokers import add_login, connection_of
from fraudsdk.cli.options import add_hash_key, hash_key_of, new_parser
from fraudsdk.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from fraudsdk_sidecar.addresses import Address

    from fraudsdk.adapters.kafka.messages import MessageFormat
    from fraudsdk.adapters.kafka.partition import OpenState, StreamState
    from fraudsdk.config import ScorerConfig

DURABILITIES: Final = ("none", "interval", "sync")
_REDIS_TIMEOUT_S: Final = 1.0
_SECRET_BYTES: Final = 32


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser."""
    parser = new_parser(
        commands,
        "kafka",
        run,
        summary="consume a stream of transactions: decide on each once, and tell of those that are not approved",
        example="fraudsdk kafka --demo\n"
        "  fraudsdk kafka --brokers kafka:9092 --model compiled_models/mine --hash-key-file key --redis redis://redis:6379",
        more="It ends on SIGTERM, when what was scored is committed.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--brokers", metavar="HOST:PORT", help="several are parted by commas")
    what.add_argument("--demo", action="store_true", help="show it on brokers within this process, with no server")
    parser.add_argument(
        "--model", metavar="DIR", type=Path, default=Path("compiled_models/reference"), help="default: %(default)s"
    )
    add_hash_key(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--redis", metavar="URL", help="keep state in Redis, for several processes and readers")
    where.add_argument("--state-dir", metavar="DIR", type=Path, help="keep state on this machine, a folder a partition")
    parser.add_argument(
        "--redis-group", metavar="NAME", default="tx", help="of this stream alone (default: %(default)s)"
    )
    parser.add_argument(
        "--durability", choices=DURABILITIES, default="interval", help="of --state-dir (default: %(default)s)"
    )
    parser.add_argument("--group", metavar="NAME", default="fraud-detector", help="of consumers (default: %(default)s)")
    parser.add_argument(
        "--from-end", action="store_true", help="begin with what comes now, where nothing was read before"
    )
    parser.add_argument(
        "--may-skip", action="store_true", help="offsets may be missing: the topic is compacted or transactional"
    )
    parser.add_argument(
        "--max-entities", metavar="N", type=int, default=1_000_000, help="of a partition (default: %(default)s)"
    )
    parser.add_argument(
        "--journal-capacity",
        metavar="N",
        type=int,
        default=1_000_000,
        help="transactions of a partition that labels, reversals and duplicates can refer to (default: %(default)s)",
    )
    parser.add_argument("--metrics", metavar="HOST:PORT", help="serve /metrics, /healthz and /readyz there")
    _add_topics(parser)
    add_login(parser.add_argument_group("login"))
    return parser


def _add_topics(parser: argparse.ArgumentParser) -> None:
    topics = parser.add_argument_group("topics and messages")
    topics.add_argument("--topic", metavar="NAME", default="transactions", help="default: %(default)s")
    topics.add_argument("--alerts-topic", metavar="NAME", default="fraud-alerts", help="default: %(default)s")
    topics.add_argument("--dead-letters-topic", metavar="NAME", default="transactions.dlq", help="default: %(default)s")
    topics.add_argument("--decisions-topic", metavar="NAME", help="for all decisions; without it none are sent")
    topics.add_argument(
        "--labels-topic", metavar="NAME", help="of labels, in as many partitions; without it none are read"
    )
    topics.add_argument("--format", choices=("json", "avro", "protobuf"), default="json", help="default: %(default)s")
    topics.add_argument("--schemas", metavar="URL|DIR", help="a schema registry, or a folder of files such as 7.avsc")
    topics.add_argument(
        "--dead-letters-key-file",
        metavar="FILE",
        type=Path,
        help="32 bytes to encrypt dead letters with; without it what may be a card number is struck out",
    )


def run(args: argparse.Namespace) -> None:
    """Consume until a signal says otherwise; or show how that goes."""
    try:
        from fraudsdk_sidecar import logs
        from fraudsdk_sidecar.stream import consume

        from fraudsdk.adapters.kafka.worker import KafkaWorker, Topics
    except ImportError as error:
        raise MissingExtraError(error.name or "confluent-kafka", "kafka") from error
    if args.demo:
        from fraudsdk.cli.stream_demo import show

        return show(args.model)
    metrics = _address_of(args.metrics)
    connection = connection_of(args, args.brokers, "fraudsdk")
    open_state = open_state_of(args)
    topics = Topics(args.topic, args.alerts_topic, args.dead_letters_topic, args.decisions_topic, args.labels_topic)
    there = connection.reach()
    for each in (topics.transactions, topics.alerts, topics.dead_letters, topics.decisions, topics.labels):
        if each is not None and each not in there:
            raise ConfigurationError(f"{args.brokers} has no topic {each!r}; make it, or name another")
    logs.configure("info")
    worker = KafkaWorker(
        connection.settings(),
        topics,
        open_state,
        _format_of(args),
        _dead_letters_of(args),
        group=args.group,
        starts_at_end=args.from_end,
        may_skip=args.may_skip,
    )
    return consume(worker, metrics)


def open_state_of(args: argparse.Namespace) -> OpenState:
    """
    How the state of a partition is opened.

    Raises
    ------
    ConfigurationError
        Nothing says where it is kept, or a secret is missing.
    """
    if args.hash_key_file is None:
        raise ConfigurationError(
            "what is remembered is found by keyed hashes; name the file of the key with --hash-key-file"
        )
    from fraudsdk.config import ScorerConfig
    from fraudsdk.model.artefact import load_artefact

    load_artefact(args.model)  # whoever mistyped it wants to know now
    config = ScorerConfig(
        args.model,
        hash_key=hash_key_of(args.hash_key_file),
        max_entities=args.max_entities,
        journal_capacity=args.journal_capacity,
    )
    if args.redis is not None:
        return partial(_in_redis, config, args.redis, args.redis_group)
    if args.state_dir is not None:
        return partial(_on_this_machine, replace(config, durability=args.durability), args.state_dir, args.topic)
    raise ConfigurationError("nothing says where state is kept; name --redis URL or --state-dir DIR")


def _in_redis(config: ScorerConfig, url: str, group: str, partition: int, origin: bytes) -> StreamState:
    from fraudsdk.adapters.redis import StreamRedis, connect
    from fraudsdk.scorer.streamed_parts import StreamedParts

    return StreamedParts(config, StreamRedis(connect(url, timeout_s=_REDIS_TIMEOUT_S), partition, group), origin)


def _on_this_machine(config: ScorerConfig, folder: Path, topic: str, partition: int, origin: bytes) -> StreamState:
    from fraudsdk.adapters.kafka.local_state import LocalState

    mine = f"{topic}-{partition}"
    return LocalState(replace(config, state_dir=folder / mine), b"%s, %s" % (mine.encode(), origin))


def _address_of(text: str | None) -> Address | None:
    from fraudsdk_sidecar.addresses import Address

    try:
        return None if text is None else Address.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--metrics must be {error}; correct it") from error


def _format_of(args: argparse.Namespace) -> MessageFormat:
    from fraudsdk.adapters.kafka.messages import message_format
    from fraudsdk.adapters.kafka.schemas import FolderOfSchemas, RegistryOfSchemas, RegistryOptions, SchemaSource

    schemas: SchemaSource | None = None
    if args.schemas is not None:
        is_url = args.schemas.startswith(("http://", "https://"))
        schemas = RegistryOfSchemas(RegistryOptions(args.schemas)) if is_url else FolderOfSchemas(Path(args.schemas))
    return message_format(args.format, schemas=schemas)


def _dead_letters_of(args: argparse.Namespace) -> Any:
    from fraudsdk.adapters.kafka.dead_letters import DeadLetters

    if args.dead_letters_key_file is None:
        return DeadLetters()
    try:
        secret = args.dead_letters_key_file.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"--dead-letters-key-file {args.dead_letters_key_file} cannot be read: {error.strerror}; check the path"
        ) from error
    if len(secret) != _SECRET_BYTES:
        raise ConfigurationError(
            f"--dead-letters-key-file {args.dead_letters_key_file} holds {len(secret)} bytes, and must hold {_SECRET_BYTES}"
        )
    return DeadLetters(secret)
