"""The wire contract keeps to buf's STANDARD rules, as far as descriptors tell, and comments on everything."""

from __future__ import annotations

import re
import sys

import pytest

grpc_tools = pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")

from google.protobuf import descriptor_pb2  # noqa: E402


def described(proto, tmp_path_factory):
    """Descriptors of a folder of .proto files, with their comments."""
    from pathlib import Path

    from grpc_tools import _proto, protoc

    out = tmp_path_factory.mktemp("descriptors") / "set"
    well_known = next(iter(_proto.__path__))
    files = sorted(str(path.relative_to(proto)) for path in Path(proto).rglob("*.proto"))
    told = protoc.main(
        ["", f"-I{proto}", f"-I{well_known}", f"--descriptor_set_out={out}", "--include_source_info", *files]
    )
    assert 0 == told
    return descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


@pytest.fixture(scope="module")
def files(request, tmp_path_factory):
    return described(request.config.rootpath / "proto", tmp_path_factory)


def snake(name):
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def complaints(file):
    """What buf would say of a file."""
    folder, _, name = file.name.rpartition("/")
    if file.package.replace(".", "/") != folder or not re.search(r"\.v[1-9]\d*$", file.package):
        yield f"{file.name}: package {file.package} must match the folder and end with a version"
    if not re.fullmatch(r"[a-z0-9_]+\.proto", name) or file.syntax != "proto3":
        yield f"{file.name}: lower_snake_case and proto3"
    for enum in file.enum_type:
        prefix = snake(enum.name).upper()
        if enum.value[0].number != 0 or enum.value[0].name != f"{prefix}_UNSPECIFIED":
            yield f"{enum.name}: the zero value must be {prefix}_UNSPECIFIED"
        yield from (f"{value.name} lacks {prefix}_" for value in enum.value if not value.name.startswith(f"{prefix}_"))
    for message in file.message_type:
        if not re.fullmatch(r"([A-Z][a-z0-9]+)+", message.name):
            yield f"{message.name} is not PascalCase"
        names = [each.name for each in (*message.field, *message.oneof_decl)]
        yield from (
            f"{message.name}.{each} is not lower_snake"
            for each in names
            if not re.fullmatch(r"_?[a-z0-9]+(_[a-z0-9]+)*", each)
        )
    for service in file.service:
        if not service.name.endswith("Service"):
            yield f"{service.name} must end with Service"
        for method in service.method:
            wanted = [f".{file.package}.{method.name}{kind}" for kind in ("Request", "Response")]
            if [method.input_type, method.output_type] != wanted:
                yield f"{method.name} must have messages of its own"
    yield from (f"{file.name}: {what} has no comment" for what in uncommented(file))


def uncommented(file):
    said = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
    for i, message in enumerate(file.message_type):
        if message.options.map_entry:
            continue
        places = [((4, i), message.name)]
        places += [((4, i, 2, j), f"{message.name}.{field.name}") for j, field in enumerate(message.field)]
        places += [
            ((4, i, 8, j), f"{message.name}.{oneof.name}")
            for j, oneof in enumerate(message.oneof_decl)
            if not oneof.name.startswith("_")  # what `optional` makes
        ]
        yield from (name for path, name in places if path not in said)
    for i, enum in enumerate(file.enum_type):
        places = [((5, i), enum.name)] + [((5, i, 2, j), value.name) for j, value in enumerate(enum.value)]
        yield from (name for path, name in places if path not in said)
    for i, service in enumerate(file.service):
        places = [((6, i), service.name)] + [((6, i, 2, j), method.name) for j, method in enumerate(service.method)]
        yield from (name for path, name in places if path not in said)


def test_the_contract_keeps_to_the_style(files):
    assert {"transaction.proto", "decision.proto", "explanation.proto", "scoring_service.proto"} == {
        file.name.rpartition("/")[2] for file in files
    }
    assert [] == [complaint for file in files for complaint in complaints(file)]


@pytest.mark.parametrize(
    ("was", "planted", "complaint"),
    [
        ("RUNG_UNSPECIFIED", "RUNG_UNKNOWN", "Rung: the zero value must be RUNG_UNSPECIFIED"),
        ("  OUTCOME_REVIEW", "  REVIEW", "REVIEW lacks OUTCOME_"),
        ("bool degraded ", "bool isDegraded ", "Decision.isDegraded is not lower_snake"),
        ("  // What to do.\n", "", "fraudsdk/v1/decision.proto: Decision.outcome has no comment"),
        ("package fraudsdk.v1", "package fraudsdk.v2", "fraudsdk/v1/decision.proto: package fraudsdk.v2 must match"),
    ],
)
def test_a_planted_offence_is_reported(request, tmp_path, tmp_path_factory, was, planted, complaint):
    """
    Negative control: a check that cannot fail is none.
    """
    source = (request.config.rootpath / "proto/fraudsdk/v1/decision.proto").read_text(encoding="utf-8")
    assert was in source
    (tmp_path / "fraudsdk/v1").mkdir(parents=True)
    (tmp_path / "fraudsdk/v1/decision.proto").write_text(source.replace(was, planted), encoding="utf-8")

    (file,) = described(tmp_path, tmp_path_factory)

    assert any(each.startswith(complaint) for each in complaints(file))


def test_the_committed_code_is_what_the_compiler_makes_of_the_contract(request, tmp_path):
    """
    Byte for byte; the lock file pins the compiler.  After a change of proto/: make proto.
    """
    root = request.config.rootpath
    sys.path.insert(0, str(root / "proto"))
    try:
        import generate
    finally:
        sys.path.remove(str(root / "proto"))

    made = generate.generate(tmp_path)

    committed = {path for folder in (generate.MESSAGES, generate.SERVICE) for path in (root / folder).glob("*_pb2*")}
    assert {path.relative_to(tmp_path) for path in made} == {path.relative_to(root) for path in committed}
    for path in made:
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes(), path.name
