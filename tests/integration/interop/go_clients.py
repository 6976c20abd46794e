"""
Clients that others wrote in Go: grpcurl and ghz, built from the Go module proxy, kept outside the repository.

They are a second opinion.  Where there is no Go they are left out, in CI too: no package of Debian brings a Go that builds them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
MODULES = {
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "ghz": "github.com/bojand/ghz/cmd/ghz@v0.93.0",
}
BUILD_S_MAX, RUN_S_MAX = 600, 60


def require_go() -> None:
    """Skip without Go; where it is, it must build them."""
    if GO is None:
        pytest.skip("go is not installed: https://go.dev/doc/install", allow_module_level=True)
    for name in MODULES:
        built(name)


def built(name: str) -> Path:
    """The program, built where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fraudsdk" / "go"
    folder = cache / MODULES[name].rpartition("/")[2]
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Go writes the program beside its name and moves it there: it is whole or not there.
        environment = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "", "CGO_ENABLED": "0"}
        subprocess.run([GO, "install", MODULES[name]], check=True, env=environment, timeout=BUILD_S_MAX)
    return folder / name


def run(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([built(name), *arguments], capture_output=True, text=True, timeout=RUN_S_MAX, check=False)
