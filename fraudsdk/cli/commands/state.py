"""``fraudsdk state``: look at the state that a scorer keeps, verify it, shorten its recovery, move it, erase somebody."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraudsdk.cli.erasure import add_identifiers, identifiers_of
from fraudsdk.cli.options import hash_key_of, new_parser, note, note_forgotten, say, writable_file
from fraudsdk.cli.progress import counting
from fraudsdk.errors import ConfigurationError, StateUnavailableError

if TYPE_CHECKING:
    from fraudsdk.config import ScorerConfig
    from fraudsdk.entity_state.state_directory import StateDirectory
    from fraudsdk.entity_state.survey import SegmentFound, SnapshotFound, Survey
    from fraudsdk.entity_state.transfer import Moved
    from fraudsdk.scorer.erasure import Erased

FOUND_WRONG = 1


def register(commands: Any) -> argparse.ArgumentParser:
    """Add the command's parser, and those of what it can do."""
    parser = new_parser(
        commands,
        "state",
        run,
        summary="look at the state that a scorer keeps, verify it, shorten its recovery, move it, erase somebody from it",
        example="fraudsdk state info /var/lib/fraud/state",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    for add in (_add_info, _add_verify, _add_compact, _add_erase, _add_export, _add_import):
        # SUPPRESS: the default of an action must not undo what stood in front of it.
        add(actions).add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def run(args: argparse.Namespace) -> int | None:
    """Do what was asked."""
    code: int | None = args.act(args)
    return code


def _action(
    actions: Any, name: str, act: Callable[[argparse.Namespace], int | None], **said: str
) -> argparse.ArgumentParser:
    """The parser of one action; most are about a directory that is there."""
    parser = new_parser(actions, name, run, **said)
    if act is _erase:
        parser.add_argument(
            "where", metavar="DIR|URL", help="a scorer's state directory, or the Redis that processes share"
        )
    elif act is not _import:
        parser.add_argument("directory", metavar="DIR", type=Path, help="a scorer's state directory")
    parser.set_defaults(act=act)
    return parser


def _add_info(actions: Any) -> argparse.ArgumentParser:
    parser = _action(
        actions,
        "info",
        _info,
        summary="what is kept, and what a recovery would read",
        example="fraudsdk state info /var/lib/fraud/state --json",
        more="Needs neither the key nor that the scorer stops.",
    )
    parser.add_argument("--json", action="store_true", help="print it for programs")
    return parser


def _add_verify(actions: Any) -> argparse.ArgumentParser:
    return _action(
        actions,
        "verify",
        _verify,
        summary="verify every checksum of every file, and that nothing is missing between them",
        example="fraudsdk state verify /var/lib/fraud/state",
        more="Needs neither the key nor that the scorer stops.  Exit code 1 where something is wrong.",
    )


def _add_compact(actions: Any) -> argparse.ArgumentParser:
    parser = _action(
        actions,
        "compact",
        _compact,
        summary="take a snapshot and remove what it makes superfluous, so that the next start is quick",
        example="fraudsdk state compact /var/lib/fraud/state --model models/cards --hash-key-file key",
        more="The scorer must have stopped.",
    )
    _add_what_it_was_kept_with(parser)
    return parser


def _add_erase(actions: Any) -> argparse.ArgumentParser:
    parser = _action(
        actions,
        "erase",
        _erase,
        summary="erase a subject: everything that is kept of a user, a card, a device, ...",
        example="fraudsdk state erase /var/lib/fraud/state --user u-1 --card c-1 --model models/cards --hash-key-file key",
        more="Of a directory the scorer must have stopped; one that runs has Scorer.erase.  Every older file is removed.  Of a "
        "Redis, such as redis://fraud@redis.bank:6379/0, or @FILE that holds the URL, processes that run leave for that time, "
        "and decide on.  What is left is looked through: exit code 1 where something is still found.",
    )
    parser.add_argument("--group", metavar="NAME", default="s", help="of the processes that share a Redis (default: s)")
    add_identifiers(parser)
    _add_what_it_was_kept_with(parser)
    return parser


def _add_what_it_was_kept_with(parser: argparse.ArgumentParser) -> None:
    """The model or features, the key and the bounds of the scorer."""
    means = parser.add_mutually_exclusive_group(required=True)
    means.add_argument("--model", metavar="DIR", type=Path, help="the model's folder")
    means.add_argument("--features", metavar="FILE", type=Path, help="feature set of a scorer without a model")
    parser.add_argument(
        "--hash-key-file", metavar="FILE", type=Path, required=True, help="the secret that the scorer keeps state with"
    )
    for name in ("max-entities", "journal-capacity"):
        parser.add_argument(
            f"--{name}", metavar="N", type=int, help="as the scorer has it (default: that of the newest snapshot)"
        )


def _add_export(actions: Any) -> argparse.ArgumentParser:
    parser = _action(
        actions,
        "export",
        _export,
        summary="put all that a recovery needs into one file",
        example="fraudsdk state export /var/lib/fraud/state --out state.tar",
        more="The scorer must have stopped.",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the file, a plain tar")
    return parser


def _add_import(actions: Any) -> argparse.ArgumentParser:
    parser = _action(
        actions,
        "import",
        _import,
        summary="make a state directory of what was exported",
        example="fraudsdk state import state.tar --into /var/lib/fraud/state",
        more="Import only what you exported: checksums find accidents, they do not tell who wrote a file.",
    )
    parser.add_argument("exported", metavar="FILE", type=Path, help="what `fraudsdk state export` wrote")
    parser.add_argument("--into", metavar="DIR", type=Path, required=True, help="the directory, new or empty")
    return parser


# --- info -------------------------------------------------------------------------------------------------------------


def _info(args: argparse.Namespace) -> None:
    from fraudsdk.entity_state.state_directory import StateFiles
    from fraudsdk.entity_state.survey import survey

    found, now_s = survey(StateFiles(args.directory)), time.time()
    if args.json:
        say(json.dumps(info_document(args.directory, found, now_s), indent=2))
        return
    say(f"state       {args.directory}")
    for snapshot in found.snapshots:
        say(f"  {snapshot.path.name:<36}  {_written(snapshot, now_s)}  {_of_snapshot(snapshot)}")
    for segment in found.segments:
        say(f"  {segment.path.name:<36}  {_written(segment, now_s)}  {_of_segment(segment)}")
    for path in (*found.leftovers, *found.strangers):
        say(f"  {path.name:<36}  is not read")
    for line in _summary_lines(found):
        say(line)


def info_document(directory: Path, found: Survey, now_s: float) -> dict[str, Any]:
    """What ``info --json`` prints."""
    newest = found.newest
    return {
        "directory": str(directory),
        "snapshots": [
            {
                **_file_document(each, now_s),
                "before_change": each.sequence,
                "max_entities": each.head and each.head.max_entities,
                "journal_capacity": each.head and each.head.journal_capacity,
                "counters": each.counters,
            }
            for each in found.snapshots
        ],
        "segments": [
            {
                **_file_document(each, now_s),
                "first_change": each.first,
                "changes": each.stop - each.first,
                "torn_bytes": each.n_torn_bytes,
            }
            for each in found.segments
        ],
        "tombstones": newest.head.n_tombstones if newest and newest.head else 0,
        "place": found.mark
        and {
            "next": found.mark.place.next if found.mark.place.is_marked else None,
            "origin": found.mark.place.origin.decode("utf-8", "backslashreplace"),
            "changes_after": found.n_unmarked,
        },
        "leftovers": [path.name for path in found.leftovers],
        "strangers": [path.name for path in found.strangers],
        "recovery": {
            "snapshot": newest and newest.path.name,
            "segments": [each.path.name for each in found.to_replay],
            "changes": found.n_to_replay,
            "bytes": _bytes_to_read(found),
        },
    }


def _file_document(each: SnapshotFound | SegmentFound, now_s: float) -> dict[str, Any]:
    return {
        "name": each.path.name,
        "bytes": each.n_bytes,
        "age_s": round(max(0.0, now_s - each.written_s), 3),
        "problem": each.problem or None,
    }


def _summary_lines(found: Survey) -> Iterator[str]:
    newest = found.newest
    if newest is not None and newest.head is not None:
        yield (
            f"remembered  {newest.counters['entities']:,} entities and {newest.counters['events']:,} events, as of the newest "
            "snapshot"
        )
        if newest.head.n_tombstones:
            yield f"tombstones  {newest.head.n_tombstones:,}, of identifiers that were erased"
        yield (
            f"bounds      {newest.head.max_entities:,} entities, {newest.head.journal_capacity:,} transactions in the journal"
        )
    if found.mark is not None:
        yield f"place       {found.mark.place.said}"
    if found.mark_problem:
        yield f"place       cannot be read: {found.mark_problem}"
    begins = "no snapshot" if newest is None else newest.path.name
    yield (
        f"recovery    reads {begins} and applies {found.n_to_replay:,} changes of the log, "
        f"{size(_bytes_to_read(found))} in all"
    )
    if found.n_unmarked:
        yield f"            {found.n_unmarked:,} changes after the place do not count: they were never marked, or are not yet"
    torn = found.segments[-1].n_torn_bytes if found.segments else 0
    if torn:
        yield f"            {torn:,} bytes at the end of the log are no whole change, or are being written"


def _bytes_to_read(found: Survey) -> int:
    return (found.newest.n_bytes if found.newest else 0) + sum(each.n_bytes for each in found.to_replay)


def _written(each: SnapshotFound | SegmentFound, now_s: float) -> str:
    from fraudsdk.cli.words import duration

    age_us = int(max(0.0, now_s - each.written_s) * 1e6)
    return f"{size(each.n_bytes):>9}  {duration(age_us):>12} old"


def _of_snapshot(snapshot: SnapshotFound) -> str:
    if snapshot.problem:
        return f"cannot be read: {snapshot.problem}"
    return (
        f"the changes before {snapshot.sequence:,}: {snapshot.counters['entities']:,} entities, "
        f"{snapshot.counters['events']:,} events"
    )


def _of_segment(segment: SegmentFound) -> str:
    if segment.problem:
        return f"cannot be read: {segment.problem}"
    n = segment.stop - segment.first
    return f"{n:,} changes, {segment.first:,} to {segment.stop - 1:,}" if n else "no whole change yet"


def size(n_bytes: int) -> str:
    """
    Bytes in the unit that needs no more than four digits.

    Examples
    --------
    >>> size(999), size(12_345_678)
    ('999 B', '12.3 MB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} B"
    number = float(n_bytes)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"


# --- verify -----------------------------------------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    from fraudsdk.entity_state.state_directory import StateFiles
    from fraudsdk.entity_state.survey import verify

    files = StateFiles(args.directory)
    files.require_state()
    with counting("verify", _bytes_of(files.path), unit="B") as progress:
        verified = verify(files, progress)
    for report in verified.reports:
        say(f"{'wrong' if report.is_wrong else 'ok':<5}  {report.name:<36}  {size(report.n_bytes):>9}  {report.found}")
    if verified.wrong:
        first, *others = verified.wrong
        more = f" ({len(others)} more above)" if others else ""
        note(f"fraudsdk state: {args.directory}: {first.name} {first.found}{more}")
        return FOUND_WRONG
    if verified.mark is not None:
        say(f"{args.directory}: what counts ends at {verified.mark.place.said}")
    say(
        f"{args.directory}: nothing is wrong; a recovery would apply {verified.stop - verified.start:,} changes to "
        f"{'an empty memory' if verified.start == 1 else f'the snapshot of those before {verified.start:,}'}"
    )
    return 0


def _bytes_of(directory: Path) -> int:
    """Of all files that are there now; one that goes meanwhile counts for nothing."""
    n_bytes = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                n_bytes += entry.stat().st_size
            except FileNotFoundError:
                continue
    return n_bytes


# --- compact ----------------------------------------------------------------------------------------------------------


def _compact(args: argparse.Namespace) -> None:
    from fraudsdk.entity_state.survey import survey
    from fraudsdk.scorer.compaction import compact

    hash_key = hash_key_of(args.hash_key_file)
    with _locked(args.directory) as directory:
        before = survey(directory)
        config = _config_of(args, hash_key, before)
        say(f"{before.n_to_replay:,} changes of {size(_bytes_to_read(before))} would be recovered now")
        with _saying_what_is_full(args.directory):
            done = compact(directory, config)
        after = survey(directory)
    for problem in done.recovered.problems:
        note(problem)
    note_forgotten(done.counters)
    say(
        f"{done.snapshot}: {done.counters['entities']:,} entities and {done.counters['events']:,} events, "
        f"{size(done.snapshot.stat().st_size)}; bounds {config.max_entities:,} and {config.journal_capacity:,}"
    )
    say(f"a recovery reads it and {after.n_to_replay:,} changes, {size(_bytes_to_read(after))} in all")


# --- erase ------------------------------------------------------------------------------------------------------------


def _erase(args: argparse.Namespace) -> int:
    is_shared = "://" in args.where or args.where.startswith("@")
    args.directory = None if is_shared else Path(args.where)
    erased = _erased_from_redis(args) if is_shared else _erased_from_directory(args)
    for problem in erased.problems:
        note(problem)
    if erased.counters:
        note_forgotten(erased.counters)
    for line in _erased_lines(erased):
        say(line)
    for kind in erased.unsearched:
        note(f"which of {kind} are of whom cannot be told from their keys; those that the log named are erased")
    if is_shared:
        note("the files of Redis hold what was until they are written anew: have it run BGSAVE and BGREWRITEAOF")
    if erased.n_found:
        where = f"group {args.group}" if is_shared else args.where
        note(f"fraudsdk state: {where} still says something of whom was erased, in what is named above")
        return FOUND_WRONG
    return 0


def _erased_from_redis(args: argparse.Namespace) -> Erased:
    from fraudsdk.config import ScorerConfig
    from fraudsdk.telemetry.clock import SYSTEM_CLOCK

    try:
        from fraudsdk.adapters.redis import connect
        from fraudsdk.adapters.redis.erasure import erase_shared
    except ImportError as error:
        raise ConfigurationError("Redis needs redis-py; pip install 'fraudsdk[redis]'") from error

    identifiers, hash_key = identifiers_of(args), hash_key_of(args.hash_key_file)
    if args.as_in is not None:
        raise ConfigurationError("--as-in is for a directory; name whom to erase")
    url = Path(args.where[1:]).read_text(encoding="utf-8").strip() if args.where.startswith("@") else args.where
    config = ScorerConfig(model=args.model, features=args.features, hash_key=hash_key)
    with connect(url, timeout_s=5.0) as client, counting("erase", 0, unit="parts") as progress:
        return erase_shared(client, args.group, config, identifiers, SYSTEM_CLOCK.now_us(), progress=progress)


def _erased_from_directory(args: argparse.Namespace) -> Erased:
    from fraudsdk.entity_state.survey import survey
    from fraudsdk.scorer.erasure import erase_as_in, erase_kept
    from fraudsdk.telemetry.clock import SYSTEM_CLOCK

    identifiers, hash_key = identifiers_of(args), hash_key_of(args.hash_key_file)
    with _locked(args.directory) as directory, _saying_what_is_full(args.directory):
        config = _config_of(args, hash_key, survey(directory))
        if args.as_in is None:
            return erase_kept(directory, config, identifiers, SYSTEM_CLOCK.now_us())
        return erase_as_in(directory, config, args.as_in)


def _erased_lines(erased: Erased) -> Iterator[str]:
    """What was done, and what was looked through."""
    if erased.was_known:
        yield (
            f"erased      {erased.n_entities:,} entities and {erased.n_transactions:,} transactions; struck from what "
            f"{erased.n_mentions:,} others count"
        )
    else:
        yield "erased      nothing: nobody of that name was remembered"
    yield "tombstone   what happened until now and comes once more is not remembered"
    for each in erased.scanned:
        found = f"found {each.n_found:,} times, first at byte {each.first:,}" if each.n_found else "nothing found"
        yield f"scanned     {each.name:<36}  {size(each.n_bytes):>9}  {found}"


def _config_of(args: argparse.Namespace, hash_key: bytes, found: Survey) -> ScorerConfig:
    """As the scorer had it: the log does not say its bounds, the newest snapshot does."""
    from fraudsdk.config import ScorerConfig

    head = None if found.newest is None else found.newest.head
    bounds: dict[str, Any] = {}
    for name in ("max_entities", "journal_capacity"):
        if getattr(args, name) is not None:
            bounds[name] = getattr(args, name)
        elif head is not None:
            bounds[name] = getattr(head, name)
    return ScorerConfig(model=args.model, features=args.features, hash_key=hash_key, **bounds)


# --- export and import ------------------------------------------------------------------------------------------------


def _export(args: argparse.Namespace) -> None:
    from fraudsdk.entity_state.transfer import export_state

    out = writable_file(args.out)
    if out.absolute().parent.resolve() == args.directory.resolve():
        raise ConfigurationError(f"{out} lies in the state directory itself; choose another place")
    with (
        _locked(args.directory) as directory,
        counting("export", _bytes_of(args.directory), unit="B") as progress,
        _saying_what_is_full(out),
    ):
        moved = export_state(directory, out, progress)
    for problem in moved.problems:
        note(problem)
    if moved.n_torn_bytes and moved.place is not None:
        note(f"{moved.n_torn_bytes:,} bytes that came after {moved.place.said} were left out: the stream has them")
    elif moved.n_torn_bytes:
        note(f"{moved.n_torn_bytes:,} bytes at the end of the log are no whole change and were left out")
    say(f"{out}: {_what_moved(moved)}")


def _import(args: argparse.Namespace) -> None:
    from fraudsdk.entity_state.transfer import import_state

    with counting("import", args.exported.stat().st_size, unit="B") as progress, _saying_what_is_full(args.into):
        moved = import_state(args.exported, args.into, progress)
    say(f"{args.into}: {_what_moved(moved)}; every checksum is right")


def _what_moved(moved: Moved) -> str:
    n = moved.stop - moved.start
    begins = "" if moved.start == 1 else f"a snapshot of the changes before {moved.start:,}, and "
    until = "" if moved.place is None else f", up to {moved.place.said}"
    return f"{begins}{n:,} changes of the log{until}, {size(moved.n_bytes)}"


@contextmanager
def _locked(path: Path) -> Iterator[StateDirectory]:
    """A directory that holds state, and no scorer in it."""
    from fraudsdk.entity_state.state_directory import StateDirectory, StateFiles

    StateFiles(path).require_state()  # the lock would make a directory of any name
    directory = StateDirectory(path)
    try:
        yield directory
    finally:
        directory.close()


@contextmanager
def _saying_what_is_full(path: Path) -> Iterator[None]:
    """A file that cannot be written to does not say which one it is."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise StateUnavailableError(f"{path} could not be written: {error.strerror}; free its disk") from error
