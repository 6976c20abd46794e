"""Settings as a user would give them."""

from __future__ import annotations

import argparse

import pytest
from fraudsdk_sidecar.app import add_arguments
from fraudsdk_sidecar.settings import load


@pytest.fixture
def load_settings(tmp_path):
    """From text of a file, variables and flags; with a model, which everything needs."""

    def load_them(*flags, file="", environment=None):
        parser = argparse.ArgumentParser(allow_abbrev=False)
        add_arguments(parser)
        config = tmp_path / "sidecar.toml"
        config.write_text(file, encoding="utf-8")
        given = ["--config", str(config), "--model", "models/cards", *flags]
        return load(parser.parse_args(given), environment or {})

    return load_them
