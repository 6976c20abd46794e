"""
Clients in JavaScript: run as a process that is told what to do as JSON on its input, and says a line of JSON for each case.

What they need is pinned by package-lock.json and kept outside the repository, a folder for each list; `npm ci` brings it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NODE, NPM = shutil.which("node"), shutil.which("npm")
FETCH_S_MAX, RUN_S_MAX = 300, 120


def require_node() -> None:
    """Skip on a laptop without Node or its packages; fail in CI."""
    missing = None
    if NODE is None or NPM is None:
        missing = "node or npm is not installed: apt-get install nodejs npm"
    else:
        try:
            modules()
        except subprocess.SubprocessError as error:
            missing = f"npm does not bring the packages: {error}"
    if missing is not None:
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing, allow_module_level=True)


def modules() -> Path:
    """The folder of the packages, which is whole or not there."""
    pinned = [HERE / "package.json", HERE / "package-lock.json"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fraudsdk" / "node"
    folder = cache / hashlib.sha256(b"".join(each.read_bytes() for each in pinned)).hexdigest()[:16]
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as aside:
            fetched = Path(aside, "fetched")
            fetched.mkdir()
            for each in pinned:
                shutil.copy(each, fetched)
            # No package runs anything while it is installed.
            command = [NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(command, cwd=fetched, check=True, stdin=subprocess.DEVNULL, timeout=FETCH_S_MAX)
            fetched.rename(folder)
    return folder


def started(script: str, told: dict) -> subprocess.Popen:
    """A client that was told what to do, and whose output is read line by line."""
    client = subprocess.Popen(
        [NODE, str(HERE / script)],
        env={**os.environ, "INTEROP_MODULES": str(modules())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    client.stdin.write(json.dumps(told))
    client.stdin.close()
    client.stdin = None
    return client


def run(script: str, told: dict) -> dict[str, dict]:
    """What a client said of each case, by its name."""
    client = started(script, told)
    try:
        said, problems = client.communicate(timeout=RUN_S_MAX)
    except subprocess.TimeoutExpired:
        client.kill()
        raise
    assert 0 == client.returncode, problems[-3_000:]
    return {each["case"]: each for each in map(json.loads, said.splitlines())}
