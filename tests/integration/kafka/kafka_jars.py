"""
The jars of Apache Kafka: fetched once by Maven from where this machine has it look, checked, and kept outside the repository.

::

    python tests/integration/kafka/kafka_jars.py            fetch what is missing
    python tests/integration/kafka/kafka_jars.py --pin      after a change of pom.xml: write jars.sha256 anew
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PINNED = HERE / "jars.sha256"
FETCH_S_MAX = 300


def jars() -> list[Path]:
    """The jars where they are kept, all of them checked when they came; empty where they were not fetched."""
    folder = _folder()
    return sorted(folder.glob("*.jar")) if folder.is_dir() else []


def fetch() -> Path:
    """
    The folder of the jars, which is whole or not there.

    Raises
    ------
    SystemExit
        Maven does not bring them, or brings others.
    """
    folder = _folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        fetched = Path(aside, "jars")
        _ask_maven(fetched)
        if _listed(fetched) != PINNED.read_text(encoding="ascii"):
            raise SystemExit(f"Maven brought other jars than {PINNED} lists; nothing was kept")
        fetched.rename(folder)
    return folder


def pin() -> None:
    """Take what Maven brings now as what it is to bring."""
    with tempfile.TemporaryDirectory() as aside:
        _ask_maven(Path(aside, "jars"))
        PINNED.write_text(_listed(Path(aside, "jars")), encoding="ascii")


def _folder() -> Path:
    """One for each list, so that a change of it fetches anew."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "fraudsdk" / "kafka" / hashlib.sha256(PINNED.read_bytes()).hexdigest()[:16]


def _ask_maven(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise SystemExit("mvn is not installed: apt-get install maven")
    command = [maven, "--quiet", "--batch-mode", "--strict-checksums", "--file", str(HERE / "pom.xml")]
    command += ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=FETCH_S_MAX)


def _listed(folder: Path) -> str:
    """As sha256sum writes it."""
    return "".join(
        f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in sorted(folder.glob("*.jar"))
    )


if __name__ == "__main__":
    if "--pin" in sys.argv[1:]:
        pin()
    print(fetch())
