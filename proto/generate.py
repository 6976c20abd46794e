"""
Writes the Python code of the wire contract: messages into ``fraudsdk/adapters/protobuf``, the service into its own adapter.

The code is committed, so that nobody who installs the package needs a compiler; a test makes it again and compares.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTO: Final = ROOT / "proto"
MESSAGES: Final = "fraudsdk/adapters/protobuf/_generated"
SERVICE: Final = "fraudsdk/adapters/grpc/_generated"
# The compiler names modules after the folders of the contract; here they live inside the adapters.
_OWN_IMPORT: Final = re.compile(r"\bfraudsdk\.v1\b(?= import)|(?<=^import )fraudsdk\.v1\b", re.MULTILINE)
_PLUGINS: Final = ("mypy", "mypy_grpc")


def generate(root: Path) -> list[Path]:
    """
    Write all generated files under a root, and return their paths.

    Raises
    ------
    RuntimeError
        The compiler refuses the contract.
    """
    from grpc_tools import _proto, protoc

    written = []
    with tempfile.TemporaryDirectory() as made:
        outputs = [f"--{kind}_out={made}" for kind in ("python", "grpc_python")]
        # The packages that follow quietly are not asked to say what they wrote.
        outputs += [f"--{kind}_out=quiet:{made}" for kind in _PLUGINS]
        outputs += [
            f"--plugin=protoc-gen-{kind}={Path(sys.executable).parent / f'protoc-gen-{kind}'}" for kind in _PLUGINS
        ]
        contract = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
        well_known = Path(next(iter(_proto.__path__)))
        if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", *outputs, *contract]) != 0:
            raise RuntimeError("protoc refused the contract; its message is above")
        for source in sorted(Path(made).rglob("*_pb2*.py*")):
            is_service = "_pb2_grpc" in source.name
            if is_service and "service" not in source.name:
                continue  # of a file without a service: nothing but a check of versions
            path = root / (SERVICE if is_service else MESSAGES) / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            package = MESSAGES.replace("/", ".")
            path.write_text(_OWN_IMPORT.sub(package, source.read_text(encoding="utf-8")), encoding="utf-8")
            written.append(path)
    return written


if __name__ == "__main__":
    for each in generate(ROOT):
        print(each.relative_to(ROOT))
