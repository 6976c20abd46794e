"""Progress of long work: a bar on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fraudsdk.errors import MissingExtraError

Counter = Callable[[int], None]
"""Called with the number of items done so far."""


@contextmanager
def counting(what: str, total: int, unit: str = "tx") -> Iterator[Counter]:
    """A bar over `total` items, to be told how many are done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingExtraError("tqdm", "data") from error
    with tqdm(desc=what, total=total, unit=unit, unit_scale=True, leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)
