"""
Fuzz one reader of kept state, or of messages.

Run        python fuzz_readers.py (parts|log|snapshot|wire) [--without CHECK] FOLDER [libFuzzer's options]
Ends       with 0 after so many runs; otherwise with the input that broke a promise, in a file ``crash-...``

``--without`` leaves a check out of the reader, so that it can be seen that the fuzzer finds the hole.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import atheris
from holes import leave_out


def reader_of(name: str) -> Any:
    if name == "parts":
        from fuzz_parts import PartReader

        return PartReader(atheris.instrument_func)
    if name == "log":
        from fuzz_log import LogReader

        return LogReader(atheris.instrument_func)
    if name == "wire":
        from fuzz_wire import WireReader

        return WireReader(atheris.instrument_func)
    from fuzz_snapshot import SnapshotReader

    return SnapshotReader(atheris.instrument_func)


def main(arguments: list[str]) -> None:
    name, *arguments = arguments
    if arguments[0] == "--without":
        leave_out(arguments[1])
        arguments = arguments[2:]
    reader = reader_of(name)
    from mutator import changed, octets_of, words_of

    seeds = reader.seeds()
    corpus = Path(arguments[0])
    corpus.mkdir(exist_ok=True, parents=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    others = [words_of(seed) for seed in seeds]

    def mutate(octets: bytes, max_bytes: int, seed: int) -> bytes:
        draw = random.Random(seed)
        if name == "wire":  # which has no words: its lengths are varints
            return (reader.changed(octets, draw) if draw.random() < 0.9 else atheris.Mutate(octets, max_bytes))[
                :max_bytes
            ]
        if draw.random() < 0.1:
            octets = atheris.Mutate(octets, max_bytes)
            words = words_of(octets)
        else:
            words = changed(words_of(octets), draw, others)
        if draw.random() < 0.02:
            return octets_of(words)[:max_bytes]
        return octets_of(reader.repaired(words, draw))[:max_bytes]

    longest = 2 * max(map(len, seeds))
    atheris.Setup([sys.argv[0], *arguments, f"-max_len={longest}"], reader.read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
