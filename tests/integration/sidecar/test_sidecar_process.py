"""The service as a process: it starts, says how it is, answers, and is asked by strangers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client.parser import text_string_to_metric_families

SERVICE = "fraudsdk.v1.ScoringService"


def code_of(call, *args, **options):
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, timeout=10, **options)
    return raised.value.code()


def test_it_serves_as_it_was_told_and_says_so_everywhere(new_sidecar, purchase, stub_of):
    """
    Health of the whole and of each service, readiness for probes, figures for a scraper, lines for a log.
    """
    sidecar = new_sidecar().start()
    with sidecar.channel() as channel:
        health, score = health_pb2_grpc.HealthStub(channel), stub_of(channel).Score
        decision = score(purchase(1), timeout=10).decision
        for name in ("", SERVICE):
            assert (
                health_pb2.HealthCheckResponse.SERVING
                == health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
            )
        assert grpc.StatusCode.NOT_FOUND == code_of(health.Check, health_pb2.HealthCheckRequest(service="other"))
        assert grpc.StatusCode.INVALID_ARGUMENT == code_of(score, purchase(2, amount="-1"))
        unknown = channel.unary_unary(f"/{SERVICE}/Forget", lambda each: each, lambda each: each)
        assert grpc.StatusCode.UNIMPLEMENTED == code_of(unknown, b"")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(sidecar.metrics())
        for sample in family.samples
    }

    assert "reference/1" == decision.model_version
    assert "ready\n" == sidecar.metrics("/readyz")
    assert 1 == found["fraudsdk_rpcs_total", f"/{SERVICE}/Score", "OK"]
    assert 1 == found["fraudsdk_rpcs_total", f"/{SERVICE}/Score", "INVALID_ARGUMENT"]
    assert 1 == found["fraudsdk_decisions_total", "APPROVE"]
    assert 2 == found["fraudsdk_rpc_seconds_count", f"/{SERVICE}/Score"]
    assert 0 == sidecar.stop()
    assert ["listening", "listening", "ready", "draining", "stopped"] == [
        each["event.action"] for each in sidecar.events()
    ]


def test_a_watcher_is_told_when_it_stops_and_holds_nothing_up(new_sidecar):
    sidecar = new_sidecar().start()
    with sidecar.channel() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
        first = next(watch).status
        sidecar.process.terminate()
        then = next(watch).status

        assert (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING) == (first, then)
        assert 0 == sidecar.process.wait(timeout=5)  # far less than the time that calls under way have


def test_watchers_do_not_take_the_threads_of_those_who_work(new_sidecar, purchase, stub_of):
    sidecar = new_sidecar(limits__threads=2, limits__streams=1).start()
    with sidecar.channel() as channel:
        watches = [health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()) for _ in range(20)]
        for watch in watches:
            next(watch)

        assert stub_of(channel).Score(purchase(), timeout=10).decision.outcome
        for watch in watches:
            watch.cancel()


def test_it_tells_which_methods_there_are_unless_told_not_to(new_sidecar):
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    with new_sidecar().start().channel() as channel:
        [answer] = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=10)
        assert SERVICE in {each.name for each in answer.list_services_response.service}
    with new_sidecar(reflection=False).start().channel() as channel:
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=10)
        assert grpc.StatusCode.UNIMPLEMENTED == code_of(lambda timeout: next(answers))


def test_a_socket_of_this_machine_is_for_its_user_and_group(new_sidecar, purchase, stub_of, tmp_path):
    path = tmp_path / "s"
    sidecar = new_sidecar(listen=[f"unix:{path}", "127.0.0.1:0"], limits__anonymous_per_minute=1).start()
    with sidecar.channel(target=f"unix:{path}") as channel:
        for number in range(5):  # who may open the file is known, and no stranger whose rate is small
            assert stub_of(channel).Score(purchase(number), timeout=10).decision.outcome

    assert 0o660 == stat.S_IMODE(os.stat(path).st_mode)


def test_a_port_for_probes_has_health_and_nothing_else(new_sidecar, auth, purchase, stub_of):
    sidecar = new_sidecar(**auth, auth__health_without_token=False)
    target = f"127.0.0.1:{sidecar.metrics_port + 1}"
    sidecar.write(health__listen=target)
    sidecar.start()
    with sidecar.channel(target=target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)

        assert health_pb2.HealthCheckResponse.SERVING == answer.status
        assert grpc.StatusCode.UNIMPLEMENTED == code_of(stub_of(channel).Score, purchase())
    with sidecar.channel() as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert grpc.StatusCode.UNAUTHENTICATED == code_of(check, health_pb2.HealthCheckRequest())


def test_who_calls_too_often_is_told_when_to_come_again(new_sidecar, purchase, stub_of):
    sidecar = new_sidecar(limits__anonymous_per_minute=3).start()
    with sidecar.channel() as channel:
        score = stub_of(channel).Score
        for number in range(3):
            score(purchase(number), timeout=10)
        with pytest.raises(grpc.RpcError) as raised:
            score(purchase(3), timeout=10)
        [detail] = rpc_status.from_call(raised.value).details
        info = error_details_pb2.RetryInfo()

        assert grpc.StatusCode.RESOURCE_EXHAUSTED == raised.value.code()
        assert detail.Unpack(info) and 0 < info.retry_delay.ToTimedelta().total_seconds() <= 20
        for _ in range(10):  # a probe is never too often
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


def test_each_message_of_a_stream_counts(new_sidecar, purchase, stub_of):
    from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

    sidecar = new_sidecar(limits__anonymous_per_minute=3).start()
    messages = [pb.ScoreStreamRequest(transactions=[purchase(number).transaction]) for number in range(5)]
    with sidecar.channel() as channel:
        answers = stub_of(channel).ScoreStream(iter(messages), timeout=10)

        assert 3 == len([next(answers) for _ in range(3)])
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == code_of(lambda timeout: next(answers))


def test_open_streams_are_bounded_and_leave_room_for_single_calls(new_sidecar, purchase, stub_of):
    from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

    sidecar = new_sidecar(limits__threads=3, limits__streams=2).start()
    message = pb.ScoreStreamRequest(transactions=[purchase(1).transaction])

    def endless():
        import threading

        yield message
        threading.Event().wait(20)

    with sidecar.channel() as channel:
        stub = stub_of(channel)
        held = [stub.ScoreStream(endless(), timeout=30) for _ in range(2)]
        for stream in held:
            next(stream)

        third = stub.ScoreStream(iter([message]), timeout=10)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == code_of(lambda timeout: next(third))
        assert stub.Score(purchase(2), timeout=10).decision.outcome
        for stream in held:
            stream.cancel()


def test_one_client_leaves_streams_to_others(new_sidecar, purchase, stub_of, auth, token):
    from fraudsdk.adapters.protobuf._generated import scoring_service_pb2 as pb

    sidecar = new_sidecar(**auth, limits__streams=3, limits__streams_per_client=2).start()
    message = pb.ScoreStreamRequest(transactions=[purchase(1).transaction])
    answered = threading.Event()

    def held_open():
        yield message
        answered.wait(20)

    with sidecar.channel() as channel:
        many = stub_of(channel).ScoreStream
        one, other = ([("authorization", f"Bearer {token(sub=name)}")] for name in ("one", "other"))
        held = [many(held_open(), metadata=one, timeout=30) for _ in range(2)]
        for stream in held:
            next(stream)
        third = many(iter([message]), metadata=one, timeout=10)

        assert grpc.StatusCode.RESOURCE_EXHAUSTED == code_of(lambda timeout: next(third))
        assert next(many(iter([message]), metadata=other, timeout=10)).decisions
        answered.set()


def test_a_message_that_is_too_long_is_refused(new_sidecar, purchase, stub_of):
    sidecar = new_sidecar(limits__message_bytes=2048).start()
    with sidecar.channel() as channel:
        score = stub_of(channel).Score

        assert grpc.StatusCode.RESOURCE_EXHAUSTED == code_of(score, purchase(1, transaction_id="t" * 4000))
        packed = grpc.Compression.Gzip
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == code_of(
            score, purchase(1, transaction_id="t" * 100_000), compression=packed
        )
        assert score(purchase(2), timeout=10).decision.outcome


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model", "nowhere"], "no manifest.json in nowhere"),
        (["--listen", "0.0.0.0:1"], "which other machines reach, without TLS and authentication"),
        (["--workers", "2"], "set redis.url, which they share, or workers = 1"),
        (["--workres", "2"], "unrecognized arguments"),
        (["--tls-certificate", "c.pem", "--tls-key", "k.pem"], "tls.certificate c.pem cannot be read"),
        (["--listen", "192.0.2.1:5", "--insecure"], "cannot be listened on"),
    ],
)
@pytest.mark.parametrize("program", ["fraudsdk_sidecar", "fraudsdk.cli sidecar"])
def test_a_users_mistake_is_one_sentence(model, flags, said, program):
    command = [sys.executable, "-m", *program.split(), "--model", str(model), "--metrics-listen", "", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (2, "") == (done.returncode, done.stdout)
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_that_is_taken_and_a_state_that_is_kept_by_another_are_said(new_sidecar, tmp_path):
    first = new_sidecar(state_dir=str(tmp_path / "state")).start()
    second = new_sidecar(listen=first.settings["listen"])
    third = new_sidecar(state_dir=str(tmp_path / "state"))
    for each, complaint in ((second, "cannot be listened on"), (third, "state")):
        each.start(wait=False)

        assert 2 == each.process.wait(timeout=60)
        assert complaint in each.said().splitlines()[-1]


def test_it_prints_what_it_would_use(model):
    command = [sys.executable, "-m", "fraudsdk_sidecar", "--model", str(model), "--print-config"]
    environment = {**os.environ, "FRAUDSDK_SIDECAR_HASH_KEY": "hunter2 and so on"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)

    assert f'model = "{model}"' in done.stdout.splitlines()
    assert "hunter2" not in done.stdout


@pytest.fixture
def sharing(monkeypatch):
    """The environment of a sidecar that shares its state through a Redis that is not there."""
    monkeypatch.setenv("FRAUDSDK_SIDECAR_REDIS_URL", "redis://u:hunter2@127.0.0.1:1/0")
    monkeypatch.setenv("FRAUDSDK_SIDECAR_HASH_KEY", "a key for tests only")


@pytest.mark.parametrize(
    ("package", "named"), [("jwt", "pyjwt"), ("grpc_health", "grpcio-health-checking"), ("redis", "redis")]
)
@pytest.mark.usefixtures("sharing")
def test_a_package_that_is_not_installed_is_named_with_what_brings_it(model, package, named):
    program = f"import sys; sys.modules[{package!r}] = None\nimport fraudsdk_sidecar.app as app\nsys.exit(app.main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "--model", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    extra = "redis" if package == "redis" else "grpc"
    assert 2 == done.returncode
    assert f"fraudsdk-sidecar: {named} is not installed; run: pip install 'fraudsdk[{extra}]'" in done.stderr


@pytest.mark.usefixtures("sharing")
def test_a_redis_that_cannot_be_reached_is_said_without_its_password(model):
    command = [sys.executable, "-m", "fraudsdk_sidecar", "--model", str(model), "--metrics-listen", ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert 2 == done.returncode
    assert "hunter2" not in done.stdout + done.stderr and "Traceback" not in done.stderr
