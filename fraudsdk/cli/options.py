"""What several commands ask for in the same words, and how the words become objects."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fraudsdk.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fraudsdk.encoding.mapping import ColumnMapping
    from fraudsdk.training.split import Unlabelled

DATA_HELP: Final = "Parquet, CSV or NDJSON file, by its ending"
DEFAULT_LABEL_DELAY: Final = "7d"
_MAX_KEY_BYTES: Final = 4096
# Nothing that a command hashes outlives it, so there is nothing to protect; and the same command twice gives the same bits.
_NO_SECRET: Final = bytes(range(32))


def new_parser(
    commands: Any, name: str, run: Any, *, summary: str, example: str, more: str = ""
) -> argparse.ArgumentParser:
    """A command's parser, with one example under its options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.{f'  {more}' if more else ''}",
        epilog=f"Example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """The table, and which column of it is which field."""
    parser.add_argument("data", metavar="DATA", type=Path, help=DATA_HELP)
    add_mapping(parser)


def add_mapping(parser: argparse.ArgumentParser) -> None:
    """``--map``: pairs, a file, or the name of a shipped mapping."""
    parser.add_argument(
        "--map",
        metavar="FIELD=COLUMN",
        nargs="+",
        action="extend",
        default=[],
        help="which column is which field: pairs, a mapping file, or a shipped mapping (handbook, sparkov, tabformer, ...)",
    )


def add_label_delay(
    parser: argparse.ArgumentParser, default: str | None = DEFAULT_LABEL_DELAY, said: str = DEFAULT_LABEL_DELAY
) -> None:
    """``--label-delay``, whose default is `said` to be something."""
    parser.add_argument(
        "--label-delay",
        metavar="DURATION",
        default=default,
        help=f"how long after its transaction a label is known, where the data do not say (default: {said})",
    )


def add_unlabelled(parser: argparse.ArgumentParser) -> None:
    """``--unlabelled``."""
    parser.add_argument(
        "--unlabelled",
        choices=("genuine", "excluded"),
        help="what a transaction without a label counts as, once it is older than --label-delay (default: excluded where "
        "the table states genuine ones, genuine where it states frauds alone)",
    )


def add_hash_key(parser: argparse.ArgumentParser) -> None:
    """``--hash-key-file``."""
    parser.add_argument(
        "--hash-key-file",
        metavar="FILE",
        type=Path,
        help="secret of at least 16 bytes for entity keys and card tokens, should they have to agree with other systems'",
    )


def mapping_of(words: list[str]) -> ColumnMapping:
    """
    The mapping that ``--map`` asked for.

    Raises
    ------
    ConfigurationError
        Two mappings to start from, an unknown field, or no such mapping.
    """
    from fraudsdk.encoding.mapping import ColumnMapping

    pairs = [word for word in words if "=" in word]
    bases = [word for word in words if "=" not in word]
    if len(bases) > 1:
        raise ConfigurationError(
            f"--map names {len(bases)} mappings, {' and '.join(bases)}; name one, and pairs over it"
        )
    base = ColumnMapping.load(bases[0]) if bases else None
    return ColumnMapping.from_pairs(pairs, base)


def label_delay_us_of(text: str) -> int:
    """Microseconds of ``--label-delay``."""
    from fraudsdk.features.spec import duration_us

    return duration_us(text, where="--label-delay")


def unlabelled_of(word: str | None) -> Unlabelled | None:
    """What ``--unlabelled`` asked for; None = what the table itself says."""
    from fraudsdk.training.split import Unlabelled

    choices = {None: None, "genuine": Unlabelled.GENUINE_AFTER_HORIZON, "excluded": Unlabelled.EXCLUDED}
    return choices[word]


def hash_key_of(path: Path | None) -> bytes:
    """
    The secret in a file, less line breaks at its end; a constant that is none where there is no file.

    Raises
    ------
    ConfigurationError
        It cannot be read, or is too short.  Never shows any of it.
    """
    if path is None:
        return _NO_SECRET
    try:
        with path.open("rb") as file:
            key = file.read(_MAX_KEY_BYTES).rstrip(b"\r\n")
    except OSError as error:
        raise ConfigurationError(f"--hash-key-file {path} cannot be read: {error.strerror}; check the path") from error
    if len(key) < 16:
        raise ConfigurationError(
            f"--hash-key-file {path} holds {len(key)} bytes, at least 16 are needed; draw a longer key"
        )
    return key


def writable_file(path: Path, *endings: str) -> Path:
    """
    A file that can be written when the work is done, rather than an error after it.

    Raises
    ------
    ConfigurationError
        Another ending, a folder that does not exist or cannot be written to, or a folder in its place.
    """
    if endings and not path.name.endswith(endings):
        raise ConfigurationError(f"{path} ends in none of {', '.join(endings)}; rename it")
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; name a file in it")
    _check_folder(path.parent)
    return path


def new_folder(path: Path, *, replace: bool) -> Path:
    """
    A folder that an artefact can be put at.

    Raises
    ------
    ConfigurationError
        Something is there and may not be replaced, or its place cannot be written to.
    """
    if path.exists() and not is_empty_folder(path):
        if not replace:
            raise ConfigurationError(f"{path} exists; choose another place, or add --replace")
        if not (path / "manifest.json").is_file():
            # A slip of the pen must not cost anybody a home directory.
            raise ConfigurationError(f"{path} exists and holds no model, so it is not replaced; choose another place")
    _check_folder(_first_existing(path.absolute().parent))
    return path


def is_empty_folder(path: Path) -> bool:
    """A folder, with nothing in it."""
    return path.is_dir() and next(path.iterdir(), None) is None


def plain_name_of(text: str) -> str:
    """The nearest name that a model may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:128] or "model"


def say(line: str = "") -> None:
    """One line of output, seen at once even in a pipe."""
    print(line, flush=True)


def note(line: str) -> None:
    """One line beside the output."""
    print(line, file=sys.stderr, flush=True)


def note_forgotten(counters: Mapping[str, int]) -> None:
    """Say what the memory could not keep, if anything."""
    if counters["evicted_entities"]:
        note(f"{counters['evicted_entities']:,} entities were forgotten for want of room")
    if counters["labels_for_forgotten_transactions"]:
        note(
            f"{counters['labels_for_forgotten_transactions']:,} labels were about transactions that the memory no longer "
            "held, or never did, and are not in its risks"
        )


def _first_existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(f"folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"folder {folder} cannot be written to; choose another place")
