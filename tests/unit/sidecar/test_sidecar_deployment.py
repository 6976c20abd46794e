"""
What the deployment files name is there: flags, keys, ports, paths, services.

They are written in a plain part of YAML, which `plain_yaml` reads; anything else in them fails here.
"""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from fraudsdk_sidecar.addresses import Address
from fraudsdk_sidecar.settings import KEYS, variable_of

from fraudsdk.cli import app

ROOT = Path(__file__).parents[3]
SIDECAR = ROOT / "sidecar"
STREAM_MANIFESTS = sorted((SIDECAR / "kubernetes").glob("stream-*.yaml"))
MANIFESTS = sorted(set((SIDECAR / "kubernetes").glob("*.yaml")) - set(STREAM_MANIFESTS))
HASH_KEY = {"FRAUDSDK_SIDECAR_HASH_KEY": "a key for tests only"}


def plain_yaml(text):
    """Mappings and sequences by indentation, scalars on one line, and ``|`` blocks."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines()]
    value, rest = _block(lines, 0, 0)
    assert rest == len(lines), f"cannot read {lines[rest]}"
    return value


def _skip(lines, at):
    while at < len(lines) and (not lines[at][1] or lines[at][1].startswith("#")):
        at += 1
    return at


def _block(lines, at, indent):
    at, found = _skip(lines, at), None
    while at < len(lines) and lines[at][0] == indent:
        text = lines[at][1]
        if text.startswith("- "):
            found = [] if found is None else found
            lines[at] = indent + 2, text[2:]
            if re.fullmatch(r"[\w./-]+:( .*)?", text[2:]):
                item, at = _block(lines, at, indent + 2)
            else:
                item, at = _scalar(text[2:]), at + 1
            found.append(item)
        else:
            found = {} if found is None else found
            key, colon, said = text.partition(":")
            assert colon and key not in found and (not said or said[0] == " "), f"cannot read {text}"
            found[_scalar(key)], at = _value(lines, at + 1, indent, said.strip())
        at = _skip(lines, at)
    assert found is not None, "nothing there"
    return found, at


def _value(lines, at, indent, said):
    if said == "|":
        block = []
        while at < len(lines) and (lines[at][0] > indent or not lines[at][1]):
            block.append(lines[at][1])
            at += 1
        return "\n".join(block), at
    if said:
        return _scalar(said), at
    at = _skip(lines, at)
    return _block(lines, at, lines[at][0])


def _scalar(said):
    if said.startswith('"'):
        assert re.fullmatch(r'"[^"\\]*"', said), said
        return said[1:-1]
    assert not re.search(r"[\[\]&*!|>'@`%]|\s#|: ", said), f"too clever: {said}"
    return {"true": True, "false": False, "{}": {}}.get(said, int(said) if said.isdecimal() else said)


@pytest.fixture(scope="module")
def manifests():
    return {each["kind"]: each for each in map(plain_yaml, (path.read_text() for path in MANIFESTS))}


@pytest.fixture(scope="module")
def container(manifests):
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return container


def test_the_reader_of_these_tests_reads_what_it_should():
    text = '# c\na: 1\nb:\n  - x: "1"\n    y: true\n  - z\nc: |\n  d\n  e\n'

    assert {"a": 1, "b": [{"x": "1", "y": True}, "z"], "c": "d\ne"} == plain_yaml(text)
    for wrong in ("a: 1\na: 2", "a: *b", "a:\n   b: 1\n  c: 2", "a: b: c"):
        with pytest.raises((AssertionError, IndexError)):
            plain_yaml(wrong)


def test_every_manifest_is_about_the_same_pods(manifests):
    assert {
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    } == set(manifests)
    named = {"app.kubernetes.io/name": "fraudsdk-sidecar"}
    for each in manifests.values():
        assert each["apiVersion"] and "fraudsdk-sidecar" == each["metadata"]["name"]
        assert named == each["metadata"]["labels"]
    assert named == manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert named == manifests["Service"]["spec"]["selector"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert named == manifests[kind]["spec"]["selector"]["matchLabels"]
    assert named == manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert ("Deployment", "fraudsdk-sidecar") == (target["kind"], target["name"])


def test_the_configuration_in_the_cluster_is_one_that_starts_and_matches_its_pod(load_settings, manifests, container):
    variables = {each["name"] for each in container["env"]}
    assert variables <= {variable_of(name) for name in KEYS}
    environment = dict.fromkeys(variables, "redis://a/value-of-this-length")
    settings = load_settings(file=manifests["ConfigMap"]["data"]["sidecar.toml"], environment=environment)
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}

    assert settings.has_tls and settings.asks_who and not settings.insecure
    assert [ports["grpc"]] == [each.port for each in settings.addresses]
    assert ports["health"] == Address.parse(settings.health.listen).port
    assert ports["metrics"] == Address.parse(settings.metrics.listen).port
    stop_s = (
        settings.drain.announce_s
        + settings.drain.timeout_s
        + int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    )
    assert pod["terminationGracePeriodSeconds"] > stop_s + 5
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    named = [settings.tls.certificate, settings.tls.key, *(each.partition("=")[2] for each in settings.auth.keys)]
    for path in (container["args"][1], "/models/current", *named):
        assert any(str(path).startswith(f"{mount}/") for mount in mounts), path
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert manifests["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] < 16


def test_probes_services_and_policies_name_ports_that_there_are(manifests, container):
    from fraudsdk.adapters.grpc import SERVICE_NAME

    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    for probe in ("startupProbe", "readinessProbe"):
        assert ports["health"] == container[probe]["grpc"]["port"]
    assert SERVICE_NAME == container["readinessProbe"]["grpc"]["service"]
    assert (ports["metrics"], "/healthz") == tuple(
        container["livenessProbe"]["httpGet"][name] for name in ("port", "path")
    )
    assert [ports["grpc"]] == [each["port"] for each in manifests["Service"]["spec"]["ports"]]
    assert {each["targetPort"] for each in manifests["Service"]["spec"]["ports"]} <= set(ports)
    let_in = {port["port"] for rule in manifests["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]}
    assert {ports["grpc"], ports["metrics"]} == let_in
    annotations = manifests["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    assert str(ports["metrics"]) == annotations["prometheus.io/port"]


def test_the_figures_that_scaling_goes_by_are_served(manifests):
    import fraudsdk_sidecar.metrics

    source = Path(fraudsdk_sidecar.metrics.__file__).read_text()
    metrics = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]

    assert all(f'"{each["pods"]["metric"]["name"]}"' in source for each in metrics if each["type"] == "Pods")


def test_nobody_is_root_and_nothing_can_be_written(manifests, container):
    pod = manifests["Deployment"]["spec"]["template"]["spec"]

    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert f"USER {pod['securityContext']['runAsUser']}:" in (SIDECAR / "Dockerfile").read_text()


def arguments_of(words):
    """What the command line makes of them; it exits where it cannot."""
    return app._parser().parse_args(words)


def test_the_image_runs_commands_that_there_are_and_copies_what_is_there():
    dockerfile = (SIDECAR / "Dockerfile").read_text().replace("\\\n", " ")
    warmed = re.search(r"RUN \S+/fraudsdk (warmup .*)", dockerfile)[1]
    args = arguments_of(shlex.split(warmed))
    assert f"FRAUDSDK_CACHE_DIR={args.cache_dir}" in dockerfile
    assert 'ENTRYPOINT ["fraudsdk", "sidecar"]' in dockerfile
    assert arguments_of(["sidecar"]).command == "sidecar"
    for copied in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE):
        assert all((ROOT / source).exists() for source in copied.split()[:-1])
    assert set(re.findall(r"FRAUDSDK_SIDECAR_\w+", dockerfile)) <= {variable_of(name) for name in KEYS}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"--extra (\w+)", dockerfile)) <= set(extras)
    run = re.search(r"docker run .* fraudsdk-sidecar (.*)", dockerfile)[1]
    assert arguments_of(["sidecar", *shlex.split(run)]).insecure == "true"


def test_what_compose_starts_is_there_and_is_reached_from_this_machine_alone(load_settings):
    services = plain_yaml((SIDECAR / "docker-compose.yml").read_text())["services"]
    sidecar = services["sidecar"]
    assert (SIDECAR / sidecar["build"]["context"] / sidecar["build"]["dockerfile"]).exists()
    mounted = dict(each.rsplit(":", 2)[:2] for each in sidecar["volumes"])
    assert (SIDECAR / "docker-compose.toml").exists() and "./docker-compose.toml" in mounted
    assert mounted["./docker-compose.toml"] == arguments_of(["sidecar", *sidecar["command"]]).config.as_posix()
    environment = {**sidecar["environment"], **HASH_KEY}
    settings = load_settings(file=(SIDECAR / "docker-compose.toml").read_text(), environment=environment)

    published = {each.rpartition(":")[2] for each in sidecar["ports"]}
    assert published == {str(settings.addresses[0].port), settings.metrics.listen.rpartition(":")[2]}
    assert all(each.startswith("127.0.0.1:") for service in services.values() for each in service.get("ports", ()))
    assert f"//{next(name for name in services if name == 'redis')}:" in settings.redis.url
    assert set(sidecar["depends_on"]) <= set(services)
    assert int(sidecar["stop_grace_period"].removesuffix("s")) > settings.drain.timeout_s


def test_the_unit_starts_and_reloads_what_there_is():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string((SIDECAR / "systemd" / "fraudsdk-sidecar.service").read_text())
    service = unit["Service"]
    words = shlex.split(service["ExecStart"])

    assert words[0].endswith("/fraudsdk") and arguments_of(words[1:]).config
    assert ("notify", "/bin/kill -HUP $MAINPID") == (service["Type"], service["ExecReload"])
    assert "yes" == service["NoNewPrivileges"] and "strict" == service["ProtectSystem"]


def test_the_example_is_one_that_starts(load_settings):
    settings = load_settings(file=(SIDECAR / "sidecar.example.toml").read_text())

    assert settings.has_tls and settings.asks_who
    assert "MemoryDenyWriteExecute=" not in (SIDECAR / "systemd" / "fraudsdk-sidecar.service").read_text()


def test_the_stream_in_the_cluster_is_one_that_starts_and_scales_by_what_is_served():
    import fraudsdk_sidecar.stream

    manifests = {each["kind"]: each for each in map(plain_yaml, (path.read_text() for path in STREAM_MANIFESTS))}
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    args = arguments_of([*container["command"][1:], *container["args"]])
    named = {"app.kubernetes.io/name": "fraudsdk-stream"}
    metrics = manifests["HorizontalPodAutoscaler"]["spec"]["metrics"]
    source = Path(fraudsdk_sidecar.stream.__file__).read_text()
    mounts = [each["mountPath"] for each in container["volumeMounts"]]

    assert {"Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget"} == set(manifests)
    assert ("fraudsdk", "kafka") == (container["command"][0], args.command)
    assert [Address.parse(args.metrics).port] == [each["containerPort"] for each in container["ports"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert Address.parse(args.metrics).port == container[probe]["httpGet"]["port"]
    assert args.kafka_tls
    assert "--extra kafka" in (SIDECAR / "Dockerfile").read_text()
    for path in (args.model, args.hash_key_file, args.kafka_ca_file, args.kafka_certificate_file, args.kafka_key_file):
        assert any(str(path).startswith(f"{mount}/") for mount in mounts), path
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert all(f'"{each["pods"]["metric"]["name"]}"' in source for each in metrics if each["type"] == "Pods")
    assert "fraudsdk-stream" == manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert named == manifests[kind]["spec"]["selector"]["matchLabels"]
    assert named == manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]


def test_the_unit_of_the_stream_starts_what_there_is():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string((SIDECAR / "systemd" / "fraudsdk-stream.service").read_text())
    words = shlex.split(unit["Service"]["ExecStart"])
    args = arguments_of(words[1:])

    assert ("kafka", "${BROKERS}") == (args.command, args.brokers)
    assert args.state_dir.is_relative_to(f"/var/lib/{unit['Service']['StateDirectory']}")
    assert "yes" == unit["Service"]["NoNewPrivileges"] and "ExecReload" not in unit["Service"]
