"""What the page about the sidecar tells people to type can be typed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from fraudsdk_sidecar.settings import KEYS, Settings, variable_of

from fraudsdk.cli import app

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "sidecar.md").read_text(encoding="utf-8")


def test_its_commands_are_understood():
    commands = [line.removeprefix("$ ") for line in PAGE.splitlines() if line.startswith("$ ")]

    assert ["sidecar"] * 2 == [app._parser().parse_args(shlex.split(each)[1:]).command for each in commands]


def test_its_keys_variables_and_files_are_there():
    sections = {name.partition(".")[0] for name in KEYS if "." in name}
    for name in re.findall(r"`([a-z]+\.[a-z_]+)`?(?= |,|`)", PAGE):
        if name.partition(".")[0] in sections:
            assert name in KEYS, name
    assert set(re.findall(r"FRAUDSDK_SIDECAR_[A-Z_]+", PAGE)) <= {variable_of(name) for name in KEYS}
    for path in re.findall(r"`((?:sidecar|proto)/[\w./-]+)`", PAGE):
        assert (ROOT / path).exists(), path


def test_its_bounds_are_the_defaults():
    limits = Settings().limits
    for name in (
        "anonymous_per_minute",
        "clients",
        "transactions_per_message",
        "threads",
        "concurrent_rpcs",
        "streams",
    ):
        assert f"`limits.{name}` ({getattr(limits, name):,})" in PAGE, name


def test_its_figures_are_served():
    import fraudsdk_sidecar.metrics

    source = Path(fraudsdk_sidecar.metrics.__file__).read_text(encoding="utf-8")
    for name in re.findall(r"`(fraudsdk_[a-z_]+)", PAGE):
        stem = name.removesuffix("_total").removesuffix("_info")
        assert f'"{stem}"' in source or stem.removeprefix("fraudsdk_") in source, name
