"""Files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """
    A place beside `path` to write to, with its ending; renamed to `path` when the block ends well, else removed.

    Examples
    --------
    >>> with written_whole(Path("figures.json")) as aside:  # doctest: +SKIP
    ...     aside.write_text("{}")
    """
    aside = path.with_name(f".partial-{path.name}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
