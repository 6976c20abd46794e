from __future__ import annotations

import pytest

from fraudsdk.errors import MissingExtraError
from fraudsdk.training.extras import need


def test_an_absent_package_is_answered_with_the_command_that_brings_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'fraudsdk\[train\]'"):
        need("no_such_package_here.part")


def test_a_package_that_is_there_but_broken_is_not_called_absent(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import what_it_needs_itself")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="what_it_needs_itself"):
        need("half_installed")
